//! Transactions: several operations that take effect together or not at all.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::client::Client;
use crate::error::Error;
use crate::transport::{Call, Safety};
use crate::types::txn::{KvOp, TxnAnswer, TxnError, TxnOp, TxnResult};

/// Verbs that change nothing.
const READS: [&str; 6] =
    ["get", "get-or-empty", "get-tree", "check-index", "check-session", "check-not-exists"];

impl Client {
    /// A transaction without operations.
    pub const fn txn(&self) -> Txn<'_> {
        Txn { client: self, operations: Vec::new() }
    }
}

/// A transaction: `/v1/txn`, at most 128 operations.
///
/// ```no_run
/// # async fn example(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
/// let moved = client.txn().delete_cas("queue/7", 41).set("done/7", "result").commit().await?;
/// match moved {
///     Ok(results) => println!("{} operations took effect", results.len()),
///     Err(conflict) => println!("nothing was changed: {}", conflict.errors[0].what),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing happens before `commit`"]
pub struct Txn<'a> {
    client: &'a Client,
    operations: Vec<TxnOp>,
}

/// Why a transaction changed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnConflict {
    /// Every operation that failed.
    pub errors: Vec<TxnError>,
}

impl Txn<'_> {
    /// Any operation.
    pub fn operation(mut self, operation: TxnOp) -> Self {
        self.operations.push(operation);
        self
    }

    fn key(self, verb: &str, key: &str, rest: KvOp) -> Self {
        let kv = KvOp { verb: verb.to_owned(), key: key.to_owned(), ..rest };
        self.operation(TxnOp { kv: Some(kv), ..TxnOp::default() })
    }

    /// Writes a key.
    pub fn set(self, key: &str, value: impl AsRef<[u8]>) -> Self {
        let value = STANDARD.encode(value);
        self.key("set", key, KvOp { value, ..KvOp::default() })
    }

    /// Writes a key if its `ModifyIndex` is `index`; else nothing happens at all.
    pub fn cas(self, key: &str, value: impl AsRef<[u8]>, index: u64) -> Self {
        let value = STANDARD.encode(value);
        self.key("cas", key, KvOp { value, index, ..KvOp::default() })
    }

    /// Takes a key for a session and writes it; nothing happens at all if another one has it.
    pub fn lock(self, key: &str, value: impl AsRef<[u8]>, session: &str) -> Self {
        let (value, session) = (STANDARD.encode(value), session.to_owned());
        self.key("lock", key, KvOp { value, session, ..KvOp::default() })
    }

    /// Gives a key back; nothing happens at all if the session does not have it.
    pub fn unlock(self, key: &str, value: impl AsRef<[u8]>, session: &str) -> Self {
        let (value, session) = (STANDARD.encode(value), session.to_owned());
        self.key("unlock", key, KvOp { value, session, ..KvOp::default() })
    }

    /// Reads a key; nothing happens at all if it does not exist.
    pub fn get(self, key: &str) -> Self {
        self.key("get", key, KvOp::default())
    }

    /// Reads all keys below a prefix.
    pub fn get_tree(self, prefix: &str) -> Self {
        self.key("get-tree", prefix, KvOp::default())
    }

    /// Nothing happens at all unless the key's `ModifyIndex` is `index`.
    pub fn check_index(self, key: &str, index: u64) -> Self {
        self.key("check-index", key, KvOp { index, ..KvOp::default() })
    }

    /// Nothing happens at all unless the session has the key.
    pub fn check_session(self, key: &str, session: &str) -> Self {
        let session = session.to_owned();
        self.key("check-session", key, KvOp { session, ..KvOp::default() })
    }

    /// Nothing happens at all if the key exists.
    pub fn check_not_exists(self, key: &str) -> Self {
        self.key("check-not-exists", key, KvOp::default())
    }

    /// Deletes a key.
    pub fn delete(self, key: &str) -> Self {
        self.key("delete", key, KvOp::default())
    }

    /// Deletes a key if its `ModifyIndex` is `index`; else nothing happens at all.
    pub fn delete_cas(self, key: &str, index: u64) -> Self {
        self.key("delete-cas", key, KvOp { index, ..KvOp::default() })
    }

    /// Deletes all keys below a prefix.
    pub fn delete_tree(self, prefix: &str) -> Self {
        self.key("delete-tree", prefix, KvOp::default())
    }

    /// Carries the operations out: all, with their results in order, or none. A transaction of reads only is one
    /// consistent read.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`]: it may have taken effect.
    pub async fn commit(self) -> Result<Result<Vec<TxnResult>, TxnConflict>, Error> {
        let safety = if self.is_read() { Safety::Read } else { Safety::Once };
        self.commit_as(safety).await
    }

    pub(crate) async fn commit_as(
        self,
        safety: Safety,
    ) -> Result<Result<Vec<TxnResult>, TxnConflict>, Error> {
        let call = Call::put("/v1/txn").json(&self.operations)?.safety(safety);
        self.send(&call).await
    }

    /// Carries operations out that may be carried out twice, at another server when one has not answered for so long.
    pub(crate) async fn commit_within(
        self,
        within: Duration,
    ) -> Result<Result<Vec<TxnResult>, TxnConflict>, Error> {
        let call = Call::put("/v1/txn").json(&self.operations)?.idempotent().within(within);
        self.send(&call).await
    }

    async fn send(&self, call: &Call) -> Result<Result<Vec<TxnResult>, TxnConflict>, Error> {
        let served = self.client.transport().send(call).await?;
        if served.answer.status == 409 {
            let TxnAnswer { errors, .. } = served.answer.json()?;
            return Ok(Err(TxnConflict { errors: errors.unwrap_or_default() }));
        }
        let TxnAnswer { results, .. } = served.succeeded()?.json()?;
        Ok(Ok(results.unwrap_or_default()))
    }

    fn is_read(&self) -> bool {
        self.operations.iter().all(|operation| {
            let reads = |verb: &str| READS.contains(&verb);
            operation.kv.as_ref().is_none_or(|kv| reads(&kv.verb))
                && operation.node.as_ref().is_none_or(|node| reads(&node.verb))
                && operation.service.as_ref().is_none_or(|service| reads(&service.verb))
                && operation.check.as_ref().is_none_or(|check| reads(&check.verb))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_knows_whether_it_only_reads() {
        let client = Client::new(["127.0.0.1:1"]).unwrap();
        assert!(client.txn().get("a").check_index("b", 1).get_tree("c").is_read());
        assert!(!client.txn().get("a").delete("b").is_read());
        assert!(!client.txn().lock("a", "x", "s").is_read());
    }
}
