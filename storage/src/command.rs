//! Everything that can change the state, as data.
//!
//! Commands are what the log holds, so their encoding (postcard: variants by position) is part of
//! the on-disk format: **append variants and members at the end, never reorder or remove them**.
//! The golden-bytes test fails when the encoding of a command changes.
//!
//! A command contains everything that decides its effect. Ids and randomness were made by the node
//! that took the request; time is the stamp of the batch. `apply` cannot fail: a refusal is an
//! [`Outcome::Rejected`], the same on every node.
//!
//! To add a command: append a variant to [`Command`] and decide about it in `level_of` with a level of its own
//! (`state/level.rs`; the compiler asks for it), in `is_heartbeat`, and in `cause_of` (`state/history.rs`). Give it an arm in `state.rs`, limits in
//! `limits.rs`, and an answer to whether it may fail midway in `state/origin.rs`; add its golden bytes, a verb of the
//! scripts, and a line in the determinism test. The node words new rejections in `http/error.rs`. New rows also go into `state/snapshot_record.rs`, `state/invariants.rs` and
//! `state/restore.rs`. A server that does not know a command or a
//! duty cannot apply it: nothing may propose one before the state has the level of the version that brings
//! it ([`LEVEL`](crate::state::LEVEL)).

mod acl;
mod beats;
mod claims;
mod workers;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::acl::{
    AclCommand, AclRefusal, Denial, LinkRequest, LinkRequests, Permits, PolicyRequest, RoleRequest,
    TokenRequest,
};
pub use self::beats::{
    BEATS_MAX, Beat, Beats, BeatsOutcome, RENEWALS_MAX, Refused, Renewal, Renewals,
};
pub use self::claims::{ClaimLimit, ClaimRequest, ClaimsCommand};
pub use self::workers::{RunResult, WorkerOpen, WorkerResults, WorkersCommand};
use crate::ids::{BootId, NodeId, Position};
pub use crate::record::CatalogRegistration;
use crate::record::{
    AutopilotSettings, CheckRegistration, CheckStatus, ClaimEnd, Coordinate, Event, PresenceEnd,
    PresenceTerms, QueryDefinition, RequestFacts, ServiceDefinition, SessionBehavior, TextMap,
    WallTime,
};
use crate::txn::{TxnError, TxnOperation, TxnResult};
use crate::{ClusterTime, Index, Millis};

/// A command with at most so many heartbeats in full counts as a heartbeat ([`Command::is_heartbeat`]).
const LIGHT_BEATS_MAX: usize = 32;

/// What one Raft log entry holds: the commands that were waiting when it was proposed, and the time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Cluster time at which the leader proposed it. Applying sets the time to
    /// `max(time, stamp)`.
    pub stamp: ClusterTime,
    /// What the leader does of its own accord. An entry with neither duty nor parts is a tick: it
    /// only moves the time.
    pub duty: Option<Duty>,
    /// Commands, by the node that took the requests.
    pub parts: Vec<Part>,
}

/// A leader's own work, which no request asked for. It needs no number: doing it twice is harmless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Duty {
    /// What [`Duty::ExpireDue`] and then [`Duty::Reap`] do, with one `max` for both. No longer
    /// proposed, because a million tombstones would hold up TTL checks; older logs contain it.
    Expire {
        /// Only deadlines at or before this time.
        up_to: ClusterTime,
        /// How many may expire in this entry; it counts what expires, never what is looked at.
        max: u32,
    },
    /// Carry out the deadlines that are due: TTL checks, sessions, critical services to deregister,
    /// empty agents, an abandoned restore.
    ExpireDue {
        /// Only deadlines at or before this time.
        up_to: ClusterTime,
        /// How many may expire in this entry; it counts what expires, never what is looked at.
        max: u32,
    },
    /// Forget what ended without anybody noticing: lock delays and tombstones.
    Reap {
        /// Only what ended at or before this time.
        up_to: ClusterTime,
        /// How many may be forgotten in this entry.
        max: u32,
    },
    /// A server has booted: gives it the incarnation under which it numbers its commands, and ends its
    /// earlier boots. So it comes before all commands of that boot, and in an entry of its own.
    Booted(Box<Boot>),
    /// How much of the log servers hold, as the leader knows it.
    LogEnds(Vec<LogEnd>),
    /// Every member knows the rules of this level: they are in force from here on. See
    /// [`LEVEL`](crate::state::LEVEL).
    Level(u32),
    /// Who proposed the entry and when, and perhaps a duty. From the level of the history on every entry has
    /// it; a batch cannot have another member, because it does not end what it lies in.
    Stamped(Stamp),
}

