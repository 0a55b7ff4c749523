//! Nodes, services and checks, as `catalog/register`, agents and transactions change them.

use super::state::{
    At, Check, CheckFacts, Model, Node, NodeFacts, Outcome, Refusal, Service, ServiceFacts, Topic,
    fold,
};

/// `PUT /v1/catalog/register`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registration {
    pub(crate) node: String,
    pub(crate) facts: NodeFacts,
    pub(crate) skip_node_update: bool,
    pub(crate) service: Option<ServiceFacts>,
    pub(crate) checks: Vec<CheckFacts>,
}

const SERF_HEALTH: &str = "serfHealth";
const NODE_MAINTENANCE: &str = "_node_maintenance";

fn unknown_service(id: &str) -> Refusal {
    let hint = "Ensure that the service ID is passed, not the service name.";
    (404, format!("Unknown service ID {id:?}. {hint}"))
}

fn unknown_check(id: &str) -> Refusal {
    let hint = "Ensure that the check ID is passed, not the check name.";
    (404, format!("Unknown check ID {id:?}. {hint}"))
}

impl Model {
    // ---- the catalogue -----------------------------------------------------------------------

    pub(crate) fn register(&mut self, what: &Registration) -> Outcome<()> {
        self.register_node(&what.node, &what.facts, what.skip_node_update)?;
        let key = fold(&what.node);
        if let Some(service) = &what.service {
            self.put_service(&key, service);
        }
        for check in &what.checks {
            let has = |id: &String| self.nodes[&key].services.contains_key(id);
            if !check.service_id.is_empty() && !has(&check.service_id) {
                return Err((
                    500,
                    format!(
                        "failed inserting check: Missing service registration on node {:?}",
                        what.node
                    ),
                ));
            }
            self.put_catalog_check(&key, check.clone());
        }
        Ok(())
    }

    pub(crate) fn register_node(
        &mut self,
        name: &str,
        facts: &NodeFacts,
        skip: bool,
    ) -> Outcome<()> {
        let key = fold(name);
        if skip && self.nodes.contains_key(&key) {
            return Ok(());
        }
        let mut created = None;
        if !facts.id.is_empty() {
            let other = self
                .nodes
                .iter()
                .find(|(other, node)| **other != key && node.facts.id == facts.id)
                .map(|(other, node)| (other.clone(), node.at.create));
            self.require_free_name(&key, name, facts, other.is_none())?;
            if let Some((other, create)) = other {
                // Renamed: what was on the old name goes, the node lives on.
                created = Some(create);
                self.remove_node(&other);
            }
        }
        self.put_node(name, facts, None, created);
        Ok(())
    }

    /// A name can be taken from a node with another id only if that is not known to be alive.
    fn require_free_name(
        &self,
        key: &str,
        name: &str,
        facts: &NodeFacts,
        id_is_new: bool,
    ) -> Outcome<()> {
        let Some(holder) = self.nodes.get(key) else { return Ok(()) };
        let alive =
            holder.checks.get(SERF_HEALTH).is_some_and(|check| check.facts.status != "critical");
        let nameless = holder.facts.id.is_empty() && id_is_new;
        if holder.facts.id == facts.id || !alive || nameless {
            return Ok(());
        }
        let (id, theirs, address) = (&facts.id, &holder.facts.id, &holder.facts.address);
        Err((
            500,
            format!(
                "failed inserting node: Error while renaming Node ID: {id:?}: Node name {name} is \
                 reserved by node {theirs} with name {name} ({address})"
            ),
        ))
    }

