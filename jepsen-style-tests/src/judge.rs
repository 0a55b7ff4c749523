//! All checkers of a run, and their results together.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::checker::hashes::Ledger;
use crate::checker::{Verdict, availability, coverage, early_elections, process, terms};
use crate::record::{Record, write_json};
use crate::workload::{self, Judgement};

/// The file of the verdicts, in the run's directory.
pub const VERDICT: &str = "verdict.json";

/// The result of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overall {
    /// Every checker is satisfied.
    Valid,
    /// Some checker found a violation.
    Invalid,
    /// No violation, but the run did not exercise what it claims to, or could not be judged.
    Unknown,
    /// This machine does not allow all that the run needs; nothing was found with the rest.
    Skipped,
}

/// One checker's verdict, as it is written to `verdict.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// The checker.
    pub checker: String,
    /// Whether it is satisfied, found a violation or saw too little.
    pub overall: Overall,
    /// What it found.
    pub sentences: Vec<String>,
}

/// The verdicts of all checkers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conclusion {
    /// Together.
    pub overall: Overall,
    /// Each.
    pub words: Vec<Word>,
}

impl Conclusion {
    /// The first sentence of each checker that is not satisfied.
    pub fn objections(&self) -> Vec<String> {
        let objecting = self.words.iter().filter(|said| said.overall != Overall::Valid);
        objecting
            .map(|said| format!("{}: {}", said.checker, said.sentences.first().map_or("", |s| s)))
            .collect()
    }
}

impl From<Judgement> for Word {
    fn from(Judgement { checker, verdict }: Judgement) -> Self {
        let (overall, sentences) = match verdict {
            Verdict::Valid => (Overall::Valid, Vec::new()),
            Verdict::Invalid(violations) => (Overall::Invalid, violations),
            Verdict::Vacuous(why) => (Overall::Unknown, vec![why]),
        };
        Self { checker: checker.to_owned(), overall, sentences }
    }
}

/// Checks a run by its workload's checkers and those of every run.
pub fn judge(record: &Record) -> Result<Conclusion> {
    let mut judgements = workload::named(&record.plan.workload)?.judge(record)?;
    judgements.push(Judgement::new("state-hash", state_hashes(record)));
    judgements
        .push(Judgement::new("liveness", Verdict::from_violations(record.ending.not_live.clone())));
    judgements.push(Judgement::new("availability", availability::check(record)));
    judgements.push(Judgement::new("process", process::check(record)));
    judgements.push(Judgement::new(
        "promises",
        Verdict::from_violations(record.ending.broken_promises.clone()),
    ));
    judgements.push(Judgement::new("terms", terms::check(record)));
    judgements.push(Judgement::new("early-elections", early_elections::check(record)));
    judgements.push(Judgement::new("coverage", coverage::check(record)));
    let words: Vec<Word> = judgements.into_iter().map(Word::from).collect();
    let says = |overall| words.iter().any(|word| word.overall == overall);
    let overall = if says(Overall::Invalid) {
        Overall::Invalid
    } else if !record.ending.skipped.is_empty() {
        Overall::Skipped
    } else if says(Overall::Unknown) {
        Overall::Unknown
    } else {
        Overall::Valid
    };
    Ok(Conclusion { overall, words })
}

/// Checks a run and writes the verdicts into its directory.
pub fn judge_and_write(record: &Record) -> Result<Conclusion> {
    let conclusion = judge(record)?;
    write_json(&record.dir.join(VERDICT), &conclusion)?;
    Ok(conclusion)
}

/// The verdicts on the run in `dir`, if it was checked.
pub fn read(dir: &Path) -> Option<Conclusion> {
    crate::record::json(&dir.join(VERDICT)).ok()
}

/// Servers at the same applied index have the same hash, all the time.
fn state_hashes(record: &Record) -> Verdict {
    let mut ledger = Ledger::default();
    for sample in &record.samples {
        if let (Some(applied), Some(hash)) = (sample.applied, &sample.hash) {
            ledger.record(sample.node, applied, hash);
        }
    }
    ledger.verdict()
}
