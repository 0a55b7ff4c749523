//! What a run writes down, as JSON lines in its directory.
//!
//! The checkers use nothing but these files, so a run can be checked again (`recheck`), by this program or another
//! one. All moments are nanoseconds of the run's one [`Clock`].
//!
//! | file | a line is |
//! | --- | --- |
//! | `history.jsonl` | one operation; `"w"` names the workload, which determines its shape |
//! | `requests.jsonl` | one HTTP request of a client: [`RequestLine`] |
//! | `faults.jsonl` | one injection of a nemesis: [`Fault`] |
//! | `samples.jsonl` | what one node reported at one moment: [`Sample`] |

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::history::Clock;

/// The histories of all workloads.
pub const HISTORY: &str = "history.jsonl";
/// Every HTTP request of every client.
pub const REQUESTS: &str = "requests.jsonl";
/// Every injection.
pub const FAULTS: &str = "faults.jsonl";
/// What the nodes reported.
pub const SAMPLES: &str = "samples.jsonl";

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// As the API promises.
    Answered,
    /// It was never sent: nobody listened.
    NotSent,
    /// With an error that guarantees that it had no effect.
    Refused,
    /// Without an answer, or with one that says that the outcome is unknown.
    Unknown,
}

/// One HTTP request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestLine {
    /// The client's place among the clients.
    pub client: u64,
    /// The server it was sent to.
    pub node: u64,
    /// Method and path without the query.
    pub what: String,
    /// Whether it changes something.
    pub write: bool,
    /// Whether it is meant to be held by the server (a blocking query): its latency says nothing.
    pub held: bool,
    /// When it was sent.
    pub sent: u64,
    /// When it ended.
    pub ended: u64,
    /// How.
    pub end: Ending,
    /// Status and sentence, or why there is no answer; empty if it was answered.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// One injection of a nemesis, from before it began until the cluster had recovered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The nemesis' name.
    pub nemesis: String,
    /// A description: "killed n2 (leader)".
    pub what: String,
    /// Servers that may refuse, hang or answer late until the fault has healed; all others must serve.
    pub affected: Vec<u64>,
    /// Just before it was injected.
    pub began: u64,
    /// When it was injected.
    pub injected: Option<u64>,
    /// The proof that it took effect; none: the probe failed, and the fault counts for nothing.
    pub evidence: Option<String>,
    /// What the probe found instead, if it found no proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objection: Option<String>,
    /// When it was healed.
    pub healed: Option<u64>,
    /// When every server was ready again.
    pub recovered: Option<u64>,
}

/// What a node reported. Figures are missing when it did not answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When it was asked.
    pub at: u64,
    /// Who.
    pub node: u64,
    /// The term it is in.
    pub term: Option<u64>,
    /// Whether it leads.
    pub leads: Option<bool>,
    /// How many elections its process began because the leader's process had ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_elections: Option<u64>,
    /// The last entry it applied, at the moment of the hash.
    pub applied: Option<u64>,
    /// The hash of its state after that entry.
    pub hash: Option<String>,
    /// The last entry of its newest snapshot.
    pub snapshot: Option<u64>,
    /// Its process: another number, another life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Open file descriptors of its process.
    pub descriptors: Option<u64>,
    /// Resident memory of its process, in bytes.
    pub memory: Option<u64>,
}

/// The open files of a run.
#[derive(Debug)]
pub struct Journal {
    /// The clock of all moments in it.
    pub clock: Clock,
    history: Mutex<BufWriter<File>>,
    requests: Mutex<BufWriter<File>>,
    faults: Mutex<BufWriter<File>>,
    samples: Mutex<BufWriter<File>>,
}

#[derive(Serialize)]
struct Tagged<'a, T> {
    #[serde(rename = "w")]
    workload: &'a str,
    #[serde(flatten)]
    entry: &'a T,
}

impl Journal {
    /// Opens new files in `dir`.
    pub fn create(dir: &Path) -> Result<Self> {
        let open = |name| {
            Ok::<_, crate::Failure>(Mutex::new(BufWriter::new(File::create(dir.join(name))?)))
        };
        Ok(Self {
            clock: Clock::default(),
            history: open(HISTORY)?,
            requests: open(REQUESTS)?,
            faults: open(FAULTS)?,
            samples: open(SAMPLES)?,
        })
    }

    /// Writes down one operation of `workload`. `entry` must serialize to a JSON object.
    ///
    /// # Panics
    /// If the disk of the harness itself fails: then nothing can be judged.
    pub fn note<T: Serialize>(&self, workload: &str, entry: &T) {
        line(&self.history, &Tagged { workload, entry });
    }

    /// Writes down one request.
    pub fn request(&self, request: &RequestLine) {
        line(&self.requests, request);
    }

    /// Writes down one injection, once it is over.
    pub fn fault(&self, fault: &Fault) {
        line(&self.faults, fault);
    }

    /// Writes down what a node said.
    pub fn sample(&self, sample: &Sample) {
        line(&self.samples, sample);
    }

    /// Brings everything to the files.
    pub fn flush(&self) -> Result<()> {
        for file in [&self.history, &self.requests, &self.faults, &self.samples] {
            lock(file).flush()?;
        }
        Ok(())
    }
}

fn line<T: Serialize>(file: &Mutex<BufWriter<File>>, entry: &T) {
    let mut text = serde_json::to_vec(entry).expect("entries are made of plain data");
    text.push(b'\n');
    lock(file).write_all(&text).expect("the harness can write its journal");
}

/// A panic while the lock was held has failed the run; earlier lines are still valid.
fn lock(file: &Mutex<BufWriter<File>>) -> MutexGuard<'_, BufWriter<File>> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}
