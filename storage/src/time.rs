//! Time as the replicated state knows it.

use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

const NANOS_PER_MILLI: u64 = 1_000_000;

/// A length of time in whole milliseconds.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Millis(pub u64);

impl Millis {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// So many whole seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1_000)
    }

    /// So many nanoseconds, rounded up: what is not nothing does not become nothing.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos.div_ceil(NANOS_PER_MILLI))
    }

    /// The same in nanoseconds, or as many as the type can hold.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0.saturating_mul(NANOS_PER_MILLI)
    }

    /// Whether this is no time at all.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

/// Milliseconds during which this cluster had a working leader.
///
/// It lives in the state, moves only when a log entry carries a later stamp, and stops while
/// there is no leader. Every deadline is a `ClusterTime`, so expiry depends on no wall clock and
/// happens at the same log position on every node.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ClusterTime(pub u64);

impl ClusterTime {
    /// The instant at which the cluster was founded.
    pub const ZERO: Self = Self(0);

    /// How long ago `earlier` was; zero if it lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Millis> for ClusterTime {
    type Output = Self;
    fn add(self, span: Millis) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl Sub<Millis> for ClusterTime {
    type Output = Self;
    fn sub(self, span: Millis) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

impl fmt::Display for ClusterTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}
