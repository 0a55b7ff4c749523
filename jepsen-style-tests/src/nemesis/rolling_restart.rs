//! One server after the other is stopped in order and started again, as an operator does while the cluster serves.
//! A leader that is stopped hands over first.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use super::{Ground, Injection, Nemesis};
use crate::cluster::{Condition, Options};
use crate::{Failure, Result, binary};

/// Names the binary that `upgrade` starts.
const OTHER_BINARY: &str = "QUORATE_UPGRADE_BIN";
/// A server promises to end within 10 s of SIGTERM; some room for a busy machine.
const STOP_LIMIT: Duration = Duration::from_secs(13);

/// What a server is started with again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binary {
    /// What it ran.
    Same,
    /// Another version in one round, and back in the next.
    Other,
}

/// Restarts the next server in turn.
#[derive(Debug)]
pub(super) struct RollingRestart {
    binary: Binary,
    other: Option<PathBuf>,
    round: usize,
    victim: Option<u64>,
}

impl RollingRestart {
    pub(super) fn new(binary: Binary) -> Self {
        Self { binary, other: None, round: 0, victim: None }
    }

    /// What the next server is started with; none: the cluster's own.
    fn next_binary(&self, nodes: usize) -> Option<PathBuf> {
        let is_there = (self.round / nodes.max(1)).is_multiple_of(2);
        self.other.clone().filter(|_| is_there)
    }
}

#[async_trait]
impl Nemesis for RollingRestart {
    fn name(&self) -> &'static str {
        match self.binary {
            Binary::Same => "rolling-restart",
            Binary::Other => "upgrade",
        }
    }

    fn summary(&self) -> &'static str {
        match self.binary {
            Binary::Same => "SIGTERM of one server after the other, each started again at once",
            Binary::Other => {
                "the same, each started with the binary that QUORATE_UPGRADE_BIN names; then back"
            }
        }
    }

    fn prepare(&mut self, options: &mut Options) -> Result<()> {
        if self.binary == Binary::Other {
            let path = std::env::var_os(OTHER_BINARY).map(PathBuf::from);
            let other = other_binary(path)?;
            let own = match &options.binary {
                Some(own) => own.clone(),
                None => binary::quorate()?,
            };
            if std::fs::read(&own)? == std::fs::read(&other)? {
                return Err(Failure::new(format!("{OTHER_BINARY} names the same binary again")));
            }
            self.other = Some(other);
        }
        Ok(())
    }

    fn hold(&self) -> Duration {
        Duration::ZERO
    }

    async fn inject(&mut self, ground: &mut Ground) -> Result<Injection> {
        let ids = ground.cluster.ids();
        let victim = ids[self.round % ids.len()];
        let leader = ground.cluster.leader().await.ok();
        ground.cluster.terminate(victim)?;
        self.victim = Some(victim);
        let next = self.next_binary(ids.len());
        self.round += 1;
        ground.cluster.set_binary(victim, next.clone());
        let with = next.map(|path| format!(", to be started with {}", path.display()));
        let what =
            format!("SIGTERM to {}{}", ground.describe(victim, leader), with.unwrap_or_default());
        Ok(Injection { what, affected: vec![victim] })
    }

    async fn probe(&mut self, ground: &mut Ground) -> Result<String> {
        let victim = self.victim.ok_or_else(|| Failure::new("nobody was asked to end"))?;
        let ended = ground.cluster.wait_ended(victim, STOP_LIMIT).await;
        match &ended {
            Ok(status) if status.success() => {}
            Ok(status) => ground
                .broken_promises
                .push(format!("n{victim} was asked to end with SIGTERM and ended with {status}")),
            Err(why) => {
                ground.broken_promises.push(why.to_string());
                ground.cluster.kill(victim)?;
            }
        }
        ground.cluster.start_node(victim)?;
        ground.cluster.wait_ready(victim).await?;
        let pid = ground.cluster.pid(victim).unwrap_or_default();
        let program = std::fs::read_link(format!("/proc/{pid}/exe"))?;
        let wanted = ground.cluster.program(victim)?.canonicalize()?;
        if program != wanted {
            let (is, should) = (program.display(), wanted.display());
            return Err(Failure::new(format!("n{victim} runs {is} instead of {should}")));
        }
        Ok(format!("n{victim} ended with {}; pid {pid} is {}", ended?, program.display()))
    }

    async fn heal(&mut self, ground: &mut Ground) -> Result<()> {
        let Some(victim) = self.victim.take() else { return Ok(()) };
        if ground.cluster.condition(victim) == Condition::Down {
            if ground.cluster.pid(victim).is_some() {
                ground.cluster.kill(victim)?;
            }
            ground.cluster.start_node(victim)?;
        }
        Ok(())
    }
}

fn other_binary(path: Option<PathBuf>) -> Result<PathBuf> {
    let path = path.ok_or_else(|| Failure::new(format!("{OTHER_BINARY} names no binary")))?;
    if !Path::is_file(&path) {
        return Err(Failure::new(format!("{OTHER_BINARY} names {}, no file", path.display())));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_goes_round_there_and_back() {
        let other = Some(PathBuf::from("/other"));
        let mut upgrade = RollingRestart { other, ..RollingRestart::new(Binary::Other) };
        let mut started = Vec::new();
        for round in 0..7 {
            upgrade.round = round;
            started.push(upgrade.next_binary(3).is_some());
        }
        assert_eq!(started, [true, true, true, false, false, false, true]);
    }

    #[test]
    fn without_another_binary_there_is_no_upgrade() {
        assert!(other_binary(None).unwrap_err().to_string().contains(OTHER_BINARY));
        assert!(other_binary(Some("/nowhere/quorate".into())).is_err());
        assert!(other_binary(std::env::current_exe().ok()).is_ok());
    }
}
