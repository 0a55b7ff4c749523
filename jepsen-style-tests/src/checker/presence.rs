//! Who holds an instance by an open connection is never seen critical, whatever becomes of servers; who is dead is.
//!
//! A life is one process with an instance of its own. It lives from its first stream until it is killed, and in
//! between its streams end with their servers, and it opens others. So
//!
//! * **no server ever shows a life as critical before its linger is over**, by whatever kind of read: from the moment
//!   of its death, as its process saw it, or later. That holds while it is between two servers as well. Only a life
//!   that found no server for [`AWAY_MAX`] is not held against them from then on;
//! * **every default read shows a dead life as critical** once it must be. If no fault was at its server, that is its
//!   linger and [`LATE_MAX`] later. If there was one, or the server sent its clients away just then (some other life
//!   was told so), its end may have been lost: then it is waited for as the clients of a lost server are, from when
//!   the fault was over: until the server is taken for lost ([`LOST_AFTER`]), and through the grace after that
//!   ([`GRACE`]). All of these spans are of the cluster's time, which stands still now and then ([`Weather`]);
//! * what a stream says fits: nobody but a life's own later attempt replaces it, and nobody deregisters it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Verdict;
use super::restarts::Restarts;
use super::weather::{MILLISECOND, Weather};

const SECOND: u64 = 1_000 * MILLISECOND;
/// What an expiry may be late (500 ms, as documented), and as much for the report of the end on a busy machine.
const LATE_MAX: u64 = SECOND;
/// A server that is silent for so long is taken for lost, and one that is slow to say so for so much more.
const LOST_AFTER: u64 = 7 * SECOND;
/// The clients of a lost server have 10 s, and 1 s more for every 2,000 of them.
const GRACE: u64 = 11 * SECOND;
/// A server that stops or has no leader sends its clients away within 2 s; some more until it is told.
const SENT_AWAY: u64 = 3 * SECOND;
/// So long after a life lost its server it may be taken for dead: the grace, less the time that it took to notice.
const AWAY_MAX: u64 = 8 * SECOND;

/// A run with fewer lives proves nothing; one of 17 s has two hundred.
const LIVES_MIN: u64 = 50;
/// The same of lives that went from one server to another, if servers' processes ended: nothing else has to send
/// them elsewhere.
const MOVES_MIN: u64 = 5;
/// The same of dead ones whose lateness could be judged.
const JUDGED_MIN: u64 = 10;

/// What the workload writes down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "kebab-case")]
pub(crate) enum Event {
    /// A stream was opened: the life holds its instance.
    Opened {
        /// Whose.
        life: u64,
        /// At which server.
        node: u64,
        /// Which attempt it was.
        attempt: u64,
        /// When it was told.
        at: u64,
    },
    /// The newest stream has ended, not by the life's will.
    Parted {
        /// Whose.
        life: u64,
        /// At which server.
        node: u64,
        /// When.
        at: u64,
        /// What it was told, or what went wrong.
        why: String,
    },
    /// The process is killed, and its connections with it.
    Died {
        /// Whose.
        life: u64,
        /// Just before.
        at: u64,
        /// How long its instance goes on passing.
        linger_ms: u64,
        /// The server of its stream; null: it had none, or an open that was not answered.
        node: Option<u64>,
    },
    /// The life is about to be deregistered.
    End {
        /// Whose.
        life: u64,
        /// Before the deregistration was sent.
        call: u64,
    },
    /// A stream said what does not fit.
    Strange {
        /// Whose.
        life: u64,
        /// By which server.
        node: u64,
        /// What.
        what: String,
    },
    /// All that is critical, according to one server.
    Look {
        /// The server.
        node: u64,
        /// Whether it was a `?stale` read.
        stale: bool,
        /// When it was asked.
        call: u64,
        /// When it answered.
        ret: u64,
        /// The lives that were critical.
        critical: Vec<u64>,
    },
    /// The same, but the answer was no list of checks.
    Unreadable {
        /// The server.
        node: u64,
        /// Whether it was a `?stale` read.
        stale: bool,
        /// When it was asked.
        call: u64,
        /// When it answered.
        ret: u64,
    },
}

/// What a run's events tell of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Lives that had a stream.
    pub(crate) lives: u64,
    /// Streams that took over from one at another server.
    pub(crate) moves: u64,
    /// Dead lives that were looked at when they had to show at once.
    pub(crate) judged_soon: u64,
    /// The same of those whose server was lost.
    pub(crate) judged_after_grace: u64,
}

