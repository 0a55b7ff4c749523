//! Accepts connections from other servers and from client agents, and serves them.
//!
//! axum's own server sets no limit on connections; [`crate::raft::rpc_connections`] has the rules.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tower::ServiceExt as _;

use crate::host::clock::Clock;
use crate::host::listen::{Listener, Stream};
use crate::host::log_rate::LogRate;
use crate::host::supervise::{Contained, contained};
use crate::raft::rpc_connections::{Caller, RpcConnections};

/// How long to wait when no connection can be accepted, as when the system has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time between two lines that say so.
const ACCEPT_LINE_EVERY: Duration = Duration::from_secs(1);

/// Serves other servers; never ends.
pub(super) async fn serve(listener: Listener, routes: Router, connections: Arc<RpcConnections>) {
    let lines = LogRate::new(Clock::monotonic(), ACCEPT_LINE_EVERY);
    let builder = auto::Builder::new(Contained);
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let caller = Arc::new(connections.admit());
                let served = serve_one(builder.clone(), stream, from, routes.clone(), caller);
                drop(contained("an RPC connection", served));
            }
            Err(error) => pause(&lines, &error).await,
        }
    }
}

async fn serve_one(
    builder: auto::Builder<Contained>,
    stream: Stream,
    from: SocketAddr,
    routes: Router,
    caller: Arc<Caller>,
) {
    let of_this = Arc::clone(&caller);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(from));
        request.extensions_mut().insert(Arc::clone(&of_this));
        routes.clone().oneshot(request)
    });
    let served = builder.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        ended = served => if let Err(error) = ended {
            tracing::debug!(%from, %error, "an RPC connection ended early");
        },
        () = caller.must_go() => tracing::debug!(%from, "closed an RPC connection that sent no message"),
    }
}

async fn pause(lines: &LogRate, error: &io::Error) {
    if let Some(not_logged) = lines.pass() {
        tracing::warn!(%error, not_logged, "cannot accept an RPC connection");
    }
    tokio::time::sleep(ACCEPT_PAUSE).await;
}
