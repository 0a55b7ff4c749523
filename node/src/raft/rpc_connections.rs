//! Limits of the RPC port: on connections, and on bytes of requests that have not arrived in full.
//!
//! Anybody who reaches the port can open connections, and each takes a descriptor that the log, the snapshots
//! and the peers need. So they get a share of the descriptors ([`crate::host::resources`]). A connection is a
//! *stranger*'s until it has brought a message for this server of this cluster; peers send one at once.
//! Strangers have only some of the places: one more takes the place of the oldest, and each is closed after a
//! while. So a peer finds a place, however many connect and stay silent. Where the servers have certificates, a
//! connection is a stranger's until it has shown one, and its messages must be those of the server that it names.
//!
//! Incomplete requests of strangers and of acquaintances have separate memory limits, so that bodies that
//! never end harm neither the process nor the peers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::host::figures::{Figure, counter, gauge};
use crate::host::memory::{Memory, Share};
use crate::host::resources::BUDGET;
use crate::host::tls::holder::Holder;

/// A connection that has not shown a certificate, or brought a message of this cluster, after this time is closed. A follower keeps a
/// silent connection to see the end of the leader's process, and reopens it.
pub const INTRODUCTION_MAX: Duration = Duration::from_secs(10);
/// Strangers have this part of all places, and no others.
const STRANGERS_PART: usize = 4;
/// Bytes of strangers' incomplete bodies, together: the largest one fits.
const STRANGERS_BODY_BYTES_MAX: usize = 96 << 20;
/// The same of acquaintances.
const BODY_BYTES_MAX: usize = 192 << 20;

/// The connections of the RPC port.
#[derive(Debug)]
pub struct RpcConnections {
    max: usize,
    /// A std lock: held for map operations.
    table: Mutex<Table>,
    bodies_of_strangers: Memory,
    bodies: Memory,
    /// Strangers closed because another connection needed the place.
    evicted: AtomicU64,
    /// Strangers closed because they sent no message in time.
    silent: AtomicU64,
    /// Requests refused because there was no room for their bodies.
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    acquainted: usize,
    next: u64,
    /// The oldest first.
    strangers: BTreeMap<u64, CancellationToken>,
}

/// A connection; it counts until this is dropped.
#[derive(Debug)]
pub struct Caller {
    connections: Arc<RpcConnections>,
    number: u64,
    is_acquainted: AtomicBool,
    /// Whose certificate it has shown.
    holder: OnceLock<Holder>,
    end: CancellationToken,
}

/// Bytes of a body that are counted until this is dropped.
#[derive(Debug)]
pub struct BodyBytes<'a> {
    share: Share<'a>,
    refused: &'a AtomicU64,
}

impl Default for RpcConnections {
    fn default() -> Self {
        Self::new(BUDGET.rpc)
    }
}

impl RpcConnections {
    /// Room for this many.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            max: max.max(STRANGERS_PART),
            table: Mutex::default(),
            bodies_of_strangers: Memory::new(STRANGERS_BODY_BYTES_MAX),
            bodies: Memory::new(BODY_BYTES_MAX),
            evicted: AtomicU64::new(0),
            silent: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    fn strangers_max(&self) -> usize {
        self.max / STRANGERS_PART
    }

    /// Takes a place for a new connection, that of the oldest stranger if there is no other.
    #[must_use]
    pub fn admit(self: &Arc<Self>) -> Caller {
        let end = CancellationToken::new();
        let mut table = self.table();
        if table.strangers.len() >= self.strangers_max()
            && let Some((_, oldest)) = table.strangers.pop_first()
        {
            oldest.cancel();
            self.evicted.fetch_add(1, Ordering::Relaxed);
        }
        let number = table.next;
        table.next += 1;
        table.strangers.insert(number, end.clone());
        drop(table);
        let connections = Arc::clone(self);
        let (is_acquainted, holder) = (AtomicBool::new(false), OnceLock::new());
        Caller { connections, number, is_acquainted, holder, end }
    }

