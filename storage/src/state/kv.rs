//! The key-value store.
//!
//! What was deleted leaves its index behind in a tombstone, so that a watched prefix does not fall
//! back when its newest key goes. Tombstones are reaped after a while of cluster time; reaping
//! raises a floor under the indexes of all prefixes, which therefore still never fall. The floor is
//! the index of something that happened long ago, so it wakes nobody.
//!
//! A session ends in one step with all that it holds, as in Consul: a client that sees that it is gone can
//! rely on its locks being free. So a step is kept short by a limit on what one session holds.
//!
//! A prefix is deleted in one step, however many keys are below it: they are cut out of the tree as
//! they are, and one tombstone covers all of them. Memory comes back behind the scenes
//! ([`release`](crate::release)).

use std::sync::Arc;

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use super::change::Change;
use super::level::SESSION_KEYS_LEVEL;
use super::read::ROW_BYTES;
use super::tree::{Row, Tree};
use crate::command::{KvDeleteMode, KvPutMode, Outcome, Rejection};
use crate::record::{Detail, Indexes, KvEntry, SESSION_KEYS_MAX};
use crate::{ClusterTime, Index, Millis, Topic, release};

/// How long a deleted key's index is kept, in cluster time (Consul's figure).
pub(super) const TOMBSTONE_TTL: Millis = Millis::from_secs(15 * 60);

/// What a deleted key leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// The index of the deletion.
    pub index: Index,
    /// When it may be reaped.
    pub until: ClusterTime,
}

/// A tombstone and its position.
#[derive(Debug, Clone)]
pub(super) struct Grave {
    /// The deleted key, or the prefix below which everything was deleted.
    pub(super) key: Arc<str>,
    /// What is left.
    pub(super) tombstone: Tombstone,
}

impl Row for Grave {
    fn key(&self) -> &str {
        &self.key
    }

    fn newest(&self) -> Index {
        self.tombstone.index
    }

    fn weight(&self) -> usize {
        0
    }
}

impl Row for Arc<KvEntry> {
    fn key(&self) -> &str {
        &self.key
    }

    fn newest(&self) -> Index {
        self.indexes.modify
    }

    fn weight(&self) -> usize {
        self.key.len() + self.value.len() + ROW_BYTES
    }

    fn is_marked(&self) -> bool {
        self.session.is_some()
    }
}

/// The store's tables.
#[derive(Debug, Clone, Default)]
pub(super) struct Kv {
    /// The keys. Those that a session holds are marked.
    pub(super) entries: Tree<Arc<KvEntry>>,
    /// Deleted keys; none of them exists.
    pub(super) tombstones: Tree<Grave>,
    /// Prefixes below which everything was deleted. What is there now was written since.
    pub(super) cut: Tree<Grave>,
    /// Keys that no session can acquire before a time.
    pub(super) lock_delays: OrdMap<Arc<str>, ClusterTime>,
    /// Derived: tombstones, oldest first (later deletions have later deadlines).
    pub(super) graves: OrdSet<(Index, Arc<str>)>,
    /// Derived: the same for those of prefixes.
    pub(super) cut_graves: OrdSet<(Index, Arc<str>)>,
    /// Derived: lock delays, first to end first.
    pub(super) delay_ends: OrdSet<(ClusterTime, Arc<str>)>,
    /// Derived: keys by the session that holds them.
    pub(super) held: OrdMap<Arc<str>, OrdSet<Arc<str>>>,
}

impl Kv {
    /// All keys that begin with `prefix`, in byte order.
    pub(super) fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Arc<KvEntry>> {
        self.entries.below(prefix)
    }

    /// The newest index below a prefix, tombstones included; `newest` is the table's.
    pub(super) fn newest_below(&self, prefix: &str, newest: Index) -> Option<Index> {
        if prefix.is_empty() {
            return Some(newest);
        }
        self.entries
            .sum_below(prefix)
            .newest
            .max(self.tombstones.sum_below(prefix).newest)
            .max(self.cut.sum_below(prefix).newest)
            .max(self.newest_cut_around(prefix))
    }

    /// The newest deletion of all that begins with a part of this prefix.
    fn newest_cut_around(&self, prefix: &str) -> Option<Index> {
        if self.cut.is_empty() {
            return None;
        }
        let ends = prefix.char_indices().map(|(at, _)| &prefix[..at]);
        ends.filter_map(|part| self.cut.get(part)).map(Grave::newest).max()
    }

    /// Writes a row.
    pub(super) fn put_row(&mut self, row: KvEntry) {
        let key = row.key.clone();
        if let Some(holder) = &row.session {
            self.held.entry(holder.clone()).or_default().insert(key.clone());
        }
        if let Some(grave) = self.tombstones.remove(&key) {
            self.graves.remove(&(grave.tombstone.index, key));
        }
        let holder = row.session.clone();
        if let Some(old) = self.entries.insert(Arc::new(row))
            && old.session != holder
        {
            self.let_go(&old);
        }
    }

