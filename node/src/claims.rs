//! Requests of this server that wait for a claim: which there are, and what the cluster is told of them.
//!
//! A request is known to the cluster as an [`Attachment`], named by the command that it sent. It is in the table
//! here before that command is sent, and until its client was answered. What became of it is reported in bulk,
//! again and again until the cluster has taken note:
//!
//! * its client was handed the grant: the offer is **collected**;
//! * its client has gone: the request is **detached** from its claim.
//!
//! Every second the table is compared with the state: what waits there in the name of this boot and has no request
//! here is detached too. That covers a command that was given up and took effect all the same. (A request whose
//! attachment is gone, because its server was taken for lost, finds that itself and asks again.)

mod counts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_storage::command::{ClaimRequest, ClaimsCommand, Command, Outcome};
use quorate_storage::limits::CLAIMS_REPORTED_MAX;
use quorate_storage::machine::StateReader;
use quorate_storage::record::{Attachment, RequestFacts};
use tokio::sync::Notify;

pub use self::counts::Counts;
use crate::host::clock::Moment;
use crate::host::durations::Durations;
use crate::raft::context::Context;
use crate::raft::error::ProposeError;
use crate::raft::propose::Proposer;

/// Time between two comparisons with the state.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// Pause before what could not be reported is reported again.
const REPORT_PAUSE: Duration = Duration::from_millis(100);
/// How long a server that stops tries to report grants that it has handed over, and how often it looks whether it has.
const SETTLE_MAX: Duration = Duration::from_secs(2);
const SETTLE_LOOK_EVERY: Duration = Duration::from_millis(5);

/// The requests of this node that wait for a claim.
#[derive(Debug)]
pub struct Claims {
    context: Context,
    proposer: Arc<Proposer>,
    state: StateReader,
    /// A std lock: held for map operations and for a comparison, never across an await.
    table: Mutex<Table>,
    wake: Notify,
    hand_overs: Durations,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Table {
    last_ticket: u64,
    /// The numbers of the commands of all requests; 0 before they have one.
    requests: BTreeMap<u64, Arc<AtomicU64>>,
    /// Numbers of requests whose clients have gone, to be reported.
    gone: BTreeSet<u64>,
    /// Fences of grants that were handed over, to be reported.
    collected: BTreeSet<u64>,
    /// Whether a report is on its way.
    is_reporting: bool,
}

/// A request that waits for a claim. If it is dropped before it was answered, its client has gone.
#[derive(Debug)]
pub struct Request {
    claims: Arc<Claims>,
    ticket: u64,
    seq: Arc<AtomicU64>,
    /// When this server saw the grant.
    granted: Option<Moment>,
    is_over: bool,
}

impl Request {
    /// Asks for the claim, or asks again: then only the new command names the request.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn ask(
        &self,
        what: ClaimRequest,
        facts: Option<Arc<RequestFacts>>,
    ) -> Result<Outcome, ProposeError> {
        let command = Command::Claims(ClaimsCommand::Claim(Box::new(what)));
        self.claims.proposer.propose_numbered(command, facts, &self.seq).await
    }

    /// The number of its command.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq.load(Ordering::SeqCst)
    }

    /// What the cluster knows it as.
    #[must_use]
    pub fn attachment(&self) -> Attachment {
        let context = &self.claims.context;
        let incarnation = context.processes.incarnation().unwrap_or_default();
        Attachment { origin: context.id, incarnation, seq: self.seq() }
    }

    /// Nothing of it is left in the cluster: its claim is over, or it was withdrawn.
    pub fn end(&mut self) {
        self.is_over = true;
    }

    /// This server has seen that its claim is granted.
    pub fn granted(&mut self) {
        self.granted = Some(self.claims.context.clock.now());
    }

    /// Its client was handed the grant with this fence.
    pub fn collect(&mut self, fence: u64) {
        self.is_over = true;
        if let Some(granted) = self.granted {
            self.claims.hand_overs.observe(self.claims.context.clock.now().since(granted));
        }
        self.claims.table().collected.insert(fence);
        self.claims.wake.notify_one();
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut table = self.claims.table();
        table.requests.remove(&self.ticket);
        let seq = self.seq();
        if !self.is_over && seq > 0 {
            table.gone.insert(seq);
            self.claims.wake.notify_one();
        }
    }
}

/// What is reported in one command.
#[derive(Debug, Clone)]
enum Report {
    Collected(Vec<u64>),
    Gone(Vec<u64>),
}

