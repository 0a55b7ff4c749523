//! Reads: the barrier, the wait of a blocking query, and the headers that say how fresh the answer
//! is.
//!
//! A query takes its index and its wake-up from the same topic. It subscribes *before* it looks, so
//! a change between looking and waiting is not lost; woken or timed out, it looks at this node's own
//! state again, which is at least as new as the barrier it began with. So it needs no leader to end.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use futures_util::future::select_all;
use quorate_storage::machine::Published;
use quorate_storage::{Index, State, Topic};
use serde::Serialize;
use tokio::time::Instant;

use super::call::{Asked, Call};
use super::coalesce::{Look, Need};
use super::endpoint::Answer;
use super::error::ApiError;
use super::filter::{Fault, Filter, Record};
use super::params::ReadOptions;
use super::places::{Place, Places};
use super::reply::{CacheUse, Reply};
use super::rights::Sight;
use super::{budget, client, heavy};
use crate::node::{Consistency, Node};
use crate::raft::error::ReadError;
use crate::watch::Subscription;

/// The random time that is added to a wait is at most the wait divided by this.
const JITTER_FRACTION: u32 = 16;

/// How many queries wait for a change at the same time. Descriptors bound connections, but one HTTP/2
/// connection carries thousands of queries; one that waits costs about 30 KiB.
const WAITING_MAX: usize = 32_768;

/// Those of one address.
const WAITING_OF_ONE_MAX: usize = WAITING_MAX / 4 * 3;

static WAITING: Places = Places::new(WAITING_MAX, WAITING_OF_ONE_MAX);

/// With `?cached`, how long a known leader may take to answer before this server's own state does.
const CACHED_PATIENCE: Duration = Duration::from_millis(250);

/// What Consul's agents know by themselves is answered from this server's state once there has been no
/// leader for so long. Elections take less, so that what was acknowledged by another server shows after
/// the loss of a leader as well.
const LEADERLESS_MAX: Duration = Duration::from_secs(2);

/// How often it is looked whether there is a leader while a barrier waits for one.
const LEADER_LOOK: Duration = Duration::from_millis(100);

/// Answers a read: waits for its barrier, then, if it blocks, for its topic, and renders what is
/// there with the topic's index.
///
/// `topic` is asked once, of the state behind the barrier.
pub(super) async fn read<T, R>(call: &Call, options: &ReadOptions, topic: T, render: R) -> Answer
where
    T: FnOnce(&State) -> Topic,
    R: Fn(&State) -> Answer,
{
    read_of_all(call, options, |state| [topic(state)], render).await
}

/// The same for an answer that shows what several topics are about: the index is that of the newest.
pub(super) async fn read_of_all<const N: usize>(
    call: &Call,
    options: &ReadOptions,
    topics: impl FnOnce(&State) -> [Topic; N],
    render: impl Fn(&State) -> Answer,
) -> Answer {
    call.check_datacenter()?;
    let render = |state: &State| {
        // A look at an earlier version says nothing about this one.
        call.was_filtered();
        Ok(render(state)?.filtered_if(call.was_filtered()))
    };
    let node = &call.node;
    let Fetched { mut published, cache } = fetch(node, options).await?;
    let topics = topics(&published.state);
    let newest = |state: &State| {
        topics.iter().map(|topic| state.topic_index(topic)).max().unwrap_or_default()
    };
    let (barrier, wait_end) = (Look::applied(&published), Instant::now() + options.wait);
    if options.index > 0 {
        let newer = |state: &State| newest(state).0 > options.index;
        published = until(node, topics.each_ref(), options.wait, published, newer).await?;
    }
    let bytes = topics.iter().map(|topic| published.state.answer_bytes(topic)).sum();
    let (reply, index) = if call.is_costly() || heavy::is_long(bytes) {
        drop(published);
        let look = || {
            let published = node.published();
            Look { index: newest(&published.state), published }
        };
        let wait_end = (options.index > 0).then_some(wait_end);
        long(call, barrier, wait_end, look, render).await?
    } else {
        (render(&published.state)?, newest(&published.state))
    };
    let contact = node.contact();
    let reply = reply.with_read_headers(index, contact, options.effective);
    Ok(reply.with_cache(cache, contact))
}

