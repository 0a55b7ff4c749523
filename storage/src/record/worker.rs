//! Who runs checks.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{CheckStatus, Lease};
use crate::ClusterTime;
use crate::ids::NodeId;

/// The service of which every worker process is an instance, under its name.
pub const WORKER_SERVICE: &str = "quorate-worker";
/// The key of the metadata of such an instance that names its network.
pub const WORKER_NETWORK: &str = "network";

/// Who runs checks. **Append only**: stored by position, and hashed to decide who runs what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WorkerId {
    /// A server of this cluster, by its Raft id.
    Server(NodeId),
    /// A worker process, by its name.
    Process(Arc<str>),
}

/// Whether a worker runs checks. **Append only**: stored by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// It does.
    Live,
    /// It is gone.
    Away {
        /// Since when.
        since: ClusterTime,
    },
    /// It is back, and runs checks again if it stays.
    Returning {
        /// From when on.
        until: ClusterTime,
    },
}

/// What is kept of a worker: of every process, and of servers that are away or have come back lately.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Orders its return; never reused.
    pub number: u64,
    /// Whether it runs checks.
    pub standing: Standing,
    /// What a process has beside that.
    pub process: Option<WorkerProcess>,
}

/// What is kept of a worker process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerProcess {
    /// The network in which it runs checks; empty: where the servers do.
    pub network: Arc<str>,
    /// The lease of the presence by which it lives.
    pub lease: Lease,
    /// The attempt that opened it; an earlier one cannot come back.
    pub attempt: u64,
    /// The number of its last results under this lease; those up to it are not taken again.
    pub last_seq: u64,
}

/// What an observer last found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The observer.
    pub worker: WorkerId,
    /// The status.
    pub status: CheckStatus,
    /// The output.
    pub output: String,
}

/// What the observers of a check last found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Views {
    /// The number of the definition that they ran.
    pub probe: u64,
    /// At most one of each observer, in the order in which they came.
    pub all: Vec<View>,
}
