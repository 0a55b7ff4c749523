//! The state as a stream of records: what a snapshot file holds, and what the hash runs over.
//!
//! One record per row, so that a million keys stream through a small buffer. The encoding (postcard:
//! variants by position) is part of the format of snapshot files: **append variants and members at
//! the end, never reorder or remove them**. The golden-bytes test fails when an encoding changes.
//!
//! Rows come in the order of their tables, a row always after those that it refers to (nodes,
//! then services, then checks), and the header first. Only stored rows are exported; importing them
//! rebuilds what is derived, and refuses records that contradict each other rather than build a
//! state that would differ from its source.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::State;
use super::acl::AclHeader;
use super::boots::ServerBoot;
use super::catalog::{Slot, fold_arc};
use super::claims::ClaimsHeader;
use super::deadline::Owner;
use super::history::HistoryHeader;
use super::kv::{Grave, Tombstone};
use super::level::unknown_level;
use super::origin::OriginRecord;
use super::restore::{Reservation, Staged, StagedPiece};
use super::topic::{TableIndexes, TopicIndexes};
use crate::command::Outcome;
use crate::ids::NodeId;
use crate::record::{
    AclPolicy, AclRole, AclToken, Autopilot, Check, CheckStatus, Claim, ClosedSlot, Coordinate,
    Event, Facts, HistoryRecord, KvEntry, Node, PoolCounts, PoolMember, Presence, Query, Said,
    Service, Session, Tags, Views, Worker, WorkerId,
};
use crate::{ClusterTime, Index};

/// What is not a row of a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateHeader {
    /// Cluster time.
    pub time: ClusterTime,
    /// The newest index.
    pub index: Index,
    /// The last number given out.
    pub last_number: u64,
    /// Indexes of whole tables.
    pub topics: TopicIndexes,
}

