//! Network coordinates, from which round-trip times between nodes are estimated.

use serde::{Deserialize, Serialize};

/// Where a node is: an entry of `GET /v1/coordinate/nodes`, and the body of
/// `PUT /v1/coordinate/update`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CoordinateEntry {
    /// The node's name.
    pub node: String,
    /// A network segment, which Consul's paid edition has.
    pub segment: String,
    /// Where it is.
    pub coord: Coordinate,
}

/// A Vivaldi coordinate; all numbers are seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Coordinate {
    /// The Euclidean part: 8 dimensions.
    pub vec: Vec<f64>,
    /// How little the node trusts it.
    pub error: f64,
    /// An offset learned over time.
    pub adjustment: f64,
    /// The part of the way that all of its traffic takes.
    pub height: f64,
}

/// An entry of `GET /v1/coordinate/datacenters`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DatacenterMap {
    /// The datacenter's name.
    pub datacenter: String,
    /// Always `wan`.
    #[serde(rename = "AreaID")]
    pub area_id: String,
    /// Where its servers are.
    pub coordinates: Vec<CoordinateEntry>,
}
