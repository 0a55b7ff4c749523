//! Keeps the log small in bytes, and its high-water mark near its end.
//!
//! openraft counts entries, not bytes, and one entry can hold half a megabyte. This task checks the log's
//! size. It asks for a snapshot when much has gathered since the last one, and for a purge when more is kept
//! behind a snapshot than a lagging server is worth.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use quorate_storage::log_store::LogMonitor;

use crate::host::clock::Clock;
use crate::raft::Raft;

/// A snapshot is built when this much has gathered since the last one.
const SNAPSHOT_AFTER_BYTES: u64 = 64 << 20;
/// At most this much of the log is kept behind a snapshot.
const KEPT_BYTES_MAX: u64 = 64 << 20;
/// Time between two checks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Watches the log's size; never ends.
pub async fn run(raft: Raft, log: LogMonitor, clock: Clock) {
    loop {
        clock.sleep(LOOK_EVERY).await;
        log.checkpoint();
        let (snapshot, purged) = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.snapshot, metrics.purged)
        };
        if log.bytes_since(snapshot.as_ref()) > SNAPSHOT_AFTER_BYTES {
            // An error, here and below, means that consensus has ended, which the node itself notices.
            let _ = raft.trigger().snapshot().await;
        }
        let covered = snapshot.map_or(0, |snapshot| snapshot.index);
        let purge = log.purge_point(KEPT_BYTES_MAX).map(|point| point.min(covered));
        let purge = purge.filter(|point| purged.is_none_or(|purged| *point > purged.index));
        if let Some(point) = purge.filter(|point| *point > 0) {
            let _ = raft.trigger().purge_log(point).await;
        }
    }
}
