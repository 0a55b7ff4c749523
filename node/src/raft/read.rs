//! The read barrier: what makes a read linearizable on any node.
//!
//! A barrier asks the leader for the position in the log that was committed when it was asked (the
//! leader confirms with a quorum that it still leads), then waits until this node has applied it.
//! One barrier serves all reads that were waiting **when it was sent**; a read that comes later waits
//! for the next one, or it could miss a write that was acknowledged in between.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::ReadPolicy;
use quorate_storage::raft::{LogId, NodeId, Peer};
use tokio::sync::{Notify, oneshot, watch};

use super::Raft;
use super::context::Context;
use super::leadership::Leadership;
use super::protocol::{Request, Response};
use super::transport::Purpose;
use crate::host::supervise::contained;
use crate::raft::error::ReadError;

/// Pause before a failed barrier is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(15);
/// How long one try may take; a newer leader ends it at once.
const ROUND_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves barriers to this node's reads.
#[derive(Debug)]
pub struct Barrier {
    context: Context,
    raft: Raft,
    /// Reads that wait for the next barrier. A std lock: held to push or to take.
    waiting: Mutex<Vec<oneshot::Sender<()>>>,
    arrived: Notify,
}

impl Barrier {
    /// A barrier for this node; [`Barrier::run`] does the work.
    #[must_use]
    pub fn new(context: Context, raft: Raft) -> Self {
        Self { context, raft, waiting: Mutex::default(), arrived: Notify::new() }
    }

    /// Resolves once this node's state contains everything that was acknowledged anywhere before the
    /// call.
    ///
    /// # Errors
    /// When no leader answered in time, see [`Context::hold`].
    pub async fn wait(&self) -> Result<(), ReadError> {
        let (done, passed) = oneshot::channel();
        self.waiting().push(done);
        self.arrived.notify_one();
        match self.context.hold(passed).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(ReadError::Stopping),
            Err(_) => Err(ReadError::NoLeader),
        }
    }

    /// Asks this node, as the leader, for a barrier position on behalf of any node.
    pub async fn local_read_index(&self) -> Option<LogId> {
        let linearizer = self.raft.get_read_linearizer(ReadPolicy::ReadIndex);
        let answer = self.context.clock.timeout(ROUND_TIMEOUT, linearizer).await;
        let linearizer = answer.ok()?.ok()?;
        Some(*linearizer.read_log_id().log_id())
    }

    /// The barrier task; ends when leadership is no longer published.
    pub async fn run(
        self: Arc<Self>,
        mut leadership: watch::Receiver<Leadership>,
        applied: watch::Receiver<u64>,
    ) {
        let mut served = Vec::new();
        loop {
            served.retain(|reader: &oneshot::Sender<()>| !reader.is_closed());
            // In a loop: an earlier round may already have served the reader of a notification.
            while served.is_empty() && self.waiting().is_empty() {
                self.arrived.notified().await;
            }
            // Everybody who waits now, those of a failed round included, is served by this round.
            served.append(&mut self.waiting());
            let current = leadership.borrow_and_update().clone();
            let round = self.round(&current);
            let index = tokio::select! {
                biased;
                index = round => index,
                changed = leadership.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    continue;
                }
            };
            match index {
                Some(read) => release(std::mem::take(&mut served), read.index, applied.clone()),
                None => self.context.clock.sleep(RETRY_PAUSE).await,
            }
        }
    }

    async fn round(&self, leadership: &Leadership) -> Option<LogId> {
        match &leadership.leader {
            Some((leader, _)) if *leader == self.context.id => self.local_read_index().await,
            Some((leader, peer)) => self.remote_read_index(*leader, peer).await,
            None => None,
        }
    }

    async fn remote_read_index(&self, leader: NodeId, peer: &Peer) -> Option<LogId> {
        let (purpose, request) = (Purpose::Control, Request::ReadIndex);
        match self.context.call(leader, peer, purpose, request, ROUND_TIMEOUT).await {
            Ok(Response::ReadIndex(read)) => read,
            Ok(_) | Err(_) => None,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<oneshot::Sender<()>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Releases the readers once this node has applied the barrier's position. The next round does not wait for
/// that.
fn release(readers: Vec<oneshot::Sender<()>>, index: u64, mut applied: watch::Receiver<u64>) {
    let ready = *applied.borrow() >= index;
    let go = move |readers: Vec<oneshot::Sender<()>>| {
        for reader in readers {
            // The receiver may be gone; ignore the error.
            let _ = reader.send(());
        }
    };
    if ready {
        go(readers);
    } else {
        // Ends when the entry is applied, or with the node.
        drop(contained("readers behind a barrier", async move {
            if applied.wait_for(|applied| *applied >= index).await.is_ok() {
                go(readers);
            }
        }));
    }
}
