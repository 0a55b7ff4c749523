//! Sessions: what locks are bound to.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A session, as `GET /v1/session/{info,node,list}` list it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Session {
    /// A UUID.
    #[serde(rename = "ID")]
    pub id: String,
    /// A name for people.
    pub name: String,
    /// The node it is bound to.
    pub node: String,
    /// For how long its keys cannot be acquired after it was invalidated, in nanoseconds.
    pub lock_delay: u64,
    /// What becomes of its keys: `release` or `delete`.
    pub behavior: String,
    /// The TTL as the client wrote it, or empty.
    #[serde(rename = "TTL")]
    pub ttl: String,
    /// Node checks it depends on.
    pub node_checks: Vec<String>,
    /// Service checks it depends on; may be `null`.
    pub service_checks: Option<Vec<ServiceCheck>>,
    /// The deprecated list of checks; left out when it was not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checks: Option<Vec<String>>,
    /// When it was made.
    pub create_index: u64,
    /// When it last changed.
    pub modify_index: u64,
}

/// A service check that a session depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceCheck {
    /// The check's id.
    #[serde(rename = "ID")]
    pub id: String,
    /// A namespace, which Consul's paid edition has.
    pub namespace: String,
}

/// Body of `PUT /v1/session/create`; all members are optional, and unknown ones are ignored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SessionCreate {
    /// A name for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// A node's name; empty: the agent's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// A Go duration, a number of seconds (below 1,000) or of nanoseconds; 15 s when absent.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub lock_delay: Value,
    /// `release` (also when empty) or `delete`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub behavior: String,
    /// A Go duration from 10 s to 24 h; empty: none.
    #[serde(rename = "TTL", skip_serializing_if = "String::is_empty")]
    pub ttl: String,
    /// Node checks; the node's `serfHealth` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_checks: Option<Vec<String>>,
    /// Service checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_checks: Option<Vec<ServiceCheck>>,
    /// The deprecated list of checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checks: Option<Vec<String>>,
}

/// Answer of `PUT /v1/session/create`, and of everything else that makes a thing with an id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Created {
    /// The new thing's id.
    #[serde(rename = "ID")]
    pub id: String,
}
