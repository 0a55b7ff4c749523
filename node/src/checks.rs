//! Checks that the cluster runs itself: HTTP, TCP, gRPC, UDP, HTTP/2 pings, and aliases.
//!
//! In Consul each agent runs the checks that were registered with it. Here agents are kept by the whole
//! cluster, and its workers share the checks: all servers, and worker processes (`quorate worker`). Who runs which is
//! a function of the state ([`WorkerSet`](quorate_storage::state::WorkerSet)). What a run found goes through the log
//! like any other change, so every node shows the same. The state knows which checks are run
//! ([`Probes`](quorate_storage::state::Probes)) and gives each definition a number; a result names it, and apply
//! refuses one whose definition was replaced or removed while it was under way, or that is of a worker that is not
//! responsible any more.
//!
//! # How it works
//!
//! A [`Runner`](runner::Runner) holds a [`Schedule`](schedule::Schedule) of one worker's checks and starts what is
//! due: an idle check is an entry in a map, not a task. It learns what it is to run at a [`Desk`](runner::Desk), and
//! reports there: a server's is the state that it has applied ([`ServerDesk`]), a worker process's is its stream
//! from a server. Both compare versions of the state, which costs what has changed, not what there is
//! ([`assigned`]). Aliases, and checks whose network has no worker, are the leader's ([`LeaderDesk`]).
//!
//! **What goes into the log** is only what differs from the state: a status at once, an output alone at
//! most once in [`OUTPUT_EVERY`], because a page with a clock in it must not turn every run of every
//! check into a write that wakes every watcher (Consul's `check_update_interval`).
//!
//! **A worker that takes a check over** begins with the state as it is. It changes nothing by itself, runs the check
//! at its next turn ([`turn`]), and counts successes and failures from zero.
//!
//! # What it does not know
//!
//! Scripts, Docker and services of operating systems: refused at registration. TTLs and
//! `DeregisterCriticalServiceAfter`: deadlines in the state. Checks of `catalog/register`, which nobody
//! runs (they have no probe). Which of a target's addresses a worker reaches: a network that only one worker cannot
//! use fails its checks, unless they have three observers or name the network. `127.0.0.1` in a definition is the
//! host that registered it: it is dialled at the address of that host's node.
//!
//! # Whom it trusts
//!
//! Whoever may register a check. He can make the workers connect to any address that they reach and that their operator
//! allows ([`policy`]), send it an HTTP request of his choice, and learn its status. A redirect stays on its host, and
//! the beginning of the answer is in the check's output only where the operator wants it (`--check-output-body`).

mod alias;
pub(crate) mod assigned;
mod connect;
mod grpc;
mod h2ping;
mod http;
pub(crate) mod key;
mod leader_desk;
mod lookup;
pub mod policy;
pub(crate) mod remote;
pub(crate) mod runner;
pub(crate) mod schedule;
mod server_desk;
mod tcp;
mod tls;
pub(crate) mod turn;
mod udp;
mod under_way;

pub use self::key::WorkerKey;
pub use self::leader_desk::LeaderDesk;
pub(crate) use self::server_desk::{ServerDesk, servers};

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_storage::record::{CheckDefinition, CheckStatus};

use self::lookup::Resolver;
use self::schedule::Run;
use crate::host::clock::{Clock, Moment};
use crate::host::resources::BUDGET;

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
pub(crate) struct Finding {
    pub(crate) status: CheckStatus,
    pub(crate) output: String,
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
    /// By the check's number. A std lock: held for one look-up or change.
    last: Mutex<BTreeMap<u64, LastRun>>,
}

/// The last run of a check by this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LastRun {
    /// When it began.
    pub(crate) began: Moment,
    /// How long it took, with the report of its result.
    pub(crate) took: Duration,
    /// When the next one begins.
    pub(crate) next: Moment,
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

    /// The last run of a check, if this process runs it.
    pub(crate) fn last_run(&self, check: u64) -> Option<LastRun> {
        self.last().get(&check).copied()
    }

    /// How many checks this process has run and still runs.
    pub fn checks(&self) -> usize {
        self.last().len()
    }

    fn note(&self, check: u64, run: Option<LastRun>) {
        match run {
            Some(run) => drop(self.last().insert(check, run)),
            None => drop(self.last().remove(&check)),
        }
    }

    fn last(&self) -> MutexGuard<'_, BTreeMap<u64, LastRun>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
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
