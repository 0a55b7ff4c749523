//! Which broken builds there are, and which checker must find each.
//!
//! The server's side is a binary of its own, `quorate-mutants`, built with a cargo feature that nothing
//! ships. It breaks one rule at a time, as the environment variable `QUORATE_MUTANT` says, and refuses
//! data directories outside a run's. This table says how each is found: a mutant that no checker finds
//! is a hole in the suite.

use crate::plan::Plan;

/// How a mutant is to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mutant {
    /// Its name in `QUORATE_MUTANT`.
    pub name: &'static str,
    /// What the clients do.
    pub workload: &'static str,
    /// Under which faults, separated by commas.
    pub nemeses: &'static str,
    /// The checker that must find a violation; another one's does not count.
    pub checker: &'static str,
}

/// How long the clients of one attempt work, in seconds.
const ATTEMPT_S: u64 = 20;

const fn mutant(
    name: &'static str,
    workload: &'static str,
    nemeses: &'static str,
    checker: &'static str,
) -> Mutant {
    Mutant { name, workload, nemeses, checker }
}

/// All mutants.
pub const ALL: &[Mutant] = &[
    mutant("stale-reads-served-as-consistent", "kv-register", "pause", "linearizable"),
    mutant("leader-restore", "kv-register", "kill-all", "linearizable"),
    mutant("vote-not-synced", "kv-register", "kill-all", "terms"),
    mutant("ack-before-fsync", "set", "power-cut-all", "set"),
    mutant("wiped-node-under-its-old-id", "set", "wiped-node", "promises"),
    mutant("ack-before-quorum", "kv-register", "partition-leader", "linearizable"),
    mutant("snapshot-missing-sessions", "session", "rolling-restart", "state-hash"),
    mutant("purge-before-snapshot-durable", "set", "power-cut-all", "process"),
    mutant("apply-twice-on-restart", "kv-register", "rolling-restart", "state-hash"),
    mutant("origin-record-lost-in-snapshot", "set", "wiped-node", "state-hash"),
    mutant("cas-ignores-index", "kv-register", "pause", "linearizable"),
    mutant("index-from-the-raft-log", "watch", "kill-leader", "watch"),
    mutant("index-falls-after-restart", "watch", "rolling-restart", "state-hash"),
    mutant("expiry-from-a-local-clock", "ttl", "kill-leader", "ttl-early"),
    mutant("expiry-by-a-follower", "ttl", "kill-leader", "state-hash"),
    mutant("clock-jumps-with-a-pause", "ttl", "pause", "ttl-early"),
    mutant("renew-not-replicated", "ttl", "pause", "ttl-early"),
    mutant("lock-delay-ignored", "lock", "pause", "lock"),
    mutant("lost-wake-up", "watch", "pause", "watch"),
    mutant("wake-before-publish", "watch", "pause", "watch"),
    mutant("wrong-prefix", "watch", "pause", "watch"),
    mutant("resend-under-a-new-number", "set", "delay+kill-leader", "set"),
    mutant("hash-map-order-in-apply", "kv-register", "pause", "state-hash"),
    mutant("minority-serves-consistent-reads", "kv-register", "partition-leader", "linearizable"),
    mutant("lower-incarnation-applied", "kv-register", "rolling-restart+duplicate", "linearizable"),
    mutant("floor-ignored", "kv-register", "duplicate", "linearizable"),
    mutant("answer-before-own-apply", "set", "delay", "set"),
    mutant("barrier-joined-after-it-was-sent", "kv-register", "delay", "linearizable"),
    mutant("refusal-from-local-state", "kv-register", "delay", "linearizable"),
    mutant("session-delete-only-releases", "lock", "pause", "lock"),
    mutant("deregistration-wakes-nobody", "watch", "pause", "watch"),
    mutant("key-deletion-wakes-nobody", "watch", "pause", "watch"),
    mutant("re-registered-check-keeps-its-old-time", "ttl", "pause", "ttl-early"),
];

/// Mutants that no run is known to find, with the test of the node that fails if the rule is broken.
///
/// To hear of its own command by a snapshot only, a server must not hear of it by anything else, and what
/// faults do to processes and networks is undone too soon: a paused server finds the entry in the buffers of
/// its sockets, and a cut that lasts makes it send the command again.
pub const SHOWN_BY_TESTS: &[(&str, &str)] = &[(
    "outcomes-not-looked-up-after-a-snapshot",
    "a_command_whose_entry_came_in_a_snapshot_is_answered_from_the_origin_record",
)];

impl Mutant {
    /// The attempt number `attempt` to find it.
    pub fn plan(&self, attempt: u64, rate: u64, clients: u64) -> Plan {
        Plan {
            workload: self.workload.to_owned(),
            nemeses: self.nemeses.split(',').map(str::to_owned).collect(),
            nodes: 3,
            time_s: ATTEMPT_S,
            rate,
            clients,
            seed: attempt,
            mutant: Some(self.name.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{nemesis, workload};

    #[test]
    fn tests_that_show_mutants_exist() {
        let tests = include_str!("../../node/tests/in_process.rs");
        for (name, test) in SHOWN_BY_TESTS {
            assert!(tests.contains(&format!("async fn {test}()")), "{name}: {test}");
        }
    }

    #[test]
    fn every_mutant_names_what_there_is_and_once() {
        let mut names = BTreeSet::new();
        for mutant in ALL {
            assert!(names.insert(mutant.name), "{} is there twice", mutant.name);
            let by_test = SHOWN_BY_TESTS.iter().any(|(name, _)| *name == mutant.name);
            assert!(!by_test, "{} is found by a run", mutant.name);
            let plan = mutant.plan(1, 300, 30);
            workload::named(&plan.workload).unwrap();
            for name in &plan.nemeses {
                nemesis::named(name).unwrap();
            }
        }
    }
}
