use super::*;

fn change(seq: u64) -> Event {
    changed(seq, &subject(seq))
}

fn changed(seq: u64, subject: &str) -> Event {
    Event::Change { reader: 1, node: 2, seq, subject: subject.to_owned() }
}

/// Every third record is of an instance.
fn subject(seq: u64) -> String {
    match seq % 3 {
        0 => format!("service.registered {seq}"),
        _ => format!("key.set {seq}"),
    }
}

fn opened(since: Option<u64>, interest: Interest) -> Event {
    Event::Opened { reader: 1, node: 2, interest, since, at: 0 }
}

fn mark(seq: u64) -> Event {
    Event::Mark { reader: 1, seq }
}

/// A run in which records 1 to 100 were written, and a reader of `interest` got all that it wants between two
/// changes of servers each; `spoil` makes of an event what came instead of it.
fn run(interest: Interest, spoil: impl Fn(Event) -> Vec<Event>) -> Vec<Event> {
    let mut events: Vec<_> =
        (1..=100).map(|seq| Event::Write { subject: subject(seq), known: true }).collect();
    events.extend([opened(None, interest), Event::Listed { reader: 1, seq: 10 }]);
    for seq in 11..=100 {
        if interest.wants(&subject(seq)) {
            events.extend(spoil(change(seq)));
        }
        if seq % 10 == 0 {
            events.extend(spoil(mark(seq)));
            events.push(opened(Some(seq), interest));
        }
    }
    events.push(Event::Ended { reader: 1, at_rest: true });
    let records = (1..=100).map(|seq| (seq, subject(seq))).collect();
    events.push(Event::History { oldest: 1, records });
    events
}

fn said(events: &[Event]) -> String {
    match check(events) {
        Verdict::Invalid(violations) => violations.join("\n"),
        verdict => panic!("{verdict}"),
    }
}

#[test]
fn readers_that_get_what_they_want_once_are_accepted() {
    for interest in [Interest::Keys, Interest::Service, Interest::Both] {
        assert_eq!(check(&run(interest, |event| vec![event])), Verdict::Valid, "{interest:?}");
    }
    // What is about a node only is not among the records that are compared.
    let with_node = run(Interest::Service, |event| match event {
        Event::Mark { seq, .. } if (seq + 1) % 3 != 0 => vec![event, changed(seq + 1, "")],
        event => vec![event],
    });
    let with_node: Vec<_> = with_node.into_iter().filter(|event| *event != mark(100)).collect();
    assert!(check(&with_node).is_valid(), "{}", check(&with_node));
}

#[test]
fn what_is_missing_doubled_or_not_wanted_is_found() {
    let instead = |of: u64, events: Vec<Event>| {
        said(&run(Interest::Keys, move |event| match event {
            Event::Change { seq, .. } if seq == of => events.clone(),
            event => vec![event],
        }))
    };
    assert!(
        instead(31, vec![]).contains("1 records are missing between 10 and 100; the first is 31")
    );
    assert!(instead(31, vec![change(31), change(31)]).contains("31 (key.set 31) after 31"));
    assert!(instead(31, vec![change(32), change(31)]).contains("31 (key.set 31) after 32"));
    assert!(instead(32, vec![change(32), change(33)]).contains("33 is \"service.registered 33\""));
    assert!(instead(31, vec![changed(31, "key.set other")]).contains("it is key.set 31"));
    assert!(instead(31, vec![change(31), mark(29)]).contains("a mark 29 after 31"));
    let gap = Event::Gap { reader: 1, node: 2, since: 31 };
    let gap = vec![change(31), gap, Event::Listed { reader: 1, seq: 31 }];
    assert!(instead(31, gap).contains("a gap after 31, where nothing is lost"));
    let strange = Event::Strange { reader: 1, node: 2, what: "a frame".to_owned() };
    assert!(instead(31, vec![change(31), strange]).contains("reader 1 at n2: a frame"));
    let list = Event::Listed { reader: 1, seq: 31 };
    assert!(instead(31, vec![change(31), list]).contains("that nothing announced"));
}

#[test]
fn the_history_has_each_write_once() {
    let with = |write: Event, records: &[(u64, &str)]| {
        let mut events = run(Interest::Both, |event| vec![event]);
        events.push(write);
        for event in &mut events {
            if let Event::History { records: all, .. } = event {
                all.extend(records.iter().map(|(seq, text)| (*seq, (*text).to_owned())));
            }
        }
        events
    };
    let write = |known| Event::Write { subject: "key.set x".to_owned(), known };
    assert!(check(&with(write(false), &[])).is_valid());
    assert!(said(&with(write(true), &[])).contains("key.set x was acknowledged and is no record"));
    assert!(check(&with(write(true), &[(101, "key.set x")])).is_valid());
    let twice = with(write(false), &[(101, "key.set x"), (102, "key.set x")]);
    assert!(said(&twice).contains("key.set x is 2 records"));
}

#[test]
fn a_reader_comes_to_the_end_and_a_run_has_something_to_judge() {
    let mut events = run(Interest::Both, |event| vec![event]);
    let without_end: Vec<_> =
        events.iter().filter(|event| !matches!(event, Event::Ended { .. })).cloned().collect();
    assert!(said(&without_end).contains("it has not ended"));
    for event in &mut events {
        if let Event::Ended { at_rest, .. } = event {
            *at_rest = false;
        }
    }
    assert!(said(&events).contains("does not come to the newest record"));
    let is_vacuous = |keep: &dyn Fn(&Event) -> bool| {
        let events: Vec<_> = run(Interest::Both, |event| vec![event])
            .into_iter()
            .filter(|event| keep(event))
            .collect();
        assert!(matches!(check(&events), Verdict::Vacuous(_)), "{}", check(&events));
    };
    is_vacuous(&|event| !matches!(event, Event::Write { .. }));
    is_vacuous(&|event| !matches!(event, Event::Opened { since: Some(_), .. }));
    is_vacuous(&|event| !matches!(event, Event::History { .. }));
}
