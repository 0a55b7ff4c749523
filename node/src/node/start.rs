//! Puts a node together: makes its parts, connects them, and starts its tasks.

use std::io;
use std::sync::Arc;

use openraft::RaftLogReader as _;
use openraft::storage::RaftLogStorage;
use quorate_storage::machine::{Machine, Published, StateReader};
use quorate_storage::raft::{NodeId, Peer, Position, TERM_MAX, TypeConfig};
use quorate_storage::snapshot::SnapshotStore;
use tokio::sync::{Mutex, watch};

use super::observe::ApplyObserver;
use super::settings::{NodeParts, NodeSettings};
use super::{Gate, Node, changes, known_leader, outages};
use crate::checks::runner::Runner;
use crate::checks::{LeaderDesk, ServerDesk};
use crate::claims::Claims;
use crate::host::clock::Clock;
use crate::host::stopping::Stopping;
use crate::host::supervise::Supervisor;
use crate::leader::Leader;
use crate::live::beats::Beats;
use crate::presences::Presences;
use crate::raft::cluster_clock::ClusterClock;
use crate::raft::comparison::Comparison;
use crate::raft::context::Context;
use crate::raft::failure_detector::FailureDetector;
use crate::raft::identity::Identity;
use crate::raft::intake::Intake;
use crate::raft::leadership::{self, LeaderContact, Leadership};
use crate::raft::membership::Membership;
use crate::raft::network::NetworkFactory;
use crate::raft::processes::Processes;
use crate::raft::propose::Proposer;
use crate::raft::protocol::{DiskState, ServerInfo};
use crate::raft::read::Barrier;
use crate::raft::receiving::Receptions;
use crate::raft::service::Service;
use crate::raft::transport::Transport;
use crate::raft::warnings::Warnings;
use crate::raft::{LogLimits, Raft, openraft_config};
use crate::watch::Watches;

impl Node {
    /// Starts a node. Also returns the service that answers other nodes. The node is not a member of a
    /// cluster until [`Node::enter_cluster`] has returned.
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
        let peer = own_peer(&settings, &*identity);
        let context = context(&settings, &peer, clock, identity, transport);
        let watches = Arc::new(Watches::new(context.clock.clone()));
        let proposer = Arc::new(Proposer::new(context.clone()));
        let (proposing, waking) = (Arc::clone(&proposer), Arc::clone(&watches));
        let observer = Arc::new(ApplyObserver::new(&context, proposing, waking));
        let (machine, state) = Machine::open(Arc::clone(&snapshots), Arc::clone(&observer) as _)?;
        context.processes.follow(state.clone());
        observer.recovered(&state.load());
        let mut disk = on_disk(&mut log, &state.load()).await?;
        disk.boots = context.identity.boots();
        let network = NetworkFactory::new(context.clone());
        let raft = start_raft(&context, network, settings.log_limits, log, machine).await?;
        disk.member_since = member_since(&raft, settings.id).await?;
        let (id, datacenter) = (settings.id, settings.datacenter.clone());
        let info = ServerInfo { id, peer, disk, datacenter };
        let (publish, leadership) = watch::channel(Leadership::default());
        let cluster_clock = Arc::new(ClusterClock::new(context.clock.clone()));
        let intake = Arc::new(Intake::new(raft.clone(), &context, Arc::clone(&cluster_clock)));
        let node = Arc::new(Self {
            barrier: Arc::new(Barrier::new(context.clone(), raft.clone())),
            membership: Arc::new(membership(
                state.clone(),
                &settings,
                &context,
                &raft,
                &intake,
                &leadership,
                info,
            )),
            failure_detector: Arc::new(FailureDetector::new(context.clone(), raft.clone())),
            comparison: comparison(&context, &raft, &state, &observer),
            standing: outages::Standing::default(),
            presences: presences(&context, &proposer, &state),
            beats: Arc::new(Beats::new(context.clock.clone())),
            claims: claims(&context, &proposer, &state, &observer),
            intake,
            contact: Arc::new(LeaderContact::new(context.clock.clone())),
            settings,
            context,
            raft,
            state,
            proposer,
            leadership,
            leaderships: Arc::default(),
            known_leader: watch::Sender::new(None),
            cluster_clock,
            watches,
            feed: observer.feed(),
            probe_counts: Arc::default(),
            applied: observer.applied_index(),
            apply_durations: observer.durations(),
            expirations: observer.expirations(),
            gate: watch::Sender::new(Gate::Closed),
            supervisor: Supervisor::default(),
        });
        node.start_tasks(publish);
        Ok((Arc::clone(&node), node.service(snapshots)))
    }

    fn start_tasks(self: &Arc<Self>, publish: watch::Sender<Leadership>) {
        let tasks = &self.supervisor;
        let seen = Arc::clone(&self.leaderships);
        tasks.vital(
            "following the leadership",
            leadership::follow(self.raft.clone(), publish, seen),
        );
        let watches = Arc::clone(&self.watches);
        tasks.vital("waking queries", async move { watches.run().await });
        tasks.vital("following the history", Arc::clone(&self.feed).run(self.state.clone()));
        tasks.vital("looking for heartbeats", Arc::clone(&self.beats).run(self.state.clone()));
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
        tasks.finite("announcing this start", async move { membership.announce().await });
        let node = Arc::clone(self);
        tasks.finite("opening the gate", async move { node.open_gate().await });
        tasks.vital("reporting ends of presences", Arc::clone(&self.presences).report());
        let node = Arc::clone(self);
        let has_leader = move || node.contact().known_leader;
        tasks.vital("comparing presences", Arc::clone(&self.presences).watch(has_leader));
        tasks.vital("reporting what became of claims", Arc::clone(&self.claims).report());
        tasks.vital("comparing claims", Arc::clone(&self.claims).watch());
        tasks.vital("running checks", self.run_checks());
        tasks.vital("looking who leads", known_leader::watch(Arc::clone(self)));
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
            comparison: Arc::clone(&self.comparison),
            checks: Arc::new(LeaderDesk {
                clock: self.context.clock.clone(),
                proposer: Arc::clone(&self.proposer),
                state: self.state.clone(),
                watches: Arc::clone(&self.watches),
            }),
        })
    }

    /// This server's share of the checks.
    fn run_checks(&self) -> impl Future<Output = ()> + Send + use<> {
        let runner = Runner {
            clock: self.context.clock.clone(),
            counts: Arc::clone(&self.probe_counts),
            output: self.settings.check_output,
            policy: self.settings.check_policy.clone(),
            name: self.settings.name.as_str().into(),
        };
        let desk = ServerDesk::new(
            self.settings.id,
            self.context.clock.clone(),
            Arc::clone(&self.proposer),
            self.state.clone(),
            &self.watches,
            self.leadership.clone(),
        );
        async move { runner.run(desk).await }
    }

    fn service(&self, snapshots: Arc<dyn SnapshotStore>) -> Arc<Service> {
        Arc::new(Service {
            context: self.context.clone(),
            raft: self.raft.clone(),
            intake: Arc::clone(&self.intake),
            barrier: Arc::clone(&self.barrier),
            membership: Arc::clone(&self.membership),
            contact: Arc::clone(&self.contact),
            comparison: Arc::clone(&self.comparison),
            snapshots,
            receptions: Receptions::default(),
            supervisor: self.supervisor.clone(),
        })
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
    let starting = Box::pin(Raft::new(context.id, config, network, log, machine));
    starting.await.map_err(io::Error::other)
}

