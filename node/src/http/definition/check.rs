//! Checks: what `agent/check/register`, registrations of services and configuration files say of them.

use quorate_client::types::agent::{CheckRegistration as Body, CheckSpecification};
use quorate_storage::Millis;
use quorate_storage::record::{
    CheckDefinition, CheckRegistration, CheckStatus, DEREGISTER_AFTER_MIN, HEARTBEAT_CHECK,
    LaterMembers, SERF_HEALTH,
};

use super::check_type::{self, OnHost};
use crate::http::error::ApiError;
use crate::http::{path, wire};

/// Validates a registration by what it says, in the order in which Consul complains.
pub(in crate::http) fn registration(body: Body) -> Result<CheckRegistration, ApiError> {
    let check = body.specification;
    if check.name.is_empty() {
        return Err(ApiError::bad_request("Missing check name"));
    }
    initial_status(&check.status).ok_or_else(|| ApiError::bad_request("Bad check status"))?;
    validate(&check)?;
    refuse_scripts(&check)?;
    let name = check.name.clone();
    let id = if body.id.is_empty() { name.clone() } else { body.id };
    refuse_reserved(&id)?;
    Ok(record(check, id, name, &body.service_id))
}

/// Refuses the id of the check that says whether a host's agent is alive, on which sessions depend, ids of
/// checks that heartbeats make, and ids by which no heartbeat could name their check.
pub(super) fn refuse_reserved(id: &str) -> Result<(), ApiError> {
    path::check_addressable("CheckID", id).map_err(ApiError::bad_request)?;
    match id {
        made if made.starts_with(HEARTBEAT_CHECK) => Err(ApiError::bad_request(format!(
            "CheckID {id:?} is reserved: heartbeats make and renew such checks"
        ))),
        SERF_HEALTH => Err(ApiError::bad_request(format!("CheckID {id:?} is reserved"))),
        _ => Ok(()),
    }
}

/// The status that a registration asks for: `critical` if it says nothing, `None` if it says
/// something unknown.
pub(super) fn initial_status(text: &str) -> Option<CheckStatus> {
    match text {
        "" => Some(CheckStatus::Critical),
        text => known_status(text),
    }
}

/// One of the three that a client may set.
pub(in crate::http) fn known_status(text: &str) -> Option<CheckStatus> {
    match CheckStatus::from_text(text) {
        CheckStatus::Other(_) => None,
        known => Some(known),
    }
}

/// Validates how a check is to be run.
pub(super) fn validate(check: &CheckSpecification) -> Result<(), ApiError> {
    let runs = runs_at_intervals(check);
    let alias = is_alias(check);
    let fault = if check.interval > 0 && check.ttl > 0 {
        "Interval and TTL cannot both be specified"
    } else if runs && check.interval <= 0 {
        "Interval must be > 0 for Script, HTTP, or TCP checks"
    } else if runs && alias {
        "Interval cannot be set for Alias checks"
    } else if alias && check.ttl > 0 {
        "TTL must be not be set for Alias checks"
    } else if !runs && !alias && check.ttl <= 0 {
        "TTL must be > 0 for TTL checks"
    } else if let Some(fault) = fault_of_warning(check.warn_after, check.ttl) {
        fault
    } else if check.output_max_size < 0 {
        "MaxOutputMaxSize must be positive"
    } else if check.failures_before_warning > check.failures_before_critical
        && check.failures_before_critical > 0
    {
        "FailuresBeforeWarning can't be higher than FailuresBeforeCritical"
    } else if !matches!(check.observers, 0 | 1 | 3) {
        "Observers must be 1 or 3"
    } else if (check.observers > 0 || !check.network.is_empty()) && (!runs || alias) {
        "Observers and Network are for checks with an Interval"
    } else {
        return Ok(());
    };
    Err(ApiError::bad_request(format!("Invalid check: {fault}")))
}

/// What is wrong with the time after which a check warns that no heartbeat came, if anything is.
pub(in crate::http) const fn fault_of_warning(warn_after: i64, ttl: i64) -> Option<&'static str> {
    if warn_after < 0 {
        Some("WarnAfter must not be negative")
    } else if warn_after > 0 && warn_after >= ttl {
        Some("WarnAfter must be shorter than the TTL")
    } else {
        None
    }
}

fn runs_at_intervals(check: &CheckSpecification) -> bool {
    !check.script_args.is_empty()
        || [&check.http, &check.tcp, &check.grpc, &check.udp, &check.h2ping, &check.os_service]
            .iter()
            .any(|target| !target.is_empty())
}

const fn is_alias(check: &CheckSpecification) -> bool {
    !check.alias_node.is_empty() || !check.alias_service.is_empty()
}

/// Refuses checks that would run something on a host: the cluster runs checks, not the host.
pub(super) fn refuse_scripts(check: &CheckSpecification) -> Result<(), ApiError> {
    if !check.script_args.is_empty() {
        return Err(ApiError::internal(
            "Scripts are disabled on this agent; Quorate runs no commands on hosts, use a TTL, HTTP, TCP or gRPC check",
        ));
    }
    if !check.os_service.is_empty() {
        return Err(ApiError::internal(
            "OSService checks are not supported; Quorate runs nothing on hosts that could ask their operating system, use a TTL, HTTP, TCP or gRPC check",
        ));
    }
    Ok(())
}

