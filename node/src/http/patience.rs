//! How long the filter of one request may look at rows.
//!
//! A regular expression is matched in time linear in the text, but a large one of many rows still takes a processor for
//! many seconds, and goes on when its client has gone. So a filter with one is asked of rows beside the runtime, one
//! filter at a time ([`heavy`](super::heavy)), and gives up when its time is over: the request is answered with 503 then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use axum::http::StatusCode;
use tokio::time::Instant;

use super::error::ApiError;
use super::limits;

/// The time of one request's filter; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Patience(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    is_costly: AtomicBool,
    /// When the first row was looked at.
    began: OnceLock<Instant>,
    is_over: AtomicBool,
}

impl Patience {
    /// The filter has regular expressions.
    pub(super) fn note_costly(&self) {
        self.0.is_costly.store(true, Ordering::Relaxed);
    }

    /// Whether it has.
    pub(super) fn is_costly(&self) -> bool {
        self.0.is_costly.load(Ordering::Relaxed)
    }

    /// Whether there is time for one more match.
    pub(super) fn lasts(&self) -> bool {
        if self.is_over() {
            return false;
        }
        let began = self.0.began.get_or_init(Instant::now);
        let lasts = began.elapsed() < limits::get().filter_timeout;
        self.0.is_over.store(!lasts, Ordering::Relaxed);
        lasts
    }

    /// Whether there was none: what the filter has left is not what it stands for.
    pub(super) fn is_over(&self) -> bool {
        self.0.is_over.load(Ordering::Relaxed)
    }

    /// Whether a filter came to its end.
    ///
    /// # Errors
    /// 503: it took too long.
    pub(super) fn check(&self) -> Result<(), ApiError> {
        if !self.is_over() {
            return Ok(());
        }
        let seconds = limits::get().filter_timeout.as_secs_f64();
        let text = format!(
            "the filter's regular expressions took more than {seconds} s (--http-filter-timeout): use a simpler one, or \
             ask for fewer rows"
        );
        Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_begins_with_the_first_match_and_ends_for_good() {
        let (patience, timeout) = (Patience::default(), limits::get().filter_timeout);
        tokio::time::sleep(2 * timeout).await;
        assert!(patience.lasts());
        tokio::time::sleep(timeout / 2).await;
        assert!(patience.lasts() && patience.check().is_ok());
        tokio::time::sleep(timeout).await;
        assert!(patience.check().is_ok(), "nobody was cut short yet");
        assert!(!patience.lasts() && !patience.lasts());
        let refused = patience.check().unwrap_err();
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.text.contains("2 s (--http-filter-timeout)"), "{}", refused.text);
    }
}
