//! A running node: what the API is a face of.

use std::net::IpAddr;
use std::sync::Arc;

use quorate_storage::Millis;
use quorate_storage::command::{Agent, Command, Outcome};
use quorate_storage::machine::Published;
use quorate_storage::raft::{NodeId, Peer};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::watch::Watches;

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
    pub rpc_addr: std::net::SocketAddr,
    /// `IP:PORT` of the HTTP listener.
    pub http_addr: std::net::SocketAddr,
    /// Name of the agent of the server's own host.
    pub agent_name: String,
}

/// Why a command has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// No leader appeared within the hold timeout; the command was never handed to one.
    #[error("No cluster leader")]
    NoLeader,
    /// It was handed to a leader, and whether it took effect is not known.
    #[error(
        "outcome unknown: the command was handed to a leader that did not answer in time, and may or may not have taken effect"
    )]
    OutcomeUnknown,
    /// Too many commands are waiting at this node.
    #[error("too many requests are waiting for the cluster, try again later")]
    Overloaded,
    /// The node is being stopped.
    #[error("this server is stopping")]
    Stopping,
}

/// Why a read cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// No leader appeared within the hold timeout.
    #[error("No cluster leader")]
    NoLeader,
    /// The node has just started and may not yet answer from its state.
    #[error("this server has not caught up yet")]
    NotReady,
    /// The node is being stopped.
    #[error("this server is stopping")]
    Stopping,
}

/// Why a change of the membership failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MembershipError {
    /// No such server.
    #[error("id {0:?} was not found in the Raft configuration")]
    UnknownServer(String),
    /// No leader carried it out in time.
    #[error("No cluster leader")]
    NoLeader,
    /// Refused for another reason.
    #[error("{0}")]
    Refused(String),
}

/// Whether the node is fit to serve: `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Caught up, and a quorum answers.
    Ready,
    /// Not, and why.
    NotReady(String),
}

/// A running node.
#[derive(Debug)]
pub struct Node {}

impl Node {
    /// What does not change while the node runs.
    pub fn info(&self) -> NodeInfo {
        unimplemented!()
    }
    /// This node's newest state.
    pub fn published(&self) -> Arc<Published> {
        unimplemented!()
    }
    /// Replicates a command and returns its outcome, once *this* node has applied it. Held while
    /// there is no leader, up to the hold timeout.
    pub async fn propose(&self, _command: Command) -> Result<Outcome, ProposeError> {
        unimplemented!()
    }
    /// The state to answer a read from. Linearizable reads wait for a barrier (held while there is no
    /// leader, up to the hold timeout); stale ones do not wait.
    pub async fn read(&self, _consistency: Consistency) -> Result<Arc<Published>, ReadError> {
        unimplemented!()
    }
    /// Who waits for what.
    pub fn watches(&self) -> &Arc<Watches> {
        unimplemented!()
    }
    /// Contact with the leader.
    pub fn contact(&self) -> Contact {
        unimplemented!()
    }
    /// The leader, if one is known.
    pub fn leader(&self) -> Option<(NodeId, Peer)> {
        unimplemented!()
    }
    /// The agent of the host that asks: the one it names, else the one of its address. `None` while
    /// the cluster's id is not known.
    pub fn agent_of(&self, _caller: IpAddr, _named: Option<&str>) -> Option<Agent> {
        unimplemented!()
    }
    /// Removes a server from the membership.
    pub async fn remove_server(&self, _id: NodeId) -> Result<(), MembershipError> {
        unimplemented!()
    }
    /// Whether the node is fit to serve.
    pub fn readiness(&self) -> Readiness {
        unimplemented!()
    }
    /// Cancelled when the node begins to stop: long polls end at once.
    pub fn stopping(&self) -> &CancellationToken {
        unimplemented!()
    }
    /// Metrics in Prometheus' text format.
    pub fn render_metrics(&self) -> String {
        unimplemented!()
    }
}
