//! A service with a TTL check is never critical before its TTL has passed, and critical soon after it.
//!
//! A life is one registration under an id that nobody else uses: it sends heartbeats, may be registered again with
//! the same or another TTL, falls silent, and is deregistered. The TTL runs from the newest heartbeat or
//! registration, and is that of the newest registration. Heartbeats may overlap (one that hangs at a dead node does
//! not delay the next), so only what is certain counts: an acknowledged heartbeat took effect at some moment
//! between its call and its return; one with an unknown outcome may have made the life longer, never shorter. A
//! registration with an unknown outcome may have set its own TTL; nothing is sent after it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Verdict;
use super::look::{Look, readable};
use super::weather::{MILLISECOND, Weather};

/// Documented: critical by the TTL plus this in default reads on every server.
const LATE_MAX: u64 = 500 * MILLISECOND;

/// With fewer lives than this a run in which none was critical early was lucky; runs of 17 s have eight
/// hundred.
const LIVES_MIN: usize = 50;
/// With fewer lives whose lateness could be judged than this, a run in which none was late was lucky. Faults
/// make the cluster's time stand still, but most runs of 17 s and 30 s have fifty and more.
const JUDGED_MIN: u64 = 10;

/// What the workload writes down. A request was sent at `call` and answered at `ret` or `end`; without a `ret` its
/// outcome is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "kebab-case")]
pub(crate) enum Event {
    /// A registration (the first, as passing, begins a life) or a heartbeat. No heartbeat is under way when a
    /// later registration is sent, and none is sent before it was answered.
    Beat {
        life: u64,
        /// The check's TTL, by the newest registration.
        ttl_ms: u64,
        /// Whether it is a later registration.
        #[serde(default)]
        again: bool,
        call: u64,
        ret: Option<u64>,
    },
    /// The life is about to be deregistered.
    End {
        life: u64,
        /// Before the deregistration was sent.
        call: u64,
    },
    /// Its deregistration was acknowledged.
    Gone { life: u64, ret: u64 },
    /// The lives that were critical, according to one server.
    #[serde(alias = "unreadable")]
    Look(Look),
}

/// How much there was to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Lives that began.
    pub(crate) lifetimes: u64,
    /// Lives that were seen to become critical.
    pub(crate) expired: u64,
    /// Lives whose lateness could be judged.
    pub(crate) judged_late: u64,
    /// Acknowledged registrations of what was registered before.
    pub(crate) again: u64,
}

#[derive(Debug, Default)]
struct Life {
    beats: Vec<Beat>,
    end: Option<u64>,
    gone: Option<u64>,
}

/// A registration or heartbeat.
#[derive(Debug, Clone, Copy)]
struct Beat {
    call: u64,
    ret: Option<u64>,
    /// The TTL that runs from it.
    ttl: u64,
    again: bool,
}

impl Life {
    /// The acknowledged ones, with when that was.
    fn acknowledged(&self) -> impl Iterator<Item = (Beat, u64)> + '_ {
        self.beats.iter().filter_map(|beat| Some((*beat, beat.ret?)))
    }

    /// The first moment at which it may be critical: a whole TTL in which no acknowledged heartbeat or
    /// registration lies. A registration that may have come lets its own TTL run, at the earliest from its call.
    fn may_be_critical_from(&self) -> Option<u64> {
        let over = |beat: &Beat| beat.call.saturating_add(beat.ttl);
        let is_silence = |beat: &Beat| {
            let is_within = |(next, ret): (Beat, u64)| next.call > beat.call && ret <= over(beat);
            !self.acknowledged().any(is_within)
        };
        let known = self.acknowledged().map(|(beat, _)| beat);
        let in_doubt = self.beats.iter().copied().filter(|beat| beat.again && beat.ret.is_none());
        known.chain(in_doubt).filter(is_silence).map(|beat| over(&beat)).min()
    }

    /// The newest registration or heartbeat, and when it was acknowledged, if nothing is in doubt.
    fn last(&self) -> Option<(Beat, u64)> {
        let is_known = self.beats.iter().all(|beat| beat.ret.is_some());
        self.acknowledged().filter(|_| is_known).max_by_key(|(_, ret)| *ret)
    }

    /// The moment by which it must be critical, if it is known when its last heartbeat took effect.
    fn must_be_critical_from(&self, weather: &Weather) -> Option<u64> {
        let (last, ret) = self.last()?;
        Some(weather.due(ret, last.ttl.saturating_add(LATE_MAX)))
    }
}

/// No server shows a life as critical, by whatever kind of read, before it may be, and every one answers with
/// what can be read.
pub(crate) fn check_early(events: &[Event]) -> Verdict {
    let lives = lives(events);
    let limits: BTreeMap<u64, u64> =
        lives.iter().filter_map(|(id, life)| Some((*id, life.may_be_critical_from()?))).collect();
    let (looks, mut violations) = looks(events);
    let mut blamed = BTreeSet::new();
    for look in &looks {
        for id in look.numbers() {
            let Some(limit) = limits.get(id).filter(|limit| look.ret < **limit) else { continue };
            if blamed.insert(id) {
                let early = (limit - look.ret) / MILLISECOND;
                violations.push(format!(
                    "life {id} was critical at least {early} ms before its TTL was over, in a {} read of n{} that ended at {} ns",
                    look.kind(), look.node, look.ret
                ));
            }
        }
    }
    let lives = limits.len();
    if violations.is_empty() && (looks.is_empty() || lives < LIVES_MIN) {
        return Verdict::Vacuous(format!(
            "{lives} lives were looked at {} times, of {LIVES_MIN} or more",
            looks.len()
        ));
    }
    Verdict::from_violations(violations)
}

