//! Restoring a backup: everything that clients see is replaced, in one change.
//!
//! A backup is too large for one entry of the log. It comes in pieces, one restore at a time, and takes
//! effect with one last command. A restore that nobody continues is dropped after a while of cluster
//! time. Each piece becomes rows of the state-to-be when it comes ([`Progress`]), so no entry takes
//! longer than a piece does, the last one included: what it still has to do grows with what has a
//! deadline, not with what there is.
//!
//! What is restored described another history of the cluster, so it is carried over into this one:
//!
//! * every row gets an index that is larger than every index of the backup and of this cluster, and
//!   that no other change gets: it is reserved when the head of the backup has come. Every topic gets
//!   the index of the last command: the same one, if nothing else changed meanwhile. So no index ever
//!   falls, neither for clients of this cluster nor for those that bring indexes of the old one: every
//!   blocked query wakes, and a compare-and-set with an index from before the restore fails.
//!   `CreateIndex` is kept;
//! * times are kept as distances from now: a TTL that had ten seconds left has ten seconds left;
//! * rows get new numbers, since numbers are never used again.
//!
//! Kept from the running cluster are its time, its counters, its level, its history, the counters of its claims
//! (which are over), the origin records, and what it says of
//! its own servers (their boots included) and their hosts.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use imbl::{OrdMap, Vector};

use super::State;
use super::change::Change;
use super::history::What;
use super::snapshot_record::{Import, SnapshotRecord, StateHeader};
use super::topic::TopicIndexes;
use crate::command::{Outcome, Rejection};
use crate::limits::COMMAND_BYTES_MAX;
use crate::record::{
    AclPolicy, AclRole, Autopilot, Check, CheckRegistration, Facts, HistoryKind, Indexes, NodeKind,
    Presence, SERF_HEALTH, SERVER_SERVICE, Subject,
};
use crate::snapshot::RecordReader;
use crate::snapshot::format;
use crate::{ClusterTime, Index, Millis, Topic, release};

/// A restore that nobody continues for this long is dropped.
pub(super) const STAGED_IDLE_MAX: Millis = Millis::from_secs(60);

/// A restore whose next piece has not come for this long gives way to another one. While one is under way
/// its pieces come within milliseconds of each other, at most a change of leader apart.
const STAGED_GIVES_WAY: Millis = Millis::from_secs(10);

/// How much of a backup is read at a time when it is tried.
const TRIED_BYTES: usize = 256 * 1024;

/// The largest record of a backup, as far as one is looked at before it is handed over. No row of a state is
/// larger: each was made by commands, of which each has at most [`COMMAND_BYTES_MAX`].
const TRIED_RECORD_BYTES_MAX: usize = 4 * COMMAND_BYTES_MAX;

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
    /// The pieces so far, as they came: what a snapshot has of it.
    pub(super) pieces: Vector<StagedPiece>,
    /// How many bytes they are.
    length: u64,
    /// What was made of them.
    progress: Arc<Progress>,
}

impl Staged {
    /// A backup of which nothing has come.
    pub(super) fn new(id: Arc<str>, touched: ClusterTime) -> Self {
        Self { id, touched, pieces: Vector::new(), length: 0, progress: Arc::default() }
    }

    /// What is reserved for the rows, once the head of the backup has come.
    pub(super) fn reservation(&self) -> Option<Reservation> {
        self.progress.carry.as_ref().map(|carry| carry.reservation)
    }

    /// Takes over the reservation from a snapshot. Call it before the first piece.
    pub(super) fn set_reservation(&mut self, reservation: Reservation) {
        Arc::make_mut(&mut self.progress).reservation = Some(reservation);
    }

    /// Adds a piece and makes rows of it.
    pub(super) fn take_in(&mut self, piece: StagedPiece, running: &mut Running) {
        self.length += piece.bytes.len() as u64;
        Arc::make_mut(&mut self.progress).take_in(piece.bytes.clone(), running);
        self.pieces.push_back(piece);
    }

    fn discard(self) {
        let progress = Arc::unwrap_or_clone(self.progress);
        release::later(progress.import.into_state());
    }
}

