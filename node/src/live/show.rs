//! A record of the history as the API shows it.

use quorate_client::duration;
use quorate_client::types::history::{HistoryCause, HistoryEvent};
use quorate_storage::machine::Published;
use quorate_storage::raft::NodeId;
use quorate_storage::record::{
    self, Cause, CheckStatus, ClaimFacts, Detail, HistoryRecord, PresenceEnd, RequestFacts, Subject,
};
use quorate_storage::{ClusterTime, Millis, State};

use crate::host::clock::WallTime;

/// A record as JSON. Names of servers come from the present membership.
#[must_use]
pub fn event(published: &Published, record: &HistoryRecord) -> HistoryEvent {
    let status = |status: &Option<CheckStatus>| {
        status.as_ref().map_or_else(String::new, |status| status.as_str().to_owned())
    };
    let mut event = HistoryEvent {
        seq: record.seq,
        index: record.index.0,
        time: record.time.0,
        at: date(record.at),
        kind: record.kind.as_str().to_owned(),
        session: record.session.as_deref().unwrap_or_default().to_owned(),
        from: status(&record.from),
        to: status(&record.to),
        detail: detail(&record.detail),
        cause: cause(published, record),
        ..HistoryEvent::default()
    };
    match &record.subject {
        Subject::Cluster => {}
        Subject::Node { node } => event.node = node.to_string(),
        Subject::Instance { node, service, id } => {
            event.node = node.to_string();
            event.service = service.to_string();
            event.id = id.to_string();
        }
        Subject::Check { node, service, id, check } => {
            event.node = node.to_string();
            event.service = service.to_string();
            event.id = id.to_string();
            event.check = check.to_string();
        }
        Subject::Key(key) => event.key = key.to_string(),
        Subject::Session { id, node } => {
            event.session = id.to_string();
            event.node = node.to_string();
        }
        Subject::Claim { service, number, .. } => {
            event.service = service.to_string();
            event.claim = number.to_string();
        }
        Subject::Acl { id, name } => {
            event.id = id.to_string();
            event.name = name.to_string();
        }
    }
    if let Detail::Claim(facts) = &record.detail {
        show_claim(&mut event, facts);
    }
    event
}

fn show_claim(event: &mut HistoryEvent, facts: &ClaimFacts) {
    event.holder = facts.holder.to_string();
    event.node = facts.node.to_string();
    event.id = facts.instance.to_string();
    event.fence = (facts.fence > 0).then_some(facts.fence);
    event.grant = (facts.seq > 0).then_some(facts.seq);
    event.position = Some(facts.position);
    event.reason = facts.ended.map_or_else(String::new, |why| why.as_str().to_owned());
}

fn detail(detail: &Detail) -> String {
    match detail {
        Detail::None => String::new(),
        Detail::Output(text) | Detail::Reason(text) => text.to_string(),
        Detail::Value { bytes: 1, flags } => format!("1 byte, flags {flags}"),
        Detail::Value { bytes, flags } => format!("{bytes} bytes, flags {flags}"),
        Detail::Below(keys) => format!("all keys that begin with it ({keys})"),
        Detail::Check(check) => format!("check {check:?} is gone or critical"),
        Detail::Term(term) => format!("term {term}"),
        Detail::Claim(facts) if facts.require.is_empty() => String::new(),
        Detail::Claim(facts) => format!("requires {}", facts.require),
    }
}

