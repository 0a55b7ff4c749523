//! Blocking queries wake up, show the current state, and never go back.
//!
//! Every slot (a key, or an instance of a service) is written with increasing values, one after the other, so a
//! watcher may skip values but never see a smaller one again. A watcher at one server sends the index of its last
//! answer. Then
//!
//! * neither the index nor the value of a slot decreases, from one answer to the next or over a longer time;
//! * a default query shows every write that was acknowledged before it was sent;
//! * an acknowledged write ends every query that waits for it, at every server, within a bound;
//! * after the last write, every watcher receives the final values without another write, and then waits;
//! * every answer is readable and lists a slot once, and what was acknowledged is there until it is deregistered.

mod falling;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Verdict;
use super::restarts::Restarts;
use super::weather::{MILLISECOND, Weather};
use crate::client::CLIENTS_MAX;

/// Documented: an acknowledged write wakes every waiter on a connected server within this.
pub(crate) const WAKE_MAX: u64 = 250 * MILLISECOND;
/// A query that was sent only after the write did not wait yet: it must come in first, and pass its barrier.
const COME_IN_MAX: u64 = 1_000 * MILLISECOND;
/// While leaders change, a server that no fault is at may learn of a write as late as it would answer one:
/// within the time for which requests are held.
const STORM_MAX: u64 = 7_000 * MILLISECOND;
/// A write of unknown outcome may still take effect for as long as servers hold requests, and a bit.
pub(crate) const DOUBT: u64 = 8_000 * MILLISECOND;
/// A query waits this long for a change, if not for longer: longer than any write may need to wake it, so
/// that one that sleeps on gives itself away.
pub(crate) const QUERY_WAIT: u64 = 9_000 * MILLISECOND;
/// Servers add up to a sixteenth.
pub(crate) const QUERY_WAIT_MAX: u64 = QUERY_WAIT + QUERY_WAIT / 16;
/// A watcher that nothing disturbs is at rest after this: a query from before may go without an answer for as
/// long as a client is patient (12 s), the next may bring news, and one waits in vain. And a bit.
const REST_MAX: u64 = 24_000 * MILLISECOND;

const _: () = assert!(QUERY_WAIT > STORM_MAX + WAKE_MAX, "a query outlives every bound");

/// What is written and watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Family {
    /// Keys that are watched one by one.
    Key,
    /// Keys that are watched by their prefix.
    Prefix,
    /// Instances of one service.
    Service,
    /// Services with one writer and one instance each, which are watched one by one.
    Own,
}

/// What the workload writes down. A request was sent at `call` and answered at `ret` or `end`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "kebab-case")]
pub(crate) enum Event {
    /// A write.
    Write {
        family: Family,
        /// Which key or instance.
        slot: u64,
        /// Larger than any before it in this slot.
        value: u64,
        /// Whether the slot is emptied instead.
        gone: bool,
        call: u64,
        end: u64,
        /// Whether it was acknowledged; false: its outcome is unknown.
        known: bool,
    },
    /// The answer to a watcher's query.
    Answer {
        watcher: u64,
        node: u64,
        /// Whether it watches by `?stale` queries.
        stale: bool,
        family: Family,
        /// The only slot it watches; null: all.
        slot: Option<u64>,
        /// The index that it asked with; 0: it did not wait.
        given: u64,
        call: u64,
        ret: u64,
        index: u64,
        /// Slots and their values.
        seen: Vec<(u64, u64)>,
    },
    /// An answer that is not what was asked for.
    Unreadable {
        /// Whose; null: the read at the end.
        watcher: Option<u64>,
        /// The server that gave it.
        node: u64,
        /// When it was asked for.
        call: u64,
        /// When it came.
        ret: u64,
        /// What is wrong with it.
        why: String,
    },
    /// An instance that nobody had deregistered since its registration was acknowledged was not known when it
    /// was to be deregistered.
    Missing {
        slot: u64,
        /// With which value it was registered.
        value: u64,
        /// The server that did not know it.
        node: u64,
        /// When it was asked to deregister it.
        call: u64,
        /// When it refused.
        end: u64,
    },
    /// The end of a watcher.
    Ended {
        watcher: u64,
        node: u64,
        at: u64,
        /// Whether a whole wait after the run's end had brought it nothing new; false: it gave up.
        at_rest: bool,
    },
    /// What a default read showed at the end.
    Final {
        family: Family,
        /// Slots and their values.
        seen: Vec<(u64, u64)>,
    },
}

