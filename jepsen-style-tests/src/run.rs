//! One run: a cluster, a workload, its nemeses in turns, and the checkers' verdicts.
//!
//! The phases: the cluster starts and the workload prepares its data; the clients warm up, so that a fault meets
//! traffic; faults are injected, proven, held and healed, with a calm between them; then nothing is broken any more
//! and every server must serve again within [`crate::cluster::READY_LIMIT`] (the liveness phase); the workload does
//! its final reads; the cluster ends; the files are read back and checked.

mod sampler;

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::client::{Processes, Site};
use crate::cluster::{Cluster, Options};
use crate::journal::{Fault, Journal};
use crate::nemesis::{self, Ground, Nemesis};
use crate::plan::Plan;
use crate::record::{ENDING, PLAN, Record, RunEnding, write_json};
use crate::workload::{self, Workload};
use crate::{Failure, Result, binary};

/// How long the clients work before the first fault.
pub const WARM_UP: Duration = Duration::from_millis(2_500);
/// Shortest and longest calm between two faults, in ms: time for elections, and for progress.
const CALM_MS: std::ops::Range<u64> = 1_000..2_000;
/// A fault is injected only if this much time is left after its hold.
const ROOM: Duration = Duration::from_millis(1_500);
/// Signals by which a process ends itself that went wrong: SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGSEGV.
const CRASHES: [i32; 5] = [4, 6, 7, 8, 11];

/// Servers of a run take a snapshot after so many entries of the log and keep so many behind it, so that a
/// short run sees what a long life does: restarts from snapshots, and snapshots sent to those that were away.
const SNAPSHOT_THRESHOLD: u64 = 400;
const TRAILING_LOGS: u64 = 100;

/// Receives the progress of a run.
pub trait Watcher: Send + Sync {
    /// Shows what happens now, in a sentence.
    fn say(&self, sentence: &str);
}

/// What a run needs from outside.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The servers' binary, if it is not the one built with the harness.
    pub binary: Option<PathBuf>,
    /// Whether other runs may share its turn.
    pub shares_turn: bool,
}

/// Runs `plan` in the existing, empty directory `dir` and returns what was written down. An error is
/// trouble of the harness, and leaves the run without a verdict.
pub async fn run(
    plan: &Plan,
    dir: &Path,
    surroundings: &Surroundings,
    watcher: &dyn Watcher,
) -> Result<Record> {
    write_json(&dir.join(PLAN), plan)?;
    let workload = workload::named(&plan.workload)?;
    let mut ending = RunEnding::default();
    let mut options = Options {
        nodes: plan.nodes,
        dir: Some(dir.to_owned()),
        binary: surroundings.binary.clone(),
        shares_turn: surroundings.shares_turn,
        flags: vec![
            format!("--raft-snapshot-threshold={SNAPSHOT_THRESHOLD}"),
            format!("--raft-trailing-logs={TRAILING_LOGS}"),
        ],
        ..Options::default()
    };
    workload.prepare(dir, &mut options)?;
    let nemeses = prepare(plan, &mut options, &mut ending)?;
    watcher.say("starting the cluster");
    let cluster = Cluster::start_with(options).await?;
    let journal = Arc::new(Journal::create(dir)?);
    let nodes = cluster.ids().into_iter().map(|id| (id, cluster.http(id))).collect();
    let binary = surroundings.binary.clone().map_or_else(binary::quorate, Ok)?;
    let processes = Processes { binary, dir: dir.to_owned() };
    let site = Site::new(plan.clone(), nodes, Arc::clone(&journal)).with_processes(processes);
    let site = Arc::new(site);
    let sampler = sampler::start(&cluster, &journal);
    workload.set_up(&site).await?;
    let rng = ChaCha8Rng::seed_from_u64(plan.seed);
    let ground = Ground { cluster, rng, broken_promises: Vec::new() };
    let mut stage = Stage { ground, nemeses, site, ending, watcher };
    stage.perform(&workload).await?;
    drop(sampler);
    journal.flush()?;
    let Stage { ground, ending, .. } = stage;
    ground.cluster.abandon();
    write_json(&dir.join(ENDING), &ending)?;
    Record::load(dir)
}

/// The nemeses that this machine allows; the others are noted as skipped.
fn prepare(
    plan: &Plan,
    options: &mut Options,
    ending: &mut RunEnding,
) -> Result<Vec<Box<dyn Nemesis>>> {
    let mut prepared = Vec::new();
    for name in &plan.nemeses {
        let mut nemesis = nemesis::named(name)?;
        match nemesis.prepare(options) {
            Ok(()) => prepared.push(nemesis),
            Err(why) => ending.skipped.push((name.clone(), why.to_string())),
        }
    }
    let mut allowed = Vec::new();
    for nemesis in prepared {
        match nemesis.consider(options) {
            Ok(()) => allowed.push(nemesis),
            Err(why) => ending.skipped.push((nemesis.name().to_owned(), why.to_string())),
        }
    }
    Ok(allowed)
}

/// A run in progress.
struct Stage<'a> {
    ground: Ground,
    nemeses: Vec<Box<dyn Nemesis>>,
    site: Arc<Site>,
    ending: RunEnding,
    watcher: &'a dyn Watcher,
}

