//! The history: every visible change, and why it happened.
//!
//! A bounded list that every server keeps alike. Each change leaves its records here in the moment in which
//! it changes the tables ([`Change::record`]), so neither can be without the other: a record of what was
//! refused is taken back with it.
//!
//! **Rings.** One sequence of numbers, kept in three rings, so that busy keys do not drive out what happened to
//! the services. Each has a bound of its own, and all of them together have one in bytes; what is oldest goes.
//! A ring remembers how far it has lost its records, so that a reader learns that it missed some.
//!
//! **Threads.** Each record names the one before it about the same thing, and the newest of each thing is found
//! by its [`Thread`]. To explain an instance, one follows its thread and searches nothing.
//!
//! **When it begins.** With the level [`HISTORY_LEVEL`]: a server of an older version would not keep it.

use std::sync::Arc;

use imbl::{OrdMap, Vector};
use serde::{Deserialize, Serialize};

use super::State;
use super::catalog::fold_arc;
use super::change::Change;
use super::level::{HEARTBEAT_LEVEL, HISTORY_LEVEL};
use crate::command::{Asked, Command, Stamp, WorkersCommand};
use crate::ids::NodeId;
use crate::record::{
    Cause, Check, CheckStatus, Claim, ClaimFacts, ClaimPhase, Detail, HISTORY_OUTPUT_BYTES_MAX,
    HistoryKind, HistoryRecord, KvEntry, RequestFacts, Ring, SERF_HEALTH, Service, Session,
    Subject, WallTime,
};
use crate::{ClusterTime, Index};

/// Records that the ring of services, checks, nodes, servers and sessions keeps.
pub const CATALOGUE_RECORDS_MAX: usize = 65_536;
/// Records that the ring of keys keeps, and that of claims.
pub const OTHER_RECORDS_MAX: usize = 16_384;
/// Encoded bytes that all rings keep.
pub const HISTORY_BYTES_MAX: usize = 8 << 20;

/// A history of up to so many records is cross-checked after each entry, a longer one now and then.
const CHECKED_ALWAYS: u64 = 200;
const CHECKED_EVERY: u64 = 97;

const fn records_max(ring: Ring) -> usize {
    match ring {
        Ring::Catalogue => CATALOGUE_RECORDS_MAX,
        Ring::Keys | Ring::Claims => OTHER_RECORDS_MAX,
    }
}

/// What records are about, one after the other. An id comes before its node's name, so that the threads of an
/// id lie together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thread {
    /// An instance and its checks: its id, and its node's name in lower case.
    Instance(Arc<str>, Arc<str>),
    /// One check: its id, and its node's name in lower case. Only for finding the newest record; from there one
    /// follows the thread of its instance or node.
    Check(Arc<str>, Arc<str>),
    /// A node and its own checks, by its name in lower case.
    Node(Arc<str>),
    /// A key.
    Key(Arc<str>),
    /// A session.
    Session(Arc<str>),
    /// The cluster as a whole: who was elected, what was restored.
    Cluster,
    /// A claim, by its id.
    Claim(Arc<str>),
    /// A token, a policy or a role, by its accessor or id.
    Acl(Arc<str>),
}

impl Thread {
    /// The threads that a record belongs to: the one that it continues, and that of its check.
    #[must_use]
    pub fn of(subject: &Subject) -> (Option<Self>, Option<Self>) {
        match subject {
            Subject::Cluster => (Some(Self::Cluster), None),
            Subject::Node { node } => (Some(Self::Node(fold_arc(node))), None),
            Subject::Instance { node, id, .. } => {
                (Some(Self::Instance(id.clone(), fold_arc(node))), None)
            }
            Subject::Check { node, id, check, .. } => {
                let node = fold_arc(node);
                let one = Self::Check(check.clone(), node.clone());
                let whole = match id.is_empty() {
                    true => Self::Node(node),
                    false => Self::Instance(id.clone(), node),
                };
                (Some(whole), Some(one))
            }
            Subject::Key(key) => (Some(Self::Key(key.clone())), None),
            Subject::Session { id, .. } => (Some(Self::Session(id.clone())), None),
            Subject::Claim { id, .. } => (Some(Self::Claim(id.clone())), None),
            Subject::Acl { id, .. } => (Some(Self::Acl(id.clone())), None),
        }
    }
}

