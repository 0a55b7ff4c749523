//! What the state keeps, row by row.
//!
//! These are not the JSON shapes of the API (one service has three of those, and they live in the
//! client crate) and not the commands of the log: each of the three can change without the others.
//! All strings are as the client gave them; look-ups by node and service name ignore case.

mod acl;
mod authority;
mod claim;
mod coordinate;
mod event;
mod facts;
mod from_file;
mod history;
mod later;
mod locality;
mod presence;
mod query;
mod registration;
mod target;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use self::acl::{
    ANONYMOUS_ACCESSOR, ANONYMOUS_SECRET, Access, AclKind, AclLinks, AclPolicy, AclRole, AclRule,
    AclToken, MANAGEMENT_NAME, MANAGEMENT_POLICY, NodeIdentity, RESERVED_IDS, SecretHash,
    ServiceIdentity,
};
pub use self::authority::{Authority, DefaultPolicy};
pub use self::claim::{
    ATTACHMENTS_MAX, Attachment, CLAIM_DELAY, CLAIM_DELAY_DEFAULT, CLAIM_DELAY_MAX, Claim,
    ClaimEnd, ClaimFacts, ClaimPhase, ClosedSlot, Grant, PoolCounts, PoolMember, REQUIRES_MAX,
    SLOTS, SLOTS_MAX, WAITERS_MAX, WAITERS_PER_HOLDER_MAX, WAITERS_PER_POOL_MAX,
};
pub use self::coordinate::{Coordinate, Real};
pub use self::event::Event;
pub(crate) use self::facts::is_made_by_heartbeats;
pub use self::facts::{Facts, HEARTBEAT_CHECK};
pub use self::from_file::{FromFile, without_file_mark};
pub use self::history::{
    Cause, Detail, HISTORY_OUTPUT_BYTES_MAX, HistoryKind, HistoryRecord, RequestFacts, Ring,
    Subject, WallTime,
};
pub use self::later::LaterMembers;
pub(crate) use self::locality::is_locality;
pub use self::locality::with_locality;
pub use self::presence::{
    EndedPresence, Lease, OnClose, PRESENCE_CHECK, PRESENCE_KIND, Presence, PresenceEnd,
    PresenceTerms,
};
pub use self::query::{Query, QueryDefinition};
pub use self::registration::CatalogRegistration;
pub use self::target::is_own_host;
pub use self::worker::{
    Standing, View, Views, WORKER_NETWORK, WORKER_SERVICE, Worker, WorkerId, WorkerProcess,
};

use crate::{ClusterTime, Index, Millis};

/// Name and id of the service whose instances are this cluster's servers.
pub const SERVER_SERVICE: &str = "consul";
/// Key of a server's Raft id in the metadata of its instance of [`SERVER_SERVICE`].
pub const RAFT_ID: &str = "raft_id";
/// Id of the check that says whether a node is alive.
pub const SERF_HEALTH: &str = "serfHealth";
/// What it says of a node that is alive (Consul's words).
pub const SERF_ALIVE: &str = "Agent alive and reachable";
/// The shortest `deregister_critical_service_after` that counts (Consul's minimum).
pub const DEREGISTER_AFTER_MIN: Millis = Millis::from_secs(60);
/// How many keys one session holds at most. Its end releases or deletes all of them in one entry, while
/// nothing else is applied. Consul has no such limit; an elected leader holds a handful.
pub const SESSION_KEYS_MAX: usize = 65_536;

/// A small map of text to text, such as a service's metadata. Ordered, so that every replica
/// encodes it alike.
pub type TextMap = BTreeMap<String, String>;

/// An instance's tags in the client's order. Shared, because each of the instance's checks repeats them.
pub type Tags = Arc<[String]>;

/// When a row was made and last visibly changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Indexes {
    /// The index of the change that made the row.
    pub create: Index,
    /// The index of the row's last visible change.
    pub modify: Index,
}

