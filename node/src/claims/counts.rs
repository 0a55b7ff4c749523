//! What this server has seen of claims since it started, for `/metrics`.
//!
//! Every server applies every grant, so each counts all of the cluster's. They are counted from the records of the
//! history as these are applied; what a snapshot skipped is not counted.

use std::sync::atomic::{AtomicU64, Ordering};

use quorate_storage::record::{Cause, HistoryKind, HistoryRecord, Ring};
use quorate_storage::state::History;

/// Counts of grants and of offers that ran out.
#[derive(Debug, Default)]
pub struct Counts {
    /// The newest record that was looked at; only the apply path writes it.
    seen: AtomicU64,
    grants: AtomicU64,
    expired_offers: AtomicU64,
}

impl Counts {
    /// Goes on behind this record. What came before was counted by an earlier process, if at all.
    pub fn skip_to(&self, newest: u64) {
        self.seen.store(newest, Ordering::Relaxed);
    }

    /// Counts what is new. Called from the apply path: it costs a comparison unless there are new records.
    pub fn note(&self, history: &History) {
        let newest = history.last_seq();
        let seen = self.seen.swap(newest, Ordering::Relaxed);
        if newest > seen {
            history.after(seen, &[Ring::Claims]).for_each(|record| self.count(record));
        }
    }

    fn count(&self, record: &HistoryRecord) {
        let count = match (record.kind, &record.cause) {
            (HistoryKind::ClaimGranted, _) => &self.grants,
            // Its place is its old one again.
            (HistoryKind::ClaimQueued, Cause::Silence { .. }) => &self.expired_offers,
            _ => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Grants of the cluster.
    #[must_use]
    pub fn grants(&self) -> u64 {
        self.grants.load(Ordering::Relaxed)
    }

    /// Offers of the cluster that nobody took in time.
    #[must_use]
    pub fn expired_offers(&self) -> u64 {
        self.expired_offers.load(Ordering::Relaxed)
    }
}
