//! What the log holds at this moment, in memory: the truth for readers, ahead of the disk.
//!
//! `append`, `truncate_after` and `purge` change the view at once and leave the disk to the writer;
//! readers take recent entries from the view and older ones from sled. An entry leaves the view only
//! after the writer has said that sled has it, so nobody ever has to wait for the disk to read.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use super::codec::Encoded;
use crate::raft::{Entry, LogId, Vote};

/// How many entries stay in memory, at most ...
pub(crate) const TAIL_ENTRIES_MAX: usize = 20_000;
/// ... and how many bytes of them, as encoded. Entries that are not yet in sled stay in any case;
/// what waits for the writer is bounded by the queue's own limit.
pub(crate) const TAIL_BYTES_MAX: usize = 16 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) purged: Option<LogId>,
    /// The last entry, or what was purged last.
    pub(crate) last: Option<LogId>,
    /// The last vote that is on the disk.
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    sizes: Sizes,
    tail: VecDeque<(Entry, usize)>,
    tail_bytes: usize,
    /// Entries below this index are in sled.
    stored_end: u64,
    /// Counts truncations: a report that the writer made of an earlier history says nothing of the
    /// entries that now have its indexes.
    epoch: u64,
}

/// Running totals of bytes: from them any stretch of the log has its size at once.
#[derive(Debug, Default)]
struct Sizes {
    /// Index of the first entry.
    first: u64,
    /// Total before the first entry.
    base: u64,
    /// Total after each entry.
    ends: VecDeque<u64>,
}

impl Sizes {
    fn total(&self) -> u64 {
        self.ends.back().copied().unwrap_or(self.base)
    }

    fn range(&self) -> Range<u64> {
        self.first..self.first + self.ends.len() as u64
    }

    /// The total after the entry at `index`, or the nearest there is.
    fn end_of(&self, index: u64) -> u64 {
        match index.checked_sub(self.first) {
            None => self.base,
            Some(at) => {
                position(at).and_then(|at| self.ends.get(at)).copied().unwrap_or(self.total())
            }
        }
    }

    fn push(&mut self, index: u64, bytes: usize) {
        if self.ends.is_empty() {
            self.first = index;
        }
        self.ends.push_back(self.total() + bytes as u64);
    }

    fn drop_through(&mut self, index: u64) {
        while self.first <= index
            && let Some(end) = self.ends.pop_front()
        {
            self.base = end;
            self.first += 1;
        }
    }

    fn keep_below(&mut self, end: u64) {
        let len = end.saturating_sub(self.first);
        self.ends.truncate(position(len).unwrap_or(usize::MAX));
    }
}

fn position(offset: u64) -> Option<usize> {
    usize::try_from(offset).ok()
}

/// The index after a log id; 0 after none.
pub(crate) fn next_index(id: Option<&LogId>) -> u64 {
    id.map_or(0, |id| id.index + 1)
}

impl View {
    /// A view of what is on the disk: the sizes of all entries, and no entry in memory yet.
    pub(crate) fn recovered(
        purged: Option<LogId>,
        last: Option<LogId>,
        sizes: impl IntoIterator<Item = (u64, usize)>,
    ) -> Self {
        let mut view =
            Self { purged, last, stored_end: next_index(last.as_ref()), ..Self::default() };
        for (index, bytes) in sizes {
            view.sizes.push(index, bytes);
        }
        view
    }

    /// The entries that fit into memory, counted from the end of the log.
    pub(crate) fn range_for_tail(&self) -> Range<u64> {
        let range = self.sizes.range();
        let by_bytes = self.index_leaving(TAIL_BYTES_MAX as u64).map_or(range.start, |i| i + 1);
        let by_count = range.end.saturating_sub(TAIL_ENTRIES_MAX as u64);
        by_bytes.max(by_count).clamp(range.start, range.end)..range.end
    }

