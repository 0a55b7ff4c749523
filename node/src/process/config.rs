//! The server's settings: flags win over environment variables, those over the TOML file.

mod limits;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use quorate_client::duration;
use quorate_storage::record::{DefaultPolicy, SecretHash};
use serde::Deserialize;
use thiserror::Error;

use crate::agent;
use crate::checks::WorkerKey;
use crate::checks::policy::Policy;
use crate::discovery::access::AccessControl;
use crate::dns::settings::{self as dns, DnsSettings};
use crate::host::address::HostPort;
use crate::host::logging::LogFormat;
use crate::host::tls::credentials::{Files, NamedFile};
use crate::host::tls::https::HttpsFiles;
use crate::http::limits::HttpLimits;
use crate::http::process::RpcPort;
use crate::node::Advertised;
use crate::process::check_args::policy;
use crate::raft::LogLimits;

const HTTP_PORT: u16 = 8500;
const RPC_PORT: u16 = 8300;
const DNS_PORT: u16 = 8600;
/// How long a request is held while there is no leader, as Consul's `rpc_hold_timeout`.
const HOLD_TIMEOUT: Duration = Duration::from_secs(7);
/// A server's or agent's name is a label of DNS names.
const NAME_BYTES_MAX: usize = 63;

/// Flags of `quorate server`. Each can also be set as `QUORATE_SERVER_...` in the environment, or as a
/// key of the file given by `--config`.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ServerArgs {
    /// TOML file with the same keys as the long flags, without the dashes in front.
    #[arg(long, env = "QUORATE_SERVER_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Raft id of this server: 1 or more, never used again by another server [default: 1]
    #[arg(long, env = "QUORATE_SERVER_NODE_ID", value_name = "N")]
    pub node_id: Option<u64>,
    /// Name of this server in the catalogue [default: n and the node id]
    #[arg(long, env = "QUORATE_SERVER_NAME")]
    pub name: Option<String>,
    /// Where the log and the snapshots are kept [default: quorate-data]
    #[arg(long, env = "QUORATE_SERVER_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where clients are served [default: 127.0.0.1:8500]
    #[arg(long, env = "QUORATE_SERVER_HTTP_ADDR", value_name = "HOST:PORT")]
    pub http_addr: Option<HostPort>,
    /// Where clients are served over TLS, with --https-cert and --https-key
    #[arg(long, env = "QUORATE_SERVER_HTTPS_ADDR", value_name = "HOST:PORT")]
    pub https_addr: Option<HostPort>,
    /// The certificate for --https-addr (PEM); read again at SIGHUP
    #[arg(long, env = "QUORATE_SERVER_HTTPS_CERT", value_name = "FILE")]
    pub https_cert: Option<PathBuf>,
    /// The key of --https-cert (PEM)
    #[arg(long, env = "QUORATE_SERVER_HTTPS_KEY", value_name = "FILE")]
    pub https_key: Option<PathBuf>,
    /// Serve at --https-addr only clients that have a certificate of this CA (PEM)
    #[arg(long, env = "QUORATE_SERVER_HTTPS_CLIENT_CA", value_name = "FILE")]
    pub https_client_ca: Option<PathBuf>,
    /// Where clients and dashboards reach it, as the other servers are told [default: --http-addr; if that is 0.0.0.0
    /// or `[::]`, the host of --rpc-addr with its port]
    #[arg(long, env = "QUORATE_SERVER_HTTP_ADVERTISE", value_name = "HOST:PORT")]
    pub http_advertise: Option<HostPort>,
    /// Host names by which it may be asked, beside IP addresses, localhost, the members' names and private ones; any:
    /// whatever a client calls it
    #[arg(
        long,
        env = "QUORATE_SERVER_HTTP_ALLOW_HOST",
        value_delimiter = ',',
        value_name = "NAME,..."
    )]
    #[serde(default, deserialize_with = "one_or_many")]
    pub http_allow_host: Vec<String>,
    /// The earlier name of --http-allow-host
    #[arg(long, env = "QUORATE_SERVER_UI_HOST", value_delimiter = ',', hide = true)]
    #[serde(default, deserialize_with = "one_or_many")]
    pub ui_host: Vec<String>,
    /// Connections of clients in all [default: as many as there are descriptors for]
    #[arg(long, env = "QUORATE_SERVER_HTTP_CONNECTIONS", value_name = "N")]
    pub http_connections: Option<usize>,
    /// Connections of clients from one IP address; 0: any number [default: three quarters of all]
    #[arg(long, env = "QUORATE_SERVER_HTTP_CONNECTIONS_PER_CLIENT", value_name = "N")]
    pub http_connections_per_client: Option<usize>,
    /// How long a client may take for the head of a request, and may say nothing between two [default: 60s]
    #[arg(long, env = "QUORATE_SERVER_HTTP_HEADER_TIMEOUT", value_name = "DURATION")]
    pub http_header_timeout: Option<String>,
    /// Bytes a second with which clients have to send bodies and to take answers [default: 8192]
    #[arg(long, env = "QUORATE_SERVER_HTTP_MIN_RATE", value_name = "BYTES")]
    pub http_min_rate: Option<usize>,
    /// MiB for bodies that are still arriving, and as much for long answers that are not read yet; one address
    /// gets half [default: 256]
    #[arg(long, env = "QUORATE_SERVER_HTTP_MEMORY", value_name = "MIB")]
    pub http_memory: Option<usize>,
    /// Open requests of one HTTP/2 connection, long polls included [default: 1000]
    #[arg(long, env = "QUORATE_SERVER_HTTP_STREAMS", value_name = "N")]
    pub http_streams: Option<u32>,
    /// Long answers that are made at a time; others wait for their turn, at most 10 s [default: 2]
    #[arg(long, env = "QUORATE_SERVER_HTTP_LONG_ANSWERS", value_name = "N")]
    pub http_long_answers: Option<usize>,
    /// How long the regular expressions of a request's filter may be matched; one filter at a time [default: 2s]
    #[arg(long, env = "QUORATE_SERVER_HTTP_FILTER_TIMEOUT", value_name = "DURATION")]
    pub http_filter_timeout: Option<String>,
    /// Networks that the checks run by this server may reach, and no others, such as 10.0.0.0/8 [default: all]
    #[arg(
        long,
        env = "QUORATE_SERVER_CHECK_ALLOW",
        value_delimiter = ',',
        value_name = "NETWORK,..."
    )]
    #[serde(default, deserialize_with = "one_or_many")]
    pub check_allow: Vec<String>,
    /// Networks that they may not reach
    #[arg(
        long,
        env = "QUORATE_SERVER_CHECK_DENY",
        value_delimiter = ',',
        value_name = "NETWORK,..."
    )]
    #[serde(default, deserialize_with = "one_or_many")]
    pub check_deny: Vec<String>,
    /// Outputs of HTTP checks have the beginning of the answer
    #[arg(long, env = "QUORATE_SERVER_CHECK_OUTPUT_BODY")]
    #[serde(default)]
    pub check_output_body: bool,
    /// Where other servers are served, and what they are told to connect to; they resolve a host name at each
    /// connection [default: 127.0.0.1:8300]
    #[arg(long, env = "QUORATE_SERVER_RPC_ADDR", value_name = "HOST:PORT")]
    pub rpc_addr: Option<HostPort>,
    /// Where the RPC port is bound, and from which IP other servers are dialled, if they reach
    /// --rpc-addr through a proxy or translated addresses [default: --rpc-addr]
    #[arg(long, env = "QUORATE_SERVER_RPC_LISTEN_ADDR", value_name = "HOST:PORT")]
    pub rpc_listen_addr: Option<HostPort>,
    /// Certificate of the CA of this cluster's servers and agents (PEM), as `quorate tls ca` makes it
    #[arg(long, env = "QUORATE_SERVER_RPC_TLS_CA", value_name = "FILE")]
    pub rpc_tls_ca: Option<PathBuf>,
    /// This server's certificate (PEM), as `quorate tls cert` makes it; read again at SIGHUP
    #[arg(long, env = "QUORATE_SERVER_RPC_TLS_CERT", value_name = "FILE")]
    pub rpc_tls_cert: Option<PathBuf>,
    /// The key of --rpc-tls-cert (PEM)
    #[arg(long, env = "QUORATE_SERVER_RPC_TLS_KEY", value_name = "FILE")]
    pub rpc_tls_key: Option<PathBuf>,
    /// Serves other servers without TLS at an address that is not loopback: whoever reaches it has the cluster
    #[arg(long, env = "QUORATE_SERVER_INSECURE_RPC")]
    #[serde(default)]
    pub insecure_rpc: bool,
    /// Where DNS is served, over UDP and TCP, or off [default: 127.0.0.1:8600, if it is free]
    #[arg(long, env = "QUORATE_SERVER_DNS_ADDR", value_name = "HOST:PORT")]
    pub dns_addr: Option<DnsAddr>,
    /// The domain of all names in DNS [default: consul]
    #[arg(long, env = "QUORATE_SERVER_DNS_DOMAIN", value_name = "DOMAIN")]
    pub dns_domain: Option<String>,
    /// How long answers of DNS may be remembered, such as 5s [default: 0s]
    #[arg(long, env = "QUORATE_SERVER_DNS_TTL", value_name = "DURATION")]
    pub dns_ttl: Option<String>,
    /// How many servers found a new cluster together; 0: only join an existing one [default: 1, or 0
    /// with --join]
    #[arg(long, env = "QUORATE_SERVER_BOOTSTRAP_EXPECT", value_name = "N")]
    pub bootstrap_expect: Option<usize>,
    /// RPC addresses of the other servers; host names are resolved at each connection
    #[arg(long, env = "QUORATE_SERVER_JOIN", value_delimiter = ',', value_name = "HOST:PORT,...")]
    #[serde(default, deserialize_with = "one_or_many")]
    pub join: Vec<String>,
    /// Name of the datacenter [default: dc1]
    #[arg(long, env = "QUORATE_SERVER_DATACENTER")]
    pub datacenter: Option<String>,
    /// Name of the agent of this server's own host [default: quorate on loopback, else host- and the address]
    #[arg(long, env = "QUORATE_SERVER_AGENT_NAME")]
    pub agent_name: Option<String>,
    /// How long requests are held while there is no leader, such as 7s or 500ms [default: 7s]
    #[arg(long, env = "QUORATE_SERVER_HOLD_TIMEOUT", value_name = "DURATION")]
    pub hold_timeout: Option<String>,
    /// A snapshot is built after this many log entries [default: 10000]
    #[arg(long, env = "QUORATE_SERVER_RAFT_SNAPSHOT_THRESHOLD", value_name = "N")]
    pub raft_snapshot_threshold: Option<u64>,
    /// This many log entries are kept behind a snapshot, for servers that were briefly away [default: 5000]
    #[arg(long, env = "QUORATE_SERVER_RAFT_TRAILING_LOGS", value_name = "N")]
    pub raft_trailing_logs: Option<u64>,
    /// File with the key by which worker processes are known, at least 16 bytes; without it they are refused
    #[arg(long, env = "QUORATE_SERVER_WORKER_KEY_FILE", value_name = "FILE")]
    pub worker_key_file: Option<PathBuf>,
    /// Access control by tokens: off, or what is allowed without a rule. The same at all servers [default: off]
    #[arg(long, env = "QUORATE_SERVER_ACL", value_enum, hide_default_value = true)]
    pub acl: Option<AclMode>,
    /// Reading all keys below a prefix needs the right to list that prefix (`policy = "list"`), and shows what may be
    /// read
    #[arg(long, env = "QUORATE_SERVER_ACL_KEY_LIST")]
    #[serde(default)]
    pub acl_key_list: bool,
    /// Tokens that Consul's files name.
    #[arg(skip)]
    #[serde(skip)]
    pub acl_tokens: AclTokens,
    /// How lines of the log look [default: text]
    #[arg(long, env = "QUORATE_SERVER_LOG_FORMAT", value_enum, hide_default_value = true)]
    pub log_format: Option<LogFormat>,
}

