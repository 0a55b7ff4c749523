//! A node's metrics: `/metrics` for Prometheus, and `/v1/agent/metrics`.
//!
//! Figures are read from the node when they are asked for: nothing is counted twice, and reading them
//! takes no lock that a write could wait for. Histograms lock for as long as it takes to copy them.

use openraft::async_runtime::WatchReceiver;

use prometheus_client::registry::Registry;

use super::{Node, Readiness};
use crate::host::figures::{Figure, FigureKind, counter, gauge};
use crate::raft::leadership;

impl Node {
    /// All figures of the node.
    pub fn figures(&self) -> Vec<Figure> {
        let mut figures = self.raft_figures();
        figures.extend(self.standing.figures());
        figures.extend(self.state_figures());
        figures.extend(self.claim_figures());
        figures
    }

    /// Has `/metrics` show the node's histograms.
    pub fn register_durations(&self, registry: &mut Registry) {
        registry.register(
            "apply_duration_seconds",
            "Time to read, apply and publish a batch of committed log entries",
            self.apply_durations.histogram(),
        );
        registry.register(
            "command_duration_seconds",
            "Time from the proposal of a command of this server to its outcome",
            self.proposer.durations().histogram(),
        );
        registry.register(
            "claim_hand_over_duration_seconds",
            "Time from when this server sees a grant of a claim until its client was sent all of it",
            self.claims.hand_overs().histogram(),
        );
    }

    fn raft_figures(&self) -> Vec<Figure> {
        let quorum_silence_ms = leadership::quorum_silence(self.raft())
            .map_or(-1, |silence| i64::try_from(silence.as_millis()).unwrap_or(i64::MAX));
        let has_quorum = leadership::leads_with_quorum(self.raft());
        let metrics = self.raft().metrics();
        // Role and term of one moment: together they must make sense.
        let metrics = metrics.borrow_watched();
        // A leader that nobody answers does not count: another server may lead by now.
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
            counter(
                "state_comparisons",
                "Comparisons of the servers' states that this server made as the leader",
                self.comparison().compared(),
            ),
            counter(
                "state_divergences",
                "Comparisons in which servers had different states, as this server was told",
                self.comparison().divergences(),
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
        let own = self.probe_counts().checks() as u64;
        let workers = state.worker_set().iter().filter(|one| one.is_live).count() as u64;
        let (run, failing) = (self.probe_counts().run(), self.probe_counts().failing());
        vec![
            gauge("ready", "1 when fit to serve", u64::from(ready)),
            gauge("state_index", "Newest X-Consul-Index", state.index().0),
            gauge("state_time_ms", "Cluster time", state.time().0),
            gauge("catalog_nodes", "Nodes in the catalogue", nodes),
            gauge("catalog_services", "Service instances", services),
            gauge("commands_unanswered", "Writes that wait for their outcome", unanswered),
            gauge("blocking_queries", "Queries that wait for a change", waiting),
            gauge("checks_run_by_cluster", "Checks that the cluster runs", probed),
            gauge("probe_checks", "Checks that this server has run and still runs", own),
            gauge(
                "probe_workers",
                "Workers that run checks: servers and worker processes",
                workers,
            ),
            counter("probes_run", "Runs of checks by this server", run),
            counter("probes_failing", "Runs of checks that did not pass", failing),
        ]
    }

    fn claim_figures(&self) -> Vec<Figure> {
        let published = self.published();
        let state = &published.state;
        let (offered, held): (Vec<_>, Vec<_>) = state.grants().partition(|grant| grant.is_offer);
        let waiting = state.claims_waiting() as u64;
        let counts = self.claims.counts();
        vec![
            gauge("claims_waiting", "Claims that wait in line for an instance", waiting),
            gauge("claims_held", "Claims whose holders know of their instance", held.len() as u64),
            gauge(
                "claims_offered",
                "Claims whose instance is reserved until their holders know of it",
                offered.len() as u64,
            ),
            counter("claim_grants", "Grants of the cluster that this server saw", counts.grants()),
            counter(
                "claim_offers_expired",
                "Grants of the cluster that nobody took in time, as this server saw",
                counts.expired_offers(),
            ),
        ]
    }
}
