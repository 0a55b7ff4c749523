//! The process around a node: directories, listeners, signals.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use futures_util::future::{join, join_all};
use nix::sys::stat::{Mode, umask};
use quorate_storage::data_dir::DataDir;
use quorate_storage::log_store::LogStore;
use quorate_storage::raft::BootId;
use quorate_storage::snapshot::FileSnapshots;
use quorate_storage::state::LEVEL;
use uuid::Uuid;

use crate::checks::CheckOutput;
use crate::dns::settings::DnsSettings;
use crate::dns::{Dns, udp};
use crate::host::clock::Clock;
use crate::host::disk;
use crate::host::durations::Stopwatch;
use crate::host::listen::{DnsSockets, Listen, Listener, Listeners, bind_all, texts};
use crate::host::log_stream::{LevelHandle, Logs};
use crate::host::per_client::PerClient;
use crate::host::resources::BUDGET;
use crate::host::service_manager;
use crate::host::supervise::{Supervisor, watch_panics};
use crate::host::threads::ClientThreads;
use crate::host::tls::ends::Ends;
use crate::http::closing::Closing;
use crate::http::process::{ApiLimits, Process, Reload};
use crate::http::{self, Api};
use crate::node::{Node, NodeParts, NodeSettings};
use crate::process::agent_requests::AgentRequests;
use crate::process::certificates::Certificates;
use crate::process::config::ServerConfig;
use crate::process::consul_agent::anti_entropy::Withdrawn;
use crate::process::consul_agent::files::Sources;
use crate::process::consul_agent::registrar::Registrar;
use crate::process::consul_agent::registry::Registry;
use crate::process::dns_listener;
use crate::process::initial_management;
use crate::process::rpc_listener::{self, Port};
use crate::process::signals::{Signals, reload_on_hangup, survive_signals};
use crate::raft::compaction;
use crate::raft::http_transport::HttpTransport;
use crate::raft::identity::Identity;
use crate::raft::rpc_server;

/// The permissions of everybody but the owner.
const OTHERS: u32 = 0o077;
/// After a stop was asked for, requests that are under way get this long.
const DRAIN_MAX: Duration = Duration::from_secs(6);
/// After a failure no write can complete any more: only answers that are being written are waited for.
const DRAIN_AFTER_FAILURE_MAX: Duration = Duration::from_millis(500);

impl Identity for DataDir {
    fn store_id(&self) -> String {
        Self::store_id(self)
    }

    fn boots(&self) -> u64 {
        Self::boots(self)
    }

    fn cluster_id(&self) -> Option<String> {
        Self::cluster_id(self)
    }

    fn adopt_cluster(&self, id: &str) -> io::Result<()> {
        Self::adopt_cluster(self, id).map_err(io::Error::other)
    }

    fn condemn(&self, why: &str) -> io::Result<()> {
        Self::condemn(self, why).map_err(io::Error::other)
    }
}

