//! Notices that the leader's process has ended, and has a follower stand for election at once.
//!
//! A follower that merely hears nothing has to wait for the election timeout, because silence may be a slow
//! network, a pause or a slow disk. The end of a process is more than silence: the kernel of its host closes
//! its connections and refuses new ones. A follower that sees both knows that this process will send no more
//! heartbeats, and need not wait.
//!
//! Elections are always safe in Raft; this only decides when one begins. To be *useful*, it follows these
//! rules:
//!
//! * Never on a timeout. A cut cable, lost power, a paused or starved leader end no connection, so they
//!   still take the election timeout ([`Transport::process_ended`] has the exact rule).
//! * Never because of this node's network: a follower that is cut off is not *refused* a connection.
//! * One candidate at a time, or they would split the votes. The remaining voters ask each other for the last
//!   entry of their logs and take turns: the longest log first (only that one is sure to get the votes), then
//!   the lowest id, a [`TURN`] apart.
//!
//! The vote request says that it is part of a handover of leadership (Ongaro's dissertation, section
//! 4.2.3), so that voters grant it although the old leader's lease has not expired. It is not subject to
//! a pre-vote; the usual check of the logs applies.
//!
//! [`Transport::process_ended`]: super::transport::Transport::process_ended

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::raft::{TransferLeaderRequest, VoteRequest};
use quorate_storage::raft::{LogId, NodeId, Peer, TypeConfig, Vote};
use tokio::sync::watch;

use super::Raft;
use super::context::Context;
use super::leadership::Leadership;
use super::protocol::{Request, Response};
use super::transport::Purpose;

/// Time between two candidates: long enough for a vote and two fsyncs of a healthy disk, short against the
/// election timeout. The first candidate does not wait.
const TURN: Duration = Duration::from_millis(100);
/// How often a voter stands in one leadership. After that, only the election timeout starts elections.
const ATTEMPTS_MAX: u32 = 3;
/// How long the other voters may take to report the ends of their logs. A voter that does not answer in time
/// would hardly vote in time either.
const QUESTION_TIMEOUT: Duration = Duration::from_millis(50);

/// Watches the leader's process, and stands for election when it ends.
#[derive(Debug)]
pub struct FailureDetector {
    context: Context,
    raft: Raft,
    elections: AtomicU64,
}

impl FailureDetector {
    /// A detector without any elections so far.
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
                    // A leader's end causes one reaction: the next needs another leadership.
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
                let address = self.context.address_of(*id, peer);
                self.context.transport.process_ended(&address).await;
                tracing::warn!(leader = id, name = %peer.name, "the leader's process has ended");
            }
            Some(_) | None => std::future::pending().await,
        }
    }

    /// Stands for election in turn, until somebody leads or the attempts are used up.
    async fn succeed(&self, ended: &Leadership, leadership: &mut watch::Receiver<Leadership>) {
        for attempt in 0..ATTEMPTS_MAX {
            let Some(turn) = self.turn_after(ended).await else { return };
            // After the first attempt, an election that has begun gets the time to end.
            let turns = turn + attempt.min(1);
            let pause = self.context.clock.sleep(TURN * turns);
            tokio::select! {
                () = pause => {}
                _ = leadership.wait_for(|now| now != ended && now.leader.is_some()) => return,
            }
            self.stand(ended).await;
        }
    }

    /// This node's place among the voters that can be elected; `None` if it does not vote.
    async fn turn_after(&self, ended: &Leadership) -> Option<u32> {
        let (leader, _) = ended.leader.as_ref()?;
        let (term, voters) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let membership = &metrics.membership_config;
            let peer = |id: NodeId| membership.get_node(&id).map(|peer| (id, peer.clone()));
            let voters: BTreeMap<NodeId, Peer> = membership.voter_ids().filter_map(peer).collect();
            (metrics.current_term, voters)
        };
        let own = self.context.id;
        if !voters.contains_key(&own) {
            return None;
        }
        let last = self.raft.with_raft_state(|state| state.log_ids.last().copied()).await.ok()?;
        let request = VoteRequest::new(Vote::new(term + 1, own), last);
        let others = voters.iter().filter(|(id, _)| *id != leader && **id != own);
        let questions = others.map(|(id, peer)| self.last_entry_of(*id, peer, request.clone()));
        let answers = futures_util::future::join_all(questions).await;
        Some(turn_of((own, last), answers.into_iter().flatten()))
    }

    /// The last entry of another voter's log, if it answers. A pre-vote is answered with it and changes
    /// nothing; whether it is granted does not matter here.
    async fn last_entry_of(
        &self,
        voter: NodeId,
        peer: &Peer,
        request: VoteRequest<TypeConfig>,
    ) -> Option<(NodeId, Option<LogId>)> {
        let request = Request::PreVote(request);
        let answer = self.context.call(voter, peer, Purpose::Control, request, QUESTION_TIMEOUT);
        match answer.await {
            Ok(Response::Vote(answer)) => Some((voter, answer.last_log_id)),
            Ok(_) | Err(_) => None,
        }
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
        // This node has voted for a candidate of a later term, which may be about to win.
        if vote.leader_id.term > ended.term && vote.leader_id.voted_for != self.context.id {
            return;
        }
        // The voters decide whether the log suffices.
        let request = TransferLeaderRequest::new(vote, self.context.id, None);
        match self.raft.handle_transfer_leader(request).await {
            Ok(Ok(())) => {
                self.elections.fetch_add(1, Ordering::Relaxed);
                tracing::info!(
                    term = ended.term,
                    "the leader's process has ended: standing for election at once"
                );
            }
            // Another candidate was faster; its vote is the current one.
            Ok(Err(error)) => tracing::debug!(%error, "not standing for election"),
            Err(error) => tracing::debug!(%error, "consensus has ended"),
        }
    }
}

/// How many of `others` should stand before this node: those with more of the log, which would not vote for
/// it, and among equals those with a lower id.
fn turn_of(
    (own, last): (NodeId, Option<LogId>),
    others: impl Iterator<Item = (NodeId, Option<LogId>)>,
) -> u32 {
    let is_before = |(id, entry): &(NodeId, Option<LogId>)| {
        entry.cmp(&last).then_with(|| own.cmp(id)) == std::cmp::Ordering::Greater
    };
    u32::try_from(others.filter(is_before).count()).unwrap_or(u32::MAX)
}

fn is_leader_of(leadership: &Leadership, id: NodeId) -> bool {
    leadership.leader.as_ref().is_some_and(|(leader, _)| *leader == id)
}

#[cfg(test)]
mod tests {
    use openraft::vote::leader_id_std::CommittedLeaderId;

    use super::*;

    fn entry(term: u64, index: u64) -> Option<LogId> {
        Some(LogId::new(CommittedLeaderId::new(term), index))
    }

    #[test]
    fn the_longest_log_stands_first_and_the_lowest_id_among_equals() {
        let servers = [(1, entry(3, 9)), (2, entry(3, 11)), (4, entry(3, 11)), (5, entry(2, 40))];
        let turn = |own: NodeId| {
            let this = servers.iter().find(|(id, _)| *id == own).copied().unwrap();
            turn_of(this, servers.into_iter().filter(|(id, _)| *id != own))
        };
        assert_eq!([turn(2), turn(4), turn(1), turn(5)], [0, 1, 2, 3]);
    }

    #[test]
    fn a_voter_that_nobody_answers_does_not_wait() {
        assert_eq!(turn_of((3, None), std::iter::empty()), 0);
    }
}
