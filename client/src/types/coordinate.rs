//! Network coordinates, from which round-trip times between nodes are estimated.

use serde::{Deserialize, Serialize};

use crate::decode::{Body, Kind, Shape, Unknown, field};

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

static COORDINATE: Shape = Shape {
    name: "Coordinate",
    fields: &[
        field("Vec", Kind::List(&Kind::Real)),
        field("Error", Kind::Real),
        field("Adjustment", Kind::Real),
        field("Height", Kind::Real),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

static ENTRY: Shape = Shape {
    name: "CoordinateUpdateRequest",
    fields: &[
        field("Node", Kind::Text),
        field("Segment", Kind::Text),
        field("Datacenter", Kind::Text),
        field("Partition", Kind::Text),
        field("Coord", Kind::Object(&COORDINATE)),
    ],
    shared: &[],
    unknown: Unknown::Refused,
};

impl Body for CoordinateEntry {
    const SHAPE: &'static Shape = &ENTRY;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode;

    #[test]
    fn numbers_are_read_with_and_without_a_fraction() {
        let text = br#"{"node":"n","Coord":{"Vec":[1,-0.5,2e-3],"Height":1}}"#;
        let read: CoordinateEntry = decode::body(text).unwrap();
        assert_eq!((read.coord.vec, read.coord.height), (vec![1.0, -0.5, 0.002], 1.0));
        decode::body::<CoordinateEntry>(br#"{"Coord":{"Vec":["1"]}}"#).unwrap_err();
    }
}