/// Whether tokens count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum AclMode {
    /// They do not: everybody may do everything.
    #[default]
    Off,
    /// They do, and what no rule is about is allowed.
    Allow,
    /// They do, and what no rule is about is denied.
    Deny,
}

/// Of tokens that a server's settings name, only hashes are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AclTokens {
    /// The one that counts where a request has none.
    pub default: Option<SecretHash>,
    /// A management token to be made.
    pub initial_management: Option<SecretHash>,
}

/// How tokens count; `None`: they do not.
fn access_control(
    mode: Option<AclMode>,
    lists_keys: bool,
    tokens: AclTokens,
) -> Result<Option<AccessControl>, ConfigError> {
    let default = match mode.unwrap_or_default() {
        AclMode::Off if lists_keys => return invalid("--acl-key-list needs --acl allow or deny"),
        AclMode::Off => return Ok(None),
        AclMode::Allow => DefaultPolicy::Allow,
        AclMode::Deny => DefaultPolicy::Deny,
    };
    let control = AccessControl::new(default);
    Ok(Some(AccessControl {
        lists_keys,
        without_token: tokens.default.unwrap_or(control.without_token),
        initial_management: tokens.initial_management,
        ..control
    }))
}

/// Where DNS is served.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum DnsAddr {
    /// Nowhere.
    Off,
    /// At one address.
    At(HostPort),
}

