//! Tokens, policies and roles.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A policy or a role that something is linked to. To link it, one of the two is enough.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AclLink {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    pub name: String,
}

/// A service whose instances a token may register, and find others for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AclServiceIdentity {
    /// The service's name.
    pub service_name: String,
    /// The datacenters in which it counts; none: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub datacenters: Vec<String>,
}

/// A node that a token may register.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AclNodeIdentity {
    /// The node's name.
    pub node_name: String,
    /// The datacenter in which it counts.
    pub datacenter: String,
}

/// A token. In lists it has no secret; where a secret is not known (any more) it is `<hidden>`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AclToken {
    /// In the answer to a bootstrap, the secret once more.
    #[serde(rename = "ID", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// What it is known by.
    #[serde(rename = "AccessorID")]
    pub accessor_id: String,
    /// What it is used by.
    #[serde(rename = "SecretID", skip_serializing_if = "String::is_empty")]
    pub secret_id: String,
    /// For people.
    pub description: String,
    /// Its policies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<AclLink>,
    /// Its roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<AclLink>,
    /// Its services.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_identities: Vec<AclServiceIdentity>,
    /// Its nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub node_identities: Vec<AclNodeIdentity>,
    /// Accepted and shown.
    pub local: bool,
    /// From when on it counts no more (RFC 3339); empty: it stays.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub expiration_time: String,
    /// In requests: after so many nanoseconds it counts no more; 0: it stays.
    #[serde(rename = "ExpirationTTL", skip_serializing_if = "is_zero")]
    pub expiration_ttl: i64,
    /// When it was made (RFC 3339).
    pub create_time: String,
    /// Differs when the token does.
    pub hash: Value,
    /// When it was made.
    pub create_index: u64,
    /// When it last changed.
    pub modify_index: u64,
    /// Rules of the kind before policies, which are refused.
    #[serde(skip_serializing)]
    pub rules: String,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AclPolicy {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Its rules, HCL or JSON.
    pub rules: String,
    /// The datacenters in which it counts; none: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub datacenters: Vec<String>,
    /// Differs when the policy does.
    pub hash: Value,
    /// When it was made.
    pub create_index: u64,
    /// When it last changed.
    pub modify_index: u64,
}

/// A policy in a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AclPolicyStub {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// The datacenters in which it counts; `None`: all.
    pub datacenters: Option<Vec<String>>,
    /// Differs when the policy does.
    pub hash: Value,
    /// When it was made.
    pub create_index: u64,
    /// When it last changed.
    pub modify_index: u64,
}

/// A role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AclRole {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Its policies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<AclLink>,
    /// Its services.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_identities: Vec<AclServiceIdentity>,
    /// Its nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub node_identities: Vec<AclNodeIdentity>,
    /// Differs when the role does.
    pub hash: Value,
    /// When it was made.
    pub create_index: u64,
    /// When it last changed.
    pub modify_index: u64,
}

/// A question whether a token may do something, and the answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AclQuestion {
    /// The kind of the rule, such as `key`.
    pub resource: String,
    /// The name, if the kind has names.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub segment: String,
    /// `read`, `list` or `write`.
    pub access: String,
    /// The answer.
    pub allow: bool,
}
