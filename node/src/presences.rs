//! Instances that a connection to this server holds: which streams there are, and what the cluster is told of
//! their end.
//!
//! Each stream has an entry in a table of this node's, and is known to the cluster as a lease that is named by
//! the command that opened it ([`Lease`]). Three rules keep both in step:
//!
//! * A stream is in the table **before** its command is sent, and stays there until the outcome is known, also
//!   when its client has gone meanwhile. So every lease under this boot's name has its entry.
//! * A client's end is reported until the cluster has taken note of it, whatever becomes of the client, and
//!   however many commands wait here.
//! * **Every second the table is compared with the state.** A lease without a stream is given up; a stream
//!   whose lease is gone ends. That covers what the first two rules cannot: a lost outcome, a restored backup,
//!   another client that has taken over.
//!
//! A stream that this server ends of its own accord (it stops, or has no leader) is the server's fault, not the
//! client's: it is reported as moved, and its client has time to come back elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_storage::command::{
    Beat, Command, Outcome, PresenceOpen, PresenceReopen, ProcessPresence, Rejection, WorkerOpen,
    WorkersCommand,
};
use quorate_storage::limits::PRESENCES_ENDED_MAX;
use quorate_storage::machine::StateReader;
use quorate_storage::record::{Lease, PRESENCE_CHECK, Presence, PresenceEnd, RequestFacts};
use quorate_storage::{Index, State};
use rand::Rng as _;
use tokio::sync::{Notify, oneshot, watch};

use crate::host::clock::Moment;
use crate::host::supervise::contained;
use crate::raft::context::Context;
use crate::raft::error::ProposeError;
use crate::raft::propose::Proposer;

/// Time between two looks at whether streams have to go elsewhere.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Time between two comparisons with the state.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// Without a leader for this long, clients are sent to other servers, which may have one.
const LEADERLESS_MAX: Duration = Duration::from_secs(3);
/// Clients that are sent away go within this time, not all at once.
const MOVE_WITHIN: Duration = Duration::from_secs(2);
/// A client that says that it lives, and has not for so long, is stopped or cut off.
const SILENCE_MAX: Duration = Duration::from_secs(6);
/// Pause before an end that could not be reported is reported again.
const REPORT_PAUSE: Duration = Duration::from_millis(100);

/// Why a stream ends that its client has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Another client holds the instance.
    Replaced,
    /// The instance was deregistered.
    Deregistered,
    /// The client is to open it again, at another server.
    Moved,
}

/// What opens a stream.
#[derive(Debug)]
pub struct Opening {
    /// The whole registration.
    pub open: PresenceOpen,
    /// What its client says of its process, if it does.
    pub process: Option<Beat>,
    /// The short command for it, if the instance exists with this definition.
    pub reopen: Option<PresenceReopen>,
    /// The network in which it runs checks, if it is a worker process; empty: that of the servers.
    pub network: Option<Arc<str>>,
    /// Who asks.
    pub request: Option<Arc<RequestFacts>>,
}

/// Why a stream was not opened.
#[derive(Debug)]
pub enum NotOpened {
    /// The cluster refused it.
    Refused(Rejection),
    /// It did not take effect, or nobody knows.
    Failed(ProposeError),
}

