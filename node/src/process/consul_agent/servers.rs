//! The servers of a cluster as a client agent reaches them: at their RPC listeners, which answer the
//! HTTP API to agents.
//!
//! The configuration names some of them; from those the others are learned ([`Servers::keep_known`]), so
//! that one address is enough until this process ends.
//!
//! Requests go to one server until it cannot be reached, then to the next. One that may have reached a
//! server is never sent again: its client hears that the outcome is unknown. Bodies stream both ways, so
//! long polls, logs and snapshots pass as they are.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{
    AUTHORIZATION, CONNECTION, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::either::Either;

use crate::host::clock::{Clock, Moment};
use crate::host::supervise::contained;
use crate::host::tls::failure;
use crate::host::tls::members::Members;
use crate::http::{ADVERTISED_HEADER, AGENT_HEADER, DNS_AT_HEADER, SERVED_AT_HEADER};

/// Time to connect: a server on the same network answers in milliseconds or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Idle connections kept for each server.
const IDLE_CONNECTIONS_MAX: usize = 32;
/// Members of a connection, not of a message: they end here (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] =
    [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// Time between two looks at who the servers are.
const LEARN_EVERY: Duration = Duration::from_secs(10);
/// The same when a server could not be reached.
const LEARN_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A server that does not say in this time who the servers are is passed over.
const LEARN_TIMEOUT: Duration = Duration::from_secs(3);
/// An answer that names the servers is not longer.
const PEERS_BYTES_MAX: usize = 64 << 10;
/// That no server can be reached is logged at most this often.
const LOG_EVERY: Duration = Duration::from_secs(10);

const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-consul-token");

type Sender = SendRequest<Body>;

/// What servers are to know of an agent, as values of headers.
#[derive(Debug)]
pub struct Introduction {
    /// Its name.
    pub agent: HeaderValue,
    /// Where its own clients are served.
    pub served_at: HeaderValue,
    /// Where it serves DNS, if it does.
    pub dns_at: Option<HeaderValue>,
    /// Address of its node; without it, the one from which it asks.
    pub advertised: Option<HeaderValue>,
    /// The token of requests that have none.
    pub token: Option<HeaderValue>,
    /// The token of its own requests, if that is another one.
    pub own_token: Option<HeaderValue>,
}

/// The servers of a cluster.
#[derive(Debug)]
pub struct Servers {
    /// `HOST:PORT` of each in the configuration; host names are looked up at each connection.
    seeds: Vec<String>,
    own: Introduction,
    tls: Option<Members>,
    clock: Clock,
    /// A std lock: held for a look only.
    known: Mutex<Known>,
    /// Connections by address. A std lock: held for a look only.
    idle: Arc<Mutex<HashMap<String, Vec<Sender>>>>,
    /// A server could not be reached.
    missed: Notify,
}

/// What is known of the servers.
#[derive(Debug, Default)]
struct Known {
    /// Those that the cluster itself has named.
    learned: Vec<String>,
    /// The one that answered last.
    present: String,
    /// When it was logged that none can be reached, since one could be.
    none_logged: Option<Moment>,
}

impl Known {
    /// All addresses, without repetition, the present server's first.
    fn in_turn(&self, seeds: &[String]) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for address in self.learned.iter().chain(seeds) {
            if !all.contains(address) {
                all.push(address.clone());
            }
        }
        let first = all.iter().position(|address| *address == self.present);
        all.rotate_left(first.unwrap_or(0));
        all
    }
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// No server can be reached.
    #[error("No known Consul servers: none of {0} can be reached")]
    NoServer(String),
    /// It was sent, and the connection ended before there was an answer.
    #[error("the server did not respond; the request may or may not have taken effect: {0}")]
    Unknown(hyper::Error),
}

impl Servers {
    /// The servers of which some have these addresses (`HOST:PORT`), asked in the name of this agent.
    #[must_use]
    pub fn new(seeds: Vec<String>, own: Introduction, tls: Option<Members>) -> Self {
        let known =
            Known { present: seeds.first().cloned().unwrap_or_default(), ..Known::default() };
        Self {
            seeds,
            own,
            tls,
            clock: Clock::monotonic(),
            known: Mutex::new(known),
            idle: Arc::default(),
            missed: Notify::new(),
        }
    }

