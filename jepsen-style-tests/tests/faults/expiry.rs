//! Expiry is never early, and late only within a bound, whatever happens to the nodes.

use std::time::Duration;

use jepsen_style_tests::health::{Beat, Heartbeats, Observers, beat, register};
use jepsen_style_tests::rounds::{is_long_run, rounds};
use jepsen_style_tests::{Cluster, Limit, Result};

/// Lateness that is documented: critical by TTL + this in default reads on every node.
const LATE_MAX: Duration = Duration::from_millis(500);
/// An observer looks every 20 ms and is not the only process on two cores.
const OBSERVER_SLACK: Duration = Duration::from_millis(150);
/// How long after an election nothing expires, so that clients of a dead node can find another.
const GRACE: Duration = Duration::from_secs(2);
/// `DeregisterCriticalServiceAfter` has a minimum of one minute.
const DEREGISTER_AFTER: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_heartbeats_is_never_seen_critical() {
    const TTL: Duration = Duration::from_secs(2);
    let pause = Duration::from_secs(if is_long_run() { 10 } else { 5 });
    let mut cluster = Cluster::start(3).await.unwrap();
    let ids = cluster.ids();
    let mut services = Vec::new();
    for node in &ids {
        let id = format!("steady-{node}");
        register(&cluster.http(*node), "steady", &id, TTL, "").await.unwrap();
        services.push(Heartbeats::start(cluster.https(&ids), &id, TTL / 3));
    }
    let observers = Observers::start(&cluster, "steady").unwrap();
    for id in &ids {
        observers.wait_all_saw(&format!("steady-{id}"), "passing", TTL).await.unwrap();
    }
    for _ in 0..rounds(1) {
        let leader = aim_at_survivors(&cluster, &services).await.unwrap();
        cluster.kill(leader).unwrap();
        tokio::time::sleep(2 * TTL).await;
        cluster.start_node(leader).unwrap();
        cluster.wait_ready(leader).await.unwrap();
        assert_none_critical(&observers, "after a kill of the leader");

        let leader = aim_at_survivors(&cluster, &services).await.unwrap();
        cluster.pause(leader).unwrap();
        tokio::time::sleep(pause).await;
        cluster.resume(leader).unwrap();
        tokio::time::sleep(2 * TTL).await;
        assert_none_critical(&observers, "after a pause of the leader");
        let failed: usize = services.iter().map(Heartbeats::failed).sum();
        assert_eq!(failed, 0, "heartbeats at surviving nodes failed");

        let ids = cluster.ids();
        cluster.kill_all(&ids).unwrap();
        cluster.start_all().unwrap();
        cluster.wait_all_ready().await.unwrap();
        tokio::time::sleep(2 * TTL).await;
        assert_none_critical(&observers, "after a restart of the whole cluster");
        // Only the restart may fail a heartbeat; the next round counts from nothing.
        services.clear();
        for id in &ids {
            services.push(Heartbeats::start(cluster.https(&ids), &format!("steady-{id}"), TTL / 3));
        }
    }
    println!("{} looks, none critical", observers.looks());
    drop(services);
    drop(observers);
    cluster.finish().await.unwrap();
}

/// Has every service send its heartbeats to a node that is not the leader. Returns the leader.
async fn aim_at_survivors(cluster: &Cluster, services: &[Heartbeats]) -> Result<u64> {
    let leader = cluster.leader().await?;
    let survivors: Vec<_> =
        (0..cluster.ids().len()).filter(|position| cluster.ids()[*position] != leader).collect();
    for (service, position) in services.iter().zip(survivors.iter().cycle()) {
        service.aim_at(*position);
    }
    // A heartbeat on its way to the leader would be lost with it: wait for the next ones.
    let before: Vec<_> = services.iter().map(Heartbeats::acknowledged).collect();
    let limit = Limit::new(Duration::from_secs(10));
    while services.iter().zip(&before).any(|(s, before)| s.acknowledged() < before + 2) {
        limit.pause(|| "heartbeats are acknowledged".to_owned()).await?;
    }
    Ok(leader)
}

fn assert_none_critical(observers: &Observers, when: &str) {
    let critical: Vec<_> =
        observers.sightings().into_iter().filter(|s| s.status != "passing").collect();
    assert!(critical.is_empty(), "{when}: {critical:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_falls_silent_is_critical_in_time_and_deregistered_in_time() {
    const TTL: Duration = Duration::from_secs(1);
    let cluster = Cluster::start(3).await.unwrap();
    let ids = cluster.ids();
    let observers = Observers::start(&cluster, "silent").unwrap();
    let doomed = Observers::start(&cluster, "doomed").unwrap();
    let node = |number: u32| cluster.http(ids[number as usize % ids.len()]);
    register(&node(0), "doomed", "doomed", TTL, "1m").await.unwrap();
    // A new leader's clock starts after a grace of 2 s. The bounds below are those of a steady state,
    // which is reached when something has expired.
    doomed.wait_all_saw("doomed", "critical", GRACE + 3 * TTL).await.unwrap();
    for lifetime in 0..rounds(10) {
        let id = format!("silent-{lifetime}");
        register(&node(lifetime), "silent", &id, TTL, "").await.unwrap();
        // The heartbeat goes through another node than the registration did.
        let last = beat(&node(lifetime + 1), &id).await.unwrap();
        observers.wait_all_saw(&id, "critical", 3 * TTL).await.unwrap();
        require_in_time(&observers, &id, last, TTL);
    }
    doomed.wait_all_saw("doomed", "gone", DEREGISTER_AFTER + Duration::from_secs(5)).await.unwrap();
    let critical = doomed.first("doomed", "critical").iter().map(|s| s.asked).min().unwrap();
    for gone in doomed.first("doomed", "gone") {
        let after = gone.answered - critical;
        assert!(
            after + OBSERVER_SLACK >= DEREGISTER_AFTER,
            "deregistered early: {after:?} {gone:?}"
        );
        assert!(after <= DEREGISTER_AFTER + LATE_MAX + OBSERVER_SLACK, "late: {after:?} {gone:?}");
    }
    drop((observers, doomed));
    cluster.finish().await.unwrap();
}

/// Never before TTL after the last heartbeat was sent, by TTL + 500 ms after it was acknowledged.
fn require_in_time(observers: &Observers, id: &str, last: Beat, ttl: Duration) {
    let mut latest = Duration::ZERO;
    for sighting in observers.first(id, "critical") {
        let early = (last.sent + ttl).saturating_duration_since(sighting.answered);
        assert!(early.is_zero(), "{id} expired {early:?} early: {sighting:?}");
        let late = sighting.answered.saturating_duration_since(last.acknowledged + ttl);
        assert!(late <= LATE_MAX + OBSERVER_SLACK, "{id} expired {late:?} late: {sighting:?}");
        latest = latest.max(late);
    }
    println!("{id} was critical everywhere {} ms after its TTL", latest.as_millis());
}