impl Duty {
    /// What is to be done; `None` for what no leader proposes any more.
    #[must_use]
    pub fn into_work(self) -> Option<Work> {
        Some(match self {
            Self::ExpireDue { up_to, max } => Work::ExpireDue { up_to, max },
            Self::Reap { up_to, max } => Work::Reap { up_to, max },
            Self::Booted(boot) => Work::Booted(boot),
            Self::LogEnds(all) => Work::LogEnds(all),
            Self::Level(level) => Work::Level(level),
            Self::Stamped(stamp) => return stamp.work,
            Self::Expire { .. } => return None,
        })
    }
}

/// The leader's stamp on an entry, see [`Duty::Stamped`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// What the leader's wall clock showed.
    pub at: WallTime,
    /// The term in which it led.
    pub term: u64,
    /// Its Raft id.
    pub leader: NodeId,
    /// What it does of its own accord.
    pub work: Option<Work>,
}

/// The duties that a stamped entry can have: those of [`Duty`], which cannot lie in itself (a message could
/// nest it without end).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// [`Duty::ExpireDue`].
    ExpireDue {
        /// Only deadlines at or before this time.
        up_to: ClusterTime,
        /// How many may expire in this entry.
        max: u32,
    },
    /// [`Duty::Reap`].
    Reap {
        /// Only what ended at or before this time.
        up_to: ClusterTime,
        /// How many may be forgotten in this entry.
        max: u32,
    },
    /// [`Duty::Booted`].
    Booted(Box<Boot>),
    /// [`Duty::LogEnds`].
    LogEnds(Vec<LogEnd>),
    /// [`Duty::Level`].
    Level(u32),
}

/// A boot of a server, see [`Duty::Booted`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The server.
    pub id: NodeId,
    /// The boot.
    pub boot: BootId,
    /// The newest boot that was known when this was proposed. If it is another one by then, nothing
    /// happens.
    pub replaces: Option<BootId>,
    /// How many boots the server's data directory has counted. Incarnations were these counts once;
    /// none is given again.
    pub boots: u64,
    /// Random id of its data directory.
    pub store_id: String,
    /// `IP:PORT` of its RPC listener.
    pub rpc_addr: String,
    /// `IP:PORT` of its HTTP listener.
    pub http_addr: String,
    /// Name of the agent of its own host.
    pub agent_name: String,
}

/// What a server holds, see [`Duty::LogEnds`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEnd {
    /// The server.
    pub id: NodeId,
    /// The boot that acknowledged it.
    pub boot: BootId,
    /// A committed entry that is on its disk.
    pub upto: Position,
    /// The term of the leader that knows: the server has saved a vote of this term.
    pub term: u64,
}

/// The commands of one batch that one node took from its clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The node that numbered the commands.
    pub origin: NodeId,
    /// Which boot of that node, as [`Duty::Booted`] numbered it.
    pub incarnation: u64,
    /// The origin has answered its clients for every number up to and including this one, so their
    /// outcomes need no longer be remembered, and they must never be applied from now on.
    pub answered_through: u64,
    /// The commands with their numbers (1, 2, 3, ... within an incarnation; 0 for a
    /// [`Command::Answered`], a [`Command::Permits`] or a [`Command::Asked`], in this order and before all others).
    pub commands: Vec<(u64, Command)>,
}

impl Part {
    /// The highest number that it names, of commands and of answers.
    #[must_use]
    pub fn highest_number(&self) -> u64 {
        let numbers = self.commands.iter().map(|(number, command)| match command {
            Command::Answered { runs } => runs.iter().map(|(_, last)| *last).max().unwrap_or(0),
            _ => *number,
        });
        numbers.max().unwrap_or(0).max(self.answered_through)
    }
}

