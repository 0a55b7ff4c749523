//! The key-value store.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::error::Error;
use crate::http::Answer;
use crate::query::{Query, Response, with_id};
use crate::transport::Call;
use crate::types::kv::KvPair;

/// How often [`Kv::update`] tries again when others write the same key.
const UPDATES_MAX: usize = 64;

impl Client {
    /// The key-value store.
    #[must_use]
    pub const fn kv(&self) -> Kv<'_> {
        Kv(self)
    }
}

/// The key-value store: `/v1/kv/`. Values have at most 512 KiB.
///
/// ```no_run
/// # async fn example(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
/// use quorate_client::Query;
///
/// let kv = client.kv();
/// assert!(kv.create("jobs/1", "queued").await?, "somebody else made it first");
/// let seen = kv.get("jobs/1", &Query::new()).await?.value.expect("it was just made");
/// if !kv.cas("jobs/1", "running", seen.modify_index).await? {
///     println!("somebody else has changed it");
/// }
/// for pair in kv.list("jobs/", &Query::new()).await?.value {
///     println!("{} = {}", pair.key, String::from_utf8_lossy(&pair.value));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Kv<'a>(&'a Client);

/// A key's value as a type of one's own, and the index that a conditional write compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// What [`Kv::cas`] takes.
    pub modify_index: u64,
}

