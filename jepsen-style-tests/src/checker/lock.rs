//! Locks: one holder at a time, fencing tokens that never decrease, and a lock-delay after a holder was lost.
//!
//! A client that was answered "true" holds the lock until it sends a release, sends the destruction of its session,
//! or its session may have ended. In that time, and for the lock-delay after any end but a release, nobody else may
//! be answered "true". An acquisition with an unknown outcome proves nothing: it may hold the lock, and excludes
//! nobody.
//!
//! The fencing token of a hold is the key's `LockIndex`. It is written along with the guarded data, in a
//! transaction that checks the session, so tokens never decrease in the order of the data's `ModifyIndex`.
//!
//! The end of a session releases or deletes its locks, depending on its behaviour. Each lock is used by sessions of
//! one behaviour only. A lock that is deleted with its holder never exists without one, and its token is the key's
//! `CreateIndex`; any other lock stays, and is not held by a session that was destroyed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Verdict;
use super::order::{Sight, regressions};
use super::weather::MILLISECOND;

/// With fewer locks handed from one session to another than this, a run that is valid was lucky. Runs of
/// 17 s hand over more than a hundred, and those in which all servers are killed again and again
/// seventy.
const HANDOVERS_MIN: u64 = 5;
/// The same for guarded writes that were fenced off, of which such runs have 25 and more.
const FENCED_MIN: u64 = 5;
/// The same for lock-delays that refused somebody, of which such runs have a dozen and more.
const DELAYS_MIN: u64 = 3;

/// What the workload writes down. A request was sent at `call` and answered at `ret` or `end`; without a `ret` its
/// outcome is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "kebab-case")]
pub(crate) enum Event {
    /// An acknowledged session; it is never renewed.
    Session {
        session: String,
        /// It lives at least this long.
        life_ms: u64,
        /// How long its locks stay closed after it ended.
        delay_ms: u64,
        /// Whether its end deletes its locks, instead of releasing them.
        #[serde(default)]
        deletes: bool,
        /// When its creation was sent.
        call: u64,
    },
    /// An acquisition.
    Acquire {
        lock: u64,
        session: String,
        call: u64,
        ret: Option<u64>,
        /// Whether it was granted.
        ok: bool,
    },
    /// A default read of the lock.
    Read {
        lock: u64,
        call: u64,
        ret: u64,
        /// The holder's session; what cannot be read is a holder that no session has.
        holder: Option<String>,
        /// The token; 0: the lock is not there.
        lock_index: u64,
    },
    /// Guarded data, written under the condition that the session holds the lock.
    Write {
        /// Which lock guards it.
        lock: u64,
        session: String,
        /// The writer's token.
        token: u64,
        /// What is written; nobody else writes it.
        value: u64,
        call: u64,
        ret: Option<u64>,
        /// Whether it was written; false: the writer was fenced off.
        ok: bool,
        /// The data's `ModifyIndex` after it.
        index: u64,
    },
    /// A release.
    Release { lock: u64, session: String, call: u64 },
    /// The destruction of a session.
    Destroy {
        session: String,
        call: u64,
        #[serde(default)]
        ret: Option<u64>,
    },
    /// What was there at the end.
    End {
        lock: u64,
        lock_index: u64,
        /// All guarded values that were written.
        values: Vec<u64>,
    },
}

/// How much there was to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    /// Acknowledged acquisitions.
    pub(crate) acquired: u64,
    /// Acquisitions that were refused.
    pub(crate) refused: u64,
    /// Acknowledged guarded writes.
    pub(crate) written: u64,
    /// Guarded writes that were fenced off.
    pub(crate) fenced: u64,
    /// Holds that another session's followed.
    pub(crate) handed_over: u64,
    /// Holds that ended with their session and whose lock-delay refused somebody.
    pub(crate) delayed: u64,
    /// Reads that showed a lock gone that an ended session deletes.
    pub(crate) deleted: u64,
}