impl FromStr for DnsAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "off" => Ok(Self::Off),
            text => Ok(Self::At(text.parse()?)),
        }
    }
}

impl TryFrom<String> for DnsAddr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// What a server runs with: complete and checked.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Raft id.
    pub node_id: u64,
    /// The server's name.
    pub name: String,
    /// Log and snapshots.
    pub data_dir: PathBuf,
    /// HTTP listener.
    pub http_addr: SocketAddr,
    /// HTTPS listener, if there is one.
    pub https: Option<HttpsConfig>,
    /// The advertised RPC address, as it was at the start.
    pub rpc_addr: SocketAddr,
    /// The same two as they were given, perhaps with names: what the other servers are told.
    pub advertised: Advertised,
    /// Host names by which it may be asked.
    pub hosts: Vec<String>,
    /// What clients may take.
    pub http_limits: HttpLimits,
    /// Where the checks that it runs may go.
    pub check_policy: Policy,
    /// RPC listener, and the IP from which other servers are dialled.
    pub rpc_listen_addr: SocketAddr,
    /// How the RPC port is protected.
    pub rpc_security: RpcSecurity,
    /// DNS listener, if there is one.
    pub dns_addr: Option<SocketAddr>,
    /// Whether nobody said where DNS is to be served.
    pub is_dns_by_default: bool,
    /// How DNS is served.
    pub dns: DnsSettings,
    /// How many servers found a new cluster.
    pub bootstrap_expect: usize,
    /// RPC addresses of other servers, `HOST:PORT`.
    pub join: Vec<String>,
    /// The datacenter's name.
    pub datacenter: String,
    /// Name of the agent of this server's own host.
    pub agent_name: String,
    /// How long requests are held without a leader.
    pub hold_timeout: Duration,
    /// How many entries the log may hold.
    pub log_limits: LogLimits,
    /// How tokens count; `None`: they do not.
    pub acl: Option<AccessControl>,
    /// How lines of the log look.
    pub log_format: LogFormat,
    /// By which worker processes are known.
    pub worker_key: Option<WorkerKey>,
    /// What is wrong and does not keep the server from running, in words.
    pub remarks: Vec<String>,
    /// Whether neither `--join` nor `--bootstrap-expect` was given.
    pub is_alone_by_default: bool,
}

/// Where and how clients are served over TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpsConfig {
    /// The listener.
    pub address: SocketAddr,
    /// Its certificate.
    pub files: HttpsFiles,
}

/// How the port for servers is protected from strangers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RpcSecurity {
    /// Certificates, in these files.
    Tls(Files),
    /// Only processes of this machine reach it.
    Loopback,
    /// Not at all.
    Insecure,
}

impl RpcSecurity {
    /// What the API says of it.
    #[must_use]
    pub const fn port(&self) -> RpcPort {
        match self {
            Self::Tls(_) => RpcPort::Tls,
            Self::Loopback => RpcPort::Loopback,
            Self::Insecure => RpcPort::Insecure,
        }
    }
}

