//! What the operating system tells a process by signals: to stop, and to read its files again.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::http::process::Reload;

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
}

/// Which signal ends a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Signals {
    /// Must be called within a runtime.
    pub(crate) fn listen() -> io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        let terminate = signal(SignalKind::terminate())?;
        let hangups = signal(SignalKind::hangup())?;
        Ok(Self { stops: Stops { interrupt, terminate }, hangups })
    }
}

impl Stops {
    /// Returns when it is to end, and logs the signal that said so.
    pub(crate) async fn asked(&mut self) -> Stop {
        let (stop, signal) = tokio::select! {
            _ = self.interrupt.recv() => (Stop::Interrupt, "SIGINT"),
            _ = self.terminate.recv() => (Stop::Terminate, "SIGTERM"),
        };
        tracing::info!(signal, "asked to stop");
        stop
    }
}

/// Reads the configuration files again at each SIGHUP; does not return.
pub(crate) async fn reload_on_hangup(reload: Option<&Reload>, hangups: &mut Signal) {
    while hangups.recv().await.is_some() {
        match reload {
            // What became of it is in the log.
            Some(reload) => drop(reload.run().await),
            None => tracing::info!("there are no configuration files to reload"),
        }
    }
    std::future::pending().await
}
