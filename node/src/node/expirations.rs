//! What this server has seen expire since it started, for `/metrics`.
//!
//! Every server applies every expiry, so each counts all of the cluster's. They are counted from the records of the
//! history as these are applied; what a snapshot skipped is not counted.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use quorate_storage::record::{Cause, HistoryKind, HistoryRecord, Ring};
use quorate_storage::state::History;

/// What can expire, as a label.
const KINDS: [&str; 5] = ["check", "claim", "node", "service", "session"];

/// Counts of what expired.
#[derive(Debug)]
pub(super) struct Expirations {
    /// The newest record that was looked at; only the apply path writes it.
    seen: AtomicU64,
    counts: Family<Labels, Counter>,
}

/// What expired.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Labels {
    kind: &'static str,
}

impl Default for Expirations {
    fn default() -> Self {
        let counts = Family::default();
        // A rate needs the zero, too.
        for kind in KINDS {
            drop(counts.get_or_create(&Labels { kind }));
        }
        Self { seen: AtomicU64::new(0), counts }
    }
}

impl Expirations {
    /// Goes on behind this record. What came before was counted by an earlier process, if at all.
    pub(super) fn skip_to(&self, newest: u64) {
        self.seen.store(newest, Ordering::Relaxed);
    }

    /// Counts what is new. Called from the apply path: it costs a comparison unless there are new records.
    pub(super) fn note(&self, history: &History) {
        let newest = history.last_seq();
        let seen = self.seen.swap(newest, Ordering::Relaxed);
        if newest > seen {
            let records = history.after(seen, &[Ring::Catalogue, Ring::Claims]);
            for kind in records.filter_map(|record| kind_of(record)) {
                self.counts.get_or_create(&Labels { kind }).inc();
            }
        }
    }

    /// The counts, to be registered.
    pub(super) fn counts(&self) -> Family<Labels, Counter> {
        self.counts.clone()
    }
}

/// What expired, if the record tells of that.
fn kind_of(record: &HistoryRecord) -> Option<&'static str> {
    match (record.kind, &record.cause) {
        (HistoryKind::CheckChanged, Cause::Silence { .. }) => Some("check"),
        (HistoryKind::ClaimEnded, Cause::Silence { .. }) => Some("claim"),
        (HistoryKind::NodeLeft, Cause::Idle { .. }) => Some("node"),
        (HistoryKind::ServiceDeregistered, Cause::DeregisterAfter { .. }) => Some("service"),
        (HistoryKind::SessionEnded, Cause::Silence { .. }) => Some("session"),
        _ => None,
    }
}
