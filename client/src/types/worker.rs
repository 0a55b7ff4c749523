//! Who runs checks, and what they see: `/v1/quorate/workers` and `/v1/quorate/checks`.

use serde::{Deserialize, Serialize};

/// A worker: a server, or a worker process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct WorkerRow {
    /// The server's or the process's name.
    pub name: String,
    /// `server` or `process`.
    pub kind: String,
    /// The network in which it runs checks; empty: where the servers do.
    pub network: String,
    /// The address of its host; empty while it is away.
    pub address: String,
    /// `live`; `away`; `returning`: it is back, and runs checks again if it stays.
    pub status: String,
    /// In how many milliseconds it runs checks again, if it is returning.
    pub returns_in_ms: Option<u64>,
    /// How many checks are its to run.
    pub checks: u64,
}

/// A check that the cluster runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ActiveCheck {
    /// The node it belongs to.
    pub node: String,
    /// Its id.
    #[serde(rename = "CheckID")]
    pub check_id: String,
    /// The service it belongs to, or empty.
    pub service: String,
    /// The instance it belongs to, or empty.
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    /// `http`, `tcp`, `udp`, `grpc` or `h2ping`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Time between two runs, in milliseconds.
    pub interval_ms: u64,
    /// The network whose workers run it, or empty.
    pub network: String,
    /// How many workers look at the target.
    pub observers: u64,
    /// What it shows.
    pub status: String,
    /// What it shows.
    pub output: String,
    /// Who runs it; empty while no worker of its network is alive.
    pub workers: Vec<CheckWorker>,
}

/// A worker of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckWorker {
    /// Its name.
    pub worker: String,
    /// `server` or `process`.
    pub kind: String,
    /// What it last found; `null`: it has not reported since it became responsible, and counts as what the check
    /// shows.
    pub status: Option<String>,
    /// What it last found.
    pub output: Option<String>,
    /// How many milliseconds ago its last run began, if it is the server that answers.
    pub last_run_ms_ago: Option<u64>,
    /// How long that run took.
    pub duration_ms: Option<u64>,
    /// In how many milliseconds its next run begins.
    pub next_run_in_ms: Option<u64>,
}
