//! The state of the cluster according to the documentation, in ordinary maps.
//!
//! Nothing here is shared with the product. A command runs on the model as a whole or not at all
//! ([`Model::command`]); whatever it writes gets the stamp [`Model::now`], and it touches those tables, names and
//! keys, and only those, whose indexes move according to the description of blocking queries.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::ledger::Stamp;

pub(crate) type Texts = BTreeMap<String, String>;

/// While a long lock delay is this young, a key is certainly kept from being locked; after that the
/// model does not know, and asks nothing.
const DELAY_CERTAIN: Duration = Duration::from_secs(10);
/// How many events are kept.
const EVENTS_MAX: usize = 256;

/// When a row was made and last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) create: Stamp,
    pub(crate) modify: Stamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) value: Vec<u8>,
    pub(crate) flags: u64,
    pub(crate) lock_index: u64,
    pub(crate) session: Option<String>,
    pub(crate) at: At,
}

#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) lock_delay_nanos: u64,
    pub(crate) deletes: bool,
    pub(crate) ttl: String,
    pub(crate) node_checks: Vec<String>,
    pub(crate) checks: Option<Vec<String>>,
    pub(crate) at: At,
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) facts: NodeFacts,
    /// Whether it is the node of a client host's agent.
    pub(crate) is_agent: bool,
    pub(crate) at: At,
    /// The newest change of the node or of a service on it.
    pub(crate) touched: Stamp,
    pub(crate) services: BTreeMap<String, Service>,
    pub(crate) checks: BTreeMap<String, Check>,
}

/// What a registration says of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    pub(crate) id: String,
    pub(crate) address: String,
    pub(crate) tagged_addresses: Option<Texts>,
    pub(crate) meta: Option<Texts>,
}

#[derive(Debug, Clone)]
pub(crate) struct Service {
    /// Its node's name as it was written when the instance was registered.
    pub(crate) node: String,
    pub(crate) facts: ServiceFacts,
    pub(crate) at: At,
}

/// What a registration says of an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ServiceFacts {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) tags: Vec<String>,
    pub(crate) address: String,
    pub(crate) port: i64,
    pub(crate) meta: Texts,
    pub(crate) weights: (i64, i64),
    pub(crate) enable_tag_override: bool,
    pub(crate) tagged_addresses: BTreeMap<String, (String, i64)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Check {
    /// Its node's name as it was written when the check last changed.
    pub(crate) node: String,
    pub(crate) facts: CheckFacts,
    pub(crate) service_name: String,
    pub(crate) service_tags: Vec<String>,
    pub(crate) at: At,
}

/// What a registration says of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CheckFacts {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) status: String,
    pub(crate) notes: String,
    pub(crate) output: String,
    pub(crate) service_id: String,
    /// The API's `Type`; a `ttl` check takes heartbeats.
    pub(crate) kind: String,
    /// The API's `Definition`.
    pub(crate) definition: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) name: String,
    pub(crate) session: String,
    pub(crate) service: String,
    pub(crate) only_passing: bool,
    pub(crate) tags: Option<Vec<String>>,
    pub(crate) at: At,
}

#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) time: u64,
}

/// The newest change of each table.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tables {
    pub(crate) kv: Stamp,
    pub(crate) nodes: Stamp,
    pub(crate) services: Stamp,
    pub(crate) checks: Stamp,
    pub(crate) sessions: Stamp,
    pub(crate) queries: Stamp,
    pub(crate) coordinates: Stamp,
    /// When any service name last lost its last instance.
    pub(crate) extinction: Option<Stamp>,
}

/// What a client can watch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    Key(String),
    Prefix(String),
    Services,
    Nodes,
    Node(String),
    Service(String),
    Checks,
    Sessions,
    Queries,
    Coordinates,
}

/// Why a command was refused: status and text.
pub(crate) type Refusal = (u16, String);
pub(crate) type Outcome<T> = Result<T, Refusal>;

#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    /// The newest visible change.
    pub(crate) stamp: Stamp,
    pub(crate) is_changed: bool,
    pub(crate) tables: Tables,
    pub(crate) keys: BTreeMap<String, Key>,
    /// Keys that were deleted, and when.
    pub(crate) graves: BTreeMap<String, Stamp>,
    /// Prefixes below which everything was deleted at once, and when.
    pub(crate) cuts: BTreeMap<String, Stamp>,
    /// Keys that a session with a long lock delay lost, and since when.
    pub(crate) delays: BTreeMap<String, Instant>,
    pub(crate) sessions: BTreeMap<String, Session>,
    /// By name in lower case.
    pub(crate) nodes: BTreeMap<String, Node>,
    /// Service names with an instance, in lower case, and when each was last touched.
    pub(crate) names: BTreeMap<String, Stamp>,
    pub(crate) queries: BTreeMap<String, Query>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) events_fired: u64,
    /// By node in lower case.
    pub(crate) coordinates: BTreeMap<String, Vec<i64>>,
    /// What the nodes of agents are made of.
    pub(crate) agents: BTreeMap<String, NodeFacts>,
}