/// A host in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The node's unique name, in its original case.
    pub name: Arc<str>,
    /// A UUID in text form, or empty.
    pub id: String,
    /// An IP address or a host name.
    pub address: String,
    /// Addresses by purpose (`lan`, `wan`, ...); `None` is JSON's `null`, which clients can tell
    /// from `{}`. The node's locality lies here too: see [`with_locality`], [`Node::locality`] and
    /// [`Node::addresses`].
    pub tagged_addresses: Option<TextMap>,
    /// Free-form metadata; `None` is JSON's `null`.
    pub meta: Option<TextMap>,
    /// What made the node, which decides when it goes.
    pub kind: NodeKind,
    /// When it was made and last changed.
    pub indexes: Indexes,
}

/// What made a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeKind {
    /// `PUT /v1/catalog/register`: stays until it is deregistered.
    Registered,
    /// The agent of a client's host, made by its first registration; goes after an hour of cluster
    /// time with nothing on it.
    Agent,
    /// The agent of a server's own host: stays as long as the server is a member.
    ServerAgent,
    /// A server of this cluster; goes when it leaves the membership.
    Server,
}

/// An address with a port, such as a service's `lan_ipv4`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAddress {
    /// An IP address or a host name.
    pub address: String,
    /// The port, as given.
    pub port: i64,
}

/// DNS weights of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights {
    /// While all checks pass.
    pub passing: i64,
    /// While a check warns.
    pub warning: i64,
}

impl Default for Weights {
    fn default() -> Self {
        Self { passing: 1, warning: 1 }
    }
}

/// What a client says of a service instance; the state adds the node and the indexes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceDefinition {
    /// The instance's id, unique on its node.
    pub id: Arc<str>,
    /// The service's name.
    pub name: Arc<str>,
    /// Tags in the client's order.
    pub tags: Tags,
    /// The instance's own address; empty means its node's.
    pub address: String,
    /// Addresses by purpose.
    pub tagged_addresses: BTreeMap<String, ServiceAddress>,
    /// Free-form metadata; `None` is JSON's `null`.
    pub meta: Option<TextMap>,
    /// The port, as given (the API takes any integer).
    pub port: i64,
    /// DNS weights.
    pub weights: Weights,
    /// Whether other agents may change the tags.
    pub enable_tag_override: bool,
    /// What has no member of its own: empty, or the kind of a mesh service (accepted by versions before
    /// 0.2), or a JSON object, which no kind looks like. In the object are the settings of a proxy that were
    /// given for an instance that is none, and `SocketPath` and `Locality`, which no proxy has. They share
    /// a member because members cannot be added to a row that lies within others: see
    /// [`ServiceDefinition::mesh_kind`], [`ServiceDefinition::settings`] and
    /// [`FromFile::is_from_file`], whose mark lies before it.
    pub kind: String,
}

impl ServiceDefinition {
    /// The kind of a mesh service, otherwise empty.
    #[must_use]
    pub fn mesh_kind(&self) -> &str {
        if self.settings().is_some() { "" } else { without_file_mark(&self.kind) }
    }

    /// What was given of a proxy's settings, a socket and a locality, as one JSON object.
    #[must_use]
    pub fn settings(&self) -> Option<&str> {
        Some(without_file_mark(&self.kind)).filter(|kind| kind.starts_with('{'))
    }
}

/// A service instance in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// The node it runs on.
    pub node: Arc<str>,
    /// What the client said.
    pub definition: ServiceDefinition,
    /// When it was made and last changed.
    pub indexes: Indexes,
}

/// The state of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckStatus {
    /// All is well.
    Passing,
    /// Usable, but worth a look.
    Warning,
    /// Not usable.
    Critical,
    /// Any other text that a `catalog/register` gave; treated as not passing.
    Other(String),
}

