//! A power cut: the process is gone, and so is what it had not synced.

use async_trait::async_trait;

use super::on_disk::{Victim, give_disks};
use super::{Ground, Injection, Nemesis};
use crate::cluster::Options;
use crate::disk::Blackout;
use crate::{Failure, Result};

/// The servers whose power fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// One server's, mostly the leader's.
    One,
    /// So many that no quorum is left.
    Majority,
    /// Every server's.
    All,
}

/// Cuts the power of servers and of their disks.
#[derive(Debug)]
pub(super) struct PowerCut {
    aim: Aim,
    blackout: Option<Blackout>,
}

impl PowerCut {
    pub(super) fn new(aim: Aim) -> Self {
        Self { aim, blackout: None }
    }

    async fn choose(&self, ground: &mut Ground) -> Result<Vec<u64>> {
        let quorum = ground.cluster.ids().len() / 2 + 1;
        Ok(match self.aim {
            Aim::One => vec![Victim::choose(ground).await?.id],
            Aim::Majority => ground.some_running(quorum),
            Aim::All => ground.cluster.running(),
        })
    }
}

#[async_trait]
impl Nemesis for PowerCut {
    fn name(&self) -> &'static str {
        match self.aim {
            Aim::One => "power-cut",
            Aim::Majority => "power-cut-majority",
            Aim::All => "power-cut-all",
        }
    }

    fn summary(&self) -> &'static str {
        match self.aim {
            Aim::One => "one server crashes and what it did not sync is gone, mostly the leader",
            Aim::Majority => "a majority crashes at once and what was not synced is gone",
            Aim::All => "every server crashes at once and what was not synced is gone",
        }
    }

    fn prepare(&mut self, options: &mut Options) -> Result<()> {
        give_disks(options)
    }

    async fn inject(&mut self, ground: &mut Ground) -> Result<Injection> {
        let leader = ground.cluster.leader().await.ok();
        let victims = self.choose(ground).await?;
        self.blackout = Some(Blackout::begin(&mut ground.cluster, &victims)?);
        let names: Vec<_> = victims.iter().map(|id| ground.describe(*id, leader)).collect();
        let affected = match self.aim {
            Aim::One => victims,
            Aim::Majority | Aim::All => ground.cluster.ids(),
        };
        Ok(Injection { what: format!("cut the power of {}", names.join(", ")), affected })
    }

    async fn probe(&mut self, ground: &mut Ground) -> Result<String> {
        let Some(blackout) = &mut self.blackout else {
            return Err(Failure::new("everybody has power"));
        };
        for id in blackout.ids() {
            if ground.cluster.http(*id).get("/livez").await.is_ok() {
                return Err(Failure::new(format!("n{id} still answers")));
            }
        }
        blackout.prove(&ground.cluster)
    }

    async fn heal(&mut self, ground: &mut Ground) -> Result<()> {
        match self.blackout.take() {
            Some(blackout) => blackout.end(&mut ground.cluster),
            None => Ok(()),
        }
    }
}
