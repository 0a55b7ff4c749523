//! Sentences for people, made of records and rows.

use quorate_storage::machine::Published;
use quorate_storage::record::{
    Cause, Check, CheckStatus, ClaimFacts, Detail, HISTORY_OUTPUT_BYTES_MAX, HistoryKind,
    HistoryRecord, OnClose, Presence, PresenceEnd, Ring, SERF_HEALTH, Subject,
};
use quorate_storage::{Millis, State};

use super::show::{date, date_before, server_name, span};

/// Why a record was made, as it follows "because".
pub(super) fn because(published: &Published, record: &HistoryRecord) -> String {
    let name = |server| server_name(published, server);
    let time = |time| date_before(record, time);
    match &record.cause {
        Cause::Request { server, request: None } => {
            format!("a client asked for it through {}", name(*server))
        }
        Cause::Request { server, request: Some(facts) } => {
            let client = facts.client.map_or_else(
                || "a client of the server's own host".to_owned(),
                |client| format!("a client at {client}"),
            );
            let agent = match &*facts.agent_claimed {
                "" => String::new(),
                agent => format!(", in the name of agent {agent},"),
            };
            format!("{client}{agent} asked for it through {} ({})", name(*server), facts.action)
        }
        Cause::Silence { last_heard, ttl } => {
            let (ttl, last) = (span(*ttl), time(*last_heard));
            match record.subject {
                Subject::Session { .. } => {
                    format!("nobody renewed it for {ttl}; the last renewal came at {last}")
                }
                Subject::Claim { .. } => {
                    format!("nothing was heard of it for {ttl}, since {last}")
                }
                _ => format!("no heartbeat came for {ttl}; the last one came at {last}"),
            }
        }
        Cause::DeregisterAfter { since, after } => {
            format!("it was critical since {} for longer than {}", time(*since), span(*after))
        }
        Cause::Probe { by } => format!("{} ran its check", name(*by)),
        Cause::Worker { name } => format!("worker {name} ran its check"),
        Cause::Expired => "its time was over".to_owned(),
        Cause::Server { server } => format!("server {} saw to it", name(*server)),
        Cause::Session(session) => format!("session {session} ended"),
        Cause::Idle { since } => format!("its agent had nothing registered since {}", time(*since)),
        Cause::SlotOpened { since } => {
            format!(
                "a slot opened again that was closed at {} after its claim was lost",
                time(*since)
            )
        }
        Cause::Connection { server, why, since } => {
            connection_ended(&name(*server), *why, &time(*since))
        }
    }
}

/// What became of the connection that held an instance.
fn connection_ended(server: &str, why: PresenceEnd, at: &str) -> String {
    match why {
        PresenceEnd::Connection => format!("its connection to {server} ended at {at}"),
        PresenceEnd::Moved => {
            format!("{server} sent it to another server at {at}, and it did not come back")
        }
        PresenceEnd::Restored => {
            format!("a backup was restored at {at}, and it did not come back")
        }
        PresenceEnd::Lost => {
            format!(
                "{server}, to which it was connected, was lost at {at}, and it did not come back"
            )
        }
    }
}

