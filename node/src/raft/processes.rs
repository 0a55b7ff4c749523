//! Which process speaks for a server, and where it is.
//!
//! A server is its id, its data directory and its current *boot*, which has a random id. Two processes
//! may claim one id, because a data directory was copied, because a virtual machine was cloned, or only
//! because a restarted server comes from another address. Raft is safe only if each server listens to one
//! of them at a time. These are the rules:
//!
//! * The log decides. A server has each boot entered into it ([`super::boot`]), which gives the boot a
//!   higher incarnation and ends the earlier ones: their requests are refused, and they end when they
//!   hear of it.
//! * Before that, and while there is no leader, a server answers the process that it knows. Another process
//!   takes its place only when the known one no longer answers at its address.
//! * A process that has just booted takes part in Raft only after it has asked every server that it can reach
//!   ([`Processes::clear`]). It ends if it hears that its identity is in use.
//!
//! The same table says where a server is: at the address that its newest boot gave, whatever the membership
//! says. That is how the servers find each other after all of them have moved.
//!
//! It cannot know whether a process that does not answer is gone or cut off. If a copy of a directory is
//! started while the original is cut off from its peers, the copy becomes the server.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use quorate_storage::machine::{Published, StateReader};
use quorate_storage::raft::{BootId, NodeId, Peer, Position};
use tokio::sync::watch;

use super::acknowledged::Acknowledged;
use super::plausible::contradiction;
use super::protocol::{ProcessIdentity, Refusal, ServerInfo};
use crate::host::clock::{Clock, Moment};

/// How long a process that has just identified itself counts as present, so that a newcomer's votes do not
/// make every server ask again and again.
const PROBE_VALID: Duration = Duration::from_millis(250);
/// A process that has just booted ends if it still hears after this time that its identity is in use. Until
/// then, the other process may be about to end.
const IN_USE_CONFIRMED_AFTER: Duration = Duration::from_secs(1);
/// A process ends if leaders still deny after this time what it knows to be committed. Leaders repeat their
/// messages, and a single message ends no process.
const CONTRADICTION_CONFIRMED_AFTER: Duration = Duration::from_secs(1);
/// Two such messages with a longer pause between them are unrelated.
const CONTRADICTION_FORGOTTEN_AFTER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;

/// What this server knows of itself and of the processes that speak for others.
#[derive(Debug)]
pub struct Processes {
    id: NodeId,
    own: BootId,
    store_id: String,
    rpc_addr: String,
    clock: Clock,
    state: OnceLock<StateReader>,
    incarnation: watch::Sender<Option<u64>>,
    is_cleared: AtomicBool,
    /// Whether this process has applied a membership with its server in it.
    was_member: AtomicBool,
    end: watch::Sender<Option<Refusal>>,
    /// A std lock: held for map operations, never across an await.
    table: Mutex<Table>,
    /// What others have acknowledged to this leader.
    pub(crate) acknowledged: Acknowledged,
}

#[derive(Debug, Default)]
struct Table {
    /// Processes that replaced the one that the log names, by server.
    accepted: BTreeMap<NodeId, Accepted>,
    /// Processes that were found to run, and when.
    present: BTreeMap<NodeId, (BootId, Moment)>,
    /// Held while asking about a server, so that one task asks at a time.
    asking: BTreeMap<NodeId, Arc<tokio::sync::Mutex<()>>>,
    /// Since when this process has heard that its identity is in use.
    in_use_since: Option<Moment>,
    /// Since when leaders have denied what this process knows to be committed, and when one last did.
    contradicted: Option<(Moment, Moment)>,
}

#[derive(Debug)]
struct Accepted {
    sender: ProcessIdentity,
    at: Moment,
    /// What the log said then. If it now says something else, the log counts.
    instead_of: Option<BootId>,
}

