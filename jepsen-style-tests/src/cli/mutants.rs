//! `mutants`: the proof that the suite can find bugs. Each broken build ([`crate::mutants`]) is tried until its
//! named checker finds it, and the unbroken one is tried on the same plans and seeds.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use futures_util::{StreamExt as _, stream};

use super::progress::Progress;
use super::run::{CLIENTS, new_directory};
use super::table::with_header;
use crate::judge::{Overall, judge_and_write};
use crate::mutants::tree::Tree;
use crate::mutants::{FoundBy, Mutant, all};
use crate::plan::Plan;
use crate::run::{Surroundings, run};
use crate::{Failure, Result, report};

/// How often the unbroken build is tried with a plan until that proves something.
const UNBROKEN_TRIES: u32 = 2;

/// Flags of `mutants`.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Only these
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// How many seeds each is tried with before it counts as alive
    #[arg(long, default_value_t = 5)]
    attempts: u64,
    /// Operations per second of all clients together
    #[arg(long, default_value_t = 400)]
    rate: u64,
    /// How many mutants are tried at the same time; see `matrix`
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=16))]
    jobs: u64,
    /// Do not try the unbroken build on the same plans and seeds
    #[arg(long)]
    only_broken: bool,
    /// Where the directory of the runs is made [default: jepsen-runs in the target directory]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Run nothing: only have cargo check that each compiles
    #[arg(long, conflicts_with_all = ["refresh", "record"])]
    check: bool,
    /// Run nothing: only write the patches anew for the sources as they are now
    #[arg(long, conflicts_with = "record")]
    refresh: bool,
    /// Run nothing: only write what was changed by hand in the copy of the workspace as this patch
    #[arg(long, value_name = "NAME", conflicts_with = "names")]
    record: Option<String>,
}

/// The copy of the workspace, where one mutant is built at a time.
#[derive(Clone)]
struct Workshop(Arc<Mutex<Tree>>);

impl Workshop {
    async fn open() -> Result<Self> {
        let tree = off_the_runtime(Tree::open).await??;
        Ok(Self(Arc::new(Mutex::new(tree))))
    }

    /// Works in the copy, when nobody else does.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tree) -> T + Send + 'static,
    ) -> Result<T> {
        let tree = Arc::clone(&self.0);
        off_the_runtime(move || work(&tree.lock().unwrap_or_else(PoisonError::into_inner))).await
    }
}

/// Cargo and git block, and runs in parallel need the runtime's threads.
async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::new(format!("making mutants: {error}")))
}

/// What became of a mutant.
struct Outcome {
    mutant: Mutant,
    /// The attempt and time that found it.
    killed: Option<(u64, Duration)>,
    /// What was said in the last attempt.
    said: String,
    /// What the unbroken build was found to be on the same seeds; none: not tried.
    unbroken: Option<Overall>,
}

/// Tries all mutants, or the named ones. Valid if each was killed and no unbroken run was invalid.
pub(super) async fn mutants(args: &Args) -> Result<Overall> {
    let workshop = Workshop::open().await?;
    if let Some(name) = args.record.clone() {
        workshop.with(move |tree| tree.record(&name)).await??;
        return Ok(Overall::Valid);
    }
    let chosen = choose(&args.names)?;
    if args.refresh {
        // Ends with the first that fails: the copy has its conflicts then.
        let refresh =
            move |tree: &Tree| chosen.iter().try_for_each(|mutant| tree.refresh(&mutant.name));
        workshop.with(refresh).await??;
        return Ok(Overall::Valid);
    }
    if args.check {
        return workshop.with(move |tree| check(&chosen, tree)).await;
    }
    let dir = new_directory(args.out.clone(), "mutants")?;
    let jobs = usize::try_from(args.jobs).unwrap_or(1);
    let tried = chosen.into_iter().map(|mutant| one(mutant, args, &workshop, &dir));
    let mut tried = pin!(stream::iter(tried).buffered(jobs));
    let mut outcomes = Vec::new();
    while let Some(outcome) = tried.next().await {
        let outcome = outcome?;
        println!("{}", line(&outcome));
        outcomes.push(outcome);
    }
    println!("{}", table(&outcomes));
    let killed = outcomes.iter().filter(|outcome| outcome.killed.is_some()).count();
    println!("killed / listed: {killed} / {}; written to {}", outcomes.len(), dir.display());
    Ok(overall(&outcomes))
}

