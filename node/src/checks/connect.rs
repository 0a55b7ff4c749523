//! How a probe reaches its target: look the name up, connect, perhaps speak TLS.
//!
//! Errors are in the words of Go's `net` package, because people search for those.

use std::fmt::{self, Debug};
use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::lookup::Resolver;
use super::tls;

/// A connection, plain or not.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// How to speak TLS to a target.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tls<'a> {
    /// The name in the certificate; empty: the host that is connected to.
    pub(super) server_name: &'a str,
    /// Whether any certificate will do.
    pub(super) skip_verify: bool,
    /// The protocol to agree on; empty: none.
    pub(super) protocol: &'static [u8],
}

/// Why a target was not reached.
#[derive(Debug)]
pub(super) struct DialError(String);

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Connects to `target`, which is `HOST:PORT`; `network` is the word for it in errors.
pub(super) async fn connect(
    resolver: &Resolver,
    target: &str,
    tls: Option<Tls<'_>>,
) -> Result<Box<dyn Io>, DialError> {
    let failed = |error: &io::Error| DialError(format!("dial tcp {target}: {}", words(error)));
    let addresses = resolver.resolve(target).await.map_err(|error| failed(&error))?;
    let stream = TcpStream::connect(&*addresses).await.map_err(|error| failed(&error))?;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let name = match tls.server_name {
        "" => host_of(target),
        given => given,
    };
    let name = ServerName::try_from(name.to_owned())
        .map_err(|error| DialError(format!("tls: {name:?} is no server name: {error}")))?;
    let connector = TlsConnector::from(tls::config(tls.skip_verify, tls.protocol));
    match connector.connect(name, stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(DialError(format!("tls: failed to verify or agree: {error}"))),
    }
}

/// The host of `HOST:PORT`, without the brackets of an IPv6 address.
fn host_of(target: &str) -> &str {
    let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// An error of the operating system in the words of Go.
pub(super) fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connect: connection reset by peer".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    }
}

/// Drives a connection while `work` uses it; when the connection ends first, `work` finds out.
pub(super) async fn beside<T>(
    connection: impl Future<Output: Sized>,
    work: impl Future<Output = T>,
) -> T {
    let connection = async {
        connection.await;
        std::future::pending::<std::convert::Infallible>().await
    };
    tokio::select! {
        done = work => done,
        never = connection => match never {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_what_stands_before_the_port() {
        assert_eq!(host_of("example.com:443"), "example.com");
        assert_eq!(host_of("[::1]:443"), "::1");
        assert_eq!(host_of("example.com"), "example.com");
    }
}
