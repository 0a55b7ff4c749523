//! A finished run, read back from its directory: all that the checkers and the report know.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::journal::{FAULTS, Fault, HISTORY, REQUESTS, RequestLine, SAMPLES, Sample};
use crate::plan::Plan;
use crate::{Failure, Result};

/// What the run was to do.
pub const PLAN: &str = "plan.json";
/// How it ended.
pub const ENDING: &str = "ending.json";

/// How a run ended, as far as the cluster itself is concerned. Written to `ending.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEnding {
    /// When the clients began to work.
    pub began: u64,
    /// When the clients were stopped.
    pub stopped: u64,
    /// Nemeses that this machine does not allow, each with the reason.
    pub skipped: Vec<(String, String)>,
    /// What kept the cluster from serving again after everything was healed; empty if nothing did.
    pub not_live: Vec<String>,
    /// Lines of the servers' logs that speak of a panic or of a failed assertion.
    pub panics: Vec<String>,
    /// Servers that ended though nothing was done to them that would explain it.
    pub ended_by_themselves: Vec<String>,
    /// What servers did that they promise not to do, as a nemesis saw it.
    #[serde(default)]
    pub broken_promises: Vec<String>,
}

/// A run that is over.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its directory.
    pub dir: PathBuf,
    /// What it was to do.
    pub plan: Plan,
    /// How it ended.
    pub ending: RunEnding,
    /// Every request, in the order in which they ended.
    pub requests: Vec<RequestLine>,
    /// Every injection, in order.
    pub faults: Vec<Fault>,
    /// What the nodes said of themselves, in order.
    pub samples: Vec<Sample>,
    history: Vec<Value>,
}

impl Record {
    /// Reads a run's directory; fails with the file and line that is not what it should be.
    pub fn load(dir: &Path) -> Result<Self> {
        Ok(Self {
            dir: dir.to_owned(),
            plan: json(&dir.join(PLAN))?,
            ending: json(&dir.join(ENDING))?,
            requests: lines(&dir.join(REQUESTS))?,
            faults: lines(&dir.join(FAULTS))?,
            samples: lines(&dir.join(SAMPLES))?,
            history: lines(&dir.join(HISTORY))?,
        })
    }

    /// A record without samples and operations, which never was in a directory.
    #[cfg(test)]
    pub(crate) fn of_parts(
        plan: Plan,
        ending: RunEnding,
        requests: Vec<RequestLine>,
        faults: Vec<Fault>,
    ) -> Self {
        let (dir, samples, history) = (PathBuf::new(), Vec::new(), Vec::new());
        Self { dir, plan, ending, requests, faults, samples, history }
    }

    /// The operations that `workload` wrote down, in the order in which they were written.
    pub fn entries<T: DeserializeOwned>(&self, workload: &str) -> Result<Vec<T>> {
        self.history
            .iter()
            .filter(|line| line["w"] == workload)
            .map(|line| {
                T::deserialize(line).map_err(|error| Failure::new(format!("{line}: {error}")))
            })
            .collect()
    }

    /// How many writes and additions took effect, as their clients were told.
    pub fn writes_that_took_effect(&self) -> usize {
        let is_write = |f: &str| matches!(f, "add" | "write" | "cas");
        let took = |line: &&Value| line["ok"] == true && line["f"].as_str().is_some_and(is_write);
        self.history.iter().filter(took).count()
    }

    /// How many operations were written down.
    pub fn operations(&self) -> usize {
        self.history.len()
    }
}

/// Reads one JSON document.
pub fn json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = std::fs::read(path).map_err(|error| named(path, &error))?;
    serde_json::from_slice(&bytes).map_err(|error| named(path, &error))
}

/// Writes one JSON document, for people too.
pub fn write_json<T: Serialize>(path: &Path, document: &T) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(document)?;
    text.push(b'\n');
    Ok(std::fs::write(path, text)?)
}

fn lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let file = File::open(path).map_err(|error| named(path, &error))?;
    let mut entries = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let of_line =
            |error: &dyn std::fmt::Display| named(path, &format!("line {}: {error}", number + 1));
        let line = line.map_err(|error| of_line(&error))?;
        entries.push(serde_json::from_str(&line).map_err(|error| of_line(&error))?);
    }
    Ok(entries)
}

fn named(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}
