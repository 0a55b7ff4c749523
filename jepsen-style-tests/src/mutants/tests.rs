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
                let tests = ["node/tests", "storage/tests"].map(|dir| tree::workspace().join(dir));
                let is_there = tests.iter().any(|dir| defines(dir, test));
                assert!(is_there, "{}: there is no test {test}", mutant.name);
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
