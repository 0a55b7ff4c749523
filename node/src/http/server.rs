//! Accepts connections and serves the API on them: HTTP/1.1 and h2c on one port, and both over TLS on another.
//!
//! Header names go out in Go's letter case (`X-Consul-Index`), because scripts look for them so;
//! that is why axum's own server is not used. Every connection is a task that ends with the server.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONNECTION, HOST};
use axum::http::{HeaderValue, StatusCode, Version};
use axum::response::Response;
use futures_util::FutureExt as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;
use tokio_io_timeout::TimeoutStream;
use tokio_util::either::Either;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::Api;
use super::budget::WRITE_TIMEOUT;
use super::closing::{CloseSignal, Closing};
use super::connections::{Admission, Connections, Place, is_served_beyond_the_limit};
use super::drain::Drained;
use super::error::ApiError;
use super::hold::{Connection, Watched};
use super::{limits, requests};
use crate::host::clock::Clock;
use crate::host::listen::{BACKLOG, Listener, Stream};
use crate::host::log_rate::LogRate;
use crate::host::per_client::{Counted, PerClient};
use crate::host::supervise::{Contained, contained};
use crate::host::tls::https::Https;
use crate::host::tls::{Accepted, failure};

/// The longest head of a request, and how much of a body is read ahead.
const READ_BUFFER_BYTES_MAX: usize = 128 * 1024;

/// What a client is told that there is no room for.
const NO_ROOM: &str = "this server has as many connections as it can serve (--http-connections), try again later or at \
                       another server";

/// How long a client may take for the handshake of TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it may still take once the server stops.
const LAST_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(1);

/// A client of HTTP/2 that says nothing for so long is asked whether it is there,
const PING_EVERY: Duration = Duration::from_secs(60);
/// and its connection is closed if it has not answered after this time.
const PING_TIMEOUT: Duration = Duration::from_secs(30);

/// How long requests that are being answered may go on once the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection beyond the limit may live: enough for one request and its answer.
const REFUSED_LIFE_MAX: Duration = Duration::from_secs(2);

/// How long to wait when no connection can be accepted, as when the system has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time between two lines that say so.
const ACCEPT_LINE_EVERY: Duration = Duration::from_secs(1);

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

/// HTTP/1.1 wants exactly one `Host` in every request. Go's sentences.
fn check_host<B>(request: &Request<B>) -> Result<(), &'static str> {
    let hosts = request.headers().get_all(HOST).iter().count();
    match hosts {
        0 if request.version() == Version::HTTP_11 => {
            Err("400 Bad Request: missing required Host header")
        }
        2.. => Err("400 Bad Request: too many Host headers"),
        _ => Ok(()),
    }
}

/// The answer to a request that does not name its host as it must. As by Go, what follows on such a
/// connection is not trusted either.
fn hostless(fault: &'static str, version: Version) -> Response {
    let mut response = ApiError::bad_request(fault).into_response();
    // HTTP/2 has no such header.
    if version == Version::HTTP_11 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The answer to a client that has too many connections of its own.
const TOO_MANY: &str = "your address has as many connections to this server as it may have \
                        (--http-connections-per-client, limits.http_max_conns_per_client)";
/// How long that answer may take to be written.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Where clients connect.
#[derive(Debug)]
pub struct Door {
    /// The socket.
    pub listener: Listener,
    /// With TLS.
    pub tls: Option<Arc<Https>>,
}

/// Serves the API until `closing` begins; then accepts nothing more, lets requests end and closes idle
/// connections.
pub async fn serve(
    api: impl Answerer,
    door: Door,
    counts: PerClient,
    connections: Arc<Connections>,
    closing: Closing,
) {
    let Door { listener, tls } = door;
    let (mut close_signal, listening) = closing.listener();
    let server = Arc::new(Server::new(api, tls, counts, connections, close_signal.clone()));
    loop {
        let accepted = tokio::select! {
            () = close_signal.wait() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, caller)) => server.admit(stream, caller),
            Err(error) => server.pause(&error).await,
        }
    }
    let connected = (0..BACKLOG).map_while(|_| listener.accept().now_or_never()?.ok());
    connected.for_each(|(stream, caller)| server.admit(stream, caller));
    drop(listener);
    drop(listening);
    server.open.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, server.open.wait()).await.is_err() {
        tracing::warn!("requests were still being answered when the server stopped");
    }
}

