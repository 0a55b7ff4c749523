//! Mutual exclusion over the cluster.

use std::time::Duration;

use bytes::Bytes;

use crate::client::Client;
use crate::error::Error;
use crate::holding::{Held, LOCK_DELAY, TTL, Terms, hold};

impl Client {
    /// A lock, by the key that it is kept in.
    #[must_use]
    pub fn lock(&self, key: impl Into<String>) -> Lock {
        let key = key.into();
        Lock {
            client: self.clone(),
            terms: Terms {
                keys: vec![key.clone()],
                prefix: key.clone(),
                value: Bytes::new(),
                name: key,
                ttl: TTL,
                lock_delay: LOCK_DELAY,
            },
        }
    }
}

/// A lock: at most one [`Held`] exists at a time, as far as anybody can know, and their
/// [fencing tokens](Held::fence) grow.
///
/// ```no_run
/// # async fn example(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
/// let lock = client.lock("locks/report").value("host-7");
/// match lock.try_acquire().await? {
///     Some(held) => println!("mine, with fencing token {}", held.fence()),
///     None => println!("somebody else has it"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Lock {
    client: Client,
    terms: Terms,
}

impl Lock {
    /// What is written into the key while it is held, for people who look.
    #[must_use]
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.terms.value = value.into();
        self
    }

    /// After so long a silence of the holder it may be somebody else's: 10 s to 24 h (default 15 s). The cluster waits up to
    /// twice as long.
    #[must_use]
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.terms.ttl = ttl;
        self
    }

    /// For how long nobody gets it after its holder's session has ended without a release: the holder may be at work still
    /// (default 1 s).
    #[must_use]
    pub const fn lock_delay(mut self, lock_delay: Duration) -> Self {
        self.terms.lock_delay = lock_delay;
        self
    }

    /// Waits until it is free, and takes it.
    ///
    /// # Errors
    /// Status 400: the key or the TTL is not allowed. [`Error::ShutDown`]: the client was shut down.
    pub async fn acquire(&self) -> Result<Held, Error> {
        let held = hold(&self.client, self.terms.clone(), None).await?;
        held.ok_or(Error::ShutDown)
    }

    /// The same for at most `wait`; `None`: somebody else had it all the time.
    ///
    /// # Errors
    /// As [`Self::acquire`].
    pub async fn acquire_within(&self, wait: Duration) -> Result<Option<Held>, Error> {
        hold(&self.client, self.terms.clone(), Some(wait)).await
    }

    /// Takes it if it is free.
    ///
    /// # Errors
    /// As [`Self::acquire`].
    pub async fn try_acquire(&self) -> Result<Option<Held>, Error> {
        self.acquire_within(Duration::ZERO).await
    }
}
