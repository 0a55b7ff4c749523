//! A server joins by the product's own means, votes, and is removed again by the operator's request, often while it
//! leads. The founding nodes must serve all the time.

use std::time::Duration;

use async_trait::async_trait;
use rand::Rng as _;

use super::{Ground, Injection, Nemesis};
use crate::cluster::{Condition, Options};
use crate::{Failure, Result};

/// How often the new server is made the leader, so that it is a leader who is removed.
const LEADER_OF_TEN: u32 = 5;
/// A server promises to end within 10 s of SIGTERM; some room for a busy machine.
const STOP_LIMIT: Duration = Duration::from_secs(13);

/// Adds a server and removes it.
#[derive(Debug, Default)]
pub(super) struct Membership {
    guest: Option<u64>,
}

#[async_trait]
impl Nemesis for Membership {
    fn name(&self) -> &'static str {
        "membership"
    }

    fn summary(&self) -> &'static str {
        "a server joins, votes, sometimes leads, and is removed"
    }

    fn consider(&self, options: &Options) -> Result<()> {
        if options.proxied {
            return Err(Failure::new("there are no proxied links to a server that joins later"));
        }
        Ok(())
    }

    /// Nobody is affected: no client knows the new server, and a change of the membership must not be felt.
    async fn inject(&mut self, ground: &mut Ground) -> Result<Injection> {
        let guest = ground.cluster.add_member()?;
        self.guest = Some(guest);
        ground.cluster.wait_votes(guest).await?;
        let mut what = format!("added n{guest}");
        if ground.rng.random_range(0..10) < LEADER_OF_TEN {
            let by = ground.any_running()?;
            ground.cluster.transfer_leader(guest, by).await?;
            what = format!("added n{guest} and had it lead");
        }
        Ok(Injection { what, affected: Vec::new() })
    }

    async fn probe(&mut self, ground: &mut Ground) -> Result<String> {
        let guest = self.guest.ok_or_else(|| Failure::new("nobody was added"))?;
        let configuration = ground.cluster.configuration().await?;
        let voters = configuration.iter().filter(|voter| voter.votes).count();
        let raft_id = ground.cluster.raft_id(guest);
        match configuration.iter().find(|voter| voter.raft_id == raft_id) {
            Some(voter) if voter.votes => {
                let role = if voter.leads { "leads" } else { "follows" };
                Ok(format!("n{guest} is one of {voters} voters and {role}"))
            }
            other => Err(Failure::new(format!("n{guest} is no voter: {other:?}"))),
        }
    }

    async fn heal(&mut self, ground: &mut Ground) -> Result<()> {
        let Some(guest) = self.guest.take() else { return Ok(()) };
        let by = ground.any_running()?;
        ground.cluster.remove_from_raft(ground.cluster.raft_id(guest), by).await?;
        end(ground, guest).await?;
        ground.cluster.forget_member(guest)
    }
}

/// With what a server ends that learns that it was removed.
const REMOVED_EXIT_CODE: i32 = 1;

/// Ends the process of a removed server, gently or not.
async fn end(ground: &mut Ground, guest: u64) -> Result<()> {
    if ground.cluster.condition(guest) == Condition::Down {
        return Ok(());
    }
    if ground.rng.random_bool(0.5) {
        ground.cluster.kill(guest)?;
        return Ok(());
    }
    ground.cluster.terminate(guest)?;
    let status = ground.cluster.wait_ended(guest, STOP_LIMIT).await?;
    // It may have learned before that it was removed, and have ended with that.
    if !status.success() && status.code() != Some(REMOVED_EXIT_CODE) {
        ground.broken_promises.push(format!(
            "n{guest} was removed, asked to end with SIGTERM, and ended with {status}"
        ));
    }
    Ok(())
}
