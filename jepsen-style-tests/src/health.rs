//! Services that send heartbeats, and observers that poll their health at every node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};

use crate::client::Site;
use crate::history::Clock;
use crate::http::{Answer, AnswerExt as _, Http};
use crate::load::{self, Volume};
use crate::workload::observe::{Look, Observation};
use crate::{Cluster, Limit, Result};

/// Pause between two polls of an observer.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A heartbeat that failed is tried at the next node after this.
const RETRY: Duration = Duration::from_millis(50);

/// Registers instance `id` of `service` with a passing TTL check; `deregister_after` as Go writes
/// durations, empty for never.
pub async fn register(
    node: &Http,
    service: &str,
    id: &str,
    ttl: Duration,
    deregister_after: &str,
) -> Result<()> {
    let mut check = json!({"TTL": format!("{}ms", ttl.as_millis()), "Status": "passing"});
    if !deregister_after.is_empty() {
        check["DeregisterCriticalServiceAfter"] = deregister_after.into();
    }
    let body =
        json!({"ID": id, "Name": service, "Address": "10.0.0.1", "Port": 80, "Check": check});
    node.must_put("/v1/agent/service/register", body.to_string()).await?;
    Ok(())
}

/// One acknowledged heartbeat.
#[derive(Debug, Clone, Copy)]
pub struct Beat {
    /// When it was sent.
    pub sent: Instant,
    /// When it was acknowledged.
    pub acknowledged: Instant,
}

/// Sends one heartbeat of instance `id`.
pub async fn beat(node: &Http, id: &str) -> Result<Beat> {
    let sent = Instant::now();
    node.must_put(&format!("/v1/agent/check/pass/service:{id}"), "").await?;
    Ok(Beat { sent, acknowledged: Instant::now() })
}

/// A service instance that heartbeats until it is dropped.
#[derive(Debug)]
pub struct Heartbeats {
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    /// The position of the node that is asked.
    aim: AtomicUsize,
    failed: AtomicUsize,
    acknowledged: AtomicUsize,
}

