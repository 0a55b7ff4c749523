//! A registration in the catalogue: what a command and an operation of a transaction say about a node.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{CheckRegistration, ServiceDefinition, TextMap};

/// `PUT /v1/catalog/register`, parsed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogRegistration {
    /// Name of the node.
    pub node: Arc<str>,
    /// The node's id, or empty.
    pub node_id: String,
    /// The node's address; may be empty only if `skip_node_update`.
    pub address: String,
    /// The node's tagged addresses, with its locality ([`with_locality`](super::with_locality)).
    pub tagged_addresses: Option<TextMap>,
    /// The node's metadata.
    pub node_meta: Option<TextMap>,
    /// Leave an existing node as it is.
    pub skip_node_update: bool,
    /// A service instance on the node.
    pub service: Option<ServiceDefinition>,
    /// Checks of the node or of its services.
    pub checks: Vec<CheckRegistration>,
}