/// What a record says, as a sentence without its end: "it was registered at ... because ...".
pub(super) fn happened(published: &Published, record: &HistoryRecord) -> String {
    let what = match record.kind {
        HistoryKind::ServiceRegistered | HistoryKind::CheckRegistered => "was registered",
        HistoryKind::ServiceChanged
        | HistoryKind::CheckChanged
        | HistoryKind::NodeChanged
        | HistoryKind::TokenChanged
        | HistoryKind::PolicyChanged
        | HistoryKind::RoleChanged => "was changed",
        HistoryKind::ServiceDeregistered | HistoryKind::CheckDeregistered => "was deregistered",
        HistoryKind::ServiceRestarted => "was restarted",
        HistoryKind::NodeJoined => "joined",
        HistoryKind::NodeLeft => "left",
        HistoryKind::ServerJoined => "joined as a server",
        HistoryKind::ServerLost => "was lost",
        HistoryKind::ServerBack => "came back",
        HistoryKind::ServerLeft => "left the cluster",
        HistoryKind::LeaderElected => "was elected",
        HistoryKind::SessionCreated
        | HistoryKind::TokenCreated
        | HistoryKind::PolicyCreated
        | HistoryKind::RoleCreated => "was created",
        HistoryKind::SessionEnded => "ended",
        HistoryKind::TokenExpired => "expired",
        HistoryKind::LockAcquired => "was locked",
        HistoryKind::LockReleased => "was released",
        HistoryKind::KeySet => "was written",
        HistoryKind::KeyDeleted
        | HistoryKind::TokenDeleted
        | HistoryKind::PolicyDeleted
        | HistoryKind::RoleDeleted => "was deleted",
        HistoryKind::MaintenanceOn => "went into maintenance",
        HistoryKind::MaintenanceOff => "left maintenance",
        HistoryKind::ClaimQueued => "was queued",
        HistoryKind::ClaimGranted => "was granted",
        HistoryKind::ClaimEnded => "ended",
        HistoryKind::Restored => "went when a backup was restored",
    };
    let cause = because(published, record);
    let check = match &record.detail {
        Detail::Check(check) => format!(", and with that its check {check}"),
        Detail::Claim(facts) => outcome_of(facts),
        _ => String::new(),
    };
    format!("{what} at {} because {cause}{check}", date(record.at))
}

/// What a claim has come to.
fn outcome_of(facts: &ClaimFacts) -> String {
    let has = match facts.fence {
        0 => String::new(),
        fence => format!("; its instance is {} with fence {fence}", facts.instance),
    };
    let ended = facts.ended.map_or_else(String::new, |why| format!(": {}", why.as_str()));
    format!("{ended}{has}")
}

/// Where something comes from that a restored backup brought.
pub(super) fn came_with_backup(published: &Published, restored: &HistoryRecord) -> String {
    let cause = because(published, restored);
    format!("is as in the backup that was restored at {} because {cause}", date(restored.at))
}

/// Why a check has its status: since when, and because of what, as far as records are kept.
pub(super) fn status(published: &Published, row: &Check, record: Option<&HistoryRecord>) -> String {
    let word = row.registration.status.as_str();
    let presence = published.state.presence(row.number);
    if let (CheckStatus::Passing, Some(presence)) = (&row.registration.status, presence) {
        return connected(published, presence, record);
    }
    let Some(record) = record else {
        return format!("{word} since before {}", beginning(&published.state));
    };
    let cause = if &*row.registration.id == SERF_HEALTH {
        liveness(published, row, record)
    } else {
        because(published, record)
    };
    let found = match (&record.cause, &record.detail) {
        // Where the record has none it may repeat a secret.
        (Cause::Probe { .. } | Cause::Worker { .. }, Detail::Output(_)) if word != "passing" => {
            found(row)
        }
        _ => String::new(),
    };
    format!("{word} since {} because {cause}{found}", date(record.at))
}

/// What the last run of a check found, on one line.
fn found(row: &Check) -> String {
    let output = &row.registration.output;
    let output = &output[..output.floor_char_boundary(HISTORY_OUTPUT_BYTES_MAX)];
    let line = output.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() { line } else { format!(", which found: {line}") }
}

/// How far the history goes back.
pub(super) fn beginning(state: &State) -> String {
    let history = state.history();
    let first = match history.lost_through(Ring::Catalogue) {
        0 => history.get(1),
        _ => None,
    };
    match first {
        Some(first) => format!("the history began at {}", date(first.at)),
        None => "the history that is kept".to_owned(),
    }
}

/// Why the check of a presence passes.
fn connected(published: &Published, presence: &Presence, record: Option<&HistoryRecord>) -> String {
    let since = record.map_or_else(String::new, |record| format!(" since {}", date(record.at)));
    let ago = |then| tenths(published.state.time().since(then));
    match (presence.ended, presence.lease) {
        (Some(ended), _) => {
            let server = server_name(published, ended.server);
            let ago = ago(ended.since);
            match ended.why {
                PresenceEnd::Connection => {
                    format!("passing, but its connection to {server} ended {ago} ago")
                }
                PresenceEnd::Moved => {
                    format!("passing, but {server} sent it to another server {ago} ago")
                }
                PresenceEnd::Lost => {
                    format!("passing, but {server}, which it was connected to, was lost {ago} ago")
                }
                PresenceEnd::Restored => {
                    format!(
                        "passing, but it has not come back since a backup was restored {ago} ago"
                    )
                }
            }
        }
        (None, Some(lease)) => {
            let server = server_name(published, lease.origin);
            format!("passing{since} because its connection to {server} is open")
        }
        (None, None) => format!("passing{since}"),
    }
}

