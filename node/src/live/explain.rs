//! Why something is as it is: the row that there is, and the records that led to it.
//!
//! A subject is found as it is now, or, if it is gone, in the history. Its records are its thread there
//! ([`quorate_storage::state::Thread`]), so explaining costs as much as there is to tell.

use std::collections::BTreeSet;
use std::sync::Arc;

use quorate_client::types::history::{ExplainedSubject, Explanation};
use quorate_storage::index::fold;
use quorate_storage::machine::Published;
use quorate_storage::record::{
    Check, Claim, ClaimPhase, HistoryKind, HistoryRecord, KvEntry, Node, Ring, SERF_HEALTH,
    Service, Session,
};
use quorate_storage::state::Thread;

use super::rows::badness;
use super::sentence;
use super::show::{date, event};
use super::threads::{is_maintenance, newest, of_check, of_gone, of_key, of_status, restore_after};

/// Why there is no explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unexplained {
    /// There is no such thing, and none was there as far as the history goes.
    Unknown(String),
    /// Several things have the id.
    Ambiguous(String),
}

/// What a subject is now.
#[derive(Debug, Clone)]
pub enum Now {
    /// An instance.
    Service(Arc<Service>),
    /// A check.
    Check(Arc<Check>),
    /// A node.
    Node(Arc<Node>),
    /// A key.
    Key(KvEntry),
    /// A session.
    Session(Arc<Session>),
    /// A claim.
    Claim(Arc<Claim>),
}

/// An explanation whose `now` is still to be rendered.
#[derive(Debug, Clone)]
pub struct Explained {
    /// The rest of it.
    pub explanation: Explanation,
    /// What the subject is now; `None`: it is gone.
    pub now: Option<Now>,
}

/// Explains an instance by its id: the agent's, else the only one.
///
/// # Errors
/// See [`Unexplained`].
pub fn service(
    published: &Published,
    whose: Whose<'_>,
    id: &str,
) -> Result<Explained, Unexplained> {
    let state = &published.state;
    let history = state.history();
    let rows: Vec<_> = state.services_with_id(id).collect();
    let was_there = |node: &str| {
        history.thread(&Thread::Instance(id.into(), fold(node).into())).next().is_some()
    };
    if let Some(row) = choose("service", whose, id, &rows, |row| &row.node, was_there)? {
        let definition = &row.definition;
        let thread = Thread::Instance(definition.id.clone(), fold(&row.node).into());
        let records = newest(history, &thread);
        let (why, next) = why_service(published, row, &records);
        return Ok(Explained {
            now: Some(Now::Service(Arc::clone(row))),
            explanation: Explanation {
                subject: ExplainedSubject {
                    node: row.node.to_string(),
                    service: definition.name.to_string(),
                    id: definition.id.to_string(),
                    ..of_type("service")
                },
                why,
                next,
                timeline: timeline(published, &records),
                ..Explanation::default()
            },
        });
    }
    let records = of_gone(history, whose.agent(), id, false)
        .map_err(|nodes| ambiguous("service", id, nodes.into_iter()))?;
    past(published, "service", id, records)
}

/// Explains a check by its id: the agent's, else the only one.
///
/// # Errors
/// See [`Unexplained`].
pub fn check(published: &Published, whose: Whose<'_>, id: &str) -> Result<Explained, Unexplained> {
    let state = &published.state;
    let history = state.history();
    let rows: Vec<_> = match id {
        // Each node has it.
        SERF_HEALTH => state.check(whose.agent(), id).into_iter().collect(),
        _ => state.checks_with_id(id).collect(),
    };
    let was_there =
        |node: &str| history.thread(&Thread::Check(id.into(), fold(node).into())).next().is_some();
    if let Some(row) = choose("check", whose, id, &rows, |row| &row.node, was_there)? {
        let records = of_check(history, row);
        let joined = newest(history, &Thread::Node(fold(&row.node).into()));
        let next = capitalized(sentence::next(published, row));
        let why = format!(
            "Check {id} on {} is {}.",
            row.node,
            sentence::status(published, row, of_status(row, &records).or(of_status(row, &joined)))
        );
        return Ok(Explained {
            now: Some(Now::Check(Arc::clone(row))),
            explanation: Explanation {
                subject: ExplainedSubject {
                    node: row.node.to_string(),
                    service: row.service_name.to_string(),
                    id: row.registration.service_id.to_string(),
                    check: row.registration.id.to_string(),
                    ..of_type("check")
                },
                why,
                next,
                timeline: timeline(published, &records),
                ..Explanation::default()
            },
        });
    }
    let records = of_gone(history, whose.agent(), id, true)
        .map_err(|nodes| ambiguous("check", id, nodes.into_iter()))?;
    past(published, "check", id, records)
}

