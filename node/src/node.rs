//! A running node: what the API is a face of, and the owner of every task.
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
mod metrics;
pub mod observe;
pub mod outages;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use openraft::RaftLogReader as _;
use openraft::async_runtime::WatchReceiver;
use openraft::storage::RaftLogStorage;
use quorate_storage::Millis;
use quorate_storage::command::{Agent, Command, Outcome};
use quorate_storage::machine::{Machine, Published, StateReader};
use quorate_storage::mutant::{self, Mutant};
use quorate_storage::raft::{Life, NodeId, Peer, Position, TypeConfig};
use quorate_storage::snapshot::SnapshotStore;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use self::observe::ApplyObserver;
use crate::agent::{self, OwnHost};
use crate::checks::{CheckOutput, Checks, ProbeCounts};
use crate::host::address::HostPort;
use crate::host::clock::{Clock, TimedOut};
use crate::host::supervise::Supervisor;
use crate::leader::Leader;
use crate::mutants;
use crate::raft::cluster_clock::ClusterClock;
use crate::raft::context::Context;
use crate::raft::error::{MembershipError, ProposeError, ReadError};
use crate::raft::failure_detector::FailureDetector;
use crate::raft::identity::Identity;
use crate::raft::intake::Intake;
use crate::raft::leadership::{self, LeaderContact, Leadership};
use crate::raft::lives::Lives;
use crate::raft::membership::{Membership, StartError};
use crate::raft::network::NetworkFactory;
use crate::raft::propose::Proposer;
use crate::raft::protocol::{Boot, Introduction, Progress};
use crate::raft::read::Barrier;
use crate::raft::service::Service;
use crate::raft::transport::Transport;
use crate::raft::warnings::Warnings;
use crate::raft::{LogLimits, Raft, openraft_config};
use crate::watch::Watches;

/// A node that finds no leader answers `?stale` reads from its recovered state after this long.
const STALE_AFTER_START: Duration = Duration::from_secs(3);

/// How long consensus may take to end: it waits for applying, which may wait for room on the disk.
const SHUTDOWN_MAX: Duration = Duration::from_secs(2);

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Linearizable (what the API calls default, and what `?consistent` asks for).
    Linearizable,
    /// This node's own state, at once.
    Stale,
}

/// What a node says of its contact with a leader: `X-Consul-KnownLeader`, `X-Consul-LastContact`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contact {
    /// Whether a leader is known at present.
    pub known_leader: bool,
    /// How long ago the leader was last heard; zero on the leader.
    pub last_contact: Millis,
}

/// What does not change while a node runs.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    /// Raft id.
    pub id: NodeId,
    /// Name of the server, and of its node in the catalogue.
    pub name: String,
    /// The datacenter's name.
    pub datacenter: String,
    /// The cluster's id (a UUID), once known.
    pub cluster_id: Option<String>,
    /// `IP:PORT` of the RPC listener.
    pub rpc_addr: SocketAddr,
    /// `IP:PORT` of the HTTP listener.
    pub http_addr: SocketAddr,
    /// Name of the agent of the server's own host.
    pub agent_name: String,
}

/// Whether the node is fit to serve: `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Caught up, and a quorum answers.
    Ready,
    /// Not, and why.
    NotReady(String),
}

/// What a node answers from its state after a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// Nothing: its state may be older than what it answered before.
    Closed,
    /// `?stale` reads: there has been no leader for a while.
    StaleOnly,
    /// Everything: it has passed a read barrier.
    Open,
}

/// How a node is set up.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// Raft id.
    pub id: NodeId,
    /// Name of the server.
    pub name: String,
    /// The datacenter's name.
    pub datacenter: String,
    /// `IP:PORT` of the RPC listener.
    pub rpc_addr: SocketAddr,
    /// `IP:PORT` of the HTTP listener.
    pub http_addr: SocketAddr,
    /// Both as the other servers are told, perhaps with names.
    pub advertised: Advertised,
    /// Name of the agent of the server's own host.
    pub agent_name: String,
    /// How long requests are held while there is no leader.
    pub hold_timeout: Duration,
    /// How many entries the log may hold.
    pub log_limits: LogLimits,
    /// How many servers found a new cluster.
    pub bootstrap_expect: usize,
    /// RPC addresses of other servers.
    pub join: Vec<String>,
    /// The id of a cluster that this node might found.
    pub fresh_cluster_id: String,
    /// What is kept of checks' outputs: of heartbeats through this node, and of the runs while it leads.
    pub check_output: CheckOutput,
    /// What is wrong with the settings and does not keep the node from running, in words.
    pub remarks: Vec<String>,
    /// Whether nothing was said of other servers, so that a cluster of one may be a mistake.
    pub is_alone_by_default: bool,
    /// This boot: random bytes.
    pub life: Life,
}

