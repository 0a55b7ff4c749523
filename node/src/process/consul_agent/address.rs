//! Addresses as Consul's configurations give them: IPs, `unix://` paths, and the templates of
//! go-sockaddr, which look the machine's own addresses up.
//!
//! Of the templates there is what configurations use: a source such as `GetPrivateIP` or
//! `GetAllInterfaces`, and the filters `include`, `exclude`, `limit`, `attr` and `join` behind it. The
//! rest is refused by name.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use regex::Regex;

/// An address of one of this machine's interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    /// The interface's name.
    pub(super) name: String,
    /// One of its addresses.
    pub(super) address: IpAddr,
    /// Whether the default route leaves through it.
    pub(super) has_default_route: bool,
}

/// Where clients are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// At a port of this address.
    Ip(IpAddr),
    /// At a socket in the file system.
    Unix(PathBuf),
}

/// The addresses of this machine, in the order of its interfaces.
pub(super) fn interfaces() -> Vec<Interface> {
    let routed = default_route().unwrap_or_default();
    let found = nix::ifaddrs::getifaddrs().into_iter().flatten();
    found
        .filter_map(|entry| {
            let address = entry.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            let v6 = || address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()));
            Some(Interface {
                has_default_route: entry.interface_name == routed,
                address: v4.or_else(v6)?,
                name: entry.interface_name,
            })
        })
        .collect()
}

/// The interface of the IPv4 default route.
fn default_route() -> Option<String> {
    let table = std::fs::read_to_string("/proc/net/route").ok()?;
    let mut routes = table.lines().skip(1).map(|line| line.split_whitespace());
    routes.find_map(|mut columns| {
        let name = columns.next()?;
        (columns.next()? == "00000000").then(|| name.to_owned())
    })
}

/// The one private IPv4 address that a server without a `bind_addr` tells others.
///
/// # Errors
/// There is none, or more than one, as in Consul.
pub(super) fn only_private(interfaces: &[Interface]) -> Result<IpAddr, String> {
    let private: Vec<IpAddr> = interfaces
        .iter()
        .map(|one| one.address)
        .filter(|ip| ip.is_ipv4() && is_private(*ip))
        .collect();
    match private[..] {
        [one] => Ok(one),
        [] => Err("this machine has no private IPv4 address: name an address in bind_addr or advertise_addr".to_owned()),
        _ => Err(format!(
            "this machine has several private IPv4 addresses ({private:?}): name one in bind_addr or advertise_addr"
        )),
    }
}

/// The hosts in a list with blanks between them; templates are looked up first.
pub(super) fn hosts(text: &str, interfaces: &[Interface]) -> Result<Vec<Host>, String> {
    let text = expand(text, interfaces)?;
    let host = |text: &str| {
        match text.strip_prefix("unix://") {
        Some(path) => Ok(Host::Unix(PathBuf::from(path))),
        None => text.parse().map(Host::Ip).map_err(|_| {
            format!("{text:?}: an IP address, unix:///PATH, or a template such as {{{{ GetPrivateIP }}}}")
        }),
    }
    };
    text.split_whitespace().map(host).collect()
}

/// One IP address; templates are looked up first.
pub(super) fn ip(text: &str, interfaces: &[Interface]) -> Result<IpAddr, String> {
    match hosts(text, interfaces)?[..] {
        [Host::Ip(ip)] => Ok(ip),
        [] => Err(format!("{text:?} finds no address on this machine")),
        _ => Err(format!("{text:?}: one IP address is expected")),
    }
}

/// A text with the templates in it carried out.
pub(super) fn expand(text: &str, interfaces: &[Interface]) -> Result<String, String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (template, after) =
            after.split_once("}}").ok_or_else(|| format!("{text:?}: }}}} is missing"))?;
        expanded.push_str(before);
        expanded
            .push_str(&evaluate(template, interfaces).map_err(|why| format!("{text:?}: {why}"))?);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// What a stage of a template hands to the next.
enum Found {
    Interfaces(Vec<Interface>),
    Text(String),
}

fn evaluate(template: &str, interfaces: &[Interface]) -> Result<String, String> {
    let mut found: Option<Found> = None;
    for stage in stages(template)? {
        let words: Vec<&str> = stage.iter().map(String::as_str).collect();
        found = Some(match found {
            None => source(&words, interfaces)?,
            Some(Found::Interfaces(found)) => filter(&words, found)?,
            Some(Found::Text(_)) => return Err(format!("nothing can follow a text: {words:?}")),
        });
    }
    match found {
        Some(Found::Text(text)) => Ok(text),
        Some(Found::Interfaces(_)) => {
            Err("it must end with attr \"address\" or join \"address\" \" \"".to_owned())
        }
        None => Err("an empty template".to_owned()),
    }
}

