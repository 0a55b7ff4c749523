//! Clients and faults that go on at the same time, and what is to be true afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate::node::{Consistency, Node};
use quorate::raft::error::ProposeError;
use quorate_storage::command::{Command, KvDeleteMode, KvPutMode, Outcome};
use tokio::task::JoinHandle;

use super::cluster::{Cluster, put_new};

/// A counter that all clients raise, each time by compare-and-set.
pub(crate) const COUNTER: &str = "counter";

/// Readers at each node: several, so that some come while a barrier is under way.
const READERS: usize = 4;

/// What the clients of one storm know.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    stop: AtomicBool,
    /// Unique keys whose write was acknowledged, in that order.
    keys: Mutex<Vec<String>>,
    /// Unique keys of which nobody can say whether they were written.
    unknown_keys: Mutex<BTreeSet<String>>,
    /// Unique keys that certainly were not written.
    refused_keys: Mutex<Vec<String>>,
    /// Keys that were written, then deleted, both acknowledged.
    deleted_keys: Mutex<Vec<String>>,
    raised: AtomicU64,
    perhaps_raised: AtomicU64,
    pub(crate) reads: AtomicU64,
    /// Hashes by applied position, of all nodes.
    hashes: Mutex<BTreeMap<u64, [u8; 32]>>,
    pub(crate) equal_positions: AtomicU64,
    /// What must not have happened.
    violations: Mutex<Vec<String>>,
}

/// What a storm came to.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) written: u64,
    pub(crate) raised: u64,
    pub(crate) failed: u64,
}

impl Ledger {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    fn violation(&self, what: String) {
        lock(&self.violations).push(what);
    }

    /// Adds keys that nobody else ever writes. A second application would find its key there.
    async fn write_unique_keys(self: Arc<Self>, node: Arc<Node>, client: String) {
        for n in 0.. {
            if !self.goes_on() {
                return;
            }
            let key = format!("unique/{client}/{n}");
            match node.propose(put_new(&key), None).await {
                Ok(Outcome::Condition(true)) => {
                    if node.published().state.key(&key).is_none() {
                        self.violation(format!("{key} was acknowledged before it could be read"));
                    }
                    lock(&self.keys).push(key);
                }
                Err(ProposeError::OutcomeUnknown) => {
                    lock(&self.unknown_keys).insert(key);
                }
                Err(ProposeError::NoLeader) => lock(&self.refused_keys).push(key),
                other => self.violation(format!("{key}: {other:?}")),
            }
        }
    }

    /// Writes a key through one node and deletes it through another. Compare-and-set would hide a
    /// second application of the write; this does not: the key would come back.
    async fn write_and_delete(self: Arc<Self>, node: Arc<Node>, other: Arc<Node>, client: usize) {
        for n in 0.. {
            if !self.goes_on() {
                return;
            }
            let key = format!("short/{}-{client}/{n}", node.info().id);
            let write = Command::KvPut {
                key: key.as_str().into(),
                value: "x".into(),
                flags: 0,
                mode: KvPutMode::Set,
            };
            let delete = Command::KvDelete { key: key.as_str().into(), mode: KvDeleteMode::One };
            // Where the outcome of the write is unknown, it may still come after the deletion.
            let was_written = node.propose(write, None).await.is_ok();
            let was_deleted = other.propose(delete, None).await.is_ok();
            if was_written && was_deleted {
                lock(&self.deleted_keys).push(key);
            }
        }
    }

    /// Raises the counter by one, as often as it can.
    async fn raise_counter(self: Arc<Self>, node: Arc<Node>) {
        while self.goes_on() {
            let (value, index) = counter(&node);
            let command = Command::KvPut {
                key: COUNTER.into(),
                value: (value + 1).to_string().into(),
                flags: 0,
                mode: KvPutMode::Cas(index),
            };
            match node.propose(command, None).await {
                Ok(Outcome::Condition(true)) => {
                    self.raised.fetch_add(1, Ordering::SeqCst);
                }
                // Somebody else was faster.
                Ok(Outcome::Condition(false)) | Err(ProposeError::NoLeader) => {}
                Err(ProposeError::OutcomeUnknown) => {
                    self.perhaps_raised.fetch_add(1, Ordering::SeqCst);
                }
                other => self.violation(format!("the counter: {other:?}")),
            }
        }
    }

