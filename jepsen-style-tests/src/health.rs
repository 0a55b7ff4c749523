//! Services that heartbeat, and observers that look at their health on every node all the time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::http::Http;
use crate::{Cluster, Failure, Limit, Result};

/// An observer looks this often.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// And waits this long for an answer: a paused node gives none.
const LOOK_PATIENCE: Duration = Duration::from_secs(2);
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
    node.must_put("/v1/agent/service/register", body.to_string()).await.map(drop)
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
    aim: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Heartbeats {
    /// Heartbeats at `nodes[0]`; when a node refuses, it goes on with the next one.
    pub fn start(nodes: Vec<Http>, id: &str, every: Duration) -> Self {
        let (aim, failed, sent) = (Arc::default(), Arc::default(), Arc::default());
        let id = id.to_owned();
        let task = tokio::spawn({
            let (aim, failed, sent) = (Arc::clone(&aim), Arc::clone(&failed), Arc::clone(&sent));
            async move {
                let (aim, failed, sent): (Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>) =
                    (aim, failed, sent);
                let mut turns = tokio::time::interval(every);
                turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                loop {
                    turns.tick().await;
                    while beat(&nodes[aim.load(Ordering::Relaxed) % nodes.len()], &id)
                        .await
                        .is_err()
                    {
                        failed.fetch_add(1, Ordering::Relaxed);
                        aim.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(RETRY).await;
                    }
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { aim, failed, sent, task }
    }

    /// Goes on at `nodes[position]`.
    pub fn aim_at(&self, position: usize) {
        self.aim.store(position, Ordering::Relaxed);
    }

    /// Heartbeats that were not acknowledged.
    pub fn failed(&self) -> usize {
        self.failed.load(Ordering::Relaxed)
    }

    /// Heartbeats that were.
    pub fn acknowledged(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
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

/// Observers at every node, one with default and one with `?stale` reads each.
#[derive(Debug)]
pub struct Observers {
    seen: Arc<Mutex<Vec<Sighting>>>,
    looks: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Observers {
    /// Begins to look at the checks of `service`.
    pub fn start(cluster: &Cluster, service: &str) -> Result<Self> {
        let seen: Arc<Mutex<Vec<Sighting>>> = Arc::default();
        let looks: Arc<AtomicUsize> = Arc::default();
        let stop: Arc<AtomicBool> = Arc::default();
        let mut tasks = Vec::new();
        for node in cluster.ids() {
            for is_stale_read in [false, true] {
                let mut observer = Observer {
                    http: Http::with_timeout(cluster.http(node).base(), LOOK_PATIENCE)?,
                    node,
                    is_stale_read,
                    path: format!(
                        "/v1/health/checks/{service}{}",
                        if is_stale_read { "?stale" } else { "" }
                    ),
                    last: Vec::new(),
                };
                let (seen, looks) = (Arc::clone(&seen), Arc::clone(&looks));
                let stop = Arc::clone(&stop);
                tasks.push(tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        if let Ok(new) = observer.look().await {
                            looks.fetch_add(1, Ordering::Relaxed);
                            lock(&seen).extend(new);
                        }
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                }));
            }
        }
        Ok(Self { seen, looks, stop, tasks })
    }

    /// How many looks were answered.
    pub fn looks(&self) -> usize {
        self.looks.load(Ordering::Relaxed)
    }

    /// What was seen so far, changes only.
    pub fn sightings(&self) -> Vec<Sighting> {
        lock(&self.seen).clone()
    }

    /// The first sighting of `id` in `status` by each observer that saw it.
    pub fn first(&self, id: &str, status: &str) -> Vec<Sighting> {
        let mut first: Vec<Sighting> = Vec::new();
        for sighting in self.sightings() {
            let is_new = !first
                .iter()
                .any(|f| (f.node, f.is_stale_read) == (sighting.node, sighting.is_stale_read));
            if sighting.id == id && sighting.status == status && is_new {
                first.push(sighting);
            }
        }
        first
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
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Observer {
    http: Http,
    node: u64,
    is_stale_read: bool,
    path: String,
    last: Vec<(String, String)>,
}

impl Observer {
    async fn look(&mut self) -> Result<Vec<Sighting>> {
        let asked = Instant::now();
        let checks = self.http.must_get(&self.path).await?;
        let answered = Instant::now();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let now: Vec<_> = checks
            .as_array()
            .ok_or_else(|| Failure::new("checks are no list"))?
            .iter()
            .map(|check| (text(&check["ServiceID"]), text(&check["Status"])))
            .collect();
        let gone = self
            .last
            .iter()
            .filter(|(id, _)| !now.iter().any(|(other, _)| other == id))
            .map(|(id, _)| (id.clone(), "gone".to_owned()));
        let new = now
            .iter()
            .filter(|entry| !self.last.contains(entry))
            .cloned()
            .chain(gone)
            .map(|(id, status)| Sighting {
                node: self.node,
                is_stale_read: self.is_stale_read,
                id,
                status,
                asked,
                answered,
            })
            .collect();
        self.last = now;
        Ok(new)
    }
}

/// What an observer wrote down stays true when another test thread panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
