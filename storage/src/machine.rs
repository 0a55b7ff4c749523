//! openraft's state machine around [`State`].
//!
//! The state lives in memory. After a restart it comes from the newest snapshot, and openraft applies the log
//! behind it again. Readers see one published version at a time. A new one is published once for each run of
//! entries that openraft hands over, however many they are.
//!
//! After a run of entries, the order is: publish, notify the observer, answer openraft. So a client that is
//! answered finds its write.

use std::fmt;
use std::io::{self, BufReader, BufWriter};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::type_config::alias::SnapshotOf;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};

use crate::durable::{cannot_be_written, is_shortage};
use crate::panics;
use crate::raft::{Applied, Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig};
use crate::snapshot::{RecordReader, RecordWriter, Snapshot, SnapshotStore};
use crate::state::{Effects, Import, SnapshotRecord, State, unknown_level};

#[cfg(test)]
mod tests;

/// How long to wait before trying again to make a snapshot after a shortage.
const SHORTAGE_PAUSE: Duration = Duration::from_secs(1);
/// How often one build is tried; the version that it writes stays in memory meanwhile. After that, openraft
/// asks for a newer snapshot once as many entries again have been applied.
const BUILD_TRIES: u32 = 10;
/// While a shortage prevents an installation, this many tries pass between two warnings.
const TRIES_BETWEEN_WARNINGS: u32 = 10;

/// What an operator has to know about an entry that cannot be applied.
const POISON: &str = "This is a bug, and every server that applies the entry stops like this one. Nothing is lost: keep the data directories, and start a version that can apply it (see \"An entry that no server can apply\" in the README)";

/// One version of everything that readers may want: immutable once published.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// The state.
    pub state: State,
    /// The last log entry it contains.
    pub last_applied: Option<LogId>,
    /// The membership in force.
    pub membership: StoredMembership,
}

/// Is notified of what was applied, after the new version was published. Called from openraft's apply task,
/// so it must not block or do work that grows with the number of waiters.
pub trait Observer: Send + Sync + 'static {
    /// Entries are about to be applied.
    fn applying(&self) {}
    /// Entries were applied; `effects` are theirs, merged.
    fn applied(&self, published: &Arc<Published>, effects: Effects);
    /// A snapshot replaced the state: outcomes are to be looked up, and everything may have changed.
    fn installed(&self, published: &Arc<Published>);
    /// Whether it wants the version after exactly this entry. (The published one may contain more entries.)
    fn wants(&self, _index: u64) -> bool {
        false
    }
    /// Receives such a version, before it is published.
    fn reached(&self, _version: Published) {}
}

/// Gives out the newest published version.
#[derive(Debug, Clone)]
pub struct StateReader(Arc<ArcSwap<Published>>);

impl StateReader {
    /// The newest version.
    pub fn load(&self) -> Arc<Published> {
        self.0.load_full()
    }
}

impl From<Published> for StateReader {
    /// A reader of one version, which never changes.
    fn from(version: Published) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(version)))
    }
}

/// openraft's state machine.
pub struct Machine {
    /// The version that apply works on; a published one is never touched again.
    working: Published,
    published: Arc<ArcSwap<Published>>,
    observer: Arc<dyn Observer>,
    snapshots: Arc<Snapshots>,
    /// Whether entries may be missing, as in openraft's own suite for stores.
    #[cfg(test)]
    takes_gaps: bool,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("last_applied", &self.working.last_applied)
            .field("snapshots", &self.snapshots)
            .finish_non_exhaustive()
    }
}

impl Machine {
    /// Loads the current snapshot, if there is one. Reads all of it, so do not call this from a task that has
    /// other things to do.
    pub fn open(
        store: Arc<dyn SnapshotStore>,
        observer: Arc<dyn Observer>,
    ) -> io::Result<(Self, StateReader)> {
        let (working, current) = match store.current()? {
            Some(snapshot) => {
                let published = read_snapshot(&snapshot)?;
                let meta = meta_of(&published);
                (published, Some((meta, snapshot)))
            }
            None => (Published::default(), None),
        };
        let published = Arc::new(ArcSwap::from_pointee(working.clone()));
        let snapshots =
            Arc::new(Snapshots { store, current: Mutex::new(current), committing: Mutex::new(()) });
        let reader = StateReader(Arc::clone(&published));
        let machine = Self {
            working,
            published,
            observer,
            snapshots,
            #[cfg(test)]
            takes_gaps: false,
        };
        Ok((machine, reader))
    }

    /// The same machine, for a suite whose logs have gaps.
    #[cfg(test)]
    pub(crate) fn taking_gaps(self) -> Self {
        Self { takes_gaps: true, ..self }
    }

    /// Whether this entry is the next one.
    fn follows(&self, id: &LogId) -> bool {
        #[cfg(test)]
        if self.takes_gaps {
            return true;
        }
        self.working.last_applied.is_none_or(|last| id.index == last.index + 1)
    }

