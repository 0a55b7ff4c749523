//! All workloads on data at once: each turn of a client is a step of a random workload, and each workload's own
//! checkers check its part of the history. Watches, sessions and locks, which wait or expire, are not included.

use std::sync::Arc;

use async_trait::async_trait;
use rand::Rng as _;

use super::{Judgement, Workload, append, catalog, kv_register, set, txn};
use crate::Result;
use crate::checker::linear::Window;
use crate::client::{Client, Site};
use crate::record::Record;

/// See the module.
#[derive(Debug)]
pub struct Mixed {
    parts: Vec<Arc<dyn Workload>>,
}

impl Mixed {
    /// Of these workloads, whose clients all take one step a turn.
    pub fn of(parts: Vec<Arc<dyn Workload>>) -> Self {
        Self { parts }
    }
}

impl Default for Mixed {
    fn default() -> Self {
        Self::of(vec![
            Arc::new(kv_register::KvRegister),
            Arc::new(set::Set::below("")),
            Arc::new(append::Append),
            Arc::new(txn::Txn),
            Arc::new(catalog::Catalog),
        ])
    }
}

#[async_trait]
impl Workload for Mixed {
    fn name(&self) -> &'static str {
        "mixed"
    }

    fn summary(&self) -> &'static str {
        "kv-register, set, append, txn and catalog at once (data only: no locks, sessions, checks or watches)"
    }

    async fn set_up(&self, site: &Site) -> Result<()> {
        for part in &self.parts {
            part.set_up(site).await?;
        }
        Ok(())
    }

    async fn step(&self, client: &mut Client) {
        let part = client.rng.random_range(0..self.parts.len());
        self.parts[part].step(client).await;
    }

    async fn conclude(&self, site: &Site) -> Result<()> {
        for part in &self.parts {
            part.conclude(site).await?;
        }
        Ok(())
    }

    fn judge(&self, record: &Record) -> Result<Vec<Judgement>> {
        let mut judgements = Vec::new();
        for part in &self.parts {
            judgements.extend(part.judge(record)?);
        }
        Ok(judgements)
    }

    fn failing_window(&self, record: &Record) -> Result<Option<Window>> {
        for part in &self.parts {
            if let Some(window) = part.failing_window(record)? {
                return Ok(Some(window));
            }
        }
        Ok(None)
    }
}
