//! Presence: instances that pass as long as a stream of one of the servers is open.
//!
//! The check `presence:ID` of such an instance has a row here. While the row's lease is held, the check has no
//! deadline. When the server that has the stream says that it ended ([`Command::PresenceEnded`]), or when that
//! server is lost itself, the check gets one: what then happens is up to the client's terms.
//!
//! **A client's end and a server's.** A client that closes its connection has said all there is to say: its
//! *linger* runs. Where the server is at fault, its clients are alive and look for another server. Their
//! leases get [`SERVER_GRACE`] and the time it takes all of them to come back, one deadline for all. A server
//! that was lost and is back in the same boot may still have its streams: its leases are held again, and it
//! reports those that have ended meanwhile.
//!
//! **Owners and attempts.** A client that changes servers must not be taken for a second instance, and its
//! first request, delayed on its way, must not win over its second. So each process names itself (`owner`) and
//! counts its attempts. Another owner takes the instance over; two that do so in turns are stopped
//! ([`REPLACED_MAX`]).
//!
//! [`Command::PresenceEnded`]: crate::command::Command::PresenceEnded

use std::sync::Arc;

use imbl::OrdMap;

use super::State;
use super::catalog::fold_arc;
use super::change::Change;
use super::deadline::Owner;
use super::level::{COMPLETION_LEVEL, LATE_HEARTBEATS_LEVEL};
use crate::command::{
    Beat, CommandId, Outcome, PresenceOpen, PresenceReopen, ProcessPresence, Rejection,
};
use crate::ids::NodeId;
use crate::record::{
    Check, CheckDefinition, CheckRegistration, CheckStatus, EndedPresence, Lease, NodeKind,
    OnClose, PRESENCE_CHECK, PRESENCE_KIND, Presence, PresenceEnd, PresenceTerms, RAFT_ID,
    SERF_HEALTH, SERVER_SERVICE,
};
use crate::{ClusterTime, Millis};

/// How long the clients of a server that is gone have to come back, at least.
pub const SERVER_GRACE: Millis = Millis::from_secs(10);
/// So many clients of a server that is gone can come back within a second.
const BACK_PER_SECOND: u64 = 2_000;
/// So often may an instance be taken from a connected owner within a minute.
pub const REPLACED_MAX: usize = 5;
/// See [`REPLACED_MAX`].
const REPLACED_WITHIN: Millis = Millis::from_secs(60);

/// What the check says when its client's connection has ended.
const CONNECTION_ENDED: &str = "its connection ended";
/// What it says when the client did not come back from a server that is gone.
const DID_NOT_COME_BACK: &str = "its server was lost, and it did not come back through another one";
/// What it says of an instance that a backup brought.
const NOT_SINCE_RESTORE: &str = "a backup was restored, and it did not come back";

/// All rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Presences {
    /// By the number of the check.
    rows: OrdMap<u64, Arc<Presence>>,
    /// Derived: the checks by lease.
    leases: OrdMap<Lease, u64>,
}

impl Presences {
    pub(super) fn get(&self, check: u64) -> Option<&Arc<Presence>> {
        self.rows.get(&check)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Arc<Presence>)> {
        self.rows.iter().map(|(check, row)| (*check, row))
    }

    pub(super) fn put(&mut self, check: u64, row: Presence) {
        self.remove(check);
        if let Some(lease) = row.lease {
            self.leases.insert(lease, check);
        }
        self.rows.insert(check, Arc::new(row));
    }

    pub(super) fn remove(&mut self, check: u64) {
        let removed = self.rows.remove(&check);
        if let Some(lease) = removed.and_then(|row| row.lease) {
            self.leases.remove(&lease);
        }
    }

    /// The check that a lease holds.
    pub(super) fn holds(&self, lease: Lease) -> Option<u64> {
        self.leases.get(&lease).copied()
    }

    fn of_server(&self, origin: NodeId) -> impl Iterator<Item = (Lease, u64)> {
        let first = Lease { origin, incarnation: 0, seq: 0 };
        let last = Lease { origin, incarnation: u64::MAX, seq: u64::MAX };
        self.leases.range(first..=last).map(|(lease, check)| (*lease, *check))
    }

