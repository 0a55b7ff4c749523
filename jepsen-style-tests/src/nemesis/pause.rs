//! SIGSTOP: the sockets stay open, and nobody answers on them. The one that is most often wrong about
//! itself afterwards is a leader that did not notice.

use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::{Ground, Injection, Nemesis};
use crate::cluster::Condition;
use crate::http::Http;
use crate::{Failure, Result};

/// A connected request to a process that runs is answered within this.
const SILENCE: Duration = Duration::from_millis(700);
/// All threads of a process have stopped by then, on a busy machine too.
const STOPPED_LIMIT: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(10);

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
    let deadline = Instant::now() + STOPPED_LIMIT;
    loop {
        let running = running_threads(pid)?;
        if running == 0 {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Failure::new(format!("{running} threads of process {pid} go on")));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn running_threads(pid: u32) -> Result<usize> {
    let mut running = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // One that ended meanwhile does not run.
        let stat = std::fs::read_to_string(thread?.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        running += usize::from(!matches!(state, None | Some('T')));
    }
    Ok(running)
}
