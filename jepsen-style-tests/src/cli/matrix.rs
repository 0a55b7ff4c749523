//! `matrix`: many runs, one after the other, and their results together.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Instant;

use clap::Args as ClapArgs;
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};

use super::progress::Progress;
use super::run::{CLIENTS, new_directory};
use super::table::{with_header, word};
use crate::figures::Figures;
use crate::judge::{self, Conclusion, Overall, judge_and_write};
use crate::matrix::{Size, cells};
use crate::plan::Plan;
use crate::record::{Record, json, write_json};
use crate::run::{Surroundings, run};
use crate::{Result, binary, report};

/// The cells of a matrix, in its directory.
const CELLS: &str = "matrix.json";
/// The servers' binary, in its directory.
const BINARY: &str = "quorate";
/// How often a cell is tried until it proves something.
const ATTEMPTS: u32 = 2;
/// Why a cell has no verdict, in the cell's directory.
const TROUBLE: &str = "trouble.txt";

/// Flags of `matrix`.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Every workload, and the faults that say most, in less than ten minutes
    #[arg(long, conflicts_with_all = ["full", "regressions"],
          required_unless_present_any = ["full", "regressions", "resume"])]
    quick: bool,
    /// Every workload under twelve faults on three servers and four on five, and every other fault once: hours
    #[arg(long)]
    full: bool,
    /// The runs that found something once, as they were
    #[arg(long, conflicts_with = "full")]
    regressions: bool,
    /// Goes on with the matrix in this directory: runs the cells that are not valid yet
    #[arg(long, value_name = "RUN", conflicts_with_all = ["quick", "full", "regressions"])]
    resume: Option<PathBuf>,
    /// Operations per second of all clients of a cell together
    #[arg(long, default_value_t = 300)]
    rate: u64,
    /// What all choices follow from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the matrix' directory is made [default: jepsen-runs in the target directory]
    #[arg(long)]
    out: Option<PathBuf>,
    /// The servers' binary [default: the one of this workspace, built if need be]
    #[arg(long, conflicts_with = "resume")]
    binary: Option<PathBuf>,
    /// How many cells run at the same time. More than one is for machines with processors to spare: what the
    /// checkers demand of lateness stays the same
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=16))]
    jobs: u64,
    /// Exit with 0 although this machine does not allow some of the faults
    #[arg(long)]
    allow_skipped: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Cells {
    size: Size,
    plans: Vec<Plan>,
}

/// The result of one cell.
struct Outcome {
    plan: Plan,
    overall: Overall,
    because: String,
    figures: Figures,
    /// How often it was tried.
    attempts: u32,
}

/// Runs a matrix, or what is left of one.
pub(super) async fn matrix(args: &Args) -> Result<Overall> {
    let (dir, cells) = match &args.resume {
        Some(dir) => (dir.canonicalize()?, json(&dir.join(CELLS))?),
        None => begin(args).await?,
    };
    let jobs = usize::try_from(args.jobs).unwrap_or(1);
    let surroundings = Surroundings { binary: Some(dir.join(BINARY)), shares_turn: jobs > 1 };
    let began = Instant::now();
    let count = cells.plans.len();
    let runs = cells.plans.into_iter().map(|plan| one_cell(&dir, plan, &surroundings));
    let mut runs = pin!(stream::iter(runs).buffered(jobs).enumerate());
    let mut outcomes = Vec::new();
    while let Some((number, outcome)) = runs.next().await {
        let outcome = outcome?;
        println!(
            "{:>3}/{count} {:<44} {:<8} {:>6} operations {:>3} faults {:>3} leader changes {}",
            number + 1,
            outcome.plan.title(),
            word(outcome.overall),
            outcome.figures.operations,
            outcome.figures.faults,
            outcome.figures.leader_changes,
            outcome.because,
        );
        outcomes.push(outcome);
    }
    println!("{}", summary(&outcomes));
    let repeated = outcomes.iter().filter(|outcome| outcome.attempts > 1).count();
    println!(
        "{count} cells in {} s, {repeated} of them tried twice, written to {}",
        began.elapsed().as_secs(),
        dir.display()
    );
    Ok(overall(&outcomes, args.allow_skipped))
}

