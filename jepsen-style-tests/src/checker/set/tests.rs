use super::*;

fn add(member: u64, ok: bool, call: u64, ret: impl Into<Option<u64>>) -> Operation {
    let ret = ret.into();
    let added = Operation::called(1, 0, Function::Add, call);
    Operation { arg: Some(member), ok: ret.map(|_| ok), ret, ..added }
}
fn contains(member: u64, found: bool, call: u64, ret: u64) -> Operation {
    Operation { f: Function::Contains, ..add(member, found, call, ret) }
}

#[test]
fn good_histories_are_accepted() {
    let good: Vec<(&str, Vec<Operation>, Vec<u64>)> = vec![
        ("all there", vec![add(1, true, 1, 2), add(2, true, 3, 4)], vec![1, 2]),
        ("an unknown one is there", vec![add(1, true, 1, 2), add(2, true, 3, None)], vec![1, 2]),
        ("an unknown one is not there", vec![add(1, true, 1, 2), add(2, true, 3, None)], vec![1]),
        ("found after its add", vec![add(1, true, 1, 2), contains(1, true, 3, 4)], vec![1]),
        (
            "not found while it was added",
            vec![add(1, true, 1, 9), contains(1, false, 3, 4)],
            vec![1],
        ),
        (
            "an unknown one is found, later not",
            vec![add(2, true, 1, 2), add(1, true, 1, None), contains(1, false, 3, 4)],
            vec![2, 1],
        ),
    ];
    for (name, history, members) in good {
        assert_eq!(check(&history, &[(1, members)]), Verdict::Valid, "{name}");
    }
}

#[test]
fn bad_histories_are_rejected() {
    let one = || vec![add(1, true, 1, 2)];
    let bad: Vec<(&str, &str, Vec<Operation>, Vec<u64>)> = vec![
        ("lost", "1 is lost", vec![add(1, true, 1, 2), add(2, true, 3, 4)], vec![2]),
        ("twice", "more than once", one(), vec![1, 1]),
        ("from nowhere", "3 comes from nowhere", one(), vec![1, 3]),
        (
            "applied twice",
            "2 was there before",
            vec![add(1, true, 1, 2), add(2, false, 3, 4)],
            vec![1, 2],
        ),
        (
            "a stale look-up",
            "not found by",
            vec![add(1, true, 1, 2), contains(1, false, 3, 4)],
            vec![1],
        ),
        (
            "found and never added",
            "7 was found and never added",
            vec![add(1, true, 1, 2), contains(7, true, 3, 4)],
            vec![1],
        ),
        (
            "found before it was added",
            "1 was found before",
            vec![add(1, true, 5, 6), contains(1, true, 3, 4)],
            vec![1],
        ),
    ];
    for (name, word, history, members) in bad {
        let Verdict::Invalid(violations) = check(&history, &[(1, members)]) else {
            panic!("{name}")
        };
        assert!(violations.iter().any(|said| said.contains(word)), "{name}: {violations:?}");
    }
}

#[test]
fn every_server_is_judged_and_named() {
    let history = [add(1, true, 1, 2), add(2, true, 3, 4)];
    assert!(check(&history, &[(1, vec![1, 2]), (2, vec![2, 1])]).is_valid());
    let Verdict::Invalid(violations) = check(&history, &[(1, vec![1, 2]), (2, vec![1])]) else {
        panic!("a lost member was accepted");
    };
    assert_eq!(violations.len(), 1);
    assert!(violations[0].starts_with("at n2: 2 is lost"), "{violations:?}");
}

#[test]
fn a_run_without_an_acknowledged_add_proves_nothing() {
    assert!(matches!(check(&[add(1, true, 1, None)], &[(1, vec![1])]), Verdict::Vacuous(_)));
}
