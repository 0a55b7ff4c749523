//! Holds the stream by which a worker lives.

use std::sync::Arc;
use std::time::Duration;

use quorate_client::types::live::PresenceRegistered;
use reqwest::{Response, StatusCode};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::complaints::Complaints;
use super::messages::{Session, Told};
use crate::checks::WorkerKey;
use crate::checks::key::{PROOF_HEADER, Purpose};
use crate::checks::remote::{Frame, PATH, PROTOCOL, Terms};
use crate::host::causes::with_causes;
use crate::host::clock;

/// A server that sends nothing for so long is dead: a frame comes every 2 s.
const SILENCE_MAX: Duration = Duration::from_secs(6);
/// How long a server may take to begin an answer; it holds requests while there is no leader.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after all servers were tried in vain.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Another process may have the name for so long: it may be dead, and its server not know it yet.
const TAKEN_MAX: Duration = Duration::from_secs(30);
/// How long to wait before a worker that somebody has deregistered comes back.
const DEREGISTERED_PAUSE: Duration = Duration::from_secs(1);
/// What a refusal says before the newest attempt.
const ATTEMPT: &str = "has come to attempt ";

/// Why a worker ends.
#[derive(Debug)]
pub(super) enum Ended {
    /// It was told to.
    Stopped,
    /// The servers do not know its key.
    Denied(String),
    /// Another process has its name.
    Taken(String),
    /// What it asks for makes no sense to the servers.
    Refused(String),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) http: reqwest::Client,
    /// Their URLs, the present one first.
    pub(super) servers: Vec<String>,
    pub(super) name: Arc<str>,
    pub(super) network: String,
    pub(super) agent: Option<String>,
    pub(super) key: WorkerKey,
    pub(super) owner: String,
    /// Of the last stream.
    pub(super) attempt: u64,
    pub(super) complaints: Complaints,
    pub(super) session: watch::Sender<Option<Session>>,
    pub(super) tell: mpsc::Sender<Told>,
}

/// How a stream came to its end.
enum Closed {
    /// Another one is to be opened.
    Again(Duration),
    /// Another process has the name.
    Replaced,
}

/// Why a server has no stream for the worker.
#[derive(Debug, Clone, Copy)]
enum Reason {
    /// It does not answer.
    Silent,
    /// It says that it cannot at present.
    Busy,
    /// It has another key.
    OtherKey,
}

/// What came of the attempts at one server after the other, since the last stream.
#[derive(Debug, Default)]
struct Round {
    /// How many were tried.
    tried: usize,
    /// What those said that have another key.
    denied: Vec<String>,
    /// Whether one may have the worker's key: it answered, and not that.
    has_hope: bool,
}

impl Round {
    /// An attempt was in vain.
    fn note(&mut self, reason: Reason, server: &str, text: &str) {
        self.tried += 1;
        match reason {
            Reason::Silent => {}
            Reason::Busy => self.has_hope = true,
            Reason::OtherKey => self.denied.push(format!("{server}: {text}")),
        }
    }

    /// Begins another one after all servers were tried. If all that answered have another key, it says what they said.
    fn ends(&mut self, servers: usize) -> Option<Result<(), String>> {
        if self.tried < servers {
            return None;
        }
        let Self { denied, has_hope, .. } = std::mem::take(self);
        Some(if denied.is_empty() || has_hope { Ok(()) } else { Err(denied.join("; ")) })
    }
}

/// Why none was opened.
enum NotOpened {
    /// There is none at this server; another one may have it.
    Unavailable(Reason, String),
    /// Another process has the name, or a later attempt.
    Conflict(String),
    /// There is no use in trying again.
    Final(Ended),
}

