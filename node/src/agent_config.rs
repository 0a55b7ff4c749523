//! `quorate agent`: a server set up the way a Consul agent is, with Consul's flags and JSON files.
//!
//! Test suites and habits start `consul agent -config-file FILE.json`; the same file starts a server
//! here. Keys that mean nothing to Quorate are ignored, each with a warning in the log. Flags win over
//! files, later files over earlier ones; definitions of services and checks add up.
//!
//! Consul has no Raft ids. A server's id is made from its `node_id`, or its name, so a file that says
//! the same starts the same server again.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::config::{ConfigError, ServerArgs, ServerConfig};
use crate::definitions;

/// Port of the RPC listener when nothing is said, as Consul's `ports.server`.
const RPC_PORT: u16 = 8300;
/// Raft ids fit into what JavaScript can count to.
const NODE_ID_MASK: u64 = (1 << 53) - 1;

/// Flags of `quorate agent`: Consul's names, with one dash or two.
#[derive(Debug, Clone, Default, Args)]
pub struct AgentArgs {
    /// JSON file with Consul's keys; may be given several times
    #[arg(long, value_name = "FILE")]
    pub config_file: Vec<PathBuf>,
    /// Directory whose *.json files are read in the order of their names; may be given several times
    #[arg(long, value_name = "DIR")]
    pub config_dir: Vec<PathBuf>,
    /// A single throw-away server with its data in a temporary directory
    #[arg(long)]
    pub dev: bool,
    /// Accepted: this is always a server
    #[arg(long)]
    pub server: bool,
    /// Found a cluster of one
    #[arg(long)]
    pub bootstrap: bool,
    /// How many servers found a new cluster together
    #[arg(long, value_name = "N")]
    pub bootstrap_expect: Option<usize>,
    /// Name of this server, and of its host's agent
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Where the log and the snapshots are kept
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Name of the datacenter
    #[arg(long)]
    pub datacenter: Option<String>,
    /// Address for other servers
    #[arg(long, value_name = "IP")]
    pub bind: Option<String>,
    /// Address for clients
    #[arg(long, value_name = "IP")]
    pub client: Option<String>,
    /// Port for clients
    #[arg(long, value_name = "PORT")]
    pub http_port: Option<i32>,
    /// Port for other servers
    #[arg(long, value_name = "PORT")]
    pub server_port: Option<i32>,
    /// Port for DNS
    #[arg(long, value_name = "PORT", allow_hyphen_values = true)]
    pub dns_port: Option<i32>,
    /// RPC addresses of other servers, IP or IP:PORT
    #[arg(long, value_name = "ADDRESS")]
    pub retry_join: Vec<String>,
    /// The same
    #[arg(long, value_name = "ADDRESS")]
    pub join: Vec<String>,
    /// trace, debug, info, warn or err
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// Consul's keys that mean something here.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct File {
    node_name: Option<String>,
    node_id: Option<String>,
    datacenter: Option<String>,
    data_dir: Option<PathBuf>,
    bind_addr: Option<String>,
    advertise_addr: Option<String>,
    client_addr: Option<String>,
    addresses: Addresses,
    ports: Ports,
    bootstrap: Option<bool>,
    bootstrap_expect: Option<usize>,
    retry_join: Vec<String>,
    start_join: Vec<String>,
    server: Option<bool>,
    log_level: Option<String>,
    http_config: HttpConfig,
    service: Option<Value>,
    services: Vec<Value>,
    check: Option<Value>,
    checks: Vec<Value>,
}

/// The keys of [`File`], in their order.
const KEYS: [&str; 20] = [
    "node_name",
    "node_id",
    "datacenter",
    "data_dir",
    "bind_addr",
    "advertise_addr",
    "client_addr",
    "addresses",
    "ports",
    "bootstrap",
    "bootstrap_expect",
    "retry_join",
    "start_join",
    "server",
    "log_level",
    "http_config",
    "service",
    "services",
    "check",
    "checks",
];

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Addresses {
    http: Option<String>,
    dns: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Ports {
    http: Option<i32>,
    dns: Option<i32>,
    server: Option<i32>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct HttpConfig {
    response_headers: BTreeMap<String, String>,
}

/// Everything that flags and files come to.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    /// The server's own settings. Without a data directory they are for a throw-away server.
    pub server: ServerArgs,
    /// The least important line of the log, in the words of `tracing`.
    pub log_level: &'static str,
    /// Headers for every answer.
    pub response_headers: HeaderMap,
    /// Where definitions of services and checks are.
    pub sources: Sources,
    /// What is to be said in the log once there is one.
    pub warnings: Vec<String>,
}

/// The files of an agent, which can be read again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    files: Vec<PathBuf>,
    directories: Vec<PathBuf>,
}

