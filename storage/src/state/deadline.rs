//! Deadlines: who has one, and what happens when it comes.
//!
//! The **true** deadline of a thing follows from its row (a TTL check: last seen + TTL). It is what
//! decides. The ordered set here is derived and lazy: it holds each number at a time *not after* its
//! true deadline, so a heartbeat need not touch it. When an entry comes up, the true deadline is
//! looked at, and a thing that was heard of meanwhile moves to its new place. Things therefore
//! expire in the order (true deadline, number), whether the set was kept lazily for days or has just
//! been rebuilt from a snapshot; and `max` counts what expires, never what is looked at, so both
//! do exactly the same.
//!
//! Lock delays and tombstones end without anybody noticing. They are kept apart and reaped by a duty of
//! their own, in entries of their own: the leader keeps proposing expiries while a million deleted
//! keys are worked off, and no entry does more than its `max` of either.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::agent::NOT_ALIVE;
use super::change::Change;
use super::{Effects, State};
use crate::record::{
    Cause, Check, CheckStatus, DEREGISTER_AFTER_MIN, EndedPresence, HistoryKind, NodeKind, Session,
    WorkerId,
};
use crate::{ClusterTime, Millis};

/// A client host's agent with nothing on it is forgotten after so much cluster time.
pub(super) const IDLE_AGENT_AFTER: Millis = Millis::from_secs(3_600);

/// What a check says after its TTL ran out, followed by its last output if it had one.
const TTL_EXPIRED: &str = "TTL expired";

/// Who has a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    /// A check.
    Check {
        /// Folded name of its node.
        node: Arc<str>,
        /// Its id.
        id: Arc<str>,
    },
    /// A session, by its id.
    Session(Arc<str>),
    /// A node, by its folded name.
    Node(Arc<str>),
    /// A claim that is not over.
    Claim,
    /// A slot that is closed.
    ClosedSlot,
    /// A worker that is away or has come back lately, or a worker process.
    Worker(WorkerId),
    /// A token, by its accessor.
    Token(Arc<str>),
}

/// Who has which number, and when to look at whom. All of it can be rebuilt from the rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Deadlines {
    owners: OrdMap<u64, Owner>,
    /// When each number comes up; never after its true deadline.
    scheduled: OrdMap<u64, ClusterTime>,
    /// The same, in order.
    queue: OrdSet<(ClusterTime, u64)>,
}

impl Deadlines {
    /// Whose number this is.
    pub(super) fn owner(&self, number: u64) -> Option<&Owner> {
        self.owners.get(&number)
    }

    /// Gives a number to its owner.
    pub(super) fn own(&mut self, number: u64, owner: Owner) {
        self.owners.insert(number, owner);
    }

    /// Forgets a number.
    pub(super) fn disown(&mut self, number: u64) {
        self.owners.remove(&number);
        self.move_to(number, None);
    }

    /// How many numbers have an owner.
    pub(super) fn len(&self) -> usize {
        self.owners.len()
    }

    /// All numbers with their owners.
    pub(super) fn owners(&self) -> impl Iterator<Item = (u64, &Owner)> {
        self.owners.iter().map(|(number, owner)| (*number, owner))
    }

    /// When a number comes up.
    pub(super) fn scheduled(&self, number: u64) -> Option<ClusterTime> {
        self.scheduled.get(&number).copied()
    }

    /// Whether queue and schedule say the same.
    pub(super) fn is_consistent(&self) -> bool {
        self.queue.len() == self.scheduled.len()
            && self.queue.iter().all(|(due, number)| self.scheduled.get(number) == Some(due))
    }

    /// The first number that comes up, and when.
    fn first(&self) -> Option<(ClusterTime, u64)> {
        self.queue.get_min().copied()
    }

    fn move_to(&mut self, number: u64, due: Option<ClusterTime>) {
        if let Some(old) = self.scheduled.remove(&number) {
            self.queue.remove(&(old, number));
        }
        if let Some(due) = due {
            self.scheduled.insert(number, due);
            self.queue.insert((due, number));
        }
    }
}

