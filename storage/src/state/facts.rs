//! Which process a heartbeat is of, and what follows for the facts of its instance.
//!
//! A process that knows when it was started says so, and then nothing else counts: later is another process,
//! earlier is one that has ended. Without that, a process id that is new tells of a restart. One that was there
//! before the last restart is of a heartbeat that came late. Where neither is said, the counter tells: it only
//! rises, so one heartbeat below its highest value came late, and two in a row are of a process that began to
//! count anew.

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
}

/// Compares a heartbeat with what is known; `highest` is as far as the instance has counted.
///
/// # Errors
/// It is of a process that was started before the one that is known.
pub(super) fn judge(
    known: &Facts,
    highest: Option<u64>,
    beat: &Beat,
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
            Some(pid) if pid != known.pid => (again, !again),
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
        let restarted = judge(&known, Some(7), &beat(Some(101), Some(10), Some(1))).unwrap();
        let Process::Restarted(facts) = restarted else { panic!("{restarted:?}") };
        assert_eq!((facts.started, facts.pid, facts.restarts), (101, 10, 2));
        judge(&known, Some(7), &beat(Some(99), Some(11), Some(1))).unwrap_err();
        // The same start: another process id is no restart, and a lower counter is late for ever.
        let same = judge(&known, Some(7), &beat(Some(100), Some(11), Some(8))).unwrap();
        assert!(matches!(same, Process::Same(facts) if facts.pid == 11 && facts.restarts == 1));
        for _ in 0..3 {
            let late = judge(&known, Some(7), &beat(Some(100), Some(10), Some(6))).unwrap();
            assert!(matches!(late, Process::Older(_)));
        }
    }

    #[test]
    fn without_a_start_a_process_id_that_is_new_is_a_restart() {
        let restarted = judge(&known(), None, &beat(None, Some(11), None)).unwrap();
        let Process::Restarted(facts) = restarted else { panic!("{restarted:?}") };
        assert_eq!((facts.pid, facts.previous_pid, facts.restarts), (11, 10, 2));
        let late = judge(&facts, None, &beat(None, Some(10), None)).unwrap();
        assert!(matches!(late, Process::Older(facts) if facts.pid == 11 && facts.restarts == 2));
        let first = judge(&Facts::default(), None, &beat(None, Some(10), None)).unwrap();
        assert!(matches!(first, Process::Same(facts) if facts.pid == 10 && facts.restarts == 0));
    }

    #[test]
    fn without_either_two_in_a_row_below_the_highest_counter_are_a_restart() {
        let known = known();
        let late = judge(&known, Some(7), &beat(None, None, Some(6))).unwrap();
        let Process::Older(facts) = late else { panic!("{late:?}") };
        assert!(facts.counted_back);
        let again = judge(&facts, Some(7), &beat(None, None, Some(1))).unwrap();
        assert!(matches!(again, Process::Restarted(ref facts) if !facts.counted_back));
        let went_on = judge(&facts, Some(7), &beat(None, None, Some(8))).unwrap();
        assert!(matches!(went_on, Process::Same(facts) if !facts.counted_back));
    }
}
