//! One server's disk answers nothing for some seconds, as a disk does whose controller resets. The server's
//! process runs, and its sockets are open.

use std::time::Duration;

use async_trait::async_trait;

use super::on_disk::{Victim, give_disks};
use super::{Ground, Injection, Nemesis};
use crate::cluster::Options;
use crate::disk::canary::SlowWrite;
use crate::{Failure, Result};

/// Longer than leases and elections take.
const HOLD: Duration = Duration::from_secs(4);
/// The canary hangs at least this long.
const HANGS: Duration = Duration::from_millis(1_500);

/// Freezes one server's file system.
#[derive(Debug, Default)]
pub(super) struct DiskHung {
    victim: Option<Victim>,
    canary: Option<SlowWrite>,
}

#[async_trait]
impl Nemesis for DiskHung {
    fn name(&self) -> &'static str {
        "disk-hung"
    }

    fn summary(&self) -> &'static str {
        "one server's disk answers nothing for four seconds, mostly the leader's"
    }

    fn prepare(&mut self, options: &mut Options) -> Result<()> {
        give_disks(options)
    }

    fn hold(&self) -> Duration {
        HOLD
    }

    async fn inject(&mut self, ground: &mut Ground) -> Result<Injection> {
        let victim = self.victim.insert(Victim::choose(ground).await?);
        ground.cluster.disk(victim.id)?.freeze()?;
        Ok(Injection {
            what: format!("hung the disk of {}", victim.name),
            affected: vec![victim.id],
        })
    }

    async fn probe(&mut self, ground: &mut Ground) -> Result<String> {
        let Some(victim) = &self.victim else { return Err(Failure::new("no disk hangs")) };
        let disk = ground.cluster.disk(victim.id)?;
        let canary = self.canary.insert(SlowWrite::begin(disk.root())?);
        tokio::time::sleep(HANGS).await;
        if canary.has_ended()? {
            return Err(Failure::new("a write of a page ended"));
        }
        Ok(format!("a write of a page to the disk of n{} hung for {HANGS:?}", victim.id))
    }

    async fn heal(&mut self, ground: &mut Ground) -> Result<()> {
        let Some(victim) = self.victim.take() else { return Ok(()) };
        ground.cluster.disk(victim.id)?.thaw()?;
        match self.canary.take() {
            Some(canary) => canary.wait(),
            None => Ok(()),
        }
    }
}
