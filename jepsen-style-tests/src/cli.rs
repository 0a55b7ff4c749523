//! The command line. Exit code 0: every run is valid. 1: some run is invalid. 2: none is, but some run is
//! unknown, vacuous or failed for a reason of the harness, or the command line makes no sense.

mod list;
mod progress;
mod recheck;
mod run;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::Result;
use crate::judge::Overall;

/// Runs workloads against real servers while nemeses break things, and judges what the clients saw.
#[derive(Debug, Parser)]
#[command(name = "jepsen-style-tests", version)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs one workload under one or more nemeses
    Run(run::Args),
    /// Judges a finished run again, from its files alone
    Recheck(recheck::Args),
    /// Shows the workloads, their checkers and the nemeses
    List,
}

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return ended(Err(error.into())),
    };
    ended(runtime.block_on(async {
        match command {
            Verb::Run(args) => run::run(&args).await,
            Verb::Recheck(args) => recheck::recheck(&args),
            Verb::List => Ok(list::list()),
        }
    }))
}

fn ended(result: Result<Overall>) -> ExitCode {
    match result {
        Ok(Overall::Valid) => ExitCode::SUCCESS,
        Ok(Overall::Invalid) => ExitCode::from(1),
        Ok(Overall::Unknown | Overall::Skipped) => ExitCode::from(2),
        Err(error) => {
            eprintln!("jepsen-style-tests: {error}");
            ExitCode::from(2)
        }
    }
}
