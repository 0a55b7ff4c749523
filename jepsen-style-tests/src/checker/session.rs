//! A session with a TTL lives as long as it is renewed, ends at twice its TTL, and is gone at once when
//! it is destroyed.
//!
//! Consul promises an end between TTL and twice the TTL after the last renewal; Quorate documents twice the TTL
//! for both sides, so that is what it is held to.
//!
//! A `?stale` read may lag, but within the life of one process it does not go back: what a server has shown
//! it shows until its end, unless the server was restarted in between.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Verdict;
use super::restarts::Restarts;
use super::weather::{MILLISECOND, Weather};

/// Documented: gone by twice the TTL plus this in default reads on every server.
const LATE_MAX: u64 = 500 * MILLISECOND;
/// A session lives for this many TTLs after its last renewal.
const TTLS: u64 = 2;
/// With fewer sessions seen to reach their end than this, a run that is valid was lucky. Runs of 17 s and 30 s
/// have more than a hundred, whatever the faults.
const EXPIRED_MIN: u64 = 10;
/// What the workload writes down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "kebab-case")]
pub(crate) enum Event {
    /// An acknowledged creation.
    Create {
        /// The number in its name, which nobody else uses.
        session: u64,
        /// Its TTL.
        ttl_ms: u64,
        /// When it was sent.
        call: u64,
        /// When it was acknowledged.
        ret: u64,
    },
    /// A renewal.
    Renew {
        /// Whose.
        session: u64,
        /// When it was sent.
        call: u64,
        /// When it was answered; null: its outcome is unknown.
        ret: Option<u64>,
        /// Whether there was such a session.
        found: bool,
    },
    /// A destruction.
    Destroy {
        /// Whose.
        session: u64,
        /// When it was sent.
        call: u64,
        /// When it was acknowledged; null: its outcome is unknown.
        ret: Option<u64>,
    },
    /// All sessions there are, according to one server.
    Look {
        /// The server.
        node: u64,
        /// Whether it was a `?stale` read.
        stale: bool,
        /// When it was asked.
        call: u64,
        /// When it answered.
        ret: u64,
        /// The sessions, in ascending order.
        there: Vec<u64>,
    },
    /// The same, but the answer was no list of sessions.
    Unreadable {
        /// The server.
        node: u64,
        /// Whether it was a `?stale` read.
        stale: bool,
        /// When it was asked.
        call: u64,
        /// When it answered.
        ret: u64,
    },
}

/// What a run's events tell of.
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

#[derive(Debug)]
struct Look {
    node: u64,
    stale: bool,
    call: u64,
    ret: u64,
    /// In ascending order.
    there: Vec<u64>,
}

impl Look {
    fn shows(&self, session: u64) -> bool {
        self.there.binary_search(&session).is_ok()
    }

    fn describe(&self) -> String {
        describe(self.node, self.stale, self.call, self.ret)
    }
}

