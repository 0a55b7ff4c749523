//! What becomes of a check's target shows within a bound, and nothing shows that did not happen.
//!
//! * **Every default read shows a target as it is** once it must: an interval, and what a run and its report take
//!   ([`SHOWN_MAX`]), after its last change, and after whatever kept its worker from its work then: a fault at the
//!   worker, a change of leaders, the loss of a worker process whose checks nobody had taken over yet. What comes
//!   later changes nothing: a status is kept while its check changes hands.
//! * **The checks of a lost worker process are others'** within a bound: [`KILLED_MAX`] after it was killed,
//!   [`STOPPED_MAX`] after it fell silent; [`SERVER_LOST_MAX`] if its server may have been lost, too.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Verdict;
use super::look::{Look, readable};
use super::weather::{MILLISECOND, Weather};

const SECOND: u64 = 1_000 * MILLISECOND;
/// An interval, and twice as much for the run and its report on a busy machine.
const SHOWN_MAX: u64 = 3 * SECOND;
/// For so long after a fault a worker may be busy with coming back.
const AFTER_FAULT: u64 = 3 * SECOND;
/// That a check has changed hands is seen within this, also where a server that is asked does not answer.
const SEEN_LATE_MAX: u64 = 5 * SECOND;
/// What else everything may take on a busy machine.
const LATE_MAX: u64 = 2 * SECOND;
/// Until others run the checks of a worker process that was killed.
const KILLED_MAX: u64 = SECOND + LATE_MAX;
/// The same of one that is silent, as if its host had gone.
const STOPPED_MAX: u64 = 9 * SECOND + LATE_MAX;
/// The same of one whose server died with it.
const SERVER_LOST_MAX: u64 = 16 * SECOND + LATE_MAX;

/// A run with fewer changes that had to show proves nothing; one of 17 s without a fault has hundreds.
const JUDGED_MIN: u64 = 10;
/// The same of lost workers.
const LOST_MIN: u64 = 1;

/// What the workload writes down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "kebab-case")]
pub(crate) enum Event {
    /// A target has come or gone.
    Changed {
        /// Which.
        target: u64,
        /// Whether somebody listens from now on.
        is_up: bool,
        /// Just before.
        before: u64,
        /// Just after.
        after: u64,
    },
    /// A worker process is about to be struck.
    Lost {
        /// Which.
        worker: u64,
        /// It is stopped; else it is killed.
        stopped: bool,
        /// When.
        at: u64,
    },
    /// A default read has shown that its checks are others'.
    Replaced {
        /// Which.
        worker: u64,
        /// When.
        at: u64,
    },
    /// The clients' time is over: a worker process is about to be killed, and nobody looks what comes of it.
    Left {
        /// Which.
        worker: u64,
        /// When.
        at: u64,
    },
    /// The worker processes that a default read shows as workers at the end of the run.
    Remaining {
        /// Which.
        workers: Vec<u64>,
        /// When.
        at: u64,
    },
    /// Who runs the checks, according to a default read; it is written down when it has changed.
    Assigned {
        /// When it was asked for.
        call: u64,
        /// When it came.
        ret: u64,
        /// The worker of each target's check: the name of a server (`n1`) or of a worker process (`w1`).
        workers: Vec<(u64, String)>,
    },
    /// The targets that are critical, according to one server.
    Look(Look),
}

/// What a run's events tell of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Targets that came or went.
    pub(crate) changes: u64,
    /// Changes that were looked at when they had to show.
    pub(crate) judged: u64,
    /// Worker processes that were killed or stopped.
    pub(crate) lost: u64,
}

/// Time in which a target is one way.
#[derive(Debug, Clone, Copy)]
struct Period {
    target: u64,
    is_up: bool,
    /// From when it must show.
    due: u64,
    /// Until just before the next change.
    to: u64,
}

/// A worker process that was lost.
#[derive(Debug, Clone, Copy)]
struct Loss {
    worker: u64,
    at: u64,
    /// By when its checks must be others'.
    due: u64,
    /// When that was seen.
    replaced: Option<u64>,
}

/// Every default read shows every target as it is, once it must. `founders`: how many servers the cluster was founded
/// with.
pub(crate) fn check(events: &[Event], weather: &Weather, founders: u64) -> Verdict {
    let (looks, mut violations) = default_looks(events);
    let mut judged = 0;
    for period in periods(events, weather, founders) {
        let must = || looks_in(&looks, period);
        judged += u64::from(must().next().is_some());
        if let Some(look) = must().find(|look| look.shows(period.target) == period.is_up) {
            let (shown, state) = match period.is_up {
                true => ("critical", "there"),
                false => ("not critical", "gone"),
            };
            violations.push(format!(
                "target {} was {shown} {} ms after the moment from which it had to show that it is {state}, in {}",
                period.target,
                (look.call - period.due) / MILLISECOND,
                look.describe()
            ));
        }
    }
    if violations.is_empty() && judged < JUDGED_MIN {
        return Verdict::Vacuous(format!("{judged} changes of targets had to show"));
    }
    Verdict::from_violations(violations)
}

