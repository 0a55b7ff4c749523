//! Transactions: several operations that take effect together or not at all.

use serde::{Deserialize, Serialize};

use super::catalog::{CheckRegistration, Node, NodeService, ServiceDefinition};
use super::health::HealthCheck;
use super::kv::KvPair;

/// One operation: exactly one member is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TxnOp {
    /// On a key.
    #[serde(rename = "KV", skip_serializing_if = "Option::is_none")]
    pub kv: Option<KvOp>,
    /// On a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeOp>,
    /// On a service instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceOp>,
    /// On a check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckOp>,
}

/// An operation on a key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct KvOp {
    /// `set`, `cas`, `lock`, `unlock`, `get`, `get-or-empty`, `get-tree`, `check-index`, `check-session`,
    /// `check-not-exists`, `delete`, `delete-tree`, `delete-cas`.
    pub verb: String,
    /// The key, or a prefix.
    pub key: String,
    /// The value in base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// A number of the client's.
    #[serde(skip_serializing_if = "is_zero")]
    pub flags: u64,
    /// The `ModifyIndex` to compare with.
    #[serde(skip_serializing_if = "is_zero")]
    pub index: u64,
    /// The session to lock, unlock or compare with.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub session: String,
}

/// An operation on a node: `get`, `set`, `cas`, `delete`, `delete-cas`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeOp {
    /// What to do.
    pub verb: String,
    /// The node; its `ModifyIndex` is what is compared.
    pub node: Node,
}

/// An operation on a service instance: `get`, `set`, `cas`, `delete`, `delete-cas`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceOp {
    /// What to do.
    pub verb: String,
    /// Name of its node.
    pub node: String,
    /// The instance.
    pub service: ServiceRow,
}

/// A service instance in an operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceRow {
    /// The instance.
    #[serde(flatten)]
    pub definition: ServiceDefinition,
    /// What is compared.
    pub modify_index: u64,
}

/// An operation on a check: `get`, `set`, `cas`, `delete`, `delete-cas`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckOp {
    /// What to do.
    pub verb: String,
    /// The check.
    pub check: CheckRow,
}

/// A check in an operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckRow {
    /// The check, with its node.
    #[serde(flatten)]
    pub registration: CheckRegistration,
    /// What is compared.
    pub modify_index: u64,
}

/// What a transaction answers: `Results` (200), or `Errors` (409) and nothing was changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TxnAnswer {
    /// What the operations answered, in their order; `null` after a failure.
    pub results: Option<Vec<TxnResult>>,
    /// Every operation that failed; `null` when none did.
    pub errors: Option<Vec<TxnError>>,
    /// For a transaction that only reads.
    #[serde(flatten)]
    pub read: Option<TxnReadMeta>,
}

/// What one operation answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "an answer has few, and they are read once")]
pub enum TxnResult {
    /// A key; its value only if it was read.
    #[serde(rename = "KV")]
    Kv(KvPair),
    /// A node.
    Node(Node),
    /// A service instance; tags and metadata that were not given are `null`.
    Service(#[serde(with = "null_lists")] NodeService),
    /// A check; the tags of a service without tags are `null`.
    Check(#[serde(with = "null_lists")] HealthCheck),
}

/// Empty lists of tags are `null` in the results of transactions, and there only: Consul sends these
/// rows as it keeps them, without the clean-up of its other endpoints.
mod null_lists {
    use serde::de::{DeserializeOwned, Error as _};
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::{Map, Value};

    /// The members that hold tags.
    const TAGS: [&str; 2] = ["Tags", "ServiceTags"];

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        row: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut row = serde_json::to_value(row).map_err(S::Error::custom)?;
        for name in TAGS {
            if let Some(tags) = row.get_mut(name)
                && tags.as_array().is_some_and(Vec::is_empty)
            {
                *tags = Value::Null;
            }
        }
        row.serialize(serializer)
    }

    pub(super) fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let mut row = Map::deserialize(deserializer)?;
        row.retain(|name, value| !(value.is_null() && TAGS.contains(&name.as_str())));
        serde_json::from_value(Value::Object(row)).map_err(D::Error::custom)
    }
}

/// Why an operation failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TxnError {
    /// Its place in the transaction, from 0.
    pub op_index: u32,
    /// The reason.
    pub what: String,
}

/// Freshness of a transaction that only reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TxnReadMeta {
    /// Always 0.
    pub index: u64,
    /// Nanoseconds since the server heard of the leader.
    pub last_contact: u64,
    /// Whether it knows a leader.
    pub known_leader: bool,
    /// Always empty.
    pub consistency_level: String,
    /// Always false.
    pub not_modified: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_that_were_not_given_are_null_in_results_and_can_be_read_again() {
        let bare = TxnResult::Service(NodeService { meta: None, ..NodeService::default() });
        let text = serde_json::to_string(&bare).unwrap();
        assert!(text.contains(r#""Tags":null"#) && text.contains(r#""Meta":null"#), "{text}");
        assert_eq!(serde_json::from_str::<TxnResult>(&text).unwrap(), bare);
        let tags = vec!["a".to_owned()];
        let tagged = TxnResult::Service(NodeService { tags, ..NodeService::default() });
        let text = serde_json::to_string(&tagged).unwrap();
        assert!(text.contains(r#""Tags":["a"]"#), "{text}");
        assert_eq!(serde_json::from_str::<TxnResult>(&text).unwrap(), tagged);
        let check = TxnResult::Check(HealthCheck::default());
        let text = serde_json::to_string(&check).unwrap();
        assert!(text.contains(r#""ServiceTags":null"#), "{text}");
        assert_eq!(serde_json::from_str::<TxnResult>(&text).unwrap(), check);
    }

    #[test]
    fn an_answer_shows_freshness_only_after_a_read() {
        let written = TxnAnswer { results: Some(vec![]), ..TxnAnswer::default() };
        assert_eq!(serde_json::to_string(&written).unwrap(), r#"{"Results":[],"Errors":null}"#);
        let read = TxnAnswer { read: Some(TxnReadMeta::default()), ..written };
        assert_eq!(
            serde_json::to_string(&read).unwrap(),
            r#"{"Results":[],"Errors":null,"Index":0,"LastContact":0,"KnownLeader":false,"ConsistencyLevel":"","NotModified":false}"#
        );
    }
}
