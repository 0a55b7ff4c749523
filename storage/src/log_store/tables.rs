//! The log's two tables in sled, and how they are opened.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec::{self, Assembly, damaged};
use crate::durable;
use crate::panics;
use crate::raft::Entry;
use crate::regular;

/// Segments this large keep chunks of 64 KiB out of sled's blob files. Part of the file format: sled
/// refuses to open a file with another size.
const SEGMENT_BYTES: usize = 8 << 20;
/// sled's page cache. Recent entries are in memory anyway; sled is read at start and for laggards.
const CACHE_BYTES: u64 = 16 << 20;
/// An earlier store of this process may take a moment to release sled's own lock; another process
/// cannot have it, because the data directory is locked.
const LOCK_ATTEMPTS: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// Format of a value in the meta table.
const META_FORMAT: u8 = 1;

/// Keys of the meta table.
#[derive(Debug, Clone, Copy)]
pub(crate) enum MetaKey {
    Vote,
    Committed,
    Purged,
}

impl MetaKey {
    fn name(self) -> &'static str {
        match self {
            Self::Vote => "vote",
            Self::Committed => "committed",
            Self::Purged => "purged",
        }
    }
}

/// The database and its tables. One database: so one file, one order, one sync.
#[derive(Debug, Clone)]
pub(crate) struct Tables {
    pub(crate) db: sled::Db,
    pub(crate) log: sled::Tree,
    meta: sled::Tree,
}

impl Tables {
    /// Never closes the database, which the process then leaves to the system. After an error of the disk
    /// there is nothing to write any more, and sled panics when it cannot sync while it is closed.
    pub(crate) fn keep_open(&self) {
        std::mem::forget(self.db.clone());
    }

    /// Opens or creates the database. Never removes anything that holds data: of what sled calls
    /// corrupted, only its recovery snapshots are moved aside, because sled can do without them.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        refuse_what_is_no_file(dir)?;
        // Left behind by an open that was cut short; sled would take it for a corrupted snapshot.
        for path in recovery_snapshots(dir)? {
            if path.extension().is_some_and(|e| e == "generating") {
                tracing::warn!(path = %path.display(), "removing an unfinished recovery snapshot");
                fs::remove_file(path)?;
            }
        }
        let db = match open_db(dir) {
            Err(sled::Error::Corruption { .. }) => {
                move_snapshots_aside(dir)?;
                open_db(dir)
            }
            opened => opened,
        }?;
        let tables = Self { log: db.open_tree("log")?, meta: db.open_tree("meta")?, db };
        tables.db.flush()?;
        Ok(tables)
    }

    /// A second descriptor of sled's file, to sync it through; everything in the directory is durable
    /// when it is returned.
    pub(crate) fn sync_handle(dir: &Path) -> io::Result<File> {
        let file = File::options().read(true).write(true).open(dir.join("db"))?;
        file.sync_all()?;
        durable::sync_dir(dir)?;
        durable::sync_parent(dir)?;
        Ok(file)
    }

    pub(crate) fn put<T: Serialize>(&self, key: MetaKey, value: &T) -> io::Result<()> {
        let bytes = postcard::to_extend(value, vec![META_FORMAT]).map_err(io::Error::other)?;
        self.meta.insert(key.name(), bytes)?;
        Ok(())
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, key: MetaKey) -> io::Result<Option<T>> {
        let Some(bytes) = self.meta.get(key.name())? else { return Ok(None) };
        match bytes.split_first() {
            Some((&META_FORMAT, bytes)) => postcard::from_bytes(bytes)
                .map(Some)
                .map_err(|e| damaged(format!("{} cannot be decoded: {e}", key.name()))),
            Some((format, _)) => {
                Err(damaged(format!("{} has the unknown format {format}", key.name())))
            }
            None => Err(damaged(format!("{} is empty", key.name()))),
        }
    }

    /// Index and size of every entry from `start` on. An error if there is a hole.
    pub(crate) fn sizes(&self, start: u64) -> io::Result<Vec<(u64, usize)>> {
        let mut sizes = Vec::new();
        self.scan(start..u64::MAX, |index, bytes| {
            let expected = start + sizes.len() as u64;
            if index != expected {
                return Err(damaged(format!("entry {expected} is missing before {index}")));
            }
            sizes.push((index, bytes.len()));
            Ok(())
        })?;
        Ok(sizes)
    }

    /// The entries of a range, as far as they are there.
    pub(crate) fn entries(&self, range: Range<u64>) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        self.scan(range, |_, bytes| {
            entries.push(codec::decode(bytes)?);
            Ok(())
        })?;
        Ok(entries)
    }

    fn scan(
        &self,
        range: Range<u64>,
        mut visit: impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut assembly = Assembly::default();
        for item in self.log.range(codec::key(range.start, 0)..codec::key(range.end, 0)) {
            let (key, value) = item?;
            if let Some((index, bytes)) = assembly.push(&key, &value)? {
                visit(index, &bytes)?;
            }
        }
        if assembly.is_complete() { Ok(()) } else { Err(damaged("the last entry is truncated")) }
    }
}

fn open_db(dir: &Path) -> Result<sled::Db, sled::Error> {
    let open = || {
        sled::Config::new()
            .path(dir)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .open()
    };
    for _ in 1..LOCK_ATTEMPTS {
        match guard(|| Ok(open())).unwrap_or_else(|panic| Err(panic.into())) {
            Err(sled::Error::Io(e)) if e.to_string().contains("could not acquire lock") => {
                thread::sleep(LOCK_PAUSE);
            }
            opened => return opened,
        }
    }
    open()
}

/// Runs something that calls sled, which panics where other libraries return an error: on some
/// damaged files, or when the disk is full.
pub(crate) fn guard<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    // Whoever gets the error stops using the store, so nothing half done is ever seen.
    panics::contain(call)
        .unwrap_or_else(|message| Err(io::Error::other(format!("sled panicked: {message}"))))
}

/// sled opens what it finds, and would wait for a pipe, or read a device without end.
fn refuse_what_is_no_file(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        // A broken link is sled's to report.
        let is_there = path.exists();
        if is_there && !path.is_dir() {
            regular::check(&path).map_err(|error| durable::at_path(&path, &error))?;
        }
    }
    Ok(())
}

fn recovery_snapshots(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for file in fs::read_dir(dir)? {
        let file = file?;
        if file.file_name().to_string_lossy().starts_with("snap.") {
            found.push(file.path());
        }
    }
    Ok(found)
}

fn move_snapshots_aside(dir: &Path) -> io::Result<()> {
    for path in recovery_snapshots(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let aside = dir.join(format!("aside-{name}"));
        tracing::warn!(path = %path.display(), aside = %aside.display(), "sled reports corrupted files; trying again without its recovery snapshot");
        fs::rename(&path, aside)?;
    }
    durable::sync_dir(dir)
}
