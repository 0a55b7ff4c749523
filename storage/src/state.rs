//! The replicated state: one pure function from a state and an entry to the next state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::command::{Batch, CommandId, Outcome, Rejection};
use crate::record::{Check, KvEntry, Node, Service, Session};
use crate::{ClusterTime, Index, Topic};

/// What one entry did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// The outcome of each command, in the order of the entry.
    pub outcomes: Vec<(CommandId, Outcome)>,
    /// What visibly changed.
    pub touched: BTreeSet<Topic>,
}

/// Everything the cluster agrees on.
#[derive(Debug, Clone, Default)]
pub struct State {}

impl State {
    /// Applies one log entry.
    pub fn apply(&mut self, _batch: &Batch) -> Effects {
        unimplemented!()
    }
    /// Cluster time.
    pub fn time(&self) -> ClusterTime {
        unimplemented!()
    }
    /// The newest index.
    pub fn index(&self) -> Index {
        unimplemented!()
    }
    /// The index that a query on this topic reports (never below 1).
    pub fn topic_index(&self, _topic: &Topic) -> Index {
        unimplemented!()
    }
    /// The remembered outcome of a command, if it was applied and its origin has not said that it answered it.
    pub fn remembered(&self, _id: CommandId) -> Option<Outcome> {
        unimplemented!()
    }
    /// The earliest deadline that may be due (a lower bound: it may have been postponed since).
    pub fn next_deadline(&self) -> Option<ClusterTime> {
        unimplemented!()
    }
    /// A hash of everything replicated: equal at equal applied index on every node.
    pub fn hash(&self) -> [u8; 32] {
        unimplemented!()
    }
    /// Cross-checks all tables and derived structures.
    pub fn check_invariants(&self) -> Result<(), String> {
        unimplemented!()
    }

    /// A node by name (any case) or by id.
    pub fn node(&self, _name_or_id: &str) -> Option<&Arc<Node>> {
        unimplemented!()
    }
    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        std::iter::empty()
    }
    /// Service names with the union of their instances' tags.
    pub fn service_tags(&self) -> BTreeMap<Arc<str>, BTreeSet<&str>> {
        unimplemented!()
    }
    /// Instances of a service (name in any case), by node and id.
    pub fn instances(&self, _service: &str) -> impl Iterator<Item = &Arc<Service>> {
        std::iter::empty()
    }
    /// Service instances of a node (exact name), by id.
    pub fn services_on(&self, _node: &str) -> impl Iterator<Item = &Arc<Service>> {
        std::iter::empty()
    }
    /// All service instances, by node and id.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        std::iter::empty()
    }
    /// One service instance.
    pub fn service(&self, _node: &str, _id: &str) -> Option<&Arc<Service>> {
        unimplemented!()
    }
    /// All checks of a node, by id.
    pub fn checks_on(&self, _node: &str) -> impl Iterator<Item = &Arc<Check>> {
        std::iter::empty()
    }
    /// The checks that decide an instance's health: its own and its node's, by id.
    pub fn checks_of(&self, _service: &Service) -> impl Iterator<Item = &Arc<Check>> {
        std::iter::empty()
    }
    /// The checks of a service's instances (not their nodes'), by node and id.
    pub fn service_checks(&self, _service: &str) -> impl Iterator<Item = &Arc<Check>> {
        std::iter::empty()
    }
    /// All checks, by node and id.
    pub fn checks(&self) -> impl Iterator<Item = &Arc<Check>> {
        std::iter::empty()
    }
    /// One check.
    pub fn check(&self, _node: &str, _id: &str) -> Option<&Arc<Check>> {
        unimplemented!()
    }
    /// The service that an id means to an agent: its own, else the only one any agent has.
    pub fn find_service(&self, _agent: &str, _id: &str) -> Result<&Arc<Service>, Rejection> {
        unimplemented!()
    }
    /// The check that an id means to an agent: its own, else the only one any agent has.
    pub fn find_check(&self, _agent: &str, _id: &str) -> Result<&Arc<Check>, Rejection> {
        unimplemented!()
    }

    /// One key.
    pub fn key(&self, _key: &str) -> Option<&KvEntry> {
        unimplemented!()
    }
    /// All keys that begin with `prefix`, in byte order.
    pub fn keys_below<'a>(&'a self, _prefix: &'a str) -> impl Iterator<Item = &'a KvEntry> {
        std::iter::empty()
    }

    /// One session.
    pub fn session(&self, _id: &str) -> Option<&Arc<Session>> {
        unimplemented!()
    }
    /// All sessions, by id.
    pub fn sessions(&self) -> impl Iterator<Item = &Arc<Session>> {
        std::iter::empty()
    }
}
