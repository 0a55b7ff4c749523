//! Nobody waits for long beside an instance that nobody has.
//!
//! An instance is taken to be busy for as long as it can be: from when a client was told of a grant until it was told
//! that its claim is over; where a client fell silent, until its TTL and the delay after that are over. Whatever is
//! between two of these spans it idles, be it free, closed or offered to somebody who never learns of it.

use super::{CLAIM_DELAY_MS, Claimed, Event, GRANTED, POOL, Pooled, Run, SECOND};
use crate::checker::Verdict;
use crate::checker::weather::{MILLISECOND, Weather};

/// How long an offer lasts at most.
const OFFER_MAX: u64 = 5 * SECOND;
/// How much later that may show on a busy machine.
const LATE_MAX: u64 = 2 * SECOND;
/// A run with fewer requests that waited says nothing of idling.
const WAITS_MIN: u64 = 30;

/// A time in which something was so.
type Span = (u64, u64);

/// See the module above. At most `lost_at_once` servers are lost at a time: each may have an offer.
pub(crate) fn check(events: &[Event], weather: &Weather, lost_at_once: u64) -> Verdict {
    let run = Run::of(events);
    let bound = OFFER_MAX * lost_at_once.max(1) + LATE_MAX;
    let mut violations = Vec::new();
    for pooled in POOL.iter().filter(|pooled| pooled.is_steady && pooled.slots == 1) {
        let idle = idle(&run, pooled, weather);
        for (claim, (from, to)) in waiting(&run, weather).filter(|(claim, _)| {
            let region = run.claims[claim].region();
            region.is_empty() || region == pooled.region
        }) {
            for (begin, end) in &idle {
                let (begin, end) = (from.max(*begin), to.min(*end));
                if begin < end && end > weather.due(begin, bound) {
                    violations.push(format!(
                        "{} idled from {begin} to {end} ns ({} ms) while claim {claim} waited",
                        pooled.id,
                        (end - begin) / MILLISECOND
                    ));
                }
            }
        }
    }
    let waits = waits(&run, weather);
    match run.is_vacuous() {
        Some(why) if violations.is_empty() => Verdict::Vacuous(why),
        None if violations.is_empty() && waits < WAITS_MIN => {
            Verdict::Vacuous(format!("{waits} requests waited at servers that were well"))
        }
        _ => Verdict::from_violations(violations),
    }
}

/// How many requests certainly waited.
pub(super) fn waits(run: &Run<'_>, weather: &Weather) -> u64 {
    waiting(run, weather).count() as u64
}

/// First requests at servers that were well all the time, with the time for which they waited.
fn waiting<'a>(
    run: &'a Run<'_>,
    weather: &'a Weather,
) -> impl Iterator<Item = (u64, Span)> + use<'a> {
    run.claims.iter().filter_map(|(claim, claimed)| {
        let ask = claimed.asks.iter().find(|ask| ask.attempt == 0)?;
        let last = ask.ret.saturating_sub(1);
        ask.waits_at(last, weather).then_some((*claim, (ask.call, ask.ret)))
    })
}

/// When an instance of one slot idled.
fn idle(run: &Run<'_>, pooled: &Pooled, weather: &Weather) -> Vec<Span> {
    let mut busy: Vec<Span> = run
        .claims
        .iter()
        .filter_map(|(number, claimed)| busy(run, *number, claimed, pooled, weather))
        .collect();
    busy.sort_unstable();
    let mut idle = Vec::new();
    // Before the first of them the pool may not have been there.
    let mut since = busy.first().map_or(run.end, |(from, _)| *from);
    for (from, to) in busy {
        if from > since {
            idle.push((since, from));
        }
        since = since.max(to);
    }
    if run.end > since {
        idle.push((since, run.end));
    }
    idle
}

/// For how long a claim may have had this instance, as far as its client knows.
fn busy(
    run: &Run<'_>,
    number: u64,
    claimed: &Claimed<'_>,
    pooled: &Pooled,
    weather: &Weather,
) -> Option<Span> {
    let is_here = |instance: &str| instance == pooled.id;
    let silent = |since: u64, ttl: u64| weather.due(since, ttl + CLAIM_DELAY_MS * MILLISECOND);
    if let Some((ask, instance, _, _)) = claimed.granted() {
        let told = claimed.releases.iter().find(|(_, _, told)| told.is_some());
        let last = claimed.releases.iter().map(|(_, ret, _)| *ret).max().unwrap_or(ask.ret);
        let to = told.map_or_else(|| silent(last, ask.ttl), |(_, ret, _)| *ret);
        return is_here(instance).then_some((ask.ret, to));
    }
    // It may have been granted, and handed over to a client that did not get all of it.
    let mut grants = run.records.iter().filter(|record| record.kind == GRANTED);
    let was_here = grants.any(|record| record.claim == number && is_here(&record.instance));
    let (first, last) = (claimed.asks.first()?, claimed.asks.last()?);
    was_here.then(|| (first.call, silent(last.ret, last.ttl)))
}
