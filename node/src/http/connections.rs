//! How many clients are connected, and how many may be.
//!
//! Connections take descriptors, requests and HTTP/2 streams do not. What the process needs for its log,
//! its snapshots and its peers is not given to clients ([`crate::host::resources`]). One connection more is
//! accepted only to be told so: it gets an answer to one request, which is 503 unless it asks how the
//! server is ([`is_served_beyond_the_limit`]), so that a probe does not take a busy server for a dead one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::host::clock::Clock;
use crate::host::figures::{Figure, counter, gauge};
use crate::host::log_rate::LogRate;
use crate::host::resources::BUDGET;

/// Connections beyond the limit that are told so at a time; what the process keeps for itself has room
/// for them. One more is closed at once.
const REFUSING_AT_ONCE_MAX: usize = 32;
/// Time between two lines that say that connections are refused.
const REFUSED_LINE_EVERY: Duration = Duration::from_secs(1);

/// The connections of clients.
#[derive(Debug)]
pub struct Connections {
    max: usize,
    open: AtomicUsize,
    refusing: AtomicUsize,
    refused: AtomicU64,
    lines: LogRate,
}

/// What becomes of a new connection; it counts until this is dropped.
#[derive(Debug)]
pub(super) enum Admission {
    /// It is served.
    Served(Place),
    /// It is told that there is no room.
    Refused(Place),
    /// It is closed.
    Dropped,
}

/// Counts a connection while it lives.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    is_served: bool,
}

impl Default for Connections {
    fn default() -> Self {
        Self::new(BUDGET.clients)
    }
}

impl Connections {
    /// Room for this many.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            max,
            open: AtomicUsize::new(0),
            refusing: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            lines: LogRate::new(Clock::monotonic(), REFUSED_LINE_EVERY),
        }
    }

    pub(super) fn admit(self: &Arc<Self>) -> Admission {
        let place = |is_served| Place { connections: Arc::clone(self), is_served };
        if take(&self.open, self.max) {
            return Admission::Served(place(true));
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        if let Some(held_back) = self.lines.pass() {
            tracing::warn!(
                connections = self.max,
                not_logged = held_back,
                "clients have as many connections as they may have: refusing more (raise the limit of \
                 descriptors, ulimit -n)"
            );
        }
        if take(&self.refusing, REFUSING_AT_ONCE_MAX) {
            return Admission::Refused(place(false));
        }
        Admission::Dropped
    }

    /// What `/metrics` tells of them.
    #[must_use]
    pub fn figures(&self) -> Vec<Figure> {
        let open = self.open.load(Ordering::Relaxed) as u64;
        let refused = self.refused.load(Ordering::Relaxed);
        vec![
            gauge("client_connections", "Connections of HTTP clients", open),
            gauge("client_connections_max", "How many there may be", self.max as u64),
            counter("client_connections_refused", "Connections refused beyond that", refused),
            gauge("descriptors_max", "Descriptors that this process may have", BUDGET.descriptors),
        ]
    }
}

/// Takes one of `max` places, if one is free.
fn take(places: &AtomicUsize, max: usize) -> bool {
    let taken = places.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
        (taken < max).then_some(taken + 1)
    });
    taken.is_ok()
}

impl Drop for Place {
    fn drop(&mut self) {
        let Connections { open, refusing, .. } = &*self.connections;
        let places = if self.is_served { open } else { refusing };
        places.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is answered on a connection beyond the limit: how the server is, for probes.
pub(super) fn is_served_beyond_the_limit(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/metrics")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_limit_connections_are_refused_and_then_dropped_until_there_is_room() {
        let connections = Arc::new(Connections::new(2));
        let first = connections.admit();
        let second = connections.admit();
        assert!(matches!((&first, &second), (Admission::Served(_), Admission::Served(_))));
        let refused: Vec<_> = (0..REFUSING_AT_ONCE_MAX).map(|_| connections.admit()).collect();
        assert!(refused.iter().all(|refused| matches!(refused, Admission::Refused(_))));
        assert!(matches!(connections.admit(), Admission::Dropped));
        drop(first);
        assert!(matches!(connections.admit(), Admission::Served(_)));
        drop(refused);
        let value = |name| connections.figures().iter().find(|f| f.name == name).unwrap().value;
        assert_eq!(value("client_connections"), 1);
        assert_eq!(value("client_connections_refused"), REFUSING_AT_ONCE_MAX as i64 + 1);
        assert_eq!(connections.refusing.load(Ordering::Relaxed), 0);
    }
}
