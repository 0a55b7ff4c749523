//! An instance as lists and streams show it.

use std::collections::HashMap;
use std::sync::Arc;

use quorate_client::types::live::{Instance, StreamBeat};
use quorate_storage::index::fold;
use quorate_storage::record::{
    Check, CheckStatus, EndedPresence, HISTORY_OUTPUT_BYTES_MAX, HistoryKind, HistoryRecord,
    PRESENCE_CHECK, PresenceEnd, Service,
};
use quorate_storage::state::Thread;
use quorate_storage::{ClusterTime, Millis, State};

use super::show::{date, date_of, span};
use super::threads::{is_maintenance, status_record};

const PASSING: &str = "passing";
const WARNING: &str = "warning";
const CRITICAL: &str = "critical";
/// How many records of an instance are looked through for its registration.
const LOOKED_THROUGH_MAX: usize = 16;

/// The row of an instance in a state.
#[must_use]
pub fn instance(state: &State, row: &Service) -> Instance {
    Rows::of(state).instance(row)
}

/// Rows of a list. What the instances of a node have in common is looked up once.
#[derive(Debug)]
pub struct Rows<'a> {
    state: &'a State,
    /// By number, for checks of nodes: the record of the change that gave each its status.
    of_nodes: HashMap<u64, Option<&'a HistoryRecord>>,
}

impl<'a> Rows<'a> {
    /// Those of a state.
    #[must_use]
    pub fn of(state: &'a State) -> Self {
        Self { state, of_nodes: HashMap::new() }
    }

    /// The next row.
    #[must_use]
    pub fn instance(&mut self, row: &Service) -> Instance {
        let checks: Vec<_> = self.state.checks_of(row).collect();
        let since = self.since(row, &checks);
        shown(self.state, row, &checks, since)
    }

