//! The servers' processes: none panics, none ends by itself, and none grows without bound.
//!
//! Growth is checked for each process by itself, because a restart resets everything: the median of its first
//! quarter against that of its last. Medians, because single samples include moments in which all clients
//! reconnect. A process that was too short-lived to show growth is not checked.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Verdict;
use crate::journal::{RequestLine, Sample};
use crate::record::{Record, RunEnding};

/// A process that has just begun opens its files and takes its connections.
const SETTLES: Duration = Duration::from_secs(2);
/// The shortest life that is judged, without the time to settle.
const LIFE_MIN: Duration = Duration::from_secs(6);
/// Fewer samples than this in a life have no medians worth comparing.
const SAMPLES_MIN: usize = 20;

/// Each client may come to open two descriptors more (its own connection, and the one on which another
/// server hands its request on); the rest is for files and peers. Measured with 30 clients: 30 to 50 all
/// the time, so that nearly a hundred more is a leak. One with each request shows within seconds; one
/// with each fault shows in a run of a hundred faults.
const DESCRIPTORS_PER_CLIENT: u64 = 2;
const DESCRIPTORS_SPARE: u64 = 32;
/// Memory may grow with what the clients wrote. Measured with 9,000 requests: from 65 to 72 MiB, which is below
/// 1 KiB for each; and by 13 MiB at most in twenty runs. The rest is for caches that fill.
const MEMORY_PER_REQUEST: u64 = 2 * 1024;
const MEMORY_SPARE: u64 = 48 * 1024 * 1024;

/// Judges the servers of a run.
pub fn check(record: &Record) -> Verdict {
    let crowd = crowd(&record.requests).max(record.plan.clients);
    let limits = Limits::new(crowd, record.requests.len() as u64);
    judge(&record.ending, &record.samples, &limits)
}

fn judge(ending: &RunEnding, samples: &[Sample], limits: &Limits) -> Verdict {
    let panics = ending.panics.iter().map(|line| format!("a panic: {line}"));
    let ended = ending.ended_by_themselves.iter().map(|who| format!("ended by itself: {who}"));
    let mut violations: Vec<_> = panics.chain(ended).collect();
    let grown = growth(samples, limits);
    if violations.is_empty() && grown.is_none() {
        return Verdict::Vacuous("no process was ever looked at".to_owned());
    }
    violations.extend(grown.unwrap_or_default());
    Verdict::from_violations(violations)
}

/// What a process may grow by.
struct Limits {
    descriptors: u64,
    memory: u64,
}

/// The most requests that were under way at one server at the same time. Each has a connection, and
/// connections are kept.
fn crowd(requests: &[RequestLine]) -> u64 {
    let mut steps: BTreeMap<u64, Vec<(u64, bool)>> = BTreeMap::new();
    for request in requests {
        let at_node = steps.entry(request.node).or_default();
        at_node.extend([(request.sent, true), (request.ended, false)]);
    }
    let most = |mut steps: Vec<(u64, bool)>| {
        steps.sort_unstable();
        let (mut open, mut most) = (0_u64, 0);
        for (_, is_sent) in steps {
            open = if is_sent { open + 1 } else { open.saturating_sub(1) };
            most = most.max(open);
        }
        most
    };
    steps.into_values().map(most).max().unwrap_or(0)
}

impl Limits {
    fn new(clients: u64, requests: u64) -> Self {
        Self {
            descriptors: DESCRIPTORS_SPARE + DESCRIPTORS_PER_CLIENT * clients,
            memory: MEMORY_SPARE + MEMORY_PER_REQUEST * requests,
        }
    }
}

/// What grew too much; none if there is no sample of a process.
fn growth(samples: &[Sample], limits: &Limits) -> Option<Vec<String>> {
    let mut lives: BTreeMap<(u64, u32), Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        if let (Some(pid), Some(_), Some(_)) = (sample.pid, sample.descriptors, sample.memory) {
            lives.entry((sample.node, pid)).or_default().push(sample);
        }
    }
    if lives.is_empty() {
        return None;
    }
    let mut violations = Vec::new();
    for ((node, pid), life) in lives {
        let Some((early, late)) = quarters(&life) else { continue };
        let mut judge = |what, figure: fn(&Sample) -> Option<u64>, spare: u64| {
            let (before, after) = (median(early, figure), median(late, figure));
            let limit = before.saturating_add(spare);
            if after > limit {
                violations.push(format!(
                    "n{node} (pid {pid}) grew from {before} to {after} {what}, more than {limit}"
                ));
            }
        };
        judge("descriptors", |s| s.descriptors, limits.descriptors);
        judge("bytes of memory", |s| s.memory, limits.memory);
    }
    Some(violations)
}

/// The first and the last quarter of a life, once it has settled.
fn quarters<'a, 'b>(life: &'b [&'a Sample]) -> Option<(&'b [&'a Sample], &'b [&'a Sample])> {
    let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    let settled = life.first()?.at.saturating_add(nanos(SETTLES));
    let life = &life[life.partition_point(|sample| sample.at < settled)..];
    let lasted = life.last()?.at.saturating_sub(life.first()?.at);
    if life.len() < SAMPLES_MIN || lasted < nanos(LIFE_MIN) {
        return None;
    }
    let quarter = life.len() / 4;
    Some((&life[..quarter], &life[life.len() - quarter..]))
}

fn median(samples: &[&Sample], figure: fn(&Sample) -> Option<u64>) -> u64 {
    let mut figures: Vec<u64> = samples.iter().filter_map(|sample| figure(sample)).collect();
    figures.sort_unstable();
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests;
