use super::*;

fn write(arg: u64, call: u64, ret: impl Into<Option<u64>>) -> Operation {
    let ret = ret.into();
    let called = Operation::called(1, 1, Function::Write, call);
    Operation { arg: Some(arg), ok: ret.map(|_| true), ret, ..called }
}

fn read(index: u64, val: impl Into<Option<u64>>, call: u64, ret: u64) -> Operation {
    let called = Operation::called(1, 1, Function::Read, call);
    let (val, index) = (val.into(), Some(index));
    Operation { val, index, ok: Some(true), ret: Some(ret), ..called }
}

fn cas(index: u64, arg: u64, ok: bool, call: u64, ret: impl Into<Option<u64>>) -> Operation {
    let ret = ret.into();
    let (f, index, ok) = (Function::Cas, Some(index), ret.map(|_| ok));
    Operation { f, index, ok, ..write(arg, call, ret) }
}

#[test]
fn good_histories_are_accepted() {
    let good: Vec<(&str, Vec<Operation>)> = vec![
        ("absent, written, read", vec![read(0, None, 1, 2), write(7, 3, 4), read(5, 7, 5, 6)]),
        (
            "an overlapping read sees the old version",
            vec![write(7, 1, 2), write(8, 3, 9), read(5, 7, 4, 5), read(6, 8, 10, 11)],
        ),
        (
            "compare-and-set by one of two",
            vec![
                write(7, 1, 2),
                read(5, 7, 3, 4),
                cas(5, 8, true, 5, 6),
                cas(5, 9, false, 5, 7),
                read(6, 8, 8, 9),
            ],
        ),
        (
            "an unknown write takes effect late",
            vec![write(7, 1, None), write(8, 2, 3), read(5, 8, 4, 5), read(6, 7, 6, 7)],
        ),
        (
            "an unknown compare-and-set loses",
            vec![write(7, 1, 2), cas(5, 8, true, 3, None), cas(5, 9, true, 4, 6), read(6, 9, 7, 8)],
        ),
        (
            "other keys have other orders",
            vec![
                write(7, 1, 2),
                read(9, 7, 3, 4),
                Operation { key: 2, ..write(8, 5, 6) },
                Operation { key: 2, ..read(4, 8, 7, 8) },
            ],
        ),
    ];
    for (name, history) in good {
        assert_eq!(check(&history), Verdict::Valid, "{name}");
    }
}

#[test]
fn bad_histories_are_rejected() {
    let two = || vec![write(7, 1, 2), write(8, 3, 4)];
    let then = |more: &[Operation]| [two(), more.to_vec()].concat();
    let bad: Vec<(&str, &str, Vec<Operation>)> = vec![
        ("a stale read", "before", then(&[read(6, 8, 5, 6), read(5, 7, 7, 8)])),
        ("one index, two values", "two values", then(&[read(5, 7, 3, 9), read(5, 8, 5, 6)])),
        ("applied twice", "written twice", then(&[read(5, 7, 3, 6), read(7, 7, 7, 8)])),
        ("from nowhere", "nowhere", then(&[read(6, 9, 5, 6)])),
        ("refused and found", "refused", then(&[cas(1, 9, false, 5, 6), read(7, 9, 7, 8)])),
        (
            "a lost update",
            "replaced twice",
            then(&[read(6, 8, 5, 6), cas(6, 9, true, 7, 9), cas(6, 10, true, 8, 10)]),
        ),
        ("the index falls", "later or equal", then(&[cas(6, 9, true, 5, 9), read(4, 9, 6, 7)])),
        (
            "an acknowledged write is not seen",
            "before",
            then(&[read(6, 8, 3, 9), read(5, 7, 5, 6)]),
        ),
        ("read before it was written", "before", vec![read(5, 7, 1, 2), write(7, 3, 4)]),
        ("gone again", "before", then(&[read(6, 8, 5, 6), read(0, None, 7, 8)])),
        ("a value without an index", "no index", then(&[read(0, 8, 5, 6)])),
    ];
    for (name, word, history) in bad {
        let Verdict::Invalid(violations) = check(&history) else { panic!("{name}") };
        assert!(violations.iter().any(|said| said.contains(word)), "{name}: {violations:?}");
    }
}

#[test]
fn a_history_without_an_index_proves_nothing() {
    assert!(matches!(check(&[]), Verdict::Vacuous(_)));
    let bare = Operation { index: None, ..read(5, 7, 3, 4) };
    assert!(matches!(check(&[write(7, 1, 2), bare]), Verdict::Vacuous(_)));
}

#[test]
fn a_long_history_takes_no_time() {
    let history: Vec<Operation> = (1..100_000_u64)
        .flat_map(|n| [write(n, 10 * n, 10 * n + 25), read(n, n, 10 * n + 20, 10 * n + 30)])
        .collect();
    assert_eq!(check(&history), Verdict::Valid);
}
