use super::*;

fn ms(moment: u64) -> u64 {
    moment * MILLISECOND
}

/// A session that lives for 20 s and leaves a delay of 1 s.
fn session(id: &str, call: u64) -> Event {
    Event::Session { session: id.to_owned(), life_ms: 20_000, delay_ms: 1_000, call: ms(call) }
}

fn acquire(id: &str, call: u64, ret: impl Into<Option<u64>>, ok: bool) -> Event {
    Event::Acquire { lock: 1, session: id.to_owned(), call: ms(call), ret: ret.into().map(ms), ok }
}

fn read(call: u64, holder: Option<&str>, lock_index: u64) -> Event {
    let holder = holder.map(str::to_owned);
    Event::Read { lock: 1, call: ms(call), ret: ms(call + 5), holder, lock_index }
}

fn write(id: &str, token: u64, call: u64, ok: bool) -> Event {
    Event::Write {
        lock: 1,
        session: id.to_owned(),
        token,
        value: call,
        call: ms(call),
        ret: Some(ms(call + 5)),
        ok,
        index: call,
    }
}

fn unknown_write(id: &str, token: u64, at: u64) -> Event {
    match write(id, token, at, true) {
        Event::Write { lock, session, token, value, call, index, .. } => {
            Event::Write { lock, session, token, value, call, ret: None, ok: false, index }
        }
        other => other,
    }
}

fn release(id: &str, call: u64) -> Event {
    Event::Release { lock: 1, session: id.to_owned(), call: ms(call) }
}

fn destroy(id: &str, call: u64) -> Event {
    Event::Destroy { session: id.to_owned(), call: ms(call) }
}

fn end(lock_index: u64, values: &[u64]) -> Event {
    Event::End { lock: 1, lock_index, values: values.to_vec() }
}

/// Session `a` holds from 110 to 200, writes at 120 and releases; `b` exists.
fn first_hold() -> Vec<Event> {
    vec![
        session("a", 0),
        session("b", 0),
        acquire("a", 100, 110, true),
        read(112, Some("a"), 1),
        write("a", 1, 120, true),
        release("a", 200),
    ]
}

fn after_first_hold(more: Vec<Event>) -> Vec<Event> {
    let mut events = first_hold();
    events.extend(more);
    events
}

/// The same, but its session is destroyed instead.
fn after_destruction(more: Vec<Event>) -> Vec<Event> {
    let mut events = first_hold();
    events.pop();
    events.push(destroy("a", 200));
    events.extend(more);
    events
}

#[test]
fn good_histories_are_accepted() {
    let good = [
        (
            "handed over",
            after_first_hold(vec![
                acquire("b", 210, 220, true),
                read(222, Some("b"), 2),
                write("b", 2, 230, true),
                end(2, &[120, 230]),
            ]),
        ),
        (
            "granted while the release is on its way",
            after_first_hold(vec![acquire("b", 190, 220, true), end(2, &[120])]),
        ),
        (
            "refused while it is held",
            after_first_hold(vec![
                acquire("b", 150, 160, false),
                acquire("b", 210, 220, true),
                end(2, &[120]),
            ]),
        ),
        (
            "granted after the lock-delay",
            after_destruction(vec![acquire("b", 1_190, 1_201, true), end(2, &[120])]),
        ),
        (
            "an acquisition of unknown outcome may hold, or not",
            after_first_hold(vec![
                acquire("c", 150, None, false),
                acquire("b", 210, 220, true),
                end(3, &[120]),
            ]),
        ),
        (
            "a holder that waits for too long is expired and fenced off",
            vec![
                session("a", 0),
                session("b", 0),
                acquire("a", 100, 110, true),
                write("a", 1, 120, true),
                session("c", 21_000),
                acquire("c", 21_000, 21_050, true),
                write("a", 1, 21_060, false),
                write("c", 2, 21_070, true),
                end(2, &[120, 21_070]),
            ],
        ),
        (
            "a write of unknown outcome is there",
            after_first_hold(vec![
                acquire("b", 210, 220, true),
                unknown_write("b", 2, 230),
                end(2, &[120, 230]),
            ]),
        ),
        (
            "an unknown release may not have happened",
            after_first_hold(vec![
                read(300, Some("a"), 1),
                acquire("b", 400, 410, true),
                end(2, &[120]),
            ]),
        ),
    ];
    for (name, events) in good {
        let verdict = check(&events);
        assert!(verdict.is_valid(), "{name}: {verdict}");
    }
}

