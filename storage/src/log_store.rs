//! The Raft log and the vote, on sled.
//!
//! ```text
//!  openraft ──append, save_vote, ...──► view (memory) ──► readers
//!      │                                  ▲
//!      └──► queue ──► writer thread ──► sled ──► fdatasync ──► answers, in order
//! ```
//!
//! Everything that changes goes through **one ordered queue** to one thread, votes and entries
//! alike: Raft is only safe if a vote is not overtaken by entries of an older leader. Readers see an
//! entry as soon as `append` returns; openraft is notified after the sync that it is durable.
//!
//! Only this module and those below it know sled. The state machine, snapshots and openraft's own
//! rules are not its business.

use std::cmp::Ordering;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::{self, JoinHandle};

use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use self::codec::{Encoded, damaged};
use self::tables::{MetaKey, Tables, guard};
use self::view::{View, next_index};
use self::writer::{Op, Queued, Writer, copy};
use crate::advice::REPLACE_NODE;
use crate::data_dir::DataDir;
use crate::durable::cannot_be_written;
use crate::mark::{Mark, MarkFile};
use crate::raft::{Entry, LogId, NodeId, TypeConfig, Vote};

mod codec;
pub(crate) mod stopped;
mod tables;
#[cfg(test)]
mod tests;
mod view;
mod writer;

/// What one read for replication returns at most, in encoded bytes (but one entry in any case):
/// openraft limits a request by its number of entries only.
pub const REPLICATION_BYTES_MAX: u64 = 1 << 20;

/// How much may wait for the disk. Beyond it `append` waits, and openraft with it: the disk is slower
/// than the cluster, and memory is no place to hide that.
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// The queue's room is counted in pieces of this size; every operation takes at least one, so the
/// number of operations is bounded as well.
const ROOM_BYTES: usize = 1 << 10;
const ROOM_PIECES: usize = QUEUE_BYTES_MAX / ROOM_BYTES;

/// Why the log cannot be opened. The text is for the operator.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The log lacks what it once held.
    #[error(
        "{dir}: the log of node {node} has lost data: {lost}. Nothing was changed. This server must not take part again, because it may have forgotten votes and entries that it acknowledged: {REPLACE_NODE}"
    )]
    Behind {
        /// The log's directory.
        dir: PathBuf,
        /// The server.
        node: NodeId,
        /// What is missing.
        lost: String,
    },
    /// The high-water mark is gone or unreadable, so it is unknown whether the log is complete.
    #[error(
        "{file}: the high-water mark of node {node} cannot be read: {source}. Restore the file, or {REPLACE_NODE}"
    )]
    Mark {
        /// The mark's file.
        file: PathBuf,
        /// The server.
        node: NodeId,
        /// Why.
        source: io::Error,
    },
    /// The log cannot be read.
    #[error(
        "{dir}: the log of node {node} cannot be opened: {source}. If the disk is full: make room (the file `ballast` of the data directory may be deleted) and start again. If the files are damaged, {REPLACE_NODE}"
    )]
    Unreadable {
        /// The log's directory.
        dir: PathBuf,
        /// The server.
        node: NodeId,
        /// Why.
        source: io::Error,
    },
}

/// Is notified of syncs, so that somebody with a clock can measure them. Called from the writer's thread,
/// for one sync at a time: it must not block.
pub trait SyncObserver: Debug + Send + Sync {
    /// A sync begins.
    fn begins(&self);
    /// It has succeeded. (After one that failed there is no other.)
    fn ended(&self);
}

/// What the store counted since it was opened, and how large it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Calls of `append`.
    pub appends: u64,
    /// Entries appended.
    pub entries: u64,
    /// Bytes appended, encoded.
    pub bytes: u64,
    /// Syncs of sled's file.
    pub syncs: u64,
    /// Truncations.
    pub truncations: u64,
    /// Entries in the log.
    pub log_entries: u64,
    /// Bytes in the log, encoded.
    pub log_bytes: u64,
    /// Entries held in memory.
    pub tail_entries: u64,
}

