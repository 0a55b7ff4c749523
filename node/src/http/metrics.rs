//! What `/metrics` shows, registered once for each API.
//!
//! Histograms are kept in the registry. All other figures are kept where they arise and are read when
//! somebody asks, through one collector: nothing is counted twice.
//!
//! The labels of requests have few values: the part of the API, and the first digit of the status.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::process::Process;
use crate::host::durations::new_histogram;
use crate::host::figures::Figure;
use crate::node::Node;

/// The metrics of one node and its process.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    live: Live,
    requests: Family<RequestLabels, Histogram>,
}

/// Which requests a histogram counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    endpoint: &'static str,
    status: &'static str,
}

impl Metrics {
    pub(super) fn new(node: &Arc<Node>, process: &Arc<Process>) -> Self {
        let requests: Family<_, _> = Family::new_with_constructor(new_histogram);
        let mut registry = Registry::with_prefix("quorate");
        registry.register(
            "http_request_duration_seconds",
            "Time from a request's head to its answer's, by part of the API and class of status",
            requests.clone(),
        );
        node.register_durations(&mut registry);
        process.register(&mut registry);
        let live = Live { node: Arc::clone(node), process: Arc::clone(process) };
        registry.register_collector(Box::new(live.clone()));
        Self { registry, live, requests }
    }

    /// Counts a request to this class of endpoints ([`Endpoint::class`](super::endpoint::Endpoint::class)).
    pub(super) fn answered(&self, endpoint: &'static str, status: StatusCode, took: Duration) {
        let labels = RequestLabels { endpoint, status: status_class(status) };
        self.requests.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Everything in Prometheus' text format (`text/plain; version=0.0.4` or OpenMetrics).
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// The figures that are no histograms.
    pub(super) fn figures(&self) -> Vec<Figure> {
        self.live.figures()
    }
}

/// Reads the figures of a node and its process.
#[derive(Debug, Clone)]
struct Live {
    node: Arc<Node>,
    process: Arc<Process>,
}

impl Live {
    fn figures(&self) -> Vec<Figure> {
        let mut figures = self.node.figures();
        figures.extend(self.process.figures());
        figures
    }
}

impl Collector for Live {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.figures().iter().try_for_each(|figure| figure.encode(&mut encoder))
    }
}

fn status_class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_counted_by_its_first_digit() {
        let classes = [100, 204, 302, 404, 503]
            .map(|status| status_class(StatusCode::from_u16(status).unwrap()));
        assert_eq!(classes, ["1xx", "2xx", "3xx", "4xx", "5xx"]);
    }
}
