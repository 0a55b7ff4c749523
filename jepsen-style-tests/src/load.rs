//! Traffic for tests that inject their own faults: the clients of a plan, without the phases of a run.
//!
//! The requests and the history are written down as in a [run](crate::run), below the cluster's directory, and
//! checked by the workload's own checkers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::client::Site;
use crate::http::Http;
use crate::journal::{Ending, Journal, RequestLine};
use crate::plan::Plan;
use crate::record::{ENDING, PLAN, Record, RunEnding, write_json};
use crate::workload::{self, Workload};
use crate::{Cluster, Limit, Result};

/// How many clients a load has, and how many operations per second they aim at together.
#[derive(Debug, Clone, Copy)]
pub struct Volume {
    /// Each belongs to one of the nodes, in turn.
    pub clients: u64,
    /// An operation is a write, a read, or a read and the write that follows from it.
    pub rate: u64,
}

/// Above the 500 requests per second under which a leader kill must be tested.
pub const FAILOVER: Volume = Volume { clients: 240, rate: 800 };
/// Fewer clients that write more, for tests that count writes.
pub const CRASH: Volume = Volume { clients: 60, rate: 1_200 };

/// Opens a journal below the cluster's directory for clients of these servers.
pub(crate) fn site(
    cluster: &Cluster,
    workload: &str,
    nodes: Vec<(u64, Http)>,
    Volume { clients, rate }: Volume,
) -> Result<(Arc<Site>, PathBuf)> {
    let dir = tempfile::Builder::new().prefix("load-").tempdir_in(cluster.dir())?.keep();
    let plan = Plan {
        workload: workload.to_owned(),
        nemeses: Vec::new(),
        nodes: cluster.ids().len() as u64,
        time_s: 0,
        rate,
        clients,
        seed: 1,
        mutant: None,
    };
    write_json(&dir.join(PLAN), &plan)?;
    let journal = Arc::new(Journal::create(&dir)?);
    Ok((Arc::new(Site::new(plan, nodes, journal)), dir))
}

fn with_ids(cluster: &Cluster, nodes: &[u64]) -> Vec<(u64, Http)> {
    nodes.iter().map(|id| (*id, cluster.http(*id))).collect()
}

/// A load in progress.
#[derive(Debug)]
pub struct Load {
    traffic: Traffic,
    clients: JoinSet<Result<()>>,
}

/// The traffic of a load that has ended.
#[derive(Debug)]
pub struct Traffic {
    site: Arc<Site>,
    workload: Arc<dyn Workload>,
    dir: PathBuf,
}

/// The end of a leader, as clients saw it.
#[derive(Debug, Clone)]
pub struct Failover {
    /// Requests per second in the second before it.
    pub rate_before: usize,
    /// Requests in flight when writes were possible again, answered after that.
    pub held: usize,
    /// Requests that were not answered as promised, in the whole load.
    pub failed: usize,
    /// The longest time without an acknowledged write, from just before it on.
    pub gap: Duration,
}

impl Load {
    /// Starts the clients of `workload` at some of the cluster's nodes.
    pub async fn start(
        cluster: &Cluster,
        nodes: &[u64],
        workload: Arc<dyn Workload>,
        volume: Volume,
    ) -> Result<Self> {
        let nodes = with_ids(cluster, nodes);
        let (site, dir) = site(cluster, workload.name(), nodes, volume)?;
        workload.set_up(&site).await?;
        let clients = workload::start(&workload, &site);
        Ok(Self { traffic: Traffic { site, workload, dir }, clients })
    }

    /// Waits until `count` writes have been acknowledged in all.
    pub async fn wait_acknowledged(&self, count: usize, limit: Duration) -> Result<()> {
        let limit = Limit::new(limit);
        while self.traffic.site.acknowledged_writes() < count {
            limit.pause(|| format!("{count} acknowledged writes")).await?;
        }
        Ok(())
    }

