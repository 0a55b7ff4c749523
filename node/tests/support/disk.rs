//! What a server keeps across restarts.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use quorate::raft::identity::Identity;
use quorate_storage::raft::BootId;
use quorate_storage::snapshot::MemorySnapshots;

use super::log::MemoryLog;

/// One data directory.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) store_id: String,
    pub(crate) log: MemoryLog,
    pub(crate) snapshots: MemorySnapshots,
    boots: u64,
    cluster: Arc<Mutex<Option<String>>>,
}

impl Disk {
    /// An empty one.
    pub(crate) fn empty(store_id: &str) -> Self {
        Self {
            store_id: store_id.to_owned(),
            log: MemoryLog::default(),
            snapshots: MemorySnapshots::default(),
            boots: 0,
            cluster: Arc::default(),
        }
    }

    /// An id that no boot has had.
    pub(crate) fn fresh_boot() -> BootId {
        static BOOTS: AtomicU64 = AtomicU64::new(1);
        BootId(u128::from(BOOTS.fetch_add(1, Ordering::Relaxed)).to_be_bytes())
    }

    /// Boots the server again.
    pub(crate) fn boot(&mut self) -> Arc<MemoryIdentity> {
        self.boots += 1;
        Arc::new(MemoryIdentity {
            store_id: self.store_id.clone(),
            boots: self.boots,
            cluster: Arc::clone(&self.cluster),
        })
    }
}

/// What a server remembers of itself during one boot.
#[derive(Debug)]
pub(crate) struct MemoryIdentity {
    store_id: String,
    boots: u64,
    cluster: Arc<Mutex<Option<String>>>,
}

impl Identity for MemoryIdentity {
    fn store_id(&self) -> String {
        self.store_id.clone()
    }

    fn boots(&self) -> u64 {
        self.boots
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

    fn condemn(&self, _why: &str) -> io::Result<()> {
        Ok(())
    }
}
