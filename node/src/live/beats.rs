//! Heartbeats in streams: of whom something was heard since a moment ago.
//!
//! Streams that want them equally often share their looks: one task compares what was last heard of with what it
//! was at the look before, once for all of them, service by service, and only for services that somebody follows.
//! It keeps the table of those times between two looks, and no version of the state. A reader that comes new, or
//! has missed a look because its client reads slowly, is told of everything that it follows ([`all`]).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_client::types::live::StreamBeat;
use quorate_storage::machine::StateReader;
use quorate_storage::record::Service;
use quorate_storage::state::{Heard, Rights};
use quorate_storage::{ClusterTime, State};
use tokio::sync::{Notify, watch};

use super::filter::Filter;
use super::rows;
use super::sight::sees_row;
use crate::host::clock::{Clock, Moment};

/// Instances whose heartbeats a stream sends, at most.
pub const INSTANCES_MAX: usize = 10_000;
/// What a reader wants that names no service: all of them.
const ALL: &str = "";
/// After so many instances others get their turn.
const TURN: usize = 1_000;

/// The looks that streams wait for.
#[derive(Debug)]
pub struct Beats {
    clock: Clock,
    ticks: Mutex<Ticks>,
    /// There is a look that was not waited for yet.
    is_new: Notify,
}

#[derive(Debug, Default)]
struct Ticks {
    last_id: u64,
    /// By the time between two looks.
    all: BTreeMap<Duration, Tick>,
}

/// Looks at one interval.
#[derive(Debug)]
struct Tick {
    due: Moment,
    /// How often it looked.
    number: u64,
    /// What was heard of at its last look.
    before: Option<Heard>,
    looks: watch::Sender<Arc<Look>>,
    /// The services that each reader names, in lower case.
    readers: HashMap<u64, Vec<String>>,
}

/// Of whom something was heard between two looks.
#[derive(Debug, Default)]
struct Look {
    number: u64,
    time: ClusterTime,
    /// How many instances there are, if somebody wanted all; they are not counted beyond one too many.
    in_all: Option<usize>,
    /// By service, in lower case; those that somebody wanted.
    services: BTreeMap<Arc<str>, OfService>,
}

#[derive(Debug, Default)]
struct OfService {
    instances: usize,
    /// Heartbeats as JSON, with commas between them.
    beats: String,
    /// Whose they are, and where they lie in that.
    rows: Vec<(Arc<Service>, Range<usize>)>,
}

/// A stream's share in the looks of its interval; given up when it is dropped.
#[derive(Debug)]
pub struct Reader {
    beats: Arc<Beats>,
    every: Duration,
    id: u64,
    filter: Filter,
    /// What its client may see; `None`: everything.
    rights: Option<Rights>,
    looks: watch::Receiver<Arc<Look>>,
    /// The number of the last look that it has taken.
    taken: Option<u64>,
}

/// What a reader sends next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Nothing.
    None,
    /// The data of a frame, as JSON.
    Beats(String),
    /// There are more instances by now than a stream has heartbeats of.
    TooMany,
}