/// What the store, its readers and the writer share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// A std lock: it is held for a few steps in memory, never across an await or a write.
    view: RwLock<View>,
    queue: Sender<Queued>,
    room: Arc<Semaphore>,
    tables: Tables,
    failure: OnceLock<io::Error>,
    sync_observer: OnceLock<Arc<dyn SyncObserver>>,
    appends: AtomicU64,
    entries: AtomicU64,
    bytes: AtomicU64,
    syncs: AtomicU64,
    truncations: AtomicU64,
    /// The mark is to be brought up to date.
    mark_due: AtomicBool,
    /// The directory is ours as long as somebody can read from it.
    _dir: DataDir,
}

impl Shared {
    fn read_view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_view(&self) -> RwLockWriteGuard<'_, View> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the first error, for ever.
    fn fail(&self, error: &io::Error) {
        let error = cannot_be_written("the log", error);
        tracing::error!(%error, "this server has to stop");
        // An error that follows from the first one adds nothing.
        drop(self.failure.set(error));
    }

    /// The remembered error.
    fn error(&self) -> io::Error {
        self.failure.get().map_or_else(|| self.closed(), copy)
    }

    fn closed(&self) -> io::Error {
        io::Error::new(io::ErrorKind::BrokenPipe, "the log is closed")
    }

    fn check(&self) -> io::Result<()> {
        self.failure.get().map_or(Ok(()), |error| Err(copy(error)))
    }

