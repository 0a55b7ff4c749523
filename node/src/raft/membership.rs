//! Founding a cluster, joining one, leaving one.
//!
//! A new cluster is founded once, by the server with the lowest id, and only when all expected servers
//! answered "I belong to no cluster" in one round: so two halves of a slow network cannot each found
//! one, and a server that lost its disk finds that the others already belong to a cluster.
//!
//! A server that comes later asks to join: it becomes a learner, and a voter once it has caught up. Changes
//! name their target, so repeating them is harmless.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use quorate_storage::machine::StateReader;
use quorate_storage::raft::{NodeId, Peer, StoredMembership, TypeConfig};
use thiserror::Error;
use tokio::sync::{Mutex, watch};

use super::acknowledged::Acknowledged;
use super::context::Context;
use super::intake::Intake;
use super::leadership::{self, Leadership};
use super::protocol::{ChangeRefusal, Greeting, Request, Response, ServerInfo};
use super::surroundings::Round;
use super::transport::{Purpose, TransportError};
use super::warnings::WARN_EVERY;
use super::{CAUGHT_UP_ENTRIES, Raft};
use crate::raft::error::MembershipError;

/// Pause between two rounds of asking who is there.
const ROUND_PAUSE: Duration = Duration::from_millis(100);
/// How long one greeting may take.
const HELLO_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the leader may take to change the membership: a learner must catch up first.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a new server may take to become fit to vote before it has to ask again. Less than
/// [`CHANGE_TIMEOUT`], so that it hears the reason.
const CATCH_UP_MAX: Duration = Duration::from_secs(50);
/// How long a server that is fit to vote waits for the end of another change.
const TURN_MAX: Duration = Duration::from_secs(5);
/// Pause before a refused change is asked for again.
const CHANGE_PAUSE: Duration = Duration::from_millis(200);

/// Logged by a server that founded a cluster of one, perhaps by mistake.
const ALONE: &str = "this server is a cluster of its own, because neither --join nor --bootstrap-expect was given: it survives no failure, and servers started the same way do not join it. If this is intended, pass --bootstrap-expect 1";

/// This node's part in the membership.
#[derive(Debug)]
pub struct Membership {
    /// Who this node is.
    pub info: ServerInfo,
    /// Its cluster, its clock, and the other servers.
    pub context: Context,
    /// Consensus.
    pub raft: Raft,
    /// Where entries are proposed.
    pub intake: Arc<Intake>,
    /// Who leads.
    pub leadership: watch::Receiver<Leadership>,
    /// The applied state.
    pub state: StateReader,
    /// What members have acknowledged to this node as the leader.
    pub acknowledged: Acknowledged,
    /// How many servers found a new cluster.
    pub bootstrap_expect: usize,
    /// RPC addresses where others may be found.
    pub join: Vec<String>,
    /// One change at a time.
    pub changing: Mutex<()>,
    /// The id of a cluster that this node might found: random, made at start.
    pub fresh_cluster_id: String,
    /// Faults in this node's settings that do not keep it from running.
    pub remarks: Vec<String>,
    /// Whether no setting names other servers, so that a cluster of one may be a mistake.
    pub is_alone_by_default: bool,
}

/// Why a node cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The cluster knows this id with another data directory.
    #[error("{0}")]
    Refused(#[from] ChangeRefusal),
    /// The disk or openraft failed.
    #[error("cannot found the cluster: {0}")]
    Failed(String),
}

impl Membership {
    /// Answers who this node is and what it knows of the cluster.
    #[must_use]
    pub fn greet(&self, visitor: &ServerInfo) -> Greeting {
        if let Some(clash) = Round::clash(&self.info, visitor) {
            self.context.warnings.warn(&clash);
        }
        let members = self.members();
        if let Some(known) = members.get(&visitor.id).filter(|_| visitor.id != self.info.id)
            && is_another_store(known, &visitor.peer)
        {
            self.context.warnings.warn(&format!(
                "a server at {} was started with --node-id {}, which is that of the member at {}, and without \
                 its data",
                visitor.peer.rpc_addr, visitor.id, known.rpc_addr
            ));
        }
        Greeting {
            info: self.info.clone(),
            cluster: self.context.identity.cluster_id(),
            bootstrap_expect: self.bootstrap_expect,
            members,
            leader: self.leadership.borrow().leader.as_ref().map(|(id, _)| *id),
            sender: self.context.processes.sender(),
            level: self.context.level,
        }
    }

