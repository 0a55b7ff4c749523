//! Room on the disk that holds the data directory: an operator is to hear of the end of it before it is
//! there, because a full disk ends the server.
//!
//! The task here looks every few seconds, warns once a minute while there is little, keeps the figures for
//! `/metrics`, and writes the ballast ([`quorate_storage::data_dir`]) only while there is ample room:
//! whoever removed it to start a server on a full disk needs what it took.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use quorate_storage::data_dir::{BALLAST_BYTES, DataDir};

use crate::host::clock::Clock;
use crate::host::figures::{Figure, gauge};
use crate::host::log_rate::LogRate;
use crate::host::supervise;

/// There is little room when less than this part of the file system is free,
const LITTLE_PART: u64 = 10;
/// and less than this: the log, the snapshots and a received snapshot of a large state together take less,
/// so a large disk that is mostly full is none of the server's concern.
const LITTLE_BYTES: u64 = 5 << 30;
/// The ballast may be written where so much is left after it, however little that is of the disk.
const BALLAST_SPARE_BYTES: u64 = 1 << 30;
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Time between two warnings while there is little.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// How large a file system is, and how much of it is free, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// What this process may still write.
    pub free: u64,
    /// All.
    pub total: u64,
}

impl Room {
    /// Whether less than a tenth is free, and less than 5 GiB.
    #[must_use]
    pub fn is_little(self) -> bool {
        self.free < self.total / LITTLE_PART && self.free < LITTLE_BYTES
    }

    /// Whether there is still more than little, or more than 1 GiB, when so much more is written.
    #[must_use]
    pub fn is_ample_for(self, bytes: u64) -> bool {
        let left = Self { free: self.free.saturating_sub(bytes), ..self };
        !left.is_little() || left.free > BALLAST_SPARE_BYTES
    }

    fn of(path: &Path) -> std::io::Result<Self> {
        let data = statvfs(path)?;
        let block = data.fragment_size();
        let bytes = |blocks: u64| blocks.saturating_mul(block);
        Ok(Self { free: bytes(data.blocks_available()), total: bytes(data.blocks()) })
    }
}

/// Whether so much can be written to the file system of `path` without filling it.
///
/// # Errors
/// It cannot be told.
pub(crate) fn has_room_for(path: &Path, bytes: u64) -> std::io::Result<bool> {
    Room::of(path).map(|room| room.is_ample_for(bytes))
}

/// What is known of the disk; shared by who looks and who asks for figures.
#[derive(Debug, Default)]
pub struct Disk {
    free: AtomicU64,
    total: AtomicU64,
}

impl Disk {
    /// What `/metrics` tells; nothing before the first look.
    #[must_use]
    pub fn figures(&self) -> Vec<Figure> {
        let (free, total) = (self.free.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        if total == 0 {
            return Vec::new();
        }
        vec![
            gauge("disk_free_bytes", "Room on the file system of the data directory", free),
            gauge("disk_total_bytes", "Size of the file system of the data directory", total),
        ]
    }

    fn note(&self, room: Room) {
        self.free.store(room.free, Ordering::Relaxed);
        self.total.store(room.total, Ordering::Relaxed);
    }
}

/// Watches the disk; never ends.
pub async fn watch(data_dir: Arc<DataDir>, disk: Arc<Disk>, clock: Clock) {
    let warnings = LogRate::new(clock.clone(), WARN_EVERY);
    let no_ballast = LogRate::new(clock.clone(), WARN_EVERY);
    loop {
        let path = data_dir.path().to_owned();
        match supervise::blocking("looking at the disk", move || Room::of(&path)).await {
            Ok(room) => {
                disk.note(room);
                if room.is_little() && warnings.pass().is_some() {
                    warn_of_little(data_dir.path(), room);
                }
                keep_ballast(&data_dir, room, &no_ballast).await;
            }
            Err(error) => tracing::debug!(%error, "the room on the disk cannot be told"),
        }
        clock.sleep(LOOK_EVERY).await;
    }
}

fn warn_of_little(path: &Path, room: Room) {
    let percent = (u128::from(room.free) * 100 / u128::from(room.total.max(1))).to_string();
    tracing::warn!(
        directory = %path.display(),
        free_bytes = room.free,
        total_bytes = room.total,
        "the disk of the data directory is nearly full, {percent} % are free: a full disk ends this server"
    );
}

/// Writes the ballast where it is missing and there is ample room for it.
async fn keep_ballast(data_dir: &Arc<DataDir>, room: Room, lines: &LogRate) {
    if data_dir.has_ballast() {
        return;
    }
    let path: PathBuf = data_dir.path().to_owned();
    let why = if room.is_ample_for(BALLAST_BYTES as u64) {
        let data_dir = Arc::clone(data_dir);
        let written = supervise::blocking("writing the ballast", move || data_dir.write_ballast());
        match written.await {
            Ok(()) => return,
            Err(error) => error.to_string(),
        }
    } else {
        "there is too little room for it".to_owned()
    };
    if lines.pass().is_some() {
        tracing::warn!(
            directory = %path.display(),
            why,
            "no ballast file: a full disk will leave no room to recover"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_than_a_tenth_is_little() {
        let room = |free| Room { free, total: 1_000 };
        assert!(room(99).is_little());
        assert!(!room(100).is_little());
        assert!(room(150).is_ample_for(50));
        assert!(!room(150).is_ample_for(51));
        assert!(!room(150).is_ample_for(500));
    }

    #[test]
    fn a_large_disk_that_is_mostly_full_has_room_enough() {
        const GIB: u64 = 1 << 30;
        let room = |free| Room { free, total: 270 * GIB };
        assert!(!room(19 * GIB).is_little());
        assert!(!room(5 * GIB).is_little());
        assert!(room(5 * GIB - 1).is_little());
        let ballast = BALLAST_BYTES as u64;
        assert!(
            room(2 * GIB).is_ample_for(ballast),
            "it warns, and writes the ballast all the same"
        );
        assert!(!room(GIB + ballast).is_ample_for(ballast));
    }

    #[tokio::test]
    async fn the_ballast_comes_with_ample_room_only() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = Arc::new(DataDir::open(dir.path(), 1, "store".to_owned()).unwrap());
        assert!(!data_dir.has_ballast(), "opening writes none: the log needs the room first");
        let lines = LogRate::new(Clock::monotonic(), WARN_EVERY);
        let bytes = BALLAST_BYTES as u64;
        keep_ballast(&data_dir, Room { free: bytes, total: bytes * 2 }, &lines).await;
        assert!(!data_dir.has_ballast());
        assert_eq!(lines.pass(), None, "it was said");
        keep_ballast(&data_dir, Room { free: bytes * 2, total: bytes * 2 }, &lines).await;
        assert!(data_dir.has_ballast());
    }

    #[test]
    fn the_room_of_a_directory_is_known() {
        let room = Room::of(Path::new("/")).unwrap();
        assert!(room.total > 0 && room.free <= room.total);
        let disk = Disk::default();
        assert_eq!(disk.figures(), []);
        disk.note(room);
        assert_eq!(disk.figures()[1].value, i64::try_from(room.total).unwrap());
    }
}
