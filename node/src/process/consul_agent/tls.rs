//! What a Consul configuration says about TLS: files for the port of servers, and for HTTPS.
//!
//! Each of `tls.internal_rpc` and `tls.https` has its own files, else those of `tls.defaults`, else those of the older
//! keys at the top. Where there is TLS, both sides of the servers' port always show certificates and check each other's
//! names, as with `verify_incoming`, `verify_outgoing` and `verify_server_hostname`. A configuration that asks for one of
//! these and names no files is refused.

use std::path::PathBuf;

use serde::Deserialize;

use crate::process::config::ConfigError;

/// The keys of one port, or of all.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Group {
    pub(super) ca_file: Option<PathBuf>,
    pub(super) cert_file: Option<PathBuf>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) verify_incoming: Option<bool>,
    pub(super) verify_outgoing: Option<bool>,
    pub(super) verify_server_hostname: Option<bool>,
}

/// The keys of `tls`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) defaults: Group,
    pub(super) internal_rpc: Group,
    pub(super) https: Group,
}

impl Group {
    /// These, and where there are none, others.
    pub(super) fn or(&self, other: &Self) -> Self {
        let path = |own: &Option<PathBuf>, other: &Option<PathBuf>| {
            own.as_ref().or(other.as_ref()).filter(|path| !path.as_os_str().is_empty()).cloned()
        };
        Self {
            ca_file: path(&self.ca_file, &other.ca_file),
            cert_file: path(&self.cert_file, &other.cert_file),
            key_file: path(&self.key_file, &other.key_file),
            verify_incoming: self.verify_incoming.or(other.verify_incoming),
            verify_outgoing: self.verify_outgoing.or(other.verify_outgoing),
            verify_server_hostname: self.verify_server_hostname.or(other.verify_server_hostname),
        }
    }

    /// The CA, the certificate and the key for the port of servers: all or none.
    ///
    /// # Errors
    /// Some are missing.
    pub(super) fn for_servers(&self) -> Result<[Option<PathBuf>; 3], ConfigError> {
        let asks = [self.verify_incoming, self.verify_outgoing, self.verify_server_hostname];
        let files = [self.ca_file.clone(), self.cert_file.clone(), self.key_file.clone()];
        let given = files.iter().flatten().count();
        match given {
            3 => Ok(files),
            // A CA alone is what HTTPS checks are made with elsewhere, or asks for protection.
            0 if !asks.contains(&Some(true)) => Ok(files),
            _ => invalid(
                "tls.internal_rpc: ca_file, cert_file and key_file belong together (here, in tls.defaults, or at the top), \
                 and verify_incoming, verify_outgoing and verify_server_hostname need them; `quorate tls cert` makes them",
            ),
        }
    }

    /// The certificate, the key, and the CA of clients if they are asked for certificates.
    ///
    /// # Errors
    /// Some are missing.
    pub(super) fn for_clients(&self) -> Result<[Option<PathBuf>; 3], ConfigError> {
        let asks = self.verify_incoming == Some(true);
        match (&self.cert_file, &self.key_file, &self.ca_file) {
            (Some(_), Some(_), None) if asks => invalid("tls.https.verify_incoming needs ca_file"),
            (Some(certificate), Some(key), ca) => {
                let ca = ca.clone().filter(|_| asks);
                Ok([Some(certificate.clone()), Some(key.clone()), ca])
            }
            _ => invalid(
                "ports.https needs tls.https.cert_file and key_file (there, or in tls.defaults)",
            ),
        }
    }
}

fn invalid<T>(text: &str) -> Result<T, ConfigError> {
    Err(ConfigError::Invalid(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(files: &[&str]) -> Group {
        let file = |at: usize| files.get(at).filter(|text| !text.is_empty()).map(PathBuf::from);
        Group { ca_file: file(0), cert_file: file(1), key_file: file(2), ..Group::default() }
    }

    #[test]
    fn what_a_port_does_not_say_the_defaults_say() {
        let all = group(&["", "cert", "key"]).or(&group(&["ca", "other", "other"]));
        assert_eq!(all, group(&["ca", "cert", "key"]));
        let off = Group { verify_incoming: Some(false), ..Group::default() };
        let on = Group { verify_incoming: Some(true), ..Group::default() };
        assert_eq!(off.or(&on).verify_incoming, Some(false));
    }

    #[test]
    fn a_half_is_refused_and_so_is_what_asks_for_protection_without_files() {
        assert_eq!(group(&[]).for_servers().unwrap(), [None, None, None]);
        assert!(group(&["ca", "cert", "key"]).for_servers().is_ok());
        for half in [group(&["ca"]), group(&["", "cert", "key"]), group(&["ca", "cert"])] {
            assert!(half.for_servers().is_err(), "{half:?}");
        }
        let asks = Group { verify_outgoing: Some(true), ..Group::default() };
        assert!(asks.for_servers().unwrap_err().to_string().contains("tls.internal_rpc"));
        assert!(group(&["ca"]).for_clients().is_err());
        let https = group(&["ca", "cert", "key"]);
        assert_eq!(https.for_clients().unwrap()[2], None, "clients need no certificate");
        let asks = Group { verify_incoming: Some(true), ..https };
        assert_eq!(asks.for_clients().unwrap()[2], Some(PathBuf::from("ca")));
        assert!(Group { ca_file: None, ..asks }.for_clients().is_err());
    }
}
