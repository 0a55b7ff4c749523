//! Checks that the cluster runs itself: HTTP, TCP, gRPC, UDP, HTTP/2 pings, and aliases.
//!
//! In Consul each agent runs the checks that were registered with it. Here agents are kept by the whole
//! cluster, so one node runs them all: the leader, as one of its duties ([`crate::leader`]). What a run
//! found goes through the log like any other change, so every node shows the same. The state knows which
//! checks are run ([`Probes`]) and gives each definition a number; a result names it, and apply refuses
//! one whose definition was replaced or removed while it was under way.
//!
//! # How it works
//!
//! [`Checks::run`] has two loops. One holds a [`Schedule`] of the checks with an interval and starts
//! what is due: an idle check is an entry in a map, not a task. The other computes aliases from the state
//! whenever checks, services or nodes change, so an alias follows within milliseconds and costs nothing
//! in between. Both compare the state's set of probes with the version that they saw last, which costs
//! what has changed, not what there is.
//!
//! **What goes into the log** is only what differs from the state: a status at once, an output alone at
//! most once in [`OUTPUT_EVERY`], because a page with a clock in it must not turn every run of every
//! check into a write that wakes every watcher (Consul's `check_update_interval`).
//!
//! **A new leader** begins with the state as it is. It changes nothing by itself, runs each check for
//! the first time after a random part of its interval, and counts successes and failures from zero.
//!
//! # What it does not know
//!
//! Scripts, Docker and services of operating systems: refused at registration. TTLs and
//! `DeregisterCriticalServiceAfter`: deadlines in the state. Checks of `catalog/register`, which nobody
//! runs (they have no probe). Where a target is: it is reached from the leader, so `127.0.0.1` in a
//! definition is the leader's host, and a network that only the leader cannot use fails its checks.
//!
//! # Whom it trusts
//!
//! Whoever may register a check. Any client can make the leader connect to any address that the leader
//! reaches, its own loopback included, send it an HTTP request of the client's choice, and read the
//! beginning of the answer in the check's output. Only link-local addresses (169.254.0.0/16, fe80::/10)
//! are refused, after the look-up and after each redirect: there clouds tell a host's credentials. What
//! else must not be asked from the leader's host is for a firewall to say.

mod alias;
mod connect;
mod grpc;
mod h2ping;
mod http;
mod lookup;
mod schedule;
mod tcp;
mod tls;
mod udp;
mod under_way;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use quorate_storage::Topic;
use quorate_storage::command::Command;
use quorate_storage::machine::StateReader;
use quorate_storage::record::{Check, CheckDefinition, CheckStatus};
use quorate_storage::state::{Probes, State};

use self::lookup::{Lookups, Resolver};
use self::schedule::{Run, Schedule};
use self::under_way::UnderWay;
use crate::host::clock::Clock;
use crate::host::resources::BUDGET;
use crate::raft::propose::Proposer;
use crate::watch::Watches;

/// Runs, with the writes of their results, that are under way at a time. Each run has a socket, so where
/// descriptors are scarce there are fewer; and the writes share the proposer with clients. Beyond that,
/// checks wait for their turn: late, never lost.
fn runs_at_once_max() -> usize {
    BUDGET.checks
}

/// How many of them may be of checks that are not known to be quick, so that targets that hang do not hold
/// up the checks of those that answer.
fn others_at_once_max() -> usize {
    (runs_at_once_max() * 3 / 4).max(1)
}

/// The shortest interval (Consul's rule): shorter ones are taken for it.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// How long a run may take unless its definition says otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// How long it may take at most, whatever the definition says: all checks of the cluster share the runs
/// that may be under way, so a few patient ones must not hold them all.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// How much of a target's answer is kept unless the definition says otherwise, in bytes.
const OUTPUT_BYTES_DEFAULT: usize = 4_096;
/// How much is kept at most, whatever the definition says: results go through the log.
const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// An output that changes while the status stays is written at most this often for each check.
const OUTPUT_EVERY: Duration = Duration::from_secs(60);
/// The state is looked at this often although nothing seems to have changed: a check can get its probe
/// in a change that is not visible.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Changes that come within this time of each other are one look at the aliases.
const ALIAS_PAUSE: Duration = Duration::from_millis(2);
/// Results of aliases that are on their way to the log at a time.
const ALIAS_WRITES_AT_ONCE_MAX: usize = 64;

