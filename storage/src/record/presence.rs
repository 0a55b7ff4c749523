//! Presence: an instance that passes as long as a connection to one of the servers is open.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;
use crate::{ClusterTime, Millis};

/// Begins the id of the check that says whether an instance's client is connected; the instance's id follows.
pub const PRESENCE_CHECK: &str = "presence:";
/// The API's `Type` of these checks.
pub const PRESENCE_KIND: &str = "presence";

/// What holds an instance: one stream of one server, named by the command that opened it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lease {
    /// The server that has the stream.
    pub origin: NodeId,
    /// Which boot of that server.
    pub incarnation: u64,
    /// The number of the command.
    pub seq: u64,
}

/// What becomes of an instance when its lease is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnClose {
    /// Its check turns critical.
    #[default]
    Critical,
    /// It is deregistered.
    Deregister,
}

/// On which terms a client holds an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceTerms {
    /// The process that holds it: a UUID.
    pub owner: Arc<str>,
    /// Which of the owner's attempts this is: 1, 2, ...
    pub attempt: u64,
    /// How long the instance goes on passing after its connection has ended.
    pub linger: Millis,
    /// What happens then.
    pub on_close: OnClose,
}

/// Why a lease is about to be over. **Append only**: stored by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PresenceEnd {
    /// The client's connection ended.
    Connection,
    /// The server ended the stream, and its client is to come back elsewhere.
    Moved,
    /// The server is lost, was removed or has started anew.
    Lost,
    /// A backup was restored in which the instance is held, and it was not held when that happened.
    Restored,
}

/// The end of a lease that is still waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedPresence {
    /// Why.
    pub why: PresenceEnd,
    /// The server that had the stream.
    pub server: NodeId,
    /// Since when.
    pub since: ClusterTime,
    /// When the lease is over, unless the client is back by then.
    pub deadline: ClusterTime,
}

/// How an instance is held.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// The stream that holds it; `None`: that lease is over.
    pub lease: Option<Lease>,
    /// On which terms.
    pub terms: PresenceTerms,
    /// Set when the stream is gone.
    pub ended: Option<EndedPresence>,
    /// When another owner last took it from one that was connected, oldest first.
    pub replaced: Vec<ClusterTime>,
}

impl Presence {
    /// Whether a stream holds the instance, as far as anybody knows.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.lease.is_some() && self.ended.is_none()
    }
}
