//! The leader's side of a write: all waiting commands become one log entry.
//!
//! While one entry is being written, commands gather for the next (group commit). Under load, entries grow
//! instead of queueing. A single command is proposed at once.
//!
//! Heartbeats have their own queue and entries. Before an expiry is proposed, all heartbeats that have
//! arrived are proposed, so that no heartbeat is overtaken by the expiry of its check.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join;
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use quorate_storage::ClusterTime;
use quorate_storage::command::{Batch, Duty, Part, Stamp};
use quorate_storage::limits::COMMAND_BYTES_MAX;
use quorate_storage::machine::Machine;
use quorate_storage::raft::{NodeId, TypeConfig};
use quorate_storage::record::WallTime;
use quorate_storage::state::HISTORY_LEVEL;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use super::Raft;
use super::context::Context;
use super::lane::{ByLane, Lane};
use super::processes::Processes;
use super::protocol::Forwarded;
use crate::host::clock::{Clock, Moment, wall_time};
use crate::host::durations::Durations;
use crate::host::supervise::contained;
use crate::raft::cluster_clock::ClusterClock;

/// Commands in one entry.
pub const ENTRY_COMMANDS_MAX: usize = 1_024;
/// Bytes of commands in one entry; a larger single command goes alone.
pub const ENTRY_BYTES_MAX: usize = 512 << 10;
/// Bytes of one part: a batch, or one command of the largest size, plus what numbers and lengths add. Origins
/// keep to this limit, but earlier versions may not, and an entry that followers refuse would block all
/// writes.
pub const PART_BYTES_MAX: usize = ENTRY_BYTES_MAX + COMMAND_BYTES_MAX;
/// Entries of one lane proposed and not yet applied. Two, so that one is written while the other is
/// replicated.
const ENTRIES_IN_FLIGHT: usize = 2;
/// How many commands in an entry of heartbeats mean that many clients send them.
const BUSY_ENTRY_COMMANDS: usize = 8;
/// How long heartbeats gather for the next entry while many clients send them. What an entry costs on all servers is
/// many times what a heartbeat costs, and a heartbeat is not in a hurry. Far below what stops cluster time
/// ([`crate::leader`]).
const HEARTBEATS_GATHER: Duration = Duration::from_millis(8);
/// How far the numbers of a server's commands may be ahead of those that were applied. Few are open at a time
/// ([`Lane::unanswered_max`]), but those that a server gives up while nothing is committed count as well.
/// This is enough for weeks without a commit.
pub const NUMBERS_AHEAD_MAX: u64 = 1 << 32;
/// Parts of one lane that may wait for the leader to propose them. Beyond that, their origins are told to try
/// again; they limit themselves long before.
const WAITING_PARTS_MAX: usize = 4_096;

/// openraft's handle to one leadership of this node.
type Leadership = openraft::raft::Leader<TypeConfig, Machine>;

/// Takes commands from this node and from others, and proposes them while this node leads.
#[derive(Debug)]
pub struct Intake {
    id: NodeId,
    raft: Raft,
    clock: Clock,
    processes: Arc<Processes>,
    cluster_clock: Arc<ClusterClock>,
    lanes: ByLane<Queue>,
    commits: Durations,
}

/// Parts that wait.
#[derive(Debug)]
struct Queue {
    /// A std lock: held to push or to take, never across an await.
    waiting: Mutex<VecDeque<Waiting>>,
    arrived: Notify,
    in_flight: Arc<Semaphore>,
    /// Held from taking parts until openraft has them, so that parts are proposed in the order in which they
    /// were taken.
    proposing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Waiting {
    part: Part,
    bytes: usize,
    since: Moment,
    reply: oneshot::Sender<Forwarded>,
}

/// How much an entry was made of.
#[derive(Debug, Clone, Copy)]
struct Taken {
    parts: usize,
    commands: usize,
}

impl Taken {
    fn of(parts: &[Part]) -> Self {
        Self { parts: parts.len(), commands: parts.iter().map(|part| part.commands.len()).sum() }
    }
}

impl Intake {
    /// An intake for this Raft node; [`Intake::run`] does the work.
    #[must_use]
    pub fn new(raft: Raft, context: &Context, cluster_clock: Arc<ClusterClock>) -> Self {
        Self {
            id: context.id,
            raft,
            clock: context.clock.clone(),
            processes: Arc::clone(&context.processes),
            cluster_clock,
            lanes: ByLane::new(Queue::new),
            commits: Durations::default(),
        }
    }

