//! Which process a heartbeat is of, and what follows for the facts of its instance.
//!
//! A process that knows when it was started says so, and then nothing else counts: later is another process,
//! earlier is one that has ended. Without that, a process id that is new tells of a restart. One that was there
//! before the last restart is of a heartbeat that came late, or of a standby that took over again: the latter if
//! the process that is known was silent for long, or said nothing in between two of them. Where neither is said,
//! the counter tells: it only rises, so one heartbeat below its highest value came late, and two in a row are of
//! a process that began to count anew. With the same process id they are late however many there are, until the
//! one that counted higher was silent for long.

use crate::command::{Beat, Rejection};
use crate::record::Facts;

/// What a heartbeat says of its process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Process {
    /// It is of the process that is known, or the first that is said of one.
    Same(Facts),
    /// It is of another process, which took over.
    Restarted(Facts),
    /// It is older than what is known. It tells that the instance lived, and changes nothing else.
    Older(Facts),
    /// It came late, from the process that is known: it renews nothing.
    Late,
    /// It came late, from the process before: it is refused, and the next such one may tell that it is back.
    Previous(Facts),
}

/// How long the process that is known was silent when a heartbeat comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// The rules in force do not ask.
    NotAsked,
    /// Less than half of what it may be before that shows.
    Short,
    /// Longer: whoever comes now is the process that is there.
    Long,
}

