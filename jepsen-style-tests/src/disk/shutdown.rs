//! ext4's own shutdown, which stands for a power cut. The only unsafe code of the crate: no safe wrapper of this
//! system call exists.

#![allow(unsafe_code, reason = "an ioctl that no crate wraps")]

use std::fs::File;
use std::os::fd::AsRawFd;

use crate::Result;

/// `EXT4_IOC_SHUTDOWN` of the kernel's `fs/ext4/ext4.h`: `_IOR('X', 125, __u32)`. The kernel reads the flag,
/// though the letter says otherwise.
const EXT4_IOC_SHUTDOWN: u64 = 0x8004_587d;
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: not even the journal is written out.
const NO_LOG_FLUSH: u32 = 2;

nix::ioctl_write_ptr_bad!(ext4_shutdown, EXT4_IOC_SHUTDOWN, u32);

/// Shuts the file system down in which `directory` is. Another file system than ext4 refuses.
pub(super) fn without_flush(directory: &File) -> Result<()> {
    // SAFETY: the descriptor is open as long as `directory` is borrowed, and the kernel reads four bytes
    // at the pointer, to a constant.
    unsafe { ext4_shutdown(directory.as_raw_fd(), &NO_LOG_FLUSH) }?;
    Ok(())
}
