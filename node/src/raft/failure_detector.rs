//! Notices that the leader's process has ended, and has a follower stand for election at once.
//!
//! A follower that merely hears nothing has to wait for the election timeout, because silence may be a
//! slow network, a pause or a slow disk. The end of a process is more than silence: the kernel of its
//! host closes its connections and refuses new ones. Whoever sees both knows that this process will not
//! send another heartbeat, and need not wait.
//!
//! Elections are always safe in Raft; this only decides when one begins. It must therefore be *useful*:
//!
//! * Never on a timeout. A cut cable, lost power, a paused or starved leader end no connection, so they
//!   still take the election timeout ([`Transport::process_ended`] has the exact rule).
//! * Never because of one's own network: a follower that is cut off is not *refused* a connection.
//! * One candidate at a time. The voters that remain take turns in the order of their ids, a
//!   [`TURN_MS`] apart, or they would split the votes.
//!
//! The vote request says that it is part of a handover of leadership (Ongaro's dissertation, section
//! 4.2.3), so that voters grant it although the old leader's lease has not expired. It is not subject to
//! a pre-vote; the usual check of the logs applies.
//!
//! [`Transport::process_ended`]: super::transport::Transport::process_ended

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use quorate_storage::raft::NodeId;
use tokio::sync::watch;

use super::Raft;
use super::context::Context;
use super::leadership::Leadership;

/// The voter with the n-th lowest id stands n turns after the leader's end. Long enough for a vote and
/// two fsyncs of a healthy disk; short against the election timeout.
const TURN_MS: u64 = 50;
/// How often a voter stands in one leadership: the first candidate may lack entries that a later one
/// has, and take the term from it. After that, the election timeout decides.
const ATTEMPTS_MAX: u64 = 3;

/// Watches the leader's process, and stands for election when it ends.
#[derive(Debug)]
pub struct FailureDetector {
    context: Context,
    raft: Raft,
    elections: AtomicU64,
}

impl FailureDetector {
    /// A detector that has not seen anything yet.
    #[must_use]
    pub fn new(context: Context, raft: Raft) -> Self {
        Self { context, raft, elections: AtomicU64::new(0) }
    }

    /// How many elections this node began because the leader's process had ended.
    #[must_use]
    pub fn elections(&self) -> u64 {
        self.elections.load(Ordering::Relaxed)
    }

    /// Runs until leadership is no longer published.
    pub async fn run(self: Arc<Self>, mut leadership: watch::Receiver<Leadership>) {
        loop {
            let current = leadership.borrow_and_update().clone();
            tokio::select! {
                changed = leadership.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = self.leader_ended(&current) => {
                    self.succeed(&current, &mut leadership).await;
                    // One end of a leader, one reaction: the next needs another leadership.
                    if leadership.wait_for(|now| *now != current).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Resolves when the leader's process has ended; never, if none is known or it is this one.
    async fn leader_ended(&self, current: &Leadership) {
        match &current.leader {
            Some((id, peer)) if *id != self.context.id => {
                self.context.transport.process_ended(&peer.rpc_addr).await;
                tracing::warn!(leader = id, name = %peer.name, "the leader's process has ended");
            }
            Some(_) | None => std::future::pending().await,
        }
    }

    /// Stands for election in turn, until somebody leads or the attempts are used up.
    async fn succeed(&self, ended: &Leadership, leadership: &mut watch::Receiver<Leadership>) {
        let Some((turn, voters)) = self.turn_after(ended) else { return };
        for attempt in 0..ATTEMPTS_MAX {
            let turns = if attempt == 0 { turn } else { voters };
            let pause = self.context.clock.sleep(Duration::from_millis(turns * TURN_MS));
            tokio::select! {
                () = pause => {}
                _ = leadership.wait_for(|now| now != ended && now.leader.is_some()) => return,
            }
            self.stand(ended).await;
        }
    }

    /// This node's place among the voters that remain, and their number; `None` if it does not vote.
    fn turn_after(&self, ended: &Leadership) -> Option<(u64, u64)> {
        let (leader, _) = ended.leader.as_ref()?;
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let mut voters: Vec<NodeId> = metrics.membership_config.voter_ids().collect();
        voters.retain(|id| id != leader);
        voters.sort_unstable();
        let turn = voters.iter().position(|id| *id == self.context.id)?;
        Some((turn as u64, voters.len() as u64))
    }

    /// Starts an election that does not wait for the leader's lease, as if it had handed leadership over.
    async fn stand(&self, ended: &Leadership) {
        let vote = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            if metrics.current_leader.is_some_and(|leader| !is_leader_of(ended, leader)) {
                return;
            }
            metrics.vote
        };
        // Whether the log suffices is for the voters to say.
        let request = TransferLeaderRequest::new(vote, self.context.id, None);
        match self.raft.handle_transfer_leader(request).await {
            Ok(Ok(())) => {
                self.elections.fetch_add(1, Ordering::Relaxed);
                tracing::info!(term = ended.term, "standing for election");
            }
            // Another candidate was faster: its vote is the present one.
            Ok(Err(error)) => tracing::debug!(%error, "not standing for election"),
            Err(error) => tracing::debug!(%error, "consensus has ended"),
        }
    }
}

fn is_leader_of(leadership: &Leadership, id: NodeId) -> bool {
    leadership.leader.as_ref().is_some_and(|(leader, _)| *leader == id)
}
