//! Which check runs when, and what its runs add up to. No clock, no sockets: it is told the time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quorate_storage::record::{CheckDefinition, CheckStatus};
use tokio::task::AbortHandle;

use super::assigned::{Assigned, Shown};
use super::{Finding, OUTPUT_EVERY};
use crate::host::clock::Moment;

/// One run of one check.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// The check's number.
    pub(crate) check: u64,
    /// The number of its definition.
    pub(crate) probe: u64,
    /// How it is run.
    pub(crate) what: Arc<Assigned>,
}

/// A check whose run took no longer counts as quick until its next one.
const QUICK_MAX: Duration = Duration::from_secs(2);

/// All checks with an interval.
///
/// Targets that hang take places for as long as their timeouts. So that they cannot take all, and hold up
/// the checks of targets that answer, only a part of the places is given to checks that are not known to
/// be quick. Of these, the ones that have never run go first: there may be thousands that hang, and a new check
/// must not wait until each of them has.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    entries: BTreeMap<u64, Entry>,
    /// When quick checks that are not under way run next.
    quick: BTreeSet<(Moment, u64)>,
    /// When those do that have never run.
    fresh: BTreeSet<(Moment, u64)>,
    /// When the others do.
    slow: BTreeSet<(Moment, u64)>,
    /// Those that are under way and not known to be quick.
    others_under_way: BTreeSet<u64>,
}

/// What is known of how long a check's target takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// It was never asked.
    Fresh,
    /// At most [`QUICK_MAX`].
    Quick,
    /// Longer.
    Slow,
}

#[derive(Debug)]
struct Entry {
    run: Run,
    interval: Duration,
    /// When it runs next; `None` while it is under way.
    due: Option<Moment>,
    /// When its last run began.
    began: Moment,
    /// How long its last run took.
    pace: Pace,
    /// Ends the run that is under way, if one is.
    under_way: Option<AbortHandle>,
    streak: Streak,
    /// From when on an output may be written although the status is the same.
    output_from: Moment,
}

impl Schedule {
    /// Adds a check that is not in here; it runs first after `delay`.
    pub(super) fn add(&mut self, run: Run, now: Moment, delay: Duration) {
        let (check, due, interval) = (run.check, now.plus(delay), run.what.interval());
        let pace = Pace::Fresh;
        let entry = Entry {
            run,
            interval,
            due: Some(due),
            began: now,
            pace,
            under_way: None,
            streak: Streak::default(),
            output_from: now,
        };
        self.entries.insert(check, entry);
        self.queue(pace).insert((due, check));
    }

    /// Forgets a check. A run of it that is under way is ended: it would come to nothing, and others
    /// may be waiting for its turn. The write of a result goes on, for it does not take long.
    pub(super) fn remove(&mut self, check: u64) {
        let Some(entry) = self.entries.remove(&check) else { return };
        if let Some(due) = entry.due {
            self.queue(entry.pace).remove(&(due, check));
        }
        self.others_under_way.remove(&check);
        if let Some(handle) = entry.under_way {
            handle.abort();
        }
    }

    /// A run that was taken from here is under way as this task.
    pub(super) fn started(&mut self, run: &Run, handle: AbortHandle) {
        if let Some(entry) = self.current(run) {
            entry.under_way = Some(handle);
        }
    }

    /// When the next check runs, if at most so many that are not known to be quick may be under way.
    pub(super) fn next_due(&self, others_max: usize) -> Option<Moment> {
        let has_room = self.others_under_way.len() < others_max;
        let others = [self.fresh.first(), self.slow.first()].into_iter().flatten();
        let next = self.quick.first().into_iter().chain(others.filter(|_| has_room)).min();
        next.map(|(due, _)| *due)
    }

