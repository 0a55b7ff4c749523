//! Pauses between attempts: longer each time, and never in step with other clients.

use std::time::Duration;

/// Pauses that double from `first` to `max`, each shortened by up to a half at random.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, next: first }
    }

    /// The next pause.
    pub(crate) fn pause(&mut self) -> Duration {
        self.pause_at(rand::random())
    }

    /// The next pause for a random number from 0 to 1.
    fn pause_at(&mut self, random: f64) -> Duration {
        let pause = self.next.mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0);
        self.next = self.next.saturating_mul(2).min(self.max);
        pause
    }

    /// Something succeeded: the next pause is a short one.
    pub(crate) const fn reset(&mut self) {
        self.next = self.first;
    }
}

/// A span shortened by up to a tenth at random, so that what began together does not stay together.
pub(crate) fn jittered(span: Duration) -> Duration {
    span.mul_f64(1.0 - rand::random::<f64>() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::new(millis(50), millis(300));
        let pauses: Vec<_> = (0..5).map(|_| backoff.pause_at(0.0)).collect();
        assert_eq!(pauses, [50, 100, 200, 300, 300].map(millis));
        backoff.reset();
        assert_eq!(backoff.pause_at(1.0), millis(25));
    }

    #[test]
    fn random_pauses_stay_between_a_half_and_the_whole() {
        for _ in 0..100 {
            let pause = Backoff::new(millis(100), millis(100)).pause();
            assert!((millis(50)..=millis(100)).contains(&pause), "{pause:?}");
            let span = jittered(millis(100));
            assert!((millis(90)..=millis(100)).contains(&span), "{span:?}");
        }
    }
}
