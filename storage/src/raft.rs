//! The types that openraft is instantiated with.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::command::Batch;
pub use crate::ids::{BootId, NodeId, Position};

/// What the membership says of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The server's name, which is also its node's name in the catalogue.
    pub name: String,
    /// `IP:PORT` of its RPC listener; the IP is the server's advertised address.
    pub rpc_addr: String,
    /// `IP:PORT` of its HTTP listener.
    pub http_addr: String,
    /// Random id of its data directory. An RPC names the store it is meant for, so that a server
    /// that lost its disk cannot vote a second time under its old id.
    pub store_id: String,
    /// Name of the agent of the server's own host.
    pub agent_name: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.rpc_addr)
    }
}

/// What a proposer learns from openraft: nothing. Every node answers its own clients from its own
/// apply, see [`Observer`](crate::machine::Observer).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied;

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("applied")
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let commands: usize = self.parts.iter().map(|part| part.commands.len()).sum();
        write!(f, "batch of {commands} at {}", self.stamp)
    }
}

openraft::declare_raft_types!(
    /// openraft with Quorate's commands. The asynchronous runtime is named here and nowhere else, so
    /// that a deterministic one can take its place in the simulation.
    pub TypeConfig:
        D = Batch,
        R = Applied,
        NodeId = NodeId,
        Node = Peer,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
);

/// No cluster holds so many elections. What claims a higher term is forged or damaged, and the highest
/// numbers would leave no room for the next election.
pub const TERM_MAX: u64 = 1 << 62;

/// Position of an entry in the log.
pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// A log entry.
pub type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
/// A vote, which is also how a leadership is named.
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// The membership in force, with its position in the log.
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;

impl From<LogId> for Position {
    fn from(id: LogId) -> Self {
        Self { term: id.leader_id.term, index: id.index }
    }
}
