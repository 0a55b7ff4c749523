//! Requests byte for byte: a client that changes nothing of what it is told to send.
//!
//! Ordinary clients clean paths, encode what they think must be encoded and refuse to send the rest.
//! Here a request line and a body go out as they are, and an answer must be a whole HTTP/1.1 response.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::{Failure, Result};

/// How long one answer may take: longer than a server holds a request without a leader.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest line of an answer's head.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// How many chunks a chunked body is cut into.
const CHUNKS: usize = 3;

/// A request: the line's method and target, and a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method, such as `GET`.
    pub method: String,
    /// Path and query, sent as they are.
    pub target: Vec<u8>,
    /// The body.
    pub body: Vec<u8>,
    /// Whether the body goes out in chunks instead of with a declared length.
    pub is_chunked: bool,
}

impl Request {
    /// A request without a body.
    pub fn new(method: &str, target: impl Into<Vec<u8>>) -> Self {
        let (method, target) = (method.to_owned(), target.into());
        Self { method, target, body: Vec::new(), is_chunked: false }
    }

    /// `GET target`.
    pub fn get(target: impl Into<Vec<u8>>) -> Self {
        Self::new("GET", target)
    }

    /// `PUT target` with a body.
    pub fn put(target: impl Into<Vec<u8>>, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::new("PUT", target) }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.method.clone().into_bytes();
        bytes.push(b' ');
        bytes.extend_from_slice(&self.target);
        bytes.extend_from_slice(b" HTTP/1.1\r\nHost: quorate\r\n");
        if self.is_chunked {
            bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in self.body.chunks(self.body.len() / CHUNKS + 1) {
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
            return bytes;
        }
        if self.method != "GET" || !self.body.is_empty() {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", self.body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let target = self.target.escape_ascii().to_string();
        let body = std::str::from_utf8(&self.body).unwrap_or("(bytes)");
        write!(f, "{} {target:.1500} {body:.1500}", self.method)
    }
}

/// A whole response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Headers by name in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// `X-Consul-Index`, if it was sent and is a number.
    pub fn index(&self) -> Option<u64> {
        self.header("x-consul-index")?.parse().ok()
    }

    /// The body as text; bytes that are no UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, if it is.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// One node, spoken to over kept connections. Clones share them.
#[derive(Debug, Clone)]
pub struct Raw {
    address: String,
    idle: Arc<Mutex<Vec<BufReader<TcpStream>>>>,
}

impl Raw {
    /// The node at `base`, such as `http://127.1.2.3:8500`.
    pub fn new(base: &str) -> Self {
        let address = base.trim_start_matches("http://").to_owned();
        Self { address, idle: Arc::default() }
    }

    /// Sends a request and waits for its answer. Fails when there is none, or no proper one.
    pub async fn send(&self, request: &Request) -> Result<Answer> {
        let mut answers = self.send_all(std::slice::from_ref(request)).await?;
        answers.pop().ok_or_else(|| Failure::new("no answer"))
    }

    /// Sends requests at once over one connection; returns their answers in order.
    pub async fn send_all(&self, requests: &[Request]) -> Result<Vec<Answer>> {
        let exchange = tokio::time::timeout(PATIENCE, self.exchange(requests)).await;
        let shown = || requests.first().map(ToString::to_string).unwrap_or_default();
        match exchange {
            Ok(Ok(answers)) => Ok(answers),
            Ok(Err(error)) => Err(Failure::new(format!("{}: {error}", shown()))),
            Err(_) => Err(Failure::new(format!("{}: no answer in {PATIENCE:?}", shown()))),
        }
    }

    async fn exchange(&self, requests: &[Request]) -> io::Result<Vec<Answer>> {
        let mut stream = self.connection().await?;
        let bytes: Vec<u8> = requests.iter().flat_map(Request::bytes).collect();
        stream.get_mut().write_all(&bytes).await?;
        let mut answers = Vec::new();
        for request in requests {
            answers.push(read_answer(&mut stream, &request.method).await?);
        }
        let closes = |answer: &Answer| answer.header("connection") == Some("close");
        if !answers.iter().any(closes) {
            self.idle().push(stream);
        }
        Ok(answers)
    }

    async fn connection(&self) -> io::Result<BufReader<TcpStream>> {
        let kept = self.idle().pop();
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        Ok(BufReader::new(stream))
    }

    /// Whoever panicked while it held this list left it whole.
    fn idle(&self) -> MutexGuard<'_, Vec<BufReader<TcpStream>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn malformed(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

async fn read_line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = Vec::new();
    (&mut *stream).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line).await?;
    let Some(line) = line.strip_suffix(b"\r\n") else {
        return Err(malformed(format!("the connection ended in a line: {}", line.escape_ascii())));
    };
    String::from_utf8(line.to_vec()).map_err(|_| malformed("a head that is no UTF-8"))
}

async fn read_answer(stream: &mut BufReader<TcpStream>, method: &str) -> io::Result<Answer> {
    let line = read_line(stream).await?;
    let status = line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .ok_or_else(|| malformed(format!("no status line: {line}")))?;
    let mut headers = BTreeMap::new();
    loop {
        let line = read_line(stream).await?;
        if line.is_empty() {
            break;
        }
        let (name, value) =
            line.split_once(": ").ok_or_else(|| malformed(format!("no header: {line}")))?;
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let mut answer = Answer { status, headers, body: Vec::new() };
    let is_bodiless = method == "HEAD" || matches!(status, 204 | 304);
    if !is_bodiless {
        answer.body = read_body(stream, &answer).await?;
    }
    Ok(answer)
}

async fn read_body(stream: &mut BufReader<TcpStream>, head: &Answer) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if head.header("transfer-encoding") == Some("chunked") {
        loop {
            let line = read_line(stream).await?;
            let size = u64::from_str_radix(&line, 16)
                .map_err(|_| malformed(format!("no size of a chunk: {line}")))?;
            let before = body.len() as u64;
            (&mut *stream).take(size).read_to_end(&mut body).await?;
            if body.len() as u64 - before < size || !read_line(stream).await?.is_empty() {
                return Err(malformed("a cut chunk"));
            }
            if size == 0 {
                return Ok(body);
            }
        }
    }
    let length = head.header("content-length").and_then(|text| text.parse::<u64>().ok());
    let length = length.ok_or_else(|| malformed("neither a length nor chunks"))?;
    (&mut *stream).take(length).read_to_end(&mut body).await?;
    if body.len() as u64 == length { Ok(body) } else { Err(malformed("a cut body")) }
}
