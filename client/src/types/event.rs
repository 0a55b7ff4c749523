//! Users' events.

use serde::{Deserialize, Serialize};

/// An event, as `PUT /v1/event/fire/:name` answers it and `GET /v1/event/list` lists it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UserEvent {
    /// A UUID.
    #[serde(rename = "ID")]
    pub id: String,
    /// What the event is called.
    pub name: String,
    /// Any bytes: base64 in JSON, `null` when empty.
    #[serde(serialize_with = "super::kv::to_base64", deserialize_with = "super::kv::from_base64")]
    pub payload: Vec<u8>,
    /// A regular expression for names of nodes; empty: all.
    pub node_filter: String,
    /// A regular expression for names of services; empty: all.
    pub service_filter: String,
    /// A regular expression for tags of these services; empty: all.
    pub tag_filter: String,
    /// Always 1.
    pub version: u64,
    /// Counts events; 0 in the answer of the request that fires one.
    #[serde(rename = "LTime")]
    pub time: u64,
}
