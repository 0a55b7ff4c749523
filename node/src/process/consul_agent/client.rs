//! `quorate agent` without `server`: a client agent, which keeps no state.
//!
//! It answers Consul's HTTP API on its own host by handing each request to a server, in the name of its
//! own node: so what is registered here belongs to this host, whichever server is asked. It keeps its
//! node, and the services and checks of its files, registered.
//!
//! It says every few seconds that it lives. When it is silent its node's `serfHealth` turns critical, in
//! cluster time, and the node's sessions end; when it is told to stop it leaves.
//!
//! Active checks are run by the cluster's workers, also those that are registered here.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode};
use futures_util::future::join_all;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::anti_entropy::{Withdrawn, deregistered};
use super::configuration::AgentTokens;
use super::datacenter::agree;
use super::dns_front::DnsFront;
use super::ending;
use super::files::Sources;
use super::name;
use super::registrar::Registrar;
use super::registry::{self, Registry};
use super::servers::{Introduction, Servers};
use crate::dns::metrics::DnsMetrics;
use crate::dns::udp;
use crate::host::clock::Clock;
use crate::host::listen::{DnsSockets, Listen, Listeners, bind_all, texts};
use crate::host::log_stream::LevelHandle;
use crate::host::per_client::PerClient;
use crate::host::stopping::Stopping;
use crate::host::supervise::{Supervisor, watch_panics};
use crate::host::tls::members::Members;
use crate::http::closing::Closing;
use crate::http::connections::Connections;
use crate::http::process::{Reload, ReloadRequest};
use crate::http::server::{Answerer, serve};
use crate::http::span_of_trace;
use crate::process::certificates::Certificates;
use crate::process::config::ServerConfig;
use crate::process::dns_listener;
use crate::process::signals::{Signals, Stop, reload_on_hangup, survive_signals};

/// Leaving takes this long at most: whoever sent the signal may send the next one soon.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a client agent runs with.
#[derive(Debug)]
pub struct ClientSettings {
    /// Its name, and its node's.
    pub name: String,
    /// RPC addresses of servers, `HOST:PORT`.
    pub servers: Vec<String>,
    /// The servers' datacenter, if the configuration names one.
    pub datacenter: Option<String>,
    /// Address of its node, if the configuration names one: else the one that the servers see.
    pub advertised: Option<IpAddr>,
    /// The tokens that it sends.
    pub tokens: AgentTokens,
    /// Where it listens.
    pub listeners: Listeners,
    /// Its configuration.
    pub sources: Sources,
    /// Where it remembers what it registered.
    pub data_dir: PathBuf,
    /// Connections from one IP address.
    pub connections_per_client: Option<usize>,
    /// Changes the level of its log.
    pub level: LevelHandle,
    /// Which signals make it leave.
    pub leave: LeaveOn,
    /// The settings of its certificates, among those of servers.
    pub config: ServerConfig,
}

/// Which signals make a client agent leave the cluster, with all that is registered on its node, before it
/// ends. After another one its node turns critical.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaveOn {
    /// SIGTERM does (`leave_on_terminate`).
    pub terminate: bool,
    /// SIGINT does (`skip_leave_on_interrupt` says that it does not).
    pub interrupt: bool,
}

/// What answers a client agent's clients; cheap to clone.
#[derive(Debug, Clone)]
struct Front {
    servers: Arc<Servers>,
    reload: Reload,
    withdrawn: Withdrawn,
    leaving: CancellationToken,
    stopping: Stopping,
}

/// Runs a client agent until it is told to stop, or leaves.
///
/// # Errors
/// When an address is taken, or signals cannot be received.
pub async fn run(settings: ClientSettings) -> io::Result<()> {
    let user_signals = survive_signals()?;
    let dns_sockets = dns_listener::bind(&settings.listeners)?;
    let certificates = Certificates::of_agent(&settings.config)?;
    let servers = servers_of(&settings, dns_sockets.first(), certificates.members())?;
    let servers = Arc::new(servers);
    let ClientSettings { name, datacenter, listeners, sources, data_dir, level, leave, .. } =
        settings;
    let counts = PerClient::new(settings.connections_per_client);
    // Before anybody can see it serve: whoever does may ask it to stop.
    let Signals { mut stops, mut hangups } = Signals::listen(user_signals)?;
    let plain = bind_all(&listeners.http, listeners.http_setting)?;
    let secured = bind_all(&listeners.https, listeners.https_setting)?;
    tracing::info!(
        %name,
        http = %texts(&listeners.http),
        dns = %dns_listener::texts(&dns_sockets),
        servers = %settings.servers.join(" "),
        version = env!("CARGO_PKG_VERSION"),
        "started as a client agent: requests go to the servers"
    );
    let (reload, requests) = Reload::new();
    let registry = Registry::Through { servers: Arc::clone(&servers), name };
    let withdrawn = Withdrawn::default();
    let configured = sources.reload().map_err(io::Error::other)?.description.id;
    let node_id = configured.map_or_else(|| name::id_in(&data_dir), Ok)?;
    let (node_id, withdrawn_here) = (Some(node_id), withdrawn.clone());
    let registrar =
        Registrar { registry, sources, data_dir, level, withdrawn: withdrawn_here, node_id };
    let (leaving, closing) = (CancellationToken::new(), Closing::default());
    let stopping = Stopping::new(Clock::monotonic());
    let front = Front {
        servers: Arc::clone(&servers),
        reload: reload.clone(),
        withdrawn,
        leaving: leaving.clone(),
        stopping: stopping.clone(),
    };
    let (supervisor, connections) = (Supervisor::default(), Arc::new(Connections::default()));
    watch_panics(&supervisor);
    supervisor.vital("watching certificates", certificates.clone().watch(Clock::monotonic()));
    let http = certificates.doors(plain, secured).map(|door| {
        let (counts, connections) = (counts.clone(), Arc::clone(&connections));
        let serving = serve(front.clone(), door, counts, connections, closing.clone());
        supervisor.vital("an HTTP listener", serving)
    });
    let http = join_all(http.collect::<Vec<_>>());
    let (front, metrics) = (DnsFront(Arc::clone(&servers)), DnsMetrics::default());
    let owner = (&supervisor, &Handle::current());
    dns_listener::serve(dns_sockets, &front, &metrics, udp::FORWARDING_TASKS, owner)?;
    let ended = tokio::select! {
        stop = stops.asked() => Ok(Some(stop)),
        reason = supervisor.failed() => Err(io::Error::other(reason)),
        () = leaving.cancelled() => Ok(None),
        never = reload_on_hangup(Some(&reload), &certificates, &mut hangups) => match never {},
        other = register(registrar, &servers, datacenter, requests) => Err(other),
        never = servers.keep_known() => match never {},
    };
    supervisor.begin_stop();
    closing.close().await;
    // A client whose long poll ends asks again at once, and must find that nobody listens here any more.
    stopping.begin();
    // Nothing says any more that it lives, or registers anything.
    if let Ok(Some(stop)) = &ended
        && leave.is_on(*stop)
    {
        leave_cluster(&servers).await;
    }
    http.await;
    tracing::info!("stopped");
    ended.map(drop)
}

