//! Layout: nothing is cut off in any window, and all text is readable. Screenshots are written to the directory
//! that `QUORATE_DASHBOARD_PICTURES` names.

use jepsen_style_tests::Result;
use jepsen_style_tests::health::register;
use jepsen_style_tests::http::HttpExt as _;
use serde_json::json;

use crate::browser::{Browser, Window};
use crate::claims::{CLAIMS_LEVEL, claim, register_pooled, wait_in_line};
use crate::scene::{LIMIT, LONG_TTL, Scene, WIDE, click};

/// Where pictures go, if anywhere.
const PICTURES: &str = "QUORATE_DASHBOARD_PICTURES";

/// Texts whose contrast to what is behind them is below 4.5 to 1.
const WEAK: &str = r#"(() => {
  const parse = (text) => text.match(/[\d.]+/g).map(Number);
  const linear = (value) => (value <= 10.31475 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([red, green, blue]) => 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const weak = [];
  for (const element of document.body.querySelectorAll("*")) {
    if (element.closest("svg, :disabled, .skip, noscript") || element.getClientRects().length === 0) continue;
    if (![...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim() !== "")) continue;
    const [one, other] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) weak.push(`${ratio.toFixed(2)} ${element.className} ${element.textContent.slice(0, 30)}`);
  }
  return weak;
})()"#;

const DARK: Window = Window { scheme: "dark", ..WIDE };
const NARROW: Window = Window { width: 360, height: 740, scheme: "light" };

#[tokio::test]
async fn it_fits_windows_of_all_widths_in_light_and_dark() {
    let test = "it_fits_windows_of_all_widths_in_light_and_dark";
    let Some(mut scene) = Scene::new(test, 3).await.unwrap() else { return };
    let node = scene.cluster.http(1);
    for (service, count) in [("gateway", 2), ("rdb", 4), ("hdb", 3), ("tickerplant", 2)] {
        for number in 1..=count {
            register(&node, service, &format!("{service}-{number}"), LONG_TTL, "").await.unwrap();
        }
    }
    node.must_put("/v1/agent/check/fail/service:rdb-2", "").await.unwrap();
    node.must_put("/v1/agent/check/warn/service:hdb-1", "").await.unwrap();
    node.must_put("/v1/kv/config/web/colour", "green").await.unwrap();
    node.must_put("/v1/session/create", r#"{"Name": "batch", "TTL": "1h"}"#).await.unwrap();
    node.wait_level(CLAIMS_LEVEL, LIMIT).await.unwrap();
    for number in 1..=3 {
        register_pooled(&node, "query", number).await.unwrap();
        claim(&node, "query", &format!("gateway-{number}")).await.unwrap();
    }
    let waiting = wait_in_line(&node, "query", "gateway-4").await.unwrap();
    let shown = "document.querySelector('.body .row:not([hidden]), .tree .node') !== null";
    for view in ["services", "instances", "nodes", "kv", "sessions", "claims", "events"] {
        scene.open(1, view).await.unwrap();
        scene.wait_for(shown).await.unwrap();
        for (name, window) in [("light", WIDE), ("dark", DARK), ("narrow", NARROW)] {
            scene.browser.resize(window).await.unwrap();
            let fits = "document.documentElement.scrollWidth <= innerWidth && document.documentElement.scrollHeight <= innerHeight";
            scene.wait_for(fits).await.unwrap();
            let weak = scene.browser.evaluate(WEAK).await.unwrap();
            assert_eq!(weak, json!([]), "{view}, {name}");
            save(&mut scene.browser, &format!("{view}-{name}")).await.unwrap();
        }
        if view == "claims" {
            a_pool_is_readable(&mut scene).await.unwrap();
        }
    }
    waiting.abort();
    scene.finish().await.unwrap();
}

/// Its panel, with holders and the line.
async fn a_pool_is_readable(scene: &mut Scene) -> Result<()> {
    scene.browser.resize(WIDE).await?;
    scene.browser.evaluate(&click("service", "query")).await?;
    scene.wait_for("document.querySelector('#panel .queue') !== null").await?;
    for (name, window) in [("light", WIDE), ("dark", DARK)] {
        scene.browser.resize(window).await?;
        assert_eq!(scene.browser.evaluate(WEAK).await?, json!([]), "a pool, {name}");
        save(&mut scene.browser, &format!("pool-{name}")).await?;
    }
    scene.browser.press("Escape").await?;
    Ok(())
}

/// Writes a picture for people, if they want one.
async fn save(browser: &mut Browser, name: &str) -> Result<()> {
    if let Some(dir) = std::env::var_os(PICTURES) {
        std::fs::create_dir_all(&dir)?;
        std::fs::write(
            std::path::Path::new(&dir).join(format!("{name}.png")),
            browser.picture().await?,
        )?;
    }
    Ok(())
}
