//! `snapshot save --every`: backups on a schedule, of which the newest are kept.
//!
//! A backup has its name only once it is whole, checked and on the disk. One that fails is told of on standard error
//! and tried again; the schedule goes on until a signal ends it. Only files with names such as this command gives are
//! ever removed, and a lock keeps a second schedule out of the directory.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tempfile::{Builder, NamedTempFile};
use tokio::time::{Instant, sleep_until};

use super::{Meta, receive};
use crate::cli::ending::Signals;
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::session::{Session, go_text};
use crate::host::clock::wall_time;

/// A shorter interval asks for a load, not for backups.
pub(super) const EVERY_MIN: Duration = Duration::from_secs(1);
/// How soon one that failed is tried again, if the next is not due before.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// How its files are called: `quorate-20260131T235959Z-1234.tgz`, by the time and the index of the log.
const PREFIX: &str = "quorate-";
const SUFFIX: &str = ".tgz";
/// How one is called until it is whole.
const PARTIAL_PREFIX: &str = ".quorate-partial-";
/// The file that is locked for as long as a schedule runs.
const LOCK: &str = ".quorate-backups.lock";

/// When to save, and how many to keep.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    /// From one backup to the next.
    pub(super) every: Duration,
    /// How many are kept; all, if there is no number.
    pub(super) keep: Option<usize>,
}

/// Saves into a directory until a signal comes. The exit code is that of the last attempt.
pub(super) async fn run(
    session: &Session,
    directory: &Path,
    schedule: Schedule,
) -> Result<ExitCode, Failure> {
    if schedule.every < EVERY_MIN {
        let least = go_text(EVERY_MIN);
        return Err(Failure::usage(format!("--every: the least is {least}")));
    }
    let shelf = Shelf::open(directory)?;
    let mut signals = Signals::listen()?;
    let (mut due, mut code) = (Instant::now(), ExitCode::SUCCESS);
    loop {
        tokio::select! {
            biased;
            _ = signals.next() => return Ok(code),
            () = sleep_until(due) => {}
        }
        let saved = tokio::select! {
            biased;
            _ = signals.next() => return Ok(code),
            saved = shelf.save(session, schedule.keep) => saved,
        };
        let now = Instant::now();
        match saved {
            Ok(()) => {
                code = ExitCode::SUCCESS;
                due = (due + schedule.every).max(now);
            }
            Err(failure) => {
                let pause = schedule.every.min(RETRY_AFTER_MAX);
                let again = format!("no backup was saved, trying again in {}", go_text(pause));
                code = failure.after(&again).tell();
                due = now + pause;
            }
        }
    }
}

/// The directory of the backups.
#[derive(Debug)]
struct Shelf {
    directory: PathBuf,
    _lock: File,
}

