//! Restoring a backup: everything that clients see is replaced, in one change.
//!
//! A backup is too large for one entry of the log. It comes in pieces that are staged in the state,
//! one restore at a time, and takes effect with one last command. A restore that nobody goes on with
//! is dropped after a while of cluster time.
//!
//! What is restored was true in another life of the cluster, so it is carried over into this one:
//!
//! * every row, and every topic, gets the index of the restore, which is larger than every index of
//!   this cluster and every index in the backup. So no index ever falls, neither for clients of this
//!   cluster nor for those that bring indexes of the old one: every blocked query wakes, and a
//!   compare-and-set with an index from before the restore fails. `CreateIndex` is kept;
//! * times are kept as distances from now: a TTL that had ten seconds left has ten seconds left;
//! * rows get new numbers, since numbers are never used again.
//!
//! Kept from the running cluster are its time, its counters, the origin records, and what it says of
//! its own servers and their hosts.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use imbl::Vector;

use super::State;
use super::agent::SERVER_SERVICE;
use super::catalog::SERF_HEALTH;
use super::change::Change;
use super::snapshot_record::{Import, SnapshotRecord, StateHeader};
use super::topic::{TableIndexes, TopicIndexes};
use crate::command::{Outcome, Rejection};
use crate::record::{Autopilot, CheckRegistration, Indexes, NodeKind};
use crate::snapshot::RecordReader;
use crate::{ClusterTime, Index, Millis, Topic};

/// A restore that nobody goes on with for this long is dropped.
pub(super) const STAGED_IDLE_MAX: Millis = Millis::from_secs(60);

/// The largest index of a backup. Clients that keep numbers as JavaScript does cannot tell larger
/// ones apart, and the counter must never come to its end.
const INDEX_MAX: Index = Index(1 << 53);

/// A backup that is being handed over.
#[derive(Debug, Clone)]
pub(super) struct Staged {
    /// Which restore this is.
    pub(super) id: Arc<str>,
    /// When the last piece came.
    pub(super) touched: ClusterTime,
    /// The pieces so far.
    pub(super) pieces: Vector<Bytes>,
}

impl Staged {
    /// How many bytes there are.
    pub(super) fn len(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }
}

impl State {
    /// When a restore that nobody goes on with is dropped.
    pub(super) fn restore_deadline(&self) -> Option<ClusterTime> {
        self.staged.as_ref().map(|staged| staged.touched + STAGED_IDLE_MAX)
    }

    /// Drops a restore that nobody goes on with; nobody sees it go.
    pub(super) fn drop_idle_restore(&mut self, limit: ClusterTime) {
        if self.restore_deadline().is_some_and(|deadline| deadline <= limit) {
            self.staged = None;
        }
    }

    /// Whether a backup could be restored here, all of it; nothing is changed.
    ///
    /// # Errors
    /// `InvalidData` with the first thing that is wrong with it.
    pub fn try_restore(&self, backup: Bytes) -> io::Result<()> {
        carried_over(self, &Vector::unit(backup)).map(|_| ())
    }
}