/// The number of a command: unique within the cluster, for ever. A command with a number takes effect
/// at most once, however often it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CommandId {
    /// The node that numbered it.
    pub origin: NodeId,
    /// Which boot of that node.
    pub incarnation: u64,
    /// 1, 2, 3, ... within an incarnation.
    pub seq: u64,
}

/// The agent on whose behalf a request is made: the host that asks, kept by the whole cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Name of the agent's node.
    pub name: Arc<str>,
    /// The node's id: a UUID made from cluster id and name.
    pub id: String,
    /// The host's address.
    pub address: String,
}

impl Agent {
    /// The name of the agent of a host that has no other: `host-10-0-0-5` for 10.0.0.5.
    #[must_use]
    pub fn name_of_host(address: &str) -> String {
        format!("host-{}", address.replace(['.', ':'], "-"))
    }

    /// Whether its name is the one that follows from its address.
    #[must_use]
    pub fn has_own_name(&self) -> bool {
        *self.name == *Self::name_of_host(&self.address)
    }
}

/// A change to the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// `PUT /v1/catalog/register`.
    CatalogRegister(Box<CatalogRegistration>),
    /// `PUT /v1/catalog/deregister`: the service with its checks, else the check, else the whole
    /// node.
    CatalogDeregister {
        /// Name of the node.
        node: Arc<str>,
        /// A service's id, or empty.
        service_id: Arc<str>,
        /// A check's id, or empty.
        check_id: Arc<str>,
    },
    /// `PUT /v1/agent/service/register`.
    AgentRegisterService {
        /// Whose service it is.
        agent: Agent,
        /// The instance.
        service: Box<ServiceDefinition>,
        /// Its checks.
        checks: Vec<CheckRegistration>,
        /// Whether checks that are not named again go.
        replace_existing_checks: bool,
    },
    /// `PUT /v1/agent/service/deregister/:id`.
    AgentDeregisterService {
        /// Who asks.
        agent: Agent,
        /// The instance's id.
        service_id: Arc<str>,
    },
    /// `PUT /v1/agent/check/register`.
    AgentRegisterCheck {
        /// Whose check it is.
        agent: Agent,
        /// The check.
        check: Box<CheckRegistration>,
    },
    /// `PUT /v1/agent/check/deregister/:id`.
    AgentDeregisterCheck {
        /// Who asks.
        agent: Agent,
        /// The check's id.
        check_id: Arc<str>,
    },
    /// A heartbeat of a TTL check by its id: `PUT /v1/agent/check/{pass,warn,fail,update}/:id`.
    UpdateCheck {
        /// Who asks.
        agent: Agent,
        /// The check's id.
        check_id: Arc<str>,
        /// The new status.
        status: CheckStatus,
        /// The new output.
        output: String,
        /// The cluster time that the origin had applied when it read the request: apply refuses a
        /// heartbeat that is older than max(TTL, 2 s) of cluster time.
        seen: ClusterTime,
    },
    /// The same by the check's number: a few bytes instead of two names.
    Heartbeat {
        /// [`Check::number`](crate::record::Check::number).
        number: u64,
        /// The new status.
        status: CheckStatus,
        /// The new output.
        output: String,
        /// As in [`Command::UpdateCheck`].
        seen: ClusterTime,
    },
    /// A write to one key.
    KvPut {
        /// The key.
        key: Arc<str>,
        /// The value.
        value: Bytes,
        /// The client's number.
        flags: u64,
        /// Under which condition.
        mode: KvPutMode,
    },
    /// Removal of one key, or of all below a prefix.
    KvDelete {
        /// The key or prefix.
        key: Arc<str>,
        /// Under which condition.
        mode: KvDeleteMode,
    },
    /// `PUT /v1/session/create`.
    SessionCreate(Box<SessionRequest>),
    /// `PUT /v1/session/destroy/:id`; unknown sessions are no error.
    SessionDestroy {
        /// The session's id.
        id: Arc<str>,
    },
    /// `PUT /v1/session/renew/:id`.
    SessionRenew {
        /// The session's id.
        id: Arc<str>,
        /// As in [`Command::UpdateCheck`].
        seen: ClusterTime,
    },
    /// Enters a server of this cluster into the catalogue: a node of its own name, an instance of
    /// service `consul` and a passing `serfHealth`; also its host's agent.
    RegisterServer(Box<ServerRecord>),
    /// Removes a server that left the membership: its node, and its origin record.
    RemoveServer {
        /// The server's Raft id.
        id: NodeId,
        /// Its node's name.
        name: Arc<str>,
    },
    /// Sets the `serfHealth` of a server's node, or of its host's agent's.
    SetServerHealth {
        /// The node's name.
        name: Arc<str>,
        /// Whether the leader can reach it.
        alive: bool,
    },
    /// `PUT /v1/txn` with at least one write: all operations, or none.
    Txn(Vec<TxnOperation>),
    /// `PUT /v1/event/fire/:name`. The state gives the event its time.
    FireEvent(Event),
    /// `PUT /v1/coordinate/update`.
    PutCoordinate {
        /// Name of the node.
        node: Arc<str>,
        /// Where it is.
        coordinate: Coordinate,
    },
    /// `POST /v1/query` and `PUT /v1/query/:id`.
    PutQuery {
        /// The query.
        query: Box<QueryDefinition>,
        /// Whether its id was made for it; otherwise it must exist.
        is_new: bool,
    },
    /// `DELETE /v1/query/:id`.
    DeleteQuery {
        /// The query's id.
        id: Arc<str>,
    },
    /// `PUT /v1/agent/service/maintenance/:id` and `PUT /v1/agent/maintenance`.
    SetMaintenance {
        /// Who asks.
        agent: Agent,
        /// The instance's id; empty: all of the agent's host.
        service_id: Arc<str>,
        /// Why, which begins maintenance; `None` ends it.
        reason: Option<String>,
    },
    /// `PUT /v1/agent/leave`: removes the node of a client's host.
    AgentLeave {
        /// Who leaves.
        agent: Agent,
    },
    /// `PUT /v1/operator/autopilot/configuration`.
    SetAutopilot {
        /// What the operator says.
        settings: Box<AutopilotSettings>,
        /// Only if the row's `ModifyIndex` is this.
        cas: Option<u64>,
    },
    /// What a server found when it ran a check. Refused when the check is gone or defined anew since the run began
    /// (`NoSuchNumber`), or is another worker's to run (`NotResponsible`; before the level of workers, the leader
    /// ran all).
    ProbeResult {
        /// [`Check::number`](crate::record::Check::number).
        number: u64,
        /// The number of the definition that was run: see [`Probes`](crate::state::Probes).
        probe: u64,
        /// The new status.
        status: CheckStatus,
        /// The new output.
        output: String,
    },
    /// Begins to hand over a backup: `PUT /v1/snapshot`.
    RestoreBegin {
        /// Stands for this restore, made by the node that took the request.
        id: Arc<str>,
    },
    /// The next piece of the backup.
    RestorePiece {
        /// Which restore.
        id: Arc<str>,
        /// How many bytes came before.
        offset: u64,
        /// Some bytes.
        piece: Bytes,
    },
    /// Puts the backup in the place of everything.
    RestoreFinish {
        /// Which restore.
        id: Arc<str>,
    },
    /// What an agent's configuration says of its node: `PUT /v1/quorate/agent`. What is `None` is left
    /// as it is.
    DescribeAgent {
        /// Whose node.
        agent: Agent,
        /// The node's id.
        id: Option<String>,
        /// Tagged addresses, in place of those made from its address and beside them.
        tagged_addresses: Option<TextMap>,
        /// Metadata, all of it but what every agent's node has.
        meta: Option<TextMap>,
    },
    /// A note of the part's origin about itself: beyond `answered_through` it has answered its clients
    /// for these numbers too, though a lower one is still open. It comes first in its part, has number
    /// 0 and no outcome: taking note of it twice is harmless.
    Answered {
        /// First and last number of each run.
        runs: Vec<(u64, u64)>,
    },
    /// A client agent's process has started, or has found its node gone: from now on the node's
    /// `serfHealth` is critical when the process was silent for longer than `ttl`. The process renews
    /// it with a [`Command::Heartbeat`].
    WatchAgent {
        /// Whose process.
        agent: Agent,
        /// How long it may be silent.
        ttl: Millis,
    },
    /// A note of the part's origin: who asked for the commands that follow. It has number 0 and no outcome.
    /// Only from the level of the history on.
    Asked(Asked),
    /// `PUT /v1/quorate/presence`: registers an instance, which a stream of the origin holds from now on.
    PresenceOpen(Box<PresenceOpen>),
    /// The same for an instance that exists with this very definition. Refused (`NoSuchNumber`) when it does
    /// not.
    PresenceReopen(PresenceReopen),
    /// Streams of the origin have ended, which the commands with these numbers opened.
    PresenceEnded {
        /// The numbers; those of leases that are over are no error.
        seqs: Vec<u64>,
        /// Why.
        why: PresenceEnd,
    },
    /// Heartbeats in bulk that say nothing new: `PUT /v1/quorate/heartbeat`. Only from the level of heartbeats
    /// with facts on.
    Renew(Box<Renewals>),
    /// Heartbeats in bulk that register an instance or change what is known of it. From the same level on.
    Beat(Box<Beats>),
    /// About pools of instances, and claims on them. Only from the level of claims on.
    Claims(ClaimsCommand),
    /// [`Command::PresenceOpen`] by a client that says what process it is. Only from the level of such presences
    /// on.
    PresenceOfProcess(Box<ProcessPresence>),
    /// About the workers that run checks. Only from the level of workers on.
    Workers(WorkersCommand),
    /// A note of the part's origin: in whose names the commands that follow are given. They take effect only if
    /// these tokens may give them. It has number 0 and no outcome. Only from the level of access control on.
    Permits(Permits),
    /// About tokens, policies and roles. From the same level on.
    Acl(AclCommand),
}

