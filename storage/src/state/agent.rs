//! The agents of clients' hosts, and the servers of this cluster.
//!
//! Every host that registers something has an agent, kept by the whole cluster: a node with a
//! passing `serfHealth`. An id in a request means the asking agent's; if it has none, the only one
//! that any agent has; several are refused, naming them, because to guess would act on a stranger's
//! service. So ids that are unique in the cluster work from anywhere, and ids that are not work from
//! their own host.
//!
//! Only nodes made by agents count in that search, and servers' nodes, because the agent of a
//! server's host may have the server's name: what `catalog/register` put on other nodes, and the
//! servers' own `consul` instances, are nobody's by id.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::State;
use super::catalog::{Slot, fold_arc};
use super::change::Change;
use super::level::{HEARTBEAT_LEVEL, HOSTS_OF_SERVERS};
use crate::Millis;
use crate::command::{Agent, Rejection, ServerRecord};
use crate::ids::NodeId;
use crate::index::fold;
use crate::record::{
    Check, CheckDefinition, CheckRegistration, CheckStatus, FromFile as _, HistoryKind, Indexes,
    Node, NodeKind, RAFT_ID, SERF_ALIVE, SERF_HEALTH, SERVER_SERVICE, Service, ServiceDefinition,
    TextMap, is_made_by_heartbeats,
};

/// What it says of one that is not.
pub(super) const NOT_ALIVE: &str = "Agent not live or unreachable";
/// Id of the check that puts an agent's node into maintenance.
pub const NODE_MAINTENANCE: &str = "_node_maintenance";
/// Begins the id of the check that puts a service into maintenance; the service's id follows.
pub const SERVICE_MAINTENANCE: &str = "_service_maintenance:";
/// How many agents a refusal names.
const AGENTS_NAMED_MAX: usize = 8;

impl State {
    /// The service that an id means to an agent.
    pub(super) fn locate_service(&self, agent: &str, id: &str) -> Result<&Arc<Service>, Rejection> {
        let slot = self
            .locate("service", &self.catalog.service_ids, agent, id, |slot| {
                has_own_service(slot, id)
            })?
            .ok_or_else(|| Rejection::UnknownService(id.to_owned()))?;
        Ok(slot.services.get(id).expect("a node listed under a service id has the service"))
    }

    /// The check that an id means to an agent.
    ///
    /// `serfHealth` is no agent's own. Maintenance is a check whose id says what it is about: that of
    /// a node is never looked for elsewhere, and that of a service goes where its service is. Else
    /// ending one's own maintenance twice would end a stranger's.
    pub(super) fn locate_check(&self, agent: &str, id: &str) -> Result<&Arc<Check>, Rejection> {
        let slot = if id == SERF_HEALTH {
            None
        } else if id == NODE_MAINTENANCE {
            self.catalog.slot(agent)
        } else if let Some(service) = id.strip_prefix(SERVICE_MAINTENANCE) {
            self.locate("check", &self.catalog.service_ids, agent, service, |slot| {
                has_own_service(slot, service)
            })?
        } else {
            self.locate("check", &self.catalog.check_ids, agent, id, |slot| {
                slot.checks.contains_key(id)
            })?
        };
        slot.and_then(|slot| slot.checks.get(id))
            .ok_or_else(|| Rejection::UnknownCheck(id.to_owned()))
    }

    /// The agent's own node if it has the id, else the only agent's node that has it.
    fn locate<'a>(
        &'a self,
        what: &str,
        table: &'a OrdMap<Arc<str>, OrdSet<Arc<str>>>,
        agent: &str,
        id: &str,
        has_it: impl Fn(&Slot) -> bool,
    ) -> Result<Option<&'a Arc<Slot>>, Rejection> {
        if let Some(own) = self.catalog.slot(agent).filter(|slot| has_it(slot)) {
            return Ok(Some(own));
        }
        let mut others = self.catalog.agents_with(table, id, "");
        let first = others.next();
        let (Some(one), Some(two)) = (first, others.next()) else { return Ok(first) };
        let named: Vec<&str> = [one, two]
            .into_iter()
            .chain(others)
            .map(|slot| &*slot.node.name)
            .take(AGENTS_NAMED_MAX + 1)
            .collect();
        let mut agents = named[..named.len().min(AGENTS_NAMED_MAX)].join(", ");
        if named.len() > AGENTS_NAMED_MAX {
            agents.push_str(", ...");
        }
        Err(Rejection::Ambiguous { what: what.to_owned(), id: id.to_owned(), agents })
    }
}