#[test]
fn bad_holds_are_rejected() {
    let bad = [
        ("two holders", after_first_hold(vec![acquire("b", 130, 140, true), end(2, &[120])])),
        (
            "within the lock-delay",
            after_destruction(vec![acquire("b", 300, 310, true), end(2, &[120])]),
        ),
        (
            "within the lock-delay after an expiry",
            vec![
                session("a", 0),
                acquire("a", 100, 110, true),
                write("a", 1, 120, true),
                session("b", 20_100),
                acquire("b", 20_200, 20_300, true),
                end(2, &[120]),
            ],
        ),
        (
            "a session ended before its time",
            vec![
                session("a", 0),
                session("b", 0),
                acquire("a", 100, 110, true),
                write("a", 1, 120, true),
                acquire("b", 15_000, 15_010, true),
                end(2, &[120]),
            ],
        ),
    ];
    for (name, events) in bad {
        assert!(check(&events).is_invalid(), "{name}");
    }
}

#[test]
fn bad_tokens_and_bad_data_are_rejected() {
    let bad = [
        (
            "a token was skipped",
            after_first_hold(vec![acquire("b", 210, 220, true), end(3, &[120])]),
        ),
        (
            "a grant without a token",
            after_first_hold(vec![acquire("b", 210, 220, true), end(1, &[120])]),
        ),
        (
            "a token of two holders",
            after_first_hold(vec![
                acquire("b", 210, 220, true),
                read(230, Some("b"), 1),
                end(2, &[120]),
            ]),
        ),
        (
            "a token that falls",
            after_first_hold(vec![
                acquire("b", 210, 220, true),
                read(230, Some("b"), 2),
                read(300, None, 1),
                end(2, &[120]),
            ]),
        ),
        (
            "a write that was not fenced off",
            after_first_hold(vec![
                acquire("b", 210, 220, true),
                write("b", 2, 230, true),
                write("a", 1, 240, true),
                end(2, &[120, 230, 240]),
            ]),
        ),
        ("a lost write", after_first_hold(vec![acquire("b", 210, 220, true), end(2, &[])])),
        (
            "a fenced write that is there",
            after_first_hold(vec![
                acquire("b", 210, 220, true),
                write("a", 1, 240, false),
                end(2, &[120, 240]),
            ]),
        ),
        (
            "a read that sees nobody while it is held",
            after_first_hold(vec![
                read(130, None, 1),
                acquire("b", 210, 220, true),
                end(2, &[120]),
            ]),
        ),
    ];
    for (name, events) in bad {
        assert!(check(&events).is_invalid(), "{name}");
    }
}

#[test]
fn a_run_without_a_hand_over_or_without_its_end_proves_nothing() {
    let alone = after_first_hold(vec![end(1, &[120])]);
    assert!(matches!(check(&alone), Verdict::Vacuous(_)));
    let endless = after_first_hold(vec![acquire("b", 210, 220, true)]);
    assert!(matches!(check(&endless), Verdict::Vacuous(_)));
}

#[test]
fn what_there_was_to_judge_is_counted() {
    let counts = count(&after_destruction(vec![acquire("b", 150, 160, false)]));
    assert_eq!(counts, Counts { acquired: 1, refused: 1, written: 1, fenced: 0, delayed: 1 });
}
