//! Servers with few file descriptors, and more clients than that.

use std::time::Duration;

use jepsen_style_tests::cluster::Options;
use jepsen_style_tests::http::{AnswerExt as _, Http, HttpExt as _};
use jepsen_style_tests::process::{raise_descriptor_limit, resident_kib};
use jepsen_style_tests::{Cluster, Failure, Limit, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What a server may have: five sixteenths of it are for HTTP clients, one for DNS over TCP, two for the RPC port.
const DESCRIPTORS: usize = 512;
const CLIENTS: usize = DESCRIPTORS * 5 / 16;
const RPC: usize = DESCRIPTORS / 8;
/// Connections of the test's own that are open already, at most.
const OTHER_CLIENTS: usize = 8;
/// Long polls at each server.
const POLLS: usize = CLIENTS + 60;
/// Where servers listen for each other.
const RPC_PORT: u16 = 8300;
/// Connections to each server's RPC port that say nothing.
const STRANGERS: usize = 1_050;
/// Requests that are sent in part, and how much of each.
const HALF_REQUESTS: usize = 12;
const HALF_BYTES: usize = 40 << 20;
/// What they may cost a server. All that is sent is far more.
const MORE_MIB_MAX: u64 = 260;
/// Some snapshots' worth.
const WRITES: usize = 240;

/// A long poll: it is held, or was refused.
async fn poll(address: &str, index: u64) -> Result<Option<TcpStream>> {
    let mut stream = TcpStream::connect(address).await?;
    let request =
        format!("GET /v1/kv/polled?index={index}&wait=9m HTTP/1.1\r\nHost: quorate\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    // Most refused clients are answered at once; some are only disconnected.
    let read = stream.read_to_string(&mut answer);
    match tokio::time::timeout(Duration::from_millis(500), read).await {
        Err(_) => Ok(Some(stream)),
        Ok(Err(_)) => Ok(None),
        Ok(Ok(_)) if answer.is_empty() => Ok(None),
        Ok(Ok(_)) if answer.starts_with("HTTP/1.1 503") && answer.contains("Retry-After: 1") => {
            Ok(None)
        }
        Ok(Ok(_)) => Err(Failure::new(format!("neither held nor refused: {answer}"))),
    }
}

async fn figure(node: &Http, name: &str) -> Result<u64> {
    // Its own connection, so one that is beyond the limit.
    Http::with_timeout(node.base(), Duration::from_secs(10))?.figure(name).await
}

fn options() -> Options {
    Options {
        // The soft limit is the one that a server raises.
        before_start: vec![format!("ulimit -Sn 128; ulimit -Hn {DESCRIPTORS}")],
        flags: [
            "--raft-snapshot-threshold=60",
            "--raft-trailing-logs=30",
            // All clients are this test.
            "--http-connections-per-client=0",
        ]
        .map(str::to_owned)
        .into(),
        ..Options::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_long_polls_than_descriptors_are_refused_and_end_no_server() {
    raise_descriptor_limit().unwrap();
    let cluster = Cluster::start_with(options()).await.unwrap();
    let nodes = cluster.https(&cluster.ids());
    nodes[0].must_put("/v1/kv/polled", "once").await.unwrap();
    let mut held = Vec::new();
    for node in &nodes {
        // Each has a connection from before.
        let index = node.get("/v1/kv/polled").await.unwrap().require_index().unwrap();
        let address = node.base().trim_start_matches("http://").to_owned();
        let polls = (0..POLLS).map(|_| poll(&address, index));
        let polls = futures_util::future::try_join_all(polls).await.unwrap();
        let here = polls.iter().flatten().count();
        assert!((CLIENTS - OTHER_CLIENTS..=CLIENTS).contains(&here), "{here} are held");
        held.extend(polls.into_iter().flatten());
    }
    for number in 0..WRITES {
        let node = &nodes[number % nodes.len()];
        node.must_put(&format!("/v1/kv/written/{}", number % 50), "value").await.unwrap();
    }
    for node in &nodes {
        let fresh = Http::with_timeout(node.base(), Duration::from_secs(10)).unwrap();
        assert_eq!(fresh.get("/readyz").await.unwrap().status, 200);
        assert_eq!(figure(node, "quorate_descriptors_max").await.unwrap(), DESCRIPTORS as u64);
        assert!(figure(node, "quorate_raft_snapshot_index").await.unwrap() >= 60);
        let refused = figure(node, "quorate_client_connections_refused_total").await.unwrap();
        assert!(refused >= (POLLS - CLIENTS) as u64, "{refused} were refused");
    }
    for id in cluster.ids() {
        let log = cluster.log(id).unwrap();
        let lines = log.lines().filter(|line| line.contains("refusing more")).count();
        assert!((1..20).contains(&lines), "{lines} lines of n{id} tell of refused connections");
    }
    drop(held);
    let fresh = Http::with_timeout(nodes[0].base(), Duration::from_secs(10)).unwrap();
    let limit = Limit::new(Duration::from_secs(10));
    while fresh.get("/v1/kv/polled").await.unwrap().status != 200 {
        limit.pause(|| "places are given back".to_owned()).await.unwrap();
    }
    cluster.finish().await.unwrap();
}

/// What a server says of the connections of its RPC port, as clients of Consul ask it.
async fn rpc_figure(node: &Http, name: &str) -> Result<u64> {
    let fresh = Http::with_timeout(node.base(), Duration::from_secs(10))?;
    let figure = fresh.get("/v1/agent/metrics?format=prometheus").await?.metric(name);
    figure.ok_or_else(|| Failure::new(format!("no figure {name}")))
}

/// Whether the other end has not closed a connection.
async fn is_open(stream: &mut TcpStream) -> bool {
    let mut ignored = [0; 64];
    let read = stream.read(&mut ignored);
    tokio::time::timeout(Duration::from_millis(20), read).await.is_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_take_no_place_from_peers() {
    raise_descriptor_limit().unwrap();
    let mut cluster = Cluster::start_with(options()).await.unwrap();
    let mut silent = Vec::new();
    for id in cluster.ids() {
        for _ in 0..STRANGERS {
            silent.push(TcpStream::connect((cluster.ip(id), RPC_PORT)).await.unwrap());
        }
    }
    // Peers have to connect anew.
    let restarted = cluster.others(cluster.leader().await.unwrap())[0];
    cluster.restart(restarted).unwrap();
    cluster.wait_all_ready().await.unwrap();
    let nodes = cluster.https(&cluster.ids());
    for number in 0..WRITES {
        let node = &nodes[number % nodes.len()];
        node.must_put(&format!("/v1/kv/written/{}", number % 50), "value").await.unwrap();
    }
    for node in &nodes {
        let fresh = Http::with_timeout(node.base(), Duration::from_secs(10)).unwrap();
        assert_eq!(fresh.get("/livez").await.unwrap().status, 200);
        assert!(figure(node, "quorate_raft_snapshot_index").await.unwrap() >= 60);
        assert_eq!(rpc_figure(node, "quorate_rpc_connections_max").await.unwrap(), RPC as u64);
        let known = rpc_figure(node, "quorate_rpc_connections").await.unwrap();
        assert!((1..=RPC as u64).contains(&known), "{known} of peers");
        let unknown = rpc_figure(node, "quorate_rpc_connections_unknown").await.unwrap();
        assert!(unknown <= RPC as u64 / 4, "{unknown} of strangers");
    }
    for id in cluster.others(restarted) {
        let node = cluster.http(id);
        let evicted = rpc_figure(&node, "quorate_rpc_connections_evicted_total").await.unwrap();
        assert!(evicted >= (STRANGERS - RPC) as u64, "{evicted} were evicted");
    }
    let mut open = 0;
    for stream in &mut silent {
        open += usize::from(is_open(stream).await);
    }
    assert!(open <= cluster.ids().len() * RPC, "{open} are open");
    cluster.finish().await.unwrap();
}

/// Begins a request of the largest size that there may be, and sends this much of it. Whether all was taken.
async fn half_a_request(
    address: (std::net::Ipv4Addr, u16),
    bytes: usize,
) -> Result<(TcpStream, bool)> {
    let mut stream = TcpStream::connect(address).await?;
    let head = "POST /rpc/1/call HTTP/1.1\r\nHost: quorate\r\nContent-Length: 80000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    let piece = vec![7; 1 << 20];
    for _ in 0..bytes / piece.len() {
        let sent = tokio::time::timeout(Duration::from_secs(2), stream.write_all(&piece)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return Ok((stream, false));
        }
    }
    Ok((stream, true))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_never_arrive_in_full_take_little_memory() {
    let cluster = Cluster::start(3).await.unwrap();
    let follower = cluster.others(cluster.leader().await.unwrap())[0];
    let pid = cluster.pid(follower).unwrap();
    let before = resident_kib(pid).unwrap();
    let address = (cluster.ip(follower), RPC_PORT);
    let halves = (0..HALF_REQUESTS).map(|_| half_a_request(address, HALF_BYTES));
    let halves = futures_util::future::try_join_all(halves).await.unwrap();
    assert!(halves.iter().any(|(_, is_taken)| !is_taken), "all were taken");
    let node = cluster.http(follower);
    assert!(rpc_figure(&node, "quorate_rpc_requests_refused_total").await.unwrap() > 0);
    let more = resident_kib(pid).unwrap().saturating_sub(before) >> 10;
    assert!(more < MORE_MIB_MAX, "{more} MiB more");
    cluster.http(follower).must_put("/v1/kv/written", "meanwhile").await.unwrap();
    drop(halves);
    cluster.finish().await.unwrap();
}
