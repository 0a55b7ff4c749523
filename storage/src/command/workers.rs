//! Commands about who runs checks.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::PresenceOpen;
use crate::record::{CheckStatus, Lease};

/// A command about the workers that run checks. **Append only**: stored by position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkersCommand {
    /// `PUT /v1/quorate/worker`: a worker process, which a stream of the origin holds from now on.
    Open(Box<WorkerOpen>),
    /// What a worker process found. Results of checks that are not its own any more are left out.
    Results(Box<WorkerResults>),
    /// The leader says of a check that no worker of its network was alive for long.
    Deserted {
        /// [`Check::number`](crate::record::Check::number).
        number: u64,
        /// The number of its definition.
        probe: u64,
    },
}

/// See [`WorkersCommand::Open`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerOpen {
    /// The instance by which it lives, under its name.
    pub open: PresenceOpen,
    /// The network in which it runs checks, or empty.
    pub network: Arc<str>,
}

/// See [`WorkersCommand::Results`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerResults {
    /// The worker's name.
    pub name: Arc<str>,
    /// Its lease.
    pub lease: Lease,
    /// 1, 2, 3, ... under this lease: what comes a second time has no effect.
    pub seq: u64,
    /// What it found.
    pub all: Vec<RunResult>,
}

/// What a run of a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunResult {
    /// [`Check::number`](crate::record::Check::number).
    pub number: u64,
    /// The number of the definition that was run.
    pub probe: u64,
    /// The status.
    pub status: CheckStatus,
    /// The output.
    pub output: String,
}
