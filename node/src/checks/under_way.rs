//! Which runs are under way, as tasks.

use std::collections::HashMap;

use tokio::task::{AbortHandle, Id, JoinSet};

use super::Step;
use super::schedule::Run;
use crate::host::supervise;

/// Tasks, each of them a step of a run. Dropped, it ends them all.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    tasks: JoinSet<Step>,
    /// Whose they are: a task that panics cannot tell any more.
    runs: HashMap<Id, Run>,
}

impl UnderWay {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Starts a step of a run.
    pub(super) fn start(
        &mut self,
        run: Run,
        step: impl Future<Output = Step> + Send + 'static,
    ) -> AbortHandle {
        let handle = supervise::spawn_on(&mut self.tasks, step);
        self.runs.insert(handle.id(), run);
        handle
    }

    /// The next step that ends; `None` if none is under way. Nothing is lost if this is dropped.
    pub(super) async fn next(&mut self) -> Option<Step> {
        match self.tasks.join_next_with_id().await? {
            Ok((id, step)) => {
                self.runs.remove(&id);
                Some(step)
            }
            Err(error) => {
                let run = self.runs.remove(&error.id()).expect("every task has a run");
                if error.is_panic() {
                    tracing::error!(%error, check = run.check, "a run of a check ended in a panic");
                }
                Some(Step::Ended(run))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::checks::assigned::Assigned;

    fn run(check: u64) -> Run {
        let definition = Arc::default();
        let what = Assigned { check, probe: 1, definition, rank: 0, observers: 1, host: None };
        Run { check, probe: 1, what: Arc::new(what) }
    }

    #[tokio::test]
    async fn a_run_that_panics_or_is_ended_is_over_and_its_check_runs_again() {
        let clock = crate::host::clock::Clock::monotonic();
        let mut schedule = super::super::schedule::Schedule::default();
        let mut under_way = UnderWay::default();
        assert!(under_way.next().await.is_none());
        schedule.add(run(1), clock.now(), Duration::ZERO);
        let taken = schedule.take_due(clock.now(), 1).unwrap();
        under_way.start(taken, async { panic!("a prober's mistake") });
        assert_eq!(under_way.len(), 1);
        let Some(Step::Ended(ended)) = under_way.next().await else { panic!("it found something") };
        assert_eq!(ended.check, 1);
        schedule.finish(&ended, clock.now(), Duration::from_secs(1));
        assert!(schedule.next_due(1).is_some());
        under_way.start(run(2), std::future::pending()).abort();
        let Some(Step::Ended(ended)) = under_way.next().await else { panic!("it found something") };
        assert_eq!((ended.check, under_way.len(), under_way.runs.len()), (2, 0, 0));
    }
}
