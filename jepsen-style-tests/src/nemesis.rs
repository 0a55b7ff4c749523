//! Faults, one file per kind. Each can be injected and healed, and proves that it took effect: a fault
//! that cannot prove it counts for nothing.
//!
//! A nemesis whose machine does not allow it says so before the cluster starts ([`Nemesis::prepare`]), and
//! is reported as skipped with the reason, never as passed. Whatever happens to the harness, what was
//! done to the machine is undone: by [`Nemesis::heal`], by the destructors of what [`Ground`] holds, and by
//! the cluster's guardian if the harness itself is killed.
//!
//! To add a fault: a file here, a line in `all()`, and cells in `matrix.rs` (a test asks for them). If it
//! ends processes or slows them, its name also belongs into `ENDING` of `checker/restarts.rs`, `SLOWING`
//! of `checker/weather.rs`, or the lists of `checker/availability.rs`.

mod cgroup;
mod clock_jump;
mod clock_rate;
mod corrupt;
mod cpu_starvation;
mod delay;
mod disk_fault;
mod duplicate;
mod faketime;
mod kill;
mod loss;
mod membership;
mod memory_starvation;
mod on_disk;
mod partition;
mod pause;
mod power_cut;
mod rolling_restart;
mod together;
mod wiped_node;

use std::time::Duration;

use async_trait::async_trait;
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use crate::cluster::{Cluster, Options};
use crate::{Failure, Result};

/// How long a fault lasts unless its nemesis says otherwise: several elections.
const HOLD: Duration = Duration::from_millis(2_500);

/// What a nemesis acts on.
#[derive(Debug)]
pub struct Ground {
    /// The servers.
    pub cluster: Cluster,
    /// The choices of nemeses; the same in every run with the same seed.
    pub rng: ChaCha8Rng,
    /// Sentences on what servers did that they promise not to do, as a nemesis saw it: a violation.
    pub broken_promises: Vec<String>,
}

/// What was injected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// What exactly: "killed n2 (leader)".
    pub what: String,
    /// Servers that may refuse, hang or be late from now until they have recovered. All others can reach a
    /// leader and a majority, and are held to it.
    pub affected: Vec<u64>,
}

/// A kind of fault.
#[async_trait]
pub trait Nemesis: Send {
    /// Its name on the command line.
    fn name(&self) -> &str;

    /// One sentence for `list`.
    fn summary(&self) -> &'static str;

    /// Checks that the machine allows it, and requests what the servers must be started with. An error is the
    /// reason why it is skipped.
    fn prepare(&mut self, _options: &mut Options) -> Result<()> {
        Ok(())
    }

    /// Checks that it works with what all nemeses of the run have requested. An error is the reason why it is
    /// skipped.
    fn consider(&self, _options: &Options) -> Result<()> {
        Ok(())
    }

    /// How long the fault lasts between its injection and its healing.
    fn hold(&self) -> Duration {
        HOLD
    }

    /// Whether a server may end by itself under this fault (a server does when its disk fails it).
    fn may_end_servers(&self) -> bool {
        false
    }

    /// Injects the fault.
    async fn inject(&mut self, ground: &mut Ground) -> Result<Injection>;

    /// Checks from outside that the fault took effect, and returns the evidence. Called while the fault lasts; it
    /// may wait for a condition. An error means that there is no evidence.
    async fn probe(&mut self, ground: &mut Ground) -> Result<String>;

    /// More servers that it has affected since its injection, such as those that a new leader cannot reach.
    /// Called just before it is healed.
    async fn also_affected(&mut self, _ground: &mut Ground) -> Vec<u64> {
        Vec::new()
    }

    /// Removes the fault, so that every server can be ready again. Must do no harm when nothing was injected.
    async fn heal(&mut self, ground: &mut Ground) -> Result<()>;
}

