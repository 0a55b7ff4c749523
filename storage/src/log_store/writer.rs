//! The thread that owns every write to the disk.
//!
//! It takes what is waiting in the queue, gives it to sled in order, makes it durable with one sync,
//! and then answers in order. So votes and entries keep their order, and the cost of a sync is shared
//! by all that waited for it.
//!
//! sled's `flush` only starts the writing (`sync_file_range`), so it is followed by an `fdatasync`
//! through a second descriptor of the same file. Log and vote live in that one file: one sync covers
//! both.
//!
//! An error is final. After a failed sync nobody can know what is on the disk, so the writer never
//! touches it again: what waits, and all that comes later, gets the error, openraft stops, and the
//! process ends.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use openraft::storage::IOFlushed;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::Shared;
use super::codec::{self, Encoded};
use super::tables::{MetaKey, Tables, guard};
use super::view::next_index;
use crate::mark::{Mark, MarkFile};
use crate::raft::{LogId, TypeConfig, Vote};

/// After so long without work the mark is brought up to date.
const QUIET: Duration = Duration::from_secs(1);
/// Under load the mark is brought up to date at least with every so many syncs: a small part of what
/// the syncs cost, without asking for the time.
const SYNCS_PER_MARK: u32 = 64;
/// No more than this is taken from the queue at once, so that the first in it need not wait for all.
const GROUP_BYTES_MAX: usize = 4 << 20;
/// Likewise, in operations.
const GROUP_OPS_MAX: usize = 1024;
/// So many keys are purged before the queue is looked at again.
const PURGE_KEYS: usize = 512;

/// A change to make durable.
pub(crate) enum Op {
    Append {
        entries: Vec<Encoded>,
        last: Option<LogId>,
        epoch: u64,
        done: IOFlushed<TypeConfig>,
    },
    Vote {
        vote: Vote,
        done: oneshot::Sender<io::Result<()>>,
    },
    Committed(Option<LogId>),
    /// `last` is the end of the log afterwards.
    Truncate {
        last: Option<LogId>,
    },
    Purge {
        upto: LogId,
    },
    Close {
        done: oneshot::Sender<io::Result<()>>,
    },
}