/// Explains a node by its name.
///
/// # Errors
/// See [`Unexplained`].
pub fn node(published: &Published, name: &str) -> Result<Explained, Unexplained> {
    let state = &published.state;
    let row = state.node(name);
    let found = row.map_or(name, |row| &row.name);
    let records = newest(state.history(), &Thread::Node(fold(found).into()));
    let Some(row) = row else { return past(published, "node", name, records) };
    let worst = state.node_checks(&row.name).max_by_key(|check| badness(check));
    let (why, next) = match worst {
        Some(check) => {
            let why = match maintenance(published, check, &records) {
                Some(maintenance) => format!("critical: it is {maintenance}"),
                None => sentence::status(published, check, of_status(check, &records)),
            };
            (format!("Node {} is {why}.", row.name), sentence::next(published, check))
        }
        None => match records.first() {
            Some(last) => (
                format!("Node {} {}.", row.name, sentence::happened(published, last)),
                String::new(),
            ),
            None => (nothing_kept("Node", &row.name), String::new()),
        },
    };
    Ok(Explained {
        now: Some(Now::Node(Arc::clone(row))),
        explanation: Explanation {
            subject: ExplainedSubject { node: row.name.to_string(), ..of_type("node") },
            why,
            next: capitalized(next),
            timeline: timeline(published, &records),
            ..Explanation::default()
        },
    })
}

/// Explains a key.
///
/// # Errors
/// See [`Unexplained`].
pub fn key(published: &Published, key: &str) -> Result<Explained, Unexplained> {
    let state = &published.state;
    let mut records = of_key(state.history(), key);
    let Some(row) = state.key(key) else { return past(published, "key", key, records) };
    let written = records.iter().find(|record| record.kind == HistoryKind::KeySet);
    // A backup brings its own value, whatever was written before.
    let last = records.first().map_or(state.history().lost_through(Ring::Keys), |last| last.seq);
    let restored = restore_after(state.history(), last);
    let mut why = match (restored, written) {
        (Some(restored), _) => {
            format!("Key {key} {}.", sentence::came_with_backup(published, restored))
        }
        (None, Some(record)) => format!("Key {key} {}.", sentence::happened(published, record)),
        (None, None) => nothing_kept("Key", key),
    };
    records.splice(..0, restored.cloned());
    let mut next = String::new();
    if let Some(session) = &row.session {
        let locked = records.iter().find(|record| record.kind == HistoryKind::LockAcquired);
        let since = locked.map_or_else(String::new, |record| {
            format!(" since {} because {}", date(record.at), sentence::because(published, record))
        });
        why.push_str(&format!(" Session {session} holds it{since}."));
        next = "The lock ends with its session, or when that releases it.".to_owned();
    }
    Ok(Explained {
        now: Some(Now::Key(row.clone())),
        explanation: Explanation {
            subject: ExplainedSubject { key: key.to_owned(), ..of_type("key") },
            why,
            next,
            timeline: timeline(published, &records),
            ..Explanation::default()
        },
    })
}

/// Explains a session.
///
/// # Errors
/// See [`Unexplained`].
pub fn session(published: &Published, id: &str) -> Result<Explained, Unexplained> {
    let state = &published.state;
    let records = newest(state.history(), &Thread::Session(id.into()));
    let Some(row) = state.session(id) else { return past(published, "session", id, records) };
    let why = match records.first() {
        Some(record) => format!("Session {id} {}.", sentence::happened(published, record)),
        None => nothing_kept("Session", id),
    };
    let next = sentence::left(published, row.number).map_or_else(
        || "It ends when it is destroyed, or when a check that it needs turns critical.".to_owned(),
        |left| format!("It ends in {left} unless it is renewed."),
    );
    Ok(Explained {
        now: Some(Now::Session(Arc::clone(row))),
        explanation: Explanation {
            subject: ExplainedSubject {
                session: id.to_owned(),
                node: row.node.to_string(),
                ..of_type("session")
            },
            why,
            next,
            timeline: timeline(published, &records),
            ..Explanation::default()
        },
    })
}