/// What of the history is not a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryHeader {
    /// The `seq` of the newest record.
    pub last_seq: u64,
    /// Cluster time and wall-clock time of the newest entry that had both.
    pub clock: Option<(ClusterTime, WallTime)>,
    /// The highest term whose leader was recorded.
    pub term: u64,
    /// Up to which `seq` each ring has lost its records, in the order of [`Ring::ALL`].
    pub lost_through: [u64; 3],
}

/// A ring's records, oldest first.
#[derive(Debug, Clone, Default)]
struct Kept {
    records: Vector<(Arc<HistoryRecord>, u32)>,
    /// Of their encodings.
    bytes: usize,
}

/// All records.
#[derive(Debug, Clone, Default)]
pub struct History {
    header: HistoryHeader,
    rings: [Kept; 3],
    /// Derived: the newest record of each thread.
    newest: OrdMap<Thread, u64>,
}

impl History {
    /// The `seq` of the newest record; 0: there is none.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.header.last_seq
    }

    /// Up to which `seq` a ring has lost its records; 0: it has all of them.
    #[must_use]
    pub fn lost_through(&self, ring: Ring) -> u64 {
        self.header.lost_through[ring as usize]
    }

    /// Cluster time and wall-clock time of the newest entry that had both: what turns one into the other.
    #[must_use]
    pub fn clock(&self) -> Option<(ClusterTime, WallTime)> {
        self.header.clock
    }

    /// How many records a ring has.
    #[must_use]
    pub fn len(&self, ring: Ring) -> usize {
        self.ring(ring).records.len()
    }

    /// How many bytes the records are when they are encoded.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rings.iter().map(|kept| kept.bytes).sum()
    }

    /// The record with this number, if it is still kept.
    #[must_use]
    pub fn get(&self, seq: u64) -> Option<&Arc<HistoryRecord>> {
        // Every thread ends here.
        if seq == 0 {
            return None;
        }
        self.rings.iter().find_map(|kept| {
            let at = kept.position(seq).ok()?;
            kept.records.get(at).map(|(record, _)| record)
        })
    }

    /// The records of some rings after a number, oldest first.
    pub fn after(&self, since: u64, rings: &[Ring]) -> impl Iterator<Item = &Arc<HistoryRecord>> {
        let mut tails: Vec<_> = rings
            .iter()
            .map(|ring| {
                let kept = self.ring(*ring);
                let from = kept.position(since.saturating_add(1)).unwrap_or_else(|place| place);
                kept.records.focus().narrow(from..).into_iter().map(|(record, _)| record).peekable()
            })
            .collect();
        std::iter::from_fn(move || {
            let next = tails
                .iter_mut()
                .filter_map(|tail| Some((tail.peek()?.seq, tail)))
                .min_by_key(|(seq, _)| *seq)?;
            next.1.next()
        })
    }

    /// The records of a thread, newest first, as far as they are kept.
    pub fn thread<'a>(
        &'a self,
        thread: &Thread,
    ) -> impl Iterator<Item = &'a Arc<HistoryRecord>> + use<'a> {
        let newest = self.newest.get(thread).and_then(|seq| self.get(*seq));
        std::iter::successors(newest, |record| self.get(record.previous))
    }

    /// The threads of all instances with this id (or of all checks, if `check`), by node.
    pub fn threads_of<'a>(
        &'a self,
        id: &'a Arc<str>,
        check: bool,
    ) -> impl Iterator<Item = &'a Thread> {
        let none: Arc<str> = "".into();
        let first = match check {
            true => Thread::Check(id.clone(), none),
            false => Thread::Instance(id.clone(), none),
        };
        let threads = self.newest.range(first..).map(|(thread, _)| thread);
        threads.take_while(move |thread| match thread {
            Thread::Instance(of, _) => !check && of == id,
            Thread::Check(of, _) => check && of == id,
            Thread::Node(_)
            | Thread::Key(_)
            | Thread::Session(_)
            | Thread::Cluster
            | Thread::Claim(_)
            | Thread::Acl(_) => false,
        })
    }

    /// Its numbers.
    #[must_use]
    pub fn header(&self) -> HistoryHeader {
        self.header
    }

    fn ring(&self, ring: Ring) -> &Kept {
        &self.rings[ring as usize]
    }

    /// Takes note of when an entry was proposed.
    fn note_clock(&mut self, time: ClusterTime, at: WallTime) {
        self.header.clock = Some((time, at));
    }

    /// Adds a record, which gets the next number, and lets go of what is too much.
    fn push(&mut self, mut record: HistoryRecord) {
        self.header.last_seq += 1;
        record.seq = self.header.last_seq;
        record.previous = self.enter(&record);
        self.keep(record);
        self.trim();
    }

    /// Makes a record the newest of its threads; returns the one before.
    fn enter(&mut self, record: &HistoryRecord) -> u64 {
        let (whole, one) = Thread::of(&record.subject);
        if let Some(one) = one {
            self.newest.insert(one, record.seq);
        }
        whole.and_then(|whole| self.newest.insert(whole, record.seq)).unwrap_or(0)
    }

    fn keep(&mut self, record: HistoryRecord) {
        let bytes = postcard::experimental::serialized_size(&record).unwrap_or(0);
        let kept = &mut self.rings[record.kind.ring() as usize];
        kept.bytes += bytes;
        kept.records.push_back((Arc::new(record), u32::try_from(bytes).unwrap_or(u32::MAX)));
    }

    fn trim(&mut self) {
        for ring in Ring::ALL {
            while self.len(ring) > records_max(ring) {
                self.drop_oldest(ring);
            }
        }
        while self.bytes() > HISTORY_BYTES_MAX {
            let fullest = Ring::ALL.into_iter().max_by_key(|ring| self.ring(*ring).bytes);
            self.drop_oldest(fullest.unwrap_or(Ring::Catalogue));
        }
    }

    fn drop_oldest(&mut self, ring: Ring) {
        let kept = &mut self.rings[ring as usize];
        let Some((record, bytes)) = kept.records.pop_front() else { return };
        kept.bytes -= bytes as usize;
        self.header.lost_through[ring as usize] = record.seq;
        let (whole, one) = Thread::of(&record.subject);
        for thread in [whole, one].into_iter().flatten() {
            if self.newest.get(&thread) == Some(&record.seq) {
                self.newest.remove(&thread);
            }
        }
    }

    // ---- snapshots ------------------------------------------------------------------------------

    /// All records, oldest first.
    pub(super) fn records(&self) -> impl Iterator<Item = &Arc<HistoryRecord>> {
        self.after(0, &Ring::ALL)
    }

    /// Whether nothing was ever noted.
    pub(super) fn is_empty(&self) -> bool {
        self.header == HistoryHeader::default()
    }

    /// Takes over the numbers of a snapshot. Call it before the first record.
    pub(super) fn set_header(&mut self, header: HistoryHeader) {
        self.header = header;
    }

    /// Takes over the next record of a snapshot; `false` if it does not follow the one before.
    pub(super) fn take_in(&mut self, record: HistoryRecord) -> bool {
        let ring = record.kind.ring();
        let newest = self.ring(ring).records.back().map_or(0, |(record, _)| record.seq);
        let follows = record.seq > newest.max(self.lost_through(ring));
        let fits = follows && record.seq <= self.last_seq() && self.len(ring) < records_max(ring);
        if fits {
            self.enter(&record);
            self.keep(record);
        }
        fits
    }

    /// Checks what must hold of it.
    ///
    /// # Errors
    /// A sentence that names the first thing that does not fit.
    pub(super) fn check(&self) -> Result<(), String> {
        self.check_rings()?;
        // It reads everything: not after each of a thousand entries.
        let is_long = self.last_seq() > CHECKED_ALWAYS;
        if is_long && !self.last_seq().is_multiple_of(CHECKED_EVERY) {
            return Ok(());
        }
        let mut newest = OrdMap::new();
        for record in self.records() {
            let (whole, one) = Thread::of(&record.subject);
            if record.previous >= record.seq {
                return Err(format!("record {} does not follow {}", record.seq, record.previous));
            }
            for thread in [whole, one].into_iter().flatten() {
                newest.insert(thread, record.seq);
            }
        }
        for ring in Ring::ALL {
            let kept = self.ring(ring);
            let bytes: usize = kept.records.iter().map(|(_, bytes)| *bytes as usize).sum();
            if kept.bytes != bytes {
                return Err(format!("the ring of {ring:?} is not as large as it says"));
            }
        }
        if newest != self.newest {
            return Err("a thread of the history does not end at its newest record".to_owned());
        }
        Ok(())
    }
}

