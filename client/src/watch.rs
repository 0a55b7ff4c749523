//! Values that stay current: blocking queries that never end.
//!
//! A watch asks for the index behind the one that it has, at whatever server answers: an index from one server is valid at
//! all others, so moving loses and repeats nothing. While nobody answers it keeps what it has. A failure is never a value:
//! an empty list means that a server has said so.

mod position;

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use serde::de::DeserializeOwned;
use tokio::sync::watch::{self, Receiver, Sender};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard, ReusableBoxFuture};

use self::position::{Position, Step};
use crate::api::is_nothing;
use crate::client::Client;
use crate::error::Error;
use crate::http::Answer;
use crate::query::{Query, with_id};
use crate::transport::{Attempt, Backoff, Call, lost};
use crate::types::catalog::Node;
use crate::types::claim::ClaimStatus;
use crate::types::health::{HealthCheck, ServiceEntry};
use crate::types::kv::KvPair;
use crate::types::live::Instance;

/// How long a query waits for a change before it is sent again.
const WAIT: Duration = Duration::from_secs(60);
/// Two queries of a watch begin at least so long apart: a busy key costs at most 20 of them a second.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// A server that does not answer any more is noticed within this.
const NOTICE_WITHIN: Duration = Duration::from_secs(2);
/// Pauses after failures.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// When no server has had what others had for so long, theirs is another cluster.
const FORGET_AFTER: Duration = Duration::from_secs(30);

type Decode<T> = Arc<dyn Fn(&Answer) -> Result<T, Error> + Send + Sync>;
type Latest<T> = Receiver<Option<Arc<T>>>;

impl Client {
    /// Watches one key; `None` while it does not exist.
    #[must_use]
    pub fn watch_key(&self, key: &str) -> WatchBuilder<Option<KvPair>> {
        WatchBuilder::new(self, with_id("/v1/kv/", key), |answer| {
            if is_nothing(answer) {
                return Ok(None);
            }
            Ok(rows::<Vec<KvPair>>(answer)?.into_iter().next())
        })
    }

    /// Watches one key's value as JSON. A value that is something else is reported as [`Trouble`], and the last good one is
    /// kept.
    #[must_use]
    pub fn watch_json<T: DeserializeOwned + Send + Sync + PartialEq + 'static>(
        &self,
        key: &str,
    ) -> WatchBuilder<Option<T>> {
        self.watch_key(key).try_map(|pair| {
            let read = |pair: KvPair| serde_json::from_slice(&pair.value);
            pair.map(read).transpose().map_err(|error| Error::Decode(error.to_string()))
        })
    }

    /// Watches all keys below a prefix, in byte order.
    #[must_use]
    pub fn watch_prefix(&self, prefix: &str) -> WatchBuilder<Vec<KvPair>> {
        let below = WatchBuilder::new(self, with_id("/v1/kv/", prefix), |answer| {
            if is_nothing(answer) { Ok(Vec::new()) } else { rows(answer) }
        });
        below.query(|query| query.with("recurse", ""))
    }

    /// Watches the instances of a service with their checks.
    #[must_use]
    pub fn watch_service(&self, name: &str) -> WatchBuilder<Vec<ServiceEntry>> {
        WatchBuilder::new(self, with_id("/v1/health/service/", name), rows)
    }

    /// Watches the names of all services, with the union of their instances' tags.
    #[must_use]
    pub fn watch_services(&self) -> WatchBuilder<BTreeMap<String, Vec<String>>> {
        WatchBuilder::new(self, "/v1/catalog/services".to_owned(), rows)
    }

    /// Watches the nodes.
    #[must_use]
    pub fn watch_nodes(&self) -> WatchBuilder<Vec<Node>> {
        WatchBuilder::new(self, "/v1/catalog/nodes".to_owned(), rows)
    }

    /// Watches the checks in a state: `any`, `passing`, `warning`, `critical`.
    #[must_use]
    pub fn watch_checks(&self, state: &str) -> WatchBuilder<Vec<HealthCheck>> {
        WatchBuilder::new(self, with_id("/v1/health/state/", state), rows)
    }

    /// Watches a claim, by its id.
    #[must_use]
    pub fn watch_claim(&self, id: &str) -> WatchBuilder<ClaimStatus> {
        WatchBuilder::new(self, with_id("/v1/quorate/claim/", id), rows)
    }

    /// Watches the table of all instances; [`WatchBuilder::query`] chooses rows. Ages and counters are those of the moment
    /// at which something else has changed.
    #[must_use]
    pub fn watch_instances(&self) -> WatchBuilder<Vec<Instance>> {
        WatchBuilder::new(self, "/v1/quorate/instances".to_owned(), rows)
    }
}

/// The body of a success.
fn rows<T: DeserializeOwned>(answer: &Answer) -> Result<T, Error> {
    answer.json()
}

