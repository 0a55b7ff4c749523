//! The log of a server that does not run: read without a writer, or made anew with nothing in it.

use std::io;

use super::tables::{MetaKey, Tables, guard};
use super::view::next_index;
use super::{OpenError, lost, recover};
use crate::data_dir::{DataDir, PartOfDir};
use crate::mark::{Mark, MarkFile};
use crate::raft::{Entry, LogId, Vote};

/// So many entries are read at once.
const ENTRIES_AT_ONCE: u64 = 256;

/// The log of a stopped server. Opening it changes no more than sled itself does.
#[derive(Debug)]
pub(crate) struct StoppedLog {
    tables: Tables,
    /// The last entry, or what was purged last.
    pub(crate) last: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    pub(crate) committed: Option<LogId>,
    pub(crate) vote: Option<Vote>,
    /// What it once held and does not hold now, in words.
    pub(crate) lost: Option<String>,
}

impl StoppedLog {
    /// Opens the log in a data directory, also one that lacks something.
    pub(crate) fn open(dir: &DataDir) -> Result<Self, OpenError> {
        let (log_dir, node) = (dir.log_dir(), dir.node_id());
        let unreadable = |source| OpenError::Unreadable { dir: log_dir.clone(), node, source };
        if !log_dir.is_dir() {
            return Err(unreadable(io::Error::new(io::ErrorKind::NotFound, "there is no log")));
        }
        let mark = MarkFile::open(&dir.mark_file());
        let tables = Tables::open(&log_dir).map_err(unreadable)?;
        let (view, lost) = guard(|| {
            let view = recover(&tables)?;
            let lost = match mark {
                Ok(mark) => lost(mark.mark(), &view, &tables)?,
                Err(error) => Some(format!(
                    "cannot check whether it is complete: its high-water mark cannot be read ({error})"
                )),
            };
            Ok((view, lost))
        })
        .map_err(unreadable)?;
        let (last, purged) = (view.last, view.purged);
        Ok(Self { tables, last, purged, committed: view.committed, vote: view.vote, lost })
    }

    /// Hands out the entries behind `after`, in order.
    pub(crate) fn visit(
        &self,
        after: Option<LogId>,
        mut visit: impl FnMut(Entry),
    ) -> io::Result<()> {
        let end = next_index(self.last.as_ref());
        let mut next = next_index(after.max(self.purged).as_ref());
        while next < end {
            let upto = end.min(next + ENTRIES_AT_ONCE);
            for entry in guard(|| self.tables.entries(next..upto))? {
                visit(entry);
            }
            next = upto;
        }
        Ok(())
    }
}

/// Makes a log, with its mark, that begins behind `end`, as after a snapshot up to there. Everything is on
/// the disk when this returns.
pub(crate) fn begin_behind(end: LogId, vote: Vote, part: &PartOfDir) -> io::Result<()> {
    let log_dir = part.log_dir();
    let tables = Tables::open(&log_dir)?;
    guard(|| {
        tables.put(MetaKey::Vote, &vote)?;
        tables.put(MetaKey::Purged, &Some(end))?;
        tables.put(MetaKey::Committed, &Some(end))?;
        tables.db.flush()?;
        Ok(())
    })?;
    Tables::sync_handle(&log_dir)?;
    MarkFile::create(&part.mark_file())?;
    MarkFile::open(&part.mark_file())?.write(Mark { last: Some(end), vote: Some(vote) })
}
