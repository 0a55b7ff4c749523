//! `/v1/agent/service/` and `/v1/agent/services`: the instances of the asking host.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue};
use quorate_client::types::agent::{AgentService, ServiceRegistration};
use quorate_storage::command::{Command, Rejection};
use quorate_storage::record::{Access, AclKind, CheckRegistration, FromFile as _, Service};
use quorate_storage::{State, Topic};

use super::agents;
use crate::http::blocking;
use crate::http::call::{Asked, Call};
use crate::http::definition::service::registration;
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::filter::Filter;
use crate::http::params::Params;
use crate::http::reply::Reply;
use crate::http::rights::Rule;
use crate::http::wire;

const CONTENT_HASH: HeaderName = HeaderName::from_static("x-consul-contenthash");

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/v1/agent/services").get(Rule::Rows, |call| Box::pin(list(call))),
        Endpoint::new("/v1/agent/service/").get(Rule::Rows, |call| Box::pin(one(call))),
        Endpoint::new("/v1/agent/service/register")
            .put(Rule::Commands, |call| Box::pin(register(call))),
        Endpoint::new("/v1/agent/service/deregister/")
            .put(Rule::Commands, |call| Box::pin(deregister(call))),
    ]
}

// ---- reads -----------------------------------------------------------------------------------

async fn list(call: Call) -> Answer {
    blocking::list_of_agent(&call, ApiError::from, listed).await
}

fn listed(call: &Call, state: &State, asked: &Asked, filter: &Filter<AgentService>) -> Answer {
    let datacenter = call.node.info().datacenter;
    let sight = call.rights(state)?;
    let keeps = |service: &&Arc<Service>| sight.keeps_service(&service.definition.name);
    let shown = |service: &Service| wire::agent_service(service, &datacenter);
    let mut services: BTreeMap<String, AgentService> = match asked {
        Asked::One(agent) => state
            .agent_services(&agent.name)
            .filter(keeps)
            .map(|service| (service.definition.id.to_string(), shown(service)))
            .collect(),
        // Two agents may have the same id, so here the key names the agent too.
        Asked::All => agents(state)
            .flat_map(|agent| state.agent_services(agent))
            .filter(keeps)
            .map(|service| (format!("{}/{}", service.node, service.definition.id), shown(service)))
            .collect(),
    };
    services.retain(|_, service| filter.keeps(service));
    call.json(&services)
}

async fn one(call: Call) -> Answer {
    let options = call.read_options()?;
    let agent = call.agent()?;
    let id = call.rest()?;
    let datacenter = call.node.info().datacenter;
    let mut published = blocking::at_barrier_or_own(&call.node, &options).await?;
    if let (Some(known), Ok(service)) =
        (call.params.filled("hash"), published.state.find_service(&agent.name, id))
    {
        let topic = Topic::node(&service.node);
        let changed = |state: &State| match state.find_service(&agent.name, id) {
            Ok(service) => hashed(service, &datacenter).content_hash != known,
            Err(_) => true,
        };
        published =
            blocking::until(&call.node, [&topic], options.wait, published.clone(), changed).await?;
    }
    let sight = call.rights(&published.state)?;
    match published.state.find_service(&agent.name, id) {
        Ok(service) => {
            sight.require(AclKind::Service, &service.definition.name, Access::Read)?;
            let entry = hashed(service, &datacenter);
            let hash = HeaderValue::from_str(&entry.content_hash)
                .map_err(|error| ApiError::internal(error.to_string()))?;
            Ok(call.json(&entry)?.with(CONTENT_HASH, hash))
        }
        Err(Rejection::UnknownService(_)) => {
            Err(ApiError::not_found(format!("unknown service ID: {id}")))
        }
        Err(rejection) => Err(rejection.into()),
    }
}

/// An instance with a hash of what is shown of it: the same on every node, because the hasher's keys
/// are fixed.
fn hashed(service: &Service, datacenter: &str) -> AgentService {
    let mut entry = wire::agent_service(service, datacenter);
    let mut hasher = DefaultHasher::new();
    // The entry is plain data, which always serialises.
    hasher.write(&serde_json::to_vec(&entry).unwrap_or_default());
    entry.content_hash = format!("{:016x}", hasher.finish());
    entry
}

// ---- writes ----------------------------------------------------------------------------------

async fn register(mut call: Call) -> Answer {
    let replace_existing_checks = replaces_checks(&call.params);
    let body: ServiceRegistration = call.decode().await?;
    let agent = call.agent()?;
    let (mut service, mut checks) = registration(body)?;
    if call.is_from_file()? {
        service.mark_from_file();
        checks.iter_mut().for_each(CheckRegistration::mark_from_file);
    }
    let service = Box::new(service);
    call.propose(Command::AgentRegisterService { agent, service, checks, replace_existing_checks })
        .await?;
    Ok(Reply::empty())
}

/// `?replace-existing-checks`: only without a value or with exactly `true`.
fn replaces_checks(params: &Params) -> bool {
    matches!(params.get("replace-existing-checks"), Some("" | "true"))
}

async fn deregister(call: Call) -> Answer {
    let service_id = call.rest()?;
    if service_id.is_empty() {
        return Err(ApiError::internal("ServiceID missing"));
    }
    let agent = call.agent()?;
    call.propose(Command::AgentDeregisterService { agent, service_id: service_id.into() }).await?;
    Ok(Reply::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn existing_checks_are_replaced_only_when_asked_for_exactly() {
        let replaces = |query| replaces_checks(&Params::parse(query).unwrap());
        assert!(replaces("replace-existing-checks") && replaces("replace-existing-checks=true"));
        assert!(!replaces("") && !replaces("replace-existing-checks=1"));
        assert!(!replaces("replace-existing-checks=TRUE"));
    }
}