/// An operation with its share of the queue's room, which is free again once it is answered.
pub(crate) struct Queued {
    pub(crate) op: Op,
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

/// Whom to notify when a group is on the disk.
enum Waiter {
    Append(IOFlushed<TypeConfig>),
    Vote(Vote, oneshot::Sender<io::Result<()>>),
    Close(oneshot::Sender<io::Result<()>>),
}

impl Waiter {
    fn answer(self, result: io::Result<()>) {
        match self {
            Self::Append(done) => done.io_completed(result),
            // Whoever asked may have been cancelled; then nobody wants to know.
            Self::Vote(_, done) | Self::Close(done) => drop(done.send(result)),
        }
    }
}

/// Entries on their way to sled.
#[derive(Default)]
struct PendingBatch {
    batch: sled::Batch,
    /// The view's history that they belong to: the same for all, as truncations stand between.
    epoch: u64,
}

/// See the module.
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tables: Tables,
    /// A second descriptor of sled's file.
    pub(crate) file: File,
    pub(crate) mark: MarkFile,
    /// End of the log and vote, as given to sled.
    pub(crate) last: Option<LogId>,
    pub(crate) vote: Option<Vote>,
    /// Everything up to here is to be removed from sled.
    pub(crate) purge: Option<u64>,
    waiting: Vec<Waiter>,
    /// Something was given to sled that no sync has covered.
    dirty: bool,
    syncs_since_mark: u32,
    /// Entries of this group that sled does not have yet: each batch costs sled writes of its own, so
    /// a group is one batch unless something stands between its entries.
    batch: Option<PendingBatch>,
    /// The newest commit that was asked for in this group.
    committed: Option<Option<LogId>>,
    closing: bool,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        tables: Tables,
        file: File,
        mark: MarkFile,
        end: Mark,
        purge: Option<u64>,
    ) -> Self {
        Self {
            shared,
            tables,
            file,
            mark,
            last: end.last,
            vote: end.vote,
            purge,
            waiting: Vec::new(),
            // What an earlier process left unsynced counts as unsynced.
            dirty: true,
            syncs_since_mark: 0,
            batch: None,
            committed: None,
            closing: false,
        }
    }

    /// Works until the store is closed. Returns only after everything is answered.
    pub(crate) fn run(mut self, queue: &Receiver<Queued>) {
        while !self.closing {
            if let Err(error) = guard(|| self.work(queue)) {
                self.shared.fail(&error);
                self.tables.keep_open();
                self.answer_failed(queue);
            }
        }
        // Whoever comes now finds no room; who had it already is told.
        self.shared.room.close();
        while let Ok(queued) = queue.try_recv() {
            self.wait_for(queued.op);
        }
        let shared = Arc::clone(&self.shared);
        for waiter in self.waiting.drain(..) {
            match waiter {
                Waiter::Close(_) => waiter.answer(shared.check()),
                Waiter::Append(_) | Waiter::Vote(..) => waiter.answer(Err(shared.error())),
            }
        }
    }

    /// One round: a group of operations, or a piece of the housekeeping.
    fn work(&mut self, queue: &Receiver<Queued>) -> io::Result<()> {
        if self.purge.is_some() {
            return match queue.try_recv() {
                Ok(first) => self.commit(first, queue),
                Err(_) => self.purge_some(),
            };
        }
        match queue.recv_timeout(QUIET) {
            Ok(first) => self.commit(first, queue),
            Err(RecvTimeoutError::Timeout) => self.raise_mark(),
            Err(RecvTimeoutError::Disconnected) => {
                self.closing = true;
                self.raise_mark()
            }
        }
    }

    /// Group commit.
    fn commit(&mut self, first: Queued, queue: &Receiver<Queued>) -> io::Result<()> {
        let (mut bytes, mut ops) = (0, 0);
        // The room of the group is free again when it is answered.
        let mut rooms = Vec::new();
        let mut next = Some(first);
        while let Some(Queued { op, room }) = next {
            bytes += op.bytes();
            ops += 1;
            rooms.extend(room);
            self.write(op)?;
            let full = self.closing || bytes >= GROUP_BYTES_MAX || ops >= GROUP_OPS_MAX;
            next = if full { None } else { queue.try_recv().ok() };
        }
        self.apply_batch()?;
        if let Some(committed) = self.committed.take() {
            self.put(MetaKey::Committed, &committed)?;
        }
        self.finish_group()
    }

    fn finish_group(&mut self) -> io::Result<()> {
        if self.closing {
            self.raise_mark()?;
        } else if !self.waiting.is_empty() {
            self.sync()?;
        }
        self.answer(|| Ok(()));
        let due = self.shared.mark_due.swap(false, Relaxed);
        if due || self.syncs_since_mark >= SYNCS_PER_MARK { self.raise_mark() } else { Ok(()) }
    }

    /// Gives one operation to sled.
    fn write(&mut self, op: Op) -> io::Result<()> {
        match op {
            Op::Append { entries, last, epoch, done } => {
                self.waiting.push(Waiter::Append(done));
                self.append(&entries, last, epoch);
                Ok(())
            }
            Op::Vote { vote, done } => {
                self.waiting.push(Waiter::Vote(vote, done));
                self.apply_batch()?;
                self.vote = Some(vote);
                self.put(MetaKey::Vote, &vote)
            }
            Op::Committed(id) => {
                // Only the last one of a group counts, and it is written behind the entries it names.
                self.committed = Some(id);
                Ok(())
            }
            Op::Truncate { last } => self.truncate(last),
            Op::Purge { upto } => self.begin_purge(upto),
            Op::Close { done } => {
                self.waiting.push(Waiter::Close(done));
                self.closing = true;
                Ok(())
            }
        }
    }

    fn append(&mut self, entries: &[Encoded], last: Option<LogId>, epoch: u64) {
        let pending = self.batch.get_or_insert_default();
        for (key, chunk) in entries.iter().flat_map(Encoded::chunks) {
            pending.batch.insert(&key, chunk);
        }
        pending.epoch = epoch;
        self.last = last.or(self.last);
        self.shared.note_appended(entries);
    }

    /// Gives the collected entries to sled. One batch: a crash leaves all of it or none, and never
    /// half an entry.
    fn apply_batch(&mut self) -> io::Result<()> {
        let Some(pending) = self.batch.take() else { return Ok(()) };
        self.dirty = true;
        self.tables.log.apply_batch(pending.batch)?;
        // From now on the view may drop them.
        self.shared.write_view().stored(next_index(self.last.as_ref()), pending.epoch);
        Ok(())
    }

    fn put<T: Serialize>(&mut self, key: MetaKey, value: &T) -> io::Result<()> {
        self.dirty = true;
        self.tables.put(key, value)
    }

    fn truncate(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.apply_batch()?;
        if self.mark.mark().last > last {
            // From the moment when entries begin to vanish, nothing may claim that they are there.
            self.mark.write(Mark { last, vote: self.mark.mark().vote })?;
        }
        let mut removal = sled::Batch::default();
        for key in self.tables.log.range(codec::key(next_index(last.as_ref()), 0)..).keys() {
            removal.remove(key?);
        }
        // One batch: a crash leaves all of these entries or none, and so no hole.
        self.tables.log.apply_batch(removal)?;
        self.dirty = true;
        self.last = last;
        self.shared.note_truncated();
        Ok(())
    }

    /// What is purged is forgotten at once, and removed little by little.
    fn begin_purge(&mut self, upto: LogId) -> io::Result<()> {
        self.apply_batch()?;
        self.put(MetaKey::Purged, &Some(upto))?;
        if next_index(self.last.as_ref()) <= upto.index {
            self.last = Some(upto);
        }
        self.purge = self.purge.max(Some(upto.index));
        Ok(())
    }

    fn purge_some(&mut self) -> io::Result<()> {
        let Some(upto) = self.purge else { return Ok(()) };
        let mut removal = sled::Batch::default();
        let mut keys = 0;
        for key in self.tables.log.range(..=codec::key(upto, u16::MAX)).keys().take(PURGE_KEYS) {
            removal.remove(key?);
            keys += 1;
        }
        self.tables.log.apply_batch(removal)?;
        self.dirty = true;
        if keys < PURGE_KEYS {
            self.purge = None;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.shared.sync_begins();
        self.tables.db.flush()?;
        self.file.sync_data()?;
        self.dirty = false;
        self.syncs_since_mark += 1;
        self.shared.note_sync();
        Ok(())
    }

    /// Brings the mark up to what is on the disk.
    fn raise_mark(&mut self) -> io::Result<()> {
        if self.dirty {
            self.sync()?;
        }
        self.syncs_since_mark = 0;
        let now = Mark { last: self.last, vote: self.vote };
        if *self.mark.mark() == now { Ok(()) } else { self.mark.write(now) }
    }

    fn answer(&mut self, result: impl Fn() -> io::Result<()>) {
        for waiter in self.waiting.drain(..) {
            let result = result();
            if let (Waiter::Vote(vote, _), Ok(())) = (&waiter, &result) {
                self.shared.write_view().vote = Some(*vote);
            }
            waiter.answer(result);
        }
    }

    /// Queues whoever waits for an operation that will not be carried out.
    fn wait_for(&mut self, op: Op) {
        match op {
            Op::Append { done, .. } => self.waiting.push(Waiter::Append(done)),
            Op::Vote { vote, done } => self.waiting.push(Waiter::Vote(vote, done)),
            Op::Close { done } => {
                self.closing = true;
                self.waiting.push(Waiter::Close(done));
            }
            Op::Committed(_) | Op::Truncate { .. } | Op::Purge { .. } => {}
        }
    }

    /// After a failure: reports it to every waiter, until the store is closed.
    fn answer_failed(&mut self, queue: &Receiver<Queued>) {
        loop {
            let shared = Arc::clone(&self.shared);
            self.answer(|| Err(shared.error()));
            if self.closing {
                return;
            }
            match queue.recv() {
                Ok(queued) => self.wait_for(queued.op),
                Err(_) => self.closing = true,
            }
        }
    }
}

impl Op {
    fn bytes(&self) -> usize {
        match self {
            Self::Append { entries, .. } => entries.iter().map(Encoded::len).sum(),
            Self::Vote { .. }
            | Self::Committed(_)
            | Self::Truncate { .. }
            | Self::Purge { .. }
            | Self::Close { .. } => 0,
        }
    }
}

/// An error for one more reader.
pub(crate) fn copy(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}
