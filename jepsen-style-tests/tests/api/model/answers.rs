//! The model's answers to reads, and their comparison with the cluster's.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value, json};

use super::expression::Expression;
use super::ledger::Stamp;
use super::reads::{Read, Tags};
use super::shapes;
use super::state::{Check, Model, Node, Service, Topic, fold};

/// Names of the nodes of the cluster's servers.
const SERVERS: [&str; 3] = ["n1", "n2", "n3"];

/// What an operation should be answered.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) status: u16,
    pub(crate) body: Body,
    pub(crate) index: Index,
}

#[derive(Debug, Clone)]
pub(crate) enum Body {
    Empty,
    Text(String),
    Json(Value),
    Bytes(Vec<u8>),
    /// An object with a fresh id.
    Id,
    Any,
}

/// What `X-Consul-Index` should be.
#[derive(Debug, Clone)]
pub(crate) enum Index {
    /// Not there.
    None,
    /// The index of this change.
    Of(Stamp),
    /// This number.
    Exactly(u64),
}

impl Expected {
    pub(crate) fn new(status: u16, body: Body) -> Self {
        Self { status, body, index: Index::None }
    }

    pub(crate) fn json(value: Value) -> Self {
        Self::new(200, Body::Json(value))
    }

    pub(crate) fn text(status: u16, text: &str) -> Self {
        Self::new(status, Body::Text(text.to_owned()))
    }

    fn at(mut self, stamp: Stamp) -> Self {
        self.index = Index::Of(stamp);
        self
    }
}

/// Control and format characters, private use, what stands for nothing, and all blanks but the ordinary one.
static UNPRINTABLE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"[\p{C}\p{Z}--\ ]").expect("the expression is a valid one"));

/// What becomes of a path that ends with these bytes, before any endpoint sees it.
pub(crate) fn path_fate(rest: &[u8]) -> Option<Expected> {
    let text = String::from_utf8_lossy(rest);
    if UNPRINTABLE.is_match(&text) {
        return Some(Expected::new(400, Body::Empty));
    }
    let elements: Vec<&[u8]> = rest.split(|byte| *byte == b'/').collect();
    let last = elements.len() - 1;
    let is_unclean = |(place, element): (usize, &&[u8])| {
        (element.is_empty() && (place < last)) || matches!(**element, [b'.'] | [b'.', b'.'])
    };
    if elements.iter().enumerate().any(is_unclean) {
        return Some(Expected::new(301, Body::Any));
    }
    std::str::from_utf8(rest).is_err().then(|| Expected::new(400, Body::Any))
}

fn kept(filter: &Option<Expression>, rows: impl Iterator<Item = Value>) -> Value {
    rows.filter(|row| filter.as_ref().is_none_or(|filter| filter.keeps(row))).collect()
}

fn has_tags(service: &Service, tags: &Tags) -> bool {
    let has = |tag: &String| {
        service.facts.tags.iter().any(|own| own.to_lowercase() == tag.to_lowercase())
    };
    tags.iter().all(has)
}

fn aggregate(checks: &[&Check]) -> (u16, &'static str) {
    let rank = |check: &&Check| match (check.facts.kind.as_str(), check.facts.status.as_str()) {
        ("maintenance", _) => 3,
        (_, "passing") => 0,
        (_, "warning") => 1,
        _ => 2,
    };
    match checks.iter().map(rank).max().unwrap_or(0) {
        0 => (200, "passing"),
        1 => (429, "warning"),
        2 => (503, "critical"),
        _ => (503, "maintenance"),
    }
}

impl Model {
    /// What a read is answered now.
    pub(crate) fn read(&self, read: &Read) -> Expected {
        match read {
            Read::Key(_) | Read::RawKey(_) | Read::Recurse(_) | Read::Names { .. } => {
                self.read_keys(read)
            }
            Read::Sessions => self.sessions_where(|_| true),
            Read::Session(id) => self.sessions_where(|(found, _)| *found == id),
            Read::SessionsOf(node) => {
                self.sessions_where(|(_, session)| fold(&session.node) == fold(node))
            }
            Read::Queries => {
                let rows = self.queries.iter().map(|(id, row)| shapes::query(id, row));
                Expected::json(rows.collect()).at(self.tables.queries)
            }
            Read::Query(id) => match self.queries.get(id) {
                Some(row) => {
                    Expected::json(json!([shapes::query(id, row)])).at(self.tables.queries)
                }
                None => Expected::text(404, "Query not found"),
            },
            Read::Execute(name) => self.execute(name),
            Read::Events(name) => self.list_events(name),
            Read::Coordinates => {
                let rows = self.nodes.keys().filter_map(|key| self.coordinate(key));
                Expected::json(rows.collect()).at(self.tables.coordinates)
            }
            Read::Coordinate(node) => match self.coordinate(&fold(node)) {
                Some(entry) => Expected::json(json!([entry])),
                None => Expected::new(404, Body::Empty),
            }
            .at(self.tables.coordinates),
            Read::AgentServices(_)
            | Read::AgentChecks(_)
            | Read::AgentService { .. }
            | Read::AgentHealth { .. }
            | Read::AgentHealthOf { .. } => self.read_agent(read),
            _ => self.read_catalog(read),
        }
    }

