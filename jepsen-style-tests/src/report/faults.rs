//! What was injected: as bands behind the charts, and as a table.

use super::axis::{Axis, Label, Percent, labels};
use crate::journal::Fault;
use crate::record::Record;

/// A stretch of time that is shaded in every chart.
#[derive(Debug)]
pub(super) struct Band {
    pub(super) x: Percent,
    pub(super) width: Percent,
    pub(super) class: &'static str,
    pub(super) title: String,
}

/// One line of the table.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) number: usize,
    pub(super) nemesis: String,
    pub(super) what: String,
    pub(super) affected: String,
    /// None: the fault counts for nothing.
    pub(super) evidence: Option<String>,
    /// Why there is none.
    pub(super) objection: Option<String>,
    pub(super) began: String,
    pub(super) injected: String,
    pub(super) healed: String,
    pub(super) recovered: String,
}

/// Two bands for each fault: while it lasted, and until every server was ready again.
pub(super) fn bands(record: &Record, axis: Axis) -> Vec<Band> {
    record
        .faults
        .iter()
        .enumerate()
        .flat_map(|(place, fault)| of_fault(place + 1, fault, axis))
        .collect()
}

fn of_fault(number: usize, fault: &Fault, axis: Axis) -> Vec<Band> {
    let Fault { nemesis, what, began, .. } = fault;
    let healed = fault.healed.unwrap_or(axis.to());
    let recovered = fault.recovered.unwrap_or(axis.to());
    let class = if fault.evidence.is_some() { "fault" } else { "fault unproven" };
    let (start, end) = (axis.seconds(*began), axis.seconds(healed));
    vec![
        Band {
            x: axis.place(*began),
            width: axis.length(*began, healed),
            class,
            title: format!("{number}. {nemesis}: {what}, {start} to {end}"),
        },
        Band {
            x: axis.place(healed),
            width: axis.length(healed, recovered),
            class: "recovery",
            title: format!(
                "{number}. {nemesis}: healed, every server ready at {}",
                axis.seconds(recovered)
            ),
        },
    ]
}

/// The names of the bands, as far as there is room.
pub(super) fn names(record: &Record, axis: Axis) -> Vec<Label> {
    let texts = record.faults.iter().enumerate().map(|(place, fault)| {
        let number = place + 1;
        (axis.place(fault.began), vec![format!("{number} {}", fault.nemesis), number.to_string()])
    });
    labels(&texts.collect::<Vec<_>>())
}

/// The table.
pub(super) fn rows(record: &Record, axis: Axis) -> Vec<Row> {
    let moment = |moment: Option<u64>| moment.map_or("never".to_owned(), |at| axis.seconds(at));
    let row = |(place, fault): (usize, &Fault)| Row {
        number: place + 1,
        nemesis: fault.nemesis.clone(),
        what: fault.what.clone(),
        affected: nodes(&fault.affected),
        evidence: fault.evidence.clone(),
        objection: fault.objection.clone(),
        began: axis.seconds(fault.began),
        injected: moment(fault.injected),
        healed: moment(fault.healed),
        recovered: moment(fault.recovered),
    };
    record.faults.iter().enumerate().map(row).collect()
}

fn nodes(ids: &[u64]) -> String {
    if ids.is_empty() {
        return "none".to_owned();
    }
    ids.iter().map(|id| format!("n{id}")).collect::<Vec<_>>().join(", ")
}
