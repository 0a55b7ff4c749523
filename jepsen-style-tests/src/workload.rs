//! What the clients of a run do, one file per workload, and which checkers judge it.

pub mod append;
pub mod catalog;
pub mod kv_register;
mod lock;
pub mod mixed;
mod observe;
mod session;
pub mod set;
mod steps;
mod ttl;
pub mod txn;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::task::JoinSet;

use crate::checker::Verdict;
use crate::checker::linear::Window;
use crate::client::{Client, Site};
use crate::record::Record;
use crate::{Failure, Result};

/// What one checker says of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The checker's name, as `list` shows it.
    pub checker: &'static str,
    /// What it says.
    pub verdict: Verdict,
}

impl Judgement {
    /// What `checker` says.
    pub fn new(checker: &'static str, verdict: Verdict) -> Self {
        Self { checker, verdict }
    }
}

/// A kind of work, and how it is judged.
#[async_trait]
pub trait Workload: Send + Sync {
    /// Its name on the command line, and the `"w"` of its lines in the history.
    fn name(&self) -> &'static str;

    /// One sentence for `list`.
    fn summary(&self) -> &'static str;

    /// Lays out what the clients need, before the first of them begins.
    async fn set_up(&self, _site: &Site) -> Result<()> {
        Ok(())
    }

    /// One client's work: a loop that ends when [`Client::turn`] says so. An error is one of the
    /// harness; trouble with the servers is what is written down.
    async fn work(&self, client: Client) -> Result<()>;

    /// What must be read at the end, when everything has healed and every server is ready.
    async fn conclude(&self, _site: &Site) -> Result<()> {
        Ok(())
    }

    /// Judges the run from what was written down, and from nothing else.
    fn judge(&self, record: &Record) -> Result<Vec<Judgement>>;

    /// How much there was to judge: what is counted, and how many.
    fn counts(&self, _record: &Record) -> Result<Vec<(&'static str, u64)>> {
        Ok(Vec::new())
    }

    /// The smallest part of a history of registers that no order explains, for the report; none if they
    /// were linearizable, or if the workload has no registers.
    fn failing_window(&self, _record: &Record) -> Result<Option<Window>> {
        Ok(None)
    }
}

/// Waits for the parts of a client's work that go on side by side.
async fn join(mut parts: JoinSet<Result<()>>) -> Result<()> {
    while let Some(ended) = parts.join_next().await {
        ended.map_err(|error| Failure::new(format!("a part of a client: {error}")))??;
    }
    Ok(())
}

/// All workloads, in the order of `list`.
pub fn all() -> Vec<Arc<dyn Workload>> {
    vec![
        Arc::new(kv_register::KvRegister),
        Arc::new(set::Set::default()),
        Arc::new(append::Append),
        Arc::new(txn::Txn),
        Arc::new(catalog::Catalog),
        Arc::new(mixed::Mixed::default()),
        Arc::new(lock::Lock),
        Arc::new(session::Session),
        Arc::new(ttl::Ttl),
        Arc::new(watch::Watch),
    ]
}

/// The workload of that name.
pub fn named(name: &str) -> Result<Arc<dyn Workload>> {
    all().into_iter().find(|workload| workload.name() == name).ok_or_else(|| {
        let names: Vec<_> = all().iter().map(|workload| workload.name()).collect();
        Failure::new(format!("no workload is called {name:?}; there are {}", names.join(", ")))
    })
}