/// What all connections share.
struct Server<A> {
    api: A,
    tls: Option<Arc<Https>>,
    builder: auto::Builder<Contained>,
    close_signal: CloseSignal,
    /// The connections that are open.
    open: TaskTracker,
    counts: PerClient,
    connections: Arc<Connections>,
    accept_lines: LogRate,
    stranger_lines: LogRate,
}

/// What counts a connection while it is open.
struct Held {
    admission: Admission,
    counted: Option<Counted>,
    open: TaskTrackerToken,
}

impl<A: Answerer> Server<A> {
    fn new(
        api: A,
        tls: Option<Arc<Https>>,
        counts: PerClient,
        connections: Arc<Connections>,
        close_signal: CloseSignal,
    ) -> Self {
        let mut builder = auto::Builder::new(Contained);
        builder
            .http1()
            .title_case_headers(true)
            .timer(TokioTimer::new())
            .max_buf_size(READ_BUFFER_BYTES_MAX)
            .header_read_timeout(limits::get().header_timeout);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_concurrent_streams(limits::get().streams);
        let accept_lines = LogRate::new(Clock::monotonic(), ACCEPT_LINE_EVERY);
        let stranger_lines = LogRate::new(Clock::monotonic(), ACCEPT_LINE_EVERY);
        let open = TaskTracker::new();
        Self {
            api,
            tls,
            builder,
            close_signal,
            open,
            counts,
            connections,
            accept_lines,
            stranger_lines,
        }
    }

    fn admit(self: &Arc<Self>, stream: Stream, caller: SocketAddr) {
        let counted = match self.counts.open(caller.ip()) {
            Some(counted) => counted,
            // Words would have to be said through TLS.
            None if self.tls.is_some() => return,
            None => return refuse_client(stream, caller),
        };
        let (admission, open) = (self.connections.admit(), self.open.token());
        if matches!(admission, Admission::Dropped) {
            return;
        }
        let held = Held { admission, counted, open };
        match &self.tls {
            None => self.take(Either::Left(stream), caller, held),
            Some(https) => {
                let (server, https) = (Arc::clone(self), Arc::clone(https));
                drop(contained("a handshake", async move {
                    let secured = tokio::select! {
                        secured = server.secured(&https, stream, caller) => secured,
                        () = held.admission.lost() => None,
                    };
                    if let Some(stream) = secured {
                        server.take(stream, caller, held);
                    }
                }));
            }
        }
    }

