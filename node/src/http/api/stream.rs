//! `GET /v1/quorate/stream`: list, then follow, and resume anywhere.
//!
//! A stream is a [`Cursor`]: it reads on when it is woken, or when its client has read what was sent. The body
//! is asked for more only when the socket has room, so a reader that does not read costs what lies in its
//! socket.

use std::fmt::Write as _;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::ops::RangeInclusive;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use bytes::Bytes;
use futures_util::stream;
use quorate_client::duration;
use quorate_client::types::live::{StreamLeader, StreamMoved};
use quorate_storage::state::HISTORY_LEVEL;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::history::narrowed;
use crate::host::resources::BUDGET;
use crate::http::blocking;
use crate::http::call::Call;
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::heavy;
use crate::http::reply::Reply;
use crate::http::rights::{RightsWatch, Rule};
use crate::live::beats::{self, INSTANCES_MAX, News};
use crate::live::cursor::{Cursor, Frame};
use crate::live::feed::Reader;
use crate::live::filter::{By, Filter};
use crate::node::{Consistency, Node};

/// Of the connections that clients may have, streams take at most this part, in percent.
const STREAMS_PERCENT_MAX: usize = 70;
/// How often a stream says up to where everything was looked at.
const MARK_EVERY: Duration = Duration::from_secs(5);
/// How often a stream may send heartbeats.
const BEATS_EVERY: RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_secs(60);
/// A stream that has sent something rests for so long, times the number of streams that are open. So changes go to
/// one stream at once, and to 2,000 streams ten times a second each, with more changes at a time. Without a rest,
/// busy keys with many readers would take all processors.
const REST_PER_STREAM: Duration = Duration::from_micros(50);
/// Readers of a server that stops go elsewhere within this time, not all at once.
const MOVE_WITHIN: Duration = Duration::from_secs(2);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
pub(super) const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

static STREAMS_MAX: LazyLock<usize> = LazyLock::new(|| BUDGET.clients * STREAMS_PERCENT_MAX / 100);
static STREAMS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(*STREAMS_MAX)));

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint::new("/v1/quorate/stream").get(Rule::Rows, |call| Box::pin(open(call)))]
}

async fn open(call: Call) -> Answer {
    call.check_datacenter()?;
    let options = call.read_options()?;
    let filter = filter(&call)?;
    let beats_every = beats_every(&call)?;
    let since = since(&call)?;
    let place = place()?;
    // Before the barrier, so that nothing is missed.
    let reader = call.node.feed().subscribe(filter.clone());
    // A resumed stream may be ahead of what this server has applied: that is no gap, also for a stale reader.
    let last_seq = call.node.published().state.history().last_seq();
    if since.is_some_and(|since| since > last_seq) {
        drop(call.node.read(Consistency::Linearizable).await?);
    } else {
        drop(blocking::at_barrier(&call.node, &options).await?);
    }
    if call.node.published().state.level() < HISTORY_LEVEL {
        let text = "nothing is recorded yet: not all servers know the rules of the history, try again later";
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text));
    }
    let beats = beats_every.filter(|_| filter.has_instances());
    if beats.is_some() && beats::matching(&call.node.published().state, &filter) > INSTANCES_MAX {
        let text = format!(
            "beats: a stream sends heartbeats of at most {INSTANCES_MAX} instances, and this one has more"
        );
        return Err(ApiError::bad_request(text));
    }
    let rights = call.watch_rights(&call.node.published())?;
    // What it was not woken for is still to be looked at.
    reader.again();
    let now = Instant::now();
    let stream = Stream {
        beats: beats.map(|every| {
            let mut reader = call.node.beats().subscribe(every, filter.clone());
            reader.be_seen_by(rights.rights().cloned());
            reader
        }),
        cursor: Cursor::new(filter, since).seen_by(rights.rights().cloned()),
        node: Arc::clone(&call.node),
        reader,
        leader: call.node.known_leader(),
        told_leader: false,
        next_mark: now + MARK_EVERY,
        rests_until: now,
        ended: false,
        rights,
        _place: place,
    };
    let pieces = stream::unfold(stream, |mut stream| async move {
        let rights = stream.rights.clone();
        // What is being sent was seen with the rights of the stream; with others it begins anew.
        let piece = tokio::select! {
            biased;
            () = rights.changed() => None,
            piece = stream.next() => piece,
        }?;
        Some((Ok::<Bytes, std::convert::Infallible>(piece), stream))
    });
    Ok(Reply::stream(Body::from_stream(pieces), EVENT_STREAM)
        .with(CACHE_CONTROL, HeaderValue::from_static("no-store")))
}

