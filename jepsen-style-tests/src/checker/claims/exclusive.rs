//! One holder per slot, fences that grow, and clients that are told what happened.

use std::collections::BTreeMap;

use super::{Claimed, ENDED, Entry, Event, GRANTED, POOL, QUEUED, Run, Told};
use crate::checker::Verdict;

/// What the history says of one claim.
#[derive(Debug, Default)]
struct Past<'a> {
    /// All of its grants: instance, fence, number.
    grants: Vec<(&'a str, u64, u64)>,
    /// Whether it had an instance when it ended, and why it did.
    end: Option<(bool, &'a str)>,
}

/// See the module above.
pub(crate) fn check(events: &[Event]) -> Verdict {
    let run = Run::of(events);
    if run.oldest > 1 {
        return Verdict::Vacuous(run.is_vacuous().unwrap_or_default());
    }
    let (pasts, mut violations) = replay(run.records);
    violations.extend(released_by_others(&run));
    for (claim, claimed) in &run.claims {
        let past = pasts.get(claim);
        violations.extend(untrue(claimed, past).map(|what| format!("claim {claim} {what}")));
    }
    match run.is_vacuous() {
        Some(why) if violations.is_empty() => Verdict::Vacuous(why),
        _ => Verdict::from_violations(violations),
    }
}

/// Goes through the history in the order of the log.
fn replay(records: &[Entry]) -> (BTreeMap<u64, Past<'_>>, Vec<String>) {
    let mut pasts: BTreeMap<u64, Past<'_>> = BTreeMap::new();
    let mut violations = Vec::new();
    // The instance of each claim that has one now.
    let mut live: BTreeMap<u64, &str> = BTreeMap::new();
    let (mut last_fence, mut last_grant) = (0, 0);
    for record in records {
        let Entry { seq, claim, instance, fence, grant, .. } = record;
        let past = pasts.entry(*claim).or_default();
        if past.end.is_some() {
            violations
                .push(format!("record {seq}: {} of claim {claim}, which was over", record.kind));
        }
        match record.kind.as_str() {
            GRANTED => {
                if *fence <= last_fence {
                    violations.push(format!("record {seq}: fence {fence} after {last_fence}"));
                }
                if *grant != last_grant + 1 {
                    violations.push(format!("record {seq}: grant {grant} after {last_grant}"));
                }
                (last_fence, last_grant) = (*fence, *grant);
                past.grants.push((instance, *fence, *grant));
                if let Some(other) = live.insert(*claim, instance) {
                    violations.push(format!("record {seq}: claim {claim} has {other} already"));
                }
                let holders = live.values().filter(|held| *held == instance).count();
                if holders > slots(instance) {
                    let all: Vec<_> = live.iter().filter(|(_, held)| *held == instance).collect();
                    violations.push(format!(
                        "record {seq}: {instance} has {} slots and is {all:?}'s",
                        slots(instance)
                    ));
                }
            }
            QUEUED => drop(live.remove(claim)),
            ENDED => past.end = Some((live.remove(claim).is_some(), &record.reason)),
            other => violations.push(format!("record {seq}: a {other}")),
        }
    }
    (pasts, violations)
}

/// A claim that its client releases is not over before. When that was sent, all that is behind the end of the claim in
/// the log was still to come; so nobody had been told of a later grant.
fn released_by_others(run: &Run<'_>) -> Vec<String> {
    let mut violations = Vec::new();
    // When the first client was told of a grant behind the place in the log.
    let mut told_first = u64::MAX;
    for record in run.records.iter().rev() {
        let Some(claimed) = run.claims.get(&record.claim) else { continue };
        if record.kind == GRANTED
            && let Some((told, _, fence, _)) = claimed.granted()
            && fence == record.fence
        {
            told_first = told_first.min(told.ret);
        }
        let released = claimed.releases.iter().map(|(call, _, _)| *call).min();
        if record.reason == "released" && released.unwrap_or(u64::MAX) > told_first {
            violations.push(format!(
                "record {}: claim {} was over before its client released it ({released:?})",
                record.seq, record.claim
            ));
        }
    }
    violations
}

fn slots(instance: &str) -> usize {
    POOL.iter().find(|pooled| pooled.id == instance).map_or(0, |pooled| pooled.slots)
}

/// What a client was told of its claim that is not so.
fn untrue<'a>(
    claimed: &'a Claimed<'_>,
    past: Option<&'a Past<'_>>,
) -> impl Iterator<Item = String> + use<'a> {
    let grants = past.map_or(&[][..], |past| &past.grants);
    let end = past.and_then(|past| past.end);
    let asks = claimed.asks.iter().filter_map(move |ask| match ask.told {
        Told::Granted { instance, fence, seq } => {
            let is_known = grants.contains(&(instance.as_str(), *fence, *seq));
            (!is_known).then(|| {
                format!("was told of {instance}, fence {fence}, grant {seq}; it had {grants:?}")
            })
        }
        // Another request of it, of which its client knows no more, may still wait.
        Told::Busy if claimed.asks.len() == 1 && end != Some((false, "withdrawn")) => {
            Some(format!("was told that all are busy, and came to {end:?} after {grants:?}"))
        }
        Told::Over(why) if end.map(|(_, reason)| reason) != Some(why) => {
            Some(format!("was told that it is over: {why}; it came to {end:?}"))
        }
        Told::Busy | Told::Over(_) | Told::Left | Told::Unclear(_) => None,
    });
    let releases = claimed.releases.iter().filter_map(move |(_, _, told)| {
        let reason = end.map(|(_, reason)| reason);
        let is_so = match told {
            None => true,
            Some("") => matches!(reason, Some("released" | "withdrawn")),
            Some(why) => reason == Some(*why),
        };
        (!is_so).then(|| format!("was told {told:?} when it was released; it came to {end:?}"))
    });
    asks.chain(releases)
}
