//! `/v1/coordinate/`: where nodes are in the network, as they say themselves.

use quorate_client::types::coordinate::{Coordinate, CoordinateEntry, DatacenterMap};
use quorate_storage::command::Command;
use quorate_storage::record::{self, Access, AclKind, NodeKind, Real};
use quorate_storage::{State, Topic};

use crate::http::blocking;
use crate::http::call::Call;
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::reply::Reply;
use crate::http::rights::Rule;

/// The dimensions of a coordinate's vector (Serf's figure).
const DIMENSIONS: usize = 8;

/// The error and height of a coordinate that says nothing yet (Serf's figures).
const FIRST_ERROR: f64 = 1.5;
const FIRST_HEIGHT: f64 = 0.000_01;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/v1/coordinate/datacenters")
            .get(Rule::Open, |call| Box::pin(std::future::ready(datacenters(&call)))),
        Endpoint::new("/v1/coordinate/nodes").get(Rule::Rows, |call| Box::pin(nodes(call))),
        Endpoint::new("/v1/coordinate/node/").get(Rule::Rows, |call| Box::pin(node(call))),
        Endpoint::new("/v1/coordinate/update").put(Rule::Commands, |call| Box::pin(update(call))),
    ]
}

/// The servers of this datacenter by the names that `coordinate/node/` and the catalogue know them by
/// (Consul's have their datacenter in their name here and nowhere else).
fn datacenters(call: &Call) -> Answer {
    let published = call.node.published();
    let state = &published.state;
    let datacenter = &call.node.info().datacenter;
    let servers = state.nodes().filter(|node| node.kind == NodeKind::Server);
    let servers = servers.filter_map(|node| entry(state, &node.name));
    call.json(&[DatacenterMap {
        datacenter: datacenter.clone(),
        area_id: "wan".to_owned(),
        coordinates: servers.collect(),
    }])
}

async fn nodes(call: Call) -> Answer {
    let options = call.read_options()?;
    let list = |state: &State| {
        let sight = call.rights(state)?;
        let nodes = state.nodes().filter(|node| sight.keeps_node(&node.name));
        let known = nodes.filter_map(|node| entry(state, &node.name));
        call.json(&known.collect::<Vec<_>>())
    };
    blocking::read(&call, &options, |_| Topic::Coordinates, list).await
}

async fn node(call: Call) -> Answer {
    let options = call.read_options()?;
    let name = call.required("Missing node name")?;
    call.require(AclKind::Node, name, Access::Read).await?;
    let one = |state: &State| {
        let shown = state.node(name).map_or(name, |node| &node.name);
        call.rights(state)?.require(AclKind::Node, shown, Access::Read)?;
        match entry(state, name) {
            Some(entry) => call.json(&[entry]),
            None => Ok(Reply::nothing()),
        }
    };
    blocking::read(&call, &options, |_| Topic::Coordinates, one).await
}

async fn update(mut call: Call) -> Answer {
    call.check_datacenter()?;
    let body: CoordinateEntry = call.decode().await?;
    if body.coord.vec.len() != DIMENSIONS {
        return Err(ApiError::internal("Bad coordinate"));
    }
    let coordinate = record::Coordinate {
        vector: body.coord.vec.into_iter().map(Real::from).collect(),
        error: body.coord.error.into(),
        adjustment: body.coord.adjustment.into(),
        height: body.coord.height.into(),
    };
    call.propose(Command::PutCoordinate { node: body.node.into(), coordinate }).await?;
    Ok(Reply::empty())
}

/// Where a node is. A server is at the origin until it says otherwise, as in Consul; of other nodes
/// nothing is known until then.
fn entry(state: &State, name: &str) -> Option<CoordinateEntry> {
    // By its name only: an id is not looked for.
    let node = state.node(name).filter(|node| node.name.eq_ignore_ascii_case(name))?;
    let coord = match (state.coordinate(&node.name), node.kind) {
        (Some(known), _) => shown(known),
        (None, NodeKind::Server) => unknown(),
        (None, NodeKind::Agent | NodeKind::ServerAgent | NodeKind::Registered) => return None,
    };
    Some(CoordinateEntry { node: node.name.to_string(), segment: String::new(), coord })
}

fn shown(coordinate: &record::Coordinate) -> Coordinate {
    Coordinate {
        vec: coordinate.vector.iter().map(|number| f64::from(*number)).collect(),
        error: coordinate.error.into(),
        adjustment: coordinate.adjustment.into(),
        height: coordinate.height.into(),
    }
}

fn unknown() -> Coordinate {
    Coordinate {
        vec: vec![0.0; DIMENSIONS],
        error: FIRST_ERROR,
        adjustment: 0.0,
        height: FIRST_HEIGHT,
    }
}
