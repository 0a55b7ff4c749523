//! Prepared queries. One may be bound to a session, and ends with it.

use std::sync::Arc;

use super::State;
use super::change::Change;
use crate::Topic;
use crate::command::Rejection;
use crate::record::{Indexes, Query, QueryDefinition};

impl State {
    /// The query that has this name and is no template.
    fn query_named(&self, name: &str) -> Option<&Arc<Query>> {
        self.queries
            .values()
            .find(|row| row.definition.template_kind.is_empty() && row.definition.name == name)
    }
}

impl Change<'_> {
    /// Creates a query, or changes one that must exist.
    pub(super) fn put_query(
        &mut self,
        definition: &QueryDefinition,
        is_new: bool,
    ) -> Result<(), Rejection> {
        let old = self.state.queries.get(&definition.id).cloned();
        if old.is_none() && !is_new {
            return Err(Rejection::UnknownQuery(definition.id.to_string()));
        }
        self.check_query(definition)?;
        let create = old.as_ref().map_or(self.index(), |old| old.indexes.create);
        if old.is_some_and(|old| old.definition == *definition) {
            return Ok(());
        }
        let indexes = Indexes { create, modify: self.index() };
        let row = Arc::new(Query { definition: definition.clone(), indexes });
        self.state.queries.insert(definition.id.clone(), row);
        self.touch(Topic::Queries);
        Ok(())
    }

    /// Its session must exist, and nothing else may answer to its name.
    fn check_query(&self, definition: &QueryDefinition) -> Result<(), Rejection> {
        let session = &definition.session;
        if !session.is_empty() && !self.state.sessions.contains_key(session) {
            return Err(Rejection::InvalidSession(session.to_string()));
        }
        if definition.name.is_empty() {
            return Ok(());
        }
        let taken = match definition.template_kind.as_str() {
            "" => self.state.query_named(&definition.name),
            _ => self.state.queries.values().find(|row| {
                !row.definition.template_kind.is_empty() && row.definition.name == definition.name
            }),
        };
        if taken.is_some_and(|row| row.definition.id != definition.id) {
            return Err(Rejection::QueryNameTaken(definition.name.clone()));
        }
        Ok(())
    }

    /// Removes a query, which must exist.
    pub(super) fn remove_query(&mut self, id: &Arc<str>) -> Result<(), Rejection> {
        if self.state.queries.remove(id).is_none() {
            return Err(Rejection::UnknownQuery(id.to_string()));
        }
        self.touch(Topic::Queries);
        Ok(())
    }

    /// Removes the queries that are bound to a session which ended.
    pub(super) fn remove_queries_of(&mut self, session: &Arc<str>) {
        let bound: Vec<Arc<str>> = self
            .state
            .queries
            .iter()
            .filter(|(_, row)| row.definition.session == *session)
            .map(|(id, _)| id.clone())
            .collect();
        for id in bound {
            self.state.queries.remove(&id);
            self.touch(Topic::Queries);
        }
    }
}
