//! A heartbeat with facts, as the state takes it.

use std::sync::Arc;

use quorate_client::duration;
use quorate_client::types::heartbeat::Heartbeat;
use quorate_client::types::live::PresenceProcess;
use quorate_storage::Millis;
use quorate_storage::command::Beat;
use quorate_storage::limits::{self, NAME_BYTES_MAX};
use quorate_storage::record::{CheckRegistration, ServiceDefinition};
use serde_json::{Map, Value};

use super::check::known_status;
use super::meta::check_meta;
use super::service::is_unspecified;
use crate::http::{path, wire};

/// Bounds of `CriticalAfter`.
const CRITICAL_AFTER_MIN: Millis = Millis::from_secs(1);
const CRITICAL_AFTER_MAX: Millis = Millis::from_secs(24 * 3_600);

/// The latest start, in milliseconds since 1970: in the year 2286. Microseconds and nanoseconds are far above, and
/// who sends them once could never correct it. (No clock is asked: whose would it be?)
const STARTED_MAX: u64 = 9_999_999_999_999;

/// The members of a heartbeat, in the order of the alphabet.
const MEMBERS: [&str; 16] = [
    "Address",
    "Counter",
    "CriticalAfter",
    "ID",
    "Meta",
    "Node",
    "Note",
    "Pid",
    "Port",
    "Process",
    "Service",
    "Started",
    "Status",
    "Tags",
    "Version",
    "WarnAfter",
];

