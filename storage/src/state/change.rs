//! One visible change in the making.
//!
//! A command, or one expiring thing, works through a [`Change`]. It knows the index that the change
//! gets if it turns out to be one, and [`Change::touch`] is the only place where a topic's index
//! moves and the only place where a topic is reported: so a query's index and its wake-up cannot
//! come apart. A command that touches nothing leaves the counter where it was.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::State;
use super::pending::Pending;
use crate::record::Cause;
use crate::{ClusterTime, Index, Topic};

/// A command at work on the state.
#[derive(Debug)]
pub(super) struct Change<'a> {
    pub(super) state: &'a mut State,
    touched: &'a mut BTreeSet<Topic>,
    index: Index,
    /// Why, for the history.
    pub(super) cause: Cause,
    /// What the change makes of the pools when it is done.
    pub(super) pending: Pending,
}

impl<'a> Change<'a> {
    /// Begins a change; `touched` is empty and collects what it touches.
    pub(super) fn new(
        state: &'a mut State,
        touched: &'a mut BTreeSet<Topic>,
        cause: Cause,
    ) -> Self {
        let index = state.next_index();
        Self { state, touched, index, cause, pending: Pending::default() }
    }

    /// Gives this change another index than the next one: a larger one than all before. Only before it
    /// touches anything.
    pub(super) fn set_index(&mut self, index: Index) {
        self.index = index;
    }

    /// The index of every row that this change writes.
    pub(super) fn index(&self) -> Index {
        self.index
    }

    /// Cluster time.
    pub(super) fn time(&self) -> ClusterTime {
        self.state.time
    }

    /// A number that nothing had before.
    pub(super) fn next_number(&mut self) -> u64 {
        self.state.last_number += 1;
        self.state.last_number
    }

    /// Reports that what is watched as `topic` visibly changed, and moves the topic's index.
    ///
    /// The row itself must be written first if it is new: topics without a row of their own share
    /// an index of their table.
    pub(super) fn touch(&mut self, topic: Topic) {
        // A row that is made later in the same change begins with this index by itself.
        if self.touched.contains(&topic) {
            return;
        }
        if topic.is_of_claims() {
            self.touch_claims(&topic);
            self.touched.insert(topic);
            return;
        }
        let (index, state) = (self.index, &mut *self.state);
        state.index = index;
        match &topic {
            Topic::Key(_) | Topic::Prefix(_) => state.topics.kv = index,
            Topic::Service(name) => state.catalog.set_service_index(name, index),
            Topic::Services => state.topics.services = index,
            Topic::Nodes => state.topics.nodes = index,
            Topic::Node(name) => state.catalog.set_node_index(name, index),
            Topic::Checks => state.topics.checks = index,
            Topic::Sessions => state.topics.sessions = index,
            Topic::Events => state.tables.events = index,
            Topic::Coordinates => state.tables.coordinates = index,
            Topic::Queries => state.tables.queries = index,
            // Whoever restores has given every row and table its index.
            Topic::Everything => {}
            // Its row is its index.
            Topic::Autopilot => {}
            Topic::AclTokens => state.acl.header.tokens = index,
            Topic::AclPolicies => state.acl.header.policies = index,
            Topic::AclRoles => state.acl.header.roles = index,
            // They have a counter of their own, see above.
            Topic::Pool(_) | Topic::Claim(_) => {}
        }
        self.touched.insert(topic);
    }

    /// Touches every service with an instance on this node.
    pub(super) fn touch_services_on(&mut self, node: &str) {
        let Some(slot) = self.state.catalog.nodes.get(node) else { return };
        let slot = Arc::clone(slot);
        let names: BTreeSet<Arc<str>> = slot
            .services
            .values()
            .map(|row| super::catalog::fold_arc(&row.definition.name))
            .collect();
        for name in names {
            self.touch(Topic::Service(name));
        }
        self.note_node(&slot);
    }
}