/// Compares a heartbeat with what is known; `highest` is as far as the instance has counted, and `silence` how
/// long nothing came.
///
/// # Errors
/// It is of a process that was started before the one that is known.
pub(super) fn judge(
    known: &Facts,
    highest: Option<u64>,
    beat: &Beat,
    silence: Silence,
) -> Result<Process, Rejection> {
    let counts_back = beat.counter.is_some() && beat.counter < highest;
    let again = counts_back && known.counted_back;
    let known_start = (known.started > 0).then_some(known.started);
    let (is_restart, is_older) = match (beat.started, known_start) {
        (Some(started), Some(known)) if started < known => {
            return Err(Rejection::EarlierProcess(beat.id.to_string()));
        }
        (Some(started), Some(known)) => (started > known, started == known && counts_back),
        (Some(_) | None, _) => match beat.pid.filter(|_| known.pid > 0) {
            Some(pid) if pid != known.pid && pid != known.previous_pid => (true, false),
            Some(pid) if pid != known.pid => match silence {
                Silence::NotAsked => (again, !again),
                Silence::Long => (true, false),
                Silence::Short if known.counted_back => (true, false),
                Silence::Short => {
                    return Ok(Process::Previous(Facts { counted_back: true, ..known.clone() }));
                }
            },
            Some(_) if counts_back && silence == Silence::Short => return Ok(Process::Late),
            Some(_) if counts_back && silence == Silence::Long => (true, false),
            Some(_) | None => (again, counts_back && !again),
        },
    };
    if is_older {
        return Ok(Process::Older(Facts { counted_back: counts_back, ..known.clone() }));
    }
    let mut facts = Facts { counted_back: false, ..known.clone() };
    if let Some(process) = &beat.process {
        facts.process.clone_from(process);
    }
    if let Some(version) = &beat.version {
        facts.version.clone_from(version);
    }
    facts.pid = beat.pid.unwrap_or(known.pid);
    if !is_restart {
        facts.started = beat.started.unwrap_or(known.started);
        return Ok(Process::Same(facts));
    }
    facts.started = beat.started.unwrap_or(0);
    facts.previous_pid = known.pid;
    facts.restarts = known.restarts.saturating_add(1);
    Ok(Process::Restarted(facts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Facts {
        Facts { pid: 10, previous_pid: 9, restarts: 1, ..Facts::default() }
    }

    fn beat(started: Option<u64>, pid: Option<u64>, counter: Option<u64>) -> Beat {
        Beat { started, pid, counter, ..Beat::default() }
    }

    #[test]
    fn a_later_start_is_a_restart_and_an_earlier_one_is_refused() {
        let known = Facts { started: 100, ..known() };
        let restarted =
            judge(&known, Some(7), &beat(Some(101), Some(10), Some(1)), Silence::NotAsked).unwrap();
        let Process::Restarted(facts) = restarted else { panic!("{restarted:?}") };
        assert_eq!((facts.started, facts.pid, facts.restarts), (101, 10, 2));
        judge(&known, Some(7), &beat(Some(99), Some(11), Some(1)), Silence::NotAsked).unwrap_err();
        // The same start: another process id is no restart, and a lower counter is late for ever.
        let same =
            judge(&known, Some(7), &beat(Some(100), Some(11), Some(8)), Silence::NotAsked).unwrap();
        assert!(matches!(same, Process::Same(facts) if facts.pid == 11 && facts.restarts == 1));
        for _ in 0..3 {
            let late =
                judge(&known, Some(7), &beat(Some(100), Some(10), Some(6)), Silence::NotAsked)
                    .unwrap();
            assert!(matches!(late, Process::Older(_)));
        }
    }

    #[test]
    fn without_a_start_a_process_id_that_is_new_is_a_restart() {
        let restarted =
            judge(&known(), None, &beat(None, Some(11), None), Silence::NotAsked).unwrap();
        let Process::Restarted(facts) = restarted else { panic!("{restarted:?}") };
        assert_eq!((facts.pid, facts.previous_pid, facts.restarts), (11, 10, 2));
        let late = judge(&facts, None, &beat(None, Some(10), None), Silence::NotAsked).unwrap();
        assert!(matches!(late, Process::Older(facts) if facts.pid == 11 && facts.restarts == 2));
        let first =
            judge(&Facts::default(), None, &beat(None, Some(10), None), Silence::NotAsked).unwrap();
        assert!(matches!(first, Process::Same(facts) if facts.pid == 10 && facts.restarts == 0));
    }

    #[test]
    fn without_either_two_in_a_row_below_the_highest_counter_are_a_restart() {
        let known = known();
        let late = judge(&known, Some(7), &beat(None, None, Some(6)), Silence::NotAsked).unwrap();
        let Process::Older(facts) = late else { panic!("{late:?}") };
        assert!(facts.counted_back);
        let again = judge(&facts, Some(7), &beat(None, None, Some(1)), Silence::NotAsked).unwrap();
        assert!(matches!(again, Process::Restarted(ref facts) if !facts.counted_back));
        let went_on =
            judge(&facts, Some(7), &beat(None, None, Some(8)), Silence::NotAsked).unwrap();
        assert!(matches!(went_on, Process::Same(facts) if !facts.counted_back));
    }

    #[test]
    fn a_standby_that_is_back_takes_over_and_one_late_heartbeat_of_it_does_not() {
        let previous = beat(None, Some(9), None);
        let late = judge(&known(), None, &previous, Silence::Short).unwrap();
        let Process::Previous(facts) = late else { panic!("{late:?}") };
        assert_eq!((facts.pid, facts.restarts, facts.counted_back), (10, 1, true));
        // Another one, with nothing of the process that is known in between.
        let back = judge(&facts, None, &previous, Silence::Short).unwrap();
        assert!(
            matches!(back, Process::Restarted(ref facts) if facts.pid == 9 && facts.restarts == 2)
        );
        let went_on = judge(&facts, None, &beat(None, Some(10), None), Silence::Short).unwrap();
        assert!(matches!(went_on, Process::Same(facts) if !facts.counted_back));
        let back = judge(&known(), None, &previous, Silence::Long).unwrap();
        assert!(matches!(back, Process::Restarted(facts) if facts.previous_pid == 10));
    }

    #[test]
    fn heartbeats_of_the_same_process_id_that_count_back_are_late_until_there_was_silence() {
        for _ in 0..3 {
            let late = judge(&known(), Some(20), &beat(None, Some(10), Some(11)), Silence::Short);
            assert_eq!(late.unwrap(), Process::Late);
        }
        let anew = judge(&known(), Some(20), &beat(None, Some(10), Some(1)), Silence::Long);
        assert!(matches!(anew.unwrap(), Process::Restarted(facts) if facts.restarts == 2));
    }
}
