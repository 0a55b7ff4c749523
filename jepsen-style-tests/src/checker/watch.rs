//! Blocking queries wake, show what there is, and never go back.
//!
//! Every slot (a key, or an instance of a service) is written with ever larger values, one after the other,
//! so a watcher may skip values but never see a smaller one again. A watcher at one server asks with the
//! index that it was given last. Then
//!
//! * the index never falls, and no slot's value does;
//! * a default query shows every write that was acknowledged before it was sent;
//! * an acknowledged write ends every query that waits for it, within a bound, wherever it waits;
//! * after the last write, every watcher holds the final values, without another write.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Verdict;
use super::weather::{MILLISECOND, Weather};

/// Documented: an acknowledged write wakes every waiter on a connected server within this.
const WAKE_MAX: u64 = 250 * MILLISECOND;
/// While leaders change, a server that no fault is at may learn of a write as late as it would answer one:
/// within the time for which requests are held.
const STORM_MAX: u64 = 7_000 * MILLISECOND;
/// A write of unknown outcome may still take effect for as long as servers hold requests, and a bit.
const DOUBT: u64 = 8_000 * MILLISECOND;

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
}

/// What the workload writes down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "kebab-case")]
pub(crate) enum Event {
    /// A write.
    Write {
        /// Of what.
        family: Family,
        /// Which key or instance.
        slot: u64,
        /// Larger than any before it in this slot.
        value: u64,
        /// Whether the slot is emptied instead.
        gone: bool,
        /// When it was sent.
        call: u64,
        /// When it ended.
        end: u64,
        /// Whether it was acknowledged; false: its outcome is unknown.
        known: bool,
    },
    /// The answer to a watcher's query.
    Answer {
        /// Which watcher.
        watcher: u64,
        /// The server at which it watches.
        node: u64,
        /// Whether it watches by `?stale` queries.
        stale: bool,
        /// Of what.
        family: Family,
        /// The only slot it watches; null: all.
        slot: Option<u64>,
        /// The index that it asked with; 0: it did not wait.
        given: u64,
        /// When it asked.
        call: u64,
        /// When it was answered.
        ret: u64,
        /// The index of the answer.
        index: u64,
        /// Slots and their values.
        seen: Vec<(u64, u64)>,
    },
    /// What a default read showed at the end.
    Final {
        /// Of what.
        family: Family,
        /// Slots and their values.
        seen: Vec<(u64, u64)>,
    },
}

/// What a run's events tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Acknowledged writes.
    pub(crate) writes: u64,
    /// Answers with a new index.
    pub(crate) wakes: u64,
    /// Pairs of an acknowledged write and a query that waited for it at a server without a fault.
    pub(crate) awaited: u64,
    /// The longest time between a write's acknowledgement and the answer of a query that waited, in ms.
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
        self.family == family && self.slot.is_none_or(|only| only == slot)
    }

    fn describe(&self, id: u64) -> String {
        let kind = if self.stale { "stale " } else { "" };
        let slot = self.slot.map_or_else(|| "all slots".to_owned(), |slot| format!("slot {slot}"));
        format!("{kind}watcher {id} of {slot} of {:?} at n{}", self.family, self.node)
    }

    /// The query that waits at `moment`.
    fn waiting_at(&self, moment: u64) -> Option<&Answer> {
        let next = self.answers.partition_point(|answer| answer.call < moment);
        let answer = self.answers.get(next.checked_sub(1)?)?;
        (answer.given > 0 && answer.ret > moment).then_some(answer)
    }
}

/// Judges a run.
pub(crate) fn check(events: &[Event], weather: &Weather) -> Verdict {
    let (writes, watchers) = (writes(events), watchers(events));
    let mut violations = Vec::new();
    for (id, watcher) in &watchers {
        let name = watcher.describe(*id);
        violations.extend(falling(&name, watcher, weather));
        if !watcher.stale {
            violations.extend(outdated(&name, watcher, &writes));
        }
        violations.extend(not_final(&name, watcher, &writes, events));
    }
    violations.extend(asleep(&watchers, &writes, weather));
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
    let slowest = waits.iter().map(|wait| wait.answer.ret.saturating_sub(wait.write.end)).max();
    let is_wake = |answer: &&Answer| answer.given > 0 && answer.index > answer.given;
    let wakes = |watcher: &Watcher| watcher.answers.iter().filter(is_wake).count() as u64;
    Counts {
        writes: writes.iter().filter(|write| write.known).count() as u64,
        wakes: watchers.values().map(wakes).sum(),
        awaited: waits.len() as u64,
        slowest_ms: slowest.unwrap_or_default() / MILLISECOND,
    }
}

/// Neither the index nor a value falls. Only a server that was restarted may forget, in stale reads.
fn falling(name: &str, watcher: &Watcher, weather: &Weather) -> Vec<String> {
    let mut violations = Vec::new();
    for pair in watcher.answers.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        if watcher.stale && weather.is_affected(watcher.node, before.call, after.ret) {
            continue;
        }
        if after.index < before.index {
            violations.push(format!(
                "{name}: the index fell from {} to {} in an answer at {} ns",
                before.index, after.index, after.ret
            ));
        }
        for (slot, value) in &before.seen {
            if let Some(now) = after.seen.get(slot).filter(|now| *now < value) {
                violations.push(format!(
                    "{name}: slot {slot} went back from {value} to {now} in an answer at {} ns",
                    after.ret
                ));
            }
        }
    }
    violations
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
        let emptied = writes.iter().filter(|write| write.gone).map(|write| write.value).max();
        for answer in &watcher.answers {
            let last = known.partition_point(|write| write.end < answer.call);
            let Some(write) = last.checked_sub(1).map(|last| known[last]) else { continue };
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
    limit: u64,
}

/// Each acknowledged write with each query that waited for it, at a server that no fault was at.
fn waits<'a>(
    watchers: &'a BTreeMap<u64, Watcher>,
    writes: &'a [Write],
    weather: &Weather,
) -> Vec<Wait<'a>> {
    let mut waits = Vec::new();
    for write in writes.iter().filter(|write| write.known) {
        let calm = weather.is_calm(write.call, write.end + WAKE_MAX);
        let limit = write.end + if calm { WAKE_MAX } else { WAKE_MAX + STORM_MAX };
        for (id, watcher) in watchers {
            if !watcher.covers(write.family, write.slot) {
                continue;
            }
            let Some(answer) = watcher.waiting_at(write.call) else { continue };
            if !calm && weather.is_affected(watcher.node, write.call, limit) {
                continue;
            }
            waits.push(Wait { id: *id, watcher, answer, write, limit });
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
            let late = (answer.ret - write.end) / MILLISECOND;
            format!(
                "{}: a query that waited since {} ns for more than index {} was answered {late} ms after {} in slot {} was acknowledged at {} ns",
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
            let is_open = |write: &Write| {
                let doubt = if write.known { 0 } else { DOUBT };
                write.end + doubt > last.ret
            };
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
            Event::Answer { .. } | Event::Final { .. } => None,
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
#[path = "watch_tests.rs"]
mod tests;
