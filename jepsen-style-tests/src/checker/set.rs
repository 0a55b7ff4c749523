//! A set whose members are keys, each written once: no acknowledged member is lost, and none appears that nobody
//! wrote.
//!
//! Most writes are create-only. If one of them is applied twice, the second application is refused, and the client
//! is answered "false" although nobody else writes this member. The other writes are unconditional; a second
//! application of one of those does not show here.

use std::collections::{BTreeMap, BTreeSet};

use super::Verdict;
use crate::history::{Function, Operation};

/// Judges the adds and look-ups of a history, and the members that each server listed at the end.
pub fn check(history: &[Operation], lists: &[(u64, Vec<u64>)]) -> Verdict {
    let mut added = Added::new();
    let mut violations = Vec::new();
    for add in history.iter().filter(|operation| operation.f == Function::Add) {
        let member = add.arg.unwrap_or_default();
        if added.insert(member, add).is_some() {
            return Verdict::Vacuous(format!("member {member} was added twice by the test itself"));
        }
        if add.ok == Some(false) {
            violations.push(format!(
                "{member} was there before it was added, so it was applied twice: {add:?}"
            ));
        }
    }
    if !added.values().any(|add| is_acknowledged(add)) {
        return Verdict::Vacuous("no add was acknowledged".to_owned());
    }
    violations.extend(look_ups(history, &added));
    for (node, members) in lists {
        let of_list = final_members(&added, members);
        violations.extend(of_list.into_iter().map(|violation| format!("at n{node}: {violation}")));
    }
    Verdict::from_violations(violations)
}

type Added<'a> = BTreeMap<u64, &'a Operation>;

fn is_acknowledged(add: &Operation) -> bool {
    add.ret.is_some() && add.ok == Some(true)
}

/// A look-up that began after an add returned must find the member; one that ended before the add
/// was called must not.
fn look_ups(history: &[Operation], added: &Added<'_>) -> Vec<String> {
    let mut violations = Vec::new();
    for look_up in history.iter().filter(|operation| operation.f == Function::Contains) {
        let (Some(ret), Some(found)) = (look_up.ret, look_up.ok) else { continue };
        let member = look_up.arg.unwrap_or_default();
        match added.get(&member) {
            None if found => violations.push(format!("{member} was found and never added")),
            Some(add) if found && ret < add.call => {
                violations.push(format!("{member} was found before it was added: {look_up:?}"));
            }
            Some(add)
                if !found && is_acknowledged(add) && add.ret.is_some_and(|t| t < look_up.call) =>
            {
                violations
                    .push(format!("{member} was added by {add:?} and not found by {look_up:?}"));
            }
            None | Some(_) => {}
        }
    }
    violations
}

fn final_members(added: &Added<'_>, members: &[u64]) -> Vec<String> {
    let mut violations = Vec::new();
    let mut seen = BTreeSet::new();
    for member in members {
        if !seen.insert(*member) {
            violations.push(format!("{member} is there more than once"));
        }
        if !added.contains_key(member) {
            violations.push(format!("{member} comes from nowhere"));
        }
    }
    for (member, add) in added {
        if is_acknowledged(add) && !seen.contains(member) {
            violations.push(format!("{member} is lost: {add:?}"));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
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
            (
                "an unknown one is there",
                vec![add(1, true, 1, 2), add(2, true, 3, None)],
                vec![1, 2],
            ),
            (
                "an unknown one is not there",
                vec![add(1, true, 1, 2), add(2, true, 3, None)],
                vec![1],
            ),
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
}
