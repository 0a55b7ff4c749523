//! What a client agent says of its node.

use quorate_storage::record::{Node, TextMap};
use serde::{Deserialize, Serialize};

/// What a configuration says of its agent's node. What is `None` is left as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Description {
    /// The node's id, a UUID.
    #[serde(rename = "ID", default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Tagged addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tagged_addresses: Option<TextMap>,
    /// Metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<TextMap>,
}

impl Description {
    /// Whether it asks for nothing.
    pub(crate) const fn is_empty(&self) -> bool {
        self.id.is_none() && self.tagged_addresses.is_none() && self.meta.is_none()
    }

    /// Whether a node is as it says.
    pub(crate) fn is_true_of(&self, node: &Node) -> bool {
        let has = |there: &Option<TextMap>, said: &Option<TextMap>| {
            let value_of = |key| there.as_ref().and_then(|there| there.get(key));
            said.iter().flatten().all(|(key, value)| value_of(key) == Some(value))
        };
        self.id.as_ref().is_none_or(|id| *id == node.id)
            && has(&node.tagged_addresses, &self.tagged_addresses)
            && has(&node.meta, &self.meta)
    }
}
