//! Conditions that an operator has to fix, logged for as long as they last.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use quorate_storage::raft::NodeId;

use super::protocol::Refusal;
use crate::host::clock::{Clock, Moment};

/// Time between two lines about one condition: often enough for somebody who looks at the log now.
pub const WARN_EVERY: Duration = Duration::from_secs(10);
/// A line may come this much earlier. What looks every [`WARN_EVERY`] sees the condition a little sooner or
/// later each time, and would otherwise log it only every second time.
const EARLY_MAX: Duration = Duration::from_millis(500);
/// Number of sentences that are remembered. Beyond it the oldest is forgotten, and may be logged again early.
const REMEMBERED_MAX: usize = 64;

/// Logs each sentence at most once in [`WARN_EVERY`].
#[derive(Debug)]
pub struct Warnings {
    clock: Clock,
    /// When each was last logged. A std lock: held for a look-up only.
    said: Mutex<BTreeMap<String, Moment>>,
}

impl Warnings {
    /// Nothing was logged so far.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, said: Mutex::default() }
    }

    /// Logs a sentence, unless it was logged just now. To be called whenever the condition is found, so that
    /// the line is repeated while the condition lasts.
    pub fn warn(&self, sentence: &str) {
        if self.is_due(sentence) {
            tracing::warn!("{sentence}");
        }
    }

    /// The same for what needs no action but would be logged many times.
    pub fn inform(&self, sentence: &str) {
        if self.is_due(sentence) {
            tracing::info!("{sentence}");
        }
    }

    /// Logs a sentence whose text another server can vary: at most one of its kind in [`WARN_EVERY`].
    pub fn warn_of(&self, kind: &str, sentence: &str) {
        if self.is_due(kind) {
            tracing::warn!("{sentence}");
        }
    }

    fn is_due(&self, sentence: &str) -> bool {
        let now = self.clock.now();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.get(sentence).is_some_and(|at| now.since(*at) + EARLY_MAX < WARN_EVERY) {
            return false;
        }
        if said.len() >= REMEMBERED_MAX {
            let oldest = said.iter().min_by_key(|(_, at)| at.millis());
            if let Some(oldest) = oldest.map(|(sentence, _)| sentence.clone()) {
                said.remove(&oldest);
            }
        }
        said.insert(sentence.to_owned(), now);
        true
    }
}

/// What a refusal means to the operator of the refused server, unless it will pass without action. `member`
/// is the server that was expected at `address`, `cluster` the refused server's own cluster.
#[must_use]
pub fn refusal_text(
    refusal: &Refusal,
    member: Option<NodeId>,
    address: &str,
    cluster: Option<&str>,
) -> Option<String> {
    let expected = member.map_or_else(String::new, |id| format!(", where server {id} should be"));
    match refusal {
        Refusal::WrongCluster => Some(format!(
            "the server at {address}{expected} belongs to another cluster than this server ({}), and refuses it: \
             --join names a server of another cluster, or that server was recovered into a new one. To move this \
             server to the other cluster, start it with an empty data directory and a new --node-id",
            cluster.unwrap_or("none yet")
        )),
        Refusal::WrongServer(found) => Some(format!(
            "server {found} answers at {address}{expected}: two servers have the same address"
        )),
        Refusal::WrongStore => Some(format!(
            "the server at {address}{expected}, has a data directory that is not the one the cluster has for it: \
             two servers run under one --node-id, or it has lost its data"
        )),
        Refusal::Contradicts(entry) => Some(format!(
            "the server at {address}{expected}, has committed other entries than this cluster (here: \
             {entry}), and refuses to follow: the data directories of a majority of the servers were set back or \
             replaced, and what was acknowledged may be in that server's directory only. Keep it, and see \
             `quorate recover`"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_sentence_is_said_again_while_it_lasts_and_not_in_between() {
        let warnings = Warnings::new(Clock::monotonic());
        assert!(warnings.is_due("a") && warnings.is_due("b"));
        for _ in 0..9 {
            tokio::time::advance(Duration::from_secs(1)).await;
            assert!(!warnings.is_due("a"));
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(warnings.is_due("a"));
        assert!(!warnings.is_due("a"));
        // Whoever looks every ten seconds is a little early at times.
        tokio::time::advance(WARN_EVERY - Duration::from_millis(100)).await;
        assert!(warnings.is_due("a"));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let warnings = Warnings::new(Clock::monotonic());
        for number in 0..10 * REMEMBERED_MAX {
            assert!(warnings.is_due(&number.to_string()));
        }
        assert_eq!(warnings.said.lock().unwrap().len(), REMEMBERED_MAX);
    }

    #[test]
    fn a_refusal_for_good_is_explained_and_a_passing_one_is_not() {
        let text = |refusal| refusal_text(&refusal, Some(3), "10.0.0.3:8300", Some("ours"));
        let wrong_cluster = text(Refusal::WrongCluster).unwrap();
        assert!(wrong_cluster.contains("belongs to another cluster than this server (ours)"));
        assert!(
            text(Refusal::WrongServer(4)).unwrap().contains("server 4 answers at 10.0.0.3:8300")
        );
        assert!(text(Refusal::WrongStore).is_some());
        assert_eq!(text(Refusal::NotRunning("stopping".to_owned())), None);
    }
}
