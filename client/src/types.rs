//! The shapes of Consul's JSON, one module per area of the API.
//!
//! Answers keep Consul's distinction between `null`, `[]`, `{}` and a member that is left out,
//! because typed clients notice it. When reading, members that are missing take their default and
//! unknown ones are ignored. (A server reads request bodies more strictly.)

pub mod acl;
pub mod agent;
pub mod catalog;
pub mod claim;
pub mod coordinate;
pub mod event;
pub mod health;
pub mod heartbeat;
pub mod history;
pub mod kv;
pub mod live;
pub mod operator;
pub mod query;
pub mod quorate;
pub mod session;
pub mod txn;
pub mod worker;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A map of text to text: metadata, node addresses, member tags.
pub type TextMap = BTreeMap<String, String>;

/// An address with a port: `{"Address":"10.0.0.1","Port":80}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceAddress {
    /// An IP address or a host name.
    pub address: String,
    /// The port, as given.
    pub port: i64,
}

/// Where something runs: `{"Region":"eu","Zone":"eu-1"}`, without what is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Locality {
    /// The region.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub region: String,
    /// The zone in it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub zone: String,
}

/// DNS weights of an instance: `{"Passing":1,"Warning":1}`. A member that is not given is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Weights {
    /// While all checks pass.
    pub passing: i64,
    /// While a check warns.
    pub warning: i64,
}

/// An object without members, `{}`, where Consul shows parts of its service mesh.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// The settings of a mesh proxy. An instance that is no proxy has few or none of them, and without a mesh
/// they have no effect: `{"MeshGateway":{},"Expose":{}}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Proxy {
    /// Shown even when it is empty.
    pub mesh_gateway: Map<String, Value>,
    /// Shown even when it is empty.
    pub expose: Map<String, Value>,
    /// Whatever else was given, by canonical names.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}
