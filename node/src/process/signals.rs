//! What the operating system tells a process by signals: to stop, and to read its files again.

use std::convert::Infallible;
use std::io;

use nix::sys::signal::Signal::SIGXFSZ;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::http::process::Reload;
use crate::process::certificates::Certificates;

/// What a process is told by signals. They are kept from the moment this exists until somebody waits for
/// them; before that, the system ends the process at once.
#[derive(Debug)]
pub(crate) struct Signals {
    /// That it is to end.
    pub(crate) stops: Stops,
    /// SIGHUP: that it is to read its configuration files again.
    pub(crate) hangups: Signal,
}

/// The signals that end a process in order.
#[derive(Debug)]
pub(crate) struct Stops {
    interrupt: Signal,
    terminate: Signal,
    user: UserSignals,
}

/// SIGUSR1 and SIGUSR2, which end nothing.
#[derive(Debug)]
pub(crate) struct UserSignals([Signal; 2]);

/// Which signal ends a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

/// From here on neither SIGUSR1 nor SIGUSR2 ends the process, and a write beyond the limit on the size of
/// files (`ulimit -f`) is an error of that write, which is handled as a full disk is. Unhandled, each of
/// them ends the process without a word. Must be called within a runtime, before anything is written.
pub(crate) fn survive_signals() -> io::Result<UserSignals> {
    // The runtime's handler stays when its stream is dropped.
    drop(signal(SignalKind::from_raw(SIGXFSZ as i32))?);
    let user = [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?];
    Ok(UserSignals(user))
}

impl Signals {
    /// Must be called within a runtime.
    pub(crate) fn listen(user: UserSignals) -> io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        let terminate = signal(SignalKind::terminate())?;
        let hangups = signal(SignalKind::hangup())?;
        Ok(Self { stops: Stops { interrupt, terminate, user }, hangups })
    }
}

impl Stops {
    /// Returns when it is to end, and logs the signal that said so.
    pub(crate) async fn asked(&mut self) -> Stop {
        let UserSignals([user1, user2]) = &mut self.user;
        let (stop, signal) = loop {
            let ignored = tokio::select! {
                _ = self.interrupt.recv() => break (Stop::Interrupt, "SIGINT"),
                _ = self.terminate.recv() => break (Stop::Terminate, "SIGTERM"),
                _ = user1.recv() => "SIGUSR1",
                _ = user2.recv() => "SIGUSR2",
            };
            tracing::info!(
                signal = ignored,
                "this signal does nothing here; figures are at /metrics"
            );
        };
        tracing::info!(signal, "asked to stop");
        stop
    }
}

/// Reads the configuration files and the certificates again at each SIGHUP; does not return.
pub(crate) async fn reload_on_hangup(
    reload: Option<&Reload>,
    certificates: &Certificates,
    hangups: &mut Signal,
) -> Infallible {
    while hangups.recv().await.is_some() {
        certificates.reload().await;
        match reload {
            // What became of it is in the log.
            Some(reload) => drop(reload.run().await),
            None if certificates.is_empty() => {
                tracing::info!("there are no configuration files to reload");
            }
            None => {}
        }
    }
    std::future::pending().await
}
