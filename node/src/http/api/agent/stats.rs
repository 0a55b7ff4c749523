//! The figures in `/v1/agent/self`, as texts by group under Consul's names.

use std::collections::BTreeMap;

use openraft::async_runtime::WatchReceiver;
use quorate_client::types::TextMap;
use quorate_storage::machine::Published;

use crate::http::CONSUL_VERSION;
use crate::http::api::agent::{REVISION, has_failed, is_agent, texts};
use crate::http::call::Call;
use crate::node::Node;

/// All groups. `agent` is the asking agent's name.
pub(super) fn stats(call: &Call, agent: &str) -> BTreeMap<String, TextMap> {
    let (node, published) = (&call.node, call.node.published());
    let groups = [
        ("agent", checks(&published, agent)),
        ("build", texts([("prerelease", ""), ("revision", REVISION), ("version", CONSUL_VERSION)])),
        ("consul", consul(node)),
        ("raft", raft(node, &published)),
        ("runtime", runtime()),
        ("serf_lan", members(&published, true)),
        ("serf_wan", members(&published, false)),
    ];
    groups.into_iter().map(|(name, group)| (name.to_owned(), group)).collect()
}

/// The groups that a client agent has, which takes no part in consensus.
pub(super) fn of_client_agent(call: &Call, agent: &str) -> BTreeMap<String, TextMap> {
    let mut groups = stats(call, agent);
    let servers = call.node.published().membership.nodes().count().to_string();
    let consul = [("acl", "disabled"), ("known_servers", servers.as_str()), ("server", "false")];
    groups.insert("consul".to_owned(), texts(consul));
    groups.remove("raft");
    groups.remove("serf_wan");
    groups
}

fn checks(published: &Published, agent: &str) -> TextMap {
    let state = &published.state;
    let definitions = || state.checks_on(agent).map(|check| &check.registration.definition);
    let monitors = definitions().filter(|definition| definition.is_run()).count();
    let ttls = definitions().filter(|definition| !definition.ttl.is_zero()).count();
    texts([
        ("check_monitors", &monitors.to_string()),
        ("check_ttls", &ttls.to_string()),
        ("checks", &definitions().count().to_string()),
        ("services", &state.services_on(agent).count().to_string()),
    ])
}

fn leads(node: &Node) -> bool {
    node.leader().is_some_and(|(id, _)| id == node.info().id)
}

fn consul(node: &Node) -> TextMap {
    let leader = node.leader().map_or_else(String::new, |(_, peer)| peer.rpc_addr);
    texts([
        ("acl", "disabled"),
        ("bootstrap", "false"),
        ("known_datacenters", "1"),
        ("leader", if leads(node) { "true" } else { "false" }),
        ("leader_addr", &leader),
        ("server", "true"),
    ])
}

fn raft(node: &Node, published: &Published) -> TextMap {
    let receiver = node.raft().metrics();
    let metrics = receiver.borrow_watched();
    let index = |at: Option<u64>| at.unwrap_or(0).to_string();
    let applied = published.last_applied.as_ref().map(|log_id| log_id.index());
    let committed = metrics.local_committed.as_ref().map(|log_id| log_id.index());
    let snapshot = metrics.snapshot.as_ref().map(|log_id| log_id.index());
    let configuration = published.membership.log_id().as_ref().map(|log_id| log_id.index());
    let peers = published.membership.nodes().count().saturating_sub(1);
    let contact = node.contact();
    texts([
        ("applied_index", &index(applied)),
        ("commit_index", &index(committed.max(applied))),
        ("last_contact", &format!("{}ms", contact.last_contact.0)),
        ("last_log_index", &index(metrics.last_log_index)),
        ("last_snapshot_index", &index(snapshot)),
        ("latest_configuration_index", &index(configuration)),
        ("num_peers", &peers.to_string()),
        ("protocol_version", "3"),
        ("state", if leads(node) { "Leader" } else { "Follower" }),
        ("term", &metrics.current_term.to_string()),
    ])
}

fn runtime() -> TextMap {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    texts([
        ("arch", std::env::consts::ARCH),
        ("cpu_count", &processors.to_string()),
        ("goroutines", &tasks.to_string()),
        ("os", std::env::consts::OS),
    ])
}

/// The servers, and the agents of clients' hosts with them.
fn members(published: &Published, with_agents: bool) -> TextMap {
    let state = &published.state;
    let servers = published.membership.nodes().map(|(_, peer)| peer.name.as_str());
    let agents = state.nodes().filter(|node| with_agents && is_agent(node));
    let names: Vec<&str> = servers.chain(agents.map(|node| &*node.name)).collect();
    let failed = names.iter().filter(|name| has_failed(state, name)).count();
    texts([("failed", &failed.to_string()), ("left", "0"), ("members", &names.len().to_string())])
}
