//! Cluster time as the leader knows it.
//!
//! It starts from the applied time and advances by the time that really elapsed, but by at most [`STEP_MAX`]
//! between two ticks, and not at all across a gap of more than [`GAP_MAX`]. It advances only while a quorum
//! answers and no heartbeat has been waiting for long. So a leader that was paused, starved or cut off does
//! not expire services whose heartbeats are still in its sockets.
//!
//! Between two ticks, the time since the last one is added. Otherwise a heartbeat that arrives just before a
//! tick would count from the tick before, and its check would expire early.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_storage::ClusterTime;

use crate::host::clock::{Clock, Moment};

/// Cluster time advances by at most this much at a time; anything beyond was a pause.
const STEP_MAX: Duration = Duration::from_millis(250);
/// A longer gap does not count at all: the process stood still or its clock jumped, and nobody knows how much
/// time really passed. Late is allowed, early is not.
const GAP_MAX: Duration = Duration::from_secs(1);
/// A gap between two ticks of more than this was a pause.
const PAUSE: Duration = Duration::from_millis(100);
/// After a pause nothing expires for this long: heartbeats that waited in sockets come first.
const QUIET_AFTER_PAUSE: Duration = Duration::from_millis(100);
/// Short pauses in a row prolong the quiet time up to this. Things must expire even on a machine so busy that
/// every tick is a little late; heartbeats got through between those ticks.
const QUIET_IN_A_ROW_MAX: Duration = Duration::from_millis(500);

/// The leader's clock: stamped on every entry.
#[derive(Debug)]
pub struct ClusterClock {
    clock: Clock,
    // A std lock: held to read or set a few numbers.
    reading: Mutex<Reading>,
}

/// What the clock showed at the last tick.
#[derive(Debug, Default)]
struct Reading {
    /// The leadership in which it holds.
    term: u64,
    /// Cluster time, finer than milliseconds: rounding at each tick would slow the clock.
    time: Duration,
    /// When that tick was.
    at: Moment,
    /// Whether the clock runs.
    running: bool,
    /// Nothing expires before this moment.
    quiet_until: Moment,
    /// When the present quiet time began, however often it was prolonged.
    quiet_since: Moment,
}

impl Reading {
    /// What elapsed since the last tick, as far as it counts.
    fn step(&self, now: Moment) -> Duration {
        let elapsed = now.since(self.at);
        if elapsed > GAP_MAX { Duration::ZERO } else { elapsed.min(STEP_MAX) }
    }
}