impl History {
    fn check_rings(&self) -> Result<(), String> {
        for ring in Ring::ALL {
            let kept = self.ring(ring);
            if kept.records.len() > records_max(ring) {
                return Err(format!("the ring of {ring:?} has too many records"));
            }
            if kept.records.front().is_some_and(|(first, _)| first.seq <= self.lost_through(ring)) {
                return Err(format!("the ring of {ring:?} has what it says it lost"));
            }
            if kept.records.back().is_some_and(|(last, _)| last.seq > self.last_seq()) {
                return Err(format!("the ring of {ring:?} is ahead of the numbers"));
            }
        }
        match self.bytes() > HISTORY_BYTES_MAX {
            true => Err("the history is too large".to_owned()),
            false => Ok(()),
        }
    }
}

impl Kept {
    /// Where a record is, or where it would be.
    fn position(&self, seq: u64) -> Result<usize, usize> {
        self.records.binary_search_by(|(record, _)| record.seq.cmp(&seq))
    }
}

impl State {
    /// What happened.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The wall-clock time at a cluster time, for people: as far from the newest entry's as the cluster times
    /// are apart. `None` before any entry had one.
    #[must_use]
    pub fn wall_time(&self, time: ClusterTime) -> Option<WallTime> {
        let (then, at) = self.history.clock()?;
        let (later, earlier) = (time.since(then).0, then.since(time).0);
        Some(WallTime(at.0.saturating_add(later).saturating_sub(earlier)))
    }

