//! An instance that registers itself and stays registered for as long as its process lives.
//!
//! There are two ways to show that it lives, and one handle for both:
//!
//! * **Heartbeats** ([`RegistrationBuilder::by_heartbeats`]): one each third of the TTL. Silence shows after the TTL. Every
//!   heartbeat is the whole registration, so an instance that the cluster has forgotten is registered again by the next one.
//! * **Presence** ([`RegistrationBuilder::by_presence`]): a connection. Its end shows at once. When its server goes, it is
//!   opened again at another one, and nobody sees the instance critical meanwhile. Heartbeats go beside it, more seldom: they
//!   carry the facts, and find a process that is stopped but keeps its connection.

mod facts;
mod heartbeats;
mod presence;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::facts::{Facts, default_id};
use crate::client::Client;
use crate::duration;
use crate::error::Error;
use crate::query::{Query, with_id};
use crate::transport::{Backoff, Call};
use crate::types::TextMap;
use crate::types::heartbeat::{Heartbeat, Heartbeats};
use crate::watch::Trouble;

/// The TTL of heartbeats that are all there is, and of those beside a presence, unless the builder says otherwise.
const TTL: Duration = Duration::from_secs(15);
const TTL_BESIDE: Duration = Duration::from_secs(90);
/// A TTL is at least so long; the server refuses shorter ones.
const TTL_MIN: Duration = Duration::from_secs(1);
/// Heartbeats in a TTL: two may be lost.
const BEATS_IN_TTL: u32 = 3;
/// How long a server may take to answer a heartbeat: a third of the time between two, within bounds. Then the next server
/// gets it.
const ANSWER_PART: u32 = 3;
const ANSWER_MIN: Duration = Duration::from_millis(300);
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// How long an instance goes on passing after its connection has ended.
const LINGER: Duration = Duration::from_millis(500);
/// Pauses after failures.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// How long a registration tries to deregister at its end. After that the TTL does it.
const DEREGISTER_WITHIN: Duration = Duration::from_secs(10);

impl Client {
    /// Describes an instance of a service that this process is.
    #[must_use]
    pub fn register(&self, service: impl Into<String>) -> RegistrationBuilder {
        RegistrationBuilder {
            client: self.clone(),
            heartbeat: Heartbeat { service: service.into(), ..Heartbeat::default() },
            ttl: None,
            warn_after: None,
            linger: LINGER,
        }
    }
}

/// What an instance says of its health.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ServiceStatus {
    /// It can be used.
    #[default]
    Passing,
    /// It can be used where nothing better is there.
    Warning,
    /// It cannot be used.
    Critical,
}

impl ServiceStatus {
    /// The word of the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Describes a [`Registration`].
#[derive(Debug, Clone)]
pub struct RegistrationBuilder {
    client: Client,
    heartbeat: Heartbeat,
    ttl: Option<Duration>,
    warn_after: Option<Duration>,
    linger: Duration,
}

impl RegistrationBuilder {
    /// The instance's id; otherwise it is made of the service, the host's name and the port.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.heartbeat.id = id.into();
        self
    }

