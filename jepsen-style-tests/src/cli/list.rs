//! `list`: what there is to choose from.

use super::table::with_header;
use crate::judge::Overall;
use crate::{nemesis, workload};

/// Prints the workloads and nemeses.
pub(super) fn list() -> Overall {
    let mut workloads = with_header(&["workload", "what must hold"]);
    for workload in workload::all() {
        workloads.add_row([workload.name(), workload.summary()]);
    }
    let mut nemeses = with_header(&["nemesis", "what it does"]);
    for nemesis in nemesis::all() {
        nemeses.add_row([nemesis.name(), nemesis.summary()]);
    }
    println!("{workloads}\n{nemeses}");
    Overall::Valid
}