/// The checks of every lost worker process are others', once they must.
pub(crate) fn check_handed_over(events: &[Event], weather: &Weather) -> Verdict {
    let losses = losses(events, weather);
    let end = end(events);
    let seen = |loss: &Loss| loss.replaced.or(remains(events, loss.worker)).unwrap_or(end);
    let late = losses.iter().filter(|loss| seen(loss) > loss.due);
    let violations = late.map(|loss| {
        let after = |moment: u64| (moment - loss.at) / MILLISECOND;
        let what = match loss.replaced {
            Some(replaced) => format!("only after {} ms", after(replaced)),
            None => format!("not even after {} ms", after(seen(loss))),
        };
        let due = after(loss.due);
        format!(
            "the checks of worker w{}, lost at {} ns, were others' {what}, which had to be after {due} ms",
            loss.worker, loss.at
        )
    });
    let violations: Vec<String> = violations.collect();
    if violations.is_empty() && (losses.len() as u64) < LOST_MIN {
        return Verdict::Vacuous(format!("{} worker processes were lost", losses.len()));
    }
    Verdict::from_violations(violations)
}

/// What a run's events tell of.
pub(crate) fn count(events: &[Event], weather: &Weather, founders: u64) -> Counts {
    let (looks, _) = default_looks(events);
    let periods = periods(events, weather, founders);
    let judged = periods.iter().filter(|period| looks_in(&looks, **period).next().is_some());
    Counts {
        changes: periods.len() as u64,
        judged: judged.count() as u64,
        lost: losses(events, weather).len() as u64,
    }
}

fn periods(events: &[Event], weather: &Weather, founders: u64) -> Vec<Period> {
    let mut changes: BTreeMap<u64, Vec<(u64, u64, bool)>> = BTreeMap::new();
    for event in events {
        if let Event::Changed { target, is_up, before, after } = event {
            changes.entry(*target).or_default().push((*before, *after, *is_up));
        }
    }
    let (hindrances, hands) = (hindrances(events, weather), hands(events, founders));
    let mut periods = Vec::new();
    for (target, mut all) in changes {
        all.sort_unstable();
        let hands = hands.get(&target).map(Vec::as_slice).unwrap_or_default();
        for (place, (_, after, is_up)) in all.iter().enumerate() {
            let to = all.get(place + 1).map_or(u64::MAX, |(before, _, _)| *before);
            let due = due(&hindrances, hands, *after);
            periods.push(Period { target, is_up: *is_up, due, to });
        }
    }
    periods
}

/// A server that a fault has brought: it comes and goes with that.
const GUEST: &str = "guest";

/// Time in which a worker may have been kept from its work.
#[derive(Debug, Clone)]
struct Hindrance {
    /// `None`: all workers.
    whose: Option<String>,
    from: u64,
    to: u64,
}

fn hindrances(events: &[Event], weather: &Weather) -> Vec<Hindrance> {
    let still = weather.still().map(|(from, to)| Hindrance { whose: None, from, to });
    let felt = weather.faults().flat_map(|(server, from, to)| {
        let to = to.saturating_add(AFTER_FAULT);
        [format!("n{server}"), GUEST.to_owned()].map(|who| Hindrance { whose: Some(who), from, to })
    });
    let losses = losses(events, weather).into_iter();
    let lost = losses.map(|Loss { worker, at, due, replaced }| Hindrance {
        whose: Some(format!("w{worker}")),
        from: at,
        to: replaced.unwrap_or(due),
    });
    let left = events.iter().filter_map(|event| match event {
        Event::Left { worker, at } => {
            let to = weather.due(*at, KILLED_MAX);
            Some(Hindrance { whose: Some(format!("w{worker}")), from: *at, to })
        }
        _ => None,
    });
    still.chain(felt).chain(lost).chain(left).collect()
}

/// Who ran a target's check: from when, until when at most, and who.
type Hand = (u64, u64, String);

fn hands(events: &[Event], founders: u64) -> BTreeMap<u64, Vec<Hand>> {
    let mut hands: BTreeMap<u64, Vec<Hand>> = BTreeMap::new();
    for event in events {
        let Event::Assigned { call, ret, workers } = event else { continue };
        for (target, worker) in workers {
            let number = worker.strip_prefix('n').and_then(|number| number.parse().ok());
            let is_guest = number.is_some_and(|number: u64| number > founders);
            let worker = if is_guest { GUEST } else { worker.as_str() };
            let own = hands.entry(*target).or_default();
            let mut from = 0;
            if let Some((_, to, last)) = own.last_mut() {
                if last == worker {
                    continue;
                }
                // It was the one before's until this was seen, and this one's since a while before.
                (*to, from) = (*ret, call.saturating_sub(SEEN_LATE_MAX));
            }
            own.push((from, u64::MAX, worker.to_owned()));
        }
    }
    hands
}