/// Room for one more stream, of whatever endpoint.
///
/// # Errors
/// 503: there is none.
pub(super) fn place() -> Result<OwnedSemaphorePermit, ApiError> {
    Arc::clone(&STREAMS).try_acquire_owned().map_err(|_| {
        let text = "this server has as many streams as it has room for, try again later or at another server";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text)
    })
}

fn filter(call: &Call) -> Result<Filter, ApiError> {
    let parameters = [("service", By::Service), ("prefix", By::Prefix), ("kind", By::Kind)];
    narrowed(call, Filter::of_stream(), &parameters, "services, prefixes and kinds in one stream")
}

/// How often it sends heartbeats, if it does.
fn beats_every(call: &Call) -> Result<Option<Duration>, ApiError> {
    let Some(text) = call.params.filled("beats") else { return Ok(None) };
    let nanos = duration::parse(text).ok().and_then(|nanos| u64::try_from(nanos).ok());
    let every = nanos.map(Duration::from_nanos).filter(|every| BEATS_EVERY.contains(every));
    let refused = || ApiError::bad_request(format!("Invalid beats {text:?}: 500ms to 60s"));
    every.map(Some).ok_or_else(refused)
}

/// Behind which record it goes on: the header, which browsers send when they connect again, comes first.
fn since(call: &Call) -> Result<Option<u64>, ApiError> {
    let header = call.header(&LAST_EVENT_ID).filter(|text| !text.is_empty());
    let Some(text) = header.or_else(|| call.params.filled("since")) else { return Ok(None) };
    let seq = text.parse().map_err(|_| {
        ApiError::bad_request(format!("Invalid since: {text:?} is not the id of a record"))
    })?;
    Ok(Some(seq))
}

/// One reader's stream.
struct Stream {
    cursor: Cursor,
    node: Arc<Node>,
    reader: Reader,
    beats: Option<beats::Reader>,
    leader: watch::Receiver<Option<Arc<str>>>,
    /// Whether it has said who leads at all.
    told_leader: bool,
    next_mark: Instant,
    rests_until: Instant,
    ended: bool,
    /// With other rights it is over.
    rights: RightsWatch,
    _place: OwnedSemaphorePermit,
}

