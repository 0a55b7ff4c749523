//! Changes to checks, and heartbeats.
//!
//! A check's status decides more than its own row: a check that turns critical, or goes, ends the
//! sessions that depend on it; a TTL check has a deadline while it is not critical, and one to
//! deregister its service while it is.

use std::sync::Arc;

use super::State;
use super::catalog::{fold_arc, remove_place};
use super::change::Change;
use super::deadline::Owner;
use super::level::HEARTBEAT_LEVEL;
use crate::command::{Outcome, Rejection};
use crate::record::{Check, CheckRegistration, CheckStatus, Indexes, NodeKind, Said, Tags};
use crate::{ClusterTime, Millis, Topic};

/// A heartbeat is not refused as too old before this much cluster time has passed, however short
/// the check's TTL: the grace in which requests held through an election are still delivered.
pub(super) const HEARTBEAT_AGE_MIN: Millis = Millis::from_secs(2);

impl Change<'_> {
    /// Registers a check on a node that exists, and for a service that is on it. Its TTL runs from
    /// now. Nobody runs it, until an agent's registration gives it a probe; no connection holds it, until a
    /// presence is opened.
    pub(super) fn register_check(&mut self, key: &Arc<str>, registration: CheckRegistration) {
        let id = registration.id.clone();
        let said = self.said_before(key, &registration);
        self.put_check_said(key, registration, said);
        let Some(row) = self.state.catalog.nodes.get(key).and_then(|slot| slot.checks.get(&id))
        else {
            return;
        };
        let (number, is_ttl) = (row.number, !row.registration.definition.ttl.is_zero());
        if is_ttl {
            self.state.heard.insert(number, self.state.time);
        } else {
            self.state.heard.remove(number);
            self.state.facts.remove(&number);
        }
        self.state.probes.remove(number);
        self.state.workers.views.remove(&number);
        self.state.presences.remove(number);
        self.state.schedule(number);
    }

    /// Registers a check through the catalogue or a transaction.
    ///
    /// How an agent's check is run is its agent's to say, as in Consul, where an agent puts its own
    /// definition back when it next synchronises. So on a check that has a TTL or a probe:
    ///
    /// * status and output are taken as given, and stand until the next heartbeat or run;
    /// * name and notes are taken unless they are empty;
    /// * type, definition and service are not taken, whether they were given or not.
    ///
    /// A TTL that is running goes on from the last heartbeat: a status that somebody else writes is no
    /// sign of life. One that had stopped because the check was critical begins with the status that
    /// revives it, or nothing would ever end that status.
    pub(super) fn catalog_put_check(&mut self, key: &Arc<str>, given: CheckRegistration) {
        let Some(old) = self.check_of_agent(key, &given.id) else {
            self.register_check(key, given);
            return;
        };
        let is_ttl = !old.registration.definition.ttl.is_zero();
        let is_revived = old.critical_since.is_some() && given.status != CheckStatus::Critical;
        if is_ttl && is_revived {
            self.state.heard.insert(old.number, self.state.time);
        }
        let unless_empty = |given: String, old: &String| match given.is_empty() {
            true => old.clone(),
            false => given,
        };
        let kept = &old.registration;
        let registration = CheckRegistration {
            status: given.status,
            output: given.output,
            name: unless_empty(given.name, &kept.name),
            notes: unless_empty(given.notes, &kept.notes),
            ..kept.clone()
        };
        self.put_check(key, registration);
    }

    /// A check of an agent's node that heartbeats, runs or a connection keep up to date.
    fn check_of_agent(&self, key: &Arc<str>, id: &Arc<str>) -> Option<Arc<Check>> {
        let slot = self.state.catalog.nodes.get(key)?;
        let row = slot.checks.get(id)?;
        let is_ttl = !row.registration.definition.ttl.is_zero();
        let is_run = self.state.probes.get(row.number).is_some();
        let is_held = self.state.presences.get(row.number).is_some();
        let is_kept_up = slot.node.kind != NodeKind::Registered && (is_ttl || is_run || is_held);
        is_kept_up.then(|| row.clone())
    }

    /// What the client of a check had said before it fell silent, if a registration leaves it at that.
    fn said_before(&self, key: &Arc<str>, registration: &CheckRegistration) -> Option<Arc<Said>> {
        let old = self.state.catalog.nodes.get(key)?.checks.get(&registration.id)?;
        let shown = &old.registration;
        let is_as_before = shown.status == registration.status
            && shown.output == registration.output
            && !registration.definition.ttl.is_zero();
        old.said.clone().filter(|_| is_as_before)
    }

    /// Writes a check's row if it differs. Its status is what somebody said.
    pub(super) fn put_check(&mut self, key: &Arc<str>, registration: CheckRegistration) {
        self.put_check_said(key, registration, None);
    }

    /// The same where the status may be what silence made of something that was said before.
    fn put_check_said(
        &mut self,
        key: &Arc<str>,
        mut registration: CheckRegistration,
        said: Option<Arc<Said>>,
    ) {
        let Some(slot) = self.state.catalog.nodes.get(key) else { return };
        let old = slot.checks.get(&registration.id).cloned();
        let service = slot.services.get(&registration.service_id);
        // All of a service's checks share its texts, so that they cost them once.
        if let Some(service) = service {
            registration.service_id = service.definition.id.clone();
        }
        let mut row = Check {
            node: slot.node.name.clone(),
            service_name: service.map_or_else(|| "".into(), |row| row.definition.name.clone()),
            service_tags: service.map_or_else(Tags::default, |row| row.definition.tags.clone()),
            number: old.as_ref().map_or(0, |old| old.number),
            critical_since: critical_since(&registration, old.as_deref(), self.time()),
            indexes: old.as_ref().map_or_else(Indexes::default, |old| old.indexes),
            registration,
            said,
        };
        if old.as_deref() == Some(&row) {
            return;
        }
        row.indexes.modify = self.index();
        if old.is_none() {
            row.indexes.create = self.index();
            row.number = self.next_number();
            let owner = Owner::Check { node: key.clone(), id: row.registration.id.clone() };
            self.state.deadlines.own(row.number, owner);
        }
        self.store_check(key, old.as_deref(), row);
    }

    /// Stores a row that differs from `old`, with all that follows from it.
    fn store_check(&mut self, key: &Arc<str>, old: Option<&Check>, row: Check) {
        let id = row.registration.id.clone();
        let service_id = row.registration.service_id.clone();
        let number = row.number;
        let turned_critical =
            row.critical_since.is_some() && old.is_none_or(|old| old.critical_since.is_none());
        self.record_check(old, Some(&row));
        self.state.catalog.put_check_row(key, Arc::new(row));
        self.touch_check(key, &service_id);
        if let Some(old) = old
            && old.registration.service_id != service_id
        {
            self.touch_check(key, &old.registration.service_id);
        }
        if turned_critical {
            self.end_sessions_on(key, &id);
        }
        self.state.schedule(number);
        self.refresh_idle(key);
    }

    /// Reports the change of a check of this service, or of the node itself.
    pub(super) fn touch_check(&mut self, key: &Arc<str>, service_id: &Arc<str>) {
        self.touch(Topic::Checks);
        if service_id.is_empty() {
            self.touch_services_on(key);
            return;
        }
        let slot = self.state.catalog.nodes.get(key);
        if let Some(row) = slot.and_then(|slot| slot.services.get(service_id)) {
            let name = fold_arc(&row.definition.name);
            self.touch(Topic::Service(name));
            self.note_instance(key, service_id);
        }
    }

    /// Removes a check, if it exists.
    pub(super) fn remove_check(&mut self, key: &Arc<str>, id: &Arc<str>) {
        let slot = self.state.catalog.nodes.get(key);
        if let Some(row) = slot.and_then(|slot| slot.checks.get(id)).cloned() {
            self.record_check(Some(&row), None);
            self.remove_check_unrecorded(key, id);
        }
    }

    /// The same where the record of what it belongs to says it.
    pub(super) fn remove_check_unrecorded(&mut self, key: &Arc<str>, id: &Arc<str>) {
        let Some(slot) = self.state.catalog.nodes.get(key) else { return };
        let Some(row) = slot.checks.get(id).cloned() else { return };
        self.pending.workers |= self.state.presences.get(row.number).is_some();
        self.touch_check(key, &row.registration.service_id);
        self.state.forget_check(key, &row);
        self.state.catalog.remove_check_row(key, &row);
        self.end_sessions_on(key, id);
        self.refresh_idle(key);
    }

    /// A heartbeat by the check's number.
    pub(super) fn beat_number(
        &mut self,
        number: u64,
        status: &CheckStatus,
        output: &str,
        seen: ClusterTime,
    ) -> Result<Outcome, Rejection> {
        let Some(Owner::Check { node, id }) = self.state.deadlines.owner(number) else {
            return Err(Rejection::NoSuchNumber);
        };
        let (node, id) = (node.clone(), id.clone());
        self.beat(&node, &id, status, output, seen)
    }

    /// A heartbeat. One that changes nothing costs one map update and touches nothing.
    pub(super) fn beat(
        &mut self,
        key: &Arc<str>,
        id: &Arc<str>,
        status: &CheckStatus,
        output: &str,
        seen: ClusterTime,
    ) -> Result<Outcome, Rejection> {
        let slot = self.state.catalog.nodes.get(key);
        let row = slot
            .and_then(|slot| slot.checks.get(id))
            .ok_or_else(|| Rejection::UnknownCheck(id.to_string()))?;
        let ttl = row.registration.definition.ttl;
        if ttl.is_zero() {
            return Err(Rejection::NotTtl(id.to_string()));
        }
        if self.state.time.since(seen) > ttl.max(HEARTBEAT_AGE_MIN) {
            return Err(Rejection::HeartbeatTooOld);
        }
        let same = row.said() == (status, output) && row.said.is_none();
        let number = row.number;
        let row = row.clone();
        self.state.heard.insert(number, self.state.time);
        if !same {
            self.put_status(key, &row, status.clone(), output.to_owned());
        }
        Ok(Outcome::Done)
    }

    /// Changes a check's status and output.
    pub(super) fn put_status(
        &mut self,
        key: &Arc<str>,
        row: &Check,
        status: CheckStatus,
        output: String,
    ) {
        self.put_check(key, CheckRegistration { status, output, ..row.registration.clone() });
    }

    /// The same because its client is silent. What the client last said is kept.
    pub(super) fn put_silence(
        &mut self,
        key: &Arc<str>,
        row: &Check,
        status: CheckStatus,
        output: String,
    ) {
        let warns = !row.registration.definition.later.warn_after.is_zero();
        let said = (warns || self.state.level() >= HEARTBEAT_LEVEL).then(|| {
            row.said.clone().unwrap_or_else(|| {
                let (status, output) = row.said();
                Arc::new(Said { status: status.clone(), output: output.to_owned() })
            })
        });
        let registration = CheckRegistration { status, output, ..row.registration.clone() };
        self.put_check_said(key, registration, said);
    }
}

impl State {
    /// Removes what other tables know of a check.
    pub(super) fn forget_check(&mut self, key: &Arc<str>, row: &Check) {
        remove_place(&mut self.catalog.check_ids, &row.registration.id, key);
        self.heard.remove(row.number);
        self.facts.remove(&row.number);
        self.probes.remove(row.number);
        self.workers.views.remove(&row.number);
        self.presences.remove(row.number);
        self.deadlines.disown(row.number);
    }
}

/// Since when a check has been critical without a break, if it is.
fn critical_since(
    registration: &CheckRegistration,
    old: Option<&Check>,
    now: ClusterTime,
) -> Option<ClusterTime> {
    (registration.status == CheckStatus::Critical)
        .then(|| old.and_then(|old| old.critical_since).unwrap_or(now))
}