/// A granted acquisition.
#[derive(Debug)]
struct Hold<'a> {
    lock: u64,
    session: &'a str,
    /// When it was granted.
    from: u64,
    /// Until when it surely holds.
    held_until: u64,
    /// Until when nobody else may acquire; later than the former if there is a lock-delay.
    closed_until: u64,
}

/// Judges a run.
pub(crate) fn check(events: &[Event]) -> Verdict {
    let holds = holds(events);
    let mut violations = two_holders(&holds);
    violations.extend(holders_from_nowhere(events));
    violations.extend(contradicting_reads(events, &holds));
    violations.extend(ends_of_sessions(events));
    violations.extend(shared_tokens(events));
    violations.extend(tokens_that_fall(events));
    violations.extend(unguarded_writes(events, &holds));
    violations.extend(fencing(events));
    violations.extend(ends(events));
    if !violations.is_empty() {
        return Verdict::Invalid(violations);
    }
    too_little(events).map_or(Verdict::Valid, Verdict::Vacuous)
}

/// What the run lacks to say anything; none if nothing.
fn too_little(events: &[Event]) -> Option<String> {
    let counts = count(events);
    let wanted = [
        (counts.handed_over, HANDOVERS_MIN, "locks were handed over"),
        (counts.fenced, FENCED_MIN, "guarded writes were fenced off"),
        (counts.delayed, DELAYS_MIN, "lock-delays refused somebody"),
        (counts.written, 1, "guarded writes were acknowledged"),
    ];
    if let Some((there, least, what)) = wanted.into_iter().find(|(there, least, _)| there < least) {
        return Some(format!("{there} {what}, of {least} or more"));
    }
    let has_end = events.iter().any(|event| matches!(event, Event::End { .. }));
    (!has_end).then(|| "what was there at the end was not read".to_owned())
}

/// How much there was to judge.
pub(crate) fn count(events: &[Event]) -> Counts {
    let mut counts = Counts::default();
    for event in events {
        match event {
            Event::Acquire { ret: Some(_), ok: true, .. } => counts.acquired += 1,
            Event::Acquire { ret: Some(_), ok: false, .. } => counts.refused += 1,
            Event::Write { ret: Some(_), ok: true, .. } => counts.written += 1,
            Event::Write { ret: Some(_), ok: false, .. } => counts.fenced += 1,
            Event::Session { .. }
            | Event::Acquire { .. }
            | Event::Read { .. }
            | Event::Write { .. }
            | Event::Release { .. }
            | Event::Destroy { .. }
            | Event::End { .. } => {}
        }
    }
    let holds = holds(events);
    counts.handed_over = handed_over(&holds);
    counts.deleted = deleted(events);
    counts.delayed = holds.iter().filter(|hold| has_refused_by_delay(hold, events)).count() as u64;
    counts
}

fn handed_over(holds: &[Hold<'_>]) -> u64 {
    let mut last: BTreeMap<u64, &str> = BTreeMap::new();
    let mut count = 0;
    for hold in holds {
        let before = last.insert(hold.lock, hold.session);
        count += u64::from(before.is_some_and(|before| before != hold.session));
    }
    count
}

/// Whether another session asked after the holder's had ended and was refused within the delay. Only a count:
/// the end itself may still have been on its way.
fn has_refused_by_delay(hold: &Hold<'_>, events: &[Event]) -> bool {
    let is_refusal = |event: &Event| {
        let Event::Acquire { lock, session, call, ret: Some(ret), ok: false } = event else {
            return false;
        };
        let is_within = hold.held_until < *call && *ret < hold.closed_until;
        *lock == hold.lock && session != hold.session && is_within
    };
    hold.held_until < hold.closed_until && events.iter().any(is_refusal)
}

/// What is known of a session.
#[derive(Debug, Default)]
struct Lifetime {
    /// It surely lives until then, unless it is destroyed.
    ends: u64,
    delay: u64,
    destroyed: Option<u64>,
    releases: Vec<(u64, u64)>,
}

/// All granted acquisitions, in the order in which they were granted.
fn holds(events: &[Event]) -> Vec<Hold<'_>> {
    let lifetimes = lifetimes(events);
    let mut holds = Vec::new();
    for event in events {
        // A session that nobody knows proves nothing: its hold may have ended at once.
        if let Event::Acquire { lock, session, ret: Some(ret), ok: true, .. } = event
            && let Some(lifetime) = lifetimes.get(session.as_str())
        {
            holds.push(hold(lifetime, *lock, session, *ret));
        }
    }
    holds.sort_by_key(|hold| hold.from);
    holds
}

