//! Several servers as one.
//!
//! Every server answers every request, so a client stays with one while it answers and goes to the next when it does
//! not. What is sent again, and when, depends on what is known of the failed attempt:
//!
//! | what happened | read, idempotent write | other write |
//! | --- | --- | --- |
//! | no connection, 429, 503, `No cluster leader`: not taken | next server | next server |
//! | sent and not answered, 502, 504, `outcome unknown` | next server | the error, at once |
//! | any other answer | the answer | the answer |
//!
//! When no server took it, all of them are tried again after a pause, until [`Settings::retry_for`] is over.

mod addresses;
mod backoff;
mod breaker;
mod call;
mod node;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use reqwest::Response;
use tokio::time::Instant;

use crate::error::Error;
use crate::http::{Answer, Http};

pub(crate) use addresses::{from_environment, parse};
pub(crate) use backoff::{Backoff, jittered};
pub(crate) use call::{Call, Safety};
pub(crate) use node::{Node, lost};

/// Pauses between rounds in which no server took a request.
const ROUND_PAUSE_FIRST: Duration = Duration::from_millis(50);
const ROUND_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long a server that has no room is avoided if it does not say so itself.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// What a client's builder decides.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// How long an answer may take; a blocking query's wait comes on top.
    pub(crate) answer_timeout: Duration,
    /// The same where the request can go to another server instead.
    pub(crate) failover_after: Duration,
    /// How long to go on trying when no server takes a request.
    pub(crate) retry_for: Duration,
    /// Whether stale reads wait for the client's own writes.
    pub(crate) reads_own_writes: bool,
}

/// The servers, and what is known of them.
#[derive(Debug)]
pub(crate) struct Transport {
    http: reqwest::Client,
    /// Only ever appended to. Read for a moment at a time, so a lock of the standard library does.
    nodes: RwLock<Vec<Arc<Node>>>,
    /// Position of the server that answered last.
    current: AtomicUsize,
    /// The highest `X-Quorate-Index` that answered a write of this client.
    written: AtomicU64,
    settings: Settings,
}

/// An answer, and where it came from.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) answer: Answer,
    /// Method and address, for messages.
    pub(crate) request: String,
    /// Whether an earlier attempt may have taken effect.
    pub(crate) is_repeated: bool,
}

impl Served {
    /// The answer, if it is a success.
    pub(crate) fn succeeded(self) -> Result<Answer, Error> {
        if self.answer.is_success() {
            return Ok(self.answer);
        }
        let (status, text) = (self.answer.status, self.answer.text());
        Err(Error::Status { request: self.request, status, text })
    }
}

/// How an attempt at one server ended.
#[derive(Debug)]
pub(crate) enum Attempt {
    Answered(Answer),
    /// It certainly had no effect.
    NotTaken(Error),
    /// It may have been carried out.
    Unknown(Error),
}

/// Why an answer that is read piece by piece was not opened.
#[derive(Debug)]
pub(crate) enum NotOpened {
    /// The cluster refuses it; another server would as well.
    Refused(Error),
    /// This server cannot do it.
    Unavailable(Error),
}

impl Transport {
    pub(crate) fn new(
        http: reqwest::Client,
        addresses: &[String],
        first: usize,
        settings: Settings,
    ) -> Self {
        let node = |base: &String| {
            let http = Http::shared(http.clone(), base, settings.answer_timeout);
            Arc::new(Node::new(http))
        };
        Self {
            nodes: RwLock::new(addresses.iter().map(node).collect()),
            current: AtomicUsize::new(first),
            written: AtomicU64::new(0),
            http,
            settings,
        }
    }