/// Why settings cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{path}: {source}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<toml::de::Error>,
    },
    /// A value makes no sense.
    #[error("{0}")]
    Invalid(String),
}

impl ServerArgs {
    /// Adds what the file says and the defaults, and checks everything.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn resolve(self) -> Result<ServerConfig, ConfigError> {
        let file = self.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        self.over(file).check()
    }

    /// These settings, and the file's where there is none.
    fn over(self, file: Self) -> Self {
        Self {
            config: self.config,
            node_id: self.node_id.or(file.node_id),
            name: self.name.or(file.name),
            data_dir: self.data_dir.or(file.data_dir),
            http_addr: self.http_addr.or(file.http_addr),
            http_advertise: self.http_advertise.or(file.http_advertise),
            http_allow_host: or_else(self.http_allow_host, file.http_allow_host),
            ui_host: or_else(self.ui_host, file.ui_host),
            http_connections: self.http_connections.or(file.http_connections),
            http_connections_per_client: self
                .http_connections_per_client
                .or(file.http_connections_per_client),
            http_header_timeout: self.http_header_timeout.or(file.http_header_timeout),
            http_min_rate: self.http_min_rate.or(file.http_min_rate),
            http_memory: self.http_memory.or(file.http_memory),
            http_streams: self.http_streams.or(file.http_streams),
            http_long_answers: self.http_long_answers.or(file.http_long_answers),
            http_filter_timeout: self.http_filter_timeout.or(file.http_filter_timeout),
            check_allow: or_else(self.check_allow, file.check_allow),
            check_deny: or_else(self.check_deny, file.check_deny),
            check_output_body: self.check_output_body || file.check_output_body,
            rpc_addr: self.rpc_addr.or(file.rpc_addr),
            rpc_listen_addr: self.rpc_listen_addr.or(file.rpc_listen_addr),
            https_addr: self.https_addr.or(file.https_addr),
            https_cert: self.https_cert.or(file.https_cert),
            https_key: self.https_key.or(file.https_key),
            https_client_ca: self.https_client_ca.or(file.https_client_ca),
            rpc_tls_ca: self.rpc_tls_ca.or(file.rpc_tls_ca),
            rpc_tls_cert: self.rpc_tls_cert.or(file.rpc_tls_cert),
            rpc_tls_key: self.rpc_tls_key.or(file.rpc_tls_key),
            insecure_rpc: self.insecure_rpc || file.insecure_rpc,
            dns_addr: self.dns_addr.or(file.dns_addr),
            dns_domain: self.dns_domain.or(file.dns_domain),
            dns_ttl: self.dns_ttl.or(file.dns_ttl),
            bootstrap_expect: self.bootstrap_expect.or(file.bootstrap_expect),
            join: or_else(self.join, file.join),
            datacenter: self.datacenter.or(file.datacenter),
            agent_name: self.agent_name.or(file.agent_name),
            hold_timeout: self.hold_timeout.or(file.hold_timeout),
            raft_snapshot_threshold: self.raft_snapshot_threshold.or(file.raft_snapshot_threshold),
            raft_trailing_logs: self.raft_trailing_logs.or(file.raft_trailing_logs),
            acl: self.acl.or(file.acl),
            acl_key_list: self.acl_key_list || file.acl_key_list,
            acl_tokens: self.acl_tokens,
            log_format: self.log_format.or(file.log_format),
            worker_key_file: self.worker_key_file.or(file.worker_key_file),
        }
    }

    /// What clients may take, and where checks may go.
    fn limits(&self) -> Result<(HttpLimits, Policy), String> {
        let given = limits::Given {
            connections: self.http_connections,
            connections_per_client: self.http_connections_per_client,
            header_timeout: self.http_header_timeout.clone(),
            min_rate: self.http_min_rate,
            memory: self.http_memory,
            streams: self.http_streams,
            long_answers: self.http_long_answers,
            filter_timeout: self.http_filter_timeout.clone(),
        };
        let policy = policy(&self.check_allow, &self.check_deny, self.check_output_body)?;
        Ok((given.check()?, policy))
    }

    fn check(self) -> Result<ServerConfig, ConfigError> {
        let (http_limits, check_policy) = self.limits().map_err(ConfigError::Invalid)?;
        let node_id = self.node_id.unwrap_or(1);
        if node_id == 0 {
            return invalid("--node-id must be 1 or more");
        }
        let rpc = self.rpc_addr.unwrap_or_else(|| loopback(RPC_PORT).into());
        let http = self.http_addr.unwrap_or_else(|| loopback(HTTP_PORT).into());
        let http_addr = resolve("--http-addr", &http)?;
        let advertised =
            Advertised { http: advertised_http(self.http_advertise, http, &rpc)?, rpc };
        let rpc_addr = resolve("--rpc-addr", &advertised.rpc)?;
        if rpc_addr.ip().is_unspecified() {
            return invalid("--rpc-addr must name one address: the other servers connect to it");
        }
        if rpc_addr.port() == 0 {
            return invalid("--rpc-addr must name a port: the other servers connect to it");
        }
        let listen =
            self.rpc_listen_addr.map(|at| resolve("--rpc-listen-addr", &at)).transpose()?;
        if listen.unwrap_or(rpc_addr) == http_addr {
            return invalid(&format!(
                "--http-addr and --rpc-addr are both {http_addr}: clients and servers need two ports"
            ));
        }
        let tls = [self.rpc_tls_ca, self.rpc_tls_cert, self.rpc_tls_key];
        let rpc_security = rpc_security(tls, self.insecure_rpc, listen.unwrap_or(rpc_addr))?;
        let https_files = [self.https_cert, self.https_key, self.https_client_ca];
        let https = https(self.https_addr.as_ref(), https_files)?;
        if https.as_ref().is_some_and(|https| https.address == http_addr) {
            return invalid("--https-addr and --http-addr are the same: each needs a port");
        }
        let is_dns_by_default = self.dns_addr.is_none();
        let dns_addr = match self.dns_addr {
            None => Some(loopback(DNS_PORT)),
            Some(DnsAddr::Off) => None,
            Some(DnsAddr::At(at)) => Some(resolve("--dns-addr", &at)?),
        };
        let is_alone_by_default = self.bootstrap_expect.is_none() && self.join.is_empty();
        let default_expect = usize::from(self.join.is_empty());
        Ok(ServerConfig {
            node_id,
            name: check_name("--name", self.name.unwrap_or_else(|| format!("n{node_id}")))?,
            data_dir: self.data_dir.unwrap_or_else(|| PathBuf::from("quorate-data")),
            http_addr,
            https,
            hosts: check_hosts(&[self.http_allow_host, self.ui_host].concat())?,
            http_limits,
            check_policy,
            rpc_addr,
            rpc_listen_addr: listen.unwrap_or(rpc_addr),
            rpc_security,
            dns_addr,
            is_dns_by_default,
            dns: dns_settings(self.dns_domain.as_deref(), self.dns_ttl.as_deref())?,
            bootstrap_expect: self.bootstrap_expect.unwrap_or(default_expect),
            join: check_join(&self.join)?,
            datacenter: check_datacenter(self.datacenter.as_deref().unwrap_or("dc1"))?,
            agent_name: check_name(
                "--agent-name",
                agent::own_name(self.agent_name.as_deref(), &advertised.rpc),
            )?,
            advertised,
            remarks: Vec::new(),
            is_alone_by_default,
            log_limits: log_limits(self.raft_snapshot_threshold, self.raft_trailing_logs)?,
            acl: access_control(self.acl, self.acl_key_list, self.acl_tokens)?,
            log_format: self.log_format.unwrap_or_default(),
            worker_key: self.worker_key_file.as_deref().map(read_worker_key).transpose()?,
            hold_timeout: self.hold_timeout.as_deref().map_or(Ok(HOLD_TIMEOUT), parse_duration)?,
        })
    }
}

