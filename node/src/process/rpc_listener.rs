//! Accepts connections from other servers and from client agents, and serves them.
//!
//! axum's own server sets no limit on connections; [`crate::raft::rpc_connections`] has the rules, for
//! handshakes too.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio_util::either::Either;
use tower::ServiceExt as _;

use crate::checks::runner::WORKER_HEADER;
use crate::host::clock::Clock;
use crate::host::listen::{Listener, Stream};
use crate::host::log_rate::LogRate;
use crate::host::supervise::{Contained, contained};
use crate::host::tls::members::Members;
use crate::host::tls::{Accepted, failure};
use crate::raft::rpc_connections::{Caller, RpcConnections};

/// How long to wait when no connection can be accepted, as when the system has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time between two lines that say so.
const ACCEPT_LINE_EVERY: Duration = Duration::from_secs(1);

/// Below this path are the messages of servers.
const RPC_PATHS: &str = "/rpc/";

/// Time between two lines that say who was refused.
const STRANGER_LINE_EVERY: Duration = Duration::from_secs(1);

/// What all connections of a listener share.
#[derive(Debug)]
pub(super) struct Port {
    builder: auto::Builder<Contained>,
    routes: Router,
    tls: Option<Members>,
    strangers: LogRate,
}

/// Serves other servers; never ends.
pub(super) async fn serve(listener: Listener, port: Port, connections: Arc<RpcConnections>) {
    let lines = LogRate::new(Clock::monotonic(), ACCEPT_LINE_EVERY);
    let port = Arc::new(port);
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let served = serve_one(Arc::clone(&port), stream, from, connections.admit());
                drop(contained("an RPC connection", served));
            }
            Err(error) => pause(&lines, &error).await,
        }
    }
}

async fn serve_one(port: Arc<Port>, stream: Stream, from: SocketAddr, caller: Caller) {
    let stream = tokio::select! {
        proved = port.prove(stream, from, &caller) => proved,
        () = caller.must_go() => {
            return tracing::debug!(%from, "closed an RPC connection that did not complete a handshake");
        }
    };
    if let Some(stream) = stream {
        answer(&port, stream, from, caller).await;
    }
}

impl Port {
    /// Where these routes are served; with credentials, only to those that have some themselves.
    pub(super) fn new(routes: Router, tls: Option<Members>) -> Self {
        let strangers = LogRate::new(Clock::monotonic(), STRANGER_LINE_EVERY);
        Self { builder: auto::Builder::new(Contained), routes, tls, strangers }
    }

    /// Carries out the handshake. Nothing is answered to a stranger; the operator is told.
    async fn prove(&self, stream: Stream, from: SocketAddr, caller: &Caller) -> Option<Accepted> {
        let Some(members) = &self.tls else { return Some(Either::Left(stream)) };
        match members.accept(stream).await {
            Ok((stream, holder)) => {
                caller.prove(holder);
                Some(stream)
            }
            // A follower keeps a connection only to see its end.
            Err(error) if failure::is_hang_up(&error) => {
                tracing::debug!(%from, %error, "an RPC connection ended during its handshake");
                None
            }
            Err(error) => {
                let why = failure::of_io(&error).unwrap_or_else(|| error.to_string());
                if let Some(not_logged) = self.strangers.pass() {
                    tracing::warn!(%from, %why, not_logged, "refused a connection to the RPC port");
                }
                None
            }
        }
    }
}

async fn answer(port: &Port, stream: Accepted, from: SocketAddr, caller: Caller) {
    let (caller, routes) = (Arc::new(caller), port.routes.clone());
    let of_this = Arc::clone(&caller);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(from));
        request.extensions_mut().insert(Arc::clone(&of_this));
        let routes = routes.clone();
        async move {
            if is_of_a_check(&request) {
                let text = "no check may send messages of servers";
                return Ok((StatusCode::FORBIDDEN, text).into_response());
            }
            routes.oneshot(request).await
        }
    });
    let served = port.builder.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        ended = served => if let Err(error) = ended {
            tracing::debug!(%from, %error, "an RPC connection ended early");
        },
        () = caller.must_go() => tracing::debug!(%from, "closed an RPC connection that sent no message"),
    }
}

/// Whether a check sends a request to where only servers do. Other requests here are those of clients of an agent.
fn is_of_a_check<B>(request: &Request<B>) -> bool {
    request.uri().path().starts_with(RPC_PATHS) && request.headers().contains_key(WORKER_HEADER)
}

async fn pause(lines: &LogRate, error: &io::Error) {
    if let Some(not_logged) = lines.pass() {
        tracing::warn!(%error, not_logged, "cannot accept an RPC connection");
    }
    tokio::time::sleep(ACCEPT_PAUSE).await;
}