fn lifetimes(events: &[Event]) -> BTreeMap<&str, Lifetime> {
    let mut lifetimes: BTreeMap<&str, Lifetime> = BTreeMap::new();
    for event in events {
        match event {
            Event::Session { session, life_ms, delay_ms, call, .. } => {
                let lifetime = lifetimes.entry(session).or_default();
                lifetime.ends = call.saturating_add(life_ms.saturating_mul(MILLISECOND));
                lifetime.delay = delay_ms.saturating_mul(MILLISECOND);
            }
            Event::Release { lock, session, call } => {
                lifetimes.entry(session).or_default().releases.push((*lock, *call));
            }
            Event::Destroy { session, call, .. } => {
                // It may be tried more than once; the first may be the one that did it.
                let destroyed = &mut lifetimes.entry(session).or_default().destroyed;
                *destroyed = Some(destroyed.unwrap_or(u64::MAX).min(*call));
            }
            Event::Acquire { .. }
            | Event::Read { .. }
            | Event::Write { .. }
            | Event::End { .. } => {}
        }
    }
    lifetimes
}

fn hold<'a>(lifetime: &Lifetime, lock: u64, session: &'a str, from: u64) -> Hold<'a> {
    let releases = lifetime.releases.iter().filter(|(which, call)| *which == lock && *call > from);
    let released = releases.map(|(_, call)| *call).min().unwrap_or(u64::MAX);
    let ended = lifetime.destroyed.unwrap_or(u64::MAX).min(lifetime.ends);
    let closed_until =
        if released < ended { released } else { ended.saturating_add(lifetime.delay) };
    Hold { lock, session, from, held_until: ended.min(released), closed_until }
}