/// What a run found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    status: CheckStatus,
    output: String,
}

impl Finding {
    const fn passing(output: String) -> Self {
        Self { status: CheckStatus::Passing, output }
    }

    const fn critical(output: String) -> Self {
        Self { status: CheckStatus::Critical, output }
    }
}

/// How many runs there were on this node since it started.
#[derive(Debug, Default)]
pub struct ProbeCounts {
    run: AtomicU64,
    failing: AtomicU64,
}

impl ProbeCounts {
    /// Runs that ended.
    pub fn run(&self) -> u64 {
        self.run.load(Ordering::Relaxed)
    }

    /// Those of them that did not pass.
    pub fn failing(&self) -> u64 {
        self.failing.load(Ordering::Relaxed)
    }

    fn count(&self, finding: &Finding) {
        self.run.fetch_add(1, Ordering::Relaxed);
        if finding.status != CheckStatus::Passing {
            self.failing.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What is kept of checks' outputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckOutput {
    /// At most this many bytes, even if the check's definition allows more.
    pub bytes_max: Option<usize>,
    /// Nothing at all.
    pub discard: bool,
}

impl CheckOutput {
    fn apply(self, mut finding: Finding) -> Finding {
        let most = if self.discard { Some(0) } else { self.bytes_max };
        if let Some(most) = most.filter(|most| *most < finding.output.len()) {
            finding.output.truncate(finding.output.floor_char_boundary(most));
        }
        finding
    }
}

/// Runs the cluster's checks while this node leads.
#[derive(Debug)]
pub struct Checks {
    /// Time.
    pub clock: Clock,
    /// Where results are proposed.
    pub proposer: Arc<Proposer>,
    /// The applied state.
    pub state: StateReader,
    /// Tells when it changes.
    pub watches: Arc<Watches>,
    /// What was run.
    pub counts: Arc<ProbeCounts>,
    /// What is kept of what was found.
    pub output: CheckOutput,
}

/// A step of one check's run that has ended.
#[derive(Debug)]
enum Step {
    /// The target was asked.
    Ran(Run, Finding),
    /// The result was handed to the log; `true`: it is in the state.
    Told(Run, bool),
    /// It came to nothing: there was no turn to look a name up in time, or a panic, or the check is
    /// gone.
    Ended(Run),
}

impl Checks {
    /// Runs until it is dropped, which ends what is under way.
    pub async fn run(&self) {
        tokio::join!(self.run_at_intervals(), self.follow_aliases());
    }

    async fn run_at_intervals(&self) {
        let mut changes = self.watches.subscribe(&Topic::Checks);
        let mut known = Probes::default();
        let mut schedule = Schedule::default();
        let mut under_way = UnderWay::default();
        let lookups = Arc::new(Lookups::new(self.clock.clone()));
        loop {
            known = self.reschedule(&mut schedule, &known);
            self.start_what_is_due(&mut schedule, &mut under_way, &lookups);
            let pause = self.pause(&schedule, under_way.len());
            tokio::select! {
                () = changes.changed() => {}
                Some(step) = under_way.next() => self.go_on(step, &mut schedule, &mut under_way),
                () = self.clock.sleep(pause) => {}
            }
        }
    }

    /// Takes over what changed in the set of checks since `known`; returns the present version.
    fn reschedule(&self, schedule: &mut Schedule, known: &Probes) -> Probes {
        let published = self.state.load();
        let probes = published.state.probes();
        for change in probes.changes_since(known) {
            schedule.remove(change.check);
            let row = published.state.check_numbered(change.check);
            if let (Some(probe), Some(row)) = (change.probe, row)
                && !is_alias(row)
            {
                let run = Run { check: change.check, probe, row: Arc::clone(row) };
                let delay = interval(row).mul_f64(rand::random());
                schedule.add(run, interval(row), self.clock.now(), delay);
            }
        }
        probes.clone()
    }

    fn start_what_is_due(
        &self,
        schedule: &mut Schedule,
        under_way: &mut UnderWay,
        lookups: &Arc<Lookups>,
    ) {
        let now = self.clock.now();
        while under_way.len() < runs_at_once_max()
            && let Some(run) = schedule.take_due(now, others_at_once_max())
        {
            let (clock, counts) = (self.clock.clone(), Arc::clone(&self.counts));
            let started = run.clone();
            let resolver = Resolver::new(Arc::clone(lookups));
            let handle = under_way.start(run.clone(), async move {
                let definition = &run.row.registration.definition;
                let Some(finding) = probe(definition, &resolver, &clock).await else {
                    return Step::Ended(run);
                };
                counts.count(&finding);
                Step::Ran(run, finding)
            });
            schedule.started(&started, handle);
        }
    }

    fn pause(&self, schedule: &Schedule, under_way: usize) -> Duration {
        let next =
            schedule.next_due(others_at_once_max()).filter(|_| under_way < runs_at_once_max());
        next.map_or(LOOK_EVERY, |next| next.since(self.clock.now()).min(LOOK_EVERY))
    }

    /// Writes what has to be written of a finding; then the check waits for its next turn. Its next
    /// run begins after its result is in the state, so a check's results cannot overtake each other.
    fn go_on(&self, step: Step, schedule: &mut Schedule, under_way: &mut UnderWay) {
        let now = self.clock.now();
        match step {
            Step::Ran(run, finding) => {
                schedule.asked(&run, now);
                let finding = self.output.apply(finding);
                let published = self.state.load();
                let shown = published.state.check_numbered(run.check);
                match shown.and_then(|shown| schedule.judge(&run, finding, shown, now)) {
                    Some(finding) => {
                        let proposer = Arc::clone(&self.proposer);
                        under_way.start(run.clone(), async move {
                            let told = tell(&proposer, run.check, run.probe, finding).await;
                            Step::Told(run, told)
                        });
                    }
                    None => schedule.finish(&run, now),
                }
            }
            Step::Told(run, told) => {
                if told {
                    schedule.written(&run, now);
                }
                schedule.finish(&run, now);
            }
            Step::Ended(run) => schedule.finish(&run, now),
        }
    }

    async fn follow_aliases(&self) {
        let topics = [Topic::Checks, Topic::Services, Topic::Nodes];
        let [mut checks, mut services, mut nodes] =
            topics.map(|topic| self.watches.subscribe(&topic));
        let mut known = Probes::default();
        let mut aliases = BTreeMap::new();
        loop {
            let published = self.state.load();
            known = note_aliases(&mut aliases, &published.state, &known);
            let outdated = outdated_aliases(&aliases, &published.state);
            drop(published);
            futures_util::stream::iter(outdated)
                .for_each_concurrent(
                    ALIAS_WRITES_AT_ONCE_MAX,
                    |(check, probe, finding)| async move {
                        tell(&self.proposer, check, probe, finding).await;
                    },
                )
                .await;
            tokio::select! {
                () = checks.changed() => {}
                () = services.changed() => {}
                () = nodes.changed() => {}
                () = self.clock.sleep(LOOK_EVERY) => {}
            }
            self.clock.sleep(ALIAS_PAUSE).await;
        }
    }
}

/// Hands a result to the log; says whether it took effect (or changed nothing).
async fn tell(proposer: &Proposer, number: u64, probe: u64, finding: Finding) -> bool {
    let Finding { status, output } = finding;
    match proposer.propose(Command::ProbeResult { number, probe, status, output }).await {
        Ok(outcome) => outcome.into_result().is_ok(),
        Err(error) => {
            // Its next run finds the same, if it is still true then.
            tracing::debug!(number, %error, "the result of a check was not written");
            false
        }
    }
}

fn is_alias(row: &Check) -> bool {
    let definition = &row.registration.definition;
    target_of(definition).is_none() && definition.is_alias()
}

/// Takes over what changed in the set of aliases since `known`; returns the present version.
fn note_aliases(aliases: &mut BTreeMap<u64, u64>, state: &State, known: &Probes) -> Probes {
    let probes = state.probes();
    for change in probes.changes_since(known) {
        let row = state.check_numbered(change.check).filter(|row| is_alias(row));
        match (change.probe, row) {
            (Some(probe), Some(_)) => drop(aliases.insert(change.check, probe)),
            _ => drop(aliases.remove(&change.check)),
        }
    }
    probes.clone()
}

/// Aliases that do not show what they follow: number, probe, and what they should show.
fn outdated_aliases(aliases: &BTreeMap<u64, u64>, state: &State) -> Vec<(u64, u64, Finding)> {
    let found = aliases.iter().filter_map(|(check, probe)| {
        let row = state.check_numbered(*check)?;
        let finding = alias::look(row, state);
        let shown = &row.registration;
        let is_shown = shown.status == finding.status && shown.output == finding.output;
        (!is_shown).then_some((*check, *probe, finding))
    });
    found.collect()
}

/// What a check with an interval asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Http,
    Tcp,
    Udp,
    Grpc,
    H2Ping,
}

/// Which of several targets counts, if a definition has more than one: Consul's order.
fn target_of(definition: &CheckDefinition) -> Option<Target> {
    let targets = [
        (&definition.http, Target::Http),
        (&definition.tcp, Target::Tcp),
        (&definition.udp, Target::Udp),
        (&definition.grpc, Target::Grpc),
        (&definition.h2ping, Target::H2Ping),
    ];
    targets.into_iter().find(|(address, _)| !address.is_empty()).map(|(_, target)| target)
}

/// Asks a target once. Always ends, at the latest when its time is over; `None` if it was over before
/// the target's name could be looked up, because others' look-ups took all the time.
async fn probe(
    definition: &CheckDefinition,
    resolver: &Resolver,
    clock: &Clock,
) -> Option<Finding> {
    let finding = ask(definition, resolver, clock).await;
    (!resolver.is_waiting()).then_some(finding)
}

async fn ask(definition: &CheckDefinition, resolver: &Resolver, clock: &Clock) -> Finding {
    let timeout = timeout(definition);
    let kept = output_bytes_max(definition);
    // Boxed: each is as large as what it speaks, and a task is made for the run anyway.
    match target_of(definition) {
        // These two make use of what they have when their time is over.
        Some(Target::Http) => {
            Box::pin(http::probe(definition, resolver, clock, timeout, kept)).await
        }
        Some(Target::Udp) => Box::pin(udp::probe(definition, resolver, clock, timeout)).await,
        Some(Target::Tcp) => {
            in_time(clock, timeout, Box::pin(tcp::probe(definition, resolver))).await
        }
        Some(Target::Grpc) => {
            in_time(clock, timeout, Box::pin(grpc::probe(definition, resolver))).await
        }
        Some(Target::H2Ping) => {
            in_time(clock, timeout, Box::pin(h2ping::probe(definition, resolver))).await
        }
        None => Finding::critical("the check has nothing to run".to_owned()),
    }
}

async fn in_time(clock: &Clock, timeout: Duration, run: impl Future<Output = Finding>) -> Finding {
    let late = |_| Finding::critical(format!("i/o timeout: no answer within {timeout:?}"));
    clock.timeout(timeout, run).await.unwrap_or_else(late)
}

fn timeout(definition: &CheckDefinition) -> Duration {
    match definition.timeout.0 {
        0 => TIMEOUT_DEFAULT,
        given => Duration::from_millis(given).min(TIMEOUT_MAX),
    }
}

fn output_bytes_max(definition: &CheckDefinition) -> usize {
    match usize::try_from(definition.output_max_bytes).unwrap_or(usize::MAX) {
        0 => OUTPUT_BYTES_DEFAULT,
        given => given.min(OUTPUT_BYTES_MAX),
    }
}

fn interval(row: &Check) -> Duration {
    Duration::from_millis(row.registration.definition.interval.0).max(INTERVAL_MIN)
}
