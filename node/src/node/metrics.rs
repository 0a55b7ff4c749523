//! A node's metrics: `/metrics` for Prometheus, and `/v1/agent/metrics`.
//!
//! Figures are read from the node when they are asked for: nothing is counted twice, and reading them
//! takes no lock that a write could wait for. Histograms lock for as long as it takes to copy them.

use std::fmt;
use std::sync::atomic::Ordering;

use openraft::async_runtime::WatchReceiver;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use quorate_storage::raft::NodeId;

use super::{Node, Readiness};
use crate::host::figures::{Figure, FigureKind, counter, gauge};
use crate::raft::leadership;

/// Of which server something is said.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PeerLabels {
    server: NodeId,
}

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
            "commit_duration_seconds",
            "Time from the proposal of a log entry by this leader until a majority has it",
            self.intake.commits().histogram(),
        );
        registry.register(
            "wake_up_duration_seconds",
            "Time from when a change was applied until all queries that wait for it were woken",
            self.watches.wakes().histogram(),
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
        registry.register(
            "expirations",
            "What the cluster let expire because it was silent or unused, as this server saw",
            self.expirations.counts(),
        );
    }

    /// Writes for Prometheus how far the other servers are behind this leader; on others, that there is nothing to say.
    ///
    /// # Errors
    /// Those of the encoder.
    pub fn encode_peers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Entries of this leader's log that the server is not known to have.";
        let kind = MetricType::Gauge;
        let mut metric = encoder.encode_descriptor("raft_peer_lag_entries", help, None, kind)?;
        for (server, behind) in self.peers_behind() {
            metric.encode_family(&PeerLabels { server })?.encode_gauge(&behind)?;
        }
        Ok(())
    }

    /// The other servers and how many entries they are behind, if this one leads.
    fn peers_behind(&self) -> Vec<(NodeId, i64)> {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log_index.unwrap_or(0);
        let peers = metrics.replication.iter().flatten().filter(|(id, _)| **id != metrics.id);
        let behind = |has: u64| i64::try_from(last.saturating_sub(has)).unwrap_or(i64::MAX);
        peers.map(|(id, has)| (*id, behind(has.as_ref().map_or(0, |has| has.index)))).collect()
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
                "raft_leader_changes",
                "Leaderships that this server has seen begin",
                self.leaderships.load(Ordering::Relaxed),
            ),
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