/// Services and checks that files define, as they were written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Defined {
    /// Bodies of `agent/service/register`.
    pub services: Vec<Value>,
    /// Bodies of `agent/check/register`.
    pub checks: Vec<Value>,
}

impl AgentArgs {
    /// Reads the files, and checks everything but what [`ServerArgs::resolve`] checks.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn resolve(self) -> Result<AgentSettings, ConfigError> {
        let sources =
            Sources { files: self.config_file.clone(), directories: self.config_dir.clone() };
        let (file, warnings) = sources.read()?;
        if file.server == Some(false) {
            return invalid("server: false: Quorate has no client agents, clients ask any server");
        }
        definitions::judge(&sources.defined()?).map_err(ConfigError::Invalid)?;
        let log_level = log_level(self.log_level.as_deref().or(file.log_level.as_deref()))?;
        let response_headers = headers(&file.http_config.response_headers)?;
        let server = self.over(file)?;
        Ok(AgentSettings { server, log_level, response_headers, sources, warnings })
    }

    fn over(self, file: File) -> Result<ServerArgs, ConfigError> {
        let name = self.node.or(file.node_name).unwrap_or_else(host_name);
        let bind = self.bind.or(file.advertise_addr).or(file.bind_addr);
        let client = self.client.or(file.client_addr);
        let http = file.addresses.http.or_else(|| client.clone());
        let dns = file.addresses.dns.or(client);
        let expect = self.bootstrap_expect.or(file.bootstrap_expect);
        let alone = self.dev || self.bootstrap || file.bootstrap == Some(true);
        let rpc_port = port("server", self.server_port.or(file.ports.server), RPC_PORT)?;
        let others = [self.retry_join, self.join, file.retry_join, file.start_join];
        let join: Result<Vec<_>, _> = others.concat().iter().map(|at| peer(at)).collect();
        let data_dir = self.data_dir.or(file.data_dir);
        if data_dir.is_none() && !self.dev {
            return invalid("data_dir cannot be empty");
        }
        let dns_port = self.dns_port.or(file.ports.dns).filter(|port| *port >= 0);
        Ok(ServerArgs {
            node_id: Some(raft_id(file.node_id.as_deref().unwrap_or(&name))),
            agent_name: Some(name.clone()),
            name: Some(name),
            data_dir: data_dir.filter(|_| !self.dev),
            http_addr: Some(SocketAddr::new(
                address("client_addr", http.as_deref())?,
                port("http", self.http_port.or(file.ports.http), 8500)?,
            )),
            rpc_addr: Some(SocketAddr::new(address("bind_addr", bind.as_deref())?, rpc_port)),
            dns_addr: Some(SocketAddr::new(
                address("addresses.dns", dns.as_deref())?,
                port("dns", dns_port, 8600)?,
            )),
            bootstrap_expect: if alone { Some(1) } else { expect },
            join: join?,
            datacenter: self.datacenter.or(file.datacenter),
            ..ServerArgs::default()
        })
    }
}

impl AgentSettings {
    /// The complete settings of the server; `temporary` is where a throw-away server keeps its data.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn server_config(&self, temporary: Option<&Path>) -> Result<ServerConfig, ConfigError> {
        let mut server = self.server.clone();
        server.data_dir = server.data_dir.or_else(|| temporary.map(|path| path.join("data")));
        server.resolve()
    }
}

impl Sources {
    /// Whether there is nothing to read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.directories.is_empty()
    }

    /// Reads what the files define now.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn defined(&self) -> Result<Defined, ConfigError> {
        let (file, _) = self.read()?;
        let services = file.service.into_iter().chain(file.services).map(named_check_ids);
        Ok(Defined {
            services: services.collect(),
            checks: file.check.into_iter().chain(file.checks).collect(),
        })
    }

    /// All files as one, and a warning for each key that means nothing here.
    fn read(&self) -> Result<(File, Vec<String>), ConfigError> {
        let mut all = Map::new();
        let mut warnings = Vec::new();
        for path in self.paths()? {
            let object = read_object(&path)?;
            for (key, value) in object {
                if KEYS.contains(&key.as_str()) {
                    merge(&mut all, key, value);
                } else {
                    warnings.push(format!("{}: key {key:?} is ignored", path.display()));
                }
            }
        }
        if all.contains_key("node_id") {
            warnings.push("node_id names the server, the id of its node is made from it".into());
        }
        let file = serde_json::from_value(Value::Object(all));
        let file = file.map_err(|error| ConfigError::Invalid(format!("configuration: {error}")))?;
        Ok((file, warnings))
    }

    fn paths(&self) -> Result<Vec<PathBuf>, ConfigError> {
        let mut paths = self.files.clone();
        for directory in &self.directories {
            let unreadable = |source| ConfigError::Unreadable { path: directory.clone(), source };
            let mut found = Vec::new();
            for entry in std::fs::read_dir(directory).map_err(unreadable)? {
                let path = entry.map_err(unreadable)?.path();
                if path.extension().is_some_and(|extension| extension == "json") {
                    found.push(path);
                }
            }
            found.sort();
            paths.extend(found);
        }
        Ok(paths)
    }
}

