//! What readers ask. Everything here works on one immutable version and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::catalog::{Slot, fold_arc};
use super::claims::Pool;
use super::{Heard, State};
use crate::command::{CommandId, Outcome, Rejection};
use crate::ids::NodeId;
use crate::index::fold;
use crate::record::{
    Check, Coordinate, Event, KvEntry, Node, NodeKind, Query, SERVER_SERVICE, Service, Session,
};
use crate::{ClusterTime, Index, Topic};

/// About how many bytes of JSON one row makes, beside long values.
pub(super) const ROW_BYTES: usize = 256;

/// Where an instance is in the list of all: its service's and its node's name in lower case, and its id.
pub type InstancePlace = (Arc<str>, Arc<str>, Arc<str>);

impl State {
    /// Cluster time.
    #[must_use]
    pub fn time(&self) -> ClusterTime {
        self.time
    }

    /// The newest index.
    #[must_use]
    pub fn index(&self) -> Index {
        self.index
    }

    /// The index of the last restore of a backup, if there was one.
    pub fn restored(&self) -> Option<Index> {
        self.restored
    }

    /// The remembered outcome of a command, if it was applied and its origin has not said that it
    /// answered it.
    #[must_use]
    pub fn remembered(&self, id: CommandId) -> Option<Outcome> {
        self.origins.remembered(id)
    }

    /// Whether a server with this id has ever had a command applied; true also after it was removed.
    #[must_use]
    pub fn knows_origin(&self, id: NodeId) -> bool {
        self.origins.records.contains_key(&id)
    }

    /// The earliest deadline that may be due (a lower bound: it may have been postponed since).
    #[must_use]
    pub fn next_deadline(&self) -> Option<ClusterTime> {
        self.first_deadline()
    }

    /// When the next lock delay ends, or the next tombstone or the next claim that is over may be forgotten.
    #[must_use]
    pub fn next_reaping(&self) -> Option<ClusterTime> {
        [self.kv.next_housekeeping(), self.claims.next_forgetting()].into_iter().flatten().min()
    }

    /// When the TTL check or session with this number was last heard of; `None` if it has no TTL.
    #[must_use]
    pub fn last_seen(&self, number: u64) -> Option<ClusterTime> {
        self.heard.get(number)
    }

    /// When everything was last heard of.
    #[must_use]
    pub fn heard(&self) -> &Heard {
        &self.heard
    }

    /// Whether there is anything of which it is shown how long ago it was heard of.
    #[must_use]
    pub fn has_ages(&self) -> bool {
        !self.heard.is_empty()
    }

    /// A node by name (any case) or by id.
    #[must_use]
    pub fn node(&self, name_or_id: &str) -> Option<&Arc<Node>> {
        let by_id = || self.catalog.nodes.get(self.catalog.node_ids.get(&*fold(name_or_id))?);
        self.catalog.slot(name_or_id).or_else(by_id).map(|slot| &slot.node)
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.catalog.nodes.values().map(|slot| &slot.node)
    }

    /// Service names with the union of their instances' tags. Names that differ only in their letter case
    /// are one service to those who ask for its instances, and are listed apart.
    #[must_use]
    pub fn service_tags(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut merged: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for row in self.services() {
            let tags = row.definition.tags.iter().map(String::as_str);
            merged.entry(&row.definition.name).or_default().extend(tags);
        }
        merged
    }

    /// Instances of a service (name in any case), by node and id.
    pub fn instances(&self, service: &str) -> impl Iterator<Item = &Arc<Service>> {
        let named = self.catalog.names.get(&*fold(service));
        named.into_iter().flat_map(|named| named.instances.values())
    }