    /// Writes a node's row, unless it is as before. The latest name counts, in its letter case.
    fn put_node(
        &mut self,
        name: &str,
        facts: &NodeFacts,
        is_agent: Option<bool>,
        created: Option<u64>,
    ) {
        let key = fold(name);
        let (now, at) = (self.now(), self.at(self.nodes.get(&key).map(|node| node.at)));
        match self.nodes.get_mut(&key) {
            Some(node) => {
                node.is_agent = is_agent.unwrap_or(node.is_agent);
                if node.facts == *facts && node.name == name {
                    return;
                }
                name.clone_into(&mut node.name);
                node.facts = facts.clone();
                node.at = at;
            }
            None => {
                let node = Node {
                    name: name.to_owned(),
                    facts: facts.clone(),
                    is_agent: is_agent.unwrap_or(false),
                    at: At { create: created.unwrap_or(now), modify: now },
                    touched: now,
                    services: Default::default(),
                    checks: Default::default(),
                };
                self.nodes.insert(key.clone(), node);
            }
        }
        self.touch(Topic::Nodes);
        self.touch(Topic::Node(key.clone()));
        self.touch_services_on(&key);
    }

    pub(crate) fn remove_node(&mut self, key: &str) {
        if !self.nodes.contains_key(key) {
            return;
        }
        self.end_sessions_of(key);
        let services: Vec<String> = self.nodes[key].services.keys().cloned().collect();
        services.iter().for_each(|id| self.remove_service(key, id));
        let checks: Vec<String> = self.nodes[key].checks.keys().cloned().collect();
        checks.iter().for_each(|id| self.remove_check(key, id));
        self.nodes.remove(key);
        if self.coordinates.remove(key).is_some() {
            self.touch(Topic::Coordinates);
        }
        self.touch(Topic::Nodes);
    }

    pub(crate) fn deregister(&mut self, node: &str, service: &str, check: &str) {
        let key = fold(node);
        match (service, check) {
            ("", "") => self.remove_node(&key),
            ("", check) => self.remove_check(&key, check),
            (service, _) => self.remove_service(&key, service),
        }
    }

    fn touch_services_on(&mut self, key: &str) {
        let Some(node) = self.nodes.get(key) else { return };
        let names: Vec<String> =
            node.services.values().map(|service| fold(&service.facts.name)).collect();
        names.into_iter().for_each(|name| self.touch(Topic::Service(name)));
    }

    // ---- services ----------------------------------------------------------------------------

    pub(crate) fn put_service(&mut self, key: &str, facts: &ServiceFacts) {
        let old = self.nodes[key].services.get(&facts.id).cloned();
        if old.as_ref().is_some_and(|old| old.facts == *facts) {
            return;
        }
        let at = self.at(old.as_ref().map(|old| old.at));
        let row = Service { node: self.nodes[key].name.clone(), facts: facts.clone(), at };
        let node = self.nodes.get_mut(key).expect("the node was looked up");
        node.services.insert(facts.id.clone(), row);
        let now = self.now();
        self.names.entry(fold(&facts.name)).or_insert(now);
        if let Some(old) = old {
            self.leave_name(&old.facts.name);
        }
        self.touch(Topic::Services);
        self.touch(Topic::Node(key.to_owned()));
        self.touch(Topic::Service(fold(&facts.name)));
        self.repeat_name(key, facts);
    }

    /// An instance is gone, or has another name now.
    fn leave_name(&mut self, name: &str) {
        let name = fold(name);
        self.touch(Topic::Service(name.clone()));
        let mut services = self.nodes.values().flat_map(|node| node.services.values());
        if services.all(|service| fold(&service.facts.name) != name) {
            self.names.remove(&name);
            self.tables.extinction = Some(self.now());
        }
    }

    /// Checks repeat their service's name and tags.
    fn repeat_name(&mut self, key: &str, facts: &ServiceFacts) {
        let now = self.now();
        let node = self.nodes.get_mut(key).expect("the node was looked up");
        let mut is_touched = false;
        for check in node.checks.values_mut().filter(|check| check.facts.service_id == facts.id) {
            if check.service_name != facts.name || check.service_tags != facts.tags {
                check.service_name.clone_from(&facts.name);
                check.service_tags.clone_from(&facts.tags);
                check.at.modify = now;
                is_touched = true;
            }
        }
        if is_touched {
            self.touch(Topic::Checks);
        }
    }