fn two_holders(holds: &[Hold<'_>]) -> Vec<String> {
    let mut violations = Vec::new();
    let mut longest: BTreeMap<u64, &Hold<'_>> = BTreeMap::new();
    for hold in holds {
        let last = longest.entry(hold.lock).or_insert(hold);
        if last.session != hold.session && hold.from < last.closed_until {
            let when =
                if hold.from < last.held_until { "it held it" } else { "its lock-delay went on" };
            violations.push(format!(
                "lock {} was granted to {} at {} ns while {} had it: {when} until {} ns, since {} ns",
                hold.lock, hold.session, hold.from, last.session, last.closed_until, last.from
            ));
        }
        if hold.closed_until > last.closed_until {
            *last = hold;
        }
    }
    violations
}

/// The locks that are deleted with their holders.
fn deleted_locks(events: &[Event]) -> BTreeSet<u64> {
    let mut deleting = BTreeSet::new();
    for event in events {
        if let Event::Session { session, deletes: true, .. } = event {
            deleting.insert(session.as_str());
        }
    }
    let mut locks = BTreeSet::new();
    for event in events {
        if let Event::Acquire { lock, session, .. } = event
            && deleting.contains(session.as_str())
        {
            locks.insert(*lock);
        }
    }
    locks
}

/// Reads that found nothing where a lock had been granted before that is deleted with its holder.
fn deleted(events: &[Event]) -> u64 {
    let (locks, granted) = (deleted_locks(events), first_grants(events));
    let is_deletion = |event: &&Event| match event {
        Event::Read { lock, call, lock_index: 0, .. } => {
            locks.contains(lock) && granted.get(lock).is_some_and(|first| first < call)
        }
        _ => false,
    };
    events.iter().filter(is_deletion).count() as u64
}

/// When each lock was first granted to somebody.
fn first_grants(events: &[Event]) -> BTreeMap<u64, u64> {
    let mut granted: BTreeMap<u64, u64> = BTreeMap::new();
    for event in events {
        if let Event::Acquire { lock, ret: Some(ret), ok: true, .. } = event {
            let first = granted.entry(*lock).or_insert(*ret);
            *first = (*first).min(*ret);
        }
    }
    granted
}

/// What the end of a session leaves of its locks: nothing, or a lock without a holder.
fn ends_of_sessions(events: &[Event]) -> Vec<String> {
    let (deleted, granted) = (deleted_locks(events), first_grants(events));
    let mut destroyed = BTreeMap::new();
    for event in events {
        if let Event::Destroy { session, ret: Some(ret), .. } = event {
            destroyed.entry(session.as_str()).or_insert(*ret);
        }
    }
    let mut violations = Vec::new();
    for event in events {
        let Event::Read { lock, call, ret, holder, lock_index } = event else { continue };
        let is_there = *lock_index > 0;
        let wrong = match holder {
            Some(holder) => destroyed.get(holder.as_str()).filter(|end| *end < call).map(|end| {
                format!("is held by {holder}, whose destruction was acknowledged at {end} ns")
            }),
            None if is_there && deleted.contains(lock) => {
                Some("is there without a holder, and should be gone with it".to_owned())
            }
            None => {
                let first = granted.get(lock).filter(|first| *first < call);
                let vanished = first.filter(|_| !is_there && !deleted.contains(lock));
                vanished.map(|first| format!("is gone, though it was granted at {first} ns"))
            }
        };
        if let Some(wrong) = wrong {
            violations.push(format!("lock {lock} {wrong}: a read from {call} to {ret} ns"));
        }
    }
    violations
}

/// Nobody holds a lock who never asked for it.
fn holders_from_nowhere(events: &[Event]) -> Vec<String> {
    let mut asked = BTreeSet::new();
    for event in events {
        if let Event::Acquire { lock, session, .. } = event {
            asked.insert((*lock, session.as_str()));
        }
    }
    let mut violations = Vec::new();
    for event in events {
        let Event::Read { lock, call, ret, holder: Some(holder), .. } = event else { continue };
        if !asked.contains(&(*lock, holder.as_str())) {
            violations.push(format!(
                "the holder of lock {lock} comes from nowhere: a read from {call} to {ret} ns saw {holder:?}"
            ));
        }
    }
    violations
}

/// A read of a lock that somebody certainly holds shows that holder.
fn contradicting_reads(events: &[Event], holds: &[Hold<'_>]) -> Vec<String> {
    let mut violations = Vec::new();
    for event in events {
        let Event::Read { lock, call, ret, holder, .. } = event else { continue };
        let during =
            |hold: &&Hold<'_>| hold.lock == *lock && hold.from < *call && *ret < hold.held_until;
        let Some(hold) = holds.iter().find(during) else { continue };
        if holder.as_deref() != Some(hold.session) {
            violations.push(format!(
                "lock {lock} was held by {} from {} to {} ns, and a read from {call} to {ret} ns saw {holder:?}",
                hold.session, hold.from, hold.held_until
            ));
        }
    }
    violations
}

/// Each token belongs to one holder.
fn shared_tokens(events: &[Event]) -> Vec<String> {
    let mut owners: BTreeMap<(u64, u64), &str> = BTreeMap::new();
    let mut violations = Vec::new();
    for event in events {
        let Event::Read { lock, holder: Some(holder), lock_index, .. } = event else { continue };
        let owner = owners.entry((*lock, *lock_index)).or_insert(holder);
        if owner != holder {
            violations.push(format!(
                "token {lock_index} of lock {lock} belongs to {owner} and to {holder}"
            ));
        }
    }
    violations
}

/// A read that began after another one returned does not see a smaller token. A lock that was deleted has none.
fn tokens_that_fall(events: &[Event]) -> Vec<String> {
    let deleted = deleted_locks(events);
    let mut reads: BTreeMap<u64, Vec<Sight>> = BTreeMap::new();
    for event in events {
        if let Event::Read { lock, call, ret, lock_index, .. } = event
            && (*lock_index > 0 || !deleted.contains(lock))
        {
            let (call, ret, position) = (*call, Some(*ret), *lock_index);
            reads.entry(*lock).or_default().push(Sight { call, ret, position, is_new: false });
        }
    }
    let mut violations = Vec::new();
    for (lock, sights) in reads {
        violations.extend(regressions(&sights).into_iter().map(|(earlier, later)| {
            let (earlier, later) = (sights[earlier], sights[later]);
            format!(
                "the token of lock {lock} fell from {} to {} in a read that began at {} ns",
                earlier.position, later.position, later.call
            )
        }));
    }
    violations
}

/// Nobody writes guarded data while somebody else surely holds the lock.
fn unguarded_writes(events: &[Event], holds: &[Hold<'_>]) -> Vec<String> {
    let mut violations = Vec::new();
    for event in events {
        let Event::Write { lock, session, value, call, ret: Some(ret), ok: true, .. } = event
        else {
            continue;
        };
        let other = holds.iter().find(|hold| {
            let during = hold.from < *call && *ret < hold.held_until;
            hold.lock == *lock && hold.session != session && during
        });
        if let Some(other) = other {
            violations.push(format!(
                "{session} wrote {value} from {call} to {ret} ns while {} held lock {lock}",
                other.session
            ));
        }
    }
    violations
}

/// In the order in which guarded data was written, no token goes back.
fn fencing(events: &[Event]) -> Vec<String> {
    let mut writes: BTreeMap<u64, Vec<(u64, u64, u64)>> = BTreeMap::new();
    for event in events {
        if let Event::Write { lock, token, value, ret: Some(_), ok: true, index, .. } = event {
            writes.entry(*lock).or_default().push((*index, *token, *value));
        }
    }
    let mut violations = Vec::new();
    for (lock, mut writes) in writes {
        writes.sort_unstable();
        for pair in writes.windows(2) {
            let ((_, before, first), (_, after, second)) = (pair[0], pair[1]);
            if after < before {
                violations.push(format!(
                    "lock {lock}: {second} was written with token {after} after {first} with token {before}"
                ));
            }
            if pair[0].0 == pair[1].0 {
                violations
                    .push(format!("lock {lock}: {first} and {second} have the same ModifyIndex"));
            }
        }
    }
    violations
}

/// What was acknowledged is there at the end, what was refused is not, and each grant raised the token by one
/// (unless the lock is deleted with its holder).
fn ends(events: &[Event]) -> Vec<String> {
    let deleted = deleted_locks(events);
    let mut violations = Vec::new();
    for event in events {
        let Event::End { lock: which, lock_index, values } = event else { continue };
        let there: BTreeSet<_> = values.iter().collect();
        let (mut granted, mut unknown) = (0, 0);
        for event in events {
            match event {
                Event::Write { lock, value, ret: Some(_), ok, .. }
                    if lock == which && *ok != there.contains(value) =>
                {
                    let what =
                        if *ok { "acknowledged and is lost" } else { "fenced off and is there" };
                    violations.push(format!("lock {which}: the write of {value} was {what}"));
                }
                Event::Acquire { lock, ret, ok, .. } if lock == which => {
                    granted += u64::from(ret.is_some() && *ok);
                    unknown += u64::from(ret.is_none());
                }
                Event::Session { .. }
                | Event::Acquire { .. }
                | Event::Read { .. }
                | Event::Write { .. }
                | Event::Release { .. }
                | Event::Destroy { .. }
                | Event::End { .. } => {}
            }
        }
        if !deleted.contains(which) && !(granted..=granted + unknown).contains(lock_index) {
            violations.push(format!(
                "the token of lock {which} is {lock_index} at the end, after {granted} grants and {unknown} acquisitions of unknown outcome"
            ));
        }
    }
    violations
}

#[cfg(test)]
mod tests;
