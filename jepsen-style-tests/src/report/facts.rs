//! What a report says in words and numbers: its title, the verdict, and what the run was.

use super::axis::Axis;
use super::roles::newer_snapshots;
use crate::figures::leader_changes;
use crate::judge::{Conclusion, Overall};
use crate::plan::Plan;
use crate::record::{Record, RunEnding};

/// The verdict, in a word with its colour and in a sentence.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) class: &'static str,
    pub(super) mark: &'static str,
    pub(super) word: &'static str,
    pub(super) sentence: String,
}

impl Verdict {
    pub(super) fn of(conclusion: &Conclusion) -> Self {
        let sentence = match conclusion.overall {
            Overall::Valid => "Every checker is satisfied.".to_owned(),
            Overall::Invalid => format!("Violations: {}.", who_says(conclusion, Overall::Invalid)),
            Overall::Unknown => format!(
                "Nothing is wrong, but the run proves too little: {}.",
                who_says(conclusion, Overall::Unknown)
            ),
            Overall::Skipped => "This machine does not allow what the run needs.".to_owned(),
        };
        Self { sentence, ..Self::word(conclusion.overall) }
    }

    pub(super) fn word(overall: Overall) -> Self {
        let (class, mark, word) = match overall {
            Overall::Valid => ("valid", "✓", "Valid"),
            Overall::Invalid => ("invalid", "✗", "Invalid"),
            Overall::Unknown => ("unknown", "?", "Unknown"),
            Overall::Skipped => ("skipped", "–", "Skipped"),
        };
        Self { class, mark, word, sentence: String::new() }
    }
}

fn who_says(conclusion: &Conclusion, overall: Overall) -> String {
    let words = conclusion.words.iter().filter(|word| word.overall == overall);
    words.map(|word| word.checker.as_str()).collect::<Vec<_>>().join(", ")
}

/// `kv-register under pause and kill-leader, 3 nodes`.
pub(super) fn title(plan: &Plan) -> String {
    let nodes = if plan.nodes == 1 { "1 node".to_owned() } else { format!("{} nodes", plan.nodes) };
    let nemeses = match plan.nemeses.as_slice() {
        [] => "without faults".to_owned(),
        nemeses => format!("× {}", nemeses.join(", ")),
    };
    format!("{} {nemeses} on {nodes}", plan.workload)
}

/// The figures of the header, each with what it is.
pub(super) fn facts(record: &Record, axis: Axis) -> Vec<(&'static str, String)> {
    let Plan { seed, time_s, rate, clients, .. } = record.plan;
    let proven = record.faults.iter().filter(|fault| fault.evidence.is_some()).count();
    vec![
        ("seed", seed.to_string()),
        ("time planned", format!("{time_s} s")),
        ("clients stopped after", axis.seconds(record.ending.stopped)),
        ("rate aimed at", format!("{rate}/s, {clients} clients")),
        ("operations", grouped(record.operations())),
        ("requests", grouped(record.requests.len())),
        ("faults proven", format!("{proven} of {}", record.faults.len())),
        ("leader changes seen", leader_changes(&record.samples).to_string()),
        ("snapshots taken or received", newer_snapshots(&record.samples).to_string()),
    ]
}

/// Digits in groups of three.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// What the servers did that no fault explains; nothing, in a good run.
pub(super) fn troubles(ending: &RunEnding) -> Vec<(&'static str, &[String])> {
    let all = [
        ("Did not serve again", ending.not_live.as_slice()),
        ("Panics and failed assertions in the logs", &ending.panics),
        ("Servers that ended by themselves", &ending.ended_by_themselves),
    ];
    all.into_iter().filter(|(_, lines)| !lines.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_threes() {
        let said = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(said, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_title_names_workload_nemeses_and_nodes() {
        let plan = Plan {
            workload: "kv-register".to_owned(),
            nemeses: vec!["pause".to_owned(), "kill".to_owned()],
            nodes: 3,
            time_s: 1,
            rate: 1,
            clients: 1,
            seed: 1,
            mutant: None,
        };
        assert_eq!(title(&plan), "kv-register × pause, kill on 3 nodes");
        let calm = Plan { nemeses: Vec::new(), nodes: 1, ..plan };
        assert_eq!(title(&calm), "kv-register without faults on 1 node");
    }
}
