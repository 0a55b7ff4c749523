//! A request to a server that no fault affects is answered, and in time.
//!
//! A server that can reach a leader and a majority may hold a request while a leader is elected, but no longer than
//! its hold time, and must not refuse it. Only requests that overlap a fault of their own server are excused, from
//! just before the injection until every server has recovered. Blocking queries must not fail either; their latency
//! is not checked.
//!
//! A paused server loses nothing: it answers the requests that it held soon after it has caught up, including
//! commands that were committed meanwhile and whose entries came within a snapshot.

use std::time::Duration;

use super::{SENTENCES_MAX, Verdict};
use crate::journal::{Ending, Fault, RequestLine};
use crate::record::Record;

/// How long a server keeps a request without a leader.
const HOLD: Duration = Duration::from_secs(7);
/// What comes on top of it on a machine that is busy with faults: the work itself, and the wait for a
/// processor of the server and of the harness.
const MARGIN: Duration = Duration::from_secs(1);

/// A heartbeat that was under way for longer than its TTL, and longer than this of cluster time, does not count, and
/// its client is told so: it could revive a service that has been dead since.
const HEARTBEAT_DELAY: Duration = Duration::from_secs(2);
const HEARTBEAT_DELAYED: &str = "503 heartbeat was delayed too long to count";
/// The only fault that delays one so without stopping the cluster's time: TCP repeats what is lost later and later.
const DELAYING: &str = "loss";

/// Faults that stop a server for a while and take nothing from it, no message either.
const PAUSING: [&str; 2] = ["pause", "pause-follower"];
/// So long after everybody had caught up, whatever a paused server held is answered: it has sent again what it
/// had to. Shorter than what is left of the hold time then, on a busy machine too.
const AFTER_A_PAUSE: Duration = Duration::from_millis(1_500);

/// Judges all requests of a run.
pub fn check(record: &Record) -> Verdict {
    let nodes: Vec<u64> = (1..=record.plan.nodes).collect();
    judge(&nodes, &record.requests, &record.faults)
}

fn judge(nodes: &[u64], requests: &[RequestLine], faults: &[Fault]) -> Verdict {
    let is_excused = |request: &RequestLine| {
        faults.iter().any(|fault| excuses(fault, request) || delays(fault, request))
    };
    let failed: Vec<_> = requests
        .iter()
        .filter(|request| !is_excused(request))
        .filter_map(|request| Some(format!("{}: {}", describe(request), complaint(request)?)))
        .collect();
    if !failed.is_empty() {
        return Verdict::Invalid(shortened(failed));
    }
    if requests.is_empty() {
        return Verdict::Vacuous("no request was sent".to_owned());
    }
    let spares_some = |fault: &&Fault| nodes.iter().any(|node| !fault.affected.contains(node));
    let mut sparing = faults.iter().filter(spares_some).peekable();
    let is_used =
        |fault: &Fault| requests.iter().any(|r| !is_excused(r) && is_sent_during(r, fault));
    if sparing.peek().is_some() && !sparing.any(is_used) {
        return Verdict::Vacuous("no fault was met by a request at a sound server".to_owned());
    }
    Verdict::Valid
}

/// Whether `request` was under way at an affected server while `fault` lasted. One that was never recovered
/// from lasts to the end.
fn excuses(fault: &Fault, request: &RequestLine) -> bool {
    fault.affected.contains(&request.node)
        && is_under_way_during(request, fault)
        && !is_forgotten(fault, request)
}

/// Whether `request` was left open long after a mere pause of its server.
fn is_forgotten(fault: &Fault, request: &RequestLine) -> bool {
    let grace = u64::try_from(AFTER_A_PAUSE.as_nanos()).unwrap_or(u64::MAX);
    let by = fault.recovered.map_or(u64::MAX, |recovered| recovered.saturating_add(grace));
    PAUSING.contains(&fault.nemesis.as_str())
        && request.sent < fault.began
        && request.end == Ending::Unknown
        && request.ended > by
}

/// Whether `request` is a heartbeat that `fault` kept from its server for too long.
fn delays(fault: &Fault, request: &RequestLine) -> bool {
    let took = Duration::from_nanos(request.ended.saturating_sub(request.sent));
    fault.nemesis.split('+').any(|name| name == DELAYING)
        && is_under_way_during(request, fault)
        && request.end == Ending::Refused
        && request.why.starts_with(HEARTBEAT_DELAYED)
        && took > HEARTBEAT_DELAY
}

fn is_under_way_during(request: &RequestLine, fault: &Fault) -> bool {
    let has_begun = fault.began <= request.ended;
    let is_over = fault.recovered.is_some_and(|recovered| recovered < request.sent);
    has_begun && !is_over
}

/// Only while it was not healed: a request that is sent later proves little.
fn is_sent_during(request: &RequestLine, fault: &Fault) -> bool {
    fault.began <= request.sent && fault.healed.is_none_or(|healed| request.sent < healed)
}

/// What is wrong with a request that nothing excuses.
fn complaint(request: &RequestLine) -> Option<String> {
    let took = Duration::from_nanos(request.ended.saturating_sub(request.sent));
    match request.end {
        Ending::Answered if request.held || took <= HOLD + MARGIN => None,
        Ending::Answered => Some(format!("answered after {took:?}")),
        Ending::NotSent => Some(format!("not sent after {took:?}: {}", request.why)),
        Ending::Refused => Some(format!("refused after {took:?}: {}", request.why)),
        Ending::Unknown => Some(format!("left open after {took:?}: {}", request.why)),
    }
}

fn describe(request: &RequestLine) -> String {
    let RequestLine { client, node, what, sent, .. } = request;
    format!("{what} of client {client} at n{node}, which no fault touched, at {sent}")
}

/// The first sentences, and how many there are in all.
fn shortened(mut sentences: Vec<String>) -> Vec<String> {
    let count = sentences.len();
    if count > SENTENCES_MAX {
        sentences.truncate(SENTENCES_MAX);
        sentences.push(format!("{count} requests in all"));
    }
    sentences
}

#[cfg(test)]
mod tests;
