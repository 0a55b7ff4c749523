//! What an agent's flags and files come to: the settings of a server.
//!
//! Consul has no Raft ids. A server's id is made from its `node_id`, or its name, so a configuration that
//! says the same starts the same server again.
//!
//! # Addresses
//!
//! `bind_addr` is where other servers are served and `advertise_addr` what they are told; the latter need
//! not be one of this machine's. With `bind_addr` 0.0.0.0 they are told its one private address. Where
//! Consul binds to all interfaces when nothing is said, Quorate binds to loopback, unless the
//! configuration speaks of servers on other machines: then to the one private address.
//!
//! Consul's configurations name other servers by their serf ports (8301). Quorate has no serf; it serves
//! the servers' protocol at that port too, so such addresses lead where they should.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use quorate_client::duration;
use uuid::Uuid;

use super::address::{self, Host, Interface};
use super::client::LeaveOn;
use super::configuration::{AgentTokens, Configuration, about, invalid};
use super::definitions;
use super::files::{Read, Sources};
use super::flags::AgentArgs;
use crate::checks::CheckOutput;
use crate::dns::settings::DnsSettings;
use crate::host::address::HostPort;
use crate::host::listen::{Listen, Listeners};
use crate::host::logging::{LogFormat, LogSettings};
use crate::http::process::ApiLimits;
use crate::process::config::{ConfigError, ServerArgs, ServerConfig};

/// Port of the RPC listener when nothing is said, as Consul's `ports.server`.
const RPC_PORT: u16 = 8300;
/// Port of Consul's serf, at which Quorate serves other servers too.
const SERF_PORT: u16 = 8301;
/// Port for clients.
const HTTP_PORT: u16 = 8500;
/// Port for DNS.
const DNS_PORT: u16 = 8600;
/// A body is not larger, whatever is configured: it goes through the log.
const BODY_BYTES_MAX: usize = 512 * 1024;
/// Sessions last a day at most.
const SESSION_TTL_MIN_MAX_NANOS: i64 = 24 * 3_600 * 1_000_000_000;
/// Raft ids fit into what JavaScript can count to.
const NODE_ID_MASK: u64 = (1 << 53) - 1;

/// Everything that flags and files come to.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    /// The server's own settings. Without a data directory they are for a throw-away server.
    pub server: ServerArgs,
    /// Where it listens.
    pub listeners: Listeners,
    /// What to log, and where.
    pub log: LogSettings,
    /// Where the process id is to be written.
    pub pid_file: Option<PathBuf>,
    /// Headers for every answer.
    pub response_headers: HeaderMap,
    /// What its API allows.
    pub limits: ApiLimits,
    /// What is kept of checks' outputs.
    pub check_output: CheckOutput,
    /// Where all this comes from.
    pub sources: Sources,
    /// What is to be said in the log once there is one.
    pub notes: Notes,
    /// Set if it is a client agent: the servers, `HOST:PORT` each.
    pub client_of: Option<Vec<String>>,
    /// The address of a client agent's node, if one is configured.
    pub advertised: Option<IpAddr>,
    /// The tokens that a client agent sends.
    pub tokens: AgentTokens,
    /// Which signals make a client agent leave.
    pub leave: LeaveOn,
    /// How DNS is served.
    pub dns: DnsSettings,
}

/// What an operator is to know about the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// Each a warning.
    pub warnings: Vec<String>,
    /// Keys that change nothing here.
    pub ignored: Vec<String>,
}

impl Notes {
    /// Writes them to the log.
    pub fn log(&self) {
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
        if !self.ignored.is_empty() {
            tracing::info!(keys = %self.ignored.join(", "), "these keys of the configuration have no effect in Quorate");
        }
    }
}