    /// Checks a whole snapshot, then makes it durable and current.
    async fn check_and_keep(
        &self,
        meta: &SnapshotMeta,
        snapshot: &Snapshot,
    ) -> io::Result<Published> {
        let (snapshots, snapshot) = (Arc::clone(&self.snapshots), snapshot.clone());
        let meta = meta.clone();
        off_the_runtime(move || {
            let version = read_snapshot(&snapshot)?;
            if meta_of(&version) != meta {
                let what = format!("the snapshot covers {}, not {meta}", meta_of(&version));
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            snapshots.keep(&snapshot, meta)?;
            Ok(version)
        })
        .await
    }

    fn publish(&self) -> Arc<Published> {
        let published = Arc::new(self.working.clone());
        self.published.store(Arc::clone(&published));
        published
    }
}

impl Published {
    /// Applies an entry and checks the result. After an error the state is in doubt, and nothing of it may be
    /// published.
    fn apply_checked(&mut self, entry: Entry) -> io::Result<Effects> {
        self.check_applying(entry, Self::apply)
    }

    /// The same for any way to apply an entry; a test passes one that panics.
    fn check_applying(
        &mut self,
        entry: Entry,
        apply: impl FnOnce(&mut Self, Entry) -> Effects,
    ) -> io::Result<Effects> {
        let (id, before) = (entry.log_id, self.state.before());
        let effects =
            panics::contain(|| apply(self, entry)).map_err(|panic| poison(&id, &panic))?;
        if let Some(why) = unknown_level(self.state.level()) {
            return Err(io::Error::other(format!("log entry {id} cannot be applied: {why}")));
        }
        self.state.check_applied(before, &effects).map_err(|broken| poison(&id, &broken))?;
        Ok(effects)
    }

    /// The version of the current snapshot, or the empty one if there is none.
    pub(crate) fn from_snapshot(store: &dyn SnapshotStore) -> io::Result<Self> {
        store.current()?.map_or_else(|| Ok(Self::default()), |snapshot| read_snapshot(&snapshot))
    }

    /// Makes this version the current snapshot.
    pub(crate) fn into_snapshot(self, store: Arc<dyn SnapshotStore>) -> io::Result<()> {
        let snapshots = Snapshots { store, current: Mutex::new(None), committing: Mutex::new(()) };
        snapshots.build(&self).map(drop)
    }

    pub(crate) fn apply(&mut self, entry: Entry) -> Effects {
        self.last_applied = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Effects::default(),
            EntryPayload::Normal(batch) => self.state.apply(&batch),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                Effects::default()
            }
        }
    }
}

fn poison(id: &LogId, what: &str) -> io::Error {
    io::Error::other(format!("log entry {id} cannot be applied: {what}. {POISON}"))
}

fn merge(all: &mut Effects, mut more: Effects) {
    all.outcomes.append(&mut more.outcomes);
    all.touched.append(&mut more.touched);
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Snapshot;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.working.last_applied, self.working.membership.clone()))
    }

    async fn apply<Entries>(&mut self, mut entries: Entries) -> io::Result<()>
    where
        Entries: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut effects = Effects::default();
        let mut responders = Vec::new();
        self.observer.applying();
        while let Some((entry, responder)) = entries.try_next().await? {
            if !self.follows(&entry.log_id) {
                let last = self.working.last_applied.map(|last| last.index);
                return Err(poison(&entry.log_id, &format!("it does not follow entry {last:?}")));
            }
            let index = entry.log_id.index;
            merge(&mut effects, self.working.apply_checked(entry)?);
            if self.observer.wants(index) {
                self.observer.reached(self.working.clone());
            }
            responders.extend(responder);
        }
        // Published first: clients and queries that the observer wakes must find the new version.
        let published = self.publish();
        self.observer.applied(&published, effects);
        for responder in responders {
            responder.send(Applied);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { version: self.working.clone(), snapshots: Arc::clone(&self.snapshots) }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Snapshot,
    ) -> io::Result<()> {
        // openraft has taken note of the snapshot, and an error would end the server. So applying waits for
        // the end of a shortage.
        let mut tries = 0;
        self.working = loop {
            match self.check_and_keep(meta, &snapshot).await {
                Err(error) if is_shortage(&error) => {
                    if tries % TRIES_BETWEEN_WARNINGS == 0 {
                        tracing::warn!(%error, "cannot install a snapshot; trying again");
                    }
                    tries += 1;
                    pause().await;
                }
                installed => {
                    break installed.map_err(|error| cannot_be_written("a snapshot", &error))?;
                }
            }
        };
        self.observer.installed(&self.publish());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<RaftSnapshot>> {
        let current = self.snapshots.current().clone();
        Ok(current.map(|(meta, snapshot)| RaftSnapshot { meta, snapshot }))
    }
}

/// openraft's snapshot with our data.
type RaftSnapshot = SnapshotOf<TypeConfig, Snapshot>;