fn read_object(path: &Path) -> Result<Map<String, Value>, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    serde_json::from_str(&text)
        .map_err(|error| ConfigError::Invalid(format!("{}: {error}", path.display())))
}

/// Adds what a file says to what earlier ones said: lists and definitions add up, objects merge, the
/// rest is replaced.
fn merge(all: &mut Map<String, Value>, key: String, value: Value) {
    let (key, value) = match (key.as_str(), value) {
        ("service" | "check", value @ Value::Object(_)) => {
            (format!("{key}s"), Value::Array(vec![value]))
        }
        (_, Value::Null) => return,
        (_, value) => (key, value),
    };
    match (all.get_mut(&key), value) {
        (Some(Value::Array(before)), Value::Array(more)) => before.extend(more),
        (Some(Value::Object(before)), Value::Object(more)) => before.extend(more),
        (_, value) => {
            all.insert(key, value);
        }
    }
}

/// In a file, a service's check may call its id `id`; in the API it is `CheckID`.
fn named_check_ids(mut service: Value) -> Value {
    let rename = |check: &mut Value| {
        if let Value::Object(check) = check
            && let Some(id) = check.remove("id").or_else(|| check.remove("ID"))
        {
            check.entry("CheckID").or_insert(id);
        }
    };
    if let Value::Object(service) = &mut service {
        for (name, value) in service.iter_mut() {
            match name.to_ascii_lowercase().as_str() {
                "check" => rename(value),
                "checks" => value.as_array_mut().into_iter().flatten().for_each(rename),
                _ => {}
            }
        }
    }
    service
}

/// Consul's words for levels.
fn log_level(given: Option<&str>) -> Result<&'static str, ConfigError> {
    match given.unwrap_or("info").to_ascii_lowercase().as_str() {
        "trace" => Ok("trace"),
        "debug" => Ok("debug"),
        "info" => Ok("info"),
        "warn" => Ok("warn"),
        "err" | "error" => Ok("error"),
        other => invalid(&format!("log_level {other:?}: trace, debug, info, warn or err")),
    }
}

fn headers(given: &BTreeMap<String, String>) -> Result<HeaderMap, ConfigError> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let wrong = || ConfigError::Invalid(format!("response_headers: {name}: {value}"));
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        headers.insert(header, HeaderValue::from_str(value).map_err(|_| wrong())?);
    }
    Ok(headers)
}

/// An IP address; loopback if nothing is said. Consul takes a list here, of which the first counts.
fn address(key: &str, given: Option<&str>) -> Result<IpAddr, ConfigError> {
    let Some(text) = given.and_then(|list| list.split_whitespace().next()) else {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    };
    text.parse().map_err(|_| ConfigError::Invalid(format!("{key} {text:?}: an IP address")))
}

fn port(key: &str, given: Option<i32>, default: u16) -> Result<u16, ConfigError> {
    let Some(given) = given else { return Ok(default) };
    u16::try_from(given).map_err(|_| {
        ConfigError::Invalid(format!("ports.{key} {given}: a server needs it, 0 to 65535"))
    })
}

/// The RPC address of another server: `IP:PORT`, or an IP with the usual port.
fn peer(text: &str) -> Result<SocketAddr, ConfigError> {
    let with_port = text.parse().ok();
    let bare = || text.parse().ok().map(|ip| SocketAddr::new(ip, RPC_PORT));
    with_port.or_else(bare).ok_or_else(|| {
        ConfigError::Invalid(format!(
            "retry_join {text:?}: IP:PORT of another server's RPC listener"
        ))
    })
}

/// A Raft id from what names a server.
fn raft_id(name: &str) -> u64 {
    let (high, low) = Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).as_u64_pair();
    ((high ^ low) & NODE_ID_MASK).max(1)
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "quorate".to_owned(),
        name => name.to_owned(),
    }
}