    fn note_appended(&self, entries: &[Encoded]) {
        let bytes: usize = entries.iter().map(Encoded::len).sum();
        self.appends.fetch_add(1, Relaxed);
        self.entries.fetch_add(entries.len() as u64, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    fn sync_begins(&self) {
        if let Some(observer) = self.sync_observer.get() {
            observer.begins();
        }
    }

    fn note_sync(&self) {
        self.syncs.fetch_add(1, Relaxed);
        if let Some(observer) = self.sync_observer.get() {
            observer.ended();
        }
    }

    fn note_truncated(&self) {
        self.truncations.fetch_add(1, Relaxed);
    }

    /// Waits until the queue has room for so many bytes.
    async fn room_for(&self, bytes: usize) -> io::Result<OwnedSemaphorePermit> {
        self.check()?;
        let pieces = (bytes / ROOM_BYTES + 1).min(ROOM_PIECES);
        let pieces = u32::try_from(pieces).expect("an entry has few pieces");
        Arc::clone(&self.room).acquire_many_owned(pieces).await.map_err(|_| self.error())
    }

    fn send(&self, op: Op, room: Option<OwnedSemaphorePermit>) -> io::Result<()> {
        self.queue.send(Queued { op, room }).map_err(|_| self.error())
    }

    async fn close(&self) -> io::Result<()> {
        let (done, closed) = oneshot::channel();
        match self.send(Op::Close { done }, None) {
            Ok(()) => closed.await.unwrap_or_else(|_| self.check()),
            // Closed before.
            Err(_) => self.check(),
        }
    }

    fn read(&self, range: Range<u64>) -> io::Result<Vec<Entry>> {
        loop {
            let (on_disk, tail, epoch) = self.read_view().read(range.clone());
            if on_disk.is_empty() {
                return Ok(tail);
            }
            let read = guard(|| self.tables.entries(on_disk.clone()));
            if !self.read_view().still_holds(&on_disk, epoch) {
                // Its front was purged or its end truncated while sled was read.
                continue;
            }
            let mut entries = read?;
            if !entries.iter().map(|entry| entry.log_id.index).eq(on_disk.clone()) {
                return Err(damaged(format!("entries are missing between {on_disk:?}")));
            }
            entries.extend(tail);
            return Ok(entries);
        }
    }
}

/// The log and the vote of one server: openraft's `RaftLogStorage`. Dropping it closes it.
#[derive(Debug)]
pub struct LogStore {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl LogStore {
    /// Opens the log in a data directory, or begins one. Reads all of it once. Refuses a log that
    /// lacks what its high-water mark says it held. Blocks while it reads.
    pub fn open(dir: &DataDir) -> Result<Self, OpenError> {
        Self::open_with(dir, Tables::sync_handle)
    }

    /// The same with another way to get at sled's file, for tests.
    fn open_with(
        dir: &DataDir,
        sync_handle: impl FnOnce(&Path) -> io::Result<File>,
    ) -> Result<Self, OpenError> {
        let (log_dir, node) = (dir.log_dir(), dir.node_id());
        let mark = MarkFile::open(&dir.mark_file()).map_err(|source| OpenError::Mark {
            file: dir.mark_file(),
            node,
            source,
        })?;
        let unreadable = |source| OpenError::Unreadable { dir: log_dir.clone(), node, source };
        let tables = Tables::open(&log_dir).map_err(unreadable)?;
        let (view, lost) = guard(|| {
            let view = recover(&tables)?;
            let lost = lost(mark.mark(), &view, &tables)?;
            Ok((view, lost))
        })
        .map_err(unreadable)?;
        if let Some(lost) = lost {
            return Err(OpenError::Behind { dir: log_dir, node, lost });
        }
        let file = sync_handle(&log_dir).map_err(unreadable)?;
        Self::start(dir, tables, view, mark, file).map_err(unreadable)
    }

    fn start(
        dir: &DataDir,
        tables: Tables,
        view: View,
        mark: MarkFile,
        file: File,
    ) -> io::Result<Self> {
        let (queue, operations) = mpsc::channel();
        let end = Mark { last: view.last, vote: view.vote };
        // Leftovers of a purge that was cut short are removed along the way.
        let purge = view.purged.map(|id| id.index);
        let shared = Arc::new(Shared {
            view: RwLock::new(view),
            queue,
            room: Arc::new(Semaphore::new(ROOM_PIECES)),
            tables: tables.clone(),
            failure: OnceLock::new(),
            sync_observer: OnceLock::new(),
            appends: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            truncations: AtomicU64::new(0),
            mark_due: AtomicBool::new(false),
            _dir: dir.clone(),
        });
        let writer = Writer::new(Arc::clone(&shared), tables, file, mark, end, purge);
        let writer = thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || writer.run(&operations))?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// A handle for whoever watches the log while openraft owns it.
    pub fn monitor(&self) -> LogMonitor {
        LogMonitor(Arc::clone(&self.shared))
    }
}

impl Drop for LogStore {
    /// Makes everything durable and ends the writer; takes as long as a sync or two.
    fn drop(&mut self) {
        let (done, _) = oneshot::channel();
        // An error means that it is closed already.
        drop(self.shared.send(Op::Close { done }, None));
        if let Some(writer) = self.writer.take() {
            // The writer answers for its own panics; there is nothing to add.
            drop(writer.join());
        }
    }
}

/// Watches a log: its size, its counters, its health.
#[derive(Debug, Clone)]
pub struct LogMonitor(Arc<Shared>);

impl LogMonitor {
    /// Counters and sizes.
    pub fn stats(&self) -> LogStats {
        let shared = &self.0;
        let view = shared.read_view();
        let (log_entries, tail_entries) = view.lens();
        LogStats {
            appends: shared.appends.load(Relaxed),
            entries: shared.entries.load(Relaxed),
            bytes: shared.bytes.load(Relaxed),
            syncs: shared.syncs.load(Relaxed),
            truncations: shared.truncations.load(Relaxed),
            log_entries: log_entries as u64,
            log_bytes: view.bytes_since(None),
            tail_entries: tail_entries as u64,
        }
    }

    /// Bytes of the entries behind `snapshot` (`None`: of the whole log): when there are many, it is
    /// time for the next snapshot.
    pub fn bytes_since(&self, snapshot: Option<&LogId>) -> u64 {
        self.0.read_view().bytes_since(snapshot.map(|id| id.index))
    }

    /// Up to which index (inclusive) the log has to be purged so that at most `bytes` stay; `None` if
    /// they are no more than that now. Never purge beyond the snapshot.
    pub fn purge_point(&self, bytes: u64) -> Option<u64> {
        self.0.read_view().index_leaving(bytes)
    }

    /// Asks for the high-water mark to be brought up to date with the next sync. The store does so by
    /// itself after a second of quiet and after a number of syncs; who has a clock can ask for it once
    /// a second. Costs nothing when nothing was written.
    pub fn checkpoint(&self) {
        self.0.mark_due.store(true, Relaxed);
    }

    /// Has syncs observed from now on. The first observer stays.
    pub fn observe_syncs(&self, observer: Arc<dyn SyncObserver>) {
        drop(self.0.sync_observer.set(observer));
    }

    /// The error that ended all writing, if there was one: the process has to end.
    pub fn failure(&self) -> Option<String> {
        self.0.failure.get().map(ToString::to_string)
    }

    /// Makes everything durable and ends the writer. To be called after openraft was shut down; every
    /// later write fails.
    pub async fn close(&self) -> io::Result<()> {
        self.0.close().await
    }
}

/// Reads entries: openraft's `RaftLogReader`.
#[derive(Debug, Clone)]
pub struct LogReader(Arc<Shared>);

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        self.0.read(bounds(&range))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.0.read_view().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let end = self.0.read_view().end_within(start, end, REPLICATION_BYTES_MAX);
        self.0.read(start..end)
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let view = self.shared.read_view();
        Ok(LogState { last_purged_log_id: view.purged, last_log_id: view.last })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader(Arc::clone(&self.shared))
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let room = self.shared.room_for(0).await?;
        let (done, saved) = oneshot::channel();
        self.shared.send(Op::Vote { vote: *vote, done }, Some(room))?;
        saved.await.unwrap_or_else(|_| Err(self.shared.error()))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let room = self.shared.room_for(0).await?;
        self.shared.write_view().committed = committed;
        self.shared.send(Op::Committed(committed), Some(room))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared.read_view().committed)
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let encoded = entries.iter().map(Encoded::new).collect::<io::Result<Vec<_>>>()?;
        let room = self.shared.room_for(encoded.iter().map(Encoded::len).sum()).await?;
        let last = entries.last().map(|entry| entry.log_id);
        let epoch = self.shared.write_view().append(entries, &encoded)?;
        self.shared.send(Op::Append { entries: encoded, last, epoch, done }, Some(room))
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let room = self.shared.room_for(0).await?;
        let last = {
            let mut view = self.shared.write_view();
            view.truncate_after(last_log_id);
            view.last
        };
        self.shared.send(Op::Truncate { last }, Some(room))
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let room = self.shared.room_for(0).await?;
        self.shared.write_view().purge(log_id);
        self.shared.send(Op::Purge { upto: log_id }, Some(room))
    }
}