/// A long answer and its index, from a version of the state that is as new as the query's barrier. `wait_end` is
/// when a query that waited for a change would have ended without one; it shares its answer.
async fn long(
    call: &Call,
    barrier: u64,
    wait_end: Option<Instant>,
    look: impl Fn() -> Look,
    render: impl Fn(&State) -> Answer,
) -> Result<(Reply, Index), ApiError> {
    let deadline = wait_end.map_or_else(budget::patience, budget::patience_of_query);
    let _turn = call.turn_to_filter(deadline).await?;
    if wait_end.is_some()
        && let Some(question) = call.question()
    {
        let need = Need { applied: barrier, deadline };
        return call.coalescer.answer(question, need, look, render).await;
    }
    let rendered = heavy::render_long(deadline, || {
        let Look { published, index } = look();
        render(&published.state).map(|reply| (reply, index))
    });
    rendered.await?
}

/// Answers a read of a list, of which `?filter=` leaves some rows. The expression is judged before
/// anything is waited for; the index and the wake-up are those of the whole list.
pub(super) async fn list<T, R, L>(
    call: &Call,
    options: &ReadOptions,
    topic: T,
    rows: impl Fn(&State, &Sight) -> L,
) -> Answer
where
    T: FnOnce(&State) -> Topic,
    R: Record + Default + Serialize,
    L: IntoIterator<Item = R>,
{
    let filter = call.filter::<R>()?;
    read(call, options, topic, |state| {
        let sight = call.rights(state)?;
        let kept = rows(state, &sight).into_iter().filter(|row| filter.keeps(row));
        call.json(&kept.collect::<Vec<_>>())
    })
    .await
}

/// Answers with a list of what the asking agent has, or all agents have, without waiting for a change.
///
/// `fault` says how a bad `?filter=` is reported.
pub(super) async fn list_of_agent<T: Record + Default>(
    call: &Call,
    fault: impl FnOnce(Fault) -> ApiError,
    listed: impl FnOnce(&Call, &State, &Asked, &Filter<T>) -> Answer,
) -> Answer {
    let options = call.read_options()?;
    let asked = call.asked()?;
    let filter = call.filter().map_err(fault)?;
    let published = at_barrier_or_own(&call.node, &options).await?;
    let topic = match &asked {
        Asked::One(agent) => Topic::node(&agent.name),
        Asked::All => Topic::Checks,
    };
    let bytes = published.state.answer_bytes(&topic);
    let deadline = budget::patience();
    let _turn = call.turn_to_filter(deadline).await?;
    let render = || listed(call, &published.state, &asked, &filter);
    let reply = match call.is_costly() || heavy::is_long(bytes) {
        true => heavy::render_long(deadline, render).await??,
        false => render()?,
    };
    Ok(reply.filtered_if(call.was_filtered()))
}

/// A state to answer from, and whether it is a cached one, if `?cached` counted.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) published: Arc<Published>,
    pub(super) cache: Option<CacheUse>,
}

/// The state to answer from where `?cached` counts.
pub(super) async fn fetch(node: &Node, options: &ReadOptions) -> Result<Fetched, ApiError> {
    let Some(cached) = options.cached else {
        return Ok(Fetched { published: at_barrier(node, options).await?, cache: None });
    };
    let age = || Duration::from_millis(node.contact().last_contact.0);
    if options.consistency == Consistency::Stale || cached.accepts(age()) {
        return own(node).await;
    }
    if let Some(longest) = cached.without_leader() {
        if node.contact().known_leader {
            let answer = tokio::time::timeout(CACHED_PATIENCE, at_barrier(node, options)).await;
            if let Ok(Ok(published)) = answer {
                return Ok(Fetched { published, cache: Some(CacheUse::Miss) });
            }
        }
        if age() <= longest {
            return own(node).await;
        }
    }
    Ok(Fetched { published: at_barrier(node, options).await?, cache: Some(CacheUse::Miss) })
}

/// This server's own state, as a cached answer.
async fn own(node: &Node) -> Result<Fetched, ApiError> {
    let published = node.read(Consistency::Stale).await?;
    Ok(Fetched { published, cache: Some(CacheUse::Hit) })
}