impl Heartbeats {
    /// Heartbeats at `nodes[0]`; when a node refuses, continues with the next one.
    pub fn start(nodes: Vec<Http>, id: &str, every: Duration) -> Self {
        let (id, counts) = (id.to_owned(), Arc::<Counts>::default());
        let shared = Arc::clone(&counts);
        let task = tokio::spawn(async move {
            let Counts { aim, failed, acknowledged } = &*shared;
            let mut turns = tokio::time::interval(every);
            turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                turns.tick().await;
                while beat(&nodes[aim.load(Ordering::Relaxed) % nodes.len()], &id).await.is_err() {
                    failed.fetch_add(1, Ordering::Relaxed);
                    aim.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(RETRY).await;
                }
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { counts, task }
    }

    /// Continues at `nodes[position]`.
    pub fn aim_at(&self, position: usize) {
        self.counts.aim.store(position, Ordering::Relaxed);
    }

    /// Heartbeats that were not acknowledged.
    pub fn failed(&self) -> usize {
        self.counts.failed.load(Ordering::Relaxed)
    }

    /// Heartbeats that were.
    pub fn acknowledged(&self) -> usize {
        self.counts.acknowledged.load(Ordering::Relaxed)
    }
}

impl Drop for Heartbeats {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An observer saw an instance's check in a status other than the one it saw before.
#[derive(Debug, Clone)]
pub struct Sighting {
    /// At which node.
    pub node: u64,
    /// In a `?stale` read.
    pub is_stale_read: bool,
    /// The instance.
    pub id: String,
    /// Its check's status, or `gone`.
    pub status: String,
    /// When the request that saw it was sent and ended: the instance had the status at some moment in
    /// between, or, in a stale read, before.
    pub asked: Instant,
    /// See `asked`.
    pub answered: Instant,
}

/// Observers at every node, one with default and one with `?stale` reads each: a workload's own, whose requests are
/// written down below the cluster's directory.
#[derive(Debug)]
pub struct Observers {
    site: Arc<Site>,
    seen: Arc<Mutex<Seen>>,
    tasks: JoinSet<Result<()>>,
}

#[derive(Debug, Default)]
struct Seen {
    looks: usize,
    changes: Vec<Sighting>,
    /// What each observer saw last.
    last: BTreeMap<(u64, bool), Vec<(String, String)>>,
}

impl Observers {
    /// Starts to poll the checks of `service`.
    pub fn start(cluster: &Cluster, service: &str) -> Result<Self> {
        // Impatient ones: a paused node does not answer.
        let nodes = cluster.ids().into_iter().map(|id| (id, cluster.probe(id))).collect();
        let volume = Volume { clients: 1, rate: 1 };
        let (site, _) = load::site(cluster, "health", nodes, volume)?;
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let shared = Arc::clone(&seen);
        let observation = Observation {
            path: format!("/v1/health/checks/{service}"),
            every: LOOK_EVERY,
            listed_in: statuses_in,
            note: move |site: &Site, look: Look<_>| lock(&shared).note(&site.journal.clock, look),
        };
        let mut tasks = JoinSet::new();
        observation.start(&site, &mut tasks);
        Ok(Self { site, seen, tasks })
    }

    /// How many polls were answered.
    pub fn looks(&self) -> usize {
        lock(&self.seen).looks
    }

    /// What was seen so far, changes only.
    pub fn sightings(&self) -> Vec<Sighting> {
        lock(&self.seen).changes.clone()
    }

    /// The first sighting of `id` in `status` by each observer that saw it.
    pub fn first(&self, id: &str, status: &str) -> Vec<Sighting> {
        let mut observers = BTreeSet::new();
        let mut seen = self.sightings();
        seen.retain(|s| s.id == id && s.status == status);
        seen.retain(|s| observers.insert((s.node, s.is_stale_read)));
        seen
    }

    /// Waits until every observer has seen `id` in `status`.
    pub async fn wait_all_saw(&self, id: &str, status: &str, limit: Duration) -> Result<()> {
        let limit = Limit::new(limit);
        while self.first(id, status).len() < self.tasks.len() {
            limit.pause(|| format!("all see {id} {status}: {:?}", self.first(id, status))).await?;
        }
        Ok(())
    }
}

impl Drop for Observers {
    fn drop(&mut self) {
        self.site.stop();
    }
}

/// The instances of a list of checks, each with its status.
fn statuses_in(answer: &Answer) -> Option<Vec<(String, String)>> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let status = |check: &Value| Some((text(&check["ServiceID"])?, text(&check["Status"])?));
    answer.value().ok()?.as_array()?.iter().map(status).collect()
}

impl Seen {
    fn note(&mut self, clock: &Clock, look: Look<Vec<(String, String)>>) {
        let Look { node, stale, call, ret, listed } = look;
        let Some(now) = listed else { return };
        self.looks += 1;
        let last = self.last.insert((node, stale), now.clone()).unwrap_or_default();
        let is_gone = |id: &String| !now.iter().any(|(other, _)| other == id);
        let gone = last.iter().filter(|(id, _)| is_gone(id));
        let gone = gone.map(|(id, _)| (id.clone(), "gone".to_owned()));
        let new = now.iter().filter(|entry| !last.contains(entry)).cloned();
        self.changes.extend(new.chain(gone).map(|(id, status)| Sighting {
            node,
            is_stale_read: stale,
            id,
            status,
            asked: clock.instant(call),
            answered: clock.instant(ret),
        }));
    }
}

/// What was seen stays true when another test thread panics.
fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_once_and_what_vanishes_is_gone() {
        let mut seen = Seen::default();
        let mut look = |listed: &[(&str, &str)]| {
            let listed = listed.iter().map(|(id, status)| ((*id).into(), (*status).into()));
            let listed = Some(listed.collect());
            seen.note(&Clock::default(), Look { node: 1, stale: false, call: 1, ret: 2, listed });
            seen.changes.iter().map(|s| format!("{} {}", s.id, s.status)).collect::<Vec<_>>()
        };
        assert_eq!(look(&[("a", "passing")]), ["a passing"]);
        assert_eq!(look(&[("a", "passing")]), ["a passing"]);
        assert_eq!(look(&[("a", "critical")]), ["a passing", "a critical"]);
        assert_eq!(look(&[]), ["a passing", "a critical", "a gone"]);
        assert_eq!(seen.looks, 4);
    }
}