    /// Takes the entries of [`range_for_tail`](Self::range_for_tail).
    pub(crate) fn fill_tail(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            let bytes = self.bytes_of(entry.log_id.index);
            self.tail_bytes += bytes;
            self.tail.push_back((entry, bytes));
        }
    }

    fn bytes_of(&self, index: u64) -> usize {
        let before = index.checked_sub(1).map_or(self.sizes.base, |i| self.sizes.end_of(i));
        position(self.sizes.end_of(index) - before).unwrap_or(usize::MAX)
    }

    /// Adds entries with their encoded form. Refuses to leave a hole.
    pub(crate) fn append(&mut self, entries: Vec<Entry>, encoded: &[Encoded]) -> io::Result<u64> {
        let mut expected = self.last.as_ref().map(|last| last.index + 1);
        for entry in &entries {
            let index = entry.log_id.index;
            if expected.is_some_and(|expected| expected != index) {
                let last = self.last;
                let what = format!("entry {index} cannot follow {last:?}: there would be a hole");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
            expected = Some(index + 1);
        }
        for (entry, encoded) in entries.into_iter().zip(encoded) {
            self.last = Some(entry.log_id);
            self.sizes.push(entry.log_id.index, encoded.len());
            self.tail_bytes += encoded.len();
            self.tail.push_back((entry, encoded.len()));
        }
        Ok(self.epoch)
    }

    /// The writer has given the entries below `end` to sled.
    pub(crate) fn stored(&mut self, end: u64, epoch: u64) {
        if epoch == self.epoch {
            self.stored_end = self.stored_end.max(end);
            self.shrink_tail();
        }
    }

    fn shrink_tail(&mut self) {
        while self.tail.len() > TAIL_ENTRIES_MAX || self.tail_bytes > TAIL_BYTES_MAX {
            match self.tail.front() {
                Some((entry, _)) if entry.log_id.index < self.stored_end => self.pop_front(),
                Some(_) | None => break,
            }
        }
    }

    fn pop_front(&mut self) {
        if let Some((_, bytes)) = self.tail.pop_front() {
            self.tail_bytes -= bytes;
        }
    }

    /// Removes the entries behind `keep`.
    pub(crate) fn truncate_after(&mut self, keep: Option<LogId>) {
        let end = next_index(keep.as_ref());
        if end >= next_index(self.last.as_ref()) {
            return;
        }
        self.epoch += 1;
        self.stored_end = self.stored_end.min(end);
        self.sizes.keep_below(end);
        while let Some((entry, bytes)) = self.tail.back()
            && entry.log_id.index >= end
        {
            self.tail_bytes -= bytes;
            self.tail.pop_back();
        }
        self.last = keep.max(self.purged);
    }

    /// Removes the entries up to and including `upto`.
    pub(crate) fn purge(&mut self, upto: LogId) {
        self.purged = self.purged.max(Some(upto));
        self.sizes.drop_through(upto.index);
        while self.tail.front().is_some_and(|(entry, _)| entry.log_id.index <= upto.index) {
            self.pop_front();
        }
        if next_index(self.last.as_ref()) <= upto.index {
            self.last = Some(upto);
        }
    }

    /// Whether what was read from sled can be trusted: since [`read`](Self::read) said `epoch`, nothing
    /// was truncated, and nothing of the range was purged.
    pub(crate) fn still_holds(&self, range: &Range<u64>, epoch: u64) -> bool {
        self.epoch == epoch && self.sizes.first <= range.start
    }

    /// Splits a range into the part to read from sled and the entries that are in memory; also the
    /// number of this history.
    pub(crate) fn read(&self, range: Range<u64>) -> (Range<u64>, Vec<Entry>, u64) {
        let held = self.sizes.range();
        let start = range.start.max(held.start);
        let end = range.end.min(held.end);
        let tail_start = self.tail.front().map_or(end, |(entry, _)| entry.log_id.index);
        let (Some(from), Some(to)) =
            (position(start.saturating_sub(tail_start)), position(end.saturating_sub(tail_start)))
        else {
            return (start..start, Vec::new(), self.epoch);
        };
        let tail = match from < to {
            true => self.tail.range(from..to).map(|(entry, _)| entry.clone()).collect(),
            false => Vec::new(),
        };
        (start..end.min(tail_start).max(start), tail, self.epoch)
    }

    /// The end of the longest stretch from `start` that has at most `bytes`, but one entry in any
    /// case.
    pub(crate) fn end_within(&self, start: u64, end: u64, bytes: u64) -> u64 {
        let held = self.sizes.range();
        let start = start.max(held.start);
        let before = start.checked_sub(1).map_or(self.sizes.base, |i| self.sizes.end_of(i));
        let fitting =
            self.sizes.ends.partition_point(|total| total.saturating_sub(before) <= bytes);
        end.min((held.start + fitting as u64).max(start + 1))
    }

    /// Bytes of the entries behind `index` (`None`: of all).
    pub(crate) fn bytes_since(&self, index: Option<u64>) -> u64 {
        self.sizes.total() - index.map_or(self.sizes.base, |index| self.sizes.end_of(index))
    }

    /// The smallest index behind which there are at most `bytes`; `None` if that holds for the whole
    /// log.
    pub(crate) fn index_leaving(&self, bytes: u64) -> Option<u64> {
        let total = self.sizes.total();
        if total - self.sizes.base <= bytes {
            return None;
        }
        let at = self.sizes.ends.partition_point(|end| total - end > bytes);
        Some(self.sizes.first + at as u64)
    }

    /// Number of entries, and of those in memory.
    pub(crate) fn lens(&self) -> (usize, usize) {
        (self.sizes.ends.len(), self.tail.len())
    }
}
