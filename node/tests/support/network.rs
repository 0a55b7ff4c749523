//! A network in memory that loses, delays and repeats, driven by a seed.
//!
//! Messages are encoded and decoded on the way, as on a wire. A request is answered by a task of its
//! own, so it takes effect even if its sender has stopped waiting.
//!
//! What it keeps is the contract of [`Transport`]: `Unreachable` means never delivered. A repeated
//! request is delivered again only if the first copy was not refused as "not the leader", because that
//! answer is a promise about every copy.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use quorate::raft::protocol::{Envelope, Forwarded, Request, Response, SnapshotHeader};
use quorate::raft::service::Service;
use quorate::raft::transport::{Purpose, Target, Transport, TransportError};
use quorate_storage::snapshot::Snapshot;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// After this time a sender finds out that its message does not get through.
const LOSS_NOTICED_AFTER: Duration = Duration::from_millis(20);
/// After this time a server finds out that the process at an address has ended.
const END_NOTICED_AFTER: Duration = Duration::from_millis(2);
/// Bytes of a snapshot that travel together.
const SNAPSHOT_PIECE_BYTES: usize = 4 << 10;

/// How often what goes wrong, in a thousand messages.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) lost_requests: u32,
    pub(crate) lost_replies: u32,
    pub(crate) repeated: u32,
    pub(crate) delayed: u32,
    /// The longest delay. Half of the repetitions come within it, the others within ten times as much.
    pub(crate) delay_ms_max: u64,
}

/// What happened, so that a test can tell that it tested something.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) lost_requests: AtomicU64,
    pub(crate) lost_replies: AtomicU64,
    pub(crate) repeated: AtomicU64,
    pub(crate) snapshots: AtomicU64,
    /// How often the leader was asked where a read has to begin.
    pub(crate) read_indexes: AtomicU64,
}

/// Connects the servers of one test; clones are the same network.
#[derive(Debug, Clone)]
pub(crate) struct Network(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    services: Mutex<BTreeMap<String, Arc<Service>>>,
    rules: Mutex<Rules>,
    random: Mutex<ChaCha8Rng>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Rules {
    /// Nothing gets from the first to the second, neither request nor reply.
    cut: BTreeSet<(String, String)>,
    /// These may not hand commands over.
    mute: BTreeSet<String>,
    /// For what is asked of the leader (votes travel with it), and for the log.
    asked: Faults,
    log: Faults,
}

/// What chance decided for one message.
#[derive(Debug, Clone, Copy)]
struct Fate {
    delay: Duration,
    reply_delay: Duration,
    loses_request: bool,
    loses_reply: bool,
    repeats_after: Option<Duration>,
}

impl Network {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Shared {
            services: Mutex::default(),
            rules: Mutex::default(),
            random: Mutex::new(ChaCha8Rng::seed_from_u64(seed)),
            counts: Counts::default(),
        }))
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.0.counts
    }

    /// The transport of the server at this address.
    pub(crate) fn transport_of(&self, address: &str) -> Arc<dyn Transport> {
        Arc::new(Port { network: self.clone(), address: address.to_owned() })
    }

    pub(crate) fn listen(&self, address: &str, service: Arc<Service>) {
        lock(&self.0.services).insert(address.to_owned(), service);
    }

    pub(crate) fn hang_up(&self, address: &str) {
        lock(&self.0.services).remove(address);
    }

    pub(crate) fn set_faults(&self, asked: Faults, log: Faults) {
        let mut rules = self.rules();
        (rules.asked, rules.log) = (asked, log);
    }

    /// Nothing gets through from `from` to `to` any more.
    pub(crate) fn cut(&self, from: &str, to: &str) {
        self.rules().cut.insert((from.to_owned(), to.to_owned()));
    }

    /// Forbids a server to hand commands over.
    pub(crate) fn mute(&self, address: &str) {
        self.rules().mute.insert(address.to_owned());
    }

    /// Everything gets through again.
    pub(crate) fn heal(&self) {
        let mut rules = self.rules();
        rules.cut.clear();
        rules.mute.clear();
    }

    /// A number of the network's own chance, below `bound`.
    pub(crate) fn random_below(&self, bound: u64) -> u64 {
        lock(&self.0.random).random_range(0..bound)
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        lock(&self.0.rules)
    }

    fn is_cut(&self, from: &str, to: &str) -> bool {
        self.rules().cut.contains(&(from.to_owned(), to.to_owned()))
    }

    fn is_muted(&self, from: &str, purpose: Purpose) -> bool {
        purpose == Purpose::Forward && self.rules().mute.contains(from)
    }

    fn decide(&self, purpose: Purpose) -> Fate {
        let faults = {
            let rules = self.rules();
            match purpose {
                Purpose::Forward | Purpose::Control => rules.asked,
                Purpose::Append | Purpose::Heartbeat | Purpose::Snapshot => rules.log,
            }
        };
        let mut random = lock(&self.0.random);
        let mut happens = |per_mille: u32| random.random_range(0..1_000) < per_mille;
        let (delayed, reply_delayed) = (happens(faults.delayed), happens(faults.delayed));
        let repeated = happens(faults.repeated);
        let (loses_request, loses_reply) =
            (happens(faults.lost_requests), happens(faults.lost_replies));
        let repeats_late = happens(500);
        let mut below = |ms: u64| Duration::from_millis(random.random_range(0..=ms));
        Fate {
            delay: if delayed { below(faults.delay_ms_max) } else { Duration::ZERO },
            reply_delay: if reply_delayed { below(faults.delay_ms_max) } else { Duration::ZERO },
            repeats_after: repeated
                .then(|| below(faults.delay_ms_max * if repeats_late { 10 } else { 1 })),
            loses_request,
            loses_reply,
        }
    }

    /// Delivers one request, and whatever chance adds to it.
    async fn carry(
        self,
        from: String,
        to: String,
        purpose: Purpose,
        envelope: Envelope,
    ) -> Result<Response, TransportError> {
        if matches!(envelope.request, Request::ReadIndex) {
            count(&self.0.counts.read_indexes);
        }
        let fate = self.decide(purpose);
        tokio::time::sleep(fate.delay).await;
        if self.is_cut(&from, &to) || self.is_muted(&from, purpose) {
            tokio::time::sleep(LOSS_NOTICED_AFTER).await;
            return Err(TransportError::Unreachable("cut off".to_owned()));
        }
        if fate.loses_request {
            count(&self.0.counts.lost_requests);
            return lost().await;
        }
        let response = self.deliver(&to, &envelope).await?;
        let refused = matches!(response, Response::Forward(Forwarded::NotLeader));
        if let Some(later) = fate.repeats_after.filter(|_| !refused) {
            count(&self.0.counts.repeated);
            let (network, to) = (self.clone(), to.clone());
            tokio::spawn(async move {
                tokio::time::sleep(later).await;
                let _ = network.deliver(&to, &envelope).await;
            });
        }
        tokio::time::sleep(fate.reply_delay).await;
        if fate.loses_reply || self.is_cut(&to, &from) {
            count(&self.0.counts.lost_replies);
            return lost().await;
        }
        Ok(response)
    }

    async fn deliver(&self, to: &str, envelope: &Envelope) -> Result<Response, TransportError> {
        let service = self.service(to)?;
        let envelope: Envelope = over_the_wire(envelope);
        let answer = tokio::spawn(async move { service.handle(envelope).await });
        let answer = answer.await.map_err(|error| TransportError::NoAnswer(error.to_string()))?;
        Ok(over_the_wire(&answer))
    }

    fn service(&self, address: &str) -> Result<Arc<Service>, TransportError> {
        let service = lock(&self.0.services).get(address).cloned();
        service.ok_or_else(|| TransportError::Unreachable(format!("nobody listens at {address}")))
    }

    async fn carry_snapshot(
        self,
        from: String,
        to: String,
        header: SnapshotHeader,
        snapshot: Snapshot,
    ) -> Result<Response, TransportError> {
        if self.is_cut(&from, &to) {
            tokio::time::sleep(LOSS_NOTICED_AFTER).await;
            return Err(TransportError::Unreachable("cut off".to_owned()));
        }
        let service = self.service(&to)?;
        let mut bytes = Vec::new();
        let read = snapshot.open().and_then(|mut source| source.read_to_end(&mut bytes));
        read.map_err(|error| TransportError::Unreachable(error.to_string()))?;
        let pieces: Vec<_> = bytes
            .chunks(SNAPSHOT_PIECE_BYTES)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        count(&self.0.counts.snapshots);
        let response = service.receive_snapshot(header, futures_util::stream::iter(pieces)).await;
        if self.is_cut(&to, &from) { lost().await } else { Ok(response) }
    }
}

