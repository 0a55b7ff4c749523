//! The binding of the cluster's indexes to the model's changes.
//!
//! The model numbers the visible changes that it predicts: these are [`Stamp`]s. The cluster has numbers of its
//! own. When an answer shows an index where the model expects a stamp, the two are bound for the rest of the run,
//! and bindings must keep the order: so every index that is ever shown is compared with every other, without
//! knowing absolute numbers.

use std::collections::BTreeMap;

/// The model's number of a visible change.
pub(crate) type Stamp = u64;

/// Bindings between the model's changes and the cluster's indexes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger(BTreeMap<Stamp, u64>);

impl Ledger {
    /// Numbers the indexes that were seen before the run, in their order.
    pub(crate) fn seeded(seen: impl IntoIterator<Item = u64>) -> Self {
        let mut seen: Vec<u64> = seen.into_iter().collect();
        seen.sort_unstable();
        seen.dedup();
        Self((1..).zip(seen).collect())
    }

    /// The newest stamp that is bound.
    pub(crate) fn newest(&self) -> Stamp {
        self.0.keys().next_back().copied().unwrap_or(0)
    }

    /// The stamp of an index that was seen before the run.
    pub(crate) fn stamp_of(&self, index: u64) -> Stamp {
        let found = self.0.iter().find(|(_, bound)| **bound == index);
        *found.expect("the ledger was seeded with every index of the start").0
    }

    /// The index of a change, if it was ever shown.
    pub(crate) fn index_of(&self, stamp: Stamp) -> Option<u64> {
        self.0.get(&stamp).copied()
    }

    /// An index was shown where this change is expected.
    pub(crate) fn bind(&mut self, stamp: Stamp, index: u64) -> Result<(), String> {
        if let Some(bound) = self.0.get(&stamp) {
            return match *bound == index {
                true => Ok(()),
                false => Err(self.disagreement(stamp, index)),
            };
        }
        let below = self.0.range(..stamp).next_back().is_none_or(|(_, bound)| *bound < index);
        let above = self.0.range(stamp..).next().is_none_or(|(_, bound)| index < *bound);
        if !(below && above && index > 0) {
            return Err(self.disagreement(stamp, index));
        }
        self.0.insert(stamp, index);
        Ok(())
    }

    fn disagreement(&self, stamp: Stamp, index: u64) -> String {
        let before = self.0.range(..stamp).next_back();
        let (at, after) = (self.0.get(&stamp), self.0.range(stamp + 1..).next());
        format!(
            "index {index} where change {stamp} is expected \
             (bound: {before:?}, this one {at:?}, {after:?})"
        )
    }
}
