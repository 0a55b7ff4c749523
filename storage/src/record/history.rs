//! One line of the history: what changed, and why.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Authority, CheckStatus, ClaimFacts, PresenceEnd};
use crate::ids::NodeId;
use crate::{ClusterTime, Index, Millis};

/// How much of a check's output a record keeps, in bytes.
pub const HISTORY_OUTPUT_BYTES_MAX: usize = 256;

/// Wall-clock time in milliseconds since 1970 (UTC), as the leader read it. It is for people: nothing
/// compares it or computes with it.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct WallTime(pub u64);

/// A visible change and its cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRecord {
    /// 1, 2, 3, ... without gaps, for the life of the cluster.
    pub seq: u64,
    /// The index of the change, as clients see it in `X-Consul-Index`.
    pub index: Index,
    /// When it was applied.
    pub time: ClusterTime,
    /// The same for people.
    pub at: WallTime,
    /// What happened.
    pub kind: HistoryKind,
    /// To what it happened.
    pub subject: Subject,
    /// The session that took or lost a lock.
    pub session: Option<Arc<str>>,
    /// The status before, of a check that existed before.
    pub from: Option<CheckStatus>,
    /// The status after, of a check that exists after.
    pub to: Option<CheckStatus>,
    /// What else there is to say.
    pub detail: Detail,
    /// Why it happened.
    pub cause: Cause,
    /// The `seq` of the record before this one about the same instance, node, key or session; 0: none was
    /// kept. A check's record is about its instance, or about its node.
    pub previous: u64,
}

/// What happened. **Append only**: stored by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum HistoryKind {
    /// An instance is new.
    ServiceRegistered,
    /// An instance's definition changed.
    ServiceChanged,
    /// An instance is gone, with its checks.
    ServiceDeregistered,
    /// An instance's process is another one than before.
    ServiceRestarted,
    /// A check is new.
    CheckRegistered,
    /// A check's status or definition changed. Of its output alone there is no record.
    CheckChanged,
    /// A check is gone.
    CheckDeregistered,
    /// A node is new.
    NodeJoined,
    /// A node's address, id or metadata changed.
    NodeChanged,
    /// A node is gone, with everything on it.
    NodeLeft,
    /// A server of this cluster entered the catalogue.
    ServerJoined,
    /// A server no longer answers the leader.
    ServerLost,
    /// A server answers again.
    ServerBack,
    /// A server left the membership.
    ServerLeft,
    /// A server leads from now on.
    LeaderElected,
    /// A session is new.
    SessionCreated,
    /// A session is over.
    SessionEnded,
    /// A session holds a key.
    LockAcquired,
    /// No session holds the key any more.
    LockReleased,
    /// A key was written: its value or its flags.
    KeySet,
    /// A key is gone, or all keys below a prefix.
    KeyDeleted,
    /// Maintenance began.
    MaintenanceOn,
    /// Maintenance is over.
    MaintenanceOff,
    /// A claim waits.
    ClaimQueued,
    /// A claim has an instance.
    ClaimGranted,
    /// A claim is over.
    ClaimEnded,
    /// A backup was restored: everything may have changed.
    Restored,
    /// A token is new.
    TokenCreated,
    /// What a token may do, or what it is called, changed.
    TokenChanged,
    /// A token is gone.
    TokenDeleted,
    /// A token's time was over.
    TokenExpired,
    /// A policy is new.
    PolicyCreated,
    /// A policy changed.
    PolicyChanged,
    /// A policy is gone, and with it what tokens and roles had of it.
    PolicyDeleted,
    /// A role is new.
    RoleCreated,
    /// A role changed.
    RoleChanged,
    /// A role is gone, and with it what tokens had of it.
    RoleDeleted,
}

