//! What is wrong with the servers, told once and then now and then.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Time between two lines that say the same of a server.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// What was told last of each server, and when.
#[derive(Debug, Default)]
pub(super) struct Complaints(BTreeMap<String, (String, Instant)>);

impl Complaints {
    /// Whether this is to be told of a server now.
    pub(super) fn is_due(&mut self, server: &str, text: &str) -> bool {
        let now = Instant::now();
        let last = self.0.get(server);
        let is_known = last.is_some_and(|(told, at)| told == text && now - *at < LINE_EVERY);
        if !is_known {
            self.0.insert(server.to_owned(), (text.to_owned(), now));
        }
        !is_known
    }

    /// All is well: what comes now is news.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_same_is_told_of_a_server_every_ten_seconds() {
        let mut told = Complaints::default();
        assert!(told.is_due("a", "refused") && told.is_due("b", "refused"));
        tokio::time::advance(LINE_EVERY / 2).await;
        assert!(!told.is_due("a", "refused") && told.is_due("b", "expired"));
        tokio::time::advance(LINE_EVERY / 2).await;
        assert!(told.is_due("a", "refused") && !told.is_due("b", "expired"));
        told.forget();
        assert!(told.is_due("b", "expired"));
    }
}
