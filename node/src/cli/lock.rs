//! `lock`: a command that runs while a lock is held.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::child;
use super::failure::Failure;
use super::session::{Session, span};

/// Arguments of `lock`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  quorate lock jobs/report -- ./report.sh\n\n\
    The command finds the key in QUORATE_LOCK_KEY, the session in QUORATE_LOCK_SESSION, and in QUORATE_LOCK_FENCE a \
    number larger than that of every earlier holder. When the lock is lost, the command gets SIGTERM, and the exit \
    code is 5.")]
pub(crate) struct LockArgs {
    /// The key
    key: String,
    /// Wait at most so long; 0s: do not wait [default: without end]
    #[arg(long, value_name = "SPAN", value_parser = span)]
    wait: Option<Duration>,
    /// How many may hold it at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    permits: u32,
    /// The command
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) async fn run(session: &Session, args: LockArgs) -> Result<ExitCode, Failure> {
    let client = &session.client;
    let lock = match args.permits {
        1 => client.lock(&args.key),
        permits => client.semaphore(&args.key, permits),
    };
    let held = match args.wait {
        None => Some(lock.acquire().await?),
        Some(wait) => lock.acquire_within(wait).await?,
    };
    let held = held.ok_or_else(|| Failure::conflict(format!("{} is held by another", args.key)))?;
    let environment = [
        ("QUORATE_LOCK_KEY", held.key().to_owned()),
        ("QUORATE_LOCK_SESSION", held.session().to_owned()),
        ("QUORATE_LOCK_FENCE", held.fence().to_string()),
    ];
    let mut running = child::start(&args.command, &environment)?;
    tokio::select! {
        ended = running.ended() => {
            let ended = ended?;
            held.release().await?;
            Ok(child::code(ended))
        }
        () = held.lost() => {
            running.stop().await;
            Err(Failure::conflict(format!("the lock on {} was lost", args.key)))
        }
    }
}
