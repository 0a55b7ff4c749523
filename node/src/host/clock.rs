//! The only place that reads a clock.
//!
//! Everything else asks the [`Clock`] it was handed, so that a simulation can run many nodes on
//! virtual time, each at a rate of its own. A clock tells *how long*, never *what time it is*: the
//! cluster depends on no wall clock.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

/// A point on a clock's own scale: time since the clock was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// A moment so long after the clock was made.
    #[must_use]
    pub const fn at(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// Time from `earlier` to this moment; zero if `earlier` lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment so much later.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }

    /// The moment so much earlier; when the clock was made, if that is later.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span))
    }

    /// Milliseconds since the clock was made.
    #[must_use]
    pub fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Where a [`Clock`] gets its time from.
pub trait ClockSource: Debug + Send + Sync + 'static {
    /// Time since the clock was made; never runs backwards.
    fn now(&self) -> Moment;
    /// Resolves after this much of the clock's time.
    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()>;
}

/// A cheap handle to a clock.
#[derive(Debug, Clone)]
pub struct Clock(Arc<dyn ClockSource>);

/// Says that an operation did not end in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedOut;

impl Clock {
    /// A clock on this source.
    #[must_use]
    pub fn new(source: Arc<dyn ClockSource>) -> Self {
        Self(source)
    }

    /// The machine's monotonic clock.
    #[must_use]
    pub fn monotonic() -> Self {
        Self::new(Arc::new(TokioClock { start: tokio::time::Instant::now() }))
    }

    /// Time since the clock was made.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.0.now()
    }

    /// Waits so long.
    pub async fn sleep(&self, span: Duration) {
        self.0.sleep(span).await;
    }

    /// Waits for `work`, but not longer than `limit`.
    ///
    /// # Errors
    /// [`TimedOut`] when the limit was reached first; `work` is dropped then.
    pub async fn timeout<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, TimedOut> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.sleep(limit) => Err(TimedOut),
        }
    }
}

/// tokio's clock: the machine's monotonic clock, or virtual time where the runtime is paused.
#[derive(Debug)]
struct TokioClock {
    start: tokio::time::Instant,
}

impl ClockSource for TokioClock {
    fn now(&self) -> Moment {
        Moment(self.start.elapsed())
    }

    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(span))
    }
}

/// The machine's wall clock, for people to read in logs and answers. Nothing may depend on it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn wall_time() -> WallTime {
    // Not `Timestamp::now`, which panics if the machine's clock is set beyond the year 9999.
    WallTime(Timestamp::try_from(std::time::SystemTime::now()).unwrap_or_default())
}

/// A time of day, UTC. Its text is `2026-01-31T23:59:59.000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WallTime(Timestamp);

impl WallTime {
    /// Nanoseconds since 1970; 0 before.
    #[must_use]
    pub fn unix_nanos(self) -> u64 {
        let nanos = self.0.as_nanosecond().max(0);
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// Milliseconds since 1970; 0 before.
    #[must_use]
    pub fn unix_millis(self) -> u64 {
        u64::try_from(self.0.as_millisecond()).unwrap_or(0)
    }

    /// So many milliseconds after 1970; the latest time that there is if that is beyond it.
    #[must_use]
    pub fn from_unix_millis(millis: u64) -> Self {
        let time =
            i64::try_from(millis).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok());
        Self(time.unwrap_or(Timestamp::MAX))
    }

    /// `20260131T235959Z`, for names of files.
    #[must_use]
    pub fn compact(self) -> String {
        self.0.strftime("%Y%m%dT%H%M%SZ").to_string()
    }

    /// `2026-01-31 23:59:59 +0000 UTC`.
    #[must_use]
    pub fn as_go_prints_it(self) -> String {
        self.0.strftime("%F %T +0000 UTC").to_string()
    }
}

impl std::fmt::Display for WallTime {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:.3}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_time_is_written_as_a_date() {
        let at = |seconds| WallTime(Timestamp::new(seconds, 7_000_000).unwrap());
        assert_eq!(at(0).to_string(), "1970-01-01T00:00:00.007Z");
        assert_eq!(at(951_782_400).to_string(), "2000-02-29T00:00:00.007Z");
        assert_eq!(at(1_798_761_599).to_string(), "2026-12-31T23:59:59.007Z");
        assert_eq!(at(1_798_761_599).compact(), "20261231T235959Z");
        assert_eq!(at(1_798_761_599).as_go_prints_it(), "2026-12-31 23:59:59 +0000 UTC");
    }
}