/// How much there was to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Acknowledged writes.
    pub(crate) writes: u64,
    /// Answers with a new index.
    pub(crate) wakes: u64,
    /// Pairs of an acknowledged write and a query that waited for it at a server without a fault, and would
    /// have been seen to sleep on.
    pub(crate) awaited: u64,
    /// The same of writes that emptied their slot.
    pub(crate) awaited_ends: u64,
    /// The longest time between a write's acknowledgement and the answer of a query that waited, in ms; from the
    /// query on if that was sent later.
    pub(crate) slowest_ms: u64,
}

#[derive(Debug, Clone)]
struct Write {
    family: Family,
    slot: u64,
    value: u64,
    gone: bool,
    call: u64,
    end: u64,
    known: bool,
}

impl Write {
    /// When it has taken effect, or never will.
    fn settled(&self) -> u64 {
        self.end + if self.known { 0 } else { DOUBT }
    }

    /// Whether `answer`, which came before its acknowledgement, surely tells of a time before it took effect.
    fn is_missing_in(&self, answer: &Answer) -> bool {
        match answer.seen.get(&self.slot) {
            Some(shown) => *shown < self.value,
            None => !self.gone,
        }
    }
}

#[derive(Debug)]
struct Watcher {
    node: u64,
    stale: bool,
    family: Family,
    slot: Option<u64>,
    /// In the order of their calls, which is that of their returns too.
    answers: Vec<Answer>,
}

#[derive(Debug)]
struct Answer {
    given: u64,
    call: u64,
    ret: u64,
    index: u64,
    seen: BTreeMap<u64, u64>,
}

impl Watcher {
    fn covers(&self, family: Family, slot: u64) -> bool {
        // A writer that gives a slot up goes on in one that is larger by a multiple of this.
        self.family == family && self.slot.is_none_or(|only| only == slot % CLIENTS_MAX)
    }

    fn describe(&self, id: u64) -> String {
        let kind = if self.stale { "stale " } else { "" };
        let slot = self.slot.map_or_else(|| "all slots".to_owned(), |slot| format!("slot {slot}"));
        format!("{kind}watcher {id} of {slot} of {:?} at n{}", self.family, self.node)
    }

    /// The queries that `write` must wake: the one under way when it was sent; and, of those sent later, the one
    /// that ended first after its acknowledgement, if the answer before shows that its index is older.
    fn waiting_for(&self, write: &Write) -> impl Iterator<Item = &Answer> {
        let sent = self.answers.partition_point(|answer| answer.call < write.call);
        let ended = self.answers.partition_point(|answer| answer.ret <= write.end);
        let first = sent.checked_sub(1).map(|first| &self.answers[first]);
        let first = first.filter(|query| query.ret > write.call);
        let before = ended.checked_sub(1).filter(|_| ended >= sent);
        let next = before.filter(|before| write.is_missing_in(&self.answers[*before]));
        let next = next.and_then(|_| self.answers.get(ended));
        first.into_iter().chain(next).filter(|query| query.given > 0)
    }
}

/// Judges a run.
pub(crate) fn check(events: &[Event], weather: &Weather, restarts: &Restarts) -> Verdict {
    let (writes, watchers) = (writes(events), watchers(events));
    let mut violations: Vec<_> = events.iter().filter_map(broken).collect();
    for (id, watcher) in &watchers {
        let name = watcher.describe(*id);
        violations.extend(falling::falling(&name, watcher, &writes, restarts));
        if !watcher.stale {
            violations.extend(outdated(&name, watcher, &writes));
        }
        violations.extend(not_final(&name, watcher, &writes, events));
    }
    violations.extend(asleep(&watchers, &writes, weather));
    violations.extend(restless(events, &writes, weather));
    if !violations.is_empty() {
        return Verdict::Invalid(violations);
    }
    if count(events, weather).awaited == 0 {
        return Verdict::Vacuous("no query waited for an acknowledged write".to_owned());
    }
    if !events.iter().any(|event| matches!(event, Event::Final { .. })) {
        return Verdict::Vacuous("what was there at the end was not read".to_owned());
    }
    Verdict::Valid
}