impl HistoryKind {
    /// All kinds.
    pub const ALL: [Self; 37] = [
        Self::ServiceRegistered,
        Self::ServiceChanged,
        Self::ServiceDeregistered,
        Self::ServiceRestarted,
        Self::CheckRegistered,
        Self::CheckChanged,
        Self::CheckDeregistered,
        Self::NodeJoined,
        Self::NodeChanged,
        Self::NodeLeft,
        Self::ServerJoined,
        Self::ServerLost,
        Self::ServerBack,
        Self::ServerLeft,
        Self::LeaderElected,
        Self::SessionCreated,
        Self::SessionEnded,
        Self::LockAcquired,
        Self::LockReleased,
        Self::KeySet,
        Self::KeyDeleted,
        Self::MaintenanceOn,
        Self::MaintenanceOff,
        Self::ClaimQueued,
        Self::ClaimGranted,
        Self::ClaimEnded,
        Self::Restored,
        Self::TokenCreated,
        Self::TokenChanged,
        Self::TokenDeleted,
        Self::TokenExpired,
        Self::PolicyCreated,
        Self::PolicyChanged,
        Self::PolicyDeleted,
        Self::RoleCreated,
        Self::RoleChanged,
        Self::RoleDeleted,
    ];

    /// The word that the API uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ServiceRegistered => "service.registered",
            Self::ServiceChanged => "service.changed",
            Self::ServiceDeregistered => "service.deregistered",
            Self::ServiceRestarted => "service.restarted",
            Self::CheckRegistered => "check.registered",
            Self::CheckChanged => "check.changed",
            Self::CheckDeregistered => "check.deregistered",
            Self::NodeJoined => "node.joined",
            Self::NodeChanged => "node.changed",
            Self::NodeLeft => "node.left",
            Self::ServerJoined => "server.joined",
            Self::ServerLost => "server.lost",
            Self::ServerBack => "server.back",
            Self::ServerLeft => "server.left",
            Self::LeaderElected => "leader.elected",
            Self::SessionCreated => "session.created",
            Self::SessionEnded => "session.ended",
            Self::LockAcquired => "lock.acquired",
            Self::LockReleased => "lock.released",
            Self::KeySet => "key.set",
            Self::KeyDeleted => "key.deleted",
            Self::MaintenanceOn => "maintenance.on",
            Self::MaintenanceOff => "maintenance.off",
            Self::ClaimQueued => "claim.queued",
            Self::ClaimGranted => "claim.granted",
            Self::ClaimEnded => "claim.ended",
            Self::Restored => "restored",
            Self::TokenCreated => "token.created",
            Self::TokenChanged => "token.changed",
            Self::TokenDeleted => "token.deleted",
            Self::TokenExpired => "token.expired",
            Self::PolicyCreated => "policy.created",
            Self::PolicyChanged => "policy.changed",
            Self::PolicyDeleted => "policy.deleted",
            Self::RoleCreated => "role.created",
            Self::RoleChanged => "role.changed",
            Self::RoleDeleted => "role.deleted",
        }
    }

    /// Which ring keeps it.
    #[must_use]
    pub const fn ring(self) -> Ring {
        match self {
            // Locks are on keys, and busy ones come and go as often.
            Self::KeySet | Self::KeyDeleted | Self::LockAcquired | Self::LockReleased => Ring::Keys,
            Self::ClaimQueued | Self::ClaimGranted | Self::ClaimEnded => Ring::Claims,
            _ => Ring::Catalogue,
        }
    }
}

/// Where records are kept, so that busy keys do not drive out the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Ring {
    /// Services, checks, nodes, servers, sessions.
    Catalogue,
    /// Keys and locks.
    Keys,
    /// Claims.
    Claims,
}

impl Ring {
    /// All rings.
    pub const ALL: [Self; 3] = [Self::Catalogue, Self::Keys, Self::Claims];
}

