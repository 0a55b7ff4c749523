//! What `/metrics` shows, registered once for each API.
//!
//! Histograms are kept in the registry. All other figures are kept where they arise and are read when
//! somebody asks, through one collector: nothing is counted twice.
//!
//! Requests are told apart by the pattern of their route, their method and the first digit of their status: as many
//! series as the API has, whatever clients ask for. The histograms of a route are found once and then kept beside it
//! ([`RouteDurations`]), so counting a request looks up nothing, allocates nothing, and takes one lock that only
//! requests of the same series share.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::{Method, StatusCode};
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
    queries: Family<RequestLabels, Histogram>,
}

/// Which requests a histogram counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    method: &'static str,
    status: &'static str,
}

/// The classes of statuses, by their first digit.
const STATUSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The histograms of one method of a route: for each class of statuses, of requests and of queries that wait for a
/// change. Each is made for the first request that counts into it.
#[derive(Debug, Default)]
pub(super) struct RouteDurations([[OnceLock<Histogram>; STATUSES.len()]; 2]);

/// A request that was answered.
#[derive(Debug)]
pub(super) struct Answered<'a> {
    /// The histograms of its route and method.
    pub(super) durations: &'a RouteDurations,
    /// The path of its endpoint.
    pub(super) route: &'static str,
    /// The method that the client asked for.
    pub(super) method: &'a Method,
    /// Whether it waited for a change: how long that takes says nothing about the server.
    pub(super) is_query: bool,
    /// What it was answered with.
    pub(super) status: StatusCode,
}

impl Metrics {
    pub(super) fn new(node: &Arc<Node>, process: &Arc<Process>) -> Self {
        let requests: Family<_, _> = Family::new_with_constructor(new_histogram);
        let queries: Family<_, _> = Family::new_with_constructor(new_histogram);
        let mut registry = Registry::with_prefix("quorate");
        registry.register(
            "http_request_duration_seconds",
            "Time from a request's head to its answer's, by route, method and class of status",
            requests.clone(),
        );
        registry.register(
            "http_blocking_query_duration_seconds",
            "The same of queries that wait for a change, the wait included",
            queries.clone(),
        );
        node.register_durations(&mut registry);
        process.register(&mut registry);
        let live = Live { node: Arc::clone(node), process: Arc::clone(process) };
        registry.register_collector(Box::new(live.clone()));
        Self { registry, live, requests, queries }
    }

    /// Counts a request.
    pub(super) fn answered(&self, answered: &Answered<'_>, took: Duration) {
        let Answered { durations: RouteDurations([requests, queries]), route, .. } = *answered;
        let class = status_class(answered.status);
        let (family, series) = match answered.is_query {
            true => (&self.queries, queries),
            false => (&self.requests, requests),
        };
        let histogram = series[class].get_or_init(|| {
            let (method, status) = (method_word(answered.method), STATUSES[class]);
            family.get_or_create_owned(&RequestLabels { route, method, status })
        });
        histogram.observe(took.as_secs_f64());
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
        self.figures().iter().try_for_each(|figure| figure.encode(&mut encoder))?;
        self.node.encode_peers(&mut encoder)?;
        self.process.encode_certificates(&mut encoder)
    }
}

/// Which of [`STATUSES`] this is.
fn status_class(status: StatusCode) -> usize {
    usize::from(status.as_u16() / 100).clamp(1, STATUSES.len()) - 1
}

/// A method as a label. Clients can ask for any word.
fn method_word(method: &Method) -> &'static str {
    const NAMED: [Method; 6] =
        [Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::HEAD, Method::OPTIONS];
    const WORDS: [&str; 6] = ["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS"];
    let named = NAMED.iter().position(|named| named == method);
    named.map_or("other", |named| WORDS[named])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_counted_by_its_first_digit() {
        let classes = [100, 204, 302, 404, 503, 999]
            .map(|status| STATUSES[status_class(StatusCode::from_u16(status).unwrap())]);
        assert_eq!(classes, ["1xx", "2xx", "3xx", "4xx", "5xx", "5xx"]);
    }

    #[test]
    fn a_method_that_nobody_serves_makes_no_series_of_its_own() {
        let word = |text: &str| method_word(&Method::from_bytes(text.as_bytes()).unwrap());
        assert_eq!(["GET", "DELETE", "BREW", "get"].map(word), ["GET", "DELETE", "other", "other"]);
    }
}