    /// The servers' addresses.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.nodes().iter().map(|node| node.http().base().to_owned()).collect()
    }

    /// Adds servers that another one has named. They come last. A client that uses TLS stays with the servers that it
    /// was given: others are named by their addresses without TLS.
    pub(crate) fn learn(&self, addresses: &[String]) {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        if nodes.iter().any(|node| node.http().base().starts_with("https://")) {
            return;
        }
        for address in addresses.iter().filter_map(|text| parse(text).ok()) {
            if nodes.iter().all(|node| node.http().base() != address) {
                let http = Http::shared(self.http.clone(), &address, self.settings.answer_timeout);
                nodes.push(Arc::new(Node::new(http)));
            }
        }
    }

    fn nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All servers in the order in which they should be tried: those that answer before those that failed, and among
    /// equals the one that answered last and those behind it.
    pub(crate) fn candidates(&self) -> Vec<Arc<Node>> {
        let mut nodes = self.nodes();
        let count = nodes.len().max(1);
        nodes.rotate_left(self.current.load(Ordering::Relaxed) % count);
        let now = Instant::now();
        nodes.sort_by_key(|node| node.readiness(now));
        nodes
    }

    /// The server to ask first; `None` only if there is none at all.
    pub(crate) fn best(&self) -> Option<Arc<Node>> {
        self.candidates().into_iter().next()
    }

    /// Sends a request until some server answers it; any status that is not about the server is an answer.
    pub(crate) async fn send(&self, call: &Call) -> Result<Served, Error> {
        let began = Instant::now();
        let mut backoff = Backoff::new(ROUND_PAUSE_FIRST, ROUND_PAUSE_MAX);
        let mut doubt = None;
        loop {
            let mut failure = None;
            let candidates = self.candidates();
            let has_others = candidates.len() > 1;
            for node in &candidates {
                match self.attempt(node, call, has_others).await {
                    Attempt::Answered(answer) => {
                        let request = call.named(node.http());
                        return Ok(Served { answer, request, is_repeated: doubt.is_some() });
                    }
                    Attempt::Unknown(error) if call.safety == Safety::Once => return Err(error),
                    Attempt::Unknown(error) => drop(doubt.insert(error)),
                    Attempt::NotTaken(error) => drop(failure.insert(error)),
                }
            }
            let pause = backoff.pause();
            if began.elapsed() + pause >= self.settings.retry_for {
                return Err(self.despair(doubt.or(failure)));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Sends a request to one server, and takes note of how that does.
    pub(crate) async fn attempt(&self, node: &Node, call: &Call, has_others: bool) -> Attempt {
        let floor = self.written.load(Ordering::Relaxed);
        let target = call.target(if self.settings.reads_own_writes { floor } else { 0 });
        let patience = call.patience(&self.settings, has_others);
        node.asked();
        let (method, body) = (call.method.clone(), call.body.clone());
        let sent = node.http().send_within(patience, method, &target, body, call.content_type);
        match sent.await {
            Ok(answer) => self.weigh(node, call, floor, answer),
            Err(error) => {
                tracing::debug!(
                    server = node.http().base(),
                    error = error.with_causes(),
                    "no answer"
                );
                node.failed();
                match error {
                    Error::Unreachable { .. } => Attempt::NotTaken(error),
                    error => Attempt::Unknown(error),
                }
            }
        }
    }

    /// Opens an answer that is read piece by piece, at the first server that gives one; returns that one's address too.
    /// What is opened so may be opened twice.
    pub(crate) async fn open(&self, call: &Call) -> Result<(Response, String), Error> {
        let mut failure = None;
        for node in self.candidates() {
            match self.open_at(&node, call).await {
                Ok(response) => return Ok((response, node.http().base().to_owned())),
                Err(NotOpened::Refused(error)) => return Err(error),
                Err(NotOpened::Unavailable(error)) => failure = Some(error),
            }
        }
        Err(self.despair(failure))
    }

    /// Opens an answer that is read piece by piece at one server.
    pub(crate) async fn open_at(&self, node: &Node, call: &Call) -> Result<Response, NotOpened> {
        let has_others = self.nodes.read().unwrap_or_else(PoisonError::into_inner).len() > 1;
        let patience = call.patience(&self.settings, has_others);
        node.asked();
        let (method, body) = (call.method.clone(), call.body.clone());
        let opened = node.http().open(patience, method, &call.target(0), body).await;
        let response = opened.map_err(|error| {
            node.failed();
            NotOpened::Unavailable(error)
        })?;
        if response.status().is_success() {
            node.succeeded();
            self.stay_with(node);
            return Ok(response);
        }
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = tokio::time::timeout(patience, response.bytes()).await;
        let body = body.ok().and_then(Result::ok).unwrap_or_default();
        let answer = Answer { status, headers, body };
        Err(match self.weigh(node, call, 0, answer) {
            Attempt::Answered(answer) => NotOpened::Refused(Error::Status {
                request: call.named(node.http()),
                status: answer.status,
                text: answer.text(),
            }),
            Attempt::NotTaken(error) | Attempt::Unknown(error) => NotOpened::Unavailable(error),
        })
    }

    /// Decides what an answer means for the request and for the server.
    fn weigh(&self, node: &Node, call: &Call, floor: u64, answer: Answer) -> Attempt {
        let refusal = |answer: &Answer| Error::Status {
            request: call.named(node.http()),
            status: answer.status,
            text: answer.text(),
        };
        match Meaning::of(&answer) {
            Meaning::Answer => {
                node.succeeded();
                self.stay_with(node);
                self.note(call, floor, &answer);
                Attempt::Answered(answer)
            }
            Meaning::NotTaken => {
                // A server without a leader is no worse than the others.
                if answer.status != 500 {
                    node.refused(answer.retry_after().unwrap_or(REFUSED_FOR));
                }
                Attempt::NotTaken(refusal(&answer))
            }
            Meaning::Unknown if call.safety == Safety::Read => Attempt::NotTaken(refusal(&answer)),
            Meaning::Unknown => {
                Attempt::Unknown(node.http().broken(&call.method, &call.path, answer.text().into()))
            }
        }
    }

    fn stay_with(&self, node: &Node) {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        let place = nodes.iter().position(|known| std::ptr::eq(&**known, node));
        self.current.store(place.unwrap_or(0), Ordering::Relaxed);
    }

    /// Takes note of how far the log had come when a write was acknowledged.
    fn note(&self, call: &Call, floor: u64, answer: &Answer) {
        let is_write = call.safety != Safety::Read && answer.is_success();
        let Some(index) = answer.applied_index().filter(|_| is_write) else { return };
        if index < floor {
            // Later writes have later places in a log: this is the log of another cluster.
            self.written.store(index, Ordering::Relaxed);
        } else {
            self.written.fetch_max(index, Ordering::Relaxed);
        }
    }

    /// The error for a request that no server has taken.
    fn despair(&self, failure: Option<Error>) -> Error {
        match failure {
            Some(Error::Unreachable { source, .. }) => {
                Error::Unreachable { addresses: self.addresses().join(","), source }
            }
            Some(error) => error,
            None => Error::Configuration("no address given".to_owned()),
        }
    }
}

/// What an answer says about its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// It was carried out or refused.
    Answer,
    /// It certainly had no effect, and another server or another moment may be better.
    NotTaken,
    /// It may have taken effect.
    Unknown,
}

impl Meaning {
    fn of(answer: &Answer) -> Self {
        let says = |words: &[u8]| answer.body.starts_with(words);
        match answer.status {
            500 | 503 if says(b"outcome unknown") => Self::Unknown,
            500 if says(b"No cluster leader") => Self::NotTaken,
            // A status of health is an answer: it comes as JSON, what is refused for want of room as text.
            429 | 503 if answer.is_json() => Self::Answer,
            429 | 503 => Self::NotTaken,
            // A proxy lost its server.
            502 | 504 => Self::Unknown,
            _ => Self::Answer,
        }
    }
}

#[cfg(test)]
mod tests;
