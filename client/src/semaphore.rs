//! At most so many at a time, over the cluster.

use crate::client::Client;
use crate::lock::Lock;

/// The most permits that a semaphore can have.
const PERMITS_MAX: u32 = 1_024;

/// A semaphore is a lock with several keys: each permit is a key of its own (`PREFIX/0`, `PREFIX/1`, ...), so each has its
/// holder and its [fencing token](crate::Held::fence), and the tokens of all of them grow together.
///
/// ```no_run
/// # async fn example(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
/// let permit = client.semaphore("limits/exports", 3).acquire().await?;
/// // ... at most three of these at a time ...
/// permit.release().await?;
/// # Ok(())
/// # }
/// ```
///
/// Who waits is not served in turn: a free permit goes to whoever takes it first.
pub type Semaphore = Lock;

impl Client {
    /// A semaphore with so many permits (1 to 1,024), by the prefix of the keys that they are kept in. All who use it must
    /// agree on their number; each key says it (`permits=2`), unless [`Lock::value`] says something else.
    #[must_use]
    pub fn semaphore(&self, prefix: impl Into<String>, permits: u32) -> Semaphore {
        let prefix = prefix.into();
        let below = format!("{}/", prefix.trim_end_matches('/'));
        let permits = permits.clamp(1, PERMITS_MAX);
        let keys = (0..permits).map(|number| format!("{below}{number}"));
        Lock::new(self, keys.collect(), below.clone(), prefix).value(format!("permits={permits}"))
    }
}