#[derive(Debug, Default)]
struct Life {
    /// Its streams: from when, and at which server.
    streams: Vec<(u64, u64)>,
    parted: Vec<u64>,
    died: Option<Death>,
    end: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Death {
    at: u64,
    linger: u64,
    node: Option<u64>,
}

/// By when a dead life must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Soon(u64),
    AfterGrace(u64),
}

impl Due {
    const fn at(self) -> u64 {
        match self {
            Self::Soon(at) | Self::AfterGrace(at) => at,
        }
    }
}

/// When servers sent clients away.
struct SentAway(BTreeMap<u64, Vec<u64>>);

impl SentAway {
    fn of(events: &[Event]) -> Self {
        let mut all: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for event in events {
            if let Event::Parted { node, at, why, .. } = event
                && why == "moved"
            {
                all.entry(*node).or_default().push(*at);
            }
        }
        Self(all)
    }

    fn just_then(&self, node: u64, at: u64) -> bool {
        self.0.get(&node).is_some_and(|all| all.iter().any(|sent| sent.abs_diff(at) < SENT_AWAY))
    }
}

struct Look<'a> {
    node: u64,
    stale: bool,
    call: u64,
    ret: u64,
    critical: &'a [u64],
}

impl Life {
    /// The first moment at which it may be critical.
    fn may_be_critical_from(&self) -> u64 {
        let dead = self.died.map_or(u64::MAX, |died| died.at.saturating_add(died.linger));
        let is_back = |parted: u64| {
            self.streams.iter().any(|(at, _)| (parted..=parted + AWAY_MAX).contains(at))
        };
        let away = self.parted.iter().filter(|parted| !is_back(**parted)).min();
        away.map_or(dead, |parted| dead.min(parted + AWAY_MAX))
    }

    /// How often a stream took over from one at another server.
    fn moves(&self) -> u64 {
        self.streams.windows(2).filter(|pair| pair[0].1 != pair[1].1).count() as u64
    }

    /// By when it must be critical, if its last stream was open when it died, and nothing was in doubt.
    fn due(&self, weather: &Weather, sent_away: &SentAway) -> Option<Due> {
        let died = self.died?;
        let node = died.node?;
        let soon = weather.due(died.at, died.linger.saturating_add(LATE_MAX));
        let before = died.at.saturating_sub(SECOND);
        if !weather.is_affected(node, before, soon) && !sent_away.just_then(node, died.at) {
            return Some(Due::Soon(soon));
        }
        let span = LOST_AFTER + GRACE + LATE_MAX;
        let felt = weather.felt_until(node, before, soon).max(died.at);
        Some(Due::AfterGrace(weather.due(felt, span)))
    }
}

/// No server shows a life as critical before it may be, and every one answers with what can be read.
pub(crate) fn check_living(events: &[Event], restarts: &Restarts) -> Verdict {
    let lives = lives(events);
    let limits: BTreeMap<u64, u64> =
        lives.iter().map(|(id, life)| (*id, life.may_be_critical_from())).collect();
    let looks = looks(events);
    let mut blamed = BTreeSet::new();
    let mut violations = strange(events);
    for look in &looks {
        for id in look.critical {
            let Some(limit) = limits.get(id).filter(|limit| look.ret < **limit) else { continue };
            if blamed.insert(id) {
                violations.push(format!(
                    "life {id} was critical {}, in a {} read of n{} that ended at {} ns",
                    when(lives[id].died, *limit, look.ret),
                    kind(look.stale),
                    look.node,
                    look.ret
                ));
            }
        }
    }
    let (count, moves) = (lives.len() as u64, lives.values().map(Life::moves).sum::<u64>());
    let stays = moves < MOVES_MIN && !restarts.is_empty();
    if violations.is_empty() && (looks.is_empty() || count < LIVES_MIN || stays) {
        return Verdict::Vacuous(format!(
            "{count} lives that went elsewhere {moves} times were looked at {} times",
            looks.len()
        ));
    }
    Verdict::from_violations(violations)
}

fn when(died: Option<Death>, limit: u64, ret: u64) -> String {
    match died {
        Some(died) if died.at <= ret => {
            format!("{} ms before its linger was over", (limit - ret) / MILLISECOND)
        }
        Some(_) | None => "while it lived".to_owned(),
    }
}

