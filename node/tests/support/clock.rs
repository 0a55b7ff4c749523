//! A clock that goes at a rate of its own.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use quorate::host::clock::{Clock, ClockSource, Moment};

/// So many milliseconds of it are a second of the machine's.
#[derive(Debug)]
struct RatedClock {
    start: tokio::time::Instant,
    per_mille: u32,
}

/// A clock of which `per_mille` milliseconds pass in a second of the machine's.
pub(crate) fn rated(per_mille: u32) -> Clock {
    Clock::new(Arc::new(RatedClock { start: tokio::time::Instant::now(), per_mille }))
}

impl ClockSource for RatedClock {
    fn now(&self) -> Moment {
        Moment::at(self.start.elapsed() * self.per_mille / 1_000)
    }

    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(span * 1_000 / self.per_mille))
    }
}
