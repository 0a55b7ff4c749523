use super::*;
use crate::journal::{Fault, Sample};

/// A TTL of one second; moments are milliseconds.
fn beat(life: u64, call: u64, ret: impl Into<Option<u64>>) -> Event {
    let ret = ret.into().map(|ret: u64| ret * MILLISECOND);
    Event::Beat { life, ttl_ms: 1_000, again: false, call: call * MILLISECOND, ret }
}

/// A registration of what was registered before, with this TTL.
fn again(life: u64, ttl_ms: u64, call: u64, ret: impl Into<Option<u64>>) -> Event {
    let ret = ret.into().map(|ret: u64| ret * MILLISECOND);
    Event::Beat { life, ttl_ms, again: true, call: call * MILLISECOND, ret }
}

fn gone(life: u64, ret: u64) -> Event {
    Event::Gone { life, ret: ret * MILLISECOND }
}

fn look(stale: bool, call: u64, ret: u64, critical: &[u64]) -> Event {
    let (call, ret) = (call * MILLISECOND, ret * MILLISECOND);
    Event::Look(Look { node: 2, stale, call, ret, listed: Some(critical.to_vec()) })
}

fn end(life: u64, call: u64) -> Event {
    Event::End { life, call: call * MILLISECOND }
}

/// The first of the lives that no history is about.
const OTHERS: u64 = 900;
/// When the others are looked at, in ms: long after all that the histories are about.
const OTHERS_AT: u64 = 90_000;

/// Others fall silent and are seen to, so that no history is vacuous.
fn with_others(mut events: Vec<Event>) -> Vec<Event> {
    let others: Vec<u64> = (OTHERS..).take(LIVES_MIN).collect();
    let begun = OTHERS_AT - 10_000;
    events.extend(others.iter().map(|life| beat(*life, begun, begun + 10)));
    // Lives of the history that nobody deregistered are critical by then.
    let all: Vec<u64> = lives(&events).into_keys().collect();
    events.push(look(false, OTHERS_AT, OTHERS_AT + 10, &all));
    events
}

/// Each is a name, a word of the sentence that must say what is wrong, and the history.
fn reject(check: impl Fn(&[Event]) -> Verdict, bad: Vec<(&str, &str, Vec<Event>)>) {
    for (name, word, events) in bad {
        let verdict = check(&with_others(events));
        let Verdict::Invalid(violations) = verdict else { panic!("{name}: {verdict}") };
        assert!(violations.iter().any(|said| said.contains(word)), "{name}: {violations:?}");
    }
}

#[test]
fn lives_that_are_never_early_are_accepted() {
    let good = [
        ("never critical", vec![beat(1, 0, 10), look(false, 900, 910, &[])]),
        ("critical in time", vec![beat(1, 0, 10), look(false, 1_001, 1_010, &[1])]),
        ("the answer came in time", vec![beat(1, 0, 10), look(true, 990, 1_001, &[1])]),
        (
            "a heartbeat may take effect at its call",
            vec![beat(1, 0, 10), beat(1, 500, 900), look(false, 1_490, 1_501, &[1])],
        ),
        (
            "it overslept between two heartbeats, and a stale read still tells",
            vec![
                beat(1, 0, 10),
                beat(1, 1_200, 1_210),
                look(false, 1_100, 1_110, &[1]),
                look(true, 1_300, 1_310, &[1]),
            ],
        ),
        (
            "an unknown heartbeat promises nothing",
            vec![beat(1, 0, 10), beat(1, 500, None), look(false, 1_100, 1_110, &[1])],
        ),
        (
            "a heartbeat that hung promises nothing",
            vec![beat(1, 0, 10), beat(1, 500, 3_000), look(false, 1_100, 1_110, &[1])],
        ),
        (
            "nobody knows when it was registered",
            vec![beat(1, 0, None), beat(1, 100, 110), look(false, 500, 510, &[1])],
        ),
    ];
    for (name, events) in good {
        let verdict = check_early(&with_others(events));
        assert!(verdict.is_valid(), "{name}: {verdict}");
    }
}