/// The streams of this node.
#[derive(Debug)]
pub struct Presences {
    context: Context,
    proposer: Arc<Proposer>,
    state: StateReader,
    /// A std lock: held for map operations and for a comparison, never across an await.
    table: Mutex<Table>,
    wake: Notify,
    /// There is a stream, where there was none.
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Table {
    /// In the order in which they came.
    streams: BTreeMap<u64, Entry>,
    last_ticket: u64,
    /// Numbers of leases whose end is to be reported.
    ended: BTreeMap<u64, PresenceEnd>,
    /// Whether a stream was given up whose lease may come into being later: its outcome was not learned.
    has_doubt: bool,
}

impl Table {
    /// How long nothing has to be looked at; `None`: until a stream comes.
    fn pause(&self) -> Option<Duration> {
        match (self.streams.is_empty(), self.has_doubt || !self.ended.is_empty()) {
            (false, _) => Some(LOOK_EVERY),
            (true, true) => Some(COMPARE_EVERY),
            (true, false) => None,
        }
    }
}

#[derive(Debug)]
struct Entry {
    /// The number of the command that opens it; 0 before it has one.
    seq: Arc<AtomicU64>,
    /// The instance's node and id, and the last restore at that time, once it is open.
    open: Option<Open>,
    /// Why its stream has ended, if it has.
    gone: Option<PresenceEnd>,
    /// After how long it goes when all have to.
    patience: Duration,
    /// When its client was last heard of, if it says beside its stream that it lives.
    heard: Option<Moment>,
    tell: watch::Sender<Option<Told>>,
}

#[derive(Debug, Clone)]
struct Open {
    node: Arc<str>,
    id: Arc<str>,
    restored: Option<Index>,
}

/// A client's hold on an instance: it ends when this is dropped.
#[derive(Debug)]
pub struct Held {
    presences: Arc<Presences>,
    ticket: u64,
    told: watch::Receiver<Option<Told>>,
    /// The instance's node.
    pub node: Arc<str>,
    /// Its lease.
    pub lease: Lease,
}

impl Held {
    /// Resolves when the stream has to end.
    pub async fn told(&mut self) -> Told {
        match self.told.wait_for(Option::is_some).await.map(|told| *told) {
            Ok(Some(told)) => told,
            // Its entry is gone, which happens only after it was told.
            Ok(None) | Err(_) => Told::Moved,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.presences.close(self.ticket, PresenceEnd::Connection);
    }
}

impl Presences {
    /// None yet.
    #[must_use]
    pub fn new(context: Context, proposer: Arc<Proposer>, state: StateReader) -> Self {
        Self {
            context,
            proposer,
            state,
            table: Mutex::default(),
            wake: Notify::new(),
            arrived: Notify::new(),
        }
    }

    /// How many streams there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.table().streams.values().filter(|entry| entry.gone.is_none()).count()
    }

    /// Opens a stream. When the caller stops waiting, the stream is opened all the same, and then ended.
    ///
    /// # Errors
    /// See [`NotOpened`].
    pub async fn open(self: &Arc<Self>, opening: Opening) -> Result<Held, NotOpened> {
        let (tell, told) = watch::channel(None);
        let (ticket, seq) = self.enter(tell);
        let lease = |seq: u64| Lease {
            origin: self.context.id,
            incarnation: self.context.processes.incarnation().unwrap_or_default(),
            seq,
        };
        let none = Lease { origin: self.context.id, incarnation: 0, seq: 0 };
        let presences = Arc::clone(self);
        let mut held = Held { presences, ticket, told, node: "".into(), lease: none };
        let (reply, outcome) = oneshot::channel();
        let (presences, number) = (Arc::clone(self), Arc::clone(&seq));
        drop(contained("opening a presence", async move {
            let id = Arc::clone(&opening.open.service.id);
            let outcome = presences.propose(opening, &number).await;
            presences.opened(ticket, id, &outcome);
            // The client may have gone; ignore the error.
            let _ = reply.send(outcome);
        }));
        let outcome = outcome.await.map_err(|_| NotOpened::Failed(ProposeError::Stopping))?;
        match outcome.map_err(NotOpened::Failed)?.into_result().map_err(NotOpened::Refused)? {
            Outcome::Id(node) => held.node = node,
            _ => return Err(NotOpened::Failed(ProposeError::OutcomeUnknown)),
        }
        held.lease = lease(seq.load(Ordering::SeqCst));
        Ok(held)
    }

    /// Sends the short command, if there is one and it is not out of date, else the whole registration.
    async fn propose(
        &self,
        opening: Opening,
        seq: &Arc<AtomicU64>,
    ) -> Result<Outcome, ProposeError> {
        let Opening { open, process, reopen, network, request } = opening;
        if let Some(reopen) = reopen {
            let command = Command::PresenceReopen(reopen);
            let outcome = self.proposer.propose_numbered(command, request.clone(), seq).await?;
            if outcome != Outcome::Rejected(Rejection::NoSuchNumber) {
                return Ok(outcome);
            }
        }
        let command = match (network, process) {
            (Some(network), _) => {
                Command::Workers(WorkersCommand::Open(Box::new(WorkerOpen { open, network })))
            }
            (None, None) => Command::PresenceOpen(Box::new(open)),
            (None, Some(beat)) => {
                Command::PresenceOfProcess(Box::new(ProcessPresence { open, beat }))
            }
        };
        self.proposer.propose_numbered(command, request, seq).await
    }

