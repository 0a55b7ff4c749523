//! Servers that can be started, stopped, cut off and asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use quorate::checks::policy::Policy;
use quorate::node::Advertised;
use quorate::node::{Consistency, Node, NodeParts, NodeSettings};
use quorate::raft::LogLimits;
use quorate::raft::error::ProposeError;
use quorate_storage::command::{Command, KvPutMode, Outcome};
use quorate_storage::raft::{NodeId, Peer};
use quorate_storage::state::LEVEL;
use tokio::task::JoinHandle;

use super::disk::Disk;
use super::network::Network;
use super::{clock, until};

/// Longer than any step takes, even on a machine that does ten things at once.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
/// Rates of the servers' clocks, in milliseconds a second: no two agree.
const CLOCK_RATES: [u32; 4] = [1_000, 950, 1_050, 1_020];

/// A cluster of servers in this process.
pub(crate) struct Cluster {
    pub(crate) network: Network,
    hold_timeout: Duration,
    founders: usize,
    servers: BTreeMap<NodeId, Server>,
    disks: BTreeMap<NodeId, Disk>,
    levels: BTreeMap<NodeId, u32>,
}

struct Server {
    node: Arc<Node>,
    entering: JoinHandle<Result<(), String>>,
}

impl Cluster {
    /// Founds a cluster of `founders` servers, and waits until it leads itself.
    pub(crate) async fn found(founders: usize, seed: u64, hold_timeout: Duration) -> Self {
        Self::found_at(founders, seed, hold_timeout, LEVEL).await
    }

    /// The same of servers that know the rules of a level.
    pub(crate) async fn found_at(
        founders: usize,
        seed: u64,
        hold_timeout: Duration,
        level: u32,
    ) -> Self {
        let mut cluster = Self {
            network: Network::new(seed),
            hold_timeout,
            founders,
            servers: BTreeMap::new(),
            disks: BTreeMap::new(),
            levels: (1..=founders as NodeId).map(|id| (id, level)).collect(),
        };
        for id in 1..=founders as NodeId {
            cluster.start(id).await;
        }
        for id in 1..=founders as NodeId {
            cluster.entered(id).await.expect("a founder enters its own cluster");
        }
        cluster.leader().await;
        cluster
    }

    /// Starts a server on its disk, or on an empty one; it founds a cluster, or joins one.
    pub(crate) async fn start(&mut self, id: NodeId) {
        self.start_idle(id).await;
        let node = Arc::clone(self.node(id));
        let entering =
            tokio::spawn(
                async move { node.enter_cluster().await.map_err(|error| error.to_string()) },
            );
        self.servers.get_mut(&id).expect("it was started").entering = entering;
    }

    /// Starts a server that does not ask anybody to make it a member.
    pub(crate) async fn start_idle(&mut self, id: NodeId) {
        let disk = self.disks.entry(id).or_insert_with(|| Disk::empty(&format!("store-{id}")));
        let identity = disk.boot();
        let rate = CLOCK_RATES[usize::from(small(id)) % CLOCK_RATES.len()];
        let parts = NodeParts {
            log: disk.log.clone(),
            snapshots: Arc::new(disk.snapshots.clone()),
            transport: self.network.transport_of(&address(id)),
            clock: clock::rated(rate),
            identity,
        };
        let (node, service) = Node::start(self.settings(id), parts).await.expect("it starts");
        self.network.listen(&address(id), service);
        let entering = tokio::spawn(std::future::pending());
        self.servers.insert(id, Server { node, entering });
    }

    /// Ends a server, which answers nobody any more; its disk stays.
    pub(crate) async fn stop(&mut self, id: NodeId) {
        self.network.hang_up(&address(id));
        if let Some(server) = self.servers.remove(&id) {
            server.entering.abort();
            server.node.end().await;
        }
    }

    /// Has a server know the rules of a level from its next start on.
    pub(crate) fn set_level(&mut self, id: NodeId, level: u32) {
        self.levels.insert(id, level);
    }

    /// Gives a server that is stopped an empty disk.
    pub(crate) fn wipe(&mut self, id: NodeId) {
        self.disks.insert(id, Disk::empty(&format!("store-{id}-again")));
    }

    /// Forges what a server that is stopped has in its log of a write to this key.
    pub(crate) fn forge(&self, id: NodeId, key: &str) {
        assert_ne!(self.disks[&id].log.forge(key), 0, "the log has no write to {key}");
    }

    /// What became of a server's attempt to enter the cluster.
    pub(crate) async fn entered(&mut self, id: NodeId) -> Result<(), String> {
        let server = self.servers.get_mut(&id).expect("the server runs");
        let entered = tokio::time::timeout(LIMIT, &mut server.entering).await;
        entered.expect("it ends in time").expect("it does not panic")
    }

    fn settings(&self, id: NodeId) -> NodeSettings {
        NodeSettings {
            log_limits: LogLimits::default(),
            id,
            name: format!("n{id}"),
            datacenter: "dc1".to_owned(),
            rpc_addr: rpc_addr(id),
            http_addr: SocketAddr::from(([127, 0, 0, 1], http_port(id))),
            advertised: Advertised {
                rpc: rpc_addr(id).into(),
                http: SocketAddr::from(([127, 0, 0, 1], http_port(id))).into(),
            },
            agent_name: "quorate".to_owned(),
            hold_timeout: self.hold_timeout,
            bootstrap_expect: if id <= self.founders as NodeId { self.founders } else { 0 },
            join: (1..=self.founders as NodeId).map(address).collect(),
            fresh_cluster_id: format!("cluster-of-{id}"),
            check_policy: Policy::default(),
            check_output: Default::default(),
            remarks: Vec::new(),
            is_alone_by_default: false,
            boot: Disk::fresh_boot(),
            level: self.levels.get(&id).copied().unwrap_or(LEVEL),
        }
    }

