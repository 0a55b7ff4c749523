//! What Consul's `acl` stanza says to a server.
//!
//! A client agent reads the same stanza: whether tokens count is for the servers to decide, so it only sends those
//! that it is given.

use quorate_storage::record::{ANONYMOUS_SECRET, SecretHash};

use super::configuration::{Acl, invalid};
use crate::process::config::{AclMode, AclTokens, ConfigError};

/// Secrets that no token may have: words that mean something else (Consul's).
const RESERVED: [&str; 4] = [ANONYMOUS_SECRET, "allow", "deny", "manage"];

impl Acl {
    /// Whether tokens count, and which ones the server is given.
    ///
    /// # Errors
    /// What asks for protection and would get none: another default policy, or one without `enabled`.
    pub(super) fn for_server(&self) -> Result<(AclMode, AclTokens), ConfigError> {
        let mode = match self.default_policy.as_deref() {
            None | Some("" | "allow") => AclMode::Allow,
            Some("deny") => AclMode::Deny,
            Some(other) => return invalid(&format!("Unsupported default ACL policy: {other}")),
        };
        let tokens = AclTokens {
            default: secret("default", self.tokens.default.as_deref())?,
            initial_management: secret(
                "initial_management",
                self.tokens.initial_management.as_deref().or(self.tokens.master.as_deref()),
            )?,
        };
        if self.enabled == Some(true) {
            return Ok((mode, tokens));
        }
        if mode == AclMode::Deny || self.enable_key_list_policy == Some(true) {
            return invalid(
                "acl.default_policy and acl.enable_key_list_policy protect nothing without acl.enabled",
            );
        }
        Ok((AclMode::Off, AclTokens::default()))
    }
}

/// A token's secret, of which only the hash is kept; empty: none.
fn secret(key: &str, given: Option<&str>) -> Result<Option<SecretHash>, ConfigError> {
    match given {
        None | Some("") => Ok(None),
        Some(word) if RESERVED.contains(&word) => {
            invalid(&format!("acl.tokens.{key}: no token has this word for a secret"))
        }
        Some(secret) => Ok(Some(SecretHash::of(secret))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(value: serde_json::Value) -> Result<(AclMode, AclTokens), String> {
        let acl: Acl = serde_json::from_value(value).unwrap();
        acl.for_server().map_err(|error| error.to_string())
    }

    #[test]
    fn a_stanza_that_is_enabled_makes_tokens_count() {
        assert_eq!(of(json!({})).unwrap(), (AclMode::Off, AclTokens::default()));
        let (mode, tokens) = of(json!({
            "enabled": true, "default_policy": "deny",
            "tokens": {"master": "m", "default": "d", "agent": "a"},
        }))
        .unwrap();
        let hash = |text| Some(SecretHash::of(text));
        assert_eq!(mode, AclMode::Deny);
        assert_eq!((tokens.initial_management, tokens.default), (hash("m"), hash("d")));
        // Consul's default.
        assert_eq!(of(json!({"enabled": true})).unwrap().0, AclMode::Allow);
    }

    #[test]
    fn what_asks_for_protection_and_would_get_none_is_refused() {
        for (value, part) in [
            (
                json!({"enabled": true, "default_policy": "foo"}),
                "Unsupported default ACL policy: foo",
            ),
            (json!({"default_policy": "deny"}), "without acl.enabled"),
            (json!({"enabled": false, "enable_key_list_policy": true}), "without acl.enabled"),
            (json!({"enabled": true, "tokens": {"initial_management": "anonymous"}}), "no token"),
        ] {
            let error = of(value.clone()).unwrap_err();
            assert!(error.contains(part), "{value}: {error}");
        }
    }
}
