//! A run as one page for people: `report.html` in its directory.
//!
//! The page is made from the [`Record`] and the checkers' results, so `recheck` can write it again. It is
//! self-contained: style, charts and texts are in one file, and there is no script. The template writes the charts
//! as SVG elements; this module computes their positions. All charts share one time axis (`axis`). What grows with
//! the length of a run is put into buckets, so the page of a long run is not larger than that of a short one.
//!
//! Colours never carry meaning alone: each is explained in the legend, in the text next to it or under the pointer.

mod axis;
mod curve;
mod facts;
mod failing;
mod faults;
mod latency;
mod rate;
mod roles;

use std::path::PathBuf;

use askama::Template;

use crate::journal::Fault;
use crate::judge::{Conclusion, Word};
use crate::record::Record;
use crate::{Failure, Result, workload};

use axis::{Axis, Label, Mark, Percent};
use facts::Verdict;
use failing::Failing;
use latency::Latency;
use rate::Rate;
use roles::Lane;

/// The page, in the run's directory.
pub const REPORT: &str = "report.html";

/// All that the template names.
#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    title: String,
    verdict: Verdict,
    facts: Vec<(&'static str, String)>,
    command: String,
    mutant: Option<&'a str>,
    checkers: &'a [Word],
    troubles: Vec<(&'static str, &'a [String])>,
    ticks: Vec<Percent>,
    tick_labels: Vec<Label>,
    bands: Vec<Mark>,
    names: Vec<Label>,
    latency: Latency,
    rate: Rate,
    lanes: Vec<Lane>,
    failing: Option<Failing>,
    axis: Axis,
    faults: &'a [Fault],
    skipped: &'a [(String, String)],
}

/// Writes the page of a run that was judged, and tells where it is.
pub fn write(record: &Record, conclusion: &Conclusion) -> Result<PathBuf> {
    let path = record.dir.join(REPORT);
    std::fs::write(&path, render(record, conclusion)?)?;
    Ok(path)
}

/// The page of a run that was judged.
pub fn render(record: &Record, conclusion: &Conclusion) -> Result<String> {
    let axis = Axis::of(record);
    let window = workload::named(&record.plan.workload)?.failing_window(record)?;
    let page = Page {
        title: facts::title(&record.plan),
        verdict: Verdict::of(conclusion),
        facts: facts::facts(record, axis),
        command: record.plan.command(),
        mutant: record.plan.mutant.as_deref(),
        checkers: &conclusion.words,
        troubles: facts::troubles(&record.ending),
        ticks: axis.ticks(),
        tick_labels: axis.tick_labels(),
        bands: faults::bands(record, axis),
        names: faults::names(record, axis),
        latency: Latency::of(record, axis),
        rate: Rate::of(record, axis),
        lanes: roles::lanes(record, axis),
        failing: window.map(|window| Failing::of(&window, record, axis)),
        axis,
        faults: &record.faults,
        skipped: &record.ending.skipped,
    };
    page.render().map_err(|error| Failure::new(format!("{REPORT}: {error}")))
}
