//! The cells (workload x nemeses x servers) of each matrix.
//!
//! The quick one runs on every change: each workload, with the faults that find most, in less than ten minutes. The
//! full one is every workload under every fault of a list on three servers, the part of that list that tests
//! quorums most on five, and every other fault once.

use serde::{Deserialize, Serialize};

use crate::plan::Plan;

/// How large a matrix is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Size {
    /// For every change.
    Quick,
    /// For a release.
    Full,
    /// What found something once.
    Regressions,
}

/// A run that found something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Regression {
    /// What the clients did.
    pub workload: &'static str,
    /// Under which fault.
    pub nemesis: &'static str,
    /// How long, in seconds.
    pub time_s: u64,
    /// With which choices.
    pub seed: u64,
    /// What was wrong.
    pub found: &'static str,
}

/// Runs that found something, on three servers. What can be shown without chance is a test besides, which is named.
pub const REGRESSIONS: &[Regression] = &[
    Regression {
        workload: "set",
        nemesis: "power-cut-all",
        time_s: 17,
        seed: 6,
        found: "a server whose disk failed drained requests for 6 s that could not end, then panicked in sled",
    },
    Regression {
        workload: "ttl",
        nemesis: "clock-jump",
        time_s: 30,
        seed: 69,
        found: "after a jump of the leader's monotonic clock checks expired up to 250 ms early \
                (node: cluster_clock.rs)",
    },
    Regression {
        workload: "set",
        nemesis: "disk-full",
        time_s: 30,
        seed: 167,
        found: "a server that had no room for a snapshot ended without saying what to do about it",
    },
    Regression {
        workload: "mixed",
        nemesis: "corrupt",
        time_s: 17,
        seed: 24,
        found: "a server that lost the end of its log ended the healthy leader (tests/faults/durability.rs)",
    },
];

/// A cell of the quick matrix: workload, nemeses.
const QUICK: &[(&str, &str)] = &[
    ("kv-register", "kill-leader"),
    ("kv-register", "pause"),
    ("kv-register", "partition-leader"),
    ("kv-register", "clock-jump"),
    ("set", "kill-all"),
    ("set", "power-cut-all"),
    ("set", "partition,kill"),
    ("set", "delay+kill-leader"),
    ("append", "partition-one-way"),
    ("append", "loss"),
    ("append", "rolling-restart"),
    ("txn", "kill-majority"),
    ("kv-register", "rolling-restart+duplicate"),
    ("txn", "membership"),
    ("lock", "kill-leader"),
    ("lock", "partition-leader"),
    ("session", "kill-leader"),
    ("ttl", "pause"),
    ("ttl", "kill-leader"),
    ("catalog", "partition"),
    ("catalog", "disk-slow"),
    ("watch", "kill-leader"),
    ("stream", "kill"),
    ("presence", "kill"),
    ("claims", "kill"),
    ("checks", "kill"),
    ("mixed", "wiped-node"),
    ("mixed", "corrupt"),
];

/// The workloads of the full matrix.
const WORKLOADS: &[&str] = &[
    "kv-register",
    "set",
    "append",
    "lock",
    "session",
    "ttl",
    "catalog",
    "watch",
    "stream",
    "presence",
    "claims",
    "checks",
    "txn",
    "mixed",
];

/// The faults of the full matrix.
const FAULTS: &[&str] = &[
    "kill-leader",
    "kill-all",
    "pause",
    "partition-leader",
    "partition-one-way",
    "loss",
    "power-cut-all",
    "disk-slow",
    "clock-jump",
    "cpu-starvation",
    "rolling-restart",
    "membership",
];

/// The faults of the full matrix that say more with five servers: about a third.
const FAULTS_ON_FIVE: &[&str] =
    &["kill-majority", "partition", "partition-ring", "power-cut-majority"];

/// The faults that are in neither list, each with the workload that it says most about.
const OTHERS: &[(&str, &str)] = &[
    ("catalog", "kill"),
    ("txn", "delay"),
    ("append", "reorder"),
    ("kv-register", "duplicate"),
    ("kv-register", "rolling-restart+duplicate"),
    ("mixed", "power-cut"),
    ("set", "disk-full"),
    ("set", "disk-error"),
    ("mixed", "disk-hung"),
    ("mixed", "corrupt"),
    ("mixed", "wiped-node"),
    ("set", "pause-follower"),
    ("ttl", "clock-jump-wall"),
    ("kv-register", "clock-rate"),
    ("mixed", "memory-starvation"),
];