/// What the cluster reserves for a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reservation {
    /// The index of the rows. No other change gets it.
    pub(super) index: Index,
    /// The time of the cluster then.
    pub(super) time: ClusterTime,
}

/// A piece of a backup.
#[derive(Debug, Clone)]
pub(super) struct StagedPiece {
    pub(super) bytes: Bytes,
    /// The last number that the cluster had given when it came: its rows got the next ones.
    pub(super) last_number: u64,
}

/// The counters of the running cluster: index, time and numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    pub(super) index: Index,
    pub(super) time: ClusterTime,
    pub(super) last_number: u64,
}

impl State {
    /// When a restore that nobody continues is dropped.
    pub(super) fn restore_deadline(&self) -> Option<ClusterTime> {
        self.staged.as_ref().map(|staged| staged.touched + STAGED_IDLE_MAX)
    }

    /// Drops a restore that nobody continues. It was not visible to any client, so no topic is touched.
    pub(super) fn drop_idle_restore(&mut self, limit: ClusterTime) {
        if self.restore_deadline().is_some_and(|deadline| deadline <= limit) {
            self.drop_restore();
        }
    }

    fn drop_restore(&mut self) {
        if let Some(staged) = self.staged.take() {
            staged.discard();
        }
    }

    /// The index of the next change. Skips the reserved one.
    pub(super) fn next_index(&self) -> Index {
        let next = self.index.next();
        let reserved = self.staged.as_ref().and_then(Staged::reservation);
        if reserved.is_some_and(|reserved| reserved.index == next) { next.next() } else { next }
    }

    /// The counters of this cluster, for a backup that is converted for it.
    pub(super) fn running(&self) -> Running {
        Running { index: self.index, time: self.time, last_number: self.last_number }
    }

    /// Whether a backup could be restored here, all of it; nothing is changed. It is read piece by piece, and
    /// no further than to its first fault, so what is held at a time is its rows and one record.
    ///
    /// # Errors
    /// `InvalidData` with the first thing that is wrong with it, or the error of `backup`.
    pub fn try_restore(&self, backup: &mut dyn Read) -> io::Result<()> {
        let (mut progress, mut running) = (Progress::default(), self.running());
        loop {
            let mut piece = Vec::with_capacity(TRIED_BYTES);
            (&mut *backup).take(TRIED_BYTES as u64).read_to_end(&mut piece)?;
            if piece.is_empty() {
                return progress.finish().map(|_| ());
            }
            progress.take_in(piece.into(), &mut running);
            if let Some(fault) = &progress.fault {
                return Err(io::Error::new(fault.kind(), fault.to_string()));
            }
            if progress.input().len() > TRIED_RECORD_BYTES_MAX {
                return Err(invalid(&format!(
                    "it has a record of more than {TRIED_RECORD_BYTES_MAX} bytes"
                )));
            }
        }
    }
}

