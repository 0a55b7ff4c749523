//! Claims: exclusive use of an instance of a pool, first come first served.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::TextMap;
use crate::ids::NodeId;
use crate::{ClusterTime, Index, Millis};

/// Key of the metadata of an instance that says how many claims it serves at a time. An instance with it is in
/// the pool of its service.
pub const SLOTS: &str = "slots";
/// The most slots of an instance.
pub const SLOTS_MAX: u32 = 1_024;
/// Key of the metadata that says for how long a slot stays closed when its claim was lost: the old work may still
/// run.
pub const CLAIM_DELAY: &str = "claim-delay";
/// For how long it does where that is not said.
pub const CLAIM_DELAY_DEFAULT: Millis = Millis::from_secs(1);
/// The longest such delay.
pub const CLAIM_DELAY_MAX: Millis = Millis::from_secs(60);

/// Requests that may wait for one claim.
pub const ATTACHMENTS_MAX: usize = 4;
/// Claims that wait in one pool at most.
pub const WAITERS_PER_POOL_MAX: usize = 10_000;
/// Claims that wait in all pools at most.
pub const WAITERS_MAX: usize = 100_000;
/// Claims that wait for one holder at most.
pub const WAITERS_PER_HOLDER_MAX: usize = 1_000;
/// Lines of one pool at most: so many different requirements can wait.
pub const REQUIRES_MAX: usize = 64;

/// What waits for the outcome of a claim: one request at one server, named by the command that it sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attachment {
    /// The server that has the request.
    pub origin: NodeId,
    /// Which boot of that server.
    pub incarnation: u64,
    /// The number of the command.
    pub seq: u64,
}

/// A claim: it waits, it has an instance, or it is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// A UUID of the client's. Whoever knows it may release the claim.
    pub id: Arc<str>,
    /// Stands for it where its id is not to be shown, and orders its expiry; never reused.
    pub number: u64,
    /// The service whose pool it is about, as the client wrote it.
    pub service: Arc<str>,
    /// Who asks, as the client says.
    pub holder: Arc<str>,
    /// How long the holder may be silent; zero: as long as the session lives.
    pub ttl: Millis,
    /// The session with which the claim ends, or empty.
    pub session: Arc<str>,
    /// What the metadata of the instance must say.
    pub require: TextMap,
    /// The id of the instance that is taken if it has a free slot, or empty.
    pub prefer: Arc<str>,
    /// Its place in the line of its pool, by the order of the log.
    pub position: u64,
    /// When it was asked for.
    pub asked: ClusterTime,
    /// What has become of it.
    pub phase: ClaimPhase,
    /// The requests that wait for it, at most [`ATTACHMENTS_MAX`].
    pub attachments: Vec<Attachment>,
    /// The claims' counter when it last visibly changed.
    pub index: Index,
    /// The fence of its newest offer that was taken back; 0: none was. Its client may have been told of it all the
    /// same.
    pub void: u64,
}

/// What has become of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClaimPhase {
    /// It waits in line.
    Queued {
        /// Since when no request waits for it.
        detached: Option<ClusterTime>,
    },
    /// It has an instance.
    Granted(Grant),
    /// It is over.
    Ended {
        /// Why.
        why: ClaimEnd,
        /// Since when.
        at: ClusterTime,
        /// What it had; `None`: it waited.
        grant: Option<Grant>,
    },
}

/// The use of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Grows with every grant in the cluster.
    pub fence: u64,
    /// Counts the grants of the service.
    pub seq: u64,
    /// The node of the instance, in lower case.
    pub node: Arc<str>,
    /// The id of the instance.
    pub id: Arc<str>,
    /// When it was granted.
    pub since: ClusterTime,
    /// When the holder was last heard of.
    pub heard: ClusterTime,
    /// Whether it is only offered: nobody has said yet that the holder knows.
    pub is_offer: bool,
}

/// Why a claim is over. **Append only**: stored by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ClaimEnd {
    /// The holder gave it back.
    Released,
    /// The holder was silent for too long.
    Expired,
    /// Its session ended.
    SessionEnded,
    /// The instance can no longer be used, or is another one than before.
    InstanceLost,
    /// Nobody waits for it any more.
    Withdrawn,
    /// An operator released it.
    Forced,
    /// A backup was restored.
    Restored,
    /// The last instance of its pool went while it waited.
    PoolGone,
}

impl ClaimEnd {
    /// All reasons.
    pub const ALL: [Self; 8] = [
        Self::Released,
        Self::Expired,
        Self::SessionEnded,
        Self::InstanceLost,
        Self::Withdrawn,
        Self::Forced,
        Self::Restored,
        Self::PoolGone,
    ];

    /// The words that the API uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Expired => "expired",
            Self::SessionEnded => "session ended",
            Self::InstanceLost => "instance lost",
            Self::Withdrawn | Self::PoolGone => "withdrawn",
            Self::Forced => "forced",
            Self::Restored => "restored",
        }
    }

    /// Whether the old work may still run, so that the slot stays closed for a while.
    #[must_use]
    pub const fn closes_the_slot(self) -> bool {
        match self {
            Self::Expired
            | Self::SessionEnded
            | Self::InstanceLost
            | Self::Forced
            | Self::Restored => true,
            Self::Released | Self::Withdrawn | Self::PoolGone => false,
        }
    }
}

impl Claim {
    /// What it has, if it has something.
    #[must_use]
    pub const fn grant(&self) -> Option<&Grant> {
        match &self.phase {
            ClaimPhase::Granted(grant) => Some(grant),
            ClaimPhase::Queued { .. } | ClaimPhase::Ended { .. } => None,
        }
    }

    /// Why it is over, if it is.
    #[must_use]
    pub const fn ended(&self) -> Option<ClaimEnd> {
        match self.phase {
            ClaimPhase::Ended { why, .. } => Some(why),
            ClaimPhase::Queued { .. } | ClaimPhase::Granted(_) => None,
        }
    }

    /// Whether it waits.
    #[must_use]
    pub const fn is_queued(&self) -> bool {
        matches!(self.phase, ClaimPhase::Queued { .. })
    }
}

/// What a pool counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolCounts {
    /// The claims' counter when something about it last visibly changed.
    pub index: Index,
    /// How many grants it has made.
    pub granted: u64,
    /// How many claims expired.
    pub expired: u64,
    /// The last place in line that it gave.
    pub last_position: u64,
}

/// What an instance of a pool has beside its row in the catalogue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolMember {
    /// Decides between instances that are alike otherwise; never reused.
    pub number: u64,
    /// When a claim on it last ended, or when it came.
    pub idle_since: ClusterTime,
}

/// A slot that is closed for a while because its claim was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedSlot {
    /// The node of the instance, in lower case.
    pub node: Arc<str>,
    /// The id of the instance.
    pub id: Arc<str>,
    /// Since when.
    pub since: ClusterTime,
    /// Until when.
    pub until: ClusterTime,
}

/// What a record of the history says of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimFacts {
    /// Who asks.
    pub holder: Arc<str>,
    /// The fence of the grant; 0: it waited.
    pub fence: u64,
    /// The number of the grant in its service; 0: it waited.
    pub seq: u64,
    /// The node of the instance, in lower case, or empty.
    pub node: Arc<str>,
    /// The id of the instance, or empty.
    pub instance: Arc<str>,
    /// Its place in line.
    pub position: u64,
    /// Why it is over, if it is.
    pub ended: Option<ClaimEnd>,
    /// What it requires, in one line such as `region=eu`.
    pub require: Arc<str>,
}
