//! Several workers look at one target: what the check makes of their views.
//!
//! A network that one worker alone cannot use must not fail a check, and one that a single worker still reaches
//! must not hide that the others do not. So a check may have three observers; its status is the median of what they
//! last found. One that has not reported since it became responsible counts as the present status, and of two
//! middle values the one nearer to the present status counts: a change of hands by itself changes nothing.

use std::cmp::Reverse;
use std::sync::Arc;

use super::State;
use super::assignment::WorkerSet;
use super::catalog::fold_arc;
use super::change::Change;
use crate::command::{Outcome, Rejection, RunResult};
use crate::limits::OUTPUT_BYTES_MAX;
use crate::record::{Check, CheckStatus, View, Views, WorkerId};

impl Change<'_> {
    /// What a worker's run of a check found. A result that changes nothing touches nothing.
    pub(super) fn conclude_run(
        &mut self,
        set: &WorkerSet,
        worker: &WorkerId,
        result: &RunResult,
    ) -> Result<Outcome, Rejection> {
        let RunResult { number, probe, status, output } = result;
        let (number, probe) = (*number, *probe);
        if self.state.probes.get(number) != Some(probe) {
            return Err(Rejection::NoSuchNumber);
        }
        let row = self.state.check_numbered(number).cloned().ok_or(Rejection::NoSuchNumber)?;
        let workers = set.responsible(&row, self.state.host_of(&row));
        if !workers.iter().any(|one| one.id == *worker) {
            return Err(Rejection::NotResponsible);
        }
        let (status, output) = match row.registration.definition.observers() {
            1 => (status.clone(), output.clone()),
            _ => {
                let ids: Vec<&WorkerId> = workers.iter().map(|one| &one.id).collect();
                let view =
                    View { worker: worker.clone(), status: status.clone(), output: output.clone() };
                let views = self.note_view(number, probe, &ids, view);
                let present = &row.registration.status;
                (median(&views, ids.len(), present), who_sees_what(set, &views))
            }
        };
        let shown = &row.registration;
        if shown.status != status || shown.output != output {
            self.put_status(&fold_arc(&row.node), &row, status, output);
        }
        Ok(Outcome::Done)
    }

    /// Puts a view in the place of the observer's last one; those of others go.
    fn note_view(&mut self, number: u64, probe: u64, ids: &[&WorkerId], view: View) -> Vec<View> {
        let known = self.state.workers.views.get(&number).filter(|views| views.probe == probe);
        let mut all = known.map_or_else(Vec::new, |views| views.all.clone());
        all.retain(|known| known.worker != view.worker && ids.contains(&&known.worker));
        all.push(view);
        all.sort_by(|one, other| one.worker.cmp(&other.worker));
        self.state.workers.views.insert(number, Arc::new(Views { probe, all: all.clone() }));
        all
    }

    /// Forgets what those found who are not responsible any more: when they are again, they count as everybody who
    /// has not reported yet.
    pub(super) fn drop_views_of_others(&mut self, set: &WorkerSet) {
        let state = &*self.state;
        let outdated: Vec<(u64, Views)> = (state.workers.views.iter())
            .filter_map(|(number, views)| {
                let row = state.check_numbered(*number)?;
                let workers = set.responsible(row, state.host_of(row));
                let mut kept = views.as_ref().clone();
                kept.all.retain(|view| workers.iter().any(|one| one.id == view.worker));
                (kept.all.len() < views.all.len()).then_some((*number, kept))
            })
            .collect();
        for (number, views) in outdated {
            self.state.workers.views.insert(number, Arc::new(views));
        }
    }
}

impl State {
    /// What a worker last said of a check, if it counts: with one observer it is what the check shows.
    #[must_use]
    pub fn view_of<'a>(
        &'a self,
        worker: &WorkerId,
        row: &'a Check,
    ) -> Option<(&'a CheckStatus, &'a str)> {
        if row.registration.definition.observers() == 1 {
            return Some((&row.registration.status, &row.registration.output));
        }
        let views = self.views(row.number)?;
        let view = views.all.iter().find(|view| view.worker == *worker)?;
        Some((&view.status, &view.output))
    }
}

/// How bad a status is.
const fn badness(status: &CheckStatus) -> i8 {
    match status {
        CheckStatus::Passing => 0,
        CheckStatus::Warning => 1,
        CheckStatus::Critical | CheckStatus::Other(_) => 2,
    }
}

/// The middle of what the observers say; those who have said nothing say what is shown.
fn median(views: &[View], observers: usize, present: &CheckStatus) -> CheckStatus {
    let silent = observers.saturating_sub(views.len());
    let mut all: Vec<&CheckStatus> = views.iter().map(|view| &view.status).collect();
    all.extend(std::iter::repeat_n(present, silent));
    all.sort_by_key(|status| badness(status));
    let upper = all.len() / 2;
    let lower = all.len().saturating_sub(1) / 2;
    let distance = |status: &CheckStatus| (badness(status) - badness(present)).abs();
    // Of two equally far ones the worse: somebody should look.
    let middle = [all.get(lower), all.get(upper)].into_iter().flatten();
    let middle = middle.min_by_key(|status| (distance(status), Reverse(badness(status))));
    middle.map_or_else(|| present.clone(), |status| (*status).clone())
}

/// `n1 passing, n2 critical`, and below it what each found.
fn who_sees_what(set: &WorkerSet, views: &[View]) -> String {
    let name = |view: &View| set.get(&view.worker).map_or("?", |one| &one.name).to_owned();
    let seen: Vec<String> =
        views.iter().map(|view| format!("{} {}", name(view), view.status.as_str())).collect();
    let mut text = seen.join(", ");
    for view in views {
        // A definition may allow more than all of them may have together.
        let end = view.output.floor_char_boundary(OUTPUT_BYTES_MAX / 4);
        text.push_str(&format!("\n{}: {}", name(view), &view.output[..end]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    use CheckStatus::{Critical, Passing, Warning};

    fn of(statuses: &[CheckStatus], observers: usize, present: &CheckStatus) -> CheckStatus {
        let views: Vec<View> = (1..)
            .zip(statuses)
            .map(|(id, status)| View {
                worker: WorkerId::Server(id),
                status: status.clone(),
                output: String::new(),
            })
            .collect();
        median(&views, observers, present)
    }

    #[test]
    fn one_of_three_alone_changes_nothing() {
        assert_eq!(of(&[Critical], 3, &Passing), Passing);
        assert_eq!(of(&[Passing, Critical, Passing], 3, &Passing), Passing);
        assert_eq!(of(&[Critical, Passing, Critical], 3, &Passing), Critical);
        assert_eq!(of(&[Passing], 3, &Critical), Critical);
        assert_eq!(of(&[Passing, Warning, Critical], 3, &Passing), Warning);
    }

    #[test]
    fn of_two_middle_values_the_one_nearer_to_the_present_counts() {
        assert_eq!(of(&[Passing, Critical], 2, &Passing), Passing);
        assert_eq!(of(&[Passing, Critical], 2, &Critical), Critical);
        assert_eq!(of(&[Passing, Critical], 2, &Warning), Critical);
        assert_eq!(of(&[Critical], 1, &Passing), Critical);
    }
}
