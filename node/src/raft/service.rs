//! What this node answers to other nodes.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::async_runtime::WatchReceiver;
use openraft::type_config::alias::SnapshotOf;
use quorate_storage::command::Part;
use quorate_storage::raft::{BootId, LogId, NodeId, TypeConfig};
use quorate_storage::snapshot::{Snapshot, SnapshotStore};

use super::Raft;
use super::comparison::Comparison;
use super::context::Context;
use super::impostor::{self, Impostor};
use super::intake::{Intake, NUMBERS_AHEAD_MAX};
use super::introduced;
use super::leadership::LeaderContact;
use super::membership::Membership;
use super::plausible::{self, Known, Plausible};
use super::protocol::{
    Envelope, Forwarded, ProcessIdentity, Refusal, Request, Response, ServerInfo, SnapshotHeader,
};
use super::read::Barrier;
use super::receiving::{PIECE_TIME_MAX, Receptions};
use crate::host::supervise::{Supervisor, blocking};
use crate::host::tls::holder::Holder;

/// The name of the blocking task.
const RECEIVING: &str = "writing a snapshot that another server sent";

/// What other servers are told by one that ends.
const STOPPING: &str = "this server is stopping";

/// Answers the requests of other nodes.
#[derive(Debug)]
pub struct Service {
    /// This node.
    pub context: Context,
    /// Consensus.
    pub raft: Raft,
    /// Where forwarded commands go.
    pub intake: Arc<Intake>,
    /// The source of the read index.
    pub barrier: Arc<Barrier>,
    /// The membership, for servers that join or leave.
    pub membership: Arc<Membership>,
    /// Hashes the state, and judges the hashes of others.
    pub comparison: Arc<Comparison>,
    /// Remembers when the leader was last heard.
    pub contact: Arc<LeaderContact>,
    /// Where received snapshots go.
    pub snapshots: Arc<dyn SnapshotStore>,
    /// Those that are being received.
    pub receptions: Receptions,
    /// Ends what is being answered before consensus ends.
    pub supervisor: Supervisor,
}

impl Service {
    /// Whether a request is meant for this server of this cluster.
    #[must_use]
    pub fn is_addressee(&self, envelope: &Envelope) -> bool {
        self.admit(envelope).is_ok()
    }

    /// The same for a snapshot.
    #[must_use]
    pub fn is_addressee_of_snapshot(&self, header: &SnapshotHeader) -> bool {
        header.to == self.context.id
            && self.is_own_store(&header.store)
            && header.cluster.is_some()
            && header.cluster == self.context.identity.cluster_id()
    }

