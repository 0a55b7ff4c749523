//! Two of three nodes are down: the third acknowledges nothing, says so in time, and still answers `?stale` reads
//! at once.

use std::time::{Duration, Instant};

use jepsen_style_tests::http::{Answer, Http};
use jepsen_style_tests::{Cluster, Limit, Result};

/// How long a server holds what needs a leader.
const HOLD: Duration = Duration::from_secs(7);
/// How much longer an answer may take on a busy machine.
const HOLD_SLACK: Duration = Duration::from_secs(2);
/// "At once", on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(200);
/// A refused write never takes effect; one with this outcome may.
const UNKNOWN: &str = "unknown";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_left_alone_acknowledges_nothing() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let alone = cluster.others(leader)[0];
    play(&mut cluster, alone).await.unwrap();
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_left_alone_acknowledges_nothing() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let alone = cluster.leader().await.unwrap();
    play(&mut cluster, alone).await.unwrap();
    cluster.finish().await.unwrap();
}

async fn play(cluster: &mut Cluster, alone: u64) -> Result<()> {
    let node = cluster.http(alone);
    node.must_put("/v1/kv/known", "before").await?;
    cluster.kill_all(&cluster.others(alone))?;

    // All at the same time, so that the hold time passes once. What is sent at once may have been handed
    // to the leader; what is sent later has not.
    let early = tokio::spawn(timed_put(node.clone(), "early"));
    wait_until_no_leader(&node).await?;
    let late = tokio::spawn(timed_put(node.clone(), "late"));
    let read = tokio::spawn(timed_get(node.clone(), "/v1/kv/known"));
    let consistent = tokio::spawn(timed_get(node.clone(), "/v1/catalog/services?consistent"));
    let stale = tokio::spawn(stale_reads(node.clone()));

    require_refusal("a write", &early.await.expect("no panic")?);
    require_refusal("a later write", &late.await.expect("no panic")?);
    for read in [read, consistent] {
        let (answer, took) = read.await.expect("no panic")?;
        assert_eq!((answer.status, answer.text().as_str()), (500, "No cluster leader"));
        assert!(took >= HOLD && took <= HOLD + HOLD_SLACK, "held for {took:?}");
    }
    stale.await.expect("no panic")?;

    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    assert_eq!(node.get("/v1/kv/known?raw").await?.body, "before");
    node.must_put("/v1/kv/known", "after").await?;
    Ok(())
}

type Timed = (Answer, Duration);

async fn timed_put(node: Http, key: &str) -> Result<Timed> {
    let sent = Instant::now();
    let answer = node.put(&format!("/v1/kv/{key}"), "written by a minority").await?;
    Ok((answer, sent.elapsed()))
}

async fn timed_get(node: Http, path: &str) -> Result<Timed> {
    let sent = Instant::now();
    let answer = node.get(path).await?;
    Ok((answer, sent.elapsed()))
}

fn require_refusal(what: &str, (answer, took): &Timed) {
    assert_eq!(answer.status, 500, "{what}: {answer:?}");
    let says_so = answer.body == "No cluster leader" || answer.text().contains(UNKNOWN);
    assert!(says_so, "{what}: {answer:?}");
    assert!(*took <= HOLD + HOLD_SLACK, "{what} took {took:?}");
}

/// A lone node knows that it has no leader once its leader's lease, or its own, has run out.
async fn wait_until_no_leader(node: &Http) -> Result<()> {
    let limit = Limit::new(Duration::from_secs(6));
    loop {
        let answer = node.get("/v1/kv/known?stale").await?;
        if answer.known_leader() == Some(false) {
            return Ok(());
        }
        limit.pause(|| format!("a lone node knows no leader: {answer:?}")).await?;
    }
}

async fn stale_reads(node: Http) -> Result<()> {
    for path in ["/v1/kv/known?stale", "/v1/catalog/services?stale", "/v1/health/state/any?stale"] {
        for _ in 0..20 {
            let (answer, took) = timed_get(node.clone(), path).await?;
            assert_eq!((answer.status, answer.known_leader()), (200, Some(false)), "{path}");
            assert!(took <= AT_ONCE, "{path} took {took:?}");
        }
    }
    assert_eq!(node.get("/v1/status/leader").await?.text().trim(), "\"\"");
    Ok(())
}
