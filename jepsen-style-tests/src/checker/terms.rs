//! Raft's terms, as the servers report them: the term of a server never decreases, not across a restart either (it
//! is synced before the server votes in it), and no term has two leaders.

use std::collections::BTreeMap;

use super::Verdict;
use crate::journal::{Fault, Sample};
use crate::record::Record;

/// After these faults there is another server at the same place, which begins anew.
const REPLACING: [&str; 1] = ["wiped-node"];

/// What a server says that has begun to serve, and whose consensus has not told its term yet. No election
/// happens in it.
const UNKNOWN: u64 = 0;

/// Judges the samples of a run.
pub fn check(record: &Record) -> Verdict {
    judge(&record.samples, &record.faults)
}

fn judge(samples: &[Sample], faults: &[Fault]) -> Verdict {
    let mut in_order: Vec<&Sample> = samples.iter().collect();
    in_order.sort_by_key(|sample| sample.at);
    let mut last: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let mut leaders: BTreeMap<u64, u64> = BTreeMap::new();
    let mut violations = Vec::new();
    for sample in in_order {
        let Some(term) = sample.term.filter(|term| *term != UNKNOWN) else { continue };
        let node = sample.node;
        if let Some((before, at)) = last.insert(node, (term, sample.at))
            && term < before
            && !is_replaced(node, at, sample.at, faults)
        {
            violations.push(format!("n{node} was in term {before} and, later, in term {term}"));
        }
        if sample.leads == Some(true) {
            let leader = *leaders.entry(term).or_insert(node);
            if leader != node {
                violations.push(format!("term {term} had two leaders: n{leader} and n{node}"));
            }
        }
    }
    if last.is_empty() {
        return Verdict::Vacuous("no server ever told its term".to_owned());
    }
    violations.dedup();
    Verdict::from_violations(violations)
}

/// Whether a fault that puts another server in the place was there between two samples, or near them.
fn is_replaced(node: u64, before: u64, after: u64, faults: &[Fault]) -> bool {
    let is_near = |fault: &Fault| {
        fault.began <= after && fault.recovered.is_none_or(|recovered| before <= recovered)
    };
    faults.iter().any(|fault| {
        let replaces = fault.nemesis.split('+').any(|name| REPLACING.contains(&name));
        replaces && fault.affected.contains(&node) && is_near(fault)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: u64, node: u64, term: u64, leads: bool) -> Sample {
        Sample { at, node, term: Some(term), leads: Some(leads), ..Sample::default() }
    }

    fn silent(at: u64, node: u64) -> Sample {
        Sample { at, node, ..Sample::default() }
    }

    fn wiped(node: u64, began: u64, recovered: u64) -> Fault {
        Fault {
            nemesis: "wiped-node".to_owned(),
            affected: vec![node],
            began,
            recovered: Some(recovered),
            ..Fault::default()
        }
    }

    #[test]
    fn good_terms_are_accepted() {
        let good: Vec<(&str, Vec<Sample>, Vec<Fault>)> = vec![
            ("one leader", vec![sample(1, 1, 1, true), sample(1, 2, 1, false)], vec![]),
            ("a new term", vec![sample(1, 1, 1, true), sample(5, 2, 2, true)], vec![]),
            ("the same leads again", vec![sample(1, 1, 1, true), sample(5, 1, 3, true)], vec![]),
            (
                "two at the same time, in terms of their own",
                vec![sample(1, 1, 1, true), sample(2, 2, 2, true), sample(3, 1, 1, true)],
                vec![],
            ),
            (
                "a silence",
                vec![sample(1, 1, 4, false), silent(2, 1), sample(3, 1, 4, false)],
                vec![],
            ),
            ("just started", vec![sample(1, 1, 4, false), sample(2, 1, 0, false)], vec![]),
            ("out of order", vec![sample(9, 1, 4, false), sample(3, 1, 3, false)], vec![]),
            (
                "another server in the place of a wiped one",
                vec![sample(1, 1, 4, false), sample(6, 1, 1, false), sample(9, 1, 5, false)],
                vec![wiped(1, 2, 8)],
            ),
        ];
        for (name, samples, faults) in good {
            assert_eq!(judge(&samples, &faults), Verdict::Valid, "{name}");
        }
    }

    #[test]
    fn bad_terms_are_rejected() {
        let bad: Vec<(&str, Vec<Sample>, Vec<Fault>)> = vec![
            ("two leaders of one term", vec![sample(1, 1, 2, true), sample(5, 2, 2, true)], vec![]),
            ("a term falls", vec![sample(1, 1, 2, false), sample(5, 1, 1, false)], vec![]),
            (
                "a term falls across a restart",
                vec![
                    sample(1, 1, 3, false),
                    silent(2, 1),
                    sample(5, 1, 0, false),
                    sample(6, 1, 1, false),
                ],
                vec![],
            ),
            (
                "two leaders long after each other",
                vec![sample(1, 1, 2, true), sample(5, 2, 3, true), sample(9, 3, 2, true)],
                vec![],
            ),
            (
                "a term falls, and another server was wiped",
                vec![sample(3, 1, 2, false), sample(5, 1, 1, false)],
                vec![wiped(2, 2, 8)],
            ),
            (
                "a term falls long after the wiping",
                vec![sample(30, 1, 2, false), sample(50, 1, 1, false)],
                vec![wiped(1, 2, 8)],
            ),
        ];
        for (name, samples, faults) in bad {
            assert!(judge(&samples, &faults).is_invalid(), "{name}");
        }
    }

    #[test]
    fn servers_that_never_answered_prove_nothing() {
        assert!(matches!(judge(&[silent(1, 1)], &[]), Verdict::Vacuous(_)));
    }
}
