//! The catalogue's tables: nodes, and on each node its services, checks and sessions.
//!
//! Everything that belongs to a node hangs on its [`Slot`], so that what goes with a node is found
//! without a search. Beside it are indexes that can be rebuilt from the rows: instances by service
//! name, nodes by their id, and the nodes that have a given service or check id (an agent's client
//! may use an id without saying on which host it is).
//!
//! Nodes and services are found by folded names ([`fold`](crate::index::fold)); service and check
//! ids are taken as they are. What changes these tables lies in `nodes.rs`, `services.rs` and
//! `checks.rs`; this file only keeps rows and indexes in step.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::index::fold;
use crate::record::{Check, Node, NodeKind, SERF_HEALTH, SERVER_SERVICE, Service, Session};
use crate::release::Bulk;
use crate::{ClusterTime, Index};

/// Where an instance is: its node's folded name, and its id.
pub(super) type Place = (Arc<str>, Arc<str>);

/// The catalogue.
#[derive(Debug, Clone, Default)]
pub(super) struct Catalog {
    /// Nodes by folded name.
    pub(super) nodes: OrdMap<Arc<str>, Arc<Slot>>,
    /// Services that have an instance, by folded name.
    pub(super) names: OrdMap<Arc<str>, Named>,
    /// Derived: nodes' folded names by folded node id.
    pub(super) node_ids: OrdMap<Arc<str>, Arc<str>>,
    /// Derived: folded names of the nodes with a service of this id.
    pub(super) service_ids: OrdMap<Arc<str>, OrdSet<Arc<str>>>,
    /// Derived: folded names of the nodes with a check of this id. Without `serfHealth`, which is
    /// everywhere and which nobody looks for by id.
    pub(super) check_ids: OrdMap<Arc<str>, OrdSet<Arc<str>>>,
}

/// A node and what is on it.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    /// The row.
    pub(super) node: Arc<Node>,
    /// Orders the node's expiry.
    pub(super) number: u64,
    /// Index of the topic of this node and its services.
    pub(super) index: Index,
    /// Since when a client's agent has had nothing on it; `None` for all other nodes.
    pub(super) idle_since: Option<ClusterTime>,
    /// Services by id.
    pub(super) services: OrdMap<Arc<str>, Arc<Service>>,
    /// Checks by id.
    pub(super) checks: OrdMap<Arc<str>, Arc<Check>>,
    /// Derived: the same checks by the id of their service (empty: the node's own), then by id. A
    /// health query reads two of these maps instead of searching all checks of a large node.
    pub(super) checks_by_service: OrdMap<Arc<str>, OrdMap<Arc<str>, Arc<Check>>>,
    /// Derived: ids of the sessions bound to the node.
    pub(super) sessions: OrdSet<Arc<str>>,
    /// Derived: the same by the id of each check that they need. A check that turns critical finds its
    /// sessions among ten thousand others without a search.
    pub(super) sessions_by_check: OrdMap<Arc<str>, OrdSet<Arc<str>>>,
}

impl Slot {
    /// A node with nothing on it.
    pub(super) fn new(node: Node, number: u64, index: Index) -> Self {
        Self {
            node: Arc::new(node),
            number,
            index,
            idle_since: None,
            services: OrdMap::new(),
            checks: OrdMap::new(),
            checks_by_service: OrdMap::new(),
            sessions: OrdSet::new(),
            sessions_by_check: OrdMap::new(),
        }
    }

    /// Whether nothing is on the node but the sign that its agent is alive. A node whose agent's process
    /// keeps saying so is not idle.
    pub(super) fn is_idle(&self) -> bool {
        self.services.is_empty()
            && self.sessions.is_empty()
            && self.checks.len() <= 1
            && self.checks.iter().all(|(id, row)| {
                &**id == SERF_HEALTH && (row.critical_since.is_some() || !row.is_liveness())
            })
    }

    /// Notes a session of this node.
    pub(super) fn bind(&mut self, row: &Session) {
        self.sessions.insert(row.id.clone());
        for check in row.needed_checks() {
            match self.sessions_by_check.get_mut(check) {
                Some(sessions) => drop(sessions.insert(row.id.clone())),
                None => {
                    drop(self.sessions_by_check.insert(check.into(), OrdSet::unit(row.id.clone())))
                }
            }
        }
    }

    /// Forgets a session of this node.
    pub(super) fn unbind(&mut self, row: &Session) {
        self.sessions.remove(&row.id);
        for check in row.needed_checks() {
            let Some(sessions) = self.sessions_by_check.get_mut(check) else { continue };
            sessions.remove(&row.id);
            if sessions.is_empty() {
                self.sessions_by_check.remove(check);
            }
        }
    }

    /// Checks of one service instance (or, for an empty id, of the node), by id.
    pub(super) fn checks_of(&self, service_id: &str) -> impl Iterator<Item = &Arc<Check>> {
        self.checks_by_service.get(service_id).into_iter().flat_map(OrdMap::values)
    }
}

/// A service name that has instances.
#[derive(Debug, Clone)]
pub(super) struct Named {
    /// Index of the service's topic.
    pub(super) index: Index,
    /// Derived: its instances by place.
    pub(super) instances: OrdMap<Place, Arc<Service>>,
}

impl Bulk for Arc<Slot> {
    fn rows(&self) -> usize {
        self.services.len() + self.checks.len()
    }

    fn free(self: Box<Self>) -> Vec<Box<dyn Bulk>> {
        match Self::try_unwrap(*self) {
            Ok(_) => Vec::new(),
            Err(shared) => vec![Box::new(shared)],
        }
    }
}

