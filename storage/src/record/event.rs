//! Events fired by users.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A user's event: something that happened, told to whoever listens. Only the newest are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// A UUID in text form, made by the node that took the request.
    pub id: Arc<str>,
    /// What the event is called.
    pub name: String,
    /// Any bytes.
    pub payload: Bytes,
    /// A regular expression for the names of the nodes that it is for; empty: all.
    pub node_filter: String,
    /// The same for names of services on them.
    pub service_filter: String,
    /// The same for tags of these services.
    pub tag_filter: String,
    /// Counts events: 1, 2, 3, ...
    pub time: u64,
}
