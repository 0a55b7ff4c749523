//! SIGSTOP: the sockets stay open, and nobody answers on them. The server most often wrong about itself afterwards
//! is a leader that did not notice.

use std::time::Duration;

use async_trait::async_trait;

use super::{Ground, HOLD, Injection, Nemesis};
use crate::cluster::{Condition, Options};
use crate::http::Http;
use crate::{Failure, Limit, Result};

/// A connected request to a process that runs is answered within this.
const SILENCE: Duration = Duration::from_millis(700);
/// All threads of a process have stopped by then, on a busy machine too.
const STOPPED_LIMIT: Duration = Duration::from_secs(1);

/// A follower is paused for longer than usual: the log that it lacks then is purged, and it gets a snapshot. Shorter
/// than a request is held, so that what it held is answered.
const FOLLOWER_HOLD: Duration = Duration::from_millis(4_000);

/// With these the leader purges what a paused follower lacks even on a machine that is so busy that it appends a dozen
/// entries in a second.
const FOLLOWER_FLAGS: [(&str, u64); 2] =
    [("--raft-snapshot-threshold=", 20), ("--raft-trailing-logs=", 5)];

/// The server to pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// Anyone, mostly the leader.
    MostlyLeader,
    /// One that does not lead: nothing changes but that it lags behind.
    Follower,
}

/// Pauses one server.
#[derive(Debug)]
pub(super) struct Pause {
    aim: Aim,
    victim: Option<u64>,
}

impl Pause {
    pub(super) fn new(aim: Aim) -> Self {
        Self { aim, victim: None }
    }

    /// The victim, and the leader.
    async fn choose(&self, ground: &mut Ground) -> Result<(u64, u64)> {
        match self.aim {
            Aim::MostlyLeader => ground.mostly_leader().await,
            Aim::Follower => {
                let leader = ground.cluster.leader().await?;
                Ok((ground.another_running(leader)?, leader))
            }
        }
    }
}

#[async_trait]
impl Nemesis for Pause {
    fn name(&self) -> &'static str {
        match self.aim {
            Aim::MostlyLeader => "pause",
            Aim::Follower => "pause-follower",
        }
    }

    fn summary(&self) -> &'static str {
        match self.aim {
            Aim::MostlyLeader => "SIGSTOP of one server, mostly the leader, SIGCONT afterwards",
            Aim::Follower => {
                "SIGSTOP of one follower until it needs a snapshot, SIGCONT afterwards"
            }
        }
    }

    fn prepare(&mut self, options: &mut Options) -> Result<()> {
        if self.aim == Aim::Follower {
            for (flag, value) in FOLLOWER_FLAGS {
                options.flags.retain(|given| !given.starts_with(flag));
                options.flags.push(format!("{flag}{value}"));
            }
        }
        Ok(())
    }

    fn hold(&self) -> Duration {
        match self.aim {
            Aim::MostlyLeader => HOLD,
            Aim::Follower => FOLLOWER_HOLD,
        }
    }

    async fn inject(&mut self, ground: &mut Ground) -> Result<Injection> {
        let (victim, leader) = self.choose(ground).await?;
        self.victim = Some(victim);
        ground.cluster.pause(victim)?;
        let what = format!("paused {}", ground.describe(victim, Some(leader)));
        Ok(Injection { what, affected: vec![victim] })
    }

    async fn probe(&mut self, ground: &mut Ground) -> Result<String> {
        let victim = self.victim.ok_or_else(|| Failure::new("nobody is paused"))?;
        let pid = ground.cluster.pid(victim).ok_or_else(|| Failure::new("it has no process"))?;
        wait_stopped(pid).await?;
        // On a connection of its own, which nothing but the pause can keep silent.
        let http = Http::new(ground.cluster.http(victim).base())?;
        match tokio::time::timeout(SILENCE, http.get("/livez")).await {
            Err(_) => Ok(format!(
                "all threads of n{victim} stand still, and it is silent for {SILENCE:?}"
            )),
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

/// Waits until every thread of a process has stopped: the signal comes back earlier.
async fn wait_stopped(pid: u32) -> Result<()> {
    let limit = Limit::new(STOPPED_LIMIT);
    loop {
        let running = running_threads(pid)?;
        if running == 0 {
            return Ok(());
        }
        limit.pause(|| format!("{running} threads of process {pid} go on")).await?;
    }
}

fn running_threads(pid: u32) -> Result<usize> {
    let mut running = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // It may have ended in the meantime.
        let stat = std::fs::read_to_string(thread?.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        running += usize::from(!matches!(state, None | Some('T')));
    }
    Ok(running)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_follower_needs_other_snapshots() {
        let flags = |aim| {
            let usual = vec!["--raft-snapshot-threshold=400".to_owned(), "--other".to_owned()];
            let mut options = Options { flags: usual, ..Options::default() };
            Pause::new(aim).prepare(&mut options).unwrap();
            options.flags
        };
        assert_eq!(flags(Aim::MostlyLeader), ["--raft-snapshot-threshold=400", "--other"]);
        let own = ["--other", "--raft-snapshot-threshold=20", "--raft-trailing-logs=5"];
        assert_eq!(flags(Aim::Follower), own);
    }
}
