//! A disk for each server: an ext4 file system of its own in an image file, mounted through a loop device. A fault
//! of it affects one server and nothing else on the machine.
//!
//! It can do what real disks do: lose what was not synced ([`Disk::cut_power`]), be full, be slow, hang, and fail.
//! The file system's own shutdown stands for the power cut: the kernel forgets what it has not written to the
//! device, the image keeps what it has.
//!
//! A disk needs root, and leaves nothing behind: it is unmounted and its image removed on drop, and by the
//! cluster's guardian if the harness itself is killed.

mod blackout;
pub(crate) mod canary;
mod filler;
mod shutdown;
mod throttle;

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub use blackout::Blackout;
use canary::Canary;

use crate::guardian::Guardian;
use crate::{Failure, Result};

/// Room for a server's log, its snapshots and its ballast. The image is sparse: what is not used costs
/// nothing.
pub const SERVER_DISK_MIB: u64 = 256;
/// The smallest that holds a journal, for looking whether the machine allows any of this.
const TRIAL_DISK_MIB: u64 = 16;
/// A killed server's last requests may keep the file system busy for a moment.
const UNMOUNT_LIMIT: Duration = Duration::from_secs(10);
/// How often unmounting is tried again.
const UNMOUNT_POLL: Duration = Duration::from_millis(10);
/// Harsher than the defaults, so that what a server forgets to sync is gone: nothing is committed just
/// because time passes, and no rename implies a sync of the file.
const MOUNT_OPTIONS: &str = "loop,noatime,nodiscard,noauto_da_alloc,commit=60";
/// `e2fsck` ends with up to this when the file system is sound, or is again.
const FSCK_MENDED: i32 = 1;

/// One server's disk.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    mount_point: PathBuf,
}

impl Disk {
    /// Where the disk of server `id` of a cluster in `dir` is mounted.
    pub(crate) fn mount_point(dir: &Path, id: u64) -> PathBuf {
        dir.join(format!("disk-n{id}"))
    }

    /// Makes a disk below `dir` and mounts it.
    pub(crate) fn create(dir: &Path, id: u64, mib: u64) -> Result<Self> {
        let mount_point = Self::mount_point(dir, id);
        let disk = Self { image: mount_point.with_extension("img"), mount_point };
        File::create(&disk.image)?.set_len(mib << 20)?;
        std::fs::create_dir(&disk.mount_point)?;
        // No blocks kept for root: a server that runs as root must not find room that another would not.
        let flags = ["-q", "-F", "-m", "0", "-E", "lazy_itable_init=0"];
        run("mkfs.ext4", flags.iter().map(OsStr::new).chain([disk.image.as_os_str()]))?;
        disk.mount()?;
        Ok(disk)
    }

    /// The same, and has it undone if this process is killed.
    pub(crate) fn guarded(dir: &Path, id: u64, mib: u64, guardian: &mut Guardian) -> Result<Self> {
        let mount_point = Self::mount_point(dir, id);
        let image = quoted(&mount_point.with_extension("img"))?;
        let mount_point = quoted(&mount_point)?;
        let throttle = throttle::undo_command(&image);
        guardian.at_end(&format!(
            "{throttle}; fsfreeze -u {mount_point}; umount -l {mount_point}; rmdir {mount_point}; rm -f {image}"
        ))?;
        Self::create(dir, id, mib)
    }

    /// The root of the file system.
    pub fn root(&self) -> &Path {
        &self.mount_point
    }

    /// Whether it is mounted at present.
    fn is_mounted(&self) -> bool {
        let device = |path: &Path| std::fs::metadata(path).map(|data| data.dev()).ok();
        let below = self.mount_point.parent().and_then(device);
        device(&self.mount_point).is_some_and(|own| Some(own) != below)
    }

    /// Mounts it, unless it is mounted.
    pub fn mount(&self) -> Result<()> {
        if self.is_mounted() {
            return Ok(());
        }
        let what = [&self.image, &self.mount_point].map(|path| path.as_os_str());
        run("mount", ["-t", "ext4", "-o", MOUNT_OPTIONS].map(OsStr::new).into_iter().chain(what))
    }

    /// Unmounts it, unless it is not mounted. No process may use it any more.
    pub fn unmount(&self) -> Result<()> {
        if self.is_mounted() {
            // The next mount may be on another device, and this one on somebody else's file. An error means
            // that there was no limit.
            drop(self.limit_writes(None));
        }
        let deadline = Instant::now() + UNMOUNT_LIMIT;
        while self.is_mounted() {
            match run("umount", [&self.mount_point]) {
                Ok(()) => {}
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => std::thread::sleep(UNMOUNT_POLL),
            }
        }
        Ok(())
    }

