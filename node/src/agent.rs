//! The agent of the host that asks.
//!
//! Consul runs an agent on every host; Quorate gives every client host one that the whole cluster
//! keeps. The caller is identified by name (`?agent=`, or a header), or else by its IP address. A caller
//! on the server's own machine counts as the server's own host.

use std::net::IpAddr;
use std::time::Duration;

use quorate_storage::Millis;
use quorate_storage::command::Agent;
use uuid::Uuid;

use crate::host::address::HostPort;

/// Name of the agent of a machine whose servers listen on loopback only.
const LOOPBACK_AGENT: &str = "quorate";

/// Time between two heartbeats of a client agent's process.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(3);
/// Silence after which the node of a client agent turns critical. Two heartbeats may be lost.
pub const HEARTBEAT_TTL: Millis = Millis::from_secs(10);

/// The id of a node: a UUID made from the cluster's id and the node's name, so that every server
/// gives the same.
#[must_use]
pub fn node_id(cluster: &str, name: &str) -> String {
    // A cluster id that is no UUID still gives every server the same answer.
    let namespace = Uuid::parse_str(cluster).unwrap_or(Uuid::NAMESPACE_OID);
    Uuid::new_v5(&namespace, name.as_bytes()).to_string()
}

/// The agent of this name.
#[must_use]
pub fn named(cluster: &str, name: &str, address: impl Into<String>) -> Agent {
    Agent { name: name.into(), id: node_id(cluster, name), address: address.into() }
}

/// The agent of a server's own host.
///
/// On loopback it has one address, whichever of the host's loopback addresses the server uses:
/// otherwise the servers of a cluster on one machine would give their common agent one address each.
#[must_use]
pub fn of_own_host(cluster: &str, advertised: &HostPort, own_agent: &str) -> Agent {
    named(cluster, own_agent, host_address(advertised))
}

/// The agent of a caller: the one it names, else the one of its address.
///
/// `own` is the server whose host may be the caller's.
#[must_use]
pub fn of_caller(
    cluster: &str,
    caller: IpAddr,
    asked_for: Option<&str>,
    own: &OwnHost<'_>,
) -> Agent {
    let caller = caller.to_canonical();
    let local = caller.is_loopback() || caller == own.ip;
    let address = if local { host_address(own.advertised) } else { caller.to_string() };
    match asked_for {
        Some(name) => named(cluster, name, address),
        None if local => named(cluster, own.agent, address),
        None => named(cluster, &Agent::name_of_host(&address), address),
    }
}

/// The host of a server.
#[derive(Debug, Clone, Copy)]
pub struct OwnHost<'a> {
    /// What the server advertises.
    pub advertised: &'a HostPort,
    /// The IP address of that.
    pub ip: IpAddr,
    /// Name of the host's agent.
    pub agent: &'a str,
}

/// Name of the agent of a server's own host: the one it was given, else one made from its address.
#[must_use]
pub fn own_name(given: Option<&str>, advertised: &HostPort) -> String {
    match given {
        Some(name) => name.to_owned(),
        None if is_loopback(advertised) => LOOPBACK_AGENT.to_owned(),
        None => Agent::name_of_host(advertised.host()),
    }
}

fn is_loopback(advertised: &HostPort) -> bool {
    advertised.ip().map_or(advertised.host() == "localhost", |ip| ip.is_loopback())
}

/// A host that is advertised by its name has that for an address, as a node in Consul may.
fn host_address(advertised: &HostPort) -> String {
    if is_loopback(advertised) { "127.0.0.1".to_owned() } else { advertised.host().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = "6b1f3c1e-94a5-4ab1-a7f6-7c6dbb1f4c11";

    fn at(host: &str) -> HostPort {
        format!("{host}:8300").parse().unwrap()
    }

    fn agent(caller: &str, name: Option<&str>, own: &str) -> Agent {
        let own = OwnHost { advertised: &at(own), ip: own.parse().unwrap(), agent: "quorate" };
        of_caller(CLUSTER, caller.parse().unwrap(), name, &own)
    }

    #[test]
    fn a_host_that_is_advertised_by_its_name_has_that_for_an_address() {
        let advertised = at("n1.example");
        let own =
            OwnHost { advertised: &advertised, ip: [10, 0, 0, 1].into(), agent: "host-n1-example" };
        for caller in [[127, 0, 0, 1], [10, 0, 0, 1]] {
            let asked = of_caller(CLUSTER, caller.into(), None, &own);
            assert_eq!((&*asked.name, asked.address.as_str()), ("host-n1-example", "n1.example"));
            assert_eq!(of_own_host(CLUSTER, &advertised, "host-n1-example"), asked);
        }
        assert_eq!(own_name(None, &advertised), "host-n1-example");
        assert_eq!(own_name(None, &at("localhost")), "quorate");
    }

    #[test]
    fn a_caller_on_loopback_is_the_servers_own_host() {
        let asked = agent("127.0.0.7", None, "10.0.0.1");
        assert_eq!((&*asked.name, asked.address.as_str()), ("quorate", "10.0.0.1"));
        assert_eq!(agent("10.0.0.1", None, "10.0.0.1"), asked);
        assert_eq!(agent("::1", None, "10.0.0.1"), asked);
    }

    #[test]
    fn a_cluster_on_one_machine_has_one_agent_with_one_address() {
        let asked = agent("127.9.1.1", None, "127.9.1.2");
        assert_eq!((&*asked.name, asked.address.as_str()), ("quorate", "127.0.0.1"));
        assert_eq!(of_own_host(CLUSTER, &at("127.9.1.3"), "quorate"), asked);
        assert_eq!(own_name(None, &at("10.0.0.1")), "host-10-0-0-1");
    }

    #[test]
    fn another_host_is_named_after_its_address_and_the_same_from_every_server() {
        let asked = agent("::ffff:10.0.0.5", None, "10.0.0.1");
        assert_eq!((&*asked.name, asked.address.as_str()), ("host-10-0-0-5", "10.0.0.5"));
        assert_eq!(agent("10.0.0.5", None, "10.0.0.2"), asked);
    }

    #[test]
    fn a_name_wins_over_the_address() {
        let asked = agent("10.0.0.5", Some("rack-7"), "10.0.0.1");
        assert_eq!((&*asked.name, asked.address.as_str()), ("rack-7", "10.0.0.5"));
    }
}