    /// Removes a row and leaves a tombstone.
    fn insert_tombstone(&mut self, key: &Arc<str>, grave: Tombstone) {
        if let Some(old) = self.entries.remove(key) {
            self.let_go(&old);
        }
        self.put_tombstone(key.clone(), grave);
    }

    /// Writes a tombstone of a key that does not exist.
    pub(super) fn put_tombstone(&mut self, key: Arc<str>, tombstone: Tombstone) {
        self.graves.insert((tombstone.index, key.clone()));
        self.tombstones.insert(Grave { key, tombstone });
    }

    /// Removes everything below a prefix and leaves one tombstone. Returns how many keys were there.
    fn cut_below(&mut self, prefix: &Arc<str>, tombstone: Tombstone) -> usize {
        let gone = self.entries.cut_below(prefix);
        let count = gone.len();
        if count == 0 {
            return 0;
        }
        gone.marked().into_iter().for_each(|row| self.let_go(row));
        release::later(gone);
        self.put_cut(prefix.clone(), tombstone);
        count
    }

    /// Writes the tombstone of all that was below a prefix.
    pub(super) fn put_cut(&mut self, key: Arc<str>, tombstone: Tombstone) {
        self.cut_graves.insert((tombstone.index, key.clone()));
        let older = self.cut.insert(Grave { key: key.clone(), tombstone });
        if let Some(older) = older.filter(|older| older.tombstone.index != tombstone.index) {
            self.cut_graves.remove(&(older.tombstone.index, key));
        }
    }

    /// How many keys a session holds.
    pub(super) fn held_by(&self, session: &str) -> usize {
        self.held.get(session).map_or(0, OrdSet::len)
    }

    /// The row's session no longer holds its key.
    fn let_go(&mut self, row: &KvEntry) {
        let Some(holder) = &row.session else { return };
        let Some(keys) = self.held.get_mut(holder) else { return };
        keys.remove(&row.key);
        if keys.is_empty() {
            self.held.remove(holder);
        }
    }

    /// Keeps a key from being acquired until then.
    pub(super) fn delay_lock(&mut self, key: &Arc<str>, until: ClusterTime) {
        if let Some(old) = self.lock_delays.insert(key.clone(), until) {
            self.delay_ends.remove(&(old, key.clone()));
        }
        self.delay_ends.insert((until, key.clone()));
    }

    /// When the next lock delay ends or the next tombstone may be reaped.
    pub(super) fn next_housekeeping(&self) -> Option<ClusterTime> {
        let delay = self.delay_ends.get_min().map(|(until, _)| *until);
        let until = |graves: &OrdSet<(Index, Arc<str>)>, table: &Tree<Grave>| {
            graves.get_min().and_then(|(_, key)| Some(table.get(key)?.tombstone.until))
        };
        let key = until(&self.graves, &self.tombstones);
        let prefix = until(&self.cut_graves, &self.cut);
        [delay, key, prefix].into_iter().flatten().min()
    }

    /// Forgets lock delays that are over, at most `left`.
    pub(super) fn end_lock_delays(&mut self, limit: ClusterTime, left: &mut u32) {
        while *left > 0
            && let Some((until, key)) = self.delay_ends.get_min().cloned()
            && until <= limit
        {
            self.delay_ends.remove(&(until, key.clone()));
            self.lock_delays.remove(&key);
            *left -= 1;
        }
    }

    /// Forgets tombstones that are old enough, at most `left`; returns the newest index forgotten.
    pub(super) fn reap(&mut self, limit: ClusterTime, left: &mut u32) -> Index {
        let keys = reap_from(&mut self.graves, &mut self.tombstones, limit, left);
        keys.max(reap_from(&mut self.cut_graves, &mut self.cut, limit, left))
    }
}

fn reap_from(
    graves: &mut OrdSet<(Index, Arc<str>)>,
    table: &mut Tree<Grave>,
    limit: ClusterTime,
    left: &mut u32,
) -> Index {
    let mut newest = Index::START;
    while *left > 0
        && let Some((index, key)) = graves.get_min().cloned()
        && table.get(&key).is_some_and(|grave| grave.tombstone.until <= limit)
    {
        table.remove(&key);
        graves.remove(&(index, key));
        newest = newest.max(index);
        *left -= 1;
    }
    newest
}

