//! The replicated state: one pure function from a state and an entry to the next state.
//!
//! # What it is
//!
//! [`State`] holds everything the cluster agrees on: the catalogue of nodes, services and checks, the
//! key-value store, sessions, cluster time, the index, and for every server a record of the commands it has
//! sent. [`State::apply`] takes one log entry and returns what should be reported to others ([`Effects`]):
//! the outcome of each command, and the topics that visibly changed. It is deterministic: no I/O, no clock,
//! no randomness, no floating point, no order that depends on hashing. Ids are made at the edge and time by
//! the leader; both travel in the entry. It cannot fail: a refusal is an outcome like any other, the same on
//! every replica.
//!
//! All tables are persistent maps (`imbl`, and one of our own) of shared rows, so a clone costs next to
//! nothing. Readers keep an immutable version while the next entry is applied, and a snapshot is written from
//! a clone.
//!
//! # How an entry is applied
//!
//! 1. Time becomes `max(time, stamp)`.
//! 2. The leader's duty, if any: what is due expires, or tombstones are reaped (`deadline.rs`).
//! 3. The commands, in order. `origin.rs` decides whether a command is new. A new one runs as one `Change`
//!    (`change.rs`), which gives every row it writes the same next index, and reports what it touches. A
//!    command that changes nothing visible leaves the index alone. A refused command changes nothing at all;
//!    commands that may be refused late work on a copy.
//!
//! # Where to find what
//!
//! | file | what |
//! | --- | --- |
//! | `change.rs`, `pending.rs` | one visible change: its index, its topics; what it leaves to do for the pools |
//! | `catalog.rs` | tables of nodes, services, checks, and their derived indexes |
//! | `nodes.rs`, `services.rs`, `checks.rs` | what changes them |
//! | `agent.rs` | agents of clients' hosts: finding by id; the cluster's own servers |
//! | `maintenance.rs` | maintenance of services and hosts; hosts that leave |
//! | `autopilot.rs` | one row of settings |
//! | `kv.rs` | keys, locks, tombstones |
//! | `tree.rs` | the table of keys: one of which a whole range can be cut out |
//! | `session.rs` | sessions and lock delays |
//! | `acl.rs`, `acl/` | tokens, policies and roles; what a set of rules allows; which rights a command needs |
//! | `events.rs`, `coordinates.rs`, `queries.rs` | users' events, network coordinates, prepared queries |
//! | `txn.rs` | several operations as one change |
//! | `probe.rs` | checks that the cluster runs itself |
//! | `workers.rs`, `assignment.rs`, `observers.rs` | who runs them; which of them runs which; what several find of one target |
//! | `presence.rs` | instances that a connection holds |
//! | `claims.rs`, `claims/` | pools of instances, claims on them, and the lines in front of them |
//! | `restore.rs` | a backup in the place of everything |
//! | `beats.rs`, `facts.rs` | heartbeats with facts, and whose they are |
//! | `heard.rs` | when things were last heard of |
//! | `deadline.rs` | what expires, and in which order |
//! | `origin.rs` | exactly once |
//! | `boots.rs` | which process speaks for a server |
//! | `history.rs` | every visible change and its cause |
//! | `level.rs` | which rules are in force while servers are upgraded |
//! | `topic.rs` | the index of each topic |
//! | `read.rs` | what readers ask |
//! | `snapshot_record.rs` | export, import and hash |
//! | `invariants.rs`, `applied.rs` | the cross-check of all tables; the part of it that is cheap |
//!
//! # Stored and derived
//!
//! What is marked "derived" in a table can be rebuilt from the rows; it is neither in a snapshot nor hashed.
//! Everything else is in the records of `snapshot_record.rs`, over which [`State::hash`] runs. A member
//! left out there is not hashed, so the determinism test cannot see that servers differ in it.
//!
//! # What it does not know
//!
//! The Raft log, membership, JSON, HTTP, who is leader, who waits for what.

mod acl;
mod agent;
mod applied;
mod assignment;
mod autopilot;
mod beats;
mod boots;
mod catalog;
mod change;
mod checks;
mod claims;
mod coordinates;
mod deadline;
mod events;
mod facts;
mod heard;
mod history;
mod invariants;
mod kv;
mod level;
mod maintenance;
mod nodes;
mod observers;
mod origin;
mod pending;
mod presence;
mod probe;
mod queries;
mod read;
mod restore;
mod services;
mod session;
mod snapshot_record;
mod topic;
mod tree;
mod txn;
mod workers;

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::{OrdMap, Vector};

