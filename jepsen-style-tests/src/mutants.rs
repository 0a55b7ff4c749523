//! Servers that are broken on purpose, one rule at a time, to prove that the suite finds bugs.
//!
//! A suite that finds nothing proves nothing, unless it is known to find what is there. So each rule that
//! the suite guards has a *mutant*: a patch to the server's sources, `mutants/NAME.patch`, that breaks the
//! rule where it is kept. The sources themselves know nothing of it. The command `mutants` applies one
//! patch at a time to a copy of the workspace ([`tree`]), builds the server there, and runs it until the
//! checker that the patch names finds a violation. A mutant that no checker finds is a hole in the suite.
//!
//! A patch begins with a head, which git ignores: fields of the form `Name: text`, whose text goes on in
//! indented lines.
//!
//! | field | what it says |
//! | --- | --- |
//! | `Rule` | the rule that is broken |
//! | `Broken` | what the server does instead |
//! | `Workload` | what the clients do |
//! | `Nemeses` | under which faults, separated by commas |
//! | `Checker` | the checker that must find a violation; another one's does not count |
//! | `Test` | in place of these three, where no run finds the mutant: a command of cargo that runs one test, which must fail |
//! | `Note` | what else helps to understand how it is found; may be absent |
//!
//! Whoever changes a line that a patch touches refreshes the patch: `mutants --refresh NAME`. To add a
//! mutant, or to repair one that cannot be refreshed, change the copy by hand and take over the difference
//! with `mutants --record NAME`.

pub mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::plan::Plan;
use crate::{Failure, Result};

/// One mutant, as the head of its patch describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutant {
    /// The file's name without `.patch`.
    pub name: String,
    /// The rule that it breaks.
    pub rule: String,
    /// What the server does instead.
    pub broken: String,
    /// What must find it.
    pub found_by: FoundBy,
}

/// What must find a mutant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundBy {
    /// A run.
    Run {
        /// What the clients do.
        workload: String,
        /// The faults.
        nemeses: Vec<String>,
        /// The checker that must find a violation.
        checker: String,
    },
    /// A test of the server's own: the words of the command that runs it.
    Test(Vec<String>),
}

/// How long the clients of one attempt work, in seconds.
const ATTEMPT_S: u64 = 20;

const EXTENSION: &str = "patch";
/// The line with which the diff begins.
const DIFF: &str = "diff --git ";
const FIELDS: [&str; 7] = ["Rule", "Broken", "Workload", "Nemeses", "Checker", "Test", "Note"];

/// All mutants, by name.
///
/// # Errors
/// When a patch cannot be read, or its head is not complete.
pub fn all() -> Result<Vec<Mutant>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION)
            && let Some(name) = path.file_stem().and_then(|stem| stem.to_str())
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    names.iter().map(|name| Mutant::parse(name, &fs::read_to_string(patch(name))?)).collect()
}

/// Where the patch of that name is, or would be.
pub fn patch(name: &str) -> PathBuf {
    directory().join(format!("{name}.{EXTENSION}"))
}

fn directory() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/mutants"))
}

/// What stands before the diff.
fn head(patch: &str) -> &str {
    let is_first = patch.starts_with(DIFF);
    let end = if is_first { Some(0) } else { patch.find(&format!("\n{DIFF}")).map(|at| at + 1) };
    &patch[..end.unwrap_or(patch.len())]
}

impl Mutant {
    /// Reads the head of a patch.
    fn parse(name: &str, patch: &str) -> Result<Self> {
        let wrong = |what: String| Failure::new(format!("{name}.{EXTENSION}: {what}"));
        let head = head(patch);
        if head.len() == patch.len() {
            return Err(wrong(format!("no line begins with {DIFF:?}")));
        }
        let mut fields = fields(head).map_err(wrong)?;
        let mut take = |field: &str| {
            let text = fields.remove(field).filter(|text| !text.is_empty());
            text.ok_or_else(|| wrong(format!("the head has no field {field:?}")))
        };
        let (rule, broken) = (take("Rule")?, take("Broken")?);
        let found_by = match take("Test") {
            Ok(command) => FoundBy::Test(command.split_whitespace().map(str::to_owned).collect()),
            Err(_) => FoundBy::Run {
                workload: take("Workload")?,
                nemeses: take("Nemeses")?.split(',').map(|name| name.trim().to_owned()).collect(),
                checker: take("Checker")?,
            },
        };
        let of_runs = ["Workload", "Nemeses", "Checker"].map(|field| take(field).is_ok());
        if matches!(found_by, FoundBy::Test(_)) && of_runs.contains(&true) {
            return Err(wrong("a mutant is found by a test or by a run, not by both".to_owned()));
        }
        Ok(Self { name: name.to_owned(), rule, broken, found_by })
    }

    /// The plan of attempt number `attempt` to find it; none if a test finds it.
    pub fn plan(&self, attempt: u64, rate: u64, clients: u64) -> Option<Plan> {
        let FoundBy::Run { workload, nemeses, .. } = &self.found_by else { return None };
        Some(Plan {
            workload: workload.clone(),
            nemeses: nemeses.clone(),
            nodes: 3,
            time_s: ATTEMPT_S,
            rate,
            clients,
            seed: attempt,
            mutant: Some(self.name.clone()),
        })
    }
}

/// The fields of a head, each on one line.
fn fields(head: &str) -> Result<BTreeMap<&str, String>, String> {
    let mut fields = BTreeMap::new();
    let mut last = None;
    for line in head.lines().filter(|line| !line.is_empty()) {
        if let (true, Some(field)) = (line.starts_with(' '), last) {
            let text: &mut String = fields.entry(field).or_default();
            text.push(' ');
            text.push_str(line.trim());
            continue;
        }
        let Some((field, text)) = line.split_once(':').filter(|(name, _)| FIELDS.contains(name))
        else {
            return Err(format!("{line:?} is none of the fields {}", FIELDS.join(", ")));
        };
        if fields.insert(field, text.trim().to_owned()).is_some() {
            return Err(format!("the field {field:?} is there twice"));
        }
        last = Some(field);
    }
    Ok(fields)
}

#[cfg(test)]
mod tests;
