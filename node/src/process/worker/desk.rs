//! A worker's checks, as its server tells them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use quorate_storage::ClusterTime;
use tokio::sync::{mpsc, oneshot};

use super::messages::{Report, Told};
use crate::checks::Finding;
use crate::checks::assigned::{Assigned, Change, Shown};
use crate::checks::remote::ResultOfRun;
use crate::checks::runner::Desk;
use crate::checks::schedule::Run;
use crate::checks::turn::ClusterTimeSeen;
use crate::host::clock::Clock;

/// See [`Desk`].
#[derive(Debug)]
pub(super) struct RemoteDesk {
    clock: Clock,
    frames: mpsc::Receiver<Told>,
    report: mpsc::Sender<Report>,
    checks: BTreeMap<u64, (Assigned, Option<Shown>)>,
    pending: Vec<Change>,
    time: ClusterTimeSeen,
    servers: Vec<SocketAddr>,
}

impl RemoteDesk {
    pub(super) fn new(
        clock: Clock,
        frames: mpsc::Receiver<Told>,
        report: mpsc::Sender<Report>,
    ) -> Self {
        let time = ClusterTimeSeen::default();
        let (checks, pending, servers) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { clock, frames, report, checks, pending, time, servers }
    }

    fn take_in(&mut self, told: Told) {
        match told {
            Told::Begin => {
                let all = std::mem::take(&mut self.checks).into_keys();
                self.pending.extend(all.map(|check| Change { check, now: None }));
            }
            Told::Frame(frame) => {
                self.time.note(ClusterTime(frame.time), self.clock.now());
                self.servers = frame.servers;
                for check in frame.gone {
                    self.checks.remove(&check);
                    self.pending.push(Change { check, now: None });
                }
                for check in frame.set {
                    let (now, shown) = check.into_parts();
                    let check = now.check;
                    let before = self.checks.insert(check, (now.clone(), shown));
                    // What is shown alone does not begin it anew.
                    if before.is_none_or(|(before, _)| before != now) {
                        self.pending.push(Change { check, now: Some(now) });
                    }
                }
            }
        }
    }
}

impl Desk for RemoteDesk {
    async fn changed(&mut self) {
        match self.frames.recv().await {
            Some(told) => self.take_in(told),
            None => std::future::pending().await,
        }
    }

    fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.pending)
    }

    fn until_turn(&mut self, run: &Run) -> Duration {
        self.time.until_turn(&run.what, self.clock.now())
    }

    fn servers(&self) -> Vec<SocketAddr> {
        self.servers.clone()
    }

    fn shown(&self, check: u64) -> Option<Shown> {
        self.checks.get(&check).and_then(|(_, shown)| shown.clone())
    }

    fn report(&self, run: &Run, finding: Finding) -> impl Future<Output = bool> + Send + 'static {
        let Finding { status, output } = finding;
        let (check, probe, status) = (run.check, run.probe, status.as_str().to_owned());
        let (reply, told) = oneshot::channel();
        let result = ResultOfRun { check, probe, status, output };
        let sent = self.report.try_send(Report { result, reply });
        async move { sent.is_ok() && told.await.unwrap_or(false) }
    }
}
