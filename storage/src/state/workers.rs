//! Workers: the servers and the worker processes that run checks, and who of them is there.
//!
//! A server is a worker as long as the leader says that it lives. A process is one as long as the presence lives
//! by which it holds its name ([`WORKER_SERVICE`]). One that was gone runs checks again when it has been back for
//! [`RETURNS_AFTER`] without a break, so that one that comes and goes does not take checks along each time.
//!
//! Kept are the processes, and the servers that are away or have come back lately: a server of which nothing is
//! kept is there. What follows from the set, who runs which check, is in `assignment.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;

use super::State;
use super::assignment::WorkerSet;
use super::catalog::fold_arc;
use super::change::Change;
use super::deadline::Owner;
use super::level::WORKERS_LEVEL;
use crate::command::{CommandId, Outcome, Rejection, WorkerOpen, WorkerResults, WorkersCommand};
use crate::ids::NodeId;
use crate::record::{
    Cause, CheckStatus, Lease, NodeKind, SERF_HEALTH, Standing, Views, WORKER_SERVICE, Worker,
    WorkerId, WorkerProcess,
};
use crate::{ClusterTime, Millis};

/// A worker that is back runs checks again after this time without a break.
pub const RETURNS_AFTER: Millis = Millis::from_secs(30);
/// A process that is away is forgotten after so long.
const FORGOTTEN_AFTER: Millis = Millis::from_secs(3_600);
/// Without a live worker of its network for so many intervals, a check warns.
const DESERTED_INTERVALS: u64 = 3;
/// Shorter intervals are taken for this one.
const INTERVAL_MIN: Millis = Millis::from_secs(1);
/// Networks without a worker of which it is known since when. Checks of others beyond it do not warn.
const EMPTY_NETWORKS_MAX: usize = 1_024;

/// All that is kept of workers.
#[derive(Debug, Clone, Default)]
pub(super) struct Workers {
    rows: OrdMap<WorkerId, Arc<Worker>>,
    /// What the observers of checks last found, by the check's number.
    pub(super) views: OrdMap<u64, Arc<Views>>,
    /// Networks that checks name and nobody works in, and since when.
    pub(super) empty: OrdMap<Arc<str>, ClusterTime>,
    /// Derived: the set with which views and networks are in step.
    settled: WorkerSet,
}

impl Workers {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&WorkerId, &Arc<Worker>)> {
        self.rows.iter()
    }

    pub(super) fn get(&self, id: &WorkerId) -> Option<&Arc<Worker>> {
        self.rows.get(id)
    }

    pub(super) fn put(&mut self, id: WorkerId, row: Worker) -> Option<Arc<Worker>> {
        self.rows.insert(id, Arc::new(row))
    }

    /// When something becomes of a worker by itself.
    pub(super) fn deadline(&self, id: &WorkerId) -> Option<ClusterTime> {
        let row = self.rows.get(id)?;
        match row.standing {
            Standing::Live => None,
            Standing::Returning { until } => Some(until),
            Standing::Away { since } => row.process.as_ref().map(|_| since + FORGOTTEN_AFTER),
        }
    }
}

impl State {
    /// The worker processes, and the servers that are not there or have come back lately.
    pub fn workers(&self) -> impl Iterator<Item = (&WorkerId, &Arc<Worker>)> {
        self.workers.iter()
    }

    /// What the observers of a check last found, if it has several.
    #[must_use]
    pub fn views(&self, check: u64) -> Option<&Arc<Views>> {
        self.workers.views.get(&check)
    }

    /// Since when a network has no live worker, if a check or a worker ever named it.
    #[must_use]
    pub fn empty_since(&self, network: &str) -> Option<ClusterTime> {
        self.workers.empty.get(network).copied()
    }

    /// Whether checks name a network in which nobody works.
    #[must_use]
    pub fn has_empty_networks(&self) -> bool {
        !self.workers.empty.is_empty()
    }

    /// Whether a check waits for a worker of its network for so long that it is to warn.
    #[must_use]
    pub fn is_deserted(&self, number: u64) -> bool {
        let Some(row) = self.check_numbered(number) else { return false };
        let definition = &row.registration.definition;
        let patience = Millis(definition.interval.max(INTERVAL_MIN).0 * DESERTED_INTERVALS);
        let since = self.empty_since(&definition.later.network);
        definition.has_target()
            && !definition.later.network.is_empty()
            && since.is_some_and(|since| self.time.since(since) >= patience)
    }

    /// What such a check says.
    #[must_use]
    pub fn deserted_output(network: &str) -> String {
        format!("no worker of network {network} is alive")
    }

    /// Whether a worker runs checks, if there is such a worker.
    pub(super) fn is_worker_live(&self, id: &WorkerId) -> bool {
        match self.workers.get(id) {
            Some(row) => row.standing == Standing::Live,
            None => matches!(id, WorkerId::Server(_)),
        }
    }

    pub(super) fn is_lease_held(&self, lease: Lease) -> bool {
        self.presences.holds(lease).is_some()
    }