/// `files` are those of the CA, the certificate and the key, `listen` where the port is bound.
fn rpc_security(
    files: [Option<PathBuf>; 3],
    insecure: bool,
    listen: SocketAddr,
) -> Result<RpcSecurity, ConfigError> {
    match files {
        [Some(_), Some(_), Some(_)] if insecure => {
            invalid("--insecure-rpc contradicts --rpc-tls-ca, --rpc-tls-cert and --rpc-tls-key")
        }
        [Some(ca), Some(certificate), Some(key)] => Ok(RpcSecurity::Tls(Files {
            ca: NamedFile { setting: "--rpc-tls-ca (ca_file)", path: ca },
            certificate: NamedFile { setting: "--rpc-tls-cert (cert_file)", path: certificate },
            key: NamedFile { setting: "--rpc-tls-key (key_file)", path: key },
        })),
        [None, None, None] if listen.ip().to_canonical().is_loopback() => Ok(RpcSecurity::Loopback),
        [None, None, None] if insecure => Ok(RpcSecurity::Insecure),
        [None, None, None] => invalid(&format!(
            "other machines reach {listen} (--rpc-addr), and whoever reaches it can read and change everything: give \
             --rpc-tls-ca, --rpc-tls-cert and --rpc-tls-key (`quorate tls ca` and `quorate tls cert` make the files), \
             or --insecure-rpc where only servers reach it (under `quorate agent`: tls.internal_rpc, or insecure_rpc)"
        )),
        [_, _, _] => invalid("--rpc-tls-ca, --rpc-tls-cert and --rpc-tls-key belong together"),
    }
}

/// `files` are those of the certificate, the key and the CA of clients.
fn https(
    at: Option<&HostPort>,
    files: [Option<PathBuf>; 3],
) -> Result<Option<HttpsConfig>, ConfigError> {
    match (at, files) {
        (None, [None, None, None]) => Ok(None),
        (Some(at), [Some(certificate), Some(key), client_ca]) => Ok(Some(HttpsConfig {
            address: resolve("--https-addr", at)?,
            files: HttpsFiles {
                certificate: NamedFile { setting: "--https-cert", path: certificate },
                key: NamedFile { setting: "--https-key", path: key },
                client_ca: client_ca.map(|path| NamedFile { setting: "--https-client-ca", path }),
            },
        })),
        (None | Some(_), [_, _, _]) => invalid(
            "--https-addr, --https-cert and --https-key belong together, and --https-client-ca to them \
             (`quorate tls cert` makes the files)",
        ),
    }
}

/// How DNS is served.
fn dns_settings(domain: Option<&str>, ttl: Option<&str>) -> Result<DnsSettings, ConfigError> {
    let wrong = |flag: &str, why: &str| ConfigError::Invalid(format!("{flag} {why}"));
    let mut settings = DnsSettings::default();
    if let Some(text) = domain {
        settings.domains = vec![dns::domain(text).map_err(|why| wrong("--dns-domain", &why))?];
    }
    match ttl {
        None => Ok(settings),
        Some(text) => {
            let wrong = |why: String| wrong("--dns-ttl", &format!("{text:?}: {why}"));
            let nanos = duration::parse(text).map_err(|why| wrong(why.to_string()))?;
            Ok(settings.with_ttl(dns::ttl_seconds(nanos).map_err(wrong)?))
        }
    }
}

