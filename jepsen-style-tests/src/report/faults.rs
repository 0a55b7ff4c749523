//! What was injected: as bands behind the charts, and as a table.

use super::axis::{Axis, Label, Mark, labels};
use crate::journal::Fault;
use crate::record::Record;

/// Two bands for each fault: while it lasted, and until every server was ready again.
pub(super) fn bands(record: &Record, axis: Axis) -> Vec<Mark> {
    record
        .faults
        .iter()
        .zip(1..)
        .flat_map(|(fault, number)| of_fault(number, fault, axis))
        .collect()
}

fn of_fault(number: usize, fault: &Fault, axis: Axis) -> [Mark; 2] {
    let Fault { nemesis, what, began, .. } = fault;
    let healed = fault.healed.unwrap_or(axis.to());
    let recovered = fault.recovered.unwrap_or(axis.to());
    let class = if fault.evidence.is_some() { "fault" } else { "fault unproven" };
    let (start, end, ready) = (axis.seconds(*began), axis.seconds(healed), axis.seconds(recovered));
    let lasted = format!("{number}. {nemesis}: {what}, {start} to {end}");
    let after = format!("{number}. {nemesis}: healed, every server ready at {ready}");
    [axis.mark(*began, healed, class, lasted), axis.mark(healed, recovered, "recovery", after)]
}

/// The names of the bands, as far as there is room.
pub(super) fn names(record: &Record, axis: Axis) -> Vec<Label> {
    let texts = record.faults.iter().zip(1..).map(|(fault, number): (_, usize)| {
        (axis.place(fault.began), vec![format!("{number} {}", fault.nemesis), number.to_string()])
    });
    labels(&texts.collect::<Vec<_>>())
}

/// The servers that a fault affects, for the table.
pub(super) fn nodes(ids: &[u64]) -> String {
    if ids.is_empty() {
        return "none".to_owned();
    }
    ids.iter().map(|id| format!("n{id}")).collect::<Vec<_>>().join(", ")
}
