//! SIGSTOP: the sockets stay open, and nobody answers on them. The one that is most often wrong about
//! itself afterwards is a leader that did not notice.

use std::time::Duration;

use async_trait::async_trait;

use super::{Ground, Injection, Nemesis};
use crate::cluster::Condition;
use crate::{Failure, Result};

/// A connected request to a process that runs is answered within this.
const SILENCE: Duration = Duration::from_millis(700);

/// Pauses one server.
#[derive(Debug, Default)]
pub(super) struct Pause {
    victim: Option<u64>,
}

#[async_trait]
impl Nemesis for Pause {
    fn name(&self) -> &'static str {
        "pause"
    }

    fn summary(&self) -> &'static str {
        "SIGSTOP of one server, mostly the leader, SIGCONT afterwards"
    }

    async fn inject(&mut self, ground: &mut Ground) -> Result<Injection> {
        let (victim, leader) = ground.mostly_leader().await?;
        self.victim = Some(victim);
        ground.cluster.pause(victim)?;
        let what = format!("paused {}", ground.describe(victim, Some(leader)));
        Ok(Injection { what, affected: vec![victim] })
    }

    async fn probe(&mut self, ground: &mut Ground) -> Result<String> {
        let victim = self.victim.ok_or_else(|| Failure::new("nobody is paused"))?;
        let http = ground.cluster.http(victim);
        match tokio::time::timeout(SILENCE, http.get("/livez")).await {
            Err(_) => Ok(format!("n{victim} is silent for {SILENCE:?}, its connections open")),
            Ok(answer) => Err(Failure::new(format!("n{victim} said {answer:?}"))),
        }
    }

    async fn heal(&mut self, ground: &mut Ground) -> Result<()> {
        let Some(victim) = self.victim.take() else { return Ok(()) };
        if ground.cluster.condition(victim) == Condition::Paused {
            ground.cluster.resume(victim)?;
        }
        Ok(())
    }
}
