//! A reader of one stream: a socket, and the frames that arrive on it. Tests need the socket itself, to bind it to
//! an address, to shrink its buffer, and to stop reading.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::http::Http;
use crate::{Failure, Limit, Result};

/// A server sends something within this: a mark comes every 5 s.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// As much is read at a time.
const READ_BYTES: usize = 64 * 1024;

/// An event of a stream.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Its name.
    pub name: String,
    /// Where a reader that has received it can resume.
    pub id: Option<u64>,
    /// Its data.
    pub data: Value,
}

/// Where a reader comes from, and how much of what is sent to it its socket takes.
#[derive(Debug, Clone, Copy)]
pub struct Socket {
    /// The address that it is bound to.
    pub from: Ipv4Addr,
    /// The size of its receive buffer; `None`: the system's.
    pub buffer: Option<u32>,
}

impl Default for Socket {
    fn default() -> Self {
        Self { from: Ipv4Addr::LOCALHOST, buffer: None }
    }
}

/// An open stream. All that waits can be given up and called again.
#[derive(Debug)]
pub struct Reader {
    socket: TcpStream,
    /// What came and was not taken out of its chunks yet.
    raw: BytesMut,
    /// How many bytes of the present chunk are still to come.
    left: usize,
    text: BytesMut,
    /// So much of the text has no end of a frame.
    searched: usize,
    is_over: bool,
}

impl Reader {
    /// Opens a stream; `query` without its question mark.
    pub async fn open(node: &Http, query: &str, last: Option<u64>) -> Result<Self> {
        Self::open_from(Socket::default(), node, query, last).await
    }

    /// Opens a stream through a socket of a certain kind.
    pub async fn open_from(
        kind: Socket,
        node: &Http,
        query: &str,
        last: Option<u64>,
    ) -> Result<Self> {
        let mut reader = Self::send(kind, node, query, last).await?;
        let head = tokio::time::timeout(SILENCE_MAX, reader.head()).await;
        let head = head.map_err(|_| Failure::new("the stream is not answered"))??;
        let is_stream = head.starts_with("HTTP/1.1 200")
            && head.to_lowercase().contains("content-type: text/event-stream");
        if is_stream { Ok(reader) } else { Err(Failure::new(format!("no stream: {head}"))) }
    }

    /// Sends the request and waits for nothing.
    async fn send(kind: Socket, node: &Http, query: &str, last: Option<u64>) -> Result<Self> {
        let address = node.base().trim_start_matches("http://");
        let address: SocketAddr =
            address.parse().map_err(|error| Failure::new(format!("{address}: {error}")))?;
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = kind.buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.bind((kind.from, 0).into())?;
        let mut socket = socket.connect(address).await?;
        let last = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let request =
            format!("GET /v1/quorate/stream?{query} HTTP/1.1\r\nHost: quorate\r\n{last}\r\n");
        socket.write_all(request.as_bytes()).await?;
        let (raw, text) = (BytesMut::new(), BytesMut::new());
        Ok(Self { socket, raw, left: 0, text, searched: 0, is_over: false })
    }

    async fn head(&mut self) -> Result<String> {
        loop {
            if let Some(end) = find(&self.raw, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.raw.split_to(end + 4)).into_owned();
                return Ok(head);
            }
            if self.socket.read_buf(&mut self.raw).await? == 0 {
                return Err(Failure::new("the connection ends in the head"));
            }
        }
    }

    /// The next frame; `None`: the server has ended the stream properly.
    pub async fn next(&mut self) -> Result<Option<Frame>> {
        tokio::time::timeout(SILENCE_MAX, self.next_at_all())
            .await
            .map_err(|_| Failure::new(format!("nothing came for {SILENCE_MAX:?}")))?
    }

    async fn next_at_all(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.frame()? {
                return Ok(Some(frame));
            }
            self.unwrap_chunks()?;
            if let Some(frame) = self.frame()? {
                return Ok(Some(frame));
            }
            if self.is_over {
                return Ok(None);
            }
            self.raw.reserve(READ_BYTES);
            if self.socket.read_buf(&mut self.raw).await? == 0 {
                return Err(Failure::new("the connection ends in the stream"));
            }
        }
    }

    /// The next frame with this name; others are dropped, except that a gap is an error.
    pub async fn next_named(&mut self, name: &str, limit: Duration) -> Result<Frame> {
        let limit = Limit::new(limit);
        loop {
            let frame = tokio::time::timeout(Duration::from_millis(100), self.next()).await;
            match frame {
                Ok(Ok(Some(frame))) if frame.name == name => return Ok(frame),
                Ok(Ok(Some(frame))) if frame.name == "gap" => {
                    return Err(Failure::new(format!("{frame:?} before a {name}")));
                }
                Ok(Ok(Some(_))) | Err(_) => limit.check(|| format!("a frame {name}"))?,
                Ok(Ok(None)) => return Err(Failure::new(format!("the end before a {name}"))),
                Ok(Err(error)) => return Err(error),
            }
        }
    }

    /// Takes whole and partial chunks apart.
    fn unwrap_chunks(&mut self) -> Result<()> {
        loop {
            let taken = self.left.min(self.raw.len());
            self.text.extend_from_slice(&self.raw.split_to(taken));
            self.left -= taken;
            let Some(end) = find(&self.raw, b"\r\n") else { return Ok(()) };
            if self.left > 0 || self.is_over {
                return Ok(());
            }
            let line = self.raw.split_to(end);
            self.raw.advance(2);
            // The empty line is the end of the chunk before.
            if !line.is_empty() {
                let size = str::from_utf8(&line).ok();
                let size = size.and_then(|size| usize::from_str_radix(size, 16).ok());
                self.left = size.ok_or_else(|| Failure::new(format!("a chunk of {line:?}")))?;
                self.is_over = self.left == 0;
            }
        }
    }

    fn frame(&mut self) -> Result<Option<Frame>> {
        // Frames of thousands of instances come in many pieces.
        let Some(end) = find(&self.text[self.searched..], b"\n\n") else {
            self.searched = self.text.len().saturating_sub(1);
            return Ok(None);
        };
        let end = std::mem::take(&mut self.searched) + end;
        let text = String::from_utf8_lossy(&self.text.split_to(end)).into_owned();
        self.text.advance(2);
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        let strange = || Failure::new(format!("a frame that is none: {text}"));
        Ok(Some(Frame {
            name: field("event: ").ok_or_else(strange)?.to_owned(),
            id: field("id: ").map(|id| id.parse().map_err(|_| strange())).transpose()?,
            data: field("data: ")
                .and_then(|data| serde_json::from_str(data).ok())
                .ok_or_else(strange)?,
        }))
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