    /// How long entries take from their proposal here until a majority has them.
    #[must_use]
    pub const fn commits(&self) -> &Durations {
        &self.commits
    }

    /// Proposes the commands and says what became of them.
    pub async fn submit(&self, part: Part, bytes: usize) -> Forwarded {
        if bytes > PART_BYTES_MAX {
            tracing::warn!(origin = part.origin, bytes, "commands too large to be proposed");
            return Forwarded::NotLeader;
        }
        let queue = &self.lanes[Lane::of_part(&part)];
        let (reply, answer) = oneshot::channel();
        {
            let mut waiting = queue.waiting();
            if waiting.len() >= WAITING_PARTS_MAX {
                return Forwarded::NotLeader;
            }
            waiting.push_back(Waiting { part, bytes, since: self.clock.now(), reply });
        }
        queue.arrived.notify_one();
        // The sender is dropped when the node ends or the entry's task panics; nobody knows the outcome
        // then.
        answer.await.unwrap_or(Forwarded::Unknown)
    }

    /// Proposes a duty of the leader (an expiry, or only its stamp), in this term only.
    pub async fn submit_duty(
        &self,
        term: u64,
        stamp: ClusterTime,
        duty: Option<Duty>,
    ) -> Forwarded {
        if let Some(Duty::ExpireDue { .. }) = duty {
            self.propose_waiting_heartbeats().await;
        }
        match self.raft.as_leader() {
            Ok(leader) if leader.leader_id().term == term => {
                self.propose(&leader, Batch { stamp, duty, parts: Vec::new() }).await.await
            }
            Ok(_) | Err(_) => Forwarded::NotLeader,
        }
    }

    /// Proposes a duty of the leader in its current term, whichever that is.
    pub async fn submit_at_once(&self, duty: Duty) -> Forwarded {
        match self.raft.as_leader() {
            Ok(leader) => {
                let stamp = self.cluster_clock.stamp(leader.leader_id().term);
                let batch = Batch { stamp, duty: Some(duty), parts: Vec::new() };
                self.propose(&leader, batch).await.await
            }
            Err(_) => Forwarded::NotLeader,
        }
    }

    /// Proposes the heartbeats that have arrived, so that the log has them before the expiry that is proposed
    /// next.
    async fn propose_waiting_heartbeats(&self) {
        // Only those that wait now: with those that arrive meanwhile, this might never end.
        let mut left = self.lanes[Lane::Heartbeats].waiting().len();
        loop {
            let taken = self.propose_next(Lane::Heartbeats, None).await;
            left = left.saturating_sub(taken.parts);
            if taken.parts == 0 || left == 0 {
                return;
            }
        }
    }

    /// How long the oldest heartbeat has waited to be proposed.
    #[must_use]
    pub fn oldest_heartbeat(&self) -> Duration {
        let since = self.lanes[Lane::Heartbeats].waiting().front().map(|waiting| waiting.since);
        since.map_or(Duration::ZERO, |since| self.clock.now().since(since))
    }

    /// The proposing task; never ends.
    pub async fn run(self: Arc<Self>) {
        tokio::join!(self.run_lane(Lane::Heartbeats), self.run_lane(Lane::Writes));
    }

    async fn run_lane(&self, lane: Lane) {
        let queue = &self.lanes[lane];
        loop {
            queue.arrived.notified().await;
            loop {
                // The permit first, then the commands: what arrives while this waits for the permit joins
                // the entry.
                let permit = Arc::clone(&queue.in_flight).acquire_owned().await;
                let Ok(permit) = permit else { return };
                let taken = self.propose_next(lane, Some(permit)).await;
                if taken.parts == 0 {
                    break;
                }
                if lane == Lane::Heartbeats && taken.commands >= BUSY_ENTRY_COMMANDS {
                    self.clock.sleep(HEARTBEATS_GATHER).await;
                }
            }
        }
    }