pub use self::acl::{AclHeader, Authorizer, POLICIES_MAX, ROLES_MAX, Rights, TOKENS_MAX};
pub use self::agent::{NODE_MAINTENANCE, SERVICE_MAINTENANCE};
pub use self::applied::Before;
pub use self::assignment::{Candidate, WorkerSet, phase_of};
pub use self::boots::ServerBoot;
pub use self::claims::{
    ClaimsHeader, DETACHED_MAX, ENDED_CLAIMS_MAX, ENDED_KEPT, OFFER_MAX, Pool, PoolInstance,
    Prospects,
};
pub use self::heard::Heard;
pub use self::history::{
    CATALOGUE_RECORDS_MAX, HISTORY_BYTES_MAX, History, HistoryHeader, OTHER_RECORDS_MAX, Thread,
};
pub use self::kv::Tombstone;
pub(crate) use self::level::unknown_level;
pub use self::level::{
    ACL_LEVEL, CLAIMS_LEVEL, COMPLETION_LEVEL, FILE_MARK_LEVEL, HEARTBEAT_LEVEL, HISTORY_LEVEL,
    HOSTS_OF_SERVERS, LATE_HEARTBEATS_LEVEL, LEVEL, PRESENCE_LEVEL, PROCESS_PRESENCE_LEVEL,
    SESSION_KEYS_LEVEL, WORKERS_LEVEL, level_of,
};
pub use self::origin::{ANSWERED_PER_NOTE, UsedNumbers};
pub use self::presence::{REPLACED_MAX, SERVER_GRACE};
pub use self::probe::{ProbeChange, Probes};
pub use self::read::InstancePlace;
pub use self::snapshot_record::{Import, SnapshotRecord, StateHeader};
pub use self::topic::{TableIndexes, TopicIndexes};
pub use self::workers::RETURNS_AFTER;

use self::acl::Acl;
use self::boots::Boots;
use self::catalog::{Catalog, fold_arc};
use self::change::Change;
use self::claims::Claims;
use self::deadline::Deadlines;
use self::history::Requests;
use self::kv::Kv;
use self::origin::{Origins, Verdict};
use self::presence::Presences;
use self::restore::Staged;
use self::workers::Workers;
use crate::command::{
    Agent, Batch, CatalogRegistration, Command, CommandId, Duty, Outcome, Part, Rejection, Work,
};
use crate::record::{Autopilot, Cause, Coordinate, Event, Facts, Query, Session};
use crate::release::Bulk;
use crate::{ClusterTime, Index, Topic};

/// What one entry did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// The outcome of each command, in the order of the entry.
    pub outcomes: Vec<(CommandId, Outcome)>,
    /// What visibly changed.
    pub touched: BTreeSet<Topic>,
}

/// Everything the cluster agrees on.
#[derive(Debug, Clone, Default)]
pub struct State {
    time: ClusterTime,
    /// The index of the newest visible change.
    index: Index,
    /// The last number given to a check, session or node. Numbers are never used again.
    last_number: u64,
    topics: TopicIndexes,
    tables: TableIndexes,
    catalog: Catalog,
    kv: Kv,
    sessions: OrdMap<Arc<str>, Arc<Session>>,
    /// Oldest first.
    events: Vector<Arc<Event>>,
    /// By folded name of an existing node.
    coordinates: OrdMap<Arc<str>, Coordinate>,
    /// By id.
    queries: OrdMap<Arc<str>, Arc<Query>>,
    autopilot: Option<Arc<Autopilot>>,
    /// When a TTL check or a session with a TTL was last heard from, by number.
    heard: Heard,
    /// What heartbeats say of processes, by the number of the check that they renew.
    facts: OrdMap<u64, Arc<Facts>>,
    /// Checks that the cluster runs.
    probes: Probes,
    /// Who runs them.
    workers: Workers,
    /// Instances that a connection holds.
    presences: Presences,
    /// Pools of instances, and claims on them.
    claims: Claims,
    /// Derived.
    deadlines: Deadlines,
    origins: Origins,
    /// By server.
    boots: Boots,
    /// A backup that is being handed over.
    staged: Option<Staged>,
    /// The index of the last restore. No topic's is smaller.
    restored: Option<Index>,
    /// Of the rules in force.
    level: u32,
    history: History,
    /// Tokens, policies and roles.
    acl: Acl,
}

impl Bulk for State {
    fn rows(&self) -> usize {
        self.kv.entries.len() + self.deadlines.len()
    }

    fn free(mut self: Box<Self>) -> Vec<Box<dyn Bulk>> {
        let keys = std::mem::take(&mut self.kv.entries);
        vec![Box::new(keys), Box::new(WithoutKeys(self))]
    }
}

/// The rest of a replaced state, without its keys. The other tables cannot tell whether anything still shares
/// them. They are freed later, when a reader that rendered an answer from them has most likely finished.
struct WithoutKeys(Box<State>);

