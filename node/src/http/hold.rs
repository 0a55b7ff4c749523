//! Connections that hold something while a request is answered: their client's end is noticed at once.
//!
//! hyper notices that a client has closed or half-closed its connection while it reads nothing else, and ends
//! the connection. It does not look any more once the client has sent something behind the request, so this
//! looks for it: whatever comes from a client that is to say nothing more is taken for its end. (A stream of an
//! HTTP/2 connection ends for itself, and other requests come on the same connection.)
//!
//! What the client's host does not acknowledge for [`UNACKNOWLEDGED_MAX`] ends the connection too, so that a
//! host that has lost its power does not hold anything either.

use std::io;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::Version;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use crate::host::tls::Accepted;

/// How long what was sent to a client may go unacknowledged.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(5);

/// What a connection and the requests on it share; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Connection(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Whether a request ever held something.
    holds: AtomicBool,
    /// Whether one does, and its client is to say nothing more.
    watched: AtomicBool,
    /// Whether that has just begun.
    begins: AtomicBool,
    /// A std lock: held for a look only.
    ended: Mutex<Option<CancellationToken>>,
}

/// A request that holds something until this is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    connection: Connection,
    ended: CancellationToken,
}

impl Hold {
    /// Resolves when the client has ended it. (The stream of the answer may be dropped before.)
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let inner = &self.connection.0;
        inner.watched.store(false, Ordering::SeqCst);
        *inner.ended.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Connection {
    /// Holds something on behalf of a request whose body was read.
    pub(super) fn hold(&self, version: Version) -> Hold {
        let ended = CancellationToken::new();
        self.0.holds.store(true, Ordering::SeqCst);
        if version < Version::HTTP_2 {
            let told = Some(ended.clone());
            *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner) = told;
            self.0.begins.store(true, Ordering::SeqCst);
            self.0.watched.store(true, Ordering::SeqCst);
        }
        Hold { connection: self.clone(), ended }
    }

    fn is_watched(&self) -> bool {
        self.0.watched.load(Ordering::SeqCst)
    }

    /// The client has ended the connection, or said something.
    fn end(&self) {
        if let Some(ended) = &*self.0.ended.lock().unwrap_or_else(PoisonError::into_inner) {
            ended.cancel();
        }
    }
}

/// A client's connection that looks for its end.
#[derive(Debug)]
pub(super) struct Watched {
    stream: Accepted,
    connection: Connection,
    is_bounded: bool,
}

impl Watched {
    pub(super) const fn new(stream: Accepted, connection: Connection) -> Self {
        Self { stream, connection, is_bounded: false }
    }

    /// Looks for what hyper may not read any more.
    fn look(&mut self, context: &mut Context<'_>) {
        let Some(stream) = tcp(&mut self.stream) else { return };
        if !self.is_bounded && self.connection.0.holds.load(Ordering::SeqCst) {
            self.is_bounded = true;
            bound_silence(stream);
        }
        if self.connection.is_watched() {
            let mut byte = [0];
            let said = stream.poll_peek(context, &mut ReadBuf::new(&mut byte)).is_ready();
            // What came before may not have been told to the runtime yet, after a pause of this process above all.
            let begins = self.connection.0.begins.swap(false, Ordering::SeqCst);
            if said || (begins && has_more(stream)) {
                self.connection.end();
            }
        }
    }
}

/// Whether a client has said more, or ended its side of the connection, as its socket knows.
fn has_more(stream: &TcpStream) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(stream.as_raw_fd(), &mut [0], flags) != Err(Errno::EAGAIN)
}

/// The connection itself, below TLS: what comes on it from a client that is to say nothing more is its end, too.
fn tcp(stream: &mut Accepted) -> Option<&mut TcpStream> {
    let stream = match stream {
        Either::Left(stream) => stream,
        Either::Right(secured) => secured.get_mut().0.inner_mut(),
    };
    match stream {
        Either::Left(stream) => Some(stream),
        Either::Right(_) => None,
    }
}

fn bound_silence(stream: &TcpStream) {
    let millis = u32::try_from(UNACKNOWLEDGED_MAX.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = setsockopt(stream, sockopt::TcpUserTimeout, &millis) {
        tracing::debug!(%error, "a connection goes without a bound on its silence");
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        if self.connection.is_watched() {
            self.connection.end();
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.look(context);
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::pki_types::ServerName;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    use super::*;
    use crate::host::tls::credentials::NamedFile;
    use crate::host::tls::https::{Https, HttpsFiles};
    use crate::host::tls::provider::provider;

    /// Longer than anything here takes on a busy machine.
    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn what_a_client_says_through_tls_is_its_end_too() {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let file = |setting, text: String| {
            let path = dir.path().join(setting);
            std::fs::write(&path, text).unwrap();
            NamedFile { setting, path }
        };
        let files = HttpsFiles {
            certificate: file("cert", made.cert.pem()),
            key: file("key", made.signing_key.serialize_pem()),
            client_ca: None,
        };
        let https = Https::load(files).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let connecting = TlsConnector::from(Arc::new(config))
            .connect(ServerName::try_from("localhost").unwrap(), stream);
        let accepted = Either::Left(listener.accept().await.unwrap().0);
        let (client, accepted) = tokio::join!(connecting, https.accept(accepted));
        let (mut client, connection) = (client.unwrap(), Connection::default());
        let mut watched = Watched::new(accepted.unwrap(), connection.clone());
        let hold = connection.hold(Version::HTTP_11);
        watched.write_all(b"an answer").await.unwrap();
        watched.flush().await.unwrap();
        assert!(hold.ended().now_or_never().is_none(), "the client has said nothing");
        client.write_all(b"more").await.unwrap();
        client.flush().await.unwrap();
        let noticed = async {
            while hold.ended().now_or_never().is_none() {
                watched.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, noticed).await.unwrap();
    }
}
