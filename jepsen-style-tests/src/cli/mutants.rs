//! `mutants`: the proof that the suite can find bugs. Each broken build is tried until its named checker
//! finds it, and the unbroken one is tried on the same plans and seeds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use futures_util::{StreamExt as _, stream};

use super::progress::Progress;
use super::run::{CLIENTS, new_directory};
use super::table::with_header;
use crate::judge::{Overall, judge_and_write};
use crate::mutants::{ALL, Mutant, SHOWN_BY_TESTS};
use crate::plan::Plan;
use crate::run::{Surroundings, run};
use crate::{Failure, Result, binary, report};

/// A broken build runs only on data below a directory that holds this file.
const ALLOWED: &str = ".quorate-mutants-allowed";
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
    /// The broken servers' binary [default: built from this workspace]
    #[arg(long)]
    binary: Option<PathBuf>,
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
    let chosen = choose(&args.names)?;
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => binary::mutants()?,
    };
    require_same_names(&binary)?;
    let dir = new_directory(args.out.clone(), "mutants")?;
    std::fs::write(dir.join(ALLOWED), "Broken builds may use data below this directory.\n")?;
    let jobs = usize::try_from(args.jobs).unwrap_or(1);
    let tried = chosen.into_iter().map(|mutant| one(mutant, args, &binary, &dir));
    let mut tried = pin!(stream::iter(tried).buffered(jobs));
    let mut outcomes = Vec::new();
    while let Some(outcome) = tried.next().await {
        let outcome = outcome?;
        println!("{}", line(&outcome));
        outcomes.push(outcome);
    }
    println!("{}", table(&outcomes));
    for (name, test) in SHOWN_BY_TESTS {
        println!("not tried by runs: {name}, shown by the test {test}");
    }
    let killed = outcomes.iter().filter(|outcome| outcome.killed.is_some()).count();
    println!("killed / listed: {killed} / {}; written to {}", outcomes.len(), dir.display());
    Ok(overall(&outcomes))
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
    if names.is_empty() {
        return Ok(ALL.to_vec());
    }
    names
        .iter()
        .map(|name| {
            let found = ALL.iter().find(|mutant| mutant.name == name);
            found.copied().ok_or_else(|| Failure::new(unknown(name)))
        })
        .collect()
}

fn unknown(name: &str) -> String {
    match SHOWN_BY_TESTS.iter().find(|(shown, _)| *shown == name) {
        Some((_, test)) => format!("no run finds {name}; it is shown by the test {test}"),
        None => format!("no mutant is called {name:?}"),
    }
}

/// The table here and the broken build must speak of the same mutants.
fn require_same_names(binary: &Path) -> Result<()> {
    let output = Command::new(binary).arg("mutants").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let name = |line: &str| -> Result<String> {
        let line: serde_json::Value = serde_json::from_str(line)?;
        Ok(line["name"].as_str().unwrap_or_default().to_owned())
    };
    let built = text.lines().map(name).collect::<Result<BTreeSet<_>>>()?;
    let by_runs = ALL.iter().map(|mutant| mutant.name);
    let by_tests = SHOWN_BY_TESTS.iter().map(|(name, _)| *name);
    let listed: BTreeSet<_> = by_runs.chain(by_tests).map(str::to_owned).collect();
    if built == listed {
        return Ok(());
    }
    let differing: Vec<_> = built.symmetric_difference(&listed).cloned().collect();
    Err(Failure::new(format!("in only one of the build and the table: {}", differing.join(", "))))
}

async fn one(mutant: Mutant, args: &Args, binary: &Path, dir: &Path) -> Result<Outcome> {
    let mut outcome = Outcome { mutant, killed: None, said: String::new(), unbroken: None };
    let began = Instant::now();
    let mut plans = Vec::new();
    for attempt in 1..=args.attempts {
        let plan = mutant.plan(attempt, args.rate, CLIENTS);
        let surroundings = Surroundings {
            binary: Some(binary.to_owned()),
            environment: vec![("QUORATE_MUTANT".to_owned(), mutant.name.to_owned())],
            shares_turn: args.jobs > 1,
        };
        let (is_found, said) = attempt_at(&plan, &surroundings, dir, mutant.checker).await?;
        plans.push(plan);
        outcome.said = said;
        if is_found {
            outcome.killed = Some((attempt, began.elapsed()));
            break;
        }
    }
    if !args.only_broken {
        outcome.unbroken = Some(unbroken(plans, dir, args.jobs > 1).await?);
    }
    Ok(outcome)
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
    let name = outcome.mutant.name;
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
        table.add_row([
            mutant.name,
            mutant.workload,
            mutant.nemeses,
            mutant.checker,
            &seed,
            &time,
            clean,
        ]);
    }
    table.to_string()
}
