//! No room is left on one server's disk. It must end and say so, rather than go on with a log that it cannot
//! write.

use std::io::ErrorKind;
use std::time::Duration;

use async_trait::async_trait;

use super::on_disk::{Victim, aside, give_disks, quoted};
use super::{Ground, Injection, Nemesis};
use crate::cluster::{Condition, Options};
use crate::disk::canary;
use crate::{Failure, Result};

/// How long the server may go on: it uses up what it had taken before.
const REACTION_LIMIT: Duration = Duration::from_secs(4);
/// What its last words must speak of.
const CLEAR_WORDS: &str = "make room on the disk";

/// Fills one server's disk.
#[derive(Debug, Default)]
pub(super) struct DiskFull {
    victim: Option<Victim>,
}

#[async_trait]
impl Nemesis for DiskFull {
    fn name(&self) -> &'static str {
        "disk-full"
    }

    fn summary(&self) -> &'static str {
        "no room is left on one server's disk, mostly the leader's"
    }

    fn prepare(&mut self, options: &mut Options) -> Result<()> {
        give_disks(options)
    }

    fn may_end_servers(&self) -> bool {
        true
    }

    async fn inject(&mut self, ground: &mut Ground) -> Result<Injection> {
        let victim = self.victim.insert(Victim::choose(ground).await?);
        let filled = ground.cluster.disk(victim.id)?.fill()?;
        let what = format!("filled the disk of {} with {} MiB", victim.name, filled >> 20);
        Ok(Injection { what, affected: vec![victim.id] })
    }

    async fn probe(&mut self, ground: &mut Ground) -> Result<String> {
        let Some(victim) = &self.victim else { return Err(Failure::new("no disk is full")) };
        let id = victim.id;
        let root = ground.cluster.disk(id)?.root().to_owned();
        match aside(move || canary::write_much(&root)).await? {
            Ok(()) => return Err(Failure::new(format!("there is room on the disk of n{id}"))),
            Err(error) if error.kind() == ErrorKind::StorageFull => {}
            Err(error) => return Err(error.into()),
        }
        Ok(match victim.last_words(ground, REACTION_LIMIT).await? {
            None => format!("there is no room for another file; n{id} went on with what it had"),
            Some(words) if words.contains(CLEAR_WORDS) => {
                format!("there is no room for another file; n{id} ended: {}", quoted(&words))
            }
            Some(words) => {
                let promise = format!("n{id}, its disk full, ended with unclear words: {words}");
                ground.broken_promises.push(promise.clone());
                return Err(Failure::new(promise));
            }
        })
    }

    async fn heal(&mut self, ground: &mut Ground) -> Result<()> {
        let Some(Victim { id, .. }) = self.victim.take() else { return Ok(()) };
        ground.cluster.disk(id)?.make_room()?;
        if ground.cluster.ended(id)?.is_some() {
            ground.cluster.put_down(id)?;
        }
        if ground.cluster.condition(id) == Condition::Down {
            ground.cluster.start_node(id)?;
        }
        Ok(())
    }
}