impl Shelf {
    /// Locks the directory, and removes what an earlier schedule left unfinished.
    fn open(directory: &Path) -> Result<Self, Failure> {
        let of = |path: &Path, error: &io::Error| Failure::of_file(path, error);
        let path = directory.join(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(|error| of(&path, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = format!("{}: another schedule saves here", directory.display());
                return Err(Failure::conflict(text));
            }
            Err(TryLockError::Error(error)) => return Err(of(&path, &error)),
        }
        let shelf = Self { directory: directory.to_owned(), _lock: lock };
        let partial = shelf.names(|name| name.starts_with(PARTIAL_PREFIX));
        for name in partial.map_err(|error| of(directory, &error))? {
            shelf.remove(&name)?;
        }
        Ok(shelf)
    }

    /// Saves one backup, and removes those that are too many.
    async fn save(&self, session: &Session, keep: Option<usize>) -> Result<(), Failure> {
        let of_directory = |error: io::Error| Failure::of_file(&self.directory, &error);
        let partial = Builder::new().prefix(PARTIAL_PREFIX).tempfile_in(&self.directory);
        let mut partial = partial.map_err(of_directory)?;
        let path = partial.path().to_owned();
        let (meta, bytes) = receive(session, &path, &mut partial).await?;
        let path = self.publish(partial, &meta).map_err(of_directory)?;
        let sentence = format!("saved index {} to {} ({bytes} bytes)", meta.index, path.display());
        session.say(&meta, &sentence)?;
        match keep {
            Some(keep) => self.prune(keep, &path),
            None => Ok(()),
        }
    }

    /// Gives it its name, durably.
    fn publish(&self, partial: NamedTempFile, meta: &Meta) -> io::Result<PathBuf> {
        partial.as_file().sync_all()?;
        let name = format!("{PREFIX}{}-{}{SUFFIX}", wall_time().compact(), meta.index);
        let path = self.directory.join(name);
        partial.persist(&path)?;
        File::open(&self.directory)?.sync_all()?;
        Ok(path)
    }

    /// Keeps the newest, and `newest` in any case: the machine's clock may have been set back.
    fn prune(&self, keep: usize, newest: &Path) -> Result<(), Failure> {
        let names = self.names(is_own);
        let mut names = names.map_err(|error| Failure::of_file(&self.directory, &error))?;
        names.retain(|name| newest.file_name() != Some(name.as_ref()));
        let too_many = names.len().saturating_sub(keep.saturating_sub(1));
        names.sort_by_cached_key(|name| age(name));
        for name in names.iter().take(too_many) {
            self.remove(name)?;
            output::note(&format!("removed {name}: {keep} are kept"));
        }
        Ok(())
    }

    /// The names of regular files in the directory.
    fn names(&self, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
                && wanted(&name)
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn remove(&self, name: &str) -> Result<(), Failure> {
        let path = self.directory.join(name);
        fs::remove_file(&path).map_err(|error| Failure::of_file(&path, &error))
    }
}

/// Whether a name is one that a schedule gives.
fn is_own(name: &str) -> bool {
    let is_number = |text: &str, lengths: std::ops::RangeInclusive<usize>| {
        lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    let parts = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
    let parts = parts.and_then(|rest| rest.split_once('-'));
    parts.is_some_and(|(time, index)| {
        let time = time.strip_suffix('Z').and_then(|time| time.split_once('T'));
        let is_time =
            time.is_some_and(|(day, hour)| is_number(day, 8..=8) && is_number(hour, 6..=6));
        is_time && is_number(index, 1..=20)
    })
}

/// What orders names by their age: the time, and within a second the index, which is a number of up to 20 digits.
fn age(name: &str) -> (String, usize, String) {
    let (time, index) = name.rsplit_once('-').unwrap_or((name, ""));
    (time.to_owned(), index.len(), index.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf(names: &[&str]) -> (tempfile::TempDir, Shelf) {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path()).unwrap();
        names.iter().for_each(|name| fs::write(dir.path().join(name), "x").unwrap());
        (dir, shelf)
    }

    fn left(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != LOCK);
        names.sort();
        names
    }

    #[test]
    fn only_names_that_a_schedule_gives_are_its_own() {
        assert!(is_own("quorate-20260131T235959Z-7.tgz"));
        for name in [
            "quorate-20260131T235959Z-7.tgz.old",
            "quorate-20260131T235959Z-.tgz",
            "quorate-20260131T235959Z.tgz",
            "quorate-2026-01-31-7.tgz",
            "quorate-before-upgrade.tgz",
            "my-quorate-20260131T235959Z-7.tgz",
            "notes.txt",
        ] {
            assert!(!is_own(name), "{name}");
        }
    }

    #[test]
    fn the_oldest_of_its_own_files_go_and_nothing_else() {
        let own = [1, 2, 3].map(|second| format!("quorate-20260131T00000{second}Z-{second}.tgz"));
        let (dir, shelf) = shelf(&[&own[0], &own[1], &own[2], "quorate-mine.tgz", "a"]);
        fs::create_dir(dir.path().join("quorate-20250131T000000Z-1.tgz")).unwrap();
        // The clock was set back: the newest has the oldest name.
        shelf.prune(2, &dir.path().join(&own[0])).unwrap();
        let kept = ["a", "quorate-20250131T000000Z-1.tgz", &own[0], &own[2], "quorate-mine.tgz"];
        assert_eq!(left(dir.path()), kept);
    }

    #[test]
    fn a_second_schedule_is_refused_and_what_a_first_left_unfinished_goes() {
        let (dir, shelf) = shelf(&[]);
        assert!(format!("{:?}", Shelf::open(dir.path()).unwrap_err()).contains("another schedule"));
        let half = dir.path().join(format!("{PARTIAL_PREFIX}abc"));
        fs::write(&half, "x").unwrap();
        drop(shelf);
        Shelf::open(dir.path()).unwrap();
        assert!(left(dir.path()).is_empty());
        assert!(Shelf::open(&dir.path().join("absent")).is_err());
    }

    #[test]
    fn backups_of_one_second_are_ordered_by_their_indexes() {
        let mut names =
            ["a-20261201T020716Z-3.tgz", "a-20261201T020715Z-26.tgz", "a-20261201T020715Z-6.tgz"];
        names.sort_by_cached_key(|name| age(name));
        assert_eq!(
            names,
            ["a-20261201T020715Z-6.tgz", "a-20261201T020715Z-26.tgz", "a-20261201T020716Z-3.tgz"]
        );
    }
}
