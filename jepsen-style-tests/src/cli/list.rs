//! `list`: the workloads, faults and matrices, and the endpoints that no workload uses.

use super::table::with_header;
use crate::judge::Overall;
use crate::matrix::{REGRESSIONS, Regression};
use crate::{nemesis, verbs, workload};

/// Prints the workloads, the nemeses, what was found, and the verbs that no workload uses.
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
    let mut unused = with_header(&["area", "verbs of the API that no workload uses"]);
    for (area, verbs) in verbs::unused() {
        unused.add_row([area, &verbs.join(", ")]);
    }
    println!("{workloads}\n{nemeses}\n{regressions}\n{unused}");
    Overall::Valid
}