#[test]
fn early_sightings_are_rejected() {
    let bad = vec![
        (
            "before the TTL",
            "1 ms before its TTL",
            vec![beat(1, 0, 10), look(false, 900, 999, &[1])],
        ),
        (
            "in a stale read",
            "in a stale read of n2",
            vec![beat(1, 0, 10), look(true, 900, 999, &[1])],
        ),
        (
            "a heartbeat was not heard",
            "life 1 was critical",
            vec![beat(1, 0, 10), beat(1, 500, 510), look(false, 1_100, 1_110, &[1])],
        ),
        (
            "one of two lives",
            "life 2 was critical",
            vec![beat(1, 0, 10), beat(2, 600, 610), look(false, 1_100, 1_110, &[1, 2])],
        ),
        (
            "the last of many heartbeats was not heard",
            "life 1 was critical",
            vec![
                beat(1, 0, 10),
                beat(1, 700, 710),
                beat(1, 1_400, 1_410),
                look(true, 2_300, 2_310, &[1]),
            ],
        ),
        (
            "an unknown one in between takes nothing away",
            "life 1 was critical",
            vec![
                beat(1, 0, 10),
                beat(1, 400, None),
                beat(1, 800, 810),
                look(false, 1_500, 1_600, &[1]),
            ],
        ),
    ];
    reject(check_early, bad);
}

#[test]
fn lives_that_are_never_late_are_accepted() {
    let calm = Weather::default();
    let good = [
        ("in time", vec![beat(1, 0, 10), look(false, 1_600, 1_610, &[1])]),
        (
            "within the bound",
            vec![beat(1, 0, 10), look(false, 1_500, 1_520, &[]), look(false, 1_600, 1_610, &[1])],
        ),
        (
            "a stale read may lag",
            vec![beat(1, 0, 10), look(true, 1_600, 1_610, &[]), look(false, 1_600, 1_610, &[1])],
        ),
        (
            "deregistered meanwhile",
            vec![
                beat(1, 0, 10),
                look(false, 1_600, 1_610, &[1]),
                end(1, 1_700),
                look(false, 1_690, 1_720, &[]),
            ],
        ),
        (
            "a heartbeat that was acknowledged late",
            vec![
                beat(1, 0, 10),
                beat(1, 300, 900),
                look(false, 1_600, 1_610, &[]),
                look(false, 2_500, 2_510, &[1]),
            ],
        ),
        (
            "another may live on",
            vec![
                beat(1, 0, 10),
                beat(2, 0, 10),
                beat(2, 900, None),
                look(false, 1_600, 1_610, &[1]),
            ],
        ),
    ];
    for (name, events) in good {
        let verdict = check_late(&with_others(events), &calm);
        assert!(verdict.is_valid(), "{name}: {verdict}");
    }
}

#[test]
fn late_lives_are_rejected() {
    let calm = Weather::default();
    let bad = vec![
        (
            "after the bound",
            "1 ms after its TTL of 1000 ms",
            vec![beat(1, 0, 10), look(false, 1_511, 1_520, &[])],
        ),
        ("never", "life 1 was not critical", vec![beat(1, 0, 10), look(false, 9_000, 9_010, &[])]),
        (
            "at one server only",
            "life 1 was not critical",
            vec![beat(1, 0, 10), look(false, 1_600, 1_610, &[1]), look(false, 1_600, 1_615, &[])],
        ),
        (
            "it comes back to life",
            "life 1 was not critical",
            vec![beat(1, 0, 10), look(false, 1_600, 1_610, &[1]), look(false, 1_700, 1_710, &[])],
        ),
        (
            "after its last heartbeat",
            "10 ms after its TTL",
            vec![beat(1, 0, 10), beat(1, 500, 510), look(false, 2_020, 2_030, &[])],
        ),
        (
            "one of two lives",
            "life 1 was not critical",
            vec![beat(1, 0, 10), beat(2, 0, 10), look(false, 1_600, 1_610, &[2])],
        ),
    ];
    reject(|events| check_late(events, &calm), bad);
}

