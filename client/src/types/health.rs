//! Health: checks, and instances with their checks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::catalog::{Node, NodeService};
use crate::duration::go_text;

/// One entry of `GET /v1/health/service/:name`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceEntry {
    /// The node it runs on.
    pub node: Node,
    /// The instance.
    pub service: NodeService,
    /// The checks that decide its health: its own and its node's.
    pub checks: Vec<HealthCheck>,
}

impl ServiceEntry {
    /// Where the instance can be reached: its own address, or its node's.
    #[must_use]
    pub fn address(&self) -> &str {
        match self.service.address.as_str() {
            "" => &self.node.address,
            own => own,
        }
    }

    /// The worst status of its checks: `critical`, `warning` or `passing`; without checks it passes.
    #[must_use]
    pub fn status(&self) -> &str {
        let mut worst = "passing";
        for check in &self.checks {
            match check.status.as_str() {
                "passing" => {}
                "warning" => worst = "warning",
                // A status that is none of the three counts as the worst.
                _ => return "critical",
            }
        }
        worst
    }
}

/// A check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthCheck {
    /// The node it belongs to.
    pub node: String,
    /// Its id, unique on the node.
    #[serde(rename = "CheckID")]
    pub check_id: String,
    /// A name for people.
    pub name: String,
    /// `passing`, `warning`, `critical`, or what a catalogue registration said.
    pub status: String,
    /// Notes for people.
    pub notes: String,
    /// What the last run or heartbeat said.
    pub output: String,
    /// The service instance it belongs to; empty for a check of the whole node.
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    /// Name of that service.
    pub service_name: String,
    /// Tags of that service; never `null`.
    pub service_tags: Vec<String>,
    /// `ttl`, `http`, `tcp`, ..., or empty.
    #[serde(rename = "Type")]
    pub kind: String,
    /// How it is run, as far as a catalogue registration said so; `{}` for an agent's check.
    pub definition: CheckDefinition,
    /// When it was made; 0 in `agent/checks`.
    pub create_index: u64,
    /// When it last visibly changed; 0 in `agent/checks`.
    pub modify_index: u64,
}

/// How a check is run. Only members that are set are shown; durations are Go texts (`"1m0s"`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckDefinition {
    /// Time between two runs, in nanoseconds.
    #[serde(skip_serializing_if = "is_zero", with = "go_text")]
    pub interval: i64,
    /// Longest time of a run, in nanoseconds.
    #[serde(skip_serializing_if = "is_zero", with = "go_text")]
    pub timeout: i64,
    /// Critical for so long removes the service, in nanoseconds.
    #[serde(skip_serializing_if = "is_zero", with = "go_text")]
    pub deregister_critical_service_after: i64,
    /// Time to live, in nanoseconds.
    #[serde(rename = "TTL", skip_serializing_if = "is_zero", with = "go_text")]
    pub ttl: i64,
    /// A TTL check warns after so long without a heartbeat, in nanoseconds.
    #[serde(skip_serializing_if = "is_zero", with = "go_text")]
    pub warn_after: i64,
    /// How many workers look at the target, if several do.
    #[serde(skip_serializing_if = "is_zero")]
    pub observers: i64,
    /// The network whose workers run it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// URL to fetch.
    #[serde(rename = "HTTP", skip_serializing_if = "String::is_empty")]
    pub http: String,
    /// Headers to send.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub header: BTreeMap<String, Vec<String>>,
    /// HTTP method.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub method: String,
    /// HTTP body.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// Server name for TLS.
    #[serde(rename = "TLSServerName", skip_serializing_if = "String::is_empty")]
    pub tls_server_name: String,
    /// Whether any certificate is accepted.
    #[serde(rename = "TLSSkipVerify", skip_serializing_if = "is_false")]
    pub tls_skip_verify: bool,
    /// `host:port` to connect to.
    #[serde(rename = "TCP", skip_serializing_if = "String::is_empty")]
    pub tcp: String,
    /// `host:port` to send a datagram to.
    #[serde(rename = "UDP", skip_serializing_if = "String::is_empty")]
    pub udp: String,
    /// `host:port/service` to ask for its gRPC health.
    #[serde(rename = "GRPC", skip_serializing_if = "String::is_empty")]
    pub grpc: String,
    /// Whether the gRPC check uses TLS.
    #[serde(rename = "GRPCUseTLS", skip_serializing_if = "is_false")]
    pub grpc_use_tls: bool,
    /// `host:port` for an HTTP/2 ping.
    #[serde(rename = "H2PING", skip_serializing_if = "String::is_empty")]
    pub h2ping: String,
    /// Node of the service that an alias check follows.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub alias_node: String,
    /// The service that an alias check follows.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub alias_service: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(nanos: &i64) -> bool {
    *nanos == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_check_is_the_status_of_an_instance() {
        let entry = |statuses: &[&str]| ServiceEntry {
            checks: statuses
                .iter()
                .map(|status| HealthCheck {
                    status: (*status).to_owned(),
                    ..HealthCheck::default()
                })
                .collect(),
            ..ServiceEntry::default()
        };
        assert_eq!(entry(&[]).status(), "passing");
        assert_eq!(entry(&["passing", "warning"]).status(), "warning");
        assert_eq!(entry(&["critical", "warning"]).status(), "critical");
        assert_eq!(entry(&["odd"]).status(), "critical");
    }

    #[test]
    fn a_definition_shows_only_what_is_set_with_durations_as_text() {
        assert_eq!(serde_json::to_string(&CheckDefinition::default()).unwrap(), "{}");
        let definition = CheckDefinition {
            interval: 10_000_000_000,
            timeout: 60_000_000_000,
            http: "http://x/".to_owned(),
            ..CheckDefinition::default()
        };
        let text = serde_json::to_string(&definition).unwrap();
        assert_eq!(text, r#"{"Interval":"10s","Timeout":"1m0s","HTTP":"http://x/"}"#);
        assert_eq!(serde_json::from_str::<CheckDefinition>(&text).unwrap(), definition);
    }
}