async fn lost() -> Result<Response, TransportError> {
    tokio::time::sleep(LOSS_NOTICED_AFTER).await;
    Err(TransportError::NoAnswer("lost".to_owned()))
}

fn over_the_wire<T: serde::Serialize + serde::de::DeserializeOwned>(message: &T) -> T {
    let bytes = postcard::to_stdvec(message).expect("every message can be encoded");
    postcard::from_bytes(&bytes).expect("what was encoded can be decoded")
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A server's own end of the network.
#[derive(Debug)]
struct Port {
    network: Network,
    address: String,
}

impl Transport for Port {
    fn call(
        &self,
        target: Target<'_>,
        purpose: Purpose,
        envelope: Envelope,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Response, TransportError>> {
        let (from, to) = (self.address.clone(), target.address.to_owned());
        in_time(timeout, self.network.clone().carry(from, to, purpose, envelope))
    }

    fn process_ended(&self, address: &str) -> BoxFuture<'static, ()> {
        let (network, from, to) = (self.network.clone(), self.address.clone(), address.to_owned());
        Box::pin(async move {
            let mut was_there = false;
            loop {
                let is_cut = network.is_cut(&from, &to) || network.is_cut(&to, &from);
                let listens = network.service(&to).is_ok();
                if !is_cut && was_there && !listens {
                    return;
                }
                was_there |= listens && !is_cut;
                tokio::time::sleep(END_NOTICED_AFTER).await;
            }
        })
    }

    fn send_snapshot(
        &self,
        target: Target<'_>,
        header: SnapshotHeader,
        snapshot: Snapshot,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Response, TransportError>> {
        let (from, to) = (self.address.clone(), target.address.to_owned());
        in_time(timeout, self.network.clone().carry_snapshot(from, to, header, snapshot))
    }
}

fn in_time(
    limit: Duration,
    call: impl Future<Output = Result<Response, TransportError>> + Send + 'static,
) -> BoxFuture<'static, Result<Response, TransportError>> {
    Box::pin(async move {
        let answer = tokio::time::timeout(limit, call).await;
        answer.unwrap_or_else(|_| Err(TransportError::NoAnswer("timed out".to_owned())))
    })
}
