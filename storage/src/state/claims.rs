//! Claims: exclusive use of an idle instance, first come first served.
//!
//! An instance whose metadata says `slots` is in the **pool** of its service. A client **claims** one of the pool
//! for itself; when all are busy it waits in line. Queue and holders are replicated, so they survive every
//! server; the order is that of the log, and every grant has a **fence** that is larger than all before, by which
//! a resource can refuse a holder that is late.
//!
//! | file | what |
//! | --- | --- |
//! | `pool.rs` | a pool: its instances in the order of choice, its lines of waiters |
//! | `ask.rs` | requests: to claim, to join, to leave |
//! | `offer.rs` | grants: who is next, offers, renewals |
//! | `end.rs` | ends: releases, what is lost, slots that stay closed |
//! | `follow.rs` | what changes in the catalogue mean for the pools |
//!
//! **Requests.** What waits for a claim is not its client but requests of servers: its [`Attachment`]s. A server
//! that is lost, or whose client has gone, takes only its own away. Without one, a claim keeps its place for
//! [`DETACHED_MAX`], is passed over meanwhile, and is withdrawn then. The same claim may be asked for again
//! through any server in that time.
//!
//! **Offers.** Nobody knows whether the client of a grant has learned of it before a server that holds a request
//! says so, or the client renews it. Until then it is an offer, and one that runs out puts the claim back in its
//! place. All else that waits in this pool through the same servers is taken for left alone then too (a server that
//! lives asks again), so an instance idles for [`OFFER_MAX`] at most, whoever dies, however many waited there. A client that was told of
//! an offer after that was taken back has lost its claim: it does not get another instance without knowing.
//!
//! **When it is someone's turn** is decided once, at the end of a change ([`Change::settle_pools`]): then all
//! instances are as the change leaves them. After it, no line has both a waiter with a request and an instance
//! that the waiter may have.
//!
//! **What it costs.** Each line keeps the free instances that it may have, in the order of choice, so a grant
//! costs a few look-ups, whatever the length of the queue and the size of the pool, and as much again for each
//! further line. Only the first claim with new requirements looks at all instances.
//!
//! **Counters.** Claims move no index of the catalogue: they have a counter of their own, which blocking queries
//! about them report.
//!
//! [`Change::settle_pools`]: super::change::Change::settle_pools

mod ask;
mod check;
mod end;
mod follow;
mod offer;
mod pool;

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

pub use self::pool::{Pool, PoolInstance, Prospects};
use super::State;
use super::catalog::{Place, fold_arc};
use super::change::Change;
use crate::command::{ClaimsCommand, CommandId, Outcome, Rejection};
use crate::ids::NodeId;
use crate::index::fold;
use crate::record::{
    Attachment, Cause, Claim, ClaimPhase, ClosedSlot, Grant, PoolCounts, PoolMember, Service,
    TextMap,
};
use crate::{ClusterTime, Index, Millis, Topic};

/// How long a claim keeps its place when no request waits for it.
pub const DETACHED_MAX: Millis = Millis::from_secs(10);
/// How long a grant is an offer at most.
pub const OFFER_MAX: Millis = Millis::from_secs(5);
/// How long a claim that is over is remembered.
pub const ENDED_KEPT: Millis = Millis::from_secs(60);
/// Claims that are over and remembered, at most.
pub const ENDED_CLAIMS_MAX: usize = 65_536;
/// Pools without instances whose counts are kept.
const EMPTY_POOLS_MAX: usize = 1_024;
/// By so much the fences leap when a backup of a cluster is restored that has come further: it has granted more
/// since.
const FENCE_LEAP: u64 = 1 << 32;

/// What of the claims is neither a claim nor a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimsHeader {
    /// The claims' own counter.
    pub index: Index,
    /// The fence of the newest grant.
    pub last_fence: u64,
    /// No pool that was forgotten had made more grants. New pools count from here.
    pub granted_floor: u64,
}

