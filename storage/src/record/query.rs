//! Prepared queries: look-ups of a service that are stored under a name.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Indexes, TextMap};

/// What a client says of a prepared query; the state adds the indexes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryDefinition {
    /// A UUID in text form.
    pub id: Arc<str>,
    /// Its name, or empty; not unique among templates and names of services.
    pub name: String,
    /// The session with which it ends, or empty.
    pub session: Arc<str>,
    /// Accepted and shown.
    pub token: String,
    /// Empty, or `name_prefix_match`: then it answers for all names that begin with its own.
    pub template_kind: String,
    /// The regular expression whose groups a template can insert.
    pub template_regexp: String,
    /// Whether tags that a template made empty are dropped.
    pub remove_empty_tags: bool,
    /// The service to look up.
    pub service: String,
    /// How many of the nearest other datacenters to try; accepted and shown.
    pub failover_nearest: i64,
    /// Other datacenters to try; accepted and shown.
    pub failover_datacenters: Option<Vec<String>>,
    /// Whether instances with a warning are left out.
    pub only_passing: bool,
    /// Checks that do not count.
    pub ignored_checks: Option<Vec<String>>,
    /// The node that results are sorted by distance to.
    pub near: String,
    /// Tags that an instance must have, or with a leading `!` must not have.
    pub tags: Option<Vec<String>>,
    /// Metadata that its node must have.
    pub node_meta: Option<TextMap>,
    /// Metadata that it must have.
    pub service_meta: Option<TextMap>,
    /// Accepted and shown.
    pub connect: bool,
    /// Time to live of DNS answers as written, or empty.
    pub dns_ttl: String,
}

impl QueryDefinition {
    /// Whether it is found by names. One that is not is known by its id alone. (A template may have an empty name.)
    #[must_use]
    pub fn is_named(&self) -> bool {
        !self.name.is_empty() || !self.template_kind.is_empty()
    }
}

/// A prepared query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// What the client said.
    pub definition: QueryDefinition,
    /// When it was made and last changed.
    pub indexes: Indexes,
}
