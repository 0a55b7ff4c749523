//! Makes one configuration of several, as Consul merges them.

use serde_json::Value;

/// Adds what comes later to what came before.
pub(super) fn merge(before: &mut Value, later: Value) {
    match (before, later) {
        (Value::Object(before), Value::Object(later)) => {
            for (key, value) in later {
                match before.get_mut(&key) {
                    _ if value.is_null() => {}
                    // Each file defines its own: they are not two halves of one.
                    Some(first) if ["service", "services", "check", "checks"].contains(&&*key) => {
                        append(first, value);
                    }
                    Some(first) => merge(first, value),
                    None => {
                        before.insert(key, value);
                    }
                }
            }
        }
        (before @ Value::Array(_), later @ Value::Array(_)) => append(before, later),
        (before, later) => *before = later,
    }
}

/// Makes one list of two values, each a list or an element.
fn append(first: &mut Value, second: Value) {
    let list = |value| match value {
        Value::Array(list) => list,
        one => vec![one],
    };
    let mut all = list(first.take());
    all.extend(list(second));
    *first = Value::Array(all);
}
