//! SIGKILL: the process is gone; what it had written to the kernel is not.

use async_trait::async_trait;

use super::{Ground, Injection, Nemesis};
use crate::cluster::Condition;
use crate::{Failure, Result};

/// The servers to kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// Any one server.
    One,
    /// The leader.
    Leader,
    /// So many that no quorum is left.
    Majority,
    /// Every server.
    All,
}

/// Kills servers and starts them again.
#[derive(Debug)]
pub(super) struct Kill {
    aim: Aim,
    victims: Vec<(u64, Option<u32>)>,
}

impl Kill {
    pub(super) fn new(aim: Aim) -> Self {
        Self { aim, victims: Vec::new() }
    }

    async fn choose(&self, ground: &mut Ground) -> Result<Vec<u64>> {
        let quorum = ground.cluster.ids().len() / 2 + 1;
        Ok(match self.aim {
            Aim::One => vec![ground.any_running()?],
            Aim::Leader => vec![ground.cluster.leader().await?],
            Aim::Majority => ground.some_running(quorum),
            Aim::All => ground.cluster.running(),
        })
    }
}

#[async_trait]
impl Nemesis for Kill {
    fn name(&self) -> &'static str {
        match self.aim {
            Aim::One => "kill",
            Aim::Leader => "kill-leader",
            Aim::Majority => "kill-majority",
            Aim::All => "kill-all",
        }
    }

    fn summary(&self) -> &'static str {
        match self.aim {
            Aim::One => "SIGKILL of one server, started again afterwards",
            Aim::Leader => "SIGKILL of the leader",
            Aim::Majority => "SIGKILL of a majority at once",
            Aim::All => "SIGKILL of every server at once",
        }
    }

    async fn inject(&mut self, ground: &mut Ground) -> Result<Injection> {
        let leader = ground.cluster.leader().await.ok();
        let victims = self.choose(ground).await?;
        self.victims = victims.iter().map(|id| (*id, ground.cluster.pid(*id))).collect();
        ground.cluster.kill_all(&victims)?;
        let names: Vec<_> = victims.iter().map(|id| ground.describe(*id, leader)).collect();
        let affected = match self.aim {
            Aim::One | Aim::Leader => victims,
            Aim::Majority | Aim::All => ground.cluster.ids(),
        };
        Ok(Injection { what: format!("killed {}", names.join(", ")), affected })
    }

    async fn probe(&mut self, ground: &mut Ground) -> Result<String> {
        for (id, _) in &self.victims {
            if ground.cluster.http(*id).get("/livez").await.is_ok() {
                return Err(Failure::new(format!("n{id} still answers")));
            }
        }
        let pids: Vec<_> = self.victims.iter().filter_map(|(_, pid)| *pid).collect();
        Ok(format!("reaped after SIGKILL, connections refused: pids {pids:?}"))
    }

    async fn heal(&mut self, ground: &mut Ground) -> Result<()> {
        for (id, _) in self.victims.drain(..) {
            if ground.cluster.condition(id) == Condition::Down {
                ground.cluster.start_node(id)?;
            }
        }
        Ok(())
    }
}
