//! At most so many at a time, over the cluster.

use std::time::Duration;

use bytes::Bytes;

use crate::client::Client;
use crate::error::Error;
use crate::holding::{Held, LOCK_DELAY, TTL, Terms, hold};

/// The most permits that a semaphore can have.
const PERMITS_MAX: u32 = 1_024;

impl Client {
    /// A semaphore with so many permits (1 to 1,024), by the prefix of the keys that they are kept in. All who use it must
    /// agree on their number.
    #[must_use]
    pub fn semaphore(&self, prefix: impl Into<String>, permits: u32) -> Semaphore {
        let prefix = prefix.into();
        let below = format!("{}/", prefix.trim_end_matches('/'));
        let keys = (0..permits.clamp(1, PERMITS_MAX)).map(|number| format!("{below}{number}"));
        Semaphore {
            client: self.clone(),
            terms: Terms {
                keys: keys.collect(),
                prefix: below,
                value: Bytes::new(),
                name: prefix,
                ttl: TTL,
                lock_delay: LOCK_DELAY,
            },
        }
    }
}

/// A semaphore: each permit is a key of its own (`PREFIX/0`, `PREFIX/1`, ...), so each has its holder and its
/// [fencing token](Held::fence), and the tokens of all of them grow together.
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
#[derive(Debug, Clone)]
pub struct Semaphore {
    client: Client,
    terms: Terms,
}

impl Semaphore {
    /// What is written into a permit's key while it is held, for people who look.
    #[must_use]
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.terms.value = value.into();
        self
    }

    /// After so long a silence of a holder its permit may be somebody else's: 10 s to 24 h (default 15 s).
    #[must_use]
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.terms.ttl = ttl;
        self
    }

    /// For how long nobody gets a permit after its holder's session has ended without a release (default 1 s).
    #[must_use]
    pub const fn lock_delay(mut self, lock_delay: Duration) -> Self {
        self.terms.lock_delay = lock_delay;
        self
    }

    /// Waits until a permit is free, and takes it.
    ///
    /// # Errors
    /// As [`Lock::acquire`](crate::Lock::acquire).
    pub async fn acquire(&self) -> Result<Held, Error> {
        let held = hold(&self.client, self.terms.clone(), None).await?;
        held.ok_or(Error::ShutDown)
    }

    /// The same for at most `wait`; `None`: none was free.
    ///
    /// # Errors
    /// As [`Lock::acquire`](crate::Lock::acquire).
    pub async fn acquire_within(&self, wait: Duration) -> Result<Option<Held>, Error> {
        hold(&self.client, self.terms.clone(), Some(wait)).await
    }

    /// Takes a permit if one is free.
    ///
    /// # Errors
    /// As [`Lock::acquire`](crate::Lock::acquire).
    pub async fn try_acquire(&self) -> Result<Option<Held>, Error> {
        self.acquire_within(Duration::ZERO).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_permit_is_a_key_below_the_prefix() {
        let client = Client::new(["127.0.0.1:1"]).unwrap();
        let keys = |prefix, permits| client.semaphore(prefix, permits).terms.keys;
        assert_eq!(keys("a/b", 2), ["a/b/0", "a/b/1"]);
        assert_eq!(keys("a/b/", 0), ["a/b/0"]);
        assert_eq!(keys("a", u32::MAX).len(), 1_024);
    }
}
