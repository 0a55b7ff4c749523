//! `lock`: a command that runs while a lock is held.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use quorate_client::types::kv::KvPair;
use quorate_client::{Client, Query};

use super::child;
use super::ending::Signals;
use super::failure::{self, Failure};
use super::key::{Writing, key};
use super::session::{Session, span};

/// What a permit's key says, before their number.
const PERMITS: &str = "permits=";

/// Arguments of `lock`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  quorate lock jobs/report -- ./report.sh\n\n\
    The command finds the key in QUORATE_LOCK_KEY, the session in QUORATE_LOCK_SESSION, and in QUORATE_LOCK_FENCE a \
    number larger than that of every earlier holder. When the lock is lost, the command gets SIGTERM. The key keeps the \
    value that it has; the keys of permits say their number.\n\n\
    Exit codes: that of the command once it runs, 127 if there is no such program, 126 if it cannot be run; 5 (or \
    that of --conflict-exit-code) if another holds the lock, or it was lost; others as of every command.\n\n\
    If quorate is killed with SIGKILL, the command goes on, and within 30 s another may hold the lock: the fence tells \
    the resource who is late.")]
pub(crate) struct LockArgs {
    /// The key
    #[arg(value_parser = key(Writing::Yes))]
    key: String,
    /// Wait at most so long; 0s: do not wait [default: without end]
    #[arg(long, value_name = "SPAN", value_parser = span)]
    wait: Option<Duration>,
    /// How many may hold it at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    permits: u32,
    /// Exit code if another holds the lock, or it was lost: one that the command does not have
    #[arg(short = 'E', long, value_name = "CODE", default_value_t = failure::CONFLICT)]
    conflict_exit_code: u8,
    /// The command
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) async fn run(session: &Session, args: LockArgs) -> Result<ExitCode, Failure> {
    let client = &session.client;
    let conflict = |text: String| Failure::conflict(text).with_code(args.conflict_exit_code);
    let lock = match args.permits {
        1 => client.lock(&args.key),
        permits => client.semaphore(&args.key, permits),
    };
    let others = async || match disagreement(client, &args.key, args.permits).await? {
        Some(text) => Err(conflict(text)),
        None => Ok(()),
    };
    others().await?;
    let held = match args.wait {
        None => Some(lock.acquire().await?),
        Some(wait) => lock.acquire_within(wait).await?,
    };
    let held = held.ok_or_else(|| conflict(format!("{} is held by another", args.key)))?;
    // Of two that come at once with different numbers, the later one sees the other now.
    if let Err(failure) = others().await {
        held.release().await?;
        return Err(failure);
    }
    let environment = [
        ("QUORATE_LOCK_KEY", held.key().to_owned()),
        ("QUORATE_LOCK_SESSION", held.session().to_owned()),
        ("QUORATE_LOCK_FENCE", held.fence().to_string()),
    ];
    let mut signals = Signals::listen()?;
    let mut running = match child::start(&args.command, &environment) {
        Ok(running) => running,
        Err(failure) => {
            held.release().await?;
            return Err(failure);
        }
    };
    tokio::select! {
        ended = running.ended(&mut signals) => {
            let ended = ended?;
            held.release().await?;
            Ok(child::code(ended))
        }
        () = held.lost() => {
            running.stop().await;
            Err(conflict(format!("the lock on {} was lost", args.key)))
        }
    }
}

/// Whether somebody holds this with another number of permits, or a key of a permit is used for something else; says
/// which.
async fn disagreement(client: &Client, key: &str, permits: u32) -> Result<Option<String>, Failure> {
    let below = format!("{}/", key.trim_end_matches('/'));
    let mut pairs = client.kv().list(&below, &Query::new()).await?.value;
    pairs.extend(client.kv().get(key, &Query::new()).await?.value);
    Ok(pairs.iter().find_map(|pair| disagrees(pair, key, &below, permits)))
}

fn disagrees(pair: &KvPair, key: &str, below: &str, permits: u32) -> Option<String> {
    let is_held = pair.session.is_some();
    let Some(number) = pair.key.strip_prefix(below) else {
        let is_other = pair.key == key && is_held && permits > 1;
        return is_other.then(|| format!("{key} is held as a lock, not with {permits} permits"));
    };
    let number: u32 = number.parse().ok()?;
    let said = std::str::from_utf8(&pair.value).ok().and_then(|text| text.strip_prefix(PERMITS));
    match said {
        Some(said) if is_held && said.parse() != Ok(permits) => {
            Some(format!("{key} is held with {said} permits, not with {permits}"))
        }
        Some(_) => None,
        None if permits > 1 && number < permits && !is_held && !pair.value.is_empty() => {
            let taken = &pair.key;
            Some(format!("{taken} holds a value that a permit would replace: delete it first"))
        }
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(key: &str, value: &str, is_held: bool) -> KvPair {
        let session = is_held.then(|| "s".to_owned());
        KvPair { key: key.to_owned(), value: value.into(), session, ..KvPair::default() }
    }

    fn refused(pair: &KvPair, permits: u32) -> bool {
        disagrees(pair, "sem", "sem/", permits).is_some()
    }

    #[test]
    fn holders_of_one_thing_agree_on_the_number_of_permits() {
        let held = pair("sem/0", "permits=2", true);
        assert_eq!([1, 2, 3].map(|permits| refused(&held, permits)), [true, false, true]);
        let free = pair("sem/0", "permits=2", false);
        assert_eq!([1, 2, 3].map(|permits| refused(&free, permits)), [false; 3]);
        let lock = pair("sem", "", true);
        assert_eq!([1, 2].map(|permits| refused(&lock, permits)), [false, true]);
        let of_a_library = pair("sem/0", "host-7", true);
        assert_eq!([1, 2].map(|permits| refused(&of_a_library, permits)), [false; 2]);
    }

    #[test]
    fn a_permit_never_replaces_a_value_that_is_something_else() {
        let data = pair("sem/1", "data", false);
        assert_eq!([1, 2].map(|permits| refused(&data, permits)), [false, true]);
        assert!(!refused(&pair("sem/7", "data", false), 2), "no permit of two");
        assert!(!refused(&pair("sem/x", "data", false), 2));
    }
}
