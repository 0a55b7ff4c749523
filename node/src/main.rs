//! The `quorate` binary: the server, and later the command-line tools.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use quorate::config::{ServerArgs, ServerConfig};
use quorate::log_stream::Logs;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// Exit code of a command line that makes no sense.
const EXIT_USAGE: u8 = 2;

/// Service discovery that survives its leader: a Raft-replicated cluster with Consul's HTTP API.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs a server of a cluster
    Server(Box<ServerArgs>),
    /// Runs a single throw-away server on 127.0.0.1:8500, with its data in a temporary directory
    Dev,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("QUORATE_LOG").unwrap_or_else(|_| {
        // openraft warns with every heartbeat that an absent peer does not answer; a line for each
        // change of state is ours to write.
        EnvFilter::new("info,openraft=error,sled=warn,hyper=warn")
    });
    let logs = Logs::default();
    let to_stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(to_stderr.with_filter(filter)).with(logs.layer()).init();
    match cli.command {
        Verb::Server(args) => match args.resolve() {
            Ok(config) => run(config, logs),
            Err(error) => {
                eprintln!("quorate: {error}");
                ExitCode::from(EXIT_USAGE)
            }
        },
        Verb::Dev => dev(logs),
    }
}

fn dev(logs: Logs) -> ExitCode {
    let directory = match tempfile::tempdir() {
        Ok(directory) => directory,
        Err(error) => {
            eprintln!("quorate: cannot make a temporary directory: {error}");
            return ExitCode::FAILURE;
        }
    };
    let args = ServerArgs {
        data_dir: Some(directory.path().join("data")),
        name: Some("dev".to_owned()),
        ..ServerArgs::default()
    };
    match args.resolve() {
        Ok(config) => run(config, logs),
        Err(error) => {
            eprintln!("quorate: {error}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn run(config: ServerConfig, logs: Logs) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = runtime.and_then(|runtime| runtime.block_on(quorate::server::run(config, logs)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quorate: {error}");
            ExitCode::FAILURE
        }
    }
}
