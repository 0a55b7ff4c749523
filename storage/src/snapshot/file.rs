//! Snapshots as files of a directory.
//!
//! A snapshot is written under a temporary name, synced, renamed to `snapshot-NUMBER` and the
//! directory synced; only then older ones are removed. So at every moment there is a complete newest
//! snapshot, and what was cut short is recognised by its name.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Snapshot, SnapshotSink, SnapshotSource, SnapshotStore, format};
use crate::advice::REPLACE_NODE;
use crate::{durable, regular};

const PREFIX: &str = "snapshot-";
const TEMPORARY: &str = "tmp";

/// Keeps snapshots in a directory of their own.
#[derive(Debug, Clone)]
pub struct FileSnapshots(Arc<Directory>);

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    temporaries: AtomicU64,
    /// Held while a number is given out and older snapshots are removed.
    committing: Mutex<()>,
}

impl FileSnapshots {
    /// Opens the directory, creating it if it is missing, and removes what was never committed. The
    /// directory must be used by one store only.
    ///
    /// # Errors
    /// Of the file system, with the path.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        prepare(&path).map_err(|error| durable::at_path(&path, &error))?;
        let directory =
            Directory { path, temporaries: AtomicU64::new(0), committing: Mutex::new(()) };
        Ok(Self(Arc::new(directory)))
    }

    fn sink(&self, purpose: Purpose) -> io::Result<Box<dyn SnapshotSink>> {
        let number = self.0.temporaries.fetch_add(1, Ordering::Relaxed);
        let path = self.0.path.join(format!("{number}.{TEMPORARY}"));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        let directory = Arc::clone(&self.0);
        Ok(Box::new(FileSink { file: Some(file), path, directory, purpose }))
    }
}

impl SnapshotStore for FileSnapshots {
    fn directory(&self) -> Option<&Path> {
        Some(&self.0.path)
    }

    fn create(&self) -> io::Result<Box<dyn SnapshotSink>> {
        self.sink(Purpose::Current)
    }

    fn spool(&self) -> io::Result<Box<dyn SnapshotSink>> {
        self.sink(Purpose::Spool)
    }

    fn current(&self) -> io::Result<Option<Snapshot>> {
        let mut damage = None;
        for (_, path) in self.0.committed()?.into_iter().rev() {
            match open_snapshot(&path) {
                Ok(snapshot) => return Ok(Some(snapshot)),
                Err(error) => {
                    tracing::error!(%error, "a snapshot cannot be read");
                    damage = damage.or(Some(error));
                }
            }
        }
        // The log behind a snapshot is purged: a damaged snapshot must not pass for none.
        damage.map_or(Ok(None), |error| Err(unusable(&error)))
    }
}

/// Why a server does not start without its snapshot, and what its operator can do.
fn unusable(error: &io::Error) -> io::Error {
    let text = format!("{error}. Nothing was changed. Restore the file, or {REPLACE_NODE}");
    io::Error::new(error.kind(), text)
}

impl Directory {
    /// The committed snapshots, oldest first.
    fn committed(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut found = Vec::new();
        for file in fs::read_dir(&self.path)? {
            let file = file?;
            let name = file.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            if let Some(number) = number.and_then(|number| number.parse().ok()) {
                found.push((number, file.path()));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Gives a synced temporary file its number, which makes it the newest.
    fn promote(&self, temporary: &Path) -> io::Result<PathBuf> {
        let _committing = self.committing.lock().unwrap_or_else(PoisonError::into_inner);
        let older = self.committed()?;
        let number = older.last().map_or(1, |(number, _)| number + 1);
        let path = self.path.join(format!("{PREFIX}{number:020}"));
        fs::rename(temporary, &path)?;
        durable::sync_dir(&self.path)?;
        for (_, path) in older {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "an old snapshot cannot be removed");
            }
        }
        Ok(path)
    }
}

/// Makes the directory, and removes from it what was never committed.
fn prepare(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    durable::sync_parent(path)?;
    for file in fs::read_dir(path)? {
        let file = file?.path();
        if file.extension().is_some_and(|e| e == TEMPORARY) {
            fs::remove_file(file)?;
        }
    }
    Ok(())
}

/// Opens a committed file and checks all of it; the error names it.
fn open_snapshot(path: &Path) -> io::Result<Snapshot> {
    let opened = regular::open(path)
        .and_then(|file| FileSource::snapshot(file, path))
        .and_then(|snapshot| format::verify(&snapshot).map(|_| snapshot));
    opened.map_err(|error| durable::at_path(path, &error))
}

#[derive(Debug, Clone, Copy)]
enum Purpose {
    Current,
    Spool,
}

#[derive(Debug)]
struct FileSink {
    /// Taken when it is committed.
    file: Option<File>,
    path: PathBuf,
    directory: Arc<Directory>,
    purpose: Purpose,
}

impl FileSink {
    fn file(&mut self) -> &mut File {
        self.file.as_mut().expect("a sink has its file until it is committed")
    }
}

impl Write for FileSink {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file().write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SnapshotSink for FileSink {
    fn commit(mut self: Box<Self>) -> io::Result<Snapshot> {
        match self.purpose {
            Purpose::Current => {
                self.file().sync_all()?;
                let path = self.directory.promote(&self.path)?;
                let file = self.file.take().expect("a sink is committed once");
                FileSource::snapshot(file, &path)
            }
            Purpose::Spool => {
                // The name goes with the sink; the open file is the snapshot.
                let snapshot = FileSource::snapshot(self.file().try_clone()?, &self.path)?;
                format::verify(&snapshot)?;
                Ok(snapshot)
            }
        }
    }
}

impl Drop for FileSink {
    fn drop(&mut self) {
        if self.file.is_some()
            && let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a temporary file");
        }
    }
}

/// An open file, so that a snapshot that is being sent stays readable when a newer one replaces it.
#[derive(Debug)]
struct FileSource {
    file: Arc<File>,
    len: u64,
}

impl FileSource {
    fn snapshot(file: File, path: &Path) -> io::Result<Snapshot> {
        let len = file.metadata()?.len();
        tracing::debug!(path = %path.display(), len, "snapshot");
        Ok(Snapshot::new(Arc::new(Self { file: Arc::new(file), len })))
    }
}

impl SnapshotSource for FileSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(FileReader { file: Arc::clone(&self.file), offset: 0 }))
    }
}

/// Reads at an offset of its own: several readers share one open file.
#[derive(Debug)]
struct FileReader {
    file: Arc<File>,
    offset: u64,
}

impl Read for FileReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buf, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }
}
