//! Addresses as operators write them: a host, by IP address or by name, and a port.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

use serde::Deserialize;

/// `HOST:PORT`. A name stays a name: it is resolved when it is used, and again at each use.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct HostPort {
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
}

impl HostPort {
    /// The host: an IP address or a name.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same host with another port.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Self {
        Self { host: self.host.clone(), port }
    }

    /// The host's IP address, if it is given as one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// The first address that the name has now. Blocks while a name server is asked.
    ///
    /// # Errors
    /// When the name has none.
    pub fn resolve(&self) -> io::Result<SocketAddr> {
        let mut addresses = (self.host.as_str(), self.port).to_socket_addrs()?;
        addresses.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it has no address"))
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl FromStr for HostPort {
    type Err = String;

    /// Blanks around it do not count.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong =
            || format!("{text:?} is not HOST:PORT, such as 10.0.0.1:8300 or n1.example:8300");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let is_bracketed = host.starts_with('[') && host.ends_with(']');
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_name = |name: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            !name.is_empty() && name.bytes().all(plain)
        };
        let is_valid = match host.parse::<IpAddr>() {
            Ok(ip) => ip.is_ipv6() == is_bracketed,
            Err(_) => !is_bracketed && is_name(host),
        };
        if is_valid { Ok(Self { host: host.to_owned(), port }) } else { Err(wrong()) }
    }
}

impl TryFrom<String> for HostPort {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ip_addresses_and_names_are_kept_as_they_are() {
        for text in ["10.0.0.1:8300", "[::1]:8300", "n1.example:1", "quorate-0.quorate:65535"] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
            assert_eq!(format!(" {text}\t").parse::<HostPort>().unwrap().to_string(), text);
        }
        let name: HostPort = "localhost:8300".parse().unwrap();
        assert_eq!((name.host(), name.port(), name.ip()), ("localhost", 8300, None));
        assert!(name.resolve().unwrap().ip().is_loopback());
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in
            ["", "n1", ":8300", "n1:", "n1:65536", "a b:1", "::1:8300", "[n1]:1", "http://n1:1"]
        {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }
}
