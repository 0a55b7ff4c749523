//! Changes to nodes.
//!
//! A node's row is replaced as a whole, as Consul does; equal rows are no change. With a node goes
//! everything on it. A node registered again under its id with another name is renamed in Consul's
//! way: what was on the old name goes, because its agent will register it anew.

use std::sync::Arc;

use super::catalog::{Slot, fold_arc};
use super::change::Change;
use super::deadline::Owner;
use crate::command::{CatalogRegistration, Rejection};
use crate::index::fold;
use crate::record::{CheckStatus, HistoryKind, Indexes, Node, NodeKind, SERF_HEALTH};
use crate::{Index, Topic, release};

impl Change<'_> {
    /// Registers the node of a catalogue registration; returns its folded name.
    pub(super) fn register_node(
        &mut self,
        what: &CatalogRegistration,
    ) -> Result<Arc<str>, Rejection> {
        let key = fold_arc(&what.node);
        let existing = self.state.catalog.nodes.get(&key);
        if what.skip_node_update && existing.is_some() {
            return Ok(key);
        }
        let kind = existing.map_or(NodeKind::Registered, |slot| slot.node.kind);
        let created = self.rename_node(&key, what)?;
        self.put_node(
            Node {
                name: what.node.clone(),
                id: what.node_id.clone(),
                address: what.address.clone(),
                tagged_addresses: what.tagged_addresses.clone(),
                meta: what.node_meta.clone(),
                kind,
                indexes: Indexes::default(),
            },
            created,
        );
        Ok(key)
    }

    /// Removes the node that has the registration's id under another name; returns when that one
    /// was made, since it lives on under its new name.
    fn rename_node(
        &mut self,
        key: &str,
        what: &CatalogRegistration,
    ) -> Result<Option<Index>, Rejection> {
        if what.node_id.is_empty() {
            return Ok(None);
        }
        let catalog = &self.state.catalog;
        let holder = catalog.node_ids.get(&*fold(&what.node_id)).cloned();
        let old = holder.filter(|old_key| &**old_key != key);
        let same_id_here = catalog.nodes.get(key).is_some_and(|slot| slot.node.id == what.node_id);
        if !same_id_here {
            self.check_name_is_free(key, what, old.is_none())?;
        }
        let Some(old) = old else { return Ok(None) };
        let created = self.state.catalog.nodes.get(&old).map(|slot| slot.node.indexes.create);
        self.remove_node(&old);
        Ok(created)
    }

    /// A name can be taken from a node with another id only if that one is not known to be alive.
    fn check_name_is_free(
        &self,
        key: &str,
        what: &CatalogRegistration,
        may_take_from_nameless: bool,
    ) -> Result<(), Rejection> {
        let Some(slot) = self.state.catalog.nodes.get(key) else { return Ok(()) };
        let holder = &slot.node;
        let alive = slot
            .checks
            .get(SERF_HEALTH)
            .is_some_and(|check| check.registration.status != CheckStatus::Critical);
        if !alive || (holder.id.is_empty() && may_take_from_nameless) {
            return Ok(());
        }
        Err(Rejection::NodeNameReserved {
            id: what.node_id.clone(),
            name: what.node.to_string(),
            holder: holder.id.clone(),
            address: holder.address.clone(),
        })
    }

    /// Writes a node's row if it differs; returns its folded name. Its name is shown in the letter case
    /// of its latest registration, as in Consul; what is on it keeps that of its own. `created` is the `CreateIndex` of a node that is new under this
    /// name only.
    pub(super) fn put_node(&mut self, mut node: Node, created: Option<Index>) -> Arc<str> {
        let (key, shown) = (fold_arc(&node.name), node.name.clone());
        let index = self.index();
        self.take_id_from_others(&key, &node.id);
        if let Some(slot) = self.state.catalog.nodes.get(&key) {
            let old = slot.node.clone();
            node.indexes = old.indexes;
            if *old == node {
                return key;
            }
            // What made a node is nothing that a client sees.
            let visible = *old != Node { kind: old.kind, ..node.clone() };
            if visible {
                node.indexes.modify = index;
            }
            let kind = node.kind;
            self.pending.hosts |= old.address != node.address;
            self.pending.workers = true;
            self.replace_node(&key, &old, node);
            self.refresh_idle(&key);
            if kind != old.kind {
                self.reschedule_checks(&key);
            }
            if !visible {
                return key;
            }
            self.record_node(HistoryKind::NodeChanged, &shown);
        } else {
            node.indexes = Indexes { create: created.unwrap_or(index), modify: index };
            self.insert_node(&key, node);
            self.record_node(HistoryKind::NodeJoined, &shown);
        }
        self.touch(Topic::Nodes);
        self.touch(Topic::Node(key.clone()));
        self.touch_services_on(&key);
        key
    }

    /// An id belongs to one node. `register_node` has renamed another holder; an agent or a server,
    /// whose id is made from its name, takes its own back from whoever was registered with it.
    fn take_id_from_others(&mut self, key: &str, id: &str) {
        let Some(holder) = self.state.catalog.node_ids.get(&*fold(id)) else { return };
        if &**holder == key {
            return;
        }
        let Some(slot) = self.state.catalog.nodes.get(holder) else { return };
        let nameless = Node { id: String::new(), ..Node::clone(&slot.node) };
        self.put_node(nameless, None);
    }

    fn insert_node(&mut self, key: &Arc<str>, node: Node) {
        let number = self.next_number();
        let index = self.index();
        self.state.take_node_id(key, &node.id);
        self.state.catalog.nodes.insert(key.clone(), Arc::new(Slot::new(node, number, index)));
        self.state.deadlines.own(number, Owner::Node(key.clone()));
        self.refresh_idle(key);
    }

    fn replace_node(&mut self, key: &Arc<str>, old: &Node, node: Node) {
        if old.id != node.id {
            self.state.catalog.node_ids.remove(&*fold(&old.id));
            self.state.take_node_id(key, &node.id);
        }
        if let Some(slot) = self.state.catalog.slot_mut(key) {
            slot.node = Arc::new(node);
        }
    }

    /// Removes a node with its services, checks and sessions.
    pub(super) fn remove_node(&mut self, key: &Arc<str>) {
        let Some(slot) = self.state.catalog.nodes.get(key) else { return };
        let sessions: Vec<_> = slot.sessions.iter().cloned().collect();
        sessions.iter().for_each(|id| self.end_session(id));
        // The slot goes as a whole. Taking ten thousand rows out of its tables one by one would copy all
        // of them first, because readers share them.
        let Some(slot) = self.state.catalog.nodes.remove(key) else { return };
        self.pending.workers = true;
        for row in slot.checks.values() {
            self.touch(Topic::Checks);
            self.state.forget_check(key, row);
        }
        for row in slot.services.values() {
            self.touch(Topic::Services);
            self.record_service(HistoryKind::ServiceDeregistered, row);
            self.forget_service(key, row);
        }
        self.state.catalog.node_ids.remove(&*fold(&slot.node.id));
        self.state.deadlines.disown(slot.number);
        self.remove_coordinate(key);
        self.record_node(HistoryKind::NodeLeft, &slot.node.name);
        self.touch(Topic::Nodes);
        self.touch(Topic::Node(key.clone()));
        release::later(slot);
    }

    /// Looks at the deadlines of a node's checks anew: they depend on what made the node.
    pub(super) fn reschedule_checks(&mut self, key: &Arc<str>) {
        let Some(slot) = self.state.catalog.nodes.get(key).cloned() else { return };
        for row in slot.checks.values() {
            self.state.schedule(row.number);
        }
    }

    /// Notes since when a client's agent has had nothing on it, or that it has something.
    pub(super) fn refresh_idle(&mut self, key: &Arc<str>) {
        let time = self.time();
        let Some(slot) = self.state.catalog.nodes.get(key) else { return };
        let idle = slot.node.kind == NodeKind::Agent && slot.is_idle();
        if idle == slot.idle_since.is_some() {
            return;
        }
        let number = slot.number;
        if let Some(slot) = self.state.catalog.slot_mut(key) {
            slot.idle_since = idle.then_some(time);
        }
        self.state.schedule(number);
    }
}

impl super::State {
    /// Finds a node by its id from now on, if it has one.
    pub(super) fn take_node_id(&mut self, key: &Arc<str>, id: &str) {
        if !id.is_empty() {
            self.catalog.node_ids.insert(fold(id).into(), key.clone());
        }
    }
}
