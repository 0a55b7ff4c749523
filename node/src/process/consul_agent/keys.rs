//! Every key of a Consul agent's configuration, at all depths, and what becomes of it here.
//!
//! The rule is to fail closed. A key that asks for protection, or for something else whose absence an
//! operator would not notice, is refused by name unless its value turns it off. A key that is in no
//! table is refused as well, wherever it stands: a misspelt `acl.enabled` must not start an open server.
//! What only tunes machinery that Quorate does not have is ignored, and listed once in the log.
//!
//! The names are those of Consul 1.21's documentation, with the older spellings that it still reads.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// What becomes of a key.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// [`settings`](super::settings) reads it, with whatever is in it.
    Honoured,
    /// An object with these members.
    Stanza(&'static [Key]),
    /// Nothing that Quorate does depends on it.
    Ignored,
    /// Refused for this reason, unless its value turns it off.
    Refused(&'static str),
    /// The same, but this value is harmless too.
    RefusedUnless(&'static str, &'static str),
}

type Key = (&'static str, Rule);

use Rule::{Honoured, Ignored, Refused, RefusedUnless, Stanza};

const OLD_ACLS: &str = "write it in the acl stanza (acl.enabled, acl.default_policy): this spelling is from before Consul 1.4";
const NO_REPLICATION: &str = "Quorate has one datacenter, and nothing to replicate tokens from";
const NO_SUCH_TLS: &str =
    "Quorate has TLS for the servers' port and for HTTPS, with certificates in files";
const NO_TLS_CHOICE: &str = "Quorate chooses: TLS 1.3 between servers, TLS 1.2 or 1.3 for clients, with the ciphers of rustls";
const NO_GOSSIP_KEY: &str =
    "Quorate has no gossip: certificates (tls.internal_rpc) protect what servers say to each other";
const NO_ENDPOINT_RULES: &str =
    "anyone who can reach the port can use every endpoint of the HTTP API";
const NO_WAN: &str = "Quorate has one datacenter and does not federate";
const NO_ENTERPRISE: &str = "Quorate has no such feature of Consul Enterprise";
const NO_HANDLERS: &str = "Quorate runs no watch handlers; use blocking queries or consul-template";
const NO_RATES: &str = "Quorate does not limit these rates";
const NO_ENTRIES: &str = "Quorate has no config entries";
const NO_SYSLOG: &str = "Quorate logs to standard error, or to log_file";

const NO_RECURSION: &str =
    "Quorate asks no other name servers: have resolvers send it the questions for its domain only";

const TLS_GROUP: &[Key] = &[
    ("ca_file", Honoured),
    ("ca_path", Refused(NO_SUCH_TLS)),
    ("cert_file", Honoured),
    ("key_file", Honoured),
    ("tls_min_version", Refused(NO_TLS_CHOICE)),
    ("tls_cipher_suites", Refused(NO_TLS_CHOICE)),
    ("verify_incoming", Honoured),
    ("verify_outgoing", Honoured),
    ("verify_server_hostname", Honoured),
    ("use_auto_cert", Refused(NO_SUCH_TLS)),
];

/// Quorate does not serve gRPC: its files are those of nobody, and protection is not to be expected of it.
const TLS_GRPC: &[Key] = &[
    ("ca_file", Ignored),
    ("ca_path", Ignored),
    ("cert_file", Ignored),
    ("key_file", Ignored),
    ("tls_min_version", Ignored),
    ("tls_cipher_suites", Ignored),
    ("verify_incoming", Ignored),
    ("use_auto_cert", Ignored),
];

const GOSSIP: &[Key] = &[
    ("gossip_nodes", Ignored),
    ("gossip_interval", Ignored),
    ("probe_interval", Ignored),
    ("probe_timeout", Ignored),
    ("suspicion_mult", Ignored),
    ("retransmit_mult", Ignored),
];

const ACL: &[Key] = &[
    ("enabled", Honoured),
    ("default_policy", Honoured),
    ("down_policy", Ignored),
    ("policy_ttl", Ignored),
    ("role_ttl", Ignored),
    ("token_ttl", Ignored),
    ("enable_key_list_policy", Honoured),
    ("enable_token_persistence", Ignored),
    ("enable_token_replication", Refused(NO_REPLICATION)),
    ("msp_disable_bootstrap", Ignored),
    (
        // A token that is not read gives nobody a right: what it was for is refused.
        "tokens",
        Stanza(&[
            ("initial_management", Honoured),
            ("master", Honoured),
            ("replication", Ignored),
            ("agent", Honoured),
            ("agent_recovery", Ignored),
            ("agent_master", Ignored),
            ("default", Honoured),
            ("config_file_service_registration", Ignored),
            ("dns", Ignored),
            ("managed_service_provider", Ignored),
        ]),
    ),
];

const DNS_CONFIG: &[Key] = &[
    ("allow_stale", Honoured),
    ("a_record_limit", Honoured),
    ("disable_compression", Ignored),
    ("enable_truncate", Honoured),
    ("max_stale", Honoured),
    ("node_ttl", Honoured),
    ("only_passing", Honoured),
    ("recursor_strategy", Ignored),
    ("recursor_timeout", Ignored),
    ("service_ttl", Honoured),
    ("udp_answer_limit", Honoured),
    ("enable_additional_node_meta_txt", Honoured),
    ("use_cache", Ignored),
    ("cache_max_age", Ignored),
    ("prefer_namespace", Ignored),
    (
        "soa",
        Stanza(&[
            ("refresh", Honoured),
            ("retry", Honoured),
            ("expire", Honoured),
            ("min_ttl", Honoured),
        ]),
    ),
];

const LIMITS: &[Key] = &[
    ("http_max_conns_per_client", Honoured),
    ("kv_max_value_size", Honoured),
    ("txn_max_req_len", Honoured),
    ("https_handshake_timeout", Ignored),
    ("rpc_handshake_timeout", Ignored),
    ("rpc_client_timeout", Ignored),
    ("rpc_max_burst", Ignored),
    ("rpc_max_conns_per_client", Refused("Quorate does not count the connections of a peer")),
    ("rpc_rate", Refused(NO_RATES)),
    (
        "request_limits",
        Stanza(&[
            ("mode", RefusedUnless("disabled", NO_RATES)),
            ("read_rate", Ignored),
            ("write_rate", Ignored),
        ]),
    ),
];

const PORTS: &[Key] = &[
    ("dns", Honoured),
    ("http", Honoured),
    ("https", Honoured),
    ("server", Honoured),
    ("serf_lan", Honoured),
    ("serf_wan", Ignored),
    ("grpc", Ignored),
    ("grpc_tls", Refused(NO_SUCH_TLS)),
    ("proxy_min_port", Ignored),
    ("proxy_max_port", Ignored),
    ("sidecar_min_port", Ignored),
    ("sidecar_max_port", Ignored),
    ("expose_min_port", Ignored),
    ("expose_max_port", Ignored),
];

const TELEMETRY: &[Key] = &[
    ("circonus_api_app", Ignored),
    ("circonus_api_token", Ignored),
    ("circonus_api_url", Ignored),
    ("circonus_broker_id", Ignored),
    ("circonus_broker_select_tag", Ignored),
    ("circonus_check_display_name", Ignored),
    ("circonus_check_force_metric_activation", Ignored),
    ("circonus_check_id", Ignored),
    ("circonus_check_instance_id", Ignored),
    ("circonus_check_search_tag", Ignored),
    ("circonus_check_tags", Ignored),
    ("circonus_submission_interval", Ignored),
    ("circonus_submission_url", Ignored),
    ("disable_compat_1.9", Ignored),
    ("disable_hostname", Ignored),
    ("disable_per_tenancy_usage_metrics", Ignored),
    ("dogstatsd_addr", Ignored),
    ("dogstatsd_tags", Ignored),
    ("enable_host_metrics", Ignored),
    ("filter_default", Ignored),
    ("metrics_prefix", Ignored),
    ("prefix_filter", Ignored),
    ("prometheus_retention_time", Ignored),
    ("retry_failed_connection", Ignored),
    ("statsd_address", Ignored),
    ("statsite_address", Ignored),
];

const AUTO_CONFIG: &[Key] = &[
    ("enabled", Refused(NO_SUCH_TLS)),
    ("intro_token", Ignored),
    ("intro_token_file", Ignored),
    ("server_addresses", Ignored),
    ("dns_sans", Ignored),
    ("ip_sans", Ignored),
    ("authorization", Stanza(&[("enabled", Refused(NO_SUCH_TLS)), ("static", Ignored)])),
];

const UI_CONFIG: &[Key] = &[
    ("enabled", Ignored),
    ("dir", Ignored),
    ("content_path", Ignored),
    ("metrics_provider", Ignored),
    ("metrics_provider_files", Ignored),
    ("metrics_provider_options_json", Ignored),
    ("metrics_proxy", Ignored),
    ("dashboard_url_templates", Ignored),
    ("hcp_enabled", Ignored),
];

const CONNECT: &[Key] = &[
    ("enabled", Ignored),
    ("ca_provider", Ignored),
    ("ca_config", Ignored),
    ("enable_mesh_gateway_wan_federation", Refused(NO_WAN)),
    ("enable_serverless_plugin", Ignored),
    ("test_ca_leaf_root_change_spread", Ignored),
];

const RAFT_LOGSTORE: &[Key] = &[
    ("backend", Ignored),
    ("disable_log_cache", Ignored),
    ("verification", Stanza(&[("enabled", Ignored), ("interval", Ignored)])),
    ("boltdb", Stanza(&[("no_freelist_sync", Ignored)])),
    ("wal", Stanza(&[("segment_size_mb", Ignored)])),
];

/// The keys of a file, and of what flags say.
const KEYS: &[Key] = &[
    ("acl", Stanza(ACL)),
    ("acl_agent_master_token", Ignored),
    ("acl_agent_token", Ignored),
    ("acl_datacenter", Refused(OLD_ACLS)),
    ("acl_default_policy", RefusedUnless("allow", OLD_ACLS)),
    ("acl_down_policy", Ignored),
    ("acl_enable_key_list_policy", Refused(OLD_ACLS)),
    ("acl_enforce_version_8", Ignored),
    ("acl_master_token", Ignored),
    ("acl_replication_token", Ignored),
    ("acl_token", Ignored),
    ("acl_ttl", Ignored),
    (
        "addresses",
        Stanza(&[
            ("dns", Honoured),
            ("http", Honoured),
            ("https", Honoured),
            ("grpc", Ignored),
            ("grpc_tls", Ignored),
        ]),
    ),
    ("advertise_addr", Honoured),
    ("advertise_addr_ipv4", Honoured),
    ("advertise_addr_ipv6", Honoured),
    ("advertise_addr_wan", Honoured),
    ("advertise_addr_wan_ipv4", Honoured),
    ("advertise_addr_wan_ipv6", Honoured),
    ("advertise_reconnect_timeout", Ignored),
    ("alt_domain", Honoured),
    (
        "audit",
        Stanza(&[
            ("enabled", Refused("Quorate writes no audit log")),
            ("sink", Ignored),
            ("rpc_enabled", Ignored),
        ]),
    ),
    ("auto_config", Stanza(AUTO_CONFIG)),
    (
        "auto_encrypt",
        Stanza(&[
            ("tls", Refused(NO_SUCH_TLS)),
            ("allow_tls", Refused(NO_SUCH_TLS)),
            ("dns_san", Ignored),
            ("ip_san", Ignored),
        ]),
    ),
    ("auto_reload_config", Ignored),
    (
        "autopilot",
        Stanza(&[
            ("cleanup_dead_servers", Ignored),
            ("last_contact_threshold", Ignored),
            ("max_trailing_logs", Ignored),
            ("min_quorum", Ignored),
            ("server_stabilization_time", Ignored),
            ("disable_upgrade_migration", Ignored),
            ("redundancy_zone_tag", Ignored),
            ("upgrade_version_tag", Ignored),
        ]),
    ),
    ("bind_addr", Honoured),
    ("bootstrap", Honoured),
    ("bootstrap_expect", Honoured),
    ("ca_file", Honoured),
    ("ca_path", Refused(NO_SUCH_TLS)),
    ("cache", Stanza(&[("entry_fetch_max_burst", Ignored), ("entry_fetch_rate", Ignored)])),
    ("cert_file", Honoured),
    ("check", Honoured),
    ("check_deregister_interval_min", Ignored),
    ("check_output_max_size", Honoured),
    ("check_reap_interval", Ignored),
    ("check_update_interval", Ignored),
    ("checks", Honoured),
    ("client_addr", Honoured),
    ("cloud", Ignored),
    ("config_entries", Stanza(&[("bootstrap", Refused(NO_ENTRIES))])),
    ("connect", Stanza(CONNECT)),
    ("data_dir", Honoured),
    ("datacenter", Honoured),
    ("default_intention_policy", RefusedUnless("allow", "Quorate has no service mesh")),
    ("default_query_time", Ignored),
    ("disable_anonymous_signature", Ignored),
    ("disable_coordinates", Ignored),
    ("disable_host_node_id", Ignored),
    ("disable_http_unprintable_char_filter", Ignored),
    ("disable_keyring_file", Ignored),
    ("disable_remote_exec", Ignored),
    ("disable_update_check", Ignored),
    ("discard_check_output", Honoured),
    ("discovery_max_stale", Ignored),
    ("dns_config", Stanza(DNS_CONFIG)),
    ("domain", Honoured),
    ("enable_acl_replication", Refused(NO_REPLICATION)),
    ("enable_agent_tls_for_checks", Refused("Quorate has no certificate of its own for checks")),
    ("enable_central_service_config", Ignored),
    ("enable_debug", Ignored),
    ("enable_local_script_checks", Ignored),
    ("enable_remote_script_checks", Ignored),
    ("enable_script_checks", Ignored),
    ("enable_syslog", Refused(NO_SYSLOG)),
    ("encrypt", Refused(NO_GOSSIP_KEY)),
    ("encrypt_verify_incoming", Refused(NO_GOSSIP_KEY)),
    ("encrypt_verify_outgoing", Refused(NO_GOSSIP_KEY)),
    ("experiments", Ignored),
    ("gossip_lan", Stanza(GOSSIP)),
    ("gossip_wan", Stanza(GOSSIP)),
    (
        "http_config",
        Stanza(&[
            ("allow_write_http_from", Refused(NO_ENDPOINT_RULES)),
            ("block_endpoints", Refused(NO_ENDPOINT_RULES)),
            ("max_header_bytes", Ignored),
            ("response_headers", Honoured),
            ("use_cache", Ignored),
        ]),
    ),
    ("key_file", Honoured),
    ("leave_on_terminate", Honoured),
    ("license_path", Ignored),
    ("limits", Stanza(LIMITS)),
    ("locality", Stanza(&[("region", Ignored), ("zone", Ignored)])),
    ("log_file", Honoured),
    ("log_format", Honoured),
    ("log_json", Honoured),
    ("log_level", Honoured),
    ("log_rotate_bytes", Ignored),
    ("log_rotate_duration", Ignored),
    ("log_rotate_max_files", Ignored),
    ("max_query_time", Ignored),
    ("node_id", Honoured),
    ("node_meta", Honoured),
    ("node_name", Honoured),
    ("non_voting_server", Refused(NO_ENTERPRISE)),
    ("partition", RefusedUnless("default", NO_ENTERPRISE)),
    ("peering", Stanza(&[("enabled", Ignored), ("test_allow_peer_registrations", Ignored)])),
    (
        "performance",
        Stanza(&[
            ("grpc_keepalive_interval", Ignored),
            ("grpc_keepalive_timeout", Ignored),
            ("leave_drain_time", Ignored),
            ("raft_multiplier", Ignored),
            ("rpc_hold_timeout", Honoured),
        ]),
    ),
    ("pid_file", Honoured),
    ("ports", Stanza(PORTS)),
    ("primary_datacenter", Honoured),
    ("primary_gateways", Refused(NO_WAN)),
    ("primary_gateways_interval", Ignored),
    ("protocol", Ignored),
    ("raft_logstore", Stanza(RAFT_LOGSTORE)),
    ("raft_protocol", Ignored),
    ("raft_snapshot_interval", Ignored),
    ("raft_snapshot_threshold", Honoured),
    ("raft_trailing_logs", Honoured),
    ("read_replica", Refused(NO_ENTERPRISE)),
    ("reconnect_timeout", Ignored),
    ("reconnect_timeout_wan", Ignored),
    ("recursors", Refused(NO_RECURSION)),
    ("rejoin_after_leave", Ignored),
    ("reporting", Stanza(&[("license", Stanza(&[("enabled", Ignored)]))])),
    ("retry_interval", Ignored),
    ("retry_interval_wan", Ignored),
    ("retry_join", Honoured),
    ("retry_join_wan", Refused(NO_WAN)),
    ("retry_max", Ignored),
    ("retry_max_wan", Ignored),
    ("rpc", Stanza(&[("enable_streaming", Ignored)])),
    ("segment", Refused(NO_ENTERPRISE)),
    ("segments", Refused(NO_ENTERPRISE)),
    ("serf_lan", Honoured),
    ("serf_lan_allowed_cidrs", Refused("Quorate admits peers from every address")),
    ("serf_wan", Ignored),
    ("serf_wan_allowed_cidrs", Refused("Quorate admits peers from every address")),
    ("server", Honoured),
    ("server_name", Ignored),
    ("server_rejoin_age_max", Ignored),
    ("service", Honoured),
    ("services", Honoured),
    ("session_ttl_min", Honoured),
    ("skip_leave_on_interrupt", Honoured),
    ("snapshot_agent", Ignored),
    ("start_join", Honoured),
    ("start_join_wan", Refused(NO_WAN)),
    ("syslog_facility", Ignored),
    ("tagged_addresses", Honoured),
    ("telemetry", Stanza(TELEMETRY)),
    (
        "tls",
        Stanza(&[
            ("defaults", Stanza(TLS_GROUP)),
            ("internal_rpc", Stanza(TLS_GROUP)),
            ("https", Stanza(TLS_GROUP)),
            ("grpc", Stanza(TLS_GRPC)),
        ]),
    ),
    ("tls_cipher_suites", Refused(NO_TLS_CHOICE)),
    ("tls_min_version", Refused(NO_TLS_CHOICE)),
    ("tls_prefer_server_cipher_suites", Ignored),
    ("translate_wan_addrs", Ignored),
    ("ui", Ignored),
    ("ui_config", Stanza(UI_CONFIG)),
    ("ui_content_path", Ignored),
    ("ui_dir", Ignored),
    // Quorate's own.
    ("ui_host", Honoured),
    ("insecure_rpc", Honoured),
    (
        "unix_sockets",
        Stanza(&[
            ("mode", Honoured),
            ("user", Refused("Quorate does not change the owner of its sockets")),
            ("group", Refused("Quorate does not change the group of its sockets")),
        ]),
    ),
    ("use_streaming_backend", Ignored),
    ("verify_incoming", Honoured),
    ("verify_incoming_https", Honoured),
    ("verify_incoming_rpc", Honoured),
    ("verify_outgoing", Honoured),
    ("verify_server_hostname", Honoured),
    ("watches", Refused(NO_HANDLERS)),
    // Quorate's own.
    ("worker_key_file", Honoured),
    ("xds", Stanza(&[("update_max_per_second", Ignored)])),
];

/// What was found in a configuration beside what it honours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Keys that change nothing here, as paths such as `performance.raft_multiplier`.
    pub(super) ignored: BTreeSet<String>,
    /// A sentence for each key that asks for what Quorate does not have.
    pub(super) refused: Vec<String>,
}

/// Leaves only what [`settings`](super::settings) reads in an object, with its keys in lower case (Consul
/// takes them in any); `origin` says where the object comes from.
pub(super) fn sift(object: Map<String, Value>, origin: &str, findings: &mut Findings) -> Value {
    Sieve { origin, findings }.object(object, KEYS, "")
}

struct Sieve<'a> {
    origin: &'a str,
    findings: &'a mut Findings,
}

