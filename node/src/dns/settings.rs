//! How DNS is served: what flags and configurations say of it.

use std::collections::BTreeMap;
use std::time::Duration;

use hickory_proto::rr::Name;

/// The domain when nothing is said.
pub const DEFAULT_DOMAIN: &str = "consul";
/// The domains of reverse look-ups, which cannot be the cluster's own.
const ARPA: &str = "arpa";
/// The largest TTL (RFC 2181, section 8).
const TTL_SECONDS_MAX: u64 = 0x7fff_ffff;
/// In a list of TTLs: all services, or all that begin like this.
const WILDCARD: &str = "*";

/// How DNS is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsSettings {
    /// The domains that are answered for, at least one. In an answer stands the one that was asked for.
    pub domains: Vec<Name>,
    /// TTL of nodes and addresses, in seconds.
    pub node_ttl: u32,
    /// TTLs of services.
    pub service_ttl: ServiceTtls,
    /// Whether an instance with a warning check is left out, as one with a critical check always is.
    pub only_passing: bool,
    /// Records in an answer over UDP to a client without EDNS, at most; `None`: as many as fit.
    pub udp_answers_max: Option<usize>,
    /// Addresses in any answer, at most.
    pub addresses_max: Option<usize>,
    /// Whether an answer over UDP that was cut says so, and the client asks again over TCP.
    pub marks_truncation: bool,
    /// Whether a node's metadata come with its addresses.
    pub node_meta: bool,
    /// The domain's SOA record.
    pub soa: SoaTimes,
    /// How long ago the leader may have been heard; `None`: any time.
    pub stale_max: Option<Duration>,
}

/// The times of the SOA record, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoaTimes {
    /// Time between two looks of a secondary server.
    pub refresh: u32,
    /// Time until it tries again.
    pub retry: u32,
    /// Time after which it gives up.
    pub expire: u32,
    /// How long it may be remembered that a name does not exist.
    pub negative_ttl: u32,
}

/// TTLs of services, in seconds, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceTtls {
    exact: BTreeMap<String, u32>,
    /// Of all services that begin with these words; the empty one is of all services.
    prefixes: BTreeMap<String, u32>,
}

impl Default for DnsSettings {
    fn default() -> Self {
        Self {
            domains: domain(DEFAULT_DOMAIN).into_iter().collect(),
            node_ttl: 0,
            service_ttl: ServiceTtls::default(),
            only_passing: false,
            udp_answers_max: None,
            addresses_max: None,
            marks_truncation: true,
            node_meta: true,
            soa: SoaTimes::default(),
            stale_max: None,
        }
    }
}

impl Default for SoaTimes {
    /// Consul's.
    fn default() -> Self {
        Self { refresh: 3_600, retry: 600, expire: 86_400, negative_ttl: 0 }
    }
}

impl DnsSettings {
    /// One TTL for everything.
    #[must_use]
    pub fn with_ttl(mut self, seconds: u32) -> Self {
        self.node_ttl = seconds;
        self.service_ttl = ServiceTtls::default();
        self.service_ttl.add(WILDCARD, seconds);
        self
    }
}

impl ServiceTtls {
    /// Adds one for a service, for all whose names begin with what stands before a `*`, or for all (`*`).
    pub fn add(&mut self, service: &str, seconds: u32) {
        let service = service.to_lowercase();
        match service.strip_suffix(WILDCARD) {
            Some(prefix) => self.prefixes.insert(prefix.to_owned(), seconds),
            None => self.exact.insert(service, seconds),
        };
    }

    /// The TTL of a service, named in lower case: its own, else that of the longest prefix.
    #[must_use]
    pub fn of(&self, service: &str) -> u32 {
        let by_prefix = || {
            let fitting = self.prefixes.iter().filter(|(prefix, _)| service.starts_with(*prefix));
            fitting.max_by_key(|(prefix, _)| prefix.len()).map(|(_, ttl)| *ttl)
        };
        self.exact.get(service).copied().or_else(by_prefix).unwrap_or(0)
    }
}

/// Reads a domain, such as `consul` or `dc.example.com`.
///
/// # Errors
/// A sentence that says what it must look like.
pub fn domain(text: &str) -> Result<Name, String> {
    let wrong =
        |why: &str| Err(format!("{text:?}: {why}, such as \"consul\" or \"dc.example.com\""));
    let labels: Vec<&str> = text.trim().trim_end_matches('.').split('.').collect();
    let is_label = |label: &&str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        !label.is_empty() && label.bytes().all(is_allowed)
    };
    if !labels.iter().all(is_label) {
        return wrong("names of letters, digits and - with dots between them");
    }
    if labels.last().is_some_and(|last| last.eq_ignore_ascii_case(ARPA)) {
        return wrong("a domain that is not arpa's");
    }
    let labels = labels.iter().map(|label| label.as_bytes());
    Name::from_labels(labels).or_else(|_| wrong("a name of at most 255 bytes, 63 between two dots"))
}

/// A TTL in whole seconds.
///
/// # Errors
/// A sentence when it is negative, or more than DNS can say.
pub fn ttl_seconds(nanos: i64) -> Result<u32, String> {
    let seconds = u64::try_from(nanos).ok().map(|nanos| nanos / 1_000_000_000);
    match seconds.filter(|seconds| *seconds <= TTL_SECONDS_MAX).map(u32::try_from) {
        Some(Ok(seconds)) => Ok(seconds),
        _ => Err("a TTL is from 0s to 68 years".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_made_of_labels_and_is_not_that_of_reverse_look_ups() {
        for (text, name) in [("consul", "consul."), ("DC.example.com.", "DC.example.com.")] {
            assert_eq!(domain(text).unwrap().to_ascii(), name);
        }
        let long = "a".repeat(64);
        for text in ["", ".", "a..b", "a b", "in-addr.arpa", "ö", "x/y", &long] {
            assert!(domain(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_services_ttl_is_its_own_or_that_of_the_longest_prefix() {
        let mut ttls = ServiceTtls::default();
        assert_eq!(ttls.of("web"), 0);
        for (service, seconds) in [("*", 1), ("web*", 2), ("Web", 3), ("web-*", 4)] {
            ttls.add(service, seconds);
        }
        let found = ["db", "webs", "web", "web-1"].map(|service| ttls.of(service));
        assert_eq!(found, [1, 2, 3, 4]);
    }

    #[test]
    fn a_ttl_is_in_whole_seconds() {
        assert_eq!(ttl_seconds(1_900_000_000), Ok(1));
        assert!(ttl_seconds(-1).is_err());
        assert_eq!(ttl_seconds(i64::MAX).ok(), None);
    }
}
