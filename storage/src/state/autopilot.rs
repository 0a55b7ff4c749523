//! The configuration of autopilot: one row, written by operators.
//!
//! The first server that is entered into the catalogue brings the defaults with it, so that an
//! operator who reads before writing has a `ModifyIndex` to compare with.

use std::sync::Arc;

use super::State;
use super::change::Change;
use crate::Topic;
use crate::command::Outcome;
use crate::record::{Autopilot, AutopilotSettings, Indexes};

impl State {
    /// The configuration of autopilot; `None` before the first leader.
    #[must_use]
    pub fn autopilot(&self) -> Option<&Arc<Autopilot>> {
        self.autopilot.as_ref()
    }
}

impl Change<'_> {
    /// `PUT /v1/operator/autopilot/configuration`; `cas`: only if the row's `ModifyIndex` is this.
    pub(super) fn set_autopilot(
        &mut self,
        settings: &AutopilotSettings,
        cas: Option<u64>,
    ) -> Outcome {
        let present = self.state.autopilot.as_ref().map(|row| row.indexes.modify.0);
        if cas.is_some() && cas != present {
            return Outcome::Condition(false);
        }
        self.put_autopilot(settings);
        Outcome::Condition(true)
    }

    /// Brings the defaults if there is no configuration yet.
    pub(super) fn ensure_autopilot(&mut self) {
        if self.state.autopilot.is_none() {
            self.put_autopilot(&AutopilotSettings::default());
        }
    }

    /// Writes the row if it differs.
    fn put_autopilot(&mut self, settings: &AutopilotSettings) {
        let old = self.state.autopilot.as_deref();
        if old.is_some_and(|old| old.settings == *settings) {
            return;
        }
        let index = self.index();
        let create = old.map_or(index, |old| old.indexes.create);
        let row =
            Autopilot { settings: settings.clone(), indexes: Indexes { create, modify: index } };
        self.state.autopilot = Some(Arc::new(row));
        self.touch(Topic::Autopilot);
    }
}
