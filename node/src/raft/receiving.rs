//! A snapshot that another server sends: how large it may be, how slow, and how many come at a time.
//!
//! Its bytes are judged when all of them are there. Until then whoever sends them could fill the disk, and a full disk ends
//! the server.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::host::disk;

/// No state is larger: every server has all of it in memory.
const BYTES_MAX: u64 = 16 << 30;
/// After so many bytes it is looked again whether there is room on the disk for as many.
const LOOK_EVERY_BYTES: u64 = 16 << 20;
/// How long the next piece may take.
pub(super) const PIECE_TIME_MAX: Duration = Duration::from_secs(30);
/// The leader's, and that of one that has just lost its leadership.
const AT_ONCE_MAX: usize = 2;

/// The snapshots that are being received; cheap to clone.
#[derive(Debug, Clone)]
pub struct Receptions(Arc<Semaphore>);

/// One of them.
#[derive(Debug)]
pub(super) struct Reception {
    directory: Option<PathBuf>,
    received: u64,
    /// Up to where there is room.
    checked: u64,
    _place: OwnedSemaphorePermit,
}

impl Default for Receptions {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE_MAX)))
    }
}

impl Receptions {
    /// Begins to receive one into a directory.
    ///
    /// # Errors
    /// Others are being received.
    pub(super) fn begin(&self, directory: Option<&Path>) -> io::Result<Reception> {
        let place = Arc::clone(&self.0).try_acquire_owned();
        let place = place.map_err(|_| {
            io::Error::other(format!("{AT_ONCE_MAX} other snapshots are being received"))
        })?;
        let directory = directory.map(Path::to_owned);
        Ok(Reception { directory, received: 0, checked: 0, _place: place })
    }
}

impl Reception {
    /// Takes note of a piece of so many bytes, before it is written.
    ///
    /// # Errors
    /// There are too many, or there is no room for them on the disk.
    pub(super) fn take(&mut self, bytes: usize) -> io::Result<()> {
        self.received = self.received.saturating_add(bytes as u64);
        if self.received > BYTES_MAX {
            return Err(io::Error::other(format!("a snapshot of more than {BYTES_MAX} bytes")));
        }
        if self.received <= self.checked {
            return Ok(());
        }
        self.checked = self.received.saturating_add(LOOK_EVERY_BYTES);
        match &self.directory {
            Some(directory) if !disk::has_room_for(directory, LOOK_EVERY_BYTES)? => {
                let text =
                    "there is little room left on the disk, too little for the rest of a snapshot";
                Err(io::Error::new(io::ErrorKind::StorageFull, text))
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_snapshots_come_at_a_time_and_none_without_end() {
        let receptions = Receptions::default();
        let mut first = receptions.begin(None).unwrap();
        let second = receptions.begin(None).unwrap();
        assert!(receptions.begin(None).unwrap_err().to_string().contains("2 other snapshots"));
        drop(second);
        let directory = tempfile::TempDir::new().unwrap();
        let mut next = receptions.begin(Some(directory.path())).unwrap();
        next.take(1 << 20).unwrap();
        assert_eq!((next.received, next.checked), (1 << 20, (1 << 20) + LOOK_EVERY_BYTES));
        let half = usize::try_from(BYTES_MAX / 2).unwrap();
        first.take(half).unwrap();
        first.take(half).unwrap();
        assert!(first.take(1).unwrap_err().to_string().contains("more than"));
    }
}
