//! Elections that a server began because the leader's process had ended: each needs a process that ended.
//!
//! Such an election does not wait for the old leader's lease, so it must never come of a pause, a
//! partition, lost or delayed packets or a starved machine. Servers count these elections; the samples say
//! when a process ended, because its number changed or it was gone.

use std::collections::BTreeMap;

use super::Verdict;
use crate::journal::Sample;
use crate::record::Record;

/// A process may have ended for this long before its election shows in a sample: a server that does not
/// answer `/metrics` meanwhile (nanoseconds).
const SHOWN_WITHIN: u64 = 5_000_000_000;

/// Checks the samples of a run.
pub fn check(record: &Record) -> Verdict {
    check_samples(&record.samples)
}

/// A time in which something happened, in nanoseconds of the run.
type Span = (u64, u64);

fn check_samples(samples: &[Sample]) -> Verdict {
    let mut by_node: BTreeMap<u64, Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        by_node.entry(sample.node).or_default().push(sample);
    }
    for samples in by_node.values_mut() {
        samples.sort_by_key(|sample| sample.at);
    }
    let ends: BTreeMap<u64, Vec<Span>> =
        by_node.iter().map(|(node, samples)| (*node, process_ends(samples))).collect();
    let mut violations = Vec::new();
    for (node, samples) in &by_node {
        for (from, to) in early_elections(samples) {
            let explains = |(began, ended): &Span| *began <= to && from <= ended + SHOWN_WITHIN;
            let mut others = ends.iter().filter(|(other, _)| *other != node);
            if !others.any(|(_, ends)| ends.iter().any(explains)) {
                violations.push(format!(
                    "n{node} began an election between {from} and {to} ns because a leader's process had ended, \
                     and none had"
                ));
            }
        }
    }
    Verdict::from_violations(violations)
}

/// When this server's process ended: between the last sample of one process and the first without it.
fn process_ends(samples: &[&Sample]) -> Vec<Span> {
    let pairs = samples.windows(2);
    let ended = pairs.filter(|pair| {
        let before = living(pair[0]);
        before.is_some() && before != living(pair[1])
    });
    ended.map(|pair| (pair[0].at, pair[1].at)).collect()
}

/// The process that was sampled, if it was alive: one that has ended and was not waited for yet still has a
/// number, but no memory.
fn living(sample: &Sample) -> Option<u32> {
    sample.pid.filter(|_| sample.memory.is_some())
}

/// When this server's count grew.
fn early_elections(samples: &[&Sample]) -> Vec<Span> {
    let mut grew = Vec::new();
    // A new process counts from zero.
    let mut last: Option<(Option<u32>, u64, u64)> = None;
    for sample in samples {
        let Some(count) = sample.early_elections else { continue };
        let known = last.filter(|(pid, _, _)| *pid == sample.pid);
        let (from, before) = known.map_or((0, 0), |(_, at, count)| (at, count));
        if count > before {
            grew.push((from, sample.at));
        }
        last = Some((sample.pid, sample.at, count));
    }
    grew
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn sample(at_s: u64, node: u64, pid: u32, elections: u64) -> Sample {
        let pid = (pid != 0).then_some(pid);
        let early_elections = pid.map(|_| elections);
        let memory = pid.map(|_| 1 << 20);
        Sample { at: at_s * SECOND, node, pid, memory, early_elections, ..Sample::default() }
    }

    #[test]
    fn an_election_after_the_end_of_another_process_is_accepted() {
        let good: Vec<(&str, Vec<Sample>)> = vec![
            ("none at all", vec![sample(1, 1, 7, 0), sample(2, 1, 7, 0)]),
            (
                "the other is gone",
                vec![
                    sample(1, 1, 7, 0),
                    sample(1, 2, 8, 0),
                    sample(2, 2, 0, 0),
                    sample(2, 1, 7, 1),
                ],
            ),
            (
                "the other is back under another number",
                vec![
                    sample(1, 1, 7, 0),
                    sample(1, 2, 8, 0),
                    sample(3, 2, 9, 0),
                    sample(3, 1, 7, 1),
                ],
            ),
            (
                "seen later, because nobody answered",
                vec![
                    sample(1, 2, 8, 0),
                    sample(2, 2, 0, 0),
                    sample(1, 1, 7, 0),
                    sample(6, 1, 7, 1),
                ],
            ),
            (
                "a new process counts anew",
                vec![
                    sample(1, 2, 8, 0),
                    sample(2, 2, 0, 0),
                    sample(2, 1, 7, 1),
                    sample(20, 1, 9, 0),
                    sample(21, 1, 9, 0),
                ],
            ),
        ];
        for (name, samples) in good {
            assert_eq!(check_samples(&samples), Verdict::Valid, "{name}");
        }
    }

    #[test]
    fn an_election_without_the_end_of_a_process_is_rejected() {
        let bad: Vec<(&str, Vec<Sample>)> = vec![
            ("nobody ended", vec![sample(1, 1, 7, 0), sample(1, 2, 8, 0), sample(2, 1, 7, 1)]),
            ("it was counted at once", vec![sample(1, 1, 7, 1), sample(1, 2, 8, 0)]),
            (
                "only it ended itself",
                vec![
                    sample(1, 1, 7, 0),
                    sample(2, 1, 0, 0),
                    sample(3, 1, 9, 0),
                    sample(4, 1, 9, 1),
                ],
            ),
            (
                "long after the end of the other",
                vec![
                    sample(1, 2, 8, 0),
                    sample(2, 2, 0, 0),
                    sample(30, 1, 7, 0),
                    sample(31, 1, 7, 1),
                ],
            ),
            (
                "before the end of the other",
                vec![
                    sample(1, 1, 7, 0),
                    sample(2, 1, 7, 1),
                    sample(8, 2, 8, 0),
                    sample(9, 2, 0, 0),
                ],
            ),
        ];
        for (name, samples) in bad {
            assert!(check_samples(&samples).is_invalid(), "{name}");
        }
    }
}
