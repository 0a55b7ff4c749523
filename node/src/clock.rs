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