/// One stored row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotRecord<'a> {
    /// The first record, and only that.
    Header(StateHeader),
    /// A node.
    Node {
        /// The row.
        row: Cow<'a, Node>,
        /// Orders its expiry.
        number: u64,
        /// Index of its topic.
        index: Index,
        /// Since when an agent's node has had nothing on it.
        idle_since: Option<ClusterTime>,
    },
    /// A service instance.
    Service(Cow<'a, Service>),
    /// The index of a service name that has instances.
    ServiceIndex {
        /// The name in lower case.
        name: Cow<'a, str>,
        /// Index of its topic.
        index: Index,
    },
    /// A check.
    Check {
        /// The row.
        row: Cow<'a, Check>,
        /// When a TTL check was last heard of.
        last_seen: Option<ClusterTime>,
    },
    /// A session.
    Session {
        /// The row.
        row: Cow<'a, Session>,
        /// When one with a TTL was last heard of.
        last_seen: Option<ClusterTime>,
    },
    /// A key.
    Key(Cow<'a, KvEntry>),
    /// What a deleted key left behind.
    Tombstone {
        /// The key.
        key: Cow<'a, str>,
        /// What is kept of it.
        grave: Tombstone,
    },
    /// A key that no session can acquire yet.
    LockDelay {
        /// The key.
        key: Cow<'a, str>,
        /// Until when.
        until: ClusterTime,
    },
    /// A server's commands.
    Origin {
        /// The server.
        id: NodeId,
        /// Its newest boot.
        incarnation: u64,
        /// What it has answered.
        floor: u64,
    },
    /// An outcome that its server has not yet answered.
    Outcome {
        /// The server.
        id: NodeId,
        /// The command's number in the server's newest boot.
        seq: u64,
        /// What became of it.
        outcome: Cow<'a, Outcome>,
    },
    /// Indexes of the tables that came later.
    Tables(TableIndexes),
    /// An event.
    Event(Cow<'a, Event>),
    /// Where a node is.
    Coordinate {
        /// The node's name in lower case.
        node: Cow<'a, str>,
        /// Where it is.
        coordinate: Cow<'a, Coordinate>,
    },
    /// A prepared query.
    Query(Cow<'a, Query>),
    /// The configuration of autopilot, if there is one.
    Autopilot(Cow<'a, Autopilot>),
    /// A check that the cluster runs.
    Probe {
        /// The check's number.
        check: u64,
        /// The number of its definition.
        probe: u64,
    },
    /// A backup that is being handed over.
    Staged {
        /// Which restore.
        id: Cow<'a, str>,
        /// When its last piece came.
        touched: ClusterTime,
    },
    /// A piece of it, in order.
    StagedPiece(Bytes),
    /// Numbers above its floor that a server has answered.
    Answered {
        /// The server.
        id: NodeId,
        /// The first number of the run.
        first: u64,
        /// The last number of the run.
        last: u64,
    },
    /// A prefix below which everything was deleted.
    Cut {
        /// The prefix.
        prefix: Cow<'a, str>,
        /// What is kept of it.
        grave: Tombstone,
    },
    /// What is reserved for the backup that is being handed over; before its first piece.
    StagedReservation {
        /// The index of its rows.
        index: Index,
        /// The cluster's time then.
        time: ClusterTime,
    },
    /// Before each of its pieces: the last number that the cluster had given when it came.
    StagedNumber(u64),
    /// The index of the last restore.
    Restored(Index),
    /// A check without the name and tags of its service, which the service's own record has: an
    /// instance with many tags and many checks is written once, not once per check.
    CheckOfService {
        /// The row, with an empty service name and no tags.
        row: Cow<'a, Check>,
        /// When a TTL check was last heard of.
        last_seen: Option<ClusterTime>,
    },
    /// The newest boot of a server.
    Boot {
        /// The server.
        id: NodeId,
        /// The row.
        row: Cow<'a, ServerBoot>,
    },
    /// The level of the rules in force; none: 0. Before everything that needs them.
    Level(u32),
    /// The numbers of the history. Before its records.
    History(HistoryHeader),
    /// A record of the history, oldest first.
    HistoryRecord(Cow<'a, HistoryRecord>),
    /// How an instance is held by a connection.
    Presence {
        /// The number of its check.
        check: u64,
        /// The row.
        row: Cow<'a, Presence>,
    },
    /// What the client of a check last said before it fell silent. After the checks.
    Said {
        /// The check's number.
        check: u64,
        /// What it said.
        said: Cow<'a, Said>,
    },
    /// What is known of the process that renews a check. After the checks.
    Facts {
        /// The check's number.
        check: u64,
        /// What is known; `None`: it only counts.
        facts: Option<Cow<'a, Facts>>,
        /// How far it has counted.
        counter: Option<u64>,
    },
    /// The numbers of the claims. Before all that follow.
    Claims(ClaimsHeader),
    /// What a pool counts. Before its instances.
    Pool {
        /// Its service.
        name: Cow<'a, str>,
        /// The counts.
        counts: PoolCounts,
    },
    /// What an instance of a pool has beside its row in the catalogue.
    PoolMember {
        /// Its node in lower case.
        node: Cow<'a, str>,
        /// Its id.
        id: Cow<'a, str>,
        /// What it has.
        row: PoolMember,
    },
    /// A slot that is closed for a while. After the instances.
    ClosedSlot {
        /// Orders its opening.
        number: u64,
        /// The row.
        row: Cow<'a, ClosedSlot>,
    },
    /// A claim. After the instances.
    Claim(Cow<'a, Claim>),
    /// A worker. After the presences.
    Worker {
        /// Who it is.
        id: WorkerId,
        /// The row.
        row: Cow<'a, Worker>,
    },
    /// What the observers of a check last found. After the probes.
    Views {
        /// The check's number.
        check: u64,
        /// What they found.
        views: Cow<'a, Views>,
    },
    /// A network in which no worker is alive.
    EmptyNetwork {
        /// Its name.
        name: Cow<'a, str>,
        /// Since when.
        since: ClusterTime,
    },
    /// Indexes of the tables of tokens, policies and roles. Before all that follow.
    Acl(AclHeader),
    /// A policy.
    AclPolicy(Cow<'a, AclPolicy>),
    /// A role. After the policies.
    AclRole(Cow<'a, AclRole>),
    /// A token. After the roles.
    AclToken(Cow<'a, AclToken>),
}

/// Where [`State::export`] puts records.
type Sink<'a> = dyn FnMut(SnapshotRecord<'_>) -> io::Result<()> + 'a;

impl State {
    /// Hands every stored row to `sink`, in the one order that all replicas share.
    ///
    /// # Errors
    /// The first error of `sink`.
    pub fn export(&self, sink: &mut Sink<'_>) -> io::Result<()> {
        sink(SnapshotRecord::Header(StateHeader {
            time: self.time,
            index: self.index,
            last_number: self.last_number,
            topics: self.topics,
        }))?;
        if self.level > 0 {
            // Servers that know no levels have the same hash until there is one.
            sink(SnapshotRecord::Level(self.level))?;
        }
        self.export_catalog(sink)?;
        for row in self.sessions.values() {
            sink(SnapshotRecord::Session {
                row: Cow::Borrowed(row),
                last_seen: self.last_seen(row.number),
            })?;
        }
        self.export_kv(sink)?;
        self.export_origins(sink)?;
        self.export_later_tables(sink)?;
        self.export_claims(sink)?;
        self.export_workers(sink)?;
        self.export_acl(sink)?;
        self.export_history(sink)
    }

    fn export_workers(&self, sink: &mut Sink<'_>) -> io::Result<()> {
        for (id, row) in self.workers() {
            sink(SnapshotRecord::Worker { id: id.clone(), row: Cow::Borrowed(row) })?;
        }
        for (check, views) in &self.workers.views {
            sink(SnapshotRecord::Views { check: *check, views: Cow::Borrowed(views) })?;
        }
        for (name, since) in &self.workers.empty {
            sink(SnapshotRecord::EmptyNetwork { name: Cow::Borrowed(name), since: *since })?;
        }
        Ok(())
    }

    fn export_claims(&self, sink: &mut Sink<'_>) -> io::Result<()> {
        if self.claims.header == ClaimsHeader::default() {
            // Servers whose version knows no claims have the same hash until there is a pool.
            return Ok(());
        }
        sink(SnapshotRecord::Claims(self.claims.header))?;
        for (name, counts) in self.pool_counts() {
            sink(SnapshotRecord::Pool { name: Cow::Borrowed(name), counts })?;
        }
        for ((node, id), row) in self.pool_members() {
            let (node, id) = (Cow::Borrowed(&**node), Cow::Borrowed(&**id));
            sink(SnapshotRecord::PoolMember { node, id, row })?;
        }
        for (number, row) in self.closed_slots() {
            sink(SnapshotRecord::ClosedSlot { number, row: Cow::Borrowed(row) })?;
        }
        self.claim_rows().try_for_each(|row| sink(SnapshotRecord::Claim(Cow::Borrowed(row))))
    }

    fn export_acl(&self, sink: &mut Sink<'_>) -> io::Result<()> {
        if self.acl.is_empty() {
            // Servers whose version knows nothing of it have the same hash until there is any.
            return Ok(());
        }
        sink(SnapshotRecord::Acl(self.acl.header))?;
        let mut policies = self.acl.policies();
        policies.try_for_each(|row| sink(SnapshotRecord::AclPolicy(Cow::Borrowed(row))))?;
        self.acl.roles().try_for_each(|row| sink(SnapshotRecord::AclRole(Cow::Borrowed(row))))?;
        self.acl.tokens().try_for_each(|row| sink(SnapshotRecord::AclToken(Cow::Borrowed(row))))
    }

    fn export_history(&self, sink: &mut Sink<'_>) -> io::Result<()> {
        if self.history.is_empty() {
            // Servers whose version knows no history have the same hash until there is one.
            return Ok(());
        }
        sink(SnapshotRecord::History(self.history.header()))?;
        let mut records = self.history.records();
        records.try_for_each(|record| sink(SnapshotRecord::HistoryRecord(Cow::Borrowed(record))))
    }

    fn export_later_tables(&self, sink: &mut Sink<'_>) -> io::Result<()> {
        sink(SnapshotRecord::Tables(self.tables))?;
        for row in &self.events {
            sink(SnapshotRecord::Event(Cow::Borrowed(row)))?;
        }
        for (node, coordinate) in &self.coordinates {
            sink(SnapshotRecord::Coordinate {
                node: Cow::Borrowed(node),
                coordinate: Cow::Borrowed(coordinate),
            })?;
        }
        for row in self.queries.values() {
            sink(SnapshotRecord::Query(Cow::Borrowed(row)))?;
        }
        if let Some(row) = &self.autopilot {
            sink(SnapshotRecord::Autopilot(Cow::Borrowed(row)))?;
        }
        if let Some(index) = self.restored {
            sink(SnapshotRecord::Restored(index))?;
        }
        let Some(staged) = &self.staged else { return Ok(()) };
        let (id, touched) = (Cow::Borrowed(&*staged.id), staged.touched);
        sink(SnapshotRecord::Staged { id, touched })?;
        if let Some(Reservation { index, time }) = staged.reservation() {
            sink(SnapshotRecord::StagedReservation { index, time })?;
        }
        for StagedPiece { bytes, last_number } in &staged.pieces {
            sink(SnapshotRecord::StagedNumber(*last_number))?;
            sink(SnapshotRecord::StagedPiece(bytes.clone()))?;
        }
        Ok(())
    }

    fn export_catalog(&self, sink: &mut Sink<'_>) -> io::Result<()> {
        for slot in self.catalog.nodes.values() {
            sink(SnapshotRecord::Node {
                row: Cow::Borrowed(&slot.node),
                number: slot.number,
                index: slot.index,
                idle_since: slot.idle_since,
            })?;
        }
        for row in self.services() {
            sink(SnapshotRecord::Service(Cow::Borrowed(row)))?;
        }
        for (name, named) in &self.catalog.names {
            sink(SnapshotRecord::ServiceIndex { name: Cow::Borrowed(name), index: named.index })?;
        }
        for row in self.checks() {
            sink(check_record(row, self.last_seen(row.number)))?;
        }
        for (check, probe) in self.probes.iter() {
            sink(SnapshotRecord::Probe { check, probe })?;
        }
        for (check, row) in self.presences.iter() {
            sink(SnapshotRecord::Presence { check, row: Cow::Borrowed(row) })?;
        }
        for row in self.checks() {
            if let Some(said) = &row.said {
                sink(SnapshotRecord::Said { check: row.number, said: Cow::Borrowed(said) })?;
            }
            let (check, facts) = (row.number, self.facts(row.number).map(Cow::Borrowed));
            let counter = self.counter(check);
            if facts.is_some() || counter.is_some() {
                sink(SnapshotRecord::Facts { check, facts, counter })?;
            }
        }
        Ok(())
    }

    fn export_kv(&self, sink: &mut Sink<'_>) -> io::Result<()> {
        for row in self.kv.entries.iter() {
            sink(SnapshotRecord::Key(Cow::Borrowed(row)))?;
        }
        for Grave { key, tombstone } in self.kv.tombstones.iter() {
            sink(SnapshotRecord::Tombstone { key: Cow::Borrowed(key), grave: *tombstone })?;
        }
        for Grave { key, tombstone } in self.kv.cut.iter() {
            sink(SnapshotRecord::Cut { prefix: Cow::Borrowed(key), grave: *tombstone })?;
        }
        for (key, until) in &self.kv.lock_delays {
            sink(SnapshotRecord::LockDelay { key: Cow::Borrowed(key), until: *until })?;
        }
        Ok(())
    }

    fn export_origins(&self, sink: &mut Sink<'_>) -> io::Result<()> {
        for (id, record) in &self.origins.records {
            let OriginRecord { incarnation, floor, outcomes, answered } = record;
            sink(SnapshotRecord::Origin { id: *id, incarnation: *incarnation, floor: *floor })?;
            for (seq, outcome) in outcomes {
                sink(SnapshotRecord::Outcome {
                    id: *id,
                    seq: *seq,
                    outcome: Cow::Borrowed(outcome),
                })?;
            }
            for (first, last) in answered {
                sink(SnapshotRecord::Answered { id: *id, first: *first, last: *last })?;
            }
        }
        for (id, row) in self.boots() {
            sink(SnapshotRecord::Boot { id, row: Cow::Borrowed(row) })?;
        }
        Ok(())
    }

    /// Rebuilds a state from the records of [`State::export`].
    ///
    /// # Errors
    /// The first error of `records`; `InvalidData` if they contradict each other.
    pub fn import<'a>(
        records: impl IntoIterator<Item = io::Result<SnapshotRecord<'a>>>,
    ) -> io::Result<Self> {
        let mut import = Import::default();
        for record in records {
            import.add(record?)?;
        }
        import.finish()
    }

    /// A hash of everything replicated: equal at equal applied index on every node. It reads every
    /// row.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut encoded = Vec::new();
        let hashed = self.export(&mut |record| {
            encoded.clear();
            postcard::to_io(&record, &mut encoded).map_err(io::Error::other)?;
            hasher.update(&encoded);
            Ok(())
        });
        hashed.expect("records are written to memory, which cannot fail");
        hasher.finalize().into()
    }
}

/// Keeps one text instead of two equal ones.
fn share(text: &mut Arc<str>, other: &Arc<str>) {
    if *text == *other {
        text.clone_from(other);
    }
}

/// A check, without what its service's record has.
fn check_record(row: &Check, last_seen: Option<ClusterTime>) -> SnapshotRecord<'_> {
    if row.registration.service_id.is_empty() {
        return SnapshotRecord::Check { row: Cow::Borrowed(row), last_seen };
    }
    let row = Check { service_name: "".into(), service_tags: Tags::default(), ..row.clone() };
    SnapshotRecord::CheckOfService { row: Cow::Owned(row), last_seen }
}

/// A state that is being rebuilt, record by record.
#[derive(Debug, Clone, Default)]
pub struct Import {
    state: State,
    has_header: bool,
    has_tables: bool,
    /// For the next staged piece.
    staged_number: Option<u64>,
}

impl Import {
    /// Adds the next record, in the order of [`State::export`].
    ///
    /// # Errors
    /// `InvalidData` if the record contradicts an earlier one.
    pub fn add(&mut self, record: SnapshotRecord<'_>) -> io::Result<()> {
        let is_header = matches!(record, SnapshotRecord::Header(_));
        if is_header == self.has_header {
            return Err(invalid("a snapshot begins with its only header"));
        }
        self.has_header = true;
        match record {
            SnapshotRecord::Header(header) => self.add_header(&header),
            SnapshotRecord::Node { row, number, index, idle_since } => {
                return self.add_node(row.into_owned(), number, index, idle_since);
            }
            SnapshotRecord::Service(row) => return self.add_service(row.into_owned()),
            SnapshotRecord::ServiceIndex { name, index } => {
                let named = self.state.catalog.names.get_mut(&*name);
                named.ok_or_else(|| invalid("an index of a service without instances"))?.index =
                    index;
            }
            // Snapshots of older releases repeat the service's name and tags in each check.
            SnapshotRecord::Check { row, last_seen }
            | SnapshotRecord::CheckOfService { row, last_seen } => {
                return self.add_check(row.into_owned(), last_seen);
            }
            SnapshotRecord::Session { row, last_seen } => return self.add_session(row, last_seen),
            SnapshotRecord::Key(row) => return self.add_key(row.into_owned()),
            SnapshotRecord::Tombstone { key, grave } => {
                return self.add_tombstone(key.into(), grave);
            }
            SnapshotRecord::Cut { prefix, grave } => return self.add_cut(prefix.into(), grave),
            SnapshotRecord::LockDelay { key, until } => {
                self.state.kv.delay_lock(&key.into(), until);
            }
            SnapshotRecord::Origin { id, incarnation, floor } => {
                let record = OriginRecord { incarnation, floor, ..OriginRecord::default() };
                self.state.origins.records.insert(id, record);
            }
            SnapshotRecord::Outcome { id, seq, outcome } => {
                self.origin(id)?.outcomes.insert(seq, outcome.into_owned());
            }
            SnapshotRecord::Answered { id, first, last } => {
                self.origin(id)?.answered.insert(first, last);
            }
            SnapshotRecord::Tables(tables) => {
                let twice = std::mem::replace(&mut self.has_tables, true);
                self.state.tables = tables;
                return unique(twice.then_some(()), "indexes of the later tables twice");
            }
            SnapshotRecord::Event(row) => return self.add_event(row.into_owned()),
            SnapshotRecord::Coordinate { node, coordinate } => {
                return self.add_coordinate(node.into(), coordinate.into_owned());
            }
            SnapshotRecord::Query(row) => return self.add_query(row.into_owned()),
            SnapshotRecord::Autopilot(row) => {
                let replaced = self.state.autopilot.replace(Arc::new(row.into_owned()));
                return unique(replaced, "two configurations of autopilot");
            }
            SnapshotRecord::Probe { check, probe } => return self.add_probe(check, probe),
            SnapshotRecord::Presence { check, row } => return self.add_presence(check, row),
            SnapshotRecord::Restored(index) => {
                return unique(self.state.restored.replace(index), "two last restores");
            }
            staged @ (SnapshotRecord::Staged { .. }
            | SnapshotRecord::StagedReservation { .. }
            | SnapshotRecord::StagedNumber(_)
            | SnapshotRecord::StagedPiece(_)) => return self.add_staged(staged),
            SnapshotRecord::Boot { id, row } => return self.add_boot(id, row.into_owned()),
            SnapshotRecord::Level(level) => return self.set_level(level),
            levelled => return self.add_levelled(levelled),
        }
        Ok(())
    }

    /// The rebuilt state.
    ///
    /// # Errors
    /// `InvalidData` if there was no header.
    pub fn finish(self) -> io::Result<State> {
        if !self.has_header {
            return Err(invalid("a snapshot without a header"));
        }
        Ok(self.state)
    }

    /// Numbers up to this one were given.
    pub(super) fn set_last_number(&mut self, number: u64) {
        self.state.last_number = number;
    }

    /// What there is so far.
    pub(super) fn into_state(self) -> State {
        self.state
    }

    fn set_level(&mut self, level: u32) -> io::Result<()> {
        if let Some(why) = unknown_level(level) {
            return Err(invalid(&why));
        }
        let earlier = std::mem::replace(&mut self.state.level, level);
        unique((earlier > 0).then_some(()), "two levels")
    }

    fn add_history(&mut self, record: SnapshotRecord<'_>) -> io::Result<()> {
        let history = &mut self.state.history;
        match record {
            SnapshotRecord::History(header) if history.is_empty() => history.set_header(header),
            SnapshotRecord::HistoryRecord(row) if history.take_in(row.as_ref().clone()) => {}
            _ => return Err(invalid("two histories, or a record of one out of order")),
        }
        Ok(())
    }

    fn add_staged(&mut self, record: SnapshotRecord<'_>) -> io::Result<()> {
        let mut running = self.state.running();
        let staged = self.state.staged.as_mut();
        match (record, staged) {
            (SnapshotRecord::Staged { id, touched }, None) => {
                self.state.staged = Some(Staged::new(id.into(), touched));
            }
            (SnapshotRecord::StagedReservation { index, time }, Some(staged)) => {
                staged.set_reservation(Reservation { index, time });
            }
            (SnapshotRecord::StagedNumber(number), Some(_)) => self.staged_number = Some(number),
            (SnapshotRecord::StagedPiece(bytes), Some(staged)) => {
                // A snapshot from before there was one: nobody has seen a row of that backup.
                let last_number = self.staged_number.take().unwrap_or(running.last_number);
                running.last_number = last_number;
                staged.take_in(StagedPiece { bytes, last_number }, &mut running);
                self.state.last_number = self.state.last_number.max(running.last_number);
            }
            _ => return Err(invalid("two restores at a time, or a part of none")),
        }
        Ok(())
    }

    fn add_header(&mut self, header: &StateHeader) {
        self.state.time = header.time;
        self.state.index = header.index;
        self.state.last_number = header.last_number;
        self.state.topics = header.topics;
    }

    fn add_node(
        &mut self,
        row: Node,
        number: u64,
        index: Index,
        idle_since: Option<ClusterTime>,
    ) -> io::Result<()> {
        let key = fold_arc(&row.name);
        self.own(number, Owner::Node(key.clone()))?;
        self.state.take_node_id(&key, &row.id);
        let slot = Slot { idle_since, ..Slot::new(row, number, index) };
        if self.state.catalog.nodes.insert(key, Arc::new(slot)).is_some() {
            return Err(invalid("two nodes of one name"));
        }
        self.state.schedule(number);
        Ok(())
    }

    fn add_service(&mut self, mut row: Service) -> io::Result<()> {
        let key = fold_arc(&row.node);
        let slot = self.state.catalog.nodes.get(&key);
        let slot = slot.filter(|slot| !slot.services.contains_key(&row.definition.id));
        let slot = slot.ok_or_else(|| invalid("a service without a node, or twice on one"))?;
        // Rows share what they have in common, as they did when they were written. (A node's name may have
        // changed its letter case since.)
        share(&mut row.node, &slot.node.name);
        let index = row.indexes.modify;
        self.state.catalog.put_service_row(&key, Arc::new(row), index);
        Ok(())
    }

    fn add_check(&mut self, mut row: Check, last_seen: Option<ClusterTime>) -> io::Result<()> {
        let key = fold_arc(&row.node);
        let slot =
            self.state.catalog.nodes.get(&key).ok_or_else(|| invalid("a check without a node"))?;
        share(&mut row.node, &slot.node.name);
        if !row.registration.service_id.is_empty() {
            let service = slot.services.get(&row.registration.service_id);
            let service =
                service.ok_or_else(|| invalid("a check of a service that is not on its node"))?;
            row.registration.service_id = service.definition.id.clone();
            row.service_name = service.definition.name.clone();
            row.service_tags = service.definition.tags.clone();
        }
        if slot.checks.contains_key(&row.registration.id) {
            return Err(invalid("two checks of one id on a node"));
        }
        let (number, id) = (row.number, row.registration.id.clone());
        self.own(number, Owner::Check { node: key.clone(), id })?;
        self.state.catalog.put_check_row(&key, Arc::new(row));
        self.see(number, last_seen);
        Ok(())
    }

    fn add_probe(&mut self, check: u64, probe: u64) -> io::Result<()> {
        let row = self.state.check_numbered(check);
        if row.is_none_or(|row| !row.registration.definition.is_run()) {
            return Err(invalid("a probe without a check that is run"));
        }
        if probe > self.state.last_number {
            return Err(invalid("a probe with a number that was never given"));
        }
        self.state.probes.set(check, probe);
        Ok(())
    }

    fn add_presence(&mut self, check: u64, row: Cow<'_, Presence>) -> io::Result<()> {
        let is_taken = row.lease.is_some_and(|lease| self.state.presences.holds(lease).is_some());
        if is_taken || !self.state.is_presence_check(check) {
            return Err(invalid("a presence without a check, or two of one lease"));
        }
        self.state.presences.put(check, row.into_owned());
        self.state.schedule(check);
        Ok(())
    }

    /// Records that came with the levels.
    fn add_levelled(&mut self, record: SnapshotRecord<'_>) -> io::Result<()> {
        match record {
            SnapshotRecord::Said { check, said } => self.add_said(check, said.into_owned()),
            SnapshotRecord::Facts { check, facts, counter } => {
                self.add_facts(check, facts.map(Cow::into_owned), counter)
            }
            SnapshotRecord::Claims(header) => {
                let earlier = std::mem::replace(&mut self.state.claims.header, header);
                let is_first = earlier == ClaimsHeader::default();
                unique((!is_first).then_some(()), "numbers of the claims twice")
            }
            SnapshotRecord::Pool { name, counts } => {
                let is_new = self.state.claims.add_pool(name.into(), counts);
                unique((!is_new).then_some(()), "two pools of one service")
            }
            SnapshotRecord::PoolMember { node, id, row } => {
                let place = (node.into(), id.into());
                self.state.add_member(&place, row).map_err(invalid)
            }
            SnapshotRecord::ClosedSlot { number, row } => {
                self.own(number, Owner::ClosedSlot)?;
                self.state.claims.close(number, row.into_owned());
                self.state.schedule(number);
                Ok(())
            }
            SnapshotRecord::Claim(row) => self.add_claim(row.into_owned()),
            SnapshotRecord::Worker { id, row } => self.add_worker(id, row.into_owned()),
            SnapshotRecord::Views { check, views } => {
                if self.state.probes.get(check) != Some(views.probe) {
                    return Err(invalid("views of a check that is not run"));
                }
                let views = Arc::new(views.into_owned());
                unique(self.state.workers.views.insert(check, views), "views of one check twice")
            }
            SnapshotRecord::EmptyNetwork { name, since } => {
                let replaced = self.state.workers.empty.insert(name.into(), since);
                unique(replaced, "two networks of one name")
            }
            SnapshotRecord::Acl(header) => {
                let earlier = std::mem::replace(&mut self.state.acl.header, header);
                let is_first = earlier == AclHeader::default();
                unique((!is_first).then_some(()), "indexes of access control twice")
            }
            SnapshotRecord::AclPolicy(row) => {
                let is_new = self.state.acl.add_policy(row.into_owned());
                unique((!is_new).then_some(()), "two policies of one id or name")
            }
            SnapshotRecord::AclRole(row) => {
                let is_new = self.state.acl.add_role(row.into_owned());
                unique(
                    (!is_new).then_some(()),
                    "two roles of one id or name, or one without its policy",
                )
            }
            SnapshotRecord::AclToken(row) => self.add_token(row.into_owned()),
            history => self.add_history(history),
        }
    }

    fn add_worker(&mut self, id: WorkerId, row: Worker) -> io::Result<()> {
        let number = row.number;
        self.own(number, Owner::Worker(id.clone()))?;
        unique(self.state.workers.put(id, row), "two workers of one name")?;
        self.state.schedule(number);
        Ok(())
    }

    fn add_token(&mut self, row: AclToken) -> io::Result<()> {
        let number = row.number;
        self.own(number, Owner::Token(row.accessor.clone()))?;
        let is_new = self.state.acl.add_token(row);
        unique(
            (!is_new).then_some(()),
            "two tokens of one accessor or secret, or a link to nothing",
        )?;
        self.state.schedule(number);
        Ok(())
    }

    fn add_claim(&mut self, row: Claim) -> io::Result<()> {
        let (number, is_over) = (row.number, row.ended().is_some());
        self.state.check_claim(&row).map_err(invalid)?;
        if is_over {
            let is_given = number <= self.state.last_number;
            unique((!is_given).then_some(()), "a claim with a number that was never given")?;
        } else {
            self.own(number, Owner::Claim)?;
        }
        self.state.claims.add_claim(row);
        self.state.schedule(number);
        Ok(())
    }

    fn add_said(&mut self, check: u64, said: Said) -> io::Result<()> {
        let row = self.state.check_numbered(check);
        let is_silent = |row: &&Arc<Check>| {
            let what = &row.registration;
            !what.definition.ttl.is_zero() && what.status != CheckStatus::Passing
        };
        let row = row.filter(is_silent).filter(|row| row.said.is_none());
        let row = row.ok_or_else(|| invalid("words of no client that is silent"))?;
        let row = Check { said: Some(Arc::new(said)), ..Check::clone(row) };
        self.state.catalog.put_check_row(&fold_arc(&row.node), Arc::new(row));
        self.state.schedule(check);
        Ok(())
    }

    fn add_facts(
        &mut self,
        check: u64,
        facts: Option<Facts>,
        counter: Option<u64>,
    ) -> io::Result<()> {
        let row = self.state.check_numbered(check);
        let heard = self.state.heard.get(check).filter(|_| row.is_some());
        let is_held = self.state.presence(check).is_some() && counter.is_none();
        match heard {
            Some(heard) => self.state.heard.insert_counting(check, heard, counter),
            None if is_held => {}
            None => return Err(invalid("facts of a check that nobody renews")),
        }
        let replaced = facts.and_then(|facts| self.state.facts.insert(check, Arc::new(facts)));
        unique(replaced, "facts of one check twice")
    }

    /// The record of a server, which came before its parts.
    fn origin(&mut self, id: NodeId) -> io::Result<&mut OriginRecord> {
        let record = self.state.origins.records.get_mut(&id);
        record.ok_or_else(|| invalid("a command of an unknown server"))
    }

    fn add_session(
        &mut self,
        row: Cow<'_, Session>,
        last_seen: Option<ClusterTime>,
    ) -> io::Result<()> {
        let row = row.into_owned();
        let (number, id) = (row.number, row.id.clone());
        let slot = self.state.catalog.slot_mut(&fold_arc(&row.node));
        slot.ok_or_else(|| invalid("a session without a node"))?.bind(&row);
        self.own(number, Owner::Session(id.clone()))?;
        unique(self.state.sessions.insert(id, Arc::new(row)), "two sessions of one id")?;
        self.see(number, last_seen);
        Ok(())
    }

    fn add_key(&mut self, row: KvEntry) -> io::Result<()> {
        let holder = row.session.as_ref();
        if holder.is_some_and(|holder| !self.state.sessions.contains_key(holder)) {
            return Err(invalid("a key held by a session that does not exist"));
        }
        if self.state.kv.entries.contains_key(&row.key) {
            return Err(invalid("two keys of one name"));
        }
        self.state.kv.put_row(row);
        Ok(())
    }

    fn add_tombstone(&mut self, key: Arc<str>, grave: Tombstone) -> io::Result<()> {
        if self.state.kv.entries.contains_key(&key) {
            return Err(invalid("a tombstone of a key that exists"));
        }
        self.state.kv.put_tombstone(key, grave);
        Ok(())
    }

    fn add_cut(&mut self, prefix: Arc<str>, grave: Tombstone) -> io::Result<()> {
        if self.state.kv.cut.contains_key(&prefix) {
            return Err(invalid("two ends of all below one prefix"));
        }
        self.state.kv.put_cut(prefix, grave);
        Ok(())
    }

    fn add_boot(&mut self, id: NodeId, row: ServerBoot) -> io::Result<()> {
        if !self.state.origins.records.contains_key(&id) {
            return Err(invalid("a boot of a server without commands"));
        }
        unique(self.state.boots.0.insert(id, Arc::new(row)), "two boots of one server")
    }

    fn add_event(&mut self, row: Event) -> io::Result<()> {
        if self.state.events.last().is_some_and(|newest| newest.time >= row.time) {
            return Err(invalid("events out of order"));
        }
        self.state.events.push_back(Arc::new(row));
        Ok(())
    }

    fn add_coordinate(&mut self, node: Arc<str>, coordinate: Coordinate) -> io::Result<()> {
        if !self.state.catalog.nodes.contains_key(&node) {
            return Err(invalid("a coordinate without a node"));
        }
        let replaced = self.state.coordinates.insert(node, coordinate);
        unique(replaced, "two coordinates of one node")
    }

    fn add_query(&mut self, row: Query) -> io::Result<()> {
        let session = &row.definition.session;
        if !session.is_empty() && !self.state.sessions.contains_key(session) {
            return Err(invalid("a query of a session that does not exist"));
        }
        let id = row.definition.id.clone();
        unique(self.state.queries.insert(id, Arc::new(row)), "two queries of one id")
    }

    fn own(&mut self, number: u64, owner: Owner) -> io::Result<()> {
        if number > self.state.last_number || self.state.deadlines.owner(number).is_some() {
            return Err(invalid("a number that was given twice, or never"));
        }
        self.state.deadlines.own(number, owner);
        Ok(())
    }

    fn see(&mut self, number: u64, last_seen: Option<ClusterTime>) {
        if let Some(time) = last_seen {
            self.state.heard.insert(number, time);
        }
        self.state.schedule(number);
    }
}

/// Refuses a row that replaced another.
fn unique<T>(replaced: Option<T>, what: &str) -> io::Result<()> {
    replaced.map_or(Ok(()), |_| Err(invalid(what)))
}

/// A record that contradicts the others.
fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("snapshot: {what}"))
}