/// What other servers are told of the HTTP listener. Nobody can connect to all addresses.
fn advertised_http(
    given: Option<HostPort>,
    listener: HostPort,
    rpc: &HostPort,
) -> Result<HostPort, ConfigError> {
    let is_unspecified = |at: &HostPort| at.ip().is_some_and(|ip| ip.is_unspecified());
    match given {
        Some(given) if is_unspecified(&given) => {
            invalid("--http-advertise must name one address: browsers and clients connect to it")
        }
        Some(given) if given.port() == 0 => {
            invalid("--http-advertise must name a port: browsers and clients connect to it")
        }
        Some(given) => Ok(given),
        None if is_unspecified(&listener) => Ok(rpc.with_port(listener.port())),
        None => Ok(listener),
    }
}

/// Host names without the blanks around them.
pub(super) fn read_worker_key(path: &Path) -> Result<WorkerKey, ConfigError> {
    let read = WorkerKey::read(path);
    read.map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })
}

fn check_hosts(names: &[String]) -> Result<Vec<String>, ConfigError> {
    let trimmed = names.iter().map(|text| text.trim()).filter(|text| !text.is_empty());
    let checked = trimmed.map(|text| {
        // Whatever can stand before a port can stand alone.
        match format!("{text}:{HTTP_PORT}").parse::<HostPort>() {
            Ok(name) => Ok(name.host().to_owned()),
            Err(_) => invalid(&format!(
                "--http-allow-host {text:?}: a host name, such as quorate.example, without scheme and port"
            )),
        }
    });
    checked.collect()
}

fn read_file(path: &Path) -> Result<ServerArgs, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|source| ConfigError::Malformed {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// One text with commas, or a list of texts.
fn one_or_many<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(from)? {
        OneOrMany::One(text) => text.split(',').map(str::to_owned).collect(),
        OneOrMany::Many(texts) => texts,
    })
}

/// Addresses without the blanks around them. Host names are looked up at each connection.
fn check_join(addresses: &[String]) -> Result<Vec<String>, ConfigError> {
    let trimmed = addresses.iter().map(|text| text.trim()).filter(|text| !text.is_empty());
    let checked = trimmed.map(|text| match text.parse::<HostPort>() {
        Ok(address) => Ok(address.to_string()),
        Err(wrong) => invalid(&format!("--join: {wrong}")),
    });
    checked.collect()
}

fn resolve(flag: &str, address: &HostPort) -> Result<SocketAddr, ConfigError> {
    address.resolve().map_err(|error| {
        ConfigError::Invalid(format!("{flag} {address}: the name cannot be resolved: {error}"))
    })
}

/// A remark for each variable of the environment that looks like a setting and is none: a mistyped one
/// would otherwise go unnoticed.
#[must_use]
pub fn remarks_on_environment() -> Vec<String> {
    let names = std::env::vars_os().map(|(name, _)| name);
    unknown_settings(names)
        .into_iter()
        .map(|name| {
            format!(
                "the environment variable {name} is not a setting of this server and has no effect"
            )
        })
        .collect()
}

fn unknown_settings(names: impl Iterator<Item = OsString>) -> Vec<String> {
    let command = ServerArgs::augment_args(clap::Command::new("server"));
    let known: BTreeSet<OsString> =
        command.get_arguments().filter_map(|flag| flag.get_env()).map(OsString::from).collect();
    let unknown = names.filter(|name| !known.contains(name));
    let unknown = unknown.filter_map(|name| name.into_string().ok());
    let mut unknown: Vec<String> = unknown.filter(|name| looks_like_a_setting(name)).collect();
    unknown.sort();
    unknown
}

fn looks_like_a_setting(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("QUORATE_SERVER_") else { return false };
    // Kubernetes gives each process such variables for a service that is called quorate-server.
    let of_a_service = ["SERVICE_HOST", "SERVICE_PORT", "PORT"];
    !of_a_service.iter().any(|begin| rest.starts_with(begin))
}

fn check_name(flag: &str, name: String) -> Result<String, ConfigError> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !plain {
        return invalid(&format!(
            "{flag} {name:?}: 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' or '.'"
        ));
    }
    Ok(name)
}

/// Consul's rule: small letters, which capital ones become, so that two spellings are one datacenter.
fn check_datacenter(name: &str) -> Result<String, ConfigError> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !is_plain {
        return invalid(&format!(
            "--datacenter (datacenter) {name:?}: 1 to {NAME_BYTES_MAX} letters, digits, '-' or '_'"
        ));
    }
    Ok(name.to_ascii_lowercase())
}

fn parse_duration(text: &str) -> Result<Duration, ConfigError> {
    let wrong = || ConfigError::Invalid(format!("--hold-timeout {text:?}: a number with ms or s"));
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s').ok_or_else(wrong)?, 1_000),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).map(Duration::from_millis).ok_or_else(wrong)
}

/// The first list, unless it is empty.
fn or_else(given: Vec<String>, file: Vec<String>) -> Vec<String> {
    if given.is_empty() { file } else { given }
}

fn invalid<T>(text: &str) -> Result<T, ConfigError> {
    Err(ConfigError::Invalid(text.to_owned()))
}

