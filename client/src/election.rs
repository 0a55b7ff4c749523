//! One leader among several candidates, and everybody else knows who it is.

use std::time::Duration;

use crate::client::Client;
use crate::error::Error;
use crate::holding::Held;
use crate::lock::Lock;
use crate::query::Query;
use crate::types::kv::KvPair;
use crate::watch::WatchBuilder;

impl Client {
    /// An election, by the key that its leader is kept in.
    #[must_use]
    pub fn election(&self, key: impl Into<String>) -> Election {
        let key = key.into();
        Election { client: self.clone(), lock: self.lock(&key), key }
    }
}

/// An election.
///
/// ```no_run
/// # async fn example(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
/// let election = client.election("elections/scheduler");
/// loop {
///     let leadership = election.campaign("host-7").await?;
///     println!("host-7 leads, with fencing token {}", leadership.fence());
///     leadership.lost().await;
/// }
/// # }
/// ```
///
/// Whoever wants to know the leader asks for it once, or watches it:
///
/// ```no_run
/// # async fn example(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
/// let mut leader = client.election("elections/scheduler").watch().start()?;
/// while let Some(leader) = leader.changed().await {
///     match &*leader {
///         Some(leader) => println!("{} leads", leader.name),
///         None => println!("nobody leads"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Election {
    client: Client,
    key: String,
    lock: Lock,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// The candidate's name.
    pub name: String,
    /// Its fencing token.
    pub fence: u64,
    /// Its session.
    pub session: String,
}

impl Election {
    /// After so long a silence of the leader somebody else may lead: 10 s to 24 h (default 15 s).
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { lock: self.lock.ttl(ttl), ..self }
    }

    /// For how long nobody leads after the leader's session has ended without a resignation (default 1 s).
    #[must_use]
    pub fn lock_delay(self, lock_delay: Duration) -> Self {
        Self { lock: self.lock.lock_delay(lock_delay), ..self }
    }

    /// Waits until this candidate leads. [`Held::lost`] tells when it no longer does, [`Held::release`] resigns.
    ///
    /// # Errors
    /// As [`Lock::acquire`](crate::Lock::acquire).
    pub async fn campaign(&self, name: impl Into<String>) -> Result<Held, Error> {
        let name = name.into();
        let session = format!("{}: {name}", self.key);
        self.lock.clone().value(name).named(session).acquire().await
    }

    /// Who leads; `None`: nobody.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn leader(&self) -> Result<Option<Leader>, Error> {
        Ok(leader(self.client.kv().get(&self.key, &Query::new()).await?.value))
    }

    /// Watches who leads.
    #[must_use]
    pub fn watch(&self) -> WatchBuilder<Option<Leader>> {
        self.client.watch_key(&self.key).map(leader)
    }
}

fn leader(pair: Option<KvPair>) -> Option<Leader> {
    let KvPair { session, value, modify_index, .. } = pair?;
    let name = String::from_utf8_lossy(&value).into_owned();
    Some(Leader { name, fence: modify_index, session: session? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_nobody_holds_has_no_leader() {
        let free = KvPair { value: b"a".to_vec(), modify_index: 7, ..KvPair::default() };
        let held = KvPair { session: Some("s".to_owned()), ..free.clone() };
        assert_eq!(leader(Some(free)), None);
        let wanted = Leader { name: "a".to_owned(), fence: 7, session: "s".to_owned() };
        assert_eq!(leader(Some(held)), Some(wanted));
        assert_eq!(leader(None), None);
    }
}
