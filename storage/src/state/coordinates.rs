//! Network coordinates of nodes.

use std::sync::Arc;

use super::catalog::fold_arc;
use super::change::Change;
use crate::Topic;
use crate::record::Coordinate;

impl Change<'_> {
    /// Notes where a node is; what is said of a node that does not exist is dropped, as by Consul.
    pub(super) fn put_coordinate(&mut self, node: &Arc<str>, coordinate: &Coordinate) {
        let key = fold_arc(node);
        let is_known = self.state.catalog.nodes.contains_key(&key);
        if !is_known || self.state.coordinates.get(&key) == Some(coordinate) {
            return;
        }
        self.state.coordinates.insert(key, coordinate.clone());
        self.touch(Topic::Coordinates);
    }

    /// Forgets where a node was.
    pub(super) fn remove_coordinate(&mut self, key: &Arc<str>) {
        if self.state.coordinates.remove(key).is_some() {
            self.touch(Topic::Coordinates);
        }
    }
}