    /// Whether the two maps say the same.
    pub(super) fn is_consistent(&self) -> bool {
        let held = self.rows.iter().filter_map(|(check, row)| Some((row.lease?, *check)));
        self.leases == held.collect()
    }
}

/// How long the clients of a server have to come back.
fn grace(leases: usize) -> Millis {
    Millis(SERVER_GRACE.0 + leases as u64 * 1_000 / BACK_PER_SECOND)
}

impl State {
    /// How the check with this number is held, if it is that of a presence.
    #[must_use]
    pub fn presence(&self, check: u64) -> Option<&Arc<Presence>> {
        self.presences.get(check)
    }

    /// The number of the check by which a connection holds an instance, or did; the node's name in lower case.
    pub(super) fn presence_number(&self, key: &str, service_id: &str) -> Option<u64> {
        let slot = self.catalog.nodes.get(key)?;
        let number = slot.checks.get(&*format!("{PRESENCE_CHECK}{service_id}"))?.number;
        self.presences.get(number).map(|_| number)
    }

    /// The check that a lease holds.
    #[must_use]
    pub fn held_by(&self, lease: Lease) -> Option<&Arc<Check>> {
        self.check_numbered(self.presences.holds(lease)?)
    }

    /// The leases of one boot of a server.
    pub fn leases_of(
        &self,
        server: NodeId,
        incarnation: u64,
    ) -> impl Iterator<Item = (Lease, &Arc<Presence>)> {
        let all = self.presences.of_server(server);
        all.filter(move |(lease, _)| lease.incarnation == incarnation)
            .filter_map(|(lease, check)| Some((lease, self.presences.get(check)?)))
    }

    /// When the lease of a check that passes is over, if its stream is gone.
    pub(super) fn presence_deadline(&self, check: u64) -> Option<ClusterTime> {
        self.presences.get(check)?.ended.map(|ended| ended.deadline)
    }

    /// Ends the leases of a server that is gone, but for those of one boot.
    pub(super) fn lose_leases(&mut self, server: NodeId, but: Option<u64>) {
        let lost = self.presences.of_server(server);
        let lost = lost.filter(|(lease, check)| {
            let is_held = self.presences.get(*check).is_some_and(|row| row.is_held());
            is_held && Some(lease.incarnation) != but
        });
        let lost: Vec<u64> = lost.map(|(_, check)| check).collect();
        let deadline = self.time + grace(lost.len());
        for check in lost {
            self.end_lease(check, PresenceEnd::Lost, server, deadline);
        }
    }

    /// A server is back: the leases of its present boot are held again.
    fn resume_leases(&mut self, server: NodeId) {
        let present = self.boot(server).map(|row| row.incarnation);
        let leases: Vec<(Lease, u64)> = self.presences.of_server(server).collect();
        for (lease, check) in leases {
            let Some(row) = self.presences.get(check) else { continue };
            let is_lost = row.ended.is_some_and(|ended| ended.why == PresenceEnd::Lost);
            if is_lost && present.is_none_or(|present| present == lease.incarnation) {
                let row = Presence { ended: None, ..row.as_ref().clone() };
                self.presences.put(check, row);
                self.schedule(check);
            }
        }
    }

    fn end_lease(&mut self, check: u64, why: PresenceEnd, server: NodeId, deadline: ClusterTime) {
        let Some(row) = self.presences.get(check) else { return };
        // Who has asked for a longer time than the server's fault gives has it.
        let deadline = match why {
            PresenceEnd::Connection => deadline,
            _ if self.level < LATE_HEARTBEATS_LEVEL => deadline,
            _ => deadline.max(self.time + row.terms.linger),
        };
        let ended = Some(EndedPresence { why, server, since: self.time, deadline });
        self.presences.put(check, Presence { ended, ..row.as_ref().clone() });
        self.schedule(check);
    }

