//! The certificate of a process, its key, and the CA that others are checked against: read from files, and read
//! again while they are in use.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio_rustls::rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, RootCertStore, SignatureScheme};

use super::failure::{CA_RENEWAL, RENEWAL, date, sentence};
use super::holder::{Holder, Role, role_name};
use super::provider::provider;

/// A file of certificates or with a key is not longer.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// A certificate that is valid for a shorter time is told of.
pub const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 3_600);

/// A file, and the setting that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// What an operator would change.
    pub setting: &'static str,
    /// Where it is.
    pub path: PathBuf,
}

/// The files of a member's credentials, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The CA's certificate, or several while one replaces another.
    pub ca: NamedFile,
    /// The member's certificate, and those between it and the CA.
    pub certificate: NamedFile,
    /// Its key.
    pub key: NamedFile,
}

/// What a member of a cluster proves itself with, and checks others against.
#[derive(Debug)]
pub struct Credentials {
    files: Files,
    own: Holder,
    /// A std lock: held for a look only.
    current: RwLock<Arc<Current>>,
}

/// What the files had when they were last read.
pub(super) struct Current {
    key: Arc<CertifiedKey>,
    pub(super) clients: Arc<dyn ClientCertVerifier>,
    pub(super) servers: Arc<WebPkiServerVerifier>,
    expires: UnixTime,
    /// When the last of the CAs ends.
    ca_expires: UnixTime,
}

/// What was read and judged to be good, and is not in use yet.
#[derive(Debug)]
pub struct Fresh(Arc<Current>);

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current").field("expires", &date(self.expires)).finish_non_exhaustive()
    }
}

impl NamedFile {
    /// All of it.
    ///
    /// # Errors
    /// A sentence that names the setting and the file.
    pub fn read(&self) -> Result<Vec<u8>, String> {
        let read = |path: &Path| -> std::io::Result<Vec<u8>> {
            let file = std::fs::File::open(path)?;
            // A pipe would hold up whoever reads it.
            if !file.metadata()?.is_file() {
                return Err(std::io::Error::other("it is no regular file"));
            }
            let mut bytes = Vec::new();
            file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > FILE_BYTES_MAX {
                return Err(std::io::Error::other("it is too long for certificates"));
            }
            Ok(bytes)
        };
        read(&self.path).map_err(|error| self.wrong(error))
    }

    /// The certificates in it.
    ///
    /// # Errors
    /// As [`Self::read`]; or there is none.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let bytes = self.read()?;
        let certificates = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.map_err(|error| self.wrong(error))?;
        if certificates.is_empty() {
            return Err(self.wrong("there is no certificate in it (PEM)"));
        }
        Ok(certificates)
    }

    /// The certificates in it, as those of CAs.
    ///
    /// # Errors
    /// As [`Self::certificates`].
    pub fn roots(&self) -> Result<Arc<RootCertStore>, String> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            roots.add(certificate).map_err(|error| self.wrong(error))?;
        }
        Ok(Arc::new(roots))
    }

    /// The key in it.
    ///
    /// # Errors
    /// As [`Self::read`]; or there is none.
    pub fn key(&self) -> Result<PrivateKeyDer<'static>, String> {
        PrivateKeyDer::from_pem_slice(&self.read()?)
            .map_err(|_| self.wrong("there is no private key in it (PEM)"))
    }

    /// What is wrong with it.
    pub(super) fn wrong(&self, why: impl fmt::Display) -> String {
        format!("{} {}: {why}", self.setting, self.path.display())
    }

    /// Its certificate has ended.
    pub(super) fn expired(&self, at: UnixTime) -> String {
        self.wrong(format!("the certificate expired on {}: {RENEWAL}", date(at)))
    }
}

/// A certificate with its key.
///
/// # Errors
/// A sentence: a file cannot be read, or the two do not belong together.
pub fn certified(certificate: &NamedFile, key: &NamedFile) -> Result<CertifiedKey, String> {
    let chain = certificate.certificates()?;
    CertifiedKey::from_der(chain, key.key()?, &provider()).map_err(|error| {
        key.wrong(format!("it is not the key of {}: {error}", certificate.path.display()))
    })
}

impl Credentials {
    /// Reads the files of a member of a cluster: they must be those of `own`.
    ///
    /// # Errors
    /// A sentence that says which file cannot be used, and why.
    pub fn load(files: Files, own: Holder) -> Result<Self, String> {
        let current = RwLock::new(Arc::new(read(&files, &own, UnixTime::now())?));
        Ok(Self { files, own, current })
    }