/// Reads what sled has into a view.
fn recover(tables: &Tables) -> io::Result<View> {
    let purged: Option<LogId> = tables.get(MetaKey::Purged)?.flatten();
    let sizes = tables.sizes(next_index(purged.as_ref()))?;
    let last = match sizes.last() {
        Some((index, _)) => entry_id(tables, *index)?,
        None => purged,
    };
    let mut view = View::recovered(purged, last, sizes);
    view.vote = tables.get(MetaKey::Vote)?;
    // It is written behind the entries that it names, but not synced with them; openraft takes a
    // commit beyond the end of the log for a corrupted store.
    view.committed = tables.get(MetaKey::Committed)?.flatten().min(last);
    let tail = tables.entries(view.range_for_tail())?;
    view.fill_tail(tail);
    Ok(view)
}

fn entry_id(tables: &Tables, index: u64) -> io::Result<Option<LogId>> {
    Ok(tables.entries(index..index + 1)?.first().map(|entry| entry.log_id))
}

/// What the mark says and the store does not have, in words.
fn lost(mark: &Mark, view: &View, tables: &Tables) -> io::Result<Option<String>> {
    if let Some(vote) = &mark.vote
        && view.vote.as_ref().and_then(|saved| saved.partial_cmp(vote)).is_none_or(Ordering::is_lt)
    {
        return Ok(Some(format!("it had saved the vote {vote}, and has {:?}", view.vote)));
    }
    let Some(last) = &mark.last else { return Ok(None) };
    if view.purged.as_ref().is_some_and(|purged| purged.index >= last.index) {
        return Ok(None);
    }
    let found = entry_id(tables, last.index)?;
    Ok((found.as_ref() != Some(last)).then(|| {
        let end = view.last.map_or_else(|| "is empty".to_owned(), |id| format!("ends at {id}"));
        format!("it had reached entry {last}, and now {end}")
    }))
}