fn log_limits(threshold: Option<u64>, trailing: Option<u64>) -> Result<LogLimits, ConfigError> {
    let default = LogLimits::default();
    let snapshot_threshold = threshold.unwrap_or(default.snapshot_threshold);
    if snapshot_threshold == 0 {
        return Err(ConfigError::Invalid("--raft-snapshot-threshold must be 1 or more".to_owned()));
    }
    Ok(LogLimits { snapshot_threshold, trailing_logs: trailing.unwrap_or(default.trailing_logs) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_make_a_single_server_on_loopback() {
        let config = ServerArgs::default().resolve().unwrap();
        assert_eq!((config.node_id, config.name.as_str(), config.bootstrap_expect), (1, "n1", 1));
        assert_eq!(config.http_addr.to_string(), "127.0.0.1:8500");
        assert_eq!(config.agent_name, "quorate");
        assert_eq!(config.hold_timeout, Duration::from_secs(7));
        assert_eq!(config.rpc_listen_addr, config.rpc_addr);
    }

    #[test]
    fn a_port_that_other_machines_reach_has_certificates_or_is_said_to_have_none() {
        let file = |text: &str| toml::from_str::<ServerArgs>(text).unwrap().resolve();
        let security = |text: &str| file(text).map(|config| config.rpc_security);
        assert_eq!(security("").unwrap(), RpcSecurity::Loopback);
        assert_eq!(security("rpc-addr = \"127.9.0.1:1\"").unwrap(), RpcSecurity::Loopback);
        assert_eq!(security("insecure-rpc = true").unwrap(), RpcSecurity::Loopback);
        let reached = "rpc-addr = \"10.0.0.1:8300\"\n";
        for text in [reached, "rpc-listen-addr = \"0.0.0.0:8300\""] {
            let refused = security(text).unwrap_err().to_string();
            assert!(
                refused.contains("--rpc-tls-ca") && refused.contains("--insecure-rpc"),
                "{refused}"
            );
        }
        let proxied = format!("{reached}rpc-listen-addr = \"127.0.0.1:8300\"");
        assert_eq!(security(&proxied).unwrap(), RpcSecurity::Loopback);
        let said = format!("{reached}insecure-rpc = true\n");
        assert_eq!(security(&said).unwrap(), RpcSecurity::Insecure);
        let files = "rpc-tls-ca = \"a\"\nrpc-tls-cert = \"b\"\nrpc-tls-key = \"c\"\n";
        let with = security(&format!("{reached}{files}")).unwrap();
        assert_eq!(with.port(), RpcPort::Tls);
        let RpcSecurity::Tls(Files { key, .. }) = with else { panic!("{with:?}") };
        assert_eq!((key.setting, key.path), ("--rpc-tls-key (key_file)", PathBuf::from("c")));
        let both = security(&format!("{said}{files}")).unwrap_err().to_string();
        assert!(both.contains("contradicts"), "{both}");
        let lacking = security("rpc-tls-ca = \"a\"").unwrap_err().to_string();
        assert!(lacking.contains("belong together"), "{lacking}");
    }

    #[test]
    fn dns_is_served_at_its_usual_port_at_another_one_or_nowhere() {
        let config = ServerArgs::default().resolve().unwrap();
        assert_eq!(config.dns_addr, Some(loopback(8600)));
        assert!(config.is_dns_by_default);
        let file = |text: &str| toml::from_str::<ServerArgs>(text).unwrap().resolve();
        let off = file("dns-addr = \"off\"").unwrap();
        assert_eq!((off.dns_addr, off.is_dns_by_default), (None, false));
        let config =
            file("dns-addr = \"10.0.0.1:53\"\ndns-domain = \"x.example\"\ndns-ttl = \"90s\"")
                .unwrap();
        assert_eq!(config.dns_addr.unwrap().to_string(), "10.0.0.1:53");
        assert_eq!(config.dns.domains[0].to_ascii(), "x.example.");
        assert_eq!((config.dns.node_ttl, config.dns.service_ttl.of("web")), (90, 90));
        for (text, flag) in
            [("dns-ttl = \"5\"", "--dns-ttl"), ("dns-domain = \"a b\"", "--dns-domain")]
        {
            assert!(file(text).unwrap_err().to_string().contains(flag), "{text}");
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let file: ServerArgs = toml::from_str("node-id = 3\nname = \"file\"\n").unwrap();
        let flags = ServerArgs { name: Some("flag".into()), ..ServerArgs::default() };
        let config = flags.over(file).check().unwrap();
        assert_eq!((config.node_id, config.name.as_str()), (3, "flag"));
    }

    #[test]
    fn a_datacenter_has_small_letters() {
        let datacenter = Some("EU-West_1".into());
        let args = ServerArgs { datacenter, ..ServerArgs::default() };
        assert_eq!(args.resolve().unwrap().datacenter, "eu-west_1");
    }

    #[test]
    fn other_servers_may_have_blanks_around_them_and_names() {
        let join = vec![" n2.example:8300".to_owned(), "[::1]:8300 ".to_owned()];
        let config = ServerArgs { join, ..ServerArgs::default() }.resolve().unwrap();
        assert_eq!(config.join, ["n2.example:8300", "[::1]:8300"]);
    }

    #[test]
    fn clients_and_servers_need_two_ports() {
        let at = |port| Some(loopback(port).into());
        let args = ServerArgs { http_addr: at(8300), ..ServerArgs::default() };
        let refused = args.resolve().unwrap_err().to_string();
        assert!(
            refused.contains("--http-addr and --rpc-addr are both 127.0.0.1:8300"),
            "{refused}"
        );
    }

    #[test]
    fn an_unknown_key_in_the_file_is_an_error() {
        assert!(toml::from_str::<ServerArgs>("nod-id = 3").is_err());
    }

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        server: ServerArgs,
    }

    #[test]
    fn names_are_kept_for_others_and_blanks_after_commas_do_not_count() {
        let flags =
            ["server", "--rpc-addr", "localhost:8301", "--join", "n1.example:8300, n2:1 ,,[::1]:2"];
        let config = <Flags as clap::Parser>::parse_from(flags).server.resolve().unwrap();
        assert_eq!(config.advertised.rpc.to_string(), "localhost:8301");
        assert!(config.rpc_addr.ip().is_loopback());
        assert_eq!(config.agent_name, "quorate");
        assert_eq!(config.join, ["n1.example:8300", "n2:1", "[::1]:2"]);
        for file in ["join = \"n1:1, n2:2\"", "join = [\"n1:1\", \" n2:2 \"]"] {
            let file: ServerArgs = toml::from_str(file).unwrap();
            assert_eq!(file.check().unwrap().join, ["n1:1", "n2:2"]);
        }
        let portless: ServerArgs = toml::from_str("rpc-addr = \"127.0.0.1:0\"").unwrap();
        assert!(portless.check().unwrap_err().to_string().contains("--rpc-addr must name a port"));
        let unspecified: ServerArgs = toml::from_str("rpc-addr = \"0.0.0.0:1\"").unwrap();
        assert!(unspecified.check().is_err());
        let no_port: ServerArgs = toml::from_str("join = \"n1\"").unwrap();
        assert!(no_port.check().unwrap_err().to_string().contains("--join"));
    }

    #[test]
    fn others_are_told_an_address_to_which_one_can_connect() {
        let told = |flags: &[&str]| {
            let flags = ["server", "--rpc-addr", "127.0.0.9:8300"].iter().chain(flags);
            let config = <Flags as clap::Parser>::parse_from(flags).server.resolve().unwrap();
            (config.http_addr.to_string(), config.advertised.http.to_string())
        };
        let pair = |listens: &str, told: &str| (listens.to_owned(), told.to_owned());
        assert_eq!(told(&[]), pair("127.0.0.1:8500", "127.0.0.1:8500"));
        let all = ["--http-addr", "0.0.0.0:8501"];
        assert_eq!(told(&all), pair("0.0.0.0:8501", "127.0.0.9:8501"));
        assert_eq!(told(&["--http-addr", "[::]:8501"]), pair("[::]:8501", "127.0.0.9:8501"));
        let given = [all[0], all[1], "--http-advertise", "n1.example:80"];
        assert_eq!(told(&given), pair("0.0.0.0:8501", "n1.example:80"));
        let file: ServerArgs =
            toml::from_str("http-advertise = \"n2:1\"\nui-host = [\"a.example\", \"b\"]").unwrap();
        let config = file.check().unwrap();
        assert_eq!(config.advertised.http.to_string(), "n2:1");
        assert_eq!(config.hosts, ["a.example", "b"]);
    }

    #[test]
    fn variables_that_look_like_settings_and_are_none_are_named() {
        let names = ["PATH", "QUORATE_SERVER_JOIN", "QUORATE_SERVER_JION", "QUORATE_SERVER_CONFIG"];
        let of_kubernetes = ["QUORATE_SERVER_SERVICE_HOST", "QUORATE_SERVER_PORT_8500_TCP"];
        let names = names.into_iter().chain(of_kubernetes).map(OsString::from);
        assert_eq!(unknown_settings(names), ["QUORATE_SERVER_JION"]);
    }

    #[test]
    fn nonsense_is_refused_with_the_flags_name() {
        let refused = |args: ServerArgs| args.resolve().unwrap_err().to_string();
        let rpc_addr: Option<HostPort> = Some("0.0.0.0:8300".parse().unwrap());
        assert!(refused(ServerArgs { rpc_addr, ..ServerArgs::default() }).contains("--rpc-addr"));
        let node_id = Some(0);
        assert!(refused(ServerArgs { node_id, ..ServerArgs::default() }).contains("--node-id"));
        let datacenter = Some("eu.west".into());
        assert!(
            refused(ServerArgs { datacenter, ..ServerArgs::default() }).contains("--datacenter")
        );
        let join = vec!["n2".into()];
        assert!(refused(ServerArgs { join, ..ServerArgs::default() }).contains("--join"));
        let name = Some("a b".into());
        assert!(refused(ServerArgs { name, ..ServerArgs::default() }).contains("--name"));
        let raft_snapshot_threshold = Some(0);
        assert!(
            refused(ServerArgs { raft_snapshot_threshold, ..ServerArgs::default() })
                .contains("--raft-snapshot-threshold")
        );
        for address in ["0.0.0.0:8500", "[::]:8500", "n1.example:0"] {
            let http_advertise: Option<HostPort> = Some(address.parse().unwrap());
            let said = refused(ServerArgs { http_advertise, ..ServerArgs::default() });
            assert!(said.contains("--http-advertise must name"), "{said}");
        }
        for name in ["http://n1.example", "n1.example:8500", "*", "a b", "n1/ui"] {
            let ui_host = vec![name.to_owned()];
            let said = refused(ServerArgs { ui_host, ..ServerArgs::default() });
            assert!(said.contains("--http-allow-host"), "{said}");
        }
        let hold_timeout = Some("7 parsecs".into());
        assert!(
            refused(ServerArgs { hold_timeout, ..ServerArgs::default() })
                .contains("--hold-timeout")
        );
    }
}