fn presences(context: &Context, proposer: &Arc<Proposer>, state: &StateReader) -> Arc<Presences> {
    Arc::new(Presences::new(context.clone(), Arc::clone(proposer), state.clone()))
}

fn claims(
    context: &Context,
    proposer: &Arc<Proposer>,
    state: &StateReader,
    observer: &ApplyObserver,
) -> Arc<Claims> {
    let (context, counts) = (context.clone(), observer.claims());
    Arc::new(Claims::new(context, Arc::clone(proposer), state.clone(), counts))
}

fn comparison(
    context: &Context,
    raft: &Raft,
    state: &StateReader,
    observer: &ApplyObserver,
) -> Arc<Comparison> {
    let (context, capture) = (context.clone(), observer.capture());
    Arc::new(Comparison::new(context, raft.clone(), state.clone(), capture))
}

fn membership(
    state: StateReader,
    settings: &NodeSettings,
    context: &Context,
    raft: &Raft,
    intake: &Arc<Intake>,
    leadership: &watch::Receiver<Leadership>,
    info: ServerInfo,
) -> Membership {
    Membership {
        state,
        acknowledged: context.processes.acknowledged.clone(),
        info,
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

/// What log and snapshot hold before consensus begins to change them.
async fn on_disk<L>(log: &mut L, recovered: &Published) -> io::Result<DiskState>
where
    L: RaftLogStorage<TypeConfig>,
{
    let end_of_log = log.get_log_state().await?.last_log_id;
    let vote = log.get_log_reader().await.read_vote().await?;
    let term = vote.map_or(0, |vote| vote.leader_id.term);
    if term > TERM_MAX {
        return Err(io::Error::other(format!(
            "the vote in this data directory is of term {term}, which no election can reach: a message was forged, or \
             the disk is damaged. Keep the directory, and see `quorate recover`, which makes a new cluster of it \
             with everything that its log holds"
        )));
    }
    Ok(DiskState {
        last: end_of_log.max(recovered.last_applied).map(Into::into),
        term,
        ..DiskState::default()
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

fn context(
    settings: &NodeSettings,
    peer: &Peer,
    clock: Clock,
    identity: Arc<dyn Identity>,
    transport: Arc<dyn Transport>,
) -> Context {
    Context {
        id: settings.id,
        level: settings.level,
        identity,
        processes: Arc::new(Processes::new(settings.id, settings.boot, peer, clock.clone())),
        stopping: Stopping::new(clock.clone()),
        warnings: Arc::new(Warnings::new(clock.clone())),
        clock,
        transport,
        hold_timeout: settings.hold_timeout,
    }
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