    /// Reads the files again. What was read before stays in use.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn read_again(&self) -> Result<Fresh, String> {
        read(&self.files, &self.own, UnixTime::now()).map(|read| Fresh(Arc::new(read)))
    }

    /// Uses from now on what was read.
    pub fn use_fresh(&self, fresh: Fresh) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh.0;
    }

    /// Whose they are.
    #[must_use]
    pub fn own(&self) -> &Holder {
        &self.own
    }

    /// When the certificate ends, in words.
    #[must_use]
    pub fn expires(&self) -> String {
        date(self.current().expires)
    }

    /// When the certificate ends, and when the last of the CAs does.
    #[must_use]
    pub fn ends(&self) -> (UnixTime, UnixTime) {
        let current = self.current();
        (current.expires, current.ca_expires)
    }

    /// What to tell an operator, if the certificate ends soon.
    #[must_use]
    pub fn expires_soon(&self) -> Option<String> {
        expires_soon(&self.files.certificate, self.current().expires, UnixTime::now())
    }

    /// The same of the CA. Servers go on with one that has ended, which others need not.
    #[must_use]
    pub fn ca_expires_soon(&self) -> Option<String> {
        ends_soon(&self.files.ca, self.current().ca_expires, UnixTime::now(), CA_RENEWAL)
    }

    pub(super) fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(super) fn expires_soon(file: &NamedFile, expires: UnixTime, now: UnixTime) -> Option<String> {
    ends_soon(file, expires, now, RENEWAL)
}

fn ends_soon(file: &NamedFile, expires: UnixTime, now: UnixTime, remedy: &str) -> Option<String> {
    let left = expires.as_secs().saturating_sub(now.as_secs());
    let verb = if left == 0 { "expired" } else { "expires" };
    (left < EXPIRES_SOON.as_secs()).then(|| {
        format!("the certificate {} {verb} on {}: {remedy}", file.path.display(), date(expires))
    })
}

/// Reads and checks all of it, as others will at `now`: what they would refuse is refused here.
fn read(files: &Files, own: &Holder, now: UnixTime) -> Result<Current, String> {
    let roots = files.ca.roots()?;
    let key = certified(&files.certificate, &files.key)?;
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
        .build()
        .map_err(|error| files.ca.wrong(error))?;
    let servers = WebPkiServerVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|error| files.ca.wrong(error))?;
    let wrong = |error: &Error| files.certificate.wrong(sentence(error));
    let (end, between) =
        key.end_entity_cert().map(|end| (end, &key.cert[1..])).map_err(|e| wrong(&e))?;
    clients.verify_client_cert(end, between, now).map_err(|error| wrong(&error))?;
    if own.role == Role::Server {
        let name = ServerName::try_from(role_name(own.role, &own.datacenter));
        let name = name.map_err(|error| files.certificate.wrong(error))?;
        verify_as_server(&servers, end, between, &name, now).map_err(|error| wrong(&error))?;
    }
    let holder = Holder::of(end, &own.datacenter);
    let holder = holder.map_err(|stranger| files.certificate.wrong(stranger))?;
    if holder.role != own.role || !holder.name.eq_ignore_ascii_case(&own.name) {
        return Err(files.certificate.wrong(format!("it is that of {holder}, and this is {own}")));
    }
    let expires = end_of(&files.certificate, &key)?;
    let ca_expires = end_of_last(&files.ca)?;
    Ok(Current { key: Arc::new(key), clients, servers, expires, ca_expires })
}

fn verify_as_server(
    servers: &WebPkiServerVerifier,
    end: &CertificateDer<'_>,
    between: &[CertificateDer<'_>],
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), Error> {
    use tokio_rustls::rustls::client::danger::ServerCertVerifier as _;
    servers.verify_server_cert(end, between, name, &[], now).map(drop)
}

/// When a certificate ends.
pub(super) fn end_of(file: &NamedFile, key: &CertifiedKey) -> Result<UnixTime, String> {
    let end = key.end_entity_cert().map_err(|error| file.wrong(error))?;
    not_after(file, end)
}

/// When the last of a file's certificates ends: while one CA replaces another, the file has both.
fn end_of_last(file: &NamedFile) -> Result<UnixTime, String> {
    let mut last = UnixTime::since_unix_epoch(Duration::ZERO);
    for certificate in file.certificates()? {
        last = last.max(not_after(file, &certificate)?);
    }
    Ok(last)
}

fn not_after(file: &NamedFile, certificate: &CertificateDer<'_>) -> Result<UnixTime, String> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|error| file.wrong(error))?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    Ok(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}

impl ResolvesServerCert for Credentials {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current().key))
    }
}

impl ResolvesClientCert for Credentials {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current().key))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