/// See [`Command::PresenceOpen`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceOpen {
    /// Whose service it is, unless the owner has it elsewhere.
    pub agent: Agent,
    /// The instance.
    pub service: ServiceDefinition,
    /// Checks beside that of the presence.
    pub checks: Vec<CheckRegistration>,
    /// The instance goes after it was critical for so long for want of a connection; zero: never.
    pub deregister_after: Millis,
    /// On which terms.
    pub terms: PresenceTerms,
}

/// See [`Command::PresenceOfProcess`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessPresence {
    /// The instance, and what holds it.
    pub open: PresenceOpen,
    /// The process, and the check that its heartbeats renew: there is one beside that of the presence if this has
    /// a time after which silence shows. Its instance is that of `open`; what else it could say of that is `None`.
    pub beat: Beat,
}

/// See [`Command::PresenceReopen`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceReopen {
    /// [`Check::number`](crate::record::Check::number) of the check of the presence.
    pub number: u64,
    /// The `ModifyIndex` of the instance whose definition was compared.
    pub defined: Index,
    /// On which terms.
    pub terms: PresenceTerms,
}

/// Who asked for the commands of a part. What several requests have in common is there once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Names of agents, endpoints and tokens.
    pub texts: Vec<Arc<str>>,
    /// Requests.
    pub requests: Vec<AskedOnce>,
    /// For each command that follows, in order: 0, or the place of its request among `requests` plus 1. A
    /// command that it does not reach to has none.
    pub of: Vec<u32>,
}

