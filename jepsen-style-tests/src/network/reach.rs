//! Probes of a link from outside, like a program on the sender's host with the sender's address.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::{Failure, Result};

/// On loopback a datagram arrives at once, or not at all; the rest is room for a busy machine.
const DATAGRAM_LIMIT: Duration = Duration::from_millis(400);
/// The same for an exchange with a server.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_millis(800);
/// The same where there is no doubt that the link is whole.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The RPC port speaks HTTP/1.1, and answers this with a status and headers.
const QUESTION: &[u8] = b"HEAD / HTTP/1.1\r\nHost: probe\r\n\r\n";
/// How its answers end: those to HEAD have no body.
const ANSWER_END: &[u8] = b"\r\n\r\n";

/// Whether a datagram from one address arrives at the other.
pub(super) async fn datagram(from: Ipv4Addr, to: Ipv4Addr) -> Result<bool> {
    let receiver = UdpSocket::bind((to, 0)).await?;
    let sender = UdpSocket::bind((from, 0)).await?;
    sender.send_to(b"?", receiver.local_addr()?).await?;
    let mut buffer = [0; 1];
    match timeout(DATAGRAM_LIMIT, receiver.recv_from(&mut buffer)).await {
        Ok(received) => Ok(received?.1 == sender.local_addr()?),
        Err(_) => Ok(false),
    }
}

/// A connection to a server's RPC port, such as another server has.
#[derive(Debug)]
pub struct Line {
    stream: TcpStream,
}

impl Line {
    /// Connects from an address, and has one exchange: a proxy takes a connection before there is one. Returns
    /// how long both took.
    pub(super) async fn dial(
        from: Ipv4Addr,
        to: SocketAddrV4,
        limit: Duration,
    ) -> Result<(Self, Duration)> {
        let began = Instant::now();
        let all = async {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::from((from, 0)))?;
            let stream = socket.connect(to.into()).await?;
            stream.set_nodelay(true)?;
            let mut line = Self { stream };
            line.ask().await?;
            Ok::<_, Failure>(line)
        };
        match timeout(limit, all).await {
            Ok(line) => Ok((line?, began.elapsed())),
            Err(_) => Err(Failure::new(format!("{to} did not answer {from} within {limit:?}"))),
        }
    }

    /// One more exchange; fails if there is none within a limit.
    pub async fn exchange(&mut self) -> Result<Duration> {
        let began = Instant::now();
        match timeout(ANSWER_LIMIT, self.ask()).await {
            Ok(asked) => asked.map(|()| began.elapsed()),
            Err(_) => Err(Failure::new(format!("no answer within {ANSWER_LIMIT:?}"))),
        }
    }

    /// Sends a question and does not wait.
    pub async fn send(&mut self) -> Result<()> {
        Ok(self.stream.write_all(QUESTION).await?)
    }

    /// Waits for one answer.
    pub async fn receive(&mut self) -> Result<()> {
        let mut answer = Vec::new();
        while !answer.ends_with(ANSWER_END) {
            if self.stream.read_buf(&mut answer).await? == 0 {
                return Err(Failure::new("the server closed the connection"));
            }
        }
        Ok(())
    }

    async fn ask(&mut self) -> Result<()> {
        self.send().await?;
        self.receive().await
    }
}