/// How much there was to judge.
pub(crate) fn count(events: &[Event], weather: &Weather) -> Counts {
    let (writes, watchers) = (writes(events), watchers(events));
    let waits = waits(&watchers, &writes, weather);
    let slowest = waits.iter().map(|wait| wait.answer.ret.saturating_sub(wait.due)).max();
    let is_wake = |answer: &&Answer| answer.given > 0 && answer.index > answer.given;
    let wakes = |watcher: &Watcher| watcher.answers.iter().filter(is_wake).count() as u64;
    Counts {
        writes: writes.iter().filter(|write| write.known).count() as u64,
        wakes: watchers.values().map(wakes).sum(),
        awaited: waits.len() as u64,
        awaited_ends: waits.iter().filter(|wait| wait.write.gone).count() as u64,
        slowest_ms: slowest.unwrap_or_default() / MILLISECOND,
    }
}

/// What is wrong with an event whatever else happened.
fn broken(event: &Event) -> Option<String> {
    match event {
        Event::Answer { watcher, node, ret, seen, .. } => {
            let slot = listed_twice(seen)?;
            let who = format!("watcher {watcher} at n{node}");
            Some(format!("{who}: slot {slot} is listed twice in an answer at {ret} ns"))
        }
        Event::Final { family, seen } => {
            let slot = listed_twice(seen)?;
            Some(format!("slot {slot} of {family:?} is listed twice at the end"))
        }
        Event::Unreadable { watcher, node, call, ret, why } => {
            let who = watcher.map_or_else(|| "the end".to_owned(), |id| format!("watcher {id}"));
            Some(format!("{who} at n{node}: unreadable answer from {call} to {ret} ns: {why}"))
        }
        Event::Missing { slot, value, node, call, end } => Some(format!(
            "n{node} did not know the instance in slot {slot}, whose registration with {value} was acknowledged, when it was to be deregistered from {call} to {end} ns"
        )),
        Event::Write { .. } | Event::Ended { .. } => None,
    }
}

fn listed_twice(seen: &[(u64, u64)]) -> Option<u64> {
    let mut slots = BTreeSet::new();
    seen.iter().map(|(slot, _)| *slot).find(|slot| !slots.insert(*slot))
}

/// A default query shows every write that was acknowledged before it was sent, or a later one.
fn outdated(name: &str, watcher: &Watcher, writes: &[Write]) -> Vec<String> {
    let mut violations = Vec::new();
    let mut slots: BTreeMap<u64, Vec<&Write>> = BTreeMap::new();
    for write in writes.iter().filter(|write| watcher.covers(write.family, write.slot)) {
        slots.entry(write.slot).or_default().push(write);
    }
    for (slot, writes) in slots {
        // One writer writes a slot, one value after the other: the last to end is the largest.
        let known: Vec<_> = writes.iter().filter(|write| write.known).collect();
        let emptied: Vec<_> = writes.iter().filter(|write| write.gone).collect();
        for answer in &watcher.answers {
            let last = known.partition_point(|write| write.end < answer.call);
            let Some(write) = last.checked_sub(1).map(|last| known[last]) else { continue };
            // What is emptied only later explains nothing.
            let sent = emptied.partition_point(|write| write.call < answer.ret);
            let emptied = sent.checked_sub(1).map(|last| emptied[last].value);
            let shown = answer.seen.get(&slot).copied().or(emptied);
            if shown.is_none_or(|shown| shown < write.value) {
                violations.push(format!(
                    "{name}: a query from {} to {} ns shows {:?} in slot {slot}, where {} was acknowledged at {} ns",
                    answer.call, answer.ret, answer.seen.get(&slot), write.value, write.end
                ));
            }
        }
    }
    violations
}

struct Wait<'a> {
    id: u64,
    watcher: &'a Watcher,
    answer: &'a Answer,
    write: &'a Write,
    /// From when on nothing kept it from being answered.
    due: u64,
    limit: u64,
}

/// Each acknowledged write with each query that waited for it, at a server that no fault was at. A query that
/// would have ended by itself within the limit shows nothing.
fn waits<'a>(
    watchers: &'a BTreeMap<u64, Watcher>,
    writes: &'a [Write],
    weather: &Weather,
) -> Vec<Wait<'a>> {
    let mut waits = Vec::new();
    for write in writes.iter().filter(|write| write.known) {
        for (id, watcher) in watchers.iter().filter(|(_, w)| w.covers(write.family, write.slot)) {
            for answer in watcher.waiting_for(write) {
                let due = write.end.max(answer.call);
                let wake = if answer.call < write.call { WAKE_MAX } else { COME_IN_MAX };
                let calm = weather.is_calm(write.call, due + wake);
                let limit = due + if calm { wake } else { WAKE_MAX + STORM_MAX };
                let excused = !calm && weather.is_affected(watcher.node, write.call, limit);
                let outlives = answer.ret.max(answer.call + QUERY_WAIT) > limit;
                if outlives && !excused {
                    waits.push(Wait { id: *id, watcher, answer, write, due, limit });
                }
            }
        }
    }
    waits
}

