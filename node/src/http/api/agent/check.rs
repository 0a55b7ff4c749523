//! `/v1/agent/check/` and `/v1/agent/checks`: the checks of the asking host, and their heartbeats.

use std::collections::BTreeMap;

use quorate_client::types::agent::{CheckRegistration as Body, CheckSpecification, CheckUpdate};
use quorate_client::types::health::HealthCheck;
use quorate_storage::command::{Agent, Command, Outcome, Rejection};
use quorate_storage::record::{Check, CheckDefinition, CheckRegistration, CheckStatus};
use quorate_storage::{Millis, State, Topic};

use super::service::agents;
use crate::agent::SERF_HEALTH;
use crate::http::blocking;
use crate::http::call::{Asked, Call};
use crate::http::definition::check_type::{self, OnHost};
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::filter::{Fault, Filter};
use crate::http::heavy;
use crate::http::path;
use crate::http::reply::Reply;
use crate::http::wire;

/// How much of a heartbeat's output is kept.
const MAX_OUTPUT_BYTES: usize = 4096;

/// The shortest time after which a critical service is deregistered.
const MIN_DEREGISTER_AFTER: Millis = Millis::from_secs(60);

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/v1/agent/checks").get(|call| Box::pin(list(call))),
        Endpoint::new("/v1/agent/check/register").put(|call| Box::pin(register(call))),
        Endpoint::new("/v1/agent/check/deregister/").put(|call| Box::pin(deregister(call))),
        Endpoint::new("/v1/agent/check/pass/")
            .put(|call| Box::pin(note(call, CheckStatus::Passing))),
        Endpoint::new("/v1/agent/check/warn/")
            .put(|call| Box::pin(note(call, CheckStatus::Warning))),
        Endpoint::new("/v1/agent/check/fail/")
            .put(|call| Box::pin(note(call, CheckStatus::Critical))),
        Endpoint::new("/v1/agent/check/update/").put(|call| Box::pin(update(call))),
    ]
}

async fn list(call: Call) -> Answer {
    let options = call.read_options()?;
    let asked = call.asked()?;
    let filter = call.filter().map_err(Fault::of_agent_checks)?;
    let published = blocking::at_barrier_or_own(&call.node, &options).await?;
    let topic = match &asked {
        Asked::One(agent) => Topic::node(&agent.name),
        Asked::All => Topic::Checks,
    };
    let bytes = published.state.answer_bytes(&topic);
    heavy::render(bytes, || listed(&call, &published.state, &asked, &filter)).await
}

fn listed(call: &Call, state: &State, asked: &Asked, filter: &Filter<HealthCheck>) -> Answer {
    let is_shown = |check: &&std::sync::Arc<Check>| &*check.registration.id != SERF_HEALTH;
    let mut checks: BTreeMap<String, HealthCheck> = match asked {
        Asked::One(agent) => state
            .checks_on(&agent.name)
            .filter(is_shown)
            .map(|check| (check.registration.id.to_string(), wire::agent_check(check)))
            .collect(),
        // Two agents may have the same id, so here the key names the agent too.
        Asked::All => agents(state)
            .flat_map(|agent| state.checks_on(agent))
            .filter(is_shown)
            .map(|check| {
                (format!("{}/{}", check.node, check.registration.id), wire::agent_check(check))
            })
            .collect(),
    };
    checks.retain(|_, check| filter.keeps(check));
    call.json(&checks)
}

// ---- registration ----------------------------------------------------------------------------

async fn register(mut call: Call) -> Answer {
    let body: Body = call.decode().await?;
    let agent = call.agent()?;
    let check = Box::new(registration(body)?);
    call.propose(Command::AgentRegisterCheck { agent, check }).await?;
    Ok(Reply::empty())
}

async fn deregister(call: Call) -> Answer {
    let check_id = call.rest()?;
    if check_id.is_empty() {
        return Err(ApiError::internal("CheckID missing"));
    }
    let agent = call.agent()?;
    call.propose(Command::AgentDeregisterCheck { agent, check_id: check_id.into() }).await?;
    Ok(Reply::empty())
}

/// Judges a registration by what it says, in the order in which Consul complains.
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

/// Refuses the id of the check that says whether a host's agent is alive, on which sessions depend, and
/// ids by which no heartbeat could name their check.
pub(super) fn refuse_reserved(id: &str) -> Result<(), ApiError> {
    path::check_addressable("CheckID", id).map_err(ApiError::bad_request)?;
    match id {
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

fn known_status(text: &str) -> Option<CheckStatus> {
    match CheckStatus::from_text(text) {
        CheckStatus::Other(_) => None,
        known => Some(known),
    }
}

/// Judges how a check is to be run.
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
    } else if check.output_max_size < 0 {
        "MaxOutputMaxSize must be positive"
    } else if check.failures_before_warning > check.failures_before_critical
        && check.failures_before_critical > 0
    {
        "FailuresBeforeWarning can't be higher than FailuresBeforeCritical"
    } else {
        return Ok(());
    };
    Err(ApiError::bad_request(format!("Invalid check: {fault}")))
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
    if check.script_args.is_empty() && check.os_service.is_empty() {
        return Ok(());
    }
    Err(ApiError::internal(
        "Scripts are disabled on this agent; Quorate runs no commands on hosts, use a TTL, HTTP, TCP or gRPC check",
    ))
}

