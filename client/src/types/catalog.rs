//! The catalogue: nodes, services, and the bodies that register and deregister them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Empty, Locality, Proxy, ServiceAddress, TextMap, Weights};

/// A node, as `GET /v1/catalog/nodes` and health entries show it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Node {
    /// A UUID, or empty.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    pub node: String,
    /// An IP address or a host name.
    pub address: String,
    /// The datacenter's name.
    pub datacenter: String,
    /// Addresses by purpose; may be `null`.
    pub tagged_addresses: Option<TextMap>,
    /// Metadata; may be `null`.
    pub meta: Option<TextMap>,
    /// Where it runs; left out when it was not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
    /// When it was made.
    pub create_index: u64,
    /// When it last changed.
    pub modify_index: u64,
}

/// A service instance, as `GET /v1/catalog/node/:node` and health entries show it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeService {
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
    /// The instance's own address, or empty.
    pub address: String,
    /// Addresses by purpose; left out when there are none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tagged_addresses: BTreeMap<String, ServiceAddress>,
    /// Metadata.
    pub meta: Option<TextMap>,
    /// The port.
    pub port: i64,
    /// A Unix socket to reach it by; left out when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub socket_path: String,
    /// DNS weights.
    pub weights: Weights,
    /// Whether other agents may change the tags.
    pub enable_tag_override: bool,
    /// Where it runs; left out when it was not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
    /// Settings of a mesh proxy, without effect.
    pub proxy: Proxy,
    /// Always empty.
    pub connect: Empty,
    /// When it was made.
    pub create_index: u64,
    /// When it last changed.
    pub modify_index: u64,
}

/// A service instance with its node, flattened: `GET /v1/catalog/service/:name`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CatalogService {
    /// The node's id.
    #[serde(rename = "ID")]
    pub id: String,
    /// The node's name.
    pub node: String,
    /// The node's address.
    pub address: String,
    /// The datacenter's name.
    pub datacenter: String,
    /// The node's addresses by purpose; may be `null`.
    pub tagged_addresses: Option<TextMap>,
    /// The node's metadata; may be `null`.
    pub node_meta: Option<TextMap>,
    /// The kind of a mesh service, or empty.
    pub service_kind: String,
    /// The instance's id.
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    /// The service's name.
    pub service_name: String,
    /// Tags; never `null`.
    pub service_tags: Vec<String>,
    /// The instance's own address, or empty.
    pub service_address: String,
    /// Addresses by purpose; left out when there are none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub service_tagged_addresses: BTreeMap<String, ServiceAddress>,
    /// DNS weights.
    pub service_weights: Weights,
    /// Metadata; never `null`.
    pub service_meta: TextMap,
    /// The port.
    pub service_port: i64,
    /// A Unix socket to reach it by; left out when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_socket_path: String,
    /// Whether other agents may change the tags.
    pub service_enable_tag_override: bool,
    /// Where it runs; left out when it was not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_locality: Option<Locality>,
    /// Settings of a mesh proxy, without effect.
    pub service_proxy: Proxy,
    /// Always empty.
    pub service_connect: Empty,
    /// When the instance was made.
    pub create_index: u64,
    /// When the instance last changed.
    pub modify_index: u64,
}

/// `GET /v1/catalog/node/:node`: a node with its instances by id; the whole answer is `null` for an
/// unknown node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeServices {
    /// The node.
    pub node: Node,
    /// Its instances by id.
    pub services: BTreeMap<String, NodeService>,
}

/// `GET /v1/catalog/node-services/:node`: the same with a list; both `null` for an unknown node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeServiceList {
    /// The node.
    pub node: Option<Node>,
    /// Its instances by id.
    pub services: Option<Vec<NodeService>>,
}