impl Processes {
    /// For the boot `own` of a server.
    #[must_use]
    pub fn new(id: NodeId, own: BootId, peer: &Peer, clock: Clock) -> Self {
        Self {
            id,
            own,
            store_id: peer.store_id.clone(),
            rpc_addr: peer.rpc_addr.clone(),
            clock,
            state: OnceLock::new(),
            incarnation: watch::Sender::new(None),
            is_cleared: AtomicBool::new(false),
            was_member: AtomicBool::new(false),
            end: watch::Sender::new(None),
            table: Mutex::default(),
            acknowledged: Acknowledged::default(),
        }
    }

    /// From now on, reads what the log says from this state.
    pub fn follow(&self, state: StateReader) {
        // Once, at the start.
        drop(self.state.set(state));
    }

    /// The newest applied state.
    pub(super) fn published(&self) -> Option<Arc<Published>> {
        self.state.get().map(StateReader::load)
    }

    /// This process, as it signs its messages.
    #[must_use]
    pub fn sender(&self) -> ProcessIdentity {
        ProcessIdentity {
            boot: self.own,
            incarnation: self.incarnation(),
            store_id: self.store_id.clone(),
            rpc_addr: self.rpc_addr.clone(),
        }
    }

    /// This server's Raft id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// This boot.
    #[must_use]
    pub fn own(&self) -> BootId {
        self.own
    }

    /// The number that the log has given to this boot.
    #[must_use]
    pub fn incarnation(&self) -> Option<u64> {
        *self.incarnation.borrow()
    }

    /// Changes when the log gives this boot its number.
    #[must_use]
    pub fn begun(&self) -> watch::Receiver<Option<u64>> {
        self.incarnation.subscribe()
    }

    pub(super) fn begin(&self, incarnation: u64) {
        self.incarnation.send_replace(Some(incarnation));
        self.table().in_use_since = None;
    }

    /// Every server was asked whether this identity is free: this process may vote and take entries.
    pub fn clear(&self) {
        self.is_cleared.store(true, Ordering::SeqCst);
    }

    /// See [`Processes::clear`].
    #[must_use]
    pub fn is_cleared(&self) -> bool {
        self.is_cleared.load(Ordering::SeqCst)
    }

    /// Takes note of what was applied.
    pub fn observe(&self, published: &Published) {
        let is_member = published.membership.membership().get_node(&self.id).is_some();
        let was_member = self.was_member.fetch_or(is_member, Ordering::SeqCst);
        if was_member && lacks_member(published, self.id) {
            self.end(&Refusal::Removed);
        }
        let Some(row) = published.state.boot(self.id) else { return };
        let began = self.incarnation();
        if row.boot == self.own {
            if began.is_none() {
                tracing::info!(incarnation = row.incarnation, "the cluster has recorded this boot");
                self.begin(row.incarnation);
            }
        } else if began.is_some_and(|own| row.incarnation > own) {
            self.end(&Refusal::Superseded(row.rpc_addr.clone()));
        }
        // The same in a later boot. A boot is recorded after its server has joined, so a server with a
        // recorded boot that is no member was removed.
        if row.store_id == self.store_id && lacks_member(published, self.id) {
            self.end(&Refusal::Removed);
        }
    }

    /// Who speaks for a server with this data directory, as far as is known.
    #[must_use]
    pub fn current(&self, id: NodeId, store_id: &str) -> Option<ProcessIdentity> {
        let published = self.published();
        let row = published.as_ref().and_then(|published| published.state.boot(id));
        let row = row.filter(|row| row.store_id == store_id);
        let recorded = row.map(|row| row.boot);
        let table = self.table();
        let accepted = table.accepted.get(&id).filter(|accepted| {
            accepted.instead_of == recorded && accepted.sender.store_id == store_id
        });
        accepted.map(|accepted| accepted.sender.clone()).or_else(|| {
            row.map(|row| ProcessIdentity {
                boot: row.boot,
                incarnation: Some(row.incarnation),
                store_id: row.store_id.clone(),
                rpc_addr: row.rpc_addr.clone(),
            })
        })
    }