/// All pools and claims.
#[derive(Debug, Clone, Default)]
pub(super) struct Claims {
    pub(super) header: ClaimsHeader,
    /// By the folded name of the service.
    pools: OrdMap<Arc<str>, Arc<Pool>>,
    /// By number.
    rows: OrdMap<u64, Arc<Claim>>,
    /// By number.
    closed: OrdMap<u64, Arc<ClosedSlot>>,
    /// Derived: in which pool an instance is.
    places: OrdMap<Place, Arc<str>>,
    /// Derived: how many slots of an instance are closed.
    closed_at: OrdMap<Place, u32>,
    /// Derived: claims by id.
    ids: OrdMap<Arc<str>, u64>,
    /// Derived: claims that have an instance, by fence.
    fences: OrdMap<u64, u64>,
    /// Derived: claims that are not over, by the fence of an offer that was taken back.
    void: OrdMap<u64, u64>,
    /// Derived: claims by the requests that wait for them.
    attachments: OrdMap<Attachment, u64>,
    /// Derived: claims that are not over, by session.
    by_session: OrdMap<Arc<str>, OrdSet<u64>>,
    /// Derived: how many claims of each holder wait.
    holders: OrdMap<Arc<str>, usize>,
    /// Derived: how many claims wait.
    waiting: usize,
    /// Derived: claims that are over, oldest first.
    ended: OrdSet<(ClusterTime, u64)>,
    /// Derived: pools without instances.
    empty: OrdSet<Arc<str>>,
}

impl Claims {
    fn by_id(&self, id: &str) -> Option<&Arc<Claim>> {
        self.rows.get(self.ids.get(id)?)
    }

    pub(super) fn closed_slot(&self, number: u64) -> Option<&ClosedSlot> {
        self.closed.get(&number).map(|slot| &**slot)
    }

    /// The counter of a pool; that of all claims where there is none.
    pub(super) fn pool_index(&self, key: &str) -> Index {
        self.pools.get(key).map_or(self.header.index, |pool| pool.counts.index)
    }

    /// The counter of a claim; that of all claims where there is none.
    pub(super) fn claim_index(&self, id: &str) -> Index {
        self.by_id(id).map_or(self.header.index, |row| row.index)
    }

    fn pool_mut(&mut self, key: &str) -> Option<&mut Pool> {
        self.pools.get_mut(key).map(Arc::make_mut)
    }

    /// Writes a claim that is new, or anew, and everything that is derived from it.
    fn put(&mut self, row: Claim) {
        self.unfile(row.number);
        self.file(&row);
        self.rows.insert(row.number, Arc::new(row));
    }

    fn file(&mut self, row: &Claim) {
        let number = row.number;
        self.ids.insert(row.id.clone(), number);
        for attachment in &row.attachments {
            self.attachments.insert(*attachment, number);
        }
        if row.void > 0 && row.ended().is_none() {
            self.void.insert(row.void, number);
        }
        if !row.session.is_empty() && row.ended().is_none() {
            self.by_session.entry(row.session.clone()).or_default().insert(number);
        }
        match &row.phase {
            ClaimPhase::Queued { .. } => {
                *self.holders.entry(row.holder.clone()).or_default() += 1;
                self.waiting += 1;
                if let Some(pool) = self.pool_mut(&fold(&row.service)) {
                    pool.enqueue(row);
                }
            }
            ClaimPhase::Granted(grant) => {
                self.fences.insert(grant.fence, number);
                self.edit_member(&place_of(grant), |member| {
                    member.busy.insert(grant.fence, number);
                });
            }
            ClaimPhase::Ended { at, .. } => drop(self.ended.insert((*at, number))),
        }
    }

    /// Takes away what is derived from a claim.
    fn unfile(&mut self, number: u64) {
        let Some(row) = self.rows.get(&number).cloned() else { return };
        self.ids.remove(&row.id);
        for attachment in &row.attachments {
            self.attachments.remove(attachment);
        }
        self.void.remove(&row.void);
        if let Some(claims) = self.by_session.get_mut(&row.session) {
            claims.remove(&number);
            if claims.is_empty() {
                self.by_session.remove(&row.session);
            }
        }
        match &row.phase {
            ClaimPhase::Queued { .. } => {
                self.count_holder_out(&row.holder);
                self.waiting -= 1;
                if let Some(pool) = self.pool_mut(&fold(&row.service)) {
                    pool.dequeue(&row);
                }
            }
            ClaimPhase::Granted(grant) => {
                self.fences.remove(&grant.fence);
                self.edit_member(&place_of(grant), |member| {
                    member.busy.remove(&grant.fence);
                });
            }
            ClaimPhase::Ended { at, .. } => drop(self.ended.remove(&(*at, number))),
        }
    }

    fn count_holder_out(&mut self, holder: &Arc<str>) {
        let Some(count) = self.holders.get_mut(holder) else { return };
        *count -= 1;
        if *count == 0 {
            self.holders.remove(holder);
        }
    }

    /// Drops a line of a pool in which nobody waits.
    fn close_line(&mut self, key: &str, require: &TextMap) {
        if let Some(pool) = self.pool_mut(key) {
            pool.close_line(require);
        }
    }

    /// Changes an instance of a pool, which may change its place in the order of choice.
    fn edit_member(&mut self, place: &Place, edit: impl FnOnce(&mut pool::Member)) {
        let Some(key) = self.places.get(place).cloned() else { return };
        if let Some(pool) = self.pool_mut(&key) {
            pool.edit(place, edit);
        }
    }

