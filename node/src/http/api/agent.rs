//! `/v1/agent/self` and `/v1/agent/members`: what a server says of itself, of the asking host's
//! agent and of the other members. Answered from what this node knows, without a barrier.
//!
//! Members are the servers (role `consul`) and the agents of clients' hosts (role `node`): every node of
//! the catalogue that an agent made, because scripts deregister the nodes that are no members. The asking
//! host's agent is always among them, also before its first registration makes its node.

mod check;
mod health;
mod host;
mod maintenance;
mod member;
mod monitor;
mod service;
mod stats;

use std::net::SocketAddr;

use axum::http::HeaderName;
use quorate_client::duration;
use quorate_client::types::TextMap;
use quorate_client::types::agent::{AgentConfig, AgentSelf, Member};
use quorate_storage::State;
use quorate_storage::command::Agent;
use quorate_storage::raft::Peer;
use quorate_storage::record::{Access, CheckStatus, Node, NodeKind, SERF_HEALTH};
use serde_json::{Value, json};

use super::session::TTL_MIN_NANOS;
use crate::http::call::{Asked, Call};
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::process::Process;
use crate::http::rights::Rule;
use crate::http::{CONSUL_VERSION, DNS_AT_HEADER, SERVED_AT_HEADER};
use crate::node::NodeInfo;

/// The revision in a member's `build` tag, which must be `x.y.z:revision`.
pub(super) const REVISION: &str = "quorate";

/// When this was built, for clients that read a date there.
pub(super) const BUILD_DATE: &str = "2025-01-01T00:00:00Z";

/// A member's status: alive.
const ALIVE: u8 = 1;
/// A member's status: failed.
const FAILED: u8 = 4;

