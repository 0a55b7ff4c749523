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
mod tests;
