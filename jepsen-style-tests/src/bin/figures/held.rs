//! Requests that stay open: presences and streams, on bare sockets.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::Failure;
use crate::connection::{Connection, Prepared};

/// Opened at a time, at each node: enough for the cluster to batch.
const OPENING_PER_NODE: usize = 16;
/// How long an open may take.
const OPEN_MAX: Duration = Duration::from_secs(30);
/// What is read at a time.
const READ_BYTES: usize = 16 * 1024;

/// An open request: its socket.
pub(crate) type Held = TcpStream;

/// Opens the presence of an instance, and waits until it is registered.
pub(crate) async fn presence(
    node: SocketAddr,
    service: &str,
    id: &str,
    linger: &str,
) -> Result<Held, Failure> {
    let body = serde_json::json!({"Name": service, "ID": id, "Port": 80}).to_string();
    let request = format!(
        "PUT /v1/quorate/presence?linger={linger} HTTP/1.1\r\nHost: {node}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    open(node, &request, "event: registered").await
}

/// Opens a stream, and waits until all instances were listed.
pub(crate) async fn stream(node: SocketAddr, query: &str) -> Result<Held, Failure> {
    let request = format!("GET /v1/quorate/stream?{query} HTTP/1.1\r\nHost: {node}\r\n\r\n");
    open(node, &request, "\"Complete\":true").await
}

/// Sends a request, and waits until a text has come.
async fn open(node: SocketAddr, request: &str, awaited: &str) -> Result<Held, Failure> {
    let mut socket = TcpStream::connect(node).await?;
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let reading = async {
        loop {
            let text = String::from_utf8_lossy(&answer);
            if text.contains(awaited) {
                return Ok(());
            }
            let is_refused = text.contains("\r\n") && !text.starts_with("HTTP/1.1 200");
            let is_whole = text.contains("\r\n\r\n");
            if is_refused && is_whole {
                return Err(Failure::from(format!("refused: {text}")));
            }
            answer.reserve(READ_BYTES);
            if socket.read_buf(&mut answer).await? == 0 {
                return Err(Failure::from("the connection ends in the answer"));
            }
        }
    };
    timeout(OPEN_MAX, reading).await.map_err(|_| "no answer")??;
    Ok(socket)
}

/// Opens many, the n-th by `open(n)`, some at a time.
pub(crate) async fn open_all<F>(
    nodes: usize,
    count: usize,
    open: impl Fn(usize) -> F,
) -> Result<Vec<Held>, Failure>
where
    F: Future<Output = Result<Held, Failure>> + Send + 'static,
{
    let (mut opening, mut held) = (JoinSet::new(), Vec::with_capacity(count));
    for number in 0..count {
        if opening.len() == nodes * OPENING_PER_NODE
            && let Some(opened) = opening.join_next().await
        {
            held.push(opened??);
        }
        opening.spawn(open(number));
    }
    while let Some(opened) = opening.join_next().await {
        held.push(opened??);
    }
    Ok(held)
}

/// How many instances of a service pass, and the index of that answer. With an index of before it waits for a
/// change.
pub(crate) async fn passing(
    connection: &mut Connection,
    service: &str,
    index: &str,
) -> Result<(usize, String), Failure> {
    let path = format!("/v1/health/service/{service}?passing&wait=1m&index={index}");
    let (head, body) = connection.fetch(&Prepared::get(&path)?).await?;
    let rows: Vec<Value> = serde_json::from_slice(&body)?;
    let index = head.headers.get("x-consul-index").ok_or("no X-Consul-Index")?.to_str()?;
    Ok((rows.len(), index.to_owned()))
}
