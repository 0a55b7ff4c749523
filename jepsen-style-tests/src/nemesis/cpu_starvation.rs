//! A server gets a twentieth of a processor: it is late with everything, but never silent for long. That is worse
//! than a dead server for those that wait for it.

use std::time::Duration;

use async_trait::async_trait;

use super::cgroup::{Controller, Group, Version};
use super::{Ground, Injection, Nemesis};
use crate::cluster::Options;
use crate::{Failure, Limit, Result};

/// In each period a server runs for its quota, and then stands still.
const PERIOD: Duration = Duration::from_millis(100);
/// Of one processor, together for all threads.
const QUOTA: Duration = Duration::from_millis(5);
/// A server is starved if it was held up in so many periods; any server is in one, now and then.
const HELD_UP_MIN: u64 = 5;
/// A server that runs is held up so often within this.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// Starves one server.
#[derive(Debug, Default)]
pub(super) struct CpuStarvation {
    controller: Option<Controller>,
    victim: Option<(u64, Group)>,
}

#[async_trait]
impl Nemesis for CpuStarvation {
    fn name(&self) -> &'static str {
        "cpu-starvation"
    }

    fn summary(&self) -> &'static str {
        "a twentieth of a processor for one server, mostly the leader"
    }

    fn prepare(&mut self, _options: &mut Options) -> Result<()> {
        self.controller = Some(Controller::find("cpu")?);
        Ok(())
    }

    async fn inject(&mut self, ground: &mut Ground) -> Result<Injection> {
        let controller =
            self.controller.clone().ok_or_else(|| Failure::new("it was not prepared"))?;
        let (victim, leader) = ground.mostly_leader().await?;
        let pid = ground.cluster.pid(victim);
        let pid = pid.ok_or_else(|| Failure::new(format!("n{victim} has no process")))?;
        let group = controller.group(&format!("cpu-{victim}"));
        ground.cluster.guardian().at_end(&group.removal_line())?;
        group.make()?;
        self.victim = Some((victim, group.clone()));
        limit(&group, controller.version)?;
        group.take_in(pid)?;
        let what = format!(
            "{} gets {QUOTA:?} of every {PERIOD:?} of a processor",
            ground.describe(victim, Some(leader))
        );
        Ok(Injection { what, affected: vec![victim] })
    }

    async fn probe(&mut self, _ground: &mut Ground) -> Result<String> {
        let Some((victim, group)) = &self.victim else {
            return Err(Failure::new("nobody is starved"));
        };
        let limit = Limit::new(PROBE_LIMIT);
        loop {
            let throttled = group.figure("cpu.stat", "nr_throttled")?;
            if throttled >= HELD_UP_MIN {
                return Ok(format!("n{victim} was held up in {throttled} periods so far"));
            }
            limit.pause(|| format!("n{victim} was held up in {throttled} periods only")).await?;
        }
    }

    async fn heal(&mut self, _ground: &mut Ground) -> Result<()> {
        let Some((_, group)) = self.victim.take() else { return Ok(()) };
        group.remove()
    }
}

fn limit(group: &Group, version: Version) -> Result<()> {
    let (quota, period) = (QUOTA.as_micros(), PERIOD.as_micros());
    match version {
        Version::One => {
            group.write("cpu.cfs_period_us", &period.to_string())?;
            group.write("cpu.cfs_quota_us", &quota.to_string())
        }
        Version::Two => group.write("cpu.max", &format!("{quota} {period}")),
    }
}
