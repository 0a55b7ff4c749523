//! What a name asks for.
//!
//! The forms are Consul's. Labels are read from the right: the domain, perhaps a datacenter, the kind, and before it
//! what is looked for. Names are compared in lower case; an answer repeats the question's own letters.

use std::net::IpAddr;

use hickory_proto::rr::{Name, RecordType};

/// In the place of a tag: any.
const ANY_TAG: &str = "tcp";
/// The name server of the domain.
const NAME_SERVER: &str = "ns";
/// Behind a datacenter: that it is one.
const DATACENTER: &str = "dc";
/// Digits of an IPv4 address in `HEX.addr`.
const IPV4_DIGITS: usize = 8;
/// Digits of an IPv6 address.
const IPV6_DIGITS: usize = 32;

/// What a name below the domain asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// `DOMAIN`.
    Domain,
    /// `ns.DOMAIN`.
    NameServer,
    /// It has names below it and is none itself, such as `service.DOMAIN`.
    Between,
    /// Instances of a service, or those with a tag.
    Service {
        /// The service.
        name: String,
        /// The tag.
        tag: Option<String>,
    },
    /// `NODE.node.DOMAIN`.
    Node(String),
    /// `QUERY.query.DOMAIN`.
    Query(String),
    /// `HEX.addr.DOMAIN`.
    Address(IpAddr),
    /// No such name can be.
    Nothing,
}

impl Subject {
    /// What it counts as in `/metrics`.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Domain | Self::NameServer | Self::Between => "domain",
            Self::Service { .. } => "service",
            Self::Node(_) => "node",
            Self::Query(_) => "query",
            Self::Address(_) => "address",
            Self::Nothing => "unknown",
        }
    }
}

/// The kinds of names.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Service,
    Node,
    Query,
    Address,
}

impl Kind {
    fn of(label: &str) -> Option<Self> {
        match label {
            "service" => Some(Self::Service),
            "node" => Some(Self::Node),
            "query" => Some(Self::Query),
            "addr" => Some(Self::Address),
            _ => None,
        }
    }
}

/// What a name below `domain` asks for, of a cluster in `datacenter`.
pub(super) fn subject(name: &Name, domain: &Name, datacenter: &str) -> Subject {
    let below = name.iter().len().saturating_sub(domain.iter().len());
    let labels: Option<Vec<String>> = name
        .iter()
        .take(below)
        .map(|label| Some(std::str::from_utf8(label).ok()?.to_lowercase()))
        .collect();
    labels.map_or(Subject::Nothing, |labels| of_labels(&labels, datacenter))
}

fn of_labels(labels: &[String], datacenter: &str) -> Subject {
    match labels {
        [] => return Subject::Domain,
        [one] if one == NAME_SERVER => return Subject::NameServer,
        _ => {}
    }
    // `_NAME._tcp` needs no `service` behind it. The last label of either sort counts.
    for (at, label) in labels.iter().enumerate().rev() {
        let (kind, wanted) = match Kind::of(label) {
            Some(kind) => (kind, &labels[..at]),
            None if label.starts_with('_') => (Kind::Service, &labels[..=at]),
            None => continue,
        };
        if !is_here(&labels[at + 1..], datacenter) {
            return Subject::Nothing;
        }
        return wanted_of(kind, wanted);
    }
    match is_here(labels, datacenter) || matches!(labels, [one] if one == DATACENTER) {
        true => Subject::Between,
        false => Subject::Nothing,
    }
}

/// Whether what stands between kind and domain names this datacenter: nothing, its name, or `NAME.dc`.
fn is_here(labels: &[String], datacenter: &str) -> bool {
    match labels {
        [] => true,
        [one] => one.eq_ignore_ascii_case(datacenter),
        [one, word] => one.eq_ignore_ascii_case(datacenter) && word == DATACENTER,
        _ => false,
    }
}

fn wanted_of(kind: Kind, wanted: &[String]) -> Subject {
    match (kind, wanted) {
        (_, []) => Subject::Between,
        (Kind::Service, wanted) => service(wanted),
        // Names of nodes may have dots in them.
        (Kind::Node, wanted) => Subject::Node(wanted.join(".")),
        (Kind::Query, wanted) => Subject::Query(query(wanted)),
        (Kind::Address, [digits]) => address(digits).map_or(Subject::Nothing, Subject::Address),
        (Kind::Address, _) => Subject::Nothing,
    }
}

fn service(wanted: &[String]) -> Subject {
    let named = |name: &str, tag: Option<String>| Subject::Service { name: name.to_owned(), tag };
    match wanted {
        // A name that ends here has `_NAME` before it.
        [one] if one.starts_with('_') => Subject::Between,
        [name, tag] => match (name.strip_prefix('_'), tag.strip_prefix('_')) {
            (Some(name), Some(ANY_TAG)) => named(name, None),
            (Some(name), Some(tag)) => named(name, Some(tag.to_owned())),
            _ => named(tag, Some(name.clone())),
        },
        [name] => named(name, None),
        // Tags may have dots in them.
        [tag @ .., name] => named(name, Some(tag.join("."))),
        [] => Subject::Between,
    }
}

/// The name of a query, which may have dots in it, or `_NAME._tcp`.
fn query(wanted: &[String]) -> String {
    match wanted {
        [name @ .., last] if last.starts_with('_') && wanted[0].starts_with('_') => {
            name.join(".").trim_start_matches('_').to_owned()
        }
        wanted => wanted.join("."),
    }
}