/// To what something happened. Names are in their original letter case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    /// The cluster as a whole.
    Cluster,
    /// A node.
    Node {
        /// Its name.
        node: Arc<str>,
    },
    /// A service instance.
    Instance {
        /// Its node.
        node: Arc<str>,
        /// Its service.
        service: Arc<str>,
        /// Its id.
        id: Arc<str>,
    },
    /// A check.
    Check {
        /// Its node.
        node: Arc<str>,
        /// The service of its instance, or empty.
        service: Arc<str>,
        /// The id of its instance; empty: it is the node's own.
        id: Arc<str>,
        /// Its id.
        check: Arc<str>,
    },
    /// A key, or (for [`Detail::Below`]) a prefix.
    Key(Arc<str>),
    /// A session.
    Session {
        /// Its id.
        id: Arc<str>,
        /// Its node.
        node: Arc<str>,
    },
    /// A claim.
    Claim {
        /// The service, as the client wrote it.
        service: Arc<str>,
        /// Its id, which is not shown: whoever knows it may release the claim.
        id: Arc<str>,
        /// Stands for it where it is shown.
        number: u64,
    },
    /// A token, a policy or a role: which of them, the kind says.
    Acl {
        /// The accessor of a token, which is no secret, or the id.
        id: Arc<str>,
        /// What people call it: the beginning of a token's description, or the name.
        name: Arc<str>,
    },
}

/// What else a record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Detail {
    /// Nothing.
    None,
    /// The beginning of a check's output, at most [`HISTORY_OUTPUT_BYTES_MAX`].
    Output(Arc<str>),
    /// A key's size and flags; never its value.
    Value {
        /// How many bytes the value has.
        bytes: u64,
        /// The client's number.
        flags: u64,
    },
    /// So many keys below the prefix were deleted at once.
    Below(u64),
    /// The check that ended a session.
    Check(Arc<str>),
    /// The term in which a leader was elected.
    Term(u64),
    /// The reason that an operator gave.
    Reason(Arc<str>),
    /// What there is to say of a claim.
    Claim(Box<ClaimFacts>),
}

/// Why something happened. **Append only**: stored by position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// A client's request, taken by this server. What is known of the client is absent when its server's
    /// version did not say.
    Request {
        /// Raft id of the server.
        server: NodeId,
        /// Who asked, and what.
        request: Option<Arc<RequestFacts>>,
    },
    /// No heartbeat came in time.
    Silence {
        /// The last one.
        last_heard: ClusterTime,
        /// How long the silence may last.
        ttl: Millis,
    },
    /// A service was critical for too long.
    DeregisterAfter {
        /// Since when.
        since: ClusterTime,
        /// How long it may be.
        after: Millis,
    },
    /// A server ran a check.
    Probe {
        /// Raft id of the server.
        by: NodeId,
    },
    /// A server did it of its own accord: it started, or it leads and saw to the others.
    Server {
        /// Raft id of the server.
        server: NodeId,
    },
    /// A session ended.
    Session(Arc<str>),
    /// An agent had nothing on it for long.
    Idle {
        /// Since when.
        since: ClusterTime,
    },
    /// The connection that held an instance ended.
    Connection {
        /// Raft id of the server that had it; 0: none had.
        server: NodeId,
        /// Who ended it.
        why: PresenceEnd,
        /// When.
        since: ClusterTime,
    },
    /// A slot was closed for a while because its claim was lost, and is open again.
    SlotOpened {
        /// Since when it was closed.
        since: ClusterTime,
    },
    /// A worker process ran a check.
    Worker {
        /// Its name.
        name: Arc<str>,
    },
    /// Its time was over.
    Expired,
}

/// What a server knows of a request that changes something.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestFacts {
    /// The agent in whose name the client asked, or empty. Nobody has checked that it is that agent.
    pub agent_claimed: Arc<str>,
    /// Where the connection comes from; absent for a Unix socket.
    pub client: Option<SocketAddr>,
    /// The endpoint without `/v1/`, such as `agent/service/deregister`.
    pub action: Arc<str>,
    /// The accessor of the token, or empty.
    pub token: Arc<str>,
    /// In whose name its commands are given, where tokens count. Not kept: the history has the accessor.
    #[serde(skip)]
    pub authority: Option<Authority>,
}