    /// Whether a server is in the catalogue and alive.
    fn is_server_alive(&self, id: NodeId) -> bool {
        self.instances(SERVER_SERVICE).any(|row| {
            let slot = self.catalog.slot(&row.node);
            let slot = slot.filter(|slot| slot.node.kind == NodeKind::Server);
            let health = slot.and_then(|slot| slot.checks.get(SERF_HEALTH));
            server_id(row.definition.meta.as_ref()) == Some(id)
                && health.is_some_and(|health| health.critical_since.is_none())
        })
    }

    /// Whether a server is in the catalogue and taken for lost.
    pub(super) fn is_server_lost(&self, id: NodeId) -> bool {
        let is_known = self
            .instances(SERVER_SERVICE)
            .any(|row| server_id(row.definition.meta.as_ref()) == Some(id));
        is_known && !self.is_server_alive(id)
    }

    /// A restore has replaced the catalogue. Who was connected before and has its instance still is connected;
    /// the others have to come back.
    pub(super) fn adopt_presences(&mut self, running: &Self) {
        let restored: Vec<(u64, Arc<Presence>)> =
            self.presences.iter().map(|(check, row)| (check, row.clone())).collect();
        let deadline = self.time + grace(restored.len());
        for (check, row) in restored {
            let before = self.check_numbered(check).and_then(|check| {
                let number = running.check(&check.node, &check.registration.id)?.number;
                running.presence(number)
            });
            let row = match before {
                Some(before) => before.as_ref().clone(),
                None => {
                    let (why, server, since) = (PresenceEnd::Restored, 0, self.time);
                    let ended = Some(EndedPresence { why, server, since, deadline });
                    Presence { lease: None, ended, ..row.as_ref().clone() }
                }
            };
            self.presences.put(check, row);
            self.schedule(check);
        }
    }
}

/// A server's Raft id, as its instance in the catalogue has it.
pub(super) fn server_id(meta: Option<&crate::record::TextMap>) -> Option<NodeId> {
    meta?.get(RAFT_ID)?.parse().ok()
}

