//! Operating the cluster.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::TextMap;
use crate::duration::go_text;

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

/// `GET` and `PUT /v1/operator/autopilot/configuration`. Durations are Go texts, `"200ms"`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AutopilotConfiguration {
    /// Whether dead servers are to be removed; kept, without effect.
    pub cleanup_dead_servers: bool,
    /// A server that was not heard for so long is unhealthy, in nanoseconds.
    #[serde(with = "go_text")]
    pub last_contact_threshold: i64,
    /// A server that is so many entries behind is unhealthy.
    pub max_trailing_logs: u64,
    /// The fewest servers to leave when dead ones are removed.
    pub min_quorum: u64,
    /// How long a new server must be healthy, in nanoseconds.
    #[serde(with = "go_text")]
    pub server_stabilization_time: i64,
    /// Of Consul Enterprise.
    pub redundancy_zone_tag: String,
    /// Of Consul Enterprise.
    pub disable_upgrade_migration: bool,
    /// Of Consul Enterprise.
    pub upgrade_version_tag: String,
    /// When it was made.
    pub create_index: u64,
    /// When it last changed; `?cas=` compares with it.
    pub modify_index: u64,
}

/// `GET /v1/operator/autopilot/health`; status 429 when not healthy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AutopilotHealth {
    /// Whether every server is healthy.
    pub healthy: bool,
    /// How many servers may fail before writes stop.
    pub failure_tolerance: usize,
    /// The servers.
    pub servers: Vec<ServerHealth>,
}

/// A server's health.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServerHealth {
    /// Its Raft id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    pub name: String,
    /// `IP:PORT` of its RPC listener.
    pub address: String,
    /// `alive` or `failed`.
    pub serf_status: String,
    /// The version of Consul whose API it has.
    pub version: String,
    /// Whether it leads.
    pub leader: bool,
    /// Time since the leader last heard it, as a Go text.
    pub last_contact: String,
    /// Term of the last entry it is known to have.
    pub last_term: u64,
    /// Index of the last entry it is known to have.
    pub last_index: u64,
    /// Whether it is healthy.
    pub healthy: bool,
    /// Whether it votes.
    pub voter: bool,
    /// Always Go's zero time.
    pub stable_since: String,
}

/// `GET /v1/operator/autopilot/state`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AutopilotState {
    /// Whether every server is healthy.
    pub healthy: bool,
    /// How many servers may fail before writes stop.
    pub failure_tolerance: usize,
    /// The same (Consul Enterprise counts spare servers here).
    pub optimistic_failure_tolerance: usize,
    /// The servers, by Raft id.
    pub servers: BTreeMap<String, AutopilotServer>,
    /// Raft id of the leader.
    pub leader: String,
    /// Raft ids of the voters.
    pub voters: Vec<String>,
}

/// A server in an [`AutopilotState`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AutopilotServer {
    /// Its Raft id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    pub name: String,
    /// `IP:PORT` of its RPC listener.
    pub address: String,
    /// `alive` or `failed`.
    pub node_status: String,
    /// The version of Consul whose API it has.
    pub version: String,
    /// Time since the leader last heard it, as a Go text.
    pub last_contact: String,
    /// Term of the last entry it is known to have.
    pub last_term: u64,
    /// Index of the last entry it is known to have.
    pub last_index: u64,
    /// Whether it is healthy.
    pub healthy: bool,
    /// Always Go's zero time.
    pub stable_since: String,
    /// Always false; typed clients insist on it.
    pub read_replica: bool,
    /// `leader`, `voter` or `non-voter`.
    pub status: String,
    /// `voter` or `non-voter`: what it is meant to be.
    pub node_type: String,
    /// Always empty.
    pub meta: TextMap,
}

impl From<ServerHealth> for AutopilotServer {
    fn from(server: ServerHealth) -> Self {
        let status = match (server.leader, server.voter) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "non-voter",
        };
        Self {
            id: server.id,
            name: server.name,
            address: server.address,
            node_status: server.serf_status,
            version: server.version,
            last_contact: server.last_contact,
            last_term: server.last_term,
            last_index: server.last_index,
            healthy: server.healthy,
            stable_since: server.stable_since,
            read_replica: false,
            status: status.to_owned(),
            // A server that does not vote yet is catching up.
            node_type: "voter".to_owned(),
            meta: TextMap::new(),
        }
    }
}

/// `PUT /v1/operator/raft/transfer-leader`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LeaderTransferred {
    /// Whether another server leads now.
    pub success: bool,
}

/// `GET /v1/operator/usage`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Usage {
    /// What there is, by datacenter.
    pub usage: BTreeMap<String, ServiceUsage>,
    /// The newest index of the services.
    pub index: u64,
    /// Nanoseconds since the server heard of the leader.
    pub last_contact: u64,
    /// Whether it knows a leader.
    pub known_leader: bool,
    /// The consistency that was asked for.
    pub consistency_level: String,
    /// Always false.
    pub not_modified: bool,
    /// Always 0: blocking queries.
    pub backend: u64,
    /// Always false.
    #[serde(rename = "ResultsFilteredByACLs")]
    pub results_filtered_by_acls: bool,
}

/// How much there is in a datacenter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceUsage {
    /// Nodes.
    pub nodes: usize,
    /// Service names.
    pub services: usize,
    /// Instances.
    pub service_instances: usize,
    /// Instances of a service mesh by kind; always 0 each.
    pub connect_service_instances: BTreeMap<String, usize>,
    /// Instances but for the servers' own.
    pub billable_service_instances: usize,
}
