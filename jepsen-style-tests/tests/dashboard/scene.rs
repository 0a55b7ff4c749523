//! A cluster, and a browser with its dashboard.

use std::time::Duration;

use jepsen_style_tests::cluster::Options;
use jepsen_style_tests::{Cluster, Result, browser};
use serde_json::json;

use crate::browser::{Browser, Window};

pub(crate) const LIMIT: Duration = Duration::from_secs(30);
/// For instances that are not to expire.
pub(crate) const LONG_TTL: Duration = Duration::from_secs(3_600);
/// From this level of the cluster's rules on there are streams.
const HISTORY_LEVEL: u64 = 2;

pub(crate) const WIDE: Window = Window { width: 1_400, height: 800, scheme: "light" };

/// A cluster with streams, and the browser.
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) browser: Browser,
}

impl Scene {
    /// `None`: there is no browser.
    pub(crate) async fn new(test: &str, nodes: u64) -> Result<Option<Self>> {
        let Some(program) = browser::program(test) else { return Ok(None) };
        let options = Options { nodes, ..Options::shared() };
        let cluster = Cluster::start_at_level(HISTORY_LEVEL, options).await?;
        let browser = Browser::start(&program).await?;
        Ok(Some(Self { cluster, browser }))
    }

    /// Opens a view at a node, and waits until it follows the cluster.
    pub(crate) async fn open(&mut self, id: u64, view: &str) -> Result<()> {
        let url = format!("{}/ui/#/{view}", self.cluster.http(id).base());
        self.browser.open(&url, WIDE).await?;
        self.wait_for(&format!("{STREAM} === 'live, at n{id}'")).await
    }

    pub(crate) async fn wait_for(&mut self, expression: &str) -> Result<()> {
        self.browser.wait_for(expression, LIMIT).await
    }

    /// Ends it: nothing went wrong in the page, and it asked nobody but the servers.
    pub(crate) async fn finish(self) -> Result<()> {
        let Self { cluster, browser } = self;
        assert_eq!(browser.faults, Vec::<String>::new());
        let servers: Vec<String> =
            cluster.https(&cluster.ids()).iter().map(|node| format!("{}/", node.base())).collect();
        for url in &browser.requests {
            assert!(servers.iter().any(|server| url.starts_with(server.as_str())), "{url}");
        }
        cluster.finish().await
    }
}

/// What the header says of the stream.
pub(crate) const STREAM: &str = "document.querySelector('#stream')?.innerText";

/// Whether a row with this text in its cell of this class is there.
pub(crate) fn has(cell: &str, text: &str) -> String {
    let text = json!(text);
    format!(
        "[...document.querySelectorAll('.body .row:not([hidden]) .cell.{cell}')].some((cell) => cell.innerText === {text})"
    )
}

/// Clicks on the first such cell.
pub(crate) fn click(cell: &str, text: &str) -> String {
    let text = json!(text);
    format!(
        "[...document.querySelectorAll('.body .row:not([hidden]) .cell.{cell}')].find((cell) => cell.innerText === {text}).click()"
    )
}