/// Describes a [`Watch`].
pub struct WatchBuilder<T> {
    client: Client,
    path: String,
    query: Query,
    decode: Decode<T>,
    wait: Duration,
    pause_min: Duration,
    notice_within: Duration,
}

impl<T> WatchBuilder<T> {
    fn new(
        client: &Client,
        path: String,
        decode: impl Fn(&Answer) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Self {
        Self {
            client: client.clone(),
            path,
            query: Query::new(),
            decode: Arc::new(decode),
            wait: WAIT,
            pause_min: PAUSE_MIN,
            notice_within: NOTICE_WITHIN,
        }
    }

    /// Changes the query: filters, tags, `stale`. Its index and wait are the watch's business.
    #[must_use]
    pub fn query(mut self, change: impl FnOnce(Query) -> Query) -> Self {
        self.query = change(self.query);
        self
    }

    /// How long a query waits for a change before it is sent again (default 60 s, at most 10 min).
    #[must_use]
    pub fn wait(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// How far apart two queries begin at least (default 50 ms). Changes in between are seen as one.
    #[must_use]
    pub fn pause_min(self, pause_min: Duration) -> Self {
        Self { pause_min, ..self }
    }

    /// How soon a server is left that does not answer any more, or has lost its cluster (default 2 s). While a query waits,
    /// its server's readiness is looked at three times in this span.
    #[must_use]
    pub fn notice_within(self, span: Duration) -> Self {
        Self { notice_within: span, ..self }
    }

    /// Watches a part of the value, or something that is made of it.
    #[must_use]
    pub fn map<U: 'static>(
        self,
        convert: impl Fn(T) -> U + Send + Sync + 'static,
    ) -> WatchBuilder<U>
    where
        T: 'static,
    {
        self.try_map(move |value| Ok(convert(value)))
    }

    /// The same where a value may be unfit: that is reported as [`Trouble`], and the last good value is kept.
    #[must_use]
    pub fn try_map<U: 'static>(
        self,
        convert: impl Fn(T) -> Result<U, Error> + Send + Sync + 'static,
    ) -> WatchBuilder<U>
    where
        T: 'static,
    {
        let Self { client, path, query, decode, wait, pause_min, notice_within } = self;
        let decode: Decode<U> = Arc::new(move |answer| convert(decode(answer)?));
        WatchBuilder { client, path, query, decode, wait, pause_min, notice_within }
    }

    /// Begins to watch. The first value comes as soon as a server answers.
    ///
    /// # Errors
    /// [`Error::ShutDown`]: the client was shut down.
    pub fn start(self) -> Result<Watch<T>, Error>
    where
        T: PartialEq + Send + Sync + 'static,
    {
        self.client.require_running()?;
        let (values, latest) = watch::channel(None);
        let (troubles, trouble) = watch::channel(None);
        let token = self.client.token().child_token();
        let end = token.clone().drop_guard();
        let client = self.client.clone();
        let worker =
            Worker { source: self, position: Position::default(), applied: 0, values, troubles };
        client.spawn(worker.run(token));
        Ok(Watch {
            next: ReusableBoxFuture::new(changed(latest.clone())),
            latest,
            trouble,
            _end: end,
        })
    }
}

impl<T> fmt::Debug for WatchBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchBuilder").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Why a watch has nothing newer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Since when.
    pub since: Instant,
    /// The last failure.
    pub error: String,
}

/// A value that stays current. It ends when it is dropped, or with its client.
///
/// As a [`Stream`] it yields the first value and then each that differs from the one before. A reader that is slow gets the
/// newest, not all: what changes twice in between is seen once. ([`Follow`](crate::Follow) misses nothing.)
///
/// ```no_run
/// # async fn example(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
/// use futures_util::StreamExt as _;
///
/// let mut web = client.watch_service("web").query(|query| query.passing()).start()?;
/// while let Some(instances) = web.next().await {
///     println!("{} instances", instances.len());
/// }
/// # Ok(())
/// # }
/// ```
///
/// While no server answers, [`latest`](Self::latest) is the last good value, and [`trouble`](Self::trouble) says since when:
/// how old is too old is the reader's decision.
pub struct Watch<T> {
    latest: Latest<T>,
    trouble: Receiver<Option<Trouble>>,
    next: ReusableBoxFuture<'static, (bool, Latest<T>)>,
    _end: DropGuard,
}