impl AgentArgs {
    /// Reads the files, and checks everything but what [`ServerArgs::resolve`] checks.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn resolve(self) -> Result<AgentSettings, ConfigError> {
        let Read { configuration, findings, skipped } = self.sources.read()?;
        definitions::judge(&configuration.defined()).map_err(ConfigError::Invalid)?;
        // Judged here, said by whoever registers it.
        configuration.description()?;
        let mut notes =
            Notes { warnings: findings.refused, ignored: findings.ignored.into_iter().collect() };
        let passed_over = |path: PathBuf| {
            format!("skipping {}: its name ends with neither .json nor .hcl", path.display())
        };
        notes.warnings.extend(skipped.into_iter().map(passed_over));
        let interfaces = address::interfaces();
        let resolver = Resolver { dev: self.dev, of: &configuration, interfaces: &interfaces };
        let rpc = resolver.rpc()?;
        let http = resolver.http()?;
        let server = resolver.server(&rpc, &http)?;
        let client_of = resolver.client_of(&rpc)?;
        if client_of.is_none() {
            if configuration.acl.tokens.agent.is_some() {
                // What its files define a server registers of its own accord.
                notes.ignored.push("acl.tokens.agent".to_owned());
            }
            // A server never leaves because it is stopped.
            let of = &configuration;
            let leaves = [
                ("leave_on_terminate", of.leave_on_terminate),
                ("skip_leave_on_interrupt", of.skip_leave_on_interrupt),
            ];
            let given = leaves.into_iter().filter(|(_, value)| value.is_some());
            notes.ignored.extend(given.map(|(key, _)| key.to_owned()));
        }
        if client_of.is_some() && configuration.speaks_of_dns() {
            let text = "domain, alt_domain, dns_config: the DNS of a client agent is answered by the servers, with their settings";
            notes.warnings.push(text.to_owned());
        }
        Ok(AgentSettings {
            server,
            listeners: Listeners {
                http,
                http_setting: "client_addr, ports.http",
                https: resolver.https()?.into_iter().map(Listen::Tcp).collect(),
                https_setting: "addresses.https, ports.https",
                rpc: resolver.rpc_listens(&rpc)?,
                rpc_setting: "bind_addr, ports.server, ports.serf_lan",
                dns: resolver.dns()?,
                dns_setting: resolver
                    .is_dns_given()
                    .then_some("client_addr, addresses.dns, ports.dns"),
            },
            log: configuration.log()?,
            pid_file: configuration.pid_file.clone(),
            response_headers: headers(&configuration.http_config.response_headers)?,
            limits: configuration.limits()?,
            check_output: configuration.check_output()?,
            dns: configuration.dns()?,
            client_of,
            advertised: resolver.advertised()?,
            tokens: configuration.acl.tokens.clone(),
            leave: LeaveOn {
                terminate: configuration.leave_on_terminate.unwrap_or(true),
                interrupt: !configuration.skip_leave_on_interrupt.unwrap_or(false),
            },
            sources: self.sources,
            notes,
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

impl Configuration {
    fn limits(&self) -> Result<ApiLimits, ConfigError> {
        let session_ttl_min = match self.session_ttl_min.as_deref() {
            None | Some("") => None,
            Some(text) => match duration::parse(text) {
                Ok(nanos @ 0..=SESSION_TTL_MIN_MAX_NANOS) => Some(nanos),
                Ok(_) => return invalid(&format!("session_ttl_min {text:?}: from 0s to 24h")),
                Err(why) => return Err(about("session_ttl_min", &why.to_string())),
            },
        };
        let bytes = |key: &str, given: Option<usize>| match given {
            Some(bytes) if bytes == 0 || bytes > BODY_BYTES_MAX => {
                invalid(&format!("limits.{key} {bytes}: from 1 to {BODY_BYTES_MAX}"))
            }
            given => Ok(given),
        };
        let connections = self.limits.http_max_conns_per_client;
        Ok(ApiLimits {
            session_ttl_min_nanos: session_ttl_min,
            value_bytes: bytes("kv_max_value_size", self.limits.kv_max_value_size)?,
            txn_bytes: bytes("txn_max_req_len", self.limits.txn_max_req_len)?,
            connections_per_client: connections.and_then(|given| usize::try_from(given).ok()),
        })
    }

    fn check_output(&self) -> Result<CheckOutput, ConfigError> {
        if self.check_output_max_size == Some(0) {
            return invalid(
                "check_output_max_size must be 1 or more; discard_check_output keeps nothing",
            );
        }
        Ok(CheckOutput {
            bytes_max: self.check_output_max_size,
            discard: self.discard_check_output.unwrap_or(false),
        })
    }

    fn log(&self) -> Result<LogSettings, ConfigError> {
        Ok(LogSettings {
            level: self.log_level()?,
            json: self.log_json.unwrap_or(false) || self.log_format == Some(LogFormat::Json),
            file: self.log_file.clone(),
        })
    }
}

/// Where other servers are served, and what they are told.
#[derive(Debug, Clone, Copy)]
struct Rpc {
    listen: IpAddr,
    advertise: IpAddr,
    port: u16,
}

/// Makes a server's settings of a configuration, on a machine with these addresses.
struct Resolver<'a> {
    dev: bool,
    of: &'a Configuration,
    interfaces: &'a [Interface],
}

impl Resolver<'_> {
    fn server(&self, rpc: &Rpc, http: &[Listen]) -> Result<ServerArgs, ConfigError> {
        let of = self.of;
        let name = of.node_name.clone().unwrap_or_else(host_name);
        if of.data_dir.is_none() && !self.dev {
            return invalid("data_dir cannot be empty: name a directory with -data-dir");
        }
        if let (Some(primary), own) = (&of.primary_datacenter, of.datacenter.as_deref())
            && !primary.is_empty()
            && !primary.eq_ignore_ascii_case(own.unwrap_or("dc1"))
        {
            return invalid("primary_datacenter: Quorate has one datacenter and does not federate");
        }
        let tcp = http.iter().find_map(Listen::tcp);
        // Of several, the one at which the others reach this machine anyway.
        let reached = http
            .iter()
            .filter_map(Listen::tcp)
            .find(|at| at.ip().is_unspecified() || at.ip() == rpc.advertise);
        let [rpc_tls_ca, rpc_tls_cert, rpc_tls_key] = of.tls_of_servers().for_servers()?;
        let (acl, acl_tokens) = self.of.acl.for_server()?;
        let https = self.https()?;
        let [https_cert, https_key, https_client_ca] = match https.is_empty() {
            false => of.tls_of_clients().for_clients()?,
            true => [None, None, None],
        };
        // A client agent serves no servers.
        let is_client = !self.dev && of.server != Some(true);
        Ok(ServerArgs {
            node_id: Some(raft_id(of.node_id.as_deref().unwrap_or(&name))),
            agent_name: Some(name.clone()),
            name: Some(name),
            data_dir: of.data_dir.clone().filter(|_| !self.dev),
            // Servers tell each other where clients are served; a socket in the file system is nowhere.
            http_addr: Some(tcp.unwrap_or((Ipv4Addr::LOCALHOST, HTTP_PORT).into()).into()),
            http_advertise: reached.map(|at| SocketAddr::new(rpc.advertise, at.port()).into()),
            ui_host: of.ui_host.clone(),
            worker_key_file: of.worker_key_file.clone(),
            rpc_addr: Some(SocketAddr::new(rpc.advertise, rpc.port).into()),
            rpc_listen_addr: Some(SocketAddr::new(rpc.listen, rpc.port).into()),
            insecure_rpc: rpc_tls_ca.is_none() && (of.insecure_rpc == Some(true) || is_client),
            rpc_tls_ca,
            rpc_tls_cert,
            rpc_tls_key,
            https_addr: https.first().map(|at| HostPort::from(*at)),
            https_cert,
            https_key,
            https_client_ca,
            bootstrap_expect: Some(self.expected()?),
            join: of.others().map(|text| peer(text, rpc.port)).collect::<Result<_, _>>()?,
            datacenter: of.datacenter.clone(),
            hold_timeout: of
                .performance
                .rpc_hold_timeout
                .as_deref()
                .map(hold_timeout)
                .transpose()?,
            raft_snapshot_threshold: of.raft_snapshot_threshold,
            raft_trailing_logs: of.raft_trailing_logs,
            acl: Some(acl),
            acl_key_list: of.acl.enable_key_list_policy == Some(true),
            acl_tokens,
            ..ServerArgs::default()
        })
    }

    /// How many servers found a cluster; 0: none, this one waits for one that it can join.
    fn expected(&self) -> Result<usize, ConfigError> {
        let founds_alone = self.of.bootstrap == Some(true);
        let expect = self.of.bootstrap_expect.unwrap_or(0);
        match self.of.server {
            Some(true) => {}
            _ if self.dev => {}
            _ if founds_alone || expect > 0 => {
                return invalid("bootstrap and bootstrap_expect need \"server\": true (-server)");
            }
            // A client agent founds nothing.
            Some(false) | None => return Ok(0),
        }
        match (self.dev || founds_alone, expect) {
            (true, 0 | 1) => Ok(1),
            (true, _) if founds_alone => invalid(
                "bootstrap founds a cluster of one, bootstrap_expect one of several: give one of them",
            ),
            (_, expect) => Ok(expect),
        }
    }

    /// The servers of a client agent; `None` for a server.
    fn client_of(&self, rpc: &Rpc) -> Result<Option<Vec<String>>, ConfigError> {
        if self.dev || self.of.server == Some(true) {
            return Ok(None);
        }
        let servers: Vec<_> =
            self.of.others().map(|text| peer(text, rpc.port)).collect::<Result<_, _>>()?;
        if servers.is_empty() {
            return invalid(NO_SERVERS);
        }
        Ok(Some(servers))
    }

    /// What `advertise_addr` says.
    fn advertise(&self) -> Result<Option<IpAddr>, ConfigError> {
        let of = self.of;
        let given = [&of.advertise_addr, &of.advertise_addr_ipv4, &of.advertise_addr_ipv6];
        let advertise = given.into_iter().find_map(Option::as_ref);
        let advertise = self.ip("advertise_addr", advertise)?;
        if advertise.is_some_and(|ip| ip.is_unspecified()) {
            return invalid("advertise_addr must be one address that other servers can reach");
        }
        Ok(advertise)
    }

    /// The address of a client agent's node; `None`: the one that the servers see.
    fn advertised(&self) -> Result<Option<IpAddr>, ConfigError> {
        let bind = self.ip("bind_addr", self.of.bind_addr.as_ref())?;
        Ok(self.advertise()?.or(bind.filter(|ip| !ip.is_unspecified())))
    }

    fn rpc(&self) -> Result<Rpc, ConfigError> {
        let of = self.of;
        let advertise = self.advertise()?;
        let listen = match (self.ip("bind_addr", of.bind_addr.as_ref())?, advertise) {
            (Some(bind), _) => bind,
            (None, Some(told)) if self.is_local(told) => told,
            (None, Some(told)) => address::unspecified_like(told),
            (None, None) if self.is_alone() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            (None, None) => self.only_private()?,
        };
        let advertise = match advertise {
            Some(told) => told,
            None if listen.is_unspecified() => self.only_private()?,
            None => listen,
        };
        Ok(Rpc { listen, advertise, port: port("server", of.ports.server, RPC_PORT)? })
    }

    /// The RPC port, and the serf port, which other servers' configurations may name.
    fn rpc_listens(&self, rpc: &Rpc) -> Result<Vec<Listen>, ConfigError> {
        let mut listens = vec![Listen::Tcp(SocketAddr::new(rpc.listen, rpc.port))];
        let serf_ip = self.ip("serf_lan", self.of.serf_lan.as_ref())?.unwrap_or(rpc.listen);
        let is_given = self.of.ports.serf_lan.is_some();
        match optional_port("serf_lan", self.of.ports.serf_lan, SERF_PORT)? {
            // Nobody looks for a server that is alone on loopback; two of them may run on one machine.
            Some(_) if !is_given && self.is_founding_alone() && rpc.listen.is_loopback() => {}
            Some(port) => listens.push(Listen::Tcp(SocketAddr::new(serf_ip, port))),
            None => {}
        }
        listens.dedup();
        Ok(listens)
    }

    fn is_founding_alone(&self) -> bool {
        let is_single = self.of.bootstrap == Some(true) || self.of.bootstrap_expect == Some(1);
        self.dev || (is_single && self.of.others().next().is_none())
    }

    fn http(&self) -> Result<Vec<Listen>, ConfigError> {
        let (key, given) = match (&self.of.addresses.http, &self.of.client_addr) {
            (Some(http), _) => ("addresses.http", Some(http)),
            (None, client) => ("client_addr", client.as_ref()),
        };
        let port = port("http", self.of.ports.http, HTTP_PORT)?;
        let mode = self.of.unix_sockets.mode.as_deref().map(socket_mode).transpose()?;
        let hosts = self.hosts(key, given)?;
        let listen = |host| match host {
            Host::Ip(ip) => Listen::Tcp(SocketAddr::new(ip, port)),
            Host::Unix(path) => Listen::Unix { path, mode },
        };
        Ok(hosts.into_iter().map(listen).collect())
    }

    /// Where clients are served over TLS: nowhere, unless a port is given, as by Consul.
    fn https(&self) -> Result<Vec<SocketAddr>, ConfigError> {
        let (key, given) = match (&self.of.addresses.https, &self.of.client_addr) {
            (Some(https), _) => ("addresses.https", Some(https)),
            (None, client) => ("client_addr", client.as_ref()),
        };
        let port = match optional_port("https", self.of.ports.https, 0)? {
            None | Some(0) => return Ok(Vec::new()),
            Some(port) => port,
        };
        let at_ip = |host| match host {
            Host::Ip(ip) => Some(SocketAddr::new(ip, port)),
            Host::Unix(_) => None,
        };
        Ok(self.hosts(key, given)?.into_iter().filter_map(at_ip).collect())
    }

    /// Where DNS is served. Where clients reach the API at a socket in the file system, there is no place for it.
    fn dns(&self) -> Result<Vec<SocketAddr>, ConfigError> {
        let (key, given) = match (&self.of.addresses.dns, &self.of.client_addr) {
            (Some(dns), _) => ("addresses.dns", Some(dns)),
            (None, client) => ("client_addr", client.as_ref()),
        };
        let Some(port) = optional_port("dns", self.of.ports.dns, DNS_PORT)? else {
            return Ok(Vec::new());
        };
        let hosts = self.hosts(key, given)?;
        if self.of.addresses.dns.is_some() && hosts.iter().any(|host| matches!(host, Host::Unix(_)))
        {
            return invalid("addresses.dns: DNS is served at IP addresses, not at a unix socket");
        }
        let at_ip = |host| match host {
            Host::Ip(ip) => Some(SocketAddr::new(ip, port)),
            Host::Unix(_) => None,
        };
        Ok(hosts.into_iter().filter_map(at_ip).collect())
    }

    /// Whether the configuration asks for DNS somewhere.
    fn is_dns_given(&self) -> bool {
        self.of.addresses.dns.is_some() || self.of.ports.dns.is_some()
    }

    /// Loopback if nothing is said.
    fn hosts(&self, key: &str, given: Option<&String>) -> Result<Vec<Host>, ConfigError> {
        let Some(text) = given.filter(|text| !text.trim().is_empty()) else {
            return Ok(vec![Host::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST))]);
        };
        let hosts = address::hosts(text, self.interfaces).map_err(|why| about(key, &why))?;
        match hosts.is_empty() {
            true => Err(about(key, &format!("{text:?} finds no address on this machine"))),
            false => Ok(hosts),
        }
    }

    fn ip(&self, key: &str, given: Option<&String>) -> Result<Option<IpAddr>, ConfigError> {
        let given = given.filter(|text| !text.trim().is_empty());
        let ip = given.map(|text| address::ip(text, self.interfaces)).transpose();
        ip.map_err(|why| about(key, &why))
    }

    fn is_local(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.interfaces.iter().any(|one| one.address == ip)
    }

    /// Whether the configuration speaks of no server on another machine.
    fn is_alone(&self) -> bool {
        let is_here = |text: &String| {
            let host = split_port(text).0;
            let ip: Option<IpAddr> = host.parse().ok();
            host == "localhost" || ip.is_some_and(|ip| ip.is_loopback())
        };
        let has_others = self.of.others().next().is_some();
        let waits = self.of.bootstrap_expect.is_some_and(|expect| expect > 1);
        self.dev || (self.of.others().all(is_here) && (has_others || !waits))
    }

    fn only_private(&self) -> Result<IpAddr, ConfigError> {
        address::only_private(self.interfaces).map_err(ConfigError::Invalid)
    }
}