impl Bulk for WithoutKeys {
    fn rows(&self) -> usize {
        self.0.rows()
    }

    fn free(self: Box<Self>) -> Vec<Box<dyn Bulk>> {
        Vec::new()
    }
}

impl State {
    /// Applies one log entry.
    pub fn apply(&mut self, batch: &Batch) -> Effects {
        let mut effects = Effects::default();
        self.time = self.time.max(batch.stamp);
        if let Some(duty) = &batch.duty {
            self.apply_duty(duty, &mut effects);
        }
        for part in &batch.parts {
            self.apply_part(part, &mut effects);
        }
        effects
    }

    fn apply_duty(&mut self, duty: &Duty, effects: &mut Effects) {
        match duty {
            Duty::Expire { up_to, max } => {
                let left = self.expire_due(*up_to, *max, effects);
                self.reap(*up_to, left);
            }
            Duty::Stamped(stamp) => {
                self.note_stamp(stamp);
                if let Some(work) = &stamp.work {
                    self.work(work, effects);
                }
            }
            bare => {
                if let Some(work) = bare.clone().into_work() {
                    self.work(&work, effects);
                }
            }
        }
    }

    fn work(&mut self, work: &Work, effects: &mut Effects) {
        match work {
            Work::ExpireDue { up_to, max } => {
                self.expire_due(*up_to, *max, effects);
            }
            Work::Reap { up_to, max } => self.reap(*up_to, *max),
            Work::Booted(start) => self.record_boot(start),
            Work::LogEnds(all) => self.note_log_ends(all),
            Work::Level(level) => self.raise_level(*level, effects),
        }
    }

    fn apply_part(&mut self, part: &Part, effects: &mut Effects) {
        self.origins.begin(part);
        let mut requests = Requests::default();
        let notes = part.commands.iter().take_while(|(_, command)| command.is_note());
        let permits = notes.clone().find_map(|(_, command)| match command {
            Command::Permits(permits) => Some(permits),
            _ => None,
        });
        let first = notes.count();
        for (place, (seq, command)) in part.commands.iter().enumerate() {
            if let Command::Asked(asked) = command {
                requests = Requests::from(place + 1, asked);
            }
            if command.is_note() {
                continue;
            }
            let id = CommandId { origin: part.origin, incarnation: part.incarnation, seq: *seq };
            let outcome = match self.origins.lookup(id) {
                Verdict::Known(outcome) => outcome,
                Verdict::New => {
                    let cause = self.cause_of(command, part.origin, || requests.of(place));
                    let by = permits.map_or(Ok(None), |permits| permits.of(place - first));
                    let outcome = match by.and_then(|by| self.permit_if_asked(by, command)) {
                        Ok(()) => self.run(id, command, cause, effects),
                        Err(refusal) => Outcome::Rejected(refusal),
                    };
                    self.origins.remember(id, &outcome, self.index);
                    outcome
                }
            };
            effects.outcomes.push((id, outcome));
        }
    }

    /// Runs one command; a refused one leaves no trace.
    fn run(
        &mut self,
        id: CommandId,
        command: &Command,
        cause: Cause,
        effects: &mut Effects,
    ) -> Outcome {
        let before = origin::may_fail_midway(command).then(|| self.clone());
        let mut touched = BTreeSet::new();
        let mut change = Change::new(self, &mut touched, cause);
        match change.run(id, command) {
            Ok(outcome) => {
                change.settle_workers();
                change.settle_pools();
                effects.touched.extend(touched);
                outcome
            }
            Err(refusal) => {
                if let Some(before) = before {
                    *self = before;
                }
                Outcome::Rejected(refusal)
            }
        }
    }
}

