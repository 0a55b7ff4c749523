//! Faults of one server's disk while its process runs: it fails, fills up, hangs or gets slow.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;

use super::on_disk::{Victim, aside, give_disks, quoted};
use super::{Ground, HOLD, Injection, Nemesis};
use crate::cluster::{Condition, Options};
use crate::disk::canary::{self, SlowWrite};
use crate::disk::{self, Disk};
use crate::{Failure, Result};

/// How long a server may go on after its disk has failed: its next write is due at once, under a load.
const FAILED_LIMIT: Duration = Duration::from_secs(3);
/// The same after its disk is full: it uses up what it had taken before.
const FULL_LIMIT: Duration = Duration::from_secs(4);
/// What the last words of a server whose disk is full must speak of.
const CLEAR_WORDS: &str = "make room on the disk";
/// A write to a disk that hangs must not end within this.
const HANGS: Duration = Duration::from_millis(1_500);
/// Writes per second of a slow disk; a sync is two or three writes.
const WRITES_PER_SECOND: u64 = 10;
/// Syncs to a slow disk must take at least this long; of [`SYNCS`] the slowest counts.
const SLOW: Duration = Duration::from_millis(80);
const SYNCS: usize = 3;

/// What happens to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Every write and sync fails. After a failed sync nobody knows what is on a disk, so the server must end;
    /// it comes back when the disk has been repaired.
    Error,
    /// No room is left. The server must end and say so, rather than go on with a log that it cannot write.
    Full,
    /// It answers nothing for some seconds, as a disk does whose controller resets.
    Hung,
    /// It takes only some writes a second, as a disk does that somebody else uses too. A sync takes 100 to
    /// 300 ms, and a second under a load: longer than the leader's lease. No other server may wait for it.
    Slow,
}

/// Does it to one server.
#[derive(Debug)]
pub(super) struct DiskFault {
    kind: Kind,
    victim: Option<Victim>,
    /// A write to the disk that hangs.
    hanging: Option<SlowWrite>,
    /// How long a sync took before the disk became slow.
    sync_before: Duration,
}

impl DiskFault {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, victim: None, hanging: None, sync_before: Duration::ZERO }
    }
}

#[async_trait]
impl Nemesis for DiskFault {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Error => "disk-error",
            Kind::Full => "disk-full",
            Kind::Hung => "disk-hung",
            Kind::Slow => "disk-slow",
        }
    }

    fn summary(&self) -> &'static str {
        match self.kind {
            Kind::Error => {
                "every write of one server's disk fails, mostly the leader's; the disk is repaired afterwards"
            }
            Kind::Full => "no room is left on one server's disk, mostly the leader's",
            Kind::Hung => "one server's disk answers nothing for four seconds, mostly the leader's",
            Kind::Slow => "one server's disk takes ten writes a second, mostly the leader's",
        }
    }

    fn prepare(&mut self, options: &mut Options) -> Result<()> {
        if self.kind == Kind::Slow {
            disk::require_throttle()?;
        }
        give_disks(options)
    }

    fn hold(&self) -> Duration {
        match self.kind {
            Kind::Error | Kind::Full => HOLD,
            // Longer than leases and elections take.
            Kind::Hung => Duration::from_secs(4),
            // Long enough for the server's own queue to grow.
            Kind::Slow => Duration::from_secs(5),
        }
    }

    fn may_end_servers(&self) -> bool {
        matches!(self.kind, Kind::Error | Kind::Full)
    }

    async fn inject(&mut self, ground: &mut Ground) -> Result<Injection> {
        let Victim { id, name, .. } = &*self.victim.insert(Victim::choose(ground).await?);
        let disk = ground.cluster.disk(*id)?;
        let what = match self.kind {
            Kind::Error => {
                disk.fail()?;
                format!("let the disk of {name} fail")
            }
            Kind::Full => format!("filled the disk of {name} with {} MiB", disk.fill()? >> 20),
            Kind::Hung => {
                disk.freeze()?;
                format!("hung the disk of {name}")
            }
            Kind::Slow => {
                self.sync_before = slowest_sync(disk.root()).await?;
                disk.limit_writes(Some(WRITES_PER_SECOND))?;
                format!("slowed the disk of {name} to {WRITES_PER_SECOND} writes/s")
            }
        };
        Ok(Injection { what, affected: vec![*id] })
    }

    async fn probe(&mut self, ground: &mut Ground) -> Result<String> {
        let Some(victim) = &self.victim else { return Err(Failure::new("no disk suffers")) };
        match self.kind {
            Kind::Error => has_failed(victim, ground).await,
            Kind::Full => is_full(victim, ground).await,
            Kind::Hung => {
                let disk = ground.cluster.disk(victim.id)?;
                hangs(victim, disk, &mut self.hanging).await
            }
            Kind::Slow => is_slow(ground.cluster.disk(victim.id)?, self.sync_before).await,
        }
    }

    async fn heal(&mut self, ground: &mut Ground) -> Result<()> {
        let Some(Victim { id, .. }) = self.victim.take() else { return Ok(()) };
        let cluster = &mut ground.cluster;
        match self.kind {
            Kind::Error => {
                cluster.put_down(id)?;
                cluster.disk(id)?.repair()?;
            }
            Kind::Full => {
                cluster.disk(id)?.make_room()?;
                if cluster.ended(id)?.is_some() {
                    cluster.put_down(id)?;
                }
            }
            Kind::Hung => {
                cluster.disk(id)?.thaw()?;
                return self.hanging.take().map_or(Ok(()), SlowWrite::wait);
            }
            Kind::Slow => return cluster.disk(id)?.limit_writes(None),
        }
        if cluster.condition(id) == Condition::Down {
            cluster.start_node(id)?;
        }
        Ok(())
    }
}