impl Change<'_> {
    /// Begins a restore. Another one in progress is not disturbed; one whose client or server has gone
    /// gives way.
    pub(super) fn begin_restore(&mut self, id: &Arc<str>) -> Result<(), Rejection> {
        let now = self.state.time;
        let is_in_progress =
            |staged: &Staged| staged.id != *id && staged.touched + STAGED_GIVES_WAY > now;
        if self.state.staged.as_ref().is_some_and(is_in_progress) {
            return Err(Rejection::RestoreInProgress);
        }
        self.state.drop_restore();
        self.state.staged = Some(Staged::new(id.clone(), self.time()));
        Ok(())
    }

    /// Adds a piece behind what is there.
    pub(super) fn stage_piece(
        &mut self,
        id: &str,
        offset: u64,
        piece: &Bytes,
    ) -> Result<(), Rejection> {
        let mut running = self.state.running();
        let staged = self.state.staged.as_mut().filter(|staged| &*staged.id == id);
        let staged = staged.filter(|staged| staged.length == offset);
        let staged = staged.ok_or(Rejection::RestoreLost)?;
        staged.touched = running.time;
        let piece = StagedPiece { bytes: piece.clone(), last_number: running.last_number };
        staged.take_in(piece, &mut running);
        self.state.last_number = running.last_number;
        Ok(())
    }

    /// Puts a staged backup in the place of everything.
    pub(super) fn finish_restore(&mut self, id: &str) -> Result<Outcome, Rejection> {
        let staged = self.state.staged.as_ref().filter(|staged| &*staged.id == id);
        let progress = Progress::clone(&staged.ok_or(Rejection::RestoreLost)?.progress);
        let (restored, reservation) =
            progress.finish().map_err(|fault| Rejection::InvalidBackup(fault.to_string()))?;
        // The rows' own index, unless the counter has passed it since it was reserved.
        self.set_index(self.state.index.next().max(reservation.index));
        let mut running = std::mem::replace(self.state, restored);
        self.carry_on(&mut running, reservation);
        self.touch(Topic::Everything);
        self.keep_own_nodes(&running);
        self.keep_autopilot(running.autopilot.take());
        // What the steps above recorded tells of how the backup was fitted in. One record tells of all.
        self.state.history = std::mem::take(&mut running.history);
        self.record(What::new(HistoryKind::Restored, Subject::Cluster));
        self.restore_claims(std::mem::take(&mut running.claims));
        self.keep_workers(std::mem::take(&mut running.workers));
        release::later(running);
        Ok(Outcome::Done)
    }

    /// Makes the restored state the running one's successor.
    fn carry_on(&mut self, running: &mut State, reservation: Reservation) {
        let (index, state) = (self.index(), &mut *self.state);
        state.time = running.time;
        state.last_number = running.last_number;
        state.topics = topics(index);
        state.tables.events = index;
        state.tables.coordinates = index;
        state.tables.queries = index;
        state.tables.last_event = state.tables.last_event.max(running.tables.last_event);
        state.restored = Some(index);
        state.origins = std::mem::take(&mut running.origins);
        state.boots = std::mem::take(&mut running.boots);
        state.level = running.level;
        state.postpone(running.time.since(reservation.time));
        state.adopt_presences(running);
        state.adopt_acl(running, index);
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
    pub(super) fn set_kind(&mut self, key: &Arc<str>) {
        let Some(slot) = self.state.catalog.slot_mut(key) else { return };
        let mut node = slot.node.as_ref().clone();
        let was_server = node.kind == NodeKind::Server;
        self.pending.workers = true;
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

impl State {
    /// Moves all times into the future: that is how long ago they were right. What comes up too early
    /// in the queue of deadlines is looked at and put back.
    fn postpone(&mut self, by: Millis) {
        if by == Millis::ZERO {
            return;
        }
        self.heard.postpone(by);
        self.postpone_tokens(by);
        let delays: Vec<_> =
            self.kv.lock_delays.iter().map(|(key, until)| (key.clone(), *until + by)).collect();
        for (key, until) in delays {
            self.kv.delay_lock(&key, until);
        }
        let idle: Vec<(Arc<str>, ClusterTime)> = (self.catalog.nodes.iter())
            .filter_map(|(key, slot)| Some((key.clone(), slot.idle_since? + by)))
            .collect();
        for (key, since) in idle {
            if let Some(slot) = self.catalog.slot_mut(&key) {
                slot.idle_since = Some(since);
            }
        }
        let critical: Vec<(Arc<str>, Check)> = (self.catalog.nodes.iter())
            .flat_map(|(key, slot)| slot.checks.values().map(move |row| (key, row)))
            .filter_map(|(key, row)| {
                let since = row.critical_since? + by;
                Some((key.clone(), Check { critical_since: Some(since), ..Check::clone(row) }))
            })
            .collect();
        for (key, row) in critical {
            self.catalog.put_check_row(&key, Arc::new(row));
        }
    }
}

/// What was made of the pieces so far. A fault is kept until the end, where it is answered.
#[derive(Debug, Clone, Default)]
struct Progress {
    pieces: Pieces,
    /// Once the head has come; it has the pieces then.
    records: Option<RecordReader<Pieces>>,
    reservation: Option<Reservation>,
    /// Once the header has come.
    carry: Option<Carry>,
    import: Import,
    ended: bool,
    fault: Option<Arc<io::Error>>,
}

impl Progress {
    fn take_in(&mut self, piece: Bytes, running: &mut Running) {
        if self.fault.is_some() {
            return;
        }
        self.input().push(piece);
        if let Err(fault) = self.read(running) {
            self.fault = Some(Arc::new(fault));
        }
    }

    fn input(&mut self) -> &mut Pieces {
        self.records.as_mut().map_or(&mut self.pieces, RecordReader::input)
    }

    /// Makes rows of all records that are there as a whole.
    fn read(&mut self, running: &mut Running) -> io::Result<()> {
        if self.records.is_none() && format::has_head(self.pieces.peek(), self.pieces.len()) {
            self.records = Some(RecordReader::new(std::mem::take(&mut self.pieces))?);
        }
        let Some(records) = &mut self.records else { return Ok(()) };
        while !self.ended {
            let (head, length) = (records.input().peek(), records.input().len());
            if !format::has_record(head, length) {
                return Ok(());
            }
            let Some(bytes) = records.next_record()? else {
                self.ended = true;
                break;
            };
            let record = decode(&bytes)?;
            if let (SnapshotRecord::Header(header), None) = (&record, &self.carry) {
                self.carry = Some(Carry::begin(header, self.reservation, running)?);
            }
            let carry = self.carry.as_mut().ok_or_else(|| invalid("it has no header"))?;
            carry.give_number(&record, running);
            if let Some(record) = carry.over(record)? {
                self.import.set_last_number(running.last_number);
                self.import.add(record)?;
            }
        }
        if records.input().len() > 0 {
            return Err(invalid("there is data after its end"));
        }
        Ok(())
    }

    /// The restored state, and what was reserved for it.
    fn finish(mut self) -> io::Result<(State, Reservation)> {
        if let Some(fault) = self.fault {
            return Err(io::Error::new(fault.kind(), fault.to_string()));
        }
        if !self.ended {
            // Says what is missing.
            let mut records = match self.records.take() {
                Some(records) => records,
                None => RecordReader::new(self.pieces)?,
            };
            while records.next_record()?.is_some() {}
            return Err(invalid("it is truncated"));
        }
        let carry = self.carry.ok_or_else(|| invalid("it has no header"))?;
        Ok((self.import.finish()?, carry.reservation))
    }
}

fn decode(bytes: &[u8]) -> io::Result<SnapshotRecord<'_>> {
    let record = postcard::from_bytes(bytes)
        .map_err(|error| invalid(&format!("a record is unreadable: {error}")))?;
    // Importing fills in what the service's record has, whichever of the two it is.
    Ok(match record {
        SnapshotRecord::CheckOfService { row, last_seen } => {
            SnapshotRecord::Check { row, last_seen }
        }
        other => other,
    })
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("backup: {what}"))
}