/// What [`Asked`] has of one request. The members other than `client` are places in
/// [`texts`](Asked::texts) plus 1; 0: empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AskedOnce {
    /// See [`RequestFacts::agent_claimed`].
    pub agent_claimed: u32,
    /// See [`RequestFacts::client`].
    pub client: Option<SocketAddr>,
    /// See [`RequestFacts::action`].
    pub action: u32,
    /// See [`RequestFacts::token`].
    pub token: u32,
}

impl Asked {
    /// Notes who asked for commands, in their order; `None` if nobody did.
    #[must_use]
    pub fn note<'a>(facts: impl IntoIterator<Item = Option<&'a RequestFacts>>) -> Option<Self> {
        let mut note = Self::default();
        let (mut texts, mut requests) = (BTreeMap::new(), BTreeMap::new());
        for facts in facts {
            let Some(facts) = facts else {
                note.of.push(0);
                continue;
            };
            let mut place = |text: &Arc<str>| match text.is_empty() {
                true => 0,
                false => *texts.entry(text.clone()).or_insert_with(|| {
                    note.texts.push(text.clone());
                    place_of(note.texts.len())
                }),
            };
            let once = AskedOnce {
                agent_claimed: place(&facts.agent_claimed),
                client: facts.client,
                action: place(&facts.action),
                token: place(&facts.token),
            };
            note.of.push(*requests.entry(once).or_insert_with(|| {
                note.requests.push(once);
                place_of(note.requests.len())
            }));
        }
        while note.of.last() == Some(&0) {
            note.of.pop();
        }
        (!note.of.is_empty()).then_some(note)
    }

    /// Who asked for each command. Places that lead nowhere are taken for none.
    #[must_use]
    pub fn facts(&self) -> Vec<Option<Arc<RequestFacts>>> {
        let text = |place: u32| {
            let text = (place as usize).checked_sub(1).and_then(|place| self.texts.get(place));
            text.cloned().unwrap_or_default()
        };
        let requests: Vec<Arc<RequestFacts>> = self
            .requests
            .iter()
            .map(|once| {
                Arc::new(RequestFacts {
                    agent_claimed: text(once.agent_claimed),
                    client: once.client,
                    action: text(once.action),
                    token: text(once.token),
                    authority: None,
                })
            })
            .collect();
        let facts = |place: &u32| requests.get((*place as usize).checked_sub(1)?).cloned();
        self.of.iter().map(facts).collect()
    }
}

