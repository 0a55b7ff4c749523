//! The high-water mark: what the log once held, kept outside the log.
//!
//! A file of sled's that lost its end opens without an error and with entries missing. A server that
//! forgot entries it acknowledged, or a vote it gave, can break the cluster's promises; so a second
//! small file remembers how far the log had come, and a log that is behind it is not opened.
//!
//! The mark never claims too much: it is raised only *after* the sync that made durable what it
//! says, and lowered *before* a truncation removes what it says.
//!
//! Two slots are written in turn. A write that is cut short damages one, and the other still holds
//! the state before it, which by the rule above is still true.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::durable::{self, Kind};
use crate::raft::{LogId, Vote};
use crate::regular;

const SLOT: Kind = Kind { magic: b"QRTMARK\0", format: 1 };
/// Each slot has a disk block of its own, so that a torn write damages only one.
const SLOT_BYTES: u64 = 4096;

/// What a log has to hold at least.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// The last entry (or the last purged one).
    pub(crate) last: Option<LogId>,
    /// The vote.
    pub(crate) vote: Option<Vote>,
}

/// A slot as it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Slot {
    sequence: u64,
    mark: Mark,
}

/// The file, with what it says.
#[derive(Debug)]
pub(crate) struct MarkFile {
    file: File,
    sequence: u64,
    mark: Mark,
}

impl MarkFile {
    /// Makes a durable file with an empty mark, replacing what is there.
    pub(crate) fn create(path: &Path) -> io::Result<()> {
        let mut slot = durable::seal(SLOT, &Slot { sequence: 0, mark: Mark::default() })?;
        slot.resize(2 * usize::try_from(SLOT_BYTES).map_err(io::Error::other)?, 0);
        durable::replace_file(path, &slot)
    }

    /// Opens the file; a missing one is an error of kind `NotFound`, one without a sound slot of kind
    /// `InvalidData`.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        regular::check(path)?;
        let file = File::options().read(true).write(true).open(path)?;
        let (first, second) = (read_slot(&file, 0), read_slot(&file, SLOT_BYTES));
        let newest = match (first, second) {
            (Ok(a), Ok(b)) => Ok(if a.sequence > b.sequence { a } else { b }),
            (Ok(slot), Err(_)) | (Err(_), Ok(slot)) => Ok(slot),
            (Err(what), Err(_)) => Err(io::Error::new(io::ErrorKind::InvalidData, what)),
        }?;
        Ok(Self { file, sequence: newest.sequence, mark: newest.mark })
    }

    /// What the file says.
    pub(crate) fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Writes a new mark; it is on the disk when this returns.
    pub(crate) fn write(&mut self, mark: Mark) -> io::Result<()> {
        let slot = Slot { sequence: self.sequence + 1, mark };
        let mut sealed = durable::seal(SLOT, &slot)?;
        let len = usize::try_from(SLOT_BYTES).map_err(io::Error::other)?;
        if sealed.len() > len {
            return Err(io::Error::other("a high-water mark does not fit into its slot"));
        }
        sealed.resize(len, 0);
        self.file.write_all_at(&sealed, slot.sequence % 2 * SLOT_BYTES)?;
        self.file.sync_data()?;
        self.sequence = slot.sequence;
        self.mark = slot.mark;
        Ok(())
    }
}

fn read_slot(file: &File, offset: u64) -> Result<Slot, String> {
    let mut bytes = Vec::new();
    let mut block = [0; 512];
    while (bytes.len() as u64) < SLOT_BYTES {
        match file.read_at(&mut block, offset + bytes.len() as u64) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&block[..n]),
            Err(e) => return Err(e.to_string()),
        }
    }
    durable::unseal(SLOT, &bytes)
}
