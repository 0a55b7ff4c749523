//! Ends: what is released, what is lost, and slots that stay closed for a while after that.

use std::sync::Arc;

use super::{ENDED_CLAIMS_MAX, place_of};
use crate::Topic;
use crate::command::{Outcome, Rejection};
use crate::index::fold;
use crate::record::{Claim, ClaimEnd, ClaimPhase, ClosedSlot, Grant, HistoryKind};
use crate::state::catalog::fold_arc;
use crate::state::change::Change;
use crate::state::deadline::Owner;

impl Change<'_> {
    /// The holder gives its claim back, or its place in line.
    pub(in crate::state) fn release_claim(&mut self, id: &str) -> Result<Outcome, Rejection> {
        let row = self.state.claims.by_id(id).cloned();
        let row = row.ok_or_else(|| Rejection::UnknownClaim(id.to_owned()))?;
        match &row.phase {
            ClaimPhase::Granted(_) => self.end_claim(row.number, ClaimEnd::Released),
            ClaimPhase::Queued { .. } => self.end_claim(row.number, ClaimEnd::Withdrawn),
            ClaimPhase::Ended {
                why: ClaimEnd::Released | ClaimEnd::Withdrawn | ClaimEnd::PoolGone,
                ..
            } => {}
            ClaimPhase::Ended { why, .. } => {
                return Err(Rejection::ClaimOver { id: id.to_owned(), why: *why });
            }
        }
        Ok(Outcome::Done)
    }

    /// An operator releases a claim, whose id is the holder's alone.
    pub(in crate::state) fn force_release(
        &mut self,
        service: &str,
        fence: u64,
    ) -> Result<Outcome, Rejection> {
        let claims = &self.state.claims;
        let number = claims.fences.get(&fence).copied();
        let row = number.and_then(|number| claims.rows.get(&number));
        let row = row.filter(|row| fold(&row.service) == fold(service));
        let refused = || Rejection::UnknownFence { service: service.to_owned(), fence };
        let number = row.ok_or_else(refused)?.number;
        self.end_claim(number, ClaimEnd::Forced);
        Ok(Outcome::Done)
    }

    /// A session is over, and its claims with it.
    pub(in crate::state) fn end_claims_of(&mut self, session: &str) {
        let claims = self.state.claims.by_session.get(session);
        let claims: Vec<u64> = claims.into_iter().flatten().copied().collect();
        claims.iter().for_each(|number| self.end_claim(*number, ClaimEnd::SessionEnded));
    }

    /// Ends a claim that is not over.
    pub(super) fn end_claim(&mut self, number: u64, why: ClaimEnd) {
        let Some(row) = self.state.claims.rows.get(&number).cloned() else { return };
        let grant = match &row.phase {
            ClaimPhase::Ended { .. } => return,
            ClaimPhase::Granted(grant) => Some(grant.clone()),
            ClaimPhase::Queued { .. } => None,
        };
        self.note_idle(&row);
        if let Some(grant) = grant.as_ref().filter(|_| why.closes_the_slot()) {
            self.close_slot(grant);
        }
        if why == ClaimEnd::Expired
            && let Some(pool) = self.state.claims.pool_mut(&fold(&row.service))
        {
            pool.counts.expired += 1;
        }
        let phase = ClaimPhase::Ended { why, at: self.time(), grant };
        let attachments = Vec::new();
        self.state.claims.put(Claim { phase, attachments, ..row.as_ref().clone() });
        self.state.deadlines.disown(number);
        self.show_claim(number, HistoryKind::ClaimEnded);
        while self.state.claims.ended.len() > ENDED_CLAIMS_MAX {
            self.state.claims.forget_oldest();
        }
    }

    /// The instance of a claim idles from now on, and its slot is the next one's. Call it before that shows in
    /// the claim.
    pub(super) fn note_idle(&mut self, row: &Claim) {
        self.pending.pools.insert(fold_arc(&row.service));
        let Some(grant) = row.grant() else { return };
        let (place, now) = (place_of(grant), self.time());
        let mut has_left = false;
        self.state.claims.edit_member(&place, |member| {
            member.kept.idle_since = now;
            has_left = member.slots == 0;
        });
        if has_left {
            // It goes with its last claim.
            self.pending.places.entry(place).or_default();
        }
    }

    /// Keeps the slot of a claim closed for a while: the old work may still run.
    fn close_slot(&mut self, grant: &Grant) {
        let place = place_of(grant);
        let claims = &self.state.claims;
        let key = claims.places.get(&place);
        let member = key.and_then(|key| claims.pools.get(key)?.member(&place));
        let Some(delay) = member.map(|member| member.delay).filter(|delay| !delay.is_zero()) else {
            return;
        };
        let (node, id) = place;
        let since = self.time();
        let slot = ClosedSlot { node, id, since, until: since + delay };
        let number = self.next_number();
        self.state.deadlines.own(number, Owner::ClosedSlot);
        self.state.claims.close(number, slot);
        self.state.schedule(number);
    }

    /// The delay of a closed slot is over.
    pub(in crate::state) fn open_slot(&mut self, number: u64) {
        self.state.deadlines.disown(number);
        let Some(slot) = self.state.claims.closed.remove(&number) else { return };
        let place = (slot.node.clone(), slot.id.clone());
        let claims = &mut self.state.claims;
        if let Some(count) = claims.closed_at.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                claims.closed_at.remove(&place);
            }
        }
        claims.edit_member(&place, |member| member.closed -= 1);
        if let Some(key) = claims.places.get(&place).cloned() {
            self.touch(Topic::Pool(key.clone()));
            self.pending.pools.insert(key);
        }
    }
}

impl super::Claims {
    pub(in crate::state) fn close(&mut self, number: u64, slot: ClosedSlot) {
        let place = (slot.node.clone(), slot.id.clone());
        *self.closed_at.entry(place.clone()).or_default() += 1;
        self.closed.insert(number, Arc::new(slot));
        self.edit_member(&place, |member| member.closed += 1);
    }
}
