//! Quorate's own endpoints: `/v1/quorate/`, the probes, the metrics, and the root page.

use axum::http::{HeaderValue, StatusCode};
use quorate_client::types::quorate::StateHash;

use super::call::Call;
use super::endpoint::{Answer, Endpoint};
use super::error::ApiError;
use super::reply::Reply;
use super::wire;
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
        Endpoint::new("/metrics").get(|call| Box::pin(std::future::ready(metrics(&call)))),
        Endpoint::new("/v1/quorate/state-hash").get(|call| Box::pin(state_hash(call))),
    ]
}

fn ready(call: &Call) -> Answer {
    match call.node.readiness() {
        Readiness::Ready => Ok(Reply::text("ok\n")),
        Readiness::NotReady(why) => Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why)),
    }
}

fn metrics(call: &Call) -> Answer {
    Ok(Reply::bytes(call.node.render_metrics().into(), METRICS_TYPE))
}

/// The hash of this node's own state, without a barrier. It reads everything, so it runs beside the
/// requests, not among them.
async fn state_hash(call: Call) -> Answer {
    let published = call.node.published();
    let applied_index = published.last_applied.as_ref().map_or(0, |log_id| log_id.index());
    let hash = tokio::task::spawn_blocking(move || published.state.hash())
        .await
        .map_err(|error| ApiError::internal(error.to_string()))?;
    call.json(&StateHash { applied_index, hash: wire::hexadecimal(&hash) })
}
