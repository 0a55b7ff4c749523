//! Which checks are one worker's to run, as the state has it, and how that changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quorate_storage::machine::Published;
use quorate_storage::raft::LogId;
use quorate_storage::record::{Check, CheckDefinition, CheckStatus, WorkerId};
use quorate_storage::state::{Probes, WORKERS_LEVEL, WorkerSet};
use quorate_storage::{Index, State, Topic};

use sha2::{Digest as _, Sha256};

use super::INTERVAL_MIN;

/// A check that a worker is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assigned {
    /// The check's number.
    pub(crate) check: u64,
    /// The number of its definition.
    pub(crate) probe: u64,
    /// How it is run.
    pub(crate) definition: Arc<CheckDefinition>,
    /// The worker's place among the observers.
    pub(crate) rank: u32,
    /// How many observers there are.
    pub(crate) observers: u32,
    /// Where its loopback address is, seen from the worker; `None`: at the worker's own host.
    pub(crate) host: Option<Arc<str>>,
}

impl Assigned {
    /// Time between two runs.
    pub(crate) fn interval(&self) -> Duration {
        interval(&self.definition)
    }
}

/// Time between two runs.
pub(crate) fn interval(definition: &CheckDefinition) -> Duration {
    Duration::from_millis(definition.interval.0).max(INTERVAL_MIN)
}

/// What the cluster shows as a worker's view of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) status: CheckStatus,
    pub(crate) output: ShownOutput,
}

/// An output, or what a worker process is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ShownOutput {
    /// The output.
    Text(String),
    /// What tells it from others.
    Digest(u64),
}

impl ShownOutput {
    /// Whether it is this text.
    pub(crate) fn is(&self, text: &str) -> bool {
        match self {
            Self::Text(own) => own == text,
            Self::Digest(own) => *own == digest(text),
        }
    }

    /// What tells it from others.
    pub(super) fn digest(&self) -> u64 {
        match self {
            Self::Text(own) => digest(own),
            Self::Digest(own) => *own,
        }
    }
}

impl Shown {
    /// What a state shows; `None`: the worker has not reported yet.
    pub(crate) fn of(state: &State, worker: &WorkerId, check: u64) -> Option<Self> {
        let row = state.check_numbered(check)?;
        let (status, output) = state.view_of(worker, row)?;
        Some(Self { status: status.clone(), output: ShownOutput::Text(output.to_owned()) })
    }
}

/// The first bytes of a text's SHA-256, which is shorter than most outputs.
fn digest(text: &str) -> u64 {
    Sha256::digest(text.as_bytes()).iter().take(8).fold(0, |all, byte| all << 8 | u64::from(*byte))
}

/// How a worker's checks differ from before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// The check's number.
    pub(crate) check: u64,
    /// How it is to be run now; `None`: not by this worker.
    pub(crate) now: Option<Assigned>,
}

/// Who runs checks.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    /// The leader, which this server is or not: the rules of before there were workers.
    Leader(bool),
    /// Those who are responsible.
    Workers(WorkerSet),
}

impl Default for Who {
    fn default() -> Self {
        Self::Leader(false)
    }
}

/// The checks of one worker.
#[derive(Debug)]
pub(crate) struct Assignments {
    worker: WorkerId,
    /// The version that was looked at last, and whether this server led.
    looked_at: Option<(Option<LogId>, bool)>,
    who: Who,
    probes: Probes,
    /// When nodes changed last: a host may have another address.
    nodes: Index,
    mine: BTreeMap<u64, Assigned>,
    /// The numbers of all checks with a loopback address.
    of_own_host: BTreeSet<u64>,
}

impl Assignments {
    /// Of a worker that has none yet.
    pub(crate) fn new(worker: WorkerId) -> Self {
        Self {
            worker,
            looked_at: None,
            who: Who::default(),
            probes: Probes::default(),
            nodes: Index::default(),
            mine: BTreeMap::new(),
            of_own_host: BTreeSet::new(),
        }
    }

    /// What is to be run now, by the checks' numbers.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Assigned> {
        self.mine.values()
    }

    /// Takes over what changed; `leads`: whether this server leads. Looks at the checks that changed only, unless
    /// workers came or went.
    pub(crate) fn update(&mut self, published: &Published, leads: bool) -> Vec<Change> {
        let version = (published.last_applied, leads);
        if self.looked_at == Some(version) {
            return Vec::new();
        }
        self.looked_at = Some(version);
        let state = &published.state;
        let who = match state.level() < WORKERS_LEVEL {
            true => Who::Leader(leads),
            false => Who::Workers(state.worker_set()),
        };
        let mut numbers: BTreeSet<u64> =
            state.probes().changes_since(&self.probes).iter().map(|change| change.check).collect();
        if who != self.who {
            numbers.extend(state.probes().iter().map(|(check, _)| check));
            numbers.extend(self.mine.keys());
        }
        let nodes = state.topic_index(&Topic::Nodes);
        if nodes != self.nodes {
            numbers.extend(&self.of_own_host);
        }
        (self.who, self.probes, self.nodes) = (who, state.probes().clone(), nodes);
        numbers.into_iter().filter_map(|number| self.follow(state, number)).collect()
    }

    fn follow(&mut self, state: &State, check: u64) -> Option<Change> {
        let row = state.check_numbered(check);
        let row = row.filter(|row| row.registration.definition.has_target());
        let probe = state.probes().get(check);
        let now = match (row, probe) {
            (Some(row), Some(probe)) => {
                if row.registration.definition.is_of_own_host() {
                    self.of_own_host.insert(check);
                }
                self.assigned(state, row, probe)
            }
            _ => {
                self.of_own_host.remove(&check);
                None
            }
        };
        if self.mine.get(&check) == now.as_ref() {
            return None;
        }
        match now.clone() {
            Some(now) => drop(self.mine.insert(check, now)),
            None => drop(self.mine.remove(&check)),
        }
        Some(Change { check, now })
    }

    fn assigned(&self, state: &State, row: &Check, probe: u64) -> Option<Assigned> {
        let definition = &row.registration.definition;
        let (rank, observers, host) = match &self.who {
            Who::Leader(leads) => leads.then_some((0, 1, None))?,
            Who::Workers(set) => {
                let address = state.host_of(row);
                let workers = set.responsible(row, address);
                let rank = workers.iter().position(|one| one.id == self.worker)?;
                let is_elsewhere = definition.is_of_own_host()
                    && !address.is_empty()
                    && !workers.get(rank)?.is_local(address);
                (rank, workers.len(), is_elsewhere.then(|| Arc::from(address)))
            }
        };
        Some(Assigned {
            check: row.number,
            probe,
            definition: Arc::new(definition.clone()),
            rank: u32::try_from(rank).unwrap_or(0),
            observers: u32::try_from(observers).unwrap_or(1),
            host,
        })
    }
}