    /// All service instances in the order of their places, from behind a place on.
    pub fn instances_behind<'a>(
        &'a self,
        behind: Option<&'a InstancePlace>,
    ) -> impl Iterator<Item = (InstancePlace, &'a Arc<Service>)> {
        let from: Arc<str> = behind.map_or_else(Arc::default, |(service, ..)| service.clone());
        let names = self.catalog.names.range(from..);
        names.flat_map(move |(service, named)| {
            let from = match behind {
                Some((of, node, id)) if of == service => (node.clone(), id.clone()),
                _ => (Arc::default(), Arc::default()),
            };
            let instances = named.instances.range(from..);
            let instances = instances
                .map(move |((node, id), row)| ((service.clone(), node.clone(), id.clone()), row));
            instances.filter(move |(place, _)| Some(place) != behind)
        })
    }

    /// Service instances of a node (name in any case), by id.
    pub fn services_on(&self, node: &str) -> impl Iterator<Item = &Arc<Service>> {
        self.catalog.slot(node).into_iter().flat_map(|slot| slot.services.values())
    }

    /// Service instances that an agent (name in any case) registered, by id: all on its node, but for
    /// the server's own if a server has the same name.
    pub fn agent_services(&self, agent: &str) -> impl Iterator<Item = &Arc<Service>> {
        let slot = self.catalog.slot(agent);
        let is_server = slot.is_some_and(|slot| slot.node.kind == NodeKind::Server);
        let is_servers = move |row: &Service| is_server && &*row.definition.id == SERVER_SERVICE;
        self.services_on(agent).filter(move |row| !is_servers(row))
    }

    /// All service instances, by node and id.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.catalog.nodes.values().flat_map(|slot| slot.services.values())
    }

    /// The names of all services that have instances, in lower case.
    pub fn service_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.catalog.names.keys()
    }

    /// One service instance (node name in any case).
    #[must_use]
    pub fn service(&self, node: &str, id: &str) -> Option<&Arc<Service>> {
        self.catalog.slot(node)?.services.get(id)
    }

    /// All service instances with this id, by node.
    pub fn services_with_id(&self, id: &str) -> impl Iterator<Item = &Arc<Service>> {
        let nodes = self.catalog.service_ids.get(id).into_iter().flatten();
        nodes.filter_map(move |node| self.catalog.nodes.get(node)?.services.get(id))
    }

    /// All checks with this id, by node; none for `serfHealth`, which each node has.
    pub fn checks_with_id(&self, id: &str) -> impl Iterator<Item = &Arc<Check>> {
        let nodes = self.catalog.check_ids.get(id).into_iter().flatten();
        nodes.filter_map(move |node| self.catalog.nodes.get(node)?.checks.get(id))
    }

    /// When what has this number (a check, a session, a node) comes to its end, or a critical check's service
    /// does, if nothing is heard until then.
    #[must_use]
    pub fn deadline_of(&self, number: u64) -> Option<ClusterTime> {
        self.true_deadline(number)
    }

    /// All checks of a node (name in any case), by id.
    pub fn checks_on(&self, node: &str) -> impl Iterator<Item = &Arc<Check>> {
        self.catalog.slot(node).into_iter().flat_map(|slot| slot.checks.values())
    }

    /// The checks of a node itself (name in any case), not of its services, by id.
    pub fn node_checks(&self, node: &str) -> impl Iterator<Item = &Arc<Check>> {
        self.catalog.slot(node).into_iter().flat_map(|slot| slot.checks_of(""))
    }

    /// The checks that decide an instance's health: its own and its node's, by id.
    pub fn checks_of(&self, service: &Service) -> impl Iterator<Item = &Arc<Check>> {
        let slot = self.catalog.slot(&service.node);
        let own = slot.into_iter().flat_map(|slot| slot.checks_of(&service.definition.id));
        let nodes = slot.into_iter().flat_map(|slot| slot.checks_of(""));
        let mut rows: Vec<&Arc<Check>> = own.chain(nodes).collect();
        rows.sort_unstable_by(|a, b| a.registration.id.cmp(&b.registration.id));
        rows.into_iter()
    }

    /// The checks of an instance, without its node's.
    pub fn own_checks_of(&self, service: &Service) -> impl Iterator<Item = &Arc<Check>> {
        let slot = self.catalog.slot(&service.node);
        slot.into_iter().flat_map(|slot| slot.checks_of(&service.definition.id))
    }

    /// The checks of a service's instances (not their nodes'), by node and id.
    pub fn service_checks(&self, service: &str) -> impl Iterator<Item = &Arc<Check>> {
        let mut rows: Vec<(Arc<str>, &Arc<Check>)> = Vec::new();
        for row in self.instances(service) {
            let slot = self.catalog.slot(&row.node).map(|slot| &**slot);
            let checks =
                slot.into_iter().flat_map(|slot: &Slot| slot.checks_of(&row.definition.id));
            rows.extend(checks.map(|check| (fold_arc(&check.node), check)));
        }
        rows.sort_by(|(a_node, a), (b_node, b)| {
            (a_node, &a.registration.id).cmp(&(b_node, &b.registration.id))
        });
        rows.into_iter().map(|(_, check)| check)
    }

    /// All checks, by node and id.
    pub fn checks(&self) -> impl Iterator<Item = &Arc<Check>> {
        self.catalog.nodes.values().flat_map(|slot| slot.checks.values())
    }

    /// One check (node name in any case).
    #[must_use]
    pub fn check(&self, node: &str, id: &str) -> Option<&Arc<Check>> {
        self.catalog.slot(node)?.checks.get(id)
    }

    /// The service that an id means to an agent: its own, else the only one any agent has.
    ///
    /// # Errors
    /// `UnknownService` if no agent has it, `Ambiguous` if several others have.
    pub fn find_service(&self, agent: &str, id: &str) -> Result<&Arc<Service>, Rejection> {
        self.locate_service(agent, id)
    }

    /// The check that an id means to an agent: its own, else the only one any agent has. An agent's
    /// `serfHealth` is never found: it belongs to the node.
    ///
    /// # Errors
    /// `UnknownCheck` if no agent has it, `Ambiguous` if several others have.
    pub fn find_check(&self, agent: &str, id: &str) -> Result<&Arc<Check>, Rejection> {
        self.locate_check(agent, id)
    }

    /// About how many bytes an answer has that shows what a topic is about. It is found without
    /// looking at the rows; whoever answers decides by it where to render.
    #[must_use]
    pub fn answer_bytes(&self, topic: &Topic) -> usize {
        let rows = match topic {
            Topic::Key(key) => return self.key(key).map_or(0, |row| row.value.len()),
            Topic::Prefix(prefix) => return self.kv.entries.sum_below(prefix).weight,
            Topic::Service(name) => {
                // Each with its node and two or three checks.
                let named = self.catalog.names.get(&*fold(name));
                4 * named.map_or(0, |named| named.instances.len())
            }
            Topic::Node(name) => {
                let slot = self.catalog.slot(name);
                slot.map_or(0, |slot| slot.services.len() + slot.checks.len())
            }
            // Nodes, checks and sessions have numbers; services are about as many.
            Topic::Services | Topic::Nodes | Topic::Checks | Topic::Sessions => {
                self.deadlines.len() + self.catalog.service_ids.len()
            }
            Topic::Events => self.events.len(),
            Topic::Coordinates => self.coordinates.len(),
            Topic::Queries => self.queries.len(),
            Topic::Pool(name) => self.pool(name).map_or(0, Pool::len),
            Topic::AclTokens => self.acl_tokens().count(),
            Topic::AclPolicies => self.acl_policies().count(),
            Topic::AclRoles => self.acl_roles().count(),
            Topic::Everything | Topic::Autopilot | Topic::Claim(_) => 1,
        };
        rows * ROW_BYTES
    }

    /// One key.
    #[must_use]
    pub fn key(&self, key: &str) -> Option<&KvEntry> {
        self.kv.entries.get(key).map(|row| &**row)
    }

    /// All keys that begin with `prefix`, in byte order.
    pub fn keys_below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a KvEntry> {
        self.kv.below(prefix).map(|row| &**row)
    }

    /// One session.
    #[must_use]
    pub fn session(&self, id: &str) -> Option<&Arc<Session>> {
        self.sessions.get(id)
    }

    /// All sessions, by id.
    pub fn sessions(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.sessions.values()
    }

    /// The newest events, oldest first.
    pub fn events(&self) -> impl DoubleEndedIterator<Item = &Arc<Event>> {
        self.events.iter()
    }

    /// Where a node is (name in any case), if it was ever said.
    #[must_use]
    pub fn coordinate(&self, node: &str) -> Option<&Coordinate> {
        self.coordinates.get(&*fold(node))
    }

    /// A prepared query by its id.
    #[must_use]
    pub fn query(&self, id: &str) -> Option<&Arc<Query>> {
        self.queries.get(id)
    }

    /// All prepared queries, by id.
    pub fn queries(&self) -> impl Iterator<Item = &Arc<Query>> {
        self.queries.values()
    }
}
