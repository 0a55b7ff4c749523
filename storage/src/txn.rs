//! Transactions as data: a list of operations that take effect together or not at all.
//!
//! Operations run in order and see what earlier ones did. If any of them fails, nothing is changed
//! and **all** failures are reported. The texts of the failures are Consul's, which clients match.
//!
//! These types are part of [`Command`](crate::command::Command) and
//! [`Outcome`](crate::command::Outcome), so the rule for the log's encoding holds here too: append
//! variants and members at the end, never reorder or remove them.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::record::{
    CatalogRegistration, Check, CheckRegistration, KvEntry, Node, Service, ServiceDefinition,
};

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TxnOperation {
    /// On the key-value store.
    Key {
        /// What to do.
        verb: KeyVerb,
        /// The key, or the prefix for verbs that end with `Tree`.
        key: Arc<str>,
        /// The value to write.
        value: Bytes,
        /// The client's number to write.
        flags: u64,
        /// The `ModifyIndex` to compare with.
        index: u64,
        /// The session to lock, unlock or compare with.
        session: Arc<str>,
    },
    /// On a node.
    Node {
        /// What to do.
        verb: RowVerb,
        /// The node; only its own members count.
        node: Box<CatalogRegistration>,
        /// The `ModifyIndex` to compare with.
        index: u64,
    },
    /// On a service instance.
    Service {
        /// What to do.
        verb: RowVerb,
        /// Name of its node.
        node: Arc<str>,
        /// The instance.
        service: Box<ServiceDefinition>,
        /// The `ModifyIndex` to compare with.
        index: u64,
    },
    /// On a check.
    Check {
        /// What to do.
        verb: RowVerb,
        /// Name of its node.
        node: Arc<str>,
        /// The check.
        check: Box<CheckRegistration>,
        /// The `ModifyIndex` to compare with.
        index: u64,
    },
    /// One that was found faulty before anything ran; then nothing runs.
    Faulty(String),
    /// One whose verb does not exist: it fails in its turn.
    Unknown(String),
}

/// What to do with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyVerb {
    /// Write it.
    Set,
    /// Write it if its `ModifyIndex` is this; 0: if it does not exist.
    Cas,
    /// Write it and hold it by the session.
    Lock,
    /// Write it and let it go, if the session holds it.
    Unlock,
    /// Read it; it must exist.
    Get,
    /// Read all below a prefix.
    GetTree,
    /// Fail unless its `ModifyIndex` is this.
    CheckIndex,
    /// Fail unless the session holds it.
    CheckSession,
    /// Fail if it exists.
    CheckNotExists,
    /// Remove it, if it exists.
    Delete,
    /// Remove all below a prefix.
    DeleteTree,
    /// Remove it if its `ModifyIndex` is this; a key that does not exist is removed already.
    DeleteCas,
    /// Read it; one that does not exist is shown without a value and with indexes 0.
    GetOrEmpty,
}

impl KeyVerb {
    /// The verb that the API writes so; `None` if there is no such verb.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "set" => Self::Set,
            "cas" => Self::Cas,
            "lock" => Self::Lock,
            "unlock" => Self::Unlock,
            "get" => Self::Get,
            "get-tree" => Self::GetTree,
            "check-index" => Self::CheckIndex,
            "check-session" => Self::CheckSession,
            "check-not-exists" => Self::CheckNotExists,
            "delete" => Self::Delete,
            "delete-tree" => Self::DeleteTree,
            "delete-cas" => Self::DeleteCas,
            "get-or-empty" => Self::GetOrEmpty,
            _ => return None,
        })
    }
}

/// What to do with a row of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RowVerb {
    /// Read it; it must exist.
    Get,
    /// Write it.
    Set,
    /// Write it if its `ModifyIndex` is this; 0: if it does not exist.
    Cas,
    /// Remove it, if it exists.
    Delete,
    /// Remove it if it exists with this `ModifyIndex`.
    DeleteCas,
}

impl RowVerb {
    /// The verb that the API writes so; `None` if there is no such verb.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "get" => Self::Get,
            "set" => Self::Set,
            "cas" => Self::Cas,
            "delete" => Self::Delete,
            "delete-cas" => Self::DeleteCas,
            _ => return None,
        })
    }
}

/// What an operation answers; most answer with the row as it is after them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TxnResult {
    /// A key, with its value only if it was read.
    Key(Arc<KvEntry>),
    /// A node.
    Node(Arc<Node>),
    /// A service instance.
    Service(Arc<Service>),
    /// A check.
    Check(Arc<Check>),
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnError {
    /// Its place in the transaction, from 0.
    pub operation: u32,
    /// The reason, in Consul's words.
    pub what: String,
}