/// By when a change must show.
fn due(hindrances: &[Hindrance], hands: &[Hand], at: u64) -> u64 {
    let mut free = at;
    loop {
        let soon = free.saturating_add(SHOWN_MAX);
        let is_its = |whose: &String| {
            hands.is_empty()
                || hands.iter().any(|(from, to, who)| who == whose && *from <= soon && *to >= free)
        };
        let felt = hindrances.iter().filter(|one| one.from <= soon && one.to > free);
        let felt = felt.filter(|one| one.whose.as_ref().is_none_or(is_its));
        // One may begin while another one is felt.
        match felt.map(|one| one.to).max() {
            Some(until) => free = until,
            None => return soon,
        }
    }
}

fn losses(events: &[Event], weather: &Weather) -> Vec<Loss> {
    let replaced = |of: u64| {
        events.iter().find_map(|event| match event {
            Event::Replaced { worker, at } if *worker == of => Some(*at),
            _ => None,
        })
    };
    let losses = events.iter().filter_map(|event| match event {
        Event::Lost { worker, stopped, at } => {
            let span = match (is_near_a_fault(weather, *at), stopped) {
                (true, _) => SERVER_LOST_MAX,
                (false, true) => STOPPED_MAX,
                (false, false) => KILLED_MAX,
            };
            let (worker, at, due) = (*worker, *at, weather.due(*at, span));
            Some(Loss { worker, at, due, replaced: replaced(worker) })
        }
        _ => None,
    });
    losses.collect()
}

/// When a worker process was still shown as a worker at the end of the run, if it was.
fn remains(events: &[Event], worker: u64) -> Option<u64> {
    events.iter().find_map(|event| match event {
        Event::Remaining { workers, at } if workers.contains(&worker) => Some(*at),
        _ => None,
    })
}

/// Whether a server may have been lost at about this time, or have been about to come back.
fn is_near_a_fault(weather: &Weather, at: u64) -> bool {
    !weather.is_calm(at.saturating_sub(AFTER_FAULT), at + STOPPED_MAX)
}

/// When the last target changed, which is when nobody waits for worker processes any more.
fn end(events: &[Event]) -> u64 {
    let last = events.iter().map(|event| match event {
        Event::Changed { after: at, .. } | Event::Left { at, .. } => *at,
        _ => 0,
    });
    last.max().unwrap_or(0)
}

fn looks_in<'a, 'b>(
    looks: &'a [&'b Look],
    period: Period,
) -> impl Iterator<Item = &'b Look> + use<'a, 'b> {
    let first = looks.partition_point(|look| look.call <= period.due);
    let within = looks[first..].iter().take_while(move |look| look.call < period.to);
    within.copied().filter(move |look| look.ret < period.to)
}