fn address(digits: &str) -> Option<IpAddr> {
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    match digits.len() {
        IPV4_DIGITS => {
            u32::from_str_radix(digits, 16).ok().map(|bits| IpAddr::from(bits.to_be_bytes()))
        }
        IPV6_DIGITS => {
            u128::from_str_radix(digits, 16).ok().map(|bits| IpAddr::from(bits.to_be_bytes()))
        }
        _ => None,
    }
}

/// The label for an address, which [`Subject::Address`] reads.
pub(super) fn address_label(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("{:08x}", u32::from(ip)),
        IpAddr::V6(ip) => format!("{:032x}", u128::from(ip)),
    }
}

/// The address that a reverse look-up asks for; `None` for other names, and where digits are missing.
pub(super) fn reverse(name: &Name) -> Option<IpAddr> {
    let network = name.parse_arpa_name().ok()?;
    (network.prefix_len() == network.max_prefix_len()).then(|| network.addr())
}

/// Whether a question for records of one type wants those of another.
pub(super) fn wants(asked: RecordType, record: RecordType) -> bool {
    asked == record || asked == RecordType::ANY
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Subject {
        let domain = Name::from_ascii("consul.").unwrap();
        let name = Name::from_labels(text.split('.').map(str::as_bytes)).unwrap();
        assert!(domain.zone_of(&name), "{text}");
        subject(&name, &domain, "Dc1")
    }

    fn service(name: &str, tag: Option<&str>) -> Subject {
        Subject::Service { name: name.to_owned(), tag: tag.map(str::to_owned) }
    }

    #[test]
    fn a_service_is_named_with_or_without_tag_and_datacenter_in_any_case() {
        for (text, expected) in [
            ("web.service.consul", service("web", None)),
            ("Web.SERVICE.dc1.Consul", service("web", None)),
            ("web.service.dc1.dc.consul", service("web", None)),
            ("v1.web.service.consul", service("web", Some("v1"))),
            ("v1.2.web.service.DC1.consul", service("web", Some("v1.2"))),
            ("_web._tcp.service.consul", service("web", None)),
            ("_web._tcp.consul", service("web", None)),
            ("_web._v1.service.dc1.consul", service("web", Some("v1"))),
            ("_web._v1.dc1.consul", service("web", Some("v1"))),
            ("consul.service.consul", service("consul", None)),
            // The last label that names a kind counts.
            ("node.service.consul", service("node", None)),
        ] {
            assert_eq!(asked(text), expected, "{text}");
        }
    }

    #[test]
    fn nodes_queries_and_addresses_have_names() {
        for (text, expected) in [
            ("a.node.consul", Subject::Node("a".into())),
            ("A.Example.node.dc1.consul", Subject::Node("a.example".into())),
            ("q.query.consul", Subject::Query("q".into())),
            ("q.v1.query.dc1.consul", Subject::Query("q.v1".into())),
            ("_q._tcp.query.consul", Subject::Query("q".into())),
            ("0a000001.addr.consul", Subject::Address([10, 0, 0, 1].into())),
            ("0A000001.addr.dc1.consul", Subject::Address([10, 0, 0, 1].into())),
            (
                "20010db8000000000000000000000001.addr.consul",
                Subject::Address("2001:db8::1".parse().unwrap()),
            ),
            ("ns.consul", Subject::NameServer),
        ] {
            assert_eq!(asked(text), expected, "{text}");
        }
    }

    #[test]
    fn names_between_others_exist_and_all_else_does_not() {
        for text in [
            "service.consul",
            "dc1.consul",
            "service.dc1.consul",
            "node.consul",
            "query.consul",
            "addr.dc1.consul",
            "_tcp.consul",
            "_tcp.service.consul",
            "dc.consul",
            "dc1.dc.consul",
        ] {
            assert_eq!(asked(text), Subject::Between, "{text}");
        }
        assert_eq!(asked("consul"), Subject::Domain);
        for text in [
            "foo.consul",
            "foo.bar.consul",
            "web.service.dc2.consul",
            "web.service.dc1.x.consul",
            "web.connect.consul",
            "x.0a000001.addr.consul",
            "0a0001.addr.consul",
            "zz000001.addr.consul",
            "+a000001.addr.consul",
        ] {
            assert_eq!(asked(text), Subject::Nothing, "{text}");
        }
    }

    #[test]
    fn labels_that_are_no_text_name_nothing() {
        let domain = Name::from_ascii("consul.").unwrap();
        let name = Name::from_labels([&b"\xff\x00"[..], b"service", b"consul"]).unwrap();
        assert_eq!(subject(&name, &domain, "dc1"), Subject::Nothing);
    }

    #[test]
    fn a_reverse_look_up_names_a_whole_address() {
        let reverse = |text: &str| reverse(&Name::from_ascii(text).unwrap());
        assert_eq!(reverse("4.3.2.1.in-addr.arpa."), Some([1, 2, 3, 4].into()));
        assert_eq!(reverse("3.2.1.in-addr.arpa."), None);
        assert_eq!(reverse("5.4.3.2.1.in-addr.arpa."), None);
        assert_eq!(reverse("999.3.2.1.in-addr.arpa."), None);
        let digits = "1.".to_owned() + &"0.".repeat(23) + "8.b.d.0.1.0.0.2.ip6.arpa.";
        assert_eq!(reverse(&digits), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(reverse("x.ip6.arpa."), None);
    }

    #[test]
    fn an_addresss_label_is_read_back() {
        for text in ["10.0.0.1", "2001:db8::1", "0.0.0.0", "::"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(address(&address_label(ip)), Some(ip));
        }
    }
}
