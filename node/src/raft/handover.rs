//! What only the leader can do: hand leadership over, and report how far its followers are.

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::Instant;
use openraft::async_runtime::WatchReceiver;
use quorate_storage::raft::NodeId;

use super::membership::Membership;
use super::protocol::{ChangeRefusal, Progress, Request, Response};
use super::transport::Purpose;
use crate::raft::error::MembershipError;

/// How long a leader waits for another to take over.
const HANDOVER_MAX: Duration = Duration::from_secs(2);
/// How often it looks whether another has taken over.
const HANDOVER_PAUSE: Duration = Duration::from_millis(10);
/// How long the leader may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

impl Membership {
    /// Hands leadership over, as the leader: to this voter, or to the one that has the most of the log.
    /// Returns once another leads. With no other voter there is nothing to do.
    ///
    /// # Errors
    /// `NotLeader`; `Unknown` if the heir is no voter; `Interrupted` if nobody took over in time.
    pub async fn hand_over_here(&self, to: Option<NodeId>) -> Result<(), ChangeRefusal> {
        self.must_lead()?;
        let own = self.info.id;
        if to.is_some_and(|to| !self.voters().contains(&to)) {
            return Err(ChangeRefusal::Unknown);
        }
        let Some(heir) = to.or_else(|| self.heir()).filter(|heir| *heir != own) else {
            return Ok(());
        };
        tracing::info!(to = heir, "handing leadership over");
        let triggered = self.raft.trigger().transfer_leader(heir).await;
        triggered.map_err(|_| ChangeRefusal::Interrupted)?;
        let handed_over = async {
            let successor = |leader: Option<NodeId>| leader.is_some_and(|id| id != own);
            while !successor(self.raft.metrics().borrow_watched().current_leader) {
                self.context.clock.sleep(HANDOVER_PAUSE).await;
            }
        };
        let done = self.context.clock.timeout(HANDOVER_MAX, handed_over).await;
        done.map_err(|_| ChangeRefusal::Interrupted)
    }

    /// Hands leadership over, through the current leader.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn hand_over(&self, to: Option<NodeId>) -> Result<(), MembershipError> {
        let leader = self.leadership.borrow().leader.clone();
        let answer = match leader {
            None => Err(ChangeRefusal::NotLeader(None)),
            Some((id, _)) if id == self.info.id => self.hand_over_here(to).await,
            Some((id, peer)) => {
                let request = Request::HandOver(to);
                match self.context.call(id, &peer, Purpose::Control, request, ANSWER_TIMEOUT).await
                {
                    Ok(Response::Changed(answer)) => answer,
                    Ok(_) | Err(_) => Err(ChangeRefusal::NotLeader(None)),
                }
            }
        };
        answer.map_err(|refusal| match (refusal, to) {
            (ChangeRefusal::Unknown, Some(id)) => MembershipError::UnknownServer(id.to_string()),
            (ChangeRefusal::NotLeader(_), _) => MembershipError::NoLeader,
            (other, _) => MembershipError::Refused(other.to_string()),
        })
    }

    /// The voter that has the most of this leader's log.
    fn heir(&self) -> Option<NodeId> {
        let voters = self.voters();
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        let others = replication.iter().filter(|(id, _)| voters.contains(id));
        let others = others.filter(|(id, _)| **id != self.info.id);
        others.max_by_key(|(_, matched)| **matched).map(|(id, _)| *id)
    }

    /// How far every member is, as the leader knows it; `None` if this node does not lead.
    #[must_use]
    pub fn progress_here(&self) -> Option<BTreeMap<NodeId, Progress>> {
        self.must_lead().ok()?;
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        let acked = metrics.heartbeat.as_ref();
        let (own, term) = (self.info.id, metrics.current_term);
        let members = replication.iter().map(|(id, matched)| {
            let acked = acked.and_then(|acked| acked.get(id)?.as_ref());
            let silence = acked.map(|acked| acked.elapsed()).filter(|_| *id != own);
            let silence_ms =
                silence.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
            let heard = silence_ms.or_else(|| (*id == own).then_some(0));
            let is_damaged = self.acknowledged.is_damaged(*id, term);
            (*id, Progress { silence_ms: heard, matched: *matched, is_damaged })
        });
        let mut progress: BTreeMap<_, _> = members.collect();
        // The leader has all of its own log.
        let last = progress.values().filter_map(|member| member.matched).max();
        progress.entry(own).or_insert(Progress {
            silence_ms: Some(0),
            matched: last,
            is_damaged: false,
        });
        Some(progress)
    }

    /// The same, asked of the current leader.
    pub async fn progress(&self) -> Option<BTreeMap<NodeId, Progress>> {
        let (id, peer) = self.leadership.borrow().leader.clone()?;
        if id == self.info.id {
            return self.progress_here();
        }
        let call =
            self.context.call(id, &peer, Purpose::Control, Request::Progress, ANSWER_TIMEOUT);
        match call.await {
            Ok(Response::Progress(progress)) => progress,
            Ok(_) | Err(_) => None,
        }
    }
}
