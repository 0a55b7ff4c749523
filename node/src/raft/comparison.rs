//! Compares the servers' states after one entry of the log.
//!
//! Raft makes the logs equal, and equal logs make equal states. But nothing in Raft notices when states
//! differ: because an entry was damaged or forged on one server's disk, a bit flipped in memory, or two
//! directories were set back to different copies. Such a server would continue and give wrong answers.
//!
//! So the leader asks all servers for the hash of their state after the same entry. If the hashes differ, it
//! sends all of them to every server. Each server decides for itself ([`judge`]): a server, the leader
//! included, ends if its state is not that of a majority of the voters. If no hash has a majority, nobody can
//! tell which is right; the servers log that and continue.
//!
//! * **Which entry.** On a quiet cluster, the last one that the leader has applied. On a busy one the others
//!   have passed that entry before they are asked, so the leader names one that lies ahead. Each server keeps
//!   its version of the state after that entry ([`Capture`]), which costs next to nothing.
//! * **What it costs.** A hash reads the whole state, on a separate thread. The pause between two comparisons
//!   is at least [`COST_PAUSES`] times as long as the hash took.
//! * **Versions.** Another version of this program may write the rows differently and get another hash of the
//!   same state. Servers compare only within one version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use openraft::async_runtime::WatchReceiver;
use quorate_storage::machine::{Published, StateReader};
use quorate_storage::raft::{NodeId, Peer};
use tokio::sync::oneshot;

use super::Raft;
use super::context::Context;
use super::protocol::{Request, Response, StateHash};
use super::transport::Purpose;
use crate::host::hexadecimal::hexadecimal;
use crate::host::supervise::blocking;

/// Only servers of the same version compare their states.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Pause between two comparisons.
const COMPARE_EVERY: Duration = Duration::from_secs(10);
/// The pause is at least this many times as long as a hash took: hashing takes at most 1 % of one core.
const COST_PAUSES: u32 = 100;
/// Pause after an attempt in which a server had passed the entry, or did not reach it.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long a server waits for the entry to be applied.
const REACH_MAX: Duration = Duration::from_secs(5);
/// Time between two checks whether it is.
const REACH_PAUSE: Duration = Duration::from_millis(10);
/// How long a server may take to answer with its hash: a large state on a slow machine takes seconds.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// How long another server may take to receive the hashes.
const NOTICE_MAX: Duration = Duration::from_secs(1);
/// How many entries ahead the named entry lies, after the next one turned out to be too near.
const AHEAD_MIN: u64 = 8;
/// How many at most: a busy cluster applies as many in about a second.
const AHEAD_MAX: u64 = 4_096;

/// The version of the state after one entry, taken when that entry is applied.
#[derive(Debug, Default)]
pub struct Capture {
    /// Zero if none is wanted. Entry 0 is the founding membership.
    wanted: AtomicU64,
    // A std lock: held to put something in or to take it.
    taker: Mutex<Option<oneshot::Sender<Published>>>,
}

impl Capture {
    /// Asks for the version after this entry; replaces an earlier request.
    fn want(&self, index: u64) -> oneshot::Receiver<Published> {
        let (taker, captured) = oneshot::channel();
        *self.taker() = Some(taker);
        self.wanted.store(index, Ordering::SeqCst);
        captured
    }

    /// Whether the version after this entry is wanted.
    #[must_use]
    pub fn wants(&self, index: u64) -> bool {
        index != 0 && self.wanted.load(Ordering::SeqCst) == index
    }

    /// Hands over the requested version.
    pub fn reached(&self, version: Published) {
        self.wanted.store(0, Ordering::SeqCst);
        if let Some(taker) = self.taker().take() {
            // The receiver may be gone; ignore the error.
            drop(taker.send(version));
        }
    }

    fn taker(&self) -> MutexGuard<'_, Option<oneshot::Sender<Published>>> {
        self.taker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hashes this server's state for comparisons, and makes them as the leader.
#[derive(Debug)]
pub struct Comparison {
    context: Context,
    raft: Raft,
    state: StateReader,
    capture: Arc<Capture>,
    /// Held while a hash is made; other requests get none meanwhile.
    hashing: tokio::sync::Mutex<()>,
    /// The last hash: after which entry, and how long it took. A std lock: held to copy it.
    last: Mutex<Option<(u64, StateHash, Duration)>>,
    compared: AtomicU64,
    divergences: AtomicU64,
}

impl Comparison {
    /// A comparison for this node; nothing was compared yet.
    #[must_use]
    pub fn new(context: Context, raft: Raft, state: StateReader, capture: Arc<Capture>) -> Self {
        Self {
            context,
            raft,
            state,
            capture,
            hashing: tokio::sync::Mutex::default(),
            last: Mutex::default(),
            compared: AtomicU64::new(0),
            divergences: AtomicU64::new(0),
        }
    }

    /// How often this node compared its state with that of others as the leader.
    #[must_use]
    pub fn compared(&self) -> u64 {
        self.compared.load(Ordering::Relaxed)
    }

