//! Network coordinates, from which the distance between two nodes is estimated.

use serde::{Deserialize, Serialize};

/// A number with a fraction, kept as its bits: replicas must agree on every bit, and compare and
/// hash it without the rules of floating point.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Real(u64);

impl From<f64> for Real {
    fn from(number: f64) -> Self {
        Self(number.to_bits())
    }
}

impl From<Real> for f64 {
    fn from(real: Real) -> Self {
        Self::from_bits(real.0)
    }
}

/// A Vivaldi coordinate as Serf defines it. The estimated round-trip time between two nodes, in
/// seconds, is the distance of their vectors plus both heights, plus both adjustments if that stays
/// positive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coordinate {
    /// The Euclidean part.
    pub vector: Vec<Real>,
    /// How little the node trusts it.
    pub error: Real,
    /// An offset learned over time.
    pub adjustment: Real,
    /// The part of the way that all of its traffic takes.
    pub height: Real,
}
