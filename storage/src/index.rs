//! The change counter that clients see, and the things a client can watch.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Counts the commands that visibly changed something: `X-Consul-Index`, `CreateIndex` and
/// `ModifyIndex`.
///
/// It is **not** the index of a Raft log entry. One entry holds many commands, and two writes to a
/// key must never share a `ModifyIndex`, or a compare-and-set would pass that should not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Index(pub u64);

impl Index {
    /// The counter before the first change. Clients treat 0 as an error, so no index
    /// is ever 0; the first visible change gets 2.
    pub const START: Self = Self(1);

    /// The index after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Default for Index {
    fn default() -> Self {
        Self::START
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One thing that a blocking query can wait for.
///
/// A query takes its index ([`State::topic_index`](crate::State::topic_index)) and its wake-up from
/// the *same* topic. `apply` reports the topics it touched: single keys, and a prefix when everything
/// below it was deleted. Who watches a prefix is found by the keys below it, and by the deleted
/// prefixes below and around it; who watches a key, by the deleted prefixes around it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// One key of the key-value store.
    Key(Arc<str>),
    /// All keys that begin with this string (an empty one: the whole store). Reported by `apply` when
    /// all of them were deleted.
    Prefix(Arc<str>),
    /// All instances of one service, their checks, their nodes and their nodes' checks. The name is
    /// in lower case: service look-ups ignore case.
    Service(Arc<str>),
    /// The table of services: names and tags, not health.
    Services,
    /// The table of nodes.
    Nodes,
    /// One node (name in lower case) and its services.
    Node(Arc<str>),
    /// The table of checks.
    Checks,
    /// The table of sessions.
    Sessions,
    /// Users' events.
    Events,
    /// Coordinates of nodes.
    Coordinates,
    /// Prepared queries.
    Queries,
    /// All topics: a backup was restored. Only reported, never watched.
    Everything,
    /// The configuration of autopilot.
    Autopilot,
    /// The pool of one service (name in lower case): its instances, who has them, and the line. Its index is
    /// of the claims' own counter.
    Pool(Arc<str>),
    /// One claim, by its id. Its index is of the claims' own counter.
    Claim(Arc<str>),
    /// The table of tokens.
    AclTokens,
    /// The table of policies.
    AclPolicies,
    /// The table of roles.
    AclRoles,
}

impl Topic {
    /// The topic of a service, by its name in any case.
    #[must_use]
    pub fn service(name: &str) -> Self {
        Self::Service(fold(name).into())
    }

    /// The topic of a service's pool, by its name in any case.
    #[must_use]
    pub fn pool(name: &str) -> Self {
        Self::Pool(fold(name).into())
    }

    /// Whether its index is of the claims' own counter.
    #[must_use]
    pub const fn is_of_claims(&self) -> bool {
        matches!(self, Self::Pool(_) | Self::Claim(_))
    }

    /// The topic of a node, by its name in any case.
    #[must_use]
    pub fn node(name: &str) -> Self {
        Self::Node(fold(name).into())
    }
}

/// The form of a node's or service's name by which it is found: ASCII letters in lower case.
///
/// Only ASCII, because Unicode's case tables differ between versions of the standard library, and
/// replicas that run different builds must fold alike.
#[must_use]
pub fn fold(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}
