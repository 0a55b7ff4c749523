//! What a node tells Prometheus.
//!
//! Everything here is read from the node when it is asked for: nothing is counted twice, and a request
//! for metrics takes no lock that a write could wait for.

use openraft::async_runtime::WatchReceiver;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::node::{Node, Readiness};
use crate::raft::leadership;

impl Node {
    /// Metrics in Prometheus' text format (`text/plain; version=0.0.4` or OpenMetrics).
    pub fn render_metrics(&self) -> String {
        let mut registry = Registry::with_prefix("quorate");
        self.register_raft(&mut registry);
        self.register_state(&mut registry);
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }

    fn register_raft(&self, registry: &mut Registry) {
        let leads = self.raft().is_leader();
        let quorum_silence_ms = leadership::quorum_silence(self.raft())
            .map_or(-1, |silence| i64::try_from(silence.as_millis()).unwrap_or(i64::MAX));
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        gauge(registry, "raft_term", "Current term", metrics.current_term);
        gauge(registry, "raft_is_leader", "1 on the leader", u64::from(leads));
        gauge(
            registry,
            "raft_last_log_index",
            "Last entry in the log",
            metrics.last_log_index.unwrap_or(0),
        );
        gauge(registry, "raft_applied_index", "Last entry applied", self.applied_index());
        let snapshot = metrics.snapshot.as_ref().map_or(0, |covered| covered.index);
        gauge(registry, "raft_snapshot_index", "Last entry in the newest snapshot", snapshot);
        let purged = metrics.purged.as_ref().map_or(0, |purged| purged.index);
        gauge(registry, "raft_purged_index", "Last entry removed from the log", purged);
        let voters = metrics.membership_config.voter_ids().count();
        gauge(registry, "raft_voters", "Servers that vote", voters as u64);
        signed(
            registry,
            "raft_quorum_silence_ms",
            "Time since a quorum answered this leader; -1 if it does not lead",
            quorum_silence_ms,
        );
    }

    fn register_state(&self, registry: &mut Registry) {
        let ready = self.readiness() == Readiness::Ready;
        gauge(registry, "ready", "1 when fit to serve", u64::from(ready));
        let published = self.published();
        let state = &published.state;
        gauge(registry, "state_index", "Newest X-Consul-Index", state.index().0);
        gauge(registry, "state_time_ms", "Cluster time", state.time().0);
        gauge(registry, "catalog_nodes", "Nodes in the catalogue", state.nodes().count() as u64);
        gauge(registry, "catalog_services", "Service instances", state.services().count() as u64);
        let probes = state.probes().iter().count() as u64;
        gauge(registry, "checks_run_by_cluster", "Checks that the leader runs", probes);
        let counts = self.probe_counts();
        let (run, failing) = (counts.run(), counts.failing());
        counter(registry, "probes_run", "Runs of checks by this server", run);
        counter(registry, "probes_failing", "Runs of checks that did not pass", failing);
        gauge(
            registry,
            "commands_unanswered",
            "Writes that wait for their outcome",
            self.unanswered() as u64,
        );
        gauge(
            registry,
            "blocking_queries",
            "Queries that wait for a change",
            self.watches().waiting() as u64,
        );
    }
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    signed(registry, name, help, i64::try_from(value).unwrap_or(i64::MAX));
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter: Counter = Counter::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

fn signed(registry: &mut Registry, name: &str, help: &str, value: i64) {
    let gauge: Gauge = Gauge::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}