/// Reads a heartbeat as strictly as other bodies: an unknown member would be a fact that is lost.
///
/// # Errors
/// What is wrong with it, as its sender is told.
pub(in crate::http) fn decode(value: Value) -> Result<Heartbeat, String> {
    let mut members = value.as_object().into_iter().flat_map(Map::keys);
    if let Some(unknown) = members.find(|name| MEMBERS.binary_search(&name.as_str()).is_err()) {
        return Err(format!("unknown field `{unknown}`, expected one of {}", MEMBERS.join(", ")));
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// Validates a heartbeat by what it says.
///
/// # Errors
/// What is wrong with it, as its sender is told.
pub(in crate::http) fn of(given: Heartbeat) -> Result<Beat, String> {
    if given.service.is_empty() {
        return Err("Missing service name".to_owned());
    }
    path::check_addressable("Service name", &given.service)?;
    path::check_addressable("Service ID", &given.id)?;
    if given.address.as_deref().is_some_and(is_unspecified) {
        return Err("Invalid service address".to_owned());
    }
    if let Some(meta) = &given.meta {
        check_meta(meta).map_err(|fault| format!("Invalid Service Meta: {fault}"))?;
    }
    let status = match given.status.as_deref() {
        None | Some("") => None,
        Some(text) => Some(known_status(text).ok_or("Bad status: passing, warning or critical")?),
    };
    if given.started.is_some_and(|started| started > STARTED_MAX) {
        return Err("Started must be in milliseconds since 1970".to_owned());
    }
    let warn_after = span("WarnAfter", given.warn_after.as_deref())?;
    let critical_after = span("CriticalAfter", given.critical_after.as_deref())?;
    let bounds = CRITICAL_AFTER_MIN..=CRITICAL_AFTER_MAX;
    if critical_after.is_some_and(|span| !bounds.contains(&span)) {
        return Err("CriticalAfter must be from 1s to 24h".to_owned());
    }
    if warn_after.is_some_and(|span| span >= critical_after.unwrap_or(CRITICAL_AFTER_MAX)) {
        return Err("WarnAfter must be shorter than CriticalAfter".to_owned());
    }
    let id = if given.id.is_empty() { given.service.clone() } else { given.id };
    let shared = |text: Option<String>| text.map(Arc::from);
    let beat = Beat {
        agent: 0,
        service: given.service.into(),
        id: id.into(),
        address: given.address,
        port: given.port,
        tags: given.tags.map(Into::into),
        meta: given.meta,
        process: shared(given.process),
        pid: given.pid,
        started: given.started,
        version: shared(given.version),
        counter: given.counter,
        warn_after,
        critical_after,
        status,
        note: given.note,
    };
    limits::beat(&beat).map_err(|excess| excess.to_string())?;
    Ok(beat)
}

/// Validates what a process says of itself that opens the presence of an instance; `None`: nothing.
///
/// # Errors
/// What is wrong with it.
pub(in crate::http) fn of_presence(
    given: PresenceProcess,
    instance: &ServiceDefinition,
    checks: &[CheckRegistration],
) -> Result<Option<Beat>, String> {
    if given == PresenceProcess::default() {
        return Ok(None);
    }
    let own = format!("service:{}", instance.id);
    let has_ttl = checks.iter().any(|check| *check.id == *own && !check.definition.ttl.is_zero());
    let has_times = given.warn_after.is_some() || given.critical_after.is_some();
    if has_ttl && has_times {
        return Err(
            "WarnAfter and CriticalAfter are those of the TTL check where there is one".to_owned()
        );
    }
    if !has_ttl && !has_times && (given.status.is_some() || given.note.is_some()) {
        return Err("Status and Note are those of heartbeats: give CriticalAfter".to_owned());
    }
    let PresenceProcess { process, pid, started, version, counter, .. } = given;
    let PresenceProcess { warn_after, critical_after, status, note, .. } = given;
    let (service, id) = (instance.name.to_string(), instance.id.to_string());
    let said = Heartbeat {
        service,
        id,
        process,
        pid,
        started,
        version,
        counter,
        warn_after,
        critical_after,
        status,
        note,
        ..Heartbeat::default()
    };
    of(said).map(Some)
}

/// Refuses a name that no node has.
///
/// # Errors
/// What is wrong with it.
pub(in crate::http) fn check_node(name: &str) -> Result<(), String> {
    match name.len() > NAME_BYTES_MAX {
        true => Err(format!("Node too large: at most {NAME_BYTES_MAX} bytes are allowed")),
        false => path::check_addressable("Node", name),
    }
}

fn span(what: &str, text: Option<&str>) -> Result<Option<Millis>, String> {
    let Some(text) = text else { return Ok(None) };
    match duration::parse(text) {
        Ok(nanos @ 0..) => Ok(Some(wire::millis(nanos))),
        Ok(_) => Err(format!("{what} must not be negative")),
        Err(error) => Err(format!("{what}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use quorate_storage::record::{CheckDefinition, CheckStatus};

    use super::*;

    fn read(text: &str) -> Result<Beat, String> {
        of(decode(serde_json::from_str(text).map_err(|error| error.to_string())?)?)
    }

    #[test]
    fn every_member_that_a_client_can_send_is_known() {
        let text = || Some("1s".to_owned());
        let full = Heartbeat {
            service: "a".to_owned(),
            id: "a".to_owned(),
            node: "a".to_owned(),
            address: text(),
            port: Some(1),
            process: text(),
            pid: Some(1),
            started: Some(1),
            version: text(),
            counter: Some(1),
            tags: Some(Vec::new()),
            meta: Some(quorate_client::types::TextMap::new()),
            warn_after: text(),
            critical_after: text(),
            status: text(),
            note: text(),
        };
        let sent = serde_json::to_value(full).unwrap();
        let mut names: Vec<_> = sent.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, MEMBERS);
    }

    #[test]
    fn what_is_not_given_is_left_to_the_state() {
        let beat = read(r#"{"Service":"rdb","WarnAfter":"0s"}"#).unwrap();
        let wanted = Beat {
            service: "rdb".into(),
            id: "rdb".into(),
            warn_after: Some(Millis::ZERO),
            ..Beat::default()
        };
        assert_eq!(beat, wanted);
    }

    #[test]
    fn a_presence_says_what_heartbeats_say_and_gets_their_check_only_with_their_times() {
        let instance =
            ServiceDefinition { id: "rdb-1".into(), name: "rdb".into(), ..<_>::default() };
        let ttl = CheckRegistration {
            id: "service:rdb-1".into(),
            definition: CheckDefinition { ttl: Millis(5), ..CheckDefinition::default() },
            ..registration()
        };
        let read = |text: &str, checks: &[CheckRegistration]| {
            of_presence(serde_json::from_str(text).unwrap(), &instance, checks)
        };
        assert_eq!(read("{}", &[]), Ok(None));
        let beat = read(r#"{"Pid":7,"CriticalAfter":"5s"}"#, &[]).unwrap().unwrap();
        assert_eq!((&*beat.service, &*beat.id, beat.pid), ("rdb", "rdb-1", Some(7)));
        assert_eq!((beat.warn_after, beat.critical_after), (None, Some(Millis::from_secs(5))));
        assert!(read(r#"{"Note":"n","Status":"warning"}"#, std::slice::from_ref(&ttl)).is_ok());
        for (text, checks, words) in [
            (r#"{"WarnAfter":"1s"}"#, vec![ttl], "are those of the TTL check"),
            (r#"{"Status":"passing"}"#, Vec::new(), "give CriticalAfter"),
            (r#"{"Note":"n"}"#, Vec::new(), "give CriticalAfter"),
            (r#"{"CriticalAfter":"1ms"}"#, Vec::new(), "CriticalAfter must be from 1s to 24h"),
        ] {
            let error = read(text, &checks).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    fn registration() -> CheckRegistration {
        CheckRegistration {
            id: "".into(),
            name: String::new(),
            status: CheckStatus::Passing,
            notes: String::new(),
            output: String::new(),
            service_id: "".into(),
            kind: String::new(),
            definition: CheckDefinition::default(),
        }
    }

    #[test]
    fn what_is_wrong_with_a_heartbeat_is_said() {
        let note = format!(r#"{{"Service":"a","Note":"{}"}}"#, "n".repeat(513));
        for (text, words) in [
            (r"{}", "Missing service name"),
            (r#"{"Service":"a","Pid":-1}"#, "invalid value"),
            (r#"{"Service":"a","Warnafter":"1s"}"#, "unknown field `Warnafter`"),
            (r#"{"Service":"a\n"}"#, "must not have control characters"),
            (r#"{"Service":"a","Status":"odd"}"#, "Bad status"),
            (
                r#"{"Service":"a","Started":1796056000000000000}"#,
                "Started must be in milliseconds since 1970",
            ),
            (r#"{"Service":"a","Address":"0.0.0.0"}"#, "Invalid service address"),
            (r#"{"Service":"a","CriticalAfter":"999ms"}"#, "CriticalAfter must be from 1s to 24h"),
            (r#"{"Service":"a","CriticalAfter":"25h"}"#, "CriticalAfter must be from 1s to 24h"),
            (r#"{"Service":"a","WarnAfter":"-1s"}"#, "WarnAfter must not be negative"),
            (r#"{"Service":"a","WarnAfter":"1"}"#, "WarnAfter: time: missing unit"),
            (
                r#"{"Service":"a","WarnAfter":"5s","CriticalAfter":"5s"}"#,
                "WarnAfter must be shorter than CriticalAfter",
            ),
            (r#"{"Service":"a","Meta":{"a b":"x"}}"#, "Invalid Service Meta"),
            (&note, "note too large: 513 bytes"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
