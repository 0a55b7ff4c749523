//! A server's checks, from the state that it has applied.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorate_storage::Topic;
use quorate_storage::command::Command;
use quorate_storage::machine::{Published, StateReader};
use quorate_storage::record::WorkerId;
use tokio::sync::watch;

use super::Finding;
use super::assigned::{Assignments, Change, Shown};
use super::runner::Desk;
use super::schedule::Run;
use super::turn::ClusterTimeSeen;
use crate::host::clock::Clock;
use crate::raft::leadership::Leadership;
use crate::raft::propose::Proposer;
use crate::watch::{Subscription, Watches};

/// See [`Desk`].
#[derive(Debug)]
pub(crate) struct ServerDesk {
    clock: Clock,
    server: u64,
    proposer: Arc<Proposer>,
    state: StateReader,
    changes: Subscription,
    leadership: watch::Receiver<Leadership>,
    assignments: Assignments,
    time: ClusterTimeSeen,
}

impl ServerDesk {
    /// The desk of a server with this Raft id.
    pub(crate) fn new(
        server: u64,
        clock: Clock,
        proposer: Arc<Proposer>,
        state: StateReader,
        watches: &Arc<Watches>,
        leadership: watch::Receiver<Leadership>,
    ) -> Self {
        let changes = watches.subscribe(&Topic::Checks);
        let assignments = Assignments::new(WorkerId::Server(server));
        let time = ClusterTimeSeen::default();
        Self { clock, server, proposer, state, changes, leadership, assignments, time }
    }
}

impl Desk for ServerDesk {
    async fn changed(&mut self) {
        self.changes.changed().await;
    }

    fn changes(&mut self) -> Vec<Change> {
        let published = self.state.load();
        self.time.note(published.state.time(), self.clock.now());
        let leads = self.leadership.borrow().is_held_by(self.server);
        self.assignments.update(&published, leads)
    }

    fn until_turn(&mut self, run: &Run) -> Duration {
        self.time.until_turn(&run.what, self.clock.now())
    }

    fn servers(&self) -> Vec<SocketAddr> {
        servers(&self.state.load())
    }

    fn shown(&self, check: u64) -> Option<Shown> {
        Shown::of(&self.state.load().state, &WorkerId::Server(self.server), check)
    }

    fn report(&self, run: &Run, finding: Finding) -> impl Future<Output = bool> + Send + 'static {
        let (proposer, check, probe) = (Arc::clone(&self.proposer), run.check, run.probe);
        async move { tell(&proposer, check, probe, finding).await }
    }
}

/// Where the members serve each other. One that is known by a name is left out: what a check sends it is refused there.
pub(crate) fn servers(published: &Published) -> Vec<SocketAddr> {
    let addresses = published.membership.nodes().map(|(_, peer)| peer.rpc_addr.parse());
    addresses.filter_map(Result::ok).collect()
}

/// Hands a result to the log; says whether it took effect (or changed nothing).
pub(super) async fn tell(proposer: &Proposer, number: u64, probe: u64, finding: Finding) -> bool {
    let Finding { status, output } = finding;
    match proposer.propose(Command::ProbeResult { number, probe, status, output }).await {
        Ok(outcome) => outcome.into_result().is_ok(),
        Err(error) => {
            // Its next run finds the same, if it is still true then.
            tracing::debug!(number, %error, "the result of a check was not written");
            false
        }
    }
}
