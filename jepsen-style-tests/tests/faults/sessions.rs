//! Sessions and their locks belong to the cluster: the leader's death ends none early, and keeps every lock-delay.

use std::time::{Duration, Instant};

use jepsen_style_tests::http::Http;
use jepsen_style_tests::{Cluster, Failure, Limit, Result};

/// Lateness that is documented: an end by 2 x TTL, or of a lock delay, plus this; and two busy cores.
const LATE_MAX: Duration = Duration::from_millis(1_500);

/// An election, and the grace after it in which nothing expires.
const LEADER_CHANGE_MAX: Duration = Duration::from_secs(5);

async fn session(node: &Http, body: &str) -> Result<String> {
    let answer = node.must_put("/v1/session/create", body.to_owned()).await?;
    let created: serde_json::Value = serde_json::from_str(&answer)?;
    let id = created["ID"].as_str().ok_or_else(|| Failure::new(format!("no id: {answer}")))?;
    Ok(id.to_owned())
}

async fn acquire(node: &Http, key: &str, session: &str) -> Result<bool> {
    let path = format!("/v1/kv/{key}?acquire={session}");
    Ok(node.must_put(&path, session.to_owned()).await?.trim() == "true")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_delay_outlives_the_leader() {
    const DELAY: Duration = Duration::from_secs(6);
    let mut cluster = Cluster::start(3).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let survivors = cluster.https(&cluster.others(leader));
    let old = session(&survivors[0], r#"{"LockDelay":"6s"}"#).await.unwrap();
    let next = session(&survivors[1], r#"{"Name":"next"}"#).await.unwrap();
    assert!(acquire(&survivors[0], "lock", &old).await.unwrap());
    assert!(!acquire(&survivors[1], "lock", &next).await.unwrap(), "it is held");

    survivors[1].must_put(&format!("/v1/session/destroy/{old}"), "").await.unwrap();
    let released = Instant::now();
    cluster.kill(leader).unwrap();
    // The first answer comes from the next leader, long before the delay is over.
    assert!(!acquire(&survivors[0], "lock", &next).await.unwrap(), "the delay was forgotten");
    let answered = released.elapsed();
    assert!(answered < DELAY / 2, "the next leader answered only after {answered:?}");
    let limit = Limit::new(DELAY + LATE_MAX + LEADER_CHANGE_MAX);
    let freed = loop {
        if acquire(&survivors[0], "lock", &next).await.unwrap() {
            break released.elapsed();
        }
        limit.pause(|| "the lock is free".to_owned()).await.unwrap();
    };
    assert!(freed >= DELAY, "freed after {freed:?}");
    println!("the next leader answered after {answered:?}, the lock was free after {freed:?}");
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_renewed_through_any_node_and_ends_at_twice_its_ttl() {
    const TTL: Duration = Duration::from_secs(10);
    let mut cluster = Cluster::start(3).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let survivors = cluster.https(&cluster.others(leader));
    let body = r#"{"TTL":"10s","Behavior":"delete","LockDelay":"0s"}"#;
    let id = session(&survivors[0], body).await.unwrap();
    assert!(acquire(&survivors[1], "held", &id).await.unwrap());
    let renew = format!("/v1/session/renew/{id}");
    let mut renewed = Instant::now();
    for round in 0..6 {
        if round == 2 {
            cluster.kill(leader).unwrap();
        }
        survivors[round % survivors.len()].must_put(&renew, "").await.unwrap();
        renewed = Instant::now();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let looks = tokio::join!(gone(&survivors[0], renewed), gone(&survivors[1], renewed));
    let looks = [looks.0.unwrap(), looks.1.unwrap()];
    for after in looks {
        assert!(after >= 2 * TTL, "it ended after {after:?}");
        assert!(after <= 2 * TTL + LATE_MAX, "it ended only after {after:?}");
    }
    let answer = survivors[0].put(&renew, "").await.unwrap();
    assert_eq!((answer.status, answer.text()), (404, format!("Session id '{id}' not found")));
    println!("ended {looks:?} after the last renewal");
    cluster.finish().await.unwrap();
}

/// How long after an instant the key that the session held is gone.
async fn gone(node: &Http, since: Instant) -> Result<Duration> {
    let limit = Limit::new(Duration::from_secs(60));
    loop {
        if node.get("/v1/kv/held?raw").await?.status == 404 {
            return Ok(since.elapsed());
        }
        limit.pause(|| "the end of the session".to_owned()).await?;
    }
}
