//! The agent: what a host registers, heartbeats and lists.

mod server;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::server::{
    AgentConfig, AgentSelf, Disk, Gauge, Host, HostInfo, Member, Memory, Metrics, Processor,
    Version,
};

use super::health::HealthCheck;
use super::{Locality, ServiceAddress, TextMap, Weights};

/// A service instance, as `GET /v1/agent/services` (object by id) and `agent/service/:id` show it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AgentService {
    /// The kind of a mesh service; left out when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The instance's id.
    #[serde(rename = "ID")]
    pub id: String,
    /// The service's name.
    pub service: String,
    /// Tags; never `null`.
    pub tags: Vec<String>,
    /// Metadata; never `null`.
    pub meta: TextMap,
    /// The port.
    pub port: i64,
    /// A Unix socket to reach it by; left out when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub socket_path: String,
    /// The instance's own address, or empty.
    pub address: String,
    /// Addresses by purpose; left out when there are none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tagged_addresses: BTreeMap<String, ServiceAddress>,
    /// DNS weights.
    pub weights: Weights,
    /// Whether other agents may change the tags.
    pub enable_tag_override: bool,
    /// Where it runs; left out when it was not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
    /// A hash of the other members, which `?hash=` waits on; left out in the list.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub content_hash: String,
    /// The datacenter's name.
    pub datacenter: String,
}

/// The health of an instance: `GET /v1/agent/health/service/id/:id`, and each entry of
/// `agent/health/service/name/:name`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AgentServiceHealth {
    /// `passing`, `warning`, `critical` or `maintenance`.
    pub aggregated_status: String,
    /// The instance; `null` if it is unknown.
    pub service: Option<AgentService>,
    /// Its checks and its host's; `null` if it is unknown.
    pub checks: Option<Vec<AgentCheck>>,
}

/// A check in an [`AgentServiceHealth`], where Consul shows every member of an empty definition, no
/// type, and `null` for no tags.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AgentCheck {
    /// Name of the agent.
    pub node: String,
    /// The check's id.
    #[serde(rename = "CheckID")]
    pub check_id: String,
    /// A name for people.
    pub name: String,
    /// `passing`, `warning` or `critical`.
    pub status: String,
    /// Notes for people.
    pub notes: String,
    /// What the last run or heartbeat said.
    pub output: String,
    /// The instance it belongs to; empty for a check of the host.
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    /// Name of that service.
    pub service_name: String,
    /// Tags of that service; `null` if there are none.
    pub service_tags: Option<Vec<String>>,
    /// Always empty.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Always empty.
    pub definition: EmptyDefinition,
    /// Always 0.
    pub create_index: u64,
    /// Always 0.
    pub modify_index: u64,
}

impl From<HealthCheck> for AgentCheck {
    fn from(check: HealthCheck) -> Self {
        Self {
            node: check.node,
            check_id: check.check_id,
            name: check.name,
            status: check.status,
            notes: check.notes,
            output: check.output,
            service_id: check.service_id,
            service_name: check.service_name,
            service_tags: Some(check.service_tags).filter(|tags| !tags.is_empty()),
            ..Self::default()
        }
    }
}

/// An empty definition of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EmptyDefinition {
    /// Always `"0s"`.
    pub interval: String,
    /// Always `"0s"`.
    pub timeout: String,
    /// Always `"0s"`.
    pub deregister_critical_service_after: String,
    /// Always empty.
    #[serde(rename = "HTTP")]
    pub http: String,
    /// Always `null`.
    pub header: Option<BTreeMap<String, Vec<String>>>,
    /// Always empty.
    pub method: String,
    /// Always empty.
    pub body: String,
    /// Always `false`.
    #[serde(rename = "TLSSkipVerify")]
    pub tls_skip_verify: bool,
    /// Always empty.
    #[serde(rename = "TCP")]
    pub tcp: String,
}

impl Default for EmptyDefinition {
    fn default() -> Self {
        let none = || "0s".to_owned();
        Self {
            interval: none(),
            timeout: none(),
            deregister_critical_service_after: none(),
            http: String::new(),
            header: None,
            method: String::new(),
            body: String::new(),
            tls_skip_verify: false,
            tcp: String::new(),
        }
    }
}

/// Body of `PUT /v1/agent/service/register`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceRegistration {
    /// The kind of a mesh service, or empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The instance's id; the name when empty.
    #[serde(rename = "ID")]
    pub id: String,
    /// The service's name; required.
    pub name: String,
    /// Tags.
    pub tags: Vec<String>,
    /// Its own address; empty means the host's.
    pub address: String,
    /// Addresses by purpose.
    pub tagged_addresses: BTreeMap<String, ServiceAddress>,
    /// Metadata.
    pub meta: Option<TextMap>,
    /// The port.
    pub port: i64,
    /// A Unix socket to reach it by.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub socket_path: String,
    /// Where it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
    /// DNS weights; 1 and 1 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
    /// Whether other agents may change the tags.
    pub enable_tag_override: bool,
    /// A check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckSpecification>,
    /// More checks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckSpecification>,
    /// Settings of Consul's service mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<Map<String, Value>>,
    /// Settings of a mesh proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Map<String, Value>>,
}