    /// The power fails: from now on the file system takes and gives nothing, and what was not synced is
    /// gone once it is mounted again.
    pub fn cut_power(&self) -> Result<()> {
        shutdown::without_flush(&File::open(&self.mount_point)?)
    }

    /// Puts it back in order after its power was cut or it failed. No process may use it.
    pub fn repair(&self) -> Result<()> {
        self.unmount()?;
        let checked = Command::new("e2fsck")
            .arg("-fy")
            .arg(&self.image)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| Failure::new(format!("e2fsck: {error}")))?;
        if checked.status.code().is_none_or(|code| code > FSCK_MENDED) {
            let said = String::from_utf8_lossy(&checked.stdout);
            return Err(Failure::new(format!("e2fsck: {}: {said}", checked.status)));
        }
        self.mount()
    }

    /// Every write and sync hangs from now on.
    pub fn freeze(&self) -> Result<()> {
        run("fsfreeze", [OsStr::new("-f"), self.mount_point.as_os_str()])
    }

    /// Ends [`Self::freeze`]. An error if it was not frozen.
    pub fn thaw(&self) -> Result<()> {
        run("fsfreeze", [OsStr::new("-u"), self.mount_point.as_os_str()])
    }

    /// The device takes no more than so many writes a second from now on; none: as many as it can.
    pub fn limit_writes(&self, per_second: Option<u64>) -> Result<()> {
        throttle::limit_writes(std::fs::metadata(&self.mount_point)?.dev(), per_second)
    }

    /// Leaves no room.
    pub fn fill(&self) -> Result<u64> {
        filler::fill(&self.mount_point)
    }

    /// Ends [`Self::fill`].
    pub fn make_room(&self) -> Result<()> {
        filler::remove(&self.mount_point)
    }

    /// The file system has met an error: every write and sync fails until [`Self::repair`].
    pub fn fail(&self) -> Result<()> {
        let flags = ["-o", "remount,abort"].map(OsStr::new);
        // Its exit code speaks of the remount, which may "fail" because the file system is read-only now.
        drop(run("mount", flags.into_iter().chain([self.mount_point.as_os_str()])));
        Ok(())
    }

    /// Whatever would keep a killed server from ending is undone.
    pub(crate) fn let_go(&self) {
        if self.is_mounted() {
            // An error means that it was neither slow nor frozen.
            drop(self.limit_writes(None));
            drop(self.thaw());
        }
    }

    /// Copies a directory of it to where it outlives the disk.
    pub(crate) fn keep(&self, directory: &Path, to: &Path) -> Result<()> {
        run("cp", [OsStr::new("-a"), directory.as_os_str(), to.as_os_str()])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.let_go();
        if self.is_mounted() && run("umount", [&self.mount_point]).is_err() {
            // It goes when its last user ends.
            drop(run("umount", [OsStr::new("-l"), self.mount_point.as_os_str()]));
        }
        // Nothing more can be done about an error here; the guardian tries once more.
        drop(std::fs::remove_dir(&self.mount_point));
        drop(std::fs::remove_file(&self.image));
    }
}

/// Whether this machine lets the harness mount disks and cut their power; the error says why not.
/// It is tried once per process, with a disk that is thrown away.
pub fn require() -> Result<()> {
    static TRIED: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    TRIED.get_or_init(|| trial().map_err(|why| why.to_string())).clone().map_err(Failure::new)
}

fn trial() -> Result<()> {
    let dir = tempfile::Builder::new().prefix("quorate-disk-").tempdir()?;
    let disk = Disk::create(dir.path(), 0, TRIAL_DISK_MIB)?;
    let canary = Canary::lay(disk.root(), "trial")?;
    canary.write_unsynced()?;
    disk.cut_power()?;
    disk.unmount()?;
    disk.mount()?;
    canary.require_cut()
}

/// Whether this machine lets the harness slow a disk down; the error says why not.
pub fn require_throttle() -> Result<()> {
    require()?;
    throttle::require()
}

/// Runs a command of the system to its end.
fn run<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::new(format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!("{program}: {}: {}", output.status, said.trim())))
}

/// A path as one word of a shell's line.
fn quoted(path: &Path) -> Result<String> {
    let text = path.to_str().ok_or_else(|| Failure::new(format!("{path:?} is no text")))?;
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests;