/// The servers that the settings name, and what they are to know of this agent.
fn servers_of(
    settings: &ClientSettings,
    dns: Option<&DnsSockets>,
    tls: Option<Members>,
) -> io::Result<Servers> {
    let served_at = settings.listeners.http.iter().find_map(Listen::tcp);
    let served_at = served_at.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
    let text = |text: &str| HeaderValue::from_str(text).map_err(io::Error::other);
    let secret = |secret: &str| -> io::Result<HeaderValue> {
        let mut value = text(secret)?;
        value.set_sensitive(true);
        Ok(value)
    };
    let own = Introduction {
        agent: text(&settings.name)?,
        served_at: text(&served_at.to_string())?,
        dns_at: dns.map(|sockets| text(&sockets.address.to_string())).transpose()?,
        advertised: settings.advertised.map(|ip| text(&ip.to_string())).transpose()?,
        token: settings.tokens.default.as_deref().map(secret).transpose()?,
        own_token: settings.tokens.agent.as_deref().map(secret).transpose()?,
    };
    Ok(Servers::new(settings.servers.clone(), own, tls))
}

/// Keeps what the configuration says registered. Returns only if the servers are of another datacenter, or another
/// agent has the name.
async fn register(
    registrar: Registrar,
    servers: &Servers,
    datacenter: Option<String>,
    mut requests: mpsc::Receiver<ReloadRequest>,
) -> io::Error {
    if let Some(own) = datacenter
        && let Err(other) = agree(servers, &own, &mut requests).await
    {
        return io::Error::other(other);
    }
    if let Some(id) = &registrar.node_id
        && let Err(taken) = name::claim(servers, id, &mut requests).await
    {
        return io::Error::other(taken);
    }
    match registrar.keep(requests).await {}
}

impl LeaveOn {
    const fn is_on(self, stop: Stop) -> bool {
        match stop {
            Stop::Interrupt => self.interrupt,
            Stop::Terminate => self.terminate,
        }
    }
}

/// Takes this agent's node out of the cluster. If that fails the node turns critical in time.
async fn leave_cluster(servers: &Servers) {
    let asking = registry::ask(servers, Method::PUT, "/v1/agent/leave", &Value::Null);
    match tokio::time::timeout(LEAVE_TIMEOUT, asking).await {
        Ok(Ok((200, _))) => tracing::info!("left the cluster"),
        Ok(Ok((_, why)) | Err(why)) => tracing::warn!(%why, "did not leave the cluster"),
        Err(_) => tracing::warn!(why = "timed out", "did not leave the cluster"),
    }
}

impl Answerer for Front {
    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let span = span_of_trace(request.headers());
        self.answer_within_trace(request).instrument(span).await
    }
}

impl Front {
    async fn answer_within_trace(
        self,
        request: Request<Body>,
    ) -> Result<Response<Body>, Infallible> {
        let is_put = request.method() == Method::PUT;
        match request.uri().path() {
            "/livez" => Ok(Response::new(Body::from("ok\n"))),
            "/v1/agent/reload" if is_put => Ok(match self.reload.run().await {
                Ok(()) => Response::new(Body::empty()),
                Err(why) => {
                    let mut answer = Response::new(Body::from(why));
                    *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                    answer
                }
            }),
            "/v1/agent/leave" if is_put => {
                let answer = self.servers.forward(request).await;
                if answer.status().is_success() {
                    self.leaving.cancel();
                }
                Ok(answer)
            }
            _ => {
                let deregistered = deregistered(&request);
                let answer = ending::forward(&self.servers, request, &self.stopping).await;
                if answer.status().is_success() {
                    deregistered.into_iter().for_each(|id| self.withdrawn.add(id));
                }
                Ok(answer)
            }
        }
    }
}
