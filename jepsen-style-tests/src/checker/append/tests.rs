use super::super::linear;
use super::*;

fn read(list: &[u64], call: u64, ret: u64) -> ListOperation {
    ListOperation {
        client: 1,
        key: 1,
        f: ListFunction::Read,
        arg: None,
        ok: Some(true),
        list: list.to_vec(),
        index: list.len() as u64,
        call,
        ret: Some(ret),
    }
}

fn append(number: u64, ok: bool, call: u64, ret: impl Into<Option<u64>>) -> ListOperation {
    let ret = ret.into();
    let (f, arg, ok) = (ListFunction::Append, Some(number), ret.map(|_| ok));
    ListOperation { f, arg, ok, ret, ..read(&[], call, call) }
}

#[test]
fn good_histories_are_accepted() {
    let one = append(1, true, 1, 2);
    let two = append(2, true, 3, 4);
    let good: Vec<(&str, Vec<ListOperation>)> = vec![
        ("one after the other", vec![one.clone(), two.clone(), read(&[1, 2], 5, 6)]),
        (
            "an overlapping read sees less",
            vec![one.clone(), append(2, true, 3, 9), read(&[1], 4, 5), read(&[1, 2], 10, 11)],
        ),
        (
            "overlapping appends in either order",
            vec![append(1, true, 1, 5), append(2, true, 2, 4), read(&[2, 1], 6, 7)],
        ),
        (
            "an unknown append takes effect late",
            vec![append(1, true, 1, None), two.clone(), read(&[2], 5, 6), read(&[2, 1], 7, 8)],
        ),
        ("an unknown append never does", vec![append(1, true, 1, None), two, read(&[2], 5, 6)]),
        ("a refused one is not there", vec![one.clone(), append(3, false, 3, 4), read(&[1], 5, 6)]),
        ("nobody read since", vec![one.clone(), read(&[1], 3, 4), append(2, true, 5, 6)]),
        (
            "lists are judged alone",
            vec![one, read(&[1], 3, 4), ListOperation { key: 2, ..read(&[], 5, 6) }],
        ),
    ];
    for (name, history) in good {
        assert_eq!(check(&history), Verdict::Valid, "{name}");
    }
}

#[test]
fn bad_histories_are_rejected() {
    let both = || vec![append(1, true, 1, 2), append(2, true, 3, 4)];
    let then = |more: &[ListOperation]| [both(), more.to_vec()].concat();
    let bad: Vec<(&str, &str, Vec<ListOperation>)> = vec![
        ("lost", "2 is lost", then(&[read(&[1], 5, 6)])),
        ("lost from the middle", "1 is lost", then(&[read(&[2], 5, 6)])),
        ("twice", "twice", then(&[read(&[1, 2, 1], 5, 6)])),
        ("from nowhere", "nowhere", then(&[read(&[1, 2, 9], 5, 6)])),
        ("two orders", "contradicts", then(&[read(&[1, 2], 5, 6), read(&[2, 1], 5, 6)])),
        ("a stale read", "before", then(&[read(&[1, 2], 5, 6), read(&[1], 7, 8)])),
        (
            "an acknowledged one is not seen",
            "before",
            then(&[read(&[1], 5, 9), read(&[1, 2], 6, 7)]),
        ),
        ("refused and there", "refused", then(&[append(3, false, 5, 6), read(&[1, 2, 3], 7, 8)])),
        (
            "seen before it was appended",
            "before",
            vec![append(1, true, 1, 2), read(&[1, 2], 3, 4), append(2, true, 5, 6)],
        ),
        ("the later one comes first", "before", then(&[read(&[2, 1], 5, 6)])),
        (
            "another list's number",
            "nowhere",
            vec![append(1, true, 1, 2), ListOperation { key: 2, ..read(&[1], 3, 4) }],
        ),
    ];
    for (name, word, history) in bad {
        let Verdict::Invalid(violations) = check(&history) else { panic!("{name}") };
        assert!(violations.iter().any(|said| said.contains(word)), "{name}: {violations:?}");
    }
}

#[test]
fn a_run_without_an_acknowledged_append_proves_nothing() {
    assert!(matches!(check(&[]), Verdict::Vacuous(_)));
    assert!(matches!(check(&[append(1, true, 1, None), read(&[], 2, 3)]), Verdict::Vacuous(_)));
}

#[test]
fn as_a_register_a_list_shows_who_was_refused_without_a_reason() {
    let to = |list: &[u64], append: ListOperation| ListOperation {
        list: list.to_vec(),
        index: list.len() as u64,
        ..append
    };
    let judge = |history: &[ListOperation]| {
        let registers: Vec<_> = history.iter().map(ListOperation::as_register).collect();
        linear::check(&registers)
    };
    let one = || vec![append(1, true, 1, 2), read(&[1], 3, 4)];
    let then = |more: &[ListOperation]| [one(), more.to_vec()].concat();
    let raced = then(&[
        to(&[1], append(2, true, 5, 9)),
        to(&[1], append(3, false, 6, 8)),
        read(&[1, 2], 10, 11),
    ]);
    assert_eq!(judge(&raced), Verdict::Valid);
    let beside_an_unknown_one =
        then(&[to(&[1], append(2, true, 5, None)), to(&[1], append(3, false, 6, 8))]);
    assert_eq!(judge(&beside_an_unknown_one), Verdict::Valid);
    let refused = then(&[to(&[1], append(3, false, 5, 6)), read(&[1], 7, 8)]);
    assert_eq!(check(&refused), Verdict::Valid, "the lists alone do not show it");
    let Verdict::Invalid(violations) = judge(&refused) else { panic!("accepted") };
    assert!(violations[0].contains("this does not fit"), "{violations:?}");
    assert!(violations[0].contains("arg: Some(3)"), "{violations:?}");
}

#[test]
fn a_list_is_a_register_of_its_last_number() {
    let read = read(&[1, 2], 5, 6).as_register();
    assert_eq!((read.f, read.val, read.index), (Function::Read, Some(2), Some(2)));
    let swap = ListOperation { list: vec![1, 2], index: 2, ..append(3, true, 7, 8) }.as_register();
    assert_eq!((swap.f, swap.from, swap.arg), (Function::Cas, Some(2), Some(3)));
}
