//! How many instances are how well.

use serde::Serialize;

/// Instances by status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Tally {
    pub(super) passing: usize,
    pub(super) warning: usize,
    pub(super) critical: usize,
}

impl Tally {
    /// Counts an instance with this status.
    pub(super) fn add(&mut self, status: &str) {
        match status {
            "passing" => self.passing += 1,
            "warning" => self.warning += 1,
            _ => self.critical += 1,
        }
    }
}