/// Why a configuration of a client agent without servers does not start.
const NO_SERVERS: &str = "without \"server\": true (-server) this is a client agent, which needs the addresses of servers in retry_join. For a server write \"server\": true, and bootstrap_expect with the number of servers that found a cluster (or retry_join to enter one)";

fn headers(given: &BTreeMap<String, String>) -> Result<HeaderMap, ConfigError> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let wrong = || ConfigError::Invalid(format!("response_headers: {name}: {value}"));
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        headers.insert(header, HeaderValue::from_str(value).map_err(|_| wrong())?);
    }
    Ok(headers)
}

fn port(key: &str, given: Option<i32>, default: u16) -> Result<u16, ConfigError> {
    match given {
        None => Ok(default),
        Some(given) => u16::try_from(given).map_err(|_| {
            ConfigError::Invalid(format!("ports.{key} {given}: a server needs it, 0 to 65535"))
        }),
    }
}

/// A port that -1 turns off.
fn optional_port(key: &str, given: Option<i32>, default: u16) -> Result<Option<u16>, ConfigError> {
    match given {
        Some(..=-1) => Ok(None),
        given => port(key, given, default).map(Some),
    }
}

/// The RPC address of another server, as `HOST:PORT`; without a port it is the one that this server has.
fn peer(text: &str, rpc_port: u16) -> Result<String, ConfigError> {
    let text = text.trim();
    let wrong = |why: &str| Err(ConfigError::Invalid(format!("retry_join {text:?}: {why}")));
    if text.contains('=') {
        return wrong("Quorate does not query cloud providers for servers: list their addresses");
    }
    let (host, port) = split_port(text);
    let port = match port.map(str::parse) {
        None => rpc_port,
        Some(Ok(port)) => port,
        Some(Err(_)) => return wrong("the port is no number up to 65535"),
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => Ok(format!("[{ip}]:{port}")),
        Ok(IpAddr::V4(ip)) => Ok(format!("{ip}:{port}")),
        Err(_) if !host.is_empty() && host.bytes().all(is_name) => Ok(format!("{host}:{port}")),
        Err(_) => wrong("an IP address or a host name, with a port or without"),
    }
}

