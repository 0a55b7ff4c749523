//! Certificates for clusters and their clients, made as an operator makes them: with `quorate tls`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{Failure, Result, process};

/// The port for clients that use TLS.
const HTTPS_PORT: u16 = 8501;
/// For how long a CA is valid: as `quorate tls ca` makes them.
const CA_DAYS: u32 = 3_650;

/// A CA and what it has issued, in a directory that goes with this.
#[derive(Debug)]
pub struct Certificates {
    dir: TempDir,
}

impl Certificates {
    /// A CA, and a certificate for each of so many servers.
    pub fn make(servers: u64) -> Result<Self> {
        Self::make_for_days(servers, CA_DAYS)
    }

    /// The same with a CA that is valid for so many days.
    pub fn make_for_days(servers: u64, days: u32) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("quorate-certificates-").tempdir()?;
        let made = Self { dir };
        made.tls(&["ca", "--days", &days.to_string()])?;
        for id in 1..=servers {
            made.issue("server", &format!("n{id}"))?;
        }
        Ok(made)
    }

    /// Makes a certificate and its key; others for the same holder are moved away, to `old-...`.
    pub fn issue(&self, role: &str, name: &str) -> Result<()> {
        for file in [self.certificate(role, name), self.key(role, name)] {
            if file.exists() {
                let name = file.file_name().and_then(OsStr::to_str).unwrap_or_default();
                std::fs::rename(&file, self.dir.path().join(format!("old-{name}")))?;
            }
        }
        let (ca, key) = (self.ca(), self.dir.path().join("quorate-ca-key.pem"));
        let (ca, key) = (ca.display().to_string(), key.display().to_string());
        self.tls(&["cert", &format!("--{role}"), name, "--ca", &ca, "--ca-key", &key])
    }

    /// The CA's certificate.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("quorate-ca.pem")
    }

    /// A holder's certificate.
    #[must_use]
    pub fn certificate(&self, role: &str, name: &str) -> PathBuf {
        self.dir.path().join(format!("dc1-{role}-{name}.pem"))
    }

    /// The key of that.
    #[must_use]
    pub fn key(&self, role: &str, name: &str) -> PathBuf {
        self.dir.path().join(format!("dc1-{role}-{name}-key.pem"))
    }

    /// Where they all are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What servers get from the environment to use TLS at both ports
    /// ([`Options::environment`](crate::cluster::Options::environment)).
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: PathBuf| path.display().to_string();
        let (own, key) =
            (text(self.certificate("server", "n{id}")), text(self.key("server", "n{id}")));
        [
            ("RPC_TLS_CA", text(self.ca())),
            ("RPC_TLS_CERT", own.clone()),
            ("RPC_TLS_KEY", key.clone()),
            ("HTTPS_ADDR", format!("{{ip}}:{HTTPS_PORT}")),
            ("HTTPS_CERT", own),
            ("HTTPS_KEY", key),
        ]
        .into_iter()
        .map(|(name, value)| (format!("QUORATE_SERVER_{name}"), value))
        .collect()
    }

    /// Runs `quorate tls` in the directory.
    pub fn tls(&self, arguments: &[&str]) -> Result<()> {
        let dir = self.dir.path().display().to_string();
        let arguments = [&["tls"], arguments, &["--dir", &dir]].concat();
        let (status, said) = process::run(&[], &arguments)?;
        if status.success() { Ok(()) } else { Err(Failure::new(format!("{arguments:?}: {said}"))) }
    }
}
