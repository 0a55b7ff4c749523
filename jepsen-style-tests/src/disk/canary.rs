//! Files of the harness on a server's disk, which show how the disk behaves.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Failure, Result};

/// A page: the smallest that a disk keeps or loses.
const PAGE: usize = 4096;
const OLD: [u8; PAGE] = [b'o'; PAGE];
const NEW: [u8; PAGE] = [b'n'; PAGE];

/// Three files that show whether a power cut was one: what was synced is there, what was not is gone.
#[derive(Debug)]
pub(crate) struct Canary {
    dir: PathBuf,
}

impl Canary {
    /// Lays out a canary of that name below `root`; all of it is synced.
    pub(crate) fn lay(root: &Path, name: &str) -> Result<Self> {
        let canary = Self { dir: root.join(format!("canary-{name}")) };
        fs::create_dir(&canary.dir)?;
        for path in [canary.synced(), canary.overwritten()] {
            let mut file = File::create(path)?;
            file.write_all(&OLD)?;
            file.sync_all()?;
        }
        File::open(&canary.dir)?.sync_all()?;
        File::open(root)?.sync_all()?;
        Ok(canary)
    }

    fn synced(&self) -> PathBuf {
        self.dir.join("synced")
    }

    fn overwritten(&self) -> PathBuf {
        self.dir.join("overwritten")
    }

    fn unsynced(&self) -> PathBuf {
        self.dir.join("unsynced")
    }

    /// Writes what must not survive: a new file, and new content of an old one. To be called just before
    /// the cut, since the kernel writes by itself after some seconds.
    pub(crate) fn write_unsynced(&self) -> Result<()> {
        fs::write(self.unsynced(), NEW)?;
        Ok(File::options().write(true).open(self.overwritten())?.write_all_at(&NEW, 0)?)
    }

    /// After the cut: an error if what was synced is gone, or what was not is there.
    pub(crate) fn require_cut(&self) -> Result<()> {
        let read = |path| fs::read(path).map_err(|error| Failure::new(format!("canary: {error}")));
        if read(self.synced())? != OLD {
            return Err(Failure::new("the power cut took what had been synced"));
        }
        if read(self.overwritten())? != OLD {
            return Err(Failure::new("what was overwritten without a sync survived the power cut"));
        }
        match fs::read(self.unsynced()) {
            Ok(bytes) if bytes.is_empty() => Ok(()),
            Ok(_) => Err(Failure::new("a file that was not synced survived the power cut")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Failure::new(format!("canary: {error}"))),
        }
    }

    /// Takes it away.
    pub(crate) fn remove(self) -> Result<()> {
        Ok(fs::remove_dir_all(self.dir)?)
    }
}

/// Writes a page and syncs it, as a server's log does, and says how long the sync took. It waits as long
/// as the disk makes it wait.
pub(crate) fn timed_sync(root: &Path) -> io::Result<Duration> {
    let file = File::options().create(true).truncate(false).write(true).open(root.join("paced"))?;
    file.write_all_at(&NEW, 0)?;
    let began = Instant::now();
    file.sync_data()?;
    Ok(began.elapsed())
}

/// A write and sync of a page that may hang.
///
/// It is a process of its own. A thread of the harness that hangs in the kernel would keep a killed harness
/// from ending; so the guardian would wait for it, and it for the guardian to let the disk go.
#[derive(Debug)]
pub(crate) struct SlowWrite(Child);

impl SlowWrite {
    /// Begins to write.
    pub(crate) fn begin(root: &Path) -> Result<Self> {
        let child = Command::new("dd")
            .args(["if=/dev/zero", "bs=4096", "count=1", "conv=fdatasync", "status=none"])
            .arg(format!("of={}", root.join("slow").display()))
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| Failure::new(format!("dd: {error}")))?;
        Ok(Self(child))
    }

    /// Whether it is on the disk, or has failed.
    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }

    /// Waits until it is on the disk.
    pub(crate) fn wait(mut self) -> Result<()> {
        match self.0.wait()? {
            status if status.success() => Ok(()),
            status => Err(Failure::new(format!("dd: {status}"))),
        }
    }
}

impl Drop for SlowWrite {
    fn drop(&mut self) {
        // It ends as soon as the disk lets it; nobody waits for that here.
        drop(self.0.kill());
    }
}

/// Writes more than any leftover room holds.
pub(crate) fn write_much(root: &Path) -> io::Result<()> {
    const PAGES: usize = 64;
    let path = root.join("much");
    let written = (|| {
        let mut file = File::create(&path)?;
        (0..PAGES).try_for_each(|_| file.write_all(&NEW))?;
        file.sync_data()
    })();
    fs::remove_file(path).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A canary in a plain directory, after its unsynced writes.
    fn sung() -> (tempfile::TempDir, Canary) {
        let dir = tempfile::tempdir().unwrap();
        let canary = Canary::lay(dir.path(), "1").unwrap();
        canary.write_unsynced().unwrap();
        (dir, canary)
    }

    #[test]
    fn a_cut_is_believed_only_when_all_three_files_show_it() {
        let (_dir, canary) = sung();
        assert!(canary.require_cut().is_err(), "nothing was lost");
        fs::write(canary.overwritten(), OLD).unwrap();
        assert!(canary.require_cut().is_err(), "the new file is there");
        fs::write(canary.unsynced(), "").unwrap();
        assert!(canary.require_cut().is_ok(), "its name is left, its content gone");
        fs::remove_file(canary.unsynced()).unwrap();
        assert!(canary.require_cut().is_ok(), "its name is gone as well");
        fs::write(canary.synced(), "").unwrap();
        assert!(canary.require_cut().is_err(), "what was synced is lost");
        fs::remove_file(canary.synced()).unwrap();
        assert!(canary.require_cut().is_err(), "what was synced is gone");
    }

    #[test]
    fn a_canary_leaves_nothing_behind() {
        let (dir, canary) = sung();
        canary.remove().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        write_much(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