    /// Carries out the handshake.
    async fn secured(&self, https: &Https, stream: Stream, caller: SocketAddr) -> Option<Accepted> {
        let mut closing = self.close_signal.clone();
        let late = async {
            closing.wait().await;
            tokio::time::sleep(LAST_HANDSHAKE_TIMEOUT).await;
        };
        let accepted = tokio::select! {
            accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, https.accept(stream)) => accepted,
            () = late => return None,
        };
        match accepted {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) if failure::is_hang_up(&error) => {
                tracing::debug!(%caller, %error, "connection ended during its handshake");
            }
            Ok(Err(error)) => {
                let why = failure::of_io(&error).unwrap_or_else(|| error.to_string());
                if let Some(not_logged) = self.stranger_lines.pass() {
                    tracing::info!(%caller, %why, not_logged, "a client's TLS handshake failed");
                }
            }
            Err(_) => tracing::debug!(%caller, "no handshake came: the connection is closed"),
        }
        None
    }

    /// Serves or refuses a connection in a task of its own.
    fn take(&self, stream: Accepted, caller: SocketAddr, held: Held) {
        let Held { admission, counted, open } = held;
        match admission {
            Admission::Served(place) => self.serve(stream, caller, (place, counted, open)),
            Admission::Refused(place) => self.refuse(stream, caller, (place, open)),
            Admission::Dropped => {}
        }
    }

    fn serve(
        &self,
        stream: Accepted,
        caller: SocketAddr,
        held: (Place, Option<Counted>, TaskTrackerToken),
    ) {
        let api = self.api.clone();
        let requested = Arc::new(Notify::new());
        let noted = (Arc::clone(&requested), held.0.clone());
        let connection = Connection::default();
        let shared = connection.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            noted.0.notify_one();
            noted.1.asked();
            let api = api.clone();
            request.extensions_mut().insert(shared.clone());
            async move {
                if let Err(fault) = check_host(&request) {
                    return Ok(hostless(fault, request.version()));
                }
                request.extensions_mut().insert(caller);
                // One of many on its connection.
                let open =
                    (request.version() >= Version::HTTP_2).then(|| requests::begin(caller.ip()));
                let open = match open.transpose() {
                    Ok(open) => open,
                    Err(refused) => return Ok(refused.into_response()),
                };
                let request = Drained::wrap(request).map(Body::new);
                let response = api.answer(request).await?;
                Ok::<_, Infallible>(match open {
                    Some(open) => open.until_taken(response),
                    None => response,
                })
            }
        });
        let mut stream = TimeoutStream::new(Watched::new(stream, connection));
        stream.set_write_timeout(Some(WRITE_TIMEOUT));
        let stream = TokioIo::new(Box::pin(stream));
        let served = self.builder.serve_connection(stream, service).into_owned();
        let served = self.close_signal.clone().serve(served, requested);
        drop(contained("a connection", async move {
            // All of it: a block that names one field would take only that.
            let held = held;
            let place = &held.0;
            tokio::select! {
                // Clients hang up whenever they like.
                served = served => if let Err(error) = served {
                    tracing::debug!(%caller, %error, "connection ended early");
                },
                () = silence(place) => {
                    tracing::debug!(%caller, "no request came: the connection is closed");
                }
                () = place.lost() => {
                    tracing::debug!(%caller, "no request came, and another connection needs the place");
                }
            }
        }));
    }

    /// Answers one request of a connection that there is no room for.
    fn refuse(&self, stream: Accepted, caller: SocketAddr, held: (Place, TaskTrackerToken)) {
        let api = self.api.clone();
        let requested = Arc::new(Notify::new());
        let noted = Arc::clone(&requested);
        let service = service_fn(move |mut request: Request<Incoming>| {
            noted.notify_one();
            let api = api.clone();
            async move {
                if let Err(fault) = check_host(&request) {
                    return Ok(hostless(fault, request.version()));
                }
                request.extensions_mut().insert(caller);
                let request = Drained::wrap(request).map(Body::new);
                let mut response = if is_served_beyond_the_limit(request.uri().path()) {
                    api.answer(request).await?
                } else {
                    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, NO_ROOM).into_response()
                };
                // HTTP/2 has no such header; there, the connection's time runs out.
                if response.version() == Version::HTTP_11 {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let served = self.builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let served = self.close_signal.clone().serve(served, requested);
        drop(contained("a connection", async move {
            let _held = held;
            // A client that takes its time is not waited for.
            drop(tokio::time::timeout(REFUSED_LIFE_MAX, served).await);
        }));
    }

    /// A failed accept is the peer's hanging up, or a shortage that may pass.
    async fn pause(&self, error: &io::Error) {
        if let Some(not_logged) = self.accept_lines.pass() {
            tracing::warn!(%error, not_logged, "cannot accept a connection");
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// Resolves when a connection has been open for long and nothing was asked. Until it is known which version of HTTP
/// a client speaks, and for HTTP/2 after that, hyper waits without a limit.
async fn silence(place: &Place) {
    tokio::time::sleep(limits::get().header_timeout).await;
    if place.has_asked() {
        std::future::pending().await
    }
}

/// Tells a client that it has too many connections.
fn refuse_client(mut stream: Stream, caller: SocketAddr) {
    tracing::debug!(%caller, "{TOO_MANY}");
    drop(contained("a connection", async move {
        let answer = format!(
            "HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 1\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{TOO_MANY}",
            TOO_MANY.len()
        );
        // A client that hangs up instead of reading this knows enough.
        let _ = tokio::time::timeout(REFUSAL_TIMEOUT, stream.write_all(answer.as_bytes())).await;
    }));
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Semaphore;

    use super::*;

    /// Answers when there is a permit.
    #[derive(Clone)]
    struct Patient(Arc<Semaphore>);

    impl Answerer for Patient {
        async fn answer(self, _: Request<Body>) -> Result<Response, Infallible> {
            drop(self.0.acquire().await);
            Ok(Response::new(Body::from("answered")))
        }
    }

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";

    /// Everything that comes until the connection is closed.
    async fn rest(mut stream: TcpStream) -> io::Result<String> {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.map(|_| text)
    }

    #[tokio::test]
    async fn a_client_that_has_connected_before_the_listener_closes_is_answered_and_a_later_one_refused()
     {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (closing, permits) = (Closing::default(), Arc::new(Semaphore::new(0)));
        let api = Patient(Arc::clone(&permits));
        let door = Door { listener: Listener::Tcp(listener), tls: None };
        let counts = PerClient::new(None);
        let serving = serve(api, door, counts, Arc::default(), closing.clone());
        let serving = tokio::spawn(serving);
        let mut waiting = TcpStream::connect(address).await.unwrap();
        waiting.write_all(REQUEST).await.unwrap();
        let mut connected = TcpStream::connect(address).await.unwrap();
        // Not read, and perhaps not even accepted, when the listener is told to close.
        connected.write_all(REQUEST).await.unwrap();
        closing.close().await;
        let refused = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(!serving.is_finished());
        permits.add_permits(1);
        for stream in [waiting, connected] {
            let answer = rest(stream).await.unwrap();
            assert!(answer.contains("Connection: close"), "{answer}");
            assert!(answer.ends_with("answered"), "{answer}");
        }
        serving.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_nothing_is_asked_is_closed_and_others_stay() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (closing, permits) = (Closing::default(), Arc::new(Semaphore::new(0)));
        let api = Patient(Arc::clone(&permits));
        let door = Door { listener: Listener::Tcp(listener), tls: None };
        let counts = PerClient::new(None);
        tokio::spawn(serve(api, door, counts, Arc::default(), closing.clone()));
        let mut waiting = TcpStream::connect(address).await.unwrap();
        waiting.write_all(REQUEST).await.unwrap();
        for beginning in ["", "P", "PRI * HTTP/2.0\r\n"] {
            let mut silent = TcpStream::connect(address).await.unwrap();
            silent.write_all(beginning.as_bytes()).await.unwrap();
            let closed = tokio::time::timeout(2 * limits::get().header_timeout, rest(silent)).await;
            assert!(closed.is_ok(), "{beginning:?} is still open");
        }
        permits.add_permits(1);
        let mut answer = [0; 15];
        waiting.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
    }

    #[test]
    fn a_request_names_its_host_once() {
        let checked = |version: Version, hosts: &[&str]| {
            let mut request = Request::builder().version(version);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            check_host(&request.body(()).unwrap())
        };
        let missing = Err("400 Bad Request: missing required Host header");
        assert_eq!(checked(Version::HTTP_11, &[]), missing);
        assert_eq!(checked(Version::HTTP_11, &[""]), Ok(()));
        // Older ones have none, and HTTP/2 has `:authority`.
        assert_eq!(checked(Version::HTTP_10, &[]), Ok(()));
        assert_eq!(checked(Version::HTTP_2, &[]), Ok(()));
        let several = Err("400 Bad Request: too many Host headers");
        assert_eq!(checked(Version::HTTP_11, &["a", "a"]), several);
    }
}
