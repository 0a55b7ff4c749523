//! The servers of a cluster as a client agent reaches them: at their RPC listeners, which answer the
//! HTTP API to agents.
//!
//! Requests go to one server until it cannot be reached, then to the next. One that may have reached a
//! server is never sent again: its client hears that the outcome is unknown. Bodies stream both ways, so
//! long polls, logs and snapshots pass as they are.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{
    CONNECTION, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::host::supervise::contained;
use crate::http::AGENT_HEADER;

/// Time to connect: a server on the same network answers in milliseconds or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Idle connections kept for each server.
const IDLE_CONNECTIONS_MAX: usize = 32;
/// Members of a connection, not of a message: they end here (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] =
    [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

type Sender = SendRequest<Body>;

/// The servers of a cluster.
#[derive(Debug)]
pub struct Servers {
    /// `HOST:PORT` of each; host names are looked up at each connection.
    addresses: Vec<String>,
    /// Name of this agent.
    agent: HeaderValue,
    /// The one that answered last.
    present: AtomicUsize,
    /// A std lock: held for a look only.
    idle: Arc<Mutex<HashMap<usize, Vec<Sender>>>>,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// No server can be reached.
    #[error("No known Consul servers: none of {0} can be reached")]
    NoServer(String),
    /// It was sent, and the connection ended before there was an answer.
    #[error("the server did not answer, the request may or may not have taken effect: {0}")]
    Unknown(hyper::Error),
}

impl Servers {
    /// The servers at these addresses (`HOST:PORT`), asked in the name of this agent.
    #[must_use]
    pub fn new(addresses: Vec<String>, agent: HeaderValue) -> Self {
        Self { addresses, agent, present: AtomicUsize::new(0), idle: Arc::default() }
    }

    /// Answers a client's request with a server's answer.
    pub async fn forward(&self, mut request: Request<Body>) -> Response<Body> {
        self.prepare(&mut request);
        match self.send(request).await {
            Ok(answer) => answer,
            Err(error) => {
                let mut answer = Response::new(Body::from(error.to_string()));
                *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                answer
            }
        }
    }

    /// Makes a request from a client one from this agent.
    fn prepare(&self, request: &mut Request<Body>) {
        if !request.headers().contains_key(HOST)
            && let Some(authority) = request.uri().authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            request.headers_mut().insert(HOST, host);
        }
        request.headers_mut().entry(HOST).or_insert(HeaderValue::from_static("quorate"));
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
        *request.version_mut() = Version::HTTP_11;
        end_hop(request.headers_mut());
        // A client that names an agent means that one.
        let header = HeaderName::from_static(AGENT_HEADER);
        request.headers_mut().entry(header).or_insert(self.agent.clone());
    }

    /// Sends a request to the present server, or the next that can be reached.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Unanswered> {
        let first = self.present.load(Ordering::Relaxed);
        let mut request = request;
        for turn in 0..self.addresses.len() {
            let server = (first + turn) % self.addresses.len();
            // Connections that a server has closed meanwhile hand the request back.
            while let Some(mut sender) = self.take_idle(server) {
                match sender.try_send_request(request).await {
                    Ok(answer) => return Ok(self.answered(server, sender, answer)),
                    Err(mut refused) => match refused.take_message() {
                        Some(unsent) => request = unsent,
                        None => return Err(Unanswered::Unknown(refused.into_error())),
                    },
                }
            }
            let mut sender = match connect(&self.addresses[server]).await {
                Ok(sender) => sender,
                Err(error) => {
                    tracing::debug!(server = %self.addresses[server], %error, "cannot be reached");
                    continue;
                }
            };
            match sender.try_send_request(request).await {
                Ok(answer) => return Ok(self.answered(server, sender, answer)),
                Err(mut refused) => match refused.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(Unanswered::Unknown(refused.into_error())),
                },
            }
        }
        Err(Unanswered::NoServer(self.addresses.join(", ")))
    }

    fn answered(
        &self,
        server: usize,
        mut sender: Sender,
        answer: Response<hyper::body::Incoming>,
    ) -> Response<Body> {
        if self.present.swap(server, Ordering::Relaxed) != server {
            tracing::info!(server = %self.addresses[server], "requests go to this server now");
        }
        let idle = Arc::clone(&self.idle);
        drop(contained("a connection to a server", async move {
            // Ready again when the answer has been read to its end.
            if sender.ready().await.is_ok() {
                let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
                let idle = idle.entry(server).or_default();
                if idle.len() < IDLE_CONNECTIONS_MAX {
                    idle.push(sender);
                }
            }
        }));
        let mut answer = answer.map(Body::new);
        end_hop(answer.headers_mut());
        answer
    }

    fn take_idle(&self, server: usize) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.get_mut(&server)?.pop()
    }
}

async fn connect(address: &str) -> io::Result<Sender> {
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address));
    let stream = connecting.await.map_err(|_| io::ErrorKind::TimedOut)??;
    stream.set_nodelay(true)?;
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    drop(contained("a connection to a server", async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to a server ended early");
        }
    }));
    Ok(sender)
}

fn end_hop(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}
