//! The agent of the host that asks.
//!
//! Consul runs an agent on every host; Quorate gives every client host one that the whole cluster
//! keeps. Who asks is told by name (`?agent=`, or a header), else by address. A caller on this very
//! host counts as the server's own host.

use std::net::IpAddr;

use quorate_storage::command::Agent;
use uuid::Uuid;

/// Id of the check that says whether a node is alive.
pub const SERF_HEALTH: &str = "serfHealth";

/// Name of the agent of a machine whose servers listen on loopback only.
const LOOPBACK_AGENT: &str = "quorate";

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
pub fn named(cluster: &str, name: &str, address: IpAddr) -> Agent {
    Agent { name: name.into(), id: node_id(cluster, name), address: address.to_string() }
}

/// The agent of a server's own host.
///
/// On loopback it has one address, whichever of the host's loopback addresses the server uses:
/// otherwise the servers of a cluster on one machine would give their common agent one address each.
#[must_use]
pub fn of_own_host(cluster: &str, own_address: IpAddr, own_agent: &str) -> Agent {
    named(cluster, own_agent, host_address(own_address))
}

/// The agent of a caller: the one it names, else the one of its address.
///
/// `own_address` is the server's advertised address and `own_agent` the name of its host's agent.
#[must_use]
pub fn of_caller(
    cluster: &str,
    caller: IpAddr,
    asked_for: Option<&str>,
    own_address: IpAddr,
    own_agent: &str,
) -> Agent {
    let caller = caller.to_canonical();
    let local = caller.is_loopback() || caller == own_address;
    let address = if local { host_address(own_address) } else { caller };
    match asked_for {
        Some(name) => named(cluster, name, address),
        None if local => named(cluster, own_agent, address),
        None => named(cluster, &host_name(address), address),
    }
}

/// Name of the agent of a server's own host: the one it was given, else one made from its address.
#[must_use]
pub fn own_name(given: Option<&str>, own_address: IpAddr) -> String {
    match given {
        Some(name) => name.to_owned(),
        None if own_address.is_loopback() => LOOPBACK_AGENT.to_owned(),
        None => host_name(own_address),
    }
}

fn host_address(own_address: IpAddr) -> IpAddr {
    if own_address.is_loopback() { IpAddr::from([127, 0, 0, 1]) } else { own_address }
}

/// `host-10-0-0-5` for 10.0.0.5.
fn host_name(address: IpAddr) -> String {
    format!("host-{}", address.to_string().replace(['.', ':'], "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = "6b1f3c1e-94a5-4ab1-a7f6-7c6dbb1f4c11";

    fn agent(caller: &str, name: Option<&str>, own: &str) -> Agent {
        of_caller(CLUSTER, caller.parse().unwrap(), name, own.parse().unwrap(), "quorate")
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
        assert_eq!(of_own_host(CLUSTER, "127.9.1.3".parse().unwrap(), "quorate"), asked);
        assert_eq!(own_name(None, "10.0.0.1".parse().unwrap()), "host-10-0-0-1");
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