impl Beats {
    /// Nobody waits yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, ticks: Mutex::default(), is_new: Notify::new() }
    }

    /// Begins to wait for looks at this interval, for a filter that has instances.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>, every: Duration, filter: Filter) -> Reader {
        let mut ticks = self.ticks();
        ticks.last_id += 1;
        let id = ticks.last_id;
        let due = self.clock.now().plus(every);
        let tick = ticks.all.entry(every).or_insert_with(|| Tick {
            due,
            number: 0,
            before: None,
            looks: watch::Sender::default(),
            readers: HashMap::new(),
        });
        tick.readers.insert(id, filter.services().to_vec());
        let looks = tick.looks.subscribe();
        drop(ticks);
        self.is_new.notify_one();
        Reader { beats: Arc::clone(self), every, id, filter, rights: None, looks, taken: None }
    }

    /// The looking task; never ends.
    pub async fn run(self: Arc<Self>, state: StateReader) {
        loop {
            let Some(due) = self.next_due() else {
                self.is_new.notified().await;
                continue;
            };
            tokio::select! {
                () = self.clock.sleep(due.since(self.clock.now())) => {}
                () = self.is_new.notified() => continue,
            }
            for (every, before, wanted) in self.take_due() {
                let published = state.load();
                let look = look(&published.state, before.as_ref(), &wanted).await;
                self.publish(every, look, published.state.heard().clone());
            }
        }
    }

    fn next_due(&self) -> Option<Moment> {
        self.ticks().all.values().map(|tick| tick.due).min()
    }

    /// The intervals that are over, what was heard at the look before, and which services somebody follows.
    fn take_due(&self) -> Vec<(Duration, Option<Heard>, BTreeSet<String>)> {
        let now = self.clock.now();
        let mut ticks = self.ticks();
        let due = ticks.all.iter_mut().filter(|(_, tick)| tick.due <= now);
        due.map(|(every, tick)| {
            tick.due = now.plus(*every);
            let names = |list: &Vec<String>| match list.is_empty() {
                true => vec![ALL.to_owned()],
                false => list.clone(),
            };
            (*every, tick.before.clone(), tick.readers.values().flat_map(names).collect())
        })
        .collect()
    }

    fn publish(&self, every: Duration, look: Look, heard: Heard) {
        let mut ticks = self.ticks();
        // Its readers may have gone meanwhile.
        let Some(tick) = ticks.all.get_mut(&every) else { return };
        tick.number += 1;
        tick.before = Some(heard);
        tick.looks.send_replace(Arc::new(Look { number: tick.number, ..look }));
    }

    fn ticks(&self) -> MutexGuard<'_, Ticks> {
        self.ticks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// Has it send only what a client with these rights may see.
    pub fn be_seen_by(&mut self, rights: Option<Rights>) {
        self.rights = rights;
    }

    /// Resolves when there was a look that it has not taken.
    pub async fn looked(&mut self) {
        let taken = self.taken.unwrap_or(0);
        // Its interval is kept as long as it has a reader, so the other end lives.
        if self.looks.wait_for(|look| look.number > taken).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What the newest look has for it, if it has not taken that. `state` is at least as new.
    pub fn take(&mut self, state: &State) -> News {
        let look = Arc::clone(&self.looks.borrow_and_update());
        if look.number <= self.taken.unwrap_or(0) {
            return News::None;
        }
        let is_next = self.taken.is_some_and(|taken| taken + 1 == look.number);
        self.taken = Some(look.number);
        // It may have been under way when this reader came.
        let rights = self.rights.as_ref();
        let news = if is_next { look.of(&self.filter, rights) } else { None };
        let (instances, time, beats) = news.unwrap_or_else(|| {
            (matching(state, &self.filter), state.time(), all(state, &self.filter, rights))
        });
        if instances > INSTANCES_MAX {
            return News::TooMany;
        }
        if beats.is_empty() {
            return News::None;
        }
        News::Beats(format!(r#"{{"Time":{},"Beats":[{beats}]}}"#, time.0))
    }
}

impl Look {
    /// How many instances a filter has, the time, and the heartbeats of those of whom something was heard; `None`:
    /// it did not look at all of that.
    fn of(&self, filter: &Filter, rights: Option<&Rights>) -> Option<(usize, ClusterTime, String)> {
        if filter.services().is_empty() {
            let beats: Vec<_> = self.services.values().map(|one| one.seen(rights)).collect();
            return Some((self.in_all?, self.time, joined(beats.iter().map(|beats| &**beats))));
        }
        let names: BTreeSet<&str> = filter.services().iter().map(String::as_str).collect();
        let all: Option<Vec<_>> = names.into_iter().map(|name| self.services.get(name)).collect();
        let all = all?;
        let beats: Vec<_> = all.iter().map(|of_service| of_service.seen(rights)).collect();
        let beats = joined(beats.iter().map(|beats| &**beats));
        Some((all.iter().map(|of_service| of_service.instances).sum(), self.time, beats))
    }
}

impl OfService {
    /// The heartbeats of those instances that may be seen.
    fn seen(&self, rights: Option<&Rights>) -> Cow<'_, str> {
        if rights.is_none() {
            return Cow::Borrowed(&self.beats);
        }
        let seen = self.rows.iter().filter(|(row, _)| sees_row(rights, row));
        Cow::Owned(joined(seen.filter_map(|(_, place)| self.beats.get(place.clone()))))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut ticks = self.beats.ticks();
        let Some(tick) = ticks.all.get_mut(&self.every) else { return };
        tick.readers.remove(&self.id);
        if tick.readers.is_empty() {
            ticks.all.remove(&self.every);
        }
    }
}

/// How many instances a stream has in its list; no more than one more than a stream has heartbeats of are counted.
#[must_use]
pub fn matching(state: &State, filter: &Filter) -> usize {
    instances(state, filter).take(INSTANCES_MAX + 1).count()
}

fn instances<'a>(
    state: &'a State,
    filter: &'a Filter,
) -> impl Iterator<Item = &'a Arc<Service>> + 'a {
    let everything =
        filter.services().is_empty().then(|| state.instances_behind(None).map(|(_, row)| row));
    // The same service may be named twice.
    let names: BTreeSet<&str> = filter.services().iter().map(String::as_str).collect();
    let named = names.into_iter().flat_map(|service| state.instances(service));
    everything.into_iter().flatten().chain(named)
}