/// A judged check as the state keeps it.
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
        h2ping_use_tls: check.h2ping_use_tls,
    }
}

/// A negative number is none.
fn count(given: i64) -> u32 {
    u32::try_from(given.max(0)).unwrap_or(u32::MAX)
}

/// Never, or at least a minute.
fn deregister_after(nanos: i64) -> Millis {
    match wire::millis(nanos) {
        Millis::ZERO => Millis::ZERO,
        given => given.max(MIN_DEREGISTER_AFTER),
    }
}

// ---- heartbeats ------------------------------------------------------------------------------

/// `pass`, `warn` and `fail`: the output is the note, or nothing.
async fn note(call: Call, status: CheckStatus) -> Answer {
    let output = call.params.get("note").unwrap_or("").to_owned();
    let seen = call.seen();
    let output = kept(&call, output);
    heartbeat(&call, Beat { status, output, seen }).await
}

async fn update(mut call: Call) -> Answer {
    // Before the body is waited for: a heartbeat is as old as its request.
    let seen = call.seen();
    let body: CheckUpdate = call.decode().await?;
    let status = known_status(&body.status)
        .ok_or_else(|| ApiError::bad_request(format!("Invalid check status: '{}'", body.status)))?;
    let output = kept(&call, body.output);
    heartbeat(&call, Beat { status, output, seen }).await
}

/// What a heartbeat says.
struct Beat {
    status: CheckStatus,
    output: String,
    seen: quorate_storage::ClusterTime,
}

impl Beat {
    /// The few bytes for a check whose number is known.
    fn numbered(&self, number: u64) -> Command {
        let (status, output, seen) = (self.status.clone(), self.output.clone(), self.seen);
        Command::Heartbeat { number, status, output, seen }
    }

    /// The full names.
    fn named(self, agent: Agent, check_id: &str) -> Command {
        let Self { status, output, seen } = self;
        Command::UpdateCheck { agent, check_id: check_id.into(), status, output, seen }
    }
}

/// Sends a heartbeat, by the check's number if this node knows it. It may know an old one, or none:
/// then the full id is sent, and `apply` says what it means.
async fn heartbeat(call: &Call, beat: Beat) -> Answer {
    let check_id = call.rest()?;
    let agent = call.agent()?;
    if let Some(number) = own_number(call, &agent, check_id) {
        match call.node.propose(beat.numbered(number)).await? {
            Outcome::Rejected(Rejection::NoSuchNumber) => {}
            Outcome::Rejected(rejection) => return Err(rejection.into()),
            Outcome::Done
            | Outcome::Held(_)
            | Outcome::Id(_)
            | Outcome::AppliedAt(_)
            | Outcome::Txn(_) => {
                return Ok(Reply::empty());
            }
        }
    }
    call.propose(beat.named(agent, check_id)).await?;
    Ok(Reply::empty())
}

/// The number of the agent's own check with this id, as far as this node knows. Another agent's
/// check is left to `apply`: this agent may have registered its own by now. So is `serfHealth`, which
/// is the node's and no check that a client finds by its id.
fn own_number(call: &Call, agent: &Agent, check_id: &str) -> Option<u64> {
    if check_id == SERF_HEALTH {
        return None;
    }
    let published = call.node.published();
    published.state.check(&agent.name, check_id).map(|check| check.number)
}

/// What is kept of an output, as this server is configured.
fn kept(call: &Call, output: String) -> String {
    let rule = call.node.check_output();
    match rule.discard {
        true => String::new(),
        false => cut(output, rule.bytes_max.unwrap_or(MAX_OUTPUT_BYTES)),
    }
}

/// Cuts an output that is too long, and says so in it.
fn cut(output: String, bytes_max: usize) -> String {
    let total = output.len();
    if total <= bytes_max {
        return output;
    }
    let kept = &output[..output.floor_char_boundary(bytes_max)];
    format!("{kept} ... (captured {bytes_max} of {total} bytes)")
}

#[cfg(test)]
mod tests {
    use quorate_client::decode;

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
            (r#"{"Name":"c","CheckID":"x","TTL":"1s"}"#, "json: unknown field \"CheckID\""),
        ] {
            assert_eq!(register(text).unwrap_err(), words, "{text}");
        }
        let scripts = register(r#"{"Name":"c","Args":["true"],"Interval":"10s"}"#).unwrap_err();
        assert!(scripts.starts_with("Scripts are disabled"), "{scripts}");
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

    #[test]
    fn a_long_output_is_cut_between_characters_and_says_so() {
        assert_eq!(cut("x".repeat(4096), 4096), "x".repeat(4096));
        let long = cut("\u{e9}".repeat(2049), 4096);
        assert!(long.ends_with("\u{e9} ... (captured 4096 of 4098 bytes)"), "{long}");
        let long = cut(format!("a{}", "\u{e9}".repeat(2048)), 4096);
        assert!(long.ends_with("\u{e9} ... (captured 4096 of 4097 bytes)"), "{long}");
    }
}