    /// How the membership names a server.
    pub(crate) fn peer(&self, id: NodeId) -> Peer {
        let settings = self.settings(id);
        Peer {
            name: settings.name,
            rpc_addr: settings.rpc_addr.to_string(),
            http_addr: settings.http_addr.to_string(),
            store_id: self.disks[&id].store_id.clone(),
            agent_name: settings.agent_name,
        }
    }

    pub(crate) fn node(&self, id: NodeId) -> &Arc<Node> {
        &self.servers[&id].node
    }

    pub(crate) fn nodes(&self) -> Vec<Arc<Node>> {
        self.servers.values().map(|server| Arc::clone(&server.node)).collect()
    }

    /// Waits until a leader with a quorum is known to all servers that run.
    pub(crate) async fn leader(&self) -> NodeId {
        self.leader_among(&self.ids()).await
    }

    /// The same among some of them.
    pub(crate) async fn leader_among(&self, ids: &[NodeId]) -> NodeId {
        let nodes: Vec<_> = ids.iter().map(|id| Arc::clone(self.node(*id))).collect();
        let mut leader = None;
        until("a leader that all agree on", LIMIT, || {
            let known = nodes.iter().map(|node| node.leader().map(|(id, _)| id));
            let known: Vec<_> = known.collect();
            leader = known[0];
            leader.is_some_and(|leader| ids.contains(&leader))
                && known.iter().all(|other| *other == leader)
        })
        .await;
        leader.expect("one was agreed on")
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.servers.keys().copied().collect()
    }

    /// All but one.
    pub(crate) fn others(&self, id: NodeId) -> Vec<NodeId> {
        self.ids().into_iter().filter(|other| *other != id).collect()
    }

    /// Cuts a server off from all others, both ways.
    pub(crate) fn isolate(&self, id: NodeId) {
        for other in self.others(id) {
            self.network.cut(&address(id), &address(other));
            self.network.cut(&address(other), &address(id));
        }
    }

    /// Waits until all servers have applied the same, and checks that they are equal.
    pub(crate) async fn converge(&self) {
        let nodes = self.nodes();
        let mut seen = Vec::new();
        until("all servers to have applied the same", LIMIT, || {
            seen = nodes.iter().map(|node| node.published()).collect();
            seen.iter().all(|version| version.last_applied == seen[0].last_applied)
        })
        .await;
        for version in &seen {
            assert_eq!(version.state.hash(), seen[0].state.hash(), "equal positions, other states");
            assert_eq!(version.state.check_invariants(), Ok(()));
        }
    }

    /// The index of the last applied entry and the snapshot's, at one server.
    pub(crate) fn snapshot_index(&self, id: NodeId) -> u64 {
        let metrics = self.node(id).raft().metrics();
        let metrics = metrics.borrow_watched();
        metrics.snapshot.map_or(0, |snapshot| snapshot.index)
    }

    /// Makes a server write a snapshot of all that it has applied, and forget the log before it.
    pub(crate) async fn compact(&self, id: NodeId) {
        let raft = self.node(id).raft();
        let upto = self.node(id).applied_index();
        raft.trigger().snapshot().await.expect("consensus runs");
        until("a snapshot", LIMIT, || self.snapshot_index(id) >= upto).await;
        raft.trigger().purge_log(upto).await.expect("consensus runs");
        until("the log to be purged", LIMIT, || {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            metrics.purged.is_some_and(|purged| purged.index >= upto)
        })
        .await;
    }

    /// Writes a key through a server, which must work.
    pub(crate) async fn put(&self, id: NodeId, key: &str) {
        assert_eq!(
            self.node(id).propose(put_new(key), None).await,
            Ok(Outcome::Condition(true)),
            "{key}"
        );
    }

    /// Whether a server shows a key in a linearizable read.
    pub(crate) async fn has(&self, id: NodeId, key: &str) -> bool {
        let version =
            self.node(id).read(Consistency::Linearizable).await.expect("the read is answered");
        version.state.key(key).is_some()
    }
}

/// A write that works only once: if it were applied twice, the second would say so.
pub(crate) fn put_new(key: &str) -> Command {
    Command::KvPut { key: key.into(), value: "x".into(), flags: 0, mode: KvPutMode::Cas(0) }
}

/// Whether an error leaves open what became of the command.
pub(crate) fn is_no_leader_or_unknown(answer: &Result<Outcome, ProposeError>) -> bool {
    matches!(answer, Err(ProposeError::NoLeader | ProposeError::OutcomeUnknown))
}

/// Where a server listens.
pub(crate) fn address(id: NodeId) -> String {
    rpc_addr(id).to_string()
}

fn rpc_addr(id: NodeId) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8_300 + small(id)))
}

fn http_port(id: NodeId) -> u16 {
    8_500 + small(id)
}

fn small(id: NodeId) -> u16 {
    u16::try_from(id).expect("tests use small ids")
}
