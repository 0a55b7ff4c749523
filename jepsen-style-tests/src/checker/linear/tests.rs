use super::*;

pub(super) fn operation(f: Function, call: u64, ret: impl Into<Option<u64>>) -> Operation {
    Operation { ret: ret.into(), ..Operation::called(call, 1, f, call) }
}
pub(super) fn write(arg: u64, call: u64, ret: impl Into<Option<u64>>) -> Operation {
    Operation { arg: Some(arg), ok: Some(true), ..operation(Function::Write, call, ret) }
}
pub(super) fn read(val: impl Into<Option<u64>>, call: u64, ret: u64) -> Operation {
    Operation { val: val.into(), ok: Some(true), ..operation(Function::Read, call, ret) }
}
pub(super) fn cas(
    from: impl Into<Option<u64>>,
    arg: u64,
    ok: bool,
    call: u64,
    ret: impl Into<Option<u64>>,
) -> Operation {
    let ret = ret.into();
    let ok = ret.map(|_| ok);
    Operation { from: from.into(), arg: Some(arg), ok, ..operation(Function::Cas, call, ret) }
}

fn delete(call: u64, ret: impl Into<Option<u64>>) -> Operation {
    Operation { arg: None, ..write(0, call, ret) }
}

#[test]
fn good_histories_are_accepted() {
    let good: Vec<(&str, Vec<Operation>)> = vec![
        (
            "one after the other",
            vec![write(1, 1, 2), read(1, 3, 4), cas(1, 2, true, 5, 6), read(2, 7, 8)],
        ),
        ("absent at first", vec![read(None, 1, 2), cas(None, 5, true, 3, 4), read(5, 5, 6)]),
        (
            "a read beside a write sees either value",
            vec![write(1, 1, 2), write(2, 3, 9), read(2, 4, 5), read(2, 6, 7)],
        ),
        (
            "a read beside a write sees the old one first",
            vec![write(1, 1, 2), write(2, 3, 9), read(1, 4, 5), read(2, 6, 7)],
        ),
        (
            "an unknown write took effect late",
            vec![write(1, 1, 2), write(2, 3, None), read(1, 4, 5), read(2, 6, 7)],
        ),
        (
            "an unknown write never took effect",
            vec![write(1, 1, 2), write(2, 3, None), read(1, 4, 5), read(1, 6, 7)],
        ),
        (
            "an unknown cas took effect",
            vec![cas(None, 1, true, 1, 2), cas(1, 2, true, 3, None), read(2, 5, 6)],
        ),
        (
            "a cas fails because another won",
            vec![write(1, 1, 2), cas(1, 2, true, 3, 8), cas(1, 3, false, 4, 9), read(2, 10, 11)],
        ),
        (
            "concurrent writes in the order that reads demand",
            vec![write(1, 1, 10), write(2, 2, 11), write(3, 3, 12), read(2, 13, 14)],
        ),
        (
            "the search must go back",
            vec![
                write(1, 1, 20),
                write(2, 2, 21),
                read(2, 3, 4),
                read(1, 5, 6),
                cas(1, 7, true, 22, 23),
            ],
        ),
    ];
    for (name, history) in good {
        assert_eq!(check(&history), Verdict::Valid, "{name}");
    }
}

