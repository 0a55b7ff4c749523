//! What happens in a node after something was applied.
//!
//! The state machine publishes a new version and then notifies this observer. The observer answers this
//! node's own clients, advances the applied position, and hands the touched topics to the task that wakes
//! queries. Nothing here waits, or grows with the number of waiters.

use std::sync::Arc;

use quorate_storage::Effects;
use quorate_storage::machine::{Observer, Published};
use tokio::sync::watch;

use super::expirations::Expirations;
use crate::claims::Counts;
use crate::host::durations::{Durations, Stopwatch};
use crate::live::feed::Feed;
use crate::raft::comparison::Capture;
use crate::raft::context::Context;
use crate::raft::processes::Processes;
use crate::raft::propose::Proposer;
use crate::watch::Watches;

/// Passes on what was applied.
#[derive(Debug)]
pub struct ApplyObserver {
    processes: Arc<Processes>,
    proposer: Arc<Proposer>,
    watches: Arc<Watches>,
    feed: Arc<Feed>,
    claims: Arc<Counts>,
    expirations: Arc<Expirations>,
    applied: watch::Sender<u64>,
    capture: Arc<Capture>,
    applying: Stopwatch,
    durations: Durations,
}

impl ApplyObserver {
    /// An observer that answers the clients of this proposer and wakes these watches.
    #[must_use]
    pub fn new(context: &Context, proposer: Arc<Proposer>, watches: Arc<Watches>) -> Self {
        let durations = Durations::default();
        Self {
            processes: Arc::clone(&context.processes),
            proposer,
            watches,
            feed: Arc::default(),
            claims: Arc::default(),
            expirations: Arc::default(),
            applied: watch::Sender::new(0),
            capture: Arc::default(),
            applying: Stopwatch::new(context.clock.clone(), durations.clone()),
            durations,
        }
    }

    /// Who waits for records of the history.
    #[must_use]
    pub fn feed(&self) -> Arc<Feed> {
        Arc::clone(&self.feed)
    }

    /// What was seen of claims.
    #[must_use]
    pub fn claims(&self) -> Arc<Counts> {
        Arc::clone(&self.claims)
    }

    /// What was seen to expire.
    #[must_use]
    pub(super) fn expirations(&self) -> Arc<Expirations> {
        Arc::clone(&self.expirations)
    }

    /// The index of the last applied log entry.
    #[must_use]
    pub fn applied_index(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// How long batches of entries take to be applied and published.
    #[must_use]
    pub fn durations(&self) -> Durations {
        self.durations.clone()
    }

    /// Captures the version of the state after a requested entry.
    #[must_use]
    pub fn capture(&self) -> Arc<Capture> {
        Arc::clone(&self.capture)
    }

    /// Takes note of what a restarted node recovered from its snapshot. Otherwise a node with an empty log
    /// behind its snapshot would hold every read until the next write.
    pub fn recovered(&self, published: &Published) {
        self.processes.observe(published);
        self.advance(published);
        self.skip_to(published.state.history().last_seq());
    }

    /// Counts what happens after this record.
    fn skip_to(&self, newest: u64) {
        self.claims.skip_to(newest);
        self.expirations.skip_to(newest);
    }

    fn advance(&self, published: &Published) {
        if let Some(applied) = &published.last_applied {
            self.applied.send_replace(applied.index);
        }
    }
}

impl Observer for ApplyObserver {
    fn applying(&self) {
        self.applying.start();
    }

    fn applied(&self, published: &Arc<Published>, effects: Effects) {
        // First, because only applying is measured.
        self.applying.stop();
        self.processes.observe(published);
        // Before the answers, which say how far this node has applied the log: their own commands are in it.
        self.advance(published);
        self.proposer.applied(effects.outcomes);
        self.proposer.used(published.state.used_numbers(self.processes.id()));
        self.watches.touch(effects.touched);
        self.claims.note(published.state.history());
        self.expirations.note(published.state.history());
        self.feed.note(published.state.history().last_seq());
    }

    fn installed(&self, published: &Arc<Published>) {
        self.processes.observe(published);
        self.advance(published);
        self.proposer.installed(&published.state);
        self.proposer.used(published.state.used_numbers(self.processes.id()));
        self.watches.touch_everything();
        self.skip_to(published.state.history().last_seq());
        self.feed.note(published.state.history().last_seq());
    }

    fn wants(&self, index: u64) -> bool {
        self.capture.wants(index)
    }

    fn reached(&self, version: Published) {
        self.capture.reached(version);
    }
}