/// Writes one version of the state as a snapshot, while newer ones are being made.
#[derive(Debug)]
pub struct SnapshotBuilder {
    version: Published,
    snapshots: Arc<Snapshots>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = Snapshot;

    /// Any error ends the server, so a shortage is not reported as one: the existing snapshot stays the
    /// newest, and the log behind it is kept.
    async fn build_snapshot(&mut self) -> io::Result<RaftSnapshot> {
        for _ in 0..BUILD_TRIES {
            let (version, snapshots) = (self.version.clone(), Arc::clone(&self.snapshots));
            match off_the_runtime(move || snapshots.build(&version)).await {
                Ok((meta, snapshot)) => return Ok(RaftSnapshot { meta, snapshot }),
                Err(error) if is_shortage(&error) => {
                    tracing::warn!(%error, "cannot write a snapshot; trying again");
                }
                Err(error) => return Err(cannot_be_written("a snapshot", &error)),
            }
            pause().await;
        }
        let (meta, snapshot) = self.snapshots.current().clone().unwrap_or_else(|| {
            // It covers nothing, so openraft sees no progress.
            (SnapshotMeta::default(), Snapshot::from_bytes(Vec::new()))
        });
        Ok(RaftSnapshot { meta, snapshot })
    }
}

/// The store of snapshots, and which one is current.
#[derive(Debug)]
struct Snapshots {
    store: Arc<dyn SnapshotStore>,
    /// Held only to read or replace it, never during disk I/O.
    current: Mutex<Option<(SnapshotMeta, Snapshot)>>,
    /// Held while one is made durable: a build and an installation may coincide, and the newer one must stay.
    committing: Mutex<()>,
}

impl Snapshots {
    fn current(&self) -> MutexGuard<'_, Option<(SnapshotMeta, Snapshot)>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a version and makes it current. Returns the current one instead if that is newer by then.
    fn build(&self, version: &Published) -> io::Result<(SnapshotMeta, Snapshot)> {
        let meta = meta_of(version);
        let sink = BufWriter::new(self.store.create()?);
        let mut records = RecordWriter::new(sink, &meta)?;
        export_state(&version.state, &mut |record| records.push(record))?;
        let sink = records.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        let _committing = self.committing.lock().unwrap_or_else(PoisonError::into_inner);
        let newer = self.current().clone();
        if let Some(newer) = newer.filter(|(newer, _)| newer.last_log_id > meta.last_log_id) {
            // The log may be purged up to the newer one: without it there would be a gap.
            return Ok(newer);
        }
        let built = (meta, sink.commit()?);
        *self.current() = Some(built.clone());
        Ok(built)
    }

    /// Makes a snapshot from another server durable and current.
    fn keep(&self, snapshot: &Snapshot, meta: SnapshotMeta) -> io::Result<()> {
        let mut sink = self.store.create()?;
        io::copy(&mut snapshot.open()?, &mut sink)?;
        let _committing = self.committing.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = sink.commit()?;
        *self.current() = Some((meta, kept));
        Ok(())
    }
}

pub(crate) fn meta_of(version: &Published) -> SnapshotMeta {
    SnapshotMeta { last_log_id: version.last_applied, last_membership: version.membership.clone() }
}

fn read_snapshot(snapshot: &Snapshot) -> io::Result<Published> {
    let mut records = RecordReader::new(BufReader::new(snapshot.open()?))?;
    let SnapshotMeta { last_log_id, last_membership } = records.meta().clone();
    let state = import_state(&mut || records.next_record())?;
    Ok(Published { state, last_applied: last_log_id, membership: last_membership })
}

/// Runs blocking work on a thread that may block, or in place where there is no tokio, as in a simulation
/// with another runtime.
async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(work).await.map_err(io::Error::other)?,
        Err(_) => work(),
    }
}

/// Waits for a shortage to pass. Where there is no tokio, there are no shortages.
async fn pause() {
    if tokio::runtime::Handle::try_current().is_ok() {
        tokio::time::sleep(SHORTAGE_PAUSE).await;
    }
}

/// Exports the state as encoded records.
fn export_state(state: &State, push: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = Vec::new();
    state.export(&mut |record| {
        buffer.clear();
        buffer =
            postcard::to_extend(&record, std::mem::take(&mut buffer)).map_err(io::Error::other)?;
        push(&buffer)
    })
}

/// Builds the state from its records. Reads to the end, where the checksum is.
fn import_state(next: &mut dyn FnMut() -> io::Result<Option<Vec<u8>>>) -> io::Result<State> {
    let mut import = Import::default();
    while let Some(bytes) = next()? {
        let record: SnapshotRecord<'_> =
            postcard::from_bytes(&bytes).map_err(|error| unreadable(&error))?;
        import.add(record)?;
    }
    import.finish()
}

fn unreadable(error: &postcard::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a record of the snapshot: {error}"))
}
