//! The leader ends under load: no request at a surviving node fails, nothing acknowledged is lost, and nothing is
//! applied twice.
//!
//! `QUORATE_ROUNDS=20 cargo test --test faults leader_kill:: -- --nocapture` prints the figures of the long run and
//! holds it to the limits of a release. The limits of the short run are looser, because two busy cores and an
//! unoptimised build make elections longer.

use std::time::Duration;

use jepsen_style_tests::load::{FAILOVER, Failover, Load, Traffic};
use jepsen_style_tests::rounds::{is_long_run, rounds};
use jepsen_style_tests::workload::set_and_counters;
use jepsen_style_tests::{Cluster, Result};

/// A kill under less traffic than this proves little.
const RATE_MIN: usize = 500;
/// As does one across which no request is held (800 a second, for some tens of milliseconds).
const HELD_MIN: usize = 3;
/// How long the load runs before and after the fault.
const WARM_UP: Duration = Duration::from_millis(2_000);
const AFTERWARDS: Duration = Duration::from_millis(2_500);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Kill,
    Terminate,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_fails_no_request_at_the_survivors() {
    let failovers = play(Way::Kill, rounds(3)).await.unwrap();
    for failover in &failovers {
        assert!(failover.rate_before >= RATE_MIN, "vacuous: too little traffic: {failover:?}");
        assert!(failover.held >= HELD_MIN, "vacuous: too few requests held: {failover:?}");
    }
    let bar = if is_long_run() { 150 } else { 2_500 };
    assert!(median_gap(&failovers) <= Duration::from_millis(bar));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_leader_hands_over_and_fails_no_request_at_the_survivors() {
    let failovers = play(Way::Terminate, rounds(3)).await.unwrap();
    for failover in &failovers {
        assert!(failover.rate_before >= RATE_MIN, "vacuous: too little traffic: {failover:?}");
    }
    let bar = if is_long_run() { 200 } else { 1_000 };
    assert!(median_gap(&failovers) <= Duration::from_millis(bar));
}

/// Rounds of: load at the followers, the leader ends, the traffic is checked, the node is started again.
async fn play(way: Way, rounds: u32) -> Result<Vec<Failover>> {
    let mut cluster = Cluster::start(3).await?;
    let hashes = cluster.watch_hashes(Duration::from_millis(50));
    let mut failovers = Vec::new();
    for round in 1..=rounds {
        let prefix = format!("round-{round}/");
        let (failover, traffic) = one_round(&mut cluster, way, &prefix).await?;
        println!(
            "round {round}: {} requests/s before, {} held, {} failed, {} ms without a write, {} writes",
            failover.rate_before,
            failover.held,
            failover.failed,
            failover.gap.as_millis(),
            traffic.acknowledged_writes(),
        );
        require_no_failure(&traffic)?;
        // Read through every node, the one that came back included.
        traffic.require_valid(&cluster).await?;
        failovers.push(failover);
    }
    println!("time without a write, ms: {}", distribution(&failovers));
    let failed: usize = failovers.iter().map(|failover| failover.failed).sum();
    println!("failed requests at the surviving servers in {rounds} rounds: {failed}");
    drop(hashes);
    cluster.finish().await?;
    Ok(failovers)
}

async fn one_round(cluster: &mut Cluster, way: Way, prefix: &str) -> Result<(Failover, Traffic)> {
    let leader = cluster.leader().await?;
    let (survivors, workload) = (cluster.others(leader), set_and_counters(prefix));
    let load = Load::start(cluster, &survivors, workload, FAILOVER).await?;
    tokio::time::sleep(WARM_UP).await;
    let moment = match way {
        Way::Kill => cluster.kill(leader)?,
        Way::Terminate => cluster.terminate(leader)?,
    };
    tokio::time::sleep(AFTERWARDS).await;
    // Stopping waits for every request that is still held.
    let traffic = load.stop().await?;
    if way == Way::Terminate {
        let status = cluster.wait_stopped(leader)?;
        assert!(status.success(), "a stopped server ends with {status}");
    }
    cluster.start_node(leader)?;
    cluster.wait_ready(leader).await?;
    Ok((traffic.failover(moment)?, traffic))
}

fn require_no_failure(traffic: &Traffic) -> Result<()> {
    let failures = traffic.failures()?;
    for failure in failures.iter().take(10) {
        let took = Duration::from_nanos(failure.ended - failure.sent);
        eprintln!("failed after {took:?}: {failure:?}");
    }
    assert!(failures.is_empty(), "{} requests failed at survivors", failures.len());
    Ok(())
}

/// The times without an acknowledged write, the shortest first.
fn gaps(failovers: &[Failover]) -> Vec<Duration> {
    let mut gaps: Vec<_> = failovers.iter().map(|failover| failover.gap).collect();
    gaps.sort_unstable();
    gaps
}

fn median_gap(failovers: &[Failover]) -> Duration {
    let gaps = gaps(failovers);
    gaps[gaps.len() / 2]
}

fn distribution(failovers: &[Failover]) -> String {
    let gaps = gaps(failovers);
    let at = |percent: usize| gaps[(gaps.len() * percent / 100).min(gaps.len() - 1)].as_millis();
    format!(
        "shortest {}, 10 % {}, median {}, 90 % {}, 99 % {}, longest {}",
        at(0),
        at(10),
        at(50),
        at(90),
        at(99),
        at(100)
    )
}
