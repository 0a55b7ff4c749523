//! The page continues when servers die.

use jepsen_style_tests::Result;
use jepsen_style_tests::health::register;

use crate::scene::{LONG_TTL, STREAM, Scene, click, has};

/// Opens the instances, of which there is one, at a follower. Returns the leader and this follower.
async fn open_at_a_follower(scene: &mut Scene) -> Result<(u64, u64)> {
    let leader = scene.cluster.leader().await?;
    let own = scene.cluster.others(leader)[0];
    register(&scene.cluster.http(own), "web", "web-1", LONG_TTL, "").await?;
    scene.open(own, "instances").await?;
    scene.wait_for(&has("id", "web-1")).await?;
    Ok((leader, own))
}

#[tokio::test]
async fn the_death_of_the_leader_is_shown_and_survived() {
    let test = "the_death_of_the_leader_is_shown_and_survived";
    let Some(mut scene) = Scene::new(test, 3).await.unwrap() else { return };
    let (leader, own) = open_at_a_follower(&mut scene).await.unwrap();
    let node = scene.cluster.http(own);
    let shown = "document.querySelector('.fact.leader .value').innerText";
    scene.wait_for(&format!("{shown}.startsWith('n{leader} ')")).await.unwrap();

    scene.cluster.kill(leader).unwrap();
    let other = format!("/^n[123] /.test({shown}) && !{shown}.startsWith('n{leader} ')");
    scene.wait_for(&other).await.unwrap();
    let header = "document.querySelector('#header').innerText";
    scene
        .wait_for(&format!("{header}.includes('2 of 3 voters, no failure survivable')"))
        .await
        .unwrap();
    assert_eq!(scene.browser.evaluate(STREAM).await.unwrap(), format!("live, at n{own}"));
    register(&node, "web", "web-2", LONG_TTL, "").await.unwrap();
    scene.wait_for(&has("id", "web-2")).await.unwrap();
    scene.cluster.start_node(leader).unwrap();
    scene.wait_for(&format!("{header}.includes('3 of 3 voters')")).await.unwrap();
    scene.finish().await.unwrap();
}

#[tokio::test]
async fn the_page_goes_on_at_another_server_when_its_own_dies() {
    let test = "the_page_goes_on_at_another_server_when_its_own_dies";
    let Some(mut scene) = Scene::new(test, 3).await.unwrap() else { return };
    let (leader, own) = open_at_a_follower(&mut scene).await.unwrap();
    let survivor = scene.cluster.http(leader);

    scene.cluster.kill(own).unwrap();
    register(&survivor, "web", "web-2", LONG_TTL, "").await.unwrap();
    let elsewhere = format!("/^live, at n[123]$/.test({STREAM}) && {STREAM} !== 'live, at n{own}'");
    scene.wait_for(&elsewhere).await.unwrap();
    let notices = "document.querySelector('#notices').innerText";
    scene.wait_for(&format!("{notices}.includes('n{own} was lost')")).await.unwrap();
    // Nothing was missed, and it can be worked with.
    scene.wait_for(&has("id", "web-2")).await.unwrap();
    let gap = "document.querySelector('[data-kind=gap]') === null";
    assert_eq!(scene.browser.evaluate(gap).await.unwrap(), true);
    scene.browser.evaluate(&click("id", "web-2")).await.unwrap();
    let deregister = "document.querySelector('#panel [data-act=deregister]:enabled')";
    scene.wait_for(&format!("{deregister} !== null")).await.unwrap();
    scene.browser.evaluate(&format!("{deregister}.click()")).await.unwrap();
    let sure = "document.querySelector('dialog [data-act=confirm]').click()";
    scene.browser.evaluate(sure).await.unwrap();
    scene.wait_for(&format!("!{}", has("id", "web-2"))).await.unwrap();
    scene.cluster.start_node(own).unwrap();
    scene.finish().await.unwrap();
}

#[tokio::test]
async fn a_server_that_stops_sends_its_pages_elsewhere() {
    let test = "a_server_that_stops_sends_its_pages_elsewhere";
    let Some(mut scene) = Scene::new(test, 3).await.unwrap() else { return };
    let leader = scene.cluster.leader().await.unwrap();
    scene.open(leader, "services").await.unwrap();
    scene.wait_for(&has("service", "consul")).await.unwrap();
    scene.cluster.terminate(leader).unwrap();
    let elsewhere =
        format!("/^live, at n[123]$/.test({STREAM}) && {STREAM} !== 'live, at n{leader}'");
    scene.wait_for(&elsewhere).await.unwrap();
    let other = scene.cluster.others(leader)[0];
    register(&scene.cluster.http(other), "web", "web-1", LONG_TTL, "").await.unwrap();
    scene.wait_for(&has("service", "web")).await.unwrap();
    scene.cluster.wait_stopped(leader).unwrap();
    scene.cluster.start_node(leader).unwrap();
    scene.finish().await.unwrap();
}

#[tokio::test]
async fn a_lost_quorum_is_told_and_what_is_known_stays_to_be_seen() {
    let test = "a_lost_quorum_is_told_and_what_is_known_stays_to_be_seen";
    let Some(mut scene) = Scene::new(test, 3).await.unwrap() else { return };
    let leader = scene.cluster.leader().await.unwrap();
    register(&scene.cluster.http(leader), "web", "web-1", LONG_TTL, "").await.unwrap();
    scene.cluster.http(leader).must_put("/v1/kv/config/limit", "7").await.unwrap();
    scene.open(leader, "instances").await.unwrap();
    scene.wait_for(&has("id", "web-1")).await.unwrap();
    let others = scene.cluster.others(leader);
    scene.cluster.kill(others[0]).unwrap();
    scene.cluster.kill(leader).unwrap();
    // The page goes on at the last one, which has no leader.
    let header = "document.querySelector('#header').innerText";
    scene.wait_for(&format!("{header}.includes('no leader among 3 voters')")).await.unwrap();
    let live = format!("{STREAM} === 'live, at n{}'", others[1]);
    scene.wait_for(&live).await.unwrap();
    scene.wait_for(&has("id", "web-1")).await.unwrap();
    scene.browser.evaluate("location.hash = '#/kv'").await.unwrap();
    scene.wait_for("document.querySelector('[data-key=\"config/\"]') !== null").await.unwrap();
    scene.cluster.start_node(leader).unwrap();
    scene.wait_for(&format!("{header}.includes('2 of 3 voters')")).await.unwrap();
    scene.finish().await.unwrap();
}