/// Has cargo check each, and says what does not compile.
fn check(mutants: &[Mutant], tree: &Tree) -> Overall {
    let mut overall = Overall::Valid;
    for mutant in mutants {
        match tree.apply(mutant).and_then(|()| tree.check()) {
            Ok(()) => println!("compiles  {}", mutant.name),
            Err(failure) => {
                println!("FAILED    {}: {failure}", mutant.name);
                overall = Overall::Invalid;
            }
        }
    }
    overall
}

/// A mutant that is alive, or an unbroken build in which something was found, is a defect; an unbroken build of
/// which nothing is known proves nothing.
fn overall(outcomes: &[Outcome]) -> Overall {
    let unbroken = |what| outcomes.iter().any(|outcome| outcome.unbroken == Some(what));
    if unbroken(Overall::Invalid) || outcomes.iter().any(|outcome| outcome.killed.is_none()) {
        Overall::Invalid
    } else if unbroken(Overall::Unknown) || unbroken(Overall::Skipped) {
        Overall::Unknown
    } else {
        Overall::Valid
    }
}

fn choose(names: &[String]) -> Result<Vec<Mutant>> {
    let all = all()?;
    if names.is_empty() {
        return Ok(all);
    }
    let found = |name: &String| {
        let found = all.iter().find(|mutant| mutant.name == *name).cloned();
        found.ok_or_else(|| Failure::new(format!("no mutant is called {name:?}")))
    };
    names.iter().map(found).collect()
}

async fn one(mutant: Mutant, args: &Args, workshop: &Workshop, dir: &Path) -> Result<Outcome> {
    match mutant.found_by.clone() {
        FoundBy::Run { checker, .. } => by_runs(mutant, &checker, args, workshop, dir).await,
        FoundBy::Test(command) => {
            let only_broken = args.only_broken;
            workshop.with(move |tree| by_test(mutant, &command, only_broken, tree)).await
        }
    }
}

async fn by_runs(
    mutant: Mutant,
    checker: &str,
    args: &Args,
    workshop: &Workshop,
    dir: &Path,
) -> Result<Outcome> {
    // The next mutant's binary will have the same path.
    let own = dir.join(format!("{}.binary", mutant.name));
    std::fs::create_dir(&own)?;
    let binary = own.join("quorate");
    let (patched, copied) = (mutant.clone(), binary.clone());
    let build = move |tree: &Tree| -> Result<()> {
        tree.apply(&patched)?;
        std::fs::copy(tree.build()?, copied)?;
        Ok(())
    };
    let built = workshop.with(build).await?;
    let mut outcome = Outcome { mutant, killed: None, said: String::new(), unbroken: None };
    if let Err(failure) = built {
        outcome.said = failure.to_string();
        return Ok(outcome);
    }
    let began = Instant::now();
    let mut plans = Vec::new();
    for attempt in 1..=args.attempts {
        let Some(plan) = outcome.mutant.plan(attempt, args.rate, CLIENTS) else { break };
        let surroundings =
            Surroundings { binary: Some(binary.clone()), shares_turn: args.jobs > 1 };
        let (is_found, said) = attempt_at(&plan, &surroundings, dir, checker).await?;
        plans.push(plan);
        outcome.said = said;
        if is_found {
            outcome.killed = Some((attempt, began.elapsed()));
            break;
        }
    }
    std::fs::remove_dir_all(&own)?;
    if !args.only_broken {
        outcome.unbroken = Some(unbroken(plans, dir, args.jobs > 1).await?);
    }
    Ok(outcome)
}