impl Change<'_> {
    /// Writes a key if its condition holds.
    pub(super) fn put_key(
        &mut self,
        key: &Arc<str>,
        value: &Bytes,
        flags: u64,
        mode: &KvPutMode,
    ) -> Result<Outcome, Rejection> {
        let old = self.state.kv.entries.get(key).cloned();
        let old_session = || old.as_ref().and_then(|old| old.session.clone());
        // An unconditional write and a compare-and-set leave the holder alone, but reset the count
        // of acquisitions: Consul does, and clients see it.
        let (holds, lock_index, session) = match mode {
            KvPutMode::Set => (true, 0, old_session()),
            KvPutMode::Cas(expected) => {
                (*expected == modify_index(old.as_deref()), 0, old_session())
            }
            KvPutMode::Acquire(session) => match self.acquire(key, old.as_deref(), session)? {
                Some(lock_index) => (true, lock_index, Some(session.clone())),
                None => (false, 0, None),
            },
            KvPutMode::Release(session) => {
                let holder = old.as_ref().filter(|old| old.session.as_ref() == Some(session));
                (holder.is_some(), holder.map_or(0, |old| old.lock_index), None)
            }
        };
        if holds {
            self.write_key(
                old.as_deref(),
                KvEntry {
                    key: key.clone(),
                    value: value.clone(),
                    flags,
                    lock_index,
                    session,
                    indexes: Indexes::default(),
                },
            );
        }
        Ok(Outcome::Condition(holds))
    }

    /// Whether a session that ended not long ago held the key.
    pub(super) fn is_lock_delayed(&self, key: &str) -> bool {
        self.state.kv.lock_delays.get(key).is_some_and(|until| *until > self.time())
    }

    /// The lock index with which a session holds the key from now on; `None` if it cannot have it.
    fn acquire(
        &self,
        key: &Arc<str>,
        old: Option<&KvEntry>,
        session: &Arc<str>,
    ) -> Result<Option<u64>, Rejection> {
        if self.is_lock_delayed(key) {
            return Ok(None);
        }
        if !self.state.sessions.contains_key(session) {
            return Err(Rejection::InvalidSession(session.to_string()));
        }
        let lock_index = match old {
            None => 1,
            Some(old) => match &old.session {
                None => old.lock_index.saturating_add(1),
                Some(holder) if holder == session => return Ok(Some(old.lock_index)),
                Some(_) => return Ok(None),
            },
        };
        if self.state.level() >= SESSION_KEYS_LEVEL
            && self.state.kv.held_by(session) >= SESSION_KEYS_MAX
        {
            return Err(Rejection::TooManyKeys(session.to_string()));
        }
        Ok(Some(lock_index))
    }

    /// Writes a row if it differs from the old one.
    fn write_key(&mut self, old: Option<&KvEntry>, mut row: KvEntry) {
        let index = self.index();
        row.indexes = old.map_or(Indexes { create: index, modify: index }, |old| old.indexes);
        if old == Some(&row) {
            return;
        }
        row.indexes.modify = index;
        self.record_key(old, &row);
        let key = row.key.clone();
        self.state.kv.put_row(row);
        self.touch(Topic::Key(key));
    }

    /// Takes a key from the session that holds it.
    pub(super) fn release_key(&mut self, key: &Arc<str>) {
        let Some(old) = self.state.kv.entries.get(key).cloned() else { return };
        self.write_key(Some(&old), KvEntry { session: None, ..KvEntry::clone(&old) });
    }

    /// Deletes a key, if it exists.
    pub(super) fn delete_key(&mut self, key: &Arc<str>) {
        let Some(old) = self.state.kv.entries.get(key) else { return };
        let holder = old.session.clone();
        self.record_deleted(key, holder, Detail::None);
        let grave = Tombstone { index: self.index(), until: self.time() + TOMBSTONE_TTL };
        self.state.kv.insert_tombstone(key, grave);
        self.touch(Topic::Key(key.clone()));
    }

    /// Deletes everything below a prefix. One topic is touched: those who watch a key or a prefix
    /// below find themselves.
    fn delete_below(&mut self, prefix: &Arc<str>) {
        let grave = Tombstone { index: self.index(), until: self.time() + TOMBSTONE_TTL };
        let count = self.state.kv.cut_below(prefix, grave);
        if count > 0 {
            self.record_deleted(prefix, None, Detail::Below(count as u64));
            self.touch(Topic::Prefix(prefix.clone()));
        }
    }

    /// Deletes a key or a prefix if the condition holds.
    pub(super) fn delete_keys(&mut self, key: &Arc<str>, mode: &KvDeleteMode) -> Outcome {
        match mode {
            KvDeleteMode::One => self.delete_key(key),
            KvDeleteMode::Cas(expected) => {
                let old = self.state.kv.entries.get(key);
                if old.is_some_and(|old| old.indexes.modify.0 != *expected) {
                    return Outcome::Condition(false);
                }
                self.delete_key(key);
            }
            KvDeleteMode::Recurse => self.delete_below(key),
        }
        Outcome::Condition(true)
    }
}

/// What a compare-and-set compares with; 0: the key does not exist.
fn modify_index(row: Option<&KvEntry>) -> u64 {
    row.map_or(0, |row| row.indexes.modify.0)
}
