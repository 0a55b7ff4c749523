//! Quorate's own endpoints: `/v1/quorate/`, the probes and the metrics.

use axum::http::{HeaderValue, StatusCode};
use quorate_client::types::quorate::StateHash;
use quorate_storage::State;
use quorate_storage::command::{Agent, Command, Rejection};
use quorate_storage::record::{
    Access, AclKind, CheckStatus, Node, NodeKind, SERF_ALIVE, SERF_HEALTH,
};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::agent::has_failed;
use crate::agent::HEARTBEAT_TTL;
use crate::host::hexadecimal::hexadecimal;
use crate::host::supervise;
use crate::http::blocking;
use crate::http::call::{Call, MAX_JSON_BYTES};
use crate::http::definition::{Comparison, Description, check_meta, parse_check, parse_service};
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::incoming::BodyLimit;
use crate::http::reply::Reply;
use crate::http::rights::Rule;
use crate::node::Readiness;

/// The text format of Prometheus.
const METRICS_TYPE: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// The definitions of an agent, as they are sent to be compared: those of thousands of services.
const DEFINITIONS_BYTES_MAX: usize = 8 << 20;

/// What an agent's files define: bodies of `agent/service/register` and `agent/check/register`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Definitions {
    services: Vec<Value>,
    checks: Vec<Value>,
}

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/livez")
            .get(Rule::Open, |_| Box::pin(std::future::ready(Ok(Reply::text("ok\n")))))
            .head(Rule::Open, |_| Box::pin(std::future::ready(Ok(Reply::text("ok\n"))))),
        Endpoint::new("/readyz")
            .get(Rule::Open, |call| Box::pin(std::future::ready(ready(&call))))
            .head(Rule::Open, |call| Box::pin(std::future::ready(ready(&call)))),
        Endpoint::new("/metrics").get(Rule::Server(Access::Read), |call| {
            Box::pin(std::future::ready(tell_metrics(&call)))
        }),
        Endpoint::new("/v1/quorate/agent")
            .put(Rule::Commands, |call| Box::pin(describe_agent(call))),
        Endpoint::new("/v1/quorate/agent/alive")
            .put(Rule::Commands, |call| Box::pin(keep_alive(call))),
        Endpoint::new("/v1/quorate/agent/definitions")
            .put(Rule::Commands, |call| Box::pin(compare(call))),
        Endpoint::new("/v1/quorate/state-hash")
            .get(Rule::Operator(Access::Read), |call| Box::pin(state_hash(call))),
    ]
}

/// What a client agent's configuration says of its node, which is made if it is not there.
async fn describe_agent(mut call: Call) -> Answer {
    let agent = call.agent()?;
    let body = call.body(BodyLimit::fixed(MAX_JSON_BYTES)).await?;
    let said: Description = serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad_request(format!("Request decode failed: {error}")))?;
    if let Some(id) = said.id.as_ref().filter(|id| Uuid::try_parse(id).is_err()) {
        return Err(ApiError::bad_request(format!("Bad node ID {id:?}: a UUID")));
    }
    if let Some(meta) = &said.meta {
        check_meta(meta)
            .map_err(|why| ApiError::bad_request(format!("Invalid node Meta: {why}")))?;
    }
    let Description { id, tagged_addresses, meta } = said;
    call.propose(Command::DescribeAgent { agent, id, tagged_addresses, meta }).await?;
    Ok(Reply::empty())
}

/// How what is registered on an agent's node differs from its definition files, which the body holds. Changes
/// nothing. There may be many definitions, so they are read beside the requests, not among them.
async fn compare(mut call: Call) -> Answer {
    let agent = call.agent()?;
    call.require(AclKind::Node, &agent.name, Access::Write).await?;
    let options = call.read_options()?;
    let body = call.body(BodyLimit::fixed(DEFINITIONS_BYTES_MAX)).await?;
    let published = blocking::at_barrier(&call.node, &options).await?;
    let compare = move || Ok(compared(&body, &published.state, &agent.name));
    let compared = supervise::blocking("comparing definitions", compare).await;
    let compared = compared.map_err(|error| ApiError::internal(error.to_string()))?;
    call.json(&compared.map_err(ApiError::bad_request)?)
}

fn compared(body: &[u8], state: &State, agent: &str) -> Result<Comparison, String> {
    let said: Definitions =
        serde_json::from_slice(body).map_err(|error| format!("Request decode failed: {error}"))?;
    let services = said.services.iter().map(parse_service).collect::<Result<Vec<_>, _>>()?;
    let checks = said.checks.iter().map(parse_check).collect::<Result<Vec<_>, _>>()?;
    let own = services.iter().map(|(service, _)| service);
    let checks = services.iter().flat_map(|(_, checks)| checks).chain(&checks);
    Ok(Comparison::new(state, agent, own, checks))
}