impl State {
    /// The folded names of the agents of the servers' hosts; `None` while a server's is not known.
    fn hosts_of_servers(&self) -> Option<BTreeSet<String>> {
        let servers = self.catalog.nodes.values().filter(|slot| slot.node.kind == NodeKind::Server);
        let agent_of = |slot: &Arc<Slot>| {
            let row = slot.services.get(SERVER_SERVICE)?;
            let id = row.definition.meta.as_ref()?.get(RAFT_ID)?.parse().ok()?;
            Some(fold(&self.boot(id)?.agent_name).into_owned())
        };
        servers.map(agent_of).collect()
    }
}

impl Change<'_> {
    /// Sees to it that an agent's node exists, has the agent's present address and is alive; returns
    /// its folded name. What else was said of the node, by `catalog/register` or by its agent's
    /// configuration, stays.
    pub(super) fn ensure_agent(&mut self, agent: &Agent, kind: NodeKind) -> Arc<str> {
        let key = fold_arc(&agent.name);
        let slot = self.state.catalog.nodes.get(&key);
        let present = slot.map(|slot| slot.node.clone());
        let kind = match present.as_ref().map(|node| node.kind) {
            // A server's node is the server's, also when its agent is named like it.
            Some(NodeKind::Server) => return key,
            Some(NodeKind::ServerAgent) => NodeKind::ServerAgent,
            Some(NodeKind::Agent | NodeKind::Registered) | None => kind,
        };
        // Whoever asks in its name does not know whether its process or its server lives.
        let is_known = slot.is_some_and(|slot| match kind {
            NodeKind::ServerAgent if self.state.level() >= HOSTS_OF_SERVERS => {
                slot.checks.get(SERF_HEALTH).is_some_and(|row| !row.is_liveness())
            }
            NodeKind::ServerAgent | NodeKind::Server | NodeKind::Agent | NodeKind::Registered => {
                is_watched(slot)
            }
        });
        let mut node = host_node(&agent.name, &agent.id, &agent.address, kind);
        if let Some(present) = present {
            keep_description(&mut node, &present);
        }
        self.put_node(node, None);
        if !is_known {
            self.register_check(&key, serf_health(true));
        }
        key
    }

    /// Shows an agent's node as alive for as long as its process says so at least every `ttl`. The
    /// leader says whether a server's own node is alive.
    pub(super) fn watch_agent(&mut self, agent: &Agent, ttl: Millis) {
        let key = self.ensure_agent(agent, NodeKind::Agent);
        let slot = self.state.catalog.nodes.get(&key);
        if slot.is_some_and(|slot| slot.node.kind == NodeKind::Agent) {
            let definition = CheckDefinition { ttl, ..CheckDefinition::default() };
            self.register_check(&key, CheckRegistration { definition, ..serf_health(true) });
        }
    }

    /// Gives an agent's node the id, addresses and metadata of its configuration, and takes away what
    /// an earlier one said.
    pub(super) fn describe_agent(
        &mut self,
        agent: &Agent,
        id: Option<&str>,
        tagged: Option<&TextMap>,
        meta: Option<&TextMap>,
    ) {
        let key = self.ensure_agent(agent, NodeKind::Agent);
        let Some(slot) = self.state.catalog.nodes.get(&key) else { return };
        let mut node = Node::clone(&slot.node);
        let plain = host_node(&node.name, &node.id, &node.address, node.kind);
        let described = |plain: Option<TextMap>, said: &TextMap| {
            let mut all = plain.unwrap_or_default();
            all.extend(said.clone());
            Some(all)
        };
        if let Some(id) = id {
            id.clone_into(&mut node.id);
        }
        if let Some(tagged) = tagged {
            node.tagged_addresses = described(plain.tagged_addresses, tagged);
        }
        if let Some(meta) = meta {
            node.meta = described(plain.meta, meta);
        }
        self.put_node(node, None);
    }

    /// `PUT /v1/agent/service/register`. That something is from a file is said of an agent's own node only: the
    /// agent there would find it in none of its files.
    pub(super) fn agent_register_service(
        &mut self,
        agent: &Agent,
        service: &ServiceDefinition,
        checks: &[CheckRegistration],
        replace_existing_checks: bool,
    ) {
        let key = match self.same_instance_elsewhere(agent, service) {
            Some(elsewhere) => {
                let (mut service, mut checks) = (service.clone(), checks.to_vec());
                service.unmark_from_file();
                checks.iter_mut().for_each(CheckRegistration::unmark_from_file);
                self.put_instance(&elsewhere, &service, &checks);
                elsewhere
            }
            None => {
                let own = self.ensure_agent(agent, NodeKind::Agent);
                self.put_instance(&own, service, checks);
                own
            }
        };
        if replace_existing_checks {
            self.remove_unnamed_checks(&key, &service.id, checks);
        }
    }

    /// Writes an instance on an agent's node that exists, and its checks.
    pub(super) fn put_instance(
        &mut self,
        key: &Arc<str>,
        service: &ServiceDefinition,
        checks: &[CheckRegistration],
    ) {
        self.put_service(key, service);
        for check in checks {
            let registration =
                CheckRegistration { service_id: service.id.clone(), ..check.clone() };
            self.agent_put_check(key, registration);
        }
    }

    /// The node of the one other agent that has this very instance (same id, name, address and
    /// port), if the asking agent has none with this id: a registration through a proxy, or through
    /// an agent of another name, is then not a second instance.
    pub(super) fn same_instance_elsewhere(
        &self,
        agent: &Agent,
        service: &ServiceDefinition,
    ) -> Option<Arc<str>> {
        let catalog = &self.state.catalog;
        let own = fold(&agent.name);
        let is_own =
            catalog.nodes.get(&*own).is_some_and(|slot| slot.services.contains_key(&service.id));
        if is_own || service.address.is_empty() {
            return None;
        }
        let mut same =
            catalog.agents_with(&catalog.service_ids, &service.id, &own).filter(|slot| {
                slot.services.get(&service.id).is_some_and(|row| {
                    let there = &row.definition;
                    there.name == service.name
                        && there.address == service.address
                        && there.port == service.port
                })
            });
        let only = same.next()?;
        same.next().is_none().then(|| fold_arc(&only.node.name))
    }

    /// Registers an agent's check; one that exists keeps its status and output.
    fn agent_put_check(&mut self, key: &Arc<str>, mut registration: CheckRegistration) {
        let slot = self.state.catalog.nodes.get(key);
        let id = registration.id.clone();
        let (mut kept_probe, mut views) = (None, None);
        if let Some(old) = slot.and_then(|slot| slot.checks.get(&id)) {
            registration.status = old.registration.status.clone();
            registration.output.clone_from(&old.registration.output);
            kept_probe = self.same_probe(old, &registration.definition);
            let known = self.state.workers.views.get(&old.number).cloned();
            views = known.filter(|_| kept_probe.is_some()).map(|views| (old.number, views));
        }
        self.register_check(key, registration);
        self.give_probe(key, &id, kept_probe);
        self.state.workers.views.extend(views);
    }

    /// Removes a service's checks that a registration does not name, but not the one that heartbeats renew.
    fn remove_unnamed_checks(
        &mut self,
        key: &Arc<str>,
        service_id: &str,
        named: &[CheckRegistration],
    ) {
        let Some(slot) = self.state.catalog.nodes.get(key) else { return };
        let presences = &self.state.presences;
        let rows = slot.checks_of(service_id).filter(|row| presences.get(row.number).is_none());
        let ids = rows.map(|row| &row.registration.id);
        let is_kept = |id: &str| {
            let is_renewed = self.state.level() >= HEARTBEAT_LEVEL;
            is_renewed && is_made_by_heartbeats(id, service_id)
        };
        let is_named = |id: &str| named.iter().any(|check| *check.id == *id);
        let unnamed: Vec<_> = ids.filter(|id| !is_named(id) && !is_kept(id)).cloned().collect();
        unnamed.iter().for_each(|id| self.remove_check(key, id));
    }

    /// `PUT /v1/agent/check/register`.
    pub(super) fn agent_register_check(
        &mut self,
        agent: &Agent,
        check: &CheckRegistration,
    ) -> Result<(), Rejection> {
        let key = if check.service_id.is_empty() {
            self.ensure_agent(agent, NodeKind::Agent)
        } else {
            let row = self.state.locate_service(&agent.name, &check.service_id);
            let row = row.map_err(|refusal| match refusal {
                Rejection::UnknownService(id) => Rejection::ServiceDoesNotExist(id),
                other => other,
            })?;
            fold_arc(&row.node)
        };
        let mut registration = check.clone();
        if *key != *fold(&agent.name) {
            registration.unmark_from_file();
        }
        self.agent_put_check(&key, registration);
        Ok(())
    }

    /// Enters a server into the catalogue, and its host's agent.
    pub(super) fn register_server(&mut self, server: &ServerRecord) {
        let mut node = host_node(&server.name, &server.node_id, &server.address, NodeKind::Server);
        let slot = self.state.catalog.nodes.get(&fold_arc(&server.name));
        let is_new = slot.is_none_or(|slot| slot.node.kind != NodeKind::Server);
        // What a client once registered under the name was no description of this server.
        if let Some(slot) = slot.filter(|slot| slot.node.kind != NodeKind::Registered) {
            keep_description(&mut node, &slot.node);
        }
        let key = self.put_node(node, None);
        if is_new {
            self.record_node(HistoryKind::ServerJoined, &server.name);
        }
        self.set_health_of(&key, &server.name, true);
        self.put_service(
            &key,
            &ServiceDefinition {
                id: SERVER_SERVICE.into(),
                name: SERVER_SERVICE.into(),
                meta: Some(server.meta.clone()),
                port: i64::from(server.port),
                ..ServiceDefinition::default()
            },
        );
        self.follow_server(&key);
        self.ensure_agent(&server.agent, NodeKind::ServerAgent);
        self.release_hosts();
        self.ensure_autopilot();
    }

    /// Removes a server's node, and what its clients were told.
    pub(super) fn remove_server(&mut self, id: NodeId, name: &Arc<str>) {
        self.state.origins.retire(id);
        self.forget_server_worker(id);
        self.state.lose_leases(id, None);
        self.lose_requests(id);
        if let Some(key) = self.server_key(name) {
            self.remove_node(&key);
            self.record_node(HistoryKind::ServerLeft, name);
        }
        self.release_hosts();
    }

    /// Says whether a server is alive, or the host of servers.
    pub(super) fn set_server_health(&mut self, name: &Arc<str>, alive: bool) {
        let key = fold_arc(name);
        let kind = self.state.catalog.nodes.get(&key).map(|slot| slot.node.kind);
        let is_told = match kind {
            Some(NodeKind::Server) => true,
            Some(NodeKind::ServerAgent) => self.state.level() >= HOSTS_OF_SERVERS,
            Some(NodeKind::Agent | NodeKind::Registered) | None => false,
        };
        if is_told {
            self.set_health_of(&key, name, alive);
            self.follow_server(&key);
        }
    }

    /// Writes whether a server or the host of servers is alive, and records of a server when that is news.
    fn set_health_of(&mut self, key: &Arc<str>, name: &Arc<str>, alive: bool) {
        let health = serf_health(alive);
        let slot = self.state.catalog.nodes.get(key);
        let is_server = slot.is_some_and(|slot| slot.node.kind == NodeKind::Server);
        let old = slot.and_then(|slot| slot.checks.get(SERF_HEALTH));
        let is_news = old.is_some_and(|old| old.registration.status != health.status);
        self.register_check(key, health);
        if is_server && is_news {
            let kind = if alive { HistoryKind::ServerBack } else { HistoryKind::ServerLost };
            self.record_node(kind, name);
        }
    }

    /// The agent of a host that has no server any more is one of a client's host: the leader does not
    /// say whether it is alive.
    fn release_hosts(&mut self) {
        if self.state.level() < HOSTS_OF_SERVERS {
            return;
        }
        let Some(hosts) = self.state.hosts_of_servers() else { return };
        let nodes = self.state.catalog.nodes.iter();
        let released: Vec<_> = nodes
            .filter(|(key, slot)| {
                slot.node.kind == NodeKind::ServerAgent && !hosts.contains(&***key)
            })
            .map(|(key, _)| key.clone())
            .collect();
        released.iter().for_each(|key| self.set_kind(key));
    }

    /// The folded name of a server's node, if it has one.
    fn server_key(&self, name: &Arc<str>) -> Option<Arc<str>> {
        let key = fold_arc(name);
        let slot = self.state.catalog.nodes.get(&key)?;
        (slot.node.kind == NodeKind::Server).then_some(key)
    }
}

