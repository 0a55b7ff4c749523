//! openraft's state machine around [`State`].

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::raft::{LogId, StoredMembership};
use crate::state::{Effects, State};

/// One version of everything a reader may want: immutable once published.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// The state.
    pub state: State,
    /// The last log entry it contains.
    pub last_applied: Option<LogId>,
    /// The membership in force.
    pub membership: StoredMembership,
}

/// Is told what was applied, after the new version was published. Called from openraft's apply task:
/// it must not block and must not do work that grows with the number of waiters.
pub trait Observer: Send + Sync + 'static {
    /// Entries were applied; `effects` are theirs, merged.
    fn applied(&self, published: &Arc<Published>, effects: Effects);
    /// A snapshot replaced the state: outcomes are to be looked up, and everything may have changed.
    fn installed(&self, published: &Arc<Published>);
}

/// Gives out the newest published version.
#[derive(Debug, Clone)]
pub struct StateReader(Arc<ArcSwap<Published>>);

impl StateReader {
    /// The newest version.
    pub fn load(&self) -> Arc<Published> {
        self.0.load_full()
    }
}
