//! Where the target of a check is, as far as its definition says.

use std::net::IpAddr;

use super::CheckDefinition;

impl CheckDefinition {
    /// Whether it has a target, so that it is run at intervals.
    #[must_use]
    pub fn has_target(&self) -> bool {
        self.target().is_some()
    }

    /// Whether its target is on the host that registered it: the definition names a loopback address, or none in
    /// particular.
    #[must_use]
    pub fn is_of_own_host(&self) -> bool {
        self.target().is_some_and(|target| is_own_host(host_of(target)))
    }

    /// How many workers look at the target.
    #[must_use]
    pub fn observers(&self) -> usize {
        usize::from(self.later.observers.max(1))
    }

    /// Which of several targets counts: Consul's order.
    fn target(&self) -> Option<&str> {
        let all = [&self.http, &self.tcp, &self.udp, &self.grpc, &self.h2ping];
        all.into_iter().map(String::as_str).find(|target| !target.is_empty())
    }
}

/// Whether a host is the one that asks, whichever that is.
#[must_use]
pub fn is_own_host(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| {
            let address = address.to_canonical();
            address.is_loopback() || address.is_unspecified()
        })
}

/// The host of a URL, or of `HOST:PORT` with or without a path behind it; without the brackets of an IPv6 address.
fn host_of(target: &str) -> &str {
    let rest = target.split_once("://").map_or(target, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(host, _)| host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_address_in_any_form_is_the_host_that_registers() {
        let http =
            |url: &str| CheckDefinition { http: url.to_owned(), ..CheckDefinition::default() };
        for own in [
            "http://localhost",
            "http://LOCALHOST.:80/x",
            "https://user:pw@127.0.0.1:8443/?q=a@b",
            "http://[::1]:80/",
            "http://[::ffff:127.0.0.3]/",
            "http://0.0.0.0:80",
        ] {
            assert!(http(own).is_of_own_host(), "{own}");
        }
        for other in
            ["http://10.0.0.1/localhost", "http://localhost.example.com", "http://[fd00::1]/"]
        {
            assert!(!http(other).is_of_own_host(), "{other}");
        }
        let grpc = CheckDefinition {
            grpc: "127.0.0.1:50051/a.B".to_owned(),
            ..CheckDefinition::default()
        };
        assert!(grpc.is_of_own_host() && grpc.has_target());
        let ttl = CheckDefinition::default();
        assert!(!ttl.is_of_own_host() && !ttl.has_target());
    }
}