/// Body of `PUT /v1/catalog/register`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Registration {
    /// The datacenter's name, or empty.
    pub datacenter: String,
    /// The node's id, or empty.
    #[serde(rename = "ID")]
    pub id: String,
    /// The node's name; required.
    pub node: String,
    /// The node's address; required unless `SkipNodeUpdate`.
    pub address: String,
    /// The node's addresses by purpose.
    pub tagged_addresses: Option<TextMap>,
    /// The node's metadata.
    pub node_meta: Option<TextMap>,
    /// A service instance.
    pub service: Option<ServiceDefinition>,
    /// A check.
    pub check: Option<CheckRegistration>,
    /// More checks.
    pub checks: Vec<CheckRegistration>,
    /// Leave an existing node as it is.
    pub skip_node_update: bool,
    /// Where the node runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
}

/// A service instance in a [`Registration`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceDefinition {
    /// The kind of a mesh service, or empty.
    pub kind: String,
    /// The instance's id; the name when empty.
    #[serde(rename = "ID")]
    pub id: String,
    /// The service's name.
    pub service: String,
    /// Tags.
    pub tags: Vec<String>,
    /// Its own address, or empty.
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
    /// Settings of a mesh proxy, without effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Map<String, Value>>,
    /// Settings of Consul's service mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<Map<String, Value>>,
}

/// A check in a [`Registration`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckRegistration {
    /// The registration's node, or empty.
    pub node: String,
    /// The check's id; the name when empty.
    #[serde(rename = "CheckID")]
    pub check_id: String,
    /// A name for people.
    pub name: String,
    /// Its status; `critical` when empty.
    pub status: String,
    /// Notes for people.
    pub notes: String,
    /// Its output.
    pub output: String,
    /// The instance it belongs to; empty for a check of the node.
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    /// Its type; derived from the definition when empty.
    #[serde(rename = "Type")]
    pub kind: String,
    /// How it is run.
    pub definition: DefinitionBody,
}

/// How a check of the catalogue is run; durations are nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DefinitionBody {
    /// Time between two runs.
    pub interval: i64,
    /// Longest time of a run.
    pub timeout: i64,
    /// Critical for so long removes the service.
    pub deregister_critical_service_after: i64,
    /// Time to live.
    #[serde(rename = "TTL")]
    pub ttl: i64,
    /// A TTL check warns after so long without a heartbeat; shorter than the TTL.
    #[serde(skip_serializing_if = "is_zero")]
    pub warn_after: i64,
    /// URL to fetch.
    #[serde(rename = "HTTP")]
    pub http: String,
    /// Headers to send.
    pub header: Option<BTreeMap<String, Vec<String>>>,
    /// HTTP method.
    pub method: String,
    /// HTTP body.
    pub body: String,
    /// Server name for TLS.
    #[serde(rename = "TLSServerName")]
    pub tls_server_name: String,
    /// Whether any certificate is accepted.
    #[serde(rename = "TLSSkipVerify")]
    pub tls_skip_verify: bool,
    /// `host:port` to connect to.
    #[serde(rename = "TCP")]
    pub tcp: String,
    /// `host:port` to send a datagram to.
    #[serde(rename = "UDP")]
    pub udp: String,
    /// `host:port/service` to ask for its gRPC health.
    #[serde(rename = "GRPC")]
    pub grpc: String,
    /// Whether the gRPC check uses TLS.
    #[serde(rename = "GRPCUseTLS")]
    pub grpc_use_tls: bool,
    /// `host:port` for an HTTP/2 ping.
    #[serde(rename = "H2PING")]
    pub h2ping: String,
    /// Node of the service that an alias check follows.
    pub alias_node: String,
    /// The service that an alias check follows.
    pub alias_service: String,
    /// A command with its arguments, that no catalogue runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub script_args: Vec<String>,
    /// The container that the command is for.
    #[serde(rename = "DockerContainerID", skip_serializing_if = "String::is_empty")]
    pub docker_container_id: String,
    /// A service of the operating system.
    #[serde(rename = "OSService", skip_serializing_if = "String::is_empty")]
    pub os_service: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(nanos: &i64) -> bool {
    *nanos == 0
}

/// Body of `PUT /v1/catalog/deregister`: the check, else the service, else the whole node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Deregistration {
    /// The datacenter's name, or empty.
    pub datacenter: String,
    /// The node's name; required.
    pub node: String,
    /// A service's id, or empty.
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    /// A check's id, or empty.
    #[serde(rename = "CheckID")]
    pub check_id: String,
}
