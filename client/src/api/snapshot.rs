//! Backups.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::client::Client;
use crate::error::Error;
use crate::query::Query;
use crate::transport::Call;

/// How long a backup may take: it is checked, and goes through the log in pieces.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);

impl Client {
    /// Backups.
    #[must_use]
    pub const fn snapshots(&self) -> Snapshots<'_> {
        Snapshots(self)
    }
}

/// Backups of everything: `/v1/snapshot`, as gzipped archives.
///
/// ```no_run
/// # async fn example(client: quorate_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use quorate_client::Query;
///
/// let mut file = tokio::fs::File::create("backup.tgz").await?;
/// let bytes = client.snapshots().save(&Query::new(), &mut file).await?;
/// println!("{bytes} bytes");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Snapshots<'a>(&'a Client);

impl Snapshots<'_> {
    /// Writes a backup to a file or the like, piece by piece; returns its size in bytes. What was written of one that
    /// fails is no valid archive.
    ///
    /// # Errors
    /// [`Error::Transport`]: the connection broke, or nothing can be written.
    pub async fn save(
        &self,
        query: &Query,
        to: &mut (impl AsyncWrite + Unpin + Send),
    ) -> Result<u64, Error> {
        let call = Call::get("/v1/snapshot", query);
        let (mut response, address) = self.0.transport().open(&call).await?;
        let broken = |source| Error::Transport { address: address.clone(), source };
        let mut written = 0;
        while let Some(piece) = response.chunk().await.map_err(|error| broken(error.into()))? {
            to.write_all(&piece).await.map_err(|error| broken(error.into()))?;
            written += piece.len() as u64;
        }
        to.flush().await.map_err(|error| broken(error.into()))?;
        Ok(written)
    }

    /// Replaces everything, newer keys included, by a backup.
    ///
    /// # Errors
    /// Status 500: it is no backup, or a damaged one. [`Error::OutcomeUnknown`]: it may have been restored.
    pub async fn restore(&self, archive: impl Into<Bytes>) -> Result<(), Error> {
        let call = Call::put("/v1/snapshot").body(archive).within(SNAPSHOT_TIMEOUT);
        self.0.perform(&call).await.map(drop)
    }
}
