//! How much memory clients' bodies and the answers to them take together.
//!
//! Each request is bounded by itself, but there may be thousands. Two budgets bound their sum:
//!
//! * *bodies that are being received*: a client can send half of one and wait. Beyond the budget a body is
//!   refused with 503, and a client that is slow for too long gets 408;
//! * *long answers that are being sent*: a client can ask for one and not read it. Beyond the budget no
//!   further long answer is rendered until others have been read; after a while that is a 503. A
//!   connection on which nothing can be written for a while is closed ([`WRITE_TIMEOUT`]), and an answer of
//!   which nothing is taken for as long is given up ([`sending`](super::sending)).
//!
//! Small bodies and answers are not counted: the number of connections bounds them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::error::ApiError;
use crate::host::memory::{Memory, NoRoom, Share};

/// Bodies that are being received, in bytes.
const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How long a body may take to arrive.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(120);

/// Long answers that are being sent, in bytes.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Shorter answers are not counted.
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

static BODIES: Memory = Memory::new(BODY_BYTES_MAX);
static ANSWERS: Answers = Answers::new(ANSWER_BYTES_MAX);

/// What a body that is being received takes of the budget.
#[derive(Debug)]
pub(super) struct BodyShare(Share<'static>);

impl BodyShare {
    /// A share of a body that has not begun to arrive.
    pub(super) const fn new() -> Self {
        Self(BODIES.share())
    }

    /// Takes what a body of so many bytes needs.
    ///
    /// # Errors
    /// 503: there is no room.
    pub(super) fn grow_to(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.0.grow_to(bytes).map_err(|NoRoom| {
            busy("this server is receiving as many request bodies as it has room for")
        })
    }
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
    ANSWERS.room(deadline).await?;
    Ok(turn)
}

/// Waits for a turn alone: the answer is in memory already, so it needs no room.
///
/// # Errors
/// 503: no turn came in time.
pub(super) async fn turn(turns: &'static Semaphore) -> Result<SemaphorePermit<'static>, ApiError> {
    turn_until(turns, patience()).await
}

async fn turn_until(
    turns: &'static Semaphore,
    deadline: Instant,
) -> Result<SemaphorePermit<'static>, ApiError> {
    let turn = timeout_at(deadline, turns.acquire()).await.map_err(|_| too_many_answers())?;
    turn.map_err(|_| too_many_answers())
}

pub(super) fn too_many_answers() -> ApiError {
    busy("this server is sending as many long answers as it has room for")
}

/// Whether an answer of so many bytes is counted.
pub(super) const fn is_counted(bytes: usize) -> bool {
    bytes >= ANSWER_BYTES_COUNTED
}

/// Counts an answer, unless it is a short one, while anybody holds it or a part of it.
pub(super) fn count(answer: Bytes) -> Bytes {
    if is_counted(answer.len()) { ANSWERS.count(answer) } else { answer }
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
    max: usize,
}

impl Answers {
    pub(super) const fn new(max: usize) -> Self {
        Self { bytes: AtomicUsize::new(0), max }
    }

    pub(super) fn count(&'static self, answer: Bytes) -> Bytes {
        self.bytes.fetch_add(answer.len(), Ordering::Relaxed);
        Bytes::from_owner(Counted { bytes: answer, answers: self })
    }

    pub(super) async fn room(&self, deadline: Instant) -> Result<(), ApiError> {
        while self.bytes.load(Ordering::Relaxed) >= self.max {
            let pause = timeout_at(deadline, tokio::time::sleep(ANSWER_LOOK));
            pause.await.map_err(|_| too_many_answers())?;
        }
        Ok(())
    }
}

/// The bytes of an answer, counted while anybody holds them.
struct Counted {
    bytes: Bytes,
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_for_which_there_is_no_room_is_refused_with_503() {
        let mut all = BodyShare::new();
        all.grow_to(BODY_BYTES_MAX).unwrap();
        let mut late = BodyShare::new();
        let refused = late.grow_to(BODY_BYTES_MAX / 2).unwrap_err();
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        drop(all);
        late.grow_to(BODY_BYTES_MAX / 2).unwrap();
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
        let unread = ANSWERS.count(Bytes::from_static(&[0; 100]));
        let part = unread.slice(10..20);
        drop(unread);
        let refused = ANSWERS.room(Instant::now() + ANSWER_PATIENCE).await.unwrap_err();
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        drop(part);
        ANSWERS.room(Instant::now()).await.unwrap();
    }
}