    /// The next check that is due; it is under way from now on.
    pub(super) fn take_due(&mut self, now: Moment, others_max: usize) -> Option<Run> {
        let has_room = self.others_under_way.len() < others_max;
        let due =
            |queue: &BTreeSet<(Moment, u64)>| queue.first().copied().filter(|(due, _)| *due <= now);
        let (quick, fresh) = (due(&self.quick), due(&self.fresh).filter(|_| has_room));
        let slow = || due(&self.slow).filter(|_| has_room);
        let next = quick.into_iter().chain(fresh).min().or_else(slow)?;
        let (_, check) = next;
        if !self.quick.remove(&next) {
            self.fresh.remove(&next);
            self.slow.remove(&next);
            self.others_under_way.insert(check);
        }
        let entry = self.entries.get_mut(&check).expect("what is due is scheduled");
        (entry.due, entry.began) = (None, now);
        Some(entry.run.clone())
    }

    /// The target of a run was asked.
    pub(super) fn asked(&mut self, run: &Run, now: Moment) {
        if let Some(entry) = self.current(run) {
            let is_quick = now.since(entry.began) <= QUICK_MAX;
            entry.pace = if is_quick { Pace::Quick } else { Pace::Slow };
            self.others_under_way.remove(&run.check);
        }
    }

    /// Counts a finding, and says what of it is to be written; `shown` is what the cluster has of this worker.
    pub(super) fn judge(
        &mut self,
        run: &Run,
        finding: Finding,
        shown: Option<&Shown>,
        now: Moment,
    ) -> Option<Finding> {
        let entry = self.current(run)?;
        let status = entry.streak.count(finding.status, &run.what.definition)?;
        let is_due = shown.is_none_or(|shown| {
            let is_other_output = !shown.output.is(&finding.output);
            shown.status != status || (is_other_output && now >= entry.output_from)
        });
        is_due.then_some(Finding { status, output: finding.output })
    }

    /// A finding was written.
    pub(super) fn written(&mut self, run: &Run, now: Moment) {
        if let Some(entry) = self.current(run) {
            entry.output_from = now.plus(OUTPUT_EVERY);
        }
    }

    /// When a check's last run began, and when the next one does.
    pub(super) fn times(&self, check: u64) -> Option<(Moment, Moment)> {
        let entry = self.entries.get(&check)?;
        Some((entry.began, entry.due?))
    }

    /// The run is over: the next one is at the check's next turn, which comes after `turn`. A turn that comes less than
    /// half an interval after the beginning of this run is this run's own, by another reading of cluster time.
    pub(super) fn finish(&mut self, run: &Run, now: Moment, turn: Duration) {
        if let Some(entry) = self.current(run) {
            let mut due = now.plus(turn);
            if due.since(entry.began) < entry.interval / 2 {
                due = due.plus(entry.interval);
            }
            (entry.due, entry.under_way) = (Some(due), None);
            // A run that was never asked for, such as one of a check whose row is gone, is over all the same.
            let pace = if entry.pace == Pace::Fresh { Pace::Slow } else { entry.pace };
            entry.pace = pace;
            self.queue(pace).insert((due, run.check));
            self.others_under_way.remove(&run.check);
        }
    }

    /// The queue that a check waits in.
    const fn queue(&mut self, pace: Pace) -> &mut BTreeSet<(Moment, u64)> {
        match pace {
            Pace::Fresh => &mut self.fresh,
            Pace::Quick => &mut self.quick,
            Pace::Slow => &mut self.slow,
        }
    }

    /// The check of a run, unless it is gone or defined anew.
    fn current(&mut self, run: &Run) -> Option<&mut Entry> {
        self.entries.get_mut(&run.check).filter(|entry| entry.run.probe == run.probe)
    }
}

/// How many runs in a row went the same way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Streak {
    successes: u32,
    failures: u32,
}

