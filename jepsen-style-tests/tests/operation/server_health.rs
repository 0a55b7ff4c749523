//! The cluster's own check of its servers, `serfHealth`, never calls a living server lost.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jepsen_style_tests::health::{Heartbeats, register};
use jepsen_style_tests::http::{Http, HttpExt as _};
use jepsen_style_tests::{Cluster, Limit, Options, Result};
use tokio::task::JoinSet;

/// Long enough that a leader which counted it as the others' silence would call them lost (5 s).
const OUTAGE: Duration = Duration::from_secs(7);
/// What is watched after an outage: twice the silence after which a server counts as lost.
const AFTERWARDS: Duration = Duration::from_secs(10);
/// A server that comes back is asked and shown as passing within this.
const SHOWN_AGAIN: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(30);
/// From this level of the rules on a host is lost with the last server on it.
const HOST_LEVEL: u64 = 2;

/// A server's check was seen critical.
#[derive(Debug, Clone)]
struct Sighting {
    /// By the node at this address.
    #[expect(dead_code, reason = "shown when a test fails")]
    at: String,
    /// The server.
    name: String,
    when: Instant,
}

/// Blocking queries at every node, from the node's own state: what is shown for a moment is seen too.
struct Watchers {
    seen: Arc<Mutex<Vec<Sighting>>>,
    _tasks: JoinSet<()>,
}