/// A client agent's process lives. 404 if the cluster does not watch it (any more), because somebody has
/// deregistered its node, say; with `?begin` it is watched from now on. 409 if another one lives under its name
/// (`?id=` is the id that its node has or is to have).
async fn keep_alive(call: Call) -> Answer {
    let seen = call.seen();
    let agent = call.agent()?;
    call.require(AclKind::Node, &agent.name, Access::Write).await?;
    if call.params.switch("begin")? {
        if let Some(id) = call.params.filled("id") {
            let published = blocking::at_barrier(&call.node, &call.read_options()?).await?;
            name_is_free(&published.state, &agent, id)?;
        }
        call.propose(Command::WatchAgent { agent, ttl: HEARTBEAT_TTL }).await?;
        return Ok(Reply::empty());
    }
    let number = match watch_of(&call.node.published().state, &agent.name) {
        Some(WatchedBy::Servers) => return Ok(Reply::empty()),
        Some(WatchedBy::Check(number)) => number,
        None => return Err(not_watched(&agent.name)),
    };
    let (status, output) = (CheckStatus::Passing, SERF_ALIVE.to_owned());
    let beat = Command::Heartbeat { number, status, output, seen };
    match call.outcome_of(beat).await?.into_result() {
        Ok(_) => Ok(Reply::empty()),
        Err(Rejection::NoSuchNumber | Rejection::NotTtl(_)) => Err(not_watched(&agent.name)),
        Err(rejection) => Err(rejection.into()),
    }
}

/// Refuses an agent whose name another one has that lives: with another id, or, as long as its node shows the id that
/// the cluster has made for it, at another address.
fn name_is_free(state: &State, agent: &Agent, id: &str) -> Result<(), ApiError> {
    let holder = state.node(&agent.name).filter(|node| node.name.eq_ignore_ascii_case(&agent.name));
    let Some(holder) = holder else { return Ok(()) };
    let lives = watch_of(state, &agent.name).is_some() && !has_failed(state, &holder.name);
    let is_made = holder.id.is_empty() || holder.id == agent.id;
    let is_own = holder.id.eq_ignore_ascii_case(id) || (is_made && holder.address == agent.address);
    if !lives || is_own {
        return Ok(());
    }
    let Node { name, address, id: theirs, kind, .. } = &**holder;
    let what = match kind {
        NodeKind::Server => "a server",
        NodeKind::ServerAgent | NodeKind::Agent | NodeKind::Registered => "another agent",
    };
    let text = format!(
        "{what} runs under the node name {name:?} at {address} (node ID {theirs:?}, and this agent's is {id:?}): each \
         agent needs a name of its own (node_name), or stop that one"
    );
    Err(ApiError::new(StatusCode::CONFLICT, text))
}

/// Who sees whether an agent's node is alive.
#[derive(Debug, PartialEq, Eq)]
enum WatchedBy {
    /// It is the host of a server.
    Servers,
    /// The `serfHealth` with this number.
    Check(u64),
}

fn watch_of(state: &State, agent: &str) -> Option<WatchedBy> {
    match state.node(agent)?.kind {
        NodeKind::Server | NodeKind::ServerAgent => Some(WatchedBy::Servers),
        NodeKind::Agent | NodeKind::Registered => {
            let check = state.check(agent, SERF_HEALTH)?;
            check.is_liveness().then_some(WatchedBy::Check(check.number))
        }
    }
}

fn not_watched(agent: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("no process of agent {agent:?} is known"))
}

fn ready(call: &Call) -> Answer {
    match call.node.readiness() {
        Readiness::Ready => Ok(Reply::text("ok\n")),
        Readiness::NotReady(why) => Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why)),
    }
}

fn tell_metrics(call: &Call) -> Answer {
    Ok(Reply::bytes(call.metrics.text().into(), METRICS_TYPE))
}

/// The hash of this node's own state, without a barrier. It reads everything, so it runs beside the
/// requests, not among them.
async fn state_hash(call: Call) -> Answer {
    let published = call.node.published();
    let applied_index = published.last_applied.as_ref().map_or(0, |log_id| log_id.index());
    let level = published.state.level();
    let hash = supervise::blocking("hashing the state", move || Ok(published.state.hash()))
        .await
        .map_err(|error| ApiError::internal(error.to_string()))?;
    call.json(&StateHash { applied_index, hash: hexadecimal(&hash), level })
}
