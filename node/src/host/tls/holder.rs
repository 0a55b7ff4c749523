//! Whom a certificate names.
//!
//! A certificate of a cluster says who may use it by a DNS name, as Consul's do: `n1.server.dc1.quorate` for the
//! server n1 of datacenter dc1. It also has `server.dc1.quorate`, the name of all servers, which is what a client
//! looks for that does not know whom it reaches. Nothing resolves these names.

use std::fmt;

use thiserror::Error;
use tokio_rustls::rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// The last label of all such names.
const DOMAIN: &str = "quorate";
/// Names of a certificate that a message quotes.
const QUOTED_MAX: usize = 4;

/// What the holder of a certificate does in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It votes, and keeps the data.
    Server,
    /// It hands requests of its host to servers.
    Agent,
    /// It asks servers at their port for clients.
    Client,
}

impl Role {
    const ALL: [Self; 3] = [Self::Server, Self::Agent, Self::Client];

    /// Its label in names.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Agent => "agent",
            Self::Client => "client",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Who may use a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The name of the server, agent or client.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// Where.
    pub datacenter: String,
}

/// A certificate that names no member of this cluster.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Stranger {
    /// It cannot be read.
    #[error("it is no certificate that can be read")]
    Unreadable,
    /// None of its names says who it is for, or several do.
    #[error(
        "it does not say whom it is for: exactly one of its names must be NAME.server.{datacenter}.quorate (or \
         NAME.agent...), and it has {names}. Make one with `quorate tls cert`"
    )]
    Nameless {
        /// The datacenter of whoever looks at it.
        datacenter: String,
        /// What it has instead.
        names: String,
    },
    /// Its holder does something else.
    #[error("it is that of the {holder}, and {wanted} is asked for here")]
    OtherRole {
        /// Whose it is.
        holder: Holder,
        /// What would do.
        wanted: &'static str,
    },
    /// It is another server's.
    #[error("it is that of the {holder}, and server {wanted} is expected at this address")]
    OtherServer {
        /// Whose it is.
        holder: Holder,
        /// The name of the other.
        wanted: String,
    },
}

/// The name of all that do this in a datacenter.
#[must_use]
pub fn role_name(role: Role, datacenter: &str) -> String {
    format!("{role}.{datacenter}.{DOMAIN}")
}

impl Holder {
    /// Its name in certificates.
    #[must_use]
    pub fn dns_name(&self) -> String {
        format!("{}.{}", self.name, role_name(self.role, &self.datacenter))
    }

    /// Whose a certificate is. Whether it is genuine is for others to check.
    ///
    /// # Errors
    /// [`Stranger`].
    pub fn of(certificate: &CertificateDer<'_>, datacenter: &str) -> Result<Self, Stranger> {
        let parsed = EndEntityCert::try_from(certificate).map_err(|_| Stranger::Unreadable)?;
        let names: Vec<&str> = parsed.valid_dns_names().collect();
        let mut holders = names.iter().filter_map(|name| Self::parse(name, datacenter));
        match (holders.next(), holders.next()) {
            (Some(holder), None) => Ok(holder),
            (None | Some(_), _) => {
                let mut quoted: Vec<String> =
                    names.iter().take(QUOTED_MAX).map(|name| format!("{name:?}")).collect();
                if names.is_empty() {
                    quoted.push("none".to_owned());
                }
                let (datacenter, names) = (datacenter.to_owned(), quoted.join(", "));
                Err(Stranger::Nameless { datacenter, names })
            }
        }
    }

    /// Names may have dots, so they are read from their end.
    fn parse(dns_name: &str, datacenter: &str) -> Option<Self> {
        let name = dns_name.to_ascii_lowercase();
        let (rest, domain) = name.rsplit_once('.')?;
        let (rest, of) = rest.rsplit_once('.')?;
        let (name, label) = rest.rsplit_once('.')?;
        let role = Role::ALL.into_iter().find(|role| role.label() == label)?;
        // A wildcard is nobody's name.
        let is_ours = domain == DOMAIN && of.eq_ignore_ascii_case(datacenter);
        if !is_ours || name.contains('*') {
            return None;
        }
        Some(Self { name: dns_name[..name.len()].to_owned(), role, datacenter: of.to_owned() })
    }

    /// Whether it is this server. Two servers whose names differ in the case of letters only are one.
    #[must_use]
    pub fn is_server(&self, name: &str) -> bool {
        self.role == Role::Server && self.name.eq_ignore_ascii_case(name)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str]) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        rcgen::generate_simple_self_signed(names).unwrap().cert.der().clone()
    }

    fn holder(names: &[&str]) -> Result<String, String> {
        let holder = Holder::of(&certificate(names), "dc1");
        holder.map(|holder| holder.to_string()).map_err(|stranger| stranger.to_string())
    }

    #[test]
    fn a_certificate_names_its_holder_beside_other_names() {
        let names = ["localhost", "server.dc1.quorate", "n1.server.dc1.quorate", "n1.example"];
        assert_eq!(holder(&names).unwrap(), "server n1");
        assert_eq!(holder(&["a.b_c.agent.dc1.quorate"]).unwrap(), "agent a.b_c");
        assert_eq!(holder(&["N1.Server.DC1.Quorate"]).unwrap(), "server N1");
        // Read from the end, a name cannot pretend to be another role's.
        assert_eq!(
            holder(&["n1.server.dc1.quorate.client.dc1.quorate"]).unwrap(),
            "client n1.server.dc1.quorate"
        );
        let built = Holder { name: "n1".into(), role: Role::Server, datacenter: "dc1".into() };
        assert_eq!(Holder::of(&certificate(&[&built.dns_name()]), "dc1").unwrap(), built);
        assert!(built.is_server("N1") && !built.is_server("n2"));
        let agent = Holder { role: Role::Agent, ..built };
        assert!(!agent.is_server("n1"));
    }

    #[test]
    fn a_certificate_that_names_nobody_or_several_or_another_datacenter_is_a_strangers() {
        for names in [
            &["n1.example"][..],
            &["server.dc1.quorate"],
            &["n1.server.dc2.quorate"],
            &["n1.server.dc1.consul"],
            &["n1.king.dc1.quorate"],
            &["*.server.dc1.quorate"],
            &["n1.server.dc1.quorate", "n2.server.dc1.quorate"],
            &["n1.server.dc1.quorate", "n1.client.dc1.quorate"],
        ] {
            let why = holder(names).unwrap_err();
            assert!(why.contains("does not say whom it is for"), "{names:?}: {why}");
            assert!(why.contains(names[0]) && why.contains("quorate tls cert"), "{why}");
        }
        let unreadable = Holder::of(&CertificateDer::from(vec![1, 2, 3]), "dc1");
        assert_eq!(unreadable.unwrap_err(), Stranger::Unreadable);
    }
}
