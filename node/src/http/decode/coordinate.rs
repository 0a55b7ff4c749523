//! Coordinates.

use quorate_client::types::coordinate::CoordinateEntry;

use super::{Body, Kind, Shape, Unknown, field};

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
    use crate::http::decode;

    #[test]
    fn numbers_are_read_with_and_without_a_fraction() {
        let text = br#"{"node":"n","Coord":{"Vec":[1,-0.5,2e-3],"Height":1}}"#;
        let read: CoordinateEntry = decode::body(text).unwrap();
        assert_eq!((read.coord.vec, read.coord.height), (vec![1.0, -0.5, 0.002], 1.0));
        decode::body::<CoordinateEntry>(br#"{"Coord":{"Vec":["1"]}}"#).unwrap_err();
    }
}