impl Change<'_> {
    /// Passes one parsed command to the table that it is about.
    fn run(&mut self, id: CommandId, command: &Command) -> Result<Outcome, Rejection> {
        match command {
            Command::CatalogRegister(what) => self.catalog_register(what)?,
            Command::CatalogDeregister { node, service_id, check_id } => {
                self.catalog_deregister(node, service_id, check_id);
            }
            Command::AgentRegisterService { agent, service, checks, replace_existing_checks } => {
                self.agent_register_service(agent, service, checks, *replace_existing_checks);
            }
            Command::AgentDeregisterService { agent, service_id } => {
                let key = fold_arc(&self.state.locate_service(&agent.name, service_id)?.node);
                self.remove_service(&key, service_id);
            }
            Command::AgentRegisterCheck { agent, check } => {
                self.agent_register_check(agent, check)?
            }
            Command::AgentDeregisterCheck { agent, check_id } => {
                self.agent_deregister_check(agent, check_id)?;
            }
            Command::UpdateCheck { agent, check_id, status, output, seen } => {
                let key = fold_arc(&self.state.locate_check(&agent.name, check_id)?.node);
                return self.beat(&key, check_id, status, output, *seen);
            }
            Command::Heartbeat { number, status, output, seen } => {
                return self.beat_number(*number, status, output, *seen);
            }
            Command::KvPut { key, value, flags, mode } => {
                return self.put_key(key, value, *flags, mode);
            }
            Command::KvDelete { key, mode } => return Ok(self.delete_keys(key, mode)),
            Command::SessionCreate(what) => return self.create_session(what),
            Command::SessionDestroy { id } => self.end_session(id),
            Command::SessionRenew { id, seen } => return self.renew_session(id, *seen),
            Command::RegisterServer(server) => self.register_server(server),
            Command::RemoveServer { id, name } => self.remove_server(*id, name),
            Command::SetServerHealth { name, alive } => self.set_server_health(name, *alive),
            Command::Txn(operations) => return self.transact(operations),
            Command::FireEvent(event) => self.fire_event(event),
            Command::PutCoordinate { node, coordinate } => self.put_coordinate(node, coordinate),
            Command::PutQuery { query, is_new } => self.put_query(query, *is_new)?,
            Command::DeleteQuery { id } => self.remove_query(id)?,
            Command::SetMaintenance { agent, service_id, reason } => {
                self.set_maintenance(agent, service_id, reason.as_deref())?;
            }
            Command::AgentLeave { agent } => self.agent_leave(agent),
            Command::SetAutopilot { settings, cas } => {
                return Ok(self.set_autopilot(settings, *cas));
            }
            Command::RestoreBegin { id } => self.begin_restore(id)?,
            Command::RestorePiece { id, offset, piece } => self.stage_piece(id, *offset, piece)?,
            Command::RestoreFinish { id } => return self.finish_restore(id),
            Command::DescribeAgent { agent, id, tagged_addresses, meta } => {
                let (id, tagged) = (id.as_deref(), tagged_addresses.as_ref());
                self.describe_agent(agent, id, tagged, meta.as_ref());
            }
            Command::WatchAgent { agent, ttl } => self.watch_agent(agent, *ttl),
            Command::Renew(renewals) => return Ok(self.renew(renewals)),
            Command::Beat(beats) => return Ok(self.beat_all(beats)),
            // They were read when the part began.
            Command::Answered { .. } | Command::Asked(_) | Command::Permits(_) => {}
            Command::ProbeResult { number, probe, status, output } => {
                return self.conclude_probe(id.origin, *number, *probe, status, output);
            }
            Command::PresenceOpen(open) => return self.open_presence(id, open, None),
            Command::PresenceOfProcess(what) => return self.open_presence_of(id, what),
            Command::PresenceReopen(reopen) => return self.reopen_presence(id, reopen),
            Command::PresenceEnded { seqs, why } => self.end_presences(id, seqs, *why),
            Command::Claims(command) => return self.run_claims(id, command),
            Command::Workers(command) => return self.run_workers(id, command),
            Command::Acl(command) => return self.run_acl(command),
        }
        Ok(Outcome::Done)
    }

    fn agent_deregister_check(&mut self, agent: &Agent, id: &Arc<str>) -> Result<(), Rejection> {
        let row = self.state.locate_check(&agent.name, id)?;
        let key = fold_arc(&row.node);
        self.remove_check(&key, id);
        Ok(())
    }

    /// `PUT /v1/catalog/register`: a node, perhaps a service on it, and checks.
    fn catalog_register(&mut self, what: &CatalogRegistration) -> Result<(), Rejection> {
        let key = self.register_node(what)?;
        if let Some(service) = &what.service {
            self.catalog_put_service(&key, service);
        }
        for check in &what.checks {
            let slot = self.state.catalog.nodes.get(&key);
            let is_there = slot.is_some_and(|slot| slot.services.contains_key(&check.service_id));
            if !check.service_id.is_empty() && !is_there {
                return Err(Rejection::MissingServiceRegistration(what.node.to_string()));
            }
            self.catalog_put_check(&key, check.clone());
        }
        Ok(())
    }

    /// `PUT /v1/catalog/deregister`. Something that does not exist counts as deregistered.
    fn catalog_deregister(&mut self, node: &Arc<str>, service_id: &Arc<str>, check_id: &Arc<str>) {
        let key = fold_arc(node);
        if !service_id.is_empty() {
            self.remove_service(&key, service_id);
        } else if !check_id.is_empty() {
            self.remove_check(&key, check_id);
        } else {
            self.remove_node(&key);
        }
    }
}
