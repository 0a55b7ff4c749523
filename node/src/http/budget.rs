//! How much memory clients' bodies and the answers to them take together.
//!
//! Each request is bounded by itself, but there may be thousands. Two budgets bound their sum, and one address gets
//! at most half of each:
//!
//! * *bodies that are being received*: a client can send half of one and wait. Beyond the budget a body is
//!   refused with 503, and a client that sends too slowly gets 408;
//! * *long answers that are being sent*: a client can ask for one and not read it. Beyond the budget no
//!   further long answer is rendered until others have been read; after a while that is a 503. A
//!   connection on which nothing can be written for a while is closed ([`WRITE_TIMEOUT`]), and an answer of
//!   which nothing is taken for as long, or too little, is given up ([`sending`](super::sending)).
//!
//! Small bodies are not counted, and neither are small answers over HTTP/1: the number of connections bounds them. A
//! connection of HTTP/2 has many answers, and its client decides when it takes each, so there all are counted.

use std::net::IpAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::client;
use super::error::ApiError;
use super::incoming::Pace;
use super::limits;
use crate::host::by_client::ByClient;
use crate::host::memory::{Memory, NoRoom, SMALL_BYTES, Share};

/// Over this time the rate of a body is measured.
const BODY_SPAN: Duration = Duration::from_secs(10);

/// Shorter answers over HTTP/1 are not counted.
const ANSWER_BYTES_COUNTED: usize = 64 * 1024;
/// How long a long answer may wait until it is its turn and there is room for it.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// How long the answer to a query that has waited for a change may wait, if the query itself may last as
/// long: one change can wake thousands.
const QUERY_PATIENCE: Duration = Duration::from_secs(60);
/// How often a waiting answer looks whether there is.
const ANSWER_LOOK: Duration = Duration::from_millis(20);

/// A connection on which nothing could be written for this long is closed: its client does not read.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

static BODIES: LazyLock<Memory> = LazyLock::new(|| Memory::new(limits::get().memory_bytes));
static BODIES_OF: ByClient = ByClient::new();
static ANSWERS: LazyLock<Answers> = LazyLock::new(|| Answers::new(limits::get().memory_bytes));

/// What a body that is being received takes of the budget.
#[derive(Debug)]
pub(super) struct BodyShare {
    share: Share<'static>,
    client: Option<IpAddr>,
    /// What it takes of the client's part.
    taken: usize,
}

impl BodyShare {
    /// A share of a body that has not begun to arrive.
    pub(super) fn new() -> Self {
        Self { share: BODIES.share(), client: client::current(), taken: 0 }
    }

    /// Takes what a body of so many bytes needs.
    ///
    /// # Errors
    /// 503: there is no room.
    pub(super) fn grow_to(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.grow_part_to(bytes.saturating_sub(SMALL_BYTES))?;
        self.share.grow_to(bytes).map_err(|NoRoom| {
            busy("this server is receiving as many request bodies as it has room for (--http-memory)")
        })
    }

    fn grow_part_to(&mut self, bytes: usize) -> Result<(), ApiError> {
        let (Some(client), more) = (self.client, bytes.saturating_sub(self.taken)) else {
            return Ok(());
        };
        if !BODIES_OF.add_up_to(client, more, limits::get().memory_of_one()) {
            return Err(busy(
                "this server is receiving as many request bodies from your address as it has room for (half of \
                 --http-memory)",
            ));
        }
        self.taken += more;
        Ok(())
    }
}

impl Drop for BodyShare {
    fn drop(&mut self) {
        if let Some(client) = self.client {
            BODIES_OF.take_back(client, self.taken);
        }
    }
}

/// How fast a body has to come.
pub(super) fn pace_of_bodies() -> Pace {
    let seconds = usize::try_from(BODY_SPAN.as_secs()).unwrap_or(usize::MAX);
    Pace { bytes: limits::get().bytes_per_second_min.saturating_mul(seconds), span: BODY_SPAN }
}

