//! Instances and streams: `GET /v1/quorate/instances` and `GET /v1/quorate/stream`.

use serde::{Deserialize, Serialize};

use super::TextMap;
use super::agent::ServiceRegistration;
use super::history::HistoryEvent;

/// An instance as lists and streams show it, by whatever API it was registered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Instance {
    /// The service's name.
    pub service: String,
    /// The instance's id.
    #[serde(rename = "ID")]
    pub id: String,
    /// The node's name.
    pub node: String,
    /// The instance's address, or its node's.
    pub address: String,
    /// Its port.
    pub port: i64,
    /// The worst of its checks and its node's: `passing`, `warning` or `critical`.
    pub status: String,
    /// Whether it is passing.
    pub active: bool,
    /// Why its status is `warning`: the output of the worst check (of maintenance the reason; its name, if it
    /// said nothing), at most 256 bytes of it. Empty in any other status.
    pub warning: String,
    /// The same of the status `critical`.
    pub error: String,
    /// Since when it has its status, RFC 3339; absent: for longer than the history is kept.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub since: String,
    /// How long ago its youngest heartbeat came, in milliseconds of cluster time; absent: it has no TTL check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// When that was, RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_heard: String,
    /// A name for the process, as far as its heartbeats say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub process: String,
    /// Its process id, as far as its heartbeats say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u64>,
    /// When it was started, in milliseconds since 1970 by its own clock, as far as its heartbeats say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<u64>,
    /// Its version, as far as its heartbeats say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// How far it has counted, as far as its heartbeats say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counter: Option<u64>,
    /// After so long a silence there is a warning, a Go duration; absent: there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub warn_after: String,
    /// After so long a silence it is critical; absent: no heartbeats are expected.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub critical_after: String,
    /// How often another process took over, as far as its heartbeats say.
    pub restarts: u32,
    /// `open` while a connection holds it, `ended` while its linger runs, `moved` while it is waited for at
    /// another server, `over` when it is not waited for any more; absent: it was registered otherwise.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub presence: String,
    /// Tags.
    pub tags: Vec<String>,
    /// Metadata.
    pub meta: TextMap,
}

/// Body of `PUT /v1/quorate/presence`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PresenceRegistration {
    /// The instance.
    #[serde(flatten)]
    pub service: ServiceRegistration,
    /// The process that holds it: a UUID; the server makes one when it is empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// Which of the owner's attempts this is: 1, 2, ...
    #[serde(skip_serializing_if = "is_zero")]
    pub attempt: u64,
    /// The instance goes after it was critical for so long for want of a connection, in nanoseconds, at least a
    /// minute; 0: never.
    #[serde(skip_serializing_if = "is_nought")]
    pub deregister_critical_service_after: i64,
    /// The service's name, as heartbeats call it.
    #[serde(rename = "Service", skip_serializing_if = "String::is_empty")]
    pub service_name: String,
    /// What the process says of itself.
    #[serde(flatten)]
    pub process: PresenceProcess,
}

/// What a process that opens a presence says of itself; the members are those of a
/// [`Heartbeat`](super::heartbeat::Heartbeat). If it gives a time after which its silence shows, it has to send
/// heartbeats as well.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PresenceProcess {
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
    /// Where its heartbeats begin to count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counter: Option<u64>,
    /// After so long a silence there is a warning (a Go duration).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warn_after: Option<String>,
    /// After so long a silence it is critical: 1 s to 24 h.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub critical_after: Option<String>,
    /// The status that its heartbeats begin with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// What its heartbeats begin with, at most 512 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
const fn is_nought(nanos: &i64) -> bool {
    *nanos == 0
}

/// Frame `registered` of a presence: the instance passes from here on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PresenceRegistered {
    /// The instance's node.
    pub node: String,
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// What holds it: the server's Raft id, its boot, and the number of the command.
    pub lease: String,
    /// The server's name.
    pub server: String,
}

/// Frame `snapshot`: instances, in the order of service, node and id. Large lists come in several.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct StreamSnapshot {
    /// All records up to this one are in it.
    pub seq: u64,
    /// The index (`X-Consul-Index`) of the state that it shows.
    pub index: u64,
    /// The instances.
    pub instances: Vec<Instance>,
    /// Whether it was the last part.
    pub complete: bool,
}

/// Frame `change`: a record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct StreamChange {
    /// The record.
    #[serde(flatten)]
    pub event: HistoryEvent,
    /// The instance that it is about, or that the claim has or had, as of the sending state; `null`: there is none (any
    /// more).
    pub row: Option<Instance>,
    /// The instances whose status follows a check of their node, for a record of such a check.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<Instance>,
    /// How many more there are than `rows` shows: `GET /v1/quorate/instances` lists them.
    #[serde(skip_serializing_if = "is_zero")]
    pub rows_left: u64,
}

/// Frame `beats`: of whom something was heard since the last one; the first of a stream shows all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct StreamBeats {
    /// Cluster time of the look, in milliseconds.
    pub time: u64,
    /// The heartbeats.
    pub beats: Vec<StreamBeat>,
}

/// The last heartbeat of an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct StreamBeat {
    /// The instance's node.
    pub node: String,
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// How long before `Time` it came, in milliseconds.
    pub age_ms: u64,
    /// How far the process has counted, as far as its heartbeats say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counter: Option<u64>,
    /// Its process id, as far as its heartbeats say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u64>,
}

/// Frame `gap`: the records after `Since` are not kept any more. A snapshot follows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct StreamGap {
    /// From where the reader wanted to go on.
    pub since: u64,
    /// The newest record that is lost, or, if the reader was ahead, the newest there is.
    pub last: u64,
}

/// Frame `leader`: who leads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct StreamLeader {
    /// The server's name; `null`: nobody, as far as this server knows.
    pub leader: Option<String>,
}

/// Frame `moved`: this server stops, others go on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct StreamMoved {
    /// `http://IP:PORT` of the other servers.
    pub servers: Vec<String>,
    /// How long to wait before going there, in milliseconds: not all at once.
    pub retry_ms: u64,
}