impl Streak {
    /// Counts one more run; the status that the check has now, or `None` while too few runs in a row
    /// agree. A warning counts as a success, as in Consul.
    fn count(&mut self, found: CheckStatus, limits: &CheckDefinition) -> Option<CheckStatus> {
        if found != CheckStatus::Critical {
            *self = Self { successes: self.successes.saturating_add(1), failures: 0 };
            return (self.successes >= limits.success_before_passing).then_some(found);
        }
        *self = Self { successes: 0, failures: self.failures.saturating_add(1) };
        let critical_after = limits.failures_before_critical;
        let warning_after = match limits.failures_before_warning {
            0 => critical_after,
            given => given,
        };
        if self.failures >= critical_after {
            Some(CheckStatus::Critical)
        } else if self.failures >= warning_after {
            Some(CheckStatus::Warning)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_storage::Millis;

    use crate::checks::assigned::ShownOutput;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Moment {
        Moment::at(Duration::from_secs(seconds))
    }

    fn run_every(check: u64, probe: u64, interval: Duration) -> Run {
        let interval = Millis(u64::try_from(interval.as_millis()).unwrap());
        let definition = Arc::new(CheckDefinition { interval, ..CheckDefinition::default() });
        let what = Assigned { check, probe, definition, rank: 0, observers: 1, host: None };
        Run { check, probe, what: Arc::new(what) }
    }

    fn run(check: u64, probe: u64) -> Run {
        run_every(check, probe, SECOND)
    }

    fn shown(status: CheckStatus, output: &str) -> Shown {
        Shown { status, output: ShownOutput::Text(output.to_owned()) }
    }

    #[test]
    fn a_check_runs_after_its_delay_and_then_an_interval_after_each_run() {
        let mut schedule = Schedule::default();
        schedule.add(run_every(1, 10, 5 * SECOND), at(0), 2 * SECOND);
        schedule.add(run(2, 20), at(0), SECOND);
        assert_eq!(schedule.next_due(9), Some(at(1)));
        assert!(schedule.take_due(at(0), 9).is_none());
        let first = schedule.take_due(at(3), 9).unwrap();
        let second = schedule.take_due(at(3), 9).unwrap();
        assert_eq!((first.check, second.check), (2, 1));
        assert_eq!(schedule.next_due(9), None, "what is under way is not started again");
        schedule.finish(&second, at(4), 5 * SECOND);
        assert_eq!(schedule.next_due(9), Some(at(9)));
        // The turn that it has just taken is not taken twice.
        schedule.finish(&first, at(3), SECOND / 4);
        assert_eq!(schedule.next_due(9), Some(at(3).plus(SECOND + SECOND / 4)));
    }

    #[test]
    fn targets_that_hang_do_not_hold_up_those_that_answer() {
        let mut schedule = Schedule::default();
        for check in 1..=3 {
            schedule.add(run(check, 10), at(0), Duration::ZERO);
        }
        let first = schedule.take_due(at(0), 2).unwrap();
        schedule.asked(&first, at(1));
        schedule.finish(&first, at(1), SECOND);
        assert_eq!(schedule.take_due(at(1), 2).map(|run| run.check), Some(2));
        assert_eq!(schedule.take_due(at(1), 2).map(|run| run.check), Some(3));
        // Two hang. A quick one has its turn, a new one has none.
        schedule.add(run(4, 10), at(1), Duration::ZERO);
        assert_eq!(schedule.next_due(2), Some(at(2)));
        assert_eq!(schedule.take_due(at(2), 2).map(|run| run.check), Some(1));
        assert!(schedule.take_due(at(2), 2).is_none());
        schedule.remove(2);
        assert_eq!(schedule.take_due(at(2), 2).map(|run| run.check), Some(4));
        let hung = run(3, 10);
        schedule.asked(&hung, at(60));
        schedule.finish(&hung, at(60), SECOND);
        assert!(schedule.slow.contains(&(at(61), 3)));
    }

    #[test]
    fn a_new_check_does_not_wait_until_all_that_hang_had_their_turn() {
        let mut schedule = Schedule::default();
        for check in 1..=9 {
            schedule.add(run(check, 10), at(0), Duration::ZERO);
        }
        // They hang, two at a time.
        for pair in 0..4 {
            let began = at(10 * pair);
            let two: Vec<Run> = (0..2).filter_map(|_| schedule.take_due(began, 2)).collect();
            assert_eq!(two.len(), 2);
            for hung in &two {
                schedule.asked(hung, at(10 * pair + 10));
                schedule.finish(hung, at(10 * pair + 10), SECOND);
            }
        }
        // The first eight are due again, some for long; the ninth has never run, and neither has a tenth.
        schedule.add(run(10, 10), at(40), Duration::ZERO);
        assert_eq!(schedule.take_due(at(60), 2).map(|run| run.check), Some(9));
        assert_eq!(schedule.take_due(at(60), 2).map(|run| run.check), Some(10));
        assert!(schedule.take_due(at(60), 2).is_none());
        schedule.finish(&run(9, 10), at(61), SECOND);
        assert_eq!(schedule.take_due(at(61), 2).map(|run| run.check), Some(1));
    }

    #[test]
    fn a_run_of_a_definition_that_was_replaced_comes_to_nothing() {
        let mut schedule = Schedule::default();
        schedule.add(run(1, 10), at(0), Duration::ZERO);
        let old = schedule.take_due(at(0), 9).unwrap();
        schedule.remove(1);
        schedule.add(run(1, 11), at(0), SECOND);
        let finding = Finding::critical("late".to_owned());
        assert_eq!(schedule.judge(&old, finding, None, at(0)), None);
        schedule.finish(&old, at(0), SECOND);
        assert_eq!(schedule.take_due(at(1), 9).map(|run| run.probe), Some(11));
        assert!(schedule.take_due(at(1), 9).is_none());
        schedule.remove(1);
        assert_eq!(schedule.next_due(9), None);
    }

    #[tokio::test]
    async fn a_run_ends_when_its_check_goes_or_is_defined_anew() {
        let mut schedule = Schedule::default();
        schedule.add(run(1, 10), at(0), Duration::ZERO);
        let taken = schedule.take_due(at(0), 9).unwrap();
        let task = tokio::spawn(std::future::pending::<()>());
        schedule.started(&taken, task.abort_handle());
        schedule.remove(1);
        assert!(task.await.unwrap_err().is_cancelled());
        schedule.add(run(1, 11), at(0), Duration::ZERO);
        assert_eq!(schedule.take_due(at(0), 9).map(|run| run.probe), Some(11));
    }

    #[test]
    fn a_status_is_written_at_once_and_an_output_alone_seldom() {
        let mut schedule = Schedule::default();
        schedule.add(run(1, 10), at(0), Duration::ZERO);
        let run = schedule.take_due(at(0), 9).unwrap();
        let shown = shown(CheckStatus::Passing, "one");
        let judge = |schedule: &mut Schedule, finding: &Finding, seconds| {
            schedule.judge(&run, finding.clone(), Some(&shown), at(seconds)).is_some()
        };
        let same = Finding::passing("one".to_owned());
        let other = Finding::passing("two".to_owned());
        let failed = Finding::critical("one".to_owned());
        assert!(!judge(&mut schedule, &same, 0), "nothing differs");
        assert!(judge(&mut schedule, &other, 0), "the first output");
        schedule.written(&run, at(0));
        assert!(!judge(&mut schedule, &other, 59));
        assert!(judge(&mut schedule, &failed, 59));
        assert!(judge(&mut schedule, &other, 60));
        let first = schedule.judge(&run, same.clone(), None, at(60));
        assert_eq!(first, Some(same), "nobody knows this worker's view yet");
    }

    #[test]
    fn a_status_changes_after_as_many_runs_in_a_row_as_the_definition_says() {
        let limits = CheckDefinition {
            success_before_passing: 2,
            failures_before_warning: 2,
            failures_before_critical: 3,
            ..CheckDefinition::default()
        };
        let mut streak = Streak::default();
        let mut after = |found| streak.count(found, &limits);
        let (pass, fail) = (CheckStatus::Passing, CheckStatus::Critical);
        assert_eq!(after(pass.clone()), None);
        assert_eq!(after(fail.clone()), None, "a failure begins anew");
        assert_eq!(after(pass.clone()), None);
        assert_eq!(after(pass.clone()), Some(CheckStatus::Passing));
        assert_eq!(after(fail.clone()), None);
        assert_eq!(after(fail.clone()), Some(CheckStatus::Warning));
        assert_eq!(after(fail.clone()), Some(CheckStatus::Critical));
        assert_eq!(after(CheckStatus::Warning), None);
        assert_eq!(after(CheckStatus::Warning), Some(CheckStatus::Warning));
        let none = CheckDefinition::default();
        assert_eq!(Streak::default().count(fail, &none), Some(CheckStatus::Critical));
        assert_eq!(Streak::default().count(pass, &none), Some(CheckStatus::Passing));
    }
}