impl Stream {
    /// What is to be sent next; `None`: it is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.ended {
                return None;
            }
            if self.node.stopping().has_begun() {
                self.ended = true;
                return Some(self.moved());
            }
            let mut out = String::new();
            self.tell_leader(&mut out);
            if self.cursor.is_listing() {
                heavy::page(|| self.look(&mut out)).await;
            } else if Instant::now() >= self.rests_until {
                self.look(&mut out);
                if !out.is_empty() {
                    self.rests_until = Instant::now() + rest();
                }
            }
            self.tell_beats(&mut out);
            if Instant::now() >= self.next_mark {
                self.mark(&mut out);
            }
            if !out.is_empty() {
                return Some(out.into());
            }
            if self.ended {
                return None;
            }
            let rests = self.rests_until > Instant::now();
            let has_beats = self.beats.is_some() && self.cursor.follows();
            tokio::select! {
                () = tokio::time::sleep_until(self.rests_until), if rests => {}
                () = self.reader.woken(), if !rests => {}
                () = looked(&mut self.beats), if has_beats => {}
                // The node keeps the other end.
                _ = self.leader.changed() => self.told_leader = false,
                () = tokio::time::sleep_until(self.next_mark) => {}
                () = self.node.stopping().begun() => {}
            }
        }
    }

    /// Takes a step, unless it is known that there is nothing.
    fn look(&mut self, out: &mut String) {
        if self.cursor.follows() {
            match self.reader.quiet_through() {
                Some(looked) if looked >= self.cursor.seq() && looked > 0 => {
                    return self.cursor.skip_to(looked);
                }
                // It is ahead of what was looked at: the barrier is passed, so that is a gap.
                Some(_) | None => {}
            }
        }
        let published = self.node.published();
        // A reader that begins anew before the list is complete needs the whole list.
        let has_place = self.cursor.follows();
        let (frames, is_more) = self.cursor.step(&published);
        if is_more {
            self.reader.again();
        }
        for next in frames {
            match next {
                Frame::Snapshot(page) => {
                    frame(out, "snapshot", page.complete.then_some(page.seq), &page)
                }
                Frame::Change(change) => {
                    frame(out, "change", has_place.then_some(change.event.seq), &change);
                }
                Frame::Gap(gap) => frame(out, "gap", None, &gap),
                // Without an id: a reader that is cut off before its list is complete needs that list.
                Frame::Restored(_) => frame(out, "restored", None, &serde_json::json!({})),
            }
        }
    }

    /// Sends heartbeats, if there was a look; its list comes first. When there are too many by now, it ends: its
    /// client is told so when it comes back.
    fn tell_beats(&mut self, out: &mut String) {
        let Some(beats) = self.beats.as_mut().filter(|_| self.cursor.follows()) else { return };
        match beats.take(&self.node.published().state) {
            News::None => {}
            News::Beats(data) => frame_of(out, "beats", None, &data),
            News::TooMany => self.ended = true,
        }
    }

    /// Says up to where everything was looked at, so that a quiet filter keeps its place.
    fn mark(&mut self, out: &mut String) {
        self.next_mark = Instant::now() + MARK_EVERY;
        if self.cursor.follows() {
            frame(out, "mark", Some(self.cursor.seq()), &serde_json::json!({}));
        }
    }

    fn tell_leader(&mut self, out: &mut String) {
        if std::mem::replace(&mut self.told_leader, true) {
            return;
        }
        let leader = self.leader.borrow_and_update().as_deref().map(str::to_owned);
        frame(out, "leader", None, &StreamLeader { leader });
    }

    fn moved(&self) -> Bytes {
        let random = RandomState::new().build_hasher().finish();
        let within = u64::try_from(MOVE_WITHIN.as_millis()).unwrap_or(u64::MAX);
        let mut out = String::new();
        frame(&mut out, "moved", None, &moved(&self.node, random % within));
        out.into()
    }
}

/// Where readers of this server can go.
pub(super) fn moved(node: &Node, retry_ms: u64) -> StreamMoved {
    let published = node.published();
    let own = node.id();
    let others = published.membership.nodes().filter(|(id, _)| **id != own);
    let servers = others.map(|(_, peer)| format!("http://{}", peer.http_addr)).collect();
    StreamMoved { servers, retry_ms }
}

/// How long a stream rests that has sent something.
fn rest() -> Duration {
    let open = STREAMS_MAX.saturating_sub(STREAMS.available_permits());
    REST_PER_STREAM * u32::try_from(open).unwrap_or(u32::MAX)
}

/// Resolves when there was a look at heartbeats.
async fn looked(beats: &mut Option<beats::Reader>) {
    match beats {
        Some(beats) => beats.looked().await,
        None => std::future::pending().await,
    }
}

/// Writes a frame; with an id where a reader can go on from.
pub(super) fn frame(out: &mut String, name: &str, id: Option<u64>, data: &impl Serialize) {
    frame_of(out, name, id, &serde_json::to_string(data).unwrap_or_default());
}

/// The same of data that is JSON already.
fn frame_of(out: &mut String, name: &str, id: Option<u64>, data: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "event: {name}");
    if let Some(id) = id {
        let _ = writeln!(out, "id: {id}");
    }
    let _ = write!(out, "data: {data}\n\n");
}
