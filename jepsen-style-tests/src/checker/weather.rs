//! When cluster time stood still, and which servers a fault affected.
//!
//! Nothing expires early, whatever happens. But how *late* it may be depends on the faults: cluster time advances
//! only under a leader that has a quorum, and a new leader starts it after a grace period. So a bound on lateness
//! counts only the time in which nothing stands still, which follows from the faults and from the terms that the
//! servers reported.

use crate::journal::{Fault, Sample};
use crate::record::Record;

/// Nanoseconds of a millisecond.
pub(crate) const MILLISECOND: u64 = 1_000_000;
/// A new leader starts the cluster's clock this long after its election, so that clients of a dead server
/// can find another.
const GRACE: u64 = 2_000 * MILLISECOND;
/// What is lost with a leader of the time since it last put the time into the log. Every batch of commands
/// does, and every workload whose lateness is judged sends many a second.
const STAMP: u64 = 250 * MILLISECOND;
/// Terms are sampled every 100 ms, by a harness that shares its cores with the servers.
const SAMPLING: u64 = 250 * MILLISECOND;
/// Nobody led for at most this long before a new leader is seen, unless a fault explains more.
const ELECTION: u64 = 2_000 * MILLISECOND;

/// Under these faults every server serves, but a commit takes the time that it takes: the bounds on lateness
/// are those of a steady state, and say nothing about it.
const SLOWING: [&str; 8] = [
    "delay",
    "reorder",
    "loss",
    "disk-slow",
    "disk-hung",
    "cpu-starvation",
    "memory-starvation",
    "clock-rate",
];

/// A fault while it may be felt.
#[derive(Debug, Clone)]
struct Storm {
    affected: Vec<u64>,
    is_slowing: bool,
    from: u64,
    to: u64,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Weather {
    storms: Vec<Storm>,
    /// Sorted spans, none of which touches another.
    still: Vec<(u64, u64)>,
}

impl Weather {
    /// What a run's files say.
    pub(crate) fn of(record: &Record) -> Self {
        Self::new(&record.faults, &record.samples, record.plan.nodes)
    }

    /// The weather of `nodes` servers with these faults.
    pub(crate) fn new(faults: &[Fault], samples: &[Sample], nodes: u64) -> Self {
        let storms: Vec<_> = faults.iter().map(storm).collect();
        let reigns = reigns(samples);
        let mut still: Vec<_> = storms
            .iter()
            .filter(|storm| stops_time(storm, &reigns, nodes))
            .map(|storm| (storm.from, storm.to))
            .collect();
        for (since, _) in &reigns {
            let begins = storms.iter().filter(|storm| storm.from <= *since && *since <= storm.to);
            let from = begins.map(|storm| storm.from).min();
            let from = from.unwrap_or_else(|| since.saturating_sub(ELECTION));
            still.push((from, since.saturating_add(GRACE + STAMP + SAMPLING)));
        }
        Self { storms, still: merged(still) }
    }

    /// When `span` of cluster time has surely gone by since `from`.
    pub(crate) fn due(&self, from: u64, span: u64) -> u64 {
        let (mut at, mut left) = (from, span);
        for (begin, end) in self.still.iter().filter(|(_, end)| *end > from) {
            let runs = begin.saturating_sub(at);
            if runs >= left {
                break;
            }
            left -= runs;
            at = *end;
        }
        at.saturating_add(left)
    }

    /// Whether a fault was at `node` at any time between two moments.
    pub(crate) fn is_affected(&self, node: u64, from: u64, to: u64) -> bool {
        self.storms
            .iter()
            .any(|storm| storm.from <= to && from <= storm.to && storm.affected.contains(&node))
    }

    /// Until when the faults are felt that were at `node` between two moments; 0: there was none.
    pub(crate) fn felt_until(&self, node: u64, from: u64, to: u64) -> u64 {
        let felt = self
            .storms
            .iter()
            .filter(|storm| storm.from <= to && from <= storm.to && storm.affected.contains(&node));
        felt.map(|storm| storm.to).max().unwrap_or(0)
    }

    /// Each fault at each server: which, from, to.
    pub(crate) fn faults(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        let of = |storm: &Storm| (storm.affected.clone(), storm.from, storm.to);
        self.storms
            .iter()
            .map(of)
            .flat_map(|(affected, from, to)| affected.into_iter().map(move |node| (node, from, to)))
    }

    /// When cluster time may have stood still: from, to.
    pub(crate) fn still(&self) -> impl Iterator<Item = (u64, u64)> {
        self.still.iter().copied()
    }

