//! A Raft log in memory. Clones share it, so that it outlives the server that is restarted on it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend, RaftLogReader};
use quorate_storage::command::Command;
use quorate_storage::raft::{Entry, LogId, TypeConfig, Vote};

#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryLog(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    entries: BTreeMap<u64, Entry>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    committed: Option<LogId>,
}

impl MemoryLog {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has what writes this key write another value, as a forged entry would, or one that was damaged where no
    /// checksum sees it. Returns how many entries were changed.
    pub(crate) fn forge(&self, forged: &str) -> usize {
        let mut changed = 0;
        for entry in self.content().entries.values_mut() {
            let EntryPayload::Normal(batch) = &mut entry.payload else { continue };
            let commands = batch.parts.iter_mut().flat_map(|part| &mut part.commands);
            for (_, command) in commands {
                if let Command::KvPut { key, value, .. } = command
                    && **key == *forged
                {
                    *value = "forged".into();
                    changed += 1;
                }
            }
        }
        changed
    }
}

impl RaftLogReader<TypeConfig> for MemoryLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        Ok(self.content().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.content().vote)
    }
}

impl RaftLogStorage<TypeConfig> for MemoryLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let content = self.content();
        let last = content.entries.values().next_back().map(|entry| entry.log_id);
        Ok(LogState { last_purged_log_id: content.purged, last_log_id: last.or(content.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.content().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.content().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.content().committed)
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(|entry| (entry.log_id.index, entry));
        self.content().entries.extend(entries);
        done.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let next = last.map_or(0, |last| last.index + 1);
        self.content().entries.split_off(&next);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let mut content = self.content();
        content.entries = content.entries.split_off(&(upto.index + 1));
        content.purged = content.purged.max(Some(upto));
        Ok(())
    }
}
