//! What ends a command that would go on by itself: a signal, or a reader of its output that has gone.

use std::io;
use std::os::fd::AsFd as _;

use nix::sys::signal::Signal;
use tokio::io::Interest;
use tokio::net::unix::pipe;
use tokio::signal::unix::{self, SignalKind, signal};

use super::failure::Failure;

/// SIGINT and SIGTERM, from the moment at which this is made. They no longer end the process by themselves then, not
/// even when this is gone: whoever makes it acts on them.
#[derive(Debug)]
pub(super) struct Signals {
    interrupts: unix::Signal,
    terminations: unix::Signal,
}

impl Signals {
    /// # Errors
    /// The system has no room for their handlers.
    pub(super) fn listen() -> Result<Self, Failure> {
        let failed = |error| Failure::failed(format!("cannot listen to signals: {error}"));
        let interrupts = signal(SignalKind::interrupt()).map_err(failed)?;
        let terminations = signal(SignalKind::terminate()).map_err(failed)?;
        Ok(Self { interrupts, terminations })
    }

    /// The next one. Those that came meanwhile count as one of each kind.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupts.recv() => Signal::SIGINT,
            _ = self.terminations.recv() => Signal::SIGTERM,
        }
    }
}

/// What ends a command that goes on.
#[derive(Debug)]
pub(super) struct Ending {
    /// For the commands that it runs: they get them too.
    pub(super) signals: Signals,
    /// Standard output, where it can be watched: a file always takes what is written.
    output: Option<pipe::Sender>,
}

impl Ending {
    /// Of a command that only runs others.
    ///
    /// # Errors
    /// See [`Signals::listen`].
    pub(super) fn by_signal() -> Result<Self, Failure> {
        Ok(Self { signals: Signals::listen()?, output: None })
    }

    /// Of a command that writes to standard output: it ends with its reader (`| head -1`), also between two writes.
    ///
    /// # Errors
    /// See [`Signals::listen`].
    pub(super) fn with_reader() -> Result<Self, Failure> {
        // Not made non-blocking: what writes to standard output shares it.
        let output = io::stdout().as_fd().try_clone_to_owned();
        let output = output.and_then(pipe::Sender::from_owned_fd_unchecked).ok();
        Ok(Self { output, ..Self::by_signal()? })
    }

    /// Does this, unless the command is to end first.
    ///
    /// # Errors
    /// That of the work, or how the command ends.
    pub(super) async fn unless<T>(
        &mut self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            caught = self.signals.next() => Err(Failure::signalled(caught)),
            () = closed(self.output.as_ref()) => Err(Failure::nobody_reads()),
            done = work => done,
        }
    }
}

/// Waits until nobody reads any more.
async fn closed(output: Option<&pipe::Sender>) {
    match output {
        Some(output) if output.ready(Interest::ERROR).await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::raise;

    use super::*;

    #[tokio::test]
    async fn a_signal_ends_what_would_go_on_also_if_it_came_before() {
        let mut ending = Ending::by_signal().unwrap();
        assert_eq!(ending.unless(async { Ok(7) }).await.unwrap(), 7);
        raise(Signal::SIGTERM).unwrap();
        let ended = ending.unless(std::future::pending::<Result<(), Failure>>()).await;
        assert!(format!("{:?}", ended.unwrap_err()).contains("143"));
    }
}
