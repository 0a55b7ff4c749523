//! Counters that many clients increment by compare-and-set: the final value is the number of acknowledged
//! increments, plus some of the unknown ones. More: one was applied twice, or a refused one took effect. Less: one
//! was lost.

use std::collections::BTreeMap;

use super::Verdict;
use crate::history::{Function, Operation, by_key};

/// Judges the compare-and-sets of a history from `n` to `n + 1` (absent counts as 0) by the value that
/// each key had at the end.
pub fn check(history: &[Operation], ends: &BTreeMap<u64, u64>) -> Verdict {
    let mut violations = Vec::new();
    let mut acknowledged_total = 0;
    for (key, operations) in by_key(history) {
        let raises: Vec<_> = operations.into_iter().filter(|o| o.f == Function::Cas).collect();
        let Some(end) = ends.get(&key).copied() else {
            if raises.iter().any(|raise| raise.ok == Some(true)) {
                violations.push(format!("counter {key} is lost"));
            }
            continue;
        };
        let acknowledged = count(&raises, |raise| raise.ok == Some(true));
        let unknown = count(&raises, |raise| raise.ret.is_none());
        acknowledged_total += acknowledged;
        if end < acknowledged || end > acknowledged + unknown {
            violations.push(format!(
                "counter {key} ends at {end}, with {acknowledged} acknowledged and {unknown} unknown increments"
            ));
        }
        violations.extend(shared_steps(key, &raises));
    }
    if violations.is_empty() && acknowledged_total == 0 {
        return Verdict::Vacuous("no increment was acknowledged".to_owned());
    }
    Verdict::from_violations(violations)
}

fn count(raises: &[&Operation], condition: impl Fn(&Operation) -> bool) -> u64 {
    raises.iter().filter(|raise| condition(raise)).count() as u64
}

/// Each step of a counter was made by one client.
fn shared_steps(key: u64, raises: &[&Operation]) -> Vec<String> {
    let mut makers: BTreeMap<Option<u64>, &Operation> = BTreeMap::new();
    let mut violations = Vec::new();
    for raise in raises.iter().filter(|raise| raise.ok == Some(true)) {
        if let Some(other) = makers.insert(raise.from, raise) {
            violations
                .push(format!("counter {key}: one step, two makers: {other:?} and {raise:?}"));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raise(from: impl Into<Option<u64>>, ok: bool, ret: impl Into<Option<u64>>) -> Operation {
        let (from, ret) = (from.into(), ret.into());
        let (arg, ok) = (Some(from.unwrap_or(0) + 1), ret.map(|_| ok));
        Operation { from, arg, ok, ret, ..Operation::called(1, 1, Function::Cas, 1) }
    }

    fn judge(history: &[Operation], end: impl Into<Option<u64>>) -> Verdict {
        check(history, &end.into().map(|end| (1, end)).into_iter().collect())
    }

    #[test]
    fn good_histories_are_accepted() {
        assert!(judge(&[raise(None, true, 2)], 1).is_valid());
        assert!(judge(&[raise(None, true, 2), raise(1, true, 3)], 2).is_valid());
        assert!(judge(&[raise(None, true, 2), raise(1, false, 3)], 1).is_valid());
        assert!(judge(&[raise(None, true, 2), raise(1, true, None)], 1).is_valid());
        assert!(judge(&[raise(None, true, 2), raise(1, true, None)], 2).is_valid());
        assert!(judge(&[raise(None, true, None), raise(1, true, 3)], 2).is_valid());
    }

    #[test]
    fn bad_histories_are_rejected() {
        assert!(judge(&[raise(None, true, 2), raise(1, true, 3)], 1).is_invalid());
        assert!(judge(&[raise(None, true, 2)], 2).is_invalid());
        assert!(judge(&[raise(None, true, 2), raise(None, true, 3)], 2).is_invalid());
        assert!(judge(&[raise(None, true, 2)], None).is_invalid());
        assert!(judge(&[raise(None, true, 2), raise(1, true, None)], 3).is_invalid());
        assert!(judge(&[raise(None, true, 2), raise(1, false, 3)], 2).is_invalid());
    }

    #[test]
    fn a_run_without_an_increment_proves_nothing() {
        assert!(matches!(judge(&[raise(None, true, None)], 0), Verdict::Vacuous(_)));
        assert!(matches!(judge(&[], None), Verdict::Vacuous(_)));
    }
}
