//! Transactions: several operations as one change.
//!
//! All rows that a transaction writes get the same index. It runs in two phases, as in Consul: what
//! can be validated before anything is written (faulty operations, lock delays) fails first; only then
//! do the operations run, in order, each seeing what the earlier ones did. What fails reports every
//! failure of its phase; the caller restores the state as it was before.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::State;
use super::catalog::fold_arc;
use super::change::Change;
use crate::Index;
use crate::command::{CatalogRegistration, KvDeleteMode, KvPutMode, Outcome, Rejection};
use crate::ids::NodeId;
use crate::record::{Cause, CheckRegistration, Indexes, KvEntry, ServiceDefinition};
use crate::txn::{KeyVerb, RowVerb, TxnError, TxnOperation, TxnResult};

/// The most rows that a transaction answers with: every replica collects them.
const RESULTS_MAX: usize = 65_536;

/// The most bytes of values that a transaction answers with.
const RESULT_VALUE_BYTES_MAX: usize = 32 << 20;

/// What one operation comes to: its results, or why it failed.
type Done = Result<Vec<TxnResult>, String>;

/// The members of [`TxnOperation::Key`].
struct KeyOperation<'a> {
    key: &'a Arc<str>,
    value: &'a Bytes,
    flags: u64,
    index: u64,
    session: &'a Arc<str>,
}

impl State {
    /// Runs a transaction that only reads; nothing is changed.
    ///
    /// # Errors
    /// Every operation that fails.
    pub fn evaluate(&self, operations: &[TxnOperation]) -> Result<Vec<TxnResult>, Vec<TxnError>> {
        let (mut copy, mut touched) = (self.clone(), BTreeSet::new());
        // Nothing of it stays, the records included.
        let cause = Cause::Request { server: NodeId::default(), request: None };
        Change::new(&mut copy, &mut touched, cause).run_all(operations)
    }
}