fn cause(published: &Published, record: &HistoryRecord) -> HistoryCause {
    let name = |server: NodeId| server_name(published, server);
    let time = |time: ClusterTime| date_before(record, time);
    let of_kind = |kind: &str| HistoryCause { kind: kind.to_owned(), ..HistoryCause::default() };
    match &record.cause {
        Cause::Request { server, request } => {
            let none = RequestFacts::default();
            let facts = request.as_deref().unwrap_or(&none);
            HistoryCause {
                agent_claimed: facts.agent_claimed.to_string(),
                client: facts.client.map_or_else(String::new, |client| client.to_string()),
                server: name(*server),
                action: facts.action.to_string(),
                token: facts.token.to_string(),
                ..of_kind("request")
            }
        }
        Cause::Silence { last_heard, ttl } => {
            HistoryCause { last_heard: time(*last_heard), after: span(*ttl), ..of_kind("silence") }
        }
        Cause::DeregisterAfter { since, after } => {
            HistoryCause { since: time(*since), after: span(*after), ..of_kind("deregister-after") }
        }
        Cause::Probe { by } => HistoryCause { server: name(*by), ..of_kind("probe") },
        Cause::Expired => of_kind("expired"),
        Cause::Worker { name } => HistoryCause { worker: name.to_string(), ..of_kind("probe") },
        Cause::Server { server } => HistoryCause { server: name(*server), ..of_kind("server") },
        Cause::Session(session) => {
            HistoryCause { session: session.to_string(), ..of_kind("session") }
        }
        Cause::Idle { since } => HistoryCause { since: time(*since), ..of_kind("idle") },
        Cause::SlotOpened { since } => {
            HistoryCause { since: time(*since), ..of_kind("claim-delay") }
        }
        Cause::Connection { server, why, since } => HistoryCause {
            server: match why {
                PresenceEnd::Restored => String::new(),
                PresenceEnd::Connection | PresenceEnd::Moved | PresenceEnd::Lost => name(*server),
            },
            since: time(*since),
            ended: match why {
                PresenceEnd::Connection => "connection",
                PresenceEnd::Moved => "moved",
                PresenceEnd::Lost => "server-lost",
                PresenceEnd::Restored => "restored",
            }
            .to_owned(),
            ..of_kind("connection")
        },
    }
}

/// A server by its name, or by its Raft id if it is no member any more.
#[must_use]
pub fn server_name(published: &Published, server: NodeId) -> String {
    let peer = published.membership.membership().get_node(&server);
    peer.map_or_else(|| format!("server {server}"), |peer| peer.name.clone())
}

/// A wall-clock time, RFC 3339, UTC.
#[must_use]
pub fn date(at: record::WallTime) -> String {
    WallTime::from_unix_millis(at.0).to_string()
}

/// The wall-clock time of a cluster time before a record: as long before the record's as the cluster times are
/// apart.
#[must_use]
pub fn date_before(record: &HistoryRecord, time: ClusterTime) -> String {
    date(record::WallTime(record.at.0.saturating_sub(record.time.since(time).0)))
}

/// The wall-clock time of a cluster time, as far as the state can tell; else empty.
#[must_use]
pub fn date_of(state: &State, time: ClusterTime) -> String {
    state.wall_time(time).map_or_else(String::new, date)
}

/// A span as Go writes it, such as `1m30s`.
#[must_use]
pub fn span(span: Millis) -> String {
    duration::format(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quorate_storage::Index;
    use quorate_storage::record::HistoryKind;

    use super::*;

    #[test]
    fn a_record_shows_what_applies_and_nothing_else() {
        let request = RequestFacts {
            client: Some("10.0.0.9:5000".parse().unwrap()),
            action: "agent/service/register".into(),
            ..RequestFacts::default()
        };
        let record = HistoryRecord {
            seq: 7,
            index: Index(12),
            time: ClusterTime(1_500),
            at: record::WallTime(1_000),
            kind: HistoryKind::CheckChanged,
            subject: Subject::Check {
                node: "n".into(),
                service: "web".into(),
                id: "web-1".into(),
                check: "c".into(),
            },
            session: None,
            from: Some(CheckStatus::Passing),
            to: Some(CheckStatus::Critical),
            detail: Detail::None,
            cause: Cause::Request { server: 4, request: Some(Arc::new(request)) },
            previous: 3,
        };
        let shown = serde_json::to_value(event(&Published::default(), &record)).unwrap();
        assert_eq!(
            shown,
            serde_json::json!({
                "Seq": 7, "Index": 12, "Time": 1_500, "At": "1970-01-01T00:00:01.000Z",
                "Kind": "check.changed", "Node": "n", "Service": "web", "ID": "web-1",
                "Check": "c", "From": "passing", "To": "critical",
                "Cause": {
                    "Kind": "request", "Client": "10.0.0.9:5000", "Server": "server 4",
                    "Action": "agent/service/register",
                },
            })
        );
    }
}