    /// How often this node heard that servers' states differ.
    #[must_use]
    pub fn divergences(&self) -> u64 {
        self.divergences.load(Ordering::Relaxed)
    }

    /// Compares the servers' states as the leader; never ends.
    pub async fn run(&self) {
        let mut ahead = 0;
        let mut pause = COMPARE_EVERY;
        loop {
            self.context.clock.sleep(pause).await;
            let index = self.applied() + ahead;
            let hashes = self.hashes_at(index).await;
            let is_complete = hashes.values().all(Option::is_some);
            if is_complete {
                pause = self.pause();
            } else {
                // Servers that are away do not answer; the comparison does not wait for them.
                pause = if ahead == AHEAD_MAX { self.pause() } else { RETRY_PAUSE };
                let is_reached = self.applied() >= index;
                ahead = if is_reached { (ahead * 4).clamp(AHEAD_MIN, AHEAD_MAX) } else { 0 };
            }
            let hashes = hashes.into_iter().filter_map(|(id, hash)| Some((id, hash?))).collect();
            self.compare(index, hashes).await;
        }
    }

    fn pause(&self) -> Duration {
        let took = self.last().map_or(Duration::ZERO, |(_, _, took)| took);
        COMPARE_EVERY.max(took * COST_PAUSES)
    }

    /// The hashes of this server and of those that answer; `None` where a server does not have the version.
    async fn hashes_at(&self, index: u64) -> BTreeMap<NodeId, Option<StateHash>> {
        let own = self.hash_at(index, VERSION);
        let others = self.others().into_iter().map(|(id, peer)| async move {
            let request = Request::StateHash { index, version: VERSION.to_owned() };
            let answer = self.context.call(id, &peer, Purpose::Control, request, ANSWER_MAX).await;
            match answer {
                Ok(Response::StateHash(hash)) => Some((id, hash)),
                Ok(_) | Err(_) => None,
            }
        });
        let (own, others) = tokio::join!(own, join_all(others));
        others.into_iter().flatten().chain([(self.context.id, own)]).collect()
    }

    async fn compare(&self, index: u64, hashes: BTreeMap<NodeId, StateHash>) {
        if hashes.len() < 2 || !hashes.contains_key(&self.context.id) {
            return;
        }
        self.compared.fetch_add(1, Ordering::Relaxed);
        if hashes.values().collect::<BTreeSet<_>>().len() < 2 {
            return;
        }
        // Every server is notified first, because this server may be the one that is wrong and ends.
        let others = self.others().into_iter().map(|(id, peer)| {
            let request = Request::StateHashes { index, hashes: hashes.clone() };
            async move { self.context.call(id, &peer, Purpose::Control, request, NOTICE_MAX).await }
        });
        drop(join_all(others).await);
        self.told(index, &hashes);
    }

    /// The hash of this server's state after this entry. `None` if it has passed the entry, does not reach it
    /// in time, is making another hash, or is of another version.
    pub async fn hash_at(&self, index: u64, version: &str) -> Option<StateHash> {
        if version != VERSION {
            return None;
        }
        let _one_at_a_time = self.hashing.try_lock().ok()?;
        let version = self.version_at(index).await?;
        let began = self.context.clock.now();
        let hash = blocking("hashing the state", move || Ok(version.state.hash())).await;
        let hash = hash.inspect_err(|error| tracing::warn!(%error, "no hash of the state")).ok()?;
        *self.last() = Some((index, hash, self.context.clock.now().since(began)));
        Some(hash)
    }

    async fn version_at(&self, index: u64) -> Option<Published> {
        // Before the check of what is applied, or the entry could pass in between.
        let mut captured = self.capture.want(index);
        let reached = async {
            loop {
                let published = self.state.load();
                if applied(&published) >= index {
                    return published;
                }
                self.context.clock.sleep(REACH_PAUSE).await;
            }
        };
        let published = self.context.clock.timeout(REACH_MAX, reached).await.ok()?;
        let is_last = applied(&published) == index;
        captured.try_recv().ok().or_else(|| is_last.then(|| Published::clone(&published)))
    }

    /// Judges the hashes of several servers, including this one. They may come from anybody, so hashes that
    /// do not contain this server's last one are ignored.
    pub fn told(&self, index: u64, hashes: &BTreeMap<NodeId, StateHash>) {
        let id = self.context.id;
        let own = self.last().filter(|(last, _, _)| *last == index).map(|(_, hash, _)| hash);
        let Some(own) = own.filter(|own| hashes.get(&id) == Some(own)) else { return };
        let voters = self.raft.metrics().borrow_watched().membership_config.voter_ids().collect();
        match judge(&voters, hashes) {
            Judgement::Equal => return,
            Judgement::Undecided => tracing::error!(
                "the states of the servers differ after log entry {index} ({}), and none is that of a \
                 majority: nobody can tell which is right. Start the servers that are down, so that \
                 they can be compared as well; until then, trust no answer",
                list(hashes)
            ),
            Judgement::Right { right, wrong } if wrong.contains(&id) => {
                self.context.processes.diverged(diverged(index, &own, &right));
            }
            Judgement::Right { wrong, .. } => tracing::error!(
                "servers {wrong:?} have another state after log entry {index} than a majority of the \
                 servers ({}): they end",
                list(hashes)
            ),
        }
        self.divergences.fetch_add(1, Ordering::Relaxed);
    }

