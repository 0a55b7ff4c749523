//! The cross-check of all tables: what must hold after every entry.
//!
//! It is far too slow for a running node; tests call it after every batch.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::State;
use super::catalog::{Slot, fold_arc};
use super::deadline::Owner;
use super::events::EVENTS_MAX;
use super::kv::Grave;
use crate::index::fold;
use crate::record::{Check, Indexes, NodeKind, SERF_HEALTH, Standing, WorkerId};

/// Fails with a sentence when a condition does not hold.
macro_rules! ensure {
    ($condition:expr, $($sentence:tt)*) => {
        if !$condition {
            return Err(format!($($sentence)*));
        }
    };
}

impl State {
    /// Cross-checks all tables and derived structures.
    ///
    /// # Errors
    /// A sentence that names the first thing that does not fit.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.check_nodes()?;
        self.check_names()?;
        self.check_ids()?;
        self.check_sessions()?;
        self.check_keys()?;
        self.check_graves()?;
        self.check_numbers()?;
        self.check_probes()?;
        self.check_presences()?;
        self.check_claims()?;
        self.check_workers()?;
        self.acl.check()?;
        self.check_origins()?;
        self.check_later_tables()?;
        self.history.check()?;
        self.check_tables()
    }

    fn check_nodes(&self) -> Result<(), String> {
        for (key, slot) in &self.catalog.nodes {
            ensure!(*key == fold_arc(&slot.node.name), "node {key} is filed under a wrong name");
            self.check_indexes(&format!("node {key}"), slot.node.indexes)?;
            ensure!(
                slot.index <= self.topics.nodes.max(self.topics.services),
                "node {key} is newer than its tables"
            );
            let idle = slot.node.kind == NodeKind::Agent && slot.is_idle();
            ensure!(slot.idle_since.is_some() == idle, "node {key} has a wrong idle time");
            for (id, row) in &slot.services {
                ensure!(
                    fold_arc(&row.node) == *key && row.definition.id == *id,
                    "service {id} is misfiled"
                );
                self.check_indexes(&format!("service {id}"), row.indexes)?;
            }
            for (id, row) in &slot.checks {
                ensure!(
                    fold_arc(&row.node) == *key && row.registration.id == *id,
                    "check {id} is misfiled"
                );
                self.check_check(slot, row)?;
            }
            check_by_service(slot)?;
        }
        Ok(())
    }

    fn check_check(&self, slot: &Slot, row: &Check) -> Result<(), String> {
        let id = &row.registration.id;
        self.check_indexes(&format!("check {id}"), row.indexes)?;
        let is_critical = row.registration.status == crate::record::CheckStatus::Critical;
        ensure!(
            row.critical_since.is_some() == is_critical,
            "check {id} has a wrong critical time"
        );
        ensure!(row.critical_since <= Some(self.time), "check {id} turns critical in the future");
        let has_ttl = !row.registration.definition.ttl.is_zero();
        ensure!(
            row.said.is_none()
                || (has_ttl && row.registration.status != crate::record::CheckStatus::Passing),
            "check {id} is silent, which does not show"
        );
        ensure!(
            self.heard.contains(row.number) == has_ttl,
            "check {id} has a wrong last heartbeat"
        );
        if row.registration.service_id.is_empty() {
            ensure!(
                row.service_name.is_empty() && row.service_tags.is_empty(),
                "node check {id} has a service"
            );
            return Ok(());
        }
        let service = slot.services.get(&row.registration.service_id);
        let Some(service) = service else { return Err(format!("check {id} has lost its service")) };
        ensure!(
            row.service_name == service.definition.name
                && row.service_tags == service.definition.tags,
            "check {id} repeats an old name or old tags of its service"
        );
        Ok(())
    }

    fn check_names(&self) -> Result<(), String> {
        let mut filed = 0;
        for (name, named) in &self.catalog.names {
            ensure!(!named.instances.is_empty(), "service {name} has no instances");
            ensure!(named.index <= self.index, "service {name} has an index from the future");
            for ((node, id), row) in &named.instances {
                let stored = self.catalog.nodes.get(node).and_then(|slot| slot.services.get(id));
                ensure!(stored == Some(row), "instance {id} on {node} differs from its row");
                ensure!(fold_arc(&row.definition.name) == *name, "instance {id} has another name");
                ensure!(
                    row.indexes.modify <= named.index,
                    "instance {id} is newer than its service"
                );
                filed += 1;
            }
        }
        ensure!(filed == self.services().count(), "an instance is not found by its name");
        Ok(())
    }

    fn check_ids(&self) -> Result<(), String> {
        let mut node_ids = OrdMap::new();
        let mut service_ids: OrdMap<Arc<str>, OrdSet<Arc<str>>> = OrdMap::new();
        let mut check_ids: OrdMap<Arc<str>, OrdSet<Arc<str>>> = OrdMap::new();
        for (key, slot) in &self.catalog.nodes {
            if !slot.node.id.is_empty() {
                let other = node_ids.insert(Arc::from(fold(&slot.node.id)), key.clone());
                ensure!(other.is_none(), "two nodes have the id {}", slot.node.id);
            }
            for id in slot.services.keys() {
                service_ids.entry(id.clone()).or_default().insert(key.clone());
            }
            for id in slot.checks.keys().filter(|id| &***id != SERF_HEALTH) {
                check_ids.entry(id.clone()).or_default().insert(key.clone());
            }
        }
        ensure!(node_ids == self.catalog.node_ids, "nodes are found by wrong ids");
        ensure!(service_ids == self.catalog.service_ids, "services are found by wrong ids");
        ensure!(check_ids == self.catalog.check_ids, "checks are found by wrong ids");
        Ok(())
    }

    fn check_sessions(&self) -> Result<(), String> {
        let mut needed = 0;
        for (id, row) in &self.sessions {
            ensure!(row.id == *id, "session {id} is misfiled");
            self.check_indexes(&format!("session {id}"), row.indexes)?;
            let slot = self.catalog.slot(&row.node);
            let Some(slot) = slot else { return Err(format!("session {id} has lost its node")) };
            ensure!(slot.sessions.contains(id), "session {id} is not found on its node");
            needed += row.needed_checks().collect::<BTreeSet<_>>().len();
            for check in row.needed_checks() {
                let needing = slot.sessions_by_check.get(check);
                ensure!(
                    needing.is_some_and(|needing| needing.contains(id)),
                    "session {id} is not found by its check {check}"
                );
                let found = slot.checks.get(check);
                ensure!(
                    found.is_some_and(|found| found.critical_since.is_none()),
                    "session {id} outlived its check {check}"
                );
            }
            let has_ttl = !row.ttl.is_zero();
            ensure!(
                self.heard.contains(row.number) == has_ttl,
                "session {id} has a wrong last renewal"
            );
        }
        let bound: usize = self.catalog.nodes.values().map(|slot| slot.sessions.len()).sum();
        ensure!(bound == self.sessions.len(), "a node keeps a session that is gone");
        let by_check =
            || self.catalog.nodes.values().flat_map(|slot| slot.sessions_by_check.values());
        ensure!(
            by_check().map(OrdSet::len).sum::<usize>() == needed
                && by_check().all(|ids| !ids.is_empty()),
            "a check keeps a session that does not need it"
        );
        Ok(())
    }

    fn check_keys(&self) -> Result<(), String> {
        let mut held: OrdMap<Arc<str>, OrdSet<Arc<str>>> = OrdMap::new();
        let keys = self.kv.entries.iter().map(|row| &row.key);
        ensure!(keys.is_sorted_by(|a, b| a < b), "keys are out of order");
        for row in self.kv.entries.iter() {
            let key = &row.key;
            self.check_indexes(&format!("key {key}"), row.indexes)?;
            ensure!(row.indexes.modify <= self.topics.kv, "key {key} is newer than its table");
            if let Some(holder) = &row.session {
                ensure!(self.sessions.contains_key(holder), "key {key} is held by no session");
                held.entry(holder.clone()).or_default().insert(key.clone());
            }
        }
        ensure!(held == self.kv.held, "sessions hold other keys than they should");
        Ok(())
    }

    fn check_graves(&self) -> Result<(), String> {
        let mut graves = OrdSet::new();
        for Grave { key, tombstone: grave } in self.kv.tombstones.iter() {
            ensure!(!self.kv.entries.contains_key(key), "key {key} exists and has a tombstone");
            ensure!(grave.index <= self.topics.kv, "tombstone of {key} is newer than its table");
            graves.insert((grave.index, key.clone()));
        }
        ensure!(graves == self.kv.graves, "tombstones are queued wrongly");
        let mut cut = OrdSet::new();
        for Grave { key, tombstone: grave } in self.kv.cut.iter() {
            ensure!(grave.index <= self.topics.kv, "the end of {key} is newer than its table");
            cut.insert((grave.index, key.clone()));
        }
        ensure!(cut == self.kv.cut_graves, "deleted prefixes are queued wrongly");
        ensure!(self.topics.kv_floor <= self.topics.kv, "the floor is above the table");
        let ends: OrdSet<_> =
            self.kv.lock_delays.iter().map(|(key, until)| (*until, key.clone())).collect();
        ensure!(ends == self.kv.delay_ends, "lock delays are queued wrongly");
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), String> {
        let nodes =
            self.catalog.nodes.iter().map(|(key, slot)| (slot.number, Owner::Node(key.clone())));
        let checks = self.checks().map(|row| {
            (
                row.number,
                Owner::Check { node: fold_arc(&row.node), id: row.registration.id.clone() },
            )
        });
        let sessions = self.sessions().map(|row| (row.number, Owner::Session(row.id.clone())));
        let claims = self.claim_rows().filter(|row| row.ended().is_none());
        let claims = claims.map(|row| (row.number, Owner::Claim));
        let closed = self.closed_slots().map(|(number, _)| (number, Owner::ClosedSlot));
        let workers = self.workers().map(|(id, row)| (row.number, Owner::Worker(id.clone())));
        let tokens = self.acl.tokens().map(|row| (row.number, Owner::Token(row.accessor.clone())));
        let others = claims.chain(closed).chain(workers).chain(tokens);
        let mut owners: Vec<(u64, Owner)> =
            nodes.chain(checks).chain(sessions).chain(others).collect();
        owners.sort_by_key(|(number, _)| *number);
        ensure!(
            owners.iter().map(|(number, owner)| (*number, owner)).eq(self.deadlines.owners()),
            "numbers have wrong owners"
        );
        ensure!(
            owners.last().is_none_or(|(number, _)| *number <= self.last_number),
            "a number from the future"
        );
        ensure!(self.deadlines.is_consistent(), "queue and schedule of deadlines differ");
        for number in self.facts.keys() {
            let is_renewed = self.heard.contains(*number) || self.presence(*number).is_some();
            ensure!(is_renewed, "facts of {number}, which nobody renews");
            ensure!(self.check_numbered(*number).is_some(), "facts of {number}, which is no check");
        }
        for (number, owner) in owners {
            let truth = self.true_deadline(number);
            let scheduled = self.deadlines.scheduled(number);
            ensure!(
                truth.is_none() || scheduled.is_some_and(|scheduled| Some(scheduled) <= truth),
                "{owner:?} is due at {truth:?}, but comes up at {scheduled:?}"
            );
        }
        Ok(())
    }

    fn check_probes(&self) -> Result<(), String> {
        let mut given = OrdSet::new();
        for (check, probe) in self.probes.iter() {
            let row = self.check_numbered(check);
            let Some(row) = row else { return Err(format!("probe {probe} has lost its check")) };
            ensure!(row.registration.definition.is_run(), "check {check} cannot be run");
            ensure!(probe <= self.last_number, "probe {probe} is from the future");
            ensure!(self.deadlines.owner(probe).is_none(), "probe {probe} is something else too");
            ensure!(given.insert(probe).is_none(), "probe {probe} is that of two checks");
        }
        Ok(())
    }

    fn check_presences(&self) -> Result<(), String> {
        ensure!(self.presences.is_consistent(), "leases and presences differ");
        for (check, row) in self.presences.iter() {
            ensure!(self.is_presence_check(check), "presence {check} has lost its check");
            ensure!(
                row.replaced.iter().all(|at| *at <= self.time),
                "presence {check} was replaced in the future"
            );
        }
        Ok(())
    }

    fn check_workers(&self) -> Result<(), String> {
        let set = self.worker_set();
        for (id, row) in self.workers() {
            let is_away = matches!(row.standing, Standing::Away { .. });
            let Some(process) = &row.process else { continue };
            ensure!(
                is_away || self.is_lease_held(process.lease),
                "worker {id:?} is there without a lease"
            );
        }
        for (check, views) in &self.workers.views {
            ensure!(
                self.probes.get(*check) == Some(views.probe),
                "views of {check} are of another probe"
            );
            let Some(row) = self.check_numbered(*check) else { continue };
            let workers = set.responsible(row, self.host_of(row));
            let is_own = |worker: &WorkerId| workers.iter().any(|one| one.id == *worker);
            ensure!(
                views.all.iter().all(|view| is_own(&view.worker)),
                "a view of {check} is of a worker that is not responsible"
            );
        }
        for network in self.workers.empty.keys() {
            ensure!(!set.has_network(network), "network {network} has a worker");
        }
        Ok(())
    }

    fn check_origins(&self) -> Result<(), String> {
        for (id, record) in &self.origins.records {
            ensure!(
                record.lowest().is_none_or(|seq| seq > record.floor),
                "server {id} remembers below its floor"
            );
            let mut before = record.floor;
            for (first, last) in &record.answered {
                ensure!(
                    first <= last && *first > before.saturating_add(1),
                    "server {id} has runs of answers that touch at {first}"
                );
                ensure!(
                    record.outcomes.range(*first..=*last).next().is_none(),
                    "server {id} remembers what it answered from {first} on"
                );
                before = *last;
            }
        }
        for (id, row) in self.boots() {
            let given = self.origins.records.get(&id).map_or(0, |record| record.incarnation);
            ensure!(
                row.incarnation <= given,
                "server {id} runs as incarnation {}, which was never given",
                row.incarnation
            );
        }
        Ok(())
    }

    fn check_later_tables(&self) -> Result<(), String> {
        ensure!(self.events.len() <= EVENTS_MAX, "{} events are too many", self.events.len());
        let times = self.events.iter().map(|row| row.time);
        ensure!(times.clone().is_sorted(), "events are out of order");
        ensure!(times.max() <= Some(self.tables.last_event), "an event from the future");
        for node in self.coordinates.keys() {
            ensure!(self.catalog.nodes.contains_key(node), "a coordinate of no node: {node}");
        }
        for (id, row) in &self.queries {
            ensure!(row.definition.id == *id, "query {id} is misfiled");
            self.check_indexes(&format!("query {id}"), row.indexes)?;
            let session = &row.definition.session;
            ensure!(
                session.is_empty() || self.sessions.contains_key(session),
                "query {id} outlived its session"
            );
        }
        Ok(())
    }

    fn check_tables(&self) -> Result<(), String> {
        let newest = [
            self.topics.nodes,
            self.topics.services,
            self.topics.checks,
            self.topics.sessions,
            self.topics.kv,
            self.tables.events,
            self.tables.coordinates,
            self.tables.queries,
            self.acl_index(),
        ];
        ensure!(newest.iter().all(|index| *index <= self.index), "a table is newer than the state");
        if let Some(row) = &self.autopilot {
            self.check_indexes("autopilot", row.indexes)?;
        }
        Ok(())
    }

    fn check_indexes(&self, what: &str, indexes: Indexes) -> Result<(), String> {
        ensure!(
            indexes.create <= indexes.modify && indexes.modify <= self.index,
            "{what} has indexes out of order: {indexes:?}"
        );
        Ok(())
    }
}

/// The map of checks by service holds the same rows as the map by id.
fn check_by_service(slot: &Slot) -> Result<(), String> {
    let mut by_service: OrdMap<Arc<str>, OrdMap<Arc<str>, Arc<Check>>> = OrdMap::new();
    for (id, row) in &slot.checks {
        let service = row.registration.service_id.clone();
        by_service.entry(service).or_default().insert(id.clone(), row.clone());
    }
    ensure!(
        by_service == slot.checks_by_service,
        "checks of {} are filed under wrong services",
        slot.node.name
    );
    Ok(())
}