/// Until when a long answer may wait for its turn.
pub(super) fn patience() -> Instant {
    Instant::now() + ANSWER_PATIENCE
}

/// The same for the answer to a query that would have waited for a change until `wait_end`.
pub(super) fn patience_of_query(wait_end: Instant) -> Instant {
    patience().max(wait_end.min(Instant::now() + QUERY_PATIENCE))
}

/// Waits for a turn to render a long answer, and until there is room for it.
///
/// # Errors
/// 503: others are not read.
pub(super) async fn turn_for_an_answer(
    turns: &'static Semaphore,
    deadline: Instant,
) -> Result<SemaphorePermit<'static>, ApiError> {
    let turn = turn_until(turns, deadline).await?;
    // With the turn, so that those that wait for room do not all begin when there is some.
    ANSWERS.room(client::current(), deadline).await?;
    Ok(turn)
}

/// Waits for a turn alone: the answer is in memory already, so it needs no room.
///
/// # Errors
/// 503: no turn came in time.
pub(super) async fn turn(turns: &'static Semaphore) -> Result<SemaphorePermit<'static>, ApiError> {
    turn_until(turns, patience()).await
}

/// The same until `deadline`.
///
/// # Errors
/// 503: no turn came in time.
pub(super) async fn turn_until(
    turns: &'static Semaphore,
    deadline: Instant,
) -> Result<SemaphorePermit<'static>, ApiError> {
    let turn = timeout_at(deadline, turns.acquire()).await.map_err(|_| too_many_answers())?;
    turn.map_err(|_| too_many_answers())
}

pub(super) fn too_many_answers() -> ApiError {
    busy(
        "this server is sending as many long answers, or as many to your address, as it has room for (--http-memory, \
         --http-long-answers)",
    )
}

/// Whether an answer of so many bytes is counted.
pub(super) const fn is_counted(bytes: usize) -> bool {
    bytes >= ANSWER_BYTES_COUNTED
}

/// Counts an answer to several clients, unless it is a short one, while anybody holds it or a part of it.
pub(super) fn count(answer: Bytes) -> Bytes {
    if is_counted(answer.len()) { ANSWERS.count(answer, None) } else { answer }
}

/// Counts the answer to one client, however short.
pub(super) fn count_own(answer: Bytes) -> Bytes {
    ANSWERS.count(answer, client::current())
}

/// Whether there is room for an answer to this client at once.
pub(super) fn has_room() -> bool {
    ANSWERS.has_room(client::current())
}

/// The bytes of a body whose length is known: it is in memory already, so nothing is waited for.
///
/// # Errors
/// The response to send instead, a 500: the body ended early.
pub(super) async fn in_memory(body: Body) -> Result<Bytes, Response> {
    match body.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => {
            tracing::warn!(%error, "an answer could not be read");
            let mut failed = Response::new(Body::empty());
            *failed.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            Err(failed)
        }
    }
}

fn busy(what: &str) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, format!("{what}, try again later"))
}

/// Answers that are being sent.
#[derive(Debug)]
pub(super) struct Answers {
    bytes: AtomicUsize,
    of: ByClient,
    max: usize,
}

impl Answers {
    pub(super) const fn new(max: usize) -> Self {
        Self { bytes: AtomicUsize::new(0), of: ByClient::new(), max }
    }

    /// `client`: who alone is sent it.
    pub(super) fn count(&'static self, answer: Bytes, client: Option<IpAddr>) -> Bytes {
        self.bytes.fetch_add(answer.len(), Ordering::Relaxed);
        if let Some(client) = client {
            self.of.add(client, answer.len());
        }
        Bytes::from_owner(Counted { bytes: answer, client, answers: self })
    }

