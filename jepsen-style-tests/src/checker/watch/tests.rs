use super::*;
use crate::journal::Fault;

fn judge(events: &[Event]) -> Verdict {
    check(events, &Weather::default(), &Restarts::default())
}

/// The verdict objects with this word.
fn objects(verdict: &Verdict, word: &str) -> bool {
    matches!(verdict, Verdict::Invalid(said) if said.iter().any(|said| said.contains(word)))
}

fn ms(moment: u64) -> u64 {
    moment * MILLISECOND
}

fn write(slot: u64, value: u64, call: u64, known: bool) -> Event {
    Event::Write {
        family: Family::Prefix,
        slot,
        value,
        gone: false,
        call: ms(call),
        end: ms(call + 5),
        known,
    }
}

fn register(slot: u64, value: u64, call: u64, gone: bool) -> Event {
    let (call, end) = (ms(call), ms(call + 5));
    Event::Write { family: Family::Service, slot, value, gone, call, end, known: true }
}

struct Query {
    stale: bool,
    slot: Option<u64>,
    given: u64,
    index: u64,
}

const KEY: Query = Query { stale: false, slot: Some(1), given: 5, index: 6 };

impl Query {
    fn at(&self, call: u64, ret: u64, seen: &[(u64, u64)]) -> Event {
        Event::Answer {
            watcher: u64::from(self.stale) + 2 * self.slot.unwrap_or(0),
            node: 2,
            stale: self.stale,
            family: Family::Prefix,
            slot: self.slot,
            given: self.given,
            call: ms(call),
            ret: ms(ret),
            index: self.index,
            seen: seen.to_vec(),
        }
    }
}

fn services(given: u64, index: u64, call: u64, ret: u64, seen: &[(u64, u64)]) -> Event {
    Event::Answer {
        watcher: 99,
        node: 3,
        stale: false,
        family: Family::Service,
        slot: None,
        given,
        call: ms(call),
        ret: ms(ret),
        index,
        seen: seen.to_vec(),
    }
}

fn end(seen: &[(u64, u64)]) -> Event {
    Event::Final { family: Family::Prefix, seen: seen.to_vec() }
}

/// A query waits from 10, a write comes at 100, and the watcher is woken at 120.
fn woken() -> Vec<Event> {
    vec![write(1, 1, 100, true), KEY.at(10, 120, &[(1, 1)])]
}

fn and(mut events: Vec<Event>, more: Vec<Event>) -> Vec<Event> {
    events.extend(more);
    events
}

fn good() -> Vec<(&'static str, Vec<Event>)> {
    let later = Query { given: 6, index: 6, ..KEY };
    let all = Query { slot: None, ..KEY };
    vec![
        ("woken", and(woken(), vec![end(&[(1, 1)])])),
        ("woken before the writer is answered", {
            vec![write(1, 1, 100, true), KEY.at(10, 102, &[(1, 1)]), end(&[(1, 1)])]
        }),
        (
            "a value may be skipped",
            vec![
                write(1, 1, 100, true),
                write(1, 2, 110, true),
                KEY.at(10, 120, &[(1, 2)]),
                end(&[(1, 2)]),
            ],
        ),
        (
            "a wait without a change",
            and(woken(), vec![later.at(130, 3_200, &[(1, 1)]), end(&[(1, 1)])]),
        ),
        (
            "another key does not wake",
            and(
                woken(),
                vec![
                    write(2, 1, 500, true),
                    later.at(130, 3_200, &[(1, 1)]),
                    end(&[(1, 1), (2, 1)]),
                ],
            ),
        ),
        (
            "an unknown write may be there or not",
            and(
                woken(),
                vec![write(1, 2, 300, false), later.at(130, 3_200, &[(1, 1)]), end(&[(1, 2)])],
            ),
        ),
        (
            "a prefix is woken by any of its keys",
            vec![
                write(1, 1, 100, true),
                all.at(10, 120, &[(1, 1)]),
                write(2, 1, 200, true),
                Query { given: 6, index: 7, ..all }.at(130, 220, &[(1, 1), (2, 1)]),
                end(&[(1, 1), (2, 1)]),
            ],
        ),
    ]
}

fn delete(slot: u64, value: u64, call: u64, known: bool) -> Event {
    let (call, end) = (ms(call), ms(call + 5));
    Event::Write { family: Family::Prefix, slot, value, gone: true, call, end, known }
}

