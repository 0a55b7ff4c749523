//! Many blocking queries for one key, and the write that wakes them all.
//!
//! The queries are written to bare sockets: of thousands of answers that arrive at once, the last must
//! not wait for the generator to parse the others.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::Failure;
use crate::connection::{Connection, Prepared};

const KEY: &str = "/v1/kv/figures-watched";
/// The queries are to be woken, not to time out.
const WAIT: &str = "5m";
/// Time for all queries to be parked, and, after the write, to be answered.
const LIMIT: Duration = Duration::from_secs(30);
/// Pause between two looks at the nodes' count of parked queries.
const POLL: Duration = Duration::from_millis(50);
/// The gauge in `/metrics` that counts parked queries.
const GAUGE: &str = "quorate_blocking_queries ";

/// When those who wait for something saw it.
#[derive(Debug)]
pub(crate) struct Woken {
    /// From the write's acknowledgement to the answer, in ascending order; zero for those that were
    /// answered before it.
    pub(crate) latencies: Vec<Duration>,
    /// Those that got no answer, or another than 200.
    pub(crate) errors: usize,
}

/// Parks `count` queries over all nodes, writes through the first node, and waits for all.
///
/// # Errors
/// When a connection fails, or the queries cannot be parked in time.
pub(crate) async fn run(nodes: &[SocketAddr], count: usize) -> Result<Woken, Failure> {
    let mut writer = Connection::open_alone(nodes[0]).await?;
    writer.fetch(&Prepared::put(KEY, "before")?).await?;
    let (head, _) = writer.fetch(&Prepared::get(KEY)?).await?;
    let index = head.headers.get("x-consul-index").ok_or("no X-Consul-Index")?.to_str()?.to_owned();
    let mut watchers = JoinSet::new();
    for number in 0..count {
        let node = nodes[number % nodes.len()];
        let mut stream = TcpStream::connect(node).await?;
        let query = format!("GET {KEY}?index={index}&wait={WAIT} HTTP/1.1\r\nHost: {node}\r\n\r\n");
        stream.write_all(query.as_bytes()).await?;
        watchers.spawn(watch(stream));
    }
    parked(nodes, count).await?;
    writer.fetch(&Prepared::put(KEY, "after")?).await?;
    let acknowledged = Instant::now();
    Ok(collect(watchers, acknowledged).await)
}

/// When the first bytes of a good answer arrived.
async fn watch(mut stream: TcpStream) -> Option<Instant> {
    let mut answer = [0; 1024];
    let length = stream.read(&mut answer).await.ok()?;
    let arrived = Instant::now();
    answer[..length].starts_with(b"HTTP/1.1 200").then_some(arrived)
}

async fn collect(mut watchers: JoinSet<Option<Instant>>, acknowledged: Instant) -> Woken {
    let mut woken = Woken { latencies: Vec::with_capacity(watchers.len()), errors: 0 };
    let all = async {
        while let Some(watcher) = watchers.join_next().await {
            match watcher.ok().flatten() {
                Some(at) => woken.latencies.push(at.saturating_duration_since(acknowledged)),
                None => woken.errors += 1,
            }
        }
    };
    let in_time = tokio::time::timeout(LIMIT, all).await.is_ok();
    if !in_time {
        woken.errors += watchers.len();
    }
    woken.latencies.sort_unstable();
    woken
}

/// Waits until the nodes say that they hold this many queries.
async fn parked(nodes: &[SocketAddr], count: usize) -> Result<(), Failure> {
    let mut connections = Vec::new();
    for node in nodes {
        connections.push(Connection::open_alone(*node).await?);
    }
    let metrics = Prepared::get("/metrics")?;
    let begun = Instant::now();
    while begun.elapsed() < LIMIT {
        let mut sum = 0;
        for connection in &mut connections {
            let (_, body) = connection.fetch(&metrics).await?;
            sum += gauge(&String::from_utf8_lossy(&body));
        }
        if sum >= count {
            return Ok(());
        }
        sleep(POLL).await;
    }
    Err(format!("the nodes did not park {count} queries").into())
}

fn gauge(metrics: &str) -> usize {
    let value = metrics.lines().find_map(|line| line.strip_prefix(GAUGE));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}