    /// Writes an instance of a pool, which is founded if need be.
    fn put_member(&mut self, key: &Arc<str>, place: &Place, member: pool::Member) {
        self.places.insert(place.clone(), key.clone());
        if !self.pools.contains_key(key) {
            let name = member.row.definition.name.clone();
            let counts = PoolCounts {
                index: self.header.index,
                granted: self.header.granted_floor,
                ..PoolCounts::default()
            };
            self.pools.insert(key.clone(), Arc::new(Pool::new(name, counts)));
        }
        self.empty.remove(key);
        if let Some(pool) = self.pool_mut(key) {
            pool.put(place, member);
        }
    }

    fn remove_member(&mut self, key: &Arc<str>, place: &Place) {
        self.places.remove(place);
        let Some(pool) = self.pool_mut(key) else { return };
        pool.remove(place);
        if pool.is_empty() {
            self.empty.insert(key.clone());
        }
    }

    /// Forgets pools without instances that are too many.
    fn forget_empty_pools(&mut self) {
        while self.empty.len() > EMPTY_POOLS_MAX
            && let Some(key) = self.empty.get_min().cloned()
        {
            self.empty.remove(&key);
            if let Some(pool) = self.pools.remove(&key) {
                let floor = &mut self.header.granted_floor;
                *floor = pool.counts.granted.max(*floor);
            }
        }
    }

    /// When the next claim that is over is forgotten.
    pub(super) fn next_forgetting(&self) -> Option<ClusterTime> {
        self.ended.get_min().map(|(at, _)| *at + ENDED_KEPT)
    }

    /// Forgets claims that were over for long enough, at most `left`.
    pub(super) fn forget_ended(&mut self, limit: ClusterTime, left: &mut u32) {
        while *left > 0 && self.next_forgetting().is_some_and(|at| at <= limit) {
            self.forget_oldest();
            *left -= 1;
        }
    }

    fn forget_oldest(&mut self) {
        let Some((_, number)) = self.ended.get_min().copied() else { return };
        self.unfile(number);
        self.rows.remove(&number);
    }

    fn of_server(&self, origin: NodeId) -> impl Iterator<Item = (Attachment, u64)> {
        let first = Attachment { origin, incarnation: 0, seq: 0 };
        let last = Attachment { origin, incarnation: u64::MAX, seq: u64::MAX };
        self.attachments.range(first..=last).map(|(attachment, number)| (*attachment, *number))
    }

    /// The deadline of a claim: of its place, of its offer, or of its holder's silence.
    pub(super) fn deadline(&self, number: u64) -> Option<ClusterTime> {
        let row = self.rows.get(&number)?;
        match &row.phase {
            ClaimPhase::Queued { detached } => detached.map(|since| since + DETACHED_MAX),
            ClaimPhase::Granted(grant) if grant.is_offer => Some(grant.since + offer_span(row)),
            ClaimPhase::Granted(grant) => (!row.ttl.is_zero()).then(|| grant.heard + row.ttl),
            ClaimPhase::Ended { .. } => None,
        }
    }

    /// Why that deadline has come.
    pub(super) fn cause_of_deadline(&self, number: u64) -> Cause {
        let none = Cause::Silence { last_heard: ClusterTime::ZERO, ttl: Millis::ZERO };
        let Some(row) = self.rows.get(&number) else { return none };
        let (last_heard, ttl) = match &row.phase {
            ClaimPhase::Queued { detached } => (detached.unwrap_or_default(), DETACHED_MAX),
            ClaimPhase::Granted(grant) if grant.is_offer => (grant.since, offer_span(row)),
            ClaimPhase::Granted(grant) => (grant.heard, row.ttl),
            ClaimPhase::Ended { at, .. } => (*at, Millis::ZERO),
        };
        Cause::Silence { last_heard, ttl }
    }
}

/// How long the grant of a claim is an offer.
fn offer_span(row: &Claim) -> Millis {
    if row.ttl.is_zero() { OFFER_MAX } else { row.ttl.min(OFFER_MAX) }
}

fn place_of(grant: &Grant) -> Place {
    (grant.node.clone(), grant.id.clone())
}

impl State {
    /// A claim by its id, as long as it is remembered.
    #[must_use]
    pub fn claim(&self, id: &str) -> Option<&Arc<Claim>> {
        self.claims.by_id(id)
    }

    /// An upper bound of the claims that come before one that waits.
    #[must_use]
    pub fn ahead_of(&self, claim: &Claim) -> u64 {
        self.pool(&claim.service).map_or(0, |pool| pool.ahead_of(claim.position))
    }

