//! The model's contents in the API's shapes, and their comparison with an answer.
//!
//! `CreateIndex` and `ModifyIndex` hold stamps here. Members that are not mentioned are not compared: the recorded
//! vectors test the shapes, this suite the meaning.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::ledger::Ledger;
use super::state::{Check, Event, Key, Node, Query, Service, Session};

/// A text that ends with this need only begin with what is before it.
pub(crate) const ANYTHING: &str = "\u{1}*";
/// A member with this text must not be there.
pub(crate) const ABSENT: &str = "\u{1}absent";

fn bytes(value: &[u8]) -> Value {
    if value.is_empty() { Value::Null } else { Value::String(STANDARD.encode(value)) }
}

pub(crate) fn key(name: &str, row: &Key) -> Value {
    json!({
        "LockIndex": row.lock_index,
        "Key": name,
        "Flags": row.flags,
        "Value": bytes(&row.value),
        "Session": row.session.as_deref().unwrap_or(ABSENT),
        "CreateIndex": row.at.create,
        "ModifyIndex": row.at.modify,
    })
}

pub(crate) fn key_without_value(name: &str, row: &Key) -> Value {
    key(name, &Key { value: Vec::new(), ..row.clone() })
}

/// What is there, or a key without anything.
pub(crate) fn key_or_empty(name: &str, row: Option<&Key>) -> Value {
    let empty = || json!({"LockIndex": 0, "Key": name, "Flags": 0, "Value": null});
    row.map_or_else(empty, |row| key(name, row))
}

pub(crate) fn session(id: &str, row: &Session) -> Value {
    let checks = row.checks.as_ref().map_or_else(|| json!(ABSENT), |checks| json!(checks));
    json!({
        "ID": id,
        "Name": row.name,
        "Node": row.node,
        "LockDelay": row.lock_delay_nanos,
        "Behavior": if row.deletes { "delete" } else { "release" },
        "TTL": row.ttl,
        "NodeChecks": row.node_checks,
        "ServiceChecks": null,
        "Checks": checks,
        "CreateIndex": row.at.create,
        "ModifyIndex": row.at.modify,
    })
}

pub(crate) fn node(row: &Node) -> Value {
    json!({
        "ID": row.facts.id,
        "Node": row.name,
        "Address": row.facts.address,
        "Datacenter": "dc1",
        "TaggedAddresses": row.facts.tagged_addresses,
        "Meta": row.facts.meta,
        "CreateIndex": row.at.create,
        "ModifyIndex": row.at.modify,
    })
}

fn addresses(row: &Service) -> Value {
    if row.facts.tagged_addresses.is_empty() {
        return json!(ABSENT);
    }
    let shown = row.facts.tagged_addresses.iter();
    let shown = shown
        .map(|(name, (address, port))| (name.clone(), json!({ "Address": address, "Port": port })));
    Value::Object(shown.collect())
}

fn weights(row: &Service) -> Value {
    json!({ "Passing": row.facts.weights.0, "Warning": row.facts.weights.1 })
}

/// An instance as it is shown below its node.
pub(crate) fn service(row: &Service) -> Value {
    let Value::Object(mut shown) = agent_service(row) else { return Value::Null };
    shown.remove("Datacenter");
    shown.insert("CreateIndex".to_owned(), json!(row.at.create));
    shown.insert("ModifyIndex".to_owned(), json!(row.at.modify));
    Value::Object(shown)
}

/// An instance as its agent shows it.
pub(crate) fn agent_service(row: &Service) -> Value {
    let facts = &row.facts;
    json!({
        "ID": facts.id,
        "Service": facts.name,
        "Tags": facts.tags,
        "Meta": facts.meta,
        "Port": facts.port,
        "Address": facts.address,
        "TaggedAddresses": addresses(row),
        "Weights": weights(row),
        "EnableTagOverride": facts.enable_tag_override,
        "Datacenter": "dc1",
    })
}

