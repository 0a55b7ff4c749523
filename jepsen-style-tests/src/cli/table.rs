//! Summary tables.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};

use crate::checker::coverage::rate_before_faults;
use crate::judge::{Conclusion, Overall};
use crate::record::Record;
use crate::workload;

/// Sentences of a checker that a table shows.
const SENTENCES_MAX: usize = 5;

/// A table with a header.
pub(super) fn with_header(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    table
}

/// `valid`, `INVALID`, `unknown` or `skipped`.
pub(super) fn word(overall: Overall) -> &'static str {
    match overall {
        Overall::Valid => "valid",
        Overall::Invalid => "INVALID",
        Overall::Unknown => "unknown",
        Overall::Skipped => "skipped",
    }
}

/// What was done to a run, and what its checkers say.
pub(super) fn of_run(record: &Record, conclusion: &Conclusion) -> String {
    let mut faults = with_header(&["fault", "what", "evidence", "s"]);
    for fault in &record.faults {
        let objection = fault.objection.as_deref().unwrap_or("no proof");
        let unproven = format!("NONE, counts for nothing: {objection}");
        let evidence = fault.evidence.as_deref().unwrap_or(&unproven);
        let seconds = fault.began.saturating_sub(record.ending.began) as f64 / 1e9;
        let seconds = format!("{seconds:.1}");
        faults.add_row([&fault.nemesis, &fault.what, evidence, &seconds]);
    }
    for (name, why) in &record.ending.skipped {
        faults.add_row([name.as_str(), "SKIPPED", why, ""]);
    }
    let mut words = with_header(&["checker", "says", "because"]);
    for said in &conclusion.words {
        let mut because = said.sentences.clone();
        if because.len() > SENTENCES_MAX {
            let more = because.len() - SENTENCES_MAX;
            because.truncate(SENTENCES_MAX);
            because.push(format!("and {more} more"));
        }
        words.add_row([said.checker.as_str(), word(said.overall), &because.join("\n")]);
    }
    let counts: Vec<_> = workload::named(&record.plan.workload)
        .and_then(|workload| workload.counts(record))
        .unwrap_or_default()
        .into_iter()
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    let counts = if counts.is_empty() { String::new() } else { format!("\n{}", counts.join(", ")) };
    let (requests, operations) = (record.requests.len(), record.operations());
    let rate = rate_before_faults(record);
    format!(
        "{faults}\n{words}\n{}: {} ({requests} requests, {operations} operations, {rate}/s before the first fault){counts}",
        record.plan.title(),
        word(conclusion.overall)
    )
}
