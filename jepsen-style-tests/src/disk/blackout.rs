//! Power cuts of servers and their disks.

use std::sync::atomic::{AtomicU64, Ordering};

use super::canary::Canary;
use crate::cluster::{Cluster, Condition};
use crate::{Failure, Result};

/// Servers without power.
#[derive(Debug)]
pub struct Blackout {
    ids: Vec<u64>,
    /// What was written to the disks before; taken once it was looked at.
    canaries: Vec<Canary>,
}

impl Blackout {
    /// Cuts the power of several servers, as nearly at once as it goes. What they did not sync is gone.
    pub fn begin(cluster: &mut Cluster, ids: &[u64]) -> Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = NUMBER.fetch_add(1, Ordering::Relaxed).to_string();
        let canaries = ids
            .iter()
            .map(|id| Canary::lay(cluster.disk(*id)?.root(), &name))
            .collect::<Result<Vec<_>>>()?;
        canaries.iter().try_for_each(Canary::write_unsynced)?;
        // All disks first: a server that still runs for a moment can promise nothing any more.
        for id in ids {
            cluster.disk(*id)?.cut_power()?;
        }
        cluster.kill_all(ids)?;
        Ok(Self { ids: ids.to_vec(), canaries })
    }

    /// Whose power was cut.
    pub fn ids(&self) -> &[u64] {
        &self.ids
    }

    /// Mounts the disks anew and says what shows that something was lost. An error if nothing shows it,
    /// or if something was lost that had been synced.
    pub fn prove(&mut self, cluster: &Cluster) -> Result<String> {
        if self.canaries.is_empty() {
            return Err(Failure::new("the disks were looked at before"));
        }
        for (id, canary) in self.ids.iter().zip(self.canaries.drain(..)) {
            let disk = cluster.disk(*id)?;
            disk.unmount()?;
            disk.mount()?;
            canary.require_cut().map_err(|why| Failure::new(format!("n{id}: {why}")))?;
            canary.remove()?;
        }
        let on: Vec<_> = self.ids.iter().map(|id| format!("n{id}")).collect();
        let on = on.join(", ");
        Ok(format!(
            "gone from {on}: a file and an overwritten page without a sync; synced ones are there"
        ))
    }

    /// Mounts the disks and starts the servers.
    pub fn end(self, cluster: &mut Cluster) -> Result<()> {
        for id in self.ids {
            if cluster.condition(id) == Condition::Down {
                let disk = cluster.disk(id)?;
                disk.unmount()?;
                disk.mount()?;
                cluster.start_node(id)?;
            }
        }
        Ok(())
    }
}
