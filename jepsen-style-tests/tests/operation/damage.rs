//! A file of a server is damaged: the server says which and what to do, and what was acknowledged is there afterwards.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jepsen_style_tests::cluster::Options;
use jepsen_style_tests::http::HttpExt as _;
use jepsen_style_tests::{Cluster, Failure, Limit, Result};

use super::shell::Shell;

const PATIENCE: Duration = Duration::from_secs(60);
/// Every server builds a snapshot early.
const FLAGS: [&str; 4] = ["--raft-snapshot-threshold", "40", "--raft-trailing-logs", "10"];
/// Enough for one.
const WRITES: usize = 80;
/// A damaged disk does not stop at one bit of a long file, most of which is not used.
const FLIP_EVERY_BYTES: usize = 256;

/// A file of a data directory, and what a server says of it and its remedy.
struct Damaged {
    file: fn(&Path) -> Result<PathBuf>,
    says: [&'static str; 2],
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_is_named_with_what_to_do_and_nothing_acknowledged_is_lost() {
    let flags = FLAGS.map(str::to_owned).to_vec();
    let mut cluster = Cluster::start_with(Options { flags, ..Options::shared() }).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    write(&cluster, leader, "before").await.unwrap();
    let victim = cluster.others(leader)[0];
    let identity = Damaged {
        file: |data| Ok(data.join("identity")),
        says: ["identity of this data directory is damaged", "restore the file"],
    };
    let snapshot = Damaged {
        file: snapshot,
        says: ["the snapshot is damaged", "Restore the file, or remove this server"],
    };
    let log = Damaged {
        file: |data| Ok(data.join("log/db")),
        says: ["/log: the log of node", "remove this server from the cluster"],
    };
    for damaged in [identity, snapshot] {
        restored(&mut cluster, victim, &damaged).await.unwrap();
    }
    replaced(&mut cluster, victim, &log).await.unwrap();
    for id in cluster.ids() {
        let keys = cluster.http(id).must_get("/v1/kv/?keys").await.unwrap();
        assert_eq!(keys.as_array().map(Vec::len), Some(2 * WRITES), "n{id}");
    }
    cluster.finish().await.unwrap();
}

/// Some acknowledged writes.
async fn write(cluster: &Cluster, id: u64, folder: &str) -> Result<()> {
    for number in 0..WRITES {
        cluster.http(id).must_put(&format!("/v1/kv/{folder}/{number}"), "acknowledged").await?;
    }
    Ok(())
}

/// The server's newest snapshot.
fn snapshot(data: &Path) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(data.join("snapshots"))? {
        found.push(entry?.path());
    }
    found.sort();
    found.pop().ok_or_else(|| Failure::new("no snapshot"))
}

/// Stops a server in order, so that it knows where its log ends, damages the file and has it refuse to start.
/// Returns the file and what was in it.
async fn refused(cluster: &mut Cluster, id: u64, damaged: &Damaged) -> Result<(PathBuf, Vec<u8>)> {
    let limit = Limit::new(PATIENCE);
    while cluster.http(id).figure("quorate_raft_snapshot_index").await? == 0 {
        limit.pause(|| format!("a snapshot of n{id}")).await?;
    }
    cluster.terminate(id)?;
    cluster.wait_stopped(id)?;
    let file = (damaged.file)(cluster.data_dir(id))?;
    let whole = std::fs::read(&file)?;
    let mut bytes = whole.clone();
    let middle = bytes.len().min(FLIP_EVERY_BYTES) / 2;
    bytes.iter_mut().skip(middle).step_by(FLIP_EVERY_BYTES).for_each(|byte| *byte ^= 1);
    std::fs::write(&file, bytes)?;
    cluster.start_node(id)?;
    assert!(!cluster.wait_ended(id, PATIENCE).await?.success());
    let log = cluster.log(id)?;
    let last = log.lines().rev().find(|line| line.contains(damaged.says[0]));
    let last = last.ok_or_else(|| Failure::new(format!("{} in {log}", damaged.says[0])))?;
    let file_name = file.parent().and_then(Path::to_str).unwrap_or_default();
    assert!(last.contains(damaged.says[1]) && last.contains(file_name), "{last}");
    assert!(cluster.panics()?.is_empty(), "{:?}", cluster.panics());
    Ok((file, whole))
}

/// The file is restored from a copy: this server's own of the same moment, so nothing is forgotten.
async fn restored(cluster: &mut Cluster, id: u64, damaged: &Damaged) -> Result<()> {
    let (file, whole) = refused(cluster, id, damaged).await?;
    std::fs::write(file, whole)?;
    cluster.start_node(id)?;
    cluster.wait_ready(id).await
}

/// There is no copy: the server is replaced, as it says itself, while clients go on.
async fn replaced(cluster: &mut Cluster, id: u64, damaged: &Damaged) -> Result<()> {
    refused(cluster, id, damaged).await?;
    let other = cluster.others(id)[0];
    write(cluster, other, "meanwhile").await?;
    let removal = format!("`quorate operator raft remove {}`", cluster.raft_id(id));
    let limit = Limit::new(PATIENCE);
    loop {
        let told = Shell::new(cluster).run(&["doctor"]).await?.out;
        if told.contains(&removal) {
            break;
        }
        limit.pause(|| format!("{removal} in {told}")).await?;
    }
    cluster.remove_from_raft(cluster.raft_id(id), other).await?;
    cluster.wipe(id)?;
    cluster.renew_raft_id(id);
    cluster.start_node(id)?;
    cluster.wait_votes(id).await?;
    cluster.converge().await.map(drop)
}
