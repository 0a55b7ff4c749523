//! How a server controls access, by its settings.

use quorate_storage::record::{ANONYMOUS_SECRET, DefaultPolicy, SecretHash};

/// Whether and how tokens count at a server. The same at all servers of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessControl {
    /// What is allowed without a rule.
    pub default: DefaultPolicy,
    /// Of the token that counts where a request, or a question to DNS, has none.
    pub without_token: SecretHash,
    /// Whether reading all keys below a prefix needs the right to list that prefix.
    pub lists_keys: bool,
    /// Of a management token that this server makes if the cluster has none with this secret.
    pub initial_management: Option<SecretHash>,
}

impl AccessControl {
    /// With the anonymous token where there is no other.
    #[must_use]
    pub fn new(default: DefaultPolicy) -> Self {
        Self {
            default,
            without_token: SecretHash::of(ANONYMOUS_SECRET),
            lists_keys: false,
            initial_management: None,
        }
    }
}
