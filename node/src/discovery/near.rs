//! Sorting by the estimated round-trip time from a node.
//!
//! The estimate is Serf's, from coordinates that clients report. Whatever has none comes last, in
//! its usual order; nothing is ever left out.

use std::net::IpAddr;

use quorate_storage::State;
use quorate_storage::record::Coordinate;

/// The name that stands for the asking agent's node.
const ASKING_AGENT: &str = "_agent";

/// The name that stands for the node with the caller's address.
const CALLER_ADDRESS: &str = "_ip";

/// The node that `near` names in a look-up, or in the definition of a query. `agent` gives the name of the asking
/// agent's node.
pub(crate) fn named_node(
    state: &State,
    near: &str,
    caller: IpAddr,
    agent: impl FnOnce() -> Option<String>,
) -> Option<String> {
    match near {
        "" => None,
        ASKING_AGENT => agent(),
        CALLER_ADDRESS => {
            let address = caller.to_string();
            let node = state.nodes().find(|node| node.address == address)?;
            Some(node.name.to_string())
        }
        name => Some(name.to_owned()),
    }
}

/// Sorts by distance from a node, which may be unknown: then nothing is moved.
pub(crate) fn sort_by_distance<T>(
    state: &State,
    from: &str,
    rows: &mut [T],
    node_of: impl Fn(&T) -> &str,
) {
    let Some(from) = state.coordinate(from) else { return };
    let distance = |row: &T| {
        state.coordinate(node_of(row)).map_or(f64::INFINITY, |to| round_trip_seconds(from, to))
    };
    rows.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
}

/// The estimated round-trip time between two coordinates.
fn round_trip_seconds(a: &Coordinate, b: &Coordinate) -> f64 {
    let difference = |(a, b): (&_, &_)| (f64::from(*a) - f64::from(*b)).powi(2);
    let straight: f64 = a.vector.iter().zip(&b.vector).map(difference).sum::<f64>().sqrt();
    let raw = straight + f64::from(a.height) + f64::from(b.height);
    let adjusted = raw + f64::from(a.adjustment) + f64::from(b.adjustment);
    if adjusted > 0.0 { adjusted } else { raw }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(vector: [f64; 2], height: f64, adjustment: f64) -> Coordinate {
        Coordinate {
            vector: vector.map(Into::into).to_vec(),
            height: height.into(),
            adjustment: adjustment.into(),
            ..Coordinate::default()
        }
    }

    #[test]
    fn the_estimate_is_that_of_serf() {
        let estimate = |a: &Coordinate, b: &Coordinate| round_trip_seconds(a, b);
        let origin = at([0.0, 0.0], 0.0, 0.0);
        assert!((estimate(&origin, &at([3.0, 4.0], 0.5, 0.0)) - 5.5).abs() < 1e-12);
        assert!((estimate(&origin, &at([3.0, 4.0], 0.5, 0.25)) - 5.75).abs() < 1e-12);
        // An adjustment never makes a distance negative.
        assert!((estimate(&origin, &at([3.0, 4.0], 0.0, -6.0)) - 5.0).abs() < 1e-12);
    }

    #[test]
    fn nothing_moves_when_nobody_knows_where_it_is() {
        let mut rows = vec!["b", "a"];
        sort_by_distance(&State::default(), "n", &mut rows, |row| row);
        assert_eq!(rows, ["b", "a"]);
    }
}
