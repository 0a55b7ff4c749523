use super::*;

fn ms(moment: u64) -> u64 {
    moment * MILLISECOND
}

/// A session that lives for 20 s and leaves a delay of 1 s.
fn session(id: &str, call: u64) -> Event {
    let (session, call) = (id.to_owned(), ms(call));
    Event::Session { session, life_ms: 20_000, delay_ms: 1_000, deletes: false, call }
}

/// One whose end deletes its locks.
fn deleting(id: &str, call: u64) -> Event {
    let (session, call) = (id.to_owned(), ms(call));
    Event::Session { session, life_ms: 20_000, delay_ms: 1_000, deletes: true, call }
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
    Event::Destroy { session: id.to_owned(), call: ms(call), ret: Some(ms(call + 5)) }
}

fn end(lock_index: u64, values: &[u64]) -> Event {
    Event::End { lock: 1, lock_index, values: values.to_vec() }
}

/// The lock of [`enough`]; the histories are about lock 1.
const OTHER_LOCK: u64 = 2;
/// Each hold of [`enough`] takes this long, in ms.
const ENOUGH_EVERY: u64 = 10_000;

fn of_other_lock(event: Event) -> Event {
    match event {
        Event::Acquire { session, call, ret, ok, .. } => {
            Event::Acquire { lock: OTHER_LOCK, session, call, ret, ok }
        }
        Event::Write { session, token, value, call, ret, ok, index, .. } => {
            Event::Write { lock: OTHER_LOCK, session, token, value, call, ret, ok, index }
        }
        other => other,
    }
}

/// As much on another lock as keeps a run from being vacuous: holds that end with their session, each with a
/// refusal within the lock-delay and a write that is fenced off.
fn enough() -> Vec<Event> {
    let mut events = Vec::new();
    let mut values = Vec::new();
    let most = HANDOVERS_MIN.max(FENCED_MIN).max(DELAYS_MIN);
    for hold in 0..=most {
        let at = 100_000 + hold * ENOUGH_EVERY;
        let (this, next) = (format!("h{hold}"), format!("h{}", hold + 1));
        values.push(at + 20);
        events.extend([
            session(&this, at),
            of_other_lock(acquire(&this, at, at + 10, true)),
            of_other_lock(write(&this, hold + 1, at + 20, true)),
            destroy(&this, at + 100),
            of_other_lock(acquire(&next, at + 200, at + 210, false)),
            of_other_lock(write(&this, hold + 1, at + 220, false)),
        ]);
    }
    events.push(Event::End { lock: OTHER_LOCK, lock_index: most + 1, values });
    events
}

fn with_enough(events: Vec<Event>) -> Vec<Event> {
    [events, enough()].concat()
}

