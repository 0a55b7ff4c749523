//! `/v1/agent/self` and `/v1/agent/members`: what a server says of itself, of the asking host's
//! agent and of the other servers. Answered from what this node knows, without a barrier.

use std::collections::BTreeMap;

use quorate_client::duration;
use quorate_client::types::TextMap;
use quorate_client::types::agent::{AgentConfig, AgentSelf, Member};
use quorate_storage::State;
use quorate_storage::command::Agent;
use quorate_storage::raft::Peer;
use quorate_storage::record::CheckStatus;
use serde_json::json;

use super::CONSUL_VERSION;
use super::call::{Asked, Call};
use super::endpoint::{Answer, Endpoint};
use super::session::TTL_MIN_NANOS;
use crate::agent::SERF_HEALTH;

/// The revision in a member's `build` tag, which must be `x.y.z:revision`.
pub(super) const REVISION: &str = "quorate";

/// When this was built, for clients that read a date there.
pub(super) const BUILD_DATE: &str = "2025-01-01T00:00:00Z";

/// A member's status: alive.
const ALIVE: u8 = 1;
/// A member's status: failed.
const FAILED: u8 = 4;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/v1/agent/self").get(|call| Box::pin(std::future::ready(about(&call)))),
        Endpoint::new("/v1/agent/members").get(|call| Box::pin(std::future::ready(members(&call)))),
    ]
}

fn about(call: &Call) -> Answer {
    let info = call.node.info();
    let ttl_min = call.process.limits.session_ttl_min_nanos.unwrap_or(TTL_MIN_NANOS);
    // A server that does not know its cluster yet answers as its own host's agent: clients look
    // here first, and wait for an answer.
    let agent = match call.asked() {
        Ok(Asked::One(agent)) => agent,
        Ok(Asked::All) | Err(_) => Agent {
            name: info.agent_name.as_str().into(),
            id: String::new(),
            address: info.rpc_addr.ip().to_string(),
        },
    };
    let tags = tags(&info.datacenter, &agent.id, info.rpc_addr.port());
    call.json(&AgentSelf {
        config: AgentConfig {
            datacenter: info.datacenter.clone(),
            node_name: agent.name.to_string(),
            node_id: agent.id.clone(),
            revision: REVISION.to_owned(),
            server: true,
            version: CONSUL_VERSION.to_owned(),
            build_date: BUILD_DATE.to_owned(),
            session_ttl_min: ttl_min,
        },
        debug_config: json!({
            "ConnectEnabled": false,
            "Datacenter": info.datacenter,
            "DevMode": false,
            "DNSAddrs": [],
            "DNSPort": -1,
            "GRPCPort": -1,
            "GRPCTLSPort": -1,
            "NodeName": &*agent.name,
            "ServerMode": true,
            "SessionTTLMin": duration::format(ttl_min),
        }),
        coord: json!({ "Adjustment": 0, "Error": 1.5, "Height": 0.00001, "Vec": [0, 0, 0, 0, 0, 0, 0, 0] }),
        member: Member {
            name: agent.name.to_string(),
            addr: agent.address,
            port: info.rpc_addr.port(),
            tags,
            status: ALIVE,
            ..protocols()
        },
        stats: stats(call),
        meta: texts([("quorate-version", env!("CARGO_PKG_VERSION"))]),
    })
}

fn members(call: &Call) -> Answer {
    let info = call.node.info();
    let filter = call.filter::<Member>()?;
    let published = call.node.published();
    // In the list of all datacenters Consul's servers carry theirs in their name.
    let suffix = match call.params.switch("wan")? {
        true => format!(".{}", info.datacenter),
        false => String::new(),
    };
    let servers = published.membership.nodes().map(|(_, peer)| {
        let mut member = server(&published.state, peer, &info.datacenter);
        member.name.push_str(&suffix);
        member
    });
    call.json(&servers.filter(|member| filter.keeps(member)).collect::<Vec<_>>())
}

/// A server as a member; whether it is alive says the `serfHealth` of its node.
fn server(state: &State, peer: &Peer, datacenter: &str) -> Member {
    let (addr, port) = peer.rpc_addr.rsplit_once(':').unwrap_or((&peer.rpc_addr, ""));
    let port = port.parse().unwrap_or(0);
    let id = state.node(&peer.name).map_or("", |node| node.id.as_str());
    let failed = state
        .check(&peer.name, SERF_HEALTH)
        .is_some_and(|check| check.registration.status != CheckStatus::Passing);
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

fn stats(call: &Call) -> BTreeMap<String, TextMap> {
    let info = call.node.info();
    let published = call.node.published();
    let state = &published.state;
    let leader = call.node.leader();
    let leads = leader.as_ref().is_some_and(|(id, _)| *id == info.id);
    let leader_addr = leader.map_or_else(String::new, |(_, peer)| peer.rpc_addr);
    let applied = published.last_applied.as_ref().map_or(0, |log_id| log_id.index()).to_string();
    let servers = published.membership.nodes().count();
    let agent =
        call.agent().map_or_else(|_| info.agent_name.clone(), |agent| agent.name.to_string());
    let text = |flag: bool| if flag { "true" } else { "false" };
    let groups = [
        (
            "agent",
            texts([
                ("check_monitors", "0"),
                ("check_ttls", "0"),
                ("checks", &state.checks_on(&agent).count().to_string()),
                ("services", &state.services_on(&agent).count().to_string()),
            ]),
        ),
        ("build", texts([("prerelease", ""), ("revision", REVISION), ("version", CONSUL_VERSION)])),
        (
            "consul",
            texts([
                ("acl", "disabled"),
                ("bootstrap", "false"),
                ("known_datacenters", "1"),
                ("leader", text(leads)),
                ("leader_addr", &leader_addr),
                ("server", "true"),
            ]),
        ),
        (
            "raft",
            texts([
                ("applied_index", &applied),
                ("num_peers", &servers.saturating_sub(1).to_string()),
                ("protocol_version", "3"),
                ("state", if leads { "Leader" } else { "Follower" }),
            ]),
        ),
        ("runtime", texts([("arch", std::env::consts::ARCH), ("os", std::env::consts::OS)])),
        ("serf_lan", texts([("members", &servers.to_string())])),
        ("serf_wan", texts([("members", &servers.to_string())])),
    ];
    groups.into_iter().map(|(name, group)| (name.to_owned(), group)).collect()
}

fn texts<const N: usize>(pairs: [(&str, &str); N]) -> TextMap {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