impl Sieve<'_> {
    fn object(&mut self, object: Map<String, Value>, keys: &[Key], prefix: &str) -> Value {
        let mut kept = Map::new();
        for (name, value) in object {
            let name = name.to_ascii_lowercase();
            let path = format!("{prefix}{name}");
            // `//` and `_comment` are how people write comments in JSON, and Consul refuses them too.
            let Some((_, rule)) = keys.iter().find(|(known, _)| *known == name) else {
                self.refuse(&path, "Consul has no such key");
                continue;
            };
            if let Some(value) = self.judge(&path, *rule, value) {
                kept.insert(name, value);
            }
        }
        Value::Object(kept)
    }

    fn judge(&mut self, path: &str, rule: Rule, value: Value) -> Option<Value> {
        match rule {
            Honoured => return Some(value),
            Stanza(keys) => return self.stanza(path, keys, value),
            Ignored => {
                self.findings.ignored.insert(path.to_owned());
            }
            Refused(_) | RefusedUnless(..) if is_off(&value) => {}
            RefusedUnless(harmless, _) if value == harmless => {}
            Refused(why) | RefusedUnless(_, why) => self.refuse(path, why),
        }
        None
    }

    /// An object; HCL's blocks are lists of them.
    fn stanza(&mut self, path: &str, keys: &[Key], value: Value) -> Option<Value> {
        let blocks = match value {
            Value::Null => return None,
            Value::Array(blocks) => blocks,
            block => vec![block],
        };
        let mut all = Value::Object(Map::new());
        for block in blocks {
            let Value::Object(block) = block else {
                self.refuse(path, "an object is expected");
                return None;
            };
            let kept = self.object(block, keys, &format!("{path}."));
            super::merge::merge(&mut all, kept);
        }
        // Nothing is left of a stanza that only has members without meaning here.
        Some(all).filter(|all| !is_off(all))
    }

    fn refuse(&mut self, path: &str, why: &str) {
        self.findings.refused.push(format!("{}: {path}: {why}", self.origin));
    }
}