    /// The claims' own counter.
    #[must_use]
    pub fn claims_index(&self) -> Index {
        self.claims.header.index
    }

    /// How many claims wait, in all pools.
    #[must_use]
    pub fn claims_waiting(&self) -> usize {
        self.claims.waiting
    }

    /// All grants whose claims are not over, by fence.
    pub fn grants(&self) -> impl Iterator<Item = &Grant> {
        let claims = self.claims.fences.values();
        claims.filter_map(|number| self.claims.rows.get(number)?.grant())
    }

    /// The pool of a service (name in any case).
    #[must_use]
    pub fn pool(&self, service: &str) -> Option<&Pool> {
        self.claims.pools.get(&*fold(service)).map(|pool| &**pool)
    }

    /// All pools, by name; those without instances too.
    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.claims.pools.values().map(|pool| &**pool)
    }

    /// The claims that wait in a pool, first come first.
    pub fn waiters<'a>(&'a self, pool: &'a Pool) -> impl Iterator<Item = &'a Arc<Claim>> {
        pool.queue().filter_map(|number| self.claims.rows.get(&number))
    }

    /// The claim with this number, as long as it is remembered.
    #[must_use]
    pub fn claim_numbered(&self, number: u64) -> Option<&Arc<Claim>> {
        self.claims.rows.get(&number)
    }

    /// The instance of a grant, if it is still there.
    #[must_use]
    pub fn claimed_instance(&self, grant: &Grant) -> Option<&Arc<Service>> {
        self.service(&grant.node, &grant.id)
    }

    /// The requests of one boot of a server that wait for a claim.
    pub fn requests_of(
        &self,
        server: NodeId,
        incarnation: u64,
    ) -> impl Iterator<Item = (Attachment, u64)> {
        let all = self.claims.of_server(server);
        all.filter(move |(attachment, _)| attachment.incarnation == incarnation)
    }

    /// What an instance of a pool has beside its row.
    pub(super) fn pool_members(&self) -> impl Iterator<Item = (&Place, PoolMember)> {
        let pools = self.claims.pools.values();
        pools.flat_map(|pool| pool.members().map(|(place, member)| (place, member.kept)))
    }

    /// The names of all pools with what they count.
    pub(super) fn pool_counts(&self) -> impl Iterator<Item = (&Arc<str>, PoolCounts)> {
        self.claims.pools.values().map(|pool| (pool.name(), pool.counts))
    }

    pub(super) fn claim_rows(&self) -> impl Iterator<Item = &Arc<Claim>> {
        self.claims.rows.values()
    }

    pub(super) fn closed_slots(&self) -> impl Iterator<Item = (u64, &Arc<ClosedSlot>)> {
        self.claims.closed.iter().map(|(number, slot)| (*number, slot))
    }
}

impl Change<'_> {
    /// Runs a command.
    pub(super) fn run_claims(
        &mut self,
        id: CommandId,
        command: &ClaimsCommand,
    ) -> Result<Outcome, Rejection> {
        match command {
            ClaimsCommand::Claim(request) => return self.claim(id, request),
            ClaimsCommand::Renew { id, seen, fence } => {
                return self.renew_claim(id, *seen, *fence);
            }
            ClaimsCommand::Release { id } => return self.release_claim(id),
            ClaimsCommand::Withdraw { id: claim, seq } => {
                return Ok(self.withdraw_request(id, claim, *seq));
            }
            ClaimsCommand::Detached { seqs } => self.detach_requests(id, seqs),
            ClaimsCommand::Collected { fences } => self.collect_offers(fences),
            ClaimsCommand::Force { service, fence } => return self.force_release(service, *fence),
        }
        Ok(Outcome::Done)
    }

    /// Moves the index of a pool or a claim. All that a change touches gets the same one.
    pub(super) fn touch_claims(&mut self, topic: &Topic) {
        let claims = &mut self.state.claims;
        let index = *self.pending.index.get_or_insert_with(|| claims.header.index.next());
        claims.header.index = index;
        match topic {
            Topic::Pool(name) => {
                if let Some(pool) = claims.pool_mut(name) {
                    pool.counts.index = index;
                }
            }
            Topic::Claim(id) => {
                if let Some(number) = claims.ids.get(id).copied()
                    && let Some(row) = claims.rows.get_mut(&number)
                {
                    Arc::make_mut(row).index = index;
                }
            }
            _ => {}
        }
    }

    fn touch_claim(&mut self, row: &Claim) {
        self.touch(Topic::Claim(row.id.clone()));
        self.touch(Topic::Pool(fold_arc(&row.service)));
    }
}
