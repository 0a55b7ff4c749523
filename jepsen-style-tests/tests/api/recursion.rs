//! Operations on many keys take effect at once, on every node, and block nobody.
//!
//! `QUORATE_TEST_KEYS=1300000` tries it with more keys, and prints how long other writes waited.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jepsen_style_tests::Cluster;
use jepsen_style_tests::http::{Answer, AnswerExt as _, Http, Method};
use jepsen_style_tests::rounds::setting;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Keys below the prefix, when nothing is said.
const KEYS: usize = 12_800;
/// Operations of a transaction.
const OPERATIONS: usize = 128;
/// Longer than any wait in here.
const PATIENCE: Duration = Duration::from_secs(120);

fn keys() -> usize {
    setting("QUORATE_TEST_KEYS", KEYS).next_multiple_of(OPERATIONS)
}

async fn fill(nodes: &[Http], keys: usize) {
    let value = STANDARD.encode("sixteen bytes...");
    let mut under_way = Vec::new();
    for (batch, start) in (0..keys).step_by(OPERATIONS).enumerate() {
        let sets = (start..start + OPERATIONS)
            .map(|n| json!({"KV": {"Verb": "set", "Key": format!("tree/{n:07}"), "Value": value}}));
        let body = Value::from_iter(sets).to_string();
        let node = nodes[batch % nodes.len()].clone();
        under_way.push(tokio::spawn(async move { node.must_put("/v1/txn", body).await }));
        if under_way.len() >= 32 {
            under_way.remove(0).await.unwrap().unwrap();
        }
    }
    for batch in under_way {
        batch.await.unwrap().unwrap();
    }
}

/// Waits for a change of what has been seen now.
async fn blocked(node: &Http, path: &str) -> JoinHandle<Answer> {
    let index = node.get(path).await.unwrap().require_index().unwrap();
    let node = Http::with_timeout(node.base(), PATIENCE).unwrap();
    let sign = if path.contains('?') { '&' } else { '?' };
    let path = format!("{path}{sign}index={index}&wait=90s");
    tokio::spawn(async move { node.get(&path).await.unwrap() })
}

/// Counts what is below the prefix, again and again, until it is nothing.
async fn watch_vanish(node: Http, keys: usize) -> usize {
    let mut looks = 0;
    loop {
        let answer = node.get("/v1/kv/tree/?keys").await.unwrap();
        looks += 1;
        if answer.status == 404 {
            return looks;
        }
        let count = answer.value().unwrap().as_array().unwrap().len();
        assert_eq!(count, keys, "a part of it is gone");
    }
}

/// Writes one small key after the other until it is aborted; the longest that one took.
async fn write_small(node: Http, stop: tokio::sync::watch::Receiver<bool>) -> Duration {
    let mut longest = Duration::ZERO;
    while !*stop.borrow() {
        let begin = Instant::now();
        node.must_put("/v1/kv/small", "x").await.unwrap();
        longest = longest.max(begin.elapsed());
    }
    longest
}

/// A long list, which is rendered aside, is whole.
async fn is_whole(node: &Http, keys: usize) {
    let list = node.must_get("/v1/kv/tree/?recurse").await.unwrap();
    let list = list.as_array().unwrap();
    assert_eq!((list.len(), &list[7]["Key"]), (keys, &json!("tree/0000007")));
    assert_eq!(list[keys - 1]["Value"], STANDARD.encode("sixteen bytes..."));
}