    fn enter(&self, tell: watch::Sender<Option<Told>>) -> (u64, Arc<AtomicU64>) {
        let seq = Arc::new(AtomicU64::new(0));
        let patience = MOVE_WITHIN.mul_f64(rand::rng().random_range(0.0..1.0));
        let seq_of = Arc::clone(&seq);
        let entry = Entry { seq: seq_of, open: None, gone: None, patience, heard: None, tell };
        let mut table = self.table();
        table.last_ticket += 1;
        let ticket = table.last_ticket;
        table.streams.insert(ticket, entry);
        if table.streams.len() == 1 {
            self.arrived.notify_one();
        }
        (ticket, seq)
    }

    /// The outcome of a stream's command is known.
    fn opened(&self, ticket: u64, id: Arc<str>, outcome: &Result<Outcome, ProposeError>) {
        let restored = self.state.load().state.restored();
        let mut table = self.table();
        let Ok(Outcome::Id(node)) = outcome else {
            // If it took effect after all, the comparison finds a lease without a stream.
            table.has_doubt |= outcome.is_err();
            table.streams.remove(&ticket);
            return;
        };
        let Some(entry) = table.streams.get_mut(&ticket) else { return };
        entry.open = Some(Open { node: Arc::clone(node), id, restored });
        let (seq, gone) = (entry.seq.load(Ordering::SeqCst), entry.gone);
        if let Some(why) = gone {
            table.ended.insert(seq, why);
            self.wake.notify_one();
        }
    }

    /// A stream has ended. Only the first reason counts.
    fn close(&self, ticket: u64, why: PresenceEnd) {
        let mut table = self.table();
        let Some(entry) = table.streams.get_mut(&ticket) else { return };
        if entry.gone.is_some() {
            return;
        }
        entry.gone = Some(why);
        if entry.open.is_some() {
            let seq = entry.seq.load(Ordering::SeqCst);
            table.ended.insert(seq, why);
            self.wake.notify_one();
        }
    }

    /// Reports the ends of streams until the cluster knows them; never ends.
    pub async fn report(self: Arc<Self>) {
        loop {
            self.wake.notified().await;
            while let Some((seqs, why)) = self.next_report() {
                let command = Command::PresenceEnded { seqs: seqs.clone(), why };
                if let Err(error) = self.proposer.propose(command).await {
                    tracing::debug!(%error, "ends of presences are reported later");
                    self.table().ended.extend(seqs.into_iter().map(|seq| (seq, why)));
                    self.context.clock.sleep(REPORT_PAUSE).await;
                }
            }
        }
    }

    /// Ends that are to be reported, for one reason.
    fn next_report(&self) -> Option<(Vec<u64>, PresenceEnd)> {
        let mut table = self.table();
        let (_, why) = table.ended.first_key_value().map(|(seq, why)| (*seq, *why))?;
        let same = table.ended.iter().filter(|(_, other)| **other == why).map(|(seq, _)| *seq);
        let seqs: BTreeSet<u64> = same.take(PRESENCES_ENDED_MAX).collect();
        table.ended.retain(|seq, _| !seqs.contains(seq));
        let seqs = seqs.into_iter().collect();
        Some((seqs, why))
    }

    /// Compares the streams with the state, and sends clients away when this server stops or has no leader, as
    /// long as there are any; never ends.
    pub async fn watch(self: Arc<Self>, has_leader: impl Fn() -> bool + Send) {
        let clock = &self.context.clock;
        let (mut leaderless, mut stopping) = (None, None);
        let mut compared = clock.now();
        loop {
            let pause = self.table().pause();
            match pause {
                Some(pause) => drop(clock.timeout(pause, self.arrived.notified()).await),
                None => self.arrived.notified().await,
            }
            let now = clock.now();
            since(&mut leaderless, !has_leader(), now);
            since(&mut stopping, self.context.stopping.has_begun(), now);
            let leaderless = leaderless.map(|since| now.since(since));
            let overdue = leaderless.and_then(|span| span.checked_sub(LEADERLESS_MAX));
            if let Some(overdue) = overdue.max(stopping.map(|since| now.since(since))) {
                self.send_away(overdue);
            }
            if now.since(compared) >= COMPARE_EVERY {
                compared = now;
                self.end_silent(now);
                self.compare();
            }
        }
    }

    /// The client of a stream of this server says that it lives: from now on its silence ends the stream. A process that
    /// is stopped keeps its connection.
    pub fn hear(&self, lease: Lease) {
        let now = self.context.clock.now();
        let own = self.context.processes.incarnation();
        if lease.origin != self.context.id || Some(lease.incarnation) != own {
            return;
        }
        let mut table = self.table();
        let mut entries = table.streams.values_mut();
        if let Some(entry) = entries.find(|one| one.seq.load(Ordering::SeqCst) == lease.seq) {
            entry.heard = Some(now);
        }
    }