    /// Asks the servers again and again who they are: one of them in the configuration is enough to know
    /// all. Does not return.
    pub async fn keep_known(&self) -> Infallible {
        loop {
            self.learn().await;
            tokio::select! {
                () = self.clock.sleep(LEARN_EVERY) => {}
                () = self.missed.notified() => self.clock.sleep(LEARN_AGAIN_AFTER).await,
            }
        }
    }

    async fn learn(&self) {
        match tokio::time::timeout(LEARN_TIMEOUT, self.peers()).await {
            Ok(Ok(peers)) if !peers.is_empty() => {
                let mut known = self.known();
                if known.learned != peers {
                    tracing::debug!(servers = %peers.join(" "), "learned the list of servers");
                    known.learned = peers;
                    let all = known.in_turn(&self.seeds);
                    self.idle().retain(|address, _| all.contains(address));
                }
            }
            // A server that has not joined yet knows nobody.
            Ok(Ok(_)) => self.pass_over(),
            Ok(Err(error)) => {
                tracing::debug!(%error, "cannot learn the list of servers");
                self.pass_over();
            }
            Err(_) => self.pass_over(),
        }
    }

    async fn peers(&self) -> Result<Vec<String>, String> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = Uri::from_static("/v1/status/peers");
        self.prepare(&mut request);
        let answer = self.send(request).await.map_err(|error| error.to_string())?;
        if answer.status() != StatusCode::OK {
            return Err(answer.status().to_string());
        }
        let bytes = axum::body::to_bytes(answer.into_body(), PEERS_BYTES_MAX).await;
        let bytes = bytes.map_err(|error| error.to_string())?;
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())
    }

    /// The present server does not do what it should: requests go to the next one.
    pub(super) fn pass_over(&self) {
        let mut known = self.known();
        if let Some(next) = known.in_turn(&self.seeds).into_iter().nth(1) {
            known.present = next;
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> MutexGuard<'_, HashMap<String, Vec<Sender>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a request of this agent's own with a server's answer.
    pub(super) async fn ask(&self, mut request: Request<Body>) -> Response<Body> {
        if let Some(token) = &self.own.own_token {
            request.headers_mut().insert(TOKEN_HEADER, token.clone());
        }
        self.forward(request).await
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
        let Introduction { agent, served_at, dns_at, advertised, token, own_token: _ } = &self.own;
        let has_token = has_token(request);
        let headers = request.headers_mut();
        if let Some(token) = token.as_ref().filter(|_| !has_token) {
            headers.insert(TOKEN_HEADER, token.clone());
        }
        headers.insert(HeaderName::from_static(SERVED_AT_HEADER), served_at.clone());
        headers.remove(DNS_AT_HEADER);
        if let Some(dns_at) = dns_at {
            headers.insert(HeaderName::from_static(DNS_AT_HEADER), dns_at.clone());
        }
        headers.remove(ADVERTISED_HEADER);
        // A client that names an agent means that one.
        if !headers.contains_key(AGENT_HEADER) {
            headers.insert(HeaderName::from_static(AGENT_HEADER), agent.clone());
            if let Some(advertised) = advertised {
                headers.insert(HeaderName::from_static(ADVERTISED_HEADER), advertised.clone());
            }
        }
    }

    /// Sends a request to the present server, or the next that can be reached.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Unanswered> {
        let all = self.known().in_turn(&self.seeds);
        let (mut request, mut why) = (request, String::new());
        for server in &all {
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
            let mut sender = match connect(server, self.tls.as_ref()).await {
                Ok(sender) => sender,
                Err(error) => {
                    why = failure::of_io(&error).unwrap_or_else(|| error.to_string());
                    tracing::debug!(%server, %why, "cannot be reached");
                    self.missed.notify_one();
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
        let all = all.join(", ");
        self.log_none(&all, &why);
        Err(Unanswered::NoServer(all))
    }

    /// Logs that no server can be reached, but not at each request.
    fn log_none(&self, all: &str, why: &str) {
        let now = self.clock.now();
        let mut known = self.known();
        if known.none_logged.is_none_or(|then| now.since(then) >= LOG_EVERY) {
            known.none_logged = Some(now);
            drop(known);
            tracing::warn!(servers = all, why, "no server can be reached");
        }
    }

    /// Notes which server has answered.
    fn log_answer(&self, server: &str) {
        let mut known = self.known();
        let was_none = known.none_logged.take().is_some();
        let is_other = known.present != server;
        if is_other {
            server.clone_into(&mut known.present);
        }
        drop(known);
        if was_none {
            tracing::info!(server, "a server can be reached again");
        } else if is_other {
            tracing::info!(server, "sending requests to this server now");
        }
    }

    fn answered(
        &self,
        server: &str,
        mut sender: Sender,
        answer: Response<hyper::body::Incoming>,
    ) -> Response<Body> {
        self.log_answer(server);
        let server = server.to_owned();
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

    fn take_idle(&self, server: &str) -> Option<Sender> {
        self.idle().get_mut(server)?.pop()
    }
}

async fn connect(address: &str, tls: Option<&Members>) -> io::Result<Sender> {
    let connecting = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok::<_, io::Error>(match tls {
            None => Either::Left(stream),
            Some(members) => Either::Right(Box::new(members.connect(stream).await?)),
        })
    };
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, connecting);
    let stream = connecting.await.map_err(|_| io::ErrorKind::TimedOut)??;
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    drop(contained("a connection to a server", async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to a server ended early");
        }
    }));
    Ok(sender)
}