impl Kv<'_> {
    /// One key; `None` if it does not exist.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get(&self, key: &str, query: &Query) -> Result<Response<Option<KvPair>>, Error> {
        let found = self.read::<Vec<KvPair>>(key, query).await?;
        Ok(found.map(|pairs| pairs.into_iter().next()))
    }

    /// One key's value, read as JSON; `None` if it does not exist.
    ///
    /// # Errors
    /// [`Error::Decode`]: the value is something else.
    pub async fn get_json<T: DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<Option<Versioned<T>>, Error> {
        let Some(pair) = self.get(key, &Query::new()).await?.value else { return Ok(None) };
        let value = serde_json::from_slice(&pair.value)
            .map_err(|error| Error::Decode(format!("key {key:?}: {error}")))?;
        Ok(Some(Versioned { value, modify_index: pair.modify_index }))
    }

    /// All keys below a prefix, in byte order; empty if there are none.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(&self, prefix: &str, query: &Query) -> Result<Response<Vec<KvPair>>, Error> {
        self.read(prefix, &query.clone().with("recurse", "")).await
    }

    /// The names of all keys below a prefix, in byte order. With `separator` in the query, names are cut behind the first
    /// one after the prefix.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn keys(&self, prefix: &str, query: &Query) -> Result<Response<Vec<String>>, Error> {
        self.read(prefix, &query.clone().with("keys", "")).await
    }

    /// Writes a key.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`]: it may have been written.
    pub async fn put(&self, key: &str, value: impl Into<Bytes>) -> Result<(), Error> {
        self.write(key, value.into(), &Query::new()).await.map(drop)
    }

    /// Writes a key as JSON.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn put_json(&self, key: &str, value: &impl Serialize) -> Result<(), Error> {
        self.put(key, encoded(value)?).await
    }

    /// Writes a key unless it exists; returns whether it did.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn create(&self, key: &str, value: impl Into<Bytes>) -> Result<bool, Error> {
        self.cas(key, value, 0).await
    }

    /// Writes a key if its `ModifyIndex` is `index` (0: if it does not exist); returns whether it did.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn cas(&self, key: &str, value: impl Into<Bytes>, index: u64) -> Result<bool, Error> {
        self.write(key, value.into(), &Query::new().with("cas", index.to_string())).await
    }

    /// The same as JSON.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn cas_json(
        &self,
        key: &str,
        value: &impl Serialize,
        index: u64,
    ) -> Result<bool, Error> {
        self.cas(key, encoded(value)?, index).await
    }

    /// Changes a key's JSON by a function of what it holds, again if somebody else writes it meanwhile; returns what was
    /// written.
    ///
    /// ```no_run
    /// # async fn example(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
    /// let visits = client.kv().update("visits", |old: Option<u64>| old.unwrap_or(0) + 1).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`]: the last attempt may have been written. [`Error::Refused`]: others wrote it each time.
    pub async fn update<T: Serialize + DeserializeOwned>(
        &self,
        key: &str,
        mut change: impl FnMut(Option<T>) -> T,
    ) -> Result<T, Error> {
        for _ in 0..UPDATES_MAX {
            let (old, index) = match self.get_json(key).await? {
                Some(Versioned { value, modify_index }) => (Some(value), modify_index),
                None => (None, 0),
            };
            let new = change(old);
            if self.cas_json(key, &new, index).await? {
                return Ok(new);
            }
        }
        Err(Error::Refused(format!("key {key:?} was changed by others {UPDATES_MAX} times")))
    }

    /// Takes a key for a session and writes it; false if another session has it, or had it until just now
    /// (`LockDelay`). [`Lock`](crate::Lock) does more.
    ///
    /// # Errors
    /// Status 500 `invalid session ...`: there is no such session.
    pub async fn acquire(
        &self,
        key: &str,
        value: impl Into<Bytes>,
        session: &str,
    ) -> Result<bool, Error> {
        let query = Query::new().with("acquire", session);
        let call = put(key, &query).body(value).idempotent();
        self.0.perform(&call).await?.json()
    }

    /// Gives a key back; false if the session does not have it.
    ///
    /// # Errors
    /// Status 500 `invalid session ...`: there is no such session.
    pub async fn release(
        &self,
        key: &str,
        value: impl Into<Bytes>,
        session: &str,
    ) -> Result<bool, Error> {
        let query = Query::new().with("release", session);
        let call = put(key, &query).body(value).idempotent();
        self.0.perform(&call).await?.json()
    }

    /// Writes a key with parameters (`flags`, `cas`, ...); returns whether the condition held.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn put_with(
        &self,
        key: &str,
        value: impl Into<Bytes>,
        query: &Query,
    ) -> Result<bool, Error> {
        self.write(key, value.into(), query).await
    }

    /// Deletes a key, if it exists.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`]: it may have been deleted.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        self.erase(key, &Query::new()).await.map(drop)
    }

    /// Deletes a key if its `ModifyIndex` is `index`; returns whether it did.
    ///
    /// # Errors
    /// As [`Self::delete`].
    pub async fn delete_cas(&self, key: &str, index: u64) -> Result<bool, Error> {
        self.erase(key, &Query::new().with("cas", index.to_string())).await
    }

    /// Deletes all keys below a prefix.
    ///
    /// # Errors
    /// As [`Self::delete`].
    pub async fn delete_tree(&self, prefix: &str) -> Result<(), Error> {
        self.erase(prefix, &Query::new().with("recurse", "")).await.map(drop)
    }

    async fn read<T: DeserializeOwned + Default>(
        &self,
        key: &str,
        query: &Query,
    ) -> Result<Response<T>, Error> {
        let call = Call::get(with_id("/v1/kv/", key), query);
        let served = self.0.transport().send(&call).await?;
        if is_nothing(&served.answer) {
            return Ok(Response::of(&served.answer, T::default()));
        }
        let answer = served.succeeded()?;
        let value = answer.json()?;
        Ok(Response::of(&answer, value))
    }

    async fn write(&self, key: &str, value: Bytes, query: &Query) -> Result<bool, Error> {
        self.0.perform(&put(key, query).body(value)).await?.json()
    }

    async fn erase(&self, key: &str, query: &Query) -> Result<bool, Error> {
        self.0.perform(&Call::delete(with_id("/v1/kv/", key)).query(query)).await?.json()
    }
}

fn put(key: &str, query: &Query) -> Call {
    Call::put(with_id("/v1/kv/", key)).query(query)
}

fn encoded(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::Decode(error.to_string()))
}

/// Whether an answer says that there is no such key. Without an index the 404 did not come from the key-value store.
pub(crate) fn is_nothing(answer: &Answer) -> bool {
    answer.status == 404 && answer.index().is_some()
}
