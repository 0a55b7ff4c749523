//! Samples every server all the time: who leads, its applied index, and its state hash.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::cluster::{Cluster, Subject};
use crate::http::Http;
use crate::journal::{Journal, Sample};
use crate::process::resident_kib;

/// How often a server's role and hash are asked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Samples until it is dropped, including servers that join later.
pub(super) fn start(cluster: &Cluster, journal: &Arc<Journal>) -> JoinSet<()> {
    let (subjects, journal) = (cluster.subjects(), Arc::clone(journal));
    let mut sampler = JoinSet::new();
    sampler.spawn(async move {
        let mut looks = JoinSet::new();
        let mut looked_at = BTreeSet::new();
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    for subject in subjects.all() {
                        // One that does not answer is asked again when it has.
                        if looked_at.insert(subject.id) {
                            looks.spawn(look(subject, Arc::clone(&journal)));
                        }
                    }
                }
                Some(Ok(id)) = looks.join_next() => {
                    looked_at.remove(&id);
                }
            }
        }
    });
    sampler
}

/// Samples one server; returns its number.
async fn look(Subject { id, probe, pid }: Subject, journal: Arc<Journal>) -> u64 {
    let at = journal.clock.now();
    let mut sample = Sample { at, node: id, ..Sample::default() };
    read_figures(&probe, &mut sample).await;
    read_hash(&probe, &mut sample).await;
    read_process(pid.load(Ordering::Relaxed), &mut sample);
    journal.sample(&sample);
    id
}

async fn read_figures(probe: &Http, sample: &mut Sample) {
    let Ok(answer) = probe.get("/metrics").await else { return };
    sample.term = answer.metric("quorate_raft_term");
    sample.leads = answer.metric("quorate_raft_is_leader").map(|leads| leads == 1);
    sample.early_elections = answer.metric("quorate_raft_elections_after_leader_end_total");
    sample.snapshot = answer.metric("quorate_raft_snapshot_index");
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
    sample.memory = resident_kib(pid).ok().map(|kib| kib * 1024);
}