    fn read_keys(&self, read: &Read) -> Expected {
        match read {
            Read::Key(key) => {
                if let Some(fate) = path_fate(key) {
                    return fate;
                }
                let key = String::from_utf8_lossy(key).into_owned();
                if key.is_empty() {
                    return Expected::text(400, "Missing key name");
                }
                let found = self.keys.get(&key);
                let answer = match found {
                    Some(row) => Expected::json(json!([shapes::key(&key, row)])),
                    None => Expected::new(404, Body::Empty),
                };
                answer.at(self.index(&Topic::Key(key)))
            }
            Read::RawKey(key) => {
                let answer = match self.keys.get(key) {
                    Some(row) => Expected::new(200, Body::Bytes(row.value.clone())),
                    None => Expected::new(404, Body::Empty),
                };
                answer.at(self.index(&Topic::Key(key.clone())))
            }
            Read::Recurse(prefix) => {
                let rows = self.keys_below(prefix).map(|(key, row)| shapes::key(key, row));
                let rows: Vec<Value> = rows.collect();
                let answer = match rows.is_empty() {
                    true => Expected::new(404, Body::Empty),
                    false => Expected::json(Value::Array(rows)),
                };
                answer.at(self.index(&Topic::Prefix(prefix.clone())))
            }
            Read::Names { prefix, separator } => {
                let mut names: Vec<String> = Vec::new();
                for (key, _) in self.keys_below(prefix) {
                    let rest = &key[prefix.len()..];
                    let cut = rest.find(separator.as_str()).filter(|_| !separator.is_empty());
                    let end = cut.map_or(key.len(), |at| prefix.len() + at + separator.len());
                    if names.last().is_none_or(|last| *last != key[..end]) {
                        names.push(key[..end].to_owned());
                    }
                }
                let answer = match names.is_empty() && !prefix.is_empty() {
                    true => Expected::new(404, Body::Empty),
                    false => Expected::json(json!(names)),
                };
                answer.at(self.index(&Topic::Prefix(prefix.clone())))
            }
            other => panic!("no read of keys: {other:?}"),
        }
    }

    fn sessions_where(
        &self,
        is_shown: impl Fn(&(&String, &super::state::Session)) -> bool,
    ) -> Expected {
        let rows = self.sessions.iter().filter(is_shown);
        let rows = rows.map(|(id, row)| shapes::session(id, row));
        Expected::json(rows.collect()).at(self.tables.sessions)
    }

    fn list_events(&self, name: &str) -> Expected {
        let rows = self.events.iter().filter(|event| name.is_empty() || event.name == name);
        let newest = rows.clone().next_back().map_or(1, |event| {
            let digits = event.id.replace('-', "");
            let half = |text: &str| u64::from_str_radix(text, 16).unwrap_or(0);
            (half(&digits[..16]) ^ half(&digits[16..])).max(1)
        });
        let mut expected = Expected::json(rows.map(shapes::event).collect());
        expected.index = Index::Exactly(newest);
        expected
    }

    /// Where a node is: a server is at the origin until it says otherwise.
    fn coordinate(&self, key: &str) -> Option<Value> {
        let node = self.nodes.get(key)?;
        let is_server = SERVERS.contains(&key) && node.services.contains_key("consul");
        let vector = match self.coordinates.get(key) {
            Some(vector) => json!(vector),
            None if is_server => json!([0, 0, 0, 0, 0, 0, 0, 0]),
            None => return None,
        };
        Some(json!({ "Node": node.name, "Coord": { "Vec": vector } }))
    }

    // ---- the catalogue -----------------------------------------------------------------------

    fn node_named(&self, name: &str) -> Option<&Node> {
        let by_id = || self.nodes.values().find(|node| node.facts.id == fold(name));
        self.nodes.get(&fold(name)).or_else(by_id)
    }