/// Keys that are deleted.
fn good_deletions() -> Vec<(&'static str, Vec<Event>)> {
    let later = Query { given: 6, index: 7, ..KEY };
    let next = Query { given: 7, index: 8, ..KEY };
    vec![
        (
            "a key is deleted and comes back",
            and(
                woken(),
                vec![
                    delete(1, 2, 200, true),
                    later.at(130, 215, &[]),
                    write(1, 3, 300, true),
                    next.at(220, 310, &[(1, 3)]),
                    end(&[(1, 3)]),
                ],
            ),
        ),
        (
            "a stale read shows a deletion before it is acknowledged",
            and(
                woken(),
                vec![
                    Query { stale: true, ..KEY }.at(130, 140, &[(1, 1)]),
                    delete(1, 2, 200, true),
                    Query { stale: true, ..later }.at(150, 202, &[]),
                    end(&[]),
                ],
            ),
        ),
        (
            "a deletion of unknown outcome may have happened",
            and(woken(), vec![delete(1, 2, 200, false), later.at(130, 215, &[]), end(&[])]),
        ),
        (
            "or not",
            and(
                woken(),
                vec![
                    delete(1, 2, 200, false),
                    Query { index: 6, ..later }.at(130, 9_200, &[(1, 1)]),
                    end(&[(1, 1)]),
                ],
            ),
        ),
    ]
}

/// A key is there, and what follows is wrong.
fn bad_deletions() -> Vec<(&'static str, &'static str, Vec<Event>)> {
    let later = Query { given: 6, index: 7, ..KEY };
    let stale = Query { stale: true, ..KEY };
    vec![
        (
            "a query sleeps through a deletion",
            "2995 ms late",
            and(woken(), vec![delete(1, 2, 200, true), later.at(130, 3_200, &[]), end(&[])]),
        ),
        (
            "a deleted key is still there",
            "where 2 was acknowledged",
            and(woken(), vec![delete(1, 2, 200, true), later.at(210, 220, &[(1, 1)])]),
        ),
        (
            "a deleted key comes back by itself",
            "slot 1 came back with 1",
            and(
                woken(),
                vec![
                    delete(1, 2, 200, true),
                    later.at(130, 203, &[]),
                    later.at(204, 206, &[(1, 1)]),
                ],
            ),
        ),
        (
            "a key vanishes before anybody deletes it",
            "slot 1 vanished after 1",
            vec![stale.at(10, 20, &[(1, 1)]), stale.at(30, 40, &[]), delete(1, 2, 200, true)],
        ),
        (
            "an old deletion explains nothing",
            "slot 1 vanished after 3",
            vec![delete(1, 2, 5, true), stale.at(110, 120, &[(1, 3)]), stale.at(130, 140, &[])],
        ),
    ]
}

/// A service that has one writer and is watched by its own name.
fn own(slot: u64, value: u64, call: u64, gone: bool) -> Event {
    let (call, end) = (ms(call), ms(call + 5));
    Event::Write { family: Family::Own, slot, value, gone, call, end, known: true }
}

fn of_own(given: u64, call: u64, ret: u64, seen: &[(u64, u64)]) -> Event {
    Event::Answer {
        watcher: 77,
        node: 3,
        stale: false,
        family: Family::Own,
        slot: Some(1),
        given,
        call: ms(call),
        ret: ms(ret),
        index: given + 1,
        seen: seen.to_vec(),
    }
}

#[test]
fn a_watcher_of_one_service_follows_its_writer_to_the_next_instance_and_nobody_else() {
    let second = CLIENTS_MAX + 1;
    let judge_with = |ret, more: &[Event]| {
        let mut events = vec![
            own(1, 1, 100, false),
            of_own(5, 10, 120, &[(1, 1)]),
            own(second, 2, 200, false),
            of_own(6, 130, 220, &[(1, 1), (second, 2)]),
            own(second, 3, 300, true),
            of_own(7, 230, ret, &[(1, 1)]),
            Event::Final { family: Family::Own, seen: vec![(1, 1)] },
        ];
        events.extend_from_slice(more);
        judge(&events)
    };
    assert!(judge_with(320, &[]).is_valid());
    assert!(objects(&judge_with(9_300, &[]), "8995 ms late"));
    // Somebody else's service wakes nobody here.
    let other = [own(2, 1, 400, false), of_own(8, 330, 9_400, &[(1, 1)])];
    assert!(judge_with(320, &other).is_valid());
}

