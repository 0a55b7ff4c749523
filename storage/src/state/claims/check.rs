//! The cross-check of the claims, and how they are rebuilt from a snapshot.

use std::sync::Arc;

use imbl::OrdMap;

use super::follow::slots_of;
use super::pool::Health;
use super::{Claims, EMPTY_POOLS_MAX, ENDED_CLAIMS_MAX, Place, Pool, PoolCounts, place_of};
use crate::index::fold;
use crate::record::{ATTACHMENTS_MAX, Claim, ClaimPhase, PoolMember};
use crate::state::State;
use crate::state::catalog::fold_arc;
use crate::state::level::CLAIMS_LEVEL;

impl Claims {
    /// Takes over a pool from a snapshot, without instances; `false` if it is there already.
    pub(in crate::state) fn add_pool(&mut self, name: Arc<str>, counts: PoolCounts) -> bool {
        let key = fold_arc(&name);
        self.empty.insert(key.clone());
        self.pools.insert(key, Arc::new(Pool::new(name, counts))).is_none()
    }

    /// Takes over a claim from a snapshot. It has been checked.
    pub(in crate::state) fn add_claim(&mut self, row: Claim) {
        self.put(row);
    }
}

impl State {
    /// Takes over an instance of a pool from a snapshot.
    pub(in crate::state) fn add_member(
        &mut self,
        place: &Place,
        kept: PoolMember,
    ) -> Result<(), &'static str> {
        let slot = self.catalog.nodes.get(&place.0);
        let row = slot.and_then(|slot| slot.services.get(&place.1)).cloned();
        let row = row.ok_or("an instance of a pool that is not in the catalogue")?;
        let key = fold_arc(&row.definition.name);
        if !self.claims.pools.contains_key(&key) || self.claims.places.contains_key(place) {
            return Err("an instance of no pool, or of two");
        }
        let slots = slots_of(&row);
        let mut member = self.member_of(place, row, slots, None);
        member.kept = kept;
        self.claims.put_member(&key, place, member);
        Ok(())
    }

    /// Whether a claim of a snapshot fits to what there is.
    pub(in crate::state) fn check_claim(&self, row: &Claim) -> Result<(), &'static str> {
        let claims = &self.claims;
        if claims.rows.contains_key(&row.number) || claims.ids.contains_key(&row.id) {
            return Err("two claims of one id or number");
        }
        match &row.phase {
            ClaimPhase::Queued { .. } if !claims.pools.contains_key(&*fold(&row.service)) => {
                Err("a claim that waits for no pool")
            }
            ClaimPhase::Granted(grant)
                if !claims.places.contains_key(&place_of(grant))
                    || claims.fences.contains_key(&grant.fence) =>
            {
                Err("a claim on no instance, or two with one fence")
            }
            _ => Ok(()),
        }
    }

    /// Cross-checks pools and claims.
    pub(in crate::state) fn check_claims(&self) -> Result<(), String> {
        for row in self.claim_rows() {
            self.check_row(row).map_err(|what| format!("claim {}: {what}", row.number))?;
        }
        self.check_members()?;
        self.check_derived()?;
        for (key, pool) in &self.claims.pools {
            let waiters = self.claim_rows().filter(|row| row.is_queued());
            let waiters = waiters.filter(|row| fold_arc(&row.service) == *key);
            let waiters: Vec<&Claim> = waiters.map(|row| &**row).collect();
            pool.check(&waiters)?;
            if pool.size() == 0 && pool.waiting() > 0 {
                return Err(format!("claims wait for nothing in the pool of {key}"));
            }
            if pool.counts.index > self.claims.header.index {
                return Err(format!("the pool of {key} is newer than the claims"));
            }
        }
        Ok(())
    }

    fn check_row(&self, row: &Claim) -> Result<(), &'static str> {
        let header = self.claims.header;
        if row.index > header.index || row.asked > self.time {
            return Err("it is from the future");
        }
        if row.attachments.len() > ATTACHMENTS_MAX {
            return Err("too many requests wait for it");
        }
        let has_session = row.session.is_empty() || self.sessions.contains_key(&row.session);
        if row.ended().is_none() && !has_session {
            return Err("it outlived its session");
        }
        match &row.phase {
            ClaimPhase::Queued { detached } => {
                if detached.is_some() != row.attachments.is_empty() {
                    return Err("it has requests and has none");
                }
                let pool = self.pool(&row.service);
                if pool.is_none_or(|pool| pool.counts.last_position < row.position) {
                    return Err("it has a place in line that was never given");
                }
            }
            ClaimPhase::Granted(grant) => {
                if grant.fence > header.last_fence || grant.heard > self.time {
                    return Err("its grant is from the future");
                }
                if !grant.is_offer && !row.attachments.is_empty() {
                    return Err("requests wait for what is known");
                }
            }
            ClaimPhase::Ended { .. } => {
                if !row.attachments.is_empty() {
                    return Err("requests wait for it though it is over");
                }
            }
        }
        Ok(())
    }

    fn check_members(&self) -> Result<(), String> {
        let mut busy: OrdMap<Place, OrdMap<u64, u64>> = OrdMap::new();
        for row in self.claim_rows() {
            if let Some(grant) = row.grant() {
                busy.entry(place_of(grant)).or_default().insert(grant.fence, row.number);
            }
        }
        let mut members = 0;
        for (key, pool) in &self.claims.pools {
            for (place, member) in pool.members() {
                let what = format!("instance {} of the pool of {key}", place.1);
                if self.claims.places.get(place) != Some(key) {
                    return Err(format!("{what} is not found"));
                }
                let slot = self.catalog.nodes.get(&place.0);
                if slot.and_then(|slot| slot.services.get(&place.1)) != Some(&member.row) {
                    return Err(format!("{what} differs from its row"));
                }
                let slots = slots_of(&member.row);
                let right = self.member_of(place, member.row.clone(), slots, Some(member));
                if right != **member {
                    return Err(format!("{what} is not as the catalogue has it"));
                }
                if member.busy != busy.remove(place).unwrap_or_default() {
                    return Err(format!("{what} has other claims than it should"));
                }
                if slots == 0 && member.busy.is_empty() {
                    return Err(format!("{what} has left it"));
                }
                if member.health == Health::Down && !member.busy.is_empty() {
                    return Err(format!("{what} is down and has claims"));
                }
                members += 1;
            }
        }
        if !busy.is_empty() || members != self.claims.places.len() {
            return Err("a claim has an instance of no pool".to_owned());
        }
        let listed = self.services().filter(|row| slots_of(row) > 0);
        let missing = listed.filter(|row| {
            let place = (fold_arc(&row.node), row.definition.id.clone());
            !self.claims.places.contains_key(&place)
        });
        match missing.count() {
            missing if missing > 0 && self.level >= CLAIMS_LEVEL => {
                Err(format!("{missing} instances with slots are in no pool"))
            }
            _ => Ok(()),
        }
    }

    fn check_derived(&self) -> Result<(), String> {
        let claims = &self.claims;
        let mut fresh = Claims::default();
        for row in claims.rows.values() {
            fresh.file(row);
        }
        let is_right = fresh.ids == claims.ids
            && fresh.fences == claims.fences
            && fresh.void == claims.void
            && fresh.attachments == claims.attachments
            && fresh.by_session == claims.by_session
            && fresh.holders == claims.holders
            && fresh.waiting == claims.waiting
            && fresh.ended == claims.ended;
        let mut closed_at: OrdMap<Place, u32> = OrdMap::new();
        for slot in claims.closed.values() {
            *closed_at.entry((slot.node.clone(), slot.id.clone())).or_default() += 1;
        }
        let empty = claims.pools.iter().filter(|(_, pool)| pool.is_empty());
        let empty = empty.map(|(key, _)| key.clone()).collect();
        if !is_right || closed_at != claims.closed_at || claims.empty != empty {
            return Err("claims are found wrongly".to_owned());
        }
        if claims.ended.len() > ENDED_CLAIMS_MAX || claims.empty.len() > EMPTY_POOLS_MAX {
            return Err("too many claims that are over, or too many empty pools".to_owned());
        }
        Ok(())
    }
}
