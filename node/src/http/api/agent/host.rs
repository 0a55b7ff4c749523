//! `/v1/agent/host`, `/v1/agent/metrics`, `/v1/agent/version`: the machine, the figures and the build
//! of the server that was asked.

use axum::http::HeaderValue;
use axum::http::header::ACCEPT;
use quorate_client::types::agent::{Gauge, Metrics, Version};

use super::{BUILD_DATE, REVISION};
use crate::host::{clock, supervise, system};
use crate::http::CONSUL_VERSION;
use crate::http::call::Call;
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::reply::Reply;
use crate::http::rights::Rule;
use quorate_storage::record::Access;

/// The text format of Prometheus.
const PROMETHEUS: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/v1/agent/host")
            .get(Rule::Operator(Access::Read), |call| Box::pin(machine(call))),
        Endpoint::new("/v1/agent/metrics").get(Rule::Server(Access::Read), |call| {
            Box::pin(std::future::ready(tell_metrics(&call)))
        }),
        Endpoint::new("/v1/agent/version")
            .get(Rule::Agent(Access::Read), |call| Box::pin(std::future::ready(version(&call)))),
    ]
}

/// Reads files, so it runs beside the requests.
async fn machine(call: Call) -> Answer {
    let data_dir = call.process.data_dir.clone();
    let describe = move || Ok(system::describe(data_dir.as_deref()));
    let read = supervise::blocking("describing the machine", describe);
    call.json(&read.await.map_err(|error| ApiError::internal(error.to_string()))?)
}

fn tell_metrics(call: &Call) -> Answer {
    let accepted = call.header(&ACCEPT).unwrap_or("");
    if call.params.get("format") == Some("prometheus") || accepted.split(',').any(is_prometheus) {
        return Ok(Reply::bytes(call.metrics.text().into(), PROMETHEUS));
    }
    let gauges = call.metrics.figures().into_iter().map(|figure| Gauge {
        name: format!("quorate.{}", figure.name),
        value: figure.value,
        labels: Default::default(),
    });
    call.json(&Metrics {
        timestamp: clock::wall_time().as_go_prints_it(),
        gauges: gauges.collect(),
        ..Metrics::default()
    })
}

/// Whether an item of `Accept` is a format for Prometheus.
fn is_prometheus(item: &str) -> bool {
    let mut parts = item.split(';').map(|part| part.trim().to_ascii_lowercase());
    match parts.next().as_deref() {
        Some("application/openmetrics-text") => true,
        Some("text/plain") => parts.any(|part| part == "version=0.0.4" || part == "version=0.4.0"),
        Some(_) | None => false,
    }
}

fn version(call: &Call) -> Answer {
    call.json(&Version {
        sha: REVISION.to_owned(),
        build_date: BUILD_DATE.to_owned(),
        human_version: CONSUL_VERSION.to_owned(),
        fips: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prometheus_accepts_is_known_from_what_browsers_accept() {
        assert!(is_prometheus("application/openmetrics-text;version=1.0.0"));
        assert!(is_prometheus(" text/plain; version=0.0.4"));
        assert!(!is_prometheus("text/plain"));
        assert!(!is_prometheus("*/*"));
    }
}