impl Claims {
    /// None yet.
    #[must_use]
    pub fn new(
        context: Context,
        proposer: Arc<Proposer>,
        state: StateReader,
        counts: Arc<Counts>,
    ) -> Self {
        let (table, wake, hand_overs) = (Mutex::default(), Notify::new(), Durations::default());
        Self { context, proposer, state, table, wake, hand_overs, counts }
    }

    /// What this server has seen of claims.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How long it takes from when this server sees a grant until its client was sent all of it.
    #[must_use]
    pub fn hand_overs(&self) -> &Durations {
        &self.hand_overs
    }

    /// How many requests wait, or are being answered.
    #[must_use]
    pub fn count(&self) -> usize {
        self.table().requests.len()
    }

    /// A request that will ask.
    #[must_use]
    pub fn request(self: &Arc<Self>) -> Request {
        let seq = Arc::new(AtomicU64::new(0));
        let mut table = self.table();
        table.last_ticket += 1;
        let ticket = table.last_ticket;
        table.requests.insert(ticket, Arc::clone(&seq));
        Request { claims: Arc::clone(self), ticket, seq, granted: None, is_over: false }
    }

    /// Reports what became of requests until the cluster knows it; never ends.
    pub async fn report(self: Arc<Self>) {
        loop {
            self.wake.notified().await;
            while let Some(report) = self.next_report() {
                let command = Command::Claims(match report.clone() {
                    Report::Collected(fences) => ClaimsCommand::Collected { fences },
                    Report::Gone(seqs) => ClaimsCommand::Detached { seqs },
                });
                let outcome = self.proposer.propose(command).await;
                self.conclude(outcome.is_err().then_some(report));
                if let Err(error) = outcome {
                    tracing::debug!(%error, "what became of claims is reported later");
                    self.context.clock.sleep(REPORT_PAUSE).await;
                }
            }
        }
    }

    fn next_report(&self) -> Option<Report> {
        let mut table = self.table();
        let report = if !table.collected.is_empty() {
            Report::Collected(take_some(&mut table.collected))
        } else if !table.gone.is_empty() {
            Report::Gone(take_some(&mut table.gone))
        } else {
            return None;
        };
        table.is_reporting = true;
        Some(report)
    }

    /// Waits until the cluster has been told of every grant that was handed over, as far as that can be.
    pub async fn settle(&self) {
        let settled = async {
            while self.is_unsettled() {
                self.context.clock.sleep(SETTLE_LOOK_EVERY).await;
            }
        };
        if self.context.clock.timeout(SETTLE_MAX, settled).await.is_err() {
            tracing::warn!(
                "claims were handed over of which the cluster was not told: they may be given to others"
            );
        }
    }

    fn is_unsettled(&self) -> bool {
        let table = self.table();
        table.is_reporting || !table.collected.is_empty()
    }

    /// A report has come to its end; one that failed is to be made again. Both show at once, so that whoever waits for
    /// all reports ([`Self::settle`]) does not miss it.
    fn conclude(&self, failed: Option<Report>) {
        let mut table = self.table();
        table.is_reporting = false;
        match failed {
            Some(Report::Collected(fences)) => table.collected.extend(fences),
            Some(Report::Gone(seqs)) => table.gone.extend(seqs),
            None => {}
        }
    }

    /// Compares the requests with the state now and then; never ends.
    pub async fn watch(self: Arc<Self>) {
        loop {
            self.context.clock.sleep(COMPARE_EVERY).await;
            self.compare();
        }
    }

    /// Detaches what waits in the name of this boot and has no request.
    fn compare(&self) {
        let Some(incarnation) = self.context.processes.incarnation() else { return };
        let mut table = self.table();
        // Loaded under the lock: what is attached was in the table before.
        let published = self.state.load();
        let open: BTreeSet<u64> =
            table.requests.values().map(|seq| seq.load(Ordering::SeqCst)).collect();
        let attached = published.state.requests_of(self.context.id, incarnation);
        let orphans: Vec<u64> = attached
            .map(|(attachment, _)| attachment.seq)
            .filter(|seq| !open.contains(seq))
            .collect();
        if !orphans.is_empty() {
            table.gone.extend(orphans);
            self.wake.notify_one();
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As many as one command reports, the oldest first.
fn take_some(all: &mut BTreeSet<u64>) -> Vec<u64> {
    let rest = all.iter().nth(CLAIMS_REPORTED_MAX).copied();
    let rest = rest.map_or_else(BTreeSet::new, |first| all.split_off(&first));
    std::mem::replace(all, rest).into_iter().collect()
}
