//! A session with a TTL exists as long as it is renewed, ends at twice its TTL, and is gone as soon as its
//! destruction is acknowledged.
//!
//! Consul promises an end between TTL and twice the TTL after the last renewal. Quorate documents twice the TTL as
//! both the lower and the upper bound.
//!
//! A `?stale` read may lag, but within one process it does not go back: a session that a server has shown stays
//! visible there until its end, unless the server was restarted in between.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Verdict;
use super::look::{Look, readable};
use super::restarts::Restarts;
use super::weather::{MILLISECOND, Weather};

/// Documented: gone by twice the TTL plus this in default reads on every server.
const LATE_MAX: u64 = 500 * MILLISECOND;
/// A session lives for this many TTLs after its last renewal.
const TTLS: u64 = 2;
/// With fewer sessions seen to reach their end than this, a run that is valid was lucky. Runs of 17 s and 30 s
/// have more than a hundred, whatever the faults.
const EXPIRED_MIN: u64 = 10;

/// What the workload writes down. A request was sent at `call` and answered at `ret` or `end`; without a `ret` its
/// outcome is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "kebab-case")]
pub(crate) enum Event {
    /// An acknowledged creation.
    Create {
        /// The number in its name, which nobody else uses.
        session: u64,
        ttl_ms: u64,
        call: u64,
        ret: u64,
    },
    /// A renewal.
    Renew {
        session: u64,
        call: u64,
        ret: Option<u64>,
        /// Whether there was such a session.
        found: bool,
    },
    /// A destruction.
    Destroy { session: u64, call: u64, ret: Option<u64> },
    /// All sessions that there are, according to one server.
    #[serde(alias = "unreadable")]
    Look(Look),
}

/// How much there was to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Sessions that were created.
    pub(crate) sessions: u64,
    /// Acknowledged renewals.
    pub(crate) renewals: u64,
    /// Sessions that a default read was held to show as gone, after a destruction.
    pub(crate) destroyed: u64,
    /// The same after their time was over.
    pub(crate) expired: u64,
}

#[derive(Debug, Default)]
struct Life {
    ttl: u64,
    created: u64,
    /// Acknowledged creation and renewals.
    renewals: Vec<(u64, u64)>,
    is_in_doubt: bool,
    not_found: Vec<u64>,
    destroy: Option<(u64, Option<u64>)>,
}

impl Life {
    /// The first moment at which it may be gone.
    fn may_be_gone_from(&self) -> u64 {
        let span = self.ttl.saturating_mul(TTLS);
        let is_silence = |from: u64| {
            !self
                .renewals
                .iter()
                .any(|(call, ret)| *call > from && *ret <= from.saturating_add(span))
        };
        let silences = self.renewals.iter().map(|(call, _)| *call).filter(|call| is_silence(*call));
        let expires = silences.min().map_or(u64::MAX, |from| from.saturating_add(span));
        self.destroy.map_or(expires, |(call, _)| call.min(expires))
    }

    /// The moment by which its TTL must have ended it, if it is known when it was last renewed.
    fn must_expire_by(&self, weather: &Weather) -> Option<u64> {
        let last = self.renewals.iter().map(|(_, ret)| *ret).max()?;
        let known = !self.is_in_doubt && self.destroy.is_none();
        let span = self.ttl.saturating_mul(TTLS).saturating_add(LATE_MAX);
        known.then(|| weather.due(last, span))
    }

    fn destroyed_at(&self) -> Option<u64> {
        self.destroy.and_then(|(_, ret)| ret)
    }
}

/// Judges a run.
pub(crate) fn check(events: &[Event], weather: &Weather, restarts: &Restarts) -> Verdict {
    let lives = lives(events);
    let (looks, mut violations) = looks(events);
    let (default, stale): (Vec<_>, Vec<_>) = looks.into_iter().partition(|look| !look.stale);
    for (id, life) in &lives {
        violations.extend(gone_early(*id, life, &default));
        violations.extend(gone_early_in_stale(*id, life, &stale, restarts));
        violations.extend(there_after_its_end(*id, life, &default, weather));
    }
    let expired = count(events, weather).expired;
    if violations.is_empty() && expired < EXPIRED_MIN {
        return Verdict::Vacuous(format!(
            "{expired} sessions were seen to reach their end, of {EXPIRED_MIN} or more"
        ));
    }
    Verdict::from_violations(violations)
}

