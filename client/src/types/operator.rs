//! Operating the cluster.

use serde::{Deserialize, Serialize};

/// `GET /v1/operator/raft/configuration`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RaftConfiguration {
    /// The servers of the membership in force.
    pub servers: Vec<RaftServer>,
    /// The log index of that membership.
    pub index: u64,
}

/// A server in the Raft membership.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RaftServer {
    /// Its Raft id, in decimal.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    pub node: String,
    /// `IP:PORT` of its RPC listener.
    pub address: String,
    /// Whether it leads.
    pub leader: bool,
    /// Always `"3"`, the version of Consul's Raft protocol.
    pub protocol_version: String,
    /// Whether it votes.
    pub voter: bool,
}
