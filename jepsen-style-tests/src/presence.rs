//! A client's presence: the open request, and the frames that come through it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::{Failure, Result};

/// A server that sends nothing for this long is dead: a comment comes every 2 s.
const SILENCE_MAX: Duration = Duration::from_secs(6);
/// How long an answer may take, while there is no leader.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// An open presence. It ends when this is dropped.
#[derive(Debug)]
pub struct Client {
    /// Its connection.
    pub socket: TcpStream,
    raw: BytesMut,
    /// The first frame.
    pub registered: Value,
}

impl Client {
    /// Opens a presence at a server; the error of a refusal begins with its status.
    pub async fn open(base: &str, query: &str, body: &Value) -> Result<Self> {
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
    pub async fn frame(&mut self) -> Result<(String, Value)> {
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
