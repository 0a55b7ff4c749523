//! Accepts connections and serves the API on them: HTTP/1.1 and h2c on one port.
//!
//! Header names go out in Go's letter case (`X-Consul-Index`), because scripts look for them so;
//! that is why axum's own server is not used. Every connection is a task that ends with the server.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

use super::Api;
use super::drain::Drained;
use super::per_client::{Counted, PerClient};
use crate::listen::{Listener, Stream};

/// How long a client may take to send the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);

/// How many requests one HTTP/2 connection may have open: long polls count.
const MAX_STREAMS: u32 = 10_000;

/// How long requests that are being answered may go on once the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait when no connection can be accepted, as when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What answers requests; cheap to clone.
pub trait Answerer: Clone + Send + Sync + 'static {
    /// Answers one. The caller's address is among the request's extensions, as a [`SocketAddr`].
    fn answer(
        self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response, Infallible>> + Send;
}

impl Answerer for Api {
    async fn answer(self, request: Request<Body>) -> Result<Response, Infallible> {
        Ok(Self::answer(&self, request).await)
    }
}

/// The answer to a connection too many.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
/// How long that answer may take to be written.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves the API until `stopping` is cancelled; then accepts nothing more, lets requests end (long
/// polls end at once) and closes idle connections.
pub async fn serve(
    api: impl Answerer,
    listener: Listener,
    counts: PerClient,
    stopping: CancellationToken,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .title_case_headers(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS);
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, caller)) => match counts.open(caller.ip()) {
                Some(counted) => connection(&api, &builder, &graceful, stream, caller, counted),
                None => refuse(stream, caller),
            },
            Err(error) => pause(&error).await,
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still being answered when the server stopped");
    }
}

/// Serves one connection in a task of its own.
fn connection(
    api: &impl Answerer,
    builder: &auto::Builder<TokioExecutor>,
    graceful: &GracefulShutdown,
    stream: Stream,
    caller: SocketAddr,
    counted: Option<Counted>,
) {
    let api = api.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let api = api.clone();
        async move {
            request.extensions_mut().insert(caller);
            let request = Drained::wrap(request).map(Body::new);
            api.answer(request).await
        }
    });
    let served = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    let served = graceful.watch(served);
    tokio::spawn(async move {
        let _counted = counted;
        if let Err(error) = served.await {
            // Clients hang up whenever they like.
            tracing::debug!(%caller, %error, "connection ended early");
        }
    });
}

/// Tells a client that it has too many connections.
fn refuse(mut stream: Stream, caller: SocketAddr) {
    tracing::debug!(%caller, "this client has as many connections as limits.http_max_conns_per_client allows");
    tokio::spawn(async move {
        // A client that hangs up instead of reading this knows enough.
        let _ = tokio::time::timeout(REFUSAL_TIMEOUT, stream.write_all(TOO_MANY)).await;
    });
}

/// A failed accept is the peer's hanging up, or a shortage that may pass.
async fn pause(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}
