//! A file that takes all free space.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::Result;

const NAME: &str = "filler";
/// The largest piece that is asked for at once.
const PIECE_MAX: i64 = 64 << 20;
/// A block of the file system: when not even this is left, it is full.
const BLOCK: i64 = 4096;

/// Takes all room, and returns how many bytes that was.
pub(super) fn fill(root: &Path) -> Result<u64> {
    let file = File::create(root.join(NAME))?;
    let (mut end, mut piece) = (0, PIECE_MAX);
    while piece >= BLOCK {
        match fallocate(&file, FallocateFlags::empty(), end, piece) {
            Ok(()) => end += piece,
            Err(Errno::ENOSPC) => piece /= 2,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    file.sync_all()?;
    Ok(u64::try_from(end).unwrap_or(0))
}

/// Gives the room back, if it was taken.
pub(super) fn remove(root: &Path) -> Result<()> {
    match std::fs::remove_file(root.join(NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
