//! Hand-made requests, for the suites that send what the client library does not let through.
//!
//! An ordinary client cleans paths, encodes what must be encoded, and refuses to send the rest. Here a request line
//! and a body go out byte for byte, several at once if need be, and an answer must be a whole HTTP/1.1 response.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::http::Answer;
use crate::{Failure, Result};

/// How long one answer may take: longer than a server holds a request without a leader.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest line of an answer's head, and how many headers it may have.
const LINE_BYTES_MAX: u64 = 64 * 1024;
const HEADERS_MAX: usize = 64;

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
    /// Whether it names the host, as HTTP/1.1 demands.
    pub has_host: bool,
    /// What the body is, if that is said.
    pub content_type: Option<&'static str>,
}

impl Request {
    /// A request without a body.
    pub fn new(method: &str, target: impl Into<Vec<u8>>) -> Self {
        let (method, target) = (method.to_owned(), target.into());
        let (body, is_chunked, has_host, content_type) = (Vec::new(), false, true, None);
        Self { method, target, body, is_chunked, has_host, content_type }
    }

    /// `GET target`.
    pub fn get(target: impl Into<Vec<u8>>) -> Self {
        Self::new("GET", target)
    }

    /// `PUT target` with a body.
    pub fn put(target: impl Into<Vec<u8>>, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::new("PUT", target) }
    }

    /// The same without a `Host`.
    #[must_use]
    pub fn without_host(self) -> Self {
        Self { has_host: false, ..self }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.method.clone().into_bytes();
        bytes.push(b' ');
        bytes.extend_from_slice(&self.target);
        bytes.extend_from_slice(b" HTTP/1.1\r\n");
        if self.has_host {
            bytes.extend_from_slice(b"Host: quorate\r\n");
        }
        if let Some(kind) = self.content_type {
            bytes.extend_from_slice(format!("Content-Type: {kind}\r\n").as_bytes());
        }
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

    /// A panic while the lock was held left the list whole.
    fn idle(&self) -> MutexGuard<'_, Vec<BufReader<TcpStream>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn malformed(what: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

/// Reads a response. Its head must be as strict as an HTTP parser wants it.
async fn read_answer(stream: &mut BufReader<TcpStream>, method: &str) -> io::Result<Answer> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if (&mut *stream).take(LINE_BYTES_MAX).read_until(b'\n', &mut head).await? == 0 {
            return Err(malformed(&format!("the head ends early: {}", head.escape_ascii())));
        }
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    response
        .parse(&head)
        .map_err(|error| malformed(&format!("{error}: {}", head.escape_ascii())))?;
    let mut answer = Answer::new(response.code.unwrap_or_default(), "");
    for header in response.headers {
        let name =
            HeaderName::from_bytes(header.name.as_bytes()).map_err(|error| malformed(&error))?;
        answer.headers.append(
            name,
            HeaderValue::from_bytes(header.value).map_err(|error| malformed(&error))?,
        );
    }
    if response.version != Some(1) {
        return Err(malformed(&format!("no HTTP/1.1: {}", head.escape_ascii())));
    }
    let is_bodiless = method == "HEAD" || matches!(answer.status, 204 | 304);
    if !is_bodiless {
        answer.body = read_body(stream, &answer).await?.into();
    }
    Ok(answer)
}

async fn read_body(stream: &mut BufReader<TcpStream>, head: &Answer) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if head.header("transfer-encoding") != Some("chunked") {
        let length = head.header("content-length").and_then(|text| text.parse().ok());
        let length = length.ok_or_else(|| malformed(&"neither a length nor chunks"))?;
        read_exactly(stream, length, &mut body).await?;
        return Ok(body);
    }
    loop {
        let mut line = Vec::new();
        (&mut *stream).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
        let size = str::from_utf8(&line).ok().and_then(|line| line.strip_suffix("\r\n"));
        let size = size.and_then(|size| u64::from_str_radix(size, 16).ok());
        let size = size.ok_or_else(|| malformed(&format!("a chunk of {}", line.escape_ascii())))?;
        let end = read_exactly(stream, size, &mut body).await?;
        read_exactly(stream, 2, &mut body).await?;
        if body.split_off(end) != b"\r\n" {
            return Err(malformed(&"a cut chunk"));
        }
        if size == 0 {
            return Ok(body);
        }
    }
}

/// Appends so many bytes, and returns how long `body` is then.
async fn read_exactly(
    stream: &mut BufReader<TcpStream>,
    length: u64,
    body: &mut Vec<u8>,
) -> io::Result<usize> {
    let read = (&mut *stream).take(length).read_to_end(body).await?;
    if read as u64 == length { Ok(body.len()) } else { Err(malformed(&"a cut body")) }
}