/// An instance with its node, flattened.
pub(crate) fn catalog_service(node: &Node, row: &Service) -> Value {
    let facts = &row.facts;
    json!({
        "ID": node.facts.id,
        "Node": row.node,
        "Address": node.facts.address,
        "Datacenter": "dc1",
        "TaggedAddresses": node.facts.tagged_addresses,
        "NodeMeta": node.facts.meta,
        "ServiceID": facts.id,
        "ServiceName": facts.name,
        "ServiceTags": facts.tags,
        "ServiceAddress": facts.address,
        "ServiceTaggedAddresses": addresses(row),
        "ServiceWeights": weights(row),
        "ServiceMeta": facts.meta,
        "ServicePort": facts.port,
        "ServiceEnableTagOverride": facts.enable_tag_override,
        "CreateIndex": row.at.create,
        "ModifyIndex": row.at.modify,
    })
}

pub(crate) fn check(node: &Node, row: &Check) -> Value {
    let mut shown = agent_check(row);
    // Agents keep to themselves how they run a check.
    let definition = if node.is_agent { json!({}) } else { row.facts.definition.clone() };
    shown["Definition"] = definition;
    shown["CreateIndex"] = json!(row.at.create);
    shown["ModifyIndex"] = json!(row.at.modify);
    shown
}

/// A check as its agent shows it.
pub(crate) fn agent_check(row: &Check) -> Value {
    let facts = &row.facts;
    json!({
        "Node": row.node,
        "CheckID": facts.id,
        "Name": facts.name,
        "Status": facts.status,
        "Notes": facts.notes,
        "Output": facts.output,
        "ServiceID": facts.service_id,
        "ServiceName": row.service_name,
        "ServiceTags": row.service_tags,
        "Type": facts.kind,
    })
}

pub(crate) fn query(id: &str, row: &Query) -> Value {
    json!({
        "ID": id,
        "Name": row.name,
        "Session": row.session,
        "Service": {
            "Service": row.service,
            "OnlyPassing": row.only_passing,
            "Tags": row.tags,
        },
        "CreateIndex": row.at.create,
        "ModifyIndex": row.at.modify,
    })
}

pub(crate) fn event(row: &Event) -> Value {
    json!({
        "ID": row.id,
        "Name": row.name,
        "Payload": bytes(&row.payload),
        "NodeFilter": "",
        "ServiceFilter": "",
        "TagFilter": "",
        "Version": 1,
        "LTime": row.time,
    })
}

/// Compares an answer with what is expected; binds stamps to the indexes that are shown for them.
pub(crate) fn compare(expected: &Value, actual: &Value, ledger: &mut Ledger) -> Result<(), String> {
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => members(expected, actual, ledger),
        (Value::Array(expected), Value::Array(actual)) => {
            if expected.len() != actual.len() {
                return Err(format!("{} elements instead of {}", actual.len(), expected.len()));
            }
            for (place, (expected, actual)) in expected.iter().zip(actual).enumerate() {
                compare(expected, actual, ledger).map_err(|why| format!("[{place}] {why}"))?;
            }
            Ok(())
        }
        (Value::String(expected), Value::String(actual)) if is_text(expected, actual) => Ok(()),
        (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64() => Ok(()),
        (expected, actual) if expected == actual => Ok(()),
        (expected, actual) => Err(format!("{actual} instead of {expected}")),
    }
}

fn members(
    expected: &Map<String, Value>,
    actual: &Map<String, Value>,
    ledger: &mut Ledger,
) -> Result<(), String> {
    if expected.is_empty() && !actual.is_empty() {
        return Err(format!("{actual:?} instead of an empty object"));
    }
    for (name, expected) in expected {
        let actual = match (actual.get(name), expected.as_str() == Some(ABSENT)) {
            (None, true) => continue,
            (Some(actual), false) => actual,
            (Some(actual), true) => return Err(format!("{name}: {actual} instead of nothing")),
            (None, false) => return Err(format!("{name} is missing")),
        };
        let is_index = name == "CreateIndex" || name == "ModifyIndex";
        let compared = match (expected.as_u64(), actual.as_u64()) {
            (Some(stamp), Some(index)) if is_index => ledger.bind(stamp, index),
            _ => compare(expected, actual, ledger),
        };
        compared.map_err(|why| format!("{name}: {why}"))?;
    }
    Ok(())
}

/// Whether a text is the one that is expected.
pub(crate) fn is_text(expected: &str, actual: &str) -> bool {
    match expected.strip_suffix(ANYTHING) {
        Some(beginning) => actual.starts_with(beginning),
        None => expected == actual,
    }
}
