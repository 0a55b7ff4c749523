//! A running node: what the API shows, and the owner of every vital task.
//!
//! [`Node::start`] takes the parts that differ between a real process and a simulation (log, snapshots,
//! transport, clock, identity) and wires the rest:
//!
//! ```text
//!   http ──> Node ──> Proposer ──(leader: Intake)──> openraft ──> LogStore, Machine
//!                        ^                                            │
//!                        └── outcomes ── ApplyObserver <── applied ───┘
//!                                            └── topics ──> Watches ──> blocking queries
//! ```

pub mod changes;
mod expirations;
mod known_leader;
mod metrics;
pub mod observe;
pub mod outages;
mod settings;
mod start;

pub use settings::{Advertised, NodeInfo, NodeParts, NodeSettings};

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use quorate_storage::Millis;
use quorate_storage::command::{Agent, Command, Outcome};
use quorate_storage::machine::{Published, StateReader};
use quorate_storage::raft::{NodeId, Peer};
use quorate_storage::record::RequestFacts;
use tokio::sync::watch;

use self::expirations::Expirations;
use crate::agent::{self, OwnHost};
use crate::checks::{CheckOutput, ProbeCounts};
use crate::claims::Claims;
use crate::host::clock::{Clock, TimedOut};
use crate::host::durations::Durations;
use crate::host::stopping::Stopping;
use crate::host::supervise::Supervisor;
use crate::live::beats::Beats;
use crate::live::feed::Feed;
use crate::presences::Presences;
use crate::raft::Raft;
use crate::raft::cluster_clock::ClusterClock;
use crate::raft::comparison::Comparison;
use crate::raft::context::Context;
use crate::raft::error::{MembershipError, ProposeError, ReadError};
use crate::raft::failure_detector::FailureDetector;
use crate::raft::intake::Intake;
use crate::raft::leadership::{self, LeaderContact, Leadership};
use crate::raft::membership::{Membership, StartError};
use crate::raft::processes::Processes;
use crate::raft::propose::Proposer;
use crate::raft::protocol::{Progress, Refusal};
use crate::raft::read::Barrier;
use crate::watch::Watches;

/// A node that finds no leader answers `?stale` reads from its recovered state after this long.
const STALE_AFTER_START: Duration = Duration::from_secs(3);

/// How long a node that stops waits for another to take over leadership. After that, the others elect a
/// leader without its help.
const HANDOVER_MAX: Duration = Duration::from_secs(1);

/// How long consensus may take to end. It waits for applying, which may wait for room on the disk.
const SHUTDOWN_MAX: Duration = Duration::from_secs(2);

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Linearizable (what the API calls default, and what `?consistent` asks for).
    Linearizable,
    /// This node's own state, at once.
    Stale,
}

/// What a node reports about its contact with a leader: `X-Consul-KnownLeader`, `X-Consul-LastContact`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contact {
    /// Whether a leader is known at present.
    pub known_leader: bool,
    /// How long ago the leader was last heard; zero on the leader.
    pub last_contact: Millis,
}

/// Whether the node is fit to serve: `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Caught up, and a quorum answers.
    Ready,
    /// Not fit, with the reason.
    NotReady(String),
}

/// What a node answers from its own state after a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// Nothing: its state may be older than what it answered before.
    Closed,
    /// `?stale` reads: there has been no leader for a while.
    StaleOnly,
    /// Everything: it has passed a read barrier.
    Open,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    settings: NodeSettings,
    context: Context,
    raft: Raft,
    state: StateReader,
    proposer: Arc<Proposer>,
    intake: Arc<Intake>,
    barrier: Arc<Barrier>,
    membership: Arc<Membership>,
    leadership: watch::Receiver<Leadership>,
    /// How many leaderships this node has seen.
    leaderships: Arc<AtomicU64>,
    known_leader: watch::Sender<Option<Arc<str>>>,
    contact: Arc<LeaderContact>,
    cluster_clock: Arc<ClusterClock>,
    watches: Arc<Watches>,
    feed: Arc<Feed>,
    beats: Arc<Beats>,
    presences: Arc<Presences>,
    claims: Arc<Claims>,
    probe_counts: Arc<ProbeCounts>,
    failure_detector: Arc<FailureDetector>,
    comparison: Arc<Comparison>,
    standing: outages::Standing,
    applied: watch::Receiver<u64>,
    apply_durations: Durations,
    expirations: Arc<Expirations>,
    gate: watch::Sender<Gate>,
    supervisor: Supervisor,
}