/// How a check is run: a check of a [`ServiceRegistration`], and the common part of a
/// [`CheckRegistration`]. Durations are nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckSpecification {
    /// The check's id; made from the service's when empty.
    #[serde(rename = "CheckID", skip_serializing_if = "String::is_empty")]
    pub check_id: String,
    /// A name for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Status to begin with; `critical` when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// Notes for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub notes: String,
    /// Time to live of a TTL check.
    #[serde(rename = "TTL", skip_serializing_if = "is_zero")]
    pub ttl: i64,
    /// A TTL check warns after so long without a heartbeat; shorter than the TTL.
    #[serde(skip_serializing_if = "is_zero")]
    pub warn_after: i64,
    /// Time between two runs.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Longest time of a run.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Critical for so long removes the service.
    #[serde(skip_serializing_if = "is_zero")]
    pub deregister_critical_service_after: i64,
    /// URL to fetch.
    #[serde(rename = "HTTP", skip_serializing_if = "String::is_empty")]
    pub http: String,
    /// Headers to send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<BTreeMap<String, Vec<String>>>,
    /// HTTP method.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub method: String,
    /// HTTP body.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// Server name for TLS.
    #[serde(rename = "TLSServerName", skip_serializing_if = "String::is_empty")]
    pub tls_server_name: String,
    /// Whether any certificate is accepted.
    #[serde(rename = "TLSSkipVerify", skip_serializing_if = "is_false")]
    pub tls_skip_verify: bool,
    /// `host:port` to connect to.
    #[serde(rename = "TCP", skip_serializing_if = "String::is_empty")]
    pub tcp: String,
    /// `host:port` to send a datagram to.
    #[serde(rename = "UDP", skip_serializing_if = "String::is_empty")]
    pub udp: String,
    /// `host:port/service` to ask for its gRPC health.
    #[serde(rename = "GRPC", skip_serializing_if = "String::is_empty")]
    pub grpc: String,
    /// Whether the gRPC check uses TLS.
    #[serde(rename = "GRPCUseTLS", skip_serializing_if = "is_false")]
    pub grpc_use_tls: bool,
    /// `host:port` for an HTTP/2 ping.
    #[serde(rename = "H2PING", skip_serializing_if = "String::is_empty")]
    pub h2ping: String,
    /// A command with its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub script_args: Vec<String>,
    /// A service of the operating system.
    #[serde(rename = "OSService", skip_serializing_if = "String::is_empty")]
    pub os_service: String,
    /// Node of the service that an alias check follows.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub alias_node: String,
    /// The service that an alias check follows.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub alias_service: String,
    /// Runs that must pass before the status becomes passing.
    #[serde(skip_serializing_if = "is_zero")]
    pub success_before_passing: i64,
    /// Runs that must fail before the status becomes warning.
    #[serde(skip_serializing_if = "is_zero")]
    pub failures_before_warning: i64,
    /// Runs that must fail before the status becomes critical.
    #[serde(skip_serializing_if = "is_zero")]
    pub failures_before_critical: i64,
    /// How much output is kept, in bytes; 0: the default.
    #[serde(skip_serializing_if = "is_zero")]
    pub output_max_size: i64,
    /// Whether an HTTP check takes a redirect as its answer.
    #[serde(skip_serializing_if = "is_false")]
    pub disable_redirects: bool,
    /// Whether the TCP check uses TLS.
    #[serde(rename = "TCPUseTLS", skip_serializing_if = "is_false")]
    pub tcp_use_tls: bool,
    /// Whether the HTTP/2 ping uses TLS; if nothing is said, it does.
    #[serde(rename = "H2PingUseTLS", skip_serializing_if = "Option::is_none")]
    pub h2ping_use_tls: Option<bool>,
    /// How many workers look at the target: 1 or 3; 0: one.
    #[serde(skip_serializing_if = "is_zero")]
    pub observers: i64,
    /// The network whose worker processes run it; empty: whoever runs checks without one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network: String,
}

/// Body of `PUT /v1/agent/check/register`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckRegistration {
    /// The check's id; the name when empty.
    #[serde(rename = "ID", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The instance it belongs to; empty for a check of the host.
    #[serde(rename = "ServiceID", skip_serializing_if = "String::is_empty")]
    pub service_id: String,
    /// The rest, without a `CheckID`, which is an unknown field here.
    #[serde(flatten)]
    pub specification: CheckSpecification,
}

/// Body of `PUT /v1/agent/check/update/:id`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckUpdate {
    /// `passing`, `warning` or `critical`.
    pub status: String,
    /// The output.
    pub output: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(value: &bool) -> bool {
    !value
}
