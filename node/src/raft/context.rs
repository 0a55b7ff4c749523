//! What every part of a node needs to know: who it is, what time it is, how to reach others.

use std::sync::Arc;
use std::time::Duration;

use quorate_storage::raft::{NodeId, Peer};

use super::processes::Processes;
use super::protocol::{Envelope, ProcessIdentity, Request, Response};
use super::transport::{Purpose, Target, Transport, TransportError};
use super::warnings::{Warnings, refusal_text};
use crate::host::clock::{Clock, TimedOut};
use crate::host::stopping::Stopping;
use crate::raft::identity::Identity;

/// A node that stops holds requests for this long after the stop began; their clients can ask another server.
const HELD_WHILE_STOPPING_MAX: Duration = Duration::from_millis(750);
/// After that, each request gets this long. It is enough if there is a leader, also for a request whose body
/// was still arriving when the stop began.
const LAST_ATTEMPT_MAX: Duration = Duration::from_millis(250);

/// Shared by the parts of a node; cheap to clone.
#[derive(Debug, Clone)]
pub struct Context {
    /// This node's Raft id.
    pub id: NodeId,
    /// The level of the rules that it knows, see [`LEVEL`](quorate_storage::state::LEVEL).
    pub level: u32,
    /// Its cluster and store.
    pub identity: Arc<dyn Identity>,
    /// Time.
    pub clock: Clock,
    /// How to reach others.
    pub transport: Arc<dyn Transport>,
    /// How long requests are held while there is no leader.
    pub hold_timeout: Duration,
    /// Which processes speak for which servers, and where they are.
    pub processes: Arc<Processes>,
    /// What the operator has to fix.
    pub warnings: Arc<Warnings>,
    /// Whether this node is stopping.
    pub stopping: Stopping,
}

impl Context {
    /// Waits for what needs a leader: up to the hold timeout, but not longer than a second after this node began
    /// to stop.
    ///
    /// # Errors
    /// [`TimedOut`]; `work` is dropped then.
    pub async fn hold<T>(&self, work: impl Future<Output = T>) -> Result<T, TimedOut> {
        let given_up = async {
            self.stopping.lasted(HELD_WHILE_STOPPING_MAX).await;
            self.clock.sleep(LAST_ATTEMPT_MAX).await;
        };
        tokio::select! {
            biased;
            done = self.clock.timeout(self.hold_timeout, work) => done,
            () = given_up => Err(TimedOut),
        }
    }

    /// Where a member listens: the address that its newest boot gave, else where the membership says.
    #[must_use]
    pub fn address_of(&self, member: NodeId, peer: &Peer) -> String {
        let current = self.processes.current(member, &peer.store_id);
        current.map_or_else(|| peer.rpc_addr.clone(), |process| process.rpc_addr)
    }

    /// Asks a member, at the newest address that is known of it. The request names the member's id,
    /// store and boot, so that nobody else answers it.
    ///
    /// # Errors
    /// See [`TransportError`].
    pub async fn call(
        &self,
        member: NodeId,
        peer: &Peer,
        purpose: Purpose,
        request: Request,
        timeout: Duration,
    ) -> Result<Response, TransportError> {
        let current = self.processes.current(member, &peer.store_id);
        self.call_process(member, peer, current.as_ref(), purpose, request, timeout).await
    }

    /// The same for one process: no other process can answer.
    pub(super) async fn call_process(
        &self,
        member: NodeId,
        peer: &Peer,
        process: Option<&ProcessIdentity>,
        purpose: Purpose,
        request: Request,
        timeout: Duration,
    ) -> Result<Response, TransportError> {
        let envelope = Envelope {
            cluster: self.identity.cluster_id(),
            from: self.id,
            to: Some(member),
            store: Some(peer.store_id.clone()),
            request,
            sender: self.processes.sender(),
            addressee: process.map(|process| process.boot),
            level: self.level,
        };
        let address = process.map_or(&peer.rpc_addr, |process| &process.rpc_addr);
        let target = Target { address, name: Some(&peer.name) };
        let answer = self.transport.call(target, purpose, envelope, timeout).await;
        self.explain_refusal(&answer, Some(member), address);
        if let Ok(Response::Refused(refusal)) = &answer {
            self.note_refusal(member, refusal).await;
        }
        answer
    }

    /// Asks the process at an address; before there is a cluster, nothing else is known about it.
    ///
    /// # Errors
    /// See [`TransportError`].
    pub async fn call_address(
        &self,
        address: &str,
        request: Request,
        timeout: Duration,
    ) -> Result<Response, TransportError> {
        let envelope = Envelope {
            cluster: self.identity.cluster_id(),
            from: self.id,
            to: None,
            store: None,
            request,
            sender: self.processes.sender(),
            addressee: None,
            level: self.level,
        };
        let target = Target::at(address);
        let answer = self.transport.call(target, Purpose::Control, envelope, timeout).await;
        self.explain_refusal(&answer, None, address);
        if let Ok(Response::Refused(refusal)) = &answer {
            self.processes.told(refusal);
        }
        answer
    }

    /// Warns the operator of a refusal that will not pass without action.
    fn explain_refusal(
        &self,
        answer: &Result<Response, TransportError>,
        member: Option<NodeId>,
        address: &str,
    ) {
        let Ok(Response::Refused(refusal)) = answer else { return };
        let cluster = self.identity.cluster_id();
        if let Some(text) = refusal_text(refusal, member, address, cluster.as_deref()) {
            self.warnings.warn(&text);
        }
    }
}