/// Explains a claim by its id.
///
/// # Errors
/// See [`Unexplained`].
pub fn claim(published: &Published, id: &str) -> Result<Explained, Unexplained> {
    let state = &published.state;
    let records = newest(state.history(), &Thread::Claim(id.into()));
    let Some(row) = state.claim(id) else { return past(published, "claim", id, records) };
    let why = match records.first() {
        Some(record) => format!("Claim {id} {}.", sentence::happened(published, record)),
        None => nothing_kept("Claim", id),
    };
    let left = sentence::left(published, row.number);
    let next = match (&row.phase, left) {
        (ClaimPhase::Queued { .. }, None) => {
            format!("At most {} others come before it.", state.ahead_of(row))
        }
        (ClaimPhase::Queued { .. }, Some(left)) => {
            format!("No request waits for it: it is withdrawn in {left} unless one asks again.")
        }
        (ClaimPhase::Granted(grant), Some(left)) if grant.is_offer => {
            format!("Its holder may not know of it: it waits again in {left} unless one says so.")
        }
        (ClaimPhase::Granted(_), Some(left)) => {
            format!("It expires in {left} unless it is renewed.")
        }
        (ClaimPhase::Granted(_), None) => {
            "It ends when it is released, or with its session.".to_owned()
        }
        (ClaimPhase::Ended { .. }, _) => "It is over.".to_owned(),
    };
    Ok(Explained {
        now: Some(Now::Claim(Arc::clone(row))),
        explanation: Explanation {
            subject: ExplainedSubject {
                claim: id.to_owned(),
                service: row.service.to_string(),
                ..of_type("claim")
            },
            why,
            next,
            timeline: timeline(published, &records),
            ..Explanation::default()
        },
    })
}

/// Whose ids come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose<'a> {
    /// Those of this agent only: the client asks for it.
    Only(&'a str),
    /// Those of the client agent that passes the request on.
    Named(&'a str),
    /// Those of the agent of the client's host.
    Host(&'a str),
}

impl<'a> Whose<'a> {
    fn agent(self) -> &'a str {
        match self {
            Self::Only(agent) | Self::Named(agent) | Self::Host(agent) => agent,
        }
    }
}

/// The row that an id means: that of the agent, else the only one, unless the client asks for an agent. What a
/// named agent once had is meant rather than what another one has.
fn choose<'a, T>(
    what: &str,
    whose: Whose<'_>,
    id: &str,
    rows: &[&'a Arc<T>],
    node: impl Fn(&T) -> &Arc<str>,
    was_there: impl Fn(&str) -> bool,
) -> Result<Option<&'a Arc<T>>, Unexplained> {
    if let Some(own) = rows.iter().find(|row| fold(node(row)) == fold(whose.agent())) {
        return Ok(Some(own));
    }
    match whose {
        Whose::Only(agent) | Whose::Named(agent) if was_there(agent) => return Ok(None),
        Whose::Only(agent) => {
            return Err(Unexplained::Unknown(format!("no {what} {id:?} on node {agent}")));
        }
        Whose::Named(_) | Whose::Host(_) => {}
    }
    match rows {
        [] => Ok(None),
        [only] => Ok(Some(only)),
        several => Err(ambiguous(what, id, several.iter().map(|row| node(row).to_string()))),
    }
}

fn ambiguous(what: &str, id: &str, nodes: impl Iterator<Item = String>) -> Unexplained {
    /// How many nodes the refusal names.
    const NAMED_MAX: usize = 8;
    let named: BTreeSet<String> = nodes.take(NAMED_MAX).collect();
    let named = named.into_iter().collect::<Vec<_>>().join(", ");
    Unexplained::Ambiguous(format!(
        "{what} ID {id:?} is registered on several nodes ({named}): name one with ?agent="
    ))
}

/// Why an instance has the status that it has, and what comes next: that of its worst check.
fn why_service(
    published: &Published,
    row: &Service,
    records: &[Arc<HistoryRecord>],
) -> (String, String) {
    let id = &row.definition.id;
    let history = published.state.history();
    let checks: Vec<_> = published.state.checks_of(row).collect();
    // Of several that are as bad, its own comes before its node's.
    let worst = checks
        .iter()
        .max_by_key(|check| (badness(check), !check.registration.service_id.is_empty()));
    let Some(worst) = worst else {
        let why = match records.first() {
            Some(record) => {
                format!("it has no checks; it {}", sentence::happened(published, record))
            }
            None => "it has no checks".to_owned(),
        };
        return (format!("{id} is passing because {why}."), String::new());
    };
    let what = &worst.registration;
    let status = what.status.as_str();
    let next = sentence::next(published, worst);
    let of_node = newest(history, &Thread::Node(fold(&row.node).into()));
    let maintained = |check: &Check| {
        let is_of_node = check.registration.service_id.is_empty();
        maintenance(published, check, if is_of_node { &of_node } else { records })
    };
    if let Some(maintenance) = maintained(worst) {
        return (format!("{id} is critical: it is {maintenance}."), next);
    }
    let own = of_check(history, worst);
    let record = of_status(worst, &own).or(of_status(worst, &of_node));
    let because = sentence::status(published, worst, record);
    let which = match (status, checks.len()) {
        ("passing", 1) => format!("{id} is passing: its check {} is {because}", what.id),
        ("passing", count) => {
            format!("{id} is passing: all {count} checks pass; {} is {because}", what.id)
        }
        _ => format!("{id} is {status}: check {} is {because}", what.id),
    };
    match checks.iter().find_map(|check| maintained(check)) {
        Some(maintenance) => {
            let next =
                format!("{} It stays critical until its maintenance ends.", capitalized(next));
            (format!("{which}. Besides, it is {maintenance}."), next.trim_start().to_owned())
        }
        None => (format!("{which}."), capitalized(next)),
    }
}