/// The words of each stage of a pipeline; quotes hold a word together.
fn stages(template: &str) -> Result<Vec<Vec<String>>, String> {
    let mut stages = vec![Vec::new()];
    let mut characters = template.trim().chars().peekable();
    while let Some(first) = characters.next() {
        let stage = stages.last_mut().expect("there is always one");
        match first {
            '|' => stages.push(Vec::new()),
            '"' | '`' => {
                let mut word = String::new();
                loop {
                    match characters.next() {
                        Some(end) if end == first => break,
                        Some(other) => word.push(other),
                        None => return Err("a quote is missing".to_owned()),
                    }
                }
                stage.push(word);
            }
            blank if blank.is_whitespace() => {}
            other => {
                let mut word = String::from(other);
                while let Some(next) =
                    characters.next_if(|next| !next.is_whitespace() && *next != '|')
                {
                    word.push(next);
                }
                stage.push(word);
            }
        }
    }
    Ok(stages)
}

fn source(words: &[&str], interfaces: &[Interface]) -> Result<Found, String> {
    let of = |wanted: &dyn Fn(&Interface) -> bool| {
        interfaces.iter().filter(|one| wanted(one)).cloned().collect::<Vec<_>>()
    };
    let list = |found: &[Interface]| Ok(Found::Text(join(found, " ")));
    let first = |found: &[Interface]| list(&found[..found.len().min(1)]);
    let private = |one: &Interface| is_private(one.address);
    let public = |one: &Interface| is_public(one.address);
    match words {
        ["GetPrivateIP"] => {
            let mut found = of(&|one| private(one) && one.has_default_route);
            if found.is_empty() {
                // A machine without a default route has no other choice.
                found = of(&private);
            }
            found.sort_by_key(|one| one.address.is_ipv6());
            first(&found)
        }
        ["GetPrivateIPs"] => list(&of(&private)),
        ["GetPublicIP"] => first(&of(&public)),
        ["GetPublicIPs"] => list(&of(&public)),
        ["GetInterfaceIP", name] => {
            // As in go-sockaddr, an IPv4 address comes before others.
            let mut found = named(interfaces, name)?;
            found.sort_by_key(|one| one.address.is_ipv6());
            first(&found)
        }
        ["GetInterfaceIPs", name] => list(&named(interfaces, name)?),
        ["GetAllInterfaces"] => Ok(Found::Interfaces(interfaces.to_vec())),
        ["GetDefaultInterfaces"] => Ok(Found::Interfaces(of(&|one| one.has_default_route))),
        ["GetPrivateInterfaces"] => Ok(Found::Interfaces(of(&private))),
        ["GetPublicInterfaces"] => Ok(Found::Interfaces(of(&public))),
        _ => Err(format!("Quorate does not support {words:?} at the beginning of a template")),
    }
}

fn filter(words: &[&str], found: Vec<Interface>) -> Result<Found, String> {
    match words {
        ["include", by, what] => Ok(Found::Interfaces(keep(found, by, what, true)?)),
        ["exclude", by, what] => Ok(Found::Interfaces(keep(found, by, what, false)?)),
        ["limit", count] => {
            let count = count.parse().map_err(|_| format!("limit {count:?}: a number"))?;
            Ok(Found::Interfaces(found.into_iter().take(count).collect()))
        }
        ["attr", "address"] => Ok(Found::Text(join(&found[..found.len().min(1)], " "))),
        ["join", "address", separator] => Ok(Found::Text(join(&found, separator))),
        _ => Err(format!("Quorate does not support {words:?} in a template")),
    }
}

fn keep(
    found: Vec<Interface>,
    by: &str,
    what: &str,
    wanted: bool,
) -> Result<Vec<Interface>, String> {
    let matches: Box<dyn Fn(&Interface) -> bool> = match by {
        "name" => {
            let name = Regex::new(what).map_err(|error| error.to_string())?;
            Box::new(move |one| name.is_match(&one.name))
        }
        "address" => {
            let address = Regex::new(what).map_err(|error| error.to_string())?;
            Box::new(move |one| address.is_match(&one.address.to_string()))
        }
        "network" => {
            let network = Network::parse(what)?;
            Box::new(move |one| network.contains(one.address))
        }
        "type" => match what.to_ascii_lowercase().as_str() {
            "ipv4" => Box::new(|one| one.address.is_ipv4()),
            "ipv6" => Box::new(|one| one.address.is_ipv6()),
            _ => return Err(format!("type {what:?}: ipv4 or ipv6")),
        },
        "flags" if what == "loopback" => Box::new(|one| one.address.is_loopback()),
        _ => return Err(format!("Quorate does not support {by:?} {what:?} in a template")),
    };
    Ok(found.into_iter().filter(|one| matches(one) == wanted).collect())
}

fn named(interfaces: &[Interface], name: &str) -> Result<Vec<Interface>, String> {
    let found: Vec<_> = interfaces.iter().filter(|one| one.name == name).cloned().collect();
    match found.is_empty() {
        true => Err(format!("this machine has no interface {name:?} with an address")),
        false => Ok(found),
    }
}