impl Watchers {
    fn start(nodes: Vec<Http>) -> Self {
        let (seen, mut tasks) = (Arc::<Mutex<Vec<Sighting>>>::default(), JoinSet::new());
        for node in nodes {
            let seen = Arc::clone(&seen);
            tasks.spawn(async move {
                let mut index = 0;
                loop {
                    match critical_servers(&node, index).await {
                        Ok((names, next)) => {
                            index = next;
                            let at = node.base().to_owned();
                            let sightings = names.into_iter().map(|name| Sighting {
                                at: at.clone(),
                                name,
                                when: Instant::now(),
                            });
                            seen.lock().unwrap_or_else(PoisonError::into_inner).extend(sightings);
                        }
                        // The node is paused or stopped.
                        Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                }
            });
        }
        Self { seen, _tasks: tasks }
    }

    fn seen(&self) -> Vec<Sighting> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The servers whose `serfHealth` is critical, and the index to wait for a change from.
async fn critical_servers(node: &Http, index: u64) -> Result<(Vec<String>, u64)> {
    let answer =
        node.get(&format!("/v1/health/state/critical?stale&index={index}&wait=5s")).await?;
    let rows: serde_json::Value = answer.json()?;
    let rows = rows.as_array().cloned().unwrap_or_default();
    let lost = rows.iter().filter(|row| row["CheckID"] == "serfHealth");
    let names = lost.map(|row| row["Node"].as_str().unwrap_or_default().to_owned()).collect();
    Ok((names, answer.index().unwrap_or(0)))
}

async fn wait_nobody_lost(cluster: &Cluster) -> Result<()> {
    let limit = Limit::new(LIMIT);
    for id in cluster.ids() {
        loop {
            match critical_servers(&cluster.http(id), 0).await {
                Ok((names, _)) if names.is_empty() => break,
                seen => limit.pause(|| format!("no server critical at n{id}: {seen:?}")).await?,
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_paused_calls_nobody_lost() {
    let mut cluster = Cluster::start(3).await.unwrap();
    cluster.wait_all_ready().await.unwrap();
    let watchers = Watchers::start(cluster.https(&cluster.ids()));
    let leader = cluster.leader().await.unwrap();
    cluster.pause(leader).unwrap();
    tokio::time::sleep(OUTAGE).await;
    cluster.resume(leader).unwrap();
    let resumed = Instant::now();
    tokio::time::sleep(AFTERWARDS).await;
    wait_nobody_lost(&cluster).await.unwrap();
    // The paused one was lost to the others, until they had asked it again.
    let paused = format!("n{leader}");
    let wrong: Vec<_> = watchers
        .seen()
        .into_iter()
        .filter(|seen| seen.name != paused || seen.when > resumed + SHOWN_AGAIN)
        .collect();
    assert!(wrong.is_empty(), "n{leader} was paused, and these were called lost: {wrong:?}");
    cluster.finish().await.unwrap();
}

/// The leader has no quorum meanwhile. What it concludes then must not be shown once the two are back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_servers_that_come_back_are_not_called_lost() {
    let mut cluster = Cluster::start(3).await.unwrap();
    cluster.wait_all_ready().await.unwrap();
    let watchers = Watchers::start(cluster.https(&cluster.ids()));
    let leader = cluster.leader().await.unwrap();
    // Commands that wait for a quorum are no reason to call anybody lost either.
    register(&cluster.http(leader), "steady", "steady", LIMIT, "").await.unwrap();
    let beats = Heartbeats::start(cluster.https(&[leader]), "steady", Duration::from_millis(200));
    cluster.kill_all(&cluster.others(leader)).unwrap();
    tokio::time::sleep(OUTAGE).await;
    cluster.start_all().unwrap();
    cluster.wait_all_ready().await.unwrap();
    tokio::time::sleep(AFTERWARDS).await;
    let seen = watchers.seen();
    assert!(seen.is_empty(), "called lost: {seen:?}");
    drop(beats);
    cluster.finish().await.unwrap();
}

/// Waits until exactly these nodes are critical, as a node sees it.
async fn wait_lost(node: &Http, names: &[&str]) -> Result<()> {
    let limit = Limit::new(LIMIT);
    loop {
        match critical_servers(node, 0).await {
            Ok((seen, _)) if seen == names => return Ok(()),
            seen => limit.pause(|| format!("{names:?} critical: {seen:?}")).await?,
        }
    }
}

/// Two servers are on one host here, and the third one is on another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_of_a_server_is_lost_with_the_last_server_on_it() {
    let name =
        "export QUORATE_SERVER_AGENT_NAME=pair; test {id} != 3 || QUORATE_SERVER_AGENT_NAME=alone";
    let before_start = vec![name.to_owned()];
    let mut cluster =
        Cluster::start_with(Options { before_start, ..Options::default() }).await.unwrap();
    cluster.wait_all_ready().await.unwrap();
    cluster.transfer_leader(1, 1).await.unwrap();
    let leader = cluster.http(1);
    // The rule is in force when every server has said that it knows it.
    leader.wait_level(HOST_LEVEL, LIMIT).await.unwrap();
    let register = async |name: &str, host: &str| {
        let body = format!(r#"{{"Name": "{name}"}}"#);
        let path = format!("/v1/agent/service/register?agent={host}");
        leader.must_put(&path, body).await.unwrap();
    };
    register("pair", "pair").await;
    register("alone", "alone").await;
    cluster.kill(3).unwrap();
    wait_lost(&leader, &["alone", "n3"]).await.unwrap();
    // A request in its name does not prove that its server lives.
    register("late", "alone").await;
    let passing = leader.must_get("/v1/health/service/alone?passing").await.unwrap();
    assert_eq!(passing, serde_json::json!([]));
    assert_eq!(critical_servers(&leader, 0).await.unwrap().0, ["alone", "n3"]);
    cluster.start_node(3).unwrap();
    wait_nobody_lost(&cluster).await.unwrap();

    cluster.kill(2).unwrap();
    wait_lost(&leader, &["n2"]).await.unwrap();
    let passing = leader.must_get("/v1/health/service/pair?passing").await.unwrap();
    assert_eq!(passing.as_array().map(Vec::len), Some(1), "{passing}");
    cluster.start_node(2).unwrap();
    wait_nobody_lost(&cluster).await.unwrap();
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_is_called_lost_while_the_others_have_a_quorum() {
    let mut cluster = Cluster::start(3).await.unwrap();
    cluster.wait_all_ready().await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let killed = cluster.others(leader)[0];
    cluster.kill(killed).unwrap();
    wait_lost(&cluster.http(leader), &[&format!("n{killed}")]).await.unwrap();
    cluster.start_node(killed).unwrap();
    wait_nobody_lost(&cluster).await.unwrap();
    cluster.finish().await.unwrap();
}
