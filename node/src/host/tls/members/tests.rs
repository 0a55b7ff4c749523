//! Handshakes over loopback, of members and of strangers.

use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{IpAddr, PrivateKeyDer};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::*;
use crate::host::tls::bounded::HANDSHAKE_BYTES_MAX;
use crate::host::tls::credentials::{Files, NamedFile};
use crate::host::tls::failure;

/// Longer than any handshake takes on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// A CA, and a directory with what it has issued.
struct Ca {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        std::fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { dir, issuer: Issuer::new(params, key) }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a certificate with these names, which ends in `until`.
    fn issue(&self, base: &str, names: &[&str], until: i32) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(until, 1, 1);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{base}.pem")), made.pem()).unwrap();
        std::fs::write(self.path(&format!("{base}-key.pem")), key.serialize_pem()).unwrap();
    }

    fn member(&self, role: Role, name: &str, until: i32) -> Result<Members, String> {
        let own = Holder { name: name.to_owned(), role, datacenter: "dc1".to_owned() };
        self.issue(name, &[&own.dns_name(), &role_name(role, "dc1")], until);
        let file = |setting, name: String| NamedFile { setting, path: self.path(&name) };
        let files = Files {
            ca: file("--rpc-tls-ca", "ca.pem".to_owned()),
            certificate: file("--rpc-tls-cert", format!("{name}.pem")),
            key: file("--rpc-tls-key", format!("{name}-key.pem")),
        };
        Ok(Members::new(Arc::new(Credentials::load(files, own)?)))
    }

    fn server(&self, name: &str) -> Members {
        self.member(Role::Server, name, 4_000).unwrap()
    }

    /// Who trusts this CA, and shows this certificate.
    fn showing(&self, base: Option<&str>) -> ClientConfig {
        let mut shown = self.server("looking").connector(None);
        shown.client_auth_cert_resolver = match base {
            None => Arc::new(Nobody),
            Some(base) => {
                let key =
                    PrivateKeyDer::from_pem_file(self.path(&format!("{base}-key.pem"))).unwrap();
                let chain = vec![certificate(&self.path(&format!("{base}.pem")))];
                let key = CertifiedKey::from_der(chain, key, &provider());
                Arc::new(SingleCertAndKey::from(key.unwrap()))
            }
        };
        shown
    }
}

/// Shows no certificate.
#[derive(Debug)]
struct Nobody;

impl ResolvesClientCert for Nobody {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

type Accepting = Result<(Accepted, Holder), String>;

fn why(error: &io::Error) -> String {
    failure::of_io(error).unwrap_or_else(|| error.to_string())
}

/// What both sides of a handshake come to. (A client may learn only afterwards that it was refused.)
async fn handshake(
    members: &Members,
    config: ClientConfig,
) -> (Accepting, Result<TlsStream<TcpStream>, String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = async {
        let (stream, _) = listener.accept().await.unwrap();
        members.accept(Either::Left(stream)).await.map_err(|error| why(&error))
    };
    let connecting = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::IpAddress(IpAddr::from(Ipv4Addr::LOCALHOST));
        let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        connected.map_err(|error| why(&error))
    };
    let both = async { tokio::join!(accepting, connecting) };
    tokio::time::timeout(SOON, both).await.unwrap()
}

#[tokio::test]
async fn members_of_one_cluster_know_each_other_by_name() {
    let ca = Ca::new();
    let (n1, n2) = (ca.server("n1"), ca.server("n2"));
    for name in [Some("n1"), None] {
        let (accepted, connected) = handshake(&n1, n2.connector(name)).await;
        assert_eq!(accepted.unwrap().1.to_string(), "server n2");
        connected.unwrap();
    }
    let agent = ca.member(Role::Agent, "web-3", 4_000).unwrap();
    let (accepted, _) = handshake(&n1, agent.connector(None)).await;
    assert_eq!(accepted.unwrap().1.to_string(), "agent web-3");
}

#[tokio::test]
async fn who_connects_speaks_to_the_server_that_it_means_and_to_servers_only() {
    let ca = Ca::new();
    let (n1, n2) = (ca.server("n1"), ca.server("n2"));
    let (_, connected) = handshake(&n1, n2.connector(Some("n3"))).await;
    let why = connected.unwrap_err();
    assert!(why.contains("that of the server n1, and server n3 is expected"), "{why}");
    let agent = ca.member(Role::Agent, "web-3", 4_000).unwrap();
    let (_, connected) = handshake(&agent, n2.connector(None)).await;
    let why = connected.unwrap_err();
    assert!(why.contains("not that of server.dc1.quorate"), "{why}");
    let (_, connected) = handshake(&Ca::new().server("n1"), n2.connector(None)).await;
    let why = connected.unwrap_err();
    assert!(why.contains("not issued by the CA"), "{why}");
}

