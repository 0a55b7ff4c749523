//! Where checks may go, and what they tell of what they find there.
//!
//! A check goes where whoever registered it says, from hosts that reach more than he does. Its operator says which
//! networks that may be (`--check-allow`, `--check-deny`). Never allowed are link-local addresses, where clouds tell a
//! host's credentials, the ports by which the cluster's servers speak to each other, and a worker's own loopback for
//! what another host has registered. It is the address that counts, after the look-up of a name, for each connection.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// What an operator allows the checks that a process runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Only these networks, if there are any.
    pub allow: Vec<IpNet>,
    /// None of these.
    pub deny: Vec<IpNet>,
    /// Whether an output has the body of a target's answer.
    pub shows_body: bool,
}

/// For whom a connection would be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// Whether another host has registered the check.
    pub(super) is_of_other_host: bool,
    /// Where the cluster's servers serve each other.
    pub(super) servers: &'a [SocketAddr],
}

impl Policy {
    /// Why no check may connect to an address, if none may.
    pub(super) fn refusal(&self, address: SocketAddr, asked: Asked<'_>) -> Option<String> {
        // An IPv4 address can be written as an IPv6 one, and leads to the same place.
        let ip = address.ip().to_canonical();
        let is_in = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&ip));
        let is_server = |server: &SocketAddr| {
            server.port() == address.port()
                && (server.ip().to_canonical() == ip || ip.is_loopback() || ip.is_unspecified())
        };
        if is_link_local(ip) {
            Some(format!("{ip} is link-local, and no check may reach such an address"))
        } else if asked.servers.iter().any(is_server) {
            Some(format!("{address} is where servers serve each other, and no check may reach it"))
        } else if asked.is_of_other_host && (ip.is_loopback() || ip.is_unspecified()) {
            Some(format!("{ip} is the worker itself, and another host has registered the check"))
        } else if is_in(&self.deny) {
            Some(format!("{ip} is in a network that --check-deny names"))
        } else if !self.allow.is_empty() && !is_in(&self.allow) {
            Some(format!("{ip} is in no network that --check-allow names"))
        } else {
            None
        }
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Networks as an operator writes them: `10.0.0.0/8`, `fd00::/8`, `10.0.0.5`.
///
/// # Errors
/// The text that is none.
pub fn networks(texts: &[String]) -> Result<Vec<IpNet>, String> {
    let trimmed = texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty());
    trimmed
        .map(|text| {
            let single = || text.parse::<IpAddr>().map(IpNet::from);
            text.parse().or_else(|_| single()).map_err(|_| text.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(policy: &Policy, address: &str, is_of_other_host: bool) -> String {
        let servers = ["10.0.0.1:8300".parse().unwrap()];
        let asked = Asked { is_of_other_host, servers: &servers };
        policy.refusal(address.parse().unwrap(), asked).unwrap_or_default()
    }

    #[test]
    fn some_addresses_are_never_allowed() {
        let policy = Policy {
            allow: networks(&["0.0.0.0/0".into(), "::/0".into()]).unwrap(),
            ..Policy::default()
        };
        for (address, why) in [
            ("169.254.169.254:80", "link-local"),
            ("[fe80::1]:80", "link-local"),
            ("[::ffff:169.254.1.1]:80", "link-local"),
            ("10.0.0.1:8300", "servers serve each other"),
            ("[::ffff:10.0.0.1]:8300", "servers serve each other"),
            // Perhaps it listens at all addresses.
            ("127.0.0.1:8300", "servers serve each other"),
            ("0.0.0.0:8300", "servers serve each other"),
        ] {
            assert!(refused(&policy, address, false).contains(why), "{address}");
        }
        for address in ["10.0.0.1:8500", "10.0.0.2:8300", "127.0.0.1:80", "[2001:db8::1]:80"] {
            assert_eq!(refused(&policy, address, false), "", "{address}");
        }
        for address in ["127.0.0.1:80", "[::1]:80", "0.0.0.0:80", "127.9.9.9:80"] {
            assert!(refused(&policy, address, true).contains("the worker itself"), "{address}");
        }
    }

    #[test]
    fn an_operator_says_which_networks_checks_may_reach() {
        let texts =
            |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let networks = |given: &[&str]| networks(&texts(given)).unwrap();
        let policy = Policy {
            allow: networks(&["10.0.0.0/8", " fd00::/8"]),
            deny: networks(&["10.1.0.0/16", "10.2.0.7"]),
            ..Policy::default()
        };
        for address in ["10.9.0.1:80", "10.2.0.8:80", "[fd00::1]:80", "[::ffff:10.9.0.1]:80"] {
            assert_eq!(refused(&policy, address, false), "", "{address}");
        }
        for address in ["10.1.2.3:80", "10.2.0.7:80", "[::ffff:10.1.0.1]:80"] {
            assert!(refused(&policy, address, false).contains("--check-deny"), "{address}");
        }
        for address in ["192.0.2.1:80", "[2001:db8::1]:80"] {
            assert!(refused(&policy, address, false).contains("--check-allow"), "{address}");
        }
        assert_eq!(super::networks(&texts(&["10.0.0.0/33"])), Err("10.0.0.0/33".to_owned()));
        assert_eq!(super::networks(&texts(&["", " "])), Ok(Vec::new()));
    }
}