#[test]
fn bad_histories_are_rejected() {
    let bad: Vec<(&str, Vec<Operation>)> = vec![
        ("a stale read", vec![write(1, 1, 2), write(2, 3, 4), read(1, 5, 6)]),
        ("a lost write", vec![write(1, 1, 2), read(None, 3, 4)]),
        (
            "a lost write that is looked for much later",
            vec![write(1, 1, 2), write(2, 1_000, 1_001), read(1, 5_000, 5_001)],
        ),
        (
            "a plain write that was refused",
            vec![Operation { ok: Some(false), ..write(1, 1, 2) }, read(None, 3, 4)],
        ),
        ("a value from nowhere", vec![write(1, 1, 2), read(9, 3, 4)]),
        (
            "two winners of one cas",
            vec![write(1, 1, 2), cas(1, 2, true, 3, 6), cas(1, 3, true, 4, 7)],
        ),
        (
            "time runs backwards between two reads",
            vec![write(1, 1, 2), write(2, 3, 20), read(2, 4, 5), read(1, 6, 7)],
        ),
        (
            "a cas took effect and said it did not",
            vec![write(1, 1, 2), cas(1, 2, false, 3, 4), read(2, 5, 6)],
        ),
        (
            "a cas said it did and did not",
            vec![write(1, 1, 2), cas(1, 2, true, 3, 4), read(1, 5, 6)],
        ),
        ("a read before the write was called", vec![read(1, 1, 2), write(1, 3, 4)]),
        (
            "an unknown write took effect twice",
            vec![write(1, 1, None), read(1, 2, 3), write(2, 4, 5), read(1, 6, 7)],
        ),
        (
            "an unknown cas took effect without its condition",
            vec![write(1, 1, 2), cas(9, 2, true, 3, None), read(2, 5, 6)],
        ),
    ];
    for (name, history) in bad {
        assert!(check(&history).is_invalid(), "{name}");
    }
}

#[test]
fn good_histories_with_deletions_are_accepted() {
    let good: Vec<(&str, Vec<Operation>)> = vec![
        (
            "gone and back",
            vec![write(1, 1, 2), delete(3, 4), read(None, 5, 6), write(2, 7, 8), read(2, 9, 10)],
        ),
        ("nothing is deleted", vec![delete(1, 2), delete(3, 4), read(None, 5, 6)]),
        (
            "a read beside a deletion sees either",
            vec![write(1, 1, 2), delete(3, 9), read(1, 4, 5), read(None, 6, 7)],
        ),
        (
            "an unknown deletion takes effect late",
            vec![write(1, 1, 2), delete(3, None), read(1, 4, 5), read(None, 6, 7)],
        ),
        ("an unknown deletion never does", vec![write(1, 1, 2), delete(3, None), read(1, 4, 5)]),
    ];
    for (name, history) in good {
        assert_eq!(check(&history), Verdict::Valid, "{name}");
    }
}

#[test]
fn bad_histories_with_deletions_are_rejected() {
    let bad: Vec<(&str, Vec<Operation>)> = vec![
        ("a deletion is lost", vec![write(1, 1, 2), delete(3, 4), read(1, 5, 6)]),
        ("deleted by nobody", vec![write(1, 1, 2), read(None, 3, 4)]),
        (
            "what was deleted comes back",
            vec![write(1, 1, 2), delete(3, 20), read(None, 4, 5), read(1, 6, 7)],
        ),
        (
            "a deletion takes effect twice",
            vec![write(1, 1, 2), delete(3, 4), write(2, 5, 6), read(None, 7, 8)],
        ),
        (
            "an unknown deletion takes effect twice",
            vec![
                delete(1, None),
                write(1, 2, 3),
                read(None, 4, 5),
                write(2, 6, 7),
                read(None, 8, 9),
            ],
        ),
    ];
    for (name, history) in bad {
        assert!(check(&history).is_invalid(), "{name}");
    }
}

#[test]
fn keys_are_judged_alone() {
    let mut history = vec![write(1, 1, 2), read(1, 3, 4)];
    history.push(Operation { key: 2, ..read(None, 5, 6) });
    assert_eq!(check(&history), Verdict::Valid);
    history.push(Operation { key: 2, ..read(1, 7, 8) });
    assert!(check(&history).is_invalid());
}

#[test]
fn a_history_without_an_answer_proves_nothing() {
    assert!(matches!(check(&[]), Verdict::Vacuous(_)));
    assert!(matches!(check(&[write(1, 1, None)]), Verdict::Vacuous(_)));
    assert!(matches!(check(&[write(1, 1, 2), write(2, 3, 4)]), Verdict::Vacuous(_)));
}

#[test]
fn ten_thousand_operations_take_no_time() {
    // Five clients whose operations always overlap, ten keys.
    let mut history = Vec::new();
    for number in 0..10_000_u64 {
        let (key, call) = (number % 10, 10 * number);
        let last = (number >= 10).then(|| number - 10);
        history.push(Operation { key, ..cas(last, number, true, call, call + 45) });
    }
    assert_eq!(check(&history), Verdict::Valid);
}