async fn has_failed(victim: &Victim, ground: &mut Ground) -> Result<String> {
    let id = victim.id;
    let root = ground.cluster.disk(id)?.root().to_owned();
    let Err(error) = aside(move || canary::timed_sync(&root)).await? else {
        return Err(Failure::new(format!("the disk of n{id} takes writes")));
    };
    match victim.last_words(ground, FAILED_LIMIT).await? {
        Some(words) => {
            Ok(format!("a write gets {:?}; n{id} ended: {}", error.to_string(), quoted(&words)))
        }
        None => Err(ground.broken_promise(format!("n{id} goes on with a disk that fails"))),
    }
}

async fn is_full(victim: &Victim, ground: &mut Ground) -> Result<String> {
    let id = victim.id;
    let root = ground.cluster.disk(id)?.root().to_owned();
    match aside(move || canary::write_much(&root)).await? {
        Ok(()) => return Err(Failure::new(format!("there is room on the disk of n{id}"))),
        Err(error) if error.kind() == ErrorKind::StorageFull => {}
        Err(error) => return Err(error.into()),
    }
    let then = match victim.last_words(ground, FULL_LIMIT).await? {
        None => "went on with what it had".to_owned(),
        Some(words) if words.contains(CLEAR_WORDS) => format!("ended: {}", quoted(&words)),
        Some(words) => {
            let promise = format!("n{id}, its disk full, ended with unclear words: {words}");
            return Err(ground.broken_promise(promise));
        }
    };
    Ok(format!("there is no room for another file; n{id} {then}"))
}

async fn hangs(victim: &Victim, disk: &Disk, hanging: &mut Option<SlowWrite>) -> Result<String> {
    let write = hanging.insert(SlowWrite::begin(disk.root())?);
    tokio::time::sleep(HANGS).await;
    if write.has_ended()? {
        return Err(Failure::new("a write of a page ended"));
    }
    Ok(format!("a write of a page to the disk of n{} hung for {HANGS:?}", victim.id))
}

async fn is_slow(disk: &Disk, before: Duration) -> Result<String> {
    let slowest = slowest_sync(disk.root()).await?;
    let figures = format!(
        "the slowest of {SYNCS} syncs of a page took {} ms, before {} ms",
        slowest.as_millis(),
        before.as_millis()
    );
    if slowest < SLOW || slowest < 2 * before { Err(Failure::new(figures)) } else { Ok(figures) }
}

async fn slowest_sync(root: &Path) -> Result<Duration> {
    let root = root.to_owned();
    let syncs =
        move || (0..SYNCS).map(|_| canary::timed_sync(&root)).collect::<Result<Vec<_>, _>>();
    Ok(aside(syncs).await??.into_iter().max().unwrap_or_default())
}