/// The heartbeats of all that a filter wants and may be seen, as JSON.
fn all(state: &State, filter: &Filter, rights: Option<&Rights>) -> String {
    let seen = instances(state, filter).filter(|row| sees_row(rights, row));
    let beats = seen.filter_map(|row| rows::beat(state, row));
    let beats: Vec<String> = beats.map(|beat| json(&beat)).collect();
    joined(beats.iter().map(String::as_str))
}

fn json(beat: &StreamBeat) -> String {
    serde_json::to_string(beat).unwrap_or_default()
}

fn joined<'a>(beats: impl Iterator<Item = &'a str>) -> String {
    let beats: Vec<&str> = beats.filter(|beats| !beats.is_empty()).collect();
    beats.join(",")
}

/// Compares what was last heard of with what it was, of the services that somebody wants. A service, or a
/// catalogue, that is too large for anybody is only counted.
async fn look(state: &State, before: Option<&Heard>, wanted: &BTreeSet<String>) -> Look {
    let in_all = wanted.contains(ALL).then(|| matching(state, &Filter::of_stream()));
    let mut look = Look { time: state.time(), in_all, ..Look::default() };
    let named = wanted.iter().filter(|name| *name != ALL).map(|name| Arc::from(name.as_str()));
    let mut names: BTreeSet<Arc<str>> = named.collect();
    if in_all.is_some_and(|instances| instances <= INSTANCES_MAX) {
        names.extend(state.service_names().cloned());
    }
    let mut turn = 0;
    for name in names {
        let instances = state.instances(&name).take(INSTANCES_MAX + 1).count();
        let mut of_service = OfService { instances, ..OfService::default() };
        for row in state.instances(&name).take_while(|_| instances <= INSTANCES_MAX) {
            if is_heard(state, before, row)
                && let Some(beat) = rows::beat(state, row)
            {
                if !of_service.beats.is_empty() {
                    of_service.beats.push(',');
                }
                let begin = of_service.beats.len();
                of_service.beats.push_str(&json(&beat));
                let place = begin..of_service.beats.len();
                of_service.rows.push((Arc::clone(row), place));
            }
            turn += 1;
            if turn == TURN {
                turn = 0;
                tokio::task::yield_now().await;
            }
        }
        look.services.insert(name, of_service);
    }
    look
}

/// Whether something was heard of an instance since then. While cluster time stands still, its counter tells.
fn is_heard(state: &State, before: Option<&Heard>, row: &Service) -> bool {
    let of = |heard: &Heard, number: u64| Some((heard.get(number)?, heard.counter(number)));
    state.own_checks_of(row).any(|check| {
        let now = of(state.heard(), check.number);
        now.is_some() && now != before.and_then(|before| of(before, check.number))
    })
}

#[cfg(test)]
mod tests;
