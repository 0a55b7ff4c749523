//! A circuit breaker for each server: who has just failed is not asked while others can be.

use std::time::Duration;

use tokio::time::Instant;

/// For how long a server is avoided after its first failure; doubled by each further one.
const OPEN_FIRST: Duration = Duration::from_millis(200);
/// The longest that a server is avoided.
const OPEN_MAX: Duration = Duration::from_secs(5);
/// How long one trial request may run before another may try the server too.
const TRIAL: Duration = Duration::from_secs(1);

/// Whether a server should be asked; the smaller, the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Readiness {
    /// It has answered, or was never asked.
    Closed,
    /// It failed some time ago: worth a trial.
    HalfOpen,
    /// It failed just now. It is asked only when all others have failed too, the one whose time is up next first.
    Open(Instant),
}

/// What is known of one server's failures.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    open_until: Option<Instant>,
    /// Failures in a row.
    failures: u32,
}

impl Breaker {
    pub(crate) fn readiness(&self, now: Instant) -> Readiness {
        match self.open_until {
            None => Readiness::Closed,
            Some(until) if until <= now => Readiness::HalfOpen,
            Some(until) => Readiness::Open(until),
        }
    }

    /// It is about to be asked. A server that is on trial is one that others still avoid.
    pub(crate) fn asked(&mut self, now: Instant) {
        if self.readiness(now) == Readiness::HalfOpen {
            self.open_until = Some(now + TRIAL);
        }
    }

    /// It answered.
    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// It did not answer.
    pub(crate) fn failed(&mut self, now: Instant) {
        let doubled = OPEN_FIRST.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.open_until = Some(now + doubled.min(OPEN_MAX));
    }

    /// It answered that it has no room, or is about to stop.
    pub(crate) fn refused(&mut self, now: Instant, retry_after: Duration) {
        self.failures = 0;
        self.open_until = Some(now + retry_after.min(OPEN_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_server_that_fails_is_avoided_for_longer_each_time() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        assert_eq!(breaker.readiness(now), Readiness::Closed);
        for span in [200, 400, 800, 1_600, 3_200, 5_000, 5_000].map(millis) {
            breaker.failed(now);
            assert_eq!(breaker.readiness(now), Readiness::Open(now + span));
            now += span;
            assert_eq!(breaker.readiness(now), Readiness::HalfOpen);
        }
        breaker.succeeded();
        assert_eq!(breaker.readiness(now), Readiness::Closed);
        breaker.failed(now);
        assert_eq!(breaker.readiness(now + OPEN_FIRST), Readiness::HalfOpen);
    }

    #[test]
    fn one_request_at_a_time_tries_a_server_that_failed() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        breaker.failed(now);
        let later = now + OPEN_FIRST;
        breaker.asked(later);
        assert_eq!(breaker.readiness(later), Readiness::Open(later + TRIAL));
        assert_eq!(breaker.readiness(later + TRIAL), Readiness::HalfOpen);
    }

    #[test]
    fn a_server_without_room_is_avoided_for_as_long_as_it_says() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        breaker.refused(now, millis(1_000));
        assert_eq!(breaker.readiness(now), Readiness::Open(now + millis(1_000)));
        assert_eq!(breaker.readiness(now + millis(1_000)), Readiness::HalfOpen);
    }

    #[test]
    fn servers_that_answer_come_first_and_then_those_whose_time_is_up_next() {
        let now = Instant::now();
        let mut order = [
            Readiness::Open(now + millis(2)),
            Readiness::HalfOpen,
            Readiness::Open(now + millis(1)),
            Readiness::Closed,
        ];
        order.sort();
        let wanted = [
            Readiness::Closed,
            Readiness::HalfOpen,
            Readiness::Open(now + millis(1)),
            Readiness::Open(now + millis(2)),
        ];
        assert_eq!(order, wanted);
    }
}