impl Change<'_> {
    /// Begins a restore. Another one in progress is not disturbed.
    pub(super) fn begin_restore(&mut self, id: &Arc<str>) -> Result<(), Rejection> {
        self.state.drop_idle_restore(self.state.time);
        if self.state.staged.as_ref().is_some_and(|staged| staged.id != *id) {
            return Err(Rejection::RestoreInProgress);
        }
        let touched = self.time();
        self.state.staged = Some(Staged { id: id.clone(), touched, pieces: Vector::new() });
        Ok(())
    }

    /// Adds a piece behind what is there.
    pub(super) fn stage_piece(
        &mut self,
        id: &str,
        offset: u64,
        piece: &Bytes,
    ) -> Result<(), Rejection> {
        let time = self.time();
        let staged = self.state.staged.as_mut().filter(|staged| &*staged.id == id);
        let staged = staged.filter(|staged| staged.len() == offset);
        let staged = staged.ok_or(Rejection::RestoreLost)?;
        staged.pieces.push_back(piece.clone());
        staged.touched = time;
        Ok(())
    }

    /// Puts a staged backup in the place of everything.
    pub(super) fn finish_restore(&mut self, id: &str) -> Result<Outcome, Rejection> {
        let staged = self.state.staged.as_ref().filter(|staged| &*staged.id == id);
        let pieces = staged.ok_or(Rejection::RestoreLost)?.pieces.clone();
        let restored = carried_over(self.state, &pieces)
            .map_err(|fault| Rejection::InvalidBackup(fault.to_string()))?;
        self.raise_index(restored.index);
        let running = std::mem::replace(self.state, restored);
        self.state.origins = running.origins.clone();
        self.touch(Topic::Everything);
        self.keep_own_nodes(&running);
        self.keep_autopilot(running.autopilot);
        Ok(Outcome::Done)
    }

    /// A backup from before autopilot was ever configured leaves its configuration alone.
    fn keep_autopilot(&mut self, running: Option<Arc<Autopilot>>) {
        if self.state.autopilot.is_some() {
            return;
        }
        self.state.autopilot = running.map(|row| {
            let mut row = row.as_ref().clone();
            row.indexes.modify = self.index();
            Arc::new(row)
        });
    }

    /// The cluster's own servers and their hosts stay; the backup's become ordinary nodes.
    fn keep_own_nodes(&mut self, running: &State) {
        let is_own = |kind: NodeKind| matches!(kind, NodeKind::Server | NodeKind::ServerAgent);
        let foreign: Vec<Arc<str>> = self
            .state
            .catalog
            .nodes
            .iter()
            .filter(|(key, slot)| {
                let here = running.catalog.nodes.get(*key).map(|slot| slot.node.kind);
                is_own(slot.node.kind) && here != Some(slot.node.kind)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in foreign {
            self.set_kind(&key);
        }
        for (key, slot) in &running.catalog.nodes {
            if !is_own(slot.node.kind) {
                continue;
            }
            // The backup may know a server of this name, with other addresses.
            self.put_node(slot.node.as_ref().clone(), Some(slot.node.indexes.create));
            if slot.node.kind == NodeKind::Server
                && let Some(row) = slot.services.get(SERVER_SERVICE)
            {
                self.put_service(key, &row.definition);
            }
            if let Some(row) = slot.checks.get(SERF_HEALTH) {
                // A client may have registered it for a service, which the backup need not have.
                let service_id = "".into();
                let own = CheckRegistration { service_id, ..row.registration.clone() };
                self.register_check(key, own);
            }
        }
    }

    /// A node of another cluster's server, or of its host, is not special here; nobody looks after
    /// what told of that server.
    fn set_kind(&mut self, key: &Arc<str>) {
        let Some(slot) = self.state.catalog.slot_mut(key) else { return };
        let mut node = slot.node.as_ref().clone();
        let was_server = node.kind == NodeKind::Server;
        node.kind = if was_server { NodeKind::Registered } else { NodeKind::Agent };
        slot.node = Arc::new(node);
        if was_server {
            self.remove_service(key, &SERVER_SERVICE.into());
            self.remove_check(key, &SERF_HEALTH.into());
        }
        self.refresh_idle(key);
        self.reschedule_checks(key);
    }
}

/// A state made of a backup, as if all of it had been written now, by the next change of a cluster
/// that had made all changes of both.
fn carried_over(running: &State, pieces: &Vector<Bytes>) -> io::Result<State> {
    let open = || RecordReader::new(BufReader::new(Pieces(pieces.clone())));
    // Numbers are given before any row is built, because the header says how many there are.
    let mut numbers = Numbers { given: BTreeMap::new(), last: running.last_number };
    let mut records = open()?;
    let mut then = None;
    while let Some(bytes) = records.next_record()? {
        let record = decode(&bytes)?;
        if let SnapshotRecord::Header(header) = &record {
            then = Some((header.time, header.index));
        }
        numbers.give(&record);
    }
    let (then, newest) = then.ok_or_else(|| invalid("it has no header"))?;
    if newest > INDEX_MAX {
        return Err(invalid("its index is larger than any cluster's"));
    }
    let index = running.index.max(newest).next();
    let carry = Carry { running, index, then, numbers };
    let mut import = Import::default();
    let mut records = open()?;
    while let Some(bytes) = records.next_record()? {
        if let Some(record) = carry.over(decode(&bytes)?)? {
            import.add(record)?;
        }
    }
    let mut state = import.finish()?;
    // A backup of an older release may know less of these.
    state.tables = carry.tables(state.tables.last_event);
    Ok(state)
}

fn decode(bytes: &[u8]) -> io::Result<SnapshotRecord<'_>> {
    postcard::from_bytes(bytes)
        .map_err(|error| invalid(&format!("a record is unreadable: {error}")))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("backup: {what}"))
}

/// New numbers for old ones.
struct Numbers {
    given: BTreeMap<u64, u64>,
    last: u64,
}

impl Numbers {
    fn give(&mut self, record: &SnapshotRecord<'_>) {
        let old = match record {
            SnapshotRecord::Node { number, .. } => *number,
            SnapshotRecord::Check { row, .. } => row.number,
            SnapshotRecord::Session { row, .. } => row.number,
            SnapshotRecord::Probe { probe, .. } => *probe,
            _ => return,
        };
        // A number that comes twice is found when the rows are built.
        self.last += 1;
        self.given.insert(old, self.last);
    }

    fn of(&self, old: u64) -> io::Result<u64> {
        self.given.get(&old).copied().ok_or_else(|| invalid("a number that nothing has"))
    }
}

/// How records of a backup are carried over into the running cluster.
struct Carry<'a> {
    running: &'a State,
    index: Index,
    /// Cluster time of the backup.
    then: ClusterTime,
    numbers: Numbers,
}