fn invalid<T>(text: &str) -> Result<T, ConfigError> {
    Err(ConfigError::Invalid(text.to_owned()))
}

/// Command-line arguments with two dashes before each long name, where Consul's users write one.
pub fn with_two_dashes(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let is_long = |text: &str| {
        text.strip_prefix('-').is_some_and(|name| {
            name.len() > 1 && name.starts_with(|first: char| first.is_ascii_lowercase())
        })
    };
    arguments.map(|text| if is_long(&text) { format!("-{text}") } else { text }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(file: &Value, more: impl FnOnce(&mut AgentArgs)) -> Result<AgentSettings, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        std::fs::write(&path, file.to_string()).unwrap();
        let mut args = AgentArgs { config_file: vec![path], ..AgentArgs::default() };
        more(&mut args);
        args.resolve().map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_of_consuls_test_suite_makes_a_server() {
        let file = json!({
            "node_name": "node-1", "node_id": "6b1f3c1e-94a5-4ab1-a7f6-7c6dbb1f4c11",
            "datacenter": "dc7", "data_dir": "/x", "bind_addr": "127.0.0.1", "bootstrap": true,
            "server": true, "log_level": "debug", "performance": {"raft_multiplier": 1},
            "ports": {"http": 1234, "dns": -1, "server": 1235, "serf_lan": 1236},
            "http_config": {"response_headers": {"Access-Control-Allow-Origin": "*"}},
        });
        let settings = settings(&file, |_| {}).unwrap();
        let config = settings.server_config(None).unwrap();
        assert_eq!((config.name.as_str(), config.agent_name.as_str()), ("node-1", "node-1"));
        assert_eq!(config.http_addr.to_string(), "127.0.0.1:1234");
        assert_eq!(config.rpc_addr.to_string(), "127.0.0.1:1235");
        assert_eq!((config.bootstrap_expect, config.datacenter.as_str()), (1, "dc7"));
        assert_eq!(settings.log_level, "debug");
        assert_eq!(settings.response_headers["access-control-allow-origin"], "*");
        assert!(settings.warnings.iter().any(|text| text.contains("\"performance\" is ignored")));
    }

    #[test]
    fn flags_win_over_files_and_nonsense_is_named() {
        let file = json!({"node_name": "file", "data_dir": "/x", "retry_join": ["10.0.0.2"]});
        let resolved = settings(&file, |args| args.node = Some("flag".into())).unwrap();
        let config = resolved.server_config(None).unwrap();
        assert_eq!((config.name.as_str(), config.bootstrap_expect), ("flag", 0));
        assert_eq!(config.join[0].to_string(), "10.0.0.2:8300");
        for (file, words) in [
            (json!({"node_name": "x"}), "data_dir cannot be empty"),
            (json!({"data_dir": "/x", "server": false}), "no client agents"),
            (json!({"data_dir": "/x", "ports": {"http": -1}}), "ports.http"),
            (json!({"data_dir": "/x", "bind_addr": "eth0"}), "bind_addr"),
            (json!({"data_dir": "/x", "log_level": "loud"}), "log_level"),
            (json!({"data_dir": "/x", "bootstrap": "yes"}), "configuration"),
        ] {
            let error = settings(&file, |_| {}).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn definitions_of_all_files_add_up() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, file: Value| {
            std::fs::write(directory.path().join(name), file.to_string()).unwrap();
        };
        write("b.json", json!({"service": {"name": "b", "check": {"id": "c", "ttl": "1s"}}}));
        write("a.json", json!({"services": [{"name": "a"}], "check": {"name": "x", "ttl": "1s"}}));
        write("ignored.txt", json!({"service": {"name": "no"}}));
        let directories = vec![directory.path().to_owned()];
        let sources = Sources { directories, ..Sources::default() };
        let Defined { services, checks } = sources.defined().unwrap();
        assert_eq!(services[0], json!({"name": "a"}));
        assert_eq!(services[1]["check"], json!({"CheckID": "c", "ttl": "1s"}));
        assert_eq!(checks.len(), 1);
    }

    #[test]
    fn one_dash_is_as_good_as_two() {
        let given = ["quorate", "agent", "-config-file=x", "--dev", "-h", "-dns-port", "-1"];
        let fixed = with_two_dashes(given.into_iter().map(str::to_owned));
        assert_eq!(fixed[2..], ["--config-file=x", "--dev", "-h", "--dns-port", "-1"]);
    }
}
