//! TLS to servers at `https://` addresses: whom this client trusts, and what it shows of itself.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::Error;

static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(ring::default_provider()));

/// How servers are checked, and what they are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    /// Certificates of the CAs that are trusted; without it, those that the system trusts.
    pub(crate) ca_file: Option<PathBuf>,
    /// The client's own certificate.
    pub(crate) certificate: Option<PathBuf>,
    /// The key of that.
    pub(crate) key: Option<PathBuf>,
    /// Whether anybody is trusted.
    pub(crate) trusts_anyone: bool,
}

impl Tls {
    /// What the environment says where this says nothing: `QUORATE_CA_FILE`, `QUORATE_CLIENT_CERT` and
    /// `QUORATE_CLIENT_KEY`, or what Consul's clients read: `CONSUL_CACERT`, `CONSUL_CLIENT_CERT`,
    /// `CONSUL_CLIENT_KEY` and `CONSUL_HTTP_SSL_VERIFY`.
    ///
    /// # Errors
    /// [`Error::Configuration`]: `CONSUL_HTTP_SSL_VERIFY` is neither true nor false.
    pub(crate) fn or_environment(self) -> Result<Self, Error> {
        self.or(|name| std::env::var(name).ok())
    }

    fn or(self, read: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let given = |name: &str| read(name).filter(|text| !text.trim().is_empty());
        let path = |names: [&str; 2]| names.into_iter().find_map(given).map(PathBuf::from);
        let verify = given("CONSUL_HTTP_SSL_VERIFY");
        let verify = verify.map_or(Ok(true), |text| boolean("CONSUL_HTTP_SSL_VERIFY", &text))?;
        // A certificate and its key come from one place.
        let has_own = self.certificate.is_some() || self.key.is_some();
        let own = |names| if has_own { None } else { path(names) };
        Ok(Self {
            certificate: self
                .certificate
                .or_else(|| own(["QUORATE_CLIENT_CERT", "CONSUL_CLIENT_CERT"])),
            key: self.key.or_else(|| own(["QUORATE_CLIENT_KEY", "CONSUL_CLIENT_KEY"])),
            ca_file: self.ca_file.or_else(|| path(["QUORATE_CA_FILE", "CONSUL_CACERT"])),
            trusts_anyone: self.trusts_anyone || !verify,
        })
    }

    /// What connections are made with. `is_used`: whether any server has an `https://` address.
    ///
    /// # Errors
    /// [`Error::Configuration`]: a file cannot be read or used.
    pub(crate) fn config(&self, is_used: bool) -> Result<ClientConfig, Error> {
        // A program's other uses of reqwest need a provider, too, and would panic without one. If there is one, it stays.
        drop(CryptoProvider::install_default((**PROVIDER).clone()));
        let builder = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Configuration(error.to_string()))?;
        let builder = match self.trusts_anyone {
            true => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone)),
            false => builder.with_root_certificates(self.roots(is_used)?),
        };
        match (&self.certificate, &self.key) {
            (None, None) => Ok(builder.with_no_client_auth()),
            (Some(certificate), Some(key)) => {
                let chain = certificates(certificate)?;
                let own_key =
                    PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, error))?;
                let built = builder.with_client_auth_cert(chain, own_key);
                built.map_err(|error| unusable(key, error))
            }
            (Some(path), None) => Err(unusable(path, "a client's certificate needs its key")),
            (None, Some(path)) => Err(unusable(path, "a key needs its certificate")),
        }
    }

    fn roots(&self, is_used: bool) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        match &self.ca_file {
            Some(path) => {
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|error| unusable(path, error))?;
                }
            }
            // Takes milliseconds, and reads many files.
            None if is_used => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
            }
            None => {}
        }
        Ok(roots)
    }
}

/// Go's notion of a truth value.
pub(crate) fn boolean(name: &str, text: &str) -> Result<bool, Error> {
    match text.trim() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(Error::Configuration(format!("{name}: {other:?} is neither true nor false"))),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(|error| unusable(path, error))?;
    if read.is_empty() {
        Err(unusable(path, "there is no certificate in it (PEM)"))
    } else {
        Ok(read)
    }
}

fn unusable(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::Configuration(format!("{}: {why}", path.display()))
}

/// Takes any certificate, as long as the other side holds its key.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &PROVIDER.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &PROVIDER.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(own: Tls, variables: &[(&str, &str)]) -> Result<Tls, Error> {
        own.or(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_environment_says_what_the_caller_does_not() {
        let consul = [
            ("CONSUL_CACERT", "ca"),
            ("CONSUL_CLIENT_CERT", "cert"),
            ("CONSUL_CLIENT_KEY", "key"),
            ("CONSUL_HTTP_SSL_VERIFY", "false"),
        ];
        let path = |text: &str| Some(PathBuf::from(text));
        let read = from(Tls::default(), &consul).unwrap();
        let all = Tls {
            ca_file: path("ca"),
            certificate: path("cert"),
            key: path("key"),
            trusts_anyone: true,
        };
        assert_eq!(read, all);
        let both = [consul[0], ("QUORATE_CA_FILE", "own")];
        assert_eq!(from(Tls::default(), &both).unwrap().ca_file, path("own"));
        // The key of another certificate would be of no use.
        let own = Tls { certificate: path("mine"), ..Tls::default() };
        let read = from(own, &consul).unwrap();
        assert_eq!((read.certificate, read.key), (path("mine"), None));
        assert!(from(Tls::default(), &[("CONSUL_HTTP_SSL_VERIFY", "maybe")]).is_err());
    }

    #[test]
    fn files_that_are_not_there_or_lack_a_half_are_named() {
        let path = Some(PathBuf::from("/no/such.pem"));
        for tls in [
            Tls { ca_file: path.clone(), ..Tls::default() },
            Tls { certificate: path.clone(), ..Tls::default() },
            Tls { key: path.clone(), ..Tls::default() },
            Tls { certificate: path.clone(), key: path, ..Tls::default() },
        ] {
            let error = tls.config(true).unwrap_err().to_string();
            assert!(error.contains("/no/such.pem"), "{tls:?}: {error}");
        }
        assert!(Tls::default().config(false).is_ok());
    }
}
