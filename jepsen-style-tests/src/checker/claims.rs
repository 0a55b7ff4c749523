//! Claims: an instance is one holder's at a time, who came first is served first, and nobody waits beside an idle one.
//!
//! What happened is known twice: from the clients, each claim of which has a holder's name of its own, and from the
//! cluster's history, whose order is that of the log. So
//!
//! * [`exclusive`]: in the order of the log no instance has more claims than slots, fences grow with every grant,
//!   grants are counted without a gap, also across backups that are restored; and what a client was told is in the
//!   history, as it was told;
//! * [`fifo`]: nobody is granted an instance while somebody waits who came before, requires the same, and has a
//!   request at a server that is well;
//! * [`idle`]: no instance idles for longer than an offer lasts while such a one waits.
//!
//! When a client waits is known from when its request was sent until it was answered, or given up. Only the first
//! request for a claim counts for the two latter: a later one may meet what is left of it. When an offer runs out, the
//! other requests of its server are passed over until it asks again, so they do not count for the order from then on.

mod exclusive;
mod fifo;
mod idle;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::weather::{MILLISECOND, Weather};

pub(crate) use self::exclusive::check as check_exclusive;
pub(crate) use self::fifo::check as check_fifo;
pub(crate) use self::idle::check as check_idle;

const SECOND: u64 = 1_000 * MILLISECOND;
/// A server at which a fault was may be taken for lost for so long after that.
const LOST_FOR: u64 = 4 * SECOND;
/// A run with fewer grants proves nothing; one of 17 s has several hundred.
const GRANTS_MIN: usize = 100;

/// An instance of the pool.
#[derive(Debug)]
pub(crate) struct Pooled {
    /// Its id.
    pub(crate) id: &'static str,
    /// How many claims it serves at a time.
    pub(crate) slots: usize,
    /// What its metadata says.
    pub(crate) region: &'static str,
    /// Whether it is always there; the other is taken into maintenance now and then.
    pub(crate) is_steady: bool,
}

/// The pool.
pub(crate) const POOL: [Pooled; 4] = [
    Pooled { id: "pooled-1", slots: 2, region: "eu", is_steady: true },
    Pooled { id: "pooled-2", slots: 1, region: "eu", is_steady: true },
    Pooled { id: "pooled-3", slots: 1, region: "us", is_steady: true },
    Pooled { id: "pooled-4", slots: 1, region: "us", is_steady: false },
];
/// For how long a slot stays closed whose claim was lost.
pub(crate) const CLAIM_DELAY_MS: u64 = 500;

/// How a request for a claim ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Told {
    /// It has an instance.
    Granted {
        /// Its id.
        instance: String,
        /// The grant's fence.
        fence: u64,
        /// The grant's number.
        seq: u64,
    },
    /// All are busy, and its wait is over.
    Busy,
    /// The claim is over, with the reason.
    Over(String),
    /// The client has closed its connection.
    Left,
    /// Nobody knows.
    Unclear(String),
}

/// What the workload writes down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "kebab-case")]
pub(crate) enum Event {
    /// A request for a claim.
    Ask {
        /// Whose: its holder's name is made of this.
        claim: u64,
        /// Which request for it, from 0.
        attempt: u64,
        /// The server.
        node: u64,
        /// What the instance's metadata must say; empty: nothing.
        region: String,
        /// How long the holder may be silent.
        ttl_ms: u64,
        /// When it was sent.
        call: u64,
        /// When it ended.
        ret: u64,
        /// How.
        told: Told,
    },
    /// A request to release a claim.
    Release {
        /// Which.
        claim: u64,
        /// When it was sent.
        call: u64,
        /// When it ended.
        ret: u64,
        /// How: empty if it was released; the reason of its end otherwise; null if nobody knows.
        told: Option<String>,
    },
    /// A backup was restored.
    Restored {
        /// Whether that is known.
        is_known: bool,
    },
    /// The history at the end, in the order of the log.
    History {
        /// The oldest record that is kept.
        oldest: u64,
        /// Those of claims.
        records: Vec<Entry>,
    },
}

/// A record of the history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its number.
    pub(crate) seq: u64,
    /// `claim.queued`, `claim.granted` or `claim.ended`.
    pub(crate) kind: String,
    /// Whose claim.
    pub(crate) claim: u64,
    /// Its place in line.
    pub(crate) position: u64,
    /// Of a grant: the instance.
    pub(crate) instance: String,
    /// Of a grant.
    pub(crate) fence: u64,
    /// Of a grant: its number.
    pub(crate) grant: u64,
    /// Of an end.
    pub(crate) reason: String,
}

