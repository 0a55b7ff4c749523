//! A cut stops exactly the directed link that was named, between real servers and in both ways of cutting; healing
//! restores it; and nothing is left on the machine afterwards.

use std::process::Command;
use std::time::{Duration, Instant};

use jepsen_style_tests::network::{Link, Network, Way};
use jepsen_style_tests::{Cluster, Limit, Options, Result, skipped};

/// Within this the links are seen as they are.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// Within this the others have a new leader and have written.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_packet_filter_stops_one_direction_of_one_link() {
    if let Err(why) = Way::nft_allowed() {
        return skipped("the packet filter stops one direction of one link", &why.to_string());
    }
    let mut cluster = Cluster::start(3).await.unwrap();
    let subnet = cluster.ip(1).octets();
    let table = format!("quorate_127_{}_{}_{}", subnet[1], subnet[2], std::process::id());
    filtered(&mut cluster, &table).await.unwrap();
    alone(&mut cluster, Way::Nft).await.unwrap();
    // At its end it has a table, which must go with it.
    cluster.network().unwrap().cut(Way::Nft, &[Link::new(1, 2)]).await.unwrap();
    assert!(tables().contains(&table));
    cluster.abandon();
    assert!(!tables().contains(&table), "{}", tables());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxies_stop_one_direction_of_one_link() {
    let options = Options { proxied: true, ..Options::default() };
    let mut cluster = Cluster::start_with(options).await.unwrap();
    proxied(&mut cluster).await.unwrap();
    alone(&mut cluster, Way::Proxy).await.unwrap();
    cluster.finish().await.unwrap();
}

/// Datagrams show each direction by itself; an exchange takes both.
async fn filtered(cluster: &mut Cluster, table: &str) -> Result<()> {
    let network = cluster.network()?;
    let cut = Link::new(1, 2);
    let mut dialled = network.connect(cut).await?;
    let mut accepted = network.connect(cut.back()).await?;
    wait_datagrams(network, network.links()).await?;

    network.cut(Way::Nft, &[cut]).await?;
    assert!(tables().contains(table));
    wait_datagrams(network, without(network.links(), &[cut])).await?;
    wait_answers(network, without(network.links(), &[cut, cut.back()])).await?;
    assert!(dialled.exchange().await.is_err(), "a question on an established connection passed");
    assert!(accepted.exchange().await.is_err(), "an answer on an established connection passed");

    network.heal().await?;
    assert!(!tables().contains(table));
    wait_datagrams(network, network.links()).await?;
    wait_answers(network, network.links()).await
}

/// The proxies' own counts tell the directions apart, on connections that were there before. Two followers
/// have nothing to say to each other, so what is counted between them is what is sent here.
async fn proxied(cluster: &mut Cluster) -> Result<()> {
    let leader = cluster.leader().await?;
    let followers = cluster.others(leader);
    let cut = Link::new(followers[0], followers[1]);
    let network = cluster.network()?;
    let mut dialled = network.connect(cut).await?;
    let mut accepted = network.connect(cut.back()).await?;

    network.cut(Way::Proxy, &[cut]).await?;
    let passed = network.passed_bytes(cut)?;
    assert!(dialled.exchange().await.is_err(), "a question passed");
    let passed_back = network.passed_bytes(cut.back())?;
    assert!(accepted.exchange().await.is_err(), "an answer passed");
    assert!(network.passed_bytes(cut.back())? > passed_back, "the open direction is cut as well");
    assert_eq!(network.passed_bytes(cut)?, passed);
    wait_answers(network, without(network.links(), &[cut, cut.back()])).await?;

    network.heal().await?;
    dialled.receive().await?;
    accepted.receive().await?;
    wait_answers(network, network.links()).await
}

/// A leader without its links leads no more, and the others write; afterwards it has what they wrote.
async fn alone(cluster: &mut Cluster, way: Way) -> Result<()> {
    let leader = cluster.leader().await?;
    let others = cluster.others(leader);
    let links: Vec<_> = others
        .iter()
        .flat_map(|other| [Link::new(leader, *other), Link::new(*other, leader)])
        .collect();
    cluster.network()?.cut(way, &links).await?;
    let began = Instant::now();
    cluster.http(others[0]).must_put("/v1/kv/network", "written by a majority").await?;
    assert!(began.elapsed() < WRITE_LIMIT, "written after {:?}", began.elapsed());
    let stale = cluster.http(leader).get("/v1/kv/network?stale").await?;
    assert_eq!(stale.status, 404, "the write reached the cut-off leader: {stale:?}");

    cluster.network()?.heal().await?;
    cluster.wait_all_ready().await?;
    let read = cluster.http(leader).get("/v1/kv/network?raw").await?;
    assert_eq!(read.body, "written by a majority");
    let network = cluster.network()?;
    wait_answers(network, network.links()).await
}

/// Waits until these links, and no others, carry datagrams: a busy machine may be slow to deliver one.
async fn wait_datagrams(network: &Network, wanted: Vec<Link>) -> Result<()> {
    let limit = Limit::new(LOOK_LIMIT);
    loop {
        let open = network.open_to_datagrams().await?;
        if open == wanted {
            return Ok(());
        }
        limit.check(|| format!("datagrams pass on {open:?}, not on {wanted:?}"))?;
    }
}

/// Waits until servers answer over these links, and over no others.
async fn wait_answers(network: &Network, wanted: Vec<Link>) -> Result<()> {
    let limit = Limit::new(LOOK_LIMIT);
    loop {
        let answering = network.answering().await?;
        if answering == wanted {
            return Ok(());
        }
        limit.check(|| format!("answers pass on {answering:?}, not on {wanted:?}"))?;
    }
}

fn without(links: Vec<Link>, gone: &[Link]) -> Vec<Link> {
    links.into_iter().filter(|link| !gone.contains(link)).collect()
}

fn tables() -> String {
    let output = Command::new("nft").args(["list", "tables"]).output().expect("nft runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
