//! Every change, exactly once and in order: a stream that goes on at another server when its own is gone.

mod listing;

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::listing::{Incomplete, Listed, Listing};
use crate::api::{EventStream, Frame, SILENCE_MAX, stream_call};
use crate::client::Client;
use crate::error::Error;
use crate::query::Query;
use crate::sse::Events;
use crate::transport::{Backoff, Node, NotOpened, lost};
use crate::types::live::{Instance, StreamChange, StreamGap};

/// Events that wait for the reader. Beyond that nothing is read from the connection.
const EVENTS_AHEAD: usize = 256;
/// A server that does not answer any more is noticed within this.
const NOTICE_WITHIN: Duration = Duration::from_secs(2);
/// Pauses after failures.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// How long a server is left alone that has said it stops.
const STOPS_FOR: Duration = Duration::from_secs(2);

impl Client {
    /// Follows what happens: everything but keys, unless [`FollowBuilder`] narrows it.
    #[must_use]
    pub fn follow(&self) -> FollowBuilder {
        FollowBuilder {
            client: self.clone(),
            query: Query::new(),
            since: None,
            is_stale: false,
            notice_within: NOTICE_WITHIN,
        }
    }
}

/// Describes a [`Follow`].
#[derive(Debug, Clone)]
pub struct FollowBuilder {
    client: Client,
    query: Query,
    since: Option<u64>,
    is_stale: bool,
    notice_within: Duration,
}

impl FollowBuilder {
    /// Only what concerns this service; several add up. At most 100 services, prefixes and kinds in all.
    #[must_use]
    pub fn service(self, name: impl Into<String>) -> Self {
        Self { query: self.query.with("service", name), ..self }
    }

    /// Keys below this prefix; several add up.
    #[must_use]
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { query: self.query.with("prefix", prefix), ..self }
    }

    /// Only changes of this kind, or of kinds that begin so (`check.`); several add up.
    #[must_use]
    pub fn kind(self, kind: impl Into<String>) -> Self {
        Self { query: self.query.with("kind", kind), ..self }
    }

    /// Goes on behind a record that was seen earlier, maybe by another process. Without it, the first event is the list of
    /// all instances.
    #[must_use]
    pub fn since(self, seq: u64) -> Self {
        Self { since: Some(seq), ..self }
    }

    /// What the server that answers knows, also while there is no leader. A server that has lost its cluster is not left
    /// then, and one that does not answer any more after 8 s.
    #[must_use]
    pub fn stale(self) -> Self {
        Self { query: self.query.stale(), is_stale: true, ..self }
    }

    /// How soon a server is left that does not answer any more, or has lost its cluster (default 2 s).
    #[must_use]
    pub fn notice_within(self, span: Duration) -> Self {
        Self { notice_within: span, ..self }
    }

    /// Begins to follow.
    ///
    /// # Errors
    /// [`Error::ShutDown`]: the client was shut down.
    pub fn start(self) -> Result<Follow, Error> {
        self.client.require_running()?;
        let (sender, events) = mpsc::channel(EVENTS_AHEAD);
        let token = self.client.token().child_token();
        let end = token.clone().drop_guard();
        let client = self.client.clone();
        let listing = self.since.is_none().then(Listing::default);
        let reader = Reader { since: self.since, source: self, listing, sender };
        client.spawn(reader.run(token));
        Ok(Follow { events, _end: end })
    }
}

/// What a [`Follow`] yields.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// All instances, in the order of service, node and id: at the beginning, and after a gap or a restored backup.
    Snapshot {
        /// All records up to this one are in it.
        seq: u64,
        /// The instances that were asked for.
        instances: Vec<Instance>,
    },
    /// A record of the history, with the instance that it is about.
    Change(Box<StreamChange>),
    /// Everything up to this record was looked at: what to keep for [`FollowBuilder::since`] while nothing happens.
    Mark(u64),
    /// Records were lost, because the reader was away for too long; a snapshot follows.
    Gap(StreamGap),
    /// A backup was restored; a snapshot follows.
    Restored,
    /// Who leads; `None` while nobody does.
    Leader(Option<String>),
}

/// Every change, exactly once and in order, through whatever server. It ends when it is dropped, or with its client.
///
/// ```no_run
/// # async fn example(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
/// use futures_util::StreamExt as _;
/// use quorate_client::Event;
///
/// let mut changes = client.follow().service("web").prefix("config/").start()?;
/// while let Some(event) = changes.next().await {
///     match event? {
///         Event::Snapshot { instances, .. } => println!("{} instances", instances.len()),
///         Event::Change(change) => println!("{} {}", change.event.kind, change.event.id),
///         Event::Mark(_) | Event::Gap(_) | Event::Restored | Event::Leader(_) => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// It ends after an error, which is a refusal: a wrong query. Everything else it outlives. A reader that is slow holds back
/// its own connection and loses nothing, as long as the history keeps what it has not read; otherwise there is a
/// [`Gap`](Event::Gap).
#[derive(Debug)]
pub struct Follow {
    events: mpsc::Receiver<Result<Event, Error>>,
    _end: DropGuard,
}