/// A request for a claim, as it is judged.
#[derive(Debug, Clone, Copy)]
struct Ask<'a> {
    attempt: u64,
    node: u64,
    region: &'a str,
    ttl: u64,
    call: u64,
    ret: u64,
    told: &'a Told,
}

impl Ask<'_> {
    /// Whether it certainly waits at a moment, so that a server that is well has it in line.
    fn waits_at(&self, moment: u64, weather: &Weather) -> bool {
        let before = self.call.saturating_sub(LOST_FOR);
        self.attempt == 0
            && self.call < moment
            && moment < self.ret
            && !weather.is_affected(self.node, before, moment)
    }
}

/// What the clients did, by claim.
#[derive(Debug, Default)]
struct Claimed<'a> {
    asks: Vec<Ask<'a>>,
    /// When each release was sent and answered, and with what.
    releases: Vec<(u64, u64, Option<&'a str>)>,
}

impl<'a> Claimed<'a> {
    /// The answer that told of a grant.
    fn granted(&self) -> Option<(&Ask<'a>, &'a str, u64, u64)> {
        self.asks.iter().find_map(|ask| match ask.told {
            Told::Granted { instance, fence, seq } => Some((ask, instance.as_str(), *fence, *seq)),
            Told::Busy | Told::Over(_) | Told::Left | Told::Unclear(_) => None,
        })
    }

    fn region(&self) -> &'a str {
        self.asks.first().map_or("", |ask| ask.region)
    }
}

/// A run, in a form that can be judged.
#[derive(Debug)]
struct Run<'a> {
    claims: BTreeMap<u64, Claimed<'a>>,
    records: &'a [Entry],
    oldest: u64,
    /// When the last request ended.
    end: u64,
}

impl<'a> Run<'a> {
    fn of(events: &'a [Event]) -> Self {
        let mut run = Self { claims: BTreeMap::new(), records: &[], oldest: u64::MAX, end: 0 };
        for event in events {
            match event {
                Event::Ask { claim, attempt, node, region, ttl_ms, call, ret, told } => {
                    let (attempt, node, ttl) = (*attempt, *node, ttl_ms * MILLISECOND);
                    let (call, ret) = (*call, *ret);
                    run.end = run.end.max(ret);
                    let ask = Ask { attempt, node, region, ttl, call, ret, told };
                    run.claims.entry(*claim).or_default().asks.push(ask);
                }
                Event::Release { claim, call, ret, told } => {
                    run.end = run.end.max(*ret);
                    let release = (*call, *ret, told.as_deref());
                    run.claims.entry(*claim).or_default().releases.push(release);
                }
                Event::History { oldest, records } => {
                    (run.oldest, run.records) = (*oldest, records);
                }
                Event::Restored { .. } => {}
            }
        }
        run
    }

    /// Why nothing can be said; none: something can.
    fn is_vacuous(&self) -> Option<String> {
        let grants = self.records.iter().filter(|record| record.kind == GRANTED).count();
        if self.oldest == u64::MAX {
            return Some("the history was not read".to_owned());
        }
        if self.oldest > 1 {
            return Some(format!("the history before {} is lost", self.oldest));
        }
        (grants < GRANTS_MIN).then(|| format!("there were {grants} grants"))
    }
}

const QUEUED: &str = "claim.queued";
const GRANTED: &str = "claim.granted";
const ENDED: &str = "claim.ended";

/// What a run's events tell of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Claims that were asked for.
    pub(crate) claims: u64,
    /// Grants in the history.
    pub(crate) grants: u64,
    /// Grants that became none because nobody took them, or their instance was lost.
    pub(crate) taken_back: u64,
    /// Backups that were restored.
    pub(crate) restores: u64,
    /// Grants beside which somebody certainly waited.
    pub(crate) compared: u64,
    /// Requests that certainly waited, and whose instances were looked at.
    pub(crate) waits: u64,
}

/// How much there was to judge.
pub(crate) fn count(events: &[Event], weather: &Weather) -> Counts {
    let run = Run::of(events);
    let of_kind = |kind: &str| run.records.iter().filter(|record| record.kind == kind).count();
    let queued: BTreeMap<u64, usize> = run
        .records
        .iter()
        .filter(|record| record.kind == QUEUED)
        .fold(BTreeMap::new(), |mut counts, record| {
            *counts.entry(record.claim).or_default() += 1;
            counts
        });
    let restored = |event: &&Event| matches!(event, Event::Restored { is_known: true });
    Counts {
        claims: run.claims.len() as u64,
        grants: of_kind(GRANTED) as u64,
        taken_back: queued.values().map(|count| count - 1).sum::<usize>() as u64,
        restores: events.iter().filter(restored).count() as u64,
        compared: fifo::compared(&run, weather),
        waits: idle::waits(&run, weather),
    }
}

#[cfg(test)]
mod tests;
