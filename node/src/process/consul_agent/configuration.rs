//! The keys of Consul's configuration that mean something here, and what they say of node, services and log.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use uuid::Uuid;

use super::address;
use super::definitions::{self, Defined};
use super::tls::{Group, Tls};
use crate::host::logging::LogFormat;
use crate::http::definition::Description;
use crate::http::definition::check_meta;
use crate::process::config::ConfigError;

/// Consul's keys that mean something here. Keys that do not have been sifted out.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Configuration {
    pub(super) acl: Acl,
    pub(super) addresses: Addresses,
    pub(super) advertise_addr: Option<String>,
    pub(super) advertise_addr_ipv4: Option<String>,
    pub(super) advertise_addr_ipv6: Option<String>,
    pub(super) advertise_addr_wan: Option<String>,
    pub(super) advertise_addr_wan_ipv4: Option<String>,
    pub(super) advertise_addr_wan_ipv6: Option<String>,
    pub(super) alt_domain: Option<String>,
    pub(super) bind_addr: Option<String>,
    pub(super) bootstrap: Option<bool>,
    pub(super) bootstrap_expect: Option<usize>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) cert_file: Option<PathBuf>,
    #[serde(deserialize_with = "one_or_many")]
    pub(super) check: Vec<Value>,
    pub(super) check_output_max_size: Option<usize>,
    #[serde(deserialize_with = "one_or_many")]
    pub(super) checks: Vec<Value>,
    pub(super) client_addr: Option<String>,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) datacenter: Option<String>,
    pub(super) discard_check_output: Option<bool>,
    pub(super) dns_config: DnsConfig,
    pub(super) domain: Option<String>,
    pub(super) http_config: HttpConfig,
    pub(super) insecure_rpc: Option<bool>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) leave_on_terminate: Option<bool>,
    pub(super) limits: Limits,
    pub(super) log_file: Option<PathBuf>,
    pub(super) log_format: Option<LogFormat>,
    pub(super) log_json: Option<bool>,
    pub(super) log_level: Option<String>,
    pub(super) node_id: Option<String>,
    #[serde(deserialize_with = "texts")]
    pub(super) node_meta: BTreeMap<String, String>,
    pub(super) node_name: Option<String>,
    pub(super) performance: Performance,
    pub(super) pid_file: Option<PathBuf>,
    pub(super) ports: Ports,
    pub(super) primary_datacenter: Option<String>,
    pub(super) raft_snapshot_threshold: Option<u64>,
    pub(super) raft_trailing_logs: Option<u64>,
    #[serde(deserialize_with = "one_or_many")]
    pub(super) retry_join: Vec<String>,
    pub(super) serf_lan: Option<String>,
    pub(super) server: Option<bool>,
    #[serde(deserialize_with = "one_or_many")]
    pub(super) service: Vec<Value>,
    #[serde(deserialize_with = "one_or_many")]
    pub(super) services: Vec<Value>,
    pub(super) session_ttl_min: Option<String>,
    pub(super) skip_leave_on_interrupt: Option<bool>,
    #[serde(deserialize_with = "one_or_many")]
    pub(super) start_join: Vec<String>,
    #[serde(deserialize_with = "texts")]
    pub(super) tagged_addresses: BTreeMap<String, String>,
    pub(super) tls: Tls,
    #[serde(deserialize_with = "one_or_many")]
    pub(super) ui_host: Vec<String>,
    pub(super) unix_sockets: UnixSockets,
    pub(super) verify_incoming: Option<bool>,
    pub(super) verify_incoming_https: Option<bool>,
    pub(super) verify_incoming_rpc: Option<bool>,
    pub(super) verify_outgoing: Option<bool>,
    pub(super) verify_server_hostname: Option<bool>,
    pub(super) worker_key_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Acl {
    pub(super) default_policy: Option<String>,
    pub(super) enable_key_list_policy: Option<bool>,
    pub(super) enabled: Option<bool>,
    pub(super) tokens: AgentTokens,
}

/// Secrets of tokens, which are not shown in logs.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentTokens {
    /// For what the agent asks for itself.
    pub agent: Option<String>,
    /// For its clients' requests that have none, and for its own without the other one. At a server, for DNS too.
    pub default: Option<String>,
    /// Of a management token that a server makes.
    pub initial_management: Option<String>,
    /// What that was called before.
    pub master: Option<String>,
}

