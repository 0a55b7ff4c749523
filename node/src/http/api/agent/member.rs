//! `/v1/agent/join/`, `leave`, `force-leave/` and `reload`.
//!
//! In Consul these speak to the one agent of one host. A server of Quorate is the agent of every host
//! that asks, so what they mean is narrower:
//!
//! * **join** changes nothing: a server joins because it was started with `--join`. Asked for a server
//!   that is a member already it says yes, else it fails in Consul's words.
//! * **leave** takes the asking host out of the catalogue, with all that is registered on it. It never
//!   stops a server: one client that says goodbye must not cost all others a vote. The host of a server
//!   stays as long as the server: there it is refused, and the answer says how a server leaves.
//! * **force-leave** removes a server that the leader has lost from the membership. One that is alive
//!   stays, as in Consul, where it would contradict and be back at once. The name of a client host's
//!   agent takes that host out, for its operator knows that it is gone.

use quorate_storage::State;
use quorate_storage::command::Command;
use quorate_storage::machine::Published;
use quorate_storage::raft::{NodeId, Peer};
use quorate_storage::record::{Access, AclKind, CheckStatus, NodeKind, SERF_HEALTH};

use crate::host::address::HostPort;
use crate::http::blocking;
use crate::http::call::Call;
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::reply::Reply;
use crate::http::rights::Rule;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/v1/agent/join/")
            .put(Rule::Server(Access::Write), |call| Box::pin(std::future::ready(join(&call)))),
        Endpoint::new("/v1/agent/leave").put(Rule::Commands, |call| Box::pin(leave(call))),
        Endpoint::new("/v1/agent/force-leave/")
            .put(Rule::Operator(Access::Write), |call| Box::pin(force_leave(call))),
        Endpoint::new("/v1/agent/reload")
            .put(Rule::Server(Access::Write), |call| Box::pin(reload(call))),
    ]
}

fn join(call: &Call) -> Answer {
    let address = call.required("Missing address")?;
    let published = call.node.published();
    if published.membership.nodes().any(|(_, peer)| is_at(peer, address)) {
        return Ok(Reply::empty());
    }
    Err(ApiError::internal(format!(
        "1 error occurred:\n\t* Failed to join {address}: no server of this cluster has this address; start it with --join instead\n\n"
    )))
}

/// Whether a server has this address: its name, its host, or its host with one of its ports.
fn is_at(peer: &Peer, address: &str) -> bool {
    let own: Option<HostPort> = peer.rpc_addr.parse().ok();
    let host = own.as_ref().map(HostPort::host);
    address == peer.name
        || address == peer.rpc_addr
        || address == peer.http_addr
        || host == Some(address.trim_matches(['[', ']']))
}

async fn leave(call: Call) -> Answer {
    let agent = call.agent()?;
    call.require(AclKind::Agent, &agent.name, Access::Write).await?;
    // The host of a server is that for as long as the server is a member, so that this server may lag.
    if let Some(refusal) = server_stays(&call.node.published(), &agent.name) {
        return Err(ApiError::bad_request(refusal));
    }
    call.propose(Command::AgentLeave { agent }).await?;
    Ok(Reply::empty())
}

/// Why the agent of this name cannot leave, if it is a server or a server's host.
fn server_stays(published: &Published, agent: &str) -> Option<String> {
    let is_here = |peer: &Peer| {
        peer.agent_name.eq_ignore_ascii_case(agent) || peer.name.eq_ignore_ascii_case(agent)
    };
    let here = published.membership.nodes().filter(|(_, peer)| is_here(peer));
    let servers: Vec<String> = here.map(|(id, peer)| format!("{} (id {id})", peer.name)).collect();
    (!servers.is_empty()).then(|| {
        format!(
            "{agent} is the host of server {}, and a server does not leave because a client of it does: remove it with DELETE /v1/operator/raft/peer?id=ID at another server, then stop it",
            servers.join(", ")
        )
    })
}

async fn force_leave(call: Call) -> Answer {
    let asked = call.required("Missing node name")?;
    let suffix = format!(".{}", call.node.info().datacenter);
    let name = asked.strip_suffix(&suffix).unwrap_or(asked);
    // This server may lag: a server that is long back must not be removed as a lost one.
    let published = blocking::at_barrier(&call.node, &call.read_options()?).await?;
    let who = who(&published, name);
    drop(published);
    match who {
        Some(Who::LostServer(id)) => call.node.remove_server(id).await?,
        Some(Who::LivingServer) => {}
        Some(Who::Host) => {
            let agent = call.agent_named(name)?;
            call.propose(Command::AgentLeave { agent }).await?;
        }
        None => {
            return Err(ApiError::internal(format!("agent: No node found with name '{asked}'")));
        }
    }
    Ok(Reply::empty())
}

/// Who may be made to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    LostServer(NodeId),
    LivingServer,
    Host,
}

fn who(published: &Published, name: &str) -> Option<Who> {
    let mut servers = published.membership.nodes();
    match servers.find(|(_, peer)| peer.name == name) {
        Some((id, _)) if is_lost(&published.state, name) => Some(Who::LostServer(*id)),
        Some(_) => Some(Who::LivingServer),
        None => {
            let node = published.state.node(name)?;
            (node.kind == NodeKind::Agent && *node.name == *name).then_some(Who::Host)
        }
    }
}

/// Whether the leader has lost this server.
fn is_lost(state: &State, server: &str) -> bool {
    let check = state.check(server, SERF_HEALTH);
    check.is_some_and(|check| check.registration.status == CheckStatus::Critical)
}

async fn reload(call: Call) -> Answer {
    if let Some(reload) = &call.process.reload {
        reload.run().await.map_err(ApiError::internal)?;
    }
    Ok(Reply::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_and_its_host_stay_and_others_may_leave() {
        let peer =
            Peer { name: "n1".to_owned(), agent_name: "rack-7".to_owned(), ..Peer::default() };
        let members = std::collections::BTreeMap::from([(1, peer)]);
        let membership = openraft::Membership::new(vec![[1].into()], members).unwrap();
        let membership = quorate_storage::raft::StoredMembership::new(None, membership);
        let published = Published { membership, ..Published::default() };
        for agent in ["n1", "rack-7", "Rack-7"] {
            assert!(
                server_stays(&published, agent).unwrap().contains("server n1 (id 1)"),
                "{agent}"
            );
        }
        assert_eq!(server_stays(&published, "rack-8"), None);
    }

    #[test]
    fn a_server_is_known_by_name_ip_and_both_of_its_ports() {
        let peer = Peer {
            name: "n1".to_owned(),
            rpc_addr: "10.0.0.1:8300".to_owned(),
            http_addr: "10.0.0.1:8500".to_owned(),
            ..Peer::default()
        };
        for address in ["n1", "10.0.0.1", "10.0.0.1:8300", "10.0.0.1:8500"] {
            assert!(is_at(&peer, address), "{address}");
        }
        for address in ["n2", "10.0.0.2", "10.0.0.1:1", ""] {
            assert!(!is_at(&peer, address), "{address}");
        }
    }
}