fn asleep(watchers: &BTreeMap<u64, Watcher>, writes: &[Write], weather: &Weather) -> Vec<String> {
    waits(watchers, writes, weather)
        .iter()
        .filter(|wait| wait.answer.ret > wait.limit)
        .map(|wait| {
            let Wait { answer, write, .. } = wait;
            let late = (answer.ret - wait.due) / MILLISECOND;
            format!(
                "{}: a query that waited since {} ns for more than index {} was answered {late} ms late: {} in slot {} was acknowledged at {} ns",
                wait.watcher.describe(wait.id), answer.call, answer.given, write.value, write.slot, write.end
            )
        })
        .collect()
}

/// After the last write, a watcher holds what a read shows at the end.
fn not_final(name: &str, watcher: &Watcher, writes: &[Write], events: &[Event]) -> Vec<String> {
    let mut violations = Vec::new();
    let Some(last) = watcher.answers.last() else { return violations };
    for event in events {
        let Event::Final { family, seen } = event else { continue };
        let seen: BTreeMap<_, _> = seen.iter().copied().collect();
        for slot in slots(writes, *family).into_iter().filter(|s| watcher.covers(*family, *s)) {
            let in_slot = writes.iter().filter(|w| w.family == *family && w.slot == slot);
            let is_open = |write: &Write| write.settled() > last.ret;
            let (held, there) = (last.seen.get(&slot), seen.get(&slot));
            if held != there && !{ in_slot }.any(is_open) {
                violations.push(format!(
                    "{name}: it ends with {held:?} in slot {slot}, where {there:?} is at the end; its last answer came at {} ns",
                    last.ret
                ));
            }
        }
    }
    violations
}

/// A watcher finds nothing new in the end, if nothing was written and nothing broken for long enough.
fn restless(events: &[Event], writes: &[Write], weather: &Weather) -> Vec<String> {
    let settled = writes.iter().map(Write::settled).max().unwrap_or_default();
    let is_judged = |at: u64| {
        let since = at.saturating_sub(REST_MAX);
        settled < since && weather.is_calm(since, at)
    };
    let mut violations = Vec::new();
    for event in events {
        let Event::Ended { watcher, node, at, at_rest } = event else { continue };
        if !at_rest && is_judged(*at) {
            violations.push(format!(
                "watcher {watcher} at n{node} did not come to rest until {at} ns, though the last write was settled at {settled} ns"
            ));
        }
    }
    violations
}

fn slots(writes: &[Write], family: Family) -> Vec<u64> {
    let mut slots: Vec<_> =
        writes.iter().filter(|write| write.family == family).map(|write| write.slot).collect();
    slots.sort_unstable();
    slots.dedup();
    slots
}

/// In the order in which they ended.
fn writes(events: &[Event]) -> Vec<Write> {
    let mut writes: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Write { family, slot, value, gone, call, end, known } => Some(Write {
                family: *family,
                slot: *slot,
                value: *value,
                gone: *gone,
                call: *call,
                end: *end,
                known: *known,
            }),
            Event::Answer { .. }
            | Event::Unreadable { .. }
            | Event::Missing { .. }
            | Event::Ended { .. }
            | Event::Final { .. } => None,
        })
        .collect();
    writes.sort_by_key(|write| write.end);
    writes
}

fn watchers(events: &[Event]) -> BTreeMap<u64, Watcher> {
    let mut watchers: BTreeMap<u64, Watcher> = BTreeMap::new();
    for event in events {
        let Event::Answer { watcher, node, stale, family, slot, given, call, ret, index, seen } =
            event
        else {
            continue;
        };
        let watcher = watchers.entry(*watcher).or_insert_with(|| Watcher {
            node: *node,
            stale: *stale,
            family: *family,
            slot: *slot,
            answers: Vec::new(),
        });
        let seen = seen.iter().copied().collect();
        let (given, call, ret, index) = (*given, *call, *ret, *index);
        watcher.answers.push(Answer { given, call, ret, index, seen });
    }
    for watcher in watchers.values_mut() {
        watcher.answers.sort_by_key(|answer| answer.call);
    }
    watchers
}

#[cfg(test)]
mod tests;
