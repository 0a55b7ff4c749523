//! When a check's turn is.
//!
//! A check runs whenever cluster time, plus an offset that its number gives, is a multiple of its interval: whoever
//! runs it. So when it changes hands, its next run comes when it would have come anyway, and the checks of a cluster
//! are spread evenly over their intervals. Observers take turns within the interval.
//!
//! Workers know cluster time from what was applied last, and add what has elapsed since then. It need not be exact.

use std::time::Duration;

use quorate_storage::ClusterTime;
use quorate_storage::state::phase_of;

use super::assigned::Assigned;
use crate::host::clock::Moment;

/// Cluster time, as a worker knows it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ClusterTimeSeen {
    time: ClusterTime,
    at: Moment,
}

impl ClusterTimeSeen {
    /// Takes note of the time that was seen now.
    pub(crate) fn note(&mut self, time: ClusterTime, now: Moment) {
        if time != self.time {
            (self.time, self.at) = (time, now);
        }
    }

    /// The time now, in milliseconds.
    fn now_ms(&self, now: Moment) -> u64 {
        self.time.0.saturating_add(now.millis().saturating_sub(self.at.millis()))
    }

    /// How long until a check's next turn.
    pub(crate) fn until_turn(&self, of: &Assigned, now: Moment) -> Duration {
        let interval = u64::try_from(of.interval().as_millis()).unwrap_or(u64::MAX).max(1);
        let offset = phase_of(of.check) % interval;
        let rank = interval / u64::from(of.observers.max(1)) * u64::from(of.rank);
        let passed = (self.now_ms(now) % interval + offset + rank % interval) % interval;
        Duration::from_millis((interval - passed) % interval)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quorate_storage::Millis;
    use quorate_storage::record::CheckDefinition;

    use super::*;

    fn assigned(check: u64, rank: u32, observers: u32) -> Assigned {
        let interval = Millis(10_000);
        let definition = Arc::new(CheckDefinition { interval, ..CheckDefinition::default() });
        Assigned { check, probe: 1, definition, rank, observers, host: None }
    }

    fn at(ms: u64) -> Moment {
        Moment::at(Duration::from_millis(ms))
    }

    #[test]
    fn a_turn_is_at_the_same_time_whoever_takes_it() {
        let mut one = ClusterTimeSeen::default();
        one.note(ClusterTime(70_000), at(0));
        let mut other = ClusterTimeSeen::default();
        other.note(ClusterTime(68_000), at(500));
        let check = assigned(17, 0, 1);
        let wait = one.until_turn(&check, at(1_000));
        assert_eq!(wait, other.until_turn(&check, at(3_500)));
        assert!(wait < Duration::from_secs(10));
        assert_eq!(one.until_turn(&check, at(1_000).plus(wait)), Duration::ZERO);
        let later = at(1_001).plus(wait);
        assert_eq!(one.until_turn(&check, later), Duration::from_millis(9_999));
    }

    #[test]
    fn observers_take_turns_within_the_interval() {
        let mut seen = ClusterTimeSeen::default();
        seen.note(ClusterTime(70_000), at(0));
        let mut turns: Vec<u128> =
            (0..3).map(|rank| seen.until_turn(&assigned(17, rank, 3), at(0)).as_millis()).collect();
        turns.sort_unstable();
        assert!(
            turns.windows(2).all(|pair| (3_300..=3_400).contains(&(pair[1] - pair[0]))),
            "{turns:?}"
        );
    }
}
