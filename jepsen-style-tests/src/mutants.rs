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
mod tests {
    use std::path::Path;

    use super::*;
    use crate::judge::judge;
    use crate::record::{Record, RunEnding};
    use crate::{nemesis, workload};

    const RUN: &str = "Rule: a leader leads.
Broken: it
  follows.
Workload: set
Nemeses: kill,delay+pause
Checker: set
Note: it is
  quick to find

diff --git a/node/src/raft.rs b/node/src/raft.rs
--- a/node/src/raft.rs
+++ b/node/src/raft.rs
";

    fn refusal(patch: &str) -> String {
        Mutant::parse("name", patch).unwrap_err().to_string()
    }

    #[test]
    fn a_head_is_read_up_to_the_diff() {
        let mutant = Mutant::parse("name", RUN).unwrap();
        let found_by = FoundBy::Run {
            workload: "set".to_owned(),
            nemeses: vec!["kill".to_owned(), "delay+pause".to_owned()],
            checker: "set".to_owned(),
        };
        let (name, rule, broken) = ("name", "a leader leads.", "it follows.");
        let (name, rule, broken) = (name.to_owned(), rule.to_owned(), broken.to_owned());
        assert_eq!(mutant, Mutant { name, rule, broken, found_by });
        assert!(head(RUN).ends_with("find\n\n"));
    }

    #[test]
    fn a_test_takes_the_place_of_a_run() {
        let patch = "Rule: r\nBroken: b\nTest: cargo test  it_works\n\ndiff --git a/x b/x\n";
        let mutant = Mutant::parse("name", patch).unwrap();
        let words = ["cargo", "test", "it_works"].map(str::to_owned);
        assert_eq!(mutant.found_by, FoundBy::Test(words.to_vec()));
        assert_eq!(mutant.plan(1, 300, 30), None);
        let both = patch.replace("Test:", "Checker: set\nTest:");
        assert!(refusal(&both).contains("not by both"));
    }

    #[test]
    fn a_head_that_is_not_complete_is_refused_by_what_is_wrong() {
        for field in ["Rule", "Broken", "Workload", "Nemeses", "Checker"] {
            let others = RUN.lines().filter(|line| !line.starts_with(&format!("{field}:")));
            let others: Vec<_> = others.collect();
            let said = refusal(&others.join("\n"));
            assert_eq!(said, format!("name.patch: the head has no field {field:?}"));
        }
        assert!(refusal(&RUN.replace("Note", "Notes")).contains("is none of the fields"));
        assert!(refusal(&RUN.replace("Broken", "Rule")).contains("is there twice"));
        assert!(refusal(head(RUN)).contains("no line begins with"));
        assert!(refusal(&RUN.replace("a leader leads.", "")).contains("has no field \"Rule\""));
    }

    #[test]
    fn every_patch_applies_to_the_sources() {
        let mut stale = Vec::new();
        for mutant in all().unwrap() {
            if let Err(failure) = tree::check_applies(&mutant.name) {
                stale.push(format!(
                    "{failure}\nA place that {name} patches has changed. Refresh the patch with\n\
                     \n    cargo run -p jepsen-style-tests -- mutants --refresh {name}\n",
                    name = mutant.name
                ));
            }
        }
        assert!(stale.is_empty(), "{}", stale.join("\n"));
    }

    #[test]
    fn every_patch_changes_sources_of_the_server_only() {
        for mutant in all().unwrap() {
            let patch = fs::read_to_string(patch(&mutant.name)).unwrap();
            for file in patch.lines().filter_map(|line| line.strip_prefix("+++ ")) {
                let is_source = ["b/node/src/", "b/storage/src/"].map(|dir| file.starts_with(dir));
                assert!(is_source.contains(&true), "{}: {file}", mutant.name);
            }
        }
    }

    #[test]
    fn every_head_names_what_there_is() {
        let mutants = all().unwrap();
        assert!(!mutants.is_empty());
        for mutant in mutants {
            match &mutant.found_by {
                FoundBy::Run { checker, .. } => {
                    let plan = mutant.plan(1, 300, 30).expect("a run finds it");
                    workload::named(&plan.workload).unwrap();
                    for name in &plan.nemeses {
                        nemesis::named(name).unwrap();
                    }
                    let record = Record::of_parts(plan, RunEnding::default(), vec![], vec![]);
                    let words = judge(&record).unwrap().words;
                    let is_judge = words.iter().any(|word| word.checker == *checker);
                    assert!(is_judge, "{}: {checker} does not judge such runs", mutant.name);
                }
                FoundBy::Test(command) => {
                    let test = command.last().expect("a field is not empty");
                    let tests = tree::workspace().join("node/tests");
                    assert!(defines(&tests, test), "{}: there is no test {test}", mutant.name);
                }
            }
        }
    }

    #[test]
    fn the_server_knows_nothing_of_mutants() {
        for package in ["node", "storage"] {
            let dir = tree::workspace().join(package);
            assert!(!mentions(&dir, "mutant"), "{package} speaks of mutants");
        }
    }

    fn defines(dir: &Path, test: &str) -> bool {
        mentions(dir, &format!("fn {test}("))
    }

    /// Whether any file below a directory contains a text.
    fn mentions(dir: &Path, text: &str) -> bool {
        fs::read_dir(dir).unwrap().any(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() {
                return mentions(&path, text);
            }
            String::from_utf8_lossy(&fs::read(&path).unwrap()).to_lowercase().contains(text)
        })
    }
}