#[tokio::test]
async fn strangers_are_refused_and_it_is_said_why() {
    let (ca, other) = (Ca::new(), Ca::new());
    let n1 = ca.server("n1");
    ca.issue("ci", &["ci.client.dc1.quorate"], 4_000);
    ca.issue("nobody", &["n9.example"], 4_000);
    ca.issue("elsewhere", &["n9.server.dc2.quorate"], 4_000);
    ca.issue("old", &["n9.server.dc1.quorate"], 2_000);
    let of_other = {
        other.issue("n9", &["n9.server.dc1.quorate"], 4_000);
        for file in ["n9.pem", "n9-key.pem"] {
            std::fs::copy(other.path(file), ca.path(file)).unwrap();
        }
        ca.showing(Some("n9"))
    };
    for (config, expected) in [
        (ca.showing(None), "shows no certificate"),
        (of_other, "not issued by the CA"),
        (
            ca.showing(Some("ci")),
            "that of the client ci, and a server's or an agent's is asked for",
        ),
        (ca.showing(Some("nobody")), "does not say whom it is for"),
        (ca.showing(Some("elsewhere")), "does not say whom it is for"),
        (ca.showing(Some("old")), "expired on 2000-01-01 00:00:00 UTC: make a new one"),
    ] {
        let (accepted, _) = handshake(&n1, config).await;
        let why = accepted.map(|(_, holder)| holder).unwrap_err();
        assert!(why.contains(expected), "{expected}: {why}");
    }
}

#[test]
fn a_process_does_not_start_with_what_others_would_refuse() {
    let (ca, other) = (Ca::new(), Ca::new());
    let why = ca.member(Role::Server, "n1", 2_000).unwrap_err();
    assert!(why.contains("--rpc-tls-cert") && why.contains("expired on 2000-01-01"), "{why}");
    std::fs::copy(other.path("ca.pem"), ca.path("ca.pem")).unwrap();
    let why = ca.member(Role::Server, "n1", 4_000).unwrap_err();
    assert!(why.contains("n1.pem: its certificate was not issued by the CA"), "{why}");
}

#[tokio::test]
async fn new_files_are_for_new_connections_and_what_cannot_be_used_changes_nothing() {
    let ca = Ca::new();
    let (n1, n2) = (ca.server("n1"), ca.server("n2"));
    let shown = |stream: &TlsStream<TcpStream>| {
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    };
    let (accepted, connected) = handshake(&n1, n2.connector(None)).await;
    let (mut accepted, mut connected) = (accepted.unwrap().0, connected.unwrap());
    let first = shown(&connected);
    let names = ["n1.server.dc1.quorate", "server.dc1.quorate"];
    ca.issue("n1", &names, 3_000);
    let reload = || n1.credentials().read_again().map(|fresh| n1.credentials().use_fresh(fresh));
    reload().unwrap();
    assert!(n1.credentials().expires().starts_with("3000-01-01"));
    let (_, renewed) = handshake(&n1, n2.connector(None)).await;
    let renewed = shown(&renewed.unwrap());
    assert_ne!(renewed, first);
    assert_eq!(renewed, certificate(&ca.path("n1.pem")));
    for wrong in [&["n2.server.dc1.quorate", "server.dc1.quorate"][..], &names[1..]] {
        ca.issue("n1", wrong, 4_000);
        reload().unwrap_err();
    }
    std::fs::write(ca.path("n1.pem"), "no certificate").unwrap();
    let why = reload().unwrap_err();
    assert!(why.contains("there is no certificate in it"), "{why}");
    let (_, same) = handshake(&n1, n2.connector(None)).await;
    assert_eq!(shown(&same.unwrap()), renewed);
    // The first connection is none the worse for it.
    connected.write_all(b"still").await.unwrap();
    connected.flush().await.unwrap();
    let mut read = [0; 5];
    accepted.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"still");
}

#[tokio::test]
async fn what_is_no_handshake_ends_soon() {
    let ca = Ca::new();
    let n1 = ca.server("n1");
    let sent = |bytes: Vec<u8>| {
        let n1 = n1.clone();
        async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut stranger = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            stranger.write_all(&bytes).await.unwrap();
            let accepted = tokio::time::timeout(SOON, n1.accept(Either::Left(stream))).await;
            why(&accepted.unwrap().map(|(_, holder)| holder).unwrap_err())
        }
    };
    let plain = sent(b"POST /rpc/1/call HTTP/1.1\r\n\r\n".to_vec()).await;
    assert!(plain.contains("does not speak TLS"), "{plain}");
    // The first message of a handshake, in records of 1 KiB, says that it has 64 KiB.
    let mut endless = Vec::new();
    for record in 0..2 * HANDSHAKE_BYTES_MAX / 1_024 {
        endless.extend_from_slice(&[22, 3, 1, 4, 0]);
        let mut fragment = [0; 1_024];
        if record == 0 {
            fragment[..4].copy_from_slice(&[1, 0, 255, 255]);
        }
        endless.extend_from_slice(&fragment);
    }
    let endless = sent(endless).await;
    assert!(endless.contains("more than 16384 bytes"), "{endless}");
    let nothing = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        drop(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        let (stream, _) = listener.accept().await.unwrap();
        n1.accept(Either::Left(stream)).await.map(|(_, holder)| holder).unwrap_err()
    };
    assert!(failure::is_hang_up(&nothing), "{nothing}");
}
