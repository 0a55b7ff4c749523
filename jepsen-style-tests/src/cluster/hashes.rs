//! State hashes: compared when asked for, or all the time.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::{CONVERGE_LIMIT, Cluster};
use crate::checker::Verdict;
use crate::checker::hashes::Ledger;
use crate::http::Http;
use crate::{Failure, Limit, Result};

impl Cluster {
    /// A node's applied index and state hash.
    pub async fn state_hash(&self, id: u64) -> Result<(u64, String)> {
        let (applied, hash) = state_hash_at(&self.member(id).probe).await?;
        self.ledger().record(id, applied, &hash);
        Ok((applied, hash))
    }

    /// Waits until every serving node has applied the same index, with the same hash.
    pub async fn converge(&self) -> Result<(u64, String)> {
        let limit = Limit::new(CONVERGE_LIMIT);
        let running = self.running();
        loop {
            let mut seen = Vec::new();
            for id in &running {
                // A node that has just started may not answer yet.
                if let Ok(state) = self.state_hash(*id).await {
                    seen.push(state);
                }
            }
            if let Verdict::Invalid(violations) = self.ledger().verdict() {
                return Err(Failure::new(violations.join("\n")));
            }
            if seen.len() == running.len() && seen.windows(2).all(|pair| pair[0] == pair[1]) {
                return seen.pop().ok_or_else(|| Failure::new("no node is running"));
            }
            limit.pause(|| format!("equal states on all nodes: {seen:?}")).await?;
        }
    }

    /// Samples every node's state hash from now on, until the returned task is dropped.
    pub fn watch_hashes(&self, every: Duration) -> HashWatch {
        let probes: Vec<_> = self.members.iter().map(|m| (m.id, m.probe.clone())).collect();
        let ledger = Arc::clone(&self.hashes);
        HashWatch(tokio::spawn(async move {
            loop {
                let asked: Vec<_> = probes
                    .iter()
                    .map(|(id, probe)| (*id, tokio::spawn(ask_hash(probe.clone()))))
                    .collect();
                for (id, answer) in asked {
                    if let Ok(Ok((applied, hash))) = answer.await {
                        lock(&ledger).record(id, applied, &hash);
                    }
                }
                tokio::time::sleep(every).await;
            }
        }))
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.hashes)
    }
}

/// Samples state hashes in the background; dropping it ends the sampling.
#[derive(Debug)]
pub struct HashWatch(JoinHandle<()>);

impl Drop for HashWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) async fn ask_hash(probe: Http) -> Result<(u64, String)> {
    state_hash_at(&probe).await
}

pub(super) async fn state_hash_at(probe: &Http) -> Result<(u64, String)> {
    let state = probe.must_get("/v1/quorate/state-hash").await?;
    let applied = state["AppliedIndex"].as_u64();
    let hash = state["Hash"].as_str();
    let (Some(applied), Some(hash)) = (applied, hash) else {
        return Err(Failure::new(format!("not a state hash: {state}")));
    };
    Ok((applied, hash.to_owned()))
}

/// A test that panicked while it held the ledger has failed already; what it recorded is still true.
pub(super) fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
