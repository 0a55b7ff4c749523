//! Backups on a schedule, and the drill: everything is lost, and what was saved is all there again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jepsen_style_tests::http::HttpExt as _;
use jepsen_style_tests::process::Process;
use jepsen_style_tests::{Cluster, Failure, Limit, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::shell::{CONFLICT, FAILED, OK, PATIENCE, Shell, USAGE};

/// Longer than any wait in here: a cluster is founded in between.
const LIMIT: Duration = Duration::from_secs(60);
/// How many backups are kept.
const KEPT: usize = 2;
/// What must be the same afterwards.
const PATHS: [&str; 3] = ["/v1/kv/?recurse", "/v1/health/service/web", "/v1/catalog/services"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_lost_and_restored_from_a_backup_on_a_schedule() {
    let mut cluster = Cluster::start_shared(3).await.unwrap();
    drill(&mut cluster).await.unwrap();
    cluster.finish().await.unwrap();
}

async fn drill(cluster: &mut Cluster) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let backups = dir.path().join("backups");
    std::fs::create_dir(&backups)?;
    let (mine, text) = (backups.join("quorate-before-upgrade.tgz"), backups.display().to_string());
    std::fs::write(&mine, "not by the schedule")?;
    let shell = Shell::new(cluster);
    let every = ["snapshot", "save", "--every", "1s", "--keep", "2", &text];
    let log = dir.path().join("log");
    let environment = [("QUORATE_HTTP_ADDR", shell.addresses())];
    let mut schedule = Process::start_in(&environment, &log, every)?;
    refused(&shell, &text).await?;

    for number in 0..20 {
        cluster.http(1).must_put(&format!("/v1/kv/drill/{number}"), number.to_string()).await?;
    }
    let web = r#"{"Name": "web", "Port": 80, "Check": {"TTL": "10m", "Status": "passing"}}"#;
    cluster.http(2).must_put("/v1/agent/service/register?agent=host-1", web).await?;
    let shows = |rows: &Value| rows.as_array().is_some_and(|rows| !rows.is_empty());
    for id in cluster.ids() {
        cluster.http(id).wait_for("/v1/health/service/web", LIMIT, shows).await?;
    }
    let before = held(cluster).await?;
    let index = index(cluster).await?;
    let _ = saved(&schedule, &backups, index).await?;
    schedule.wait_logged("2 are kept", LIMIT).await?;

    for id in cluster.ids() {
        cluster.kill(id)?;
        cluster.wipe(id)?;
    }
    schedule.wait_logged("no backup was saved, trying again in 1s", LIMIT).await?;
    // What was whole stays: a failure removes nothing.
    let newest = saved(&schedule, &backups, index).await?;
    let drilled = dir.path().join("drill.tgz");
    std::fs::copy(&newest, &drilled)?;
    cluster.start_all()?;
    cluster.wait_all_ready().await?;
    assert!(cluster.http(3).get("/v1/kv/drill/7").await?.status == 404, "vacuous");

    shell.expect(OK, &["snapshot", "inspect", &drilled.display().to_string()]).await?;
    shell.expect(OK, &["snapshot", "restore", &drilled.display().to_string()]).await?;
    for id in cluster.ids() {
        cluster.http(id).wait_for("/v1/health/service/web", LIMIT, shows).await?;
    }
    assert_eq!(held(cluster).await?, before, "what was saved is there again");

    // The schedule has gone on by itself, and ends in order.
    let known = own(&backups)?;
    let limit = Limit::new(LIMIT);
    while own(&backups)?.is_subset(&known) {
        limit.pause(|| format!("a backup of the new cluster\n{}", schedule.log())).await?;
    }
    assert!(mine.exists(), "it removes what it made, and nothing else");
    schedule.signal(Signal::SIGTERM)?;
    assert_eq!(schedule.wait_ended(PATIENCE).await?, Some(OK));
    assert!(own(&backups)?.len() <= KEPT + 1, "{:?}", own(&backups)?);
    Ok(())
}

/// What a second schedule, and one that makes no sense, are told.
async fn refused(shell: &Shell, directory: &str) -> Result<()> {
    let limit = Limit::new(LIMIT);
    while !Path::new(directory).join(".quorate-backups.lock").exists() {
        limit.pause(|| "the schedule has begun".to_owned()).await?;
    }
    let save = |arguments: &[&str]| {
        [&["snapshot", "save"], arguments]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    for (arguments, code, word) in [
        (save(&["--every", "1s", directory]), CONFLICT, "another schedule"),
        (save(&["--every", "1s", "/nowhere/at/all"]), FAILED, "/nowhere/at/all"),
        (save(&["--every", "1ms", directory]), USAGE, "the least is 1s"),
        (save(&["--keep", "3", directory]), USAGE, "--every"),
    ] {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let ran = shell.expect(code, &arguments).await?;
        assert!(ran.err.contains(word), "{ran:?}");
    }
    Ok(())
}

/// The index of the newest key.
async fn index(cluster: &Cluster) -> Result<u64> {
    let answer = cluster.http(1).get("/v1/kv/drill/?recurse").await?;
    answer.index().ok_or_else(|| Failure::new("no index"))
}

/// What clients see, without the indexes, which go on.
async fn held(cluster: &Cluster) -> Result<Vec<Value>> {
    let mut held = Vec::new();
    for (path, id) in PATHS.into_iter().zip(cluster.ids()) {
        let mut value = cluster.http(id).must_get(path).await?;
        without_indexes(&mut value);
        held.push(value);
    }
    Ok(held)
}

fn without_indexes(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, _| !name.ends_with("Index"));
            members.values_mut().for_each(without_indexes);
        }
        Value::Array(items) => items.iter_mut().for_each(without_indexes),
        _ => {}
    }
}

/// The newest backup, once there is one of this index or a later one.
async fn saved(schedule: &Process, directory: &Path, index: u64) -> Result<PathBuf> {
    let limit = Limit::new(LIMIT);
    loop {
        let newest = own(directory)?.into_iter().filter(|(of, _)| *of >= index).max();
        if let Some((_, name)) = newest {
            return Ok(directory.join(name));
        }
        limit.pause(|| format!("a backup of index {index}\n{}", schedule.log())).await?;
    }
}

/// The backups of the schedule, by their index.
fn own(directory: &Path) -> Result<BTreeSet<(u64, String)>> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let index =
            name.strip_suffix(".tgz").and_then(|rest| rest.rsplit('-').next()?.parse().ok());
        found.extend(index.map(|index| (index, name)));
    }
    Ok(found)
}