impl State {
    /// A lower bound of the next deadline that somebody may notice.
    pub(super) fn first_deadline(&self) -> Option<ClusterTime> {
        let watched = self.deadlines.first().map(|(due, _)| due);
        [watched, self.restore_deadline()].into_iter().flatten().min()
    }

    /// Sees to it that a number comes up no later than its true deadline.
    pub(super) fn schedule(&mut self, number: u64) {
        let due = self.true_deadline(number);
        let scheduled = self.deadlines.scheduled(number);
        let is_early_enough = match (due, scheduled) {
            (Some(due), Some(scheduled)) => scheduled <= due,
            (due, scheduled) => due == scheduled,
        };
        if !is_early_enough {
            self.deadlines.move_to(number, due);
        }
    }

    /// The deadline that decides.
    pub(super) fn true_deadline(&self, number: u64) -> Option<ClusterTime> {
        match self.deadlines.owner(number)? {
            Owner::Check { node, id } => {
                let slot = self.catalog.nodes.get(node)?;
                // What is only registered is looked after by whoever registered it, as in Consul.
                if slot.node.kind == NodeKind::Registered {
                    return None;
                }
                let row = slot.checks.get(id)?;
                if row.critical_since.is_none() && self.presences.get(number).is_some() {
                    return self.presence_deadline(number);
                }
                check_deadline(row, self.heard.get(number))
            }
            Owner::Session(id) => session_deadline(self.sessions.get(id)?, self.heard.get(number)),
            Owner::Node(key) => {
                self.catalog.nodes.get(key)?.idle_since.map(|since| since + IDLE_AGENT_AFTER)
            }
            Owner::Claim => self.claims.deadline(number),
            Owner::ClosedSlot => self.claims.closed_slot(number).map(|slot| slot.until),
            Owner::Worker(id) => self.workers.deadline(id),
            Owner::Token(accessor) => self.acl.expiry(accessor),
        }
    }

    /// Carries out what is due, at most `max` things; returns what is left of `max`.
    pub(super) fn expire_due(
        &mut self,
        up_to: ClusterTime,
        max: u32,
        effects: &mut Effects,
    ) -> u32 {
        let limit = up_to.min(self.time);
        let mut left = max;
        while left > 0
            && let Some((due, number)) = self.deadlines.first()
            && due <= limit
        {
            let truth = self.true_deadline(number);
            if truth == Some(due) {
                self.carry_out(number, effects);
                left -= 1;
            } else {
                self.deadlines.move_to(number, truth);
            }
        }
        self.drop_idle_restore(limit);
        left
    }

    /// Forgets lock delays that are over and tombstones that are old enough, at most `max` of both.
    pub(super) fn reap(&mut self, up_to: ClusterTime, max: u32) {
        let limit = up_to.min(self.time);
        let mut left = max;
        self.kv.end_lock_delays(limit, &mut left);
        self.claims.forget_ended(limit, &mut left);
        let reaped = self.kv.reap(limit, &mut left);
        self.topics.kv_floor = self.topics.kv_floor.max(reaped);
    }

    /// Why a deadline has come, for the history.
    fn cause_of_deadline(&self, number: u64, owner: &Owner) -> Cause {
        let last_heard = self.heard.get(number).unwrap_or_default();
        match owner {
            Owner::Check { node, id } => {
                let row = self.catalog.nodes.get(node).and_then(|slot| slot.checks.get(id));
                let definition = row.map(|row| &row.registration.definition);
                let ended = self.presences.get(number).and_then(|presence| presence.ended);
                match (row.and_then(|row| row.critical_since), ended) {
                    (Some(since), _) => {
                        let after = definition.map(|all| all.deregister_critical_service_after);
                        Cause::DeregisterAfter { since, after: after.unwrap_or_default() }
                    }
                    (None, Some(EndedPresence { server, why, since, .. })) => {
                        Cause::Connection { server, why, since }
                    }
                    (None, None) => {
                        let ttl = row.map_or(Millis::ZERO, |row| row.patience());
                        Cause::Silence { last_heard, ttl }
                    }
                }
            }
            Owner::Session(id) => {
                let ttl = self.sessions.get(id).map_or(Millis::ZERO, |row| row.ttl);
                // As long as it may really be silent.
                Cause::Silence { last_heard, ttl: Millis(ttl.0.saturating_mul(2)) }
            }
            Owner::Node(key) => {
                let since = self.catalog.nodes.get(key).and_then(|slot| slot.idle_since);
                Cause::Idle { since: since.unwrap_or_default() }
            }
            Owner::Claim => self.claims.cause_of_deadline(number),
            Owner::ClosedSlot => {
                let since = self.claims.closed_slot(number).map(|slot| slot.since);
                Cause::SlotOpened { since: since.unwrap_or_default() }
            }
            // Nothing visible changes with it.
            Owner::Worker(_) => Cause::Idle { since: self.time },
            Owner::Token(_) => Cause::Expired,
        }
    }