/// All nemeses, in the order of `list`.
pub fn all() -> Vec<Box<dyn Nemesis>> {
    vec![
        Box::new(kill::Kill::new(kill::Aim::One)),
        Box::new(kill::Kill::new(kill::Aim::Leader)),
        Box::new(kill::Kill::new(kill::Aim::Majority)),
        Box::new(kill::Kill::new(kill::Aim::All)),
        Box::new(pause::Pause::new(pause::Aim::MostlyLeader)),
        Box::new(pause::Pause::new(pause::Aim::Follower)),
        Box::new(clock_jump::ClockJump::new(faketime::Scope::Wall)),
        Box::new(clock_jump::ClockJump::new(faketime::Scope::Both)),
        Box::new(clock_rate::ClockRate::default()),
        Box::new(cpu_starvation::CpuStarvation::default()),
        Box::new(memory_starvation::MemoryStarvation::default()),
        Box::new(rolling_restart::RollingRestart::new(rolling_restart::Binary::Same)),
        Box::new(rolling_restart::RollingRestart::new(rolling_restart::Binary::Other)),
        Box::new(membership::Membership::default()),
        Box::new(wiped_node::WipedNode::default()),
        Box::new(partition::Partition::new(partition::Shape::Halves)),
        Box::new(partition::Partition::new(partition::Shape::Leader)),
        Box::new(partition::Partition::new(partition::Shape::OneWay)),
        Box::new(partition::Partition::new(partition::Shape::Ring)),
        Box::new(delay::Delay::new(delay::Kind::Late)),
        Box::new(delay::Delay::new(delay::Kind::Reordered)),
        Box::new(duplicate::Duplicate::default()),
        Box::new(loss::Loss::default()),
        Box::new(power_cut::PowerCut::new(power_cut::Aim::One)),
        Box::new(power_cut::PowerCut::new(power_cut::Aim::Majority)),
        Box::new(power_cut::PowerCut::new(power_cut::Aim::All)),
        Box::new(disk_fault::DiskFault::new(disk_fault::Kind::Full)),
        Box::new(disk_fault::DiskFault::new(disk_fault::Kind::Slow)),
        Box::new(disk_fault::DiskFault::new(disk_fault::Kind::Hung)),
        Box::new(disk_fault::DiskFault::new(disk_fault::Kind::Error)),
        Box::new(corrupt::Corrupt::default()),
    ]
}

/// The nemesis of that name, or several that strike together: `delay+kill-leader`.
pub fn named(name: &str) -> Result<Box<dyn Nemesis>> {
    if !name.contains(together::AND) {
        return one_named(name);
    }
    let parts = name.split(together::AND).map(one_named).collect::<Result<Vec<_>>>()?;
    Ok(Box::new(together::Together::new(name, parts)))
}

fn one_named(name: &str) -> Result<Box<dyn Nemesis>> {
    all().into_iter().find(|nemesis| nemesis.name() == name).ok_or_else(|| {
        let names: Vec<_> = all().iter().map(|nemesis| nemesis.name().to_owned()).collect();
        Failure::new(format!("no nemesis is called {name:?}; there are {}", names.join(", ")))
    })
}

/// The leader is chosen more often than others: most serious bugs are in what it does.
const LEADER_OF_TEN: u32 = 7;

impl Ground {
    /// A founding server that should be serving, mostly the leader; with the leader.
    pub async fn mostly_leader(&mut self) -> Result<(u64, u64)> {
        let leader = self.cluster.leader().await?;
        let at_leader = self.rng.random_range(0..10) < LEADER_OF_TEN;
        let is_founder = self.cluster.ids().contains(&leader);
        let victim = if at_leader && is_founder { leader } else { self.any_running()? };
        Ok((victim, leader))
    }

    /// A founding server other than `id` that should be serving, for an operator's requests.
    pub fn another_running(&mut self, id: u64) -> Result<u64> {
        let mut others = self.cluster.running();
        others.retain(|other| *other != id);
        if others.is_empty() {
            return Err(Failure::new(format!("no server but n{id} is running")));
        }
        Ok(others[self.rng.random_range(0..others.len())])
    }

    /// One of the servers that should be serving.
    pub fn any_running(&mut self) -> Result<u64> {
        let running = self.cluster.running();
        if running.is_empty() {
            return Err(Failure::new("no server is running"));
        }
        Ok(running[self.rng.random_range(0..running.len())])
    }

    /// `count` of the servers that should be serving, in random order.
    pub fn some_running(&mut self, count: usize) -> Vec<u64> {
        let mut running = self.cluster.running();
        while running.len() > count {
            let position = self.rng.random_range(0..running.len());
            running.remove(position);
        }
        running
    }

    /// Records that a server broke a promise. Returns it as the failure of the probe.
    pub fn broken_promise(&mut self, what: String) -> Failure {
        self.broken_promises.push(what.clone());
        Failure::new(what)
    }

    /// `n2 (leader)` or `n3`.
    pub fn describe(&self, id: u64, leader: Option<u64>) -> String {
        if leader == Some(id) { format!("n{id} (leader)") } else { format!("n{id}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_that_strike_together_are_named_together() {
        let both = named("delay+kill-leader").unwrap();
        assert_eq!(both.name(), "delay+kill-leader");
        let longest = named("delay").unwrap().hold().max(named("kill-leader").unwrap().hold());
        assert_eq!(both.hold(), longest);
        assert!(named("disk-full+delay").unwrap().may_end_servers());
    }

    #[test]
    fn a_part_that_does_not_exist_is_refused_by_its_name() {
        let refused = named("delay+dragons").err().unwrap().to_string();
        assert!(refused.contains("\"dragons\""), "{refused}");
    }
}
