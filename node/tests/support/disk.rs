//! What a server keeps across restarts.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use quorate::identity::Identity;
use quorate_storage::snapshot::MemorySnapshots;

use super::log::MemoryLog;

/// One data directory.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) store_id: String,
    pub(crate) log: MemoryLog,
    pub(crate) snapshots: MemorySnapshots,
    lives: u64,
    cluster: Arc<Mutex<Option<String>>>,
}

impl Disk {
    /// An empty one.
    pub(crate) fn empty(store_id: &str) -> Self {
        Self {
            store_id: store_id.to_owned(),
            log: MemoryLog::default(),
            snapshots: MemorySnapshots::default(),
            lives: 0,
            cluster: Arc::default(),
        }
    }

    /// Begins another life of the server.
    pub(crate) fn boot(&mut self) -> Arc<MemoryIdentity> {
        self.lives += 1;
        Arc::new(MemoryIdentity {
            store_id: self.store_id.clone(),
            incarnation: self.lives,
            cluster: Arc::clone(&self.cluster),
        })
    }
}

/// What a server remembers of itself in one life.
#[derive(Debug)]
pub(crate) struct MemoryIdentity {
    store_id: String,
    incarnation: u64,
    cluster: Arc<Mutex<Option<String>>>,
}

impl Identity for MemoryIdentity {
    fn store_id(&self) -> String {
        self.store_id.clone()
    }

    fn incarnation(&self) -> u64 {
        self.incarnation
    }

    fn cluster_id(&self) -> Option<String> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn adopt_cluster(&self, id: &str) -> io::Result<()> {
        let mut cluster = self.cluster.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cluster {
            Some(ours) if ours != id => Err(io::Error::other("belongs to another cluster")),
            Some(_) => Ok(()),
            None => {
                *cluster = Some(id.to_owned());
                Ok(())
            }
        }
    }
}
