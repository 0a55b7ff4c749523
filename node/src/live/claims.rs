//! Pools and claims as the API shows them.

use quorate_client::types::claim::{
    ClaimGrant, ClaimPool, ClaimPoolCounts, ClaimStatus, PoolHolder, PoolInstance, PoolWaiter,
};
use quorate_storage::record::{Claim, ClaimPhase, Grant};
use quorate_storage::state::{self, Pool};
use quorate_storage::{Millis, State};
use serde_json::Value;

use super::rows;
use super::show::{date_of, span};

/// How many of the claims that wait are listed.
const QUEUE_SHOWN_MAX: usize = 100;

/// What a client is told whose claim was granted; `None`: it has nothing (any more).
#[must_use]
pub fn grant(state: &State, claim: &Claim) -> Option<ClaimGrant> {
    let grant = claim.grant()?;
    let row = state.claimed_instance(grant)?;
    Some(ClaimGrant {
        id: claim.id.to_string(),
        service: claim.service.to_string(),
        instance: rows::instance(state, row),
        fence: grant.fence,
        seq: grant.seq,
        holder: claim.holder.to_string(),
        ttl: ttl(claim.ttl),
        waited_ms: grant.since.since(claim.asked).0,
    })
}

/// What has become of a claim.
#[must_use]
pub fn status(state: &State, claim: &Claim) -> ClaimStatus {
    let mut shown = ClaimStatus {
        id: claim.id.to_string(),
        number: claim.number,
        service: claim.service.to_string(),
        holder: claim.holder.to_string(),
        ttl: ttl(claim.ttl),
        session: claim.session.to_string(),
        require: claim.require.clone(),
        ..ClaimStatus::default()
    };
    match &claim.phase {
        ClaimPhase::Queued { detached } => {
            "queued".clone_into(&mut shown.state);
            shown.since = date_of(state, claim.asked);
            shown.ahead = Some(state.ahead_of(claim));
            shown.attached = Some(detached.is_none());
        }
        ClaimPhase::Granted(grant) => {
            "granted".clone_into(&mut shown.state);
            shown.since = date_of(state, grant.since);
            let deadline = state.deadline_of(claim.number);
            shown.left_ms = deadline.map(|deadline| deadline.since(state.time()).0);
            show_grant(&mut shown, state, grant);
        }
        ClaimPhase::Ended { why, at, grant } => {
            "ended".clone_into(&mut shown.state);
            shown.since = date_of(state, *at);
            why.as_str().clone_into(&mut shown.reason);
            if let Some(grant) = grant {
                show_grant(&mut shown, state, grant);
            }
        }
    }
    shown
}

fn show_grant(shown: &mut ClaimStatus, state: &State, grant: &Grant) {
    shown.fence = Some(grant.fence);
    shown.seq = Some(grant.seq);
    let row = state.claimed_instance(grant).map(|row| rows::instance(state, row));
    shown.instance = row.and_then(|row| serde_json::to_value(row).ok()).unwrap_or(Value::Null);
}

fn ttl(ttl: Millis) -> String {
    if ttl.is_zero() { "0".to_owned() } else { span(ttl) }
}

/// A pool, who has its instances, and who waits.
#[must_use]
pub fn pool(state: &State, pool: &Pool) -> ClaimPool {
    let waiters = state.waiters(pool).take(QUEUE_SHOWN_MAX).map(|claim| PoolWaiter {
        holder: claim.holder.to_string(),
        since: date_of(state, claim.asked),
        require: claim.require.clone(),
        left: matches!(claim.phase, ClaimPhase::Queued { detached: Some(_) }),
    });
    ClaimPool {
        service: pool.name().to_string(),
        instances: pool.instances().map(|one| instance(state, one)).collect(),
        queue: waiters.collect(),
        waiting: pool.attached() as u64,
        left: pool.waiting().saturating_sub(pool.attached()) as u64,
        granted: pool.granted(),
        expired: pool.expired(),
    }
}

fn instance(state: &State, one: state::PoolInstance<'_>) -> PoolInstance {
    let claims = one.busy().filter_map(|number| state.claim_numbered(number));
    let busy = claims.filter_map(|claim| {
        let grant = claim.grant()?;
        let (holder, since) = (claim.holder.to_string(), date_of(state, grant.since));
        Some(PoolHolder { holder, fence: grant.fence, since })
    });
    PoolInstance {
        id: one.row().definition.id.to_string(),
        node: one.row().node.to_string(),
        slots: one.slots(),
        busy: busy.collect(),
        closed: one.closed(),
        usable: one.is_usable(),
        idle_since: date_of(state, one.idle_since()),
    }
}

/// A pool in numbers.
#[must_use]
pub fn counts(pool: &Pool) -> ClaimPoolCounts {
    let instances = || pool.instances().filter(|one| one.slots() > 0);
    ClaimPoolCounts {
        service: pool.name().to_string(),
        instances: pool.size() as u64,
        slots: instances().map(|one| u64::from(one.slots())).sum(),
        busy: pool.instances().map(|one| one.busy().count() as u64).sum(),
        waiting: pool.attached() as u64,
        left: pool.waiting().saturating_sub(pool.attached()) as u64,
        granted: pool.granted(),
        expired: pool.expired(),
    }
}
