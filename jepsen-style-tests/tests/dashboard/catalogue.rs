//! Services and instances: the page shows them as they are in the cluster, and soon.

use std::time::{Duration, Instant};

use jepsen_style_tests::health::{beat, register};
use jepsen_style_tests::http::Http;
use jepsen_style_tests::{Limit, Result};
use serde_json::json;

use crate::scene::{LIMIT, LONG_TTL, Scene, click, has};

/// A change is on the page within this time.
const SOON: Duration = Duration::from_secs(1);
const TTL: Duration = Duration::from_secs(2);
/// How late silence may be seen at the most: the cluster's tolerance, and a busy machine.
const LATE: Duration = Duration::from_secs(2);
/// The limits of a heartbeat, and how much earlier a page may see them passed than whoever sent it.
const WARN_AFTER: Duration = Duration::from_secs(2);
const CRITICAL_AFTER: Duration = Duration::from_secs(4);
const EARLY: Duration = Duration::from_millis(300);
/// Instances that are many for a page, and how many rows there may be for them.
const MANY: usize = 10_000;
const ROWS_MAX: u64 = 80;
const SOON_AMONG_MANY: Duration = Duration::from_secs(3);
/// Operations that one transaction takes.
const TXN_OPERATIONS: usize = 64;
/// A name that is markup in an unwise page.
const MARKUP: &str = "<img src=x onerror=alert(1)>";

async fn deregister(node: &Http, id: &str) -> Result<()> {
    node.must_put(&format!("/v1/agent/service/deregister/{id}"), "").await?;
    Ok(())
}

#[tokio::test]
async fn services_and_instances_come_change_and_go_as_they_do() {
    let test = "services_and_instances_come_change_and_go_as_they_do";
    let Some(mut scene) = Scene::new(test, 3).await.unwrap() else { return };
    let [first, second, third] = [1, 2, 3].map(|id| scene.cluster.http(id));
    register(&second, "web", "web-1", LONG_TTL, "").await.unwrap();
    register(&second, MARKUP, MARKUP, LONG_TTL, "").await.unwrap();

    scene.open(1, "services").await.unwrap();
    let header = "document.querySelector('#header').innerText";
    scene
        .wait_for(&format!("{header}.includes('3 of 3 voters, 1 failure survivable')"))
        .await
        .unwrap();
    scene.wait_for(&has("service", "web")).await.unwrap();
    // Users' text is text.
    scene.wait_for(&has("service", MARKUP)).await.unwrap();
    let images = scene.browser.evaluate("document.querySelectorAll('img').length").await.unwrap();
    assert_eq!(images, 1, "the header's picture is the only one");

    // Problems come first, soon after they are known anywhere.
    third.must_put("/v1/agent/check/fail/service:web-1", "").await.unwrap();
    let worst = "document.querySelector('.body .row:not([hidden])').innerText.includes('critical')";
    scene.browser.wait_for(worst, SOON).await.unwrap();
    assert_eq!(scene.browser.evaluate(&has("state", "critical")).await.unwrap(), true);

    // A service leads to its instances, and an instance to why it is as it is.
    scene.browser.evaluate(&click("service", "web")).await.unwrap();
    scene.wait_for(&has("id", "web-1")).await.unwrap();
    assert_eq!(scene.browser.evaluate(&has("id", MARKUP)).await.unwrap(), false);
    scene.browser.evaluate(&click("id", "web-1")).await.unwrap();
    let why = "document.querySelector('#panel .why')?.innerText.startsWith('web-1 is critical')";
    scene.wait_for(why).await.unwrap();
    scene.browser.press("Escape").await.unwrap();
    scene.wait_for("document.querySelector('#panel').hidden").await.unwrap();

    // What is deregistered anywhere is gone from the page within a second.
    register(&first, "web", "web-2", LONG_TTL, "").await.unwrap();
    scene.wait_for(&has("id", "web-2")).await.unwrap();
    let began = Instant::now();
    deregister(&third, "web-2").await.unwrap();
    scene.browser.wait_for(&format!("!{}", has("id", "web-2")), SOON).await.unwrap();
    println!("a deregistered row was gone after {:?}", began.elapsed());
    scene.finish().await.unwrap();
}

