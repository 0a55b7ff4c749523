//! Observations: what one server listed at one moment.

use serde::{Deserialize, Serialize};

/// One poll of one server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Look<T = Vec<u64>> {
    /// The server.
    pub(crate) node: u64,
    /// Whether it was a `?stale` read: the server answered from what it has itself.
    pub(crate) stale: bool,
    /// When it was asked.
    pub(crate) call: u64,
    /// When it answered.
    pub(crate) ret: u64,
    /// What it listed; none: the answer could not be read, which must not be passed over. (Older histories have the
    /// other names, of the workloads `ttl` and `session`.)
    #[serde(alias = "critical", alias = "there")]
    pub(crate) listed: Option<T>,
}

impl Look {
    /// Whether it shows this number.
    pub(crate) fn shows(&self, number: u64) -> bool {
        self.numbers().contains(&number)
    }

    /// What it listed.
    pub(crate) fn numbers(&self) -> &[u64] {
        self.listed.as_deref().unwrap_or_default()
    }

    /// `stale` or `default`, as messages call its kind of read.
    pub(crate) fn kind(&self) -> &'static str {
        if self.stale { "stale" } else { "default" }
    }

    /// The read, for a message.
    pub(crate) fn describe(&self) -> String {
        let Self { node, call, ret, .. } = self;
        format!("a {} read of n{node} from {call} to {ret} ns", self.kind())
    }
}

/// The looks whose answers could be read, in the order of their calls; and a violation for each of the others, which
/// should have listed `what`.
pub(crate) fn readable<'a>(
    looks: impl Iterator<Item = &'a Look>,
    what: &str,
) -> (Vec<&'a Look>, Vec<String>) {
    let (mut readable, unreadable): (Vec<_>, Vec<_>) =
        looks.partition(|look| look.listed.is_some());
    readable.sort_by_key(|look| look.call);
    let violation = |look: &Look| {
        format!("no list of {what}, but something unreadable, in {}", look.describe())
    };
    (readable, unreadable.into_iter().map(violation).collect())
}