impl CheckStatus {
    /// The word that the API uses.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Other(text) => text,
        }
    }

    /// Reads the word that the API uses; any other text is kept as it is.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        match text {
            "passing" => Self::Passing,
            "warning" => Self::Warning,
            "critical" => Self::Critical,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// How a check is to be run, as far as the client said so. Empty and zero members were not given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckDefinition {
    /// Time between two runs.
    pub interval: Millis,
    /// Longest time that a run may take.
    pub timeout: Millis,
    /// Remove the service after it was critical for so long; zero: never.
    pub deregister_critical_service_after: Millis,
    /// A TTL check's time to live; zero: not a TTL check.
    pub ttl: Millis,
    /// URL to fetch.
    pub http: String,
    /// HTTP method; empty is GET.
    pub method: String,
    /// HTTP request headers; `None` is JSON's `null`.
    pub header: Option<BTreeMap<String, Vec<String>>>,
    /// HTTP request body.
    pub body: String,
    /// Server name for TLS.
    pub tls_server_name: String,
    /// Whether to accept any certificate.
    pub tls_skip_verify: bool,
    /// `host:port` to connect to.
    pub tcp: String,
    /// `host:port/service` to ask for its gRPC health.
    pub grpc: String,
    /// Whether the gRPC check uses TLS.
    pub grpc_use_tls: bool,
    /// `host:port` to send a datagram to.
    pub udp: String,
    /// `host:port` for an HTTP/2 ping.
    pub h2ping: String,
    /// Node of the service that an alias check follows; empty: the check's own node.
    pub alias_node: String,
    /// Id of the service that an alias check follows.
    pub alias_service: String,
    /// Runs that must pass before the status becomes passing.
    pub success_before_passing: u32,
    /// Runs that must fail before the status becomes warning.
    pub failures_before_warning: u32,
    /// Runs that must fail before the status becomes critical.
    pub failures_before_critical: u32,
    /// How much of a run's output is kept, in bytes; zero: the default.
    pub output_max_bytes: u32,
    /// Whether an HTTP check takes a redirect as its answer instead of following it.
    pub disable_redirects: bool,
    /// Whether the TCP check uses TLS.
    pub tcp_use_tls: bool,
    /// What came after its encoding was fixed.
    pub later: LaterMembers,
}

impl CheckDefinition {
    /// Whether the cluster can run it: it has a target and is not a TTL check.
    #[must_use]
    pub fn is_run(&self) -> bool {
        self.ttl.is_zero() && (self.has_target() || self.is_alias())
    }

    /// Whether it follows the checks of another service or node.
    #[must_use]
    pub fn is_alias(&self) -> bool {
        !self.alias_node.is_empty() || !self.alias_service.is_empty()
    }
}

/// What a client says of a check; the state adds the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRegistration {
    /// The check's id, unique on its node.
    pub id: Arc<str>,
    /// A name for people.
    pub name: String,
    /// Status to begin with. An agent's check that already exists keeps its own.
    pub status: CheckStatus,
    /// Notes for people.
    pub notes: String,
    /// Output to begin with.
    pub output: String,
    /// The service instance it belongs to; empty for a check of the whole node.
    pub service_id: Arc<str>,
    /// The API's `Type`, perhaps with a mark before it: see [`CheckRegistration::check_type`] and
    /// [`FromFile::is_from_file`].
    pub kind: String,
    /// How to run it.
    pub definition: CheckDefinition,
}

/// A check in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The node it belongs to.
    pub node: Arc<str>,
    /// What the client said, with the present status and output.
    pub registration: CheckRegistration,
    /// Name of the service it belongs to, or empty.
    pub service_name: Arc<str>,
    /// Tags of that service: the same allocation as its own.
    pub service_tags: Tags,
    /// A small number that stands for this check in heartbeats and orders its expiry; never
    /// reused. [`State::last_seen`](crate::State::last_seen) knows its last heartbeat, which is
    /// kept apart so that a heartbeat does not copy this row.
    pub number: u64,
    /// Since when it has been critical without a break.
    pub critical_since: Option<ClusterTime>,
    /// When it was made and last visibly changed.
    pub indexes: Indexes,
    /// What the client last said, while the row shows what its silence makes of that. Not in the row's own
    /// encoding, which was fixed before: a snapshot has a record of its own for it.
    #[serde(skip)]
    pub said: Option<Arc<Said>>,
}

/// A status and its output, as a client said them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// The status.
    pub status: CheckStatus,
    /// The output.
    pub output: String,
}

impl Check {
    /// What the client last said of a TTL check.
    #[must_use]
    pub fn said(&self) -> (&CheckStatus, &str) {
        match &self.said {
            Some(said) => (&said.status, &said.output),
            None => (&self.registration.status, &self.registration.output),
        }
    }

