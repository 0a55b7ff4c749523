//! Who leads, as one value that everything in a node watches.
//!
//! openraft's metrics change many times a second. This task reduces them to what matters, so that a waiting
//! command wakes up only when there is a leader to send it to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::{Instant, ServerState};
use quorate_storage::raft::{NodeId, Peer};
use tokio::sync::watch;

use super::{ELECTION_MS_MAX, Raft};
use crate::host::clock::{Clock, Moment};

/// A leader counts as known for this long after it was last heard: two election timeouts.
pub(crate) const LEADER_HEARD_WITHIN: Duration = Duration::from_millis(2 * ELECTION_MS_MAX);

/// One leadership. A leader that is elected again has another term, so that is another leadership.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The term.
    pub term: u64,
    /// Who leads in it, if that is known.
    pub leader: Option<(NodeId, Peer)>,
}

impl Leadership {
    /// Whether this node leads.
    #[must_use]
    pub fn is_held_by(&self, id: NodeId) -> bool {
        self.leader.as_ref().is_some_and(|(leader, _)| *leader == id)
    }
}

/// When this node last heard from a leader.
#[derive(Debug)]
pub struct LeaderContact {
    clock: Clock,
    /// Milliseconds of the clock, plus one; zero: never.
    heard: AtomicU64,
}

impl LeaderContact {
    /// A contact with no leader so far.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, heard: AtomicU64::new(0) }
    }

    /// A message of the leader was accepted.
    pub fn heard(&self) {
        self.heard.store(self.clock.now().millis() + 1, Ordering::Relaxed);
    }

    /// Time since a leader was heard; since the node's start if never.
    #[must_use]
    pub fn silence(&self) -> Duration {
        let heard = self.heard.load(Ordering::Relaxed).saturating_sub(1);
        self.clock.now().since(Moment::at(Duration::from_millis(heard)))
    }

    /// Whether a leader was heard lately.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.heard.load(Ordering::Relaxed) != 0 && self.silence() < LEADER_HEARD_WITHIN
    }
}

/// Time since a quorum last answered this node as a leader; `None` if it does not lead, or no quorum
/// ever answered.
#[must_use]
pub fn quorum_silence(raft: &Raft) -> Option<Duration> {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    metrics.last_quorum_acked.as_ref().map(|acked| acked.elapsed())
}

/// Whether a quorum answered this leader lately (always, where it is the only voter).
#[must_use]
pub fn has_quorum(raft: &Raft, within: Duration) -> bool {
    let only_voter = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.voter_ids().count() == 1
    };
    only_voter || quorum_silence(raft).is_some_and(|silence| silence < within)
}

/// Whether this leader's quorum counts as present for clients.
#[must_use]
pub fn leads_with_quorum(raft: &Raft) -> bool {
    has_quorum(raft, LEADER_HEARD_WITHIN)
}

/// Publishes every change of leadership and counts the leaderships that it sees. Never ends: the node itself notices
/// when consensus ends, and why.
pub async fn follow(raft: Raft, published: watch::Sender<Leadership>, seen: Arc<AtomicU64>) {
    let mut metrics = raft.metrics();
    loop {
        let now = {
            let metrics = metrics.borrow_and_update();
            // After a restart, the vote on disk may still name this node as the leader that it was.
            let leads = metrics.state == ServerState::Leader;
            let leader = metrics.current_leader.filter(|id| *id != metrics.id || leads);
            let leader = leader.and_then(|id| {
                metrics.membership_config.get_node(&id).map(|peer| (id, peer.clone()))
            });
            Leadership { term: metrics.current_term, leader }
        };
        published.send_if_modified(|before| {
            let changed = *before != now;
            if changed {
                log_change(&now);
                seen.fetch_add(u64::from(now.leader.is_some()), Ordering::Relaxed);
                *before = now;
            }
            changed
        });
        if metrics.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

fn log_change(now: &Leadership) {
    match &now.leader {
        Some((id, peer)) => {
            tracing::info!(term = now.term, leader = id, name = %peer.name, "a leader is known");
        }
        None => tracing::info!(term = now.term, "no leader is known"),
    }
}
