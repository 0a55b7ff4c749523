//! Where a server listens: at TCP addresses, and at sockets in the file system.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

/// How many connections can wait to be accepted. Beyond that a client's request to connect is dropped, and repeated
/// after 1, 3 and 7 s. A few thousand clients connect together after their server was lost, or a proxy restarts.
/// (Linux takes `net.core.somaxconn` if that is less; it is 4,096 unless somebody changed it.)
pub const BACKLOG: u32 = 4_096;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// At a TCP address.
    Tcp(SocketAddr),
    /// At a socket in the file system.
    Unix {
        /// Its path.
        path: PathBuf,
        /// Its permissions, if they are not to be those that the process gives to new files.
        mode: Option<u32>,
    },
}

/// A listening socket. One in the file system is removed with it.
#[derive(Debug)]
pub enum Listener {
    /// At a TCP address.
    Tcp(TcpListener),
    /// At a socket in the file system.
    Unix(UnixListener, Removed),
}

/// A connection of either kind.
pub type Stream = Either<TcpStream, UnixStream>;

/// A path that is removed when this is dropped.
#[derive(Debug)]
pub struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "the socket was removed already");
        }
    }
}

impl Listen {
    /// The TCP address, if it is one.
    #[must_use]
    pub const fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix { .. } => None,
        }
    }

    /// Begins to listen; `setting` is what an operator would change.
    ///
    /// # Errors
    /// When the address is not this machine's, or taken; the text says which, and by which setting.
    pub fn bind(&self, setting: &str) -> io::Result<Listener> {
        let bound = match self {
            Self::Tcp(address) => bind_tcp(*address).map(Listener::Tcp),
            Self::Unix { path, mode } => bind_unix(path, *mode),
        };
        bound.map_err(|error| {
            let cure = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "; another process listens there (see which with `ss -ltnp`): stop it, or choose another address"
                }
                _ => "",
            };
            let text = format!("cannot listen on {self} ({setting}): {error}{cure}");
            io::Error::new(error.kind(), text)
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { path, .. } => write!(f, "unix://{}", path.display()),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of an earlier process may still be closing.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A socket that a process left behind when it was killed is removed first; any other file is not.
fn bind_unix(path: &Path, mode: Option<u32>) -> io::Result<Listener> {
    let is_socket =
        std::fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_socket());
    if is_socket {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    if let Some(mode) = mode {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(Listener::Unix(listener, Removed(path.to_owned())))
}

impl Listener {
    /// The next connection, and where it comes from: whoever reaches a socket in the file system is on
    /// this host.
    ///
    /// # Errors
    /// The peer hung up, or there is a shortage that may pass.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, caller) = listener.accept().await?;
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%caller, %error, "connection closed before it was served");
                }
                Ok((Either::Left(stream), caller))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Either::Right(stream), SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))
            }
        }
    }
}

/// Where a server listens, and what an operator changes to have it listen elsewhere.
#[derive(Debug, Clone)]
pub struct Listeners {
    /// For clients.
    pub http: Vec<Listen>,
    /// The setting of these.
    pub http_setting: &'static str,
    /// For clients that use TLS.
    pub https: Vec<Listen>,
    /// The setting of these.
    pub https_setting: &'static str,
    /// For other servers: the RPC address first.
    pub rpc: Vec<Listen>,
    /// The setting of these.
    pub rpc_setting: &'static str,
    /// For DNS, over UDP and TCP.
    pub dns: Vec<SocketAddr>,
    /// The setting of these; `None` if nothing was said, so that there may as well be no DNS.
    pub dns_setting: Option<&'static str>,
}

/// Sockets of both kinds at one address.
#[derive(Debug)]
pub(crate) struct DnsSockets {
    /// The address.
    pub(crate) address: SocketAddr,
    /// Over UDP.
    pub(crate) udp: UdpSocket,
    /// Over TCP.
    pub(crate) tcp: std::net::TcpListener,
}

/// Takes UDP and TCP at each of these addresses.
///
/// # Errors
/// When one is taken, or not this machine's.
pub(crate) fn bind_dns(addresses: &[SocketAddr], setting: &str) -> io::Result<Vec<DnsSockets>> {
    let bind = |address: &SocketAddr| {
        let tcp = std::net::TcpListener::bind(address)?;
        // Where the system chose the port, both have the same.
        let address = tcp.local_addr()?;
        let udp = UdpSocket::bind(address)?;
        tcp.set_nonblocking(true)?;
        udp.set_nonblocking(true)?;
        Ok(DnsSockets { address, udp, tcp })
    };
    let bound = addresses.iter().map(|address| {
        bind(address).map_err(|error: io::Error| {
            let what = format!("cannot serve DNS at {address} ({setting}): {error}");
            io::Error::new(error.kind(), what)
        })
    });
    bound.collect()
}

/// Listens at each of these; `setting` is what an operator would change.
///
/// # Errors
/// When one is taken, or not this machine's.
pub(crate) fn bind_all(listens: &[Listen], setting: &str) -> io::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for listen in listens {
        listeners.push(listen.bind(setting)?);
    }
    Ok(listeners)
}

/// The addresses, for the log.
pub(crate) fn texts(listens: &[Listen]) -> String {
    listens.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::sys::resource::{Resource, getrlimit};

    use super::*;

    #[tokio::test]
    async fn thousands_can_connect_before_the_first_is_accepted() {
        const CLIENTS: usize = 1_500;
        let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let backlog = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        if descriptors < 2 * CLIENTS as u64 || backlog.trim().parse::<usize>().unwrap() < CLIENTS {
            println!("skipped: this system allows too few");
            return;
        }
        let listen = Listen::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let Listener::Tcp(listener) = listen.bind("http_addr").unwrap() else { unreachable!() };
        let address = listener.local_addr().unwrap();
        // A request that was dropped is repeated after a second.
        let connect = || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(900));
        let connected: io::Result<Vec<_>> = (0..CLIENTS).map(|_| connect()).collect();
        assert_eq!(connected.unwrap().len(), CLIENTS);
    }

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_one_in_use_or_a_file_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("q.sock");
        // The standard library's listener leaves its socket behind, as a killed process does.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listen = Listen::Unix { path: path.clone(), mode: Some(0o600) };
        let listener = listen.bind("client_addr").unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = listen.bind("client_addr").unwrap_err().to_string();
        assert!(error.contains("q.sock (client_addr)"), "{error}");
        assert!(error.contains("stop it, or choose another address"), "{error}");
        drop(listener);
        assert!(!path.exists());
        std::fs::write(&path, "mine").unwrap();
        assert!(listen.bind("client_addr").is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }
}
