//! Changes to service instances.

use std::sync::Arc;

use super::catalog::{fold_arc, remove_place};
use super::change::Change;
use super::level::FILE_MARK_LEVEL;
use crate::Topic;
use crate::record::{
    Check, FromFile as _, HistoryKind, Indexes, SERVER_SERVICE, Service, ServiceDefinition,
};

impl Change<'_> {
    /// Registers an instance through the catalogue or a transaction. One that its agent has from a file stays
    /// known as such: the agent will put it back.
    pub(super) fn catalog_put_service(&mut self, key: &Arc<str>, given: &ServiceDefinition) {
        let slot = self.state.catalog.nodes.get(key);
        let old = slot.and_then(|slot| slot.services.get(&given.id));
        let is_from_file = old.is_some_and(|old| old.definition.is_from_file());
        if self.state.level() < FILE_MARK_LEVEL || !is_from_file {
            return self.put_service(key, given);
        }
        let mut marked = given.clone();
        marked.mark_from_file();
        self.put_service(key, &marked);
    }

    /// Writes an instance on a node that exists, if it differs.
    pub(super) fn put_service(&mut self, key: &Arc<str>, definition: &ServiceDefinition) {
        let index = self.index();
        let Some(slot) = self.state.catalog.nodes.get(key) else { return };
        let old = slot.services.get(&definition.id).cloned();
        if old.as_ref().is_some_and(|old| old.definition == *definition) {
            return;
        }
        let create = old.as_ref().map_or(index, |old| old.indexes.create);
        let mut shared = definition.clone();
        if let Some(old) = old.as_ref() {
            // The checks share these, and are written only when one of them differs.
            share(&mut shared.id, &old.definition.id);
            share(&mut shared.name, &old.definition.name);
            share(&mut shared.tags, &old.definition.tags);
        }
        let row = Arc::new(Service {
            node: slot.node.name.clone(),
            definition: shared,
            indexes: Indexes { create, modify: index },
        });
        let name = fold_arc(&definition.name);
        if let Some(old) = old.as_ref()
            && fold_arc(&old.definition.name) != name
        {
            self.leave_name(key, old);
        }
        self.state.catalog.put_service_row(key, row.clone(), index);
        self.pending.workers |= *name == *SERVER_SERVICE;
        let kind = match old {
            None => HistoryKind::ServiceRegistered,
            Some(_) => HistoryKind::ServiceChanged,
        };
        self.record_service(kind, &row);
        self.touch(Topic::Services);
        self.touch(Topic::Node(key.clone()));
        self.touch(Topic::Service(name));
        self.refresh_check_names(key, &row.definition);
        self.note_instance(key, &definition.id);
        self.refresh_idle(key);
    }

    /// Takes an instance away from its name, and keeps an index for the name when it was the last.
    fn leave_name(&mut self, key: &Arc<str>, row: &Service) {
        self.touch(Topic::Service(fold_arc(&row.definition.name)));
        if self.state.catalog.detach_name(key, row) {
            self.state.topics.extinction = Some(self.index());
        }
    }

    /// Checks repeat their service's name and tags.
    fn refresh_check_names(&mut self, key: &Arc<str>, definition: &ServiceDefinition) {
        let Some(slot) = self.state.catalog.nodes.get(key) else { return };
        let outdated: Vec<Arc<Check>> = slot
            .checks_of(&definition.id)
            .filter(|row| {
                row.service_name != definition.name || row.service_tags != definition.tags
            })
            .cloned()
            .collect();
        for row in outdated {
            let mut row = Check::clone(&row);
            row.service_name = definition.name.clone();
            row.service_tags = definition.tags.clone();
            row.indexes.modify = self.index();
            self.state.catalog.put_check_row(key, Arc::new(row));
            self.touch(Topic::Checks);
        }
    }

    /// Removes what other tables know of an instance.
    pub(super) fn forget_service(&mut self, key: &Arc<str>, row: &Service) {
        self.leave_name(key, row);
        self.pending.workers |= fold_arc(&row.definition.name) == Arc::from(SERVER_SERVICE);
        remove_place(&mut self.state.catalog.service_ids, &row.definition.id, key);
        self.note_instance(key, &row.definition.id);
    }

    /// Removes an instance with its checks, if it exists.
    pub(super) fn remove_service(&mut self, key: &Arc<str>, id: &Arc<str>) {
        let Some(slot) = self.state.catalog.nodes.get(key) else { return };
        let Some(row) = slot.services.get(id).cloned() else { return };
        let checks: Vec<_> = slot.checks_of(id).map(|row| row.registration.id.clone()).collect();
        checks.iter().for_each(|check| self.remove_check_unrecorded(key, check));
        self.record_service(HistoryKind::ServiceDeregistered, &row);
        self.forget_service(key, &row);
        self.state.catalog.remove_service_row(key, id);
        self.touch(Topic::Services);
        self.touch(Topic::Node(key.clone()));
        self.refresh_idle(key);
    }
}

/// Keeps the old allocation of a text that is the same.
fn share<T: ?Sized + PartialEq>(text: &mut Arc<T>, old: &Arc<T>) {
    if *text == *old {
        *text = old.clone();
    }
}
