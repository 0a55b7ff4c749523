//! Whether the run exercised what it claims to: enough traffic before the first fault, at least one proven fault of
//! each nemesis, and at least two in all. Otherwise the run proves nothing.

use super::Verdict;
use crate::client::OBSERVER;
use crate::journal::{Ending, RequestLine};
use crate::record::Record;
use crate::run::WARM_UP;

/// Acknowledged operations per second that must flow before the first fault, unless the plan's rate is
/// smaller than twice that: then half of the plan's rate.
const RATE_MIN: u64 = 100;
/// Proven faults in a run with nemeses.
const FAULTS_MIN: usize = 2;

/// Judges a run's coverage: valid or vacuous.
pub fn check(record: &Record) -> Verdict {
    let needed = RATE_MIN.min(record.plan.rate / 2);
    let rate = rate_before_faults(record);
    if rate < needed {
        return Verdict::Vacuous(format!(
            "only {rate} acknowledged requests per second before the first fault, {needed} are needed"
        ));
    }
    let is_skipped =
        |name: &String| record.ending.skipped.iter().any(|(skipped, _)| skipped == name);
    let mut wanted = record.plan.nemeses.iter().filter(|name| !is_skipped(name)).peekable();
    if record.plan.nemeses.is_empty() {
        return Verdict::Valid;
    }
    if wanted.peek().is_none() {
        return Verdict::Vacuous("every fault was skipped".to_owned());
    }
    let proven: Vec<_> = record.faults.iter().filter(|fault| fault.evidence.is_some()).collect();
    if proven.len() < FAULTS_MIN {
        return Verdict::Vacuous(format!(
            "only {} faults took effect{}",
            proven.len(),
            first_objection(record)
        ));
    }
    let is_idle = |name: &&String| !proven.iter().any(|fault| fault.nemesis == **name);
    match wanted.find(is_idle) {
        Some(name) => {
            Verdict::Vacuous(format!("no fault of {name} took effect{}", first_objection(record)))
        }
        None => Verdict::Valid,
    }
}

/// What the first probe that found no effect found instead, to be put behind a sentence.
fn first_objection(record: &Record) -> String {
    let objections = record.faults.iter().filter_map(|fault| {
        fault.objection.as_ref().map(|objection| format!(" ({}: {objection})", fault.what))
    });
    objections.into_iter().next().unwrap_or_default()
}

/// Acknowledged requests of clients per second, from when they began until the first fault. What observers look
/// at does not count, nor do blocking queries: they go on by themselves.
pub fn rate_before_faults(record: &Record) -> u64 {
    let began = record.ending.began;
    let nanos = |span: std::time::Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    let warm = began.saturating_add(nanos(WARM_UP));
    let until = record.faults.first().map_or(warm, |fault| fault.began);
    let is_before = |end: u64| end >= began && end < until;
    let counts = |request: &&RequestLine| {
        let is_clients = !request.held && request.client != OBSERVER;
        is_clients && request.end == Ending::Answered && is_before(request.ended)
    };
    let answered = record.requests.iter().filter(counts).count();
    let millis = until.saturating_sub(began).div_ceil(1_000_000).max(1);
    u64::try_from(answered).unwrap_or(u64::MAX).saturating_mul(1_000) / millis
}

#[cfg(test)]
mod tests;
