//! Transactions: errors that are known before anything runs come first; then the operations run in order, each
//! seeing what the earlier ones did; one failure undoes all.

use serde_json::{Value, json};

use super::catalog::Registration;
use super::kv::{DeleteMode, PutMode};
use super::shapes::{self, ANYTHING};
use super::state::{Check, CheckFacts, Model, Node, Refusal, Service, ServiceFacts, fold};

/// One operation; indexes are the cluster's.
#[derive(Debug, Clone)]
pub(crate) enum TxnOp {
    Key { verb: &'static str, key: String, value: Vec<u8>, flags: u64, index: u64, session: String },
    Node { verb: &'static str, node: Registration, index: u64 },
    Service { verb: &'static str, node: String, service: ServiceFacts, index: u64 },
    Check { verb: &'static str, node: String, check: CheckFacts, index: u64 },
}

type Done = Result<Vec<Value>, String>;

impl TxnOp {
    pub(crate) fn writes(&self) -> bool {
        match self {
            Self::Key { verb, .. } => matches!(
                *verb,
                "set" | "cas" | "lock" | "unlock" | "delete" | "delete-tree" | "delete-cas"
            ),
            Self::Node { verb, .. } | Self::Service { verb, .. } | Self::Check { verb, .. } => {
                *verb != "get"
            }
        }
    }
}

impl Model {
    /// Runs a transaction; what it answers is its results, or its errors and nothing happened.
    pub(crate) fn transact(
        &mut self,
        operations: &[TxnOp],
        is_index: impl Fn(u64, u64) -> bool,
    ) -> Result<Vec<Value>, Vec<Value>> {
        let mut results = Vec::new();
        let mut errors = Vec::new();
        let done = self.command(|model| {
            let faults = operations.iter().map(|operation| model.fault(operation));
            errors = numbered(faults);
            if !errors.is_empty() {
                return Err(refused());
            }
            let mut failures = Vec::new();
            for operation in operations {
                failures.push(match model.operate(operation, &is_index) {
                    Ok(more) => {
                        results.extend(more);
                        None
                    }
                    Err(what) => Some(what),
                });
            }
            errors = numbered(failures.into_iter());
            if errors.is_empty() { Ok(()) } else { Err(refused()) }
        });
        if done.is_ok() { Ok(results) } else { Err(errors) }
    }

    fn fault(&self, operation: &TxnOp) -> Option<String> {
        let TxnOp::Key { verb, key, .. } = operation else { return None };
        if key.is_empty() && *verb != "delete-tree" {
            return Some("Must provide key".to_owned());
        }
        (*verb == "lock" && self.is_delayed(key) == Some(true))
            .then(|| format!("failed to lock key {key:?} due to lock delay"))
    }

    fn operate(&mut self, operation: &TxnOp, is_index: &impl Fn(u64, u64) -> bool) -> Done {
        match operation {
            TxnOp::Key { verb, key, value, flags, index, session } => {
                let row = (key.as_str(), value.as_slice(), *flags);
                self.on_key(verb, row, *index, session, is_index)
            }
            TxnOp::Node { verb, node, index } => self.on_node(verb, node, *index, is_index),
            TxnOp::Service { verb, node, service, index } => {
                self.on_service(verb, node, service, *index, is_index)
            }
            TxnOp::Check { verb, node, check, index } => {
                self.on_check(verb, node, check, *index, is_index)
            }
        }
    }

    fn on_key(
        &mut self,
        verb: &str,
        (key, value, flags): (&str, &[u8], u64),
        index: u64,
        session: &str,
        is_index: &impl Fn(u64, u64) -> bool,
    ) -> Done {
        let row = self.keys.get(key);
        let mode = match verb {
            "set" => PutMode::Set,
            "cas" => PutMode::Cas(index),
            "lock" => PutMode::Acquire(session.to_owned()),
            "unlock" => PutMode::Release(session.to_owned()),
            "delete" => return self.erase(key, &DeleteMode::One, is_index),
            "delete-tree" => return self.erase(key, &DeleteMode::Recurse, is_index),
            "delete-cas" => return self.erase(key, &DeleteMode::Cas(index), is_index),
            "get" => {
                let row = row.ok_or_else(|| format!("key {key:?} doesn't exist"))?;
                return Ok(vec![json!({"KV": shapes::key(key, row)})]);
            }
            "get-or-empty" => return Ok(vec![json!({"KV": shapes::key_or_empty(key, row)})]),
            "get-tree" => {
                let rows = self.keys_below(key);
                return Ok(rows.map(|(key, row)| json!({"KV": shapes::key(key, row)})).collect());
            }
            "check-not-exists" => {
                return match row {
                    Some(_) => Err(format!("key {key:?} exists")),
                    None => Ok(Vec::new()),
                };
            }
            "check-index" => {
                let missing = || format!("failed to check index, key {key:?} doesn't exist");
                let row = row.ok_or_else(missing)?;
                return match is_index(row.at.modify, index) {
                    true => Ok(vec![json!({"KV": shapes::key_without_value(key, row)})]),
                    false => Err(format!(
                        "failed index check for key {key:?}, current modify index {ANYTHING}"
                    )),
                };
            }
            "check-session" => {
                let missing = || format!("failed to check session, key {key:?} doesn't exist");
                let row = row.ok_or_else(missing)?;
                let holder = row.session.as_deref().unwrap_or_default();
                return match holder == session {
                    true => Ok(vec![json!({"KV": shapes::key_without_value(key, row)})]),
                    false => Err(format!(
                        "failed session check for key {key:?}, current session {holder:?} != \
                         {session:?}"
                    )),
                };
            }
            unknown => return Err(format!("unknown KV verb {unknown:?}")),
        };
        if matches!(verb, "lock" | "unlock") && session.is_empty() {
            return Err("missing session".to_owned());
        }
        let held = self.put(key, value, flags, &mode, is_index).map_err(|(_, text)| text)?;
        if !held {
            return Err(match verb {
                "cas" => format!("failed to set key {key:?}, index is stale"),
                "lock" => format!("failed to lock key {key:?}, lock is already held"),
                _ => format!(
                    "failed to unlock key {key:?}, lock isn't held, or is held by another session"
                ),
            });
        }
        Ok(vec![json!({"KV": shapes::key_without_value(key, &self.keys[key])})])
    }

    fn erase(
        &mut self,
        key: &str,
        mode: &DeleteMode,
        is_index: &impl Fn(u64, u64) -> bool,
    ) -> Done {
        match self.delete(key, mode, is_index) {
            true => Ok(Vec::new()),
            false => Err(format!("failed to delete key {key:?}, index is stale")),
        }
    }

    fn on_node(
        &mut self,
        verb: &str,
        what: &Registration,
        index: u64,
        is_index: &impl Fn(u64, u64) -> bool,
    ) -> Done {
        let name = &what.node;
        let key = fold(name);
        let modify = self.nodes.get(&key).map(|node| node.at.modify);
        let stale = |done| Err(format!("failed to {done} node {name:?}, index is stale"));
        match verb {
            "get" => match self.node_of(&key, &what.facts.id) {
                Some(node) => return Ok(vec![json!({"Node": shapes::node(node)})]),
                None => return Err(format!("node {name:?} doesn't exist")),
            },
            "cas" if !holds(modify, index, is_index) => return stale("set"),
            "delete-cas" if modify.is_none() || !holds(modify, index, is_index) => {
                return stale("delete");
            }
            "set" | "cas" => {
                self.register_node(name, &what.facts, false).map_err(|(_, text)| text)?;
            }
            _ => {
                self.remove_node(&key);
                return Ok(Vec::new());
            }
        }
        Ok(vec![json!({"Node": shapes::node(&self.nodes[&key])})])
    }

    /// A node by its id, if one is given, else by its name.
    fn node_of(&self, key: &str, id: &str) -> Option<&Node> {
        match id {
            "" => self.nodes.get(key),
            id => self.nodes.values().find(|node| node.facts.id == id),
        }
    }

    fn on_service(
        &mut self,
        verb: &str,
        name: &str,
        what: &ServiceFacts,
        index: u64,
        is_index: &impl Fn(u64, u64) -> bool,
    ) -> Done {
        let (key, id) = (fold(name), &what.id);
        let node = self.nodes.get(&key);
        let found = node.and_then(|node| node.services.get(id));
        let modify = found.map(|row| row.at.modify);
        let stale =
            |done| Err(format!("failed to {done} service {id:?} on node {name:?}, index is stale"));
        match verb {
            "get" => match found {
                Some(row) => return Ok(vec![json!({"Service": service_written(row)})]),
                None => return Err(format!("service {id:?} on node {name:?} doesn't exist")),
            },
            "set" | "cas" if node.is_none() => return Err("Missing node registration".to_owned()),
            "cas" if !holds(modify, index, is_index) => return stale("set"),
            "delete-cas" if modify.is_none() || !holds(modify, index, is_index) => {
                return stale("delete");
            }
            "set" | "cas" => self.put_service(&key, what),
            _ => {
                self.remove_service(&key, id);
                return Ok(Vec::new());
            }
        }
        let row = &self.nodes[&key].services[id];
        Ok(vec![json!({"Service": service_written(row)})])
    }

    fn on_check(
        &mut self,
        verb: &str,
        name: &str,
        what: &CheckFacts,
        index: u64,
        is_index: &impl Fn(u64, u64) -> bool,
    ) -> Done {
        let (key, id) = (fold(name), &what.id);
        let node = self.nodes.get(&key);
        let found = node.and_then(|node| node.checks.get(id).map(|check| (node, check)));
        let modify = found.map(|(_, check)| check.at.modify);
        let stale =
            |done| Err(format!("failed to {done} check {id:?} on node {name:?}, index is stale"));
        match verb {
            "get" => match found {
                Some((node, row)) => return Ok(vec![json!({"Check": written(node, row)})]),
                None => return Err(format!("check {id:?} on node {name:?} doesn't exist")),
            },
            "cas" if !holds(modify, index, is_index) => return stale("set"),
            "delete-cas" if modify.is_none() || !holds(modify, index, is_index) => {
                return stale("delete");
            }
            "set" | "cas" => {
                let node = node.ok_or_else(|| "Missing node registration".to_owned())?;
                if !what.service_id.is_empty() && !node.services.contains_key(&what.service_id) {
                    return Err("Missing service registration".to_owned());
                }
                self.put_catalog_check(&key, what.clone());
            }
            _ => {
                self.remove_check(&key, id);
                return Ok(Vec::new());
            }
        }
        let node = &self.nodes[&key];
        Ok(vec![json!({"Check": written(node, &node.checks[id])})])
    }
}

/// Whether a comparison holds; 0 stands for a row that does not exist.
fn holds(modify: Option<u64>, index: u64, is_index: &impl Fn(u64, u64) -> bool) -> bool {
    modify.map_or(index == 0, |modify| is_index(modify, index))
}

/// An instance as a transaction shows it: tags that were not given are null. (Metadata would be as well,
/// but is always given here.)
fn service_written(row: &Service) -> Value {
    let mut shown = shapes::service(row);
    if row.facts.tags.is_empty() {
        shown["Tags"] = Value::Null;
    }
    shown
}

/// A check as a transaction shows it. Whether its definition is shown depends on whose node it is on
/// in the end, and a later operation may have removed that: it is not compared.
fn written(node: &Node, row: &Check) -> Value {
    let mut shown = shapes::check(node, row);
    if row.service_tags.is_empty() {
        shown["ServiceTags"] = Value::Null;
    }
    if let Some(members) = shown.as_object_mut() {
        members.remove("Definition");
    }
    shown
}

fn refused() -> Refusal {
    (409, String::new())
}

fn numbered(failures: impl Iterator<Item = Option<String>>) -> Vec<Value> {
    let failures = failures.enumerate();
    failures.filter_map(|(place, what)| Some(json!({"OpIndex": place, "What": what?}))).collect()
}
