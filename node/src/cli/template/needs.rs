//! What a template asks for, and what is known of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use minijinja::value::{Kwargs, Serde, Value as Rendered};
use minijinja::{Environment, Error};
use quorate_client::Watch;
use quorate_client::types::health::ServiceEntry;
use quorate_client::types::kv::KvPair;
use serde_json::{Value, json};

use crate::cli::failure::Failure;
use crate::cli::session::Session;

/// Something that a template asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// The instances of a service.
    Service {
        /// Its name.
        name: String,
        /// Only those whose every check passes.
        passing: bool,
        /// Only those with this tag; empty: all.
        tag: String,
    },
    /// The names of services.
    Services,
    /// The nodes.
    Nodes,
    /// A key.
    Key {
        /// The key.
        key: String,
    },
    /// Keys below a prefix.
    Keys {
        /// The prefix.
        prefix: String,
    },
}

impl Need {
    /// Watches it, in the shape that templates see.
    pub(super) fn watch(&self, session: &Session) -> Result<Watch<Value>, Failure> {
        let client = &session.client;
        let narrow = |query| session.narrow(query);
        let watch = match self {
            Self::Service { name, passing, tag } => client
                .watch_service(name)
                .query(|query| {
                    let query = if *passing { query.passing() } else { query };
                    session.narrow(if tag.is_empty() { query } else { query.tag(tag) })
                })
                .map(instances)
                .start(),
            Self::Services => client
                .watch_services()
                .query(narrow)
                .map(|services| services.iter().map(|(name, tags)| json!({ "name": name, "tags": tags })).collect())
                .start(),
            Self::Nodes => client
                .watch_nodes()
                .query(narrow)
                .map(|nodes| {
                    let node = |node: &quorate_client::types::catalog::Node| {
                        json!({ "name": node.node, "id": node.id, "address": node.address, "meta": node.meta })
                    };
                    nodes.iter().map(node).collect()
                })
                .start(),
            Self::Key { key } => client.watch_key(key).query(narrow).map(|pair| pair.as_ref().map_or(Value::Null, value)).start(),
            Self::Keys { prefix } => client
                .watch_prefix(prefix)
                .query(narrow)
                .map(|pairs| {
                    let pair = |pair: &KvPair| json!({ "key": pair.key, "flags": pair.flags, "value": value(pair) });
                    pairs.iter().map(pair).collect()
                })
                .start(),
        };
        Ok(watch?)
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service { name, .. } => write!(f, "service \"{name}\""),
            Self::Services => f.write_str("the services"),
            Self::Nodes => f.write_str("the nodes"),
            Self::Key { key } => write!(f, "key \"{key}\""),
            Self::Keys { prefix } => write!(f, "keys below \"{prefix}\""),
        }
    }
}

fn value(pair: &KvPair) -> Value {
    Value::from(String::from_utf8_lossy(&pair.value).into_owned())
}

/// Sorted, so that a file does not change with the order of an answer.
fn instances(mut entries: Vec<ServiceEntry>) -> Value {
    entries.sort_by(|a, b| (&a.node.node, &a.service.id).cmp(&(&b.node.node, &b.service.id)));
    entries.iter().map(instance).collect()
}

fn instance(entry: &ServiceEntry) -> Value {
    let ServiceEntry { node, service, checks } = entry;
    let has = |status: &str| checks.iter().any(|check| check.status == status);
    let status = match (has("critical"), has("warning")) {
        (true, _) => "critical",
        (false, true) => "warning",
        (false, false) => "passing",
    };
    let weight =
        if status == "warning" { service.weights.warning } else { service.weights.passing };
    let address = if service.address.is_empty() { &node.address } else { &service.address };
    json!({
        "id": service.id, "service": service.service, "node": node.node, "address": address, "port": service.port,
        "tags": service.tags, "meta": service.meta, "status": status, "weight": weight,
    })
}

/// What a rendering has asked for, and what it was told.
#[derive(Debug, Default)]
pub(super) struct Needs(Mutex<Asked>);

#[derive(Debug, Default)]
struct Asked {
    known: BTreeMap<Need, Arc<Value>>,
    wanted: BTreeSet<Need>,
    missing: BTreeSet<Need>,
}

impl Needs {
    /// A rendering begins, with what is known.
    pub(super) fn begin(&self, known: BTreeMap<Need, Arc<Value>>) {
        *self.asked() = Asked { known, ..Asked::default() };
    }

    /// What it has asked for.
    pub(super) fn wanted(&self) -> BTreeSet<Need> {
        self.asked().wanted.clone()
    }

    /// What of that was not known.
    pub(super) fn missing(&self) -> Vec<Need> {
        self.asked().missing.iter().cloned().collect()
    }

    /// What is known of something, `None` as long as nothing is.
    fn ask(&self, need: Need) -> Option<Arc<Value>> {
        let mut asked = self.asked();
        let known = asked.known.get(&need).cloned();
        if known.is_none() {
            asked.missing.insert(need.clone());
        }
        asked.wanted.insert(need);
        known
    }

    /// The same as a list, which is empty as long as nothing is known.
    fn list(&self, need: Need) -> Rendered {
        self.ask(need).map_or_else(
            || Rendered::from(Vec::<Rendered>::new()),
            |rows| Rendered::from(Serde(&*rows)),
        )
    }

    fn key(&self, key: String, default: Option<String>) -> String {
        let need = Need::Key { key };
        match (self.ask(need.clone()).as_deref(), default) {
            (Some(Value::String(value)), _) => value.clone(),
            (Some(_), Some(default)) => default,
            (known, _) => {
                if known.is_some() {
                    self.asked().missing.insert(need);
                }
                String::new()
            }
        }
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a template can ask for.
pub(super) fn add_functions(environment: &mut Environment<'_>, needs: &Arc<Needs>) {
    let asked = Arc::clone(needs);
    environment.add_function(
        "service",
        move |name: String, options: Kwargs| -> Result<Rendered, Error> {
            let passing = options.get::<Option<bool>>("passing")?.unwrap_or(true);
            let tag = options.get::<Option<String>>("tag")?.unwrap_or_default();
            options.assert_all_used()?;
            Ok(asked.list(Need::Service { name, passing, tag }))
        },
    );
    let asked = Arc::clone(needs);
    environment.add_function("services", move || asked.list(Need::Services));
    let asked = Arc::clone(needs);
    environment.add_function("nodes", move || asked.list(Need::Nodes));
    let asked = Arc::clone(needs);
    environment.add_function("keys", move |prefix: String| asked.list(Need::Keys { prefix }));
    let asked = Arc::clone(needs);
    environment
        .add_function("key", move |key: String, default: Option<String>| asked.key(key, default));
    environment.add_function("env", |name: String| std::env::var(name).unwrap_or_default());
}