fn describe(node: u64, stale: bool, call: u64, ret: u64) -> String {
    let kind = if stale { "stale" } else { "default" };
    format!("a {kind} read of n{node} from {call} to {ret} ns")
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
    let (lives, looks) = (lives(events), looks(events));
    let (default, stale): (Vec<_>, Vec<_>) = looks.into_iter().partition(|look| !look.stale);
    let mut violations = unreadable(events);
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

fn unreadable(events: &[Event]) -> Vec<String> {
    let said_of = |event: &Event| {
        let Event::Unreadable { node, stale, call, ret } = event else { return None };
        let which = describe(*node, *stale, *call, *ret);
        Some(format!("no list of sessions, but something unreadable, in {which}"))
    };
    events.iter().filter_map(said_of).collect()
}

/// How much there was to judge.
pub(crate) fn count(events: &[Event], weather: &Weather) -> Counts {
    let lives = lives(events);
    let last = looks(events).iter().filter(|look| !look.stale).map(|look| look.call).max();
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

fn gone_early(id: u64, life: &Life, looks: &[Look]) -> Option<String> {
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
    looks: &[Look],
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

fn there_after_its_end(id: u64, life: &Life, looks: &[Look], weather: &Weather) -> Option<String> {
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
            Event::Create { .. } | Event::Look { .. } | Event::Unreadable { .. } => {}
        }
    }
    lives
}

/// In the order of their calls.
fn looks(events: &[Event]) -> Vec<Look> {
    let mut looks: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Look { node, stale, call, ret, there } => {
                let mut there = there.clone();
                there.sort_unstable();
                Some(Look { node: *node, stale: *stale, call: *call, ret: *ret, there })
            }
            Event::Create { .. }
            | Event::Renew { .. }
            | Event::Destroy { .. }
            | Event::Unreadable { .. } => None,
        })
        .collect();
    looks.sort_by_key(|look| look.call);
    looks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Fault;

    const END: u64 = 20_000;
    const LATE: u64 = END + 600;

    fn ms(moment: u64) -> u64 {
        moment * MILLISECOND
    }

    fn create(session: u64, call: u64) -> Event {
        Event::Create { session, ttl_ms: 10_000, call: ms(call), ret: ms(call + 10) }
    }

    fn renew(session: u64, call: u64, ret: impl Into<Option<u64>>, found: bool) -> Event {
        Event::Renew { session, call: ms(call), ret: ret.into().map(ms), found }
    }

    fn destroy(session: u64, call: u64, ret: impl Into<Option<u64>>) -> Event {
        Event::Destroy { session, call: ms(call), ret: ret.into().map(ms) }
    }

    fn look(stale: bool, call: u64, there: &[u64]) -> Event {
        let (call, ret) = (ms(call), ms(call + 10));
        Event::Look { node: 2, stale, call, ret, there: there.to_vec() }
    }

    /// The first of the sessions that no history is about.
    const OTHERS: u64 = 900;

    /// Other sessions reach their end and are seen to, so that no history is vacuous.
    fn with_ends(mut events: Vec<Event>) -> Vec<Event> {
        let others = OTHERS..OTHERS + EXPIRED_MIN;
        events.extend(others.clone().map(|session| create(session, 0)));
        for event in &mut events {
            if let Event::Look { call, there, .. } = event
                && *call < ms(LATE)
            {
                there.extend(others.clone());
            }
        }
        events.push(look(false, 90_000, &[]));
        events
    }

    fn judge(events: Vec<Event>, faults: &[Fault]) -> Verdict {
        check(&with_ends(events), &Weather::new(faults, &[], 3), &Restarts::of(faults))
    }

    /// Each is a name, a word of the sentence that must say what is wrong, and the history.
    fn reject(bad: Vec<(&str, &str, Vec<Event>)>, faults: &[Fault]) {
        for (name, word, events) in bad {
            let Verdict::Invalid(violations) = judge(events, faults) else { panic!("{name}") };
            assert!(violations.iter().any(|said| said.contains(word)), "{name}: {violations:?}");
        }
    }

    #[test]
    fn good_histories_are_accepted() {
        let good = [
            (
                "it ends in time",
                vec![create(1, 0), look(false, 10_000, &[1]), look(false, LATE, &[])],
            ),
            (
                "it is renewed",
                vec![create(1, 0), renew(1, 15_000, 15_010, true), look(false, 34_000, &[1])],
            ),
            (
                "destroyed ones are gone",
                vec![create(1, 0), destroy(1, 100, 110), look(false, 120, &[])],
            ),
            (
                "a destruction of unknown outcome may have happened",
                vec![
                    create(1, 0),
                    destroy(1, 100, None),
                    look(false, 120, &[]),
                    look(false, 130, &[]),
                ],
            ),
            ("a stale read does not know it yet", vec![create(1, 0), look(true, 100, &[])]),
            ("it was not created yet", vec![create(1, 100), look(false, 90, &[])]),
            (
                "an unknown renewal may lengthen its life",
                vec![create(1, 0), renew(1, 9_000, None, true), look(false, LATE, &[1])],
            ),
            (
                "a renewal after its end finds nothing",
                vec![create(1, 0), renew(1, 20_100, 20_110, false), look(false, LATE, &[])],
            ),
        ];
        for (name, events) in good {
            let verdict = judge(events, &[]);
            assert!(verdict.is_valid(), "{name}: {verdict}");
        }
    }

    #[test]
    fn bad_histories_are_rejected() {
        let renewed =
            |more: &[Event]| [&[create(1, 0), renew(1, 15_000, 15_010, true)][..], more].concat();
        reject(
            vec![
                (
                    "gone before its time",
                    "gone before its time in a default",
                    vec![create(1, 0), look(false, 19_000, &[])],
                ),
                (
                    "a renewal was not heard",
                    "gone before its time in a default",
                    renewed(&[look(false, 21_000, &[])]),
                ),
                ("too late", "ms after twice its TTL", vec![create(1, 0), look(false, LATE, &[1])]),
                (
                    "there after its destruction",
                    "after it was destroyed",
                    vec![create(1, 0), destroy(1, 100, 110), look(false, 120, &[1])],
                ),
                (
                    "a stale read loses it",
                    "gone before its time in a stale",
                    vec![create(1, 0), look(true, 100, &[1]), look(true, 200, &[])],
                ),
                (
                    "a renewal does not find it",
                    "for a renewal",
                    vec![create(1, 0), renew(1, 5_000, 5_010, false)],
                ),
                (
                    "a default read does not know it yet",
                    "gone before its time in a default",
                    vec![create(1, 0), look(false, 20, &[])],
                ),
                (
                    "what cannot be read",
                    "unreadable, in a stale read of n2",
                    vec![
                        create(1, 0),
                        Event::Unreadable { node: 2, stale: true, call: ms(50), ret: ms(60) },
                    ],
                ),
            ],
            &[],
        );
    }

    fn fault(nemesis: &str) -> Fault {
        Fault {
            nemesis: nemesis.to_owned(),
            affected: vec![2],
            began: ms(200),
            recovered: Some(ms(8_900)),
            ..Fault::default()
        }
    }

    #[test]
    fn a_restarted_server_may_be_behind_in_stale_reads() {
        for nemesis in ["kill", "power-cut-all", "loss+rolling-restart"] {
            let events = vec![
                create(1, 0),
                look(true, 100, &[1]),
                look(true, 9_000, &[]),
                look(true, 9_100, &[1]),
            ];
            let verdict = judge(events, &[fault(nemesis)]);
            assert!(verdict.is_valid(), "{nemesis}: {verdict}");
        }
    }

    #[test]
    fn a_fault_excuses_no_more_than_it_explains() {
        let lost = || vec![create(1, 0), look(true, 100, &[1]), look(true, 9_000, &[])];
        let word = "gone before its time in a stale";
        for nemesis in ["pause", "loss+partition"] {
            reject(vec![("no process ended", word, lost())], &[fault(nemesis)]);
        }
        let again = vec![
            create(1, 0),
            look(true, 100, &[1]),
            look(true, 9_000, &[1]),
            look(true, 9_100, &[]),
        ];
        reject(vec![("shown again since", word, again)], &[fault("kill")]);
        let elsewhere = Fault { affected: vec![3], ..fault("kill") };
        reject(vec![("another server was killed", word, lost())], &[elsewhere]);
    }

    #[test]
    fn a_list_may_be_in_any_order() {
        let create_all = [create(1, 0), create(3, 0), create(8, 0)];
        let unsorted = [create_all.as_slice(), &[look(false, 10_000, &[8, 1, 3])]].concat();
        let verdict = judge(unsorted, &[]);
        assert!(verdict.is_valid(), "{verdict}");
    }

    #[test]
    fn a_life_without_end_is_no_overflow() {
        let endless = Event::Create { session: 1, ttl_ms: u64::MAX, call: ms(1), ret: ms(2) };
        reject(vec![("gone", "it had until 18446744073709551615", vec![endless])], &[]);
    }

    #[test]
    fn lines_of_older_files_are_read() {
        let line =
            r#"{"w":"session","f":"look","node":1,"stale":true,"call":1,"ret":2,"there":[]}"#;
        let event: Event = serde_json::from_str(line).unwrap();
        assert!(matches!(event, Event::Look { node: 1, .. }));
    }

    #[test]
    fn a_run_in_which_too_few_sessions_end_proves_nothing() {
        let events = [create(1, 0), look(false, 100, &[1])];
        let verdict = check(&events, &Weather::default(), &Restarts::default());
        assert!(matches!(verdict, Verdict::Vacuous(_)), "{verdict}");
        let mut events: Vec<_> = (1..EXPIRED_MIN).map(|session| create(session, 0)).collect();
        events.push(look(false, LATE, &[]));
        let verdict = check(&events, &Weather::default(), &Restarts::default());
        assert!(matches!(verdict, Verdict::Vacuous(_)), "{verdict}");
        events.push(create(EXPIRED_MIN, 0));
        assert!(check(&events, &Weather::default(), &Restarts::default()).is_valid());
    }
}
