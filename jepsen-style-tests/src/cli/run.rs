//! `run`: one run, its directory, and its summary.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::progress::Progress;
use super::table;
use crate::judge::{Overall, judge_and_write};
use crate::plan::Plan;
use crate::run::{Surroundings, run as perform};
use crate::{Failure, Result, binary, nemesis, report, workload};

/// Clients of a run, unless the command line says otherwise.
pub(super) const CLIENTS: u64 = 30;

/// Flags of `run`.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// What the clients do; `list` shows the workloads
    #[arg(long)]
    workload: String,
    /// The faults; `list` shows the nemeses
    #[arg(long, value_delimiter = ',')]
    nemesis: Vec<String>,
    /// How many servers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=7))]
    nodes: u64,
    /// How long the clients work, in seconds
    #[arg(long, default_value_t = 60)]
    time: u64,
    /// Operations per second of all clients together
    #[arg(long, default_value_t = 300)]
    rate: u64,
    /// How many clients share the rate
    #[arg(long, default_value_t = CLIENTS)]
    clients: u64,
    /// Seed of all random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the run's directory is made [default: jepsen-runs in the target directory]
    #[arg(long)]
    out: Option<PathBuf>,
    /// The servers' binary [default: the one of this workspace, built if need be]
    #[arg(long)]
    binary: Option<PathBuf>,
}

impl Args {
    fn plan(&self) -> Result<Plan> {
        workload::named(&self.workload)?;
        for name in &self.nemesis {
            nemesis::named(name)?;
        }
        Ok(Plan {
            workload: self.workload.clone(),
            nemeses: self.nemesis.clone(),
            nodes: self.nodes,
            time_s: self.time,
            rate: self.rate,
            clients: self.clients,
            seed: self.seed,
            mutant: None,
        })
    }
}

/// Runs one plan, writes its directory and shows what the checkers say.
pub(super) async fn run(args: &Args) -> Result<Overall> {
    let plan = args.plan()?;
    let dir = new_directory(args.out.clone(), &plan.slug())?;
    let surroundings = Surroundings { binary: args.binary.clone(), ..Surroundings::default() };
    let progress = Progress::new(&plan.title());
    let record = perform(&plan, &dir, &surroundings, &progress).await;
    progress.end();
    let record = record?;
    let conclusion = judge_and_write(&record)?;
    let report = report::write(&record, &conclusion)?;
    println!("{}", table::of_run(&record, &conclusion));
    println!("written to {}", report.display());
    Ok(conclusion.overall)
}

/// A directory that did not exist: `OUT/NAME`, or with a number behind it.
pub(super) fn new_directory(out: Option<PathBuf>, name: &str) -> Result<PathBuf> {
    const SAME_NAME_MAX: u32 = 10_000;
    let out = match out {
        Some(out) => out,
        None => binary::target_dir()?.join("jepsen-runs"),
    };
    std::fs::create_dir_all(&out)?;
    let out = out.canonicalize()?;
    for number in 0..SAME_NAME_MAX {
        let suffix = if number == 0 { String::new() } else { format!(".{number}") };
        let dir = out.join(format!("{name}{suffix}"));
        match std::fs::create_dir(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::new(format!("{} holds too many runs called {name}", out.display())))
}