pub(crate) fn fold(name: &str) -> String {
    name.to_ascii_lowercase()
}

impl Model {
    /// Runs a command: all of it, or, when it is refused, nothing.
    pub(crate) fn command<T>(&mut self, run: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        let before = self.clone();
        let outcome = run(self);
        if outcome.is_err() {
            *self = before;
        } else if std::mem::take(&mut self.is_changed) {
            self.stamp += 1;
        }
        outcome
    }

    /// The stamp of whatever the running command writes.
    pub(crate) fn now(&self) -> Stamp {
        self.stamp + 1
    }

    /// When a row was made and changed that is written now.
    pub(crate) fn at(&self, old: Option<At>) -> At {
        At { create: old.map_or(self.now(), |old| old.create), modify: self.now() }
    }

    pub(crate) fn touch(&mut self, topic: Topic) {
        self.is_changed = true;
        let now = self.now();
        match topic {
            Topic::Key(_) | Topic::Prefix(_) => self.tables.kv = now,
            Topic::Services => self.tables.services = now,
            Topic::Nodes => self.tables.nodes = now,
            Topic::Checks => self.tables.checks = now,
            Topic::Sessions => self.tables.sessions = now,
            Topic::Queries => self.tables.queries = now,
            Topic::Coordinates => self.tables.coordinates = now,
            Topic::Node(name) => {
                if let Some(node) = self.nodes.get_mut(&name) {
                    node.touched = now;
                }
            }
            Topic::Service(name) => {
                if let Some(touched) = self.names.get_mut(&name) {
                    *touched = now;
                }
            }
        }
    }

    /// Something changed that no counted topic shows.
    pub(crate) fn touch_events(&mut self) {
        self.is_changed = true;
    }

    /// What the index of a topic must be.
    pub(crate) fn index(&self, topic: &Topic) -> Stamp {
        let tables = &self.tables;
        match topic {
            Topic::Key(key) => self.keys.get(key).map_or(tables.kv, |row| row.at.modify),
            Topic::Prefix(prefix) if prefix.is_empty() => tables.kv,
            Topic::Prefix(prefix) => {
                let keys = self.keys_below(prefix).map(|(_, row)| row.at.modify);
                let graves = below(&self.graves, prefix).map(|(_, stamp)| *stamp);
                let cuts = self.cuts.iter().filter(|(cut, _)| {
                    cut.starts_with(prefix.as_str()) || prefix.starts_with(cut.as_str())
                });
                let cuts = cuts.map(|(_, stamp)| *stamp);
                keys.chain(graves).chain(cuts).max().unwrap_or(tables.kv)
            }
            Topic::Services => tables.services,
            Topic::Nodes => tables.nodes,
            Topic::Checks => tables.checks,
            Topic::Sessions => tables.sessions,
            Topic::Queries => tables.queries,
            Topic::Coordinates => tables.coordinates,
            Topic::Node(name) => {
                self.nodes.get(&fold(name)).map_or(tables.nodes, |node| node.touched)
            }
            Topic::Service(name) => self.names.get(&fold(name)).copied().unwrap_or_else(|| {
                let catalog = tables.nodes.max(tables.services).max(tables.checks);
                tables.extinction.unwrap_or(catalog)
            }),
        }
    }

    pub(crate) fn keys_below<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a String, &'a Key)> {
        below(&self.keys, prefix)
    }

    /// Whether a lock delay keeps a key from being locked; `None` if that is not certain.
    pub(crate) fn is_delayed(&self, key: &str) -> Option<bool> {
        match self.delays.get(key) {
            None => Some(false),
            Some(since) => (since.elapsed() < DELAY_CERTAIN).then_some(true),
        }
    }

    pub(crate) fn fire(&mut self, id: &str, name: &str, payload: &[u8]) {
        self.events_fired += 1;
        let (id, name, payload) = (id.to_owned(), name.to_owned(), payload.to_vec());
        self.events.push_back(Event { id, name, payload, time: self.events_fired });
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
        self.touch_events();
    }
}

fn below<'a, V>(
    table: &'a BTreeMap<String, V>,
    prefix: &'a str,
) -> impl Iterator<Item = (&'a String, &'a V)> {
    table.range(prefix.to_owned()..).take_while(move |(key, _)| key.starts_with(prefix))
}
