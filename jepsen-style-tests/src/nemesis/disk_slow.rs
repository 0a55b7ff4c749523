//! One server's disk takes only some writes a second, as a disk does that somebody else uses too. A sync
//! takes 100 to 300 ms, and a second under a load: longer than the leader's lease. Nobody else may wait.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;

use super::on_disk::{Victim, aside, give_disks};
use super::{Ground, Injection, Nemesis};
use crate::cluster::Options;
use crate::disk::{self, canary};
use crate::{Failure, Result};

/// A sync is two or three writes.
const WRITES_PER_SECOND: u64 = 10;
/// Long enough for the server's own queue to grow.
const HOLD: Duration = Duration::from_secs(5);
/// The canary's syncs must take at least this long.
const SLOW: Duration = Duration::from_millis(80);
/// The slowest of so many is what counts.
const SYNCS: usize = 3;

/// Slows one server's disk down.
#[derive(Debug, Default)]
pub(super) struct DiskSlow {
    victim: Option<Victim>,
    before: Duration,
}

#[async_trait]
impl Nemesis for DiskSlow {
    fn name(&self) -> &'static str {
        "disk-slow"
    }

    fn summary(&self) -> &'static str {
        "one server's disk takes ten writes a second, mostly the leader's"
    }

    fn prepare(&mut self, options: &mut Options) -> Result<()> {
        disk::require_throttle()?;
        give_disks(options)
    }

    fn hold(&self) -> Duration {
        HOLD
    }

    async fn inject(&mut self, ground: &mut Ground) -> Result<Injection> {
        let victim = self.victim.insert(Victim::choose(ground).await?);
        let disk = ground.cluster.disk(victim.id)?;
        self.before = slowest_sync(disk.root()).await?;
        disk.limit_writes(Some(WRITES_PER_SECOND))?;
        let what = format!("slowed the disk of {} to {WRITES_PER_SECOND} writes/s", victim.name);
        Ok(Injection { what, affected: vec![victim.id] })
    }

    async fn probe(&mut self, ground: &mut Ground) -> Result<String> {
        let Some(victim) = &self.victim else { return Err(Failure::new("no disk is slow")) };
        let slowest = slowest_sync(ground.cluster.disk(victim.id)?.root()).await?;
        let figures = format!(
            "the slowest of {SYNCS} syncs of a page took {} ms, before {} ms",
            slowest.as_millis(),
            self.before.as_millis()
        );
        if slowest < SLOW || slowest < 2 * self.before {
            return Err(Failure::new(figures));
        }
        Ok(figures)
    }

    async fn heal(&mut self, ground: &mut Ground) -> Result<()> {
        let Some(victim) = self.victim.take() else { return Ok(()) };
        ground.cluster.disk(victim.id)?.limit_writes(None)
    }
}

async fn slowest_sync(root: &Path) -> Result<Duration> {
    let root = root.to_owned();
    let syncs =
        move || (0..SYNCS).map(|_| canary::timed_sync(&root)).collect::<Result<Vec<_>, _>>();
    Ok(aside(syncs).await??.into_iter().max().unwrap_or_default())
}
