//! Requests: to claim an instance, to join a claim that was asked for before, to leave.

use std::sync::Arc;

use crate::Topic;
use crate::command::{ClaimLimit, ClaimRequest, CommandId, Outcome, Rejection};
use crate::ids::NodeId;
use crate::index::fold;
use crate::record::{
    ATTACHMENTS_MAX, Attachment, Claim, ClaimEnd, ClaimPhase, HistoryKind, TextMap, WAITERS_MAX,
    WAITERS_PER_HOLDER_MAX, WAITERS_PER_POOL_MAX,
};
use crate::state::State;
use crate::state::catalog::{Place, fold_arc};
use crate::state::change::Change;
use crate::state::claims::Pool;
use crate::state::deadline::Owner;

impl Change<'_> {
    /// Claims an instance of a pool: it is granted, or waits, if the request does.
    pub(in crate::state) fn claim(
        &mut self,
        id: CommandId,
        what: &ClaimRequest,
    ) -> Result<Outcome, Rejection> {
        let CommandId { origin, incarnation, seq } = id;
        let attachment = Attachment { origin, incarnation, seq };
        if let Some(row) = self.state.claims.by_id(&what.id).cloned() {
            return self.join(&row, attachment, what);
        }
        if !what.session.is_empty() && !self.state.sessions.contains_key(&what.session) {
            return Err(Rejection::InvalidSession(what.session.to_string()));
        }
        let key = fold_arc(&what.service);
        let none = || Rejection::NotInPool(what.service.to_string());
        let pool = self.state.claims.pool_mut(&key).filter(|pool| pool.size() > 0);
        let pool = pool.ok_or_else(none)?;
        let is_within = pool.open_line(&what.require);
        let choice = self.state.choose(&key, &what.require, &what.prefer);
        if choice.is_none() {
            let admitted = self.state.admit_waiter(&key, what);
            // Who needs not wait needs no line.
            let limit = Rejection::ClaimsFull(ClaimLimit::Requires);
            let admitted = admitted.and(if is_within { Ok(()) } else { Err(limit) });
            if admitted.is_err() && !is_within {
                self.state.claims.close_line(&key, &what.require);
            }
            admitted?;
        }
        let row = self.new_claim(&key, what, attachment);
        let number = row.number;
        self.state.deadlines.own(number, Owner::Claim);
        self.state.claims.put(row);
        self.state.schedule(number);
        match choice {
            Some(place) => self.grant(number, &place),
            None => self.show_claim(number, HistoryKind::ClaimQueued),
        }
        Ok(Outcome::Done)
    }

    fn new_claim(&mut self, key: &str, what: &ClaimRequest, attachment: Attachment) -> Claim {
        let number = self.next_number();
        let position = self.state.claims.pool_mut(key).map_or(0, |pool| {
            pool.counts.last_position += 1;
            pool.counts.last_position
        });
        let attachments = match self.state.is_server_lost(attachment.origin) {
            true => Vec::new(),
            false => vec![attachment],
        };
        let detached = attachments.is_empty().then(|| self.time());
        let ClaimRequest { id, service, holder, ttl, session, require, prefer, waits: _ } =
            what.clone();
        Claim {
            id,
            number,
            service,
            holder,
            ttl,
            session,
            require,
            prefer,
            position,
            asked: self.time(),
            phase: ClaimPhase::Queued { detached },
            attachments,
            index: self.state.claims.header.index,
            void: 0,
        }
    }

    /// The same claim is asked for again, perhaps through another server.
    fn join(
        &mut self,
        row: &Claim,
        attachment: Attachment,
        what: &ClaimRequest,
    ) -> Result<Outcome, Rejection> {
        if fold(&row.service) != fold(&what.service) || row.holder != what.holder {
            return Err(Rejection::ClaimIdTaken(row.id.to_string()));
        }
        let mut row = row.clone();
        match &mut row.phase {
            ClaimPhase::Ended { why, .. } => {
                return Err(Rejection::ClaimOver { id: row.id.to_string(), why: *why });
            }
            // Its client knows already, or asks again because it does not: then this tells it.
            ClaimPhase::Granted(grant) if !grant.is_offer => return Ok(Outcome::Done),
            ClaimPhase::Granted(_) => {}
            ClaimPhase::Queued { detached } => *detached = None,
        }
        if row.attachments.len() >= ATTACHMENTS_MAX {
            return Err(Rejection::ClaimsFull(ClaimLimit::Attachments));
        }
        row.attachments.push(attachment);
        // Who asks does not work with anything that it was told of before.
        row.void = 0;
        let number = row.number;
        self.pending.pools.insert(fold_arc(&row.service));
        self.state.claims.put(row);
        self.state.schedule(number);
        Ok(Outcome::Done)
    }

    /// A request has waited for as long as it was to. Says whether it is told that there was nothing; `false`
    /// where its claim has come to something else meanwhile.
    pub(in crate::state) fn withdraw_request(
        &mut self,
        id: CommandId,
        claim: &str,
        seq: u64,
    ) -> Outcome {
        let row = self.state.claims.by_id(claim).cloned();
        let Some(row) = row.filter(|row| row.is_queued()) else { return Outcome::Condition(false) };
        let CommandId { origin, incarnation, .. } = id;
        let own = Attachment { origin, incarnation, seq };
        let others = row.attachments.iter().filter(|attachment| **attachment != own);
        let attachments: Vec<Attachment> = others.copied().collect();
        if attachments.is_empty() {
            self.end_claim(row.number, ClaimEnd::Withdrawn);
        } else {
            self.state.claims.put(Claim { attachments, ..row.as_ref().clone() });
        }
        Outcome::Condition(true)
    }

    /// Requests of a server whose clients have gone, and were told nothing. An offer that no other request waits
    /// for is void at once.
    pub(in crate::state) fn detach_requests(&mut self, id: CommandId, seqs: &[u64]) {
        let CommandId { origin, incarnation, .. } = id;
        for seq in seqs {
            let own = Attachment { origin, incarnation, seq: *seq };
            let number = self.state.claims.attachments.get(&own).copied();
            self.state.detach(own);
            let row = number.and_then(|number| self.state.claims.rows.get(&number)).cloned();
            let is_void = |row: &Arc<Claim>| {
                row.attachments.is_empty() && row.grant().is_some_and(|grant| grant.is_offer)
            };
            if let Some(row) = row.filter(is_void) {
                self.take_back(&row, true);
            }
        }
    }

    /// A server is lost, and its requests with it. If it is not, it asks again.
    pub(in crate::state) fn lose_requests(&mut self, server: NodeId) {
        for number in self.state.lose_attachments(server, None) {
            if let Some(row) = self.state.claims.rows.get(&number).cloned() {
                self.touch(Topic::Claim(row.id.clone()));
            }
        }
    }
}

