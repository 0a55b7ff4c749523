//! What a change leaves to do for the pools and the workers when everything else is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::catalog::Place;
use crate::Index;

/// See [`Change::settle_pools`](super::change::Change::settle_pools) and
/// [`Change::settle_workers`](super::change::Change::settle_workers), which do it.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Instances to look at; `true`: another process runs there.
    pub(super) places: BTreeMap<Place, bool>,
    /// Pools, by key, in which it may be someone's turn.
    pub(super) pools: BTreeSet<Arc<str>>,
    /// What the claims' counter is after this change, if it moves.
    pub(super) index: Option<Index>,
    /// Whether workers may have come or gone.
    pub(super) workers: bool,
    /// Whether a host may have another address.
    pub(super) hosts: bool,
}
