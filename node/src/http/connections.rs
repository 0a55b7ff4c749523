//! How many clients are connected, and how many may be.
//!
//! Connections take descriptors, requests and HTTP/2 streams do not. What the process needs for its log,
//! its snapshots and its peers is not given to clients ([`crate::host::resources`]). One connection more is
//! accepted only to be told so: it gets an answer to one request, which is 503 unless it asks how the
//! server is ([`is_served_beyond_the_limit`]), so that a probe does not take a busy server for a dead one.
//!
//! A connection on which nothing was asked for a second holds no place that another one needs: when there is no room,
//! the oldest such connection is closed for the new one. One that is younger may be about to ask.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::host::clock::Clock;
use crate::host::figures::{Figure, counter, gauge};
use crate::host::log_rate::LogRate;
use crate::host::resources::BUDGET;
use crate::http::limits;

/// Connections beyond the limit that are told so at a time; what the process keeps for itself has room
/// for them. One more is closed at once.
const REFUSING_AT_ONCE_MAX: usize = 32;
/// How long a connection on which nothing was asked keeps its place in any case.
const SILENT_AT_LEAST: Duration = Duration::from_secs(1);
/// Time between two lines that say that connections are refused.
const REFUSED_LINE_EVERY: Duration = Duration::from_secs(1);

/// The connections of clients.
#[derive(Debug)]
pub struct Connections {
    max: usize,
    open: AtomicUsize,
    refusing: AtomicUsize,
    refused: AtomicU64,
    evicted: AtomicU64,
    /// A std lock: held for map operations.
    silent: Mutex<Silent>,
    lines: LogRate,
}

/// The connections on which nothing was asked yet.
#[derive(Debug, Default)]
struct Silent {
    next: u64,
    /// The oldest first, and since when each is open.
    ends: BTreeMap<u64, (Instant, CancellationToken)>,
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

/// Counts a connection while it lives; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Place(Arc<Taken>);

#[derive(Debug)]
struct Taken {
    connections: Arc<Connections>,
    is_served: bool,
    has_asked: AtomicBool,
    /// Among those on which nothing was asked.
    number: u64,
    end: CancellationToken,
}

impl Admission {
    /// Resolves when another connection has got the place, if it has one.
    pub(super) async fn lost(&self) {
        match self {
            Self::Served(place) => place.lost().await,
            Self::Refused(_) | Self::Dropped => std::future::pending().await,
        }
    }
}

impl Default for Connections {
    fn default() -> Self {
        Self::new(limits::get().connections_max())
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
            evicted: AtomicU64::new(0),
            silent: Mutex::default(),
            lines: LogRate::new(Clock::monotonic(), REFUSED_LINE_EVERY),
        }
    }

    pub(super) fn admit(self: &Arc<Self>) -> Admission {
        if take(&self.open, self.max) || self.evict() {
            return Admission::Served(self.place(true));
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        if let Some(held_back) = self.lines.pass() {
            tracing::warn!(
                connections = self.max,
                not_logged = held_back,
                "clients have as many connections as they may have: refusing more (raise the limit of \
                 descriptors, ulimit -n, or --http-connections)"
            );
        }
        if take(&self.refusing, REFUSING_AT_ONCE_MAX) {
            return Admission::Refused(self.place(false));
        }
        Admission::Dropped
    }

    /// Ends the oldest connection on which nothing was asked, if it is not quite new, and counts one more: the other counts
    /// until it is closed, which is soon.
    fn evict(&self) -> bool {
        let oldest = {
            let mut silent = self.silent();
            match silent.ends.first_entry() {
                Some(oldest) if oldest.get().0.elapsed() >= SILENT_AT_LEAST => oldest.remove().1,
                _ => return false,
            }
        };
        oldest.cancel();
        self.open.fetch_add(1, Ordering::Relaxed);
        self.evicted.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn place(self: &Arc<Self>, is_served: bool) -> Place {
        let end = CancellationToken::new();
        let mut silent = self.silent();
        let number = silent.next;
        silent.next += 1;
        if is_served {
            silent.ends.insert(number, (Instant::now(), end.clone()));
        }
        drop(silent);
        let (connections, has_asked) = (Arc::clone(self), AtomicBool::new(false));
        Place(Arc::new(Taken { connections, is_served, has_asked, number, end }))
    }

    fn silent(&self) -> MutexGuard<'_, Silent> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
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
            counter(
                "client_connections_evicted",
                "Connections on which nothing was asked, closed because another one needed the place",
                self.evicted.load(Ordering::Relaxed),
            ),
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

impl Place {
    /// Something is asked on the connection: it keeps its place.
    pub(super) fn asked(&self) {
        if !self.0.has_asked.swap(true, Ordering::Relaxed) {
            self.0.connections.silent().ends.remove(&self.0.number);
        }
    }

    /// Whether something was.
    pub(super) fn has_asked(&self) -> bool {
        self.0.has_asked.load(Ordering::Relaxed)
    }

    /// Resolves when another connection has got the place.
    pub(super) async fn lost(&self) {
        self.0.end.cancelled().await;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !*self.has_asked.get_mut() {
            self.connections.silent().ends.remove(&self.number);
        }
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
        for served in [&first, &second] {
            let Admission::Served(place) = served else { panic!("{served:?}") };
            place.asked();
        }
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

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_nothing_was_asked_gives_its_place_to_the_next() {
        let connections = Arc::new(Connections::new(2));
        let served = || match connections.admit() {
            Admission::Served(place) => place,
            other => panic!("{other:?}"),
        };
        let (first, second) = (served(), served());
        first.asked();
        assert!(matches!(connections.admit(), Admission::Refused(_)), "it may be about to ask");
        tokio::time::advance(SILENT_AT_LEAST).await;
        let third = served();
        second.lost().await;
        // It may have asked just then: it is closed all the same, and the others are not.
        second.asked();
        third.asked();
        for place in [&first, &third] {
            assert!(!place.0.end.is_cancelled() && place.has_asked());
        }
        drop(second);
        assert!(matches!(connections.admit(), Admission::Refused(_)));
        drop(first);
        drop(served());
        assert!(connections.silent().ends.is_empty());
        assert_eq!(connections.open.load(Ordering::Relaxed), 1);
    }
}