    /// Ends the streams of clients that have said they live and are silent now.
    fn end_silent(&self, now: Moment) {
        let mut table = self.table();
        let Table { streams, ended, .. } = &mut *table;
        for entry in streams.values_mut() {
            let is_silent = entry.heard.is_some_and(|heard| now.since(heard) >= SILENCE_MAX);
            if is_silent && entry.open.is_some() && entry.gone.is_none() {
                entry.gone = Some(PresenceEnd::Connection);
                entry.tell.send_replace(Some(Told::Moved));
                ended.insert(entry.seq.load(Ordering::SeqCst), PresenceEnd::Connection);
                self.wake.notify_one();
            }
        }
    }

    /// Sends away the clients whose patience is over.
    fn send_away(&self, overdue: Duration) {
        let mut table = self.table();
        let Table { streams, ended, .. } = &mut *table;
        for entry in streams.values_mut() {
            if entry.open.is_some() && entry.gone.is_none() && entry.patience <= overdue {
                entry.gone = Some(PresenceEnd::Moved);
                entry.tell.send_replace(Some(Told::Moved));
                ended.insert(entry.seq.load(Ordering::SeqCst), PresenceEnd::Moved);
                self.wake.notify_one();
            }
        }
    }

    /// Compares the streams with the leases that the state has under the name of this boot.
    fn compare(&self) {
        let Some(incarnation) = self.context.processes.incarnation() else { return };
        let mut table = self.table();
        // Loaded under the lock: what is open in the table was applied before.
        let published = self.state.load();
        let state = &published.state;
        let leases: BTreeMap<u64, &Arc<Presence>> = state
            .leases_of(self.context.id, incarnation)
            .map(|(lease, row)| (lease.seq, row))
            .collect();
        let Table { streams, ended, .. } = &mut *table;
        let mut known = BTreeSet::new();
        streams.retain(|_, entry| {
            let seq = entry.seq.load(Ordering::SeqCst);
            known.insert(seq);
            let Some(open) = &entry.open else { return true };
            match (leases.get(&seq), entry.gone) {
                (Some(_), None) => true,
                (Some(row), Some(why)) => {
                    let is_reported = row.ended.is_some_and(|ended| ended.why == why);
                    if !is_reported {
                        ended.entry(seq).or_insert(why);
                    }
                    !is_reported
                }
                (None, _) => {
                    entry.tell.send_if_modified(|told| {
                        let is_news = told.is_none();
                        told.get_or_insert_with(|| why_gone(state, open));
                        is_news
                    });
                    false
                }
            }
        });
        for (seq, row) in &leases {
            if !known.contains(seq) && row.ended.is_none() {
                ended.entry(*seq).or_insert(PresenceEnd::Moved);
            }
        }
        if !ended.is_empty() {
            self.wake.notify_one();
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes since when something holds.
fn since(begun: &mut Option<Moment>, holds: bool, now: Moment) {
    match holds {
        true => drop(begun.get_or_insert(now)),
        false => *begun = None,
    }
}

/// Why an open stream has no lease any more.
fn why_gone(state: &State, open: &Open) -> Told {
    if state.restored() != open.restored {
        return Told::Moved;
    }
    let check = state.check(&open.node, &format!("{PRESENCE_CHECK}{}", open.id));
    match check.and_then(|check| state.presence(check.number)) {
        Some(presence) if presence.lease.is_some() => Told::Replaced,
        // This server was taken for lost, and the lease ended with it.
        Some(_) => Told::Moved,
        None => Told::Deregistered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_looked_at_while_no_stream_is_open_and_none_is_in_doubt() {
        let mut table = Table::default();
        assert_eq!(table.pause(), None);
        table.ended.insert(7, PresenceEnd::Connection);
        assert_eq!(table.pause(), Some(COMPARE_EVERY), "it is to be reported");
        table.ended.clear();
        let (tell, patience) = (watch::channel(None).0, Duration::ZERO);
        let seq = Arc::default();
        let entry = Entry { seq, open: None, gone: None, patience, heard: None, tell };
        table.streams.insert(1, entry);
        assert_eq!(table.pause(), Some(LOOK_EVERY));
        table.streams.clear();
        table.has_doubt = true;
        assert_eq!(table.pause(), Some(COMPARE_EVERY), "its lease may come into being");
    }
}