/// Whether a request says by itself who asks.
fn has_token(request: &Request<Body>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    let headers = request.headers();
    headers.contains_key(TOKEN_HEADER)
        || headers.contains_key(AUTHORIZATION)
        || query.split('&').any(|part| part.starts_with("token="))
}

fn end_hop(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learned_servers_come_before_those_of_the_configuration_and_the_present_one_first() {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let seeds = texts(&["b", "x"]);
        let mut known = Known { present: "x".to_owned(), ..Known::default() };
        assert_eq!(known.in_turn(&seeds), ["x", "b"]);
        known.learned = texts(&["a", "b", "c"]);
        assert_eq!(known.in_turn(&seeds), ["x", "a", "b", "c"]);
        known.present = "b".to_owned();
        assert_eq!(known.in_turn(&seeds), ["b", "c", "x", "a"]);
        known.present = "gone".to_owned();
        assert_eq!(known.in_turn(&seeds), ["a", "b", "c", "x"]);
    }

    #[test]
    fn a_server_that_is_passed_over_comes_last() {
        let seeds = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let servers = Servers::new(seeds.clone(), introduction(), None);
        servers.pass_over();
        assert_eq!(servers.known().in_turn(&seeds), ["b", "c", "a"]);
    }

    fn introduction() -> Introduction {
        let text = HeaderValue::from_static("h");
        let advertised = Some(HeaderValue::from_static("192.0.2.7"));
        Introduction {
            agent: text.clone(),
            served_at: text,
            dns_at: None,
            advertised,
            token: None,
            own_token: None,
        }
    }

    #[test]
    fn the_advertised_address_is_that_of_this_agent_and_of_no_other() {
        let servers = Servers::new(Vec::new(), introduction(), None);
        let mut request = Request::new(Body::empty());
        servers.prepare(&mut request);
        assert_eq!(request.headers()[ADVERTISED_HEADER], "192.0.2.7");
        let mut other = Request::new(Body::empty());
        other.headers_mut().insert(AGENT_HEADER, HeaderValue::from_static("other"));
        other.headers_mut().insert(ADVERTISED_HEADER, HeaderValue::from_static("192.0.2.9"));
        servers.prepare(&mut other);
        assert_eq!(other.headers().get(ADVERTISED_HEADER), None);
    }
}
