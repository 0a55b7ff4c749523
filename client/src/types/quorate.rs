//! Quorate's own endpoints, below `/v1/quorate/`.

use serde::{Deserialize, Serialize};

/// `GET /v1/quorate/state-hash`: equal applied index means equal hash, on every node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct StateHash {
    /// Index of the last Raft log entry applied; 0 when there was none.
    pub applied_index: u64,
    /// The hash in lower-case hexadecimal.
    pub hash: String,
    /// The level of the rules in force: it rises when all servers run a version that knows the next one.
    pub level: u32,
}