impl Change<'_> {
    /// Runs a transaction. After a failure the state is half changed: the caller puts it back.
    pub(super) fn transact(&mut self, operations: &[TxnOperation]) -> Result<Outcome, Rejection> {
        self.run_all(operations).map(Outcome::Txn).map_err(Rejection::Txn)
    }

    fn run_all(&mut self, operations: &[TxnOperation]) -> Result<Vec<TxnResult>, Vec<TxnError>> {
        let faults = operations.iter().map(|operation| self.fault(operation));
        let errors = numbered(faults);
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut results = Vec::new();
        let mut failures = Vec::new();
        let mut value_bytes = 0;
        for operation in operations {
            failures.push(match self.operate(operation) {
                Ok(more) => {
                    value_bytes += more.iter().map(value_length).sum::<usize>();
                    results.extend(more);
                    None
                }
                Err(what) => Some(what),
            });
            if results.len() > RESULTS_MAX || value_bytes > RESULT_VALUE_BYTES_MAX {
                failures.pop();
                failures.push(Some("response too large".to_owned()));
                break;
            }
        }
        let errors = numbered(failures.into_iter());
        if errors.is_empty() { Ok(results) } else { Err(errors) }
    }

    /// What is wrong with an operation before anything runs.
    fn fault(&self, operation: &TxnOperation) -> Option<String> {
        match operation {
            TxnOperation::Faulty(what) => Some(what.clone()),
            TxnOperation::Key { verb: KeyVerb::Lock, key, .. } if self.is_lock_delayed(key) => {
                Some(format!("failed to lock key {key:?} due to lock delay"))
            }
            _ => None,
        }
    }

    fn operate(&mut self, operation: &TxnOperation) -> Done {
        match operation {
            TxnOperation::Key { verb, key, value, flags, index, session } => {
                let operation = KeyOperation { key, value, flags: *flags, index: *index, session };
                self.on_key(*verb, &operation)
            }
            TxnOperation::Node { verb, node, index } => self.on_node(*verb, node, *index),
            TxnOperation::Service { verb, node, service, index } => {
                self.on_service(*verb, node, service, *index)
            }
            TxnOperation::Check { verb, node, check, index } => {
                self.on_check(*verb, node, check, *index)
            }
            TxnOperation::Faulty(what) | TxnOperation::Unknown(what) => Err(what.clone()),
        }
    }

    // ---- keys --------------------------------------------------------------------------------

    fn on_key(&mut self, verb: KeyVerb, on: &KeyOperation<'_>) -> Done {
        let (key, index) = (on.key, on.index);
        match verb {
            KeyVerb::Set => self.write(on, &KvPutMode::Set, String::new),
            KeyVerb::Cas => self.write(on, &KvPutMode::Cas(index), || {
                format!("failed to set key {key:?}, index is stale")
            }),
            KeyVerb::Lock => self.write(on, &KvPutMode::Acquire(on.session.clone()), || {
                format!("failed to lock key {key:?}, lock is already held")
            }),
            KeyVerb::Unlock => self.write(on, &KvPutMode::Release(on.session.clone()), || {
                format!(
                    "failed to unlock key {key:?}, lock isn't held, or is held by another session"
                )
            }),
            KeyVerb::Delete => self.erase(on, &KvDeleteMode::One),
            KeyVerb::DeleteTree => self.erase(on, &KvDeleteMode::Recurse),
            KeyVerb::DeleteCas => self.erase(on, &KvDeleteMode::Cas(index)),
            KeyVerb::Get => match self.entry(key) {
                Some(row) => Ok(vec![TxnResult::Key(row)]),
                None => Err(format!("key {key:?} doesn't exist")),
            },
            KeyVerb::GetOrEmpty => {
                let row = self.entry(key).unwrap_or_else(|| Arc::new(nothing_at(key)));
                Ok(vec![TxnResult::Key(row)])
            }
            KeyVerb::GetTree => {
                let rows = self.state.kv.below(key).map(|row| TxnResult::Key(row.clone()));
                // One more than allowed, so that the caller sees that there are too many.
                Ok(rows.take(RESULTS_MAX + 1).collect())
            }
            KeyVerb::CheckIndex => self.check_index(key, index),
            KeyVerb::CheckSession => self.check_session(key, on.session),
            KeyVerb::CheckNotExists => match self.entry(key) {
                Some(_) => Err(format!("key {key:?} exists")),
                None => Ok(Vec::new()),
            },
        }
    }

    fn entry(&self, key: &str) -> Option<Arc<KvEntry>> {
        self.state.kv.entries.get(key).cloned()
    }

    fn write(
        &mut self,
        on: &KeyOperation<'_>,
        mode: &KvPutMode,
        refusal: impl FnOnce() -> String,
    ) -> Done {
        let needs_session = matches!(mode, KvPutMode::Acquire(_) | KvPutMode::Release(_));
        if needs_session && on.session.is_empty() {
            return Err("missing session".to_owned());
        }
        match self.put_key(on.key, on.value, on.flags, mode) {
            Ok(Outcome::Condition(false)) => Err(refusal()),
            Ok(_) => Ok(self.entry(on.key).iter().map(|row| without_value(row)).collect()),
            Err(rejection) => Err(rejection.to_string()),
        }
    }

    fn erase(&mut self, on: &KeyOperation<'_>, mode: &KvDeleteMode) -> Done {
        match self.delete_keys(on.key, mode) {
            Outcome::Condition(false) => {
                Err(format!("failed to delete key {:?}, index is stale", on.key))
            }
            _ => Ok(Vec::new()),
        }
    }

    fn check_index(&self, key: &str, index: u64) -> Done {
        match self.entry(key) {
            None => Err(format!("failed to check index, key {key:?} doesn't exist")),
            Some(row) if row.indexes.modify.0 != index => Err(format!(
                "failed index check for key {key:?}, current modify index {} != {index}",
                row.indexes.modify
            )),
            Some(row) => Ok(vec![without_value(&row)]),
        }
    }

    fn check_session(&self, key: &str, session: &str) -> Done {
        let Some(row) = self.entry(key) else {
            return Err(format!("failed to check session, key {key:?} doesn't exist"));
        };
        let holder = row.session.as_deref().unwrap_or_default();
        if holder == session {
            return Ok(vec![without_value(&row)]);
        }
        Err(format!(
            "failed session check for key {key:?}, current session {holder:?} != {session:?}"
        ))
    }

    // ---- the catalogue -----------------------------------------------------------------------

    fn on_node(&mut self, verb: RowVerb, what: &CatalogRegistration, index: u64) -> Done {
        let name = &what.node;
        let found = match what.node_id.as_str() {
            "" => self.state.catalog.slot(name),
            id => self.state.node(id).and_then(|node| self.state.catalog.slot(&node.name)),
        };
        let found = found.map(|slot| slot.node.clone());
        let named = self.state.catalog.slot(name).map(|slot| slot.node.indexes.modify.0);
        let stale = |done| format!("failed to {done} node {name:?}, index is stale");
        match verb {
            RowVerb::Get => match found {
                Some(row) => Ok(vec![TxnResult::Node(row)]),
                None => Err(format!("node {name:?} doesn't exist")),
            },
            RowVerb::Cas if named.unwrap_or(0) != index => Err(stale("set")),
            RowVerb::Set | RowVerb::Cas => {
                let key = self.register_node(what).map_err(|refusal| refusal.to_string())?;
                let slot = self.state.catalog.nodes.get(&key);
                Ok(slot.map(|slot| TxnResult::Node(slot.node.clone())).into_iter().collect())
            }
            RowVerb::DeleteCas if named != Some(index) => Err(stale("delete")),
            RowVerb::Delete | RowVerb::DeleteCas => {
                self.remove_node(&fold_arc(name));
                Ok(Vec::new())
            }
        }
    }

    fn on_service(
        &mut self,
        verb: RowVerb,
        node: &Arc<str>,
        service: &ServiceDefinition,
        index: u64,
    ) -> Done {
        let (key, id) = (fold_arc(node), &service.id);
        let found = self.state.service(node, id).cloned();
        let modify = found.as_ref().map(|row| row.indexes.modify.0);
        let stale =
            |done| format!("failed to {done} service {id:?} on node {node:?}, index is stale");
        match verb {
            RowVerb::Get => match found {
                Some(row) => Ok(vec![TxnResult::Service(row)]),
                None => Err(format!("service {id:?} on node {node:?} doesn't exist")),
            },
            RowVerb::Set | RowVerb::Cas if !self.state.catalog.nodes.contains_key(&key) => {
                Err(Rejection::MissingNode.to_string())
            }
            RowVerb::Cas if modify.unwrap_or(0) != index => Err(stale("set")),
            RowVerb::Set | RowVerb::Cas => {
                self.catalog_put_service(&key, service);
                let row = self.state.service(node, id).cloned();
                Ok(row.map(TxnResult::Service).into_iter().collect())
            }
            RowVerb::DeleteCas if modify != Some(index) => Err(stale("delete")),
            RowVerb::Delete | RowVerb::DeleteCas => {
                self.remove_service(&key, id);
                Ok(Vec::new())
            }
        }
    }

    fn on_check(
        &mut self,
        verb: RowVerb,
        node: &Arc<str>,
        check: &CheckRegistration,
        index: u64,
    ) -> Done {
        let (key, id) = (fold_arc(node), &check.id);
        let found = self.state.check(node, id).cloned();
        let modify = found.as_ref().map(|row| row.indexes.modify.0);
        let stale =
            |done| format!("failed to {done} check {id:?} on node {node:?}, index is stale");
        match verb {
            RowVerb::Get => match found {
                Some(row) => Ok(vec![TxnResult::Check(row)]),
                None => Err(format!("check {id:?} on node {node:?} doesn't exist")),
            },
            RowVerb::Cas if modify.unwrap_or(0) != index => Err(stale("set")),
            RowVerb::Set | RowVerb::Cas => {
                self.set_check(&key, check)?;
                let row = self.state.check(node, id).cloned();
                Ok(row.map(TxnResult::Check).into_iter().collect())
            }
            RowVerb::DeleteCas if modify != Some(index) => Err(stale("delete")),
            RowVerb::Delete | RowVerb::DeleteCas => {
                self.remove_check(&key, id);
                Ok(Vec::new())
            }
        }
    }

    fn set_check(&mut self, key: &Arc<str>, check: &CheckRegistration) -> Result<(), String> {
        let slot = self.state.catalog.nodes.get(key);
        let slot = slot.ok_or_else(|| Rejection::MissingNode.to_string())?;
        let service = &check.service_id;
        if !service.is_empty() && !slot.services.contains_key(service) {
            return Err("Missing service registration".to_owned());
        }
        self.catalog_put_check(key, check.clone());
        Ok(())
    }
}

fn value_length(result: &TxnResult) -> usize {
    match result {
        TxnResult::Key(row) => row.value.len(),
        TxnResult::Node(_) | TxnResult::Service(_) | TxnResult::Check(_) => 0,
    }
}

/// The failures among what operations came to, with their places.
fn numbered(failures: impl Iterator<Item = Option<String>>) -> Vec<TxnError> {
    (0..)
        .zip(failures)
        .filter_map(|(operation, what)| what.map(|what| TxnError { operation, what }))
        .collect()
}

/// A key that does not exist, as `get-or-empty` shows it.
fn nothing_at(key: &Arc<str>) -> KvEntry {
    KvEntry {
        key: key.clone(),
        value: Bytes::new(),
        flags: 0,
        lock_index: 0,
        session: None,
        indexes: Indexes { create: Index(0), modify: Index(0) },
    }
}

/// A key as operations show it that did not ask for its value.
fn without_value(row: &KvEntry) -> TxnResult {
    TxnResult::Key(Arc::new(KvEntry { value: Bytes::new(), ..row.clone() }))
}
