//! `/v1/status/`: who leads, and who is there. Answered from what this node knows, without a
//! barrier: these are what people ask when there is no leader.

use crate::http::call::Call;
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::rights::Rule;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/v1/status/leader")
            .get(Rule::Open, |call| Box::pin(std::future::ready(leader(&call)))),
        Endpoint::new("/v1/status/peers")
            .get(Rule::Open, |call| Box::pin(std::future::ready(peers(&call)))),
    ]
}

fn leader(call: &Call) -> Answer {
    call.read_options()?;
    call.check_datacenter()?;
    call.json(&call.node.leader().map_or_else(String::new, |(_, peer)| peer.rpc_addr))
}

fn peers(call: &Call) -> Answer {
    call.read_options()?;
    call.check_datacenter()?;
    let published = call.node.published();
    let membership = &published.membership;
    let voters = membership.voter_ids().filter_map(|id| membership.get_node(&id));
    let mut addresses: Vec<&str> = voters.map(|peer| peer.rpc_addr.as_str()).collect();
    addresses.sort_unstable();
    call.json(&addresses)
}