/// A host and its port, if it has one. IPv6 addresses with a port stand in brackets.
fn split_port(text: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        return (host, rest.strip_prefix(':'));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, Some(port)),
        _ => (text, None),
    }
}

/// In the words of `--hold-timeout`, which knows no more than milliseconds.
fn hold_timeout(text: &str) -> Result<String, ConfigError> {
    let nanos = duration::parse(text).map_err(|why| about("rpc_hold_timeout", &why.to_string()))?;
    Ok(format!("{}ms", nanos.max(0) / 1_000_000))
}

/// The permissions of a socket, in octal digits.
fn socket_mode(text: &str) -> Result<u32, ConfigError> {
    match u32::from_str_radix(text, 8) {
        Ok(mode @ 0..=0o777) => Ok(mode),
        _ => invalid(&format!("unix_sockets.mode {text:?}: octal digits such as 0660")),
    }
}

/// A Raft id from what names a server.
fn raft_id(name: &str) -> u64 {
    let (high, low) = Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).as_u64_pair();
    ((high ^ low) & NODE_ID_MASK).max(1)
}

fn host_name() -> String {
    let names = nix::sys::utsname::uname().ok();
    match names.as_ref().and_then(|names| names.nodename().to_str()) {
        None | Some("") => "quorate".to_owned(),
        Some(name) => name.to_owned(),
    }
}

#[cfg(test)]
mod tests;
