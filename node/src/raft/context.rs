//! What every part of a node needs to know: who it is, what time it is, how to reach others.

use std::sync::Arc;
use std::time::Duration;

use quorate_storage::raft::{NodeId, Peer};

use super::protocol::{Envelope, Request, Response};
use super::transport::{Purpose, Transport, TransportError};
use super::warnings::{Warnings, refusal_text};
use crate::clock::Clock;
use crate::identity::Identity;

/// Shared by the parts of a node; cheap to clone.
#[derive(Debug, Clone)]
pub struct Context {
    /// This node's Raft id.
    pub id: NodeId,
    /// Its cluster and store.
    pub identity: Arc<dyn Identity>,
    /// Time.
    pub clock: Clock,
    /// How to reach others.
    pub transport: Arc<dyn Transport>,
    /// How long requests are held while there is no leader.
    pub hold_timeout: Duration,
    /// What the operator has to mend.
    pub warnings: Arc<Warnings>,
}

impl Context {
    /// Asks a member. The request names the member's id and store, so that nobody else answers it.
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
        let envelope = Envelope {
            cluster: self.identity.cluster_id(),
            from: self.id,
            to: Some(member),
            store: Some(peer.store_id.clone()),
            request,
        };
        let answer = self.transport.call(&peer.rpc_addr, purpose, envelope, timeout).await;
        self.explain_refusal(&answer, Some(member), &peer.rpc_addr);
        answer
    }

    /// Asks whoever listens at an address, which is all that is known before there is a cluster.
    ///
    /// # Errors
    /// See [`TransportError`].
    pub async fn call_address(
        &self,
        address: &str,
        request: Request,
        timeout: Duration,
    ) -> Result<Response, TransportError> {
        let cluster = self.identity.cluster_id();
        let envelope = Envelope { cluster, from: self.id, to: None, store: None, request };
        let answer = self.transport.call(address, Purpose::Control, envelope, timeout).await;
        self.explain_refusal(&answer, None, address);
        answer
    }

    /// Tells the operator of a refusal that will not pass by itself.
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
