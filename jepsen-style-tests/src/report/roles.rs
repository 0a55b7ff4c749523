//! What each node said of itself over time: whether it led, in which term, and when it said nothing.

use std::collections::BTreeMap;

use super::axis::{Axis, Label, MILLI, Mark, Percent, labels};
use crate::journal::Sample;
use crate::record::Record;

/// A node is asked ten times a second. One whose next sample comes later than this did not answer the rest
/// of the questions in between.
const SILENT_AFTER: u64 = 1_000 * MILLI;
/// And this long its last answer is believed then.
const BELIEVED: u64 = 200 * MILLI;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Leader(u64),
    Follower(u64),
    /// There is a process, and it does not answer.
    Silent,
    /// There is no process.
    Down,
}

impl Role {
    fn of(sample: &Sample) -> Self {
        match (sample.term, sample.leads) {
            (Some(term), Some(true)) => Self::Leader(term),
            (Some(term), _) => Self::Follower(term),
            (None, _) if sample.descriptors.is_some() => Self::Silent,
            (None, _) => Self::Down,
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Leader(_) => "leader",
            Self::Follower(_) => "follower",
            Self::Silent => "silent",
            Self::Down => "down",
        }
    }

    fn words(self) -> String {
        match self {
            Self::Leader(term) => format!("leader in term {term}"),
            Self::Follower(term) => format!("follower in term {term}"),
            Self::Silent => "a process that does not answer".to_owned(),
            Self::Down => "no process".to_owned(),
        }
    }

    fn term(self) -> Option<u64> {
        match self {
            Self::Leader(term) | Self::Follower(term) => Some(term),
            Self::Silent | Self::Down => None,
        }
    }
}

/// One node.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) node: String,
    pub(super) spans: Vec<Mark>,
    pub(super) terms: Vec<Label>,
    /// Where its process was found gone.
    pub(super) ends: Vec<Percent>,
    pub(super) summary: String,
}

/// The lanes of all nodes of which there are samples.
pub(super) fn lanes(record: &Record, axis: Axis) -> Vec<Lane> {
    let mut samples: BTreeMap<u64, Vec<&Sample>> = BTreeMap::new();
    for sample in &record.samples {
        samples.entry(sample.node).or_default().push(sample);
    }
    samples.into_iter().map(|(node, samples)| lane(node, &samples, axis)).collect()
}

fn lane(node: u64, samples: &[&Sample], axis: Axis) -> Lane {
    let stretches = stretches(samples, axis.to());
    let span = |(from, to, role): &(u64, u64, Role)| {
        let (begin, end) = (axis.seconds(*from), axis.seconds(*to));
        let title = format!("n{node}: {}, {begin} to {end}", role.words());
        axis.mark(*from, *to, role.class(), title)
    };
    let is_down = |(_, _, role): &&(u64, u64, Role)| *role == Role::Down;
    let ends: Vec<Percent> =
        stretches.iter().filter(is_down).map(|(from, _, _)| axis.place(*from)).collect();
    let led = stretches.iter().filter(|(_, _, role)| matches!(role, Role::Leader(_))).count();
    Lane {
        node: format!("n{node}"),
        terms: labels(&terms(&stretches, axis)),
        summary: format!("n{node} led {led} times, its process was gone {} times", ends.len()),
        spans: stretches.iter().map(span).collect(),
        ends,
    }
}

/// Where a node was what, without equal neighbours.
fn stretches(samples: &[&Sample], to: u64) -> Vec<(u64, u64, Role)> {
    let mut stretches: Vec<(u64, u64, Role)> = Vec::new();
    let mut add = |from: u64, to: u64, role: Role| match stretches.last_mut() {
        Some((_, end, last)) if *last == role => *end = to,
        _ => stretches.push((from, to, role)),
    };
    for (number, sample) in samples.iter().enumerate() {
        let next = samples.get(number + 1).map_or(to.max(sample.at), |next| next.at);
        let role = Role::of(sample);
        if role.term().is_some() && next - sample.at > SILENT_AFTER {
            add(sample.at, sample.at + BELIEVED, role);
            add(sample.at + BELIEVED, next, Role::Silent);
        } else {
            add(sample.at, next, role);
        }
    }
    stretches
}

/// The term, wherever it changed.
fn terms(stretches: &[(u64, u64, Role)], axis: Axis) -> Vec<(Percent, Vec<String>)> {
    let mut last = None;
    let mut texts = Vec::new();
    for (from, _, role) in stretches {
        if role.term().is_some() && role.term() != last {
            last = role.term();
            let term = last.unwrap_or_default();
            texts.push((axis.place(*from), vec![format!("term {term}"), term.to_string()]));
        }
    }
    texts
}

/// How often a node was seen with a newer snapshot than before, made by itself or received.
pub(super) fn newer_snapshots(samples: &[Sample]) -> usize {
    let mut newest: BTreeMap<u64, u64> = BTreeMap::new();
    let mut count = 0;
    for (node, index) in samples.iter().filter_map(|sample| Some((sample.node, sample.snapshot?))) {
        let before = newest.insert(node, index);
        count += usize::from(before.is_some_and(|before| before < index));
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::leader_changes;

    fn sample(node: u64, at_ms: u64, term: impl Into<Option<u64>>, leads: bool) -> Sample {
        let term = term.into();
        let leads = term.map(|_| leads);
        Sample { at: at_ms * MILLI, node, term, leads, descriptors: Some(9), ..Sample::default() }
    }

    #[test]
    fn a_node_that_is_silent_for_long_is_not_believed_to_lead_meanwhile() {
        let samples = [sample(1, 0, 2, true), sample(1, 100, 2, true), sample(1, 4_000, 3, false)];
        let samples: Vec<&Sample> = samples.iter().collect();
        let expected = [
            (0, 300 * MILLI, Role::Leader(2)),
            (300 * MILLI, 4_000 * MILLI, Role::Silent),
            (4_000 * MILLI, 4_100 * MILLI, Role::Follower(3)),
        ];
        assert_eq!(stretches(&samples, 4_100 * MILLI), expected);
    }

    #[test]
    fn a_process_that_is_gone_is_not_merely_silent() {
        let gone = Sample { descriptors: None, ..sample(1, 100, None, false) };
        assert_eq!(Role::of(&gone), Role::Down);
        assert_eq!(Role::of(&sample(1, 100, None, false)), Role::Silent);
    }

    #[test]
    fn a_leader_that_reports_late_is_no_change_of_leaders() {
        let samples = [
            sample(1, 0, 2, true),
            sample(2, 10, 3, true),
            sample(1, 20, 2, true),
            sample(2, 30, 3, true),
            sample(1, 40, 4, true),
        ];
        assert_eq!(leader_changes(&samples), 2);
        assert_eq!(leader_changes(&[]), 0);
    }

    #[test]
    fn only_a_snapshot_that_replaces_another_is_newer() {
        let with = |node, index| Sample { snapshot: Some(index), ..sample(node, 0, 1, false) };
        assert_eq!(
            newer_snapshots(&[with(1, 0), with(2, 7), with(1, 5), with(1, 5), with(2, 7)]),
            1
        );
    }
}
