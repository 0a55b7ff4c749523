//! What a node tells of itself in figures: `/metrics` for Prometheus, and `/v1/agent/metrics`.
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

/// A figure as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figure {
    /// Its name, without the prefix `quorate`.
    pub name: &'static str,
    /// What it means.
    pub help: &'static str,
    /// Whether it only grows.
    pub kind: FigureKind,
    /// The figure.
    pub value: i64,
}

/// How a figure behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FigureKind {
    /// It goes up and down.
    Gauge,
    /// It counts since the start of the process.
    Counter,
}

/// Figures in Prometheus' text format (`text/plain; version=0.0.4` or OpenMetrics).
#[must_use]
pub fn render(figures: Vec<Figure>) -> String {
    let mut registry = Registry::with_prefix("quorate");
    for Figure { name, help, kind, value } in figures {
        match kind {
            FigureKind::Gauge => {
                let gauge: Gauge = Gauge::default();
                gauge.set(value);
                registry.register(name, help, gauge);
            }
            FigureKind::Counter => {
                let counter: Counter = Counter::default();
                counter.inc_by(value.unsigned_abs());
                registry.register(name, help, counter);
            }
        }
    }
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = encode(&mut text, &registry);
    text
}

impl Node {
    /// All figures of the node.
    pub fn figures(&self) -> Vec<Figure> {
        let mut figures = self.raft_figures();
        figures.extend(self.state_figures());
        figures
    }

    fn raft_figures(&self) -> Vec<Figure> {
        let quorum_silence_ms = leadership::quorum_silence(self.raft())
            .map_or(-1, |silence| i64::try_from(silence.as_millis()).unwrap_or(i64::MAX));
        let has_quorum = leadership::leads_with_quorum(self.raft());
        let metrics = self.raft().metrics();
        // Role and term of one moment: together they must make sense.
        let metrics = metrics.borrow_watched();
        // One that nobody answers leads nothing: somebody else may by now.
        let leads = metrics.state.is_leader() && has_quorum;
        let snapshot = metrics.snapshot.as_ref().map_or(0, |covered| covered.index);
        let purged = metrics.purged.as_ref().map_or(0, |purged| purged.index);
        let voters = metrics.membership_config.voter_ids().count();
        let last = metrics.last_log_index.unwrap_or(0);
        vec![
            gauge("raft_term", "Current term", metrics.current_term),
            gauge("raft_is_leader", "1 on the leader, while a quorum answers it", u64::from(leads)),
            gauge("raft_last_log_index", "Last entry in the log", last),
            gauge("raft_applied_index", "Last entry applied", self.applied_index()),
            gauge("raft_snapshot_index", "Last entry in the newest snapshot", snapshot),
            gauge("raft_purged_index", "Last entry removed from the log", purged),
            gauge("raft_voters", "Servers that vote", voters as u64),
            counter(
                "raft_elections_after_leader_end",
                "Elections that this server began because the leader's process had ended",
                self.elections_after_leader_end(),
            ),
            Figure {
                name: "raft_quorum_silence_ms",
                help: "Time since a quorum answered this leader; -1 if it does not lead",
                kind: FigureKind::Gauge,
                value: quorum_silence_ms,
            },
        ]
    }

    fn state_figures(&self) -> Vec<Figure> {
        let ready = self.readiness() == Readiness::Ready;
        let published = self.published();
        let state = &published.state;
        let (nodes, services) = (state.nodes().count() as u64, state.services().count() as u64);
        let waiting = self.watches().waiting() as u64;
        let unanswered = self.unanswered() as u64;
        let probed = state.probes().iter().count() as u64;
        let (run, failing) = (self.probe_counts().run(), self.probe_counts().failing());
        vec![
            gauge("ready", "1 when fit to serve", u64::from(ready)),
            gauge("state_index", "Newest X-Consul-Index", state.index().0),
            gauge("state_time_ms", "Cluster time", state.time().0),
            gauge("catalog_nodes", "Nodes in the catalogue", nodes),
            gauge("catalog_services", "Service instances", services),
            gauge("commands_unanswered", "Writes that wait for their outcome", unanswered),
            gauge("blocking_queries", "Queries that wait for a change", waiting),
            gauge("checks_run_by_cluster", "Checks that the leader runs", probed),
            counter("probes_run", "Runs of checks by this server", run),
            counter("probes_failing", "Runs of checks that did not pass", failing),
        ]
    }
}

pub(crate) fn gauge(name: &'static str, help: &'static str, value: u64) -> Figure {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    Figure { name, help, kind: FigureKind::Gauge, value }
}

pub(crate) fn counter(name: &'static str, help: &'static str, value: u64) -> Figure {
    Figure { kind: FigureKind::Counter, ..gauge(name, help, value) }
}