/// All cells are of one build: a copy, which stays what it is while somebody works on the next.
async fn begin(args: &Args) -> Result<(PathBuf, Cells)> {
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => binary::quorate_aside().await?,
    };
    let (size, name) = match (args.quick, args.regressions) {
        (true, _) => (Size::Quick, "quick"),
        (_, true) => (Size::Regressions, "regressions"),
        _ => (Size::Full, "full"),
    };
    let dir = new_directory(args.out.clone(), &format!("matrix-{name}.seed-{}", args.seed))?;
    let cells = Cells { size, plans: cells(size, args.seed, args.rate, CLIENTS) };
    std::fs::copy(&binary, dir.join(BINARY))?;
    write_json(&dir.join(CELLS), &cells)?;
    Ok((dir, cells))
}

/// Runs a cell, unless it ran before and was valid. One that proves nothing is tried again, and what the first
/// attempt left is kept beside it; one that shows a violation is never tried again.
async fn one_cell(dir: &Path, plan: Plan, surroundings: &Surroundings) -> Result<Outcome> {
    let dir = dir.join(plan.slug());
    let earlier = judge::read(&dir).filter(|earlier| earlier.overall == Overall::Valid);
    if let Some(conclusion) = earlier {
        return outcome(plan, &Record::load(&dir)?, &conclusion);
    }
    let mut attempt = 1;
    loop {
        let outcome = one_attempt(&dir, plan.clone(), surroundings).await?;
        if outcome.overall != Overall::Unknown || attempt == ATTEMPTS {
            return Ok(Outcome { attempts: attempt, ..outcome });
        }
        println!("        {} proves nothing ({}): again", plan.title(), outcome.because);
        let kept = dir.with_added_extension(format!("attempt-{attempt}"));
        if kept.exists() {
            std::fs::remove_dir_all(&kept)?;
        }
        std::fs::rename(&dir, &kept)?;
        attempt += 1;
    }
}

/// Trouble of the harness ends the attempt, not the matrix.
async fn one_attempt(dir: &Path, plan: Plan, surroundings: &Surroundings) -> Result<Outcome> {
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    std::fs::create_dir(dir)?;
    let progress = Progress::of_one(surroundings.shares_turn, &plan.title());
    let judged = run(&plan, dir, surroundings, &progress).await.and_then(|record| {
        let conclusion = judge_and_write(&record)?;
        report::write(&record, &conclusion)?;
        Ok((record, conclusion))
    });
    progress.end();
    if judged.as_ref().is_ok_and(|(_, conclusion)| conclusion.overall == Overall::Valid) {
        remove_data(dir)?;
    }
    match judged {
        Ok((record, conclusion)) => outcome(plan, &record, &conclusion),
        Err(trouble) => {
            let because = trouble.to_string();
            std::fs::write(dir.join(TROUBLE), &because)?;
            let (overall, figures) = (Overall::Unknown, Figures::default());
            Ok(Outcome { plan, overall, because, figures, attempts: 1 })
        }
    }
}

/// Removes the servers' data of a cell in which nothing was found: many cells take much room.
fn remove_data(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn outcome(plan: Plan, record: &Record, conclusion: &Conclusion) -> Result<Outcome> {
    let figures = Figures::of(record)?;
    let mut because = conclusion.objections();
    because.extend(record.ending.skipped.iter().map(|(name, why)| format!("{name}: {why}")));
    let because = because.join("; ");
    Ok(Outcome { plan, overall: conclusion.overall, because, figures, attempts: 1 })
}

/// Workloads down, faults across.
fn summary(outcomes: &[Outcome]) -> String {
    let mut table = with_header(&[
        "",
        "cells",
        "operations",
        "failed requests",
        "faults",
        "leader changes",
        "snapshots installed",
    ]);
    for overall in [Overall::Valid, Overall::Invalid, Overall::Unknown, Overall::Skipped] {
        let of_this: Vec<_> = outcomes.iter().filter(|cell| cell.overall == overall).collect();
        let sum = of_this.iter().fold(Figures::default(), |sum, cell| sum.plus(cell.figures));
        table.add_row([
            word(overall).to_owned(),
            of_this.len().to_string(),
            sum.operations.to_string(),
            sum.failed.to_string(),
            sum.faults.to_string(),
            sum.leader_changes.to_string(),
            sum.snapshot_installs.to_string(),
        ]);
    }
    table.to_string()
}

/// The worst of the cells decides.
fn overall(outcomes: &[Outcome], allow_skipped: bool) -> Overall {
    let has = |overall| outcomes.iter().any(|cell| cell.overall == overall);
    if has(Overall::Invalid) {
        Overall::Invalid
    } else if has(Overall::Unknown) || !has(Overall::Valid) {
        Overall::Unknown
    } else if has(Overall::Skipped) && !allow_skipped {
        Overall::Skipped
    } else {
        Overall::Valid
    }
}
