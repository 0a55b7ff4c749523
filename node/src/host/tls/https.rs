//! TLS at the port for clients: the server shows that it is the host that they asked for, and may ask them for
//! certificates.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::UnixTime;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_util::either::Either;

use super::Accepted;
use super::bounded::Bounded;
use super::credentials::{NamedFile, certified, end_of, expires_soon};
use super::failure::date;
use super::provider::provider;
use crate::host::listen::Stream;

/// The protocols that clients may choose from, the preferred one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The files, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpsFiles {
    /// The server's certificate, and those between it and a CA that clients trust.
    pub certificate: NamedFile,
    /// Its key.
    pub key: NamedFile,
    /// The CAs of clients; without it, clients need no certificate.
    pub client_ca: Option<NamedFile>,
}

/// Accepts connections of clients.
#[derive(Debug)]
pub struct Https {
    files: HttpsFiles,
    /// A std lock: held for a look only.
    current: RwLock<Arc<Current>>,
}

/// What was read and judged to be good, and is not in use yet.
#[derive(Debug)]
pub struct Fresh(Arc<Current>);

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    expires: UnixTime,
}

impl Https {
    /// Reads the files.
    ///
    /// # Errors
    /// A sentence that says which file cannot be used, and why.
    pub fn load(files: HttpsFiles) -> Result<Self, String> {
        let current = RwLock::new(Arc::new(read(&files)?));
        Ok(Self { files, current })
    }

    /// Reads the files again. What was read before stays in use.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn read_again(&self) -> Result<Fresh, String> {
        read(&self.files).map(|read| Fresh(Arc::new(read)))
    }

    /// Uses what was read for connections that begin from now on.
    pub fn use_fresh(&self, fresh: Fresh) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh.0;
    }

    /// When the certificate ends, in words.
    #[must_use]
    pub fn expires(&self) -> String {
        date(self.current().expires)
    }

    /// When the certificate ends.
    #[must_use]
    pub fn ends(&self) -> UnixTime {
        self.current().expires
    }

    /// What to tell an operator, if the certificate ends soon.
    #[must_use]
    pub fn expires_soon(&self) -> Option<String> {
        expires_soon(&self.files.certificate, self.current().expires, UnixTime::now())
    }

    /// Carries out the handshake on a connection that came in. How long it may take is the caller's matter.
    ///
    /// # Errors
    /// [`failure`](super::failure) has the words for them.
    pub async fn accept(&self, stream: Stream) -> io::Result<Accepted> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.current().config));
        let mut stream = acceptor.accept(Bounded::new(stream)).await?;
        stream.get_mut().0.lift();
        Ok(Either::Right(Box::new(stream)))
    }

    fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn read(files: &HttpsFiles) -> Result<Current, String> {
    let key = certified(&files.certificate, &files.key)?;
    let expires = end_of(&files.certificate, &key)?;
    if expires.as_secs() <= UnixTime::now().as_secs() {
        return Err(files.certificate.expired(expires));
    }
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let key = Arc::new(SingleCertAndKey::from(key));
    let mut config = match &files.client_ca {
        None => builder.with_no_client_auth().with_cert_resolver(key),
        Some(ca) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(ca.roots()?, provider());
            let verifier = verifier.build().map_err(|error| ca.wrong(error))?;
            let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(key);
            // A session that was resumed would not be checked again.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            config
        }
    };
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Current { config: Arc::new(config), expires })
}
