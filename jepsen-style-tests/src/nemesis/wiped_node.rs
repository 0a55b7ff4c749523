//! A server loses its disk. Under its old id it must refuse to serve, because its votes and acknowledgements are
//! lost. It says what to do instead, and the harness does that.

use std::time::Duration;

use async_trait::async_trait;

use super::{Ground, Injection, Nemesis};
use crate::cluster::Condition;
use crate::{Failure, Result};

/// How long a server may take to find that the cluster knows its id with other data.
const REFUSAL_LIMIT: Duration = Duration::from_secs(20);
/// The request that a refused server tells its operator to send, up to the id.
const ADVICE: &str = "/v1/operator/raft/peer?id=";

/// Wipes one server.
#[derive(Debug, Default)]
pub(super) struct WipedNode {
    victim: Option<u64>,
}

#[async_trait]
impl Nemesis for WipedNode {
    fn name(&self) -> &'static str {
        "wiped-node"
    }

    fn summary(&self) -> &'static str {
        "SIGKILL and loss of the data of one server; it must refuse its old id and comes back under a new one"
    }

    async fn inject(&mut self, ground: &mut Ground) -> Result<Injection> {
        let (victim, leader) = ground.mostly_leader().await?;
        ground.cluster.kill(victim)?;
        self.victim = Some(victim);
        ground.cluster.wipe(victim)?;
        let what = format!("killed and wiped {}", ground.describe(victim, Some(leader)));
        Ok(Injection { what, affected: vec![victim] })
    }

    async fn probe(&mut self, ground: &mut Ground) -> Result<String> {
        let victim = self.victim.ok_or_else(|| Failure::new("nobody was wiped"))?;
        let said_before = ground.cluster.log(victim)?.len();
        ground.cluster.start_node(victim)?;
        let ended = ground.cluster.wait_ended(victim, REFUSAL_LIMIT).await;
        let log = ground.cluster.log(victim)?;
        let said = log.get(said_before..).unwrap_or_default();
        let advice = format!("{ADVICE}{}`", ground.cluster.raft_id(victim));
        let refusal = match ended {
            Ok(status) if status.code().is_some_and(|code| code > 0) => {
                refusal_in(said, &advice).map(|line| format!("{status}: {line}"))
            }
            Ok(status) => Err(Failure::new(format!("it ended with {status}"))),
            Err(why) => Err(why),
        };
        refusal.map_err(|why| {
            let broken = format!("n{victim} came back without its data under its old id: {why}");
            ground.broken_promises.push(broken);
            why
        })
    }

    async fn heal(&mut self, ground: &mut Ground) -> Result<()> {
        let Some(victim) = self.victim.take() else { return Ok(()) };
        if ground.cluster.condition(victim) != Condition::Down {
            ground.cluster.kill(victim)?;
        }
        if ground.cluster.data_dir(victim).exists() {
            ground.cluster.wipe(victim)?;
        }
        let by = ground.another_running(victim)?;
        ground.cluster.remove_from_raft(ground.cluster.raft_id(victim), by).await?;
        ground.cluster.renew_raft_id(victim);
        ground.cluster.start_node(victim)?;
        ground.cluster.wait_votes(victim).await
    }
}

/// The line of a log that gives the advice.
fn refusal_in(log: &str, advice: &str) -> Result<String> {
    let line = log.lines().find(|line| line.contains(advice));
    let found = line.map(|line| line.trim().to_owned());
    found.ok_or_else(|| Failure::new(format!("its log does not say {advice:?}:\n{log}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_must_name_the_old_id() {
        let log = "one\nquorate: remove it with `curl http://H/v1/operator/raft/peer?id=12` now\n";
        assert!(refusal_in(log, &format!("{ADVICE}12`")).unwrap().starts_with("quorate: "));
        assert!(refusal_in(log, &format!("{ADVICE}1`")).is_err());
        assert!(refusal_in("", &format!("{ADVICE}12`")).is_err());
    }
}