    /// Carries out one deadline that has come, as a change with an index of its own.
    fn carry_out(&mut self, number: u64, effects: &mut Effects) {
        let Some(owner) = self.deadlines.owner(number).cloned() else { return };
        let cause = self.cause_of_deadline(number, &owner);
        let mut touched = BTreeSet::new();
        let mut change = Change::new(self, &mut touched, cause);
        match owner {
            Owner::Check { node, id } => change.expire_check(&node, &id),
            Owner::Session(id) => change.end_session(&id),
            Owner::Node(key) => change.remove_node(&key),
            Owner::Claim => change.expire_claim(number),
            Owner::ClosedSlot => change.open_slot(number),
            Owner::Worker(id) => change.worker_due(&id),
            Owner::Token(accessor) => change.end_token(&accessor, HistoryKind::TokenExpired),
        }
        change.settle_workers();
        change.settle_pools();
        effects.touched.extend(touched);
        // The same thing must not come up again for what was just carried out.
        let next = self.true_deadline(number);
        self.deadlines.move_to(number, next);
    }
}

impl Change<'_> {
    /// A client was silent for as long as it may, its connection ended, or a service was critical for too
    /// long: the status says which. After the first silence a check that warns has a second deadline.
    fn expire_check(&mut self, key: &Arc<str>, id: &Arc<str>) {
        let slot = self.state.catalog.nodes.get(key);
        let Some(row) = slot.and_then(|slot| slot.checks.get(id)).cloned() else { return };
        if row.critical_since.is_some() {
            self.remove_service(key, &row.registration.service_id);
            return;
        }
        if let Some(presence) = self.state.presences.get(row.number).cloned() {
            self.expire_presence(key, &row, &presence);
            return;
        }
        let patience = row.patience();
        if patience < row.registration.definition.ttl {
            let output = format!("no heartbeat for {}", in_words(patience));
            self.put_silence(key, &row, CheckStatus::Warning, output);
            return;
        }
        let (_, output) = row.said();
        let output = match output {
            _ if row.is_liveness() => NOT_ALIVE.to_owned(),
            "" => TTL_EXPIRED.to_owned(),
            last => format!("{TTL_EXPIRED} (last output before timeout follows): {last}"),
        };
        self.put_silence(key, &row, CheckStatus::Critical, output);
    }
}

/// A span for people: whole seconds where it has only those.
fn in_words(span: Millis) -> String {
    match span.0 % 1_000 {
        0 => format!("{} s", span.0 / 1_000),
        _ => format!("{} ms", span.0),
    }
}

/// A check has at most one deadline: that of its client's silence while it is not critical, its service's
/// while it is.
fn check_deadline(row: &Check, last_seen: Option<ClusterTime>) -> Option<ClusterTime> {
    let definition = &row.registration.definition;
    if let Some(since) = row.critical_since {
        let after = definition.deregister_critical_service_after;
        let applies = !after.is_zero() && !row.registration.service_id.is_empty();
        return applies.then(|| since + after.max(DEREGISTER_AFTER_MIN));
    }
    last_seen.filter(|_| !definition.ttl.is_zero()).map(|seen| seen + row.patience())
}

/// A session ends when twice its TTL has passed since it was last heard of (Consul's rule).
fn session_deadline(row: &Session, last_seen: Option<ClusterTime>) -> Option<ClusterTime> {
    let ttl = row.ttl;
    last_seen.filter(|_| !ttl.is_zero()).map(|seen| seen + ttl + ttl)
}