    fn instances(&self, name: &str) -> impl Iterator<Item = (&Node, &Service)> {
        let name = fold(name);
        let all = self
            .nodes
            .values()
            .flat_map(|node| node.services.values().map(move |service| (node, service)));
        all.filter(move |(_, service)| fold(&service.facts.name) == name)
    }

    fn read_catalog(&self, read: &Read) -> Expected {
        match read {
            Read::Nodes { meta, filter } => {
                let has_meta = |node: &&Node| {
                    meta.as_ref().is_none_or(|(key, value)| {
                        node.facts.meta.as_ref().and_then(|own| own.get(key)) == Some(value)
                    })
                };
                let rows = self.nodes.values().filter(has_meta).map(shapes::node);
                Expected::json(kept(filter, rows)).at(self.tables.nodes)
            }
            Read::Services => self.service_names(),
            Read::Service { name, tags, filter } => {
                let rows = self.instances(name).filter(|(_, service)| has_tags(service, tags));
                let rows = rows.map(|(node, service)| shapes::catalog_service(node, service));
                Expected::json(kept(filter, rows)).at(self.index(&Topic::Service(name.clone())))
            }
            Read::Node(name) => {
                let Some(node) = self.node_named(name) else {
                    return Expected::json(Value::Null).at(self.tables.nodes);
                };
                let services = node.services.iter();
                let services = services.map(|(id, service)| (id.clone(), shapes::service(service)));
                let services = Value::Object(services.collect());
                let shown = json!({ "Node": shapes::node(node), "Services": services });
                Expected::json(shown).at(node.touched)
            }
            Read::NodeServices(name) => {
                let Some(node) = self.node_named(name) else {
                    let nothing = json!({ "Node": null, "Services": null });
                    return Expected::json(nothing).at(self.tables.nodes);
                };
                let services: Value = node.services.values().map(shapes::service).collect();
                let shown = json!({ "Node": shapes::node(node), "Services": services });
                Expected::json(shown).at(node.touched)
            }
            Read::Health { name, tags, passing, filter } => {
                let rows = self.instances(name).filter(|(_, service)| has_tags(service, tags));
                let passes = |check: &&Check| check.facts.status == "passing";
                let rows = rows.filter(|(node, service)| {
                    !passing || checks_of(node, service).iter().all(passes)
                });
                let rows = rows.map(|(node, service)| entry(node, service));
                Expected::json(kept(filter, rows)).at(self.index(&Topic::Service(name.clone())))
            }
            Read::ChecksOf(name) => {
                let rows = self.checks_of_name(name);
                Expected::json(rows).at(self.index(&Topic::Service(name.clone())))
            }
            Read::ChecksOn { node, filter } => {
                let node = self.node_named(node);
                let rows = node.into_iter().flat_map(|node| {
                    node.checks.values().map(move |check| shapes::check(node, check))
                });
                Expected::json(kept(filter, rows)).at(self.tables.checks)
            }
            Read::ChecksIn { status, filter } => {
                let all = self
                    .nodes
                    .values()
                    .flat_map(|node| node.checks.values().map(move |check| (node, check)));
                let rows =
                    all.filter(|(_, check)| status == "any" || check.facts.status == *status);
                let rows = rows.map(|(node, check)| shapes::check(node, check));
                Expected::json(kept(filter, rows)).at(self.tables.checks)
            }
            other => panic!("no read of the catalogue: {other:?}"),
        }
    }

    /// A service's own checks, by node and id.
    fn checks_of_name(&self, name: &str) -> Value {
        let name = fold(name);
        let mut rows = Vec::new();
        for node in self.nodes.values() {
            let is_its = |check: &&Check| {
                node.services
                    .get(&check.facts.service_id)
                    .is_some_and(|service| fold(&service.facts.name) == name)
            };
            rows.extend(
                node.checks.values().filter(is_its).map(|check| shapes::check(node, check)),
            );
        }
        Value::Array(rows)
    }

    fn service_names(&self) -> Expected {
        let mut names = Map::new();
        for service in self.nodes.values().flat_map(|node| node.services.values()) {
            let tags = names.entry(service.facts.name.clone()).or_insert_with(|| json!([]));
            let mut merged: Vec<String> =
                serde_json::from_value(tags.clone()).expect("a list of texts");
            merged.extend(service.facts.tags.iter().cloned());
            merged.sort_unstable();
            merged.dedup();
            *tags = json!(merged);
        }
        Expected::json(Value::Object(names)).at(self.tables.services)
    }