    pub(super) fn has_room(&self, client: Option<IpAddr>) -> bool {
        let part = limits::memory_of_one(self.max);
        self.bytes.load(Ordering::Relaxed) < self.max
            && client.is_none_or(|client| self.of.of(client) < part)
    }

    pub(super) async fn room(
        &self,
        client: Option<IpAddr>,
        deadline: Instant,
    ) -> Result<(), ApiError> {
        while !self.has_room(client) {
            let pause = timeout_at(deadline, tokio::time::sleep(ANSWER_LOOK));
            pause.await.map_err(|_| too_many_answers())?;
        }
        Ok(())
    }
}

/// The bytes of an answer, counted while anybody holds them.
struct Counted {
    bytes: Bytes,
    client: Option<IpAddr>,
    answers: &'static Answers,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.answers.bytes.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        if let Some(client) = self.client {
            self.answers.of.take_back(client, self.bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_for_which_there_is_no_room_is_refused_with_503() {
        let max = limits::get().memory_bytes;
        let mut all = BodyShare::new();
        all.grow_to(max).unwrap();
        let mut late = BodyShare::new();
        let refused = late.grow_to(max / 2).unwrap_err();
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        drop(all);
        late.grow_to(max / 4).unwrap();
    }

    #[tokio::test]
    async fn the_bodies_of_one_address_leave_room_for_those_of_others() {
        let part = limits::get().memory_of_one();
        let client = |last| Some(IpAddr::from([192, 0, 2, last]));
        let mut own = client::on_behalf_of(client(1), async { BodyShare::new() }).await;
        own.grow_to(part / 4).unwrap();
        let mut more = client::on_behalf_of(client(1), async { BodyShare::new() }).await;
        let refused = more.grow_to(part).unwrap_err();
        assert!(refused.text.contains("your address"), "{}", refused.text);
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        drop(own);
        assert_eq!(BODIES_OF.of(IpAddr::from([192, 0, 2, 1])), 0);
        let mut other = client::on_behalf_of(client(2), async { BodyShare::new() }).await;
        other.grow_to(part / 4).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_that_reads_nothing_leaves_room_for_answers_to_others() {
        static ANSWERS: Answers = Answers::new(100);
        let [one, other] = [1, 2].map(|last| Some(IpAddr::from([192, 0, 2, last])));
        let unread = ANSWERS.count(Bytes::from_static(&[0; 50]), one);
        assert!(ANSWERS.room(one, Instant::now() + ANSWER_PATIENCE).await.is_err());
        ANSWERS.room(other, Instant::now()).await.unwrap();
        drop(unread);
        ANSWERS.room(one, Instant::now()).await.unwrap();
    }

    #[tokio::test]
    async fn a_body_that_ends_early_is_a_500() {
        let pieces = futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("gone"))]);
        let failed = in_memory(Body::from_stream(pieces)).await.unwrap_err();
        assert_eq!(failed.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_needs_no_room() {
        static TURNS: Semaphore = Semaphore::const_new(1);
        let held = turn(&TURNS).await.unwrap();
        let refused = turn(&TURNS).await.unwrap_err();
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        drop(held);
        let _next = turn(&TURNS).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_to_a_query_waits_as_long_as_the_query_may_last() {
        let now = Instant::now();
        let patience = |wait| patience_of_query(now + Duration::from_secs(wait)) - now;
        assert_eq!(patience(0), ANSWER_PATIENCE);
        assert_eq!(patience(30), Duration::from_secs(30));
        assert_eq!(patience(600), QUERY_PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_answer_waits_until_others_were_read() {
        static ANSWERS: Answers = Answers::new(100);
        let unread = ANSWERS.count(Bytes::from_static(&[0; 100]), None);
        let part = unread.slice(10..20);
        drop(unread);
        let refused = ANSWERS.room(None, Instant::now() + ANSWER_PATIENCE).await.unwrap_err();
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        drop(part);
        ANSWERS.room(None, Instant::now()).await.unwrap();
    }
}
