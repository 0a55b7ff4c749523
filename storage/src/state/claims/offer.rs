//! Grants: whose turn it is, offers and renewals.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::command::{Outcome, Rejection};
use crate::ids::NodeId;
use crate::record::{Claim, ClaimEnd, ClaimPhase, Grant, HistoryKind};
use crate::state::catalog::Place;
use crate::state::change::Change;
use crate::state::checks::HEARTBEAT_AGE_MIN;
use crate::{ClusterTime, Topic};

impl Change<'_> {
    /// Grants as long as there is an instance for one who waits.
    pub(super) fn serve(&mut self, key: &Arc<str>) {
        while let Some(pool) = self.state.claims.pools.get(key)
            && let Some(number) = pool.next()
            && let Some(row) = self.state.claims.rows.get(&number).cloned()
            && let Some(place) = self.state.choose(key, &row.require, &row.prefer)
        {
            self.grant(number, &place);
        }
    }

    /// Grants an instance with a free slot to a claim that waits. It is an offer for now.
    pub(super) fn grant(&mut self, number: u64, place: &Place) {
        let claims = &mut self.state.claims;
        let Some(row) = claims.rows.get(&number).cloned() else { return };
        claims.header.last_fence += 1;
        let fence = claims.header.last_fence;
        let seq = claims.pool_mut(&crate::index::fold(&row.service)).map_or(0, |pool| {
            pool.counts.granted += 1;
            pool.counts.granted
        });
        let (node, id) = place.clone();
        let now = self.state.time;
        let grant = Grant { fence, seq, node, id, since: now, heard: now, is_offer: true };
        let phase = ClaimPhase::Granted(grant);
        self.state.claims.put(Claim { phase, ..row.as_ref().clone() });
        self.state.schedule(number);
        self.show_claim(number, HistoryKind::ClaimGranted);
    }

    /// An offer is void: its claim waits again in its old place.
    pub(super) fn take_back(&mut self, row: &Claim, detaches: bool) {
        self.note_idle(row);
        let mut row = row.clone();
        if detaches {
            row.attachments.clear();
        }
        let detached = row.attachments.is_empty().then(|| self.time());
        row.void = row.grant().map_or(0, |grant| grant.fence);
        row.phase = ClaimPhase::Queued { detached };
        let number = row.number;
        self.state.claims.put(row);
        self.state.schedule(number);
        self.show_claim(number, HistoryKind::ClaimQueued);
    }

    /// An offer has run out: its servers were silent, and so they are for all that waits in this pool through
    /// them. Else each of their requests would idle the instance for as long, one after the other. A server that
    /// lives asks again for its requests.
    fn run_out(&mut self, row: &Claim) {
        self.take_back(row, true);
        let boots: BTreeSet<(NodeId, u64)> =
            row.attachments.iter().map(|request| (request.origin, request.incarnation)).collect();
        for (server, incarnation) in boots {
            for number in self.state.detach_from_pool(server, incarnation, &row.service) {
                if let Some(row) = self.state.claims.rows.get(&number).cloned() {
                    self.touch(Topic::Claim(row.id.clone()));
                }
            }
        }
    }

    /// Servers have handed grants over, named by their fences.
    pub(in crate::state) fn collect_offers(&mut self, fences: &[u64]) {
        for fence in fences {
            if let Some(number) = self.state.claims.void.get(fence).copied() {
                // Told of what it has no more: what it may have got since is not what its client works with.
                self.end_claim(number, ClaimEnd::InstanceLost);
                continue;
            }
            let Some(number) = self.state.claims.fences.get(fence).copied() else { continue };
            let Some(row) = self.state.claims.rows.get(&number).cloned() else { continue };
            if row.grant().is_some_and(|grant| grant.is_offer) {
                self.hear(&row);
            }
        }
    }

    /// The holder lives; it knows of the grant with this fence, or of any if that is 0.
    pub(in crate::state) fn renew_claim(
        &mut self,
        id: &str,
        seen: ClusterTime,
        fence: u64,
    ) -> Result<Outcome, Rejection> {
        let row = self.state.claims.by_id(id).cloned();
        let row = row.ok_or_else(|| Rejection::UnknownClaim(id.to_owned()))?;
        match &row.phase {
            ClaimPhase::Queued { .. } if row.void > 0 => {
                let why = ClaimEnd::InstanceLost;
                return Err(Rejection::ClaimOver { id: id.to_owned(), why });
            }
            ClaimPhase::Queued { .. } => return Err(Rejection::ClaimWaits(id.to_owned())),
            ClaimPhase::Granted(grant) if fence > 0 && fence != grant.fence => {
                let why = ClaimEnd::InstanceLost;
                return Err(Rejection::ClaimOver { id: id.to_owned(), why });
            }
            ClaimPhase::Ended { why, .. } => {
                return Err(Rejection::ClaimOver { id: id.to_owned(), why: *why });
            }
            ClaimPhase::Granted(_) => {}
        }
        let patience = row.ttl.max(HEARTBEAT_AGE_MIN);
        if !row.ttl.is_zero() && self.time().since(seen) > patience {
            return Err(Rejection::HeartbeatTooOld);
        }
        self.hear(&row);
        Ok(Outcome::Done)
    }

    /// The holder of a grant knows of it, or still does. No request needs to wait for it any more.
    fn hear(&mut self, row: &Claim) {
        let Some(grant) = row.grant() else { return };
        let heard = Grant { heard: self.time(), is_offer: false, ..grant.clone() };
        let number = row.number;
        let (phase, attachments) = (ClaimPhase::Granted(heard), Vec::new());
        self.state.claims.replace_grant(Claim { phase, attachments, void: 0, ..row.clone() });
        self.state.schedule(number);
    }

    /// The deadline of a claim has come.
    pub(in crate::state) fn expire_claim(&mut self, number: u64) {
        let Some(row) = self.state.claims.rows.get(&number).cloned() else { return };
        match &row.phase {
            ClaimPhase::Queued { .. } => self.end_claim(number, ClaimEnd::Withdrawn),
            ClaimPhase::Granted(grant) if grant.is_offer => self.run_out(&row),
            ClaimPhase::Granted(_) => self.end_claim(number, ClaimEnd::Expired),
            ClaimPhase::Ended { .. } => {}
        }
    }
}

impl super::Claims {
    /// Writes a claim whose grant is the same but for its times, and of which its client knows.
    fn replace_grant(&mut self, row: Claim) {
        if let Some(old) = self.rows.get(&row.number).cloned() {
            self.void.remove(&old.void);
            for attachment in &old.attachments {
                self.attachments.remove(attachment);
            }
        }
        self.rows.insert(row.number, Arc::new(row));
    }
}
