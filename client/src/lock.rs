//! Mutual exclusion over the cluster: a key that one process holds, or several keys of which each holder has one.

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
        Lock::new(self, vec![key.clone()], key.clone(), key)
    }
}

/// A lock: at most one [`Held`] exists at a time (of a [`Semaphore`](crate::Semaphore) at most one for each permit), as far
/// as anybody can know, and their [fencing tokens](Held::fence) grow.
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
    /// One of these keys, which all are below `prefix`; `name` is that of the session, for people.
    pub(crate) fn new(client: &Client, keys: Vec<String>, prefix: String, name: String) -> Self {
        let (ttl, lock_delay) = (TTL, LOCK_DELAY);
        let terms = Terms { keys, prefix, value: None, name, ttl, lock_delay };
        Self { client: client.clone(), terms }
    }

    /// Names the session, for people.
    pub(crate) fn named(mut self, name: String) -> Self {
        self.terms.name = name;
        self
    }

    /// What is written into the key when it is taken and when it is released, for people who look. Without this it keeps
    /// the value that it has.
    #[must_use]
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.terms.value = Some(value.into());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_permit_of_a_semaphore_is_a_key_below_the_prefix() {
        let client = Client::new(["127.0.0.1:1"]).unwrap();
        let keys = |prefix, permits| client.semaphore(prefix, permits).terms.keys;
        assert_eq!(keys("a/b", 2), ["a/b/0", "a/b/1"]);
        assert_eq!(keys("a/b/", 0), ["a/b/0"]);
        assert_eq!(keys("a", u32::MAX).len(), 1_024);
    }
}