    /// Where it can be reached; otherwise at the address from which the cluster sees this host.
    #[must_use]
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.heartbeat.address = Some(address.into());
        self
    }

    /// Its port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.heartbeat.port = Some(port.into());
        self
    }

    /// One more tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.heartbeat.tags.get_or_insert_default().push(tag.into());
        self
    }

    /// One more pair of metadata.
    #[must_use]
    pub fn meta(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.heartbeat.meta.get_or_insert_default().insert(key.into(), value.into());
        self
    }

    /// Its version, such as `env!("CARGO_PKG_VERSION")`.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.heartbeat.version = Some(version.into());
        self
    }

    /// A name for the process; otherwise that of its program.
    #[must_use]
    pub fn process(mut self, name: impl Into<String>) -> Self {
        self.heartbeat.process = Some(name.into());
        self
    }

    /// After so long a silence the instance is critical: 1 s to 24 h, by default 15 s (90 s beside a presence). A heartbeat
    /// is sent each third of it.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..self }
    }

    /// After so long a silence there is a warning; otherwise there is none.
    #[must_use]
    pub fn warn_after(self, span: Duration) -> Self {
        Self { warn_after: Some(span), ..self }
    }

    /// How long it goes on passing after its connection has ended, at most 60 s (default 500 ms).
    #[must_use]
    pub fn linger(self, linger: Duration) -> Self {
        Self { linger, ..self }
    }

    /// Registers the instance, and keeps it registered by heartbeats.
    ///
    /// # Errors
    /// [`Error::Refused`]: it is not accepted. Any other: no server could be asked just now.
    pub async fn by_heartbeats(self) -> Result<Registration, Error> {
        self.client.require_running()?;
        let (registration, pulse) = self.parts(TTL);
        pulse.beat().await?;
        let _ = pulse.state.send(RegistrationState::Registered);
        pulse.client.clone().spawn(heartbeats::run(pulse));
        Ok(registration)
    }

    /// Registers the instance, and keeps it registered by a connection, with heartbeats beside it.
    ///
    /// # Errors
    /// As [`Self::by_heartbeats`]; status 409: several processes claim this id.
    pub async fn by_presence(self) -> Result<Registration, Error> {
        self.client.require_running()?;
        let linger = self.linger;
        let (registration, pulse) = self.parts(TTL_BESIDE);
        let holder = presence::Holder::open(pulse, linger).await?;
        holder.client().spawn(holder.run());
        Ok(registration)
    }

    fn parts(self, default_ttl: Duration) -> (Registration, Pulse) {
        let Self { client, mut heartbeat, ttl, warn_after, linger: _ } = self;
        let ttl = ttl.unwrap_or(default_ttl).max(TTL_MIN);
        let Facts { process, pid, started } = Facts::of_this_process();
        if heartbeat.id.is_empty() {
            heartbeat.id = default_id(&heartbeat.service, heartbeat.port.unwrap_or(0));
        }
        heartbeat.process.get_or_insert(process);
        heartbeat.pid = Some(pid);
        heartbeat.started = Some(started);
        heartbeat.critical_after = Some(duration_text(ttl));
        heartbeat.warn_after = Some(duration_text(warn_after.unwrap_or_default()));
        let id = heartbeat.id.clone();
        let counter = Arc::new(AtomicU64::new(0));
        let (saying, said) = watch::channel(Said::default());
        let (state, seen) = watch::channel(RegistrationState::Registering);
        let (ended, end) = oneshot::channel();
        let leave = client.token().child_token();
        let pulse = Pulse {
            client,
            heartbeat,
            interval: ttl / BEATS_IN_TTL,
            counter: Arc::clone(&counter),
            said,
            state,
            leave: leave.clone(),
            ended: Some(ended),
        };
        (Registration { id, counter, saying, state: seen, leave, end }, pulse)
    }
}

fn duration_text(span: Duration) -> String {
    duration::format(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX))
}

/// How a registration is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrationState {
    /// It has not been accepted yet.
    Registering,
    /// The cluster knows that the instance lives.
    Registered,
    /// The cluster could not be told for some time.
    Troubled(Trouble),
    /// A later process has taken the instance over. This one stays away.
    Replaced,
    /// It has ended.
    Ended,
}

/// What the process says beside that it lives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Said {
    status: ServiceStatus,
    note: String,
}

