//! One server of a cluster, as the harness knows it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use super::{HTTP_PORT, PROBE_PATIENCE, RPC_PORT};
use crate::disk::Disk;
use crate::guardian::Guardian;
use crate::http::{Http, PATIENCE};
use crate::{Failure, Result};

/// What the harness has done to a node's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It should be serving.
    Running,
    /// It was stopped with SIGSTOP.
    Paused,
    /// There is no process.
    Down,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: u64,
    /// Its id in the Raft membership: another one after it came back without its data.
    pub(super) raft_id: u64,
    /// Instead of the cluster's.
    pub(super) binary: Option<PathBuf>,
    pub(super) ip: Ipv4Addr,
    pub(super) data: PathBuf,
    pub(super) log: PathBuf,
    pub(super) http: Http,
    pub(super) probe: Http,
    pub(super) child: Option<Child>,
    /// Its process id, for tasks that sample it; 0: it has no process.
    pub(super) pid: Arc<AtomicU32>,
    pub(super) condition: Condition,
    pub(super) disk: Option<Disk>,
}

impl Member {
    pub(super) fn new(id: u64, subnet: [u8; 3], dir: &Path) -> Result<Self> {
        let host = u8::try_from(id).map_err(|_| Failure::new("too many nodes"))?;
        let ip = Ipv4Addr::new(subnet[0], subnet[1], subnet[2], host);
        let base = format!("http://{ip}:{HTTP_PORT}");
        Ok(Self {
            id,
            raft_id: id,
            binary: None,
            ip,
            data: dir.join(format!("n{id}")),
            log: dir.join(format!("n{id}.log")),
            http: Http::with_timeout(&base, PATIENCE)?,
            probe: Http::with_timeout(&base, PROBE_PATIENCE)?,
            child: None,
            pid: Arc::default(),
            condition: Condition::Down,
            disk: None,
        })
    }

    /// A disk of its own, with its data there. The guardian knows it as its own by the directory's name.
    pub(super) fn give_disk(
        &mut self,
        dir: &Path,
        mib: u64,
        guardian: &mut Guardian,
    ) -> Result<()> {
        let disk = Disk::guarded(dir, self.id, mib, guardian)?;
        self.data = disk.root().join("data");
        self.disk = Some(disk);
        Ok(())
    }

    /// Gives it another address, from its next start on.
    pub(super) fn move_to(&mut self, ip: Ipv4Addr) -> Result<()> {
        let base = format!("http://{ip}:{HTTP_PORT}");
        self.http = Http::with_timeout(&base, PATIENCE)?;
        self.probe = Http::with_timeout(&base, PROBE_PATIENCE)?;
        self.ip = ip;
        Ok(())
    }

    pub(super) fn rpc(&self) -> String {
        format!("{}:{RPC_PORT}", self.ip)
    }
}