fn place_of(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(0)
}

impl Command {
    /// Whether it is a note of the origin about its part, with neither number nor outcome.
    #[must_use]
    pub const fn is_note(&self) -> bool {
        matches!(self, Self::Answered { .. } | Self::Asked(_) | Self::Permits(_))
    }

    /// Whether it only says that something lives, or how it is: small, and many things wait to be
    /// declared dead without it.
    #[must_use]
    pub const fn is_heartbeat(&self) -> bool {
        match self {
            Self::UpdateCheck { .. }
            | Self::Heartbeat { .. }
            | Self::SessionRenew { .. }
            | Self::ProbeResult { .. }
            | Self::PresenceReopen(_)
            | Self::PresenceEnded { .. }
            | Self::Renew(_)
            | Self::Claims(
                ClaimsCommand::Renew { .. }
                | ClaimsCommand::Detached { .. }
                | ClaimsCommand::Collected { .. },
            )
            | Self::Workers(WorkersCommand::Results(_)) => true,
            // A process says something new. Hundreds of them at once are as heavy as writes.
            Self::Beat(beats) => beats.all.len() <= LIGHT_BEATS_MAX,
            _ => false,
        }
    }
}

/// The condition of a [`Command::KvPut`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum KvPutMode {
    /// None.
    Set,
    /// The key's `ModifyIndex` is this; 0: the key does not exist.
    Cas(u64),
    /// The key is free, or already held by this session, which then holds it.
    Acquire(Arc<str>),
    /// The key is held by this session, which then no longer does.
    Release(Arc<str>),
}

/// The condition of a [`Command::KvDelete`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum KvDeleteMode {
    /// Delete this one key.
    One,
    /// Delete this one key if its `ModifyIndex` is this.
    Cas(u64),
    /// Delete every key that begins with this one.
    Recurse,
}

/// `PUT /v1/session/create`, parsed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRequest {
    /// The new session's id, made by the node that took the request.
    pub id: Arc<str>,
    /// Who asks; the session is bound to this agent's node unless `node` names another.
    pub agent: Agent,
    /// A node's name, or empty for the agent's.
    pub node: Arc<str>,
    /// A name for people.
    pub name: String,
    /// See [`Session`](crate::record::Session).
    pub lock_delay_nanos: u64,
    /// See [`Session`](crate::record::Session).
    pub behavior: SessionBehavior,
    /// The TTL as written, or empty.
    pub ttl_text: String,
    /// The TTL; zero: none.
    pub ttl: Millis,
    /// Node checks it depends on (the edge has filled in the default `serfHealth`).
    pub node_checks: Vec<String>,
    /// Service checks it depends on.
    pub service_checks: Option<Vec<(String, String)>>,
    /// The deprecated list, as given; these are needed as well.
    pub checks: Option<Vec<String>>,
}

