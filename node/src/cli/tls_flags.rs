//! How whoever asks servers over TLS trusts them, and shows who he is.

use std::path::PathBuf;

use clap::Args;
use quorate_client::ClientBuilder;

/// Flags of whatever asks servers at https:// addresses. What they leave out is in the environment
/// ([`ClientBuilder::tls_from_env`]).
#[derive(Debug, Args)]
pub(crate) struct TlsFlags {
    /// The CA of servers at https:// addresses (PEM) [default: QUORATE_CA_FILE, else CONSUL_CACERT, else what this system trusts]
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The certificate to show to servers that ask for one (PEM) [default: QUORATE_CLIENT_CERT, else CONSUL_CLIENT_CERT]
    #[arg(long, global = true, value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// Its key (PEM) [default: QUORATE_CLIENT_KEY, else CONSUL_CLIENT_KEY]
    #[arg(long, global = true, value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
}

impl TlsFlags {
    /// A builder with what was given.
    pub(crate) fn apply(&self, mut builder: ClientBuilder) -> ClientBuilder {
        if let Some(path) = &self.ca_file {
            builder = builder.ca_file(path);
        }
        if let (Some(certificate), Some(key)) = (&self.client_cert, &self.client_key) {
            builder = builder.client_certificate(certificate, key);
        }
        builder
    }
}