impl Follow {
    /// The next event; `None`: it has ended.
    pub async fn next_event(&mut self) -> Option<Result<Event, Error>> {
        self.events.recv().await
    }
}

impl Stream for Follow {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_recv(context)
    }
}

/// Why a connection is left.
enum Left {
    /// The reader has gone, or there is nothing to go on with.
    ForGood,
    /// The next server is to be asked, after a pause.
    For(Duration),
}

/// What reads.
struct Reader {
    source: FollowBuilder,
    /// The last record that was handed on.
    since: Option<u64>,
    /// The list that is coming.
    listing: Option<Listing>,
    sender: mpsc::Sender<Result<Event, Error>>,
}

impl Reader {
    async fn run(mut self, token: CancellationToken) {
        let _ = token.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&mut self) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        let client = self.source.client.clone();
        while let Some(node) = client.transport().best() {
            let query = match (&self.listing, self.since) {
                (None, Some(since)) => self.source.query.clone().with("since", since.to_string()),
                (Some(_), _) | (None, None) => self.source.query.clone(),
            };
            let pause = match client.transport().open_at(&node, &stream_call(&query)).await {
                Ok(response) => {
                    backoff.reset();
                    self.listing = self.listing.as_ref().map(|_| Listing::default());
                    let events = Events::new(response, node.http().base(), SILENCE_MAX);
                    match self.read(&node, EventStream(events)).await {
                        Left::ForGood => return,
                        Left::For(pause) => pause,
                    }
                }
                Err(NotOpened::Refused(error)) => {
                    let _ = self.sender.send(Err(error)).await;
                    return;
                }
                Err(NotOpened::Unavailable(_)) => backoff.pause(),
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Reads one connection until it is to be left.
    async fn read(&mut self, node: &Node, mut stream: EventStream) -> Left {
        let lost = lost(node, self.source.notice_within);
        tokio::pin!(lost);
        loop {
            let frame = tokio::select! {
                frame = stream.next() => frame,
                () = &mut lost, if !self.source.is_stale => return Left::For(Duration::ZERO),
            };
            let frame = match frame {
                Ok(Some(Frame::Moved(moved))) => {
                    self.source.client.transport().learn(&moved.servers);
                    node.refused(STOPS_FOR);
                    return Left::For(Duration::from_millis(moved.retry_ms));
                }
                Ok(Some(frame)) => frame,
                Ok(None) => return Left::For(Duration::ZERO),
                Err(error) => {
                    tracing::debug!(error = error.with_causes(), "a stream broke");
                    node.failed();
                    return Left::For(Duration::ZERO);
                }
            };
            if let Err(left) = self.take(frame).await {
                return left;
            }
        }
    }

    async fn take(&mut self, frame: Frame) -> Result<(), Left> {
        match frame {
            Frame::Snapshot(page) => {
                let listing = self.listing.get_or_insert_default();
                let Some(Listed { seq, instances, held }) = listing.page(page) else {
                    return Ok(());
                };
                self.listing = None;
                self.since = Some(seq);
                self.hand_on(Event::Snapshot { seq, instances }).await?;
                for change in held {
                    self.hand_on(Event::Change(Box::new(change))).await?;
                }
                Ok(())
            }
            Frame::Change(change) => match &mut self.listing {
                Some(listing) => {
                    listing.change(*change).map_err(|Incomplete| Left::For(Duration::ZERO))
                }
                None if Some(change.event.seq) <= self.since => Ok(()),
                None => {
                    self.since = Some(change.event.seq);
                    self.hand_on(Event::Change(change)).await
                }
            },
            Frame::Mark(seq) => {
                self.since = self.since.max(Some(seq));
                self.hand_on(Event::Mark(seq)).await
            }
            Frame::Gap(gap) => {
                self.listing = Some(Listing::default());
                self.hand_on(Event::Gap(gap)).await
            }
            Frame::Restored => {
                self.listing = Some(Listing::default());
                self.hand_on(Event::Restored).await
            }
            Frame::Leader(leader) => self.hand_on(Event::Leader(leader)).await,
            Frame::Moved(_) | Frame::Other(_) => Ok(()),
        }
    }

    /// Waits until the reader has room. What is handed on counts as seen.
    async fn hand_on(&self, event: Event) -> Result<(), Left> {
        self.sender.send(Ok(event)).await.map_err(|_| Left::ForGood)
    }
}
