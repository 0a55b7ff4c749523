//! TLS between the members of a cluster: servers, and agents that hand them their hosts' requests.
//!
//! Both sides show a certificate of the cluster's CA. Who accepts takes servers and agents, who connects takes
//! servers only, and that server only whose name it knows. Everything is checked in the handshake.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{Resumption, WebPkiServerVerifier};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    ServerConfig, SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client};
use tokio_util::either::Either;

use super::Accepted;
use super::bounded::Bounded;
use super::credentials::Credentials;
use super::holder::{Holder, Role, Stranger, role_name};
use super::provider::provider;
use crate::host::listen::Stream;

/// Accepts connections of members, and opens connections to servers.
#[derive(Debug, Clone)]
pub struct Members {
    credentials: Arc<Credentials>,
    acceptor: Arc<ServerConfig>,
}

impl Members {
    /// A member with these credentials, as they are at each handshake.
    #[must_use]
    pub fn new(credentials: Arc<Credentials>) -> Self {
        let verifier = Arc::new(OfMembers(Arc::clone(&credentials)));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("the provider knows TLS 1.3")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(&credentials) as _);
        // A session that was resumed would not be checked again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Self { credentials, acceptor: Arc::new(config) }
    }

    /// The credentials.
    #[must_use]
    pub fn credentials(&self) -> &Arc<Credentials> {
        &self.credentials
    }

    /// Carries out the handshake on a connection that came in. How long it may take is the caller's matter.
    ///
    /// # Errors
    /// [`failure`](super::failure) has the words for them.
    pub async fn accept(&self, stream: Stream) -> io::Result<(Accepted, Holder)> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.acceptor));
        let mut stream = acceptor.accept(Bounded::new(stream)).await?;
        let (bounded, connection) = stream.get_mut();
        bounded.lift();
        let certificate = connection.peer_certificates().and_then(<[_]>::first);
        let datacenter = &self.credentials.own().datacenter;
        let holder = certificate.ok_or(Stranger::Unreadable);
        let holder =
            holder.and_then(|end| Holder::of(end, datacenter)).map_err(io::Error::other)?;
        Ok((Either::Right(Box::new(stream)), holder))
    }

    /// Carries out the handshake on a connection to some server.
    ///
    /// # Errors
    /// [`failure`](super::failure) has the words for them.
    pub async fn connect(&self, stream: TcpStream) -> io::Result<client::TlsStream<TcpStream>> {
        // The verifier looks for the names of servers, whatever the address.
        let nobody = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
        TlsConnector::from(Arc::new(self.connector(None))).connect(nobody, stream).await
    }

    /// How to connect to a server; with a name, to that one only.
    #[must_use]
    pub fn connector(&self, name: Option<&str>) -> ClientConfig {
        let credentials = Arc::clone(&self.credentials);
        let verifier = Arc::new(OfServer {
            credentials: Arc::clone(&credentials),
            name: name.map(str::to_owned),
        });
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("the provider knows TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(credentials);
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        config
    }
}

fn refused(stranger: Stranger) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(stranger))))
}

/// Checks who connects.
#[derive(Debug)]
struct OfMembers(Arc<Credentials>);

impl OfMembers {
    fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.0.current().clients)
    }
}

impl ClientCertVerifier for OfMembers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Members have one certificate: there is nothing to choose by a hint.
        &[]
    }

    fn verify_client_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.verifier().verify_client_cert(end, between, now)?;
        let holder = Holder::of(end, &self.0.own().datacenter).map_err(refused)?;
        match holder.role {
            Role::Server | Role::Agent => Ok(verified),
            Role::Client => {
                Err(refused(Stranger::OtherRole { holder, wanted: "a server's or an agent's" }))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier().verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier().verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier().supported_verify_schemes()
    }
}

/// Checks who is connected to.
#[derive(Debug)]
struct OfServer {
    credentials: Arc<Credentials>,
    name: Option<String>,
}

impl OfServer {
    fn verifier(&self) -> Arc<WebPkiServerVerifier> {
        Arc::clone(&self.credentials.current().servers)
    }
}

impl ServerCertVerifier for OfServer {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let datacenter = &self.credentials.own().datacenter;
        // Servers are known by their names, and reached at whatever address.
        let role = ServerName::try_from(role_name(Role::Server, datacenter))
            .map_err(|error| Error::General(error.to_string()))?;
        let verified = self.verifier().verify_server_cert(end, between, &role, ocsp, now)?;
        let holder = Holder::of(end, datacenter).map_err(refused)?;
        let is_meant = match &self.name {
            Some(name) => holder.is_server(name),
            None => holder.role == Role::Server,
        };
        if is_meant {
            return Ok(verified);
        }
        Err(refused(match &self.name {
            Some(name) => Stranger::OtherServer { holder, wanted: name.clone() },
            None => Stranger::OtherRole { holder, wanted: "a server's" },
        }))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier().verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier().verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier().supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests;
