//! Waiting for a condition, with a limit.

use std::time::{Duration, Instant};

use crate::{Failure, Result};

/// How long to sleep before a condition is checked again.
const PAUSE: Duration = Duration::from_millis(20);

/// The limit of one wait. It runs from the moment it is made.
///
/// A wait is a loop that returns once its condition holds, and else calls [`Limit::pause`].
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    span: Duration,
    end: Instant,
}

impl Limit {
    /// A limit of `span` from now.
    pub fn new(span: Duration) -> Self {
        Self { span, end: Instant::now() + span }
    }

    /// Whether the time is over.
    pub fn is_over(&self) -> bool {
        Instant::now() > self.end
    }

    /// Fails if the time is over, with what is still missing.
    pub fn check(&self, missing: impl FnOnce() -> String) -> Result<()> {
        if !self.is_over() {
            return Ok(());
        }
        Err(Failure::new(format!("not within {:?}: {}", self.span, missing())))
    }

    /// Sleeps for a moment; fails instead once the time is over.
    pub async fn pause(&self, missing: impl FnOnce() -> String) -> Result<()> {
        self.check(missing)?;
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    /// The same for threads that are allowed to block.
    pub fn pause_blocking(&self, missing: impl FnOnce() -> String) -> Result<()> {
        self.check(missing)?;
        std::thread::sleep(PAUSE);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_ends_with_what_is_missing() {
        let limit = Limit::new(Duration::from_millis(50));
        let mut pauses = 0;
        let error = loop {
            match limit.pause(|| "a leader".to_owned()).await {
                Ok(()) => pauses += 1,
                Err(error) => break error,
            }
        };
        assert!(pauses >= 1, "it failed before its time");
        assert_eq!(error.to_string(), "not within 50ms: a leader");
    }
}