impl Change<'_> {
    /// Opens a presence of a process that says what it is.
    pub(super) fn open_presence_of(
        &mut self,
        id: CommandId,
        what: &ProcessPresence,
    ) -> Result<Outcome, Rejection> {
        self.open_presence(id, &what.open, Some(&what.beat))
    }

    /// Opens a presence, which registers its instance; its client may say what process it is.
    pub(super) fn open_presence(
        &mut self,
        id: CommandId,
        open: &PresenceOpen,
        process: Option<&Beat>,
    ) -> Result<Outcome, Rejection> {
        let service = &open.service;
        let place = self
            .instance_of_owner(&service.id, &open.terms.owner)
            .or_else(|| self.same_instance_elsewhere(&open.agent, service));
        let at = place.clone().unwrap_or_else(|| fold_arc(&open.agent.name));
        let before = self.presence_at(&at, &service.id);
        let replaced = self.admit(before.as_deref(), &service.id, &open.terms)?;
        if let Some(beat) = process {
            self.state.validate_process(&at, beat)?;
        }
        let key = match place {
            Some(key) => key,
            None => self.ensure_agent(&open.agent, NodeKind::Agent),
        };
        let slot = self.state.catalog.nodes.get(&key);
        let is_new = slot.is_none_or(|slot| !slot.services.contains_key(&service.id));
        self.put_instance(&key, service, &open.checks);
        let is_other = self.note_owner(&key, &service.id, before.as_deref(), &open.terms);
        self.hold(&key, id, &service.id, open.deregister_after, &open.terms, replaced);
        let is_told = process.is_some_and(|beat| self.tell_process(&key, beat, is_new));
        if is_other && !is_told {
            self.report_taken_over(&key, &service.id, process.is_some());
        }
        Ok(self.name_of(&key))
    }

    /// Opens a presence whose instance exists with this very definition.
    pub(super) fn reopen_presence(
        &mut self,
        id: CommandId,
        reopen: &PresenceReopen,
    ) -> Result<Outcome, Rejection> {
        let row = self.state.check_numbered(reopen.number).cloned();
        let row = row.ok_or(Rejection::NoSuchNumber)?;
        let (key, service_id) = (fold_arc(&row.node), &row.registration.service_id);
        let service = self.state.service(&row.node, service_id);
        let before = self.state.presences.get(reopen.number).cloned();
        if service.is_none_or(|row| row.indexes.modify != reopen.defined) || before.is_none() {
            return Err(Rejection::NoSuchNumber);
        }
        let replaced = self.admit(before.as_deref(), service_id, &reopen.terms)?;
        let after = row.registration.definition.deregister_critical_service_after;
        let is_other = self.note_owner(&key, service_id, before.as_deref(), &reopen.terms);
        self.hold(&key, id, service_id, after, &reopen.terms, replaced);
        if is_other {
            self.report_taken_over(&key, service_id, false);
        }
        Ok(self.name_of(&key))
    }

    /// Streams of a server have ended.
    pub(super) fn end_presences(&mut self, id: CommandId, seqs: &[u64], why: PresenceEnd) {
        let CommandId { origin, incarnation, .. } = id;
        let all = self.state.presences.of_server(origin).count();
        let back_by = self.time() + grace(all);
        for seq in seqs {
            let lease = Lease { origin, incarnation, seq: *seq };
            let Some(check) = self.state.presences.holds(lease) else { continue };
            let Some(row) = self.state.presences.get(check) else { continue };
            // A client that is gone does not come back because its server is gone too.
            let is_final = row.ended.is_some_and(|ended| ended.why == PresenceEnd::Connection);
            let deadline = match why {
                PresenceEnd::Connection => self.time() + row.terms.linger,
                PresenceEnd::Moved | PresenceEnd::Lost | PresenceEnd::Restored => back_by,
            };
            if !is_final && (row.ended.is_none() || why == PresenceEnd::Connection) {
                self.state.end_lease(check, why, origin, deadline);
            }
        }
    }

    /// The leader says of a server whether it lives: so do its leases.
    pub(super) fn follow_server(&mut self, key: &Arc<str>) {
        let slot = self.state.catalog.nodes.get(key);
        let Some(slot) = slot.filter(|slot| slot.node.kind == NodeKind::Server) else { return };
        let service = slot.services.get(SERVER_SERVICE);
        let id = service.and_then(|row| server_id(row.definition.meta.as_ref()));
        let health = slot.checks.get(SERF_HEALTH);
        let is_alive = health.is_some_and(|row| row.critical_since.is_none());
        if let Some(id) = id {
            self.follow_worker(id, is_alive);
        }
        self.pending.workers = true;
        match id {
            Some(id) if is_alive => self.state.resume_leases(id),
            Some(id) => {
                self.state.lose_leases(id, None);
                self.lose_requests(id);
            }
            None => {}
        }
    }

    /// A presence whose stream is gone has not come back in time.
    pub(super) fn expire_presence(&mut self, key: &Arc<str>, row: &Check, presence: &Presence) {
        self.pending.workers = true;
        let over = Presence { lease: None, ..presence.clone() };
        self.state.presences.put(row.number, over);
        match presence.terms.on_close {
            OnClose::Deregister => self.remove_service(key, &row.registration.service_id),
            OnClose::Critical => {
                let why = presence.ended.map(|ended| ended.why);
                let output = match why {
                    Some(PresenceEnd::Connection) | None => CONNECTION_ENDED,
                    Some(PresenceEnd::Restored) => NOT_SINCE_RESTORE,
                    Some(PresenceEnd::Moved | PresenceEnd::Lost) => DID_NOT_COME_BACK,
                };
                self.put_status(key, row, CheckStatus::Critical, output.to_owned());
            }
        }
    }

    /// Where an owner has an instance already, from whatever agent.
    fn instance_of_owner(&self, service_id: &str, owner: &str) -> Option<Arc<str>> {
        let places = self.state.catalog.service_ids.get(service_id)?;
        let mut places = places.iter().filter(|key| {
            let presence = self.presence_at(key, service_id);
            presence.is_some_and(|presence| &*presence.terms.owner == owner)
        });
        places.next().cloned()
    }

    /// How an instance is held.
    fn presence_at(&self, key: &str, service_id: &str) -> Option<Arc<Presence>> {
        let number = self.state.presence_number(key, service_id)?;
        self.state.presences.get(number).cloned()
    }

    /// Whether a client may hold an instance; returns when it was taken from others lately.
    fn admit(
        &self,
        before: Option<&Presence>,
        id: &str,
        terms: &PresenceTerms,
    ) -> Result<Vec<ClusterTime>, Rejection> {
        let Some(before) = before else { return Ok(Vec::new()) };
        let now = self.time();
        let mut replaced = before.replaced.clone();
        replaced.retain(|at| now.since(*at) < REPLACED_WITHIN);
        if before.terms.owner == terms.owner {
            let newest = before.terms.attempt;
            let is_late = terms.attempt < newest;
            let late = Rejection::PresenceAttempt { id: id.to_owned(), newest };
            return if is_late { Err(late) } else { Ok(replaced) };
        }
        if before.is_held() {
            if replaced.len() >= REPLACED_MAX {
                return Err(Rejection::PresenceContested(id.to_owned()));
            }
            replaced.push(now);
        }
        Ok(replaced)
    }

    /// Another owner is another process. Returns whether that is to be reported as a restart.
    fn note_owner(
        &mut self,
        key: &Arc<str>,
        id: &Arc<str>,
        before: Option<&Presence>,
        terms: &PresenceTerms,
    ) -> bool {
        let is_other = before.is_some_and(|before| before.terms.owner != terms.owner);
        if is_other {
            self.note_other_process(key, id);
        }
        is_other && self.state.level >= COMPLETION_LEVEL
    }

    /// Lets a stream hold an instance that exists.
    fn hold(
        &mut self,
        key: &Arc<str>,
        id: CommandId,
        service_id: &Arc<str>,
        deregister_after: Millis,
        terms: &PresenceTerms,
        replaced: Vec<ClusterTime>,
    ) {
        let check: Arc<str> = format!("{PRESENCE_CHECK}{service_id}").into();
        let definition = CheckDefinition {
            deregister_critical_service_after: deregister_after,
            ..CheckDefinition::default()
        };
        let registration = CheckRegistration {
            id: check.clone(),
            name: "Presence".to_owned(),
            status: CheckStatus::Passing,
            notes: String::new(),
            output: String::new(),
            service_id: service_id.clone(),
            kind: PRESENCE_KIND.to_owned(),
            definition,
        };
        let before = self.state.presence_number(key, service_id);
        let facts = before.and_then(|number| self.state.facts.get(&number)).cloned();
        self.register_check(key, registration);
        let slot = self.state.catalog.nodes.get(key);
        let Some(row) = slot.and_then(|slot| slot.checks.get(&check)) else { return };
        let number = row.number;
        if let Some(facts) = facts {
            self.state.facts.insert(number, facts);
        }
        let CommandId { origin, incarnation, seq } = id;
        let lease = Some(Lease { origin, incarnation, seq });
        let presence = Presence { lease, terms: terms.clone(), ended: None, replaced };
        self.pending.workers |= before.is_some();
        self.state.presences.put(number, presence);
        if !self.state.is_server_alive(origin) {
            // It was lost while this was on its way. If it is not, the leader will say so.
            let deadline = self.time() + grace(1);
            self.state.end_lease(number, PresenceEnd::Lost, origin, deadline);
        }
        self.state.schedule(number);
    }

    fn name_of(&self, key: &Arc<str>) -> Outcome {
        let slot = self.state.catalog.nodes.get(key);
        Outcome::Id(slot.map_or_else(|| key.clone(), |slot| slot.node.name.clone()))
    }
}

impl State {
    /// Whether a number is that of a check with a presence: for the cross-check.
    pub(super) fn is_presence_check(&self, number: u64) -> bool {
        let Some(Owner::Check { id, .. }) = self.deadlines.owner(number) else { return false };
        let row = self.check_numbered(number);
        id.starts_with(PRESENCE_CHECK)
            && row.is_some_and(|row| !row.registration.service_id.is_empty())
    }
}
