//! openraft's view of the [`Transport`](super::transport::Transport).

use std::future::Future;
use std::time::Duration;

use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::v2::RaftNetworkV2;
use openraft::network::{RPCOption, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use quorate_storage::raft::{NodeId, Peer, TypeConfig, Vote};
use quorate_storage::snapshot::Snapshot;

use super::acknowledged::Sent;
use super::context::Context;
use super::plausible;
use super::protocol::{ProcessIdentity, Request, Response, SnapshotHeader};
use super::transport::{Purpose, Target, TransportError};
use super::{ELECTION_MS_MAX, SNAPSHOT_SEND_MS_MAX};

/// How long an append with entries may take. A follower answers after its fsync, and a slow disk is no reason
/// to send the same entries again. (Heartbeats have a separate connection, and openraft limits them.)
const APPEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a vote may take; no election takes longer.
const VOTE_TIMEOUT: Duration = Duration::from_millis(ELECTION_MS_MAX);

/// Makes a [`PeerNetwork`] for each member.
#[derive(Debug, Clone)]
pub struct NetworkFactory {
    context: Context,
}

impl NetworkFactory {
    /// The connections of one node to all members.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self { context }
    }

    fn connect(&self, target: NodeId, peer: &Peer, purpose: Purpose) -> PeerNetwork {
        PeerNetwork { context: self.context.clone(), target, peer: peer.clone(), purpose }
    }
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: NodeId, node: &Peer) -> PeerNetwork {
        self.connect(target, node, Purpose::Append)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &Peer) -> PeerNetwork {
        self.connect(target, node, Purpose::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: NodeId, node: &Peer) -> PeerNetwork {
        self.connect(target, node, Purpose::Snapshot)
    }
}

/// The connection to one member.
#[derive(Debug)]
pub struct PeerNetwork {
    context: Context,
    target: NodeId,
    peer: Peer,
    purpose: Purpose,
}

impl PeerNetwork {
    async fn call(
        &self,
        purpose: Purpose,
        request: Request,
        timeout: Duration,
    ) -> Result<Response, RPCError<TypeConfig>> {
        let answer = self.context.call(self.target, &self.peer, purpose, request, timeout).await;
        answer.map_err(rpc_error).and_then(unless_refused)
    }

    /// The boot of the target that requests are meant for and where it listens, as far as that is known.
    fn current(&self) -> Option<ProcessIdentity> {
        self.context.processes.current(self.target, &self.peer.store_id)
    }

    /// A response may name a later term, which openraft saves, so elections must be able to have reached it.
    #[expect(clippy::result_large_err, reason = "openraft's error, in openraft's signatures")]
    fn plausible(&self, vote: &Vote, asked_in: u64) -> Result<(), RPCError<TypeConfig>> {
        plausible::term(vote.leader_id.term, asked_in).map_err(|refusal| {
            let sentence =
                format!("ignored a response in the name of server {}: {refusal}", self.target);
            self.context.warnings.warn_of("forgery", &sentence);
            RPCError::Unreachable(Unreachable::new(&refusal))
        })
    }

    /// A server asks for votes only after it has asked whether its identity is free.
    #[expect(clippy::result_large_err, reason = "openraft's error, in openraft's signatures")]
    fn may_ask_for_votes(&self) -> Result<(), RPCError<TypeConfig>> {
        if self.context.processes.is_cleared() {
            return Ok(());
        }
        Err(RPCError::Unreachable(Unreachable::from_string("this server is starting")))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "given to map_err")]
fn rpc_error(error: TransportError) -> RPCError<TypeConfig> {
    match error {
        TransportError::Unreachable(_) => RPCError::Unreachable(Unreachable::new(&error)),
        TransportError::NoAnswer(_) => RPCError::Network(NetworkError::new(&error)),
    }
}

/// A refusal counts as unreachable: openraft backs off and tries again.
#[expect(clippy::result_large_err, reason = "openraft's error, in openraft's signatures")]
fn unless_refused(response: Response) -> Result<Response, RPCError<TypeConfig>> {
    match response {
        Response::Refused(refusal) => Err(RPCError::Unreachable(Unreachable::new(&refusal))),
        answer => Ok(answer),
    }
}

fn wrong_answer() -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::from_string("the response does not match the request"))
}

impl RaftNetworkV2<TypeConfig> for PeerNetwork {
    type SnapshotData = Snapshot;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let timeout = match self.purpose {
            Purpose::Heartbeat => option.hard_ttl(),
            Purpose::Append | Purpose::Control | Purpose::Forward | Purpose::Snapshot => {
                APPEND_TIMEOUT
            }
        };
        let sent = Sent::of(&rpc);
        let term = rpc.vote.leader_id.term;
        let process = self.current();
        let boot = process.as_ref().map(|process| process.boot);
        let (context, purpose, request) = (&self.context, self.purpose, Request::Append(rpc));
        let answer = context
            .call_process(self.target, &self.peer, process.as_ref(), purpose, request, timeout)
            .await;
        match answer.map_err(rpc_error).and_then(unless_refused)? {
            Response::Append(answer) => {
                if let AppendEntriesResponse::HigherVote(vote) = &answer {
                    self.plausible(vote, term)?;
                }
                let acknowledged = &self.context.processes.acknowledged;
                let noted = acknowledged.note(self.target, boot, sent, &answer);
                noted.map_err(|lost| RPCError::Unreachable(Unreachable::from_string(lost)))?;
                Ok(answer)
            }
            _ => Err(wrong_answer()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.may_ask_for_votes()?;
        let term = rpc.vote.leader_id.term;
        match self.call(Purpose::Control, Request::Vote(rpc), VOTE_TIMEOUT).await? {
            Response::Vote(answer) => {
                self.plausible(&answer.vote, term)?;
                Ok(answer)
            }
            _ => Err(wrong_answer()),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.may_ask_for_votes()?;
        let term = rpc.vote.leader_id.term;
        match self.call(Purpose::Control, Request::PreVote(rpc), VOTE_TIMEOUT).await? {
            Response::Vote(answer) => {
                self.plausible(&answer.vote, term)?;
                Ok(answer)
            }
            _ => Err(wrong_answer()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, Snapshot>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let current = self.current();
        let header = SnapshotHeader {
            cluster: self.context.identity.cluster_id(),
            from: self.context.id,
            to: self.target,
            store: self.peer.store_id.clone(),
            vote,
            meta: snapshot.meta,
            sender: self.context.processes.sender(),
            addressee: current.as_ref().map(|contact| contact.boot),
        };
        let address = current.as_ref().map_or(&self.peer.rpc_addr, |contact| &contact.rpc_addr);
        let timeout = Duration::from_millis(SNAPSHOT_SEND_MS_MAX);
        let transport = &self.context.transport;
        let target = Target { address, name: Some(&self.peer.name) };
        let sent = transport.send_snapshot(target, header, snapshot.snapshot, timeout);
        let answer = tokio::select! {
            answer = sent => answer,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        match answer.map_err(rpc_error).and_then(unless_refused)? {
            Response::Snapshot(answer) => {
                self.plausible(&answer.vote, vote.leader_id.term)?;
                Ok(answer)
            }
            _ => Err(wrong_answer().into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(Purpose::Control, Request::TransferLeader(rpc), VOTE_TIMEOUT).await? {
            Response::TransferLeader(answer) => Ok(answer),
            _ => Err(wrong_answer()),
        }
    }
}
