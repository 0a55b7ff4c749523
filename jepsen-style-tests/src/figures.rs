//! A run in numbers, for tables and reports.

use std::collections::BTreeSet;

use crate::Result;
use crate::journal::{Ending, Sample};
use crate::record::Record;

/// A server's log says this when another one sent it a snapshot.
const INSTALLED: &str = "received a snapshot";

/// Numbers of one run, or of several together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Operations in the history.
    pub operations: usize,
    /// HTTP requests of the clients.
    pub requests: usize,
    /// Requests that were not answered as promised, at any server.
    pub failed: usize,
    /// Faults that took effect.
    pub faults: usize,
    /// See [`leader_changes`].
    pub leader_changes: usize,
    /// Snapshots that servers received from others.
    pub snapshot_installs: usize,
}

impl Figures {
    /// The numbers of a run. Reads the servers' logs in the run's directory.
    pub fn of(record: &Record) -> Result<Self> {
        let is_failed = |end: Ending| end != Ending::Answered;
        Ok(Self {
            operations: record.operations(),
            requests: record.requests.len(),
            failed: record.requests.iter().filter(|request| is_failed(request.end)).count(),
            faults: record.faults.iter().filter(|fault| fault.evidence.is_some()).count(),
            leader_changes: leader_changes(&record.samples),
            snapshot_installs: snapshot_installs(record)?,
        })
    }

    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            operations: self.operations + other.operations,
            requests: self.requests + other.requests,
            failed: self.failed + other.failed,
            faults: self.faults + other.faults,
            leader_changes: self.leader_changes + other.leader_changes,
            snapshot_installs: self.snapshot_installs + other.snapshot_installs,
        }
    }
}

/// How often another node, or the same in another term, began to lead.
pub fn leader_changes(samples: &[Sample]) -> usize {
    let leads = samples.iter().filter(|sample| sample.leads == Some(true));
    let leaders: BTreeSet<_> = leads.map(|sample| (sample.term, sample.node)).collect();
    leaders.len().saturating_sub(1)
}

fn snapshot_installs(record: &Record) -> Result<usize> {
    let mut installs = 0;
    for entry in std::fs::read_dir(&record.dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let log = std::fs::read(&path)?;
            let log = String::from_utf8_lossy(&log);
            installs += log.lines().filter(|line| line.contains(INSTALLED)).count();
        }
    }
    Ok(installs)
}
