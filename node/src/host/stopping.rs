//! Whether a node is stopping, and since when.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::host::clock::{Clock, Moment};

/// A node's stop, which begins at most once; cheap to clone.
#[derive(Debug, Clone)]
pub struct Stopping {
    clock: Clock,
    since: Arc<OnceLock<Moment>>,
    begun: CancellationToken,
}

impl Stopping {
    /// Not stopping yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, since: Arc::default(), begun: CancellationToken::new() }
    }

    /// Begins the stop. Only the first call counts.
    pub fn begin(&self) {
        self.since.get_or_init(|| self.clock.now());
        self.begun.cancel();
    }

    /// Whether the stop has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Resolves when the stop begins.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Resolves `span` after the stop began, at once if that time has passed.
    pub async fn lasted(&self, span: Duration) {
        self.begun().await;
        let now = self.clock.now();
        let since = self.since.get().copied().unwrap_or(now);
        self.clock.sleep(span.saturating_sub(now.since(since))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_span_counts_from_the_first_beginning_however_late_the_wait_starts() {
        let clock = Clock::monotonic();
        let stopping = Stopping::new(clock.clone());
        let second = Duration::from_secs(1);
        assert!(clock.timeout(second, stopping.lasted(Duration::ZERO)).await.is_err());
        assert!(!stopping.has_begun());
        stopping.begin();
        let begun = clock.now();
        assert!(stopping.has_begun());
        clock.sleep(second / 4).await;
        stopping.begin();
        stopping.clone().lasted(second).await;
        assert_eq!(clock.now().since(begun), second);
        stopping.lasted(second).await;
        assert_eq!(clock.now().since(begun), second);
    }
}
