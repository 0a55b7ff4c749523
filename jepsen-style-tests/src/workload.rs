//! What the clients of a run do, one file per workload, and which checkers judge it.
//!
//! To add one: a file here, a line in `all()`, its cells in `matrix.rs`, the verbs it uses in `verbs.txt` and
//! `verbs.rs`, and, if it works in steps, a line in `Mixed::default()`. The README counts them.

pub mod append;
pub mod catalog;
mod checks;
mod claims;
pub mod counter;
mod history;
pub mod kv_register;
mod lock;
pub mod mixed;
pub(crate) mod observe;
mod presence;
mod session;
pub mod set;
mod steps;
mod stream;
mod ttl;
pub mod txn;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;

use crate::checker::Verdict;
use crate::checker::linear::Window;
use crate::client::{Client, Site};
use crate::cluster::Options;
use crate::record::Record;
use crate::{Failure, Result};

pub use steps::decode_number;

/// One checker's verdict on a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The checker's name, as `list` shows it.
    pub checker: &'static str,
    /// The verdict.
    pub verdict: Verdict,
}

impl Judgement {
    /// The verdict of `checker`.
    pub fn new(checker: &'static str, verdict: Verdict) -> Self {
        Self { checker, verdict }
    }
}

/// What clients do, and how it is checked.
#[async_trait]
pub trait Workload: Send + Sync {
    /// Its name on the command line, and the `"w"` of its lines in the history.
    fn name(&self) -> &'static str;

    /// One sentence for `list`.
    fn summary(&self) -> &'static str;

    /// Chooses what the servers are started with; `dir`: where the files of the run are.
    fn prepare(&self, _dir: &Path, _options: &mut Options) -> Result<()> {
        Ok(())
    }

    /// Prepares the data that the clients need, before the first of them starts.
    async fn set_up(&self, _site: &Site) -> Result<()> {
        Ok(())
    }

    /// One client's work: a loop until [`Client::turn`] returns false. The default calls [`Self::step`] once a
    /// turn. An error is one of the harness; trouble with the servers is recorded.
    async fn work(&self, mut client: Client) -> Result<()> {
        while client.turn().await {
            self.step(&mut client).await;
        }
        Ok(())
    }

    /// One turn of a client: a request, or a read and the write that follows from it. Workloads of another shape, which
    /// `mixed` cannot take steps from, have a [`Self::work`] of their own instead.
    async fn step(&self, _client: &mut Client) {
        unreachable!("{} works without steps", self.name())
    }

    /// The final reads, when every fault has healed and every server is ready.
    async fn conclude(&self, _site: &Site) -> Result<()> {
        Ok(())
    }

    /// Checks the run, from what was written down alone.
    fn judge(&self, record: &Record) -> Result<Vec<Judgement>>;

    /// How much there was to check: names and counts.
    fn counts(&self, _record: &Record) -> Result<Vec<(&'static str, u64)>> {
        Ok(Vec::new())
    }

    /// The smallest part of a history of registers that no order explains, for the report; none if they
    /// were linearizable, or if the workload has no registers.
    fn failing_window(&self, _record: &Record) -> Result<Option<Window>> {
        Ok(None)
    }
}

impl std::fmt::Debug for dyn Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Waits for clients, or for the concurrent parts of a client's work.
async fn join(mut parts: JoinSet<Result<()>>) -> Result<()> {
    while let Some(ended) = parts.join_next().await {
        ended.map_err(|error| Failure::new(format!("a client: {error}")))??;
    }
    Ok(())
}

/// Clients are patient; one that is not done this long after the end is a failure of the harness.
const CLIENTS_LIMIT: Duration = Duration::from_secs(40);

/// Starts all clients of a plan.
pub fn start(workload: &Arc<dyn Workload>, site: &Arc<Site>) -> JoinSet<Result<()>> {
    let mut clients = JoinSet::new();
    for number in 0..site.plan.clients {
        let client = Client::new(number, Arc::clone(site));
        let workload = Arc::clone(workload);
        clients.spawn(async move { workload.work(client).await });
    }
    clients
}

/// Stops the clients, and waits for their last answers.
pub async fn stop(site: &Site, clients: JoinSet<Result<()>>) -> Result<()> {
    site.stop();
    tokio::time::timeout(CLIENTS_LIMIT, join(clients))
        .await
        .map_err(|_| Failure::new(format!("clients were not done within {CLIENTS_LIMIT:?}")))?
}

/// The workload of tests that inject their own faults: a set of keys and counters below `prefix`.
pub fn set_and_counters(prefix: &str) -> Arc<dyn Workload> {
    let parts: Vec<Arc<dyn Workload>> =
        vec![Arc::new(set::Set::below(prefix)), Arc::new(counter::Counter::below(prefix))];
    Arc::new(mixed::Mixed::of(parts))
}

/// All workloads, in the order of `list`.
pub fn all() -> Vec<Arc<dyn Workload>> {
    vec![
        Arc::new(kv_register::KvRegister),
        Arc::new(set::Set::below("")),
        Arc::new(append::Append),
        Arc::new(txn::Txn),
        Arc::new(catalog::Catalog),
        Arc::new(mixed::Mixed::default()),
        Arc::new(lock::Lock),
        Arc::new(session::Session),
        Arc::new(ttl::Ttl),
        Arc::new(watch::Watch),
        Arc::new(stream::Stream),
        Arc::new(presence::Presences),
        Arc::new(claims::Claims),
        Arc::new(checks::Checks),
    ]
}

/// The workload of that name.
pub fn named(name: &str) -> Result<Arc<dyn Workload>> {
    all().into_iter().find(|workload| workload.name() == name).ok_or_else(|| {
        let names: Vec<_> = all().iter().map(|workload| workload.name()).collect();
        Failure::new(format!("no workload is called {name:?}; there are {}", names.join(", ")))
    })
}
