//! Prepared queries: look-ups of a service that are stored under a name.

use serde::{Deserialize, Serialize};

use super::TextMap;
use super::health::ServiceEntry;

/// A prepared query: an entry of `GET /v1/query`, and the body of `POST /v1/query` and
/// `PUT /v1/query/:id`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PreparedQuery {
    /// A UUID.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name, or empty.
    pub name: String,
    /// The session with which it ends, or empty.
    pub session: String,
    /// A token to run it with.
    pub token: String,
    /// Whether it answers for all names that begin with its own.
    pub template: QueryTemplate,
    /// What to look up.
    pub service: ServiceQuery,
    /// How DNS answers.
    #[serde(rename = "DNS")]
    pub dns: QueryDns,
    /// When it was made.
    pub create_index: u64,
    /// When it last changed.
    pub modify_index: u64,
}

/// How a query answers for several names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct QueryTemplate {
    /// Empty, or `name_prefix_match`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// A regular expression whose groups can be inserted.
    pub regexp: String,
    /// Whether tags that come out empty are dropped.
    pub remove_empty_tags: bool,
}

/// What a query looks up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceQuery {
    /// The service.
    pub service: String,
    /// Where else to look when nothing is found.
    pub failover: QueryFailover,
    /// Whether instances with a warning are left out.
    pub only_passing: bool,
    /// Checks that do not count.
    #[serde(rename = "IgnoreCheckIDs")]
    pub ignore_check_ids: Option<Vec<String>>,
    /// The node that results are sorted by distance to; `_agent` for the asking one.
    pub near: String,
    /// Tags that an instance must have, or with a leading `!` must not have.
    pub tags: Option<Vec<String>>,
    /// Metadata that its node must have.
    pub node_meta: Option<TextMap>,
    /// Metadata that it must have.
    pub service_meta: Option<TextMap>,
    /// Whether only mesh instances are wanted.
    pub connect: bool,
}

/// Other datacenters to try.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct QueryFailover {
    /// How many of the nearest.
    pub nearest_n: i64,
    /// Which ones, after those.
    pub datacenters: Option<Vec<String>>,
}

/// How DNS answers a query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct QueryDns {
    /// Time to live as a duration, or empty.
    #[serde(rename = "TTL")]
    pub ttl: String,
}

/// Answer of `GET /v1/query/:id-or-name/execute`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct QueryExecution {
    /// The service that was looked up.
    pub service: String,
    /// Instances without a critical check, in random order or by distance.
    pub nodes: Vec<ServiceEntry>,
    /// How DNS answers.
    #[serde(rename = "DNS")]
    pub dns: QueryDns,
    /// The datacenter that answered.
    pub datacenter: String,
    /// How many others failed before.
    pub failovers: u64,
    /// Always 0.
    pub index: u64,
    /// Nanoseconds since the server heard of the leader.
    pub last_contact: u64,
    /// Whether it knows a leader.
    pub known_leader: bool,
    /// The consistency that was asked for.
    pub consistency_level: String,
    /// Always false.
    pub not_modified: bool,
}

/// Answer of `GET /v1/query/:name/explain`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct QueryExplanation {
    /// The query that would be run, with its template filled in.
    pub query: PreparedQuery,
    /// Always 0.
    pub index: u64,
    /// Nanoseconds since the server heard of the leader.
    pub last_contact: u64,
    /// Whether it knows a leader.
    pub known_leader: bool,
    /// The consistency that was asked for.
    pub consistency_level: String,
    /// Always false.
    pub not_modified: bool,
}
