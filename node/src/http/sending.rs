//! A long answer on its way to its client.
//!
//! It is counted ([`budget`](super::budget)) until it was written or its client has gone. A client of HTTP/2 decides
//! itself how much it takes of each answer, so its connection can be alive while nothing of an answer is ever
//! taken. Such an answer is given up after [`WRITE_TIMEOUT`], and so is one that is taken too slowly (`--http-min-rate`):
//! its memory is free again, and its client gets an error.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::Version;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;

use super::budget::{self, WRITE_TIMEOUT};
use super::coalesce::Coalesced;
use super::limits;
use crate::host::supervise::contained;

/// An answer is handed over in pieces of this many bytes. A piece that is not taken is all that is kept of an answer
/// that was given up, unless others are sent the same.
const PIECE_BYTES: usize = 64 * 1024;

/// The same response; a long one, and each over HTTP/2, is counted until it was written or its client has gone. `version`
/// is that of the request.
pub(super) async fn counted(response: Response, version: Version) -> Response {
    let length = response.body().size_hint().exact().and_then(|exact| usize::try_from(exact).ok());
    let is_one_of_many = version >= Version::HTTP_2;
    let is_uncounted = |length| length == 0 || !(is_one_of_many || budget::is_counted(length));
    if length.is_none_or(is_uncounted) {
        return response;
    }
    let is_short = length.is_some_and(|length| !budget::is_counted(length));
    if is_short && !budget::has_room() {
        return budget::too_many_answers().into_response();
    }
    let (parts, content) = response.into_parts();
    // It is counted already, once for all who are sent it.
    let common = parts.extensions.get::<Coalesced>().cloned();
    // A connection of HTTP/1 that takes nothing is closed, and lets go of its pieces.
    let is_kept = common.is_some() && !is_one_of_many;
    let handing = if is_kept { Handing::Parts } else { Handing::Copies };
    match budget::in_memory(content).await {
        Ok(bytes) => {
            let bytes = if common.is_some() { bytes } else { budget::count_own(bytes) };
            Response::from_parts(parts, body(bytes, handing, common))
        }
        Err(failed) => failed,
    }
}

/// A body that gives up when nobody takes it.
fn body(bytes: Bytes, handing: Handing, common: Option<Coalesced>) -> Body {
    let began = Instant::now();
    let rest = Rest { bytes: Some(bytes), handing, from: 0, began, moved: began, common };
    let rest = Arc::new(Mutex::new(rest));
    drop(contained("watching an answer", watch(Arc::downgrade(&rest))));
    Body::new(Sending(rest))
}

/// What an answer is handed over as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handing {
    /// Copies: a part of the whole would keep the whole.
    Copies,
    /// Parts of the whole, which others keep anyway.
    Parts,
}

/// What is left of an answer.
struct Rest {
    /// All of it; `None`: it was sent or given up.
    bytes: Option<Bytes>,
    handing: Handing,
    /// Where the next piece begins.
    from: usize,
    /// When it was begun.
    began: Instant,
    /// When a piece was last taken.
    moved: Instant,
    /// Others are given the same answer while this one is being sent.
    common: Option<Coalesced>,
}

impl Rest {
    /// It was sent, or given up.
    fn release(&mut self) {
        (self.bytes, self.common) = (None, None);
    }

    /// When it is given up, unless more is taken until then.
    fn due(&self) -> Instant {
        let at_this_rate = self.began + limits::get().time_for(self.from);
        self.moved.min(at_this_rate) + WRITE_TIMEOUT
    }

    fn left(&self) -> usize {
        self.bytes.as_ref().map_or(0, |bytes| bytes.len().saturating_sub(self.from))
    }
}

struct Sending(Arc<Mutex<Rest>>);

fn locked(rest: &Mutex<Rest>) -> MutexGuard<'_, Rest> {
    rest.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives an answer up once nothing was taken of it for too long, or too little.
async fn watch(answer: Weak<Mutex<Rest>>) -> Result<(), Infallible> {
    while let Some(rest) = answer.upgrade() {
        let due = locked(&rest).due();
        if due <= Instant::now() {
            locked(&rest).release();
            break;
        }
        drop(rest);
        tokio::time::sleep_until(due).await;
    }
    Ok(())
}

impl hyper::body::Body for Sending {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let mut rest = locked(&self.0);
        let from = rest.from;
        let Some(bytes) = &rest.bytes else {
            let given_up = || io::Error::new(io::ErrorKind::TimedOut, "nobody took the answer");
            return Poll::Ready((from != usize::MAX).then(|| Err(given_up())));
        };
        let end = bytes.len().min(from + PIECE_BYTES);
        let piece = match rest.handing {
            Handing::Copies => Bytes::copy_from_slice(&bytes[from..end]),
            Handing::Parts => bytes.slice(from..end),
        };
        if end == bytes.len() {
            rest.release();
            rest.from = usize::MAX;
        } else {
            rest.from = end;
        }
        rest.moved = Instant::now();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        let rest = locked(&self.0);
        rest.bytes.is_none() && rest.from == usize::MAX
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(locked(&self.0).left() as u64)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::http::budget::Answers;

    const LENGTH: usize = 3 * PIECE_BYTES + 7;

    fn long() -> Bytes {
        (0..=u8::MAX).cycle().take(LENGTH).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_taken_arrives_whole_and_takes_no_room_afterwards() {
        static ANSWERS: Answers = Answers::new(1);
        let mut sending = body(ANSWERS.count(long(), None), Handing::Copies, None);
        assert_eq!(sending.size_hint().exact(), Some(LENGTH as u64));
        let mut taken = Vec::new();
        while let Some(frame) = sending.frame().await {
            taken.extend_from_slice(&frame.unwrap().into_data().unwrap());
            // Slow, but it goes on.
            tokio::time::sleep(limits::get().time_for(PIECE_BYTES)).await;
        }
        assert_eq!(taken, long());
        ANSWERS.room(None, Instant::now()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_taken_too_slowly_is_given_up() {
        static ANSWERS: Answers = Answers::new(1);
        let bytes: Bytes = std::iter::repeat_n(7, 100 * PIECE_BYTES).collect();
        let mut sending = body(ANSWERS.count(bytes, None), Handing::Copies, None);
        let mut pieces = 0;
        while let Some(Ok(_)) = sending.frame().await {
            pieces += 1;
            tokio::time::sleep(WRITE_TIMEOUT * 9 / 10).await;
        }
        assert!((2..10).contains(&pieces), "{pieces} were taken");
        ANSWERS.room(None, Instant::now()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_of_which_nothing_is_taken_is_given_up() {
        static ANSWERS: Answers = Answers::new(1);
        let mut sending = body(ANSWERS.count(long(), None), Handing::Copies, None);
        let piece = sending.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(ANSWERS.room(None, Instant::now()).await.is_err());
        tokio::time::sleep(WRITE_TIMEOUT + WRITE_TIMEOUT / 10).await;
        ANSWERS.room(None, Instant::now()).await.unwrap();
        assert_eq!(piece.len(), PIECE_BYTES);
        assert!(
            sending.frame().await.unwrap().is_err(),
            "the client must not take it for complete"
        );
    }
}
