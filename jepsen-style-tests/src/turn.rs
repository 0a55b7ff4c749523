//! One cluster at a time on one machine.
//!
//! Timing assertions mean nothing while another test kills and floods its own cluster on the same two cores. A file
//! lock works between the threads of one test program, between test programs, and with every test runner, and the
//! system releases it when its holder dies.

use std::fs::File;

use crate::{Failure, Result, binary};

/// The right to run a cluster. Dropping it lets the next one begin.
#[derive(Debug)]
pub struct Turn {
    _lock: File,
}

impl Turn {
    /// Waits for a turn that nobody shares, without a limit: the test runner has its own.
    pub async fn take() -> Result<Self> {
        Self::lock(File::lock).await
    }

    /// Waits for a turn that others may share: for tests whose timing tolerates another cluster.
    pub async fn share() -> Result<Self> {
        Self::lock(File::lock_shared).await
    }

    async fn lock(lock: fn(&File) -> std::io::Result<()>) -> Result<Self> {
        let path = binary::target_dir()?.join("quorate-cluster.lock");
        let locked = tokio::task::spawn_blocking(move || -> std::io::Result<File> {
            let file = File::options().create(true).truncate(false).write(true).open(path)?;
            lock(&file)?;
            Ok(file)
        })
        .await
        .map_err(|error| Failure::new(format!("waiting for the turn: {error}")))??;
        Ok(Self { _lock: locked })
    }
}