impl Link {
    /// Keeps a stream open until that is of no use any more.
    pub(super) async fn run(&mut self) -> Ended {
        let mut taken_since: Option<Instant> = None;
        let mut round = Round::default();
        loop {
            let pause = match self.open().await {
                Ok((response, server)) => {
                    (taken_since, round) = (None, Round::default());
                    self.complaints.forget();
                    let closed = self.follow(response, server).await;
                    self.session.send_replace(None);
                    match closed {
                        Closed::Again(pause) => pause,
                        Closed::Replaced => {
                            return Ended::Taken(format!(
                                "another process is worker {}",
                                self.name
                            ));
                        }
                    }
                }
                Err(NotOpened::Final(ended)) => return ended,
                Err(NotOpened::Conflict(text)) => {
                    self.attempt = self.attempt.max(newest_attempt(&text));
                    let since = *taken_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > TAKEN_MAX {
                        return Ended::Taken(text);
                    }
                    tracing::warn!(text, "the name is taken, trying again");
                    round.has_hope = true;
                    RETRY_PAUSE
                }
                Err(NotOpened::Unavailable(reason, text)) => {
                    self.complain(&text);
                    round.note(reason, &self.servers[0], &text);
                    match round.ends(self.servers.len()) {
                        None => Duration::ZERO,
                        Some(Ok(())) => RETRY_PAUSE,
                        Some(Err(said)) => return Ended::Denied(said),
                    }
                }
            };
            // The next one's turn.
            self.servers.rotate_left(1);
            tokio::time::sleep(pause).await;
        }
    }

    /// The log says why there is no stream.
    fn complain(&mut self, text: &str) {
        let server = &self.servers[0];
        if self.complaints.is_due(server, text) {
            tracing::warn!(text, server, "no stream at this server");
        }
    }

    /// Deregisters the worker: its checks go to others at once.
    pub(super) async fn leave(&self) {
        let Some(session) = self.session.borrow().clone() else { return };
        let url = format!(
            "{}/v1/agent/service/deregister/{}?agent={}",
            session.server, self.name, session.node
        );
        if let Err(error) = self.http.put(url).timeout(SILENCE_MAX).send().await {
            let error = with_causes(&error);
            tracing::debug!(error, "the worker was not deregistered");
        }
    }

    async fn open(&mut self) -> Result<(Response, String), NotOpened> {
        self.attempt = clock::wall_time().unix_millis().max(self.attempt + 1);
        let terms = Terms {
            name: self.name.to_string(),
            network: self.network.clone(),
            owner: self.owner.clone(),
            attempt: self.attempt,
            protocol: PROTOCOL,
        };
        let unavailable = |error: &dyn std::error::Error| {
            NotOpened::Unavailable(Reason::Silent, with_causes(error))
        };
        let body = serde_json::to_vec(&terms).map_err(|error| unavailable(&error))?;
        let server = self.servers[0].clone();
        let agent = self.agent.as_ref().map_or_else(String::new, |name| format!("?agent={name}"));
        let proof = self.key.prove(Purpose::Open, &body);
        let request = self.http.put(format!("{server}{PATH}{agent}")).header(PROOF_HEADER, proof);
        let request = request.body(body);
        let sent = tokio::time::timeout(ANSWER_TIMEOUT, request.send()).await;
        let answer = sent.map_err(|error| unavailable(&error))?;
        let answer = answer.map_err(|error| unavailable(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok((answer, server));
        }
        let text = answer.text().await.unwrap_or_default();
        Err(match status {
            StatusCode::FORBIDDEN => NotOpened::Unavailable(Reason::OtherKey, text),
            StatusCode::CONFLICT => NotOpened::Conflict(text),
            status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                NotOpened::Final(Ended::Refused(format!("{server}: {status}: {text}")))
            }
            status => NotOpened::Unavailable(Reason::Busy, format!("{status}: {text}")),
        })
    }

