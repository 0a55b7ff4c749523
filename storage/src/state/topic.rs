//! The index of each topic.
//!
//! A row has an index of its own while it exists. What does not exist (a service without instances,
//! a missing key or node) shares an index of its table that is at least that of its removal, so no
//! topic's index ever falls: not when the row goes, and not when it comes back, since every new
//! change has a larger index than all before.

use serde::{Deserialize, Serialize};

use super::State;
use crate::index::fold;
use crate::{Index, Topic};

/// Indexes that belong to no single row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicIndexes {
    /// The newest change of the table of nodes.
    pub nodes: Index,
    /// Of services.
    pub services: Index,
    /// Of checks.
    pub checks: Index,
    /// Of sessions.
    pub sessions: Index,
    /// Of keys.
    pub kv: Index,
    /// The newest tombstone that was reaped.
    pub kv_floor: Index,
    /// When a service name last lost its last instance.
    pub extinction: Option<Index>,
}

/// Indexes and counters of the tables that came later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableIndexes {
    /// The newest event.
    pub events: Index,
    /// The newest change of a coordinate.
    pub coordinates: Index,
    /// The newest change of the table of prepared queries.
    pub queries: Index,
    /// How many events were fired.
    pub last_event: u64,
}

impl State {
    /// The index that a query on this topic reports (never below 1). It moves with every change
    /// that touches the topic, and never falls.
    #[must_use]
    pub fn topic_index(&self, topic: &Topic) -> Index {
        let index = self.own_index(topic);
        if topic.is_of_claims() {
            return index;
        }
        // Restored rows have the index that was reserved when the restore began.
        self.restored.map_or(index, |restored| index.max(restored))
    }

    fn own_index(&self, topic: &Topic) -> Index {
        let topics = &self.topics;
        match topic {
            Topic::Key(key) => self.kv.entries.get(key).map_or(topics.kv, |row| row.indexes.modify),
            Topic::Prefix(prefix) => self.prefix_index(prefix),
            Topic::Service(name) => self.service_index(name),
            Topic::Services => topics.services,
            Topic::Nodes => topics.nodes,
            Topic::Node(name) => self.catalog.slot(name).map_or(topics.nodes, |slot| slot.index),
            Topic::Checks => topics.checks,
            Topic::Sessions => topics.sessions,
            Topic::Events => self.tables.events,
            Topic::Coordinates => self.tables.coordinates,
            Topic::Queries => self.tables.queries,
            Topic::Everything => self.index,
            Topic::Autopilot => {
                self.autopilot.as_ref().map_or_else(Index::default, |row| row.indexes.modify)
            }
            Topic::AclTokens => self.acl.header.tokens,
            Topic::AclPolicies => self.acl.header.policies,
            Topic::AclRoles => self.acl.header.roles,
            Topic::Pool(name) => self.claims.pool_index(name),
            Topic::Claim(id) => self.claims.claim_index(id),
        }
    }

    /// The newest index below a prefix. One that was never used, or that was forgotten, reports the
    /// table's: larger than it need be, which costs one spurious wake-up and never a lost one.
    fn prefix_index(&self, prefix: &str) -> Index {
        let topics = &self.topics;
        self.kv
            .newest_below(prefix, topics.kv)
            .map_or(topics.kv, |found| found.max(topics.kv_floor))
    }

    /// A service's own index; without instances, that of the last extinction; before any, the
    /// newest of the catalogue.
    fn service_index(&self, name: &str) -> Index {
        if let Some(named) = self.catalog.names.get(&*fold(name)) {
            return named.index;
        }
        let topics = &self.topics;
        topics.extinction.unwrap_or_else(|| topics.nodes.max(topics.services).max(topics.checks))
    }
}