    /// Takes note of the leader's wall clock and term with which an entry was proposed.
    pub(super) fn note_stamp(&mut self, stamp: &Stamp) {
        if self.level() < HISTORY_LEVEL {
            return;
        }
        self.history.note_clock(self.time, stamp.at);
        if stamp.term <= self.history.header.term {
            return;
        }
        self.history.header.term = stamp.term;
        let cause = Cause::Server { server: stamp.leader };
        let detail = Detail::Term(stamp.term);
        let what = What { detail, ..What::new(HistoryKind::LeaderElected, Subject::Cluster) };
        self.record(self.index, cause, what);
    }

    /// Why a command does what it does.
    pub(super) fn cause_of(
        &self,
        command: &Command,
        server: NodeId,
        request: impl FnOnce() -> Option<Arc<RequestFacts>>,
    ) -> Cause {
        match command {
            Command::ProbeResult { .. } => Cause::Probe { by: server },
            Command::Workers(WorkersCommand::Results(results)) => {
                Cause::Worker { name: results.name.clone() }
            }
            Command::Workers(WorkersCommand::Deserted { .. }) => Cause::Server { server },
            Command::RegisterServer(_)
            | Command::RemoveServer { .. }
            | Command::SetServerHealth { .. } => Cause::Server { server },
            _ => Cause::Request { server, request: request() },
        }
    }

    fn record(&mut self, index: Index, cause: Cause, what: What) {
        if self.level() < HISTORY_LEVEL {
            return;
        }
        let What { kind, subject, session, from, to, detail } = what;
        let at = self.wall_time(self.time).unwrap_or_default();
        let (time, seq, previous) = (self.time, 0, 0);
        self.history.push(HistoryRecord {
            seq,
            index,
            time,
            at,
            kind,
            subject,
            session,
            from,
            to,
            detail,
            cause,
            previous,
        });
    }
}

/// What a change does, as the change itself knows it.
#[derive(Debug, Clone)]
pub(super) struct What {
    pub(super) kind: HistoryKind,
    pub(super) subject: Subject,
    pub(super) session: Option<Arc<str>>,
    pub(super) from: Option<CheckStatus>,
    pub(super) to: Option<CheckStatus>,
    pub(super) detail: Detail,
}

impl What {
    pub(super) const fn new(kind: HistoryKind, subject: Subject) -> Self {
        Self { kind, subject, session: None, from: None, to: None, detail: Detail::None }
    }
}