    /// Whether the holder of a certificate may speak for a server, which perhaps introduces itself.
    ///
    /// # Errors
    /// [`Impostor`]; the log has it too.
    pub fn check_holder(
        &self,
        holder: &Holder,
        from: NodeId,
        info: Option<&ServerInfo>,
    ) -> Result<(), Impostor> {
        let claimed = info.map(|info| info.peer.name.as_str());
        let checked = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let member = metrics.membership_config.get_node(&from);
            impostor::check(holder, from, claimed, member.map(|peer| peer.name.as_str()))
        };
        checked.inspect_err(|impostor| {
            let sentence = format!("refused a message in the name of server {from}: {impostor}");
            self.context.warnings.warn_of("impostor", &sentence);
        })
    }

    /// Answers one request.
    pub async fn handle(&self, envelope: Envelope) -> Response {
        let from = envelope.from;
        // Boxed: it is large, and what wraps it would have it several times.
        let answer = self.supervisor.unless_ended(Box::pin(self.admit_and_answer(envelope))).await;
        answer.unwrap_or_else(|| Err(not_running(STOPPING))).unwrap_or_else(|refusal| {
            tracing::debug!(from, %refusal, "refused a request of another server");
            Response::Refused(refusal)
        })
    }

    async fn admit_and_answer(&self, envelope: Envelope) -> Result<Response, Refusal> {
        self.admit(&envelope)?;
        self.check_introduction(&envelope)?;
        let Envelope { from, request, sender, addressee, level, .. } = envelope;
        if matches!(request, Request::WhoAreYou) {
            return Ok(Response::Identity(self.context.processes.sender()));
        }
        self.admit_sender(from, &sender, addressee, request.info()).await?;
        if request.is_consensus() {
            if !self.context.processes.is_cleared() {
                return Err(Refusal::Starting);
            }
            self.check(from, &sender, plausible::first_named(&request), |known| {
                known.check(&request)
            })
            .await?;
        }
        self.answer(from, request, &sender, level).await
    }

    /// Whether a request comes from the process that speaks for its server, and is meant for this one.
    async fn admit_sender(
        &self,
        from: NodeId,
        sender: &ProcessIdentity,
        addressee: Option<BootId>,
        info: Option<&ServerInfo>,
    ) -> Result<(), Refusal> {
        let processes = &self.context.processes;
        if addressee.is_some_and(|boot| boot != processes.own()) {
            return Err(Refusal::OtherBoot(processes.sender()));
        }
        let (own, is_own_id) = (processes.sender(), from == self.context.id);
        if info.is_some() && is_own_id && sender.store_id != own.store_id {
            // Two servers were given one id; the greeting tells them.
            return Ok(());
        }
        processes.refuse_removed(from, sender, info)?;
        self.context.admit_process(from, sender, info.is_some()).await?;
        match info {
            Some(info) => processes.refuse_lost(info, sender),
            None => Ok(()),
        }
    }

    /// Keeps out what would be stored of a sender and cannot be true.
    fn check_introduction(&self, envelope: &Envelope) -> Result<(), Refusal> {
        let known = Known::of(&self.raft.metrics().borrow_watched());
        let incarnation = self.context.processes.recorded_incarnation(envelope.from);
        introduced::check(envelope, &known, incarnation).inspect_err(|refusal| {
            self.warn_of_forgery(envelope.from, &envelope.sender, refusal);
        })
    }

    /// Keeps messages from openraft that it cannot handle, and tells the operator who sent them.
    async fn check(
        &self,
        from: NodeId,
        sender: &ProcessIdentity,
        first: Option<LogId>,
        check: impl FnOnce(&Plausible<'_>) -> Result<(), Refusal> + Send,
    ) -> Result<(), Refusal> {
        let mut known = Known::of(&self.raft.metrics().borrow_watched());
        if known.is_behind(first) {
            let id = self.context.id;
            let all = self.raft.with_raft_state(move |state| Known::all_of(id, state)).await;
            known = all.map_err(not_running)?;
        }
        let checked = check(&Plausible::new(&known, from));
        match (&checked, known.committed) {
            (Err(Refusal::Contradicts(theirs)), Some(committed)) => {
                self.context.processes.contradicted(*theirs, committed.into());
            }
            (Err(refusal), _) => self.warn_of_forgery(from, sender, refusal),
            (Ok(()), _) => {}
        }
        checked
    }

    fn warn_of_forgery(&self, from: NodeId, sender: &ProcessIdentity, refusal: &Refusal) {
        let sentence = format!(
            "refused a message in the name of server {from} at {}: {refusal}; that server is damaged, or another program \
             sends in its name",
            sender.rpc_addr
        );
        self.context.warnings.warn_of("forgery", &sentence);
    }

    /// Rejects requests addressed to another server, store or cluster.
    fn admit(&self, envelope: &Envelope) -> Result<(), Refusal> {
        if envelope.to.is_some_and(|to| to != self.context.id) {
            return Err(Refusal::WrongServer(self.context.id));
        }
        if envelope.store.as_ref().is_some_and(|store| !self.is_own_store(store)) {
            return Err(Refusal::WrongStore);
        }
        match envelope.request {
            // Asked before the two servers know each other.
            Request::Hello(_) | Request::Join(_) | Request::WhoAreYou => {
                self.no_other_cluster(envelope)
            }
            Request::Append(_)
            | Request::Vote(_)
            | Request::PreVote(_)
            | Request::TransferLeader(_)
            | Request::Forward(_)
            | Request::ReadIndex
            | Request::Remove(_)
            | Request::HandOver(_)
            | Request::RecordBoot(_)
            | Request::Progress
            | Request::StateHash { .. }
            | Request::StateHashes { .. } => {
                if envelope.to.is_none() || envelope.store.is_none() {
                    return Err(Refusal::NoAddressee);
                }
                self.same_cluster(envelope.from, envelope.cluster.as_deref())
            }
        }
    }

    fn warn_of_another_cluster(&self, from: NodeId, theirs: &str) {
        self.context.warnings.warn(&format!(
            "refused server {from} of another cluster ({theirs}), which treats this server as one of its own"
        ));
    }

    /// Whether this is the data directory that the cluster knows.
    fn is_own_store(&self, store: &str) -> bool {
        store == self.context.identity.store_id()
    }

    /// Servers that belong to different clusters refuse each other.
    fn no_other_cluster(&self, envelope: &Envelope) -> Result<(), Refusal> {
        match (self.context.identity.cluster_id(), &envelope.cluster) {
            (Some(ours), Some(theirs)) if ours != *theirs => {
                self.warn_of_another_cluster(envelope.from, theirs);
                Err(Refusal::WrongCluster)
            }
            (Some(_) | None, _) => Ok(()),
        }
    }

    /// A server without a cluster joins the one whose members know its store; that is how it learns the
    /// cluster's id. The id is durable before anything is answered.
    fn same_cluster(&self, from: NodeId, theirs: Option<&str>) -> Result<(), Refusal> {
        match (self.context.identity.cluster_id(), theirs) {
            (Some(ours), Some(theirs)) if ours == theirs => Ok(()),
            (None, Some(theirs)) => {
                let adopted = self.context.identity.adopt_cluster(theirs);
                adopted.map_err(|error| Refusal::NotRunning(error.to_string()))
            }
            (Some(_), Some(theirs)) => {
                self.warn_of_another_cluster(from, theirs);
                Err(Refusal::WrongCluster)
            }
            (Some(_) | None, None) => Err(Refusal::WrongCluster),
        }
    }

    async fn answer(
        &self,
        from: NodeId,
        request: Request,
        sender: &ProcessIdentity,
        level: u32,
    ) -> Result<Response, Refusal> {
        match request {
            Request::Append(rpc) => {
                let answer = self.raft.append_entries(rpc).await.map_err(not_running)?;
                if !matches!(answer, openraft::raft::AppendEntriesResponse::HigherVote(_)) {
                    self.contact.heard();
                }
                Ok(Response::Append(answer))
            }
            Request::Vote(rpc) => {
                self.raft.vote(rpc).await.map(Response::Vote).map_err(not_running)
            }
            Request::PreVote(rpc) => {
                self.raft.pre_vote(rpc).await.map(Response::Vote).map_err(not_running)
            }
            Request::TransferLeader(rpc) => {
                let answer = self.raft.handle_transfer_leader(rpc).await;
                answer.map(Response::TransferLeader).map_err(not_running)
            }
            Request::Forward(part) => {
                self.check_numbers(from, &part).inspect_err(|refusal| {
                    self.warn_of_forgery(from, sender, refusal);
                })?;
                Ok(Response::Forward(self.forwarded(part).await))
            }
            Request::ReadIndex => Ok(Response::ReadIndex(self.barrier.local_read_index().await)),
            Request::Hello(info) => Ok(Response::Hello(Box::new(self.membership.greet(&info)))),
            Request::Join(info) => Ok(Response::Changed(self.membership.admit(info, level).await)),
            Request::Remove(id) => Ok(Response::Changed(self.membership.remove_here(id).await)),
            Request::HandOver(to) => {
                Ok(Response::Changed(self.membership.hand_over_here(to).await))
            }
            Request::Progress => Ok(Response::Progress(self.membership.progress_here())),
            Request::RecordBoot(info) => {
                let answer = self.membership.record_boot(&info, sender, level).await?;
                Ok(Response::Changed(answer))
            }
            Request::WhoAreYou => Ok(Response::Identity(self.context.processes.sender())),
            Request::StateHash { index, version } => {
                Ok(Response::StateHash(self.comparison.hash_at(index, &version).await))
            }
            Request::StateHashes { index, hashes } => {
                self.comparison.told(index, &hashes);
                Ok(Response::Noted)
            }
        }
    }

    /// Rejects numbers far above those that a server has used. They would use up its numbers, and its later
    /// commands would be taken for answered ones.
    fn check_numbers(&self, from: NodeId, part: &Part) -> Result<(), Refusal> {
        let wrong = |what: String| Err(Refusal::Implausible(what));
        if part.origin != from {
            return wrong(format!("it forwards commands of server {}", part.origin));
        }
        let Some(published) = self.context.processes.published() else { return Ok(()) };
        let used = published.state.used_numbers(from);
        if part.incarnation == 0 {
            return wrong("no boot was recorded with the incarnation 0".to_owned());
        }
        if part.incarnation > used.incarnation {
            // This leader may not have applied that start yet: it is handed over again.
            return Err(Refusal::Starting);
        }
        let used = if part.incarnation == used.incarnation { used.highest } else { 0 };
        let highest = part.highest_number();
        if highest.saturating_sub(used) > NUMBERS_AHEAD_MAX {
            return wrong(format!("command {highest}, and {used} was the highest so far"));
        }
        Ok(())
    }

    async fn forwarded(&self, part: Part) -> Forwarded {
        let bytes = postcard::experimental::serialized_size(&part).unwrap_or(0);
        self.intake.submit(part, bytes).await
    }

    /// Receives a snapshot and installs it.
    pub async fn receive_snapshot(
        &self,
        header: SnapshotHeader,
        bytes: impl Stream<Item = io::Result<Bytes>> + Unpin + Send,
    ) -> Response {
        let installed = self.supervisor.unless_ended(Box::pin(self.install(header, bytes))).await;
        installed.unwrap_or_else(|| Err(not_running(STOPPING))).unwrap_or_else(|refusal| {
            tracing::warn!(%refusal, "a snapshot was not installed");
            Response::Refused(refusal)
        })
    }

    async fn install(
        &self,
        header: SnapshotHeader,
        bytes: impl Stream<Item = io::Result<Bytes>> + Unpin + Send,
    ) -> Result<Response, Refusal> {
        if header.to != self.context.id {
            return Err(Refusal::WrongServer(self.context.id));
        }
        if !self.is_own_store(&header.store) {
            return Err(Refusal::WrongStore);
        }
        self.same_cluster(header.from, header.cluster.as_deref())?;
        let incarnation = self.context.processes.recorded_incarnation(header.from);
        introduced::sender(header.from, &header.sender, header.cluster.as_deref(), incarnation)?;
        self.admit_sender(header.from, &header.sender, header.addressee, None).await?;
        if !self.context.processes.is_cleared() {
            return Err(Refusal::Starting);
        }
        self.check(header.from, &header.sender, header.meta.last_log_id, |known| {
            known.check_snapshot(&header.vote, &header.meta)
        })
        .await?;
        let snapshot = self.store(bytes).await.map_err(not_running)?;
        tracing::info!(from = header.from, bytes = snapshot.len(), "received a snapshot");
        let snapshot = SnapshotOf::<TypeConfig, Snapshot> { meta: header.meta, snapshot };
        let answer = self.raft.install_full_snapshot(header.vote, snapshot).await;
        self.contact.heard();
        answer.map(Response::Snapshot).map_err(not_running)
    }

    async fn store(
        &self,
        mut bytes: impl Stream<Item = io::Result<Bytes>> + Unpin + Send,
    ) -> io::Result<Snapshot> {
        let mut reception = self.receptions.begin(self.snapshots.directory())?;
        let mut sink = self.snapshots.spool()?;
        while let Some(piece) = tokio::time::timeout(PIECE_TIME_MAX, bytes.next()).await? {
            let piece = piece?;
            reception.take(piece.len())?;
            sink = blocking(RECEIVING, move || sink.write_all(&piece).map(|()| sink)).await?;
        }
        blocking(RECEIVING, move || sink.commit()).await
    }
}

fn not_running(error: impl std::fmt::Display) -> Refusal {
    Refusal::NotRunning(error.to_string())
}