/// Whether a value asks for nothing: `false`, nothing, or for a port or a rate 0 and less.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64().is_some_and(|number| number <= 0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sifted(value: Value) -> (Value, Findings) {
        let Value::Object(object) = value else { panic!("{value}") };
        let mut findings = Findings::default();
        let kept = sift(object, "a.json", &mut findings);
        (kept, findings)
    }

    #[test]
    fn every_key_stands_once_and_in_lower_case() {
        fn look(keys: &[Key], path: &str) {
            let mut names: Vec<_> = keys.iter().map(|(name, _)| *name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), keys.len(), "{path}");
            for (name, rule) in keys {
                assert_eq!(name.to_ascii_lowercase(), *name);
                if let Stanza(inner) = rule {
                    look(inner, &format!("{path}{name}."));
                }
            }
        }
        look(KEYS, "");
    }

    #[test]
    fn what_asks_for_protection_is_refused_with_the_keys_name() {
        for (value, path) in [
            (json!({"acl": {"enable_token_replication": true}}), "acl.enable_token_replication"),
            (json!({"ACL": {"Enable_Token_Replication": "true"}}), "acl.enable_token_replication"),
            (json!({"acl": [{"enable_token_replication": true}]}), "acl.enable_token_replication"),
            (json!({"acl_enable_key_list_policy": true}), "acl_enable_key_list_policy"),
            (json!({"acl_default_policy": "deny"}), "acl_default_policy"),
            (json!({"acl_datacenter": "dc1"}), "acl_datacenter"),
            (json!({"encrypt": "pUqJrVyVRj5jsiYEkM/tFQ=="}), "encrypt"),
            (json!({"ca_path": "/no/such"}), "ca_path"),
            (json!({"tls_min_version": "tls10"}), "tls_min_version"),
            (json!({"tls": {"https": {"ca_path": "x"}}}), "tls.https.ca_path"),
            (
                json!({"http_config": {"block_endpoints": ["/v1/kv"]}}),
                "http_config.block_endpoints",
            ),
            (
                json!({"http_config": {"allow_write_http_from": ["127.0.0.0/8"]}}),
                "http_config.allow_write_http_from",
            ),
            (json!({"ports": {"grpc_tls": 8503}}), "ports.grpc_tls"),
            (json!({"auto_encrypt": {"allow_tls": true}}), "auto_encrypt.allow_tls"),
            (json!({"limits": {"rpc_rate": 100}}), "limits.rpc_rate"),
            (json!({"serf_lan_allowed_cidrs": ["10.0.0.0/8"]}), "serf_lan_allowed_cidrs"),
            (json!({"acl": {"enabld": true}}), "acl.enabld"),
            (json!({"telemetry": {"nope": 1}}), "telemetry.nope"),
            (json!({"enrypt": ""}), "enrypt"),
            (json!({"acl": true}), "acl"),
        ] {
            let (_, findings) = sifted(value.clone());
            assert_eq!(findings.refused.len(), 1, "{value}: {findings:?}");
            let expected = format!("a.json: {path}: ");
            assert!(findings.refused[0].starts_with(&expected), "{findings:?}");
        }
    }

    #[test]
    fn what_turns_protection_off_is_no_matter() {
        let (kept, findings) = sifted(json!({
            "acl": {"enable_token_replication": false}, "acl_default_policy": "allow", "encrypt": "",
            "ports": {"grpc_tls": -1, "http": 1}, "ca_path": null,
            "http_config": {"block_endpoints": []}, "default_intention_policy": "allow",
            "limits": {"rpc_rate": -1, "request_limits": {"mode": "disabled"}},
        }));
        assert_eq!(findings, Findings::default());
        assert_eq!(kept["ports"], json!({"http": 1}));
    }

    #[test]
    fn what_changes_nothing_is_listed() {
        let (kept, findings) = sifted(json!({
            "Performance": {"raft_multiplier": 1}, "ui": true, "node_name": "x",
            "ports": [{"grpc": 8502}, {"http": 1}],
        }));
        assert_eq!(kept, json!({"node_name": "x", "ports": {"http": 1}}));
        let ignored: Vec<_> = findings.ignored.iter().map(String::as_str).collect();
        assert_eq!(ignored, ["performance.raft_multiplier", "ports.grpc", "ui"]);
        assert!(findings.refused.is_empty());
    }
}
