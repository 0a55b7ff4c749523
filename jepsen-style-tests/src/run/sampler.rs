//! Looks at every server all the time: who leads, how far each is, and what its state is.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::http::Http;
use crate::journal::{Journal, Sample};

/// How often a server's role and hash are asked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Looks until it is dropped.
pub(super) fn start(cluster: &Cluster, journal: &Arc<Journal>) -> JoinSet<()> {
    let mut looks = JoinSet::new();
    for id in cluster.ids() {
        let (probe, journal, pid) = (cluster.probe(id), Arc::clone(journal), cluster.pid_cell(id));
        looks.spawn(async move {
            loop {
                let at = journal.clock.now();
                let mut sample = Sample { at, node: id, ..Sample::default() };
                read_figures(&probe, &mut sample).await;
                read_hash(&probe, &mut sample).await;
                read_process(pid.load(Ordering::Relaxed), &mut sample);
                journal.sample(&sample);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
    }
    looks
}

async fn read_figures(probe: &Http, sample: &mut Sample) {
    let Ok(answer) = probe.get("/metrics").await else { return };
    sample.term = answer.figure("quorate_raft_term");
    sample.leads = answer.figure("quorate_raft_is_leader").map(|leads| leads == 1);
    sample.snapshot = answer.figure("quorate_raft_snapshot_index");
}

async fn read_hash(probe: &Http, sample: &mut Sample) {
    let Ok(state) = probe.must_get("/v1/quorate/state-hash").await else { return };
    if let (Some(applied), Some(hash)) = (state["AppliedIndex"].as_u64(), state["Hash"].as_str()) {
        sample.applied = Some(applied);
        sample.hash = Some(hash.to_owned());
    }
}

/// Its open descriptors and resident memory; a process that just ended has none.
fn read_process(pid: u32, sample: &mut Sample) {
    if pid == 0 {
        return;
    }
    sample.pid = Some(pid);
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count);
    sample.descriptors = open.ok().and_then(|count| u64::try_from(count).ok());
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
    sample.memory = kib.and_then(|kib| kib.parse::<u64>().ok()).map(|kib| kib * 1024);
}