/// An instance that stays registered.
///
/// ```no_run
/// # async fn example(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
/// let web = client
///     .register("web")
///     .port(8080)
///     .tag("blue")
///     .version(env!("CARGO_PKG_VERSION"))
///     .by_presence()
///     .await?;
/// // ... serve ...
/// web.shutdown().await?;
/// # Ok(())
/// # }
/// ```
///
/// It says by itself which process it is: name, pid, start, version, and a counter that grows with each heartbeat. Somebody
/// who deregisters it while it runs sees it come back; to take it out of use there is
/// [maintenance](crate::api::Agent::service_maintenance).
///
/// **Its end.** [`shutdown`](Self::shutdown) and [`Client::shutdown`] deregister it. When it is dropped it just falls silent,
/// as if the process had died.
#[derive(Debug)]
pub struct Registration {
    id: String,
    counter: Arc<AtomicU64>,
    saying: watch::Sender<Said>,
    state: watch::Receiver<RegistrationState>,
    leave: CancellationToken,
    end: oneshot::Receiver<Result<(), Error>>,
}

impl Registration {
    /// The instance's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How it is.
    #[must_use]
    pub fn state(&self) -> RegistrationState {
        self.state.borrow().clone()
    }

    /// Waits until it is in a state other than the last one that was looked at.
    pub async fn state_changed(&mut self) -> RegistrationState {
        match self.state.changed().await {
            Ok(()) => self.state.borrow_and_update().clone(),
            Err(_) => RegistrationState::Ended,
        }
    }

    /// Says how the instance is, with a note for people (at most 512 bytes). It is told at once.
    pub fn set_status(&self, status: ServiceStatus, note: impl Into<String>) {
        let said = Said { status, note: note.into() };
        self.saying.send_if_modified(|present| {
            let is_new = *present != said;
            *present = said;
            is_new
        });
    }

    /// Raises the counter, from which it goes on.
    pub fn set_counter(&self, counter: u64) {
        self.counter.fetch_max(counter, Ordering::Relaxed);
    }

    /// Deregisters the instance, and returns when it is gone.
    ///
    /// # Errors
    /// It could not be deregistered within 10 s; its TTL does it.
    pub async fn shutdown(self) -> Result<(), Error> {
        self.leave.cancel();
        self.end.await.unwrap_or(Ok(()))
    }
}

/// What both ways have in common: the heartbeats, and the end.
#[derive(Debug)]
struct Pulse {
    client: Client,
    heartbeat: Heartbeat,
    /// The time between two heartbeats.
    interval: Duration,
    counter: Arc<AtomicU64>,
    /// Its other end closes when the handle is dropped.
    said: watch::Receiver<Said>,
    state: watch::Sender<RegistrationState>,
    leave: CancellationToken,
    ended: Option<oneshot::Sender<Result<(), Error>>>,
}

/// Why a heartbeat had no effect.
#[derive(Debug, PartialEq, Eq)]
enum Miss {
    /// A later process has the instance.
    Replaced,
    /// It is refused.
    Refused(String),
}

impl Pulse {
    /// Sends one heartbeat.
    async fn beat(&self) -> Result<(), Error> {
        let Said { status, note } = self.said.borrow().clone();
        let counter = self.counter.fetch_add(1, Ordering::Relaxed) + 1;
        let heartbeat = Heartbeat {
            counter: Some(counter),
            status: Some(status.as_str().to_owned()),
            note: Some(note),
            ..self.heartbeat.clone()
        };
        let within = (self.interval / ANSWER_PART).clamp(ANSWER_MIN, ANSWER_MAX);
        let answer = self.client.heartbeat_within(&heartbeat, within).await?;
        match miss(answer) {
            None => Ok(()),
            Some(Miss::Replaced) => {
                Err(Error::Lost(format!("a later process holds {:?}", self.heartbeat.id)))
            }
            Some(Miss::Refused(why)) => Err(Error::Refused(why)),
        }
    }

    /// Takes note of a heartbeat's outcome; returns whether there is a reason to go on.
    fn note(&self, outcome: &Result<(), Error>) -> bool {
        match outcome {
            Ok(()) => {
                self.state.send_if_modified(|state| {
                    let is_new = *state != RegistrationState::Registered;
                    *state = RegistrationState::Registered;
                    is_new
                });
                true
            }
            Err(Error::Lost(_)) => {
                let _ = self.state.send(RegistrationState::Replaced);
                false
            }
            Err(error) => {
                self.trouble(error);
                true
            }
        }
    }

