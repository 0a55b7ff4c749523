//! First come, first served.

use std::collections::{BTreeMap, BTreeSet};

use super::{ENDED, Event, GRANTED, QUEUED, Run};
use crate::checker::Verdict;
use crate::checker::weather::Weather;

/// A run in which nobody waited beside so many grants says nothing of their order.
const COMPARED_MIN: u64 = 30;

/// A grant, and one who waited for the same before it was made and still did after it was told of.
struct Beside {
    /// The number of the record.
    record: u64,
    /// Who was granted an instance, and its place.
    granted: (u64, u64),
    /// Who waited, and its place.
    waiting: (u64, u64),
}

/// See the module above.
pub(crate) fn check(events: &[Event], weather: &Weather) -> Verdict {
    let run = Run::of(events);
    let all = besides(&run, weather);
    let overtaken = all.iter().filter(|beside| beside.waiting.1 < beside.granted.1);
    let violations: Vec<String> = overtaken
        .map(|Beside { record, granted, waiting }| {
            format!(
                "record {record}: claim {} was granted at place {}, before claim {} at place {}, whose request waited",
                granted.0, granted.1, waiting.0, waiting.1
            )
        })
        .collect();
    let compared = compared(&run, weather);
    match run.is_vacuous() {
        Some(why) if violations.is_empty() => Verdict::Vacuous(why),
        None if violations.is_empty() && compared < COMPARED_MIN => {
            Verdict::Vacuous(format!("somebody waited beside {compared} grants"))
        }
        _ => Verdict::from_violations(violations),
    }
}

/// Beside how many grants somebody certainly waited.
pub(super) fn compared(run: &Run<'_>, weather: &Weather) -> u64 {
    let mut records: Vec<u64> = besides(run, weather).iter().map(|beside| beside.record).collect();
    records.dedup();
    records.len() as u64
}

fn besides(run: &Run<'_>, weather: &Weather) -> Vec<Beside> {
    let mut all = Vec::new();
    // Who waits at this place of the log, and at which place in line.
    let mut waiting: BTreeMap<u64, u64> = BTreeMap::new();
    let mut offered = BTreeSet::new();
    for record in run.records {
        match record.kind.as_str() {
            QUEUED if offered.remove(&record.claim) => {
                // Its servers were silent, or its instance was lost.
                let nodes = nodes(run, record.claim);
                waiting.retain(|claim, _| nodes.is_disjoint(&self::nodes(run, *claim)));
            }
            QUEUED => drop(waiting.insert(record.claim, record.position)),
            ENDED => drop(waiting.remove(&record.claim)),
            GRANTED => {
                waiting.remove(&record.claim);
                offered.insert(record.claim);
                let Some(claimed) = run.claims.get(&record.claim) else { continue };
                let Some((told, _, fence, _)) = claimed.granted() else { continue };
                if fence != record.fence {
                    continue;
                }
                // The grant was made before its client was told of it, and who waits came before in the log.
                let waits = |claim: &u64| {
                    let other = run.claims.get(claim);
                    other.is_some_and(|other| {
                        other.region() == claimed.region()
                            && other.asks.iter().any(|ask| ask.waits_at(told.ret, weather))
                    })
                };
                all.extend(waiting.iter().filter(|(claim, _)| waits(claim)).map(
                    |(claim, position)| Beside {
                        record: record.seq,
                        granted: (record.claim, record.position),
                        waiting: (*claim, *position),
                    },
                ));
            }
            _ => {}
        }
    }
    all
}

/// The servers that were asked for a claim.
fn nodes(run: &Run<'_>, claim: u64) -> BTreeSet<u64> {
    let asks = run.claims.get(&claim).map_or(&[][..], |claimed| &claimed.asks);
    asks.iter().map(|ask| ask.node).collect()
}
