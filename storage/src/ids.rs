//! Names of servers, of their boots, and of places in the log. Commands and openraft's types both use
//! them, and they use neither.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A server's Raft id. An id is never used again by another server.
pub type NodeId = u64;

/// One boot of a server: random bytes, made when its process starts. Of several processes that run
/// under one id, a copy of a data directory for instance, it distinguishes them.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct BootId(pub [u8; 16]);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A place in the log. A log that ends at one place holds everything that was committed before it in
/// this order.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position {
    /// The term of the entry.
    pub term: u64,
    /// Its index.
    pub index: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {} of term {}", self.index, self.term)
    }
}
