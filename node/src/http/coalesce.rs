//! One long answer for many queries.
//!
//! Queries that wait for a change of the same long list wake together and ask the same. The first of them
//! has the answer rendered, and compressed; the others wait for that, and all are sent the same bytes. So a
//! thousand of them take the memory and the time of one.
//!
//! An answer is kept only while it is being sent to somebody. A query is given one that was rendered before
//! only if it could have been rendered for it: from a version of the state that is as new as the query's
//! barrier, of the newest index of its topics, and a moment ago ([`AGE_MAX`]).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use quorate_storage::machine::Published;
use quorate_storage::{Index, State};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};

use super::error::ApiError;
use super::reply::Reply;
use super::{budget, heavy};

/// An answer is given to other queries for so long. Some rows have ages, which move no index.
const AGE_MAX: Duration = Duration::from_secs(2);

/// What a query asks, without how long it waits. Equal questions have equal answers from equal states.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Question {
    /// The path of the endpoint.
    pub(super) path: &'static str,
    /// What follows it.
    pub(super) rest: Vec<u8>,
    /// The parameters.
    pub(super) params: Vec<(String, String)>,
    /// Stands for what the caller may see.
    pub(super) rights: Option<(String, u64)>,
}

/// What a query needs of its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    /// How far the log must have been applied, at least.
    pub(super) applied: u64,
    /// Until when it may wait for its turn.
    pub(super) deadline: Instant,
}

/// A version of the state, and the index that it has for a query.
#[derive(Debug, Clone)]
pub(super) struct Look {
    pub(super) published: Arc<Published>,
    pub(super) index: Index,
}

impl Look {
    /// How far the log was applied.
    pub(super) fn applied(published: &Published) -> u64 {
        published.last_applied.as_ref().map_or(0, |applied| applied.index)
    }
}

/// The questions that are being answered; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Coalescer(Arc<Slots>);

/// A std lock: held for a look-up only.
type Slots = Mutex<HashMap<Question, Weak<Slot>>>;

/// A question while somebody waits for its answer, or is sent it.
#[derive(Debug)]
struct Slot {
    slots: Arc<Slots>,
    question: Question,
    /// The newest answer. Whoever has it rendered holds the lock, which is what the others wait for.
    newest: tokio::sync::Mutex<Weak<Inner>>,
}

/// An answer that several queries may be sent; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Coalesced(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    status: StatusCode,
    headers: HeaderMap,
    plain: Bytes,
    /// `None`: it could not be compressed.
    gzip: OnceCell<Option<Bytes>>,
    index: Index,
    applied: u64,
    rendered: Instant,
    /// Finds the answer for those who ask while it is sent.
    _slot: Arc<Slot>,
}

impl Coalescer {
    /// The answer to a question, and its index.
    ///
    /// # Errors
    /// Those of `render`; 503: it was not its turn in time.
    pub(super) async fn answer(
        &self,
        question: Question,
        need: Need,
        look: impl Fn() -> Look,
        render: impl Fn(&State) -> Result<Reply, ApiError>,
    ) -> Result<(Reply, Index), ApiError> {
        let slot = self.slot(question);
        let newest = timeout_at(need.deadline, slot.newest.lock()).await;
        let mut newest = newest.map_err(|_| budget::too_many_answers())?;
        if let Some(answer) = newest.upgrade()
            && answer.is_for(need, look().index)
        {
            return Ok((Coalesced(Arc::clone(&answer)).reply(), answer.index));
        }
        let rendered = heavy::render_long(need.deadline, || {
            // Not before it is its turn: who waits must not keep an old version of the state alive.
            let Look { published, index } = look();
            render(&published.state).map(|reply| (reply, index, Look::applied(&published)))
        });
        let (reply, index, applied) = rendered.await??;
        let (parts, body) = reply.into_response().into_parts();
        let plain = budget::in_memory(body).await;
        let plain = plain.map_err(|_| ApiError::internal("an answer could not be read"))?;
        let answer = Arc::new(Inner {
            status: parts.status,
            headers: parts.headers,
            plain: budget::count(plain),
            gzip: OnceCell::new(),
            index,
            applied,
            rendered: Instant::now(),
            _slot: Arc::clone(&slot),
        });
        *newest = Arc::downgrade(&answer);
        Ok((Coalesced(answer).reply(), index))
    }

    fn slot(&self, question: Question) -> Arc<Slot> {
        let mut slots = locked(&self.0);
        let place = slots.entry(question);
        if let Entry::Occupied(taken) = &place
            && let Some(slot) = taken.get().upgrade()
        {
            return slot;
        }
        let slot = Arc::new(Slot {
            slots: Arc::clone(&self.0),
            question: place.key().clone(),
            newest: tokio::sync::Mutex::default(),
        });
        place.insert_entry(Arc::downgrade(&slot));
        slot
    }
}

fn locked(slots: &Slots) -> MutexGuard<'_, HashMap<Question, Weak<Slot>>> {
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut slots = locked(&self.slots);
        // Somebody may have asked again meanwhile.
        if slots.get(&self.question).is_some_and(|slot| slot.strong_count() == 0) {
            slots.remove(&self.question);
        }
    }
}

impl Inner {
    fn is_for(&self, need: Need, index: Index) -> bool {
        self.index == index && self.applied >= need.applied && self.rendered.elapsed() < AGE_MAX
    }
}

