//! What changes in the catalogue mean for the pools.
//!
//! A change notes which instances it was about, and looks at each of them once, when it is done. So an instance
//! that is taken away and put back within one change has not been away.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;

use super::pool::{Health, Member};
use super::{Claims, FENCE_LEAP};
use crate::record::{
    CLAIM_DELAY, CLAIM_DELAY_DEFAULT, CLAIM_DELAY_MAX, Cause, CheckStatus, Claim, ClaimEnd,
    HistoryKind, PoolMember, SERVER_SERVICE, SLOTS, SLOTS_MAX, Service, TextMap,
};
use crate::state::catalog::{Place, Slot, fold_arc};
use crate::state::change::Change;
use crate::state::deadline::Owner;
use crate::state::level::CLAIMS_LEVEL;
use crate::state::{Effects, State};
use crate::{Millis, Topic};

impl Change<'_> {
    /// Something about an instance changed: its row, its checks, its node.
    pub(in crate::state) fn note_instance(&mut self, key: &Arc<str>, id: &Arc<str>) {
        let slot = self.state.catalog.nodes.get(key);
        let has_slots = slot.and_then(|slot| slot.services.get(id)).is_some_and(|row| {
            row.definition.meta.as_ref().is_some_and(|meta| meta.contains_key(SLOTS))
        });
        let place = (key.clone(), id.clone());
        let is_member = self.state.claims.places.contains_key(&place);
        if (has_slots || is_member) && self.state.level() >= CLAIMS_LEVEL {
            self.pending.places.entry(place).or_default();
        }
    }

    /// Something about a node changed.
    pub(in crate::state) fn note_node(&mut self, slot: &Slot) {
        let key = fold_arc(&slot.node.name);
        slot.services.keys().for_each(|id| self.note_instance(&key, id));
    }

    /// Another process runs as this instance.
    pub(in crate::state) fn note_other_process(&mut self, key: &Arc<str>, id: &Arc<str>) {
        self.note_instance(key, id);
        if let Some(is_other) = self.pending.places.get_mut(&(key.clone(), id.clone())) {
            *is_other = true;
        }
    }

    /// Ends the change for the pools: they follow the catalogue, and whose turn it is gets an instance.
    pub(in crate::state) fn settle_pools(&mut self) {
        while let Some((place, is_other)) = self.pending.places.pop_first() {
            self.follow_instance(&place, is_other);
        }
        while let Some(key) = self.pending.pools.pop_first() {
            self.serve(&key);
        }
        self.state.claims.forget_empty_pools();
    }

    fn follow_instance(&mut self, place: &Place, is_other: bool) {
        let (node, id) = place;
        let slot = self.state.catalog.nodes.get(node);
        let row = slot.and_then(|slot| slot.services.get(id)).cloned();
        let name = row.as_ref().map(|row| fold_arc(&row.definition.name));
        if let Some(left) = self.state.claims.places.get(place).cloned()
            && name.as_ref() != Some(&left)
        {
            self.lose_instance(&left, place);
            self.leave_pool(&left, place);
        }
        let (Some(row), Some(key)) = (row, name) else { return };
        let old = self.state.claims.pools.get(&key).and_then(|pool| pool.member(place)).cloned();
        let slots = slots_of(&row);
        if slots == 0 && old.as_ref().is_none_or(|old| old.busy.is_empty()) {
            if old.is_some() {
                self.leave_pool(&key, place);
            }
            return;
        }
        let mut member = self.state.member_of(place, row, slots, old.as_deref());
        if old.is_none() {
            member.kept = PoolMember { number: self.next_number(), idle_since: self.time() };
        }
        let is_changed = old.as_deref() != Some(&member);
        let is_lost = is_other
            || member.health == Health::Down
            || old.is_some_and(|old| {
                old.address != member.address
                    || old.row.definition.port != member.row.definition.port
            });
        if is_changed {
            self.state.claims.put_member(&key, place, member);
            self.touch(Topic::Pool(key.clone()));
        }
        if is_lost {
            self.lose_instance(&key, place);
        }
        if self.state.claims.pools.get(&key).is_some_and(|pool| pool.size() == 0) {
            self.send_waiters_away(&key);
        }
        self.pending.pools.insert(key);
    }

    /// An instance cannot be used any more, or is another one than before: its claims are lost. Those of whose
    /// grant nobody knows wait again.
    fn lose_instance(&mut self, key: &Arc<str>, place: &Place) {
        let pool = self.state.claims.pools.get(key);
        let Some(member) = pool.and_then(|pool| pool.member(place)).cloned() else { return };
        for number in member.busy.values() {
            let Some(row) = self.state.claims.rows.get(number).cloned() else { continue };
            match row.grant().is_some_and(|grant| grant.is_offer) {
                true => self.take_back(&row, false),
                false => self.end_claim(*number, ClaimEnd::InstanceLost),
            }
        }
    }

    fn leave_pool(&mut self, key: &Arc<str>, place: &Place) {
        self.state.claims.remove_member(key, place);
        self.touch(Topic::Pool(key.clone()));
        self.pending.pools.insert(key.clone());
        if self.state.claims.pools.get(key).is_some_and(|pool| pool.size() == 0) {
            self.send_waiters_away(key);
        }
    }

    /// There is nothing left to wait for.
    fn send_waiters_away(&mut self, key: &Arc<str>) {
        let Some(pool) = self.state.claims.pools.get(key) else { return };
        let waiters: Vec<u64> = pool.queue().collect();
        waiters.iter().for_each(|number| self.end_claim(*number, ClaimEnd::PoolGone));
    }

    /// Reports what a claim has come to, and records it.
    pub(super) fn show_claim(&mut self, number: u64, kind: HistoryKind) {
        let Some(row) = self.state.claims.rows.get(&number).cloned() else { return };
        self.touch_claim(&row);
        self.record_claim(kind, &row);
    }

    /// A backup has replaced the catalogue: all claims of the running cluster are over. Its fences and counts go
    /// on.
    pub(in crate::state) fn restore_claims(&mut self, running: Claims) {
        let restored = std::mem::replace(&mut self.state.claims, running).header;
        let header = &mut self.state.claims.header;
        if restored.last_fence > header.last_fence {
            header.last_fence = restored.last_fence + FENCE_LEAP;
        }
        let open: Vec<Arc<Claim>> = self.state.claims.rows.values().cloned().collect();
        for row in open.iter().filter(|row| row.ended().is_none()) {
            self.state.deadlines.own(row.number, Owner::Claim);
            self.end_claim(row.number, ClaimEnd::Restored);
        }
        let closed: Vec<u64> = self.state.claims.closed.keys().copied().collect();
        for number in closed {
            self.state.deadlines.own(number, Owner::ClosedSlot);
            self.state.schedule(number);
        }
        let places: Vec<Place> = self.state.claims.places.keys().cloned().collect();
        places.iter().for_each(|(node, id)| self.note_instance(node, id));
        self.note_all();
    }

    /// Looks at all instances.
    fn note_all(&mut self) {
        let slots: Vec<Arc<Slot>> = self.state.catalog.nodes.values().cloned().collect();
        slots.iter().for_each(|slot| self.note_node(slot));
    }
}