    pub(super) fn members(&self) -> BTreeMap<NodeId, Peer> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.nodes().map(|(id, peer)| (*id, peer.clone())).collect()
    }

    /// Whether a membership change is half done.
    pub(super) fn is_joint(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().get_joint_config().len() > 1
    }

    pub(super) fn voters(&self) -> BTreeSet<NodeId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.voter_ids().collect()
    }

    /// The membership in force, as consensus itself holds it. The metrics lag behind: in the first moments
    /// after a start they are still empty. A server that decided by them would found a cluster, or ask to
    /// join one, although its disk holds a membership.
    pub(super) async fn in_force(&self) -> Result<Arc<StoredMembership>, StartError> {
        let read =
            self.raft.with_raft_state(|state| Arc::clone(state.membership_state.effective()));
        read.await.map_err(|fatal| StartError::Failed(fatal.to_string()))
    }

    /// Returns once this node is a member of a cluster: at once after a restart, otherwise when one was
    /// founded or joined.
    ///
    /// # Errors
    /// When the cluster refuses this server permanently, or when founding failed.
    pub async fn found_or_join(&self) -> Result<(), StartError> {
        let began = self.context.clock.now();
        let mut told = false;
        loop {
            let membership = self.in_force().await?;
            // An entry from a leader, or a membership from before a restart. A learner is a server whose
            // join was interrupted, perhaps by the end of its leader; it asks again.
            if membership.voter_ids().any(|id| id == self.info.id) {
                return Ok(());
            }
            let round = self.greet_everybody().await;
            self.context.processes.clear();
            self.refuse_lost_disk(&round.greetings).await?;
            // One that runs under this server's id may be the member that has it.
            self.refuse_lost_disk(&round.namesakes).await?;
            let member = round.greetings.iter().find(|greeting| !greeting.members.is_empty());
            let obstacle = round.obstacle(&self.info, self.bootstrap_expect);
            if let Some(member) = member {
                self.ask_to_join(member).await?;
            } else if let Some(obstacle) = obstacle {
                self.context.warnings.warn(&obstacle);
            } else if self.may_found(&membership, &round.greetings) {
                return self.found(&round.greetings).await;
            } else if self.context.clock.now().since(began) >= WARN_EVERY {
                self.context.warnings.warn(&round.waiting_for(self.bootstrap_expect));
            }
            if !told && member.is_none() {
                told = true;
                self.tell_of_wait(&round);
            }
            self.context.clock.sleep(ROUND_PAUSE).await;
        }
    }

    fn tell_of_wait(&self, round: &Round) {
        let (expected, present) = (self.bootstrap_expect, round.greetings.len() + 1);
        if expected == 0 {
            tracing::info!("looking for a cluster to join");
        } else {
            tracing::info!(
                expected,
                present,
                "waiting for the servers that found the cluster together"
            );
        }
    }

    pub(super) async fn greet_everybody(&self) -> Round {
        self.greet_everybody_within(HELLO_TIMEOUT).await
    }

    pub(super) async fn greet_everybody_within(&self, timeout: Duration) -> Round {
        // Servers known from the flags, and from the membership of an earlier boot.
        let mut addresses: BTreeSet<String> = self.join.iter().cloned().collect();
        for (id, peer) in self.members() {
            let current = self.context.processes.current(id, &peer.store_id);
            addresses.extend(current.map(|contact| contact.rpc_addr));
            addresses.insert(peer.rpc_addr);
        }
        self.greet_at(addresses, timeout).await
    }

    async fn greet_at(&self, mut addresses: BTreeSet<String>, timeout: Duration) -> Round {
        addresses.remove(&self.info.peer.rpc_addr);
        let greetings = addresses.iter().map(|address| self.hello(address, timeout));
        let answers = futures_util::future::join_all(greetings).await;
        let mut round = Round::default();
        for (address, answer) in addresses.iter().zip(answers) {
            round.add(&self.info, address, answer);
        }
        round
    }

    /// Warns the operator, for as long as it lasts, of what is wrong around this node although it runs. Never
    /// returns.
    pub async fn watch_surroundings(&self) {
        let warnings = &self.context.warnings;
        let began = self.context.clock.now();
        loop {
            self.remarks.iter().for_each(|remark| warnings.warn(remark));
            let (own, members) = (&self.info, self.members());
            if let Some(known) = members.get(&own.id) {
                if self.is_alone_by_default && members.len() == 1 {
                    warnings.warn(ALONE);
                }
                if known.name != own.peer.name {
                    let (given, known) = (&own.peer.name, &known.name);
                    warnings.warn(&format!("this server was started with --name {given}, but the cluster keeps its name {known}"));
                }
                // Refusals by servers of another cluster are explained where they are received.
                let round = self.greet_at(self.join.iter().cloned().collect(), HELLO_TIMEOUT).await;
                round.clashes.iter().for_each(|clash| warnings.warn(clash));
                // Servers that start together do not find each other at once.
                if self.context.clock.now().since(began) >= WARN_EVERY {
                    self.warn_of_missing_majority(&members).await;
                }
            }
            self.context.clock.sleep(WARN_EVERY).await;
        }
    }

    /// Warns of a cluster that has no leader because most of its servers are not where this one looks for them.
    async fn warn_of_missing_majority(&self, members: &BTreeMap<NodeId, Peer>) {
        if leadership::leads_with_quorum(&self.raft) {
            return;
        }
        let round = self.greet_everybody().await;
        // A vote from before a restart names a leader, too: what counts is whether that one answers.
        let leader = self.leadership.borrow().leader.as_ref().map(|(id, _)| *id);
        if round.greetings.iter().any(|greeting| Some(greeting.info.id) == leader) {
            return;
        }
        if let Some(text) = round.missing_majority(&self.info, members, &self.voters()) {
            self.context.warnings.warn_of("a majority is missing", &text);
        }
    }

    /// The greeting from `address`, or why there is none.
    async fn hello(&self, address: &str, timeout: Duration) -> Result<Greeting, String> {
        let request = Request::Hello(self.info.clone());
        match self.context.call_address(address, request, timeout).await {
            Ok(Response::Hello(greeting)) => {
                let Greeting { info, sender, .. } = &*greeting;
                if info.id != self.info.id {
                    // Learns where it is, too.
                    let admitted = self.context.admit_process(info.id, sender, false).await;
                    admitted.map_err(|refusal| refusal.to_string())?;
                }
                Ok(*greeting)
            }
            Ok(Response::Refused(refusal)) => Err(format!("it refuses: {refusal}")),
            Ok(_) => Err("the response does not match the request".to_owned()),
            Err(TransportError::Unreachable(why) | TransportError::NoAnswer(why)) => Err(why),
        }
    }

    /// A server whose id the cluster knows with another store has lost its disk. It must not vote under its
    /// old id, because its earlier promises are lost.
    async fn refuse_lost_disk(&self, greetings: &[Greeting]) -> Result<(), ChangeRefusal> {
        let ours = &self.info;
        let mut known = greetings.iter().filter_map(|greeting| greeting.members.get(&ours.id));
        match known.find(|peer| is_another_store(peer, &ours.peer)) {
            Some(peer) => Err(self.id_taken(ours.id, peer).await),
            None => Ok(()),
        }
    }

    /// Only the lowest id founds, only with every server present, and only if none belongs to a cluster. (A
    /// founder that crashed before it wrote the first membership already has a cluster's id, and founds that
    /// cluster.)
    fn may_found(&self, membership: &StoredMembership, greetings: &[Greeting]) -> bool {
        let alone = self.bootstrap_expect == 1 && self.join.is_empty();
        let everybody = greetings.len() + 1 == self.bootstrap_expect;
        let unattached = membership.nodes().next().is_none()
            && greetings.iter().all(|greeting| greeting.cluster.is_none());
        let lowest = greetings.iter().all(|greeting| greeting.info.id > self.info.id);
        (alone || everybody) && unattached && lowest
    }

    async fn found(&self, greetings: &[Greeting]) -> Result<(), StartError> {
        let failed = |error: &dyn std::fmt::Display| StartError::Failed(error.to_string());
        let identity = &self.context.identity;
        let cluster = identity.cluster_id().unwrap_or_else(|| self.fresh_cluster_id.clone());
        identity.adopt_cluster(&cluster).map_err(|error| failed(&error))?;
        let everybody = greetings.iter().map(|greeting| &greeting.info);
        let members: BTreeMap<NodeId, Peer> =
            everybody.chain([&self.info]).map(|member| (member.id, member.peer.clone())).collect();
        tracing::info!(%cluster, members = members.len(), "founding the cluster");
        self.raft.initialize(members).await.map_err(|error| failed(&error))
    }

    async fn ask_to_join(&self, member: &Greeting) -> Result<(), StartError> {
        let leader = member.leader.and_then(|leader| member.members.get(&leader));
        let address = leader.unwrap_or(&member.info.peer).rpc_addr.clone();
        let request = Request::Join(self.info.clone());
        let warnings = &self.context.warnings;
        warnings.inform(&format!("asking to join the cluster, at {address}"));
        match self.context.call_address(&address, request, CHANGE_TIMEOUT).await {
            Ok(Response::Changed(Ok(()))) => {}
            Ok(Response::Changed(Err(refusal))) if refusal.is_final() => return Err(refusal.into()),
            Ok(Response::Changed(Err(ChangeRefusal::NotLeader(Some(_)) | ChangeRefusal::Busy))) => {
                tracing::debug!(%address, "no leader, or the change is not complete: asking again");
            }
            Ok(Response::Changed(Err(ChangeRefusal::NotLeader(None)))) => warnings.warn(&format!(
                "not a member yet: {address} knows no leader, and the cluster has none until a majority of \
                 its servers responds"
            )),
            Ok(Response::Changed(Err(refusal))) => {
                warnings.warn(&format!("not a member yet: {refusal}"));
            }
            Ok(Response::Refused(refusal)) => {
                warnings.warn(&format!("not a member yet: {address} refuses this server: {refusal}"));
            }
            Ok(_) => warnings.warn(&format!("not a member yet: {address} sent an unexpected response")),
            Err(error) => warnings.warn(&format!("not a member yet: {address}: {error}")),
        }
        Ok(())
    }

    /// Makes a server a member, as the leader: learner first, voter once it has caught up. `level`: that of
    /// the rules that it knows.
    ///
    /// # Errors
    /// See [`ChangeRefusal`].
    pub async fn admit(&self, newcomer: ServerInfo, level: u32) -> Result<(), ChangeRefusal> {
        self.must_lead()?;
        self.may_join(&newcomer, level).await.inspect_err(|refusal| {
            self.context.warnings.warn(&format!(
                "refused server {} ({}), which asked to join: {refusal}",
                newcomer.id, newcomer.peer
            ));
        })?;
        let id = newcomer.id;
        if self.voters().contains(&id) && !self.is_joint() {
            return Ok(());
        }
        if !self.voters().contains(&id) {
            self.dial_back(&newcomer).await.inspect_err(|refusal| {
                self.context.warnings.warn(&format!("a server cannot join: {refusal}"));
            })?;
            let told = |refusal: &ChangeRefusal| self.tell_of_delay(refusal);
            self.add_learner(newcomer, level).await.inspect_err(told)?;
            // It counts for the quorum from its first moment as a voter, so it must be fit before.
            let fit = self.context.clock.timeout(CATCH_UP_MAX, self.is_fit_to_vote(id)).await;
            fit.map_err(|_| ChangeRefusal::Interrupted)?.inspect_err(told)?;
        }
        // Waits for the change, because a server that is refused has to prove itself again.
        let changing = self.context.clock.timeout(TURN_MAX, self.changing.lock()).await;
        let _one_at_a_time = changing.map_err(|_| ChangeRefusal::Busy)?;
        if !self.voters().contains(&id) {
            self.may_promote(id).await.inspect_err(|refusal| self.tell_of_delay(refusal))?;
        }
        let voter = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
        self.raft.change_membership(voter, true).await.map_err(refused)?;
        tracing::info!(server = id, "the server is a voter now");
        Ok(())
    }

    /// Logs why a server does not become a voter now. It asks again.
    fn tell_of_delay(&self, refusal: &ChangeRefusal) {
        if let ChangeRefusal::NotNow(why) = refusal {
            self.context.warnings.warn(why);
        }
    }

    /// Whether a server may become a member, or is one.
    async fn may_join(&self, newcomer: &ServerInfo, level: u32) -> Result<(), ChangeRefusal> {
        let members = self.members();
        if let Some(known) = members.get(&newcomer.id)
            && is_another_store(known, &newcomer.peer)
        {
            return Err(self.id_taken(newcomer.id, known).await);
        }
        if !members.contains_key(&newcomer.id) && self.state.load().state.knows_origin(newcomer.id)
        {
            return Err(ChangeRefusal::IdUsed(newcomer.id));
        }
        let name = &newcomer.peer.name;
        let owner = members
            .iter()
            .find(|(id, peer)| **id != newcomer.id && peer.name.eq_ignore_ascii_case(name));
        if let Some((owner, _)) = owner {
            return Err(ChangeRefusal::NameTaken { name: name.clone(), owner: *owner });
        }
        // Where they are now: a member that has moved has left its address to others.
        let mut others = members.iter().filter(|(id, _)| **id != newcomer.id);
        let address = &newcomer.peer.rpc_addr;
        if let Some((owner, _)) =
            others.find(|(id, peer)| self.context.address_of(**id, peer) == *address)
        {
            let (address, owner) = (address.clone(), *owner);
            return Err(ChangeRefusal::AddressTaken { address, owner });
        }
        if newcomer.datacenter != self.info.datacenter {
            return Err(ChangeRefusal::OtherDatacenter {
                ours: self.info.datacenter.clone(),
                theirs: newcomer.datacenter.clone(),
            });
        }
        self.knows_rules(newcomer.id, level).map_err(ChangeRefusal::Refused)
    }

    /// Why a server cannot have an id that a member has. It matters whether that member runs: a mistyped id
    /// must not lead to the removal of a healthy server.
    async fn id_taken(&self, id: NodeId, known: &Peer) -> ChangeRefusal {
        let address = self.context.address_of(id, known);
        let answer = self.context.call_address(&address, Request::WhoAreYou, HELLO_TIMEOUT).await;
        match answer {
            Ok(Response::Identity(there)) if there.store_id == known.store_id => {
                ChangeRefusal::IdInUse { id, address }
            }
            Ok(_) | Err(_) => ChangeRefusal::IdTaken(id),
        }
    }

    /// A server that cannot be reached at the address that it gave would be a member that never answers. So
    /// the leader asks it there to identify itself before it is added.
    async fn dial_back(&self, newcomer: &ServerInfo) -> Result<(), ChangeRefusal> {
        let ServerInfo { id, peer, .. } = newcomer;
        let request = Request::Hello(self.info.clone());
        let answer = self.context.call(*id, peer, Purpose::Control, request, HELLO_TIMEOUT).await;
        let why = match answer {
            Ok(Response::Hello(greeting)) if greeting.info.peer.store_id == peer.store_id => {
                return Ok(());
            }
            Ok(Response::Refused(refusal)) => format!("it was refused: {refusal}"),
            Ok(_) => "another server answered".to_owned(),
            Err(error) => format!("it got no response: {error}"),
        };
        Err(ChangeRefusal::NotThere { id: *id, address: peer.rpc_addr.clone(), why })
    }

    async fn add_learner(&self, newcomer: ServerInfo, level: u32) -> Result<(), ChangeRefusal> {
        let ServerInfo { id, peer, .. } = newcomer;
        let _one_at_a_time = self.changing.try_lock().map_err(|_| ChangeRefusal::Busy)?;
        // The level rises under this lock, or did in the term of an earlier leader.
        if self.applied_in_term().is_none() {
            return Err(ChangeRefusal::Busy);
        }
        self.knows_rules(id, level).map_err(ChangeRefusal::Refused)?;
        match self.members().get(&id) {
            Some(known) if *known == peer => {}
            Some(_) => {
                // It gave a wrong address when it asked before.
                let change = ChangeMembers::SetNodes(BTreeMap::from([(id, peer)]));
                self.raft.change_membership(change, true).await.map_err(refused)?;
            }
            None => {
                self.has_room_for_learner()?;
                self.has_quorum().await?;
                self.context.warnings.inform(&format!("adding server {id} ({peer})"));
                // A removed server may have had this id, if none of its commands was applied.
                self.acknowledged.forget(id);
                self.raft.add_learner(id, peer, false).await.map_err(refused)?;
            }
        }
        Ok(())
    }

    /// openraft takes a server that never answered for one that lags by the length of the log, which is short
    /// in a young cluster.
    pub(super) fn has_caught_up(&self, id: NodeId) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.as_ref().and_then(|members| *members.get(&id)?);
        let last = metrics.last_log_index.unwrap_or(0);
        matched.is_some_and(|matched| matched.index + CAUGHT_UP_ENTRIES >= last)
    }

    /// Completes, as the leader, a change that an earlier leader began and did not complete.
    pub async fn complete_change(&self) {
        let Ok(_one_at_a_time) = self.changing.try_lock() else { return };
        if !self.is_joint() {
            return;
        }
        tracing::info!("completing a membership change of an earlier leader");
        let nothing_new = ChangeMembers::AddVoterIds(BTreeSet::new());
        if let Err(error) = self.raft.change_membership(nothing_new, false).await {
            tracing::info!(%error, "the membership change is not complete yet");
        }
    }

    /// Removes a server, as the leader.
    ///
    /// # Errors
    /// See [`ChangeRefusal`].
    pub async fn remove_here(&self, id: NodeId) -> Result<(), ChangeRefusal> {
        self.must_lead()?;
        if !self.members().contains_key(&id) {
            return Err(ChangeRefusal::Unknown);
        }
        let _one_at_a_time = self.changing.try_lock().map_err(|_| ChangeRefusal::Busy)?;
        self.may_remove(id).await.inspect_err(|refusal| {
            self.context.warnings.warn(&refusal.to_string());
        })?;
        tracing::info!(server = id, "removing a server");
        let gone = BTreeSet::from([id]);
        if self.voters().contains(&id) {
            let change = ChangeMembers::RemoveVoters(gone);
            self.raft.change_membership(change, false).await.map_err(refused)?;
        } else {
            let change = ChangeMembers::RemoveNodes(gone);
            self.raft.change_membership(change, false).await.map_err(refused)?;
        }
        Ok(())
    }

    /// Removes a server, through the current leader.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn remove(&self, id: NodeId, hold: Duration) -> Result<(), MembershipError> {
        // Whether an earlier attempt may have removed it.
        let mut begun = false;
        let attempts = async {
            loop {
                match self.try_remove(id).await {
                    // Repeated after a lost response, the request finds the server removed.
                    Some(Err(ChangeRefusal::Unknown)) if begun => return Ok(()),
                    Some(Err(ChangeRefusal::Unknown)) => {
                        return Err(MembershipError::UnknownServer(id.to_string()));
                    }
                    Some(Err(ChangeRefusal::Refused(why) | ChangeRefusal::NotNow(why))) => {
                        return Err(MembershipError::Refused(why));
                    }
                    Some(Ok(())) => return Ok(()),
                    Some(Err(ChangeRefusal::Busy | ChangeRefusal::Interrupted)) | None => {
                        begun = true;
                    }
                    // The other refusals are about joining.
                    Some(Err(_)) => {}
                }
                self.context.clock.sleep(CHANGE_PAUSE).await;
            }
        };
        self.context.clock.timeout(hold, attempts).await.unwrap_or(Err(MembershipError::NoLeader))
    }

    async fn try_remove(&self, id: NodeId) -> Option<Result<(), ChangeRefusal>> {
        let leader = self.leadership.borrow().leader.clone();
        match leader {
            None => Some(Err(ChangeRefusal::NotLeader(None))),
            Some((leader, _)) if leader == self.info.id => Some(self.remove_here(id).await),
            Some((leader, peer)) => {
                let (purpose, request) = (Purpose::Control, Request::Remove(id));
                match self.context.call(leader, &peer, purpose, request, CHANGE_TIMEOUT).await {
                    Ok(Response::Changed(answer)) => Some(answer),
                    Ok(Response::Refused(_)) | Err(TransportError::Unreachable(_)) => {
                        Some(Err(ChangeRefusal::NotLeader(None)))
                    }
                    Ok(_) | Err(TransportError::NoAnswer(_)) => None,
                }
            }
        }
    }

    pub(super) fn must_lead(&self) -> Result<(), ChangeRefusal> {
        let leadership = self.leadership.borrow();
        if leadership.is_held_by(self.info.id) {
            return Ok(());
        }
        Err(ChangeRefusal::NotLeader(leadership.leader.as_ref().map(|(_, peer)| peer.clone())))
    }
}

/// Whether a server that the cluster knows has come with another data directory.
pub(super) fn is_another_store(known: &Peer, comes: &Peer) -> bool {
    known.store_id != comes.store_id
}

/// What openraft's refusal means to the caller. A change has two steps, and the error does not tell whether
/// leadership was lost before the first or between them.
fn refused(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> ChangeRefusal {
    match error {
        RaftError::APIError(
            ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_),
        )
        | RaftError::Fatal(_) => ChangeRefusal::Interrupted,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::InProgress(_),
        )) => ChangeRefusal::Busy,
        RaftError::APIError(error) => ChangeRefusal::Refused(error.to_string()),
    }
}