    /// Makes an entry of what waits in a lane. The permit is free again when the entry is applied.
    async fn propose_next(&self, lane: Lane, permit: Option<OwnedSemaphorePermit>) -> Taken {
        let queue = &self.lanes[lane];
        let proposing = queue.proposing.lock().await;
        let taken = queue.take();
        let (parts, replies): (Vec<_>, Vec<_>) =
            taken.into_iter().map(|waiting| (waiting.part, waiting.reply)).unzip();
        let taken = Taken::of(&parts);
        if taken.parts == 0 {
            return taken;
        }
        let applied = match self.raft.as_leader() {
            Ok(leader) => {
                let stamp = self.cluster_clock.stamp(leader.leader_id().term);
                Some(self.propose(&leader, Batch { stamp, duty: None, parts }).await)
            }
            Err(_) => None,
        };
        drop(proposing);
        // A task for each entry, about as many as there are permits.
        drop(contained("an entry on its way", async move {
            let fate = match applied {
                Some(applied) => applied.await,
                None => Forwarded::NotLeader,
            };
            drop(permit);
            for reply in replies {
                // The origin may be gone; it asks the next leader.
                let _ = reply.send(fate);
            }
        }));
        taken
    }

    /// Adds who proposes an entry and when, once every server knows how to read that.
    fn stamped(&self, leader: &Leadership, batch: Batch) -> Batch {
        let published = self.processes.published();
        if published.is_none_or(|published| published.state.level() < HISTORY_LEVEL) {
            return batch;
        }
        let stamp = Stamp {
            at: WallTime(wall_time().unix_millis()),
            term: leader.leader_id().term,
            leader: self.id,
            work: batch.duty.and_then(Duty::into_work),
        };
        Batch { duty: Some(Duty::Stamped(stamp)), ..batch }
    }

    /// Hands one entry to openraft, bound to this leadership. The future that it returns resolves when the
    /// entry is applied, or is known not to be.
    async fn propose(
        &self,
        leader: &Leadership,
        batch: Batch,
    ) -> impl Future<Output = Forwarded> + Send + use<> {
        let began = self.clock.now();
        let (responder, committed, written) = ProgressResponder::new();
        let request = self
            .raft
            .write(self.stamped(leader, batch))
            .responder(responder)
            .with_leader(leader.to_committed_leader_id());
        let is_accepted = request.await.is_ok();
        let (clock, commits) = (self.clock.clone(), self.commits.clone());
        async move {
            if !is_accepted {
                return Forwarded::NotLeader;
            }
            let committed = async {
                if committed.await.is_ok() {
                    commits.observe(clock.now().since(began));
                }
            };
            match join(committed, written).await.1 {
                Ok(Ok(_)) => Forwarded::Committed,
                Ok(Err(ClientWriteError::ForwardToLeader(_))) => Forwarded::NotLeader,
                Ok(Err(_)) | Err(_) => Forwarded::Unknown,
            }
        }
    }
}

impl Queue {
    fn new() -> Self {
        Self {
            waiting: Mutex::default(),
            arrived: Notify::new(),
            in_flight: Arc::new(Semaphore::new(ENTRIES_IN_FLIGHT)),
            proposing: tokio::sync::Mutex::default(),
        }
    }

    /// What goes into the next entry.
    fn take(&self) -> Vec<Waiting> {
        let mut waiting = self.waiting();
        let (mut commands, mut bytes) = (0, 0);
        let mut taken = Vec::new();
        while let Some(next) = waiting.front() {
            commands += next.part.commands.len();
            bytes += next.bytes;
            let full = commands > ENTRY_COMMANDS_MAX || bytes > ENTRY_BYTES_MAX;
            if full && !taken.is_empty() {
                break;
            }
            taken.extend(waiting.pop_front());
        }
        taken
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
