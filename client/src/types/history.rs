//! The history of the cluster: `GET /v1/quorate/history` and `GET /v1/quorate/explain/...`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One visible change and its cause. Members that do not apply are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HistoryEvent {
    /// 1, 2, 3, ... without gaps, for the life of the cluster.
    pub seq: u64,
    /// The index of the change, as in `X-Consul-Index`.
    pub index: u64,
    /// Cluster time in milliseconds: it stands still while there is no leader.
    pub time: u64,
    /// When it happened, for people: RFC 3339, UTC, by the leader's clock.
    pub at: String,
    /// What happened, such as `check.changed`.
    pub kind: String,
    /// The node.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// The service.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// The instance's id; the accessor of a token, the id of a policy or a role.
    #[serde(rename = "ID", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// What a token, a policy or a role is called.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The check's id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub check: String,
    /// The key, or a prefix below which all keys were deleted.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// The session.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub session: String,
    /// The number of a claim. (Its id is not shown: whoever knows it may release the claim.) `Node` and `ID` are
    /// those of its instance.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub claim: String,
    /// Who asked for the claim.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub holder: String,
    /// The fence of the claim's grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
    /// The number of the claim's grant in its service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<u64>,
    /// The claim's place in line, by the order of the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Why the claim is over, such as `released`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// A check's status before.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// A check's status after.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub to: String,
    /// The beginning of a check's output, a key's size and flags, an operator's reason.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Why.
    pub cause: HistoryCause,
}

/// Why something happened. Members that do not apply are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HistoryCause {
    /// `request`, `silence`, `deregister-after`, `probe`, `server`, `session`, `idle`, `connection`,
    /// `claim-delay`, `expired`.
    pub kind: String,
    /// The agent in whose name a client asked. Nobody has checked that it was that agent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub agent_claimed: String,
    /// `IP:PORT` of the client.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client: String,
    /// The server that took the request, ran the check, or acted of its own accord.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server: String,
    /// The endpoint that was asked, without `/v1/`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub action: String,
    /// The accessor of the client's token.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub token: String,
    /// When the last heartbeat came, as in [`HistoryEvent::at`].
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_heard: String,
    /// How long the silence may last, or a service be critical, such as `15s`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub after: String,
    /// Since when it was critical, idle, without its connection, or closed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub since: String,
    /// The session that ended.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub session: String,
    /// The worker process that ran the check; absent where a server did.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub worker: String,
    /// How the connection of a presence ended: `connection` (the client's end), `moved` (its server stopped),
    /// `server-lost`, `restored`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ended: String,
}

/// Why something is as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Explanation {
    /// What is explained: `Type` and the names that find it.
    pub subject: ExplainedSubject,
    /// What it is now, as other endpoints show it; `null` if it is gone.
    pub now: Value,
    /// Why, in a sentence for people.
    pub why: String,
    /// What happens next, in a sentence for people; may be empty.
    pub next: String,
    /// Its newest records, oldest first.
    pub timeline: Vec<HistoryEvent>,
}

/// What an [`Explanation`] is about. Members that do not apply are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExplainedSubject {
    /// `service`, `check`, `node`, `key`, `session` or `claim`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// The node.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// The service.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// The instance's id.
    #[serde(rename = "ID", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The check's id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub check: String,
    /// The key.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// The session.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub session: String,
    /// The claim's id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub claim: String,
}