impl ClusterClock {
    /// A clock that stands at zero.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, reading: Mutex::default() }
    }

    /// The time for an entry of this term. Zero before the clock was set in this term, which changes nothing,
    /// because apply takes the later of its own time and the stamp. The clock of an earlier term may be ahead
    /// of everything that was applied, and would cut the grace short.
    #[must_use]
    pub fn stamp(&self, term: u64) -> ClusterTime {
        let reading = self.reading();
        if reading.term != term {
            return ClusterTime::ZERO;
        }
        let since = if reading.running { reading.step(self.clock.now()) } else { Duration::ZERO };
        cluster_time(reading.time + since)
    }

    /// Stops the clock at the applied time: a leadership begins.
    pub fn stand(&self, term: u64, applied: ClusterTime) {
        self.set(term, applied, false);
    }

    /// Starts the clock from the applied time.
    pub fn start(&self, term: u64, applied: ClusterTime) {
        self.set(term, applied, true);
    }

    fn set(&self, term: u64, applied: ClusterTime, running: bool) {
        let at = self.clock.now();
        let time = Duration::from_millis(applied.0);
        *self.reading() = Reading { term, time, at, running, quiet_until: at, quiet_since: at };
    }

    /// A tick: moves the time by what elapsed, if it may move, and returns it.
    pub fn tick(&self, may_move: bool) -> ClusterTime {
        let now = self.clock.now();
        let mut reading = self.reading();
        let pause = now.since(reading.at);
        if pause > PAUSE {
            // A pause that does not count in full begins a new quiet time.
            if pause > STEP_MAX || now.since(reading.quiet_until) > PAUSE {
                reading.quiet_since = now;
            }
            reading.quiet_until = now.plus(QUIET_AFTER_PAUSE);
        }
        if may_move {
            let step = reading.step(now);
            reading.time += step;
        }
        reading.at = now;
        reading.running = may_move;
        cluster_time(reading.time)
    }

    /// The time up to which things may expire: that of the last tick. `None` while time stands still, and
    /// while heartbeats that waited out a pause come first. (An overdue tick may mean such a pause; the tick
    /// itself will tell.)
    #[must_use]
    pub fn expirable(&self) -> Option<ClusterTime> {
        let now = self.clock.now();
        let reading = self.reading();
        let quiet =
            now < reading.quiet_until && now.since(reading.quiet_since) < QUIET_IN_A_ROW_MAX;
        let in_time = now.since(reading.at) <= STEP_MAX;
        (reading.running && in_time && !quiet).then(|| cluster_time(reading.time))
    }

    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cluster_time(time: Duration) -> ClusterTime {
    ClusterTime(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: u64 = 3;

    /// tokio's clock, paused: it moves only when it is told to.
    async fn pass(micros: u64) {
        tokio::time::advance(Duration::from_micros(micros)).await;
    }

    fn clock() -> ClusterClock {
        let clock = ClusterClock::new(Clock::monotonic());
        clock.start(TERM, ClusterTime(1_000));
        clock
    }

    #[tokio::test(start_paused = true)]
    async fn time_advances_by_what_elapsed_and_is_read_between_ticks() {
        let clock = clock();
        pass(49_000).await;
        assert_eq!(clock.stamp(TERM), ClusterTime(1_049));
        assert_eq!(clock.tick(true), ClusterTime(1_049));
        pass(30_000).await;
        assert_eq!(clock.stamp(TERM), ClusterTime(1_079));
        assert_eq!(clock.expirable(), Some(ClusterTime(1_049)));
    }

    #[tokio::test(start_paused = true)]
    async fn parts_of_a_millisecond_are_not_lost() {
        let clock = clock();
        for _ in 0..1_000 {
            pass(1_600).await;
            clock.tick(true);
        }
        assert_eq!(clock.stamp(TERM), ClusterTime(2_600));
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_counts_for_a_quarter_of_a_second_and_is_followed_by_quiet() {
        let clock = clock();
        pass(900_000).await;
        assert_eq!(clock.stamp(TERM), ClusterTime(1_250));
        assert_eq!(clock.tick(true), ClusterTime(1_250));
        pass(50_000).await;
        assert_eq!(clock.expirable(), None);
        pass(50_000).await;
        assert_eq!(clock.expirable(), Some(ClusterTime(1_250)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_overdue_tick_is_taken_for_a_pause() {
        let clock = clock();
        pass(250_000).await;
        assert_eq!(clock.expirable(), Some(ClusterTime(1_000)));
        pass(1_000).await;
        assert_eq!(clock.expirable(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn ticks_that_are_all_a_little_late_do_not_keep_things_from_expiring() {
        let clock = clock();
        let mut quiet = 0;
        for _ in 0..20 {
            pass(101_000).await;
            clock.tick(true);
            quiet += u32::from(clock.expirable().is_none());
        }
        assert_eq!(quiet, 5);
        // A real pause is followed by quiet again.
        pass(300_000).await;
        clock.tick(true);
        assert_eq!(clock.expirable(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_and_a_jump_of_the_clock_count_for_nothing() {
        let clock = clock();
        pass(10_000_000).await;
        assert_eq!(clock.stamp(TERM), ClusterTime(1_000));
        assert_eq!(clock.tick(true), ClusterTime(1_000));
        assert_eq!(clock.expirable(), None);
        pass(40_000).await;
        assert_eq!(clock.tick(true), ClusterTime(1_040));
    }

    #[tokio::test(start_paused = true)]
    async fn time_stands_still_while_it_may_not_move() {
        let clock = clock();
        pass(50_000).await;
        assert_eq!(clock.tick(false), ClusterTime(1_000));
        assert_eq!(clock.expirable(), None, "and nothing expires");
        pass(20_000).await;
        assert_eq!(clock.stamp(TERM), ClusterTime(1_000));
        pass(30_000).await;
        assert_eq!(clock.tick(true), ClusterTime(1_050), "what elapsed before is not made up for");
    }

    #[tokio::test(start_paused = true)]
    async fn a_leadership_begins_with_the_clock_standing() {
        let clock = clock();
        clock.stand(TERM + 1, ClusterTime(7_000));
        pass(90_000).await;
        assert_eq!(clock.stamp(TERM + 1), ClusterTime(7_000));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_an_earlier_leadership_is_not_stamped_in_a_later_one() {
        let clock = clock();
        assert_eq!(clock.stamp(TERM + 1), ClusterTime::ZERO);
    }
}