fn topics(index: Index) -> TopicIndexes {
    TopicIndexes {
        nodes: index,
        services: index,
        checks: index,
        sessions: index,
        kv: index,
        kv_floor: index,
        extinction: Some(index),
    }
}

/// How records of a backup are carried over into the running cluster.
#[derive(Debug, Clone)]
struct Carry {
    reservation: Reservation,
    /// Cluster time of the backup.
    then: ClusterTime,
    /// New numbers for old ones.
    given: OrdMap<u64, u64>,
}

impl Carry {
    /// Reserves what the backup needs, unless that was done before.
    fn begin(
        header: &StateHeader,
        reservation: Option<Reservation>,
        running: &Running,
    ) -> io::Result<Self> {
        if header.index > INDEX_MAX {
            return Err(invalid("its index is larger than any cluster's"));
        }
        let reservation = reservation.unwrap_or_else(|| Reservation {
            index: running.index.max(header.index).next(),
            time: running.time,
        });
        Ok(Self { reservation, then: header.time, given: OrdMap::new() })
    }

    /// Gives a row that has a number the next one of the cluster.
    fn give_number(&mut self, record: &SnapshotRecord<'_>, running: &mut Running) {
        let old = match record {
            SnapshotRecord::Node { number, .. } => *number,
            SnapshotRecord::Check { row, .. } => row.number,
            SnapshotRecord::Session { row, .. } => row.number,
            SnapshotRecord::Probe { probe, .. } => *probe,
            SnapshotRecord::AclToken(row) => row.number,
            _ => return,
        };
        running.last_number += 1;
        self.given.insert(old, running.last_number);
    }