/// Every default read, at every server, shows a silent life as critical once it must be, and not any more once it
/// is deregistered.
pub(crate) fn check_late(events: &[Event], weather: &Weather) -> Verdict {
    let looks = default_looks(events);
    let mut judged = 0_u64;
    let mut violations = Vec::new();
    for (id, life) in lives(events) {
        let must = looks_that_must_show(&life, &looks, weather);
        judged += u64::from(!must.is_empty());
        if let Some(look) = must.iter().find(|look| !look.shows(id)) {
            let due = life.must_be_critical_from(weather).unwrap_or_default();
            let late = (look.call - due) / MILLISECOND;
            violations.push(format!(
                "life {id} was not critical {late} ms after its TTL of {} ms, the documented bound and every allowance for leader changes, in a default read of n{} that began at {} ns",
                life.last().map_or(0, |(last, _)| last.ttl) / MILLISECOND, look.node, look.call
            ));
        }
        violations.extend(there_after_its_end(id, &life, &looks));
    }
    if violations.is_empty() && judged < JUDGED_MIN {
        return Verdict::Vacuous(format!(
            "{judged} silent lives were looked at after their time, of {JUDGED_MIN} or more"
        ));
    }
    Verdict::from_violations(violations)
}

/// A registration that may yet come brings a life back, so nothing is held against such a one.
fn there_after_its_end(id: u64, life: &Life, looks: &[&Look]) -> Option<String> {
    let gone = life.gone.filter(|_| life.last().is_some())?;
    let first = looks.partition_point(|look| look.call <= gone);
    let look = looks[first..].iter().find(|look| look.shows(id))?;
    Some(format!(
        "life {id} was critical after its deregistration was acknowledged at {gone} ns, in a default read of n{} that began at {} ns",
        look.node, look.call
    ))
}

/// How much there was to judge.
pub(crate) fn count(events: &[Event], weather: &Weather) -> Counts {
    let lives = lives(events);
    let looks = default_looks(events);
    let critical: BTreeSet<u64> =
        self::looks(events).0.iter().flat_map(|look| look.numbers()).copied().collect();
    let judged = |life: &&Life| !looks_that_must_show(life, &looks, weather).is_empty();
    Counts {
        lifetimes: lives.len() as u64,
        expired: lives.keys().filter(|id| critical.contains(id)).count() as u64,
        judged_late: lives.values().filter(judged).count() as u64,
        again: lives.values().flat_map(Life::acknowledged).filter(|(beat, _)| beat.again).count()
            as u64,
    }
}

/// The default reads between the moment when a life must be critical and its deregistration; `looks` are
/// in the order of their calls.
fn looks_that_must_show<'a>(life: &Life, looks: &[&'a Look], weather: &Weather) -> Vec<&'a Look> {
    let Some(due) = life.must_be_critical_from(weather) else { return Vec::new() };
    let end = life.end.unwrap_or(u64::MAX);
    let first = looks.partition_point(|look| look.call <= due);
    let until_its_end = looks[first..].iter().take_while(|look| look.call < end);
    until_its_end.filter(|look| look.ret < end).copied().collect()
}

/// Only what has an acknowledged registration: before that, nobody knows when it began.
fn lives(events: &[Event]) -> BTreeMap<u64, Life> {
    let mut lives: BTreeMap<u64, Life> = BTreeMap::new();
    for event in events {
        match event {
            Event::Beat { life, ttl_ms, again, call, ret } => {
                let ttl = ttl_ms.saturating_mul(MILLISECOND);
                let beat = Beat { call: *call, ret: *ret, ttl, again: *again };
                lives.entry(*life).or_default().beats.push(beat);
            }
            Event::End { life, call } => lives.entry(*life).or_default().end = Some(*call),
            Event::Gone { life, ret } => lives.entry(*life).or_default().gone = Some(*ret),
            Event::Look(_) => {}
        }
    }
    lives.retain(|_, life| {
        let first = life.beats.iter().min_by_key(|beat| beat.call);
        first.is_some_and(|beat| beat.ret.is_some())
    });
    lives
}

/// The looks in the order of their calls, and a violation for each that cannot be read.
fn looks(events: &[Event]) -> (Vec<&Look>, Vec<String>) {
    let looks = events.iter().filter_map(|event| match event {
        Event::Look(look) => Some(look),
        Event::Beat { .. } | Event::End { .. } | Event::Gone { .. } => None,
    });
    readable(looks, "checks")
}

fn default_looks(events: &[Event]) -> Vec<&Look> {
    looks(events).0.into_iter().filter(|look| !look.stale).collect()
}

#[cfg(test)]
mod tests;