    fn trouble(&self, error: &Error) {
        let error = error.with_causes();
        tracing::debug!(id = self.heartbeat.id, error, "the cluster could not be told");
        self.state.send_modify(|state| {
            let since = match state {
                RegistrationState::Troubled(trouble) => trouble.since,
                _ => tokio::time::Instant::now(),
            };
            *state = RegistrationState::Troubled(Trouble { since, error });
        });
    }

    /// Removes the instance, trying for some time. `agent` is the node that has it, if that is known.
    async fn deregister(&mut self, agent: Option<&str>) {
        let path = with_id("/v1/agent/service/deregister/", &self.heartbeat.id);
        let query = agent.into_iter().fold(Query::new(), |query, agent| query.agent(agent));
        let call = Call::put(path).query(&query).idempotent().within(ANSWER_MAX);
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        let limit = tokio::time::Instant::now() + DEREGISTER_WITHIN;
        let outcome = loop {
            match self.client.remove(&call).await {
                Err(error) if error.is_not_found() => break Ok(()),
                Err(error) => {
                    let pause = backoff.pause();
                    if tokio::time::Instant::now() + pause >= limit {
                        break Err(error);
                    }
                    tokio::time::sleep(pause).await;
                }
                Ok(()) => break Ok(()),
            }
        };
        self.end(outcome);
    }

    fn end(&mut self, outcome: Result<(), Error>) {
        if !matches!(*self.state.borrow(), RegistrationState::Replaced) {
            let _ = self.state.send(RegistrationState::Ended);
        }
        if let Some(ended) = self.ended.take() {
            // Nobody waits if the handle was dropped.
            let _ = ended.send(outcome);
        }
    }
}

/// Whether the heartbeat of an answer was refused, and why.
fn miss(answer: Heartbeats) -> Option<Miss> {
    let error = answer.rejected.into_iter().next()?.error;
    // The words of `Rejection::EarlierProcess`.
    Some(if error.contains("a later process") { Miss::Replaced } else { Miss::Refused(error) })
}

/// The metadata and tags of a registration, as another shape has them.
fn described(heartbeat: &Heartbeat) -> (Vec<String>, Option<TextMap>) {
    (heartbeat.tags.clone().unwrap_or_default(), heartbeat.meta.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::heartbeat::RejectedHeartbeat;

    #[test]
    fn a_later_process_is_told_from_other_refusals() {
        let refused = |error: &str| {
            let rejected =
                vec![RejectedHeartbeat { index: 0, id: "a".to_owned(), error: error.to_owned() }];
            miss(Heartbeats { rejected, ..Heartbeats::default() })
        };
        assert_eq!(miss(Heartbeats::default()), None);
        let later = "a heartbeat of a later process of \"a\" has come before, this one is refused";
        assert_eq!(refused(later), Some(Miss::Replaced));
        assert_eq!(refused("Bad status"), Some(Miss::Refused("Bad status".to_owned())));
    }

    #[tokio::test]
    async fn a_registration_says_which_process_it_is() {
        let client = Client::new(["127.0.0.1:1"]).unwrap();
        let builder = client.register("web").port(80).tag("blue").meta("zone", "eu");
        let (registration, pulse) = builder.ttl(Duration::from_secs(9)).parts(TTL);
        let beat = &pulse.heartbeat;
        assert_eq!(beat.pid, Some(std::process::id().into()));
        assert!(beat.started.is_some() && beat.process.is_some());
        assert_eq!(
            (beat.critical_after.as_deref(), beat.warn_after.as_deref()),
            (Some("9s"), Some("0s"))
        );
        assert_eq!(pulse.interval, Duration::from_secs(3));
        assert_eq!(registration.id(), beat.id);
        assert_eq!(described(beat).0, ["blue"]);
    }
}
