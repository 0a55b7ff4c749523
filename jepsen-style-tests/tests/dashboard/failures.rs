//! Servers die, and the page goes on.

use std::time::Duration;

use jepsen_style_tests::health::register;

use crate::scene::{STREAM, Scene, has};

const LONG_TTL: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn the_death_of_the_leader_is_shown_and_survived() {
    let test = "the_death_of_the_leader_is_shown_and_survived";
    let Some(mut scene) = Scene::new(test, 3).await.unwrap() else { return };
    let leader = scene.cluster.leader().await.unwrap();
    let own = scene.cluster.others(leader)[0];
    let node = scene.cluster.http(own);
    register(&node, "web", "web-1", LONG_TTL, "").await.unwrap();
    scene.open(own, "instances").await.unwrap();
    scene.wait_for(&has("id", "web-1")).await.unwrap();
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
