//! What a client is told that gets no instance, or has lost one: a sentence, and a word for programs. And what those
//! who look see of it.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::time::Duration;

use jepsen_style_tests::http::{Answer, AnswerExt as _, Http, HttpExt as _};
use jepsen_style_tests::stream::Reader;
use jepsen_style_tests::{Cluster, Options};
use serde_json::{Value, json};

/// What happens by itself shows within this.
const LIMIT: Duration = Duration::from_secs(25);
/// From this level of the cluster's rules on there are claims.
const CLAIMS_LEVEL: u64 = 8;
const ID: &str = "00000000-0000-4000-8000-000000000001";

async fn claim(node: &Http, body: Value) -> Answer {
    node.put("/v1/quorate/claims/rdb", body.to_string()).await.unwrap()
}

/// Status, word and sentence.
fn told(answer: &Answer) -> (u16, &str, String) {
    (answer.status, answer.reason().unwrap_or_default(), answer.text())
}

async fn say(node: &Http, verb: &str, id: &str) {
    node.must_put(&format!("/v1/agent/check/{verb}/service:{id}"), "").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_gets_no_instance_is_told_why_in_a_word_and_in_a_sentence() {
    let options = Options { nodes: 1, ..Options::default() };
    let cluster = Cluster::start_at_level(CLAIMS_LEVEL, options).await.unwrap();
    let node = cluster.http(1);
    let none = claim(&node, json!({})).await;
    let text = "no instance of \"rdb\" is in a pool";
    assert_eq!(told(&none), (404, "not-in-pool", text.to_owned()));

    // It is there, and does not pass its check.
    for number in 1..=2 {
        let body = json!({
            "Name": "rdb", "ID": format!("rdb-{number}"), "Port": 5_000 + number,
            "Meta": {"slots": "1", "region": "eu"}, "Check": {"TTL": "1h"},
        });
        node.must_put("/v1/agent/service/register", body.to_string()).await.unwrap();
    }
    let down = claim(&node, json!({})).await;
    let text = "none of the 2 instances of \"rdb\" passes its checks, 0 requests are waiting";
    assert_eq!(told(&down), (409, "pool-down", text.to_owned()));
    let other = claim(&node, json!({"Require": {"region": "us"}})).await;
    let text = "none of the 2 instances of \"rdb\" has what is required, 0 requests are waiting";
    assert_eq!(told(&other), (409, "pool-unsuitable", text.to_owned()));

    // One passes, and is somebody's.
    let mut stream = Reader::open(&node, "kind=claim.&service=rdb", None).await.unwrap();
    say(&node, "pass", "rdb-1").await;
    let held = claim(&node, json!({"ID": ID, "Holder": "gateway-1"})).await;
    assert_eq!(held.value().unwrap()["Instance"]["ID"], "rdb-1");
    let busy = claim(&node, json!({})).await;
    let text = "all 1 usable instances of \"rdb\" are busy (1 do not pass their checks), 0 requests are waiting";
    assert_eq!(told(&busy), (409, "pool-busy", text.to_owned()));
    let taken = claim(&node, json!({"ID": ID, "Holder": "gateway-2"})).await;
    assert_eq!((taken.status, taken.reason()), (409, Some("claim-id-taken")));

    // Followers of claims see the instance that each has, or had.
    let granted = loop {
        let frame = stream.next().await.unwrap().unwrap();
        if frame.data["Kind"] == "claim.granted" {
            break frame;
        }
    };
    assert_eq!(granted.data["Row"]["ID"], "rdb-1", "{granted:?}");
    assert_eq!(granted.data["Row"]["Status"], "passing", "{granted:?}");

    // Its end has a word of its own for each reason.
    say(&node, "fail", "rdb-1").await;
    let renewed = node.put(&format!("/v1/quorate/claim/{ID}/renew"), "").await.unwrap();
    assert_eq!((renewed.status, renewed.reason()), (409, Some("claim-instance-lost")));
    let again = claim(&node, json!({"ID": ID, "Holder": "gateway-1"})).await;
    assert_eq!((again.status, again.reason()), (409, Some("claim-instance-lost")));
    let forced = node.put("/v1/quorate/claims/rdb/force?fence=4711", "").await.unwrap();
    assert_eq!((forced.status, forced.reason()), (404, Some("fence-unknown")));
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hung_up_is_not_counted_among_those_who_wait() {
    let options = Options { nodes: 1, ..Options::default() };
    let cluster = Cluster::start_at_level(CLAIMS_LEVEL, options).await.unwrap();
    let node = cluster.http(1);
    let body = json!({"Name": "rdb", "ID": "rdb-1", "Meta": {"slots": "1"}});
    node.must_put("/v1/agent/service/register", body.to_string()).await.unwrap();
    assert_eq!(claim(&node, json!({"Holder": "gateway-1"})).await.status, 200);
    let (asks, body) = (node.clone(), json!({"ID": ID, "Holder": "gateway-2"}).to_string());
    let waiting =
        tokio::spawn(async move { asks.put("/v1/quorate/claims/rdb?wait=60s", body).await });
    let counts = |waiting: u64, left: u64| {
        move |pool: &Value| pool["Waiting"] == waiting && pool["Left"] == left
    };
    node.wait_for("/v1/quorate/claims/rdb", LIMIT, counts(1, 0)).await.unwrap();
    waiting.abort();
    let pool = node.wait_for("/v1/quorate/claims/rdb", LIMIT, counts(0, 1)).await.unwrap();
    assert_eq!(pool["Queue"][0]["Left"], true, "{pool}");
    let busy = claim(&node, json!({})).await;
    let text = "all 1 instances of \"rdb\" are busy, 0 requests are waiting";
    assert_eq!(told(&busy), (409, "pool-busy", text.to_owned()));
    node.wait_for("/v1/quorate/claims/rdb", LIMIT, counts(0, 0)).await.unwrap();
    cluster.finish().await.unwrap();
}