/// The same of a service, and of queries that race with writes.
fn more_good() -> Vec<(&'static str, Vec<Event>)> {
    vec![
        (
            "an instance that was deregistered is gone",
            vec![
                register(1, 1, 100, false),
                services(1, 2, 10, 120, &[(1, 1)]),
                register(1, 2, 200, true),
                services(2, 3, 130, 220, &[]),
                Event::Final { family: Family::Service, seen: Vec::new() },
            ],
        ),
        (
            "an instance that is deregistered meanwhile may be there or not, and comes back with a larger value",
            vec![
                register(1, 1, 100, false),
                services(1, 2, 10, 120, &[(1, 1)]),
                register(1, 2, 200, true),
                services(2, 3, 130, 203, &[]),
                register(1, 3, 300, false),
                services(3, 4, 204, 310, &[(1, 3)]),
                Event::Final { family: Family::Service, seen: vec![(1, 3)] },
            ],
        ),
        (
            "a query that is sent while the write goes on is answered at once",
            and(
                woken(),
                vec![
                    write(1, 2, 125, true),
                    Query { given: 6, index: 7, ..KEY }.at(129, 140, &[(1, 2)]),
                    end(&[(1, 2)]),
                ],
            ),
        ),
        (
            "a query that is sent while the write goes on comes in late",
            and(
                woken(),
                vec![
                    write(1, 2, 125, true),
                    Query { given: 6, index: 7, ..KEY }.at(129, 600, &[(1, 2)]),
                    end(&[(1, 2)]),
                ],
            ),
        ),
        (
            "a query waits on after the answer before has shown the write",
            and(
                woken(),
                vec![
                    write(1, 2, 125, true),
                    Query { given: 6, index: 7, ..KEY }.at(126, 128, &[(1, 2)]),
                    Query { given: 7, index: 7, ..KEY }.at(129, 9_200, &[(1, 2)]),
                    end(&[(1, 2)]),
                ],
            ),
        ),
    ]
}

#[test]
fn good_histories_are_accepted() {
    for (name, events) in good().into_iter().chain(more_good()).chain(good_deletions()) {
        let verdict = judge(&events);
        assert!(verdict.is_valid(), "{name}: {verdict}");
    }
}

/// Histories of one watcher, and the word with which they are rejected.
fn bad() -> Vec<(&'static str, &'static str, Vec<Event>)> {
    let later = Query { given: 6, index: 6, ..KEY };
    let all = Query { slot: None, ..KEY };
    vec![
        ("woken too late", "255 ms late", vec![write(1, 1, 100, true), KEY.at(10, 360, &[(1, 1)])]),
        (
            "the second wake-up is lost",
            "2995 ms late",
            and(woken(), vec![write(1, 2, 200, true), later.at(130, 3_200, &[(1, 2)])]),
        ),
        (
            "a prefix sleeps on",
            "2995 ms late",
            vec![
                write(1, 1, 100, true),
                write(2, 1, 200, true),
                all.at(110, 3_200, &[(1, 1), (2, 1)]),
            ],
        ),
        (
            "a query that is sent while the write goes on sleeps on",
            "3070 ms late",
            and(
                woken(),
                vec![write(1, 2, 125, true), later.at(129, 3_200, &[(1, 2)]), end(&[(1, 2)])],
            ),
        ),
        (
            "a query that is sent after the write, with an older index, waits",
            "3060 ms late",
            and(
                woken(),
                vec![write(1, 2, 125, true), later.at(140, 3_200, &[(1, 2)]), end(&[(1, 2)])],
            ),
        ),
    ]
}