/// Deletes the prefix through one node while all are looked at.
async fn delete_it(nodes: &[Http], keys: usize) {
    nodes[0].must_put("/v1/kv/other", "1").await.unwrap();
    let mut woken = Vec::new();
    for (at, path) in
        ["tree/0000001", "tree/?keys", "tree/00?recurse", "?keys", "tr?keys"].iter().enumerate()
    {
        woken.push((path, blocked(&nodes[at % 3], &format!("/v1/kv/{path}")).await));
    }
    let mut asleep = Vec::new();
    for (at, path) in ["treetop", "treet?keys", "other?keys"].iter().enumerate() {
        asleep.push((path, blocked(&nodes[at], &format!("/v1/kv/{path}")).await));
    }
    let looks: Vec<_> =
        nodes.iter().map(|node| tokio::spawn(watch_vanish(node.clone(), keys))).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let begin = Instant::now();
    let answer = nodes[2].send(Method::DELETE, "/v1/kv/tree/?recurse", Default::default()).await;
    assert_eq!(answer.unwrap().body, "true");
    println!("{keys} keys deleted in {:?}", begin.elapsed());
    for node in nodes {
        assert_eq!(node.get("/v1/kv/tree/0000001").await.unwrap().status, 404);
    }
    for look in looks {
        assert!(look.await.unwrap() > 1, "nobody looked before");
    }
    for (path, query) in woken {
        let expected = if path.starts_with("tree") { 404 } else { 200 };
        let answer = query.await.unwrap();
        assert_eq!(answer.status, expected, "{path}: {}", answer.text());
    }
    for (path, query) in asleep {
        assert!(!query.is_finished(), "{path} was woken by what it does not watch");
        query.abort();
    }
    // What is written there now did not exist before.
    assert_eq!(nodes[0].must_put("/v1/kv/tree/0000001?cas=0", "new").await.unwrap(), "true");
    assert_eq!(nodes[1].must_get("/v1/kv/tree/?keys").await.unwrap(), json!(["tree/0000001"]));
}

/// Restores the backup while others go on writing.
async fn restore_it(nodes: &[Http], backup: Bytes, keys: usize) {
    let before = index_of(&nodes[0], "/v1/kv/tree/?keys").await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let small = tokio::spawn(write_small(nodes[1].clone(), stopped));
    let begin = Instant::now();
    let answer = nodes[0].put("/v1/snapshot", backup).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    println!("{keys} keys restored in {:?}", begin.elapsed());
    stop.send(true).unwrap();
    println!("the longest small write took {:?}", small.await.unwrap());
    for node in nodes {
        let list = node.must_get("/v1/kv/tree/?keys").await.unwrap();
        assert_eq!(list.as_array().unwrap().len(), keys);
        assert!(index_of(node, "/v1/kv/tree/?keys").await > before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_prefix_is_gone_at_once_and_everywhere_and_can_be_restored() {
    let keys = keys();
    let mut cluster = Cluster::start_shared(3).await.unwrap();
    let nodes = cluster.https(&cluster.ids());
    let patient = |node: &Http| Http::with_timeout(node.base(), PATIENCE).unwrap();
    let nodes: Vec<Http> = nodes.iter().map(patient).collect();
    fill(&nodes, keys).await;
    nodes[0].must_put("/v1/kv/treetop", "stays").await.unwrap();
    is_whole(&nodes[1], keys).await;
    let backup = nodes[2].get("/v1/snapshot").await.unwrap().body;
    delete_it(&nodes, keys).await;
    restore_it(&nodes, backup, keys).await;
    cluster.converge().await.unwrap();

    // A node that was down meanwhile agrees when it is back.
    let leader = cluster.leader().await.unwrap();
    cluster.kill(leader).unwrap();
    let survivor = &nodes[usize::try_from(cluster.others(leader)[0] - 1).unwrap()];
    let answer = survivor.send(Method::DELETE, "/v1/kv/?recurse", Default::default()).await;
    assert_eq!(answer.unwrap().body, "true");
    cluster.start_all().unwrap();
    cluster.wait_all_ready().await.unwrap();
    cluster.converge().await.unwrap();
    for node in &nodes {
        assert_eq!(node.must_get("/v1/kv/?keys").await.unwrap(), json!([]));
    }
    cluster.finish().await.unwrap();
}

async fn index_of(node: &Http, path: &str) -> u64 {
    node.get(path).await.unwrap().require_index().unwrap()
}