#[tokio::test]
async fn an_instance_is_maintained_and_deregistered_from_its_panel_after_a_question() {
    let test = "an_instance_is_maintained_and_deregistered_from_its_panel_after_a_question";
    let Some(mut scene) = Scene::new(test, 1).await.unwrap() else { return };
    let node = scene.cluster.http(1);
    register(&node, "web", "web 1/a", LONG_TTL, "").await.unwrap();
    scene.open(1, "instances").await.unwrap();
    scene.wait_for(&has("id", "web 1/a")).await.unwrap();
    scene.browser.evaluate(&click("id", "web 1/a")).await.unwrap();
    let act = |name: &str| format!("document.querySelector('#panel [data-act={name}]:enabled')");
    scene.wait_for(&format!("{} !== null", act("maintenance"))).await.unwrap();

    scene.browser.evaluate(&format!("{}.click()", act("maintenance"))).await.unwrap();
    scene
        .wait_for("document.querySelector('dialog input') === document.activeElement")
        .await
        .unwrap();
    scene.browser.type_text("new <b>disk</b>").await.unwrap();
    scene.browser.press("Enter").await.unwrap();
    scene.wait_for(&has("state", "critical")).await.unwrap();
    let reason = "document.querySelector('#panel').innerText.includes('new <b>disk</b>')";
    scene.wait_for(reason).await.unwrap();

    // Nothing happens to who says no.
    scene.browser.evaluate(&format!("{}.click()", act("deregister"))).await.unwrap();
    scene.wait_for("document.querySelector('dialog') !== null").await.unwrap();
    scene.browser.press("Escape").await.unwrap();
    scene.wait_for("document.querySelector('dialog') === null").await.unwrap();
    assert_eq!(scene.browser.evaluate(&has("id", "web 1/a")).await.unwrap(), true);

    scene.browser.evaluate(&format!("{}.click()", act("deregister"))).await.unwrap();
    scene
        .browser
        .evaluate("document.querySelector('dialog [data-act=confirm]').click()")
        .await
        .unwrap();
    scene.wait_for(&format!("!{}", has("id", "web 1/a"))).await.unwrap();
    let services = node.must_get("/v1/catalog/services").await.unwrap();
    assert_eq!(services, json!({"consul": []}));
    scene.finish().await.unwrap();
}

#[tokio::test]
async fn an_instance_turns_red_when_it_is_silent_for_its_ttl_and_not_before() {
    let test = "an_instance_turns_red_when_it_is_silent_for_its_ttl_and_not_before";
    let Some(mut scene) = Scene::new(test, 3).await.unwrap() else { return };
    let node = scene.cluster.http(2);
    register(&node, "web", "web-1", TTL, "").await.unwrap();
    scene.open(1, "instances").await.unwrap();
    scene.wait_for(&has("id", "web-1")).await.unwrap();
    let is = |state: &str| format!("document.querySelector('[data-key$=web-1].{state}') !== null");
    // Heartbeats keep it green, for longer than it may be silent.
    let began = Instant::now();
    let mut last = beat(&node, "web-1").await.unwrap();
    scene.browser.wait_for(&is("passing"), SOON).await.unwrap();
    while began.elapsed() < TTL * 2 {
        tokio::time::sleep(TTL / 4).await;
        let gap = last.sent.elapsed();
        last = beat(&node, "web-1").await.unwrap();
        let is_green = scene.browser.evaluate(&is("passing")).await.unwrap() == true;
        // A machine that was too busy to send a heartbeat in time makes it red, and rightly so.
        assert!(is_green || gap.max(last.sent.elapsed()) >= TTL, "red {gap:?} after a heartbeat");
    }
    last = beat(&node, "web-1").await.unwrap();
    scene.browser.wait_for(&is("passing"), SOON).await.unwrap();
    scene.browser.wait_for(&is("critical"), TTL + LATE).await.unwrap();
    assert!(last.sent.elapsed() >= TTL, "red after {:?}", last.sent.elapsed());
    println!("red {:?} after the last heartbeat", last.acknowledged.elapsed());
    let words = scene.browser.evaluate(&has("state", "critical")).await.unwrap();
    assert_eq!(words, true, "never by its colour alone");
    beat(&node, "web-1").await.unwrap();
    scene.browser.wait_for(&is("passing"), SOON).await.unwrap();
    scene.finish().await.unwrap();
}

