//! Every write and sync of one server's disk fails. After a failed sync nobody knows what is on a disk, so the
//! server must end; it comes back when the disk has been repaired.

use std::time::Duration;

use async_trait::async_trait;

use super::on_disk::{Victim, aside, give_disks, quoted};
use super::{Ground, Injection, Nemesis};
use crate::cluster::{Condition, Options};
use crate::disk::canary;
use crate::{Failure, Result};

/// Its next write is due at once, under a load.
const REACTION_LIMIT: Duration = Duration::from_secs(3);

/// Lets one server's file system fail.
#[derive(Debug, Default)]
pub(super) struct DiskError {
    victim: Option<Victim>,
}

#[async_trait]
impl Nemesis for DiskError {
    fn name(&self) -> &'static str {
        "disk-error"
    }

    fn summary(&self) -> &'static str {
        "every write of one server's disk fails, mostly the leader's; the disk is repaired afterwards"
    }

    fn prepare(&mut self, options: &mut Options) -> Result<()> {
        give_disks(options)
    }

    fn may_end_servers(&self) -> bool {
        true
    }

    async fn inject(&mut self, ground: &mut Ground) -> Result<Injection> {
        let victim = self.victim.insert(Victim::choose(ground).await?);
        ground.cluster.disk(victim.id)?.fail()?;
        let what = format!("let the disk of {} fail", victim.name);
        Ok(Injection { what, affected: vec![victim.id] })
    }

    async fn probe(&mut self, ground: &mut Ground) -> Result<String> {
        let Some(victim) = &self.victim else { return Err(Failure::new("no disk fails")) };
        let id = victim.id;
        let root = ground.cluster.disk(id)?.root().to_owned();
        let Err(error) = aside(move || canary::timed_sync(&root)).await? else {
            return Err(Failure::new(format!("the disk of n{id} takes writes")));
        };
        match victim.last_words(ground, REACTION_LIMIT).await? {
            Some(words) => {
                Ok(format!("a write gets {:?}; n{id} ended: {}", error.to_string(), quoted(&words)))
            }
            None => {
                let promise = format!("n{id} goes on with a disk that fails");
                ground.broken_promises.push(promise.clone());
                Err(Failure::new(promise))
            }
        }
    }

    async fn heal(&mut self, ground: &mut Ground) -> Result<()> {
        let Some(Victim { id, .. }) = self.victim.take() else { return Ok(()) };
        ground.cluster.put_down(id)?;
        ground.cluster.disk(id)?.repair()?;
        if ground.cluster.condition(id) == Condition::Down {
            ground.cluster.start_node(id)?;
        }
        Ok(())
    }
}