    /// How long the client may be silent until its silence changes this TTL check, for the first or the second
    /// time.
    #[must_use]
    pub fn patience(&self) -> Millis {
        let definition = &self.registration.definition;
        match definition.later.warn_after {
            Millis::ZERO => definition.ttl,
            _ if self.said.is_some() => definition.ttl,
            warn_after => warn_after,
        }
    }

    /// Whether it is the `serfHealth` of a node whose agent's process says itself that it lives
    /// ([`Command::WatchAgent`](crate::command::Command::WatchAgent)). A TTL check that a client
    /// registered under that id has a type.
    #[must_use]
    pub fn is_liveness(&self) -> bool {
        let what = &self.registration;
        &*what.id == SERF_HEALTH
            && what.service_id.is_empty()
            && what.kind.is_empty()
            && !what.definition.ttl.is_zero()
    }
}

/// One key of the key-value store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvEntry {
    /// The key: any UTF-8 text.
    pub key: Arc<str>,
    /// The value: any bytes.
    pub value: Bytes,
    /// A number of the client's.
    pub flags: u64,
    /// How often a session newly acquired the key.
    pub lock_index: u64,
    /// The session that holds the key.
    pub session: Option<Arc<str>>,
    /// When it was made and last changed.
    pub indexes: Indexes,
}

/// What happens to a session's keys when it ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionBehavior {
    /// They are released.
    #[default]
    Release,
    /// They are deleted.
    Delete,
}

/// A session: what locks are bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// A UUID in text form.
    pub id: Arc<str>,
    /// A name for people.
    pub name: String,
    /// The node it is bound to.
    pub node: Arc<str>,
    /// How long its keys cannot be acquired after it was invalidated, in nanoseconds as given;
    /// effective up to a minute.
    pub lock_delay_nanos: u64,
    /// What happens to its keys.
    pub behavior: SessionBehavior,
    /// The TTL as the client wrote it, or empty.
    pub ttl_text: String,
    /// The TTL; zero: none. The session ends when 2 x TTL of cluster time passed since the last
    /// renewal (Consul's rule).
    pub ttl: Millis,
    /// Node checks it depends on.
    pub node_checks: Vec<String>,
    /// Service checks it depends on: (check id, namespace), `None` is JSON's `null`.
    pub service_checks: Option<Vec<(String, String)>>,
    /// The deprecated list of checks, as given.
    pub checks: Option<Vec<String>>,
    /// A number that orders expiry; never reused. [`State::last_seen`](crate::State::last_seen)
    /// knows the last renewal.
    pub number: u64,
    /// When it was made and last changed.
    pub indexes: Indexes,
}

/// What an operator says of autopilot. Stored for the tools that read and write it. Nothing but
/// `autopilot/health` acts on it: a server leaves the membership only when it is told to, because one
/// that is stopped for an hour is not gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutopilotSettings {
    /// Whether dead servers are to be removed; never done.
    pub cleanup_dead_servers: bool,
    /// A server that has not heard of the leader for so long is unhealthy, in nanoseconds.
    pub last_contact_threshold_nanos: u64,
    /// A server that is so many entries behind the leader is unhealthy.
    pub max_trailing_logs: u64,
    /// The fewest servers to leave when dead ones are removed.
    pub min_quorum: u64,
    /// How long a new server must be healthy before it counts, in nanoseconds.
    pub server_stabilization_time_nanos: u64,
    /// A key of node metadata (of Consul Enterprise).
    pub redundancy_zone_tag: String,
    /// Of Consul Enterprise.
    pub disable_upgrade_migration: bool,
    /// A key of node metadata (of Consul Enterprise).
    pub upgrade_version_tag: String,
}

impl Default for AutopilotSettings {
    /// Consul's defaults.
    fn default() -> Self {
        Self {
            cleanup_dead_servers: true,
            last_contact_threshold_nanos: 200_000_000,
            max_trailing_logs: 250,
            min_quorum: 0,
            server_stabilization_time_nanos: 10_000_000_000,
            redundancy_zone_tag: String::new(),
            disable_upgrade_migration: false,
            upgrade_version_tag: String::new(),
        }
    }
}

/// The configuration of autopilot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Autopilot {
    /// What an operator said.
    pub settings: AutopilotSettings,
    /// When it was made and last changed.
    pub indexes: Indexes,
}
