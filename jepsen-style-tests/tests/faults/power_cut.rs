//! Acknowledged writes survive power cuts of one server, of a majority and of all, under load. Each cut proves that
//! it discarded what had not been synced.

use std::time::{Duration, Instant};

use jepsen_style_tests::disk::{self, Blackout};
use jepsen_style_tests::load::{CRASH, Load, Traffic};
use jepsen_style_tests::rounds::rounds;
use jepsen_style_tests::workload::set_and_counters;
use jepsen_style_tests::{Cluster, Options, Result, skipped};

const TEST: &str = "every_acknowledged_write_survives_power_cuts_of_one_a_majority_and_all";
/// So much is acknowledged before each cut.
const WRITES_PER_ROUND: usize = 150;
const WRITES_LIMIT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_write_survives_power_cuts_of_one_a_majority_and_all() {
    if let Err(why) = disk::require() {
        skipped(TEST, &why.to_string());
        return;
    }
    let disk_mib = Some(disk::SERVER_DISK_MIB);
    let mut cluster =
        Cluster::start_with(Options { disk_mib, ..Options::default() }).await.unwrap();
    let hashes = cluster.watch_hashes(Duration::from_millis(50));
    let mut earlier = Vec::new();
    let (mut cuts, mut acknowledged) = (0, 0);
    for round in 1..=rounds(3) {
        let prefix = format!("round-{round}/");
        let victims = victims(&cluster, round).await.unwrap();
        let traffic = loaded_cut(&mut cluster, &prefix, &victims).await.unwrap();
        cuts += victims.len();
        acknowledged += traffic.record().unwrap().writes_that_took_effect();
        traffic.require_valid(&cluster).await.unwrap();
        earlier.push(traffic);
    }
    for traffic in earlier {
        traffic.require_valid(&cluster).await.unwrap();
    }
    println!("{cuts} power cuts: 0 of {acknowledged} acknowledged writes lost");
    drop(hashes);
    cluster.finish().await.unwrap();
}

/// The leader, a majority with it, or all.
async fn victims(cluster: &Cluster, round: u32) -> Result<Vec<u64>> {
    let leader = cluster.leader().await?;
    let other = cluster.others(leader)[round as usize / 3 % 2];
    Ok(match round % 3 {
        1 => vec![leader],
        2 => vec![leader, other],
        _ => cluster.ids(),
    })
}

/// One cut, under a load until every server is ready again.
async fn loaded_cut(cluster: &mut Cluster, prefix: &str, victims: &[u64]) -> Result<Traffic> {
    let load = Load::start(cluster, &cluster.ids(), set_and_counters(prefix), CRASH).await?;
    load.wait_acknowledged(WRITES_PER_ROUND, WRITES_LIMIT).await?;
    let mut blackout = Blackout::begin(cluster, victims)?;
    let evidence = blackout.prove(cluster)?;
    let began = Instant::now();
    blackout.end(cluster)?;
    cluster.wait_all_ready().await?;
    let ready_ms = began.elapsed().as_millis();
    let traffic = load.stop().await?;
    println!(
        "{prefix} {victims:?}: {} writes acknowledged, {} requests failed, ready after {ready_ms} ms; {evidence}",
        traffic.acknowledged_writes(),
        traffic.failures()?.len(),
    );
    Ok(traffic)
}