fn strange(events: &[Event]) -> Vec<String> {
    let describe = |event: &Event| match event {
        Event::Strange { life, node, what } => Some(format!("life {life} at n{node}: {what}")),
        Event::Unreadable { node, stale, call, ret } => {
            let kind = kind(*stale);
            Some(format!(
                "no list of checks, but something unreadable, in a {kind} read of n{node} from {call} to {ret} ns"
            ))
        }
        _ => None,
    };
    events.iter().filter_map(describe).collect()
}

fn kind(stale: bool) -> &'static str {
    if stale { "stale" } else { "default" }
}

/// Every default read, at every server, shows a dead life as critical once it must be.
pub(crate) fn check_dead(events: &[Event], weather: &Weather) -> Verdict {
    let (looks, sent_away) = (default_looks(events), SentAway::of(events));
    let mut violations = Vec::new();
    for (id, life) in lives(events) {
        let Some(due) = life.due(weather, &sent_away) else { continue };
        let mut must = looks_that_must_show(&life, due, &looks);
        if let Some(look) = must.find(|look| !look.critical.contains(&id)) {
            let late = (look.call - due.at()) / MILLISECOND;
            violations.push(format!(
                "life {id} was killed at {} ns and was still passing {late} ms after its bound ({due:?}), in a default read of n{} that began at {} ns",
                life.died.map_or(0, |died| died.at), look.node, look.call
            ));
        }
    }
    let Counts { judged_soon, judged_after_grace, .. } = count(events, weather);
    if violations.is_empty() && judged_soon < JUDGED_MIN {
        return Verdict::Vacuous(format!(
            "{judged_soon} dead lives of servers that were well, and {judged_after_grace} of others, were looked at after their time"
        ));
    }
    Verdict::from_violations(violations)
}

/// How much there was to judge.
pub(crate) fn count(events: &[Event], weather: &Weather) -> Counts {
    let (looks, sent_away) = (default_looks(events), SentAway::of(events));
    let mut counts = Counts::default();
    for life in lives(events).values() {
        counts.lives += 1;
        counts.moves += life.moves();
        let Some(due) = life.due(weather, &sent_away) else { continue };
        if looks_that_must_show(life, due, &looks).next().is_some() {
            match due {
                Due::Soon(_) => counts.judged_soon += 1,
                Due::AfterGrace(_) => counts.judged_after_grace += 1,
            }
        }
    }
    counts
}

/// The default reads between the moment when a life must be critical and its deregistration; `looks` are
/// in the order of their calls.
fn looks_that_must_show<'a, 'b>(
    life: &Life,
    due: Due,
    looks: &'a [Look<'b>],
) -> impl Iterator<Item = &'a Look<'b>> + use<'a, 'b> {
    let end = life.end.unwrap_or(u64::MAX);
    let first = looks.partition_point(|look| look.call <= due.at());
    looks[first..].iter().take_while(move |look| look.call < end).filter(move |look| look.ret < end)
}

/// Only those that had a stream.
fn lives(events: &[Event]) -> BTreeMap<u64, Life> {
    let mut lives: BTreeMap<u64, Life> = BTreeMap::new();
    for event in events {
        match event {
            Event::Opened { life, node, at, .. } => {
                lives.entry(*life).or_default().streams.push((*at, *node));
            }
            Event::Parted { life, at, .. } => lives.entry(*life).or_default().parted.push(*at),
            Event::Died { life, at, linger_ms, node } => {
                let linger = linger_ms.saturating_mul(MILLISECOND);
                let died = Death { at: *at, linger, node: *node };
                lives.entry(*life).or_default().died = Some(died);
            }
            Event::End { life, call } => lives.entry(*life).or_default().end = Some(*call),
            Event::Strange { .. } | Event::Look { .. } | Event::Unreadable { .. } => {}
        }
    }
    lives.retain(|_, life| !life.streams.is_empty());
    lives
}

fn looks(events: &[Event]) -> Vec<Look<'_>> {
    let looks = events.iter().filter_map(|event| match event {
        Event::Look { node, stale, call, ret, critical } => {
            Some(Look { node: *node, stale: *stale, call: *call, ret: *ret, critical })
        }
        _ => None,
    });
    let mut looks: Vec<_> = looks.collect();
    looks.sort_by_key(|look| look.call);
    looks
}

fn default_looks(events: &[Event]) -> Vec<Look<'_>> {
    looks(events).into_iter().filter(|look| !look.stale).collect()
}

#[cfg(test)]
mod tests;