/// The state to answer from for what an agent of Consul knows by itself: as fresh as any while there is a
/// leader, and this server's own when there is none.
pub(super) async fn at_barrier_or_own(
    node: &Node,
    options: &ReadOptions,
) -> Result<Arc<Published>, ApiError> {
    if options.consistency == Consistency::Stale {
        return at_barrier(node, options).await;
    }
    let barrier = node.read(Consistency::Linearizable);
    tokio::pin!(barrier);
    loop {
        let contact = node.contact();
        let silence = Duration::from_millis(contact.last_contact.0);
        if !contact.known_leader && silence >= LEADERLESS_MAX {
            return Ok(node.read(Consistency::Stale).await?);
        }
        tokio::select! {
            read = &mut barrier => match read {
                Err(ReadError::NoLeader) => return Ok(node.read(Consistency::Stale).await?),
                read => return Ok(read?),
            },
            () = tokio::time::sleep(LEADER_LOOK) => {}
        }
    }
}

/// The state to answer from, as fresh as is asked for. A stale answer that would rest on too old a
/// contact with the leader becomes a linearizable one.
pub(super) async fn at_barrier(
    node: &Node,
    options: &ReadOptions,
) -> Result<Arc<Published>, ApiError> {
    let too_stale =
        |longest: Duration| Duration::from_millis(node.contact().last_contact.0) > longest;
    let consistency = match options.max_stale {
        Some(longest) if too_stale(longest) => Consistency::Linearizable,
        _ => options.consistency,
    };
    Ok(node.read(consistency).await?)
}

/// Waits until the state satisfies a condition, which only a change of one of the topics can bring about,
/// the time is up, or the node stops; returns the newest state. `wait` is without jitter.
///
/// # Errors
/// 503: as many queries wait already as there is room for.
pub(super) async fn until<const N: usize>(
    node: &Node,
    topics: [&Topic; N],
    wait: Duration,
    first: Arc<Published>,
    satisfied: impl Fn(&State) -> bool,
) -> Result<Arc<Published>, ApiError> {
    if satisfied(&first.state) {
        return Ok(first);
    }
    let _waiting = room()?;
    // A waiting query must not keep an old version of the state alive.
    drop(first);
    let subscribe = || topics.map(|topic| node.watches().subscribe(topic));
    let mut subscriptions = subscribe();
    let timeout = tokio::time::sleep(wait + jitter(wait));
    tokio::pin!(timeout);
    loop {
        let published = node.published();
        if satisfied(&published.state) {
            return Ok(published);
        }
        drop(published);
        tokio::select! {
            () = any_changed(&mut subscriptions) => {}
            () = &mut timeout => return Ok(node.published()),
            () = node.stopping().begun() => return Ok(node.published()),
        }
    }
}

/// A place among the waiting queries of this server, given back when it is dropped.
///
/// # Errors
/// 503: as many queries wait already as there is room for.
pub(super) fn room() -> Result<Place, ApiError> {
    room_to_wait(&WAITING)
}

/// A place among the waiting queries, given back when it is dropped.
fn room_to_wait(places: &'static Places) -> Result<Place, ApiError> {
    places.take(client::current()).ok_or_else(|| {
        let text = format!(
            "this server has {WAITING_MAX} blocking queries that wait, or {WAITING_OF_ONE_MAX} of your address: try \
             again later or at another server"
        );
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text)
    })
}

/// Waits until one of the topics was touched.
async fn any_changed(subscriptions: &mut [Subscription]) {
    match subscriptions {
        // Nearly all queries wait for one topic, so that one is waited for without an allocation.
        [only] => only.changed().await,
        several => {
            let changes = several.iter_mut().map(|one| Box::pin(one.changed()));
            select_all(changes).await;
        }
    }
}

/// A random time up to a sixteenth of the wait, so that queries that began together do not end
/// together.
fn jitter(wait: Duration) -> Duration {
    // Every RandomState has other keys; that is random enough here and needs no generator.
    let random = RandomState::new().build_hasher().finish();
    let nanos = u64::try_from((wait / JITTER_FRACTION).as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random.checked_rem(nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_beyond_the_places_is_refused_until_one_ends() {
        static PLACES: Places = Places::new(1, 1);
        let waiting = room_to_wait(&PLACES).unwrap();
        let refused = room_to_wait(&PLACES).unwrap_err();
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.text.contains("32768 blocking queries"), "{}", refused.text);
        drop(waiting);
        assert!(room_to_wait(&PLACES).is_ok());
    }

    #[test]
    fn jitter_is_less_than_a_sixteenth() {
        for _ in 0..100 {
            assert!(jitter(Duration::from_secs(16)) < Duration::from_secs(1));
        }
        assert_eq!(jitter(Duration::ZERO), Duration::ZERO);
        assert!((0..100).any(|_| jitter(Duration::from_secs(16)) > Duration::from_millis(100)));
    }
}
