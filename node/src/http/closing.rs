//! How listeners close, and their connections with them.
//!
//! A listener that closes still accepts the clients that have connected already, and then no others. A
//! connection ends with the request that is in progress. One that has had no request yet waits a moment for
//! it: its client has just connected, and a connection that ended without an answer would look like a failure.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::server::graceful::GracefulConnection;
use tokio::sync::{Notify, watch};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// How long a connection that is about to be closed waits for its first request.
const FIRST_REQUEST_MAX: Duration = Duration::from_millis(100);

/// Closes listeners; cheap to clone.
#[derive(Debug, Clone)]
pub struct Closing {
    begun: watch::Sender<bool>,
    listening: TaskTracker,
}

/// Tells a listener and its connections when to close; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct CloseSignal(watch::Receiver<bool>);

impl Default for Closing {
    fn default() -> Self {
        Self { begun: watch::Sender::new(false), listening: TaskTracker::new() }
    }
}

impl Closing {
    /// Closes the listeners, and returns once no client can connect any more.
    pub async fn close(&self) {
        self.begun.send_replace(true);
        self.listening.close();
        self.listening.wait().await;
    }

    /// For a listener: the signal to close, and what it has to drop once it has closed.
    pub(super) fn listener(&self) -> (CloseSignal, TaskTrackerToken) {
        (CloseSignal(self.begun.subscribe()), self.listening.token())
    }
}

impl CloseSignal {
    /// Resolves when it is time to close.
    pub(super) async fn wait(&mut self) {
        // An error means that nobody is left who could give the signal.
        drop(self.0.wait_for(|begun| *begun).await);
    }

    /// Serves a connection until its client closes it or, after the signal, until no request is in progress.
    /// `requested` is notified of each request.
    ///
    /// # Errors
    /// The connection's own.
    pub(super) async fn serve<C: GracefulConnection>(
        mut self,
        connection: C,
        requested: Arc<Notify>,
    ) -> C::Output {
        tokio::pin!(connection);
        let may_end = async {
            self.wait().await;
            let _ = tokio::time::timeout(FIRST_REQUEST_MAX, requested.notified()).await;
        };
        tokio::select! {
            // First, so that the answer to a request in progress says that the connection closes after it.
            biased;
            () = may_end => {}
            ended = &mut connection => return ended,
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    }
}