    /// The record as it is from now on; `None` for what is not restored.
    fn over<'b>(&self, record: SnapshotRecord<'b>) -> io::Result<Option<SnapshotRecord<'b>>> {
        use std::borrow::Cow::Owned;
        Ok(Some(match record {
            SnapshotRecord::Header(_) => SnapshotRecord::Header(self.header()),
            SnapshotRecord::Node { row, number, idle_since, .. } => {
                let mut row = row.into_owned();
                row.indexes = self.indexes(row.indexes);
                let idle_since = idle_since.map(|since| self.time(since));
                let number = self.number(number)?;
                SnapshotRecord::Node {
                    row: Owned(row),
                    number,
                    index: self.reservation.index,
                    idle_since,
                }
            }
            SnapshotRecord::Service(row) => {
                let mut row = row.into_owned();
                row.indexes = self.indexes(row.indexes);
                SnapshotRecord::Service(Owned(row))
            }
            SnapshotRecord::ServiceIndex { name, .. } => {
                SnapshotRecord::ServiceIndex { name, index: self.reservation.index }
            }
            SnapshotRecord::Check { row, last_seen } => {
                let mut row = row.into_owned();
                row.indexes = self.indexes(row.indexes);
                row.number = self.number(row.number)?;
                row.critical_since = row.critical_since.map(|since| self.time(since));
                let last_seen = last_seen.map(|seen| self.time(seen));
                SnapshotRecord::Check { row: Owned(row), last_seen }
            }
            SnapshotRecord::Session { row, last_seen } => {
                let mut row = row.into_owned();
                row.indexes = self.indexes(row.indexes);
                row.number = self.number(row.number)?;
                let last_seen = last_seen.map(|seen| self.time(seen));
                SnapshotRecord::Session { row: Owned(row), last_seen }
            }
            SnapshotRecord::Probe { check, probe } => {
                SnapshotRecord::Probe { check: self.number(check)?, probe: self.number(probe)? }
            }
            // Its times are of no use: who is connected is found out anew.
            SnapshotRecord::Presence { check, row } => {
                let row = Presence { ended: None, replaced: Vec::new(), ..row.into_owned() };
                SnapshotRecord::Presence { check: self.number(check)?, row: Owned(row) }
            }
            SnapshotRecord::Facts { check, facts, counter } => {
                let facts = facts.map(|facts| {
                    let noted = self.time(facts.noted);
                    Owned(Facts { noted, ..facts.into_owned() })
                });
                SnapshotRecord::Facts { check: self.number(check)?, facts, counter }
            }
            SnapshotRecord::Said { check, said } => {
                SnapshotRecord::Said { check: self.number(check)?, said }
            }
            SnapshotRecord::AclToken(row) => {
                let mut row = row.into_owned();
                row.indexes = self.indexes(row.indexes);
                row.number = self.number(row.number)?;
                row.expires = row.expires.map(|expires| self.time(expires));
                SnapshotRecord::AclToken(Owned(row))
            }
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
                grave.index = self.reservation.index;
                grave.until = self.time(grave.until);
                SnapshotRecord::Tombstone { key, grave }
            }
            SnapshotRecord::Cut { prefix, mut grave } => {
                grave.index = self.reservation.index;
                grave.until = self.time(grave.until);
                SnapshotRecord::Cut { prefix, grave }
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
            acl @ (SnapshotRecord::AclPolicy(_) | SnapshotRecord::AclRole(_)) => self.over_acl(acl),
            kept @ (SnapshotRecord::Tables(_)
            | SnapshotRecord::Event(_)
            | SnapshotRecord::Coordinate { .. }
            | SnapshotRecord::Acl(_)
            | SnapshotRecord::Claims(_)) => kept,
            // Another cluster's, or an earlier one's. Those of the catalogue were carried over above.
            SnapshotRecord::Origin { .. }
            | SnapshotRecord::Outcome { .. }
            | SnapshotRecord::Boot { .. }
            | SnapshotRecord::Staged { .. }
            | SnapshotRecord::StagedPiece(_)
            | SnapshotRecord::StagedReservation { .. }
            | SnapshotRecord::StagedNumber(_)
            | SnapshotRecord::Restored(_)
            | SnapshotRecord::Level(_)
            | SnapshotRecord::History(_)
            | SnapshotRecord::HistoryRecord(_)
            | SnapshotRecord::Pool { .. }
            | SnapshotRecord::PoolMember { .. }
            | SnapshotRecord::ClosedSlot { .. }
            | SnapshotRecord::Claim(_)
            | SnapshotRecord::Worker { .. }
            | SnapshotRecord::Views { .. }
            | SnapshotRecord::EmptyNetwork { .. }
            | SnapshotRecord::Header(_)
            | SnapshotRecord::Node { .. }
            | SnapshotRecord::Service(_)
            | SnapshotRecord::ServiceIndex { .. }
            | SnapshotRecord::Check { .. }
            | SnapshotRecord::CheckOfService { .. }
            | SnapshotRecord::Session { .. }
            | SnapshotRecord::Probe { .. }
            | SnapshotRecord::Presence { .. }
            | SnapshotRecord::Said { .. }
            | SnapshotRecord::Facts { .. }
            | SnapshotRecord::AclToken(_)
            | SnapshotRecord::Answered { .. } => return None,
        })
    }

    /// The same for policies and roles.
    fn over_acl<'b>(&self, record: SnapshotRecord<'b>) -> SnapshotRecord<'b> {
        use std::borrow::Cow::Owned;
        match record {
            SnapshotRecord::AclPolicy(row) => {
                let indexes = self.indexes(row.indexes);
                SnapshotRecord::AclPolicy(Owned(AclPolicy { indexes, ..row.into_owned() }))
            }
            SnapshotRecord::AclRole(row) => {
                let indexes = self.indexes(row.indexes);
                SnapshotRecord::AclRole(Owned(AclRole { indexes, ..row.into_owned() }))
            }
            other => other,
        }
    }

    fn header(&self) -> StateHeader {
        let Reservation { index, time } = self.reservation;
        StateHeader { time, index, last_number: 0, topics: topics(index) }
    }

    fn number(&self, old: u64) -> io::Result<u64> {
        self.given.get(&old).copied().ok_or_else(|| invalid("a number that nothing has"))
    }

    fn indexes(&self, old: Indexes) -> Indexes {
        let index = self.reservation.index;
        Indexes { create: old.create.min(index), modify: index }
    }

    /// The time that is as far from now as this one was from the time of the backup. In a cluster
    /// that is younger than that, the time it began.
    fn time(&self, time: ClusterTime) -> ClusterTime {
        let now = self.reservation.time;
        if time >= self.then { now + time.since(self.then) } else { now - self.then.since(time) }
    }
}

/// Pieces that are read one after the other.
#[derive(Debug, Clone, Default)]
struct Pieces {
    queue: Vector<Bytes>,
    length: usize,
}

impl Pieces {
    fn push(&mut self, piece: Bytes) {
        self.length += piece.len();
        self.queue.push_back(piece);
    }

    fn len(&self) -> usize {
        self.length
    }

    /// The first bytes, without reading them.
    fn peek<const N: usize>(&self) -> Option<[u8; N]> {
        let mut bytes = self.queue.iter().flatten().copied();
        let mut first = [0; N];
        for place in &mut first {
            *place = bytes.next()?;
        }
        Some(first)
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(piece) = self.queue.front_mut() {
            if piece.is_empty() {
                self.queue.pop_front();
                continue;
            }
            let length = piece.len().min(buffer.len());
            piece.copy_to_slice(&mut buffer[..length]);
            self.length -= length;
            return Ok(length);
        }
        Ok(0)
    }
}