impl Node {
    /// Returns once this node is a member of a cluster.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn enter_cluster(&self) -> Result<(), StartError> {
        self.membership.found_or_join().await
    }

    /// After a start: opens when this node has passed a barrier; opens for stale reads when there has
    /// been no leader for a while.
    async fn open_gate(&self) {
        let passed = async {
            while self.barrier.wait().await.is_err() {
                tracing::debug!("still waiting for a leader");
            }
        };
        tokio::pin!(passed);
        if self.context.clock.timeout(STALE_AFTER_START, &mut passed).await.is_err() {
            tracing::info!("no leader yet: answering stale reads only");
            self.gate.send_replace(Gate::StaleOnly);
            passed.await;
        }
        self.gate.send_replace(Gate::Open);
        tracing::info!("caught up with the cluster");
    }

    /// This node's Raft id.
    pub fn id(&self) -> NodeId {
        self.settings.id
    }

    /// This node's clock.
    pub fn clock(&self) -> &Clock {
        &self.context.clock
    }

    /// Whether this node is the leader, as far as it knows.
    pub fn leads(&self) -> bool {
        self.leadership.borrow().is_held_by(self.settings.id)
    }

    /// What does not change while the node runs.
    pub fn info(&self) -> NodeInfo {
        NodeInfo {
            id: self.settings.id,
            name: self.settings.name.clone(),
            datacenter: self.settings.datacenter.clone(),
            cluster_id: self.context.identity.cluster_id(),
            rpc_addr: self.settings.rpc_addr,
            http_addr: self.settings.http_addr,
            agent_name: self.settings.agent_name.clone(),
        }
    }

    /// The instances that connections to this node hold.
    pub fn presences(&self) -> &Arc<Presences> {
        &self.presences
    }

    /// The requests to this node that wait for a claim.
    pub fn claims(&self) -> &Arc<Claims> {
        &self.claims
    }

    /// Who waits for records of the history.
    pub fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// Who waits for heartbeats.
    pub fn beats(&self) -> &Arc<Beats> {
        &self.beats
    }

    /// This node's newest state.
    pub fn published(&self) -> Arc<Published> {
        self.state.load()
    }

    /// Replicates a command and returns its outcome, once *this* node has applied it. Held while there is no
    /// leader, up to the hold timeout. `request` is whoever asked for it, for the history.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(
        &self,
        command: Command,
        request: Option<Arc<RequestFacts>>,
    ) -> Result<Outcome, ProposeError> {
        self.proposer.propose_for(command, request).await
    }

    /// The state to answer a read from. Linearizable reads wait for a barrier (held while there is no
    /// leader, up to the hold timeout); stale ones do not wait, except right after a start.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read(&self, consistency: Consistency) -> Result<Arc<Published>, ReadError> {
        match consistency {
            Consistency::Linearizable => self.barrier.wait().await?,
            Consistency::Stale => self.pass_gate().await?,
        }
        Ok(self.published())
    }

    /// The state for a stale read that does not wait: `None` right after a start, when it may be older than what this
    /// node answered before.
    pub fn stale(&self) -> Option<Arc<Published>> {
        (*self.gate.borrow() != Gate::Closed).then(|| self.published())
    }

    async fn pass_gate(&self) -> Result<(), ReadError> {
        if *self.gate.borrow() != Gate::Closed {
            return Ok(());
        }
        let mut gate = self.gate.subscribe();
        let opened = gate.wait_for(|gate| *gate != Gate::Closed);
        match self.context.hold(opened).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ReadError::Stopping),
            Err(_) => Err(ReadError::NotReady),
        }
    }

    /// The blocking queries that wait, by topic.
    pub fn watches(&self) -> &Arc<Watches> {
        &self.watches
    }

    /// What is kept of checks' outputs.
    pub fn check_output(&self) -> CheckOutput {
        self.settings.check_output
    }

    /// What this node ran of the cluster's checks.
    pub fn probe_counts(&self) -> &ProbeCounts {
        &self.probe_counts
    }

    /// Elections that this node began because the leader's process had ended.
    pub fn elections_after_leader_end(&self) -> u64 {
        self.failure_detector.elections()
    }

    /// Comparisons of this node's state with that of others.
    pub fn comparison(&self) -> &Comparison {
        &self.comparison
    }

    /// Contact with the leader.
    pub fn contact(&self) -> Contact {
        if self.leadership.borrow().is_held_by(self.settings.id) {
            let silence = leadership::quorum_silence(&self.raft).unwrap_or_default();
            let known_leader = leadership::leads_with_quorum(&self.raft);
            if known_leader {
                // Remembers it for the time when this node no longer leads and reports how old its state is.
                self.contact.heard();
            }
            let last_contact = if known_leader { Millis::ZERO } else { millis(silence) };
            return Contact { known_leader, last_contact };
        }
        let known_leader = self.leadership.borrow().leader.is_some() && self.contact.is_fresh();
        Contact { known_leader, last_contact: millis(self.contact.silence()) }
    }

    /// The leader, if one is known.
    pub fn leader(&self) -> Option<(NodeId, Peer)> {
        let leader = self.leadership.borrow().leader.clone();
        leader.filter(|_| self.contact().known_leader)
    }

    /// The name of the leader, if one is known, to wait for another one.
    pub fn known_leader(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.known_leader.subscribe()
    }

    /// The agent of the calling host: the one that the caller names, or else the one of its address. `None`
    /// while the cluster's id is not known.
    pub fn agent_of(&self, caller: IpAddr, named: Option<&str>) -> Option<Agent> {
        let cluster = self.context.identity.cluster_id()?;
        let own = OwnHost {
            advertised: &self.settings.advertised.rpc,
            ip: self.settings.rpc_addr.ip(),
            agent: &self.settings.agent_name,
        };
        Some(agent::of_caller(&cluster, caller, named, &own))
    }

    /// An agent with the id that the catalogue shows: a node may have been given another than the one that is
    /// made from its name. For answers only. In a command it would be what this server knew some time ago,
    /// when another node may have got that id since.
    pub fn as_shown(&self, agent: Agent) -> Agent {
        let published = self.published();
        let Some(node) = published.state.node(&agent.name) else { return agent };
        // The look-up also finds nodes by their ids.
        match node.name.eq_ignore_ascii_case(&agent.name) && !node.id.is_empty() {
            true => Agent { id: node.id.clone(), ..agent },
            false => agent,
        }
    }

    /// Removes a server from the membership.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn remove_server(&self, id: NodeId) -> Result<(), MembershipError> {
        self.membership.remove(id, self.settings.hold_timeout).await
    }

    /// Hands leadership over, through the current leader: to this voter, or to the one that has most of the
    /// log.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn hand_over(&self, to: Option<NodeId>) -> Result<(), MembershipError> {
        self.membership.hand_over(to).await
    }

    /// How far every member is, as the leader knows it; `None` while there is no leader.
    pub async fn progress(&self) -> Option<BTreeMap<NodeId, Progress>> {
        self.membership.progress().await
    }

    /// Whether the node is fit to serve.
    pub fn readiness(&self) -> Readiness {
        if self.stopping().has_begun() {
            return Readiness::NotReady("this server is stopping".to_owned());
        }
        if *self.gate.borrow() != Gate::Open {
            return Readiness::NotReady("this server has not caught up yet".to_owned());
        }
        if !self.contact().known_leader {
            return Readiness::NotReady("No cluster leader".to_owned());
        }
        Readiness::Ready
    }

    /// Begins once no client can connect any more; long polls end at once then.
    pub fn stopping(&self) -> &Stopping {
        &self.context.stopping
    }

    /// Owns the tasks of this node; those that are given to it end with the node.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// Resolves when the process must end, with the reason: consensus or a vital task has failed for good,
    /// or the cluster does not know this server any more.
    pub async fn failed(&self) -> String {
        tokio::select! {
            // What openraft says of a failure tells more than the panic of a task that comes with it.
            biased;
            reason = self.consensus_failed() => reason,
            refusal = self.context.processes.ended() => self.remember(&refusal),
            reason = self.supervisor.failed() => reason,
        }
    }

    /// Sees to it that a server whose disk has lost data stays away also when it is started again beside
    /// servers that do not know.
    fn remember(&self, refusal: &Refusal) -> String {
        let why = refusal.to_string();
        if refusal.condemns()
            && let Err(error) = self.context.identity.condemn(&why)
        {
            tracing::error!(%error, "cannot note that this data directory must not be used again: do not start it");
        }
        why
    }

    async fn consensus_failed(&self) -> String {
        let mut metrics = self.raft.metrics();
        loop {
            if let Err(fatal) = &metrics.borrow_and_update().running_state {
                return fatal.to_string();
            }
            if metrics.changed().await.is_err() {
                return "consensus has ended".to_owned();
            }
        }
    }

    /// Begins to stop: waits for `closed`, ends long polls, and hands leadership over if this node leads.
    /// Requests in progress go on, through the new leader, but are not held for long ([`Context::hold`]).
    ///
    /// `closed` resolves when no client can connect any more. It comes first because a client whose long poll
    /// has ended asks again at once, and must ask another server.
    pub async fn begin_stop(&self, closed: impl Future<Output = ()>) {
        self.supervisor.begin_stop();
        closed.await;
        self.stopping().begin();
        if !self.leads() {
            return;
        }
        let handing_over = self.membership.hand_over_here(None);
        match self.context.clock.timeout(HANDOVER_MAX, handing_over).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "leadership was not handed over: the others will elect a leader");
            }
            Err(TimedOut) => {
                tracing::warn!(
                    "nobody took over leadership in time: the others will elect a leader"
                );
            }
        }
    }

    /// Ends every task of this node, and what it does for other servers, and then consensus: openraft takes
    /// it for an error to be asked something when it has ended.
    pub async fn end(&self) {
        self.claims.settle().await;
        self.supervisor.end().await;
        match self.context.clock.timeout(SHUTDOWN_MAX, self.raft.shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "consensus did not end in order"),
            Err(TimedOut) => tracing::warn!("consensus did not end in time"),
        }
    }

    /// Which processes speak for which servers.
    pub fn processes(&self) -> &Processes {
        &self.context.processes
    }

    /// Consensus, for metrics and operators.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// Waits until this node has applied the log up to an entry, at most as long as requests are held.
    ///
    /// # Errors
    /// It has not come so far in time, or it stops.
    pub async fn wait_for_index(&self, index: u64) -> Result<(), ReadError> {
        let mut applied = self.applied.clone();
        let reached = async { applied.wait_for(|applied| *applied >= index).await.map(drop) };
        match self.context.hold(reached).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(ReadError::Stopping),
            Err(_) => Err(ReadError::NoLeader),
        }
    }

    /// The index of the last applied log entry.
    pub fn applied_index(&self) -> u64 {
        *self.applied.borrow()
    }

    /// Commands of this node that are not answered yet.
    pub fn unanswered(&self) -> usize {
        self.proposer.unanswered()
    }
}

fn millis(span: Duration) -> Millis {
    Millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}