#[test]
fn a_registration_lets_its_own_ttl_run_from_then_on() {
    let early = [
        (
            "with a longer TTL it has more time",
            vec![beat(1, 0, 10), again(1, 3_000, 900, 910), look(false, 3_895, 3_901, &[1])],
        ),
        (
            "with a shorter TTL it has less",
            vec![beat(1, 0, 10), again(1, 200, 500, 510), look(false, 690, 701, &[1])],
        ),
        (
            "and it may have less if nobody knows",
            vec![beat(1, 0, 10), again(1, 200, 500, None), look(false, 690, 701, &[1])],
        ),
        (
            "it was critical before",
            vec![beat(1, 0, 10), again(1, 3_000, 1_200, 1_210), look(false, 1_300, 1_310, &[1])],
        ),
    ];
    for (name, events) in early {
        let verdict = check_early(&with_others(events));
        assert!(verdict.is_valid(), "{name}: {verdict}");
    }
    let calm = Weather::default();
    let late = [
        (
            "with a longer TTL it may take its time",
            vec![beat(1, 0, 10), again(1, 3_000, 900, 910), look(false, 4_400, 4_405, &[])],
        ),
        (
            "whether it has a shorter TTL is not known",
            vec![beat(1, 0, 10), again(1, 200, 500, None), look(false, 1_400, 1_410, &[])],
        ),
    ];
    for (name, events) in late {
        let verdict = check_late(&with_others(events), &calm);
        assert!(verdict.is_valid(), "{name}: {verdict}");
    }
    let counts = count(&[beat(1, 0, 10), again(1, 200, 500, 510)], &calm);
    assert_eq!(counts.again, 1);
}

#[test]
fn a_registration_that_does_not_let_its_ttl_run_is_rejected() {
    let early = vec![
        (
            "the old time goes on",
            "life 1 was critical",
            vec![beat(1, 0, 10), again(1, 1_000, 700, 710), look(false, 1_100, 1_110, &[1])],
        ),
        (
            "the old TTL goes on",
            "life 1 was critical",
            vec![beat(1, 0, 10), again(1, 3_000, 700, 710), look(false, 1_800, 1_810, &[1])],
        ),
        (
            "an unknown one with a longer TTL takes nothing away",
            "life 1 was critical",
            vec![beat(1, 0, 10), again(1, 3_000, 700, None), look(false, 900, 910, &[1])],
        ),
    ];
    reject(check_early, early);
    let late = vec![(
        "the old, longer TTL goes on",
        "1 ms after its TTL of 200 ms",
        vec![beat(1, 0, 10), again(1, 200, 500, 510), look(false, 1_211, 1_220, &[])],
    )];
    reject(|events| check_late(events, &Weather::default()), late);
}

#[test]
fn what_is_deregistered_is_not_critical_any_more() {
    let calm = Weather::default();
    let ended = |more: Vec<Event>| {
        let life =
            vec![beat(1, 0, 10), look(false, 1_600, 1_610, &[1]), end(1, 1_700), gone(1, 1_710)];
        [life, more].concat()
    };
    let others = |events: Vec<Event>| {
        // Life 1 does not come back at the end, as those do that nobody deregistered.
        let events = with_others(events);
        let without = |event: Event| match event {
            Event::Look(look) if look.call > 80_000 * MILLISECOND => {
                let critical = look.numbers().iter().copied().filter(|life| *life != 1).collect();
                Event::Look(Look { listed: Some(critical), ..look })
            }
            other => other,
        };
        events.into_iter().map(without).collect::<Vec<_>>()
    };
    let good = others(ended(vec![look(false, 1_705, 1_720, &[1]), look(true, 1_800, 1_810, &[1])]));
    assert!(check_late(&good, &calm).is_valid(), "{}", check_late(&good, &calm));
    let bad = others(ended(vec![look(false, 1_720, 1_730, &[1])]));
    let Verdict::Invalid(said) = check_late(&bad, &calm) else { panic!("it is still there") };
    assert!(said[0].contains("after its deregistration"), "{said:?}");
    let doubt = others(ended(vec![again(1, 1_000, 500, None), look(false, 1_720, 1_730, &[1])]));
    assert!(check_late(&doubt, &calm).is_valid(), "it may have come back");
}

