//! Snapshots: where they are kept, and how they are written and read.

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

pub use self::file::FileSnapshots;
pub use self::format::{RECORD_BYTES_MAX, RecordReader, RecordWriter, verify};
pub use self::memory::MemorySnapshots;

mod file;
pub(crate) mod format;
mod memory;
#[cfg(test)]
mod tests;

/// Where a node keeps its snapshots: a directory of files, or a simulated disk.
pub trait SnapshotStore: Debug + Send + Sync + 'static {
    /// Where on the disk they are, if they are.
    fn directory(&self) -> Option<&Path> {
        None
    }

    /// Begins a new snapshot, which replaces the present one when it is committed.
    fn create(&self) -> io::Result<Box<dyn SnapshotSink>>;
    /// Takes in a snapshot that another server sends. Committing it checks all of it (an error of kind
    /// `InvalidData` if it is damaged) and replaces nothing: it becomes the current one only when the
    /// state machine installs it, and is gone when nobody holds it.
    fn spool(&self) -> io::Result<Box<dyn SnapshotSink>>;
    /// The newest committed snapshot that is sound. An error, which names it, if there is one and none
    /// is sound.
    fn current(&self) -> io::Result<Option<Snapshot>>;
}

/// A snapshot that is being written.
pub trait SnapshotSink: Write + Debug + Send {
    /// Makes it durable and the current one (unless it is a [spooled](SnapshotStore::spool) one). A
    /// sink that is dropped uncommitted leaves nothing.
    fn commit(self: Box<Self>) -> io::Result<Snapshot>;
}

/// Bytes of a committed snapshot; cheap to clone.
#[derive(Debug, Clone)]
pub struct Snapshot(Arc<dyn SnapshotSource>);

/// Where the bytes of a snapshot come from.
pub trait SnapshotSource: Debug + Send + Sync + 'static {
    /// Size in bytes.
    fn len(&self) -> u64;
    /// Whether there is nothing at all (which is no valid snapshot).
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Reads from the beginning.
    fn open(&self) -> io::Result<Box<dyn Read + Send>>;
}

impl Snapshot {
    /// Wraps a source.
    pub fn new(source: Arc<dyn SnapshotSource>) -> Self {
        Self(source)
    }
    /// Size in bytes.
    pub fn len(&self) -> u64 {
        self.0.len()
    }
    /// Whether there is nothing at all (which is no valid snapshot).
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// Reads from the beginning.
    pub fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        self.0.open()
    }
}
