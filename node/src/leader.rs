//! A leader's duties: it advances cluster time, proposes what is due, computes aliases, and keeps
//! the catalogue's picture of the servers in step with the membership.
//!
//! All of them end with the leadership.
//!
//! **Time** ([`time`]). The [`ClusterClock`] starts from the applied time once the leader's own first entry
//! is applied, after a grace period in which clients of a dead node can find another. It advances only while
//! a quorum answers and no heartbeat has been waiting for long.
//!
//! **Checks.** All workers run those that the cluster runs itself; the leader computes aliases ([`crate::checks`]).
//!
//! **Expiry** ([`time`]). Only this module proposes it; apply decides what is really due.
//!
//! **Comparison** ([`comparison`](crate::raft::comparison)). The leader compares the servers' states.
//!
//! **Servers** ([`servers`]). The catalogue shows which servers are members, where they are, and which
//! answer.

mod servers;
mod time;

pub(crate) use servers::SERVER_LOST_AFTER;

use std::sync::Arc;
use std::time::Duration;

use quorate_storage::machine::{Published, StateReader};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::checks::LeaderDesk;
use crate::host::supervise::spawn_on;
use crate::raft::Raft;
use crate::raft::cluster_clock::ClusterClock;
use crate::raft::comparison::Comparison;
use crate::raft::context::Context;
use crate::raft::intake::Intake;
use crate::raft::leadership::Leadership;
use crate::raft::membership::Membership;
use crate::raft::propose::Proposer;

/// Pause before looking again for the first entry of a leadership.
const FIRST_ENTRY_PAUSE: Duration = Duration::from_millis(5);

/// Everything a leader needs.
#[derive(Debug)]
pub struct Leader {
    /// This node.
    pub context: Context,
    /// Cluster time.
    pub cluster_clock: Arc<ClusterClock>,
    /// Consensus.
    pub raft: Raft,
    /// Where entries are proposed.
    pub intake: Arc<Intake>,
    /// Where numbered commands are proposed.
    pub proposer: Arc<Proposer>,
    /// The membership.
    pub membership: Arc<Membership>,
    /// The applied state.
    pub state: StateReader,
    /// Compares the servers' states.
    pub comparison: Arc<Comparison>,
    /// What the leader does for checks.
    pub checks: Arc<LeaderDesk>,
}

impl Leader {
    /// Leads whenever this node is the leader. Ends when leadership is no longer published, or when a duty
    /// has ended that has no end.
    pub async fn run(self: Arc<Self>, mut leadership: watch::Receiver<Leadership>) {
        loop {
            let current = leadership.borrow_and_update().clone();
            let changed = if current.is_held_by(self.context.id) {
                tokio::select! {
                    changed = leadership.changed() => changed,
                    () = self.lead(current.term) => return,
                }
            } else {
                leadership.changed().await
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// The duties of one leadership; dropped when it ends. Returns only when one of them has ended.
    async fn lead(self: &Arc<Self>, term: u64) {
        let first = self.first_entry(term).await;
        self.cluster_clock.stand(term, first.state.time());
        tracing::info!(term, time = %first.state.time(), "leading");
        // Separate tasks, which end with this one: thousands of checks must not delay the clock.
        let mut tasks = JoinSet::new();
        let checks = Arc::clone(&self.checks);
        spawn_on(&mut tasks, async move { checks.run().await });
        let servers = Arc::clone(self);
        spawn_on(&mut tasks, async move { servers.keep_servers().await });
        let comparison = Arc::clone(&self.comparison);
        spawn_on(&mut tasks, async move { comparison.run().await });
        self.start_clock(term).await;
        spawn_on(&mut tasks, Arc::clone(self).tick());
        spawn_on(&mut tasks, Arc::clone(self).expire(term));
        spawn_on(&mut tasks, Arc::clone(self).reap(term));
        // None of these tasks ends on its own. If one does, the others end too; a panic is passed on. Otherwise
        // time would stand still unnoticed.
        if let Some(Err(error)) = tasks.join_next().await
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }

    /// Waits until an entry of this leadership is applied. Only then is everything applied that earlier
    /// leaders committed.
    async fn first_entry(&self, term: u64) -> Arc<Published> {
        loop {
            let published = self.state.load();
            let applied_term = published.last_applied.map(|applied| applied.leader_id.term);
            if applied_term == Some(term) {
                return published;
            }
            self.context.clock.sleep(FIRST_ENTRY_PAUSE).await;
        }
    }
}