/// Runs a server until it is told to stop, or fails.
///
/// # Errors
/// When an address is taken, the data directory cannot be used, the cluster refuses this server, or
/// the disk fails. Nothing that was acknowledged is lost by any of these.
pub async fn run(config: ServerConfig, surroundings: Surroundings) -> io::Result<()> {
    let user_signals = survive_signals()?;
    http::limits::set(config.http_limits);
    // Listeners first: a second server on the same addresses must not touch the data directory.
    let listeners = surroundings.listeners.clone().unwrap_or_else(|| listeners_of(&config));
    let [http_listeners, https_listeners, rpc_listeners] = bind(&listeners)?;
    let dns_sockets = dns_listener::bind(&listeners)?;
    let certificates = Certificates::of_server(&config)?;
    // What is written from here on is for its owner alone: it holds what clients stored. (Sockets in the
    // file system have their own permissions.)
    umask(Mode::from_bits_truncate(OTHERS));
    let fresh_store_id = Uuid::new_v4().to_string();
    let data_dir = DataDir::open(&config.data_dir, config.node_id, fresh_store_id);
    let data_dir = Arc::new(data_dir.map_err(io::Error::other)?);
    let log = LogStore::open(&data_dir).map_err(io::Error::other)?;
    let monitor = log.monitor();
    let snapshots = Arc::new(FileSnapshots::open(data_dir.snapshot_dir())?);
    let parts = NodeParts {
        log,
        snapshots,
        transport: Arc::new(HttpTransport::new(
            config.rpc_listen_addr.ip(),
            certificates.members(),
        )),
        clock: Clock::monotonic(),
        identity: Arc::clone(&data_dir) as _,
    };
    let (node, service) = Node::start(settings(&config, surroundings.check_output), parts).await?;
    // Before anybody can see it serve: whoever does may ask it to stop.
    let mut signals = Signals::listen(user_signals)?;
    log_start(&config, &listeners, &dns_listener::texts(&dns_sockets), &data_dir);
    let closing = Closing::default();
    let tasks = node.supervisor();
    watch_panics(tasks);
    let compacting = compaction::run(node.raft().clone(), monitor.clone(), Clock::monotonic());
    tasks.vital("compaction", compacting);
    tasks.vital("watching certificates", certificates.clone().watch(Clock::monotonic()));
    let dns_addrs = dns_sockets.iter().map(|sockets| sockets.address).collect();
    let process = process(&node, &config, surroundings, dns_addrs, certificates.ends());
    let syncs = Stopwatch::new(Clock::monotonic(), process.log_syncs.clone());
    monitor.observe_syncs(Arc::new(syncs));
    let disk = disk::watch(Arc::clone(&data_dir), Arc::clone(&process.disk), Clock::monotonic());
    tasks.vital("watching the disk", disk);
    let api = Api::new(&node, Arc::clone(&process));
    let agents = AgentRequests::new(node.stopping().clone());
    let routes = rpc_server::router(service).fallback(agents.routes(api.clone()));
    serve_servers(rpc_listeners, &routes, &process, &certificates, tasks);
    let counts = PerClient::new(config.http_limits.connections_of_one_max());
    let clients = ClientThreads::start().await?;
    serve_names(dns_sockets, &process, tasks, &clients)?;
    let http = certificates.doors(http_listeners, https_listeners).map(|door| {
        let (counts, connections) = (counts.clone(), Arc::clone(&process.connections));
        let closing = closing.clone();
        let serving = http::server::serve(api.clone(), door, counts, connections, closing);
        tasks.vital_on(&clients.handle(), "an HTTP listener", serving)
    });
    let http = join_all(http.collect::<Vec<_>>());
    service_manager::serving();
    let ended = live(&node, process.reload.as_ref(), &certificates, &mut signals).await;
    service_manager::stopping();
    let drain_max = if ended.is_ok() { DRAIN_MAX } else { DRAIN_AFTER_FAILURE_MAX };
    let drained = async {
        let both = join(http, agents.drained());
        if tokio::time::timeout(drain_max, both).await.is_err() {
            tracing::warn!("some requests were still in progress");
        }
    };
    tokio::join!(node.begin_stop(closing.close()), drained);
    node.end().await;
    let closed = monitor.close().await;
    tracing::info!("stopped");
    ended.and(closed)
}

/// Answers DNS, if it is to.
fn serve_names(
    sockets: Vec<DnsSockets>,
    process: &Process,
    tasks: &Supervisor,
    clients: &ClientThreads,
) -> io::Result<()> {
    let Some(dns) = &process.dns else { return Ok(()) };
    dns_listener::serve(sockets, dns, dns.metrics(), udp::TASKS, (tasks, &clients.handle()))
}

/// Listens for clients without and with TLS, and for servers.
fn bind(listeners: &Listeners) -> io::Result<[Vec<Listener>; 3]> {
    let Listeners { http, https, rpc, .. } = listeners;
    Ok([
        bind_all(http, listeners.http_setting)?,
        bind_all(https, listeners.https_setting)?,
        bind_all(rpc, listeners.rpc_setting)?,
    ])
}

/// Serves other servers and client agents.
fn serve_servers(
    listeners: Vec<Listener>,
    routes: &Router,
    process: &Process,
    certificates: &Certificates,
    tasks: &Supervisor,
) {
    for listener in listeners {
        let port = Port::new(routes.clone(), certificates.members());
        let connections = Arc::clone(&process.rpc_connections);
        tasks.vital("an RPC listener", rpc_listener::serve(listener, port, connections));
    }
}

/// Who this is, for whoever reads the log of a server that did not start as it was meant to.
fn log_start(config: &ServerConfig, listeners: &Listeners, dns: &str, data_dir: &DataDir) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        id = config.node_id,
        name = %config.name,
        directory = %data_dir.path().display(),
        cluster = data_dir.cluster_id().as_deref().unwrap_or("none yet"),
        datacenter = %config.datacenter,
        http = %texts(&listeners.http),
        https = %texts(&listeners.https),
        rpc = %config.rpc_addr,
        rpc_listen = %texts(&listeners.rpc),
        dns = %dns,
        descriptors = BUDGET.descriptors,
        boots = data_dir.boots(),
        "started"
    );
}