/// What tells whether a node lives.
fn liveness(published: &Published, row: &Check, record: &HistoryRecord) -> String {
    let is_alive = row.registration.status != CheckStatus::Critical;
    match (&record.cause, is_alive) {
        (Cause::Server { server }, true) => {
            format!("it answers the servers, says {}", server_name(published, *server))
        }
        (Cause::Server { server }, false) => {
            format!("it does not answer the leader {}", server_name(published, *server))
        }
        _ => because(published, record),
    }
}

/// What comes next for a check if nobody does anything, and what somebody can do.
pub(super) fn next(published: &Published, row: &Check) -> String {
    let what = &row.registration;
    if let Some(presence) = published.state.presence(row.number) {
        return next_of_presence(published, row, presence);
    }
    let left = published
        .state
        .deadline_of(row.number)
        .map(|deadline| whole_seconds(deadline.since(published.state.time())));
    let is_critical = what.status == CheckStatus::Critical;
    let is_ttl = !what.definition.ttl.is_zero();
    let runs = || match what.definition.interval.is_zero() {
        true => "the leader follows what it stands for".to_owned(),
        false => format!("a worker runs it every {}", span(what.definition.interval)),
    };
    match (is_ttl, is_critical, left) {
        (true, false, Some(left)) if row.patience() < what.definition.ttl => {
            let ttl = span(what.definition.ttl);
            format!(
                "without a heartbeat it warns in {left}, and turns critical {ttl} after the last one"
            )
        }
        (true, false, Some(left)) if row.said.is_some() => {
            let (said, _) = row.said();
            let said = said.as_str();
            format!("a heartbeat makes it {said} again; without one it turns critical in {left}")
        }
        (true, false, Some(left)) => format!("without a heartbeat it turns critical in {left}"),
        (true, true, Some(left)) => {
            format!("a heartbeat ends that; without one its service is deregistered in {left}")
        }
        (true, true, None) => "a heartbeat ends that".to_owned(),
        (true, false, None) => String::new(),
        (false, true, Some(left)) => {
            let runs =
                if what.definition.is_run() { format!("{}; ", runs()) } else { String::new() };
            format!("{runs}if it stays critical its service is deregistered in {left}")
        }
        (false, _, _) if what.definition.is_run() => runs(),
        (false, _, _) => String::new(),
    }
}

/// The same for the check of a presence.
fn next_of_presence(published: &Published, row: &Check, presence: &Presence) -> String {
    let deadline = published.state.deadline_of(row.number);
    let left = deadline.map(|deadline| deadline.since(published.state.time()));
    let end = match presence.terms.on_close {
        OnClose::Critical => "it turns critical",
        OnClose::Deregister => "its service is deregistered",
    };
    let is_critical = row.registration.status == CheckStatus::Critical;
    match (is_critical, left) {
        (true, Some(left)) => format!(
            "a new connection ends that; without one its service is deregistered in {}",
            whole_seconds(left)
        ),
        (true, None) => "a new connection ends that".to_owned(),
        (false, Some(left)) => format!("without a new connection {end} in {}", tenths(left)),
        (false, None) => format!("{} after its connection ends {end}", span(presence.terms.linger)),
    }
}

/// How long until something that has this number ends.
pub(super) fn left(published: &Published, number: u64) -> Option<String> {
    let deadline = published.state.deadline_of(number)?;
    Some(whole_seconds(deadline.since(published.state.time())))
}

/// To a tenth of a second.
fn tenths(millis: Millis) -> String {
    format!("{}.{} s", millis.0 / 1_000, millis.0 % 1_000 / 100)
}

/// Rounded up, so that nothing is promised too early.
fn whole_seconds(millis: Millis) -> String {
    span(Millis::from_secs(millis.0.div_ceil(1_000)))
}
