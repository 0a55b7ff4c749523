//! Users' events: the newest ones, oldest first.

use std::sync::Arc;

use super::change::Change;
use crate::Topic;
use crate::record::Event;

/// How many events are kept (Consul's figure).
pub(super) const EVENTS_MAX: usize = 256;

impl Change<'_> {
    /// Adds an event; the oldest goes when there are too many.
    pub(super) fn fire_event(&mut self, event: &Event) {
        let state = &mut *self.state;
        state.tables.last_event = state.tables.last_event.saturating_add(1);
        state.events.push_back(Arc::new(Event { time: state.tables.last_event, ..event.clone() }));
        while state.events.len() > EVENTS_MAX {
            state.events.pop_front();
        }
        self.touch(Topic::Events);
    }
}