/// What a server tells the others of its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertised {
    /// Its RPC listener.
    pub rpc: HostPort,
    /// Its HTTP listener.
    pub http: HostPort,
}

/// The parts of a node that differ between a real process and a simulation.
#[derive(Debug)]
pub struct NodeParts<L> {
    /// The Raft log.
    pub log: L,
    /// The snapshots.
    pub snapshots: Arc<dyn SnapshotStore>,
    /// How to reach other nodes.
    pub transport: Arc<dyn Transport>,
    /// Time.
    pub clock: Clock,
    /// What the node remembers of itself.
    pub identity: Arc<dyn Identity>,
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
    contact: Arc<LeaderContact>,
    cluster_clock: Arc<ClusterClock>,
    watches: Arc<Watches>,
    probe_counts: Arc<ProbeCounts>,
    failure_detector: Arc<FailureDetector>,
    applied: watch::Receiver<u64>,
    gate: watch::Sender<Gate>,
    stopping: CancellationToken,
    supervisor: Supervisor,
}

impl Node {
    /// Starts a node, and gives what answers other nodes. It is not a member of a cluster until
    /// [`Node::enter_cluster`] returned.
    ///
    /// # Errors
    /// When the snapshot cannot be read, or openraft does not start.
    pub async fn start<L>(
        settings: NodeSettings,
        parts: NodeParts<L>,
    ) -> io::Result<(Arc<Self>, Arc<Service>)>
    where
        L: RaftLogStorage<TypeConfig>,
    {
        let NodeParts { mut log, snapshots, transport, clock, identity } = parts;
        let warnings = Arc::new(Warnings::new(clock.clone()));
        let peer = own_peer(&settings, &*identity);
        let context = Context {
            id: settings.id,
            identity,
            lives: Arc::new(Lives::new(settings.id, settings.life, &peer, clock.clone())),
            clock,
            transport,
            hold_timeout: settings.hold_timeout,
            warnings,
        };
        let watches = Arc::new(Watches::default());
        let proposer = Arc::new(Proposer::new(context.clone()));
        let observer = Arc::new(ApplyObserver::new(
            Arc::clone(&context.lives),
            Arc::clone(&proposer),
            Arc::clone(&watches),
        ));
        let applied = observer.applied_index();
        let (machine, state) = Machine::open(Arc::clone(&snapshots), Arc::clone(&observer) as _)?;
        context.lives.follow(state.clone());
        observer.recovered(&state.load());
        let mut boot = on_disk(&mut log, &state.load()).await?;
        boot.counted = context.identity.boots();
        let network = NetworkFactory::new(context.clone());
        let raft = start_raft(&context, network, settings.log_limits, log, machine).await?;
        boot.member_since = member_since(&raft, settings.id).await?;
        let datacenter = settings.datacenter.clone();
        let introduction = Introduction { id: settings.id, peer, boot, datacenter };
        let (publish, leadership) = watch::channel(Leadership::default());
        let cluster_clock = Arc::new(ClusterClock::new(context.clock.clone()));
        let intake = Intake::new(raft.clone(), context.clock.clone(), Arc::clone(&cluster_clock));
        let intake = Arc::new(intake);
        let node = Arc::new(Self {
            barrier: Arc::new(Barrier::new(context.clone(), raft.clone())),
            membership: Arc::new(membership(
                state.clone(),
                &settings,
                &context,
                &raft,
                &intake,
                &leadership,
                introduction,
            )),
            failure_detector: Arc::new(FailureDetector::new(context.clone(), raft.clone())),
            intake,
            contact: Arc::new(LeaderContact::new(context.clock.clone())),
            settings,
            context,
            raft,
            state,
            proposer,
            leadership,
            cluster_clock,
            watches,
            probe_counts: Arc::default(),
            applied,
            gate: watch::Sender::new(Gate::Closed),
            stopping: CancellationToken::new(),
            supervisor: Supervisor::default(),
        });
        node.start_tasks(publish);
        let service = node.service(snapshots);
        Ok((node, service))
    }