#[tokio::test]
async fn who_looks_at_pinned_services_is_sent_nothing_else() {
    let test = "who_looks_at_pinned_services_is_sent_nothing_else";
    let Some(mut scene) = Scene::new(test, 1).await.unwrap() else { return };
    let node = scene.cluster.http(1);
    for service in ["web", "rdb", "hdb"] {
        register(&node, service, service, LONG_TTL, "").await.unwrap();
    }
    scene.open(1, "services").await.unwrap();
    scene.wait_for(&has("service", "hdb")).await.unwrap();
    let pin = "document.querySelector('[aria-label=\"Pin rdb\"]').click()";
    scene.browser.evaluate(pin).await.unwrap();
    let only = "document.querySelector('.pinned-only input:enabled')";
    scene.wait_for(&format!("{only} !== null")).await.unwrap();
    scene.browser.evaluate(&format!("{only}.click()")).await.unwrap();
    let alone = "document.querySelectorAll('.body .row:not([hidden])').length === 1";
    scene.wait_for(&format!("{alone} && {}", has("service", "rdb"))).await.unwrap();
    let asked = scene.browser.requests.iter().rfind(|url| url.contains("/v1/quorate/stream?"));
    assert!(asked.is_some_and(|url| url.contains("service=rdb")), "{asked:?}");
    scene.finish().await.unwrap();
}

#[tokio::test]
async fn of_ten_thousand_instances_only_those_in_sight_are_on_the_page() {
    let test = "of_ten_thousand_instances_only_those_in_sight_are_on_the_page";
    let Some(mut scene) = Scene::new(test, 1).await.unwrap() else { return };
    let node = scene.cluster.http(1);
    let host = json!({"Node": "many", "Address": "10.0.0.1"}).to_string();
    node.must_put("/v1/catalog/register", host).await.unwrap();
    let numbers: Vec<usize> = (1..=MANY).collect();
    for some in numbers.chunks(TXN_OPERATIONS) {
        let operations = some.iter().map(|number| {
            let service =
                json!({"ID": format!("many-{number}"), "Service": "many", "Port": number});
            json!({"Service": {"Verb": "set", "Node": "many", "Service": service}})
        });
        node.must_put("/v1/txn", json!(operations.collect::<Vec<_>>()).to_string()).await.unwrap();
    }
    let began = Instant::now();
    scene.open(1, "instances").await.unwrap();
    scene.wait_for("document.querySelector('.body .row:not([hidden])') !== null").await.unwrap();
    let first = began.elapsed();
    let summary = "document.querySelector('.summary').innerText.startsWith('10,001 instances')";
    scene.wait_for(summary).await.unwrap();
    let all = began.elapsed();
    let sizes =
        "performance.getEntries().reduce((sum, {transferSize}) => sum + (transferSize ?? 0), 0)";
    let bytes = scene.browser.evaluate(sizes).await.unwrap();
    println!(
        "{MANY} instances: first row after {first:?}, all after {all:?}, {bytes} bytes of page"
    );
    let rows = scene.browser.evaluate("document.querySelectorAll('.body .row').length").await;
    assert!(rows.unwrap().as_u64().unwrap() < ROWS_MAX);
    let down = "const rows = document.querySelector('.rows'); rows.scrollTop = rows.scrollHeight;";
    scene.browser.evaluate(&format!("{{ {down} }}")).await.unwrap();
    scene.browser.wait_for(&has("id", &format!("many-{MANY}")), SOON_AMONG_MANY).await.unwrap();
    let rows = scene.browser.evaluate("document.querySelectorAll('.body .row').length").await;
    assert!(rows.unwrap().as_u64().unwrap() < ROWS_MAX);
    deregister(&node, &format!("many-{MANY}?agent=many")).await.unwrap();
    let gone = format!("!{}", has("id", &format!("many-{MANY}")));
    scene.browser.wait_for(&gone, SOON_AMONG_MANY).await.unwrap();
    scene.finish().await.unwrap();
}

