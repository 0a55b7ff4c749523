//! What a server says of itself, of its machine and of the other servers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::TextMap;

/// `GET /v1/agent/self`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AgentSelf {
    /// What clients look at.
    pub config: AgentConfig,
    /// What people look at.
    pub debug_config: Value,
    /// The agent's network coordinate.
    pub coord: Value,
    /// The agent as a member.
    pub member: Member,
    /// Figures, as text, by group.
    pub stats: BTreeMap<String, TextMap>,
    /// The agent's metadata.
    pub meta: TextMap,
}

/// The part of `GET /v1/agent/self` that clients look at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AgentConfig {
    /// The datacenter's name.
    pub datacenter: String,
    /// Name of the asking host's agent.
    pub node_name: String,
    /// Id of the asking host's agent.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// Build revision.
    pub revision: String,
    /// Whether this is a server.
    pub server: bool,
    /// The version of Consul whose API this is.
    pub version: String,
    /// When it was built.
    pub build_date: String,
    /// The shortest TTL of a session, in nanoseconds.
    #[serde(rename = "SessionTTLMin")]
    pub session_ttl_min: i64,
}

/// A member of the cluster: `GET /v1/agent/members`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its IP address.
    pub addr: String,
    /// Its port.
    pub port: u16,
    /// What it says of itself.
    pub tags: TextMap,
    /// 1 alive, 3 left, 4 failed.
    pub status: u8,
    /// Oldest version of the gossip protocol it speaks.
    pub protocol_min: u8,
    /// Newest version of the gossip protocol it speaks.
    pub protocol_max: u8,
    /// The version it speaks.
    pub protocol_cur: u8,
    /// Oldest version of the delegate protocol it speaks.
    pub delegate_min: u8,
    /// Newest version of the delegate protocol it speaks.
    pub delegate_max: u8,
    /// The version it speaks.
    pub delegate_cur: u8,
}

/// `GET /v1/agent/version`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Version {
    /// Build revision.
    #[serde(rename = "SHA")]
    pub sha: String,
    /// When it was built.
    pub build_date: String,
    /// The version of Consul whose API this is.
    pub human_version: String,
    /// Always empty.
    #[serde(rename = "FIPS")]
    pub fips: String,
}

/// `GET /v1/agent/metrics`. Quorate's figures are all gauges; the other lists are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Metrics {
    /// When they were read, as Go prints a time.
    pub timestamp: String,
    /// Figures as they are now.
    pub gauges: Vec<Gauge>,
    /// Always empty.
    pub points: Vec<Value>,
    /// Always empty.
    pub counters: Vec<Value>,
    /// Always empty.
    pub samples: Vec<Value>,
}

/// A figure in [`Metrics`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Gauge {
    /// Its name.
    pub name: String,
    /// The figure.
    pub value: i64,
    /// Always empty.
    pub labels: TextMap,
}

/// `GET /v1/agent/host`: the machine of the server that was asked. Sizes are in bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostInfo {
    /// Its memory.
    pub memory: Option<Memory>,
    /// Its processors.
    #[serde(rename = "CPU")]
    pub cpu: Vec<Processor>,
    /// Its name and system.
    pub host: Option<Host>,
    /// The disk that the server's data is on.
    pub disk: Option<Disk>,
    /// When this was read, in nanoseconds since 1970.
    pub collection_time: u64,
    /// What could not be read; `null` if nothing.
    pub errors: Option<Vec<String>>,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What programs could have.
    pub available: u64,
    /// What is not available.
    pub used: u64,
    /// The same in percent.
    pub used_percent: f64,
    /// What nothing uses, not even the cache.
    pub free: u64,
}

/// A processor.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Processor {
    /// Its number.
    pub cpu: u32,
    /// Its maker.
    pub vendor_id: String,
    /// Cores: always 1, for each is listed.
    pub cores: u32,
    /// Its model.
    pub model_name: String,
    /// Its clock.
    pub mhz: f64,
}

/// A machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Host {
    /// Its name.
    pub hostname: String,
    /// Seconds since it was started.
    pub uptime: u64,
    /// When it was started, in seconds since 1970.
    pub boot_time: u64,
    /// Its operating system.
    pub os: String,
    /// The version of that.
    pub kernel_version: String,
    /// Its architecture.
    pub kernel_arch: String,
}

/// A disk, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Disk {
    /// A directory on it.
    pub path: String,
    /// All of it.
    pub total: u64,
    /// What programs could have.
    pub free: u64,
    /// What is used.
    pub used: u64,
    /// The same in percent.
    pub used_percent: f64,
}
