//! A server gets hardly more memory than it needs: every page of a file that it reads or writes evicts another one,
//! and allocations wait for that.
//!
//! Memory is charged to the group in which it was first touched. So each server starts in a group of its own,
//! without a limit until the fault begins.

use std::time::Duration;

use async_trait::async_trait;

use super::cgroup::{Controller, Group, Version};
use super::{Ground, Injection, Nemesis};
use crate::cluster::Options;
use crate::{Failure, Limit, Result};

/// What a server gets beyond what cannot be taken away: less than a second's worth of log and answers.
const HEADROOM: u64 = 512 * 1024;
/// Limits are a whole number of pages.
const PAGE: u64 = 4096;
/// A server that works runs into its limit within this.
const PROBE_LIMIT: Duration = Duration::from_secs(3);

/// Starves one server.
#[derive(Debug, Default)]
pub(super) struct MemoryStarvation {
    controller: Option<Controller>,
    victim: Option<Victim>,
    has_killed: bool,
}

#[derive(Debug)]
struct Victim {
    id: u64,
    group: Group,
    version: Version,
    /// How often it had run into a limit before.
    hits: u64,
    /// How many processes of its group the kernel had killed before.
    kills: u64,
}

#[async_trait]
impl Nemesis for MemoryStarvation {
    fn name(&self) -> &'static str {
        "memory-starvation"
    }

    fn summary(&self) -> &'static str {
        "hardly more memory for one server, mostly the leader, than it cannot do without"
    }

    fn prepare(&mut self, options: &mut Options) -> Result<()> {
        let controller = Controller::find("memory")?;
        options.before_start.push(controller.group("memory-{id}").enter_line());
        for id in 1..=options.nodes {
            options.at_end.push(controller.group(&format!("memory-{id}")).removal_line());
        }
        self.controller = Some(controller);
        Ok(())
    }

    /// Only if the kernel killed it for want of memory.
    fn may_end_servers(&self) -> bool {
        self.has_killed
    }

    async fn inject(&mut self, ground: &mut Ground) -> Result<Injection> {
        let controller =
            self.controller.clone().ok_or_else(|| Failure::new("it was not prepared"))?;
        self.has_killed = false;
        let (id, leader) = ground.mostly_leader().await?;
        let group = controller.group(&format!("memory-{id}"));
        let pid = ground.cluster.pid(id).unwrap_or_default();
        if !group.holds(pid) {
            return Err(Failure::new(format!("n{id} is not in its memory group")));
        }
        let version = controller.version;
        let victim = Victim {
            id,
            version,
            hits: hits(&group, version)?,
            kills: kills(&group, version)?,
            group,
        };
        let limit = narrow(&victim)?;
        self.victim = Some(victim);
        let what =
            format!("{} gets {} KiB of memory", ground.describe(id, Some(leader)), limit / 1024);
        Ok(Injection { what, affected: vec![id] })
    }

    async fn probe(&mut self, _ground: &mut Ground) -> Result<String> {
        let victim = self.victim.as_ref().ok_or_else(|| Failure::new("nobody is starved"))?;
        let limit = Limit::new(PROBE_LIMIT);
        loop {
            let more = hits(&victim.group, victim.version)?.saturating_sub(victim.hits);
            if more > 0 {
                return Ok(format!("n{} ran into its limit {more} times so far", victim.id));
            }
            limit.pause(|| format!("n{} runs into its limit", victim.id)).await?;
        }
    }

    async fn heal(&mut self, _ground: &mut Ground) -> Result<()> {
        let Some(victim) = self.victim.take() else { return Ok(()) };
        widen(&victim)?;
        self.has_killed = kills(&victim.group, victim.version)? > victim.kills;
        Ok(())
    }
}

/// Sets the limit, and returns it. Of version 2 it is the one beyond which a process is held up: its hard
/// one kills at once.
fn narrow(victim: &Victim) -> Result<u64> {
    let group = &victim.group;
    let files = group.figure("memory.stat", "active_file")?
        + group.figure("memory.stat", "inactive_file")?;
    let (usage, limit) = match victim.version {
        Version::One => ("memory.usage_in_bytes", "memory.limit_in_bytes"),
        Version::Two => ("memory.current", "memory.high"),
    };
    let usage: u64 = group
        .read(usage)?
        .trim()
        .parse()
        .map_err(|error| Failure::new(format!("{usage} is no number: {error}")))?;
    let bytes = narrowed(usage, files);
    group.write(limit, &bytes.to_string())?;
    Ok(bytes)
}

/// What is left if the files' pages are taken away, and a little more.
fn narrowed(usage: u64, files: u64) -> u64 {
    (usage.saturating_sub(files) + HEADROOM).div_ceil(PAGE) * PAGE
}

fn widen(victim: &Victim) -> Result<()> {
    match victim.version {
        Version::One => victim.group.write("memory.limit_in_bytes", "-1"),
        Version::Two => victim.group.write("memory.high", "max"),
    }
}

fn hits(group: &Group, version: Version) -> Result<u64> {
    match version {
        Version::One => {
            let count = group.read("memory.failcnt")?;
            count.trim().parse().map_err(|error| Failure::new(format!("memory.failcnt: {error}")))
        }
        Version::Two => group.figure("memory.events", "high"),
    }
}

fn kills(group: &Group, version: Version) -> Result<u64> {
    let file = match version {
        Version::One => "memory.oom_control",
        Version::Two => "memory.events",
    };
    group.figure(file, "oom_kill")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_what_cannot_be_taken_away_and_a_little_more() {
        assert_eq!(narrowed(60 * PAGE, 20 * PAGE), 40 * PAGE + HEADROOM);
        assert_eq!(narrowed(PAGE + 1, 0) % PAGE, 0);
        assert_eq!(narrowed(PAGE, 2 * PAGE), HEADROOM, "files that others read count twice");
    }
}
