//! What `/metrics` tells of DNS.

use hickory_proto::op::ResponseCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counts messages and connections; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct DnsMetrics {
    answers: Family<AnswerLabels, Counter>,
    dropped: Family<DroppedLabels, Counter>,
    pub(super) connections: Gauge,
}

/// Which answers are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    kind: &'static str,
    rcode: &'static str,
}

/// Why nothing was answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DroppedLabels {
    reason: &'static str,
}

impl DnsMetrics {
    /// Has `/metrics` show them.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Answers to DNS questions, by what was asked for and response code";
        registry.register("dns_answers", help, self.answers.clone());
        let help = "DNS messages and connections that were not answered";
        registry.register("dns_dropped", help, self.dropped.clone());
        let help = "Connections of DNS clients over TCP";
        registry.register("dns_connections", help, self.connections.clone());
    }

    pub(super) fn answered(&self, kind: &'static str, code: ResponseCode) {
        let labels = AnswerLabels { kind, rcode: word(code) };
        self.answers.get_or_create(&labels).inc();
    }

    pub(super) fn dropped(&self, reason: &'static str) {
        self.dropped.get_or_create(&DroppedLabels { reason }).inc();
    }
}

fn word(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::BADVERS => "BADVERS",
        _ => "other",
    }
}