impl Coalesced {
    fn reply(&self) -> Reply {
        let Inner { status, headers, plain, .. } = &*self.0;
        let mut response = Response::new(Body::from(plain.clone()));
        (*response.status_mut(), *response.headers_mut()) = (*status, headers.clone());
        response.extensions_mut().insert(self.clone());
        Reply::of(response)
    }

    /// The answer as `compress` makes it, which is done once.
    pub(super) async fn compressed<F>(&self, compress: impl FnOnce(Bytes) -> F) -> Option<Bytes>
    where
        F: Future<Output = Option<Vec<u8>>>,
    {
        let make = || async {
            compress(self.0.plain.clone()).await.map(|gzip| budget::count(gzip.into()))
        };
        self.0.gzip.get_or_init(make).await.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use axum::http::Version;
    use futures_util::future::join_all;
    use http_body_util::BodyExt as _;
    use hyper::body::Body as _;

    use super::super::sending;
    use super::*;

    fn question(name: &str) -> Question {
        Question {
            path: "/v1/kv/",
            rest: name.as_bytes().to_vec(),
            params: Vec::new(),
            rights: None,
        }
    }

    fn need(applied: u64) -> Need {
        Need { applied, deadline: Instant::now() + Duration::from_secs(1) }
    }

    fn look(index: u64) -> impl Fn() -> Look {
        move || Look { published: Arc::default(), index: Index(index) }
    }

    /// Answers with its own number.
    fn numbered(rendered: &Cell<usize>) -> impl Fn(&State) -> Result<Reply, ApiError> {
        |_| {
            rendered.set(rendered.get() + 1);
            Ok(Reply::text("x".repeat(rendered.get())))
        }
    }

    #[tokio::test]
    async fn others_are_given_an_answer_until_it_was_sent() {
        const LONG: usize = 200 * 1024;
        let (coalescer, rendered) = (Coalescer::default(), Cell::new(0));
        let ask = async || {
            let render = |_: &State| {
                rendered.set(rendered.get() + 1);
                Ok(Reply::text("x".repeat(LONG)))
            };
            let (reply, _) =
                coalescer.answer(question("a"), need(0), look(1), render).await.unwrap();
            // As hyper does: the head is written, and of the response only its body is kept.
            let response = sending::counted(reply.into_response(), Version::HTTP_11).await;
            response.into_body()
        };
        let mut body = ask().await;
        drop(body.frame().await);
        drop(ask().await);
        assert_eq!(rendered.get(), 1);
        assert_eq!(body.collect().await.unwrap().to_bytes().len(), LONG - 64 * 1024);
        drop(ask().await);
        assert_eq!(rendered.get(), 2);
    }

    fn length(reply: Reply) -> u64 {
        reply.into_response().body().size_hint().exact().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_ask_the_same_are_given_one_answer_while_it_is_new() {
        let (coalescer, rendered) = (Coalescer::default(), Cell::new(0));
        let ask = async |name, index| {
            let render = numbered(&rendered);
            coalescer.answer(question(name), need(0), look(index), render).await.unwrap()
        };
        let held = join_all((0..10).map(|_| ask("a", 7))).await;
        assert_eq!(rendered.get(), 1);
        assert!(held.iter().all(|(_, index)| *index == Index(7)));
        ask("b", 7).await;
        assert_eq!(rendered.get(), 2, "another question");
        let (newer, index) = ask("a", 8).await;
        assert_eq!((length(newer), index), (3, Index(8)), "it has changed");
        let again = ask("a", 8).await;
        assert_eq!(rendered.get(), 4, "nobody was sent the answer any more");
        tokio::time::advance(AGE_MAX).await;
        ask("a", 8).await;
        assert_eq!(rendered.get(), 5, "ages in it are old");
        drop((held, again));
        assert!(locked(&coalescer.0).is_empty(), "nothing is kept");
    }

    #[tokio::test]
    async fn an_answer_from_before_a_barrier_is_not_given() {
        let (coalescer, rendered) = (Coalescer::default(), Cell::new(0));
        let ask = async |applied| {
            let render = numbered(&rendered);
            coalescer.answer(question("a"), need(applied), look(7), render).await.unwrap()
        };
        let _held = ask(0).await;
        let _other = ask(0).await;
        assert_eq!(rendered.get(), 1);
        ask(1).await;
        assert_eq!(rendered.get(), 2);
    }

    #[tokio::test]
    async fn an_answer_is_compressed_once() {
        let (coalescer, compressed) = (Coalescer::default(), Cell::new(0));
        let render = |_: &State| Ok(Reply::text("abc"));
        let (reply, _) = coalescer.answer(question("a"), need(0), look(1), render).await.unwrap();
        let response = reply.into_response();
        let answer = response.extensions().get::<Coalesced>().unwrap();
        for _ in 0..3 {
            let gzip = answer.compressed(|plain| async move { Some(plain.to_vec()) });
            assert_eq!(gzip.await.unwrap(), "abc");
        }
        for _ in 0..3 {
            let made = answer.compressed(|_| async {
                compressed.set(compressed.get() + 1);
                None
            });
            assert!(made.await.is_some());
        }
        assert_eq!(compressed.get(), 0);
    }
}