/// The same of single answers.
fn bad_answers() -> Vec<(&'static str, &'static str, Vec<Event>)> {
    let later = Query { given: 6, index: 6, ..KEY };
    vec![
        (
            "the index falls",
            "the index fell from 6 to 4",
            and(woken(), vec![Query { given: 0, index: 4, ..KEY }.at(130, 140, &[(1, 1)])]),
        ),
        (
            "the index falls in a stale read without a fault",
            "the index fell from 6 to 4",
            vec![
                Query { stale: true, ..KEY }.at(10, 20, &[]),
                Query { stale: true, index: 4, ..KEY }.at(30, 40, &[]),
            ],
        ),
        (
            "a value goes back",
            "slot 1 went back from 2 to 1",
            vec![
                write(1, 2, 100, true),
                KEY.at(10, 120, &[(1, 2)]),
                Query { index: 7, ..later }.at(130, 140, &[(1, 1)]),
            ],
        ),
        (
            "a key vanishes in a stale read",
            "slot 1 vanished after 1",
            vec![
                Query { stale: true, ..KEY }.at(10, 20, &[(1, 1)]),
                Query { stale: true, ..KEY }.at(30, 40, &[]),
            ],
        ),
        (
            "an acknowledged write is not shown",
            "where 1 was acknowledged",
            and(woken(), vec![Query { given: 0, index: 6, ..KEY }.at(130, 140, &[])]),
        ),
        (
            "the last value is missed",
            "it ends with Some(1) in slot 1",
            and(
                woken(),
                vec![write(1, 2, 125, true), later.at(129, 200, &[(1, 1)]), end(&[(1, 2)])],
            ),
        ),
        (
            "a slot is listed twice",
            "slot 1 is listed twice in an answer",
            vec![write(1, 1, 100, true), KEY.at(10, 120, &[(1, 1), (1, 1)])],
        ),
        (
            "a slot is listed twice at the end",
            "listed twice at the end",
            and(woken(), vec![end(&[(1, 1), (1, 1)])]),
        ),
        (
            "an answer cannot be read",
            "unreadable answer",
            and(
                woken(),
                vec![Event::Unreadable {
                    watcher: Some(2),
                    node: 2,
                    call: ms(130),
                    ret: ms(140),
                    why: "X-Consul-Index is None".to_owned(),
                }],
            ),
        ),
    ]
}

/// The same of a service, whose slots may be emptied.
fn bad_services() -> Vec<(&'static str, &'static str, Vec<Event>)> {
    vec![
        (
            "an instance is still there",
            "where 2 was acknowledged",
            vec![
                register(1, 1, 100, false),
                services(1, 2, 10, 120, &[(1, 1)]),
                register(1, 2, 130, true),
                services(2, 3, 140, 150, &[(1, 1)]),
            ],
        ),
        (
            "an instance is missing, and deregistered only much later",
            "shows None in slot 1, where 1 was acknowledged",
            vec![
                register(1, 1, 1_000, false),
                services(0, 2, 2_000, 2_010, &[]),
                register(1, 8, 30_000, true),
            ],
        ),
        (
            "a query sleeps through a deregistration that went on when it was sent",
            "3065 ms late",
            vec![
                register(1, 1, 100, false),
                services(1, 2, 10, 120, &[(1, 1)]),
                register(1, 2, 130, true),
                services(2, 3, 131, 3_200, &[]),
            ],
        ),
        (
            "a value goes back over a while",
            "slot 1 went back from 5 to 3",
            vec![
                services(0, 2, 10, 20, &[(1, 5)]),
                services(0, 3, 30, 40, &[]),
                services(0, 4, 50, 60, &[(1, 3)]),
            ],
        ),
        (
            "an instance comes back by itself",
            "slot 1 came back with 5",
            vec![
                services(0, 2, 10, 20, &[(1, 5)]),
                services(0, 3, 30, 40, &[]),
                services(0, 4, 50, 60, &[(1, 5)]),
            ],
        ),
        (
            "a registered instance is not known",
            "n3 did not know the instance in slot 1",
            vec![
                register(1, 1, 100, false),
                Event::Missing { slot: 1, value: 1, node: 3, call: ms(200), end: ms(205) },
            ],
        ),
    ]
}

#[test]
fn bad_histories_are_rejected() {
    let all = bad().into_iter().chain(bad_answers()).chain(bad_services()).chain(bad_deletions());
    for (name, word, events) in all {
        let verdict = judge(&events);
        assert!(objects(&verdict, word), "{name}: {verdict}");
    }
}

/// A fault at one server from 90 to 3,000.
fn fault(nemesis: &str, node: u64) -> Fault {
    Fault {
        nemesis: nemesis.to_owned(),
        affected: vec![node],
        began: ms(90),
        recovered: Some(ms(3_000)),
        ..Fault::default()
    }
}

