//! `/v1/agent/health/service/`: the health of the asking host's instances as an HTTP status, for load
//! balancers that look at nothing else.
//!
//! 200 passing, 429 warning, 503 critical or in maintenance, 404 unknown; the word is also in
//! `X-Consul-Reason`. What decides are the instance's own checks and its host's, without the host's
//! `serfHealth`: that one says whether the agent is reachable, and here the agent answers.

use std::sync::Arc;

use axum::http::header::{ACCEPT, HeaderName};
use axum::http::{HeaderValue, StatusCode};
use quorate_client::types::agent::{AgentCheck, AgentServiceHealth};
use quorate_storage::State;
use quorate_storage::command::Rejection;
use quorate_storage::record::{Access, AclKind, Check, CheckStatus, SERF_HEALTH, Service};
use serde::Serialize;

use super::agents;
use crate::http::blocking;
use crate::http::call::{Asked, Call};
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::reply::Reply;
use crate::http::rights::Rule;
use crate::http::wire;

const REASON: HeaderName = HeaderName::from_static("x-consul-reason");
/// Consul's type of these texts: without a charset.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain");
/// The type of maintenance checks.
const MAINTENANCE: &str = "maintenance";

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/v1/agent/health/service/id/").get(Rule::Rows, |call| Box::pin(by_id(call))),
        Endpoint::new("/v1/agent/health/service/name/")
            .get(Rule::Rows, |call| Box::pin(by_name(call))),
    ]
}

/// The health of one or more instances; what comes later is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Health {
    Passing,
    Warning,
    Critical,
    Maintenance,
}

impl Health {
    const fn of_check(check: &Check) -> Self {
        match check.registration.status {
            CheckStatus::Passing => Self::Passing,
            CheckStatus::Warning => Self::Warning,
            // An agent's check has one of three states; whatever else there is does not pass.
            CheckStatus::Critical | CheckStatus::Other(_) => Self::Critical,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Maintenance => MAINTENANCE,
        }
    }

    const fn code(self) -> StatusCode {
        match self {
            Self::Passing => StatusCode::OK,
            Self::Warning => StatusCode::TOO_MANY_REQUESTS,
            Self::Critical | Self::Maintenance => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

async fn by_id(call: Call) -> Answer {
    let options = call.read_options()?;
    let id = call.required("Missing serviceID")?;
    let agent = call.agent()?;
    let published = blocking::at_barrier_or_own(&call.node, &options).await?;
    let state = &published.state;
    let sight = call.rights(state)?;
    match state.find_service(&agent.name, id) {
        Ok(service) => {
            sight.require(AclKind::Service, &service.definition.name, Access::Read)?;
            let (health, checks) = health(state, service);
            let shown = shown(&call, service, health, &checks);
            answer(&call, health.code(), health.word(), &shown)
        }
        Err(Rejection::UnknownService(_)) => {
            let nothing = AgentServiceHealth {
                aggregated_status: Health::Critical.word().to_owned(),
                ..AgentServiceHealth::default()
            };
            let reason = format!("ServiceId {id} not found");
            answer(&call, StatusCode::NOT_FOUND, &reason, &nothing)
        }
        Err(rejection) => Err(rejection.into()),
    }
}

async fn by_name(call: Call) -> Answer {
    let options = call.read_options()?;
    let name = call.required("Missing service Name")?;
    let asked = call.asked()?;
    let published = blocking::at_barrier_or_own(&call.node, &options).await?;
    let state = &published.state;
    call.rights(state)?.require(AclKind::Service, name, Access::Read)?;
    let instances = instances(state, &asked, name);
    let found: Vec<_> = instances
        .into_iter()
        .map(|service| {
            let (health, checks) = health(state, service);
            (health, shown(&call, service, health, &checks))
        })
        .collect();
    let worst = found.iter().map(|(health, _)| *health).max();
    let list: Vec<_> = found.into_iter().map(|(_, shown)| shown).collect();
    match worst {
        Some(worst) => answer(&call, worst.code(), worst.word(), &list),
        None => {
            answer(&call, StatusCode::NOT_FOUND, &format!("ServiceName {name} Not Found"), &list)
        }
    }
}

/// The asked agents' instances of a service.
fn instances<'a>(state: &'a State, asked: &'a Asked, name: &str) -> Vec<&'a Arc<Service>> {
    let hosts: Vec<&str> = match asked {
        Asked::One(agent) => vec![&agent.name],
        Asked::All => agents(state).collect(),
    };
    let services = hosts.into_iter().flat_map(|host| state.agent_services(host));
    services.filter(|service| &*service.definition.name == name).collect()
}

/// How an instance is, and the checks that say so.
fn health<'a>(state: &'a State, service: &Service) -> (Health, Vec<&'a Arc<Check>>) {
    let checks = state.checks_of(service);
    let checks: Vec<_> = checks.filter(|check| &*check.registration.id != SERF_HEALTH).collect();
    let worst = checks.iter().map(|check| match check.registration.check_type() {
        MAINTENANCE => Health::Maintenance,
        _ => Health::of_check(check),
    });
    (worst.max().unwrap_or(Health::Passing), checks)
}

fn shown(
    call: &Call,
    service: &Service,
    health: Health,
    checks: &[&Arc<Check>],
) -> AgentServiceHealth {
    let checks = checks.iter().map(|check| AgentCheck::from(wire::agent_check(check)));
    AgentServiceHealth {
        aggregated_status: health.word().to_owned(),
        service: Some(wire::agent_service(service, &call.node.info().datacenter)),
        checks: Some(checks.collect()),
    }
}

/// As JSON, or as a text that says only why.
fn answer<T: Serialize>(call: &Call, code: StatusCode, reason: &str, value: &T) -> Answer {
    let reply = match wants_text(call) {
        true => Reply::bytes(reason.to_owned().into(), TEXT),
        false => call.json(value)?,
    };
    let reply = reply.status(code);
    // Ids may have characters that no header can carry.
    Ok(match HeaderValue::from_bytes(reason.as_bytes()) {
        Ok(reason) => reply.with(REASON, reason),
        Err(_) => reply,
    })
}

fn wants_text(call: &Call) -> bool {
    let accepts = call.header(&ACCEPT).is_some_and(|types| types.starts_with("text/plain"));
    accepts || call.params.get("format") == Some("text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maintenance_is_worse_than_critical_and_a_status_of_its_own() {
        let all = [Health::Critical, Health::Passing, Health::Maintenance, Health::Warning];
        assert_eq!(all.into_iter().max(), Some(Health::Maintenance));
        assert_eq!(Health::Maintenance.code(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(Health::Warning.code(), StatusCode::TOO_MANY_REQUESTS);
    }
}