/// Whether an agent's process says itself that it lives.
pub(super) fn is_watched(slot: &Slot) -> bool {
    slot.node.kind == NodeKind::Agent
        && slot.checks.get(SERF_HEALTH).is_some_and(|row| row.is_liveness())
}

/// Whether a service is the agent's to find: a server's instance of `consul` is nobody's.
fn has_own_service(slot: &Slot, id: &str) -> bool {
    let is_servers = slot.node.kind == NodeKind::Server && id == SERVER_SERVICE;
    !is_servers && slot.services.contains_key(id)
}

/// The node of a host with an agent, as Consul's agents describe themselves.
fn host_node(name: &Arc<str>, id: &str, address: &str, kind: NodeKind) -> Node {
    let family = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => Some("ipv4"),
        Ok(IpAddr::V6(_)) => Some("ipv6"),
        Err(_) => None,
    };
    let mut tagged = TextMap::new();
    for reach in ["lan", "wan"] {
        tagged.insert(reach.to_owned(), address.to_owned());
        if let Some(family) = family {
            tagged.insert(format!("{reach}_{family}"), address.to_owned());
        }
    }
    Node {
        name: name.clone(),
        id: id.to_owned(),
        address: address.to_owned(),
        tagged_addresses: Some(tagged),
        meta: Some(TextMap::from([("consul-network-segment".to_owned(), String::new())])),
        kind,
        indexes: Indexes::default(),
    }
}

/// Keeps what was said of a node: its id, its metadata, and the tagged addresses that were not made from
/// its address.
fn keep_description(node: &mut Node, present: &Node) {
    if !present.id.is_empty() {
        node.id.clone_from(&present.id);
    }
    let meta = node.meta.get_or_insert_default();
    meta.extend(present.meta.iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
    let tagged = node.tagged_addresses.get_or_insert_default();
    for (name, address) in present.tagged_addresses.iter().flatten() {
        if *address != present.address {
            tagged.insert(name.clone(), address.clone());
        }
    }
}

/// The check that says whether a node's agent is alive.
fn serf_health(alive: bool) -> CheckRegistration {
    let (status, output) = match alive {
        true => (CheckStatus::Passing, SERF_ALIVE),
        false => (CheckStatus::Critical, NOT_ALIVE),
    };
    CheckRegistration {
        id: SERF_HEALTH.into(),
        name: "Serf Health Status".to_owned(),
        status,
        notes: String::new(),
        output: output.to_owned(),
        service_id: "".into(),
        kind: String::new(),
        definition: CheckDefinition::default(),
    }
}
