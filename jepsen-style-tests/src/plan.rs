//! What a run is to do, and the names of its files.

use serde::{Deserialize, Serialize};

/// Everything that decides a run, but for the machine's timing. Written to `plan.json` of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the workload.
    pub workload: String,
    /// Names of the nemeses, which take turns.
    pub nemeses: Vec<String>,
    /// How many servers: 3 or 5.
    pub nodes: u64,
    /// How long the clients work, in seconds; faults are injected within.
    pub time_s: u64,
    /// Operations per second that all clients together aim at.
    pub rate: u64,
    /// How many clients share the rate.
    pub clients: u64,
    /// Seed of the random choices of clients and nemeses.
    pub seed: u64,
    /// The broken build's name, if one is tried.
    pub mutant: Option<String>,
}

impl Plan {
    /// A short name for tables: `kv-register x partition,kill on 3`.
    pub fn title(&self) -> String {
        format!("{} x {} on {}", self.workload, self.nemeses.join(","), self.nodes)
    }

    /// A name for a directory: `kv-register.partition-kill.3.seed-7`.
    pub fn slug(&self) -> String {
        let nemeses = self.nemeses.join("-");
        let mutant = self.mutant.iter().map(|name| format!(".mutant-{name}")).collect::<String>();
        format!("{}.{nemeses}.{}.seed-{}{mutant}", self.workload, self.nodes, self.seed)
    }

    /// The command line that runs the same again. Timing is not repeated, all choices are; a broken build is
    /// tried again with all its attempts.
    pub fn command(&self) -> String {
        if let Some(mutant) = &self.mutant {
            return format!("cargo run -p jepsen-style-tests -- mutants {mutant}");
        }
        let mut command =
            format!("cargo run -p jepsen-style-tests -- run --workload {}", self.workload);
        if !self.nemeses.is_empty() {
            command += &format!(" --nemesis {}", self.nemeses.join(","));
        }
        let Self { nodes, time_s, rate, clients, seed, .. } = self;
        command
            + &format!(
                " --nodes {nodes} --time {time_s} --rate {rate} --clients {clients} --seed {seed}"
            )
    }
}
