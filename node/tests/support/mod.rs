//! A cluster in one process: the node's own logic over a network, disks and clocks made of memory.
//!
//! Nothing here is a copy of the node's code; it only fills in what [`quorate::node::NodeParts`] asks
//! for. That it can be written at all is what "transport, log storage and time are parameters" means.

pub(crate) mod clock;
pub(crate) mod cluster;
pub(crate) mod disk;
pub(crate) mod log;
pub(crate) mod network;
pub(crate) mod storm;

use std::time::Duration;

/// Waits until a condition holds, and says what it waited for if it does not within the limit.
pub(crate) async fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(limit, waiting).await.is_ok(), "waited in vain: {what}");
}