/// In the order of their calls, and a violation for each that could not be read.
fn default_looks(events: &[Event]) -> (Vec<&Look>, Vec<String>) {
    let looks = events.iter().filter_map(|event| match event {
        Event::Look(look) => Some(look).filter(|look| !look.stale),
        _ => None,
    });
    readable(looks, "checks")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Fault;

    fn changed(at_s: u64, is_up: bool) -> Event {
        let at = at_s * SECOND;
        Event::Changed { target: 1, is_up, before: at, after: at }
    }

    fn look(at_ms: u64, critical: &[u64]) -> Event {
        let at = at_ms * MILLISECOND;
        let listed = Some(critical.to_vec());
        Event::Look(Look { node: 1, stale: false, call: at, ret: at, listed })
    }

    fn lost(at_s: u64, stopped: bool) -> Event {
        Event::Lost { worker: 7, stopped, at: at_s * SECOND }
    }

    fn replaced(at_s: u64) -> Event {
        Event::Replaced { worker: 7, at: at_s * SECOND }
    }

    /// The target comes at 100 s, goes at 120 s, and so on, and that shows in time.
    fn well() -> Vec<Event> {
        let mut events = Vec::new();
        for round in 0..JUDGED_MIN + 2 {
            let at = 100 + round * 20;
            events.push(changed(at, round % 2 == 0));
            events.push(look(at * 1_000 + 15_000, if round % 2 == 0 { &[] } else { &[1] }));
        }
        events
    }

    fn verdict(more: &[Event], weather: &Weather) -> Verdict {
        check(&[&well(), more].concat(), weather, 3)
    }

    fn kill(began_s: u64) -> Weather {
        let fault = Fault {
            nemesis: "kill".to_owned(),
            affected: vec![2],
            began: began_s * SECOND,
            recovered: Some((began_s + 2) * SECOND),
            ..Fault::default()
        };
        Weather::new(&[fault], &[], 3)
    }

    #[test]
    fn what_shows_in_time_is_valid_and_too_little_is_vacuous() {
        let calm = Weather::default();
        assert!(verdict(&[], &calm).is_valid());
        assert!(matches!(check(&well()[..4], &calm, 3), Verdict::Vacuous(_)));
        // Before its bound it may show as it was.
        assert!(verdict(&[look(122_900, &[])], &calm).is_valid());
        let unreadable = Look { node: 1, stale: false, call: 1, ret: 2, listed: None };
        assert!(verdict(&[Event::Look(unreadable)], &calm).is_invalid());
    }

    #[test]
    fn what_shows_too_late_or_did_not_happen_is_found() {
        let calm = Weather::default();
        assert!(verdict(&[look(123_100, &[])], &calm).is_invalid());
        assert!(verdict(&[look(115_000, &[1])], &calm).is_invalid());
    }

    #[test]
    fn a_fault_gives_time_to_changes_and_none_to_what_shows_already() {
        // At a server from 121 s, and felt until 126 s.
        assert!(verdict(&[look(128_000, &[])], &kill(121)).is_valid());
        assert!(verdict(&[look(130_000, &[])], &kill(121)).is_invalid());
        assert!(verdict(&[look(127_000, &[])], &kill(126)).is_invalid());
    }

    #[test]
    fn events_are_read_as_they_are_written() {
        let assigned = Event::Assigned { call: 1, ret: 2, workers: vec![(7, "n2".to_owned())] };
        for event in [assigned, look(1, &[7]), lost(3, true), replaced(4), changed(5, true)] {
            let written = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&written).unwrap(), event, "{written}");
        }
    }

    #[test]
    fn what_happens_to_others_gives_a_check_no_time() {
        let assigned = |at_s: u64, worker: &str| {
            let (call, ret) = (at_s * SECOND, at_s * SECOND);
            Event::Assigned { call, ret, workers: vec![(1, worker.to_owned())] }
        };
        let late = [look(128_000, &[])];
        assert!(verdict(&[&[assigned(90, "n2")][..], &late].concat(), &kill(121)).is_valid());
        assert!(verdict(&[&[assigned(90, "n3")][..], &late].concat(), &kill(121)).is_invalid());
        // It had just come from there, or was about to go there.
        for moves in
            [[assigned(90, "n2"), assigned(122, "n3")], [assigned(90, "n3"), assigned(122, "n2")]]
        {
            assert!(verdict(&[&moves[..], &late].concat(), &kill(121)).is_valid());
        }
        // A server that came with the fault may go with it.
        assert!(verdict(&[&[assigned(90, "n4")][..], &late].concat(), &kill(121)).is_valid());
        let long_ago = [assigned(90, "n2"), assigned(110, "n3")];
        assert!(verdict(&[&long_ago[..], &late].concat(), &kill(121)).is_invalid());
    }

    #[test]
    fn a_lost_worker_gives_time_until_its_checks_are_others() {
        let calm = Weather::default();
        let struck = [lost(119, true), replaced(127)];
        assert!(verdict(&[&struck[..], &[look(129_000, &[])]].concat(), &calm).is_valid());
        assert!(verdict(&[&struck[..], &[look(131_000, &[])]].concat(), &calm).is_invalid());
    }

    #[test]
    fn a_lost_worker_is_replaced_within_its_bound() {
        let judge = |events: &[Event], weather: &Weather| {
            check_handed_over(&[events, &[changed(200, false)]].concat(), weather)
        };
        let calm = Weather::default();
        assert!(judge(&[lost(100, false), replaced(102)], &calm).is_valid());
        assert!(judge(&[lost(100, false), replaced(104)], &calm).is_invalid());
        assert!(judge(&[lost(100, true), replaced(110)], &calm).is_valid());
        assert!(judge(&[lost(100, true), replaced(112)], &calm).is_invalid());
        assert!(judge(&[lost(100, false)], &calm).is_invalid());
        // The run ended before it had to be.
        assert!(judge(&[lost(198, false)], &calm).is_valid());
        // It was not looked for any more, but is shown when the run is over.
        let remaining = |workers| Event::Remaining { workers, at: 220 * SECOND };
        assert!(judge(&[lost(198, false), remaining(vec![7])], &calm).is_invalid());
        assert!(judge(&[lost(198, false), remaining(vec![8])], &calm).is_valid());
        assert!(matches!(judge(&[], &calm), Verdict::Vacuous(_)));
        // Its server may have been lost with it.
        assert!(judge(&[lost(100, false), replaced(115)], &kill(99)).is_valid());
    }
}
