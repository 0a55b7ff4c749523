//! Sends what a worker found, in bulk, and that it lives.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::messages::{Report, Session};
use crate::checks::WorkerKey;
use crate::checks::key::{PROOF_HEADER, Purpose};
use crate::checks::remote::{PATH, RESULTS, ResultOfRun, Results};
use crate::host::causes::with_causes;

/// Results that come within this time of each other go together.
const GATHER: Duration = Duration::from_millis(100);
/// Without results, a worker says this often that it lives.
const ALIVE_EVERY: Duration = Duration::from_secs(2);
/// How long a server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Results in one request.
const RESULTS_AT_ONCE_MAX: usize = 512;
/// Bytes of outputs in one request. A command has a limit.
const BYTES_AT_ONCE_MAX: usize = 512 << 10;

/// Sends results under the present session.
#[derive(Debug)]
pub(super) struct Outbox {
    pub(super) http: reqwest::Client,
    pub(super) name: Arc<str>,
    pub(super) key: WorkerKey,
    pub(super) session: watch::Receiver<Option<Session>>,
    pub(super) reports: mpsc::Receiver<Report>,
    /// Of the last request.
    pub(super) seq: u64,
}

impl Outbox {
    /// Sends until it is dropped.
    pub(super) async fn run(&mut self) {
        loop {
            let first = tokio::time::timeout(ALIVE_EVERY, self.reports.recv()).await;
            let batch = match first {
                Ok(None) => return,
                Ok(Some(first)) => self.gather(first).await,
                Err(_) => Vec::new(),
            };
            let (results, replies): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|report| (report.result, report.reply)).unzip();
            let is_known = self.send(results).await;
            for reply in replies {
                // Its check may be gone; ignore the error.
                let _ = reply.send(is_known);
            }
        }
    }

    /// The results that go with the first one.
    async fn gather(&mut self, first: Report) -> Vec<Report> {
        let mut bytes = first.result.output.len();
        let mut batch = vec![first];
        let end = tokio::time::Instant::now() + GATHER;
        while batch.len() < RESULTS_AT_ONCE_MAX
            && bytes < BYTES_AT_ONCE_MAX
            && let Ok(Some(report)) = tokio::time::timeout_at(end, self.reports.recv()).await
        {
            bytes += report.result.output.len();
            batch.push(report);
        }
        batch
    }

    /// Sends results; says whether the cluster has taken note of them.
    async fn send(&mut self, results: Vec<ResultOfRun>) -> bool {
        let Some(session) = self.session.borrow().clone() else { return false };
        self.seq += 1;
        let body = Results { lease: session.lease.clone(), seq: self.seq, results };
        let Ok(body) = serde_json::to_vec(&body) else { return false };
        let proof = self.key.prove(Purpose::Results, &body);
        let url = format!("{}{PATH}/{}{RESULTS}", session.server, self.name);
        let request = self.http.put(url).header(PROOF_HEADER, proof).body(body);
        match request.timeout(ANSWER_TIMEOUT).send().await {
            Ok(answer) if answer.status().is_success() => true,
            Ok(answer) => {
                let status = answer.status();
                let text = answer.text().await.unwrap_or_default();
                tracing::warn!(%status, text, "results were not taken");
                if status == reqwest::StatusCode::CONFLICT {
                    session.broken.notify_one();
                }
                false
            }
            Err(error) => {
                tracing::debug!(error = with_causes(&error), "results were not sent");
                false
            }
        }
    }
}