/// What is to be said of what is in maintenance, if a check says that it is.
fn maintenance(
    published: &Published,
    check: &Check,
    records: &[Arc<HistoryRecord>],
) -> Option<String> {
    if !is_maintenance(&check.registration.id) {
        return None;
    }
    let record = records.iter().find(|record| record.kind == HistoryKind::MaintenanceOn);
    let since = record.map_or_else(String::new, |record| {
        format!(" since {} because {}", date(record.at), sentence::because(published, record))
    });
    Some(format!("in maintenance{since}"))
}

/// What is gone, or was never there.
fn past(
    published: &Published,
    what: &str,
    name: &str,
    mut records: Vec<Arc<HistoryRecord>>,
) -> Result<Explained, Unexplained> {
    let Some(last) = records.first() else { return Err(unknown(what, name)) };
    if let Some(restore) = restore_after(published.state.history(), last.seq) {
        records.insert(0, Arc::clone(restore));
    }
    Ok(gone(published, what, name, &records))
}

/// Whether a record says that something is there no more.
const fn is_an_end(kind: HistoryKind) -> bool {
    matches!(
        kind,
        HistoryKind::ServiceDeregistered
            | HistoryKind::CheckDeregistered
            | HistoryKind::NodeLeft
            | HistoryKind::ServerLeft
            | HistoryKind::SessionEnded
            | HistoryKind::KeyDeleted
            | HistoryKind::ClaimEnded
    )
}

/// What is gone, by the record that says so.
fn gone(
    published: &Published,
    what: &str,
    name: &str,
    records: &[Arc<HistoryRecord>],
) -> Explained {
    let mut subject = of_type(what);
    match what {
        "node" => name.clone_into(&mut subject.node),
        "key" => name.clone_into(&mut subject.key),
        "session" => name.clone_into(&mut subject.session),
        "claim" => name.clone_into(&mut subject.claim),
        "check" => name.clone_into(&mut subject.check),
        _ => name.clone_into(&mut subject.id),
    }
    let own = records.iter().find(|record| record.kind != HistoryKind::Restored);
    // What was gone before a backup was restored did not go with that.
    let last = own.filter(|own| is_an_end(own.kind)).or(records.first());
    if let Some(own) = own {
        let shown = event(published, own);
        subject.node = if subject.node.is_empty() { shown.node } else { subject.node };
        subject.service = shown.service;
        subject.id = if subject.id.is_empty() { shown.id } else { subject.id };
    }
    let why = match last {
        Some(last) => {
            let mut why =
                format!("{what} {name} is gone: it {}.", sentence::happened(published, last));
            capitalize(&mut why);
            why
        }
        None => nothing_kept(what, name),
    };
    let timeline = timeline(published, records);
    Explained {
        now: None,
        explanation: Explanation { subject, why, timeline, ..Explanation::default() },
    }
}

fn of_type(what: &str) -> ExplainedSubject {
    ExplainedSubject { kind: what.to_owned(), ..ExplainedSubject::default() }
}

fn unknown(what: &str, name: &str) -> Unexplained {
    Unexplained::Unknown(format!("{what} {name:?} does not exist, and the history knows of none"))
}

fn nothing_kept(what: &str, name: &str) -> String {
    format!("{what} {name} is older than the history that is kept.")
}

/// Oldest first.
fn timeline(
    published: &Published,
    newest_first: &[Arc<HistoryRecord>],
) -> Vec<quorate_client::types::history::HistoryEvent> {
    newest_first.iter().rev().map(|record| event(published, record)).collect()
}

fn capitalize(text: &mut str) {
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
}

/// A sentence of a clause.
fn capitalized(mut clause: String) -> String {
    capitalize(&mut clause);
    if !clause.is_empty() && !clause.ends_with('.') {
        clause.push('.');
    }
    clause
}