#[test]
fn a_fault_at_the_watchers_server_excuses_it_and_one_elsewhere_only_delays() {
    let judge = |ret, node| {
        let events = [write(1, 1, 100, true), KEY.at(10, ret, &[(1, 1)]), end(&[(1, 1)])];
        let faults = [fault("pause", node)];
        check(&events, &Weather::new(&faults, &[], 3), &Restarts::of(&faults))
    };
    // A query that nothing wakes ends after 9 s to 9.6 s.
    assert!(!judge(9_100, 2).is_invalid());
    assert!(judge(3_000, 3).is_valid());
    assert!(objects(&judge(9_100, 3), "8995 ms late"));
}

#[test]
fn a_query_that_would_have_ended_anyway_shows_nothing() {
    let faults = [fault("pause", 3)];
    let judge = |call| {
        let events = [
            write(1, 1, 100, true),
            KEY.at(110, 112, &[(1, 1)]),
            write(1, 2, call, true),
            Query { given: 6, index: 7, ..KEY }.at(120, call + 20, &[(1, 2)]),
            end(&[(1, 2)]),
        ];
        check(&events, &Weather::new(&faults, &[], 3), &Restarts::default())
    };
    assert!(judge(1_800).is_valid());
    assert!(matches!(judge(2_000), Verdict::Vacuous(_)));
}

#[test]
fn only_a_restart_excuses_a_stale_read_that_goes_back() {
    let judge = |stale, nemesis| {
        let query = Query { stale, given: 0, ..KEY };
        let events = [
            write(1, 1, 5, false),
            query.at(20, 30, &[(1, 1)]),
            Query { index: 4, ..query }.at(100, 110, &[]),
            Query { index: 6, ..query }.at(4_000, 4_010, &[(1, 1)]),
        ];
        let faults = [fault(nemesis, 2)];
        check(&events, &Weather::new(&faults, &[], 3), &Restarts::of(&faults))
    };
    assert!(!judge(true, "kill").is_invalid());
    assert!(!judge(true, "delay+power-cut-all").is_invalid());
    for nemesis in ["pause", "partition-leader", "disk-slow"] {
        assert!(objects(&judge(true, nemesis), "the index fell from 6 to 4"), "{nemesis}");
        assert!(objects(&judge(true, nemesis), "slot 1 vanished after 1"), "{nemesis}");
    }
    assert!(objects(&judge(false, "kill"), "the index fell from 6 to 4"));
}

#[test]
fn what_is_forgotten_in_a_fault_without_a_restart_is_found_after_it() {
    let faults = [fault("pause", 2)];
    let stale = Query { stale: true, given: 0, ..KEY };
    let events = [stale.at(20, 30, &[(1, 2)]), stale.at(4_000, 4_010, &[(1, 1)])];
    let verdict = check(&events, &Weather::new(&faults, &[], 3), &Restarts::of(&faults));
    assert!(objects(&verdict, "slot 1 went back from 2 to 1"), "{verdict}");
}

#[test]
fn a_watcher_comes_to_rest_if_nothing_disturbs_it() {
    let judge = |at_rest, at, faults: &[Fault]| {
        let ended = Event::Ended { watcher: 2, node: 2, at: ms(at), at_rest };
        let events = and(woken(), vec![end(&[(1, 1)]), ended]);
        check(&events, &Weather::new(faults, &[], 3), &Restarts::default())
    };
    assert!(judge(true, 30_000, &[]).is_valid());
    assert!(objects(&judge(false, 30_000, &[]), "did not come to rest"));
    // A write may have come too late for it, or a fault.
    assert!(judge(false, 24_000, &[]).is_valid());
    let lasting = Fault { recovered: None, ..fault("pause", 3) };
    assert!(!judge(false, 30_000, &[lasting]).is_invalid());
}

#[test]
fn a_history_from_before_there_were_more_events_can_be_read() {
    let line = r#"{"f":"write","family":"key","slot":1,"value":2,"gone":false,"call":3,"end":4,"known":true}"#;
    assert!(matches!(serde_json::from_str(line).unwrap(), Event::Write { slot: 1, value: 2, .. }));
}

#[test]
fn a_run_in_which_nobody_waits_proves_nothing() {
    let unwatched = [write(1, 1, 100, true), end(&[(1, 1)])];
    assert!(matches!(judge(&unwatched), Verdict::Vacuous(_)));
    assert!(matches!(judge(&woken()), Verdict::Vacuous(_)));
}

#[test]
fn what_there_was_to_judge_is_counted() {
    let counts = count(&woken(), &Weather::default());
    assert_eq!(counts, Counts { writes: 1, wakes: 1, awaited: 1, awaited_ends: 0, slowest_ms: 15 });
}
