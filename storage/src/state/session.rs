//! Sessions: what locks are bound to.
//!
//! A session is bound to a node and to checks on it. When it ends, its keys are released or deleted,
//! and stay unavailable to locks for the session's lock delay: the old holder may not yet know that
//! it lost the lock. Lock delays are replicated and in cluster time, so a leader change loses none.

use std::sync::Arc;

use super::catalog::fold_arc;
use super::change::Change;
use super::checks::HEARTBEAT_AGE_MIN;
use super::deadline::Owner;
use crate::command::{Outcome, Rejection, SessionRequest};
use crate::index::fold;
use crate::record::{
    Cause, CheckStatus, Detail, HistoryKind, Indexes, NodeKind, Session, SessionBehavior,
};
use crate::{ClusterTime, Millis, Topic};

/// The longest lock delay that takes effect, whatever the session says (Consul's cap).
pub(super) const LOCK_DELAY_MAX: Millis = Millis::from_secs(60);

impl Session {
    /// How long the session's keys cannot be locked after its end. Rounded up: never early.
    pub(super) fn lock_delay(&self) -> Millis {
        Millis::from_nanos(self.lock_delay_nanos).min(LOCK_DELAY_MAX)
    }

    /// Ids of the checks that the session needs, repetitions included.
    pub(super) fn needed_checks(&self) -> impl Iterator<Item = &str> {
        let service_checks = self.service_checks.iter().flatten().map(|(id, _)| id);
        let checks = self.checks.iter().flatten();
        self.node_checks.iter().chain(service_checks).chain(checks).map(String::as_str)
    }
}

impl Change<'_> {
    /// Creates a session.
    pub(super) fn create_session(&mut self, what: &SessionRequest) -> Result<Outcome, Rejection> {
        // Ids are random, so one that exists was made by this very request.
        if self.state.sessions.contains_key(&what.id) {
            return Ok(Outcome::Id(what.id.clone()));
        }
        let key = if what.node.is_empty() || fold(&what.node) == fold(&what.agent.name) {
            self.ensure_agent(&what.agent, NodeKind::Agent)
        } else {
            fold_arc(&what.node)
        };
        let node = match self.state.catalog.nodes.get(&key) {
            Some(slot) => slot.node.name.clone(),
            None => return Err(Rejection::MissingNode),
        };
        let number = self.next_number();
        let indexes = Indexes { create: self.index(), modify: self.index() };
        let row = Session {
            id: what.id.clone(),
            name: what.name.clone(),
            node,
            lock_delay_nanos: what.lock_delay_nanos,
            behavior: what.behavior,
            ttl_text: what.ttl_text.clone(),
            ttl: what.ttl,
            node_checks: what.node_checks.clone(),
            service_checks: what.service_checks.clone(),
            checks: what.checks.clone(),
            number,
            indexes,
        };
        self.check_checks(&key, &row)?;
        self.insert_session(&key, row);
        Ok(Outcome::Id(what.id.clone()))
    }

    /// All checks that a session needs must exist on its node and not be critical.
    fn check_checks(&self, key: &str, row: &Session) -> Result<(), Rejection> {
        let checks = self.state.catalog.nodes.get(key).map(|slot| &slot.checks);
        for id in row.needed_checks() {
            let check = checks
                .and_then(|checks| checks.get(id))
                .ok_or_else(|| Rejection::MissingCheck(id.to_owned()))?;
            if check.registration.status == CheckStatus::Critical {
                return Err(Rejection::CriticalCheck(id.to_owned()));
            }
        }
        Ok(())
    }

    fn insert_session(&mut self, key: &Arc<str>, row: Session) {
        let (id, number) = (row.id.clone(), row.number);
        if !row.ttl.is_zero() {
            self.state.heard.insert(number, self.state.time);
        }
        self.state.deadlines.own(number, Owner::Session(id.clone()));
        if let Some(slot) = self.state.catalog.slot_mut(key) {
            slot.bind(&row);
        }
        self.record_session(HistoryKind::SessionCreated, &row, Detail::None);
        self.state.sessions.insert(id, Arc::new(row));
        self.state.schedule(number);
        self.touch(Topic::Sessions);
        self.refresh_idle(key);
    }

    /// Renews a session; visible to nobody.
    pub(super) fn renew_session(
        &mut self,
        id: &Arc<str>,
        seen: ClusterTime,
    ) -> Result<Outcome, Rejection> {
        let row =
            self.state.sessions.get(id).ok_or_else(|| Rejection::UnknownSession(id.to_string()))?;
        if !row.ttl.is_zero() {
            if self.state.time.since(seen) > row.ttl.max(HEARTBEAT_AGE_MIN) {
                return Err(Rejection::HeartbeatTooOld);
            }
            self.state.heard.insert(row.number, self.state.time);
        }
        Ok(Outcome::Id(id.clone()))
    }

    /// Ends a session, if it exists, and lets go of its keys.
    pub(super) fn end_session(&mut self, id: &Arc<str>) {
        self.end_session_because(id, Detail::None);
    }

    fn end_session_because(&mut self, id: &Arc<str>, why: Detail) {
        let Some(row) = self.state.sessions.remove(id) else { return };
        self.record_session(HistoryKind::SessionEnded, &row, why);
        let cause = std::mem::replace(&mut self.cause, Cause::Session(id.clone()));
        self.forget_session(id, &row);
        self.cause = cause;
    }

    /// Lets go of what a session that is over held.
    fn forget_session(&mut self, id: &Arc<str>, row: &Session) {
        self.state.deadlines.disown(row.number);
        self.state.heard.remove(row.number);
        self.touch(Topic::Sessions);
        let until = self.time() + row.lock_delay();
        for key in self.state.kv.held.remove(id).unwrap_or_default() {
            match row.behavior {
                SessionBehavior::Release => self.release_key(&key),
                SessionBehavior::Delete => self.delete_key(&key),
            }
            if until > self.time() {
                self.state.kv.delay_lock(&key, until);
            }
        }
        self.remove_queries_of(id);
        self.end_claims_of(id);
        let key = fold_arc(&row.node);
        if let Some(slot) = self.state.catalog.slot_mut(&key) {
            slot.unbind(row);
        }
        self.refresh_idle(&key);
    }

    /// Ends the sessions that need this check of this node.
    pub(super) fn end_sessions_on(&mut self, key: &str, check_id: &str) {
        let Some(slot) = self.state.catalog.nodes.get(key) else { return };
        let Some(sessions) = slot.sessions_by_check.get(check_id) else { return };
        let sessions: Vec<_> = sessions.iter().cloned().collect();
        sessions.iter().for_each(|id| self.end_session_because(id, Detail::Check(check_id.into())));
    }
}