/// How long the clients of a cell work, in seconds.
fn seconds(size: Size) -> u64 {
    match size {
        Size::Quick => 17,
        Size::Full | Size::Regressions => 30,
    }
}

/// The cells of a matrix; their seeds follow from `seed`.
pub fn cells(size: Size, seed: u64, rate: u64, clients: u64) -> Vec<Plan> {
    let cells: Vec<(&str, &str, u64)> = match size {
        Size::Quick => QUICK.iter().map(|(workload, nemeses)| (*workload, *nemeses, 3)).collect(),
        Size::Full => {
            let every = |faults: &'static [&'static str], nodes| {
                WORKLOADS.iter().flat_map(move |workload| {
                    faults.iter().map(move |fault| (*workload, *fault, nodes))
                })
            };
            let others = OTHERS.iter().map(|(workload, nemeses)| (*workload, *nemeses, 3));
            every(FAULTS, 3).chain(every(FAULTS_ON_FIVE, 5)).chain(others).collect()
        }
        Size::Regressions => REGRESSIONS.iter().map(|run| (run.workload, run.nemesis, 3)).collect(),
    };
    let plan = |(number, (workload, nemeses, nodes)): (u64, (&str, &str, u64))| Plan {
        workload: workload.to_owned(),
        nemeses: nemeses.split(',').map(str::to_owned).collect(),
        nodes,
        time_s: seconds(size),
        rate,
        clients,
        seed: seed + number,
        mutant: None,
    };
    let mut plans: Vec<Plan> = (0..).zip(cells).map(plan).collect();
    if size == Size::Regressions {
        for (plan, found) in plans.iter_mut().zip(REGRESSIONS) {
            (plan.time_s, plan.seed) = (found.time_s, found.seed);
        }
    }
    plans
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{nemesis, workload};

    const SIZES: [Size; 3] = [Size::Quick, Size::Full, Size::Regressions];

    #[test]
    fn every_cell_names_what_there_is() {
        for plan in SIZES.into_iter().flat_map(|size| cells(size, 1, 300, 30)) {
            workload::named(&plan.workload).unwrap();
            for name in &plan.nemeses {
                nemesis::named(name).unwrap();
            }
        }
    }

    #[test]
    fn both_matrices_have_every_workload() {
        for size in [Size::Quick, Size::Full] {
            let has: BTreeSet<_> =
                cells(size, 1, 300, 30).into_iter().map(|plan| plan.workload).collect();
            for workload in workload::all() {
                assert!(has.contains(workload.name()), "{size:?} lacks {}", workload.name());
            }
        }
    }

    #[test]
    fn what_found_something_is_run_as_it_was() {
        for (plan, found) in cells(Size::Regressions, 5, 300, 30).iter().zip(REGRESSIONS) {
            assert_eq!((plan.seed, plan.time_s), (found.seed, found.time_s));
            assert_eq!((plan.workload.as_str(), plan.nodes), (found.workload, 3));
        }
    }

    #[test]
    fn the_full_matrix_has_every_fault_that_needs_nothing_but_this_build() {
        let full = cells(Size::Full, 1, 300, 30);
        let has: BTreeSet<_> = full.iter().flat_map(|plan| &plan.nemeses).collect();
        for nemesis in nemesis::all() {
            let needs_another_binary = nemesis.name() == "upgrade";
            assert!(needs_another_binary || has.contains(&nemesis.name().to_owned()));
        }
    }

    #[test]
    fn the_matrices_are_as_large_as_they_say() {
        assert!(cells(Size::Quick, 1, 300, 30).len() >= 20);
        let full = cells(Size::Full, 1, 300, 30);
        assert_eq!(full.iter().filter(|plan| plan.nodes == 3).count(), 168 + OTHERS.len());
        assert_eq!(full.iter().filter(|plan| plan.nodes == 5).count(), 56);
        let slugs: BTreeSet<_> = full.iter().map(Plan::slug).collect();
        assert_eq!(slugs.len(), full.len(), "two cells share a directory");
    }
}