impl Carry<'_> {
    /// The record as it is from now on; `None` for what is not restored.
    fn over<'b>(&self, record: SnapshotRecord<'b>) -> io::Result<Option<SnapshotRecord<'b>>> {
        use std::borrow::Cow::Owned;
        Ok(Some(match record {
            SnapshotRecord::Header(_) => SnapshotRecord::Header(self.header()),
            SnapshotRecord::Node { row, number, idle_since, .. } => {
                let mut row = row.into_owned();
                row.indexes = self.indexes(row.indexes);
                let idle_since = idle_since.map(|since| self.time(since));
                let number = self.numbers.of(number)?;
                SnapshotRecord::Node { row: Owned(row), number, index: self.index, idle_since }
            }
            SnapshotRecord::Service(row) => {
                let mut row = row.into_owned();
                row.indexes = self.indexes(row.indexes);
                SnapshotRecord::Service(Owned(row))
            }
            SnapshotRecord::ServiceIndex { name, .. } => {
                SnapshotRecord::ServiceIndex { name, index: self.index }
            }
            SnapshotRecord::Check { row, last_seen } => {
                let mut row = row.into_owned();
                row.indexes = self.indexes(row.indexes);
                row.number = self.numbers.of(row.number)?;
                row.critical_since = row.critical_since.map(|since| self.time(since));
                let last_seen = last_seen.map(|seen| self.time(seen));
                SnapshotRecord::Check { row: Owned(row), last_seen }
            }
            SnapshotRecord::Session { row, last_seen } => {
                let mut row = row.into_owned();
                row.indexes = self.indexes(row.indexes);
                row.number = self.numbers.of(row.number)?;
                let last_seen = last_seen.map(|seen| self.time(seen));
                SnapshotRecord::Session { row: Owned(row), last_seen }
            }
            SnapshotRecord::Probe { check, probe } => SnapshotRecord::Probe {
                check: self.numbers.of(check)?,
                probe: self.numbers.of(probe)?,
            },
            other => return Ok(self.over_elsewhere(other)),
        }))
    }

    /// The same for what is not in the catalogue.
    fn over_elsewhere<'b>(&self, record: SnapshotRecord<'b>) -> Option<SnapshotRecord<'b>> {
        use std::borrow::Cow::Owned;
        Some(match record {
            SnapshotRecord::Key(row) => {
                let mut row = row.into_owned();
                row.indexes = self.indexes(row.indexes);
                SnapshotRecord::Key(Owned(row))
            }
            SnapshotRecord::Tombstone { key, mut grave } => {
                grave.index = self.index;
                grave.until = self.time(grave.until);
                SnapshotRecord::Tombstone { key, grave }
            }
            SnapshotRecord::LockDelay { key, until } => {
                SnapshotRecord::LockDelay { key, until: self.time(until) }
            }
            SnapshotRecord::Query(row) => {
                let mut row = row.into_owned();
                row.indexes = self.indexes(row.indexes);
                SnapshotRecord::Query(Owned(row))
            }
            SnapshotRecord::Autopilot(row) => {
                let mut row = row.into_owned();
                row.indexes = self.indexes(row.indexes);
                SnapshotRecord::Autopilot(Owned(row))
            }
            kept @ (SnapshotRecord::Tables(_)
            | SnapshotRecord::Event(_)
            | SnapshotRecord::Coordinate { .. }) => kept,
            // Another cluster's, or another life's. Those of the catalogue were carried over above.
            SnapshotRecord::Origin { .. }
            | SnapshotRecord::Outcome { .. }
            | SnapshotRecord::Staged { .. }
            | SnapshotRecord::StagedPiece(_)
            | SnapshotRecord::Header(_)
            | SnapshotRecord::Node { .. }
            | SnapshotRecord::Service(_)
            | SnapshotRecord::ServiceIndex { .. }
            | SnapshotRecord::Check { .. }
            | SnapshotRecord::Session { .. }
            | SnapshotRecord::Probe { .. }
            | SnapshotRecord::Answered { .. } => return None,
        })
    }

    fn header(&self) -> StateHeader {
        let index = self.index;
        StateHeader {
            time: self.running.time,
            index,
            last_number: self.numbers.last,
            topics: TopicIndexes {
                nodes: index,
                services: index,
                checks: index,
                sessions: index,
                kv: index,
                kv_floor: index,
                extinction: Some(index),
            },
        }
    }

    fn tables(&self, last_event: u64) -> TableIndexes {
        TableIndexes {
            events: self.index,
            coordinates: self.index,
            queries: self.index,
            last_event: last_event.max(self.running.tables.last_event),
        }
    }

    fn indexes(&self, old: Indexes) -> Indexes {
        Indexes { create: old.create.min(self.index), modify: self.index }
    }

    /// The time that is as far from now as this one was from the time of the backup. In a cluster
    /// that is younger than that, the time it began.
    fn time(&self, time: ClusterTime) -> ClusterTime {
        let now = self.running.time;
        if time >= self.then { now + time.since(self.then) } else { now - self.then.since(time) }
    }
}

/// Reads pieces one after the other.
struct Pieces(Vector<Bytes>);

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(piece) = self.0.front_mut() {
            if piece.is_empty() {
                self.0.pop_front();
                continue;
            }
            let length = piece.len().min(buffer.len());
            piece.copy_to_slice(&mut buffer[..length]);
            return Ok(length);
        }
        Ok(0)
    }
}
