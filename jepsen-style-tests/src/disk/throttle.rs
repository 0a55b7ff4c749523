//! A slow disk: the kernel allows only a few writes per second.
//!
//! The limit is on the loop device and in the root of the blkio hierarchy, so it holds for the server, for the file
//! system's journal and for the canary alike. Measured with 10 writes per second: a sync that took 0.5 ms takes 100
//! to 300 ms. Version 2 of the control groups has no limits in its root.

use std::fs::File;
use std::io;

use nix::sys::stat::{major, minor};

use crate::{Failure, Result};

const LIMITS: &str = "/sys/fs/cgroup/blkio/blkio.throttle.write_iops_device";

/// Whether there is such a limit here.
pub(super) fn require() -> Result<()> {
    match File::options().write(true).open(LIMITS) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::new(format!("no disk can be slowed down: {LIMITS}: {error}"))),
    }
}

/// Sets the limit of a device; none: as many as it can.
pub(super) fn limit_writes(device: u64, per_second: Option<u64>) -> Result<()> {
    let line = line(device, per_second);
    let written: io::Result<()> = std::fs::write(LIMITS, &line);
    written.map_err(|error| Failure::new(format!("{LIMITS}: {line}: {error}")))
}

fn line(device: u64, per_second: Option<u64>) -> String {
    let (major, minor) = (major(device), minor(device));
    // The kernel takes 0 for "no limit".
    format!("{major}:{minor} {}", per_second.unwrap_or(0))
}

/// A shell's command that lifts the limit of the device behind an image, if it has one.
pub(super) fn undo_command(quoted_image: &str) -> String {
    format!(
        "for d in $(losetup -n -O MAJ:MIN -j {quoted_image}); do echo \"$d 0\" > {LIMITS}; done"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_names_the_device_by_its_numbers() {
        let device = nix::sys::stat::makedev(7, 3);
        assert_eq!(line(device, Some(10)), "7:3 10");
        assert_eq!(line(device, None), "7:3 0");
    }
}