/// A server of this cluster, as the catalogue shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRecord {
    /// The server's Raft id.
    pub id: NodeId,
    /// Name of its node.
    pub name: Arc<str>,
    /// The node's id: a UUID made from cluster id and name.
    pub node_id: String,
    /// Its advertised IP address.
    pub address: String,
    /// Its RPC port, which is the port of its `consul` service.
    pub port: u16,
    /// The agent of its host.
    pub agent: Agent,
    /// Metadata of the `consul` service instance.
    pub meta: TextMap,
}

/// What became of a command. The same on every node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It took effect, or there was nothing to change.
    Done,
    /// The API's `true` or `false`: whether the condition held.
    Condition(bool),
    /// A registered or renewed row, by its id.
    Id(Arc<str>),
    /// It took effect at this index, but the outcome was too large to remember.
    AppliedAt(Index),
    /// It was refused, and changed nothing.
    Rejected(Rejection),
    /// A transaction took effect, and this is what its operations answered.
    Txn(Vec<TxnResult>),
    /// What became of the heartbeats of a command.
    Beats(BeatsOutcome),
}

impl Outcome {
    /// A refusal as an error.
    ///
    /// # Errors
    /// What was [`Outcome::Rejected`].
    pub fn into_result(self) -> Result<Self, Rejection> {
        match self {
            Self::Rejected(rejection) => Err(rejection),
            Self::Done
            | Self::Condition(_)
            | Self::Id(_)
            | Self::AppliedAt(_)
            | Self::Txn(_)
            | Self::Beats(_) => Ok(self),
        }
    }
}