#[test]
fn a_leader_change_makes_the_bound_longer_and_not_endless() {
    let reign = |term, at_ms: u64| Sample {
        at: at_ms * MILLISECOND,
        node: term,
        term: Some(term),
        leads: Some(true),
        ..Sample::default()
    };
    let kill = Fault {
        affected: vec![1],
        began: 500 * MILLISECOND,
        recovered: Some(3_000 * MILLISECOND),
        ..Fault::default()
    };
    let weather = Weather::new(&[kill], &[reign(1, 0), reign(2, 1_500)], 3);
    let verdict = |look| check_late(&with_others(vec![beat(1, 100, 110), look]), &weather);
    assert!(verdict(look(false, 4_900, 4_910, &[])).is_valid());
    assert!(verdict(look(false, 9_000, 9_010, &[])).is_invalid());
    assert!(verdict(look(false, 9_000, 9_010, &[1])).is_valid());
}

#[test]
fn what_cannot_be_read_is_rejected() {
    let call = 500 * MILLISECOND;
    let ret = call + MILLISECOND;
    let unreadable = Event::Look(Look { node: 3, stale: true, call, ret, listed: None });
    let word = "unreadable, in a stale read of n3";
    reject(check_early, vec![("no list", word, vec![beat(1, 0, 10), unreadable])]);
}

#[test]
fn lives_without_end_are_no_overflow() {
    let beat = Event::Beat {
        life: 1,
        ttl_ms: u64::MAX,
        again: false,
        call: MILLISECOND,
        ret: Some(2 * MILLISECOND),
    };
    let critical = vec![beat, look(false, 900, 910, &[1])];
    reject(check_early, vec![("critical", "life 1 was critical", critical)]);
}

#[test]
fn lines_of_older_files_are_read() {
    let line = r#"{"w":"ttl","f":"look","node":2,"stale":true,"call":1,"ret":2,"critical":[7]}"#;
    let event: Event = serde_json::from_str(line).unwrap();
    let listed = Some(vec![7]);
    assert_eq!(event, Event::Look(Look { node: 2, stale: true, call: 1, ret: 2, listed }));
    let line = r#"{"w":"ttl","f":"unreadable","node":2,"stale":true,"call":1,"ret":2}"#;
    let event: Event = serde_json::from_str(line).unwrap();
    assert!(matches!(event, Event::Look(Look { node: 2, listed: None, .. })));
}

#[test]
fn a_run_in_which_hardly_anything_falls_silent_proves_nothing() {
    let calm = Weather::default();
    let events = [beat(1, 0, 10), look(false, 900, 910, &[])];
    assert!(matches!(check_late(&events, &calm), Verdict::Vacuous(_)));
    assert!(matches!(check_early(&[beat(1, 0, 10)]), Verdict::Vacuous(_)));
    let counts = count(&events, &calm);
    assert_eq!(counts, Counts { lifetimes: 1, expired: 0, judged_late: 0, again: 0 });
    let one = [beat(1, 0, 10), look(false, 1_600, 1_610, &[1])];
    assert!(matches!(check_late(&one, &calm), Verdict::Vacuous(_)));
    assert!(matches!(check_early(&one), Verdict::Vacuous(_)));
}
