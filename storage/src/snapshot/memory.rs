//! Snapshots in memory, for tests and for the simulation.

use std::io::{self, Cursor, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::{Snapshot, SnapshotSink, SnapshotSource, SnapshotStore, format};

/// Keeps the newest snapshot in memory. Clones share it, so that a "disk" outlives the server that is
/// restarted on it.
#[derive(Debug, Clone, Default)]
pub struct MemorySnapshots(Arc<Mutex<Option<Snapshot>>>);

impl SnapshotStore for MemorySnapshots {
    fn create(&self) -> io::Result<Box<dyn SnapshotSink>> {
        Ok(Box::new(MemorySink { bytes: Vec::new(), store: Some(self.clone()) }))
    }

    fn spool(&self) -> io::Result<Box<dyn SnapshotSink>> {
        Ok(Box::new(MemorySink { bytes: Vec::new(), store: None }))
    }

    fn current(&self) -> io::Result<Option<Snapshot>> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Snapshot {
    /// A snapshot of bytes in memory.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self::new(Arc::new(MemorySource(bytes.into())))
    }
}

#[derive(Debug)]
struct MemorySink {
    bytes: Vec<u8>,
    /// Where it becomes the current one; a spooled one becomes it nowhere.
    store: Option<MemorySnapshots>,
}

impl Write for MemorySink {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.bytes.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SnapshotSink for MemorySink {
    fn commit(self: Box<Self>) -> io::Result<Snapshot> {
        let snapshot = Snapshot::from_bytes(self.bytes);
        match self.store {
            None => drop(format::verify(&snapshot)?),
            Some(store) => {
                *store.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(snapshot.clone());
            }
        }
        Ok(snapshot)
    }
}

#[derive(Debug)]
struct MemorySource(Bytes);

impl SnapshotSource for MemorySource {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Cursor::new(self.0.clone())))
    }
}