/// Why a command was refused. The text is what the client is told, in the words of Consul's API;
/// which HTTP status goes with it is the API's business.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum Rejection {
    /// The command's number is below what its origin answered, or of an earlier boot: it may have
    /// been applied before, and is not applied now.
    #[error("outcome unknown: the command may or may not have taken effect")]
    OutcomeUnknown,
    /// A heartbeat that waited so long that its sender may be dead by now.
    #[error("heartbeat was delayed too long to count, send another")]
    HeartbeatTooOld,
    /// No check has this number (any more): the origin sends the check's id instead.
    #[error("no check has this number")]
    NoSuchNumber,
    /// No such check.
    #[error("Unknown check ID {0:?}. Ensure that the check ID is passed, not the check name.")]
    UnknownCheck(String),
    /// No such service instance.
    #[error(
        "Unknown service ID {0:?}. Ensure that the service ID is passed, not the service name."
    )]
    UnknownService(String),
    /// A check was registered for a service that its agent does not have.
    #[error("ServiceID {0:?} does not exist")]
    ServiceDoesNotExist(String),
    /// A heartbeat for a check that is not a TTL check.
    #[error("CheckID {0:?} does not have associated TTL")]
    NotTtl(String),
    /// The id names several agents' rows, none of them the asking agent's.
    #[error("{what} ID {id:?} is registered on several agents ({agents}): name one with ?agent=")]
    Ambiguous {
        /// `service` or `check`.
        what: String,
        /// The id.
        id: String,
        /// The agents' names, separated by a comma and a blank.
        agents: String,
    },
    /// A catalogue check names a service that is not on its node.
    #[error("failed inserting check: Missing service registration on node {0:?}")]
    MissingServiceRegistration(String),
    /// A node's id belongs to a node that is alive under another name.
    #[error(
        "failed inserting node: Error while renaming Node ID: {id:?}: Node name {name} is reserved by node {holder} with name {name} ({address})"
    )]
    NodeNameReserved {
        /// The id that asked for the name.
        id: String,
        /// The name.
        name: String,
        /// Id of the node that has it.
        holder: String,
        /// Address of the node that has it.
        address: String,
    },
    /// `acquire` with a session that does not exist.
    #[error("invalid session {0:?}")]
    InvalidSession(String),
    /// A session's node does not exist.
    #[error("Missing node registration")]
    MissingNode,
    /// A session's check does not exist.
    #[error("Missing check '{0}' registration")]
    MissingCheck(String),
    /// A session's check is critical.
    #[error("Check '{0}' is in critical state")]
    CriticalCheck(String),
    /// A renewal of a session that does not exist.
    #[error("Session id '{0}' not found")]
    UnknownSession(String),
    /// A transaction failed: these are all the operations that did.
    #[error("the transaction failed")]
    Txn(Vec<TxnError>),
    /// A change or removal of a prepared query that does not exist.
    #[error("Cannot modify non-existent prepared query: '{0}'")]
    UnknownQuery(String),
    /// Another prepared query has the name.
    #[error("name '{0}' aliases an existing query name")]
    QueryNameTaken(String),
    /// Another backup is being restored.
    #[error("another snapshot is being restored, try again later")]
    RestoreInProgress,
    /// The restore was dropped, or its pieces come out of order.
    #[error("the restore was interrupted, nothing was changed")]
    RestoreLost,
    /// The backup cannot be restored.
    #[error("{0}")]
    InvalidBackup(String),
    /// A prepared query's name is the id of one.
    #[error("name '{0}' aliases an existing query ID")]
    QueryNameIsId(String),
    /// Another template answers for all names.
    #[error("a query template with an empty name already exists")]
    EmptyTemplateTaken,
    /// An owner's earlier attempt to hold an instance came after a later one.
    #[error(
        "the presence of {id:?} has come to attempt {newest} of this owner, and this one is earlier"
    )]
    PresenceAttempt {
        /// The instance's id.
        id: String,
        /// The attempt that holds it.
        newest: u64,
    },
    /// Owners take an instance from each other.
    #[error(
        "the presence of {0:?} was taken over by another owner too often within a minute: two processes seem to use this ID"
    )]
    PresenceContested(String),
    /// A session holds as many keys as it may.
    #[error(
        "session {0:?} holds {max} keys, which is the most that one session can hold",
        max = crate::record::SESSION_KEYS_MAX
    )]
    TooManyKeys(String),
    /// A heartbeat of a process that another one took over from.
    #[error("a heartbeat of a later process of {0:?} has come before, this one is refused")]
    EarlierProcess(String),
    /// What a renewal was for has been deregistered.
    #[error("the instance was deregistered meanwhile, send another heartbeat to register it")]
    InstanceGone,
    /// An instance would be critical before it warns.
    #[error("WarnAfter {warn_after} must be shorter than CriticalAfter {critical_after}")]
    WarnsTooLate {
        /// When it would warn.
        warn_after: Millis,
        /// When it would be critical.
        critical_after: Millis,
    },
    /// A claim on a service that has no pool.
    #[error("no instance of {0:?} is in a pool")]
    NotInPool(String),
    /// A claim that does not wait, while all are busy.
    #[error("all {instances} instances of {service:?} are busy, {waiting} requests are waiting")]
    PoolBusy {
        /// The service.
        service: String,
        /// How many instances are in the pool.
        instances: u64,
        /// How many claims wait.
        waiting: u64,
    },
    /// Too much waits.
    #[error("{0}")]
    ClaimsFull(ClaimLimit),
    /// A claim with the id of another one.
    #[error("claim {0:?} is of another service or holder")]
    ClaimIdTaken(String),
    /// A claim that is over.
    #[error("claim {id:?} is over: {}", .why.as_str())]
    ClaimOver {
        /// Its id.
        id: String,
        /// Why it is over.
        why: ClaimEnd,
    },
    /// A claim that never was, or was forgotten.
    #[error("unknown claim {0:?}")]
    UnknownClaim(String),
    /// A renewal of a claim that has nothing.
    #[error("claim {0:?} has no instance: it waits in line")]
    ClaimWaits(String),
    /// No claim has this fence.
    #[error("no claim on {service:?} has the fence {fence}")]
    UnknownFence {
        /// The service.
        service: String,
        /// The fence.
        fence: u64,
    },
    /// A result from a worker that is not to run the check (any more).
    #[error("another worker runs this check")]
    NotResponsible,
    /// Results under a lease that no worker process has.
    #[error("worker {0:?} does not hold this lease, it must open another one")]
    NoSuchWorker(String),
    /// Two processes want to be the same worker.
    #[error("another process is worker {0:?}, and it is alive")]
    WorkerNameTaken(String),
    /// There is no such token, or it has expired.
    #[error("ACL not found")]
    NoToken,
    /// A token lacks a right.
    #[error("{0}")]
    Denied(Denial),
    /// A change of tokens, policies or roles.
    #[error("{0}")]
    Acl(AclRefusal),
}
