//! `/v1/operator/`: the Raft membership, how much there is, and the keyring that there is not.

mod autopilot;

use std::collections::BTreeSet;

use quorate_client::types::operator::{
    LeaderTransferred, RaftConfiguration, RaftServer, ServiceUsage, Usage,
};
use quorate_storage::raft::{NodeId, StoredMembership};
use quorate_storage::record::{Access, SERVER_SERVICE};
use quorate_storage::{Index, State, Topic};

use crate::http::blocking;
use crate::http::call::Call;
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::params::Params;
use crate::http::reply::Reply;
use crate::http::rights::Rule;
use crate::http::wire;
use crate::raft::error::MembershipError;

/// The version of Consul's Raft protocol that clients expect to see.
const RAFT_PROTOCOL: &str = "3";

pub(super) fn endpoints() -> Vec<Endpoint> {
    let mut endpoints = vec![
        Endpoint::new("/v1/operator/raft/configuration")
            .get(Rule::Operator(Access::Read), |call| Box::pin(configuration(call))),
        Endpoint::new("/v1/operator/raft/peer")
            .delete(Rule::Operator(Access::Write), |call| Box::pin(remove_peer(call))),
        Endpoint::new("/v1/operator/raft/transfer-leader")
            .put(Rule::Operator(Access::Write), |call| Box::pin(transfer_leader(call)))
            .post(Rule::Operator(Access::Write), |call| Box::pin(transfer_leader(call))),
        Endpoint::new("/v1/operator/usage")
            .get(Rule::Operator(Access::Read), |call| Box::pin(usage(call))),
        Endpoint::new("/v1/operator/keyring")
            .get(Rule::Operator(Access::Read), |_| Box::pin(std::future::ready(Err(no_keyring()))))
            .put(Rule::Operator(Access::Write), |_| Box::pin(std::future::ready(Err(no_keyring()))))
            .post(Rule::Operator(Access::Write), |_| {
                Box::pin(std::future::ready(Err(no_keyring())))
            })
            .delete(Rule::Operator(Access::Write), |_| {
                Box::pin(std::future::ready(Err(no_keyring())))
            }),
    ];
    endpoints.extend(autopilot::endpoints());
    endpoints
}

async fn configuration(call: Call) -> Answer {
    let options = call.read_options()?;
    call.check_datacenter()?;
    let published = blocking::at_barrier(&call.node, &options).await?;
    let leader = call.node.leader().map(|(id, _)| id);
    call.json(&shown(&published.membership, leader))
}

fn shown(membership: &StoredMembership, leader: Option<NodeId>) -> RaftConfiguration {
    let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
    let servers = membership.nodes().map(|(id, peer)| RaftServer {
        id: id.to_string(),
        node: peer.name.clone(),
        address: peer.rpc_addr.clone(),
        leader: leader == Some(*id),
        protocol_version: RAFT_PROTOCOL.to_owned(),
        voter: voters.contains(id),
    });
    let index = membership.log_id().as_ref().map_or(0, |log_id| log_id.index());
    RaftConfiguration { servers: servers.collect(), index }
}

async fn remove_peer(call: Call) -> Answer {
    call.read_options()?;
    call.check_datacenter()?;
    let id = named_server(&call.params, &call.node.published().membership)?;
    call.node.remove_server(id).await?;
    Ok(Reply::empty())
}

async fn transfer_leader(call: Call) -> Answer {
    call.read_options()?;
    call.check_datacenter()?;
    let unknown = |id: &str| MembershipError::UnknownServer(id.to_owned());
    let heir = call.params.filled("id").map(|id| id.parse().map_err(|_| unknown(id)));
    call.node.hand_over(heir.transpose()?).await?;
    call.json(&LeaderTransferred { success: true })
}

async fn usage(call: Call) -> Answer {
    let options = call.read_options()?;
    call.check_datacenter()?;
    let mut published = blocking::at_barrier(&call.node, &options).await?;
    if options.index > 0 {
        let newer = |state: &State| usage_index(state).0 > options.index;
        let counted = [&Topic::Nodes, &Topic::Services];
        published = blocking::until(&call.node, counted, options.wait, published, newer).await?;
    }
    let usage = service_usage(&published.state);
    let contact = call.node.contact();
    let index = usage_index(&published.state);
    let answer = Usage {
        usage: [(call.node.info().datacenter, usage)].into(),
        index: index.0,
        last_contact: wire::nanos(contact.last_contact).unsigned_abs(),
        known_leader: contact.known_leader,
        consistency_level: options.effective.to_owned(),
        ..Usage::default()
    };
    Ok(call.json(&answer)?.with_read_headers(index, contact, options.effective))
}

