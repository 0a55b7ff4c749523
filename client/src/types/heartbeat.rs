//! Heartbeats with facts: `PUT /v1/quorate/heartbeat`.

use serde::{Deserialize, Serialize};

use super::TextMap;

/// A heartbeat, which is the registration: an unknown instance is registered, a different definition changes it,
/// else it renews. Only `Service` is required. What is absent is left as it is, or gets its default where the
/// instance is new.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Heartbeat {
    /// The service's name.
    pub service: String,
    /// The instance's id; the service's name when empty.
    #[serde(rename = "ID", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The node whose agent has the instance; that of the caller's agent when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// The instance's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Its port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
    /// A name for the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    /// Its process id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u64>,
    /// When it was started, in milliseconds since 1970 by its own clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<u64>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// A number that only rises while the process runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counter: Option<u64>,
    /// Tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta: Option<TextMap>,
    /// After so long a silence there is a warning (a Go duration, default `30s`); `0s`: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warn_after: Option<String>,
    /// After so long a silence it is critical: 1 s to 24 h, default `90s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub critical_after: Option<String>,
    /// `passing` (default), `warning` or `critical`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// What else there is to say, at most 512 bytes. One that changes alone is shown once a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What became of the heartbeats of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Heartbeats {
    /// How many took effect.
    pub accepted: u64,
    /// How many of those registered an instance.
    pub registered: u64,
    /// The others, in the order of the request.
    pub rejected: Vec<RejectedHeartbeat>,
}

/// A heartbeat that had no effect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RejectedHeartbeat {
    /// Its place in the request: 0 is the first.
    pub index: usize,
    /// The instance's id, as far as it could be read.
    #[serde(rename = "ID")]
    pub id: String,
    /// Why.
    pub error: String,
}
