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
    Event::Look(Look { node: 2, stale, call, ret, listed: Some(there.to_vec()) })
}

/// The first of the sessions that no history is about.
const OTHERS: u64 = 900;

/// Other sessions reach their end and are seen to, so that no history is vacuous.
fn with_ends(mut events: Vec<Event>) -> Vec<Event> {
    let others = OTHERS..OTHERS + EXPIRED_MIN;
    events.extend(others.clone().map(|session| create(session, 0)));
    for event in &mut events {
        if let Event::Look(Look { call, listed: Some(there), .. }) = event
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
        ("it ends in time", vec![create(1, 0), look(false, 10_000, &[1]), look(false, LATE, &[])]),
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
            vec![create(1, 0), destroy(1, 100, None), look(false, 120, &[]), look(false, 130, &[])],
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
                    Event::Look(Look {
                        node: 2,
                        stale: true,
                        call: ms(50),
                        ret: ms(60),
                        listed: None,
                    }),
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
    let again =
        vec![create(1, 0), look(true, 100, &[1]), look(true, 9_000, &[1]), look(true, 9_100, &[])];
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
    let line = r#"{"w":"session","f":"look","node":1,"stale":true,"call":1,"ret":2,"there":[]}"#;
    let event: Event = serde_json::from_str(line).unwrap();
    let listed = Some(Vec::new());
    assert_eq!(event, Event::Look(Look { node: 1, stale: true, call: 1, ret: 2, listed }));
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