/// The newest change of what is counted.
fn usage_index(state: &State) -> Index {
    state.topic_index(&Topic::Nodes).max(state.topic_index(&Topic::Services))
}

fn service_usage(state: &State) -> ServiceUsage {
    let mesh = ["connect-native", "connect-proxy", "ingress-gateway", "mesh-gateway"];
    let mesh = mesh.into_iter().chain(["api-gateway", "terminating-gateway"]);
    let instances = state.services().count();
    ServiceUsage {
        nodes: state.nodes().count(),
        services: state.service_tags().len(),
        service_instances: instances,
        connect_service_instances: mesh.map(|kind| (kind.to_owned(), 0)).collect(),
        billable_service_instances: instances - state.instances(SERVER_SERVICE).count(),
    }
}

/// Servers talk to each other without gossip, so there is nothing that a key could encrypt.
fn no_keyring() -> ApiError {
    ApiError::internal("No keyring available (encryption not enabled)")
}

/// The server that `id` or `address` names.
fn named_server(params: &Params, membership: &StoredMembership) -> Result<NodeId, ApiError> {
    // As in Consul, an empty value is one that no server has.
    match (params.get("id"), params.get("address")) {
        (Some(_), Some(_)) => {
            Err(ApiError::bad_request("Bad request: Must specify only one of ?id or ?address"))
        }
        (None, None) => Err(ApiError::bad_request(
            "Bad request: Must specify either ?id with the server's ID or ?address with IP:port of peer to remove",
        )),
        (Some(id), None) => {
            id.parse().map_err(|_| MembershipError::UnknownServer(id.to_owned()).into())
        }
        (None, Some(address)) => membership
            .nodes()
            .find(|(_, peer)| peer.rpc_addr == address)
            .map(|(id, _)| *id)
            .ok_or_else(|| {
                ApiError::internal(format!(
                    "address {address:?} was not found in the Raft configuration"
                ))
            }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use openraft::Membership;
    use quorate_storage::raft::Peer;

    use super::*;

    fn membership() -> StoredMembership {
        let peer = |id: u64| Peer {
            name: format!("n{id}"),
            rpc_addr: format!("10.0.0.{id}:8300"),
            ..Peer::default()
        };
        let nodes: BTreeMap<NodeId, Peer> = (1..=3).map(|id| (id, peer(id))).collect();
        let membership = Membership::new(vec![BTreeSet::from([1, 2])], nodes).unwrap();
        StoredMembership::new(None, membership)
    }

    #[test]
    fn voters_and_the_leader_are_marked() {
        let shown = shown(&membership(), Some(2));
        let marks: Vec<_> = shown
            .servers
            .iter()
            .map(|server| (server.id.as_str(), server.leader, server.voter))
            .collect();
        assert_eq!(marks, [("1", false, true), ("2", true, true), ("3", false, false)]);
    }

    #[test]
    fn a_server_is_named_by_id_or_by_address() {
        let named = |query: &str| {
            named_server(&Params::parse(query).unwrap(), &membership()).map_err(|error| error.text)
        };
        assert_eq!(named("id=7"), Ok(7));
        assert_eq!(named("address=10.0.0.3:8300"), Ok(3));
        assert_eq!(named("id=x").unwrap_err(), "id \"x\" was not found in the Raft configuration");
        assert_eq!(
            named("address=x").unwrap_err(),
            "address \"x\" was not found in the Raft configuration"
        );
        assert_eq!(named("id=").unwrap_err(), "id \"\" was not found in the Raft configuration");
        assert!(named("").unwrap_err().starts_with("Bad request: Must specify either ?id"));
        let both = named("id=1&address=x").unwrap_err();
        assert_eq!(both, "Bad request: Must specify only one of ?id or ?address");
    }
}