    fn start_tasks(self: &Arc<Self>, publish: watch::Sender<Leadership>) {
        let tasks = &self.supervisor;
        tasks.vital("following the leadership", leadership::follow(self.raft.clone(), publish));
        let watches = Arc::clone(&self.watches);
        tasks.vital("waking queries", async move { watches.run().await });
        tasks.vital("the leader's intake", Arc::clone(&self.intake).run());
        let proposer = Arc::clone(&self.proposer);
        let proposing = proposer.run(Arc::clone(&self.intake), self.leadership.clone());
        tasks.vital("the proposer", proposing);
        let detector = Arc::clone(&self.failure_detector);
        tasks.vital("watching the leader's process", detector.run(self.leadership.clone()));
        let barrier = Arc::clone(&self.barrier);
        let barrier = barrier.run(self.leadership.clone(), self.applied.clone());
        tasks.vital("the read barrier", barrier);
        tasks.vital("the leader's duties", self.duties().run(self.leadership.clone()));
        let membership = Arc::clone(&self.membership);
        let watching = async move { membership.watch_surroundings().await };
        tasks.vital("watching the other servers", watching);
        let membership = Arc::clone(&self.membership);
        tasks.vital("announcing this start", async move { membership.announce().await });
        let node = Arc::clone(self);
        tasks.vital("opening the gate", async move { node.open_gate().await });
        tasks.vital("telling of outages", outages::watch(Arc::clone(self)));
        tasks.vital("telling of changes", changes::watch(Arc::clone(self)));
    }

    fn duties(&self) -> Arc<Leader> {
        Arc::new(Leader {
            context: self.context.clone(),
            cluster_clock: Arc::clone(&self.cluster_clock),
            raft: self.raft.clone(),
            intake: Arc::clone(&self.intake),
            proposer: Arc::clone(&self.proposer),
            membership: Arc::clone(&self.membership),
            state: self.state.clone(),
            checks: Arc::new(Checks {
                clock: self.context.clock.clone(),
                proposer: Arc::clone(&self.proposer),
                state: self.state.clone(),
                watches: Arc::clone(&self.watches),
                counts: Arc::clone(&self.probe_counts),
                output: self.settings.check_output,
            }),
        })
    }

    fn service(&self, snapshots: Arc<dyn SnapshotStore>) -> Arc<Service> {
        Arc::new(Service {
            context: self.context.clone(),
            raft: self.raft.clone(),
            intake: Arc::clone(&self.intake),
            barrier: Arc::clone(&self.barrier),
            membership: Arc::clone(&self.membership),
            contact: Arc::clone(&self.contact),
            snapshots,
        })
    }

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

    /// This node's newest state.
    pub fn published(&self) -> Arc<Published> {
        self.state.load()
    }