    /// The order is random, so only what is fixed is compared.
    fn execute(&self, name: &str) -> Expected {
        let named = |(id, query): &(&String, &super::state::Query)| {
            *id == name || (!name.is_empty() && query.name == name)
        };
        let Some((_, query)) = self.queries.iter().find(named) else {
            return Expected::text(404, "Query not found");
        };
        let is_usable = |(node, service): &(&Node, &Service)| {
            let is_bad = |check: &&Check| {
                check.facts.status == "critical"
                    || (query.only_passing && check.facts.status != "passing")
            };
            let tags = query.tags.clone().unwrap_or_default();
            !checks_of(node, service).iter().any(is_bad) && has_tags(service, &tags)
        };
        let usable: Vec<_> = self.instances(&query.service).filter(is_usable).collect();
        let mut shown = json!({ "Service": query.service, "Datacenter": "dc1", "Failovers": 0 });
        if let [] | [_] = usable[..] {
            shown["Nodes"] = usable.iter().map(|(node, service)| entry(node, service)).collect();
        }
        Expected::json(shown).at(self.tables.queries)
    }

    // ---- agents ------------------------------------------------------------------------------

    fn read_agent(&self, read: &Read) -> Expected {
        match read {
            Read::AgentServices(agent) => {
                let rows = self.nodes.get(&fold(agent)).into_iter();
                let rows = rows.flat_map(|node| node.services.iter());
                let rows = rows.map(|(id, service)| (id.clone(), shapes::agent_service(service)));
                Expected::json(Value::Object(rows.collect()))
            }
            Read::AgentChecks(agent) => {
                let rows = self.nodes.get(&fold(agent)).into_iter().flat_map(|node| {
                    let own = node.checks.iter().filter(|(id, _)| *id != "serfHealth");
                    own.map(move |(id, check)| (id.clone(), shapes::agent_check(check)))
                });
                Expected::json(Value::Object(rows.collect()))
            }
            Read::AgentService { agent, id } => match self.locate_service(agent, id) {
                Ok(key) => Expected::json(shapes::agent_service(&self.nodes[&key].services[id])),
                Err((404, _)) => Expected::text(404, &format!("unknown service ID: {id}")),
                Err((status, text)) => Expected::text(status, &text),
            },
            Read::AgentHealth { agent, id } => match self.locate_service(agent, id) {
                Ok(key) => {
                    let node = &self.nodes[&key];
                    let (status, shown) = agent_health(node, &node.services[id]);
                    Expected::new(status, Body::Json(shown))
                }
                Err((404, _)) => {
                    let nothing =
                        json!({ "AggregatedStatus": "critical", "Service": null, "Checks": null });
                    Expected::new(404, Body::Json(nothing))
                }
                Err((status, text)) => Expected::text(status, &text),
            },
            Read::AgentHealthOf { agent, name } => {
                let Some(node) = self.nodes.get(&fold(agent)) else {
                    return Expected::new(404, Body::Json(json!([])));
                };
                let instances = node.services.values();
                let instances = instances.filter(|service| service.facts.name == *name);
                let shown: Vec<_> = instances.map(|service| agent_health(node, service)).collect();
                let rank = |(status, shown): &&(u16, Value)| {
                    let order = [200, 429, 503];
                    let place = order.iter().position(|code| code == status);
                    (place, shown["AggregatedStatus"] == "maintenance")
                };
                let status = shown.iter().max_by_key(rank).map_or(404, |(status, _)| *status);
                let list = shown.into_iter().map(|(_, shown)| shown).collect();
                Expected::new(status, Body::Json(list))
            }
            other => panic!("no read of an agent: {other:?}"),
        }
    }
}

fn checks_of<'a>(node: &'a Node, service: &Service) -> Vec<&'a Check> {
    let counts = |check: &&Check| {
        check.facts.service_id.is_empty() || check.facts.service_id == service.facts.id
    };
    node.checks.values().filter(counts).collect()
}

fn entry(node: &Node, service: &Service) -> Value {
    let checks: Value =
        checks_of(node, service).into_iter().map(|check| shapes::check(node, check)).collect();
    json!({ "Node": shapes::node(node), "Service": shapes::service(service), "Checks": checks })
}

fn agent_health(node: &Node, service: &Service) -> (u16, Value) {
    let mut checks = checks_of(node, service);
    checks.retain(|check| check.facts.id != "serfHealth");
    let (status, word) = aggregate(&checks);
    let shown: Vec<Value> = checks
        .iter()
        .map(|check| json!({ "CheckID": check.facts.id, "Status": check.facts.status }))
        .collect();
    let service = shapes::agent_service(service);
    (status, json!({ "AggregatedStatus": word, "Service": service, "Checks": shown }))
}