fn join(found: &[Interface], separator: &str) -> String {
    let texts: Vec<String> = found.iter().map(|one| one.address.to_string()).collect();
    texts.join(separator)
}

/// A network in CIDR's writing.
struct Network {
    base: IpAddr,
    bits: u32,
}

impl Network {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("network {text:?}: such as 10.0.0.0/8");
        let (base, bits) = text.split_once('/').ok_or_else(wrong)?;
        let base: IpAddr = base.parse().map_err(|_| wrong())?;
        let bits: u32 = bits.parse().map_err(|_| wrong())?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        if bits > most { Err(wrong()) } else { Ok(Self { base, bits }) }
    }

    fn contains(&self, address: IpAddr) -> bool {
        // What differs must lie behind the prefix.
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                (base.to_bits() ^ address.to_bits()).leading_zeros() >= self.bits
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                (base.to_bits() ^ address.to_bits()).leading_zeros() >= self.bits
            }
            _ => false,
        }
    }
}

/// Whether an address is one of RFC 6890's for private use.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            ip.is_private() || ip.is_documentation() || is_shared_or_for_benchmarks(ip)
        }
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

/// 100.64.0.0/10 and 198.18.0.0/15.
const fn is_shared_or_for_benchmarks(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    (first == 100 && second & 0xc0 == 64) || (first == 198 && second & 0xfe == 18)
}

fn is_public(address: IpAddr) -> bool {
    let is_special = match address {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let is_bound = address.is_loopback() || address.is_unspecified() || address.is_multicast();
    !is_private(address) && !is_special && !is_bound
}

/// The address that means all of a family.
pub(super) const fn unspecified_like(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Vec<Interface> {
        let one = |name: &str, address: &str, has_default_route| Interface {
            name: name.to_owned(),
            address: address.parse().unwrap(),
            has_default_route,
        };
        vec![
            one("lo", "127.0.0.1", false),
            one("docker0", "172.17.0.1", false),
            one("eth0", "fe80::1", true),
            one("eth0", "10.0.0.5", true),
            one("eth1", "8.8.4.4", false),
        ]
    }

    #[test]
    fn templates_find_what_go_sockaddr_finds() {
        for (template, expected) in [
            ("{{ GetPrivateIP }}", "10.0.0.5"),
            ("{{GetPrivateIPs}}", "172.17.0.1 10.0.0.5"),
            ("{{ GetPublicIP }}", "8.8.4.4"),
            ("{{ GetInterfaceIP \"eth0\" }}", "10.0.0.5"),
            ("127.0.0.1 {{ GetInterfaceIP `docker0` }}", "127.0.0.1 172.17.0.1"),
            (
                "{{ GetAllInterfaces | include \"network\" \"10.0.0.0/8\" | attr \"address\" }}",
                "10.0.0.5",
            ),
            (
                "{{ GetPrivateInterfaces | exclude \"name\" \"docker.*\" | join \"address\" \" \" }}",
                "10.0.0.5",
            ),
            (
                "{{ GetDefaultInterfaces | include \"type\" \"ipv4\" | limit 1 | attr \"address\" }}",
                "10.0.0.5",
            ),
            (
                "{{ GetAllInterfaces | include \"flags\" \"loopback\" | attr \"address\" }}",
                "127.0.0.1",
            ),
        ] {
            assert_eq!(expand(template, &machine()).as_deref(), Ok(expected), "{template}");
        }
        assert!(ip("{{ GetPublicIP }}", &machine()[..1]).unwrap_err().contains("finds no address"));
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (template, word) in [
            ("{{ GetNonsense }}", "GetNonsense"),
            ("{{ GetAllInterfaces | sort \"size\" | attr \"address\" }}", "sort"),
            ("{{ GetInterfaceIP \"eth7\" }}", "eth7"),
            ("{{ GetAllInterfaces }}", "must end"),
            ("{{ GetPrivateIP", "missing"),
            ("{{ GetAllInterfaces | include \"rfc\" \"1918\" | attr \"address\" }}", "rfc"),
            ("eth0", "eth0"),
        ] {
            let error = hosts(template, &machine()).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_server_without_a_bind_address_needs_one_private_address() {
        assert_eq!(only_private(&machine()[2..]), Ok("10.0.0.5".parse().unwrap()));
        assert!(only_private(&machine()).unwrap_err().contains("172.17.0.1, 10.0.0.5"));
        assert!(only_private(&machine()[..1]).unwrap_err().contains("no private"));
    }

    #[test]
    fn hosts_are_ips_and_sockets() {
        let found = hosts("127.0.0.1 unix:///run/q.sock ::1", &machine()).unwrap();
        assert_eq!(found[1], Host::Unix("/run/q.sock".into()));
        assert_eq!(found[2], Host::Ip("::1".parse().unwrap()));
    }

    #[test]
    fn this_machine_has_a_loopback_address() {
        assert!(interfaces().iter().any(|one| one.address.is_loopback()));
    }
}
