//! Durations as histograms, for `/metrics`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;
use quorate_storage::log_store::SyncObserver;

use super::clock::{Clock, Moment};

/// Upper bounds in seconds: from a sync of a fast disk to the hold time of a request.
const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A histogram of durations. Clones count into the same one.
#[derive(Debug, Clone)]
pub struct Durations(Histogram);

impl Default for Durations {
    fn default() -> Self {
        Self(new_histogram())
    }
}

impl Durations {
    /// Counts one.
    pub fn observe(&self, took: Duration) {
        self.0.observe(took.as_secs_f64());
    }

    /// The histogram, to be registered.
    #[must_use]
    pub fn histogram(&self) -> Histogram {
        self.0.clone()
    }
}

/// An empty histogram of durations in seconds.
#[must_use]
pub fn new_histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

/// Measures something that is done once at a time.
#[derive(Debug)]
pub struct Stopwatch {
    clock: Clock,
    durations: Durations,
    // A std lock: held to copy it. Only the task or thread that is measured takes it.
    began: Mutex<Option<Moment>>,
}

impl Stopwatch {
    /// A stopwatch that counts into this histogram.
    #[must_use]
    pub fn new(clock: Clock, durations: Durations) -> Self {
        Self { clock, durations, began: Mutex::new(None) }
    }

    /// Begins to measure.
    pub fn start(&self) {
        *self.began.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.clock.now());
    }

    /// Counts the time since the last start, unless that was counted already.
    pub fn stop(&self) {
        let began = self.began.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(began) = began {
            self.durations.observe(self.clock.now().since(began));
        }
    }
}

impl SyncObserver for Stopwatch {
    fn begins(&self) {
        self.start();
    }

    fn ended(&self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stopwatch_counts_each_start_once() {
        let durations = Durations::default();
        let mut registry = Registry::default();
        registry.register("took", "Test", durations.histogram());
        let stopwatch = Stopwatch::new(Clock::monotonic(), durations);
        stopwatch.stop();
        stopwatch.start();
        tokio::time::sleep(Duration::from_millis(2)).await;
        stopwatch.stop();
        stopwatch.stop();
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in ["took_count 1\n", "le=\"0.001\"} 0\n", "le=\"0.0025\"} 1\n", "took_sum 0.002"]
        {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
