//! The program that measures measures: a small run of what holds and renews instances, against a real cluster.

use std::process::Command;
use std::time::Duration;

use jepsen_style_tests::Cluster;
use jepsen_style_tests::http::HttpExt as _;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);
/// From this level of the cluster's rules on there are presences, heartbeats with facts, and claims.
const LEVEL: u64 = 8;
/// Columns of the table.
const ERRORS: usize = 6;
const MEDIAN_MS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deaths_bulk_renewals_claims_and_streams_are_measured_without_an_error() {
    let cluster = Cluster::start(3).await.unwrap();
    let nodes = cluster.https(&cluster.ids());
    for node in &nodes {
        let knows = |hash: &Value| hash["Level"].as_u64() >= Some(LEVEL);
        node.wait_for("/v1/quorate/state-hash", LIMIT, knows).await.unwrap();
    }
    let bases: Vec<_> = nodes.iter().map(|node| node.base().to_owned()).collect();
    let pids: Vec<_> =
        cluster.ids().iter().map(|id| cluster.pid(*id).unwrap().to_string()).collect();
    let mut figures = Command::new(env!("CARGO_BIN_EXE_figures"));
    figures.args(["--nodes", &bases.join(","), "--pids", &pids.join(",")]);
    figures.args(["--only", "bulk,deaths,claims,streams", "--rounds", "1", "--seconds", "1"]);
    figures.args(["--services", "0", "--instances", "300", "--generators", "2"]);
    figures.args(["--presences", "30", "--deaths", "4", "--ttl", "2", "--streams", "20"]);
    figures.args(["--holders", "4", "--waiters", "40", "--pool", "20", "--hand-overs", "10"]);
    let output = tokio::task::spawn_blocking(move || figures.output()).await.unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    println!("{text}");
    let median = |name: &str| -> f64 {
        let row = text.lines().find(|line| line.starts_with(&format!("| {name}")));
        let cells: Vec<_> =
            row.unwrap_or_else(|| panic!("{name}\n{text}")).split('|').map(str::trim).collect();
        assert_eq!(cells[ERRORS], "0", "{name}\n{text}");
        cells[MEDIAN_MS].parse().unwrap()
    };
    assert!(median("bulk renewals, JSON") > 0.0);
    assert!(median("bulk renewals, ids") > 0.0);
    // The linger is part of it, and a TTL takes longer than that.
    let present = median("deaths, presence");
    assert!(present >= 500.0, "{text}");
    assert!(median("deaths, TTL") > 1_000.0, "{text}");
    for claims in ["4 instances, 0 waiting", "4 instances, 40 waiting", "20 instances, 0 waiting"] {
        assert!(median(&format!("claims, claim and release, 4 holders, {claims}")) > 0.0);
    }
    for line in ["1 instances, 20 waiting", "1 instances, 40 waiting", "20 instances, 20 waiting"] {
        assert!(median(&format!("claims, hand-over, {line}")) > 0.0);
    }
    median("20 streams");
    assert!(text.contains("Resident memory per node, 20 streams at the first node: "), "{text}");
    cluster.finish().await.unwrap();
}