/// A valid check as the state keeps it.
pub(super) fn record(
    check: CheckSpecification,
    id: String,
    name: String,
    service_id: &str,
) -> CheckRegistration {
    let (status, notes) = (initial_status(&check.status), check.notes.clone());
    let definition = definition(check);
    CheckRegistration {
        id: id.into(),
        name,
        status: status.unwrap_or(CheckStatus::Critical),
        notes,
        output: String::new(),
        service_id: service_id.into(),
        kind: check_type::of(&definition, OnHost::default()).to_owned(),
        definition,
    }
}

fn definition(check: CheckSpecification) -> CheckDefinition {
    CheckDefinition {
        interval: wire::millis(check.interval),
        timeout: wire::millis(check.timeout),
        deregister_critical_service_after: deregister_after(
            check.deregister_critical_service_after,
        ),
        ttl: wire::millis(check.ttl),
        http: check.http,
        method: check.method,
        header: check.header,
        body: check.body,
        tls_server_name: check.tls_server_name,
        tls_skip_verify: check.tls_skip_verify,
        tcp: check.tcp,
        grpc: check.grpc,
        grpc_use_tls: check.grpc_use_tls,
        udp: check.udp,
        h2ping: check.h2ping,
        alias_node: check.alias_node,
        alias_service: check.alias_service,
        success_before_passing: count(check.success_before_passing),
        failures_before_warning: count(check.failures_before_warning),
        failures_before_critical: count(check.failures_before_critical),
        output_max_bytes: count(check.output_max_size),
        disable_redirects: check.disable_redirects,
        tcp_use_tls: check.tcp_use_tls,
        later: LaterMembers {
            h2ping_use_tls: check.h2ping_use_tls,
            warn_after: wire::millis(check.warn_after),
            observers: u8::try_from(check.observers.max(0)).unwrap_or(0),
            network: check.network.into(),
        },
    }
}

/// A negative number is none.
fn count(given: i64) -> u32 {
    u32::try_from(given.max(0)).unwrap_or(u32::MAX)
}

/// Never, or at least a minute.
pub(in crate::http) fn deregister_after(nanos: i64) -> Millis {
    match wire::millis(nanos) {
        Millis::ZERO => Millis::ZERO,
        given => given.max(DEREGISTER_AFTER_MIN),
    }
}

#[cfg(test)]
mod tests {
    use crate::http::decode;

    use super::*;

    fn register(text: &str) -> Result<CheckRegistration, String> {
        let body = decode::body(text.as_bytes()).map_err(|error| error.to_string())?;
        registration(body).map_err(|error| error.text)
    }

    #[test]
    fn a_check_is_refused_in_the_words_of_consul() {
        for (text, words) in [
            (r#"{"TTL":"10s"}"#, "Missing check name"),
            (r#"{"Name":"c"}"#, "Invalid check: TTL must be > 0 for TTL checks"),
            (r#"{"Name":"c","TTL":"10s","Status":"weird"}"#, "Bad check status"),
            (
                r#"{"Name":"c","TTL":"10s","TCP":"x:1","Interval":"10s"}"#,
                "Invalid check: Interval and TTL cannot both be specified",
            ),
            (
                r#"{"Name":"c","TCP":"x:1"}"#,
                "Invalid check: Interval must be > 0 for Script, HTTP, or TCP checks",
            ),
            (
                r#"{"Name":"c","TTL":"10s","WarnAfter":"10s"}"#,
                "Invalid check: WarnAfter must be shorter than the TTL",
            ),
            (
                r#"{"Name":"c","TCP":"x:1","Interval":"10s","warn_after":"1s"}"#,
                "Invalid check: WarnAfter must be shorter than the TTL",
            ),
            (
                r#"{"Name":"c","TTL":"10s","WarnAfter":"-1s"}"#,
                "Invalid check: WarnAfter must not be negative",
            ),
            (r#"{"Name":"c","CheckID":"x","TTL":"1s"}"#, "json: unknown field \"CheckID\""),
        ] {
            assert_eq!(register(text).unwrap_err(), words, "{text}");
        }
        let scripts = register(r#"{"Name":"c","Args":["true"],"Interval":"10s"}"#).unwrap_err();
        assert!(scripts.starts_with("Scripts are disabled"), "{scripts}");
        let service = register(r#"{"Name":"c","OSService":"s","Interval":"10s"}"#).unwrap_err();
        assert!(service.starts_with("OSService checks are not supported"), "{service}");
    }

    #[test]
    fn a_check_may_warn_before_its_ttl_is_over() {
        let check = register(r#"{"Name":"c","TTL":"90s","WarnAfter":"30s"}"#).unwrap();
        assert_eq!(check.definition.later.warn_after, Millis::from_secs(30));
        let check = register(r#"{"Name":"c","TTL":"90s","WarnAfter":"0s"}"#).unwrap();
        assert_eq!(check.definition.later.warn_after, Millis::ZERO);
    }

    #[test]
    fn a_check_is_kept_as_it_was_given() {
        let check = register(
            r#"{"Name":"c","ServiceID":"w","TCP":"x:1","Interval":"10s","Timeout":"300ms",
                "DeregisterCriticalServiceAfter":"5s","Notes":"n"}"#,
        )
        .unwrap();
        assert_eq!((&*check.id, check.kind.as_str(), &*check.service_id), ("c", "tcp", "w"));
        assert_eq!(check.definition.timeout, Millis(300));
        assert_eq!(check.definition.deregister_critical_service_after, Millis::from_secs(60));
        assert_eq!(check.status, CheckStatus::Critical);
    }
}