/// How much there was to judge.
pub(crate) fn count(events: &[Event], weather: &Weather) -> Counts {
    let lives = lives(events);
    let last = looks(events).0.iter().filter(|look| !look.stale).map(|look| look.call).max();
    let is_seen_after = |end: Option<u64>| end.is_some_and(|end| last > Some(end));
    let of = |condition: &dyn Fn(&Life) -> bool| {
        lives.values().filter(|life| condition(life)).count() as u64
    };
    Counts {
        sessions: lives.len() as u64,
        renewals: lives.values().map(|life| life.renewals.len() as u64 - 1).sum(),
        destroyed: of(&|life| is_seen_after(life.destroyed_at())),
        expired: of(&|life| is_seen_after(life.must_expire_by(weather))),
    }
}

fn gone_early(id: u64, life: &Life, looks: &[&Look]) -> Option<String> {
    let limit = life.may_be_gone_from();
    let first = looks.partition_point(|look| look.call <= life.created);
    let mut relevant = looks[first..].iter().take_while(|look| look.call < limit);
    if let Some(look) = relevant.find(|look| look.ret < limit && !look.shows(id)) {
        let why = look.describe();
        return Some(format!(
            "session {id} was gone before its time in {why}; it had until {limit}"
        ));
    }
    let refused = life.not_found.iter().find(|ret| **ret < limit)?;
    Some(format!(
        "session {id} was gone before its time for a renewal that ended at {refused} ns; it had until {limit}"
    ))
}

/// A stale read may not know a session yet. Once a server has shown it, only a restart may take it back.
fn gone_early_in_stale(
    id: u64,
    life: &Life,
    looks: &[&Look],
    restarts: &Restarts,
) -> Option<String> {
    let limit = life.may_be_gone_from();
    // When each server has last shown it.
    let mut shown: BTreeMap<u64, u64> = BTreeMap::new();
    let first = looks.partition_point(|look| look.call <= life.created);
    for look in looks[first..].iter().take_while(|look| look.call < limit) {
        if look.shows(id) {
            shown.insert(look.node, look.ret);
        } else if let Some(since) = shown.get(&look.node).filter(|since| **since < look.call)
            && look.ret < limit
            && !restarts.is_between(look.node, *since, look.ret)
        {
            let why = look.describe();
            return Some(format!(
                "session {id} was gone before its time in {why}; it had until {limit}"
            ));
        }
    }
    None
}

fn there_after_its_end(id: u64, life: &Life, looks: &[&Look], weather: &Weather) -> Option<String> {
    let (end, why) = match life.destroyed_at() {
        Some(ret) => (ret, "it was destroyed"),
        None => (life.must_expire_by(weather)?, "twice its TTL and every allowance"),
    };
    let first = looks.partition_point(|look| look.call <= end);
    let look = looks[first..].iter().find(|look| look.shows(id))?;
    let late = (look.call - end) / MILLISECOND;
    Some(format!("session {id} was there {late} ms after {why}, in {}", look.describe()))
}

fn lives(events: &[Event]) -> BTreeMap<u64, Life> {
    let mut lives: BTreeMap<u64, Life> = BTreeMap::new();
    for event in events {
        if let Event::Create { session, ttl_ms, call, ret } = event {
            let life = lives.entry(*session).or_default();
            (life.ttl, life.created) = (ttl_ms.saturating_mul(MILLISECOND), *ret);
            life.renewals.push((*call, *ret));
        }
    }
    for event in events {
        let (Event::Renew { session, .. } | Event::Destroy { session, .. }) = event else {
            continue;
        };
        let Some(life) = lives.get_mut(session) else { continue };
        match event {
            Event::Renew { call, ret: Some(ret), found: true, .. } => {
                life.renewals.push((*call, *ret));
            }
            Event::Renew { ret: Some(ret), found: false, .. } => life.not_found.push(*ret),
            Event::Renew { ret: None, .. } => life.is_in_doubt = true,
            Event::Destroy { call, ret, .. } => life.destroy = Some((*call, *ret)),
            Event::Create { .. } | Event::Look(_) => {}
        }
    }
    lives
}

/// The looks in the order of their calls, and a violation for each that cannot be read.
fn looks(events: &[Event]) -> (Vec<&Look>, Vec<String>) {
    let looks = events.iter().filter_map(|event| match event {
        Event::Look(look) => Some(look),
        Event::Create { .. } | Event::Renew { .. } | Event::Destroy { .. } => None,
    });
    readable(looks, "sessions")
}

#[cfg(test)]
mod tests;