impl Change<'_> {
    /// Records what the change does, with its cause.
    pub(super) fn record(&mut self, what: What) {
        let (index, cause) = (self.index(), self.cause.clone());
        self.state.record(index, cause, what);
    }

    /// Records something about an instance.
    pub(super) fn record_service(&mut self, kind: HistoryKind, row: &Service) {
        let definition = &row.definition;
        let (node, id) = (row.node.clone(), definition.id.clone());
        self.record(What::new(
            kind,
            Subject::Instance { node, service: definition.name.clone(), id },
        ));
    }

    /// Records what became of a check: it is new, it changed, or it is gone. Nothing is recorded of an output
    /// that changed alone.
    pub(super) fn record_check(&mut self, old: Option<&Check>, new: Option<&Check>) {
        let Some(row) = new.or(old) else { return };
        let kind = match (old, new) {
            // It comes with its node.
            (None, Some(new)) if is_serf_health(new) && is_passing(new) => return,
            (Some(old), Some(new))
                if differs_in_output_only(old, new) && !self.is_first_failure(new) =>
            {
                return;
            }
            (None, _) => HistoryKind::CheckRegistered,
            (_, None) => HistoryKind::CheckDeregistered,
            (Some(_), Some(_)) => HistoryKind::CheckChanged,
        };
        let (kind, subject, detail) = match maintenance(row) {
            Some(subject) if old.is_none() => {
                let reason = beginning(&row.registration.notes);
                (HistoryKind::MaintenanceOn, subject, Detail::Reason(reason))
            }
            Some(subject) if new.is_none() => (HistoryKind::MaintenanceOff, subject, Detail::None),
            Some(_) | None => (kind, subject_of(row), new.map_or(Detail::None, shown_output)),
        };
        let status = |row: Option<&Check>| row.map(|row| row.registration.status.clone());
        let (from, to) = (status(old), status(new));
        self.record(What { from, to, detail, ..What::new(kind, subject) });
    }

    /// Whether a check that fails was run for the first time since a client gave it its status: what it found is
    /// new, though the status is not.
    fn is_first_failure(&self, row: &Check) -> bool {
        let is_run = |cause: &Cause| matches!(cause, Cause::Probe { .. } | Cause::Worker { .. });
        if self.state.level() < HEARTBEAT_LEVEL || is_passing(row) || !is_run(&self.cause) {
            return false;
        }
        let thread = Thread::Check(row.registration.id.clone(), fold_arc(&row.node));
        let newest = self.state.history.thread(&thread).next();
        newest.is_some_and(|newest| !is_run(&newest.cause))
    }

    /// Records something about a node.
    pub(super) fn record_node(&mut self, kind: HistoryKind, name: &Arc<str>) {
        self.record(What::new(kind, Subject::Node { node: name.clone() }));
    }

    /// Records the beginning or the end of a session; `detail` says which check ended it.
    pub(super) fn record_session(&mut self, kind: HistoryKind, row: &Session, detail: Detail) {
        let subject = Subject::Session { id: row.id.clone(), node: row.node.clone() };
        self.record(What { detail, ..What::new(kind, subject) });
    }

    /// Records what became of a key: its value and flags, and who holds it.
    pub(super) fn record_key(&mut self, old: Option<&KvEntry>, new: &KvEntry) {
        let subject = || Subject::Key(new.key.clone());
        let is_written = |old: &KvEntry| old.value != new.value || old.flags != new.flags;
        let old_holder = old.and_then(|old| old.session.as_ref());
        let holder = new.session.as_ref();
        // A write that changes nothing but counters is a write all the same.
        if old.is_none_or(is_written) || old_holder == holder {
            let detail = Detail::Value { bytes: new.value.len() as u64, flags: new.flags };
            self.record(What { detail, ..What::new(HistoryKind::KeySet, subject()) });
        }
        if old_holder == holder {
            return;
        }
        for (kind, session) in
            [(HistoryKind::LockReleased, old_holder), (HistoryKind::LockAcquired, holder)]
        {
            if let Some(session) = session {
                let session = Some(session.clone());
                self.record(What { session, ..What::new(kind, subject()) });
            }
        }
    }

    /// Records what became of a token, a policy or a role. Of a secret nothing is known here, not even its hash.
    pub(super) fn record_acl(&mut self, kind: HistoryKind, id: &Arc<str>, name: &str) {
        self.record(What::new(kind, Subject::Acl { id: id.clone(), name: beginning(name) }));
    }

    /// Records what a claim has come to. Claims move no index of the catalogue: the record has the present one.
    pub(super) fn record_claim(&mut self, kind: HistoryKind, row: &Claim) {
        let (service, id, number) = (row.service.clone(), row.id.clone(), row.number);
        let subject = Subject::Claim { service, id, number };
        let grant = match &row.phase {
            ClaimPhase::Queued { .. } => None,
            ClaimPhase::Granted(grant) => Some(grant),
            ClaimPhase::Ended { grant, .. } => grant.as_ref(),
        };
        let require: Vec<String> =
            row.require.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let detail = Detail::Claim(Box::new(ClaimFacts {
            holder: row.holder.clone(),
            fence: grant.map_or(0, |grant| grant.fence),
            seq: grant.map_or(0, |grant| grant.seq),
            node: grant.map_or_else(Arc::default, |grant| grant.node.clone()),
            instance: grant.map_or_else(Arc::default, |grant| grant.id.clone()),
            position: row.position,
            ended: row.ended(),
            require: beginning(&require.join(" ")),
        }));
        let (index, cause) = (self.state.index, self.cause.clone());
        self.state.record(index, cause, What { detail, ..What::new(kind, subject) });
    }

    /// Records the end of a key that a session may have held, or of all below a prefix.
    pub(super) fn record_deleted(
        &mut self,
        key: &Arc<str>,
        holder: Option<Arc<str>>,
        detail: Detail,
    ) {
        let subject = Subject::Key(key.clone());
        let what = What::new(HistoryKind::KeyDeleted, subject);
        self.record(What { session: holder, detail, ..what });
    }
}