impl<T: Send + Sync + 'static> Watch<T> {
    /// The newest value; `None` until the first one has come.
    #[must_use]
    pub fn latest(&self) -> Option<Arc<T>> {
        self.latest.borrow().clone()
    }

    /// Waits for the first value, for as long as it takes.
    ///
    /// # Errors
    /// [`Error::ShutDown`]: the client was shut down.
    pub async fn first(&self) -> Result<Arc<T>, Error> {
        self.wait_for(|_| true).await
    }

    /// Waits for a value that is as wanted, for as long as it takes.
    ///
    /// # Errors
    /// [`Error::ShutDown`]: the client was shut down.
    pub async fn wait_for(&self, wanted: impl Fn(&T) -> bool + Send) -> Result<Arc<T>, Error> {
        let mut latest = self.latest.clone();
        let found = latest.wait_for(|value| value.as_deref().is_some_and(&wanted)).await;
        found.ok().and_then(|value| value.clone()).ok_or(Error::ShutDown)
    }

    /// Waits for a value that differs from the last one that this returned; `None`: the watch has ended.
    pub async fn changed(&mut self) -> Option<Arc<T>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// The last failure, if no answer has come since; a query that waits quietly at the next server has not answered yet.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble.borrow().clone()
    }
}

impl<T: Send + Sync + 'static> Stream for Watch<T> {
    type Item = Arc<T>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Arc<T>>> {
        let this = self.get_mut();
        loop {
            let (has_changed, mut latest) = ready!(this.next.poll(context));
            let value = latest.borrow_and_update().clone();
            this.next.set(changed(latest));
            if !has_changed {
                return Poll::Ready(None);
            }
            if value.is_some() {
                return Poll::Ready(value);
            }
        }
    }
}

impl<T> fmt::Debug for Watch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("trouble", &*self.trouble.borrow()).finish_non_exhaustive()
    }
}

async fn changed<T>(mut latest: Latest<T>) -> (bool, Latest<T>) {
    let has_changed = latest.changed().await.is_ok();
    (has_changed, latest)
}

/// What asks.
struct Worker<T> {
    source: WatchBuilder<T>,
    position: Position,
    /// How far the log was applied where the last answer came from.
    applied: u64,
    values: Sender<Option<Arc<T>>>,
    troubles: Sender<Option<Trouble>>,
}

impl<T: PartialEq + Send + Sync + 'static> Worker<T> {
    async fn run(mut self, token: CancellationToken) {
        let _ = token.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&mut self) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        loop {
            let next = Instant::now() + self.source.pause_min;
            match self.ask().await.and_then(|answer| self.take(&answer)) {
                Ok(()) => {
                    backoff.reset();
                    self.troubles.send_if_modified(|trouble| trouble.take().is_some());
                    tokio::time::sleep_until(next).await;
                }
                Err(error) => {
                    self.report(&error);
                    tokio::time::sleep(backoff.pause()).await;
                }
            }
        }
    }

    /// Asks the best server, and leaves it if it is lost meanwhile.
    async fn ask(&self) -> Result<Answer, Error> {
        let transport = self.source.client.transport();
        let Some(node) = transport.best() else {
            return Err(Error::Configuration("no address given".to_owned()));
        };
        let query = match self.position.index() {
            0 => self.source.query.clone(),
            index => self.source.query.clone().after(index, self.source.wait),
        };
        let call = Call::get(self.source.path.clone(), &query).at_least(self.applied);
        tokio::select! {
            attempt = transport.attempt(&node, &call, true) => match attempt {
                Attempt::Answered(answer) if answer.is_success() || is_nothing(&answer) => Ok(answer),
                Attempt::Answered(answer) => Err(Error::Status {
                    request: call.named(node.http()),
                    status: answer.status,
                    text: answer.text(),
                }),
                Attempt::NotTaken(error) | Attempt::Unknown(error) => Err(error),
            },
            () = lost(&node, self.source.notice_within) => {
                let address = node.http().base().to_owned();
                Err(Error::Transport { address, source: "the server is lost".into() })
            }
        }
    }

    /// Takes what an answer says. Its place counts even if its value is unfit, or the same answer would come again at once.
    fn take(&mut self, answer: &Answer) -> Result<(), Error> {
        let Some(index) = answer.index() else {
            return Err(Error::Decode("an answer without X-Consul-Index".to_owned()));
        };
        self.applied = self.applied.max(answer.applied_index().unwrap_or(0));
        match self.position.advance(index) {
            Step::Same | Step::FellBack => Ok(()),
            Step::Fresh => {
                let value = (self.source.decode)(answer)?;
                self.values.send_if_modified(|latest| {
                    let is_new = latest.as_deref() != Some(&value);
                    if is_new {
                        *latest = Some(Arc::new(value));
                    }
                    is_new
                });
                Ok(())
            }
        }
    }

    fn report(&mut self, error: &Error) {
        let error = error.with_causes();
        tracing::debug!(path = self.source.path, error, "a watch has no answer");
        let mut lasts = Duration::ZERO;
        self.troubles.send_modify(|trouble| {
            let since = trouble.as_ref().map_or_else(Instant::now, |trouble| trouble.since);
            lasts = since.elapsed();
            *trouble = Some(Trouble { since, error });
        });
        if lasts >= FORGET_AFTER {
            self.applied = 0;
        }
    }
}

#[cfg(test)]
mod tests;