    pub(crate) fn remove_service(&mut self, key: &str, id: &str) {
        let Some(node) = self.nodes.get(key) else { return };
        if !node.services.contains_key(id) {
            return;
        }
        let is_its = |(_, check): &(&String, &Check)| check.facts.service_id == id;
        let checks: Vec<String> =
            node.checks.iter().filter(is_its).map(|(id, _)| id.clone()).collect();
        checks.iter().for_each(|check| self.remove_check(key, check));
        let node = self.nodes.get_mut(key).expect("the node was looked up");
        let gone = node.services.remove(id).expect("the service was looked up");
        self.leave_name(&gone.facts.name);
        self.touch(Topic::Services);
        self.touch(Topic::Node(key.to_owned()));
    }

    // ---- checks ------------------------------------------------------------------------------

    /// What the catalogue or a transaction says of a check. How an agent's TTL check is kept is the
    /// agent's to say.
    pub(crate) fn put_catalog_check(&mut self, key: &str, mut facts: CheckFacts) {
        let node = &self.nodes[key];
        let old = node.checks.get(&facts.id).map(|old| &old.facts);
        if let Some(old) = old.filter(|old| node.is_agent && old.kind == "ttl") {
            let CheckFacts { service_id, kind, definition, .. } = old.clone();
            (facts.service_id, facts.kind, facts.definition) = (service_id, kind, definition);
            for (given, kept) in [(&mut facts.name, &old.name), (&mut facts.notes, &old.notes)] {
                if given.is_empty() {
                    given.clone_from(kept);
                }
            }
        }
        self.put_check(key, facts);
    }

    pub(crate) fn put_check(&mut self, key: &str, facts: CheckFacts) {
        let node = &self.nodes[key];
        let service = node.services.get(&facts.service_id).map(|service| &service.facts);
        let service_name = service.map_or_else(String::new, |service| service.name.clone());
        let service_tags = service.map_or_else(Vec::new, |service| service.tags.clone());
        let old = node.checks.get(&facts.id).cloned();
        let node = node.name.clone();
        if let Some(old) = &old
            && (&old.node, &old.facts, &old.service_name, &old.service_tags)
                == (&node, &facts, &service_name, &service_tags)
        {
            return;
        }
        let (id, now_of) = (facts.id.clone(), facts.service_id.clone());
        let is_critical = facts.status == "critical";
        let was_critical = old.as_ref().is_some_and(|old| old.facts.status == "critical");
        let at = self.at(old.as_ref().map(|old| old.at));
        let slot = self.nodes.get_mut(key).expect("the node was looked up");
        slot.checks.insert(id.clone(), Check { node, facts, service_name, service_tags, at });
        self.touch_check(key, &now_of);
        if let Some(old) = old {
            self.touch_check(key, &old.facts.service_id);
        }
        if is_critical && !was_critical {
            self.end_sessions_on(key, &id);
        }
    }

    /// A check of this service changed; without a service, of the node and of all on it.
    fn touch_check(&mut self, key: &str, service: &str) {
        self.touch(Topic::Checks);
        if service.is_empty() {
            self.touch_services_on(key);
        } else if let Some(service) = self.nodes[key].services.get(service) {
            let name = fold(&service.facts.name);
            self.touch(Topic::Service(name));
        }
    }

    pub(crate) fn remove_check(&mut self, key: &str, id: &str) {
        let Some(node) = self.nodes.get_mut(key) else { return };
        let Some(gone) = node.checks.remove(id) else { return };
        self.touch_check(key, &gone.facts.service_id);
        self.end_sessions_on(key, id);
    }

    // ---- agents ------------------------------------------------------------------------------

