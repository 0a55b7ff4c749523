//! What the faults of disks share.

use std::time::{Duration, Instant};

use super::Ground;
use crate::cluster::Options;
use crate::disk;
use crate::{Failure, Result};

/// Pause between two polls of the victim.
const POLL: Duration = Duration::from_millis(50);
/// What the server's log says when its disk has failed it.
const HAS_TO_STOP: &str = "this server has to stop";
/// How long it may take from then on: half a second for its clients, and a busy machine.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// What `main` of the server writes last.
const LAST_WORDS: &str = "quorate: ";
/// So much of it is quoted; the rest is in the server's log.
const QUOTED_CHARS: usize = 140;

/// Gives every server a disk, if the machine allows it.
pub(super) fn give_disks(options: &mut Options) -> Result<()> {
    disk::require()?;
    options.disk_mib.get_or_insert(disk::SERVER_DISK_MIB);
    Ok(())
}

/// The server whose disk suffers, mostly the leader.
#[derive(Debug)]
pub(super) struct Victim {
    pub(super) id: u64,
    /// `n2 (leader)`.
    pub(super) name: String,
    /// Length of its log before the fault.
    said: usize,
}

impl Victim {
    /// Chooses one of the servers that should be serving.
    pub(super) async fn choose(ground: &mut Ground) -> Result<Self> {
        let (id, leader) = ground.mostly_leader().await?;
        let name = ground.describe(id, Some(leader));
        let said = ground.cluster.log(id)?.len();
        Ok(Self { id, name, said })
    }

    /// Waits until it has ended by itself, and returns the last words of its process; none: nothing shows
    /// within `limit` that it will. One that says that it has to stop is given the time to do so.
    pub(super) async fn last_words(
        &self,
        ground: &mut Ground,
        limit: Duration,
    ) -> Result<Option<String>> {
        let began = Instant::now();
        while ground.cluster.ended(self.id)?.is_none() {
            let waited = began.elapsed();
            let is_stopping = self.said_since(ground)?.contains(HAS_TO_STOP);
            if is_stopping && waited > limit + STOP_LIMIT {
                let promise = format!("n{} said that it has to stop, and did not", self.id);
                return Err(ground.broken_promise(promise));
            }
            if !is_stopping && waited > limit {
                return Ok(None);
            }
            tokio::time::sleep(POLL).await;
        }
        let words = last_words(&self.said_since(ground)?);
        let promise = || format!("n{} ended by itself and did not say why", self.id);
        words.map(Some).ok_or_else(|| ground.broken_promise(promise()))
    }

    fn said_since(&self, ground: &Ground) -> Result<String> {
        let mut log = ground.cluster.log(self.id)?;
        Ok(log.split_off(self.said.min(log.len())))
    }
}

/// The sentence with which a process says why it ends.
fn last_words(log: &str) -> Option<String> {
    log.lines().rev().find_map(|line| line.strip_prefix(LAST_WORDS)).map(str::to_owned)
}

/// Runs what may hang with a disk on a thread of its own, so that it cannot hang the harness.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Failure::new(error.to_string()))
}

/// The beginning of a text.
pub(super) fn quoted(words: &str) -> String {
    match words.char_indices().nth(QUOTED_CHARS) {
        Some((end, _)) => format!("{}...", &words[..end]),
        None => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_the_last_line_of_the_process_itself() {
        let log =
            "INFO started\nquorate: the first\nERROR this server has to stop\nquorate: the disk\n";
        assert_eq!(last_words(log).as_deref(), Some("the disk"));
        assert_eq!(last_words("INFO quorate: said by the log\n"), None);
    }
    #[test]
    fn long_words_are_quoted_in_part() {
        let long = "ä".repeat(QUOTED_CHARS + 1);
        assert_eq!(quoted(&long), format!("{}...", "ä".repeat(QUOTED_CHARS)));
        assert_eq!(quoted("short"), "short");
    }
}
