//! The files of a stopped server are damaged. The server may refuse to start if it says why, or start if it then
//! serves correctly, which the workloads' checkers and the state hashes decide. It must not panic.
//!
//! A server that refused gets back a copy of its files, taken just before the damage. That is safe for Raft: it has
//! voted and acknowledged nothing since.
//!
//! The server is stopped in order, because then it knows exactly where its log ends. After a crash, damage to the
//! newest end of the log (up to 64 syncs) looks like an interrupted write: the server starts without entries that
//! it had acknowledged, and no log can repair that. `tests/faults/durability.rs` shows what the leader does then.

mod damage;

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

use super::on_disk::{Victim, quoted};
use super::{Ground, Injection, Nemesis};
use crate::cluster::Condition;
use crate::{Failure, Limit, Result};

/// How long a server may take to stop in order.
const STOP_LIMIT: Duration = Duration::from_secs(13);
/// How long it may take until it has refused, or answers.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked at.
const POLL: Duration = Duration::from_millis(20);
/// The log's file, where nearly all of the data are: damaged more often than the small ones beside it.
const LOG: &str = "log/db";
const LOG_OF_TEN: u32 = 6;
/// Held only by a process; filled with zeroes for the operator; neither is data.
const NO_DATA: [&str; 2] = ["lock", "ballast"];

/// Damages one server's files.
#[derive(Debug, Default)]
pub(super) struct Corrupt {
    struck: Option<Struck>,
}

#[derive(Debug)]
struct Struck {
    victim: Victim,
    /// The data directory as it was.
    backup: TempDir,
    /// The damaged file, below the data directory.
    file: PathBuf,
    has_refused: bool,
}

#[async_trait]
impl Nemesis for Corrupt {
    fn name(&self) -> &'static str {
        "corrupt"
    }

    fn summary(&self) -> &'static str {
        "one server is stopped, its files are damaged, and it is started again"
    }

    fn may_end_servers(&self) -> bool {
        true
    }

    async fn inject(&mut self, ground: &mut Ground) -> Result<Injection> {
        let victim = Victim::choose(ground).await?;
        stop(ground, victim.id).await?;
        let data = ground.cluster.data_dir(victim.id).to_owned();
        let backup = tempfile::Builder::new().prefix("backup-").tempdir_in(ground.cluster.dir())?;
        copy(&data, backup.path())?;
        let (file, how) = strike(&data, &mut ground.rng)?;
        let what = format!("stopped {} and damaged {}: {how}", victim.name, file.display());
        let affected = vec![victim.id];
        self.struck = Some(Struck { victim, backup, file, has_refused: false });
        Ok(Injection { what, affected })
    }

    async fn probe(&mut self, ground: &mut Ground) -> Result<String> {
        let Some(struck) = &mut self.struck else { return Err(Failure::new("nothing is damaged")) };
        let id = struck.victim.id;
        let now = std::fs::read(ground.cluster.data_dir(id).join(&struck.file))?;
        if now == std::fs::read(struck.backup.path().join(&struck.file))? {
            return Err(Failure::new("the file is what it was"));
        }
        ground.cluster.start_node(id)?;
        let limit = Limit::new(START_LIMIT);
        while ground.cluster.probe(id).get("/livez").await.is_err() {
            if ground.cluster.ended(id)?.is_some() {
                struck.has_refused = true;
                let words = struck.victim.last_words(ground, Duration::ZERO).await?;
                let words = words.unwrap_or_default();
                // Where its data are everybody knows.
                let data = ground.cluster.data_dir(id).display().to_string();
                return Ok(format!("n{id} refused: {}", quoted(&words.replace(&data, "DIR"))));
            }
            limit.pause(|| format!("n{id} neither refused nor answered")).await?;
        }
        Ok(format!("the file differs from its copy; n{id} started all the same"))
    }

    async fn heal(&mut self, ground: &mut Ground) -> Result<()> {
        let Some(struck) = self.struck.take() else { return Ok(()) };
        let id = struck.victim.id;
        // One that has served since must keep what it promised since.
        if struck.has_refused {
            ground.cluster.put_down(id)?;
            let data = ground.cluster.data_dir(id).to_owned();
            std::fs::remove_dir_all(&data)?;
            std::fs::create_dir(&data)?;
            copy(struck.backup.path(), &data)?;
        }
        if ground.cluster.condition(id) == Condition::Down {
            ground.cluster.start_node(id)?;
        }
        Ok(())
    }
}

/// Stops a server in order.
async fn stop(ground: &mut Ground, id: u64) -> Result<()> {
    ground.cluster.terminate(id)?;
    let limit = Limit::new(STOP_LIMIT);
    while ground.cluster.ended(id)?.is_none() && !limit.is_over() {
        tokio::time::sleep(POLL).await;
    }
    let status = ground.cluster.wait_stopped(id)?;
    if !status.success() {
        let promise = format!("n{id} was asked to end with SIGTERM and ended with {status}");
        ground.broken_promises.push(promise);
    }
    Ok(())
}

/// Damages one of the files below `data`, and says which and how.
fn strike(data: &Path, rng: &mut ChaCha8Rng) -> Result<(PathBuf, String)> {
    const TRIES: usize = 100;
    let files = files(data)?;
    let is_log = |path: &&PathBuf| path.as_path() == Path::new(LOG);
    for _ in 0..TRIES {
        let in_log = rng.random_range(0..10) < LOG_OF_TEN;
        let some: Vec<_> = files.iter().filter(|path| is_log(path) == in_log).collect();
        let (Some(file), Some(kind)) = (some.choose(rng), damage::KINDS.choose(rng)) else {
            continue;
        };
        let path = data.join(file);
        let mut bytes = std::fs::read(&path)?;
        if let Some(how) = kind.strike(&mut bytes, rng) {
            std::fs::write(path, bytes)?;
            return Ok(((*file).clone(), how));
        }
    }
    Err(Failure::new(format!("{} holds nothing to damage", data.display())))
}

/// The files with data below `root`, relative to it, in order.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(root.join(&directory))? {
            let entry = entry?;
            let path = directory.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                directories.push(path);
            } else if !NO_DATA.iter().any(|name| path == Path::new(name)) {
                found.push(path);
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Copies everything below one directory into another one.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn one_file_with_data_is_damaged_and_the_copy_restores_it() {
        let (data, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(data.path().join("log")).unwrap();
        for name in ["lock", "ballast", "mark", "log/db"] {
            std::fs::write(data.path().join(name), name).unwrap();
        }
        copy(data.path(), backup.path()).unwrap();
        let mut struck = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let (file, _) = strike(data.path(), &mut rng).unwrap();
            let whole = std::fs::read(backup.path().join(&file)).unwrap();
            assert_ne!(std::fs::read(data.path().join(&file)).unwrap(), whole);
            std::fs::write(data.path().join(&file), whole).unwrap();
            struck.insert(file);
        }
        assert_eq!(
            struck.into_iter().collect::<Vec<_>>(),
            [Path::new("log/db"), Path::new("mark")]
        );
    }
}
