//! In whose name something is done.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What a request without a matching rule may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DefaultPolicy {
    /// Everything but what tokens, policies and snapshots are about.
    Allow,
    /// Nothing.
    Deny,
}

impl DefaultPolicy {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// In whose name a command is given. Apply looks up what that token may do at that time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Authority {
    /// The accessor of the token.
    pub token: Arc<str>,
    /// What is allowed without a rule, at the server that took the request.
    pub default: DefaultPolicy,
}