    fn others(&self) -> Vec<(NodeId, Peer)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let nodes = metrics.membership_config.nodes();
        let others = nodes.filter(|(id, _)| **id != self.context.id);
        others.map(|(id, peer)| (*id, peer.clone())).collect()
    }

    fn applied(&self) -> u64 {
        applied(&self.state.load())
    }

    fn last(&self) -> MutexGuard<'_, Option<(u64, StateHash, Duration)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn applied(published: &Published) -> u64 {
    published.last_applied.map_or(0, |applied| applied.index)
}

/// Which states are right where they differ.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    /// All are equal.
    Equal,
    /// They differ, and none is that of a majority of the voters.
    Undecided,
    /// The state of a majority of the voters, and the servers that have another.
    Right { right: StateHash, wrong: BTreeSet<NodeId> },
}

/// Voters that did not answer count against every hash: nobody knows which state they have.
fn judge(voters: &BTreeSet<NodeId>, hashes: &BTreeMap<NodeId, StateHash>) -> Judgement {
    let mut votes = BTreeMap::<StateHash, usize>::new();
    for (id, hash) in hashes {
        *votes.entry(*hash).or_default() += usize::from(voters.contains(id));
    }
    if votes.len() < 2 {
        return Judgement::Equal;
    }
    let majority = votes.into_iter().find(|(_, count)| *count > voters.len() / 2);
    let Some((right, _)) = majority else { return Judgement::Undecided };
    let wrong = hashes.iter().filter(|(_, hash)| **hash != right).map(|(id, _)| *id).collect();
    Judgement::Right { right, wrong }
}

fn diverged(index: u64, own: &StateHash, right: &StateHash) -> String {
    format!(
        "this server's state after log entry {index} (hash {}) is not that of a majority of the servers (hash {}): \
         its disk or memory is damaged, or somebody else has written into its log. It must not serve wrong \
         answers. Keep its data directory to find the cause, remove it from the cluster (DELETE \
         /v1/operator/raft/peer?id=ID at another server), and add it again with an empty data directory under \
         a new --node-id",
        hexadecimal(own),
        hexadecimal(right)
    )
}

fn list(hashes: &BTreeMap<NodeId, StateHash>) -> String {
    let each = hashes.iter().map(|(id, hash)| format!("server {id}: {}", hexadecimal(hash)));
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(voters: &[NodeId], hashes: &[(NodeId, u8)]) -> Judgement {
        let hashes = hashes.iter().map(|(id, byte)| (*id, [*byte; 32])).collect();
        judge(&voters.iter().copied().collect(), &hashes)
    }

    #[test]
    fn the_state_of_a_majority_of_all_voters_is_right_whoever_leads() {
        let right = |wrong: &[NodeId]| Judgement::Right {
            right: [7; 32],
            wrong: wrong.iter().copied().collect(),
        };
        assert_eq!(judged(&[1, 2, 3], &[(1, 7), (2, 7), (3, 7)]), Judgement::Equal);
        assert_eq!(judged(&[1, 2, 3], &[(1, 8), (2, 7), (3, 7)]), right(&[1]));
        assert_eq!(
            judged(&[1, 2, 3, 4, 5], &[(1, 7), (2, 9), (3, 7), (4, 8), (5, 7)]),
            right(&[2, 4])
        );
        assert_eq!(judged(&[1, 2, 3], &[(1, 7), (2, 7), (9, 8)]), right(&[9]), "a learner");
    }

    #[test]
    fn without_a_majority_nobody_is_called_wrong() {
        for (voters, hashes) in [
            (&[1, 2, 3][..], &[(1, 7), (2, 8)][..]),
            (&[1, 2, 3], &[(1, 7), (2, 8), (3, 9)]),
            (&[1, 2], &[(1, 7), (2, 8)]),
            (&[1, 2, 3], &[(1, 7), (4, 8), (5, 8)]),
        ] {
            assert_eq!(judged(voters, hashes), Judgement::Undecided, "{hashes:?}");
        }
    }

    #[test]
    fn only_the_wanted_version_is_captured_and_only_once() {
        let capture = Capture::default();
        assert!(!capture.wants(0) && !capture.wants(7));
        let mut captured = capture.want(7);
        assert!(!capture.wants(6) && capture.wants(7));
        capture.reached(Published::default());
        assert!(captured.try_recv().is_ok() && !capture.wants(7));
        drop(capture.want(8));
        // Whoever asked has given up.
        capture.reached(Published::default());
    }
}