    /// The servers that are lost when this level begins are away.
    pub(super) fn found_workers(&mut self) {
        let mut touched = BTreeSet::new();
        let mut change = Change::new(self, &mut touched, Cause::Server { server: 0 });
        let servers = change.state.catalog.nodes.iter().filter(|(_, slot)| {
            let health = slot.checks.get(SERF_HEALTH);
            let is_lost = health.is_some_and(|health| health.critical_since.is_some());
            slot.node.kind == NodeKind::Server && is_lost
        });
        let lost: Vec<Arc<str>> = servers.map(|(key, _)| key.clone()).collect();
        lost.iter().for_each(|key| change.follow_server(key));
        change.settle_workers();
    }

    fn put_worker(&mut self, id: &WorkerId, row: Worker) {
        let number = row.number;
        self.workers.put(id.clone(), row);
        self.deadlines.own(number, Owner::Worker(id.clone()));
        self.schedule(number);
    }

    fn remove_worker(&mut self, id: &WorkerId) {
        if let Some(row) = self.workers.rows.remove(id) {
            self.deadlines.disown(row.number);
        }
    }
}

impl Change<'_> {
    /// Runs a command about workers.
    pub(super) fn run_workers(
        &mut self,
        id: CommandId,
        command: &WorkersCommand,
    ) -> Result<Outcome, Rejection> {
        match command {
            WorkersCommand::Open(open) => self.open_worker(id, open),
            WorkersCommand::Results(results) => self.take_results(results),
            WorkersCommand::Deserted { number, probe } => self.desert(*number, *probe),
        }
    }

    /// Opens the presence of a worker process.
    fn open_worker(&mut self, id: CommandId, what: &WorkerOpen) -> Result<Outcome, Rejection> {
        let (name, attempt) = (what.open.service.id.clone(), what.open.terms.attempt);
        let worker = WorkerId::Process(name.clone());
        let before = self.state.workers.get(&worker).cloned();
        if let Some(process) = before.as_ref().and_then(|row| row.process.as_ref()) {
            let newest = process.attempt;
            if attempt <= newest {
                return Err(Rejection::PresenceAttempt { id: name.to_string(), newest });
            }
            let holder = self.state.held_by(process.lease).map(|check| check.number);
            let holder = holder.and_then(|check| self.state.presence(check));
            if holder.is_some_and(|holder| holder.terms.owner != what.open.terms.owner) {
                return Err(Rejection::WorkerNameTaken(name.to_string()));
            }
        }
        let outcome = self.open_presence(id, &what.open, None)?;
        if let Outcome::Id(node) = &outcome {
            self.remove_worker_elsewhere(&name, &fold_arc(node));
        }
        let CommandId { origin, incarnation, seq } = id;
        let lease = Lease { origin, incarnation, seq };
        let process =
            Some(WorkerProcess { network: what.network.clone(), lease, attempt, last_seq: 0 });
        let number = match &before {
            Some(row) => row.number,
            None => self.next_number(),
        };
        let standing = match before.map(|row| row.standing) {
            Some(Standing::Away { .. }) => {
                Standing::Returning { until: self.time() + RETURNS_AFTER }
            }
            Some(standing) => standing,
            None => Standing::Live,
        };
        self.state.put_worker(&worker, Worker { number, standing, process });
        self.pending.workers = true;
        Ok(outcome)
    }

    /// A worker process that has come back on another host is not on its old one any more.
    fn remove_worker_elsewhere(&mut self, name: &Arc<str>, key: &Arc<str>) {
        let places = self.state.catalog.service_ids.get(name);
        let elsewhere = places.into_iter().flatten().filter(|place| {
            let slot = self.state.catalog.nodes.get(*place);
            let row = slot.and_then(|slot| slot.services.get(name));
            *place != key && row.is_some_and(|row| &*row.definition.name == WORKER_SERVICE)
        });
        let elsewhere: Vec<Arc<str>> = elsewhere.cloned().collect();
        elsewhere.iter().for_each(|place| self.remove_service(place, name));
    }

    /// Takes what a worker process found. What comes a second time was taken already.
    fn take_results(&mut self, results: &WorkerResults) -> Result<Outcome, Rejection> {
        let worker = WorkerId::Process(results.name.clone());
        let row = self.state.workers.get(&worker).cloned();
        let process = row.as_ref().and_then(|row| row.process.clone());
        let is_held = |process: &WorkerProcess| {
            process.lease == results.lease && self.state.is_lease_held(results.lease)
        };
        let (Some(row), Some(process)) = (row, process.filter(is_held)) else {
            return Err(Rejection::NoSuchWorker(results.name.to_string()));
        };
        if results.seq <= process.last_seq {
            return Ok(Outcome::Done);
        }
        let process = Some(WorkerProcess { last_seq: results.seq, ..process });
        self.state.workers.put(worker.clone(), Worker { process, ..row.as_ref().clone() });
        let set = self.state.worker_set();
        for result in &results.all {
            // What is not its own any more is somebody else's to say.
            let _ = self.conclude_run(&set, &worker, result);
        }
        Ok(Outcome::Done)
    }

    /// A check whose network nobody works in warns.
    fn desert(&mut self, number: u64, probe: u64) -> Result<Outcome, Rejection> {
        let row = self.state.check_numbered(number).cloned();
        let row = row.filter(|_| self.state.probes.get(number) == Some(probe));
        let row = row.ok_or(Rejection::NoSuchNumber)?;
        if !self.state.is_deserted(number) {
            return Err(Rejection::NoSuchNumber);
        }
        let key = fold_arc(&row.node);
        let output = State::deserted_output(&row.registration.definition.later.network);
        self.put_status(&key, &row, CheckStatus::Warning, output);
        Ok(Outcome::Done)
    }

    /// A check is run that names a network: from now on it waits for a worker of it.
    pub(super) fn note_network(&mut self, network: &Arc<str>) {
        let empty = &self.state.workers.empty;
        if network.is_empty()
            || empty.contains_key(network)
            || empty.len() >= EMPTY_NETWORKS_MAX
            || self.state.worker_set().has_network(network)
        {
            return;
        }
        let now = self.time();
        self.state.workers.empty.insert(network.clone(), now);
    }

    /// The leader says of a server whether it lives.
    pub(super) fn follow_worker(&mut self, server: NodeId, is_alive: bool) {
        if self.state.level() < WORKERS_LEVEL {
            return;
        }
        let id = WorkerId::Server(server);
        let row = self.state.workers.get(&id).cloned();
        let now = self.time();
        let standing = match (is_alive, row.as_ref().map(|row| row.standing)) {
            (true, Some(Standing::Away { .. })) => {
                Standing::Returning { until: now + RETURNS_AFTER }
            }
            (false, None | Some(Standing::Live | Standing::Returning { .. })) => {
                Standing::Away { since: now }
            }
            _ => return,
        };
        let number = row.map_or_else(|| self.next_number(), |row| row.number);
        self.state.put_worker(&id, Worker { number, standing, process: None });
        self.pending.workers = true;
    }

    /// A server left.
    pub(super) fn forget_server_worker(&mut self, server: NodeId) {
        self.state.remove_worker(&WorkerId::Server(server));
        self.pending.workers = true;
    }

    /// A worker has been back for long enough, or away.
    pub(super) fn worker_due(&mut self, id: &WorkerId) {
        let Some(row) = self.state.workers.get(id).cloned() else { return };
        match (row.standing, &row.process) {
            (Standing::Returning { .. }, Some(_)) => {
                let row = Worker { standing: Standing::Live, ..row.as_ref().clone() };
                self.state.put_worker(id, row);
            }
            _ => self.state.remove_worker(id),
        }
        self.pending.workers = true;
    }

    /// A backup was restored: who runs checks is the running cluster's to say. What they found was of other checks.
    pub(super) fn keep_workers(&mut self, running: Workers) {
        for (id, row) in &running.rows {
            self.state.put_worker(id, row.as_ref().clone());
        }
        self.state.workers.empty = running.empty;
        self.pending.workers = true;
    }

    /// Brings everything in step with the workers that there are, if some came or went in this change.
    pub(super) fn settle_workers(&mut self) {
        let has_changed = std::mem::take(&mut self.pending.workers);
        let has_moved = std::mem::take(&mut self.pending.hosts);
        let Workers { rows, views, empty, .. } = &self.state.workers;
        let is_bare = rows.is_empty() && views.is_empty() && empty.is_empty();
        if !(has_changed || has_moved) || is_bare || self.state.level() < WORKERS_LEVEL {
            return;
        }
        self.note_lost_leases();
        let set = self.state.worker_set();
        if has_moved || set != self.state.workers.settled {
            self.settle_networks(&set);
            self.drop_views_of_others(&set);
            self.state.workers.settled = set;
        }
    }

    /// Processes whose lease is gone are away.
    fn note_lost_leases(&mut self) {
        let now = self.time();
        let gone: Vec<(WorkerId, Worker)> = (self.state.workers.iter())
            .filter(|(_, row)| {
                let lease = row.process.as_ref().map(|process| process.lease);
                !matches!(row.standing, Standing::Away { .. })
                    && lease.is_some_and(|lease| !self.state.is_lease_held(lease))
            })
            .map(|(id, row)| {
                let standing = Standing::Away { since: now };
                (id.clone(), Worker { standing, ..row.as_ref().clone() })
            })
            .collect();
        for (id, row) in gone {
            self.state.put_worker(&id, row);
        }
    }

    /// Notes which networks have lost their last worker, and which have one.
    fn settle_networks(&mut self, set: &WorkerSet) {
        let now = self.time();
        let networks: BTreeSet<Arc<str>> =
            set.iter().map(|one| one.network.clone()).filter(|name| !name.is_empty()).collect();
        let empty = &mut self.state.workers.empty;
        let met: Vec<Arc<str>> =
            empty.keys().filter(|network| set.has_network(network)).cloned().collect();
        for network in &met {
            empty.remove(network);
        }
        for network in networks {
            if !set.has_network(&network) && !empty.contains_key(&network) {
                empty.insert(network, now);
            }
        }
    }
}
