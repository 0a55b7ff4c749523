//! Commands about pools of instances, and claims on them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::record::TextMap;
use crate::{ClusterTime, Millis};

/// A command about claims. **Append only**: stored by position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClaimsCommand {
    /// `PUT /v1/quorate/claims/:service`: an instance of a pool for one holder alone. Asked for again under the
    /// same id it is the same claim. The command names a request that waits for it.
    Claim(Box<ClaimRequest>),
    /// `PUT /v1/quorate/claim/:id/renew`.
    Renew {
        /// The claim's id.
        id: Arc<str>,
        /// As in [`Command::UpdateCheck`](super::Command::UpdateCheck).
        seen: ClusterTime,
        /// The fence of the grant that the holder knows of; 0: any.
        fence: u64,
    },
    /// `PUT /v1/quorate/claim/:id/release`. One that waits is withdrawn.
    Release {
        /// The claim's id.
        id: Arc<str>,
    },
    /// A request of the origin has waited for as long as it was to. [`Outcome::Condition`](super::Outcome::Condition) says whether it is
    /// to be told that there was nothing.
    Withdraw {
        /// The claim's id.
        id: Arc<str>,
        /// The number of the [`ClaimsCommand::Claim`] of the request.
        seq: u64,
    },
    /// The clients of some requests of the origin have gone.
    Detached {
        /// The numbers of their [`ClaimsCommand::Claim`]s; those that wait for nothing are no error.
        seqs: Vec<u64>,
    },
    /// Clients have been told of their grants.
    Collected {
        /// The fences of the grants; those that are over are no error.
        fences: Vec<u64>,
    },
    /// `PUT /v1/quorate/claims/:service/force`: an operator releases a claim.
    Force {
        /// The service, in any case.
        service: Arc<str>,
        /// The fence of the grant.
        fence: u64,
    },
}

/// See [`ClaimsCommand::Claim`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRequest {
    /// A UUID.
    pub id: Arc<str>,
    /// The service, in any case.
    pub service: Arc<str>,
    /// Who asks.
    pub holder: Arc<str>,
    /// How long the holder may be silent; zero: as long as the session lives.
    pub ttl: Millis,
    /// The session with which the claim ends, or empty.
    pub session: Arc<str>,
    /// What the metadata of the instance must say.
    pub require: TextMap,
    /// The id of the instance that is taken if it has a free slot, or empty.
    pub prefer: Arc<str>,
    /// Whether it waits if all are busy.
    pub waits: bool,
}

/// What there is too much of when a claim cannot wait. **Append only**: stored by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum ClaimLimit {
    /// Claims in one pool.
    #[error(
        "{} requests are waiting in this pool, which is the most: try again later",
        crate::record::WAITERS_PER_POOL_MAX
    )]
    Pool,
    /// Claims in all pools.
    #[error(
        "{} requests are waiting in all pools, which is the most: try again later",
        crate::record::WAITERS_MAX
    )]
    Cluster,
    /// Claims of one holder.
    #[error(
        "{} requests of this holder are waiting, which is the most: try again later",
        crate::record::WAITERS_PER_HOLDER_MAX
    )]
    Holder,
    /// Different requirements in one pool.
    #[error(
        "{} different requirements are waited for in this pool, which is the most: try again later",
        crate::record::REQUIRES_MAX
    )]
    Requires,
    /// Requests for one claim.
    #[error(
        "{} requests are waiting for this claim, which is the most: try again later",
        crate::record::ATTACHMENTS_MAX
    )]
    Attachments,
}
