//! Quorate's own endpoints: `/v1/quorate/`, the probes, the metrics, and the root page.

use axum::http::{HeaderValue, StatusCode};
use quorate_client::types::quorate::StateHash;
use quorate_storage::command::Command;
use uuid::Uuid;

use crate::host::figures;
use crate::host::supervise;
use crate::http::call::{BodyLimit, Call, MAX_JSON_BYTES};
use crate::http::definition::Description;
use crate::http::definition::check_meta;
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::reply::Reply;
use crate::http::wire;
use crate::node::Readiness;

/// The text format of Prometheus.
const METRICS_TYPE: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/").get(|_| Box::pin(std::future::ready(Ok(Reply::text("Consul Agent"))))),
        Endpoint::new("/livez")
            .get(|_| Box::pin(std::future::ready(Ok(Reply::text("ok\n")))))
            .head(|_| Box::pin(std::future::ready(Ok(Reply::text("ok\n"))))),
        Endpoint::new("/readyz")
            .get(|call| Box::pin(std::future::ready(ready(&call))))
            .head(|call| Box::pin(std::future::ready(ready(&call)))),
        Endpoint::new("/metrics").get(|call| Box::pin(std::future::ready(tell_metrics(&call)))),
        Endpoint::new("/v1/quorate/agent").put(|call| Box::pin(describe_agent(call))),
        Endpoint::new("/v1/quorate/state-hash").get(|call| Box::pin(state_hash(call))),
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

fn ready(call: &Call) -> Answer {
    match call.node.readiness() {
        Readiness::Ready => Ok(Reply::text("ok\n")),
        Readiness::NotReady(why) => Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why)),
    }
}

fn tell_metrics(call: &Call) -> Answer {
    Ok(Reply::bytes(figures::render(call.figures()).into(), METRICS_TYPE))
}

/// The hash of this node's own state, without a barrier. It reads everything, so it runs beside the
/// requests, not among them.
async fn state_hash(call: Call) -> Answer {
    let published = call.node.published();
    let applied_index = published.last_applied.as_ref().map_or(0, |log_id| log_id.index());
    let hash = supervise::blocking("hashing the state", move || Ok(published.state.hash()))
        .await
        .map_err(|error| ApiError::internal(error.to_string()))?;
    call.json(&StateHash { applied_index, hash: wire::hexadecimal(&hash) })
}
