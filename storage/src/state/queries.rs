//! Prepared queries. One may be bound to a session, and ends with it.

use std::sync::Arc;

use super::State;
use super::change::Change;
use crate::Topic;
use crate::command::Rejection;
use crate::index::fold;
use crate::record::{Indexes, Query, QueryDefinition};

impl State {
    /// The query that has this name in any letter case. Queries and templates share one table of names;
    /// only templates are found by the empty name, which answers for every name.
    fn query_named(&self, name: &str, is_template: bool) -> Option<&Arc<Query>> {
        if name.is_empty() && !is_template {
            return None;
        }
        let folded = fold(name);
        self.queries.values().find(|row| {
            let is_named = fold(&row.definition.name) == folded;
            is_named && (!name.is_empty() || !row.definition.template_kind.is_empty())
        })
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

    /// Nothing else may answer to its name, and its session must exist.
    fn check_query(&self, definition: &QueryDefinition) -> Result<(), Rejection> {
        let name = &definition.name;
        let taken = self.state.query_named(name, !definition.template_kind.is_empty());
        if taken.is_some_and(|row| row.definition.id != definition.id) {
            return Err(match name.as_str() {
                "" => Rejection::EmptyTemplateTaken,
                name => Rejection::QueryNameTaken(name.to_owned()),
            });
        }
        if self.state.queries.contains_key(&*fold(name)) {
            return Err(Rejection::QueryNameIsId(name.clone()));
        }
        let session = &definition.session;
        if !session.is_empty() && !self.state.sessions.contains_key(session) {
            return Err(Rejection::InvalidSession(session.to_string()));
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
