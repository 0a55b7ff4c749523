//! `claim`: a command that runs while it has an instance of a pool for itself.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::child;
use super::ending::Signals;
use super::failure::Failure;
use super::session::{Session, pair, span};

/// Arguments of `claim`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  quorate claim rdb -- sh -c 'run-query --host $QUORATE_CLAIM_HOST --port $QUORATE_CLAIM_PORT'\n\n\
    The instance is one with the metadata `slots`. The command finds it in QUORATE_CLAIM_INSTANCE, \
    QUORATE_CLAIM_HOST and QUORATE_CLAIM_PORT, the grant's number in QUORATE_CLAIM_SEQ, and in QUORATE_CLAIM_FENCE a \
    number larger than that of every earlier grant. When the claim is lost, the command gets SIGTERM, and the exit \
    code is 5. It is 5 as well when all instances were busy, and 1 when the pool has none. When this process is killed \
    with SIGKILL, the command goes on, and the next one in line has the instance after --ttl: let what the command writes \
    to compare fences."
)]
pub(crate) struct ClaimArgs {
    /// The service
    service: String,
    /// Wait in line at most so long, up to 10m; 0s: do not wait
    #[arg(long, value_name = "SPAN", value_parser = span, default_value = "30s")]
    wait: Duration,
    /// How long this process may be silent before the instance goes to the next: 1s to 24h
    #[arg(long, value_name = "SPAN", value_parser = span, default_value = "30s")]
    ttl: Duration,
    /// Who asks, for people who look [default: the agent]
    #[arg(long, value_name = "NAME")]
    holder: Option<String>,
    /// Only an instance with this metadata; up to four times
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    require: Vec<(String, String)>,
    /// This instance, if it has a free slot
    #[arg(long, value_name = "ID")]
    prefer: Option<String>,
    /// The command
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) async fn run(session: &Session, args: ClaimArgs) -> Result<ExitCode, Failure> {
    let ClaimArgs { service, wait, ttl, holder, require, prefer, command } = args;
    let mut builder = session.client.claim(&service).wait(wait).ttl(ttl);
    builder = holder.into_iter().fold(builder, quorate_client::ClaimBuilder::holder);
    builder =
        require.into_iter().fold(builder, |builder, (key, value)| builder.require(key, value));
    builder = prefer.into_iter().fold(builder, quorate_client::ClaimBuilder::prefer);
    let claim = builder.acquire().await?;
    let busy = || Failure::conflict(format!("all instances of {service} are busy"));
    let claim = claim.ok_or_else(busy)?;
    let grant = claim.grant();
    let environment = [
        ("QUORATE_CLAIM_INSTANCE", grant.instance.id.clone()),
        ("QUORATE_CLAIM_HOST", grant.instance.address.clone()),
        ("QUORATE_CLAIM_PORT", grant.instance.port.to_string()),
        ("QUORATE_CLAIM_SEQ", grant.seq.to_string()),
        ("QUORATE_CLAIM_FENCE", grant.fence.to_string()),
    ];
    let instance = grant.instance.id.clone();
    let mut signals = Signals::listen()?;
    let mut running = match child::start(&command, &environment) {
        Ok(running) => running,
        Err(failure) => {
            claim.release().await?;
            return Err(failure);
        }
    };
    tokio::select! {
        ended = running.ended(&mut signals) => {
            let ended = ended?;
            claim.release().await?;
            Ok(child::code(ended))
        }
        reason = claim.lost() => {
            running.stop().await;
            Err(Failure::conflict(format!("the claim on {instance} was lost: {reason}")))
        }
    }
}