    /// The boot and the incarnation that the log has for a server with this data directory.
    pub(super) fn recorded(&self, id: NodeId, store_id: &str) -> Option<(BootId, u64)> {
        let published = self.published()?;
        let row = published.state.boot(id);
        let row = row.filter(|row| row.store_id == store_id)?;
        Some((row.boot, row.incarnation))
    }

    /// The incarnation that the log has for a server, 0 if there is none.
    pub(super) fn recorded_incarnation(&self, id: NodeId) -> u64 {
        self.published().map_or(0, |published| published.state.used_numbers(id).incarnation)
    }

    pub(super) fn accept(&self, id: NodeId, sender: &ProcessIdentity) {
        let instead_of = self.recorded(id, &sender.store_id).map(|(boot, _)| boot);
        tracing::debug!(server = id, boot = %sender.boot, at = %sender.rpc_addr, "a server has booted");
        let accepted = Accepted { sender: sender.clone(), at: self.clock.now(), instead_of };
        self.table().accepted.insert(id, accepted);
    }

    /// How long ago a new process of this server was last accepted here.
    pub(crate) fn accepted_ago(&self, id: NodeId) -> Option<Duration> {
        let now = self.clock.now();
        self.table().accepted.get(&id).map(|accepted| now.since(accepted.at))
    }

    /// Whether the sender of a request is known to have been removed from the cluster.
    pub(super) fn refuse_removed(
        &self,
        from: NodeId,
        sender: &ProcessIdentity,
        info: Option<&ServerInfo>,
    ) -> Result<(), Refusal> {
        let Some(published) = self.published() else { return Ok(()) };
        if !lacks_member(&published, from) {
            return Ok(());
        }
        let row = published.state.boot(from);
        let was_member = row.is_some_and(|row| row.store_id == sender.store_id);
        // The same for a server that was removed before boots were recorded.
        let newest = published.membership.log_id().map(Into::into);
        let since = info.and_then(|info| info.disk.member_since);
        if was_member || since.is_some_and(|since| Some(since) < newest) {
            return Err(Refusal::Removed);
        }
        Ok(())
    }

    /// Whether a server that has just booted lacks what an earlier boot of it is known to have held.
    pub(super) fn refuse_lost(
        &self,
        info: &ServerInfo,
        sender: &ProcessIdentity,
    ) -> Result<(), Refusal> {
        let Some(published) = self.published() else { return Ok(()) };
        let row = published.state.boot(info.id);
        let earlier = row.filter(|row| row.store_id == sender.store_id && row.boot != sender.boot);
        let log_end = earlier.filter(|_| sender.incarnation.is_none()).and_then(|row| row.log_end);
        match log_end.and_then(|(upto, term)| info.disk.lacks(upto, term)) {
            Some(what) => Err(Refusal::Lost(what)),
            None => Ok(()),
        }
    }

    /// Takes note of what another server says about this one.
    pub(super) fn told(&self, refusal: &Refusal) {
        match refusal {
            Refusal::Superseded(_)
            | Refusal::Removed
            | Refusal::Lost(_)
            | Refusal::Misconfigured(_) => self.end(refusal),
            Refusal::InUse(address) if self.incarnation().is_none() => {
                let now = self.clock.now();
                let since = *self.table().in_use_since.get_or_insert(now);
                if now.since(since) >= IN_USE_CONFIRMED_AFTER {
                    self.end(refusal);
                } else {
                    tracing::debug!(%address, "the identity of this server is still in use");
                }
            }
            Refusal::InUse(_)
            | Refusal::WrongServer(_)
            | Refusal::WrongStore
            | Refusal::WrongCluster
            | Refusal::NotRunning(_)
            | Refusal::NoAddressee
            | Refusal::OtherBoot(_)
            | Refusal::Starting
            | Refusal::Implausible(_)
            | Refusal::Contradicts(_)
            | Refusal::SetBack(_)
            | Refusal::Alone(_)
            | Refusal::Diverged(_) => {}
        }
    }

