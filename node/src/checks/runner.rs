//! Runs the checks of one worker, whoever that is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorate_storage::record::CheckDefinition;

use super::assigned::{Change, Shown};
use super::lookup::{Lookups, Resolver};
use super::policy::Policy;
use super::schedule::{Run, Schedule};
use super::under_way::UnderWay;
use super::{
    CheckOutput, Finding, LOOK_EVERY, LastRun, ProbeCounts, Step, others_at_once_max, probe,
    runs_at_once_max,
};
use crate::host::clock::Clock;

/// The header of HTTP checks that names the worker, so that a target can tell them apart in its log; and so that no check
/// is taken for a message of a server. No definition changes it.
pub(crate) const WORKER_HEADER: &str = "X-Quorate-Worker";

/// Where a worker learns what it is to run, and reports what it found.
pub(crate) trait Desk: Send {
    /// Resolves when the checks may have changed. Nothing is lost if this is dropped.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;

    /// How its checks differ from the last time.
    fn changes(&mut self) -> Vec<Change>;

    /// How long until a check's next turn.
    fn until_turn(&mut self, run: &Run) -> Duration;

    /// Where the cluster's servers serve each other, as far as that is known by its address.
    fn servers(&self) -> Vec<SocketAddr>;

    /// What the cluster shows as this worker's view of a check; `None`: nothing yet.
    fn shown(&self, check: u64) -> Option<Shown>;

    /// Reports a finding; says whether the cluster has taken note of it.
    fn report(&self, run: &Run, finding: Finding) -> impl Future<Output = bool> + Send + 'static;
}

/// Runs checks as long as it is polled.
#[derive(Debug)]
pub(crate) struct Runner {
    /// Time.
    pub(crate) clock: Clock,
    /// What was run.
    pub(crate) counts: Arc<ProbeCounts>,
    /// What is kept of what was found.
    pub(crate) output: CheckOutput,
    /// Where checks may go.
    pub(crate) policy: Policy,
    /// The worker's name.
    pub(crate) name: Arc<str>,
}

impl Runner {
    /// Runs until it is dropped, which ends what is under way.
    pub(crate) async fn run(&self, mut desk: impl Desk) {
        let mut schedule = Schedule::default();
        let mut under_way = UnderWay::default();
        let lookups = Arc::new(Lookups::new(self.clock.clone(), self.policy.clone()));
        loop {
            for change in desk.changes() {
                self.follow(&mut desk, &mut schedule, change);
            }
            self.start_what_is_due(&desk, &mut schedule, &mut under_way, &lookups);
            let pause = self.pause(&schedule, under_way.len());
            tokio::select! {
                () = desk.changed() => {}
                Some(step) = under_way.next() => {
                    self.go_on(step, &mut desk, &mut schedule, &mut under_way);
                }
                () = self.clock.sleep(pause) => {}
            }
        }
    }

    fn follow(&self, desk: &mut impl Desk, schedule: &mut Schedule, change: Change) {
        schedule.remove(change.check);
        let Some(now) = change.now else {
            self.counts.note(change.check, None);
            return;
        };
        let run = Run { check: now.check, probe: now.probe, what: Arc::new(now) };
        let delay = desk.until_turn(&run);
        schedule.add(run, self.clock.now(), delay);
    }

    fn start_what_is_due(
        &self,
        desk: &impl Desk,
        schedule: &mut Schedule,
        under_way: &mut UnderWay,
        lookups: &Arc<Lookups>,
    ) {
        let now = self.clock.now();
        while under_way.len() < runs_at_once_max()
            && let Some(run) = schedule.take_due(now, others_at_once_max())
        {
            let (clock, counts) = (self.clock.clone(), Arc::clone(&self.counts));
            let started = run.clone();
            let resolver = Resolver::new(Arc::clone(lookups), run.what.host.clone());
            let resolver = resolver.closed_to(desk.servers());
            let definition = self.signed(&run.what.definition);
            let handle = under_way.start(run.clone(), async move {
                let Some(finding) = probe(&definition, &resolver, &clock).await else {
                    return Step::Ended(run);
                };
                counts.count(&finding);
                Step::Ran(run, finding)
            });
            schedule.started(&started, handle);
        }
    }

    /// The definition with the worker's name among its headers, where it has headers.
    fn signed(&self, definition: &Arc<CheckDefinition>) -> Arc<CheckDefinition> {
        if definition.http.is_empty() {
            return Arc::clone(definition);
        }
        let mut signed = definition.as_ref().clone();
        let headers = signed.header.get_or_insert_default();
        headers.retain(|name, _| !name.eq_ignore_ascii_case(WORKER_HEADER));
        headers.insert(WORKER_HEADER.to_owned(), vec![self.name.to_string()]);
        Arc::new(signed)
    }

    fn pause(&self, schedule: &Schedule, under_way: usize) -> Duration {
        let next =
            schedule.next_due(others_at_once_max()).filter(|_| under_way < runs_at_once_max());
        next.map_or(LOOK_EVERY, |next| next.since(self.clock.now()).min(LOOK_EVERY))
    }

    /// Reports what has to be reported of a finding; then the check waits for its next turn. Its next run begins
    /// after its result is in the state, so a check's results cannot overtake each other.
    fn go_on(
        &self,
        step: Step,
        desk: &mut impl Desk,
        schedule: &mut Schedule,
        under_way: &mut UnderWay,
    ) {
        let now = self.clock.now();
        let run = match step {
            Step::Ran(run, finding) => {
                schedule.asked(&run, now);
                let finding = self.output.apply(finding);
                let shown = desk.shown(run.check);
                if let Some(finding) = schedule.judge(&run, finding, shown.as_ref(), now) {
                    let reporting = desk.report(&run, finding);
                    under_way.start(run.clone(), async move { Step::Told(run, reporting.await) });
                    return;
                }
                run
            }
            Step::Told(run, told) => {
                if told {
                    schedule.written(&run, now);
                }
                run
            }
            Step::Ended(run) => run,
        };
        let turn = desk.until_turn(&run);
        schedule.finish(&run, now, turn);
        if let Some((began, next)) = schedule.times(run.check) {
            self.counts.note(run.check, Some(LastRun { began, took: now.since(began), next }));
        }
    }
}
