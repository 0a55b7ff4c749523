//! `quorate worker`: a process that runs checks of a cluster. It has no vote, no state and no listening port.
//!
//! Three things go on at a time, as one task: the [`Link`](link::Link) holds the stream by which the worker lives, and on
//! which it is told what to run; the [`Runner`] runs it; the [`Outbox`](outbox::Outbox) sends what was found. When its
//! server goes, the link opens a stream at another one. While there is none, its checks are run elsewhere.

mod complaints;
mod desk;
mod link;
mod messages;
mod outbox;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use quorate_client::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use self::complaints::Complaints;
use self::desk::RemoteDesk;
use self::link::{Ended, Link};
use self::outbox::Outbox;
use super::check_args::CheckArgs;
use super::config::{ConfigError, read_worker_key};
use crate::checks::policy::Policy;
use crate::checks::runner::Runner;
use crate::checks::{CheckOutput, WorkerKey};
use crate::cli::TlsFlags;
use crate::host::clock::Clock;
use crate::host::logging::{self, LogFormat, LogSettings};
use crate::host::threads;

/// Exit code of a command line that makes no sense.
const EXIT_USAGE: u8 = 2;
/// The servers do not know the key.
const EXIT_DENIED: u8 = 4;
/// Another process has the name.
const EXIT_CONFLICT: u8 = 5;
/// Frames that wait to be read. Beyond that nothing is read from the connection.
const FRAMES_AHEAD: usize = 64;
/// Results that wait to be sent. Beyond that they are dropped: the next run finds the same.
const RESULTS_AHEAD: usize = 4_096;
/// How long connecting to a server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Flags of `quorate worker`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  quorate worker --name w1 --cluster http://10.0.0.1:8500,http://10.0.0.2:8500 \\\n    \
    --worker-key-file /etc/quorate/worker.key\n\nThe servers need the same file (--worker-key-file). Exit codes: 0 told \
    to stop, 1 failed, 2 wrong usage, 4 another key than the servers', 5 another process has the name."
)]
pub(crate) struct WorkerArgs {
    /// Its name, which no other worker of the cluster may have
    #[arg(long)]
    name: String,
    /// The servers
    #[arg(
        long,
        env = "QUORATE_HTTP_ADDR",
        value_name = "URL,...",
        value_delimiter = ',',
        required = true
    )]
    cluster: Vec<String>,
    /// File with the key by which the servers know it, at least 16 bytes
    #[arg(long, env = "QUORATE_WORKER_KEY_FILE", value_name = "FILE")]
    worker_key_file: PathBuf,
    /// It runs the checks that name this network, and no others
    #[arg(long, value_name = "NAME", default_value = "")]
    network: String,
    #[command(flatten)]
    checks: CheckArgs,
    /// Name of its host's agent, whatever its address is
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    #[command(flatten)]
    tls: TlsFlags,
    /// How lines of the log look [default: text]
    #[arg(long, value_enum, hide_default_value = true)]
    log_format: Option<LogFormat>,
}

/// Runs a worker until it is told to stop, or cannot go on.
pub(crate) fn main(args: WorkerArgs) -> ExitCode {
    match start(args) {
        Ok(code) => code,
        Err((code, text)) => {
            eprintln!("quorate: {text}");
            ExitCode::from(code)
        }
    }
}

fn start(args: WorkerArgs) -> Result<ExitCode, (u8, String)> {
    let usage = |error: ConfigError| (EXIT_USAGE, error.to_string());
    let key = read_worker_key(&args.worker_key_file).map_err(usage)?;
    let policy = args.checks.policy().map_err(|text| (EXIT_USAGE, text))?;
    let json = args.log_format.unwrap_or_default() == LogFormat::Json;
    logging::begin(&LogSettings { level: "info", json, ..LogSettings::default() })
        .map_err(|text| (EXIT_USAGE, text))?;
    let http = http_client(&args).map_err(|error| (EXIT_USAGE, error.with_causes()))?;
    let failed = |error: std::io::Error| (1, error.to_string());
    let runtime = threads::main_runtime().map_err(failed)?;
    match runtime.block_on(run(args, key, policy, http)).map_err(failed)? {
        Ended::Stopped => Ok(ExitCode::SUCCESS),
        Ended::Denied(text) => Err((EXIT_DENIED, text)),
        Ended::Taken(text) => Err((EXIT_CONFLICT, text)),
        Ended::Refused(text) => Err((1, text)),
    }
}

/// What asks the servers, over TLS where their URLs say so.
fn http_client(args: &WorkerArgs) -> Result<reqwest::Client, quorate_client::Error> {
    let builder = Client::builder(args.cluster.iter().cloned()).tls_from_env()?;
    args.tls.apply(builder.connect_timeout(CONNECT_TIMEOUT)).http_client()
}

async fn run(
    args: WorkerArgs,
    key: WorkerKey,
    policy: Policy,
    http: reqwest::Client,
) -> std::io::Result<Ended> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let clock = Clock::monotonic();
    let (tell, frames) = mpsc::channel(FRAMES_AHEAD);
    let (report, reports) = mpsc::channel(RESULTS_AHEAD);
    let session = watch::Sender::new(None);
    let name: Arc<str> = args.name.as_str().into();
    let mut outbox = Outbox {
        http: http.clone(),
        name: Arc::clone(&name),
        key: key.clone(),
        session: session.subscribe(),
        reports,
        seq: 0,
    };
    let servers = args.cluster.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
    let mut link = Link {
        http,
        servers,
        name: Arc::clone(&name),
        network: args.network,
        agent: args.agent,
        key,
        owner: Uuid::new_v4().to_string(),
        attempt: 0,
        complaints: Complaints::default(),
        session,
        tell,
    };
    let runner = Runner {
        clock: clock.clone(),
        counts: Arc::default(),
        output: CheckOutput::default(),
        policy,
        name,
    };
    let desk = RemoteDesk::new(clock, frames, report);
    let ended = tokio::select! {
        ended = link.run() => ended,
        () = runner.run(desk) => Ended::Stopped,
        () = outbox.run() => Ended::Stopped,
        _ = terminate.recv() => Ended::Stopped,
        _ = interrupt.recv() => Ended::Stopped,
    };
    if matches!(ended, Ended::Stopped) {
        link.leave().await;
    }
    Ok(ended)
}