    /// What `/metrics` tells of them.
    #[must_use]
    pub fn figures(&self) -> Vec<Figure> {
        let (known, strangers) = {
            let table = self.table();
            (table.acquainted as u64, table.strangers.len() as u64)
        };
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        vec![
            gauge("rpc_connections", "RPC connections of servers and client agents", known),
            gauge(
                "rpc_connections_unknown",
                "RPC connections that have not sent a message of this cluster",
                strangers,
            ),
            gauge("rpc_connections_max", "How many of both there may be", self.max as u64),
            counter(
                "rpc_connections_evicted",
                "Unknown RPC connections closed because another one needed the place",
                count(&self.evicted),
            ),
            counter(
                "rpc_connections_silent",
                "Unknown RPC connections closed because they sent no message in time",
                count(&self.silent),
            ),
            counter(
                "rpc_requests_refused",
                "RPC requests refused because too many bytes of incomplete ones are in memory",
                count(&self.refused),
            ),
        ]
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Caller {
    /// The connection has brought a message for this server of this cluster. If acquaintances have all their
    /// places, it stays a stranger, and is served for as long as strangers are.
    pub fn introduce(&self) {
        if self.is_acquainted() {
            return;
        }
        let connections = &self.connections;
        let mut table = connections.table();
        let has_room = table.acquainted + connections.strangers_max() < connections.max;
        if has_room && table.strangers.remove(&self.number).is_some() {
            table.acquainted += 1;
            self.is_acquainted.store(true, Ordering::Relaxed);
        }
    }

    /// The connection has shown a certificate.
    pub fn prove(&self, holder: Holder) {
        // A connection has one handshake.
        drop(self.holder.set(holder));
        self.introduce();
    }

    /// Whose certificate it has shown, if certificates are asked for.
    #[must_use]
    pub fn holder(&self) -> Option<&Holder> {
        self.holder.get()
    }

    /// Whether it has brought one.
    #[must_use]
    pub fn is_acquainted(&self) -> bool {
        self.is_acquainted.load(Ordering::Relaxed)
    }

    /// Resolves when the place is needed for another connection, or the time of a stranger is over.
    pub async fn must_go(&self) {
        let silent = async {
            tokio::time::sleep(INTRODUCTION_MAX).await;
            if self.is_acquainted() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = self.end.cancelled() => {}
            () = silent => drop(self.connections.silent.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Begins to count the bytes of a body.
    #[must_use]
    pub fn holds(&self) -> BodyBytes<'_> {
        let connections = &*self.connections;
        let bodies = if self.is_acquainted() {
            &connections.bodies
        } else {
            &connections.bodies_of_strangers
        };
        BodyBytes { share: bodies.share(), refused: &connections.refused }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let mut table = self.connections.table();
        if self.is_acquainted() {
            table.acquainted -= 1;
        } else {
            table.strangers.remove(&self.number);
        }
    }
}

impl BodyBytes<'_> {
    /// Counts this many bytes in all; `false` if there is no room for them.
    #[must_use]
    pub fn grow_to(&mut self, bytes: usize) -> bool {
        let grown = self.share.grow_to(bytes);
        if grown.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        grown.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::memory::SMALL_BYTES;

    fn figure(connections: &RpcConnections, name: &str) -> i64 {
        connections.figures().iter().find(|figure| figure.name == name).unwrap().value
    }

    fn is_told_to_go(caller: &Caller) -> bool {
        caller.end.is_cancelled()
    }

    #[test]
    fn a_stranger_more_takes_the_place_of_the_oldest_and_acquaintances_stay() {
        let connections = Arc::new(RpcConnections::new(8));
        let peers: Vec<_> =
            (0..5).map(|_| connections.admit()).inspect(Caller::introduce).collect();
        let silent: Vec<_> = (0..3).map(|_| connections.admit()).collect();
        let told: Vec<_> = silent.iter().map(is_told_to_go).collect();
        assert_eq!(told, [true, false, false]);
        let peer = connections.admit();
        assert!(is_told_to_go(&silent[1]) && !is_told_to_go(&peer));
        peer.introduce();
        assert!(peer.is_acquainted() && !peers.iter().any(is_told_to_go));
        let beyond = connections.admit();
        beyond.introduce();
        assert!(!beyond.is_acquainted(), "the last places are for strangers");
        assert_eq!(figure(&connections, "rpc_connections"), 6);
        assert_eq!(figure(&connections, "rpc_connections_unknown"), 2);
        assert_eq!(figure(&connections, "rpc_connections_max"), 8);
        assert_eq!(figure(&connections, "rpc_connections_evicted"), 2);
        drop(peers);
        beyond.introduce();
        assert!(beyond.is_acquainted());
        drop((silent, peer, beyond));
        assert_eq!(figure(&connections, "rpc_connections"), 0);
        assert_eq!(figure(&connections, "rpc_connections_unknown"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_that_says_nothing_has_to_go_after_a_while() {
        let connections = Arc::new(RpcConnections::new(8));
        let (peer, silent) = (connections.admit(), connections.admit());
        peer.introduce();
        silent.must_go().await;
        assert_eq!(figure(&connections, "rpc_connections_silent"), 1);
        assert!(tokio::time::timeout(INTRODUCTION_MAX * 9, peer.must_go()).await.is_err());
    }

    #[test]
    fn what_strangers_send_is_bounded_and_leaves_room_for_what_peers_send() {
        let connections = Arc::new(RpcConnections::new(64));
        let (peer, stranger) = (connections.admit(), connections.admit());
        peer.introduce();
        let mut bodies = [stranger.holds(), stranger.holds(), stranger.holds()];
        assert!(bodies[0].grow_to(80 << 20));
        assert!(!bodies[1].grow_to(80 << 20));
        assert_eq!(figure(&connections, "rpc_requests_refused"), 1);
        assert!(bodies[1].grow_to(1_000) && bodies[1].grow_to(10 << 20));
        let mut of_peer = peer.holds();
        assert!(of_peer.grow_to(80 << 20), "peers have room of their own");
        assert!(bodies[2].grow_to(SMALL_BYTES), "a small one has room in any case");
    }
}