impl Stage<'_> {
    async fn perform(&mut self, workload: &Arc<dyn Workload>) -> Result<()> {
        self.ending.began = self.site.now();
        let clients = workload::start(workload, &self.site);
        let faults = self.faults().await;
        self.ending.stopped = self.site.now();
        self.watcher.say("waiting for the last answers");
        workload::stop(&self.site, clients).await?;
        faults?;
        self.require_live().await?;
        if self.ending.not_live.is_empty() {
            self.watcher.say("reading what must be there at the end");
            if let Err(why) = workload.conclude(&self.site).await {
                self.ending.not_live.push(format!("after everything was healed: {why}"));
            }
        }
        self.ending.broken_promises = std::mem::take(&mut self.ground.broken_promises);
        self.ending.panics = self.ground.cluster.panics()?;
        Ok(())
    }

    /// The warm-up, the faults with a calm behind each, and the rest of the time.
    async fn faults(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(self.site.plan.time_s);
        self.watcher.say("warming up");
        tokio::time::sleep(WARM_UP).await;
        if self.nemeses.is_empty() && !self.site.plan.nemeses.is_empty() {
            // Every fault is skipped: the rest of the time would prove nothing.
            return Ok(());
        }
        let mut nemeses = std::mem::take(&mut self.nemeses);
        'time: while !nemeses.is_empty() && self.ending.not_live.is_empty() {
            nemeses.shuffle(&mut self.ground.rng);
            for nemesis in &mut nemeses {
                if Instant::now() + nemesis.hold() + ROOM >= deadline {
                    break 'time;
                }
                self.one_fault(nemesis.as_mut()).await?;
                let calm = Duration::from_millis(self.ground.rng.random_range(CALM_MS));
                tokio::time::sleep(calm).await;
            }
        }
        tokio::time::sleep(deadline.saturating_duration_since(Instant::now())).await;
        Ok(())
    }

    async fn one_fault(&mut self, nemesis: &mut dyn Nemesis) -> Result<()> {
        // A server that ended by itself during the calm must not be blamed on this fault.
        self.revive(&[])?;
        let name = nemesis.name().to_owned();
        let began = self.site.now();
        let injection = match nemesis.inject(&mut self.ground).await {
            Ok(injection) => injection,
            Err(error) => {
                nemesis.heal(&mut self.ground).await?;
                return Err(Failure::new(format!("{name}: {error}")));
            }
        };
        let injected = Some(self.site.now());
        self.watcher.say(&injection.what);
        let held = Instant::now() + nemesis.hold();
        let (evidence, objection) = match nemesis.probe(&mut self.ground).await {
            Ok(evidence) => (Some(evidence), None),
            Err(why) => {
                self.watcher.say(&format!("no effect was seen of {}: {why}", injection.what));
                (None, Some(why.to_string()))
            }
        };
        tokio::time::sleep(held.saturating_duration_since(Instant::now())).await;
        let mut affected = injection.affected;
        affected.extend(nemesis.also_affected(&mut self.ground).await);
        affected.sort_unstable();
        affected.dedup();
        let healed = match nemesis.heal(&mut self.ground).await {
            Ok(()) => Some(self.site.now()),
            Err(why) => {
                // Healing depends on the servers too: they must accept a join, or stop when asked to.
                let not_live = &mut self.ending.not_live;
                not_live.push(format!("{:?} could not be healed: {why}", injection.what));
                None
            }
        };
        let explained = if nemesis.may_end_servers() { affected.as_slice() } else { &[] };
        self.revive(explained)?;
        if !explained.is_empty() && self.ground.cluster.wait_all_caught_up().await.is_err() {
            // One that was about to end when the fault was healed has ended since.
            self.revive(explained)?;
        }
        let recovered = match healed {
            Some(_) => self.recover(&injection.what).await,
            None => None,
        };
        self.site.journal.fault(&Fault {
            nemesis: name,
            what: injection.what,
            affected,
            began,
            injected,
            evidence,
            objection,
            healed,
            recovered,
        });
        Ok(())
    }

    /// Starts servers that ended by themselves. That is a violation unless the fault explains it: it affected
    /// them, and they did not crash.
    fn revive(&mut self, explained: &[u64]) -> Result<()> {
        for (id, status) in self.ground.cluster.reap_ended()? {
            let has_crashed = status.signal().is_some_and(|signal| CRASHES.contains(&signal));
            if has_crashed || !explained.contains(&id) {
                self.ending.ended_by_themselves.push(format!("n{id}: {status}"));
            }
        }
        self.ground.cluster.start_all()
    }

    /// Waits until every server is ready and has caught up; a server that is not is a violation.
    async fn recover(&mut self, after: &str) -> Option<u64> {
        match self.ground.cluster.wait_all_caught_up().await {
            Ok(()) => Some(self.site.now()),
            Err(why) => {
                self.ending.not_live.push(format!("after {after:?}: {why}"));
                None
            }
        }
    }

    /// The liveness phase: with no fault left, every server serves, and all have the same state.
    async fn require_live(&mut self) -> Result<()> {
        self.watcher.say("everything is healed: every server must serve again");
        self.revive(&[])?;
        if self.ending.not_live.is_empty() && self.recover("everything was healed").await.is_some()
        {
            let converged = self.ground.cluster.converge().await;
            if let Err(why) = converged {
                self.ending.not_live.push(why.to_string());
            }
        }
        Ok(())
    }
}