/// What a server is given beside its settings.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// Its log.
    pub logs: Logs,
    /// Headers for every answer.
    pub response_headers: HeaderMap,
    /// Files that define services and checks of its own host.
    pub sources: Sources,
    /// Where it listens, if not where its settings say.
    pub listeners: Option<Listeners>,
    /// What its API allows.
    pub limits: ApiLimits,
    /// What is kept of checks' outputs.
    pub check_output: CheckOutput,
    /// Changes the level of its log.
    pub level: LevelHandle,
    /// How DNS is served, if not as its settings say.
    pub dns: Option<DnsSettings>,
}

/// What the API sees of the process. Also keeps the definitions of files registered from now on, and makes the
/// management token that the settings name.
fn process(
    node: &Arc<Node>,
    config: &ServerConfig,
    surroundings: Surroundings,
    dns_addrs: Vec<SocketAddr>,
    certificates: Ends,
) -> Arc<Process> {
    let Surroundings { logs, response_headers, sources, limits, level, dns, .. } = surroundings;
    let acl = config.acl;
    let dns = Dns::new(node, dns.unwrap_or_else(|| config.dns.clone()), acl);
    let (reload, requests) = Reload::new();
    let data_dir = config.data_dir.clone();
    let has_files = !sources.is_empty();
    let registry = Registry::Here(Arc::clone(node));
    let withdrawn = Withdrawn::default();
    let registrar = Registrar {
        registry,
        sources,
        data_dir: data_dir.clone(),
        level,
        withdrawn,
        node_id: None,
    };
    if has_files {
        let keeping = async move { match registrar.keep(requests).await {} };
        node.supervisor().vital("the definitions of files", keeping);
    }
    if let Some(secret) = acl.and_then(|control| control.initial_management) {
        let maker = Arc::clone(node);
        let making = async move { initial_management::make(&maker, secret).await };
        node.supervisor().finite("making a management token", making);
    }
    let (reload, data_dir) = (has_files.then_some(reload), Some(data_dir));
    let (hosts, worker_key) = (config.hosts.clone(), config.worker_key.clone());
    let dns = Some(Arc::new(dns));
    Arc::new(Process {
        logs,
        data_dir,
        reload,
        response_headers,
        hosts,
        worker_key,
        limits,
        rpc_port: config.rpc_security.port(),
        certificates,
        dns,
        dns_addrs,
        acl,
        ..Process::default()
    })
}

/// Returns when the server is to end: told to, refused by the cluster, or failed.
async fn live(
    node: &Arc<Node>,
    reload: Option<&Reload>,
    certificates: &Certificates,
    signals: &mut Signals,
) -> io::Result<()> {
    let Signals { stops, hangups } = signals;
    let entering = async {
        node.enter_cluster().await.map_err(io::Error::other)?;
        std::future::pending::<io::Result<()>>().await
    };
    tokio::select! {
        _ = stops.asked() => Ok(()),
        refused = entering => refused,
        never = reload_on_hangup(reload, certificates, hangups) => match never {},
        reason = node.failed() => Err(io::Error::other(reason)),
    }
}

/// Where `quorate server` listens.
fn listeners_of(config: &ServerConfig) -> Listeners {
    let is_direct = config.rpc_listen_addr == config.rpc_addr;
    Listeners {
        http: vec![Listen::Tcp(config.http_addr)],
        http_setting: "--http-addr",
        https: config.https.iter().map(|https| Listen::Tcp(https.address)).collect(),
        https_setting: "--https-addr",
        rpc: vec![Listen::Tcp(config.rpc_listen_addr)],
        rpc_setting: if is_direct { "--rpc-addr" } else { "--rpc-listen-addr" },
        dns: config.dns_addr.into_iter().collect(),
        dns_setting: (!config.is_dns_by_default).then_some("--dns-addr"),
    }
}

fn settings(config: &ServerConfig, check_output: CheckOutput) -> NodeSettings {
    NodeSettings {
        id: config.node_id,
        name: config.name.clone(),
        datacenter: config.datacenter.clone(),
        rpc_addr: config.rpc_addr,
        log_limits: config.log_limits,
        http_addr: config.http_addr,
        advertised: config.advertised.clone(),
        agent_name: config.agent_name.clone(),
        hold_timeout: config.hold_timeout,
        bootstrap_expect: config.bootstrap_expect,
        join: config.join.clone(),
        fresh_cluster_id: Uuid::new_v4().to_string(),
        check_output,
        check_policy: config.check_policy.clone(),
        remarks: config.remarks.clone(),
        is_alone_by_default: config.is_alone_by_default,
        boot: BootId(Uuid::new_v4().into_bytes()),
        level: LEVEL,
    }
}
