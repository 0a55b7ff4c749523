//! Clients of `PUT /v1/quorate/presence`: a plain one, and one that goes elsewhere when its server is gone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use jepsen_style_tests::{Failure, Result};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// A server that sends nothing for this long is dead: a comment comes every 2 s.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(6);
/// How long an answer may take, while there is no leader.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// Pause before the next server is tried.
const PAUSE: Duration = Duration::from_millis(50);

/// An open presence. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) socket: TcpStream,
    raw: BytesMut,
    /// The first frame.
    pub(crate) registered: Value,
}

impl Client {
    /// Opens a presence at a server; the error of a refusal begins with its status.
    pub(crate) async fn open(base: &str, query: &str, body: &Value) -> Result<Self> {
        let address = base.trim_start_matches("http://");
        let address: SocketAddr =
            address.parse().map_err(|error| Failure::new(format!("{address}: {error}")))?;
        let socket = TcpStream::connect(address).await?;
        let mut client = Self { socket, raw: BytesMut::new(), registered: Value::Null };
        let body = body.to_string();
        let head = format!(
            "PUT /v1/quorate/presence?{query} HTTP/1.1\r\nHost: quorate\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        client.socket.write_all(format!("{head}{body}").as_bytes()).await?;
        let answered = tokio::time::timeout(ANSWER_MAX, client.answer()).await;
        answered.map_err(|_| Failure::new("no answer"))??;
        Ok(client)
    }

    async fn answer(&mut self) -> Result<()> {
        let end = loop {
            if let Some(end) = find(&self.raw, b"\r\n\r\n") {
                break end;
            }
            self.read().await?;
        };
        let head = String::from_utf8_lossy(&self.raw.split_to(end + 4)).into_owned();
        if !head.starts_with("HTTP/1.1 200") {
            let status = head.split(' ').nth(1).unwrap_or_default();
            let length: usize = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok())
                .unwrap_or_default();
            while self.raw.len() < length {
                self.read().await?;
            }
            let text = String::from_utf8_lossy(&self.raw).into_owned();
            return Err(Failure::new(format!("{status} {text}")));
        }
        let (name, data) = self.frame().await?;
        match name.as_str() {
            "registered" => self.registered = data,
            _ => return Err(Failure::new(format!("{name} {data} comes first"))),
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<()> {
        match self.socket.read_buf(&mut self.raw).await? {
            0 => Err(Failure::new("the server has closed the connection")),
            _ => Ok(()),
        }
    }

    /// The next frame; comments count as signs of life only. An end without one is an error.
    pub(crate) async fn frame(&mut self) -> Result<(String, Value)> {
        loop {
            // Frames never contain a chunk's frame, and chunks' sizes are no field.
            if let Some(end) = find(&self.raw, b"\n\n") {
                let text = String::from_utf8_lossy(&self.raw.split_to(end)).into_owned();
                self.raw.advance(2);
                let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
                if let (Some(name), Some(data)) = (field("event: "), field("data: ")) {
                    let data = serde_json::from_str(data).unwrap_or(Value::Null);
                    return Ok((name.to_owned(), data));
                }
                continue;
            }
            tokio::time::timeout(SILENCE_MAX, self.read())
                .await
                .map_err(|_| Failure::new(format!("nothing came for {SILENCE_MAX:?}")))??;
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// What all minders of a test have seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Presences that are open.
    pub(crate) open: AtomicU64,
    /// How often one was opened.
    pub(crate) opened: AtomicU64,
    /// Frames `moved`.
    pub(crate) moved: AtomicU64,
}

/// A process that keeps its presence open, at whatever server.
#[derive(Debug)]
pub(crate) struct Minder {
    task: JoinHandle<()>,
}

impl Minder {
    /// Opens the presence of an instance at the first of some servers, and at the next one when that is gone.
    pub(crate) fn start(servers: Vec<String>, number: u64, seen: Arc<Seen>) -> Self {
        Self { task: tokio::spawn(mind(servers, number, seen)) }
    }
}

/// The process ends, and with it its connection.
impl Drop for Minder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn mind(servers: Vec<String>, number: u64, seen: Arc<Seen>) {
    let owner = format!("0c8fdd3c-6b1c-4d7e-9d7c-{number:012x}");
    let id = format!("minded-{number}");
    let mut attempt = 0;
    for server in servers.iter().cycle() {
        attempt += 1;
        let body = json!({
            "ID": id, "Name": "minded", "Address": "10.1.2.3", "Port": 80,
            "Owner": owner, "Attempt": attempt,
        });
        let Ok(mut client) = Client::open(server, "", &body).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let _open = Count::begin(&seen);
        loop {
            match client.frame().await {
                Ok((name, _)) if name == "moved" => {
                    seen.moved.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                Ok((name, _)) if name == "replaced" || name == "deregistered" => return,
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }
}

/// One presence that is open.
struct Count<'a>(&'a Seen);

impl<'a> Count<'a> {
    fn begin(seen: &'a Seen) -> Self {
        seen.open.fetch_add(1, Ordering::SeqCst);
        seen.opened.fetch_add(1, Ordering::SeqCst);
        Self(seen)
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}
