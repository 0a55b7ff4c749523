//! What heartbeats say of the process behind an instance.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ClusterTime;

/// Begins the id of the check that heartbeats renew where the instance has no TTL check of its own; the
/// instance's id follows.
pub const HEARTBEAT_CHECK: &str = "heartbeat:";

/// Whether a check is the one that heartbeats made for an instance: no registration names it.
pub(crate) fn is_made_by_heartbeats(check: &str, service: &str) -> bool {
    check.strip_prefix(HEARTBEAT_CHECK) == Some(service)
}

/// What is known of the process behind an instance, beside its definition. It is kept by the number of the
/// check that its heartbeats renew. Its counter, which changes with every heartbeat, is kept apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// A name for the process; empty: none was given.
    pub process: Arc<str>,
    /// Its process id; 0: none was given.
    pub pid: u64,
    /// When it was started, in milliseconds of its own clock since 1970; 0: it did not say. Only compared with
    /// what the same instance says.
    pub started: u64,
    /// Its version; empty: none was given.
    pub version: Arc<str>,
    /// The process id before the last restart; 0: none.
    pub previous_pid: u64,
    /// How often another process took over.
    pub restarts: u32,
    /// Whether the last heartbeat counted less than one before it. The next such one is that of another
    /// process.
    pub counted_back: bool,
    /// When a note was last shown. One that changes alone is shown once a minute.
    pub noted: ClusterTime,
}