impl Catalog {
    /// A node by its name in any case.
    pub(super) fn slot(&self, name: &str) -> Option<&Arc<Slot>> {
        self.nodes.get(&*fold(name))
    }

    /// A node to change, by its folded name.
    pub(super) fn slot_mut(&mut self, key: &str) -> Option<&mut Slot> {
        self.nodes.get_mut(key).map(Arc::make_mut)
    }

    /// Moves the index of a service that has instances; the others share one
    /// (`TopicIndexes::extinction`).
    pub(super) fn set_service_index(&mut self, name: &str, index: Index) {
        if let Some(named) = self.names.get_mut(name) {
            named.index = index;
        }
    }

    /// Moves the index of a node that exists; the others share that of their table.
    pub(super) fn set_node_index(&mut self, key: &str, index: Index) {
        if let Some(slot) = self.slot_mut(key) {
            slot.index = index;
        }
    }

    /// Writes an instance's row and finds it by name and id from now on. The instance has no other
    /// name (any more); `index` is for a name that is new.
    pub(super) fn put_service_row(&mut self, key: &Arc<str>, row: Arc<Service>, index: Index) {
        let id = row.definition.id.clone();
        let name = fold_arc(&row.definition.name);
        let named =
            self.names.entry(name).or_insert_with(|| Named { index, instances: OrdMap::new() });
        named.instances.insert((key.clone(), id.clone()), row.clone());
        self.service_ids.entry(id.clone()).or_default().insert(key.clone());
        if let Some(slot) = self.slot_mut(key) {
            slot.services.insert(id, row);
        }
    }

    /// Removes an instance from its name; says whether it was the name's last.
    pub(super) fn detach_name(&mut self, key: &Arc<str>, row: &Service) -> bool {
        let name = fold_arc(&row.definition.name);
        let place = (key.clone(), row.definition.id.clone());
        let Some(named) = self.names.get(&name) else { return false };
        let last = named.instances.len() == 1 && named.instances.contains_key(&place);
        if last {
            self.names.remove(&name);
        } else if let Some(named) = self.names.get_mut(&name) {
            named.instances.remove(&place);
        }
        last
    }

    /// Removes an instance's row from its node. The other tables have forgotten it, and its checks are gone.
    pub(super) fn remove_service_row(&mut self, key: &Arc<str>, id: &Arc<str>) {
        if let Some(slot) = self.slot_mut(key) {
            slot.services.remove(id);
        }
    }

    /// Writes a check's row.
    pub(super) fn put_check_row(&mut self, key: &Arc<str>, row: Arc<Check>) {
        let id = row.registration.id.clone();
        if &*id != SERF_HEALTH {
            self.check_ids.entry(id.clone()).or_default().insert(key.clone());
        }
        let Some(slot) = self.slot_mut(key) else { return };
        let service = row.registration.service_id.clone();
        if let Some(old) = slot.checks.insert(id.clone(), row.clone())
            && old.registration.service_id != service
        {
            remove_by_service(slot, &old);
        }
        slot.checks_by_service.entry(service).or_default().insert(id, row);
    }

    /// Removes a check's row from its node. The other tables have forgotten it.
    pub(super) fn remove_check_row(&mut self, key: &Arc<str>, row: &Check) {
        if let Some(slot) = self.slot_mut(key) {
            slot.checks.remove(&row.registration.id);
            remove_by_service(slot, row);
        }
    }

    /// Nodes of hosts' agents that have this id in `table`, without `except`. A server's node is also
    /// that of an agent of its name.
    pub(super) fn agents_with<'a>(
        &'a self,
        table: &'a OrdMap<Arc<str>, OrdSet<Arc<str>>>,
        id: &str,
        except: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Slot>> {
        table
            .get(id)
            .into_iter()
            .flatten()
            .filter(move |key| &***key != except)
            .filter_map(|key| self.nodes.get(key))
            .filter(move |slot| match slot.node.kind {
                NodeKind::Agent | NodeKind::ServerAgent => true,
                // What else is there was registered by an agent of the server's name.
                NodeKind::Server => id != SERVER_SERVICE,
                NodeKind::Registered => false,
            })
    }
}

/// Takes a check out of the map by service.
fn remove_by_service(slot: &mut Slot, row: &Check) {
    let (service, id) = (&row.registration.service_id, &row.registration.id);
    let Some(checks) = slot.checks_by_service.get(service) else { return };
    if checks.len() == 1 && checks.contains_key(id) {
        slot.checks_by_service.remove(service);
    } else if let Some(checks) = slot.checks_by_service.get_mut(service) {
        checks.remove(id);
    }
}

/// Takes a node out of the set of those that have an id.
pub(super) fn remove_place(
    table: &mut OrdMap<Arc<str>, OrdSet<Arc<str>>>,
    id: &Arc<str>,
    key: &Arc<str>,
) {
    let Some(places) = table.get(id) else { return };
    // Most ids are on one node only: then nothing of the set, which readers share, is copied.
    if places.len() == 1 && places.contains(key) {
        table.remove(id);
    } else if let Some(places) = table.get_mut(id) {
        places.remove(key);
    }
}

/// [`fold`] that shares the text when it is folded already.
pub(super) fn fold_arc(name: &Arc<str>) -> Arc<str> {
    match fold(name) {
        std::borrow::Cow::Borrowed(_) => name.clone(),
        std::borrow::Cow::Owned(folded) => folded.into(),
    }
}
