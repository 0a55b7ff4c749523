//! Commands that a command runs: they get this process's standard streams, and its signals.

use std::ffi::OsString;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use super::ending::Signals;
use super::failure::{Failure, SIGNALLED};

/// How long a command has to end after SIGTERM, before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// A command that runs. It is killed if this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    program: String,
}

/// Starts a command, with more variables in its environment.
///
/// # Errors
/// It cannot be started. The exit code is the shell's for this: 127 if there is no such program, else 126.
pub(super) fn start(
    command: &[OsString],
    environment: &[(&str, String)],
) -> Result<Running, Failure> {
    spawn(command, environment, Stdio::inherit())
}

fn spawn(
    command: &[OsString],
    environment: &[(&str, String)],
    stdin: Stdio,
) -> Result<Running, Failure> {
    let (program, arguments) =
        command.split_first().ok_or_else(|| Failure::usage("no command given after --"))?;
    let child = Command::new(program)
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(stdin)
        .kill_on_drop(true)
        .spawn();
    let program = program.to_string_lossy().into_owned();
    match child {
        Ok(child) => Ok(Running { child, program }),
        Err(error) => Err(Failure::cannot_run(&program, &error)),
    }
}

/// Runs a command to its end, with this as its standard input. A signal that comes meanwhile goes to the command too.
///
/// # Errors
/// It cannot be started, or a signal came.
pub(super) async fn run_with_input(
    command: &[OsString],
    input: &[u8],
    signals: &mut Signals,
) -> Result<ExitStatus, Failure> {
    let mut running = spawn(command, &[], Stdio::piped())?;
    let stdin = running.child.stdin.take();
    let fed = async {
        if let Some(mut stdin) = stdin {
            // A command that does not read is no failure.
            let _ = stdin.write_all(input).await;
        }
    };
    let mut caught = None;
    let (ended, ()) = tokio::join!(running.wait(signals, |signal| caught = Some(signal)), fed);
    match caught {
        Some(signal) => Err(Failure::signalled(signal)),
        None => ended,
    }
}

impl Running {
    /// Waits for its end, and hands signals on meanwhile.
    ///
    /// # Errors
    /// The system does not tell.
    pub(super) async fn ended(&mut self, signals: &mut Signals) -> Result<ExitStatus, Failure> {
        self.wait(signals, |_| {}).await
    }

    async fn wait(
        &mut self,
        signals: &mut Signals,
        mut note: impl FnMut(Signal),
    ) -> Result<ExitStatus, Failure> {
        let failed = |error| Failure::failed(format!("cannot watch {}: {error}", self.program));
        loop {
            tokio::select! {
                ended = self.child.wait() => return ended.map_err(failed),
                caught = signals.next() => {
                    send(&self.child, caught);
                    note(caught);
                }
            }
        }
    }

    /// Ends it: SIGTERM, and SIGKILL after a while.
    pub(super) async fn stop(mut self) {
        send(&self.child, Signal::SIGTERM);
        if tokio::time::timeout(GRACE, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

fn send(child: &Child, signal: Signal) {
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        // It may have ended meanwhile.
        let _ = kill(Pid::from_raw(id), signal);
    }
}

/// The exit code of a command, as this process's own.
pub(super) fn code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| status.signal().map(|signal| SIGNALLED + signal));
    let code = code.and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}
