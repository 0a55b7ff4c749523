//! A cluster of the previous version is upgraded server by server, under load and in every order: no request fails,
//! servers of both versions have equal states, and the level of the rules rises with the last one.
//!
//! The previous version's binary is not built here: `QUORATE_OLD_BIN` names it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jepsen_style_tests::load::{Load, Volume};
use jepsen_style_tests::workload::set_and_counters;
use jepsen_style_tests::{Cluster, Failure, Limit, Options, Result, skipped};

const OLD_BINARY: &str = "QUORATE_OLD_BIN";
const LIMIT: Duration = Duration::from_secs(30);
/// Enough that entries are on their way at every moment.
const VOLUME: Volume = Volume { clients: 60, rate: 400 };
/// Writes before a server is upgraded, and after it.
const WRITES: usize = 400;
/// Every server builds a snapshot several times in each step, and one that was away is sent one.
const FLAGS: [&str; 4] = ["--raft-snapshot-threshold", "200", "--raft-trailing-logs", "10"];
const ORDERS: [[u64; 3]; 6] = [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]];
/// How long after its foundation a cluster of the previous version has the level of that version.
const RAISED_WITHIN: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_two_versions_agree_while_a_cluster_is_upgraded_in_any_order() {
    let Some(old) = std::env::var_os(OLD_BINARY).map(PathBuf::from) else {
        let why = format!("{OLD_BINARY} names no binary of the previous version");
        skipped("the rolling upgrade", &why);
        return;
    };
    assert!(old.is_file(), "{OLD_BINARY} names {}, which is no file", old.display());
    for order in ORDERS {
        upgrade(&old, order).await.unwrap();
    }
}

async fn upgrade(old: &Path, order: [u64; 3]) -> Result<()> {
    let flags = FLAGS.map(str::to_owned).to_vec();
    let binary = Some(old.to_owned());
    let mut cluster = Cluster::start_with(Options { flags, binary, ..Options::default() }).await?;
    let new = jepsen_style_tests::binary::quorate()?;
    let hashes = cluster.watch_hashes(Duration::from_millis(50));
    let mut earlier = Vec::new();
    // A version that knows levels raises its own soon after a cluster is founded.
    tokio::time::sleep(RAISED_WITHIN).await;
    let old_level = level(&cluster, order[0]).await?;
    for (step, id) in order.into_iter().enumerate() {
        assert_eq!(level(&cluster, id).await?, old_level, "server {id} still has the old version");
        let survivors = cluster.others(id);
        let workload = set_and_counters(&format!("step-{step}/"));
        let load = Load::start(&cluster, &survivors, workload, VOLUME).await?;
        load.wait_acknowledged(WRITES, LIMIT).await?;
        cluster.terminate(id)?;
        assert!(cluster.wait_stopped(id)?.success());
        let (seen, _) = cluster.state_hash(survivors[0]).await?;
        // It will have to be sent a snapshot, of a server of either version.
        purged_beyond(&cluster, &survivors, seen).await?;
        cluster.set_binary(id, Some(new.clone()));
        cluster.start_node(id)?;
        cluster.wait_ready(id).await?;
        let written = load.acknowledged() + WRITES;
        load.wait_acknowledged(written, LIMIT).await?;
        let log = cluster.log(id)?;
        assert!(log.contains("received a snapshot"), "vacuous: server {id} needed no snapshot");
        let traffic = load.stop().await?;
        let failures = traffic.failures()?;
        assert!(failures.is_empty(), "order {order:?}, server {id}: {failures:?}");
        cluster.converge().await?;
        earlier.push(traffic);
    }
    let limit = Limit::new(LIMIT);
    for id in order {
        while level(&cluster, id).await? == old_level {
            limit.pause(|| format!("the level to rise at server {id}")).await?;
        }
    }
    // A server of the old version logs why it cannot join any more, and joins with the new one.
    let late = cluster.add_member()?;
    cluster.wait_log(late, &["not a member yet", "the cluster has level"], LIMIT).await?;
    cluster.terminate(late)?;
    cluster.wait_stopped(late)?;
    cluster.set_binary(late, Some(new));
    cluster.start_node(late)?;
    cluster.wait_votes(late).await?;
    for traffic in earlier {
        traffic.require_valid(&cluster).await?;
    }
    cluster.converge().await?;
    drop(hashes);
    cluster.finish().await
}

/// Waits until servers have forgotten the log up to an index.
async fn purged_beyond(cluster: &Cluster, ids: &[u64], index: u64) -> Result<()> {
    let limit = Limit::new(LIMIT);
    for id in ids {
        let purged = async || {
            let metrics = cluster.http(*id).get("/metrics").await?;
            Ok::<_, Failure>(metrics.metric("quorate_raft_purged_index").unwrap_or(0))
        };
        while purged().await? <= index {
            limit.pause(|| format!("server {id} to purge its log up to {index}")).await?;
        }
    }
    Ok(())
}

/// Of the rules in force, as a server sees it. Versions that know no levels say nothing of one.
async fn level(cluster: &Cluster, id: u64) -> Result<u64> {
    let said = cluster.http(id).must_get("/v1/quorate/state-hash").await?;
    Ok(said["Level"].as_u64().unwrap_or(0))
}