    /// Whether there was neither a fault nor a change of leaders between two moments.
    pub(crate) fn is_calm(&self, from: u64, to: u64) -> bool {
        let apart = |begin: u64, end: u64| end < from || to < begin;
        self.storms.iter().all(|storm| apart(storm.from, storm.to))
            && self.still.iter().all(|(begin, end)| apart(*begin, *end))
    }
}

/// A fault that nobody saw healed is felt for ever.
fn storm(fault: &Fault) -> Storm {
    let to = fault.recovered.map_or(u64::MAX, |recovered| recovered.saturating_add(SAMPLING));
    let is_slowing = fault.nemesis.split('+').any(|name| SLOWING.contains(&name));
    Storm { affected: fault.affected.clone(), is_slowing, from: fault.began, to }
}

/// Each leader, from when it was first seen to lead: the moment and its number.
fn reigns(samples: &[Sample]) -> Vec<(u64, u64)> {
    let mut sorted: Vec<_> = samples.iter().filter(|sample| sample.leads == Some(true)).collect();
    sorted.sort_by_key(|sample| sample.at);
    let mut reigns = Vec::new();
    let mut highest = None;
    for sample in sorted {
        if sample.term > highest {
            highest = sample.term;
            reigns.push((sample.at, sample.node));
        }
    }
    reigns
}

/// A fault at the leader, or at so many that no quorum is left, may stop the cluster's clock; and one that
/// slows everything down slows the clock, too.
fn stops_time(storm: &Storm, reigns: &[(u64, u64)], nodes: u64) -> bool {
    let quorum = usize::try_from(nodes / 2 + 1).unwrap_or(usize::MAX);
    let left = usize::try_from(nodes).unwrap_or(usize::MAX).saturating_sub(storm.affected.len());
    let leads = |node: &u64| {
        let before = reigns.iter().rev().find(|(since, _)| *since <= storm.from);
        let during = reigns.iter().filter(|(since, _)| storm.from < *since && *since <= storm.to);
        before.into_iter().chain(during).any(|(_, leader)| leader == node)
    };
    storm.is_slowing || left < quorum || storm.affected.iter().any(leads)
}

fn merged(mut spans: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    spans.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (begin, end) in spans {
        match merged.last_mut() {
            Some(last) if begin <= last.1 => last.1 = last.1.max(end),
            Some(_) | None => merged.push((begin, end)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000 * MILLISECOND;

    fn leads(node: u64, term: u64, at_s: u64) -> Sample {
        let at = at_s * SECOND;
        Sample { at, node, term: Some(term), leads: Some(true), ..Sample::default() }
    }

    fn fault(affected: &[u64], began_s: u64, recovered_s: u64) -> Fault {
        Fault {
            affected: affected.to_vec(),
            began: began_s * SECOND,
            recovered: Some(recovered_s * SECOND),
            ..Fault::default()
        }
    }

    #[test]
    fn a_span_is_as_long_as_it_says_in_a_steady_state() {
        let weather = Weather::new(&[], &[leads(1, 1, 0), leads(1, 1, 50)], 3);
        assert_eq!(weather.due(10 * SECOND, 3 * SECOND), 13 * SECOND);
        assert!(weather.is_calm(10 * SECOND, 20 * SECOND));
    }

    #[test]
    fn what_makes_commits_slow_is_no_steady_state() {
        let loss = Fault { nemesis: "kill+loss".to_owned(), ..fault(&[], 20, 23) };
        let weather = Weather::new(&[loss], &[leads(1, 1, 0)], 3);
        assert!(weather.due(19 * SECOND, 2 * SECOND) >= 24 * SECOND);
        let other = Fault { nemesis: "pause".to_owned(), ..fault(&[], 20, 23) };
        let weather = Weather::new(&[other], &[leads(1, 1, 0)], 3);
        assert_eq!(weather.due(19 * SECOND, 2 * SECOND), 21 * SECOND);
    }

    #[test]
    fn time_stands_still_from_the_leaders_death_until_the_grace_is_over() {
        let samples = [leads(1, 1, 0), leads(1, 1, 19), leads(2, 2, 21)];
        let weather = Weather::new(&[fault(&[1], 20, 23)], &samples, 3);
        let end = 21 * SECOND + GRACE + STAMP + SAMPLING;
        assert_eq!(weather.due(19 * SECOND, 2 * SECOND), end + SECOND);
        assert_eq!(weather.due(10 * SECOND, 2 * SECOND), 12 * SECOND);
        assert!(!weather.is_calm(19 * SECOND, 22 * SECOND));
    }

    #[test]
    fn a_follower_stops_no_clock_and_a_majority_does() {
        let samples = [leads(1, 1, 0)];
        let one = Weather::new(&[fault(&[2], 20, 23)], &samples, 3);
        assert_eq!(one.due(19 * SECOND, 3 * SECOND), 22 * SECOND);
        assert!(one.is_affected(2, 21 * SECOND, 22 * SECOND));
        assert!(!one.is_affected(3, 21 * SECOND, 22 * SECOND));
        let two = Weather::new(&[fault(&[2, 3], 20, 23)], &samples, 3);
        assert_eq!(two.due(19 * SECOND, 3 * SECOND), 25 * SECOND + SAMPLING);
    }

    #[test]
    fn what_never_recovers_is_never_due() {
        let lasting = Fault { recovered: None, ..fault(&[1], 20, 0) };
        let weather = Weather::new(&[lasting], &[leads(1, 1, 0)], 3);
        assert_eq!(weather.due(19 * SECOND, 3 * SECOND), u64::MAX);
    }
}