impl State {
    /// The instance that a claim gets now, if there is one.
    pub(super) fn choose(&self, key: &str, require: &TextMap, prefer: &str) -> Option<Place> {
        let pool = self.claims.pools.get(key)?;
        let preferred = self.preferred(pool, prefer);
        pool.choose(require, preferred.as_ref())
    }

    /// The instance of a pool with an id. Where several have it, the first by node.
    fn preferred(&self, pool: &Pool, id: &str) -> Option<Place> {
        let (id, nodes) = self.catalog.service_ids.get_key_value(id)?;
        let mut places = nodes.iter().map(|node| (node.clone(), id.clone()));
        places.find(|place| pool.member(place).is_some())
    }

    /// Whether another claim may wait.
    fn admit_waiter(&self, key: &str, what: &ClaimRequest) -> Result<(), Rejection> {
        let Some(pool) = self.claims.pools.get(key) else { return Ok(()) };
        if !what.waits {
            return Err(Rejection::PoolBusy {
                service: what.service.to_string(),
                instances: pool.size() as u64,
                waiting: pool.waiting() as u64,
            });
        }
        let of_holder = self.claims.holders.get(&what.holder).copied().unwrap_or(0);
        let limit = if pool.waiting() >= WAITERS_PER_POOL_MAX {
            ClaimLimit::Pool
        } else if self.claims.waiting >= WAITERS_MAX {
            ClaimLimit::Cluster
        } else if of_holder >= WAITERS_PER_HOLDER_MAX {
            ClaimLimit::Holder
        } else {
            return Ok(());
        };
        Err(Rejection::ClaimsFull(limit))
    }

    /// Takes a request away from its claim.
    fn detach(&mut self, attachment: Attachment) {
        let Some(number) = self.claims.attachments.get(&attachment).copied() else { return };
        let Some(row) = self.claims.rows.get(&number) else { return };
        let mut row = Claim::clone(row);
        row.attachments.retain(|other| *other != attachment);
        if let ClaimPhase::Queued { detached } = &mut row.phase
            && row.attachments.is_empty()
        {
            *detached = Some(self.time);
        }
        self.claims.put(row);
        self.schedule(number);
    }

    /// Takes the requests of one boot of a server away that wait in one pool; returns the numbers of their claims.
    pub(super) fn detach_from_pool(
        &mut self,
        server: NodeId,
        incarnation: u64,
        service: &str,
    ) -> Vec<u64> {
        let waits = |number: &u64| {
            let row = self.claims.rows.get(number);
            row.is_some_and(|row| row.is_queued() && fold(&row.service) == fold(service))
        };
        let requests = self.requests_of(server, incarnation);
        let requests: Vec<(Attachment, u64)> =
            requests.filter(|(_, number)| waits(number)).collect();
        requests.iter().for_each(|(attachment, _)| self.detach(*attachment));
        requests.into_iter().map(|(_, number)| number).collect()
    }

    /// Takes the requests of a server that is gone away, but for those of one boot; returns the numbers of
    /// their claims.
    pub(in crate::state) fn lose_attachments(
        &mut self,
        server: NodeId,
        but: Option<u64>,
    ) -> Vec<u64> {
        let lost = self.claims.of_server(server);
        let lost = lost.filter(|(attachment, _)| Some(attachment.incarnation) != but);
        let lost: Vec<(Attachment, u64)> = lost.collect();
        lost.iter().for_each(|(attachment, _)| self.detach(*attachment));
        lost.into_iter().map(|(_, number)| number).collect()
    }
}
