use super::*;
use crate::journal::Fault;

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
    ]
}

#[test]
fn good_histories_are_accepted() {
    for (name, events) in good() {
        let verdict = check(&events, &Weather::default());
        assert!(verdict.is_valid(), "{name}: {verdict}");
    }
}

#[test]
fn bad_histories_are_rejected() {
    let later = Query { given: 6, index: 6, ..KEY };
    let all = Query { slot: None, ..KEY };
    let bad = [
        ("woken too late", vec![write(1, 1, 100, true), KEY.at(10, 360, &[(1, 1)])]),
        (
            "the second wake-up is lost",
            and(woken(), vec![write(1, 2, 200, true), later.at(130, 3_200, &[(1, 2)])]),
        ),
        (
            "a prefix sleeps on",
            vec![
                write(1, 1, 100, true),
                write(2, 1, 200, true),
                all.at(110, 3_200, &[(1, 1), (2, 1)]),
            ],
        ),
        (
            "the index falls",
            and(woken(), vec![Query { given: 0, index: 4, ..KEY }.at(130, 140, &[(1, 1)])]),
        ),
        (
            "the index falls in a stale read without a fault",
            vec![
                Query { stale: true, ..KEY }.at(10, 20, &[]),
                Query { stale: true, index: 4, ..KEY }.at(30, 40, &[]),
            ],
        ),
        (
            "a value goes back",
            vec![
                write(1, 2, 100, true),
                KEY.at(10, 120, &[(1, 2)]),
                Query { index: 7, ..later }.at(130, 140, &[(1, 1)]),
            ],
        ),
        (
            "an acknowledged write is not shown",
            and(woken(), vec![Query { given: 0, index: 6, ..KEY }.at(130, 140, &[])]),
        ),
        (
            "the last value is missed",
            and(
                woken(),
                vec![write(1, 2, 125, true), later.at(129, 200, &[(1, 1)]), end(&[(1, 2)])],
            ),
        ),
        (
            "an instance is still there",
            vec![
                register(1, 1, 100, false),
                services(1, 2, 10, 120, &[(1, 1)]),
                register(1, 2, 130, true),
                services(2, 3, 140, 150, &[(1, 1)]),
            ],
        ),
    ];
    for (name, events) in bad {
        let verdict = check(&events, &Weather::default());
        assert!(verdict.is_invalid(), "{name}: {verdict}");
    }
}

#[test]
fn a_fault_at_the_watchers_server_excuses_it_and_one_elsewhere_only_delays() {
    let fault = |node| Fault {
        affected: vec![node],
        began: ms(90),
        recovered: Some(ms(3_000)),
        ..Fault::default()
    };
    let asleep = |ret| vec![write(1, 1, 100, true), KEY.at(10, ret, &[(1, 1)]), end(&[(1, 1)])];
    let at = |node| Weather::new(&[fault(node)], &[], 3);
    assert!(!check(&asleep(9_000), &at(2)).is_invalid());
    assert!(check(&asleep(3_000), &at(3)).is_valid());
    assert!(check(&asleep(9_000), &at(3)).is_invalid());
}

#[test]
fn a_run_in_which_nobody_waits_proves_nothing() {
    let unwatched = [write(1, 1, 100, true), end(&[(1, 1)])];
    assert!(matches!(check(&unwatched, &Weather::default()), Verdict::Vacuous(_)));
    assert!(matches!(check(&woken(), &Weather::default()), Verdict::Vacuous(_)));
}

#[test]
fn what_there_was_to_judge_is_counted() {
    let counts = count(&woken(), &Weather::default());
    assert_eq!(counts, Counts { writes: 1, wakes: 1, awaited: 1, slowest_ms: 15 });
}