    /// The agent's node exists and is alive from now on. Its address is the agent's; its id, metadata and
    /// further addresses stay as they were said of it.
    pub(crate) fn ensure_agent(&mut self, agent: &str) {
        let mut facts = self.agents[agent].clone();
        if let Some(present) = self.nodes.get(&fold(agent)).map(|node| &node.facts) {
            if !present.id.is_empty() {
                facts.id.clone_from(&present.id);
            }
            let meta = facts.meta.get_or_insert_default();
            meta.extend(present.meta.clone().unwrap_or_default());
            let tagged = facts.tagged_addresses.get_or_insert_default();
            let others = present.tagged_addresses.iter().flatten();
            let others = others.filter(|(_, address)| **address != present.address);
            tagged.extend(others.map(|(name, address)| (name.clone(), address.clone())));
        }
        self.put_node(agent, &facts, Some(true), None);
        let alive = CheckFacts {
            id: SERF_HEALTH.to_owned(),
            name: "Serf Health Status".to_owned(),
            status: "passing".to_owned(),
            output: "Agent alive and reachable".to_owned(),
            definition: serde_json::json!({}),
            ..CheckFacts::default()
        };
        self.put_check(&fold(agent), alive);
    }

    pub(crate) fn agent_service(
        &mut self,
        agent: &str,
        service: &ServiceFacts,
        checks: &[CheckFacts],
        replaces_checks: bool,
    ) {
        let key = match self.same_elsewhere(agent, service) {
            Some(elsewhere) => elsewhere,
            None => {
                self.ensure_agent(agent);
                fold(agent)
            }
        };
        self.put_service(&key, service);
        checks.iter().for_each(|check| self.put_agent_check(&key, check.clone()));
        if !replaces_checks {
            return;
        }
        let is_unnamed = |(id, check): &(&String, &Check)| {
            check.facts.service_id == service.id && checks.iter().all(|named| named.id != **id)
        };
        let unnamed = self.nodes[&key].checks.iter().filter(is_unnamed);
        let unnamed: Vec<String> = unnamed.map(|(id, _)| id.clone()).collect();
        unnamed.iter().for_each(|id| self.remove_check(&key, id));
    }

    /// The one other agent that has this very instance, if the asking one has none of this id.
    fn same_elsewhere(&self, agent: &str, service: &ServiceFacts) -> Option<String> {
        let own = self.nodes.get(&fold(agent));
        if service.address.is_empty()
            || own.is_some_and(|own| own.services.contains_key(&service.id))
        {
            return None;
        }
        let is_same = |node: &Node| {
            let there = node.services.get(&service.id).map(|there| &there.facts);
            node.is_agent
                && there.is_some_and(|there| {
                    (&there.name, &there.address, there.port)
                        == (&service.name, &service.address, service.port)
                })
        };
        let mut same = self.nodes.iter().filter(|(_, node)| is_same(node));
        let (key, _) = same.next()?;
        same.next().is_none().then(|| key.clone())
    }

    /// A check that exists keeps its status and output.
    fn put_agent_check(&mut self, key: &str, mut check: CheckFacts) {
        if let Some(old) = self.nodes[key].checks.get(&check.id) {
            check.status.clone_from(&old.facts.status);
            check.output.clone_from(&old.facts.output);
        }
        self.put_check(key, check);
    }

    pub(crate) fn agent_check(&mut self, agent: &str, check: &CheckFacts) -> Outcome<()> {
        let key = if check.service_id.is_empty() {
            self.ensure_agent(agent);
            fold(agent)
        } else {
            let id = &check.service_id;
            let missing = || (404, format!("ServiceID {id:?} does not exist"));
            self.locate("service", agent, id, |node| node.services.contains_key(id))?
                .ok_or_else(missing)?
        };
        self.put_agent_check(&key, check.clone());
        Ok(())
    }