/// Each is a name, a word of the sentence that must say what is wrong, and the history.
fn reject(bad: impl IntoIterator<Item = (&'static str, &'static str, Vec<Event>)>) {
    for (name, word, events) in bad {
        let Verdict::Invalid(violations) = check(&with_enough(events)) else { panic!("{name}") };
        assert!(violations.iter().any(|said| said.contains(word)), "{name}: {violations:?}");
    }
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

fn accept(good: impl IntoIterator<Item = (&'static str, Vec<Event>)>) {
    for (name, events) in good {
        let verdict = check(&with_enough(events));
        assert!(verdict.is_valid(), "{name}: {verdict}");
    }
}

#[test]
fn good_holds_are_accepted() {
    accept([
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
    ]);
}

#[test]
fn what_nobody_knows_may_have_happened() {
    accept([
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
            "nobody has ever acquired it",
            [vec![read(50, None, 0)], after_first_hold(vec![end(1, &[120])])].concat(),
        ),
        (
            "whoever asked and was not told may hold it",
            after_first_hold(vec![
                acquire("c", 190, None, false),
                read(230, Some("c"), 2),
                end(2, &[120]),
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
    ]);
}

#[test]
fn bad_holds_are_rejected() {
    reject([
        (
            "two holders",
            "it held it",
            after_first_hold(vec![acquire("b", 130, 140, true), end(2, &[120])]),
        ),
        (
            "within the lock-delay",
            "its lock-delay went on",
            after_destruction(vec![acquire("b", 300, 310, true), end(2, &[120])]),
        ),
        (
            "within the lock-delay after an expiry",
            "its lock-delay went on",
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
            "it held it",
            vec![
                session("a", 0),
                session("b", 0),
                acquire("a", 100, 110, true),
                write("a", 1, 120, true),
                acquire("b", 15_000, 15_010, true),
                end(2, &[120]),
            ],
        ),
    ]);
}

#[test]
fn bad_tokens_are_rejected() {
    reject([
        (
            "a token was skipped",
            "is 3 at the end",
            after_first_hold(vec![acquire("b", 210, 220, true), end(3, &[120])]),
        ),
        (
            "a grant without a token",
            "is 1 at the end",
            after_first_hold(vec![acquire("b", 210, 220, true), end(1, &[120])]),
        ),
        (
            "a token of two holders",
            "belongs to a and to b",
            after_first_hold(vec![
                acquire("b", 210, 220, true),
                read(230, Some("b"), 1),
                end(2, &[120]),
            ]),
        ),
        (
            "a token that falls",
            "fell from 2 to 1",
            after_first_hold(vec![
                acquire("b", 210, 220, true),
                read(230, Some("b"), 2),
                read(300, None, 1),
                end(2, &[120]),
            ]),
        ),
    ]);
}

#[test]
fn bad_data_is_rejected() {
    reject([
        (
            "a write that was not fenced off",
            "with token 1 after 230 with token 2",
            after_first_hold(vec![
                acquire("b", 210, 220, true),
                write("b", 2, 230, true),
                write("a", 1, 240, true),
                end(2, &[120, 230, 240]),
            ]),
        ),
        (
            "a lost write",
            "is lost",
            after_first_hold(vec![acquire("b", 210, 220, true), end(2, &[])]),
        ),
        (
            "a fenced write that is there",
            "fenced off and is there",
            after_first_hold(vec![
                acquire("b", 210, 220, true),
                write("a", 1, 240, false),
                end(2, &[120, 240]),
            ]),
        ),
        (
            "a write while another holds it",
            "while b held lock 1",
            after_first_hold(vec![
                acquire("b", 210, 220, true),
                write("a", 2, 240, true),
                end(2, &[120, 240]),
            ]),
        ),
        (
            "two writes at one index",
            "the same ModifyIndex",
            after_first_hold(vec![write("a", 1, 120, true), end(1, &[120])]),
        ),
    ]);
}

#[test]
fn bad_reads_are_rejected() {
    reject([
        (
            "a holder that nobody can read",
            "comes from nowhere",
            after_first_hold(vec![read(300, Some("unreadable"), 2), end(1, &[120])]),
        ),
        (
            "a lock that vanishes while it is held",
            "saw None",
            after_first_hold(vec![read(130, None, 0), end(1, &[120])]),
        ),
        (
            "a lock that vanishes after it was held",
            "fell from 1 to 0",
            after_first_hold(vec![read(300, None, 0), end(1, &[120])]),
        ),
        (
            "a read that sees nobody while it is held",
            "saw None",
            after_first_hold(vec![
                read(130, None, 1),
                acquire("b", 210, 220, true),
                end(2, &[120]),
            ]),
        ),
    ]);
}

/// A session that deletes holds from 110 until it is destroyed at 200; its lock was made at index 40.
fn after_deletion(more: Vec<Event>) -> Vec<Event> {
    let mut events = vec![
        deleting("a", 0),
        deleting("b", 0),
        acquire("a", 100, 110, true),
        read(112, Some("a"), 40),
        write("a", 40, 120, true),
        destroy("a", 200),
    ];
    events.extend(more);
    events
}

#[test]
fn a_lock_that_is_deleted_with_its_holder_may_be_gone_and_is_made_anew() {
    accept([
        ("it is gone", after_deletion(vec![read(300, None, 0), end(0, &[120])])),
        (
            "it is made anew, with a larger token",
            after_deletion(vec![
                read(300, None, 0),
                acquire("b", 1_300, 1_310, true),
                read(1_320, Some("b"), 50),
                write("b", 50, 1_330, true),
                end(50, &[120, 1_330]),
            ]),
        ),
        (
            "it is still there while it is being destroyed",
            after_deletion(vec![read(203, Some("a"), 40), end(0, &[120])]),
        ),
    ]);
    let gone = after_deletion(vec![read(300, None, 0), read(400, None, 0)]);
    assert_eq!(count(&gone).deleted, 2);
    assert_eq!(count(&after_first_hold(vec![read(300, None, 0)])).deleted, 0);
}

#[test]
fn what_the_end_of_a_session_should_have_left_otherwise_is_rejected() {
    reject([
        (
            "it was only released",
            "is there without a holder",
            after_deletion(vec![read(300, None, 40), end(40, &[120])]),
        ),
        (
            "the next holder found the same lock",
            "belongs to a and to b",
            after_deletion(vec![
                acquire("b", 1_300, 1_310, true),
                read(1_320, Some("b"), 40),
                end(40, &[120]),
            ]),
        ),
        (
            "it was made anew with a smaller token",
            "fell from 40 to 30",
            after_deletion(vec![
                acquire("b", 1_300, 1_310, true),
                read(1_320, Some("b"), 30),
                end(30, &[120]),
            ]),
        ),
        (
            "its lock-delay was forgotten with it",
            "its lock-delay went on",
            after_deletion(vec![acquire("b", 300, 310, true), end(0, &[120])]),
        ),
        (
            "a session that deletes holds on after its end",
            "whose destruction was acknowledged",
            after_deletion(vec![read(300, Some("a"), 40), end(0, &[120])]),
        ),
        (
            "a session that releases holds on after its end",
            "whose destruction was acknowledged",
            after_destruction(vec![read(300, Some("a"), 1), end(1, &[120])]),
        ),
        (
            "a lock that should be released is deleted",
            "is gone, though it was granted",
            after_destruction(vec![read(300, None, 0), end(1, &[120])]),
        ),
    ]);
}

#[test]
fn lines_of_older_files_are_read() {
    let session = r#"{"f":"session","session":"a","life_ms":1,"delay_ms":2,"call":3}"#;
    let event: Event = serde_json::from_str(session).unwrap();
    assert!(matches!(event, Event::Session { deletes: false, .. }));
    let destroy = r#"{"f":"destroy","session":"a","call":3}"#;
    let event: Event = serde_json::from_str(destroy).unwrap();
    assert!(matches!(event, Event::Destroy { ret: None, .. }));
}

/// What the checker says is lacking.
fn lacking(events: &[Event]) -> String {
    match check(events) {
        Verdict::Vacuous(why) => why,
        other => panic!("{other}"),
    }
}

#[test]
fn a_run_without_a_hand_over_or_without_its_end_proves_nothing() {
    let alone = after_first_hold(vec![end(1, &[120])]);
    assert!(lacking(&alone).contains("handed over"));
    let endless: Vec<_> =
        enough().into_iter().filter(|event| !matches!(event, Event::End { .. })).collect();
    assert!(lacking(&endless).contains("at the end"));
}

#[test]
fn a_run_in_which_nobody_is_fenced_off_or_meets_a_delay_proves_nothing() {
    let is_fenced = |event: &Event| matches!(event, Event::Write { ok: false, .. });
    let unfenced: Vec<_> = enough().into_iter().filter(|event| !is_fenced(event)).collect();
    assert!(lacking(&unfenced).contains("fenced off"));
    let is_refused = |event: &Event| matches!(event, Event::Acquire { ok: false, .. });
    let in_time: Vec<_> = enough().into_iter().filter(|event| !is_refused(event)).collect();
    assert!(lacking(&in_time).contains("lock-delays"));
}

#[test]
fn grants_of_two_locks_are_no_hand_over() {
    let mut events = vec![session("a", 0), session("b", 0), acquire("a", 100, 110, true)];
    events.push(of_other_lock(acquire("b", 100, 110, true)));
    assert_eq!(count(&events).handed_over, 0);
    events.push(release("a", 200));
    events.push(acquire("b", 210, 220, true));
    assert_eq!(count(&events).handed_over, 1);
}

#[test]
fn what_there_was_to_judge_is_counted() {
    let early = acquire("b", 150, 160, false);
    let within = acquire("b", 300, 310, false);
    let counts = count(&after_destruction(vec![early.clone()]));
    let expected = Counts { acquired: 1, refused: 1, written: 1, ..Counts::default() };
    assert_eq!(counts, expected);
    let counts = count(&after_destruction(vec![early, within]));
    assert_eq!(counts, Counts { refused: 2, delayed: 1, ..expected });
}

#[test]
fn lives_without_end_are_no_overflow() {
    let endless = Event::Session {
        session: "a".to_owned(),
        life_ms: u64::MAX,
        delay_ms: u64::MAX,
        deletes: false,
        call: ms(1),
    };
    let events = [endless, acquire("a", 100, 110, true), session("b", 0)];
    let events = [events.as_slice(), &[acquire("b", 90_000, 90_010, true)]].concat();
    reject([("it was held for ever", "it held it", events)]);
}
