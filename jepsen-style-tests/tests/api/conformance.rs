//! Replays recorded requests and answers of a real Consul against a three-node cluster.
//!
//! The recordings and the program that replays them live outside this repository, in `shared/consul` beside it.
//! Where they are missing (or there is no Python to run them) the test says so and passes. Each request goes to the
//! next node, so every node must know what another one was told.
//!
//! `conformance/differences.txt` lists the steps in which Quorate differs, with the reason. A step that differs and
//! is not listed fails the test, and so does one that is listed and does not differ.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use jepsen_style_tests::rounds::rounds;
use jepsen_style_tests::script::is_present;
use jepsen_style_tests::{Cluster, Failure, Options, Result, skipped};
use serde::Deserialize;

use crate::acl::Guarded;

/// Every recorded area.
const AREAS: &str = "agent-check,agent-misc,agent-service,blocking,catalog,clients,consistency,coordinate,dns,event,\
filter,health,http,kv,operator,out,query,session,snapshot,txn";
/// The steps in which Quorate differs.
const DIFFERENCES: &str = include_str!("conformance/differences.txt");
/// How long a `?stale` read may take to show what another node was told just before.
const STALE_TOLERANCE_MS: &str = "500";

#[derive(Debug, Deserialize)]
struct Report {
    results: Vec<Step>,
}

#[derive(Debug, Deserialize)]
struct Step {
    case: String,
    step: u32,
    scope: String,
    ok: bool,
    problems: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recorded_answers_of_consul_are_given_by_any_node() -> Result<()> {
    let vectors = recordings();
    let Some(replay) = vectors.as_deref().filter(|_| is_present(Path::new("python3"))) else {
        let why = "shared/consul is not beside this checkout, or there is no python3";
        skipped("the_recorded_answers_of_consul_are_given_by_any_node", why);
        return Ok(());
    };
    // Consul shows what the target of a check answers.
    let flags = vec!["--check-output-body".to_owned()];
    let cluster = Cluster::start_with(Options { flags, ..Options::shared() }).await?;
    let nodes: Vec<String> =
        cluster.ids().iter().map(|id| cluster.http(*id).base().to_owned()).collect();
    let dns: Vec<String> = cluster.ids().iter().map(|id| cluster.dns(*id).to_string()).collect();
    for _ in 0..rounds(1) {
        let report = run(replay, &nodes.join(","), &dns.join(","), &["--area", AREAS])?;
        judge(&report, &listed(DIFFERENCES))?;
    }
    cluster.finish().await
}

/// With access control: the steps about tokens, and all others with a token that may do everything. They take three
/// minutes: `QUORATE_ACL_VECTORS=1` runs them.
#[tokio::test(flavor = "multi_thread")]
async fn the_recorded_answers_about_tokens_are_given_by_any_node() -> Result<()> {
    let vectors = recordings().filter(|_| std::env::var_os("QUORATE_ACL_VECTORS").is_some());
    let Some(replay) = vectors.as_deref().filter(|_| is_present(Path::new("python3"))) else {
        let why = "QUORATE_ACL_VECTORS is not set, or shared/consul or python3 is missing";
        skipped("the_recorded_answers_about_tokens_are_given_by_any_node", why);
        return Ok(());
    };
    let guarded = Guarded::start_new().await;
    let (nodes, dns) = guarded.addresses();
    let tokens = run(replay, &nodes, &dns, &["--area", "acl", "--loose-text", "--bootstrap"])?;
    judge(&tokens, &listed(include_str!("conformance/acl_differences.txt")))?;
    drop(guarded);
    let guarded = Guarded::start().await;
    guarded.let_everybody_look_up_names().await;
    let (nodes, dns) = guarded.addresses();
    let token = ["--send-token", "--token", guarded.management()];
    let others = run(replay, &nodes, &dns, &[&["--area", AREAS][..], &token[..]].concat())?;
    let mut differing = listed(DIFFERENCES);
    // The header tells the default policy, and `anonymous` is a token like others.
    let own = ["http/acl-header#1", "http/acl-header#2", "http/tokens#4"];
    differing.extend(own.map(str::to_owned));
    judge(&others, &differing)
}

/// Replays some areas once.
fn run(replay: &Path, nodes: &str, dns: &str, more: &[&str]) -> Result<Report> {
    let report = tempfile::NamedTempFile::new()?;
    let ran = Command::new("python3")
        .arg(replay.join("difftool.py"))
        .args(["--nodes", nodes, "--dns", dns, "--scope", "core"])
        .args(more)
        .args(["--raw-tolerance-ms", STALE_TOLERANCE_MS, "--json-report"])
        .arg(report.path())
        .arg(replay.join("vectors"))
        .output()?;
    serde_json::from_slice(&std::fs::read(report.path())?).map_err(|error| {
        Failure::new(format!("no report ({error}): {}", String::from_utf8_lossy(&ran.stderr)))
    })
}

fn judge(report: &Report, listed: &BTreeSet<String>) -> Result<()> {
    let steps: Vec<_> = report.results.iter().filter(|step| step.scope == "core").collect();
    let differing: BTreeMap<String, &[String]> = steps
        .iter()
        .filter(|step| !step.ok)
        .map(|step| (format!("{}#{}", step.case, step.step), step.problems.as_slice()))
        .collect();
    println!("{} steps, {} differ, {} listed", steps.len(), differing.len(), listed.len());
    let unlisted: Vec<_> = differing.iter().filter(|(step, _)| !listed.contains(*step)).collect();
    let agreeing: Vec<_> = listed.iter().filter(|step| !differing.contains_key(*step)).collect();
    if unlisted.is_empty() && agreeing.is_empty() && !steps.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "differ and are not listed: {unlisted:#?}\nare listed and do not differ: {agreeing:#?}"
    )))
}

fn listed(differences: &str) -> BTreeSet<String> {
    let steps = differences.lines().filter(|line| !line.starts_with('#'));
    steps.filter_map(|line| line.split('\t').next()).map(str::to_owned).collect()
}

/// `shared/consul` in the directory of the checkout.
fn recordings() -> Option<PathBuf> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let consul = checkout.parent()?.join("shared/consul");
    consul.join("difftool.py").is_file().then_some(consul)
}
