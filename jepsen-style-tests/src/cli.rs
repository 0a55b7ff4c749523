//! The command line. Exit code 0: every run is valid. 1: some run is invalid. 2: none is, but some run is
//! unknown, vacuous or failed for a reason of the harness, or the command line makes no sense.

mod list;
mod matrix;
mod mutants;
mod progress;
mod recheck;
mod run;
mod table;

use std::future::pending;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::judge::Overall;
use crate::{Failure, Result};

const SETTINGS: &str = "Environment:
  QUORATE_BIN          the servers' binary
  QUORATE_UPGRADE_BIN  the other binary that the nemesis `upgrade` goes to and back from (there is no way
                       back from a version with new rules: both have the same `LEVEL`)
  QUORATE_NO_NFT       when set, links are cut by proxies though the packet filter could be used";

/// Runs workloads against real servers while nemeses break things, and judges what the clients saw.
#[derive(Debug, Parser)]
#[command(name = "jepsen-style-tests", version, after_help = SETTINGS)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs one workload under one or more nemeses
    Run(run::Args),
    /// Runs many cells, each a workload under its nemeses
    Matrix(matrix::Args),
    /// Tries broken builds, each until its named checker finds it
    Mutants(mutants::Args),
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
    let result = runtime.block_on(async {
        tokio::select! {
            result = perform(command) => result,
            () = interrupted() => Err(Failure::new("interrupted: what was broken is healed, what was started is ended")),
        }
    });
    // A wait for a cluster's turn blocks a thread that cannot be cancelled.
    runtime.shutdown_background();
    ended(result)
}

async fn perform(command: Verb) -> Result<Overall> {
    match command {
        Verb::Run(args) => run::run(&args).await,
        Verb::Matrix(args) => matrix::matrix(&args).await,
        Verb::Mutants(args) => mutants::mutants(&args).await,
        Verb::Recheck(args) => recheck::recheck(&args),
        Verb::List => Ok(list::list()),
    }
}

/// Ends with the first SIGINT or SIGTERM.
async fn interrupted() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
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
