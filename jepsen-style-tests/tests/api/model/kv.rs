//! Keys and locks, sessions, prepared queries and coordinates.

use std::time::Instant;

use super::state::{At, Key, Model, Outcome, Query, Refusal, Session, Topic, fold};

/// The condition of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PutMode {
    Set,
    Cas(u64),
    Acquire(String),
    Release(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DeleteMode {
    One,
    Recurse,
    Cas(u64),
}

/// What a client asks a session to be.
#[derive(Debug, Clone, Default)]
pub(crate) struct SessionWish {
    pub(crate) name: String,
    /// Empty: the agent's own.
    pub(crate) node: String,
    /// In whole seconds; `None` is the default of 15.
    pub(crate) lock_delay: Option<u64>,
    /// Empty: `release`.
    pub(crate) behavior: String,
    pub(crate) ttl: String,
    pub(crate) node_checks: Option<Vec<String>>,
    pub(crate) checks: Option<Vec<String>>,
}

fn invalid_session(id: &str) -> Refusal {
    (500, format!("invalid session {id:?}"))
}

impl Model {
    /// Writes a key if its condition holds. `is_index` says whether a number is the index of a stamp.
    pub(crate) fn put(
        &mut self,
        key: &str,
        value: &[u8],
        flags: u64,
        mode: &PutMode,
        is_index: impl Fn(u64, u64) -> bool,
    ) -> Outcome<bool> {
        let old = self.keys.get(key).cloned();
        let holder = old.as_ref().and_then(|old| old.session.clone());
        let count = old.as_ref().map_or(0, |old| old.lock_index);
        let written = match mode {
            PutMode::Set => Some((0, holder)),
            PutMode::Cas(index) => {
                let holds = match &old {
                    None => *index == 0,
                    Some(old) => is_index(old.at.modify, *index),
                };
                holds.then_some((0, holder))
            }
            PutMode::Acquire(_) if self.is_delayed(key) == Some(true) => None,
            PutMode::Acquire(id) if !self.sessions.contains_key(id) => {
                return Err(invalid_session(id));
            }
            PutMode::Acquire(id) => match holder {
                None => Some((count + 1, Some(id.clone()))),
                Some(holder) if holder == *id => Some((count, Some(holder))),
                Some(_) => None,
            },
            PutMode::Release(id) => (holder.as_ref() == Some(id)).then_some((count, None)),
        };
        let Some((lock_index, session)) = written else { return Ok(false) };
        let at = At { create: 0, modify: 0 };
        self.write(key, Key { value: value.to_vec(), flags, lock_index, session, at });
        Ok(true)
    }

    /// Writes a row, unless it is as before.
    fn write(&mut self, key: &str, mut row: Key) {
        let old = self.keys.get(key);
        if let Some(old) = old {
            row.at = old.at;
            if *old == row {
                return;
            }
        }
        row.at = self.at(old.map(|old| old.at));
        self.keys.insert(key.to_owned(), row);
        self.graves.remove(key);
        self.touch(Topic::Key(key.to_owned()));
    }

    pub(crate) fn delete(
        &mut self,
        key: &str,
        mode: &DeleteMode,
        is_index: impl Fn(u64, u64) -> bool,
    ) -> bool {
        match mode {
            DeleteMode::Cas(index) => {
                let old = self.keys.get(key);
                if old.is_some_and(|old| !is_index(old.at.modify, *index)) {
                    return false;
                }
                self.insert_tombstone(key);
            }
            DeleteMode::One => self.insert_tombstone(key),
            DeleteMode::Recurse => {
                let keys: Vec<String> = self.keys_below(key).map(|(key, _)| key.clone()).collect();
                if !keys.is_empty() {
                    keys.iter().for_each(|key| drop(self.keys.remove(key)));
                    self.cuts.insert(key.to_owned(), self.now());
                    self.touch(Topic::Prefix(key.to_owned()));
                }
            }
        }
        true
    }

    fn insert_tombstone(&mut self, key: &str) {
        if self.keys.remove(key).is_some() {
            self.graves.insert(key.to_owned(), self.now());
            self.touch(Topic::Key(key.to_owned()));
        }
    }

    // ---- sessions ----------------------------------------------------------------------------

    pub(crate) fn create_session(
        &mut self,
        agent: &str,
        wish: &SessionWish,
        id: &str,
    ) -> Outcome<()> {
        let is_own = wish.node.is_empty() || fold(&wish.node) == fold(agent);
        if is_own {
            self.ensure_agent(agent);
        }
        let key = if is_own { fold(agent) } else { fold(&wish.node) };
        let Some(node) = self.nodes.get(&key) else {
            return Err((500, "Missing node registration".to_owned()));
        };
        let is_bare = wish.checks.as_ref().is_some_and(Vec::is_empty);
        let node_checks = match &wish.node_checks {
            Some(given) => given.clone(),
            None if is_bare => Vec::new(),
            None => vec!["serfHealth".to_owned()],
        };
        let checks = wish.checks.clone().filter(|given| !given.is_empty());
        for needed in node_checks.iter().chain(checks.iter().flatten()) {
            let Some(check) = node.checks.get(needed) else {
                return Err((500, format!("Missing check '{needed}' registration")));
            };
            if check.facts.status == "critical" {
                return Err((500, format!("Check '{needed}' is in critical state")));
            }
        }
        let row = Session {
            name: wish.name.clone(),
            node: node.name.clone(),
            lock_delay_nanos: wish.lock_delay.unwrap_or(15) * 1_000_000_000,
            deletes: wish.behavior == "delete",
            ttl: wish.ttl.clone(),
            node_checks,
            checks,
            at: self.at(None),
        };
        self.sessions.insert(id.to_owned(), row);
        self.touch(Topic::Sessions);
        Ok(())
    }

    /// Ends a session, if there is one, and takes its keys from it.
    pub(crate) fn end_session(&mut self, id: &str) {
        let Some(session) = self.sessions.remove(id) else { return };
        self.touch(Topic::Sessions);
        let held = |row: &&Key| row.session.as_deref() == Some(id);
        let keys: Vec<(String, Key)> = self
            .keys
            .iter()
            .filter(|(_, row)| held(row))
            .map(|(key, row)| (key.clone(), row.clone()))
            .collect();
        for (key, row) in keys {
            match session.deletes {
                true => self.insert_tombstone(&key),
                false => self.write(&key, Key { session: None, ..row }),
            }
            if session.lock_delay_nanos > 0 {
                self.delays.insert(key, Instant::now());
            }
        }
        let before = self.queries.len();
        self.queries.retain(|_, query| query.session != id);
        if self.queries.len() < before {
            self.touch(Topic::Queries);
        }
    }

    /// Ends the sessions that need this check of this node.
    pub(crate) fn end_sessions_on(&mut self, node: &str, check: &str) {
        let needs = |session: &Session| {
            let mut needed = session.node_checks.iter().chain(session.checks.iter().flatten());
            fold(&session.node) == node && needed.any(|needed| needed == check)
        };
        self.end_sessions(needs);
    }

    /// Ends the sessions that belong to a node.
    pub(crate) fn end_sessions_of(&mut self, node: &str) {
        self.end_sessions(|session| fold(&session.node) == node);
    }

    fn end_sessions(&mut self, ends: impl Fn(&Session) -> bool) {
        let ending: Vec<String> = self
            .sessions
            .iter()
            .filter(|(_, session)| ends(session))
            .map(|(id, _)| id.clone())
            .collect();
        ending.iter().for_each(|id| self.end_session(id));
    }

    // ---- prepared queries and coordinates ----------------------------------------------------

    /// Creates or changes a query.
    pub(crate) fn put_query(&mut self, id: &str, is_new: bool, mut query: Query) -> Outcome<()> {
        if query.name.is_empty() && query.session.is_empty() {
            let text = "Invalid prepared query: Must be bound to a session";
            return Err((500, text.to_owned()));
        }
        let old = self.queries.get(id).cloned();
        if old.is_none() && !is_new {
            let text = format!("Cannot modify non-existent prepared query: '{id}'");
            return Err((500, text));
        }
        let is_taken = |(other, row): (&String, &Query)| {
            !query.name.is_empty() && row.name == query.name && other != id
        };
        if self.queries.iter().any(is_taken) {
            return Err((500, format!("name '{}' aliases an existing query name", query.name)));
        }
        if !query.session.is_empty() && !self.sessions.contains_key(&query.session) {
            return Err(invalid_session(&query.session));
        }
        if let Some(old) = &old {
            query.at = old.at;
            if *old == query {
                return Ok(());
            }
        }
        query.at = self.at(old.map(|old| old.at));
        self.queries.insert(id.to_owned(), query);
        self.touch(Topic::Queries);
        Ok(())
    }

    pub(crate) fn delete_query(&mut self, id: &str) -> Outcome<()> {
        if self.queries.remove(id).is_none() {
            let text = format!("Cannot modify non-existent prepared query: '{id}'");
            return Err((500, text));
        }
        self.touch(Topic::Queries);
        Ok(())
    }

    pub(crate) fn put_coordinate(&mut self, node: &str, vector: &[i64]) {
        let key = fold(node);
        let is_same = self.coordinates.get(&key).is_some_and(|old| old == vector);
        if is_same || !self.nodes.contains_key(&key) {
            return;
        }
        self.coordinates.insert(key, vector.to_vec());
        self.touch(Topic::Coordinates);
    }
}