    /// Reports that the leader has other entries than those that this process knows to be committed.
    pub(super) fn contradicted(&self, theirs: Position, committed: Position) {
        let now = self.clock.now();
        let since = {
            let mut table = self.table();
            let recent = table
                .contradicted
                .filter(|(_, last)| now.since(*last) < CONTRADICTION_FORGOTTEN_AFTER);
            let since = recent.map_or(now, |(since, _)| since);
            table.contradicted = Some((since, now));
            since
        };
        if now.since(since) >= CONTRADICTION_CONFIRMED_AFTER {
            self.end(&Refusal::Alone(contradiction(theirs, committed)));
        }
    }

    /// Ends this process because its state is not that of a majority; `what` is the text for the operator.
    pub(super) fn diverged(&self, what: String) {
        self.end(&Refusal::Diverged(what));
    }

    /// Has this process end; only the first reason counts.
    fn end(&self, why: &Refusal) {
        let set_back = match why {
            Refusal::Superseded(address) if *address == self.rpc_addr => {
                Some(Refusal::SetBack(address.clone()))
            }
            _ => None,
        };
        let why = set_back.as_ref().unwrap_or(why);
        self.end.send_if_modified(|end| {
            let is_first = end.is_none();
            if is_first {
                tracing::error!("{why}");
                *end = Some(why.clone());
            }
            is_first
        });
    }

    /// Resolves when this process must end, because it is not the one that the cluster knows.
    pub async fn ended(&self) -> Refusal {
        let mut end = self.end.subscribe();
        match end.wait_for(Option::is_some).await.map(|end| end.clone()) {
            Ok(Some(why)) => why,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// How to treat a request whose sender claims to speak for a server.
    pub(super) fn claim(&self, from: NodeId, sender: &ProcessIdentity) -> Claim {
        let Some(current) = self.current(from, &sender.store_id) else { return Claim::Later };
        if current.boot == sender.boot {
            return Claim::Known;
        }
        let recorded = self.recorded(from, &sender.store_id);
        match (sender.incarnation, recorded) {
            // Only the log assigns incarnations, so this server has not applied the newest one yet.
            (Some(theirs), Some((_, newest))) if theirs > newest => Claim::Later,
            (Some(_), Some((boot, _))) if boot != sender.boot => Claim::Earlier(current.rpc_addr),
            (Some(_) | None, _) => Claim::Disputed(current),
        }
    }

    /// Held while asking about a server, so that one task asks at a time.
    pub(super) fn asking(&self, id: NodeId) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.table().asking.entry(id).or_default())
    }

    /// Takes note that a process has just identified itself.
    pub(super) fn found_present(&self, id: NodeId, boot: BootId) {
        let now = self.clock.now();
        self.table().present.insert(id, (boot, now));
    }

    /// Whether a process identified itself a moment ago.
    pub(super) fn is_present(&self, id: NodeId, boot: BootId) -> bool {
        let now = self.clock.now();
        let table = self.table();
        let seen = table.present.get(&id).filter(|(known, _)| *known == boot);
        seen.is_some_and(|(_, seen)| now.since(*seen) < PROBE_VALID)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the applied membership is one, and has no such member.
fn lacks_member(published: &Published, id: NodeId) -> bool {
    let membership = published.membership.membership();
    membership.nodes().next().is_some() && membership.get_node(&id).is_none()
}

/// How a request is treated, depending on its sender.
#[derive(Debug)]
pub(super) enum Claim {
    /// It comes from the process that is known.
    Known,
    /// It comes from a later one.
    Later,
    /// It comes from an earlier one.
    Earlier(String),
    /// Only the process that is known can tell.
    Disputed(ProcessIdentity),
}
