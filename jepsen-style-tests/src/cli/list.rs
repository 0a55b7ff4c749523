//! `list`: what there is to choose from.

use super::table::with_header;
use crate::judge::Overall;
use crate::matrix::{REGRESSIONS, Regression};
use crate::{nemesis, workload};

/// Prints the workloads, the nemeses, and what was found.
pub(super) fn list() -> Overall {
    let mut workloads = with_header(&["workload", "what must hold"]);
    for workload in workload::all() {
        workloads.add_row([workload.name(), workload.summary()]);
    }
    let mut nemeses = with_header(&["nemesis", "what it does"]);
    for nemesis in nemesis::all() {
        nemeses.add_row([nemesis.name(), nemesis.summary()]);
    }
    let mut regressions = with_header(&["regression", "what it found"]);
    for Regression { workload, nemesis, seed, found, .. } in REGRESSIONS {
        regressions.add_row([&format!("{workload} x {nemesis}, seed {seed}"), *found]);
    }
    println!("{workloads}\n{nemeses}\n{regressions}");
    Overall::Valid
}