    /// Since when an instance has its status: while it is not passing, since the first of the checks that are as
    /// bad as that; while it is, since the last of all became so. Empty: that is not kept.
    fn since(&mut self, row: &Service, checks: &[&'a Arc<Check>]) -> String {
        let (state, history) = (self.state, self.state.history());
        let worst = checks.iter().map(|check| badness(check)).max().unwrap_or(0);
        let decisive = checks.iter().filter(|check| badness(check) == worst);
        let records: Vec<_> = decisive.clone().map(|check| self.status_record(check)).collect();
        if worst == 0 {
            let thread = Thread::Instance(row.definition.id.clone(), fold(&row.node).into());
            let mut own = history.thread(&thread).take(LOOKED_THROUGH_MAX);
            let registered = own.find(|record| record.kind == HistoryKind::ServiceRegistered);
            let all = records.into_iter().flatten().chain(registered.map(|one| &**one));
            let last = all.max_by_key(|record| record.seq);
            return last.map_or_else(String::new, |last| date(last.at));
        }
        let records: Option<Vec<&HistoryRecord>> = records.into_iter().collect();
        let first = records.and_then(|records| records.into_iter().min_by_key(|record| record.seq));
        let derived = || decisive.filter_map(|check| check.critical_since).min();
        match first {
            Some(first) => date(first.at),
            None => derived().map_or_else(String::new, |time| date_of(state, time)),
        }
    }

    fn status_record(&mut self, check: &'a Check) -> Option<&'a HistoryRecord> {
        let history = self.state.history();
        if !check.registration.service_id.is_empty() {
            return status_record(history, check);
        }
        let known = self.of_nodes.entry(check.number);
        *known.or_insert_with(|| status_record(history, check))
    }
}

fn shown(state: &State, row: &Service, checks: &[&Arc<Check>], since: String) -> Instance {
    let definition = &row.definition;
    let node_address =
        || state.node(&row.node).map_or_else(String::new, |node| node.address.clone());
    let address = match definition.address.is_empty() {
        true => node_address(),
        false => definition.address.clone(),
    };
    let heard = last_heard(state, row);
    // The first of equally bad ones.
    let worst = checks.iter().rev().max_by_key(|check| badness(check));
    let status = worst.map_or(PASSING, |check| status(check));
    let reason =
        |of: &str| worst.filter(|_| status == of).map_or_else(String::new, |one| said(one));
    let (check, facts) = (state.heartbeat_check(row), state.process_of(row));
    let is_own_ttl = |check: &&&Arc<Check>| {
        let what = &check.registration;
        !what.service_id.is_empty() && !what.definition.ttl.is_zero()
    };
    let how = check.or_else(|| checks.iter().find(is_own_ttl).copied());
    let how = how.map(|check| &check.registration.definition);
    let text = |span: Millis| if span.is_zero() { String::new() } else { self::span(span) };
    Instance {
        service: definition.name.to_string(),
        id: definition.id.to_string(),
        node: row.node.to_string(),
        address,
        port: definition.port,
        status: status.to_owned(),
        active: status == PASSING,
        warning: reason(WARNING),
        error: reason(CRITICAL),
        since,
        age_ms: heard.map(|heard| state.time().since(heard).0),
        last_heard: heard.map_or_else(String::new, |heard| date_of(state, heard)),
        process: facts.map_or_else(String::new, |facts| facts.process.to_string()),
        pid: facts.map(|facts| facts.pid).filter(|pid| *pid > 0),
        started: facts.map(|facts| facts.started).filter(|started| *started > 0),
        version: facts.map_or_else(String::new, |facts| facts.version.to_string()),
        counter: check.and_then(|check| state.counter(check.number)),
        warn_after: how.map_or_else(String::new, |how| text(how.later.warn_after)),
        critical_after: how.map_or_else(String::new, |how| text(how.ttl)),
        restarts: facts.map_or(0, |facts| facts.restarts),
        presence: presence(state, row).to_owned(),
        tags: definition.tags.to_vec(),
        meta: definition.meta.clone().unwrap_or_default(),
    }
}

/// The last heartbeat of an instance, as streams show it; `None`: none is expected.
#[must_use]
pub fn beat(state: &State, row: &Service) -> Option<StreamBeat> {
    let heard = last_heard(state, row)?;
    let (check, facts) = (state.heartbeat_check(row), state.process_of(row));
    Some(StreamBeat {
        node: row.node.to_string(),
        id: row.definition.id.to_string(),
        age_ms: state.time().since(heard).0,
        counter: check.and_then(|check| state.counter(check.number)),
        pid: facts.map(|facts| facts.pid).filter(|pid| *pid > 0),
    })
}

/// When an instance was last heard of.
fn last_heard(state: &State, row: &Service) -> Option<ClusterTime> {
    state.own_checks_of(row).filter_map(|check| state.last_seen(check.number)).max()
}

/// How a connection holds an instance; empty: none ever did.
fn presence(state: &State, row: &Service) -> &'static str {
    let check = state.check(&row.node, &format!("{PRESENCE_CHECK}{}", row.definition.id));
    let Some(presence) = check.and_then(|check| state.presence(check.number)) else { return "" };
    match presence.ended {
        None => "open",
        Some(_) if check.is_some_and(|check| badness(check) > 0) => "over",
        Some(EndedPresence { why: PresenceEnd::Connection, .. }) => "ended",
        Some(_) => "moved",
    }
}

/// How bad it is that a check has its status: 0, 1 or 2.
pub(super) fn badness(check: &Check) -> u8 {
    match check.registration.status {
        CheckStatus::Passing => 0,
        CheckStatus::Warning => 1,
        CheckStatus::Critical | CheckStatus::Other(_) => 2,
    }
}

/// The status that a check gives to its instance.
fn status(check: &Check) -> &'static str {
    match badness(check) {
        0 => PASSING,
        1 => WARNING,
        _ => CRITICAL,
    }
}

/// What a check last said (of maintenance: its reason), or its name.
fn said(check: &Check) -> String {
    let what = &check.registration;
    let said = if is_maintenance(&what.id) { &what.notes } else { &what.output };
    let text = if said.is_empty() { &what.name } else { said };
    text[..text.floor_char_boundary(HISTORY_OUTPUT_BYTES_MAX)].to_owned()
}
