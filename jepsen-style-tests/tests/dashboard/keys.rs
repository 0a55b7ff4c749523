//! Keys: the page changes them only if nobody else has changed them meanwhile.

use serde_json::json;

use crate::scene::Scene;

const KEY: &str = "config/web/colour";

#[tokio::test]
async fn a_key_that_somebody_else_changed_is_not_overwritten_unasked() {
    let test = "a_key_that_somebody_else_changed_is_not_overwritten_unasked";
    let Some(mut scene) = Scene::new(test, 1).await.unwrap() else { return };
    let node = scene.cluster.http(1);
    let value = async || node.get(&format!("/v1/kv/{KEY}?raw")).await.unwrap().text();
    node.must_put(&format!("/v1/kv/{KEY}?flags=7"), "green").await.unwrap();
    scene.open(1, "kv").await.unwrap();
    for name in ["config/", "config/web/", KEY] {
        let line = format!("document.querySelector('.tree [data-key={}]')", json!(name));
        scene.wait_for(&format!("{line} !== null")).await.unwrap();
        scene.browser.evaluate(&format!("{line}.click()")).await.unwrap();
    }
    let panel = "document.querySelector('#panel').innerText";
    scene.wait_for(&format!("{panel}.includes('green')")).await.unwrap();
    let press = |act: &str| format!("document.querySelector('#panel [data-act={act}]').click()");
    let write = |text: &str| format!("document.querySelector('#panel textarea').value = '{text}'");

    scene.browser.evaluate(&press("edit")).await.unwrap();
    node.must_put(&format!("/v1/kv/{KEY}?flags=7"), "red").await.unwrap();
    scene.browser.evaluate(&write("blue")).await.unwrap();
    scene.browser.evaluate(&press("save")).await.unwrap();
    scene.wait_for("document.querySelector('.conflict')?.innerText.includes('red')").await.unwrap();
    let mine = scene.browser.evaluate("document.querySelector('#panel textarea').value").await;
    assert_eq!(mine.unwrap(), "blue", "what was typed is kept");
    assert_eq!(value().await, "red");

    // Now it is known what is overwritten.
    scene.browser.evaluate(&press("save")).await.unwrap();
    scene.wait_for("document.querySelector('#panel .value')?.innerText === 'blue'").await.unwrap();
    assert_eq!(value().await, "blue");
    let row = node.must_get(&format!("/v1/kv/{KEY}")).await.unwrap();
    assert_eq!(row[0]["Flags"], 7, "flags stay");

    // A deletion asks first, and knows of conflicts as well.
    scene.browser.evaluate(&press("delete")).await.unwrap();
    node.must_put(&format!("/v1/kv/{KEY}"), "white").await.unwrap();
    let confirm = "document.querySelector('dialog [data-act=confirm]').click()";
    scene.browser.evaluate(confirm).await.unwrap();
    scene.wait_for("document.querySelector('#panel .value')?.innerText === 'white'").await.unwrap();
    assert_eq!(value().await, "white");
    scene.browser.evaluate(&press("delete")).await.unwrap();
    scene.browser.evaluate(confirm).await.unwrap();
    scene.wait_for(&format!("{panel}.includes('There is no such key.')")).await.unwrap();
    assert_eq!(node.get(&format!("/v1/kv/{KEY}")).await.unwrap().status, 404);
    scene.finish().await.unwrap();
}