impl std::fmt::Debug for AgentTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AgentTokens(..)")
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Addresses {
    pub(super) http: Option<String>,
    pub(super) https: Option<String>,
    pub(super) dns: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Ports {
    pub(super) http: Option<i32>,
    pub(super) https: Option<i32>,
    pub(super) dns: Option<i32>,
    pub(super) server: Option<i32>,
    pub(super) serf_lan: Option<i32>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct DnsConfig {
    pub(super) a_record_limit: Option<usize>,
    pub(super) allow_stale: Option<bool>,
    pub(super) enable_additional_node_meta_txt: Option<bool>,
    pub(super) enable_truncate: Option<bool>,
    pub(super) max_stale: Option<String>,
    pub(super) node_ttl: Option<String>,
    pub(super) only_passing: Option<bool>,
    #[serde(deserialize_with = "texts")]
    pub(super) service_ttl: BTreeMap<String, String>,
    pub(super) soa: Soa,
    pub(super) udp_answer_limit: Option<usize>,
}

/// In seconds.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Soa {
    pub(super) refresh: Option<u32>,
    pub(super) retry: Option<u32>,
    pub(super) expire: Option<u32>,
    pub(super) min_ttl: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HttpConfig {
    #[serde(deserialize_with = "texts")]
    pub(super) response_headers: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) http_max_conns_per_client: Option<i64>,
    pub(super) kv_max_value_size: Option<usize>,
    pub(super) txn_max_req_len: Option<usize>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Performance {
    pub(super) rpc_hold_timeout: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct UnixSockets {
    pub(super) mode: Option<String>,
}

impl Configuration {
    /// The first key in an object whose value cannot be read, as a path, and why: without it an error would name
    /// no key.
    pub(super) fn fault(object: &Value) -> Option<String> {
        let given = object.as_object()?.iter().filter(|(_, value)| !value.is_null());
        given.into_iter().find_map(|(key, value)| {
            let error = serde_json::from_value::<Self>(json!({key: value})).err()?;
            let mut members = value.as_object().into_iter().flatten();
            let inner = members.find_map(|(member, value)| {
                let error = serde_json::from_value::<Self>(json!({key: {member: value}})).err()?;
                Some(format!("{key}.{member}: {error}"))
            });
            Some(inner.unwrap_or_else(|| format!("{key}: {error}")))
        })
    }

    /// The services and checks in it.
    pub(super) fn defined(&self) -> Defined {
        let services = self.service.iter().chain(&self.services).cloned();
        Defined {
            services: services.map(definitions::normal_service).collect(),
            checks: self.check.iter().chain(&self.checks).cloned().collect(),
        }
    }

    /// What it says of the agent's node.
    pub(super) fn description(&self) -> Result<Description, ConfigError> {
        let id = self.node_id.as_deref().filter(|id| !id.is_empty());
        let id = id.map(|id| {
            Uuid::try_parse(id).map_err(|error| about("node_id", &format!("{id:?}: {error}")))
        });
        let mut tagged = self.tagged_addresses.clone();
        for (name, address) in [
            ("wan", &self.advertise_addr_wan),
            ("wan_ipv4", &self.advertise_addr_wan_ipv4),
            ("wan_ipv6", &self.advertise_addr_wan_ipv6),
        ] {
            let Some(text) = address.as_ref().filter(|text| !text.is_empty()) else { continue };
            let ip = address::ip(text, &address::interfaces());
            let ip = ip.map_err(|why| about("advertise_addr_wan", &why))?;
            tagged.insert(name.to_owned(), ip.to_string());
            if name == "wan" {
                let family = if ip.is_ipv4() { "wan_ipv4" } else { "wan_ipv6" };
                tagged.entry(family.to_owned()).or_insert_with(|| ip.to_string());
            }
        }
        check_meta(&self.node_meta).map_err(|why| about("node_meta", &why))?;
        Ok(Description {
            id: id.transpose()?.map(|id| id.to_string()),
            tagged_addresses: Some(tagged).filter(|tagged| !tagged.is_empty()),
            meta: Some(self.node_meta.clone()).filter(|meta| !meta.is_empty()),
        })
    }

    /// The least important line of the log.
    pub(super) fn log_level(&self) -> Result<&'static str, ConfigError> {
        log_level(self.log_level.as_deref())
    }

    /// What it says of TLS at the port of servers.
    pub(super) fn tls_of_servers(&self) -> Group {
        let older = Group { verify_incoming: self.verify_incoming_rpc, ..self.older_tls() };
        self.tls.internal_rpc.or(&self.tls.defaults).or(&older).or(&self.older_tls())
    }

    /// What it says of TLS at the port of clients.
    pub(super) fn tls_of_clients(&self) -> Group {
        let older = Group { verify_incoming: self.verify_incoming_https, ..self.older_tls() };
        self.tls.https.or(&self.tls.defaults).or(&older).or(&self.older_tls())
    }

    /// What keys at the top say of all ports.
    fn older_tls(&self) -> Group {
        Group {
            ca_file: self.ca_file.clone(),
            cert_file: self.cert_file.clone(),
            key_file: self.key_file.clone(),
            verify_incoming: self.verify_incoming,
            verify_outgoing: self.verify_outgoing,
            verify_server_hostname: self.verify_server_hostname,
        }
    }

    /// Other servers, as they were named.
    pub(super) fn others(&self) -> impl Iterator<Item = &String> {
        self.retry_join.iter().chain(&self.start_join)
    }
}

/// A list, of which HCL and careless JSON write the only element alone.
fn one_or_many<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    let elements = match Value::deserialize(deserializer)? {
        Value::Array(list) => list,
        Value::Null => Vec::new(),
        one => vec![one],
    };
    let read = |element| serde_json::from_value(element).map_err(serde::de::Error::custom);
    elements.into_iter().map(read).collect()
}

/// Texts by name; HCL's blocks are lists of them.
fn texts<'de, D>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error>
where
    D: Deserializer<'de>,
{
    let blocks: Vec<BTreeMap<String, String>> = one_or_many(deserializer)?;
    Ok(blocks.into_iter().flatten().collect())
}

/// Consul's words for levels.
fn log_level(given: Option<&str>) -> Result<&'static str, ConfigError> {
    match given.unwrap_or("info").to_ascii_lowercase().as_str() {
        "trace" => Ok("trace"),
        "debug" => Ok("debug"),
        "" | "info" => Ok("info"),
        "warn" => Ok("warn"),
        "err" | "error" => Ok("error"),
        other => invalid(&format!("log_level {other:?}: trace, debug, info, warn or err")),
    }
}

pub(super) fn about(key: &str, why: &str) -> ConfigError {
    ConfigError::Invalid(format!("{key}: {why}"))
}

pub(super) fn invalid<T>(text: &str) -> Result<T, ConfigError> {
    Err(ConfigError::Invalid(text.to_owned()))
}
