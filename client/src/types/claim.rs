//! Claims: `/v1/quorate/claims/...` and `/v1/quorate/claim/...`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::TextMap;
use super::live::Instance;

/// Body of `PUT /v1/quorate/claims/:service`; all members are optional.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ClaimAsk {
    /// A UUID, which makes the request repeatable; the server makes one when it is empty. Whoever knows it may
    /// release the claim.
    #[serde(rename = "ID", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Who asks; empty: the agent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub holder: String,
    /// How long the holder may be silent, a Go duration, 1 s to 24 h; `0` only with a session. 30 s when it is
    /// empty.
    #[serde(rename = "TTL", skip_serializing_if = "String::is_empty")]
    pub ttl: String,
    /// The session with which the claim ends.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub session: String,
    /// What the metadata of the instance must say: up to 4 pairs.
    #[serde(skip_serializing_if = "TextMap::is_empty")]
    pub require: TextMap,
    /// The id of the instance that is taken if it has a free slot.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prefer: String,
}

/// A claim that has an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ClaimGrant {
    /// The claim's id: the right to renew and release it.
    #[serde(rename = "ID")]
    pub id: String,
    /// The service.
    pub service: String,
    /// The instance.
    pub instance: Instance,
    /// Grows with every grant in the cluster: a resource that remembers the highest that it has seen can refuse
    /// a holder that is late.
    pub fence: u64,
    /// Counts the grants of the service.
    pub seq: u64,
    /// Who has it.
    pub holder: String,
    /// How long the holder may be silent, a Go duration.
    #[serde(rename = "TTL")]
    pub ttl: String,
    /// How long it waited, in milliseconds of cluster time.
    pub waited_ms: u64,
}

/// `GET /v1/quorate/claim/:id`. Members that do not apply are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ClaimStatus {
    /// The claim's id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Stands for it in the history.
    pub number: u64,
    /// The service.
    pub service: String,
    /// Who asks.
    pub holder: String,
    /// `queued`, `granted` or `ended`.
    pub state: String,
    /// Since when it has that state, RFC 3339.
    pub since: String,
    /// How long the holder may be silent, a Go duration.
    #[serde(rename = "TTL")]
    pub ttl: String,
    /// The session with which it ends.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub session: String,
    /// What it requires of the instance.
    #[serde(skip_serializing_if = "TextMap::is_empty")]
    pub require: TextMap,
    /// While it waits: an upper bound of the claims before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ahead: Option<u64>,
    /// While it waits: whether a request does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attached: Option<bool>,
    /// The instance that it has; `null` once it is gone.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub instance: Value,
    /// The fence of the grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
    /// The number of the grant in its service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// While it has an instance: in how many milliseconds of cluster time it expires unless it is renewed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
    /// Why it is over: `released`, `expired`, `session ended`, `instance lost`, `withdrawn`, `forced`,
    /// `restored`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// `GET /v1/quorate/claims/:service`. Ids of claims are not shown: they are the right to release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ClaimPool {
    /// The service.
    pub service: String,
    /// The instances of the pool.
    pub instances: Vec<PoolInstance>,
    /// The first claims that wait, at most 100.
    pub queue: Vec<PoolWaiter>,
    /// How many wait.
    pub waiting: u64,
    /// How many keep their place for a while although their clients have gone.
    pub left: u64,
    /// How many grants were made.
    pub granted: u64,
    /// How many claims expired.
    pub expired: u64,
}

/// An instance of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PoolInstance {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its node.
    pub node: String,
    /// Claims that it serves at a time; 0: it has left the pool, and serves those that it has.
    pub slots: u32,
    /// Who has it.
    pub busy: Vec<PoolHolder>,
    /// Slots that are closed for a while because their claims were lost.
    #[serde(skip_serializing_if = "is_zero")]
    pub closed: u32,
    /// Whether its checks let it be claimed.
    pub usable: bool,
    /// When a claim on it last ended, or when it came, RFC 3339.
    pub idle_since: String,
}

/// Who has an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PoolHolder {
    /// The holder.
    pub holder: String,
    /// The fence of the grant: what an operator releases it by.
    pub fence: u64,
    /// When it was granted, RFC 3339.
    pub since: String,
}

/// Who waits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PoolWaiter {
    /// The holder to be.
    pub holder: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// What it requires of the instance.
    #[serde(skip_serializing_if = "TextMap::is_empty")]
    pub require: TextMap,
    /// Whether its client has gone: it keeps its place for 10 s, and is passed over.
    #[serde(skip_serializing_if = "is_false")]
    pub left: bool,
}

/// A row of `GET /v1/quorate/claims`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ClaimPoolCounts {
    /// The service.
    pub service: String,
    /// How many instances are in the pool.
    pub instances: u64,
    /// How many claims they can serve at a time.
    pub slots: u64,
    /// How many they serve.
    pub busy: u64,
    /// How many claims wait.
    pub waiting: u64,
    /// How many keep their place for a while although their clients have gone.
    pub left: u64,
    /// How many grants were made.
    pub granted: u64,
    /// How many claims expired.
    pub expired: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
const fn is_false(value: &bool) -> bool {
    !*value
}
