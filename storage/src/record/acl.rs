//! Tokens, policies and roles: who may do what.
//!
//! A token is known by its accessor, which is no secret. Of its secret only a hash is kept, so neither a disk nor a
//! backup tells anybody a token.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Indexes, WallTime};
use crate::ClusterTime;

/// The accessor of the anonymous token, whose rights a request without a token has (Consul's).
pub const ANONYMOUS_ACCESSOR: &str = "00000000-0000-0000-0000-000000000002";
/// The secret of the anonymous token, which may be sent too (Consul's).
pub const ANONYMOUS_SECRET: &str = "anonymous";
/// The id of the policy that allows everything (Consul's).
pub const MANAGEMENT_POLICY: &str = "00000000-0000-0000-0000-000000000001";
/// Its name.
pub const MANAGEMENT_NAME: &str = "global-management";
/// Ids that begin so are the cluster's own (Consul's).
pub const RESERVED_IDS: &str = "00000000-0000-0000-0000-0000000000";

/// What hashing a secret is for, as blake3 wants it said.
const SECRET_CONTEXT: &str = "quorate 2026 secret of a token";

/// What is kept of a token's secret. Secrets are random UUIDs, so that a fast hash without salt tells nothing.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// The hash of a secret.
    #[must_use]
    pub fn of(secret: &str) -> Self {
        Self(blake3::derive_key(SECRET_CONTEXT, secret.as_bytes()))
    }

    /// The hash that a text made by `Display` stands for.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Hashes are not shown in logs either: whoever has one can tell which token a secret is of.
impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

/// What a rule allows. **Append only**: stored by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Access {
    /// Nothing.
    Deny,
    /// Reading.
    Read,
    /// Reading, and listing the keys below a prefix.
    List,
    /// All of it.
    Write,
}

impl Access {
    /// The word of rules for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Read => "read",
            Self::List => "list",
            Self::Write => "write",
        }
    }

    /// Whether who has this may do `wanted`.
    #[must_use]
    pub fn includes(self, wanted: Self) -> bool {
        self != Self::Deny && self >= wanted
    }

    /// What two rules about the same come to: deny, else write, else list (Consul's rule).
    #[must_use]
    pub fn merged(self, other: Self) -> Self {
        match (self, other) {
            (Self::Deny, _) | (_, Self::Deny) => Self::Deny,
            _ => self.max(other),
        }
    }
}

/// What a rule is about. **Append only**: stored by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AclKind {
    /// Keys, by their names.
    Key,
    /// Nodes.
    Node,
    /// Instances, by their services' names.
    Service,
    /// Sessions, by their nodes' names.
    Session,
    /// Agents, by their names.
    Agent,
    /// Events.
    Event,
    /// Prepared queries.
    Query,
    /// Tokens, policies and roles themselves. Has no names.
    Acl,
    /// The cluster's servers and settings. Has no names.
    Operator,
    /// The keyring, which there is not. Has no names.
    Keyring,
}

impl AclKind {
    /// All kinds.
    pub const ALL: [Self; 10] = [
        Self::Key,
        Self::Node,
        Self::Service,
        Self::Session,
        Self::Agent,
        Self::Event,
        Self::Query,
        Self::Acl,
        Self::Operator,
        Self::Keyring,
    ];

    /// The word of rules for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Node => "node",
            Self::Service => "service",
            Self::Session => "session",
            Self::Agent => "agent",
            Self::Event => "event",
            Self::Query => "query",
            Self::Acl => "acl",
            Self::Operator => "operator",
            Self::Keyring => "keyring",
        }
    }

    /// Whether its rules name what they are about.
    #[must_use]
    pub const fn has_names(self) -> bool {
        !matches!(self, Self::Acl | Self::Operator | Self::Keyring)
    }
}

/// One rule of a policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AclRule {
    /// What it is about.
    pub kind: AclKind,
    /// Whether it is about all names that begin with this one.
    pub is_prefix: bool,
    /// The name.
    pub name: Arc<str>,
    /// What it allows.
    pub access: Access,
}

/// A service whose instances a token may register, and find others for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceIdentity {
    /// The service's name.
    pub service: String,
    /// The datacenters in which it counts; none: in all.
    pub datacenters: Vec<String>,
    /// Whether this cluster's is among them.
    pub counts: bool,
}

/// A node which a token may register.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeIdentity {
    /// The node's name.
    pub node: String,
    /// The datacenter in which it counts.
    pub datacenter: String,
    /// Whether that is this cluster's.
    pub counts: bool,
}

/// A policy: a set of rules under a name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclPolicy {
    /// A UUID.
    pub id: Arc<str>,
    /// Its name, unique in any letter case.
    pub name: String,
    /// For people.
    pub description: String,
    /// The rules as they were written.
    pub text: String,
    /// What they mean.
    pub rules: Vec<AclRule>,
    /// The datacenters in which it counts; none: in all.
    pub datacenters: Vec<String>,
    /// Whether this cluster's is among them.
    pub counts: bool,
    /// When it was made and last changed.
    pub indexes: Indexes,
}

/// What tokens and roles are linked to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclLinks {
    /// Ids of policies.
    pub policies: Vec<Arc<str>>,
    /// Ids of roles; of a role none.
    pub roles: Vec<Arc<str>>,
    /// Services.
    pub services: Vec<ServiceIdentity>,
    /// Nodes.
    pub nodes: Vec<NodeIdentity>,
}

/// A role: links under a name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclRole {
    /// A UUID.
    pub id: Arc<str>,
    /// Its name, unique in any letter case.
    pub name: String,
    /// For people.
    pub description: String,
    /// What who has the role has.
    pub links: AclLinks,
    /// When it was made and last changed.
    pub indexes: Indexes,
}

/// A token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclToken {
    /// A UUID by which it is known.
    pub accessor: Arc<str>,
    /// What is kept of its secret.
    pub secret: SecretHash,
    /// Orders its expiry.
    pub number: u64,
    /// For people.
    pub description: String,
    /// What it may do.
    pub links: AclLinks,
    /// Accepted and shown.
    pub is_local: bool,
    /// From when on it counts no more.
    pub expires: Option<ClusterTime>,
    /// The same for people.
    pub expires_at: Option<WallTime>,
    /// When it was made, for people.
    pub created_at: WallTime,
    /// When it was made and last changed.
    pub indexes: Indexes,
}

impl AclToken {
    /// Whether it still counts.
    #[must_use]
    pub fn is_valid(&self, now: ClusterTime) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denial_beats_everything_and_writing_includes_the_rest() {
        use Access::{Deny, List, Read, Write};
        for other in [Deny, Read, List, Write] {
            assert_eq!(Deny.merged(other), Deny);
            assert_eq!(other.merged(Deny), Deny);
        }
        assert_eq!(Read.merged(Write), Write);
        assert_eq!(List.merged(Read), List);
        assert!(Write.includes(List) && Write.includes(Read) && List.includes(Read));
        assert!(!Read.includes(List) && !List.includes(Write) && !Deny.includes(Read));
    }

    #[test]
    fn a_hash_can_be_written_and_read_and_does_not_show_in_logs() {
        let hash = SecretHash::of("8a4b3b0e-6d07-4f40-9d7a-0f6a7e0d1b11");
        assert_eq!(SecretHash::from_text(&hash.to_string()), Some(hash));
        assert_eq!(SecretHash::from_text("8a4b3b0e-6d07-4f40-9d7a-0f6a7e0d1b11"), None);
        assert_eq!(format!("{hash:?}"), "SecretHash(..)");
        assert_ne!(hash, SecretHash::of("anonymous"));
    }
}