    /// Replicates a command and returns its outcome, once *this* node has applied it. Held while
    /// there is no leader, up to the hold timeout.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        if mutant::is_active(Mutant::RenewNotReplicated)
            && let Some(outcome) = mutants::renewed_in_memory(&self.published().state, &command)
        {
            return Ok(outcome);
        }
        if mutant::is_active(Mutant::RefusalFromLocalState)
            && let Some(outcome) = mutants::refused_here(&self.published().state, &command)
        {
            return Ok(outcome);
        }
        self.proposer.propose(command).await
    }

    /// The state to answer a read from. Linearizable reads wait for a barrier (held while there is no
    /// leader, up to the hold timeout); stale ones do not wait, except right after a start.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read(&self, consistency: Consistency) -> Result<Arc<Published>, ReadError> {
        match consistency {
            _ if mutant::is_active(Mutant::StaleReadsServedAsConsistent) => {
                self.pass_gate().await?;
            }
            Consistency::Linearizable => self.barrier.wait().await?,
            Consistency::Stale => self.pass_gate().await?,
        }
        Ok(self.published())
    }

    async fn pass_gate(&self) -> Result<(), ReadError> {
        if *self.gate.borrow() != Gate::Closed {
            return Ok(());
        }
        let mut gate = self.gate.subscribe();
        let opened = gate.wait_for(|gate| *gate != Gate::Closed);
        match self.context.clock.timeout(self.settings.hold_timeout, opened).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ReadError::Stopping),
            Err(_) => Err(ReadError::NotReady),
        }
    }

    /// Who waits for what.
    pub fn watches(&self) -> &Arc<Watches> {
        &self.watches
    }

    /// What is kept of checks' outputs.
    pub fn check_output(&self) -> CheckOutput {
        self.settings.check_output
    }

    /// What checks this node ran while it led.
    pub fn probe_counts(&self) -> &ProbeCounts {
        &self.probe_counts
    }

    /// Elections that this node began because the leader's process had ended.
    pub fn elections_after_leader_end(&self) -> u64 {
        self.failure_detector.elections()
    }

    /// Contact with the leader.
    pub fn contact(&self) -> Contact {
        if self.leadership.borrow().is_held_by(self.settings.id) {
            let silence = leadership::quorum_silence(&self.raft).unwrap_or_default();
            let known_leader = leadership::leads_with_quorum(&self.raft);
            if known_leader {
                // So that it is known how old this node's state is once it no longer leads.
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

    /// The agent of the host that asks: the one it names, else the one of its address. `None` while
    /// the cluster's id is not known.
    pub fn agent_of(&self, caller: IpAddr, named: Option<&str>) -> Option<Agent> {
        let cluster = self.context.identity.cluster_id()?;
        let own = OwnHost {
            advertised: &self.settings.advertised.rpc,
            ip: self.settings.rpc_addr.ip(),
            agent: &self.settings.agent_name,
        };
        let mut agent = agent::of_caller(&cluster, caller, named, &own);
        // A node may have been given another id than the one that is made from its name.
        if let Some(node) = self.published().state.node(&agent.name)
            && !node.id.is_empty()
            // The look-up finds nodes by their ids too.
            && node.name.eq_ignore_ascii_case(&agent.name)
        {
            agent.id.clone_from(&node.id);
        }
        Some(agent)
    }

    /// Removes a server from the membership.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn remove_server(&self, id: NodeId) -> Result<(), MembershipError> {
        self.membership.remove(id, self.settings.hold_timeout).await
    }

    /// Hands leadership over, whoever has it: to this voter, or to the one that has most of the log.
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
        if self.stopping.is_cancelled() {
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

    /// Cancelled when the node begins to stop: long polls end at once.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
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
            refusal = self.context.lives.ended() => refusal.to_string(),
            reason = self.supervisor.failed() => reason,
        }
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

    /// Begins to stop: ends long polls, and hands leadership over if this node leads. Requests that
    /// are under way go on, through the new leader.
    pub async fn begin_stop(&self) {
        self.stopping.cancel();
        if !self.leadership.borrow().is_held_by(self.settings.id) {
            return;
        }
        if let Err(error) = self.membership.hand_over_here(None).await {
            tracing::warn!(%error, "nobody has taken over leadership: the others will elect a leader");
        }
    }

    /// Ends consensus and every task of this node.
    pub async fn end(&self) {
        match self.context.clock.timeout(SHUTDOWN_MAX, self.raft.shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "consensus did not end in order"),
            Err(TimedOut) => tracing::warn!("consensus did not end in time"),
        }
        self.supervisor.end().await;
    }

    /// Which processes speak for which servers.
    pub fn lives(&self) -> &Lives {
        &self.context.lives
    }

    /// Consensus, for metrics and operators.
    pub fn raft(&self) -> &Raft {
        &self.raft
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

async fn start_raft<L>(
    context: &Context,
    network: NetworkFactory,
    limits: LogLimits,
    log: L,
    machine: Machine,
) -> io::Result<Raft>
where
    L: RaftLogStorage<TypeConfig>,
{
    let config = openraft_config("quorate", limits).map_err(io::Error::other)?;
    Raft::new(context.id, config, network, log, machine).await.map_err(io::Error::other)
}

fn membership(
    state: StateReader,
    settings: &NodeSettings,
    context: &Context,
    raft: &Raft,
    intake: &Arc<Intake>,
    leadership: &watch::Receiver<Leadership>,
    introduction: Introduction,
) -> Membership {
    Membership {
        state,
        acknowledged: context.lives.acknowledged.clone(),
        introduction,
        context: context.clone(),
        raft: raft.clone(),
        intake: Arc::clone(intake),
        leadership: leadership.clone(),
        bootstrap_expect: settings.bootstrap_expect,
        join: settings.join.clone(),
        changing: Mutex::new(()),
        fresh_cluster_id: settings.fresh_cluster_id.clone(),
        remarks: settings.remarks.clone(),
        is_alone_by_default: settings.is_alone_by_default,
    }
}

/// What log and snapshot hold, before consensus begins to change it.
async fn on_disk<L>(log: &mut L, recovered: &Published) -> io::Result<Boot>
where
    L: RaftLogStorage<TypeConfig>,
{
    let end_of_log = log.get_log_state().await?.last_log_id;
    let vote = log.get_log_reader().await.read_vote().await?;
    Ok(Boot {
        last: end_of_log.max(recovered.last_applied).map(Into::into),
        term: vote.map_or(0, |vote| vote.leader_id.term),
        ..Boot::default()
    })
}

/// Position of the committed membership, if this server is in it.
async fn member_since(raft: &Raft, id: NodeId) -> io::Result<Option<Position>> {
    let read = raft.with_raft_state(move |state| {
        let membership = state.membership_state.committed();
        let position = membership.log_id().map(Position::from);
        position.filter(|_| membership.membership().get_node(&id).is_some())
    });
    read.await.map_err(io::Error::other)
}

fn own_peer(settings: &NodeSettings, identity: &dyn Identity) -> Peer {
    Peer {
        name: settings.name.clone(),
        rpc_addr: settings.advertised.rpc.to_string(),
        http_addr: settings.advertised.http.to_string(),
        store_id: identity.store_id(),
        agent_name: settings.agent_name.clone(),
    }
}

fn millis(span: Duration) -> Millis {
    Millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}