/// Whether a check says of a node that it lives.
fn is_serf_health(row: &Check) -> bool {
    &*row.registration.id == SERF_HEALTH && row.registration.service_id.is_empty()
}

fn is_passing(row: &Check) -> bool {
    row.registration.status == CheckStatus::Passing
}

/// The subject of a check's records.
fn subject_of(row: &Check) -> Subject {
    Subject::Check {
        node: row.node.clone(),
        service: row.service_name.clone(),
        id: row.registration.service_id.clone(),
        check: row.registration.id.clone(),
    }
}

/// What a check of maintenance takes out of service.
fn maintenance(row: &Check) -> Option<Subject> {
    super::maintenance::is_about(row).then(|| {
        let (node, id) = (row.node.clone(), row.registration.service_id.clone());
        match id.is_empty() {
            true => Subject::Node { node },
            false => Subject::Instance { node, service: row.service_name.clone(), id },
        }
    })
}

/// Whether nothing is different that a record would tell.
fn differs_in_output_only(old: &Check, new: &Check) -> bool {
    let (old, new) = (&old.registration, &new.registration);
    old.status == new.status
        && old.name == new.name
        && old.notes == new.notes
        && old.service_id == new.service_id
        && old.kind == new.kind
        && old.definition == new.definition
}

/// What a record keeps of a check's output. Nothing of one that sends headers or a body: what comes back may
/// repeat a secret.
fn shown_output(row: &Check) -> Detail {
    let what = &row.registration;
    let has_secrets = what.definition.header.as_ref().is_some_and(|all| !all.is_empty())
        || !what.definition.body.is_empty();
    if what.output.is_empty() || has_secrets {
        return Detail::None;
    }
    Detail::Output(beginning(&what.output))
}

/// As much of a text as a record keeps.
fn beginning(text: &str) -> Arc<str> {
    let mut end = text.len().min(HISTORY_OUTPUT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}

/// Who asked for the commands of one part.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// The place of the first command that it speaks of.
    from: usize,
    facts: Vec<Option<Arc<RequestFacts>>>,
}

impl Requests {
    /// What a note says of the commands from a place on.
    pub(super) fn from(from: usize, asked: &Asked) -> Self {
        Self { from, facts: asked.facts() }
    }

    /// Who asked for the command at a place.
    pub(super) fn of(&self, place: usize) -> Option<Arc<RequestFacts>> {
        self.facts.get(place.checked_sub(self.from)?).cloned().flatten()
    }
}