/// Has a test of the server tried on the mutant, where it must fail, and on the unbroken sources.
fn by_test(mutant: Mutant, command: &[String], only_broken: bool, tree: &Tree) -> Outcome {
    let mut outcome = Outcome { mutant, killed: None, said: String::new(), unbroken: None };
    let began = Instant::now();
    match tree.apply(&outcome.mutant).and_then(|()| tree.passes(command)) {
        Ok(true) => outcome.said = "the test passes".to_owned(),
        Ok(false) => outcome.killed = Some((1, began.elapsed())),
        Err(failure) => outcome.said = failure.to_string(),
    }
    if !only_broken {
        outcome.unbroken = Some(match tree.reset().and_then(|()| tree.passes(command)) {
            Ok(true) => Overall::Valid,
            Ok(false) => Overall::Invalid,
            Err(failure) => {
                println!("        unbroken {}: trouble: {failure}", outcome.mutant.name);
                Overall::Unknown
            }
        });
    }
    outcome
}

/// Runs a plan; whether `checker` found a violation, and what was said.
async fn attempt_at(
    plan: &Plan,
    surroundings: &Surroundings,
    dir: &Path,
    checker: &str,
) -> Result<(bool, String)> {
    let dir = new_directory(Some(dir.to_owned()), &plan.slug())?;
    let progress = Progress::of_one(surroundings.shares_turn, &plan.slug());
    let record = run(plan, &dir, surroundings, &progress).await;
    progress.end();
    let record = match record {
        Ok(record) => record,
        Err(trouble) => return Ok((false, format!("trouble: {trouble}"))),
    };
    let conclusion = judge_and_write(&record)?;
    report::write(&record, &conclusion)?;
    let is_found = conclusion
        .words
        .iter()
        .any(|said| said.checker == checker && said.overall == Overall::Invalid);
    Ok((is_found, conclusion.objections().join("; ")))
}

/// Runs the unbroken build on the same plans, until one of them is not valid. One that proves nothing, or meets
/// trouble, is tried once more.
async fn unbroken(plans: Vec<Plan>, dir: &Path, shares_turn: bool) -> Result<Overall> {
    for plan in plans {
        let plan = Plan { mutant: None, ..plan };
        let mut overall = Overall::Unknown;
        for _ in 0..UNBROKEN_TRIES {
            overall = one_unbroken(&plan, dir, shares_turn).await?;
            if overall != Overall::Unknown {
                break;
            }
        }
        if overall != Overall::Valid {
            return Ok(overall);
        }
    }
    Ok(Overall::Valid)
}

async fn one_unbroken(plan: &Plan, dir: &Path, shares_turn: bool) -> Result<Overall> {
    let surroundings = Surroundings { shares_turn, ..Surroundings::default() };
    let dir = new_directory(Some(dir.to_owned()), &plan.slug())?;
    let progress = Progress::of_one(shares_turn, &format!("unbroken {}", plan.slug()));
    let record = run(plan, &dir, &surroundings, &progress).await;
    progress.end();
    match record {
        Ok(record) => Ok(judge_and_write(&record)?.overall),
        Err(trouble) => {
            println!("        unbroken {}: trouble: {trouble}", plan.slug());
            Ok(Overall::Unknown)
        }
    }
}

fn line(outcome: &Outcome) -> String {
    let name = &outcome.mutant.name;
    match outcome.killed {
        Some((attempt, time)) => {
            format!("killed  {name} at seed {attempt} in {} s", time.as_secs())
        }
        None => format!("ALIVE   {name} ({})", outcome.said),
    }
}

fn table(outcomes: &[Outcome]) -> String {
    let mut table = with_header(&[
        "mutant",
        "workload",
        "nemeses",
        "checker",
        "killed at seed",
        "in s",
        "unbroken",
    ]);
    for Outcome { mutant, killed, unbroken, .. } in outcomes {
        let (seed, time) = match killed {
            Some((seed, time)) => (seed.to_string(), time.as_secs().to_string()),
            None => ("ALIVE".to_owned(), String::new()),
        };
        let clean = match unbroken {
            Some(Overall::Valid) => "clean",
            Some(Overall::Invalid) => "NOT CLEAN",
            Some(Overall::Unknown | Overall::Skipped) => "proved nothing",
            None => "not tried",
        };
        let (workload, nemeses, checker) = match &mutant.found_by {
            FoundBy::Run { workload, nemeses, checker } => {
                (workload.as_str(), nemeses.join(","), checker.as_str())
            }
            FoundBy::Test(_) => ("its test", String::new(), "its test"),
        };
        table.add_row([&mutant.name, workload, &nemeses, checker, &seed, &time, clean]);
    }
    table.to_string()
}
