//! `?near=`: sorting by the estimated round-trip time from a node.

use quorate_storage::State;

use super::call::Call;
use crate::discovery::near;

/// The node that `?near=` names: in a look-up, or in the definition of a query.
pub(super) fn named_node(call: &Call, state: &State, near: Option<&str>) -> Option<String> {
    let agent = || call.agent().ok().map(|agent| agent.name.to_string());
    near::named_node(state, near?, call.caller(), agent)
}

/// Rows sorted as `?near=` of the request asks.
pub(super) fn sorted<T>(
    call: &Call,
    state: &State,
    rows: impl Iterator<Item = T>,
    node_of: impl Fn(&T) -> &str,
) -> Vec<T> {
    let mut rows: Vec<T> = rows.collect();
    if let Some(from) = named_node(call, state, call.params.get("near")) {
        near::sort_by_distance(state, &from, &mut rows, node_of);
    }
    rows
}