pub(super) fn endpoints() -> Vec<Endpoint> {
    let own = vec![
        Endpoint::new("/v1/agent/self")
            .get(Rule::Agent(Access::Read), |call| Box::pin(std::future::ready(about(&call)))),
        Endpoint::new("/v1/agent/members")
            .get(Rule::Rows, |call| Box::pin(std::future::ready(members(&call)))),
    ];
    [
        own,
        service::endpoints(),
        check::endpoints(),
        health::endpoints(),
        host::endpoints(),
        maintenance::endpoints(),
        member::endpoints(),
        monitor::endpoints(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Names of all nodes that are agents of hosts; servers may be, if an agent has their name.
fn agents(state: &State) -> impl Iterator<Item = &str> {
    let is_agent = |kind: NodeKind| match kind {
        NodeKind::Agent | NodeKind::ServerAgent | NodeKind::Server => true,
        NodeKind::Registered => false,
    };
    state.nodes().filter(move |node| is_agent(node.kind)).map(|node| &*node.name)
}

/// The agent that asks. A server that does not know its cluster yet answers as its own host's agent:
/// clients look here first, and wait for an answer.
fn asking_agent(call: &Call, info: &NodeInfo) -> Agent {
    match call.asked() {
        Ok(Asked::One(agent)) => call.node.as_shown(agent),
        Ok(Asked::All) | Err(_) => Agent {
            name: info.agent_name.as_str().into(),
            id: String::new(),
            address: info.rpc_addr.ip().to_string(),
        },
    }
}

fn about(call: &Call) -> Answer {
    let info = call.node.info();
    let ttl_min = call.process.limits.session_ttl_min_nanos.unwrap_or(TTL_MIN_NANOS);
    let agent = asking_agent(call, &info);
    let client_at = served_at(call);
    let member = match client_at {
        Some(_) => client(&agent.name, &agent.id, &agent.address, &info.datacenter, false),
        None => Member {
            name: agent.name.to_string(),
            addr: agent.address.clone(),
            port: info.rpc_addr.port(),
            tags: tags(&info.datacenter, &agent.id, info.rpc_addr.port()),
            status: ALIVE,
            ..protocols()
        },
    };
    let mut debug_config = debug_config(&info, &agent, ttl_min);
    describe_dns(&mut debug_config, &call.process);
    if let Some(http) = client_at {
        let dns = call.header(&HeaderName::from_static(DNS_AT_HEADER));
        let dns = dns.and_then(|at| at.parse().ok());
        describe_client(&mut debug_config, &agent, http, dns);
    }
    call.json(&AgentSelf {
        config: AgentConfig {
            datacenter: info.datacenter,
            node_name: agent.name.to_string(),
            node_id: agent.id.clone(),
            revision: REVISION.to_owned(),
            server: client_at.is_none(),
            version: CONSUL_VERSION.to_owned(),
            build_date: BUILD_DATE.to_owned(),
            session_ttl_min: ttl_min,
        },
        debug_config,
        coord: json!({ "Adjustment": 0, "Error": 1.5, "Height": 0.00001, "Vec": [0, 0, 0, 0, 0, 0, 0, 0] }),
        member,
        stats: match client_at {
            Some(_) => stats::of_client_agent(call, &agent.name),
            None => stats::stats(call, &agent.name),
        },
        meta: facts(call),
    })
}

/// What the commands for operators want to know of a server.
fn facts(call: &Call) -> TextMap {
    let mut facts = texts([
        ("quorate-version", env!("CARGO_PKG_VERSION")),
        ("quorate-rpc", call.process.rpc_port.text()),
        ("quorate-acl", call.process.acl.map_or("off", |control| control.default.as_str())),
    ]);
    let certificates = call.process.certificate_days();
    if !certificates.is_empty() {
        facts.insert("quorate-certificate-days".to_owned(), certificates);
    }
    facts
}

/// Where the client agent that forwarded a request serves its own clients; `None` if none did.
fn served_at(call: &Call) -> Option<SocketAddr> {
    call.header(&HeaderName::from_static(SERVED_AT_HEADER))?.parse().ok()
}

/// Puts in the place of what a server says of itself what is so of a client agent, which listens for
/// clients only.
fn describe_client(
    debug_config: &mut Value,
    agent: &Agent,
    http: SocketAddr,
    dns: Option<SocketAddr>,
) {
    let is_served = http.port() != 0;
    let own = json!({
        "AdvertiseAddrLAN": agent.address,
        "AdvertiseAddrWAN": agent.address,
        "BindAddr": agent.address,
        "DNSAddrs": dns.map_or_else(Vec::new, |dns| vec![format!("tcp://{dns}"), format!("udp://{dns}")]),
        "DNSPort": dns.map_or(-1, |dns| i32::from(dns.port())),
        "ClientAddrs": is_served.then(|| http.ip().to_string()).as_slice(),
        "HTTPAddrs": is_served.then(|| format!("tcp://{http}")).as_slice(),
        "HTTPPort": if is_served { i32::from(http.port()) } else { -1 },
        "RPCAdvertiseAddr": "",
        "RPCBindAddr": "",
        "ServerMode": false,
        "ServerName": "",
        "ServerPort": -1,
        "TaggedAddresses": { "lan": agent.address, "wan": agent.address },
    });
    if let (Value::Object(all), Value::Object(own)) = (debug_config, own) {
        all.extend(own);
    }
}

/// Adds where and how DNS is served.
fn describe_dns(debug_config: &mut Value, process: &Process) {
    let Some(dns) = &process.dns else { return };
    let settings = dns.settings();
    let of_both = |address: &SocketAddr| [format!("tcp://{address}"), format!("udp://{address}")];
    let mut domains = settings.domains.iter().map(|name| name.to_ascii());
    let own = json!({
        "DNSAddrs": process.dns_addrs.iter().flat_map(of_both).collect::<Vec<_>>(),
        "DNSAltDomain": domains.nth(1).unwrap_or_default(),
        "DNSDomain": settings.domains.first().map(|name| name.to_ascii()).unwrap_or_default(),
        "DNSNodeTTL": format!("{}s", settings.node_ttl),
        "DNSOnlyPassing": settings.only_passing,
        "DNSPort": process.dns_addrs.first().map_or(-1, |address| i32::from(address.port())),
        "DNSRecursors": [],
    });
    if let (Value::Object(all), Value::Object(own)) = (debug_config, own) {
        all.extend(own);
    }
}

/// What people look at: addresses and ports under Consul's names. Ports of what Quorate does not have
/// are -1, as in a Consul that has them switched off.
fn debug_config(info: &NodeInfo, agent: &Agent, session_ttl_min_nanos: i64) -> Value {
    let (rpc, http) = (info.rpc_addr, info.http_addr);
    let ip = rpc.ip().to_string();
    let family = if rpc.is_ipv4() { "ipv4" } else { "ipv6" };
    let rpc_url = format!("tcp://{rpc}");
    json!({
        "AdvertiseAddrLAN": ip,
        "AdvertiseAddrWAN": ip,
        "BindAddr": ip,
        "ClientAddrs": [http.ip().to_string()],
        "ConnectEnabled": false,
        "DNSAddrs": [],
        "DNSPort": -1,
        "Datacenter": info.datacenter,
        "DevMode": false,
        "GRPCAddrs": [],
        "GRPCPort": -1,
        "GRPCTLSAddrs": [],
        "GRPCTLSPort": -1,
        "HTTPAddrs": [format!("tcp://{http}")],
        "HTTPPort": http.port(),
        "HTTPSAddrs": [],
        "HTTPSPort": -1,
        "NodeID": agent.id,
        "NodeName": &*agent.name,
        "PrimaryDatacenter": info.datacenter,
        "RPCAdvertiseAddr": rpc_url,
        "RPCBindAddr": rpc_url,
        "Revision": REVISION,
        "SerfPortLAN": -1,
        "SerfPortWAN": -1,
        "ServerMode": true,
        "ServerName": info.name,
        "ServerPort": rpc.port(),
        "SessionTTLMin": duration::format(session_ttl_min_nanos),
        "TaggedAddresses": {
            "lan": ip, (format!("lan_{family}")): ip, "wan": ip, (format!("wan_{family}")): ip,
        },
        "Version": CONSUL_VERSION,
    })
}

fn members(call: &Call) -> Answer {
    let info = call.node.info();
    let filter = call.filter::<Member>()?;
    let published = call.node.published();
    let (state, datacenter) = (&published.state, &info.datacenter);
    let is_wan = call.params.switch("wan")?;
    let sight = call.rights(state)?;
    let peers = published.membership.nodes().filter(|(_, peer)| sight.keeps_node(&peer.name));
    let servers = peers.map(|(_, peer)| server(state, peer, datacenter));
    let mut members: Vec<Member> = servers.collect();
    if is_wan {
        // In the list of all datacenters there are servers only, and they carry theirs in their name.
        for member in &mut members {
            member.name = format!("{}.{datacenter}", member.name);
        }
    } else {
        let agents = state.nodes().filter(|node| is_agent(node) && sight.keeps_node(&node.name));
        members.extend(agents.map(|node| {
            let failed = has_failed(state, &node.name);
            client(&node.name, &node.id, &node.address, datacenter, failed)
        }));
        let own = asking_agent(call, &info);
        let is_shown = members.iter().any(|member| member.name.eq_ignore_ascii_case(&own.name));
        if !is_shown && sight.keeps_node(&own.name) {
            members.push(client(&own.name, &own.id, &own.address, datacenter, false));
        }
    }
    members.retain(|member| filter.keeps(member));
    Ok(call.json(&members)?.filtered_if(call.was_filtered()))
}

/// Whether a node is that of a client host's agent, or of a server's host beside the server's own.
pub(super) fn is_agent(node: &Node) -> bool {
    match node.kind {
        NodeKind::Agent | NodeKind::ServerAgent => true,
        NodeKind::Server | NodeKind::Registered => false,
    }
}

/// The agent of a client's host as a member. It listens nowhere.
fn client(name: &str, id: &str, address: &str, datacenter: &str, failed: bool) -> Member {
    Member {
        name: name.to_owned(),
        addr: address.to_owned(),
        port: 0,
        tags: texts([
            ("build", &format!("{CONSUL_VERSION}:{REVISION}")),
            ("dc", datacenter),
            ("id", id),
            ("role", "node"),
            ("segment", ""),
            ("vsn", "2"),
            ("vsn_max", "3"),
            ("vsn_min", "2"),
        ]),
        status: if failed { FAILED } else { ALIVE },
        ..protocols()
    }
}

/// Whether the cluster has lost a node.
pub(super) fn has_failed(state: &State, node: &str) -> bool {
    let health = state.check(node, SERF_HEALTH);
    health.is_some_and(|check| check.registration.status != CheckStatus::Passing)
}

/// A server as a member; whether it is alive says the `serfHealth` of its node.
fn server(state: &State, peer: &Peer, datacenter: &str) -> Member {
    let (addr, port) = peer.rpc_addr.rsplit_once(':').unwrap_or((&peer.rpc_addr, ""));
    let port = port.parse().unwrap_or(0);
    let id = state.node(&peer.name).map_or("", |node| node.id.as_str());
    let failed = has_failed(state, &peer.name);
    Member {
        name: peer.name.clone(),
        addr: addr.trim_matches(['[', ']']).to_owned(),
        port,
        tags: tags(datacenter, id, port),
        status: if failed { FAILED } else { ALIVE },
        ..protocols()
    }
}

/// The versions of the gossip protocol that Consul's members show; nothing here speaks it.
fn protocols() -> Member {
    Member {
        protocol_min: 1,
        protocol_max: 5,
        protocol_cur: 2,
        delegate_min: 2,
        delegate_max: 5,
        delegate_cur: 4,
        ..Member::default()
    }
}

fn tags(datacenter: &str, id: &str, port: u16) -> TextMap {
    texts([
        ("acls", "0"),
        ("build", &format!("{CONSUL_VERSION}:{REVISION}")),
        ("dc", datacenter),
        ("id", id),
        ("port", &port.to_string()),
        ("raft_vsn", "3"),
        ("role", "consul"),
        ("segment", ""),
        ("vsn", "2"),
        ("vsn_max", "3"),
        ("vsn_min", "2"),
    ])
}

pub(super) fn texts<const N: usize>(pairs: [(&str, &str); N]) -> TextMap {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
