//! Checks that the cluster runs itself.
//!
//! A check that an agent registered with a target (a URL, an address) is run by whoever is responsible for it
//! (`assignment.rs`), an alias by the leader, and the results come through the log. A result takes time: when it is applied, its check
//! may be gone, or be defined anew. Each definition therefore gets a number of its own, the *probe*,
//! and a result that names another than the present one is refused. A registration that repeats the
//! definition keeps the probe, so its runner is not interrupted.
//!
//! What `catalog/register` adds is not run, as in Consul. On an agent's check that is run it sets the
//! status until the next run, and leaves definition and probe alone (`checks.rs`). The definitions are
//! those of the rows; only which probe a check has is kept here.

use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use super::State;
use super::catalog::fold_arc;
use super::change::Change;
use super::deadline::Owner;
use super::level::WORKERS_LEVEL;
use crate::Millis;
use crate::command::{Outcome, Rejection, RunResult};
use crate::ids::NodeId;
use crate::record::{Check, CheckDefinition, CheckStatus, WorkerId};

/// Which checks are run, by their numbers, each with the number of its probe. Cheap to clone and to
/// compare with an earlier version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probes(OrdMap<u64, u64>);

/// How a check's probe differs from an earlier version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeChange {
    /// The check's number.
    pub check: u64,
    /// Its probe now; `None`: it is not run any more.
    pub probe: Option<u64>,
}

impl Probes {
    /// What changed since an earlier version, by the checks' numbers. Costs nothing when nothing did.
    #[must_use]
    pub fn changes_since(&self, earlier: &Self) -> Vec<ProbeChange> {
        earlier
            .0
            .diff(&self.0)
            .map(|item| match item {
                DiffItem::Add(check, probe) | DiffItem::Update { new: (check, probe), .. } => {
                    ProbeChange { check: *check, probe: Some(*probe) }
                }
                DiffItem::Remove(check, _) => ProbeChange { check: *check, probe: None },
            })
            .collect()
    }

    /// All checks that are run, each with its probe.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(check, probe)| (*check, *probe))
    }

    /// The probe of a check, if it is run.
    #[must_use]
    pub fn get(&self, check: u64) -> Option<u64> {
        self.0.get(&check).copied()
    }

    pub(super) fn set(&mut self, check: u64, probe: u64) {
        self.0.insert(check, probe);
    }

    pub(super) fn remove(&mut self, check: u64) {
        self.0.remove(&check);
    }
}

impl State {
    /// The checks that the cluster is to run.
    #[must_use]
    pub fn probes(&self) -> &Probes {
        &self.probes
    }

    /// The check with this number.
    #[must_use]
    pub fn check_numbered(&self, number: u64) -> Option<&Arc<Check>> {
        match self.deadlines.owner(number)? {
            Owner::Check { node, id } => self.catalog.nodes.get(node)?.checks.get(id),
            Owner::Session(_)
            | Owner::Node(_)
            | Owner::Claim
            | Owner::ClosedSlot
            | Owner::Worker(_)
            | Owner::Token(_) => None,
        }
    }
}

impl Change<'_> {
    /// Gives an agent's check the probe of its definition: `kept` if it is run as before.
    pub(super) fn give_probe(&mut self, key: &str, id: &str, kept: Option<u64>) {
        let slot = self.state.catalog.nodes.get(key);
        let Some(row) = slot.and_then(|slot| slot.checks.get(id)) else { return };
        let number = row.number;
        if !row.registration.definition.is_run() {
            return;
        }
        let network = row.registration.definition.later.network.clone();
        let probe = kept.unwrap_or_else(|| self.next_number());
        self.state.probes.set(number, probe);
        self.note_network(&network);
    }

    /// The probe of a check that is there, if the new definition runs it in the same way.
    pub(super) fn same_probe(&self, old: &Check, new: &CheckDefinition) -> Option<u64> {
        // When its service is to be deregistered has no bearing on how a check is run.
        let run = |definition: &CheckDefinition| CheckDefinition {
            deregister_critical_service_after: Millis::ZERO,
            ..definition.clone()
        };
        let probe = self.state.probes.get(old.number)?;
        (run(&old.registration.definition) == run(new)).then_some(probe)
    }

    /// What a server's run of a check found. A result that changes nothing touches nothing.
    pub(super) fn conclude_probe(
        &mut self,
        server: NodeId,
        number: u64,
        probe: u64,
        status: &CheckStatus,
        output: &str,
    ) -> Result<Outcome, Rejection> {
        if self.state.probes.get(number) != Some(probe) {
            return Err(Rejection::NoSuchNumber);
        }
        let row = self.state.check_numbered(number).cloned().ok_or(Rejection::NoSuchNumber)?;
        if self.state.level() >= WORKERS_LEVEL && row.registration.definition.has_target() {
            let (set, output) = (self.state.worker_set(), output.to_owned());
            let result = RunResult { number, probe, status: status.clone(), output };
            return self.conclude_run(&set, &WorkerId::Server(server), &result);
        }
        let shown = &row.registration;
        if shown.status != *status || shown.output != output {
            self.put_status(&fold_arc(&row.node), &row, status.clone(), output.to_owned());
        }
        Ok(Outcome::Done)
    }
}
