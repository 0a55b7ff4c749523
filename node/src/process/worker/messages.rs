//! What the parts of a worker tell each other.

use std::sync::Arc;

use tokio::sync::{Notify, oneshot};

use crate::checks::remote::{Frame, ResultOfRun};

/// What the link tells the desk.
#[derive(Debug)]
pub(super) enum Told {
    /// Another stream begins: all checks come again.
    Begin,
    /// What came on it.
    Frame(Frame),
}

/// The stream that is open.
#[derive(Debug, Clone)]
pub(super) struct Session {
    /// The URL of its server.
    pub(super) server: String,
    /// Its lease.
    pub(super) lease: String,
    /// The catalogue's node that has the worker.
    pub(super) node: String,
    /// Tells the link that the cluster does not know the lease any more.
    pub(super) broken: Arc<Notify>,
}

/// What was found, and who waits for the word that the cluster knows.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) result: ResultOfRun,
    pub(super) reply: oneshot::Sender<bool>,
}
