//! Who leads, as streams say it: one look for all of them.
//!
//! That a leader is no longer heard is no event, so it has to be looked for now and then.

use std::sync::Arc;
use std::time::Duration;

use super::Node;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Keeps the name up to date; never ends.
pub(super) async fn watch(node: Arc<Node>) {
    let mut leadership = node.leadership.clone();
    loop {
        let name: Option<Arc<str>> = node.leader().map(|(_, peer)| peer.name.into());
        node.known_leader.send_if_modified(|known| {
            let is_other = *known != name;
            *known = name;
            is_other
        });
        tokio::select! {
            // Without anybody who says who leads, the node is about to end.
            Ok(()) = leadership.changed() => {}
            () = node.clock().sleep(LOOK_EVERY) => {}
        }
    }
}
