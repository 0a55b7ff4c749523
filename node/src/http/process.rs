//! What the API may ask of the process around the node.
//!
//! A node in a simulation has no process, so everything here may be absent.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::http::HeaderMap;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, oneshot};

use crate::checks::WorkerKey;
use crate::discovery::access::AccessControl;
use crate::dns::Dns;
use crate::host::disk::Disk;
use crate::host::durations::Durations;
use crate::host::figures::Figure;
use crate::host::log_stream::Logs;
use crate::host::tls::ends::Ends;
use crate::http::connections::Connections;
use crate::raft::rpc_connections::RpcConnections;

/// Reloads that may wait for each other; one more is refused.
const RELOADS_MAX: usize = 4;

/// The process around a node.
#[derive(Debug, Default)]
pub struct Process {
    /// Its log.
    pub logs: Logs,
    /// Where its data is kept.
    pub data_dir: Option<PathBuf>,
    /// Its configuration files, if there are any to read again.
    pub reload: Option<Reload>,
    /// Headers that its operator wants in every answer.
    pub response_headers: HeaderMap,
    /// Names, beside those of the cluster's members, by which it may be asked.
    pub hosts: Vec<String>,
    /// By which worker processes are known; without one they are refused.
    pub worker_key: Option<WorkerKey>,
    /// What its operator allows.
    pub limits: ApiLimits,
    /// The connections of its clients.
    pub connections: Arc<Connections>,
    /// The connections of other servers and of client agents.
    pub rpc_connections: Arc<RpcConnections>,
    /// How the port of those is protected.
    pub rpc_port: RpcPort,
    /// How tokens count; `None`: they do not.
    pub acl: Option<AccessControl>,
    /// How long its certificates are still valid.
    pub certificates: Ends,
    /// The disk with its data.
    pub disk: Arc<Disk>,
    /// How long syncs of its log take.
    pub log_syncs: Durations,
    /// What answers DNS clients.
    pub dns: Option<Arc<Dns>>,
    /// Where it does.
    pub dns_addrs: Vec<SocketAddr>,
}

impl Process {
    /// What `/metrics` tells of the process, beside the node's figures.
    #[must_use]
    pub fn figures(&self) -> Vec<Figure> {
        let mut figures = self.connections.figures();
        figures.extend(self.rpc_connections.figures());
        figures.extend(self.disk.figures());
        figures
    }

    /// Writes for Prometheus how long each certificate is still valid; without TLS, that there is none.
    ///
    /// # Errors
    /// Those of the encoder.
    pub fn encode_certificates(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Whole days for which the certificate is still valid; negative if it has ended.";
        let kind = MetricType::Gauge;
        let mut metric = encoder.encode_descriptor("certificate_days_left", help, None, kind)?;
        for left in self.certificates.left() {
            let labels = CertificateLabels { certificate: left.certificate };
            metric.encode_family(&labels)?.encode_gauge(&left.days)?;
        }
        Ok(())
    }

    /// The same as a text for the API, such as `rpc 9, rpc-ca 3641`; empty without TLS.
    #[must_use]
    pub fn certificate_days(&self) -> String {
        let left = self.certificates.left();
        let texts = left.iter().map(|left| format!("{} {}", left.certificate, left.days));
        texts.collect::<Vec<_>>().join(", ")
    }

    /// Has `/metrics` show what the process counts and measures.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "log_sync_duration_seconds",
            "Time to make what was written to the log durable (fdatasync)",
            self.log_syncs.histogram(),
        );
        if let Some(dns) = &self.dns {
            dns.metrics().register(registry);
        }
    }
}

/// Of which certificate something is said.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabels {
    certificate: &'static str,
}

/// How the port for servers is protected from strangers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RpcPort {
    /// Members have certificates.
    Tls,
    /// Only processes of this machine reach it.
    #[default]
    Loopback,
    /// Not at all.
    Insecure,
}

impl RpcPort {
    /// As the API says it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Loopback => "loopback",
            Self::Insecure => "insecure",
        }
    }
}

/// What an operator allows clients; `None` is what Quorate allows otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ApiLimits {
    /// The shortest TTL of a session, in nanoseconds.
    pub session_ttl_min_nanos: Option<i64>,
    /// The largest value of a key, in bytes.
    pub value_bytes: Option<usize>,
    /// The largest body of a transaction, in bytes.
    pub txn_bytes: Option<usize>,
    /// Connections from one IP address.
    pub connections_per_client: Option<usize>,
}

/// Asks for the configuration files to be read again.
#[derive(Debug, Clone)]
pub struct Reload(mpsc::Sender<ReloadRequest>);

/// A reload that was asked for: the sender waits for what became of it.
pub type ReloadRequest = oneshot::Sender<Result<(), String>>;

impl Reload {
    /// A handle, and where its requests arrive.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<ReloadRequest>) {
        let (sender, receiver) = mpsc::channel(RELOADS_MAX);
        (Self(sender), receiver)
    }

    /// Reads the files again, and returns when what they say holds.
    ///
    /// # Errors
    /// A sentence that says what is wrong with them, or that nobody carried it out.
    pub async fn run(&self) -> Result<(), String> {
        let (sender, done) = oneshot::channel();
        self.0.try_send(sender).map_err(|_| "a reload is already in progress".to_owned())?;
        done.await.unwrap_or_else(|_| Err("this server is stopping".to_owned()))
    }
}
