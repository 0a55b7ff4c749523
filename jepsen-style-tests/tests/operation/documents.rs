//! What the page for operators names is there, and what is there it names.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use jepsen_style_tests::{Cluster, Limit, Result};
use tokio::net::UdpSocket;

use super::monitoring;

const WORST_DAYS: &str = include_str!("../../../node/docs/worst-days.md");
const OPERATING: &str = include_str!("../../../node/docs/operating.md");
/// Figures that count events appear with the first.
const LIMIT: Duration = Duration::from_secs(30);
/// A DNS question for the cluster's servers, and something that is none.
const QUESTION: &[u8] =
    b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06consul\x00\x00\x06\x00\x01";
const GARBAGE: &[u8] = b"\x00";

/// The first column of the table below a heading.
pub(super) fn first_column(heading: &str) -> BTreeSet<&'static str> {
    let section = OPERATING.split_once(&format!("\n## {heading}\n"));
    let (_, section) = section.expect("the heading is there");
    let section = section.split("\n## ").next().unwrap_or_default();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    cells.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_names_every_metric_and_no_other_and_monitoring_uses_what_is_there() {
    let cluster = Cluster::start(3).await.unwrap();
    metrics(&cluster).await.unwrap();
    cluster.finish().await.unwrap();
}

async fn metrics(cluster: &Cluster) -> Result<()> {
    let named = first_column("Metrics");
    let limit = Limit::new(LIMIT);
    loop {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        socket.send_to(QUESTION, cluster.dns(1)).await?;
        socket.send_to(GARBAGE, cluster.dns(1)).await?;
        // A query that need not wait for its change.
        cluster.http(1).get("/v1/catalog/services?index=1").await?;
        let text = cluster.http(1).get("/metrics").await?.text();
        let shown = text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next());
        let shown: BTreeSet<_> = shown.collect();
        if shown == named {
            return monitoring::require_in(&text);
        }
        limit
            .pause(|| {
                let (too_many, too_few) = (named.difference(&shown), shown.difference(&named));
                format!(
                    "only on the page: {:?}; only in /metrics: {:?}",
                    too_many.collect::<Vec<_>>(),
                    too_few.collect::<Vec<_>>()
                )
            })
            .await?;
    }
}

#[test]
fn every_line_of_the_log_that_the_page_explains_can_come() {
    let mut sources = String::new();
    for folder in ["../node/src", "../storage/src"] {
        read_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut sources).unwrap();
    }
    let lines = first_column("The log");
    assert!(lines.len() > 10, "{lines:?}");
    for line in lines {
        assert!(sources.contains(line), "nothing logs {line:?}");
    }
}

#[test]
fn every_worst_day_was_tried_by_a_test_that_exists() {
    let (days, tried) =
        WORST_DAYS.split_once("\n## Tried\n").expect("what was tried is the last part");
    let days: BTreeSet<_> = days.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let rows = tried
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "));
    let rows: Vec<_> = rows.skip_while(|(day, _)| !days.contains(day)).collect();
    assert_eq!(rows.iter().map(|(day, _)| *day).collect::<BTreeSet<_>>(), days);
    for (day, test) in rows {
        let (file, name) = test.trim_matches('`').split_once(' ').expect("a file and a test");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(file);
        let source = std::fs::read_to_string(path).unwrap();
        assert!(source.contains(&format!("fn {name}(")), "{day}: {test}");
    }
}

fn read_all(folder: &Path, text: &mut String) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read_all(&path, text)?;
        } else {
            text.push_str(&std::fs::read_to_string(&path)?);
        }
    }
    Ok(())
}