    /// Reads through any node find what was acknowledged before, through any node.
    async fn read_what_was_acknowledged(self: Arc<Self>, node: Arc<Node>) {
        while self.goes_on() {
            let newest = lock(&self.keys).last().cloned();
            let raised = self.raised.load(Ordering::SeqCst);
            match node.read(Consistency::Linearizable).await {
                Ok(version) => {
                    let value = counter_of(&version);
                    if value < raised {
                        self.violation(format!("read the counter as {value}, not {raised}"));
                    }
                    if let Some(key) = newest.filter(|key| version.state.key(key).is_none()) {
                        self.violation(format!("a read through {} missed {key}", node.info().id));
                    }
                    self.reads.fetch_add(1, Ordering::SeqCst);
                }
                Err(error) => tracing::debug!(%error, "a read got no answer"),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Nodes that have applied the same are equal.
    async fn compare_states(self: Arc<Self>, node: Arc<Node>) {
        while self.goes_on() {
            let version = node.published();
            let position = version.last_applied.map_or(0, |applied| applied.index);
            let hash = version.state.hash();
            match lock(&self.hashes).insert(position, hash) {
                Some(other) if other != hash => {
                    self.violation(format!("two states at position {position}"));
                }
                Some(_) => {
                    self.equal_positions.fetch_add(1, Ordering::SeqCst);
                }
                None => {}
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    }

    /// Checks what became of everything, once all nodes have applied the same.
    fn check(&self, cluster: &Cluster) -> Summary {
        assert_eq!(*lock(&self.violations), Vec::<String>::new());
        let version = cluster.nodes()[0].published();
        let there: BTreeSet<&str> =
            version.state.keys_below("unique/").map(|entry| &*entry.key).collect();
        let (keys, unknown) = (lock(&self.keys), lock(&self.unknown_keys));
        for key in keys.iter() {
            assert!(there.contains(&**key), "{key} was acknowledged and is lost");
        }
        for key in lock(&self.refused_keys).iter() {
            assert!(!there.contains(&**key), "{key} had no leader and is there");
        }
        for key in lock(&self.deleted_keys).iter() {
            assert!(version.state.key(key).is_none(), "{key} was deleted and came back");
        }
        let explained = keys.iter().chain(unknown.iter()).map(|key| &**key).collect();
        assert!(there.is_subset(&explained), "keys that nobody wrote");

        let raised = self.raised.load(Ordering::SeqCst);
        let perhaps = self.perhaps_raised.load(Ordering::SeqCst);
        let value = counter_of(&version);
        assert!(
            (raised..=raised + perhaps).contains(&value),
            "{value} after {raised} and perhaps {perhaps} more"
        );
        assert!(lock(&self.deleted_keys).len() >= 10, "hardly a key was deleted");
        let failed = unknown.len() + lock(&self.refused_keys).len();
        Summary { written: keys.len() as u64, raised, failed: failed as u64 + perhaps }
    }
}

/// The clients of a storm.
pub(crate) struct Clients {
    pub(crate) ledger: Arc<Ledger>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Starts clients at every node: some that write, some that read, one that compares.
    pub(crate) fn start(cluster: &Cluster, writers: usize) -> Self {
        let ledger = Arc::new(Ledger::default());
        let mut tasks = Vec::new();
        let nodes = cluster.nodes();
        for (position, node) in nodes.iter().enumerate() {
            let own = || (Arc::clone(&ledger), Arc::clone(node));
            for writer in 0..writers {
                let (ledger, node) = own();
                let name = format!("{}-{writer}", node.info().id);
                tasks.push(tokio::spawn(ledger.write_unique_keys(node, name)));
            }
            for step in 1..nodes.len() {
                let (ledger, node) = own();
                let other = Arc::clone(&nodes[(position + step) % nodes.len()]);
                tasks.push(tokio::spawn(ledger.write_and_delete(node, other, step)));
            }
            let (ledger, node) = own();
            tasks.push(tokio::spawn(ledger.raise_counter(node)));
            for _ in 0..READERS {
                let (ledger, node) = own();
                tasks.push(tokio::spawn(ledger.read_what_was_acknowledged(node)));
            }
            let (ledger, node) = own();
            tasks.push(tokio::spawn(ledger.compare_states(node)));
        }
        Self { ledger, tasks }
    }

    /// Lets them finish what they are at, and checks everything.
    pub(crate) async fn finish(self, cluster: &Cluster) -> (Summary, Arc<Ledger>) {
        self.ledger.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.expect("a client does not panic");
        }
        cluster.converge().await;
        (self.ledger.check(cluster), self.ledger)
    }
}

fn counter(node: &Node) -> (u64, u64) {
    let version = node.published();
    let index = version.state.key(COUNTER).map_or(0, |entry| entry.indexes.modify.0);
    (counter_of(&version), index)
}

fn counter_of(version: &quorate_storage::machine::Published) -> u64 {
    let entry = version.state.key(COUNTER);
    let text = entry.map(|entry| String::from_utf8_lossy(&entry.value).into_owned());
    text.map_or(0, |text| text.parse().expect("the counter is a number"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