    /// Which node an id means to an agent: its own, else the only one of an agent that has it.
    fn locate(
        &self,
        what: &str,
        agent: &str,
        id: &str,
        has: impl Fn(&Node) -> bool,
    ) -> Outcome<Option<String>> {
        let own = fold(agent);
        if self.nodes.get(&own).is_some_and(&has) {
            return Ok(Some(own));
        }
        let found: Vec<&Node> =
            self.nodes.values().filter(|node| node.is_agent && has(node)).collect();
        if let [_, _, ..] = found[..] {
            let names: Vec<&str> = found.iter().map(|node| node.name.as_str()).collect();
            let agents = names.join(", ");
            return Err((
                409,
                format!(
                    "{what} ID {id:?} is registered on several agents ({agents}): \
                     name one with ?agent="
                ),
            ));
        }
        Ok(found.first().map(|node| fold(&node.name)))
    }

    pub(crate) fn locate_service(&self, agent: &str, id: &str) -> Outcome<String> {
        let found = self.locate("service", agent, id, |node| node.services.contains_key(id))?;
        found.ok_or_else(|| unknown_service(id))
    }

    fn locate_check(&self, agent: &str, id: &str) -> Outcome<String> {
        let found = match id.strip_prefix("_service_maintenance:") {
            _ if id == SERF_HEALTH => None,
            _ if id == NODE_MAINTENANCE => Some(fold(agent)),
            Some(service) => {
                self.locate("check", agent, service, |node| node.services.contains_key(service))?
            }
            None => self.locate("check", agent, id, |node| node.checks.contains_key(id))?,
        };
        let has =
            |key: &String| self.nodes.get(key).is_some_and(|node| node.checks.contains_key(id));
        found.filter(has).ok_or_else(|| unknown_check(id))
    }

    pub(crate) fn agent_deregister(&mut self, agent: &str, id: &str) -> Outcome<()> {
        let key = self.locate_service(agent, id)?;
        self.remove_service(&key, id);
        Ok(())
    }

    pub(crate) fn agent_deregister_check(&mut self, agent: &str, id: &str) -> Outcome<()> {
        let key = self.locate_check(agent, id)?;
        self.remove_check(&key, id);
        Ok(())
    }

    pub(crate) fn beat(
        &mut self,
        agent: &str,
        id: &str,
        status: &str,
        output: &str,
    ) -> Outcome<()> {
        let key = self.locate_check(agent, id)?;
        let facts = self.nodes[&key].checks[id].facts.clone();
        if facts.kind != "ttl" {
            return Err((500, format!("CheckID {id:?} does not have associated TTL")));
        }
        let (status, output) = (status.to_owned(), output.to_owned());
        self.put_check(&key, CheckFacts { status, output, ..facts });
        Ok(())
    }

    /// Begins (with a reason) or ends maintenance of a service, or of the agent's host.
    pub(crate) fn maintain(
        &mut self,
        agent: &str,
        service: Option<&str>,
        reason: Option<&str>,
    ) -> Outcome<()> {
        let (key, id, name) = match service {
            Some(id) => {
                let found = self.locate_service(agent, id).map_err(|refusal| match refusal {
                    (404, _) => (404, format!("No service registered with ID {id:?}")),
                    other => other,
                });
                (found?, format!("_service_maintenance:{id}"), "Service Maintenance Mode")
            }
            None => (fold(agent), NODE_MAINTENANCE.to_owned(), "Node Maintenance Mode"),
        };
        let Some(reason) = reason else {
            self.remove_check(&key, &id);
            return Ok(());
        };
        if service.is_none() {
            self.ensure_agent(agent);
        }
        if !self.nodes[&key].checks.contains_key(&id) {
            let check = CheckFacts {
                id,
                name: name.to_owned(),
                status: "critical".to_owned(),
                notes: reason.to_owned(),
                service_id: service.unwrap_or_default().to_owned(),
                kind: "maintenance".to_owned(),
                definition: serde_json::json!({}),
                ..CheckFacts::default()
            };
            self.put_check(&key, check);
        }
        Ok(())
    }
}
