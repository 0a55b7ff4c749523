//! Log lines that may come in thousands: at most one in each span of time, with a count of the others.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::host::clock::{Clock, Moment};

/// Lets one line through in each span.
#[derive(Debug)]
pub struct LogRate {
    clock: Clock,
    span: Duration,
    /// A std lock: held for a comparison.
    state: Mutex<Passed>,
}

#[derive(Debug, Default)]
struct Passed {
    last: Option<Moment>,
    held_back: u64,
}

impl LogRate {
    /// At most one line in each `span`.
    #[must_use]
    pub fn new(clock: Clock, span: Duration) -> Self {
        Self { clock, span, state: Mutex::default() }
    }

    /// Whether a line may be written now; if so, how many were not since the last one.
    pub fn pass(&self) -> Option<u64> {
        let now = self.clock.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now.since(last) < self.span) {
            state.held_back += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_passes_in_each_span_and_tells_of_the_others() {
        let rate = LogRate::new(Clock::monotonic(), Duration::from_secs(1));
        assert_eq!(rate.pass(), Some(0));
        assert_eq!((rate.pass(), rate.pass()), (None, None));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(rate.pass(), Some(2));
        assert_eq!(rate.pass(), None);
    }
}
