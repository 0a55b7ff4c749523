//! `presence`: an instance that is registered for as long as a command runs.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use quorate_client::RegistrationState;

use super::ending::Signals;
use super::failure::{self, Failure};
use super::register::{Definition, Details};
use super::session::{Session, span};
use super::{child, output};

/// Arguments of `presence`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  quorate presence web --port 8080 -- python3 -m http.server 8080\n\n\
    The instance passes while the command runs and leaves when it ends; the command finds its id in \
    QUORATE_SERVICE_ID. When this process or its host dies, the instance is critical at once, but the command goes on if \
    it is only quorate that was killed with SIGKILL.\n\n\
    Exit codes: that of the command once it runs, 127 if there is no such program, 126 if it cannot be run; 5 (or that \
    of --conflict-exit-code) if another process has taken the id over; others as of every command."
)]
pub(crate) struct PresenceArgs {
    #[command(flatten)]
    definition: Definition,
    /// Its version
    #[arg(long)]
    version: Option<String>,
    /// How long it goes on passing after its connection has broken
    #[arg(long, value_name = "SPAN", value_parser = span, default_value = "500ms")]
    linger: Duration,
    /// Exit code if another process has taken the id over: one that the command does not have
    #[arg(short = 'E', long, value_name = "CODE", default_value_t = failure::CONFLICT)]
    conflict_exit_code: u8,
    /// The command
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) async fn run(session: &Session, args: PresenceArgs) -> Result<ExitCode, Failure> {
    let Definition { name, details } = args.definition;
    let Details { id, address, port, tag, meta } = details;
    let mut builder = session.client.register(&name).linger(args.linger);
    builder = id.into_iter().fold(builder, quorate_client::RegistrationBuilder::id);
    builder = address.into_iter().fold(builder, quorate_client::RegistrationBuilder::address);
    builder = port.into_iter().fold(builder, quorate_client::RegistrationBuilder::port);
    builder = tag.into_iter().fold(builder, quorate_client::RegistrationBuilder::tag);
    builder = meta.into_iter().fold(builder, |builder, (key, value)| builder.meta(key, value));
    builder = args.version.into_iter().fold(builder, quorate_client::RegistrationBuilder::version);
    let mut registration = builder.by_presence().await?;
    let id = registration.id().to_owned();
    output::note(&format!("{id} is registered"));
    let mut signals = Signals::listen()?;
    let started = child::start(&args.command, &[("QUORATE_SERVICE_ID", id.clone())]);
    let mut running = match started {
        Ok(running) => running,
        Err(failure) => {
            registration.shutdown().await?;
            return Err(failure);
        }
    };
    let mut is_troubled = false;
    let ended = loop {
        tokio::select! {
            ended = running.ended(&mut signals) => break ended?,
            state = registration.state_changed() => match state {
                RegistrationState::Replaced => {
                    running.stop().await;
                    let text = format!("another process has taken {id} over");
                    return Err(Failure::conflict(text).with_code(args.conflict_exit_code));
                }
                RegistrationState::Troubled(trouble) => {
                    let error = trouble.error;
                    output::note(&format!("the cluster could not be told of {id}: {error}"));
                    is_troubled = true;
                }
                RegistrationState::Registered if is_troubled => {
                    output::note(&format!("{id} is registered again"));
                    is_troubled = false;
                }
                RegistrationState::Registered
                | RegistrationState::Registering
                | RegistrationState::Ended => {}
            },
        }
    };
    registration.shutdown().await?;
    Ok(child::code(ended))
}
