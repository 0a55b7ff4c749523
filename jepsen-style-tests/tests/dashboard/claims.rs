//! Claims: the pools, who has their instances, who waits, and an operator who takes one away.

use std::time::Duration;

use jepsen_style_tests::Result;
use jepsen_style_tests::http::{AnswerExt as _, Http, HttpExt as _};
use serde_json::{Value, json};

use crate::scene::{LIMIT, Scene, click, has};

/// From this level of the cluster's rules on there are claims.
pub(crate) const CLAIMS_LEVEL: u64 = 8;
/// How long a request waits in line.
const WAIT: Duration = Duration::from_secs(60);
/// A name that is markup in an unwise page.
const MARKUP: &str = "<img src=x onerror=alert(1)>";

/// Registers an instance of a pool.
pub(crate) async fn register_pooled(node: &Http, service: &str, number: u32) -> Result<()> {
    let body = json!({
        "Name": service, "ID": format!("{service}-{number}"), "Port": 5_000 + number,
        "Meta": {"slots": "1"},
    });
    node.must_put("/v1/agent/service/register", body.to_string()).await?;
    Ok(())
}

/// Claims an instance that is idle.
pub(crate) async fn claim(node: &Http, service: &str, holder: &str) -> Result<Value> {
    let body = json!({"Holder": holder, "TTL": "1h"});
    node.put(&format!("/v1/quorate/claims/{service}"), body.to_string()).await?.value()
}

/// Begins to wait in line; returns when the cluster has it.
pub(crate) async fn wait_in_line(
    node: &Http,
    service: &str,
    holder: &str,
) -> Result<tokio::task::JoinHandle<Result<Value>>> {
    let (path, body) = (format!("/v1/quorate/claims/{service}"), json!({"Holder": holder}));
    let patient = Http::with_timeout(node.base(), WAIT + LIMIT)?;
    let asked = format!("{path}?wait={}s", WAIT.as_secs());
    let waiting = tokio::spawn(async move { patient.put(&asked, body.to_string()).await?.value() });
    let is_in_line = |pool: &Value| {
        let queue = pool["Queue"].as_array();
        queue.is_some_and(|queue| queue.iter().any(|waiter| waiter["Holder"] == holder))
    };
    node.wait_for(&path, LIMIT, is_in_line).await?;
    Ok(waiting)
}

#[tokio::test]
async fn pools_show_who_holds_and_who_waits_and_an_operator_releases_a_claim() {
    let test = "pools_show_who_holds_and_who_waits_and_an_operator_releases_a_claim";
    let Some(mut scene) = Scene::new(test, 3).await.unwrap() else { return };
    let [one, two] = [1, 2].map(|id| scene.cluster.http(id));
    two.wait_level(CLAIMS_LEVEL, LIMIT).await.unwrap();
    register_pooled(&two, "rdb", 1).await.unwrap();
    claim(&two, "rdb", MARKUP).await.unwrap();
    let waiting = wait_in_line(&two, "rdb", "gateway-2").await.unwrap();

    scene.open(1, "claims").await.unwrap();
    for (cell, text) in
        [("service", "rdb"), ("busy", "1 of 1"), ("waiting", "1"), ("state", "in line")]
    {
        scene.wait_for(&has(cell, text)).await.unwrap();
    }
    scene.browser.evaluate(&click("service", "rdb")).await.unwrap();
    let says = |list: &str, text: &str| {
        format!("document.querySelector('#panel {list}')?.innerText.includes({})", json!(text))
    };
    scene.wait_for(&says(".holders", MARKUP)).await.unwrap();
    scene.wait_for(&says(".queue", "gateway-2")).await.unwrap();
    assert_eq!(
        scene.browser.evaluate("document.querySelectorAll('#panel img').length").await.unwrap(),
        0
    );

    let press = "document.querySelector('#panel [data-act=release]').click()";
    scene.browser.evaluate(press).await.unwrap();
    scene.wait_for("document.querySelector('dialog') !== null").await.unwrap();
    let yes = "document.querySelector('dialog [data-act=confirm]').click()";
    scene.browser.evaluate(yes).await.unwrap();
    let granted = tokio::time::timeout(LIMIT, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!((&granted["Holder"], &granted["Seq"]), (&json!("gateway-2"), &json!(2)));
    scene.wait_for(&says(".holders", "gateway-2")).await.unwrap();
    scene.wait_for(&says("", "Nobody waits.")).await.unwrap();
    scene.wait_for(&has("granted", "2")).await.unwrap();
    let history = one.must_get("/v1/quorate/history?kind=claim.ended").await.unwrap();
    assert_eq!(history[0]["Reason"], "forced", "{history}");
    scene.finish().await.unwrap();
}