    /// Reads a stream to its end.
    async fn follow(&mut self, mut response: Response, server: String) -> Closed {
        let broken = Arc::new(Notify::new());
        let mut unread = Vec::new();
        loop {
            let piece = tokio::select! {
                () = broken.notified() => return Closed::Again(Duration::ZERO),
                piece = tokio::time::timeout(SILENCE_MAX, response.chunk()) => piece,
            };
            let Ok(Ok(Some(piece))) = piece else {
                tracing::warn!(server, "the stream broke");
                return Closed::Again(Duration::ZERO);
            };
            unread.extend_from_slice(&piece);
            while let Some((event, data)) = next_event(&mut unread) {
                match event.as_str() {
                    "registered" => self.begin(&data, &server, &broken).await,
                    "checks" => {
                        if let Ok(frame) = serde_json::from_str::<Frame>(&data) {
                            // The desk lives as long as this does; ignore the error.
                            let _ = self.tell.send(Told::Frame(frame)).await;
                        } else {
                            tracing::warn!(server, "a frame that this version cannot read");
                        }
                    }
                    "replaced" => return Closed::Replaced,
                    "deregistered" => return Closed::Again(DEREGISTERED_PAUSE),
                    _ => return Closed::Again(Duration::ZERO),
                }
            }
        }
    }

    async fn begin(&self, data: &str, server: &str, broken: &Arc<Notify>) {
        let Ok(registered) = serde_json::from_str::<PresenceRegistered>(data) else { return };
        tracing::info!(worker = %self.name, server, lease = registered.lease, "running checks");
        let _ = self.tell.send(Told::Begin).await;
        self.session.send_replace(Some(Session {
            server: server.to_owned(),
            lease: registered.lease,
            node: registered.node,
            broken: Arc::clone(broken),
        }));
    }
}

/// The attempt that a refusal names.
fn newest_attempt(text: &str) -> u64 {
    let rest = text.split_once(ATTEMPT).map_or("", |(_, rest)| rest);
    rest.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Takes the next whole event from what was read: its name and data.
fn next_event(unread: &mut Vec<u8>) -> Option<(String, String)> {
    loop {
        let end = unread.windows(2).position(|pair| pair == b"\n\n")?;
        let event: Vec<u8> = unread.drain(..end + 2).collect();
        let text = String::from_utf8_lossy(&event);
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        if let Some(name) = field("event: ") {
            let data = field("data: ").unwrap_or_default();
            return Some((name.to_owned(), data.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_as_they_come_in_pieces() {
        let mut unread = b":\n\nevent: registered\ndata: {}\n\nevent: che".to_vec();
        assert_eq!(next_event(&mut unread), Some(("registered".to_owned(), "{}".to_owned())));
        assert_eq!(next_event(&mut unread), None);
        unread.extend_from_slice(b"cks\ndata: {\"Time\":7}\n\n");
        assert_eq!(next_event(&mut unread), Some(("checks".to_owned(), "{\"Time\":7}".to_owned())));
    }

    #[test]
    fn a_worker_ends_when_all_servers_that_answer_have_another_key() {
        let mut round = Round::default();
        round.note(Reason::OtherKey, "http://a", "no");
        assert_eq!(round.ends(2), None, "the other one is still to be asked");
        round.note(Reason::Silent, "http://b", "refused");
        assert_eq!(round.ends(2), Some(Err("http://a: no".to_owned())));
        round.note(Reason::OtherKey, "http://a", "no");
        round.note(Reason::Busy, "http://b", "no leader");
        assert_eq!(round.ends(2), Some(Ok(())), "one may have the key");
        round.note(Reason::Silent, "http://a", "refused");
        round.note(Reason::Silent, "http://b", "refused");
        assert_eq!(round.ends(2), Some(Ok(())), "nobody answers: that may pass");
    }

    #[test]
    fn a_refusal_names_the_newest_attempt() {
        let text =
            "the presence of \"w1\" has come to attempt 17 of this owner, and this one is earlier";
        assert_eq!((newest_attempt(text), newest_attempt("taken")), (17, 0));
    }
}
