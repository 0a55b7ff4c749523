//! What a node is started with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorate_storage::raft::{BootId, NodeId};
use quorate_storage::snapshot::SnapshotStore;

use crate::checks::CheckOutput;
use crate::checks::policy::Policy;
use crate::host::address::HostPort;
use crate::host::clock::Clock;
use crate::raft::LogLimits;
use crate::raft::identity::Identity;
use crate::raft::transport::Transport;

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
    /// Both addresses as other servers are told them, perhaps with names.
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
    /// How much of checks' outputs is kept: of heartbeats through this node, and of its runs.
    pub check_output: CheckOutput,
    /// Where the checks that this node runs may go.
    pub check_policy: Policy,
    /// Faults in the settings that do not keep the node from running, as sentences.
    pub remarks: Vec<String>,
    /// Whether no setting names other servers, so that a cluster of one may be a mistake.
    pub is_alone_by_default: bool,
    /// This boot: random bytes.
    pub boot: BootId,
    /// The level of the rules that it claims to know: [`LEVEL`](quorate_storage::state::LEVEL), except in
    /// tests.
    pub level: u32,
}

/// The addresses that a server tells the others.
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
