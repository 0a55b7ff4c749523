//! A follower that sees the leader's process end does not wait for the election timeout; one that merely hears
//! nothing does.

use std::time::Duration;

use jepsen_style_tests::http::HttpExt as _;
use jepsen_style_tests::{Cluster, Failure, Limit, Options, Result};

/// Far longer than an election takes.
const LIMIT: Duration = Duration::from_secs(40);
const ROUNDS: u64 = 3;
/// What a server logs when it begins such an election.
const LINE: [&str; 2] = ["INFO", "the leader's process has ended: standing for election at once"];
/// What counts them.
const FIGURE: &str = "quorate_raft_elections_after_leader_end_total";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_succeeded_at_once_and_a_paused_one_is_not() {
    let options = Options::shared();
    let mut cluster = Cluster::start_with(options).await.unwrap();
    for round in 1..=ROUNDS {
        let said = killed(&mut cluster).await.unwrap();
        println!("round {round}: {said}");
    }
    for _ in 1..=ROUNDS {
        paused(&mut cluster).await.unwrap();
    }
    cluster.finish().await.unwrap();
}

/// Kills the leader, and returns what a follower logged of its early election.
async fn killed(cluster: &mut Cluster) -> Result<String> {
    let (leader, others) = settled(cluster).await?;
    let before = counted(cluster, &others).await?;
    let lines = logged(cluster, &others)?.len();
    cluster.kill(leader)?;
    let limit = Limit::new(LIMIT);
    while counted(cluster, &others).await? == before || logged(cluster, &others)?.len() == lines {
        limit.pause(|| format!("an early election after the end of n{leader}")).await?;
    }
    let said = logged(cluster, &others)?.pop();
    cluster.leader().await?;
    cluster.start_node(leader)?;
    said.ok_or_else(|| Failure::new("no line"))
}

/// Pauses the leader until another one leads. Nobody may believe that its process has ended, then or when it
/// goes on.
async fn paused(cluster: &mut Cluster) -> Result<()> {
    let (leader, others) = settled(cluster).await?;
    let (before, lines) = (counted(cluster, &others).await?, logged(cluster, &others)?.len());
    cluster.pause(leader)?;
    let next = cluster.leader().await?;
    assert_ne!(next, leader);
    assert_eq!(counted(cluster, &others).await?, before);
    cluster.resume(leader)?;
    settled(cluster).await?;
    assert_eq!(counted(cluster, &others).await?, before);
    assert_eq!(logged(cluster, &others)?.len(), lines);
    Ok(())
}

/// The leader and the others, once every server takes part: then each follower holds the connection to the
/// leader whose end it would see.
async fn settled(cluster: &mut Cluster) -> Result<(u64, Vec<u64>)> {
    cluster.wait_all_ready().await?;
    cluster.wait_all_listed().await?;
    let leader = cluster.leader().await?;
    Ok((leader, cluster.others(leader)))
}

/// How many early elections these servers count together.
async fn counted(cluster: &Cluster, ids: &[u64]) -> Result<u64> {
    let mut sum = 0;
    for id in ids {
        sum += cluster.http(*id).figure(FIGURE).await?;
    }
    Ok(sum)
}

/// What these servers have logged of early elections.
fn logged(cluster: &Cluster, ids: &[u64]) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for id in ids {
        let log = cluster.log(*id)?;
        let of_interest = log.lines().filter(|line| LINE.iter().all(|word| line.contains(word)));
        lines.extend(of_interest.map(str::to_owned));
    }
    Ok(lines)
}