impl State {
    /// All servers know the rules of claims: the pools are made of the instances that there are.
    pub(in crate::state) fn found_pools(&mut self, effects: &mut Effects) {
        let mut touched = BTreeSet::new();
        let cause = Cause::Server { server: 0 };
        let mut change = Change::new(self, &mut touched, cause);
        change.note_all();
        change.settle_pools();
        effects.touched.extend(touched);
    }

    /// An instance as its pool has it.
    pub(super) fn member_of(
        &self,
        place: &Place,
        row: Arc<Service>,
        slots: u32,
        old: Option<&Member>,
    ) -> Member {
        let own = &row.definition.address;
        let node = self.catalog.nodes.get(&place.0).map(|slot| &slot.node);
        let address = match node {
            Some(node) if own.is_empty() => node.address.clone(),
            Some(_) | None => own.clone(),
        };
        Member {
            kept: old.map_or_else(PoolMember::default, |old| old.kept),
            address,
            slots,
            delay: delay_of(&row),
            health: self.health_of(place),
            busy: old.map_or_else(OrdMap::new, |old| old.busy.clone()),
            closed: self.claims.closed_at.get(place).copied().unwrap_or(0),
            row,
        }
    }

    /// As in the health of a service: its own checks and its node's decide.
    fn health_of(&self, (node, id): &Place) -> Health {
        let Some(slot) = self.catalog.nodes.get(node) else { return Health::Down };
        let checks = slot.checks_of(id).chain(slot.checks_of(""));
        let health = checks.map(|row| match row.registration.status {
            CheckStatus::Passing => Health::Passing,
            CheckStatus::Warning => Health::Warning,
            CheckStatus::Critical | CheckStatus::Other(_) => Health::Down,
        });
        health.max().unwrap_or(Health::Passing)
    }
}

fn meta(row: &Service) -> Option<&TextMap> {
    row.definition.meta.as_ref()
}

/// How many claims an instance serves at a time; zero: it is in no pool.
pub(super) fn slots_of(row: &Service) -> u32 {
    let slots = meta(row).and_then(|meta| meta.get(SLOTS)?.parse().ok());
    let slots = slots.filter(|slots| (1..=SLOTS_MAX).contains(slots));
    let is_server = &*fold_arc(&row.definition.name) == SERVER_SERVICE;
    slots.filter(|_| !is_server).unwrap_or(0)
}

/// For how long a slot of an instance stays closed, [`CLAIM_DELAY_MAX`] at most. What is no span counts as not given.
fn delay_of(row: &Service) -> Millis {
    let delay = meta(row).and_then(|meta| parse_span(meta.get(CLAIM_DELAY)?));
    delay.map_or(CLAIM_DELAY_DEFAULT, |delay| delay.min(CLAIM_DELAY_MAX))
}

/// A span of one whole number, such as `500ms`, `2s`, `1m` or `1h`; also `0`.
fn parse_span(text: &str) -> Option<Millis> {
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" if digits == "0" => 1,
        _ => return None,
    };
    let count: u64 = digits.parse().ok()?;
    Some(Millis(count.saturating_mul(unit)))
}