    /// How many writes have been acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.traffic.site.acknowledged_writes()
    }

    /// Waits for the last request of every client, and returns the traffic.
    pub async fn stop(self) -> Result<Traffic> {
        workload::stop(&self.traffic.site, self.clients).await?;
        Ok(self.traffic)
    }
}

impl Traffic {
    /// Reads what must be there now through every node of the cluster, and fails with what the workload's checkers
    /// find wrong. May be called again later: then everything must still be there.
    pub async fn require_valid(&self, cluster: &Cluster) -> Result<()> {
        let Site { plan, journal, .. } = &*self.site;
        let everywhere = with_ids(cluster, &cluster.ids());
        let everywhere = Site::new(plan.clone(), everywhere, Arc::clone(journal));
        self.workload.conclude(&everywhere).await?;
        for judgement in self.workload.judge(&self.record()?)? {
            judgement.verdict.require(&format!("{}, {}", judgement.checker, self.dir.display()));
        }
        Ok(())
    }

    /// What was written down until now.
    pub fn record(&self) -> Result<Record> {
        self.site.journal.flush()?;
        write_json(&self.dir.join(ENDING), &RunEnding::default())?;
        Record::load(&self.dir)
    }

    /// How many writes were acknowledged.
    pub fn acknowledged_writes(&self) -> usize {
        self.site.acknowledged_writes()
    }

    /// The requests that were not answered as promised.
    pub fn failures(&self) -> Result<Vec<RequestLine>> {
        let requests = self.record()?.requests;
        Ok(requests.into_iter().filter(|request| request.end != Ending::Answered).collect())
    }

    /// The fault at `moment`, as clients saw it.
    pub fn failover(&self, moment: Instant) -> Result<Failover> {
        Ok(failover(&self.record()?.requests, self.site.journal.clock.at(moment)))
    }
}

fn failover(requests: &[RequestLine], moment: u64) -> Failover {
    const BEFORE: u64 = 1_000_000_000;
    let answered = |request: &&RequestLine| request.end == Ending::Answered;
    let is_before = |r: &&RequestLine| r.ended <= moment && r.ended + BEFORE > moment;
    let (gap, resumed) = write_gap(requests, moment);
    let is_held = |r: &&RequestLine| r.sent < resumed && r.ended >= resumed && r.ended > moment;
    Failover {
        rate_before: requests.iter().filter(is_before).count(),
        held: requests.iter().filter(answered).filter(is_held).count(),
        failed: requests.iter().filter(|request| !answered(request)).count(),
        gap,
    }
}

/// The longest time without an acknowledged write that ends after `moment`, and when it ended. The last
/// acknowledgement before `moment` begins the first one.
fn write_gap(requests: &[RequestLine], moment: u64) -> (Duration, u64) {
    let is_acknowledged = |r: &&RequestLine| r.write && r.end == Ending::Answered;
    let mut ends: Vec<_> = requests.iter().filter(is_acknowledged).map(|r| r.ended).collect();
    ends.sort_unstable();
    ends.windows(2)
        .filter(|pair| pair[1] > moment)
        .map(|pair| (Duration::from_nanos(pair[1] - pair[0]), pair[1]))
        .max()
        .unwrap_or((Duration::MAX, moment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_and_the_held_requests_are_those_across_the_fault() {
        const MILLI: u64 = 1_000_000;
        let write = |sent: u64, ended: u64| RequestLine {
            client: 1,
            node: 1,
            what: "PUT /v1/kv/a".to_owned(),
            write: true,
            held: false,
            sent: sent * MILLI,
            ended: ended * MILLI,
            end: Ending::Answered,
            why: String::new(),
        };
        let requests =
            [write(0, 1), write(400, 401), write(402, 900), write(500, 901), write(950, 951)];
        let failover = failover(&requests, 410 * MILLI);
        assert_eq!(failover.gap, Duration::from_millis(499));
        assert_eq!((failover.held, failover.rate_before, failover.failed), (2, 2, 0));
    }
}