#[tokio::test]
async fn a_heartbeat_turns_orange_and_red_at_the_limits_that_came_with_it() {
    let test = "a_heartbeat_turns_orange_and_red_at_the_limits_that_came_with_it";
    let Some(mut scene) = Scene::new(test, 3).await.unwrap() else { return };
    let node = scene.cluster.http(2);
    let body = json!({
        "Service": "rdb", "ID": "rdb-1", "Process": "rdb-eu", "Pid": 94_267, "Version": "4.0",
        "Counter": 118, "WarnAfter": "2s", "CriticalAfter": "4s",
    });
    let beat = async || {
        let limit = Limit::new(LIMIT);
        let body = body.to_string();
        // All servers have to know these rules first.
        while node.put("/v1/quorate/heartbeat", body.clone()).await.unwrap().status != 200 {
            limit.pause(|| "an accepted heartbeat".to_owned()).await.unwrap();
        }
        Instant::now()
    };
    beat().await;
    scene.open(1, "instances").await.unwrap();
    for (cell, text) in
        [("process", "rdb-eu"), ("pid", "94267"), ("version", "4.0"), ("counter", "118")]
    {
        scene.wait_for(&has(cell, text)).await.unwrap();
    }
    let is = |level: &str| {
        let row = format!("[data-key$=rdb-1].{level}");
        format!("document.querySelector('{row} .age .badge.{level}') !== null")
    };
    let last = beat().await;
    scene.browser.wait_for(&is("passing"), SOON).await.unwrap();
    for (level, after) in [("warning", WARN_AFTER), ("critical", CRITICAL_AFTER)] {
        scene.browser.wait_for(&is(level), after + LATE).await.unwrap();
        println!("{level} {:?} after the last heartbeat", last.elapsed());
        assert!(last.elapsed() + EARLY >= after, "{level} after {:?}", last.elapsed());
    }
    beat().await;
    scene.browser.wait_for(&is("passing"), SOON).await.unwrap();
    // Heartbeats that change nothing came with the stream: nobody asked for lists of instances.
    let asked = |what: &str| scene.browser.requests.iter().any(|url| url.contains(what));
    assert!(asked("/v1/quorate/stream?beats=2s"), "{:?}", scene.browser.requests);
    assert!(!asked("/v1/quorate/instances"), "{:?}", scene.browser.requests);
    scene.finish().await.unwrap();
}

#[tokio::test]
async fn a_heartbeat_that_changes_nothing_is_on_the_page_by_its_counter() {
    let test = "a_heartbeat_that_changes_nothing_is_on_the_page_by_its_counter";
    let Some(mut scene) = Scene::new(test, 3).await.unwrap() else { return };
    let node = scene.cluster.http(2);
    let beat = async |counter: u64| {
        let body = json!({"Service": "rdb", "ID": "rdb-1", "Counter": counter}).to_string();
        let limit = Limit::new(LIMIT);
        // All servers have to know these rules first.
        while node.put("/v1/quorate/heartbeat", body.clone()).await.unwrap().status != 200 {
            limit.pause(|| "an accepted heartbeat".to_owned()).await.unwrap();
        }
    };
    beat(118).await;
    scene.open(1, "instances").await.unwrap();
    scene.wait_for(&has("counter", "118")).await.unwrap();
    for counter in [119, 120] {
        beat(counter).await;
        scene.wait_for(&has("counter", &counter.to_string())).await.unwrap();
    }
    let asked = |what: &str| scene.browser.requests.iter().any(|url| url.contains(what));
    assert!(!asked("/v1/quorate/instances"), "{:?}", scene.browser.requests);
    scene.finish().await.unwrap();
}
