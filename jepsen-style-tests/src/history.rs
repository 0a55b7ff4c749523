//! The operations of clients, and their results.
//!
//! One line of JSON per operation, so that other checkers can read it too:
//! `{"client":3,"key":7,"f":"cas","from":41,"arg":57,"ok":true,"val":null,"call":123,"ret":456}`. `"ret":null`
//! means that the outcome is unknown: the operation may have taken effect at any time after its call, or never. An
//! operation that is known to have had no effect (a refusal before anything was sent) is not in the history.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Function {
    /// Reads register `key`; `val` is what was there, null if it did not exist.
    Read,
    /// Writes `arg` to register `key`; null deletes it.
    Write,
    /// Writes `arg` to register `key` if its value is `from` (null: if it does not exist); `ok` says
    /// whether it was.
    Cas,
    /// Puts `arg` into the set, where nobody else puts it; `ok` is false if it was there already.
    Add,
    /// Looks for `arg` in the set; `ok` says whether it was found.
    Contains,
}

/// One operation of one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Who did it. A client does one thing after the other; after an unknown outcome it goes on
    /// under another number.
    pub client: u64,
    /// Which register; 0 for operations on the set.
    pub key: u64,
    /// What it does.
    pub f: Function,
    /// See [`Function::Cas`].
    pub from: Option<u64>,
    /// What is written, added or looked for.
    pub arg: Option<u64>,
    /// Whether the condition held; null if unknown.
    pub ok: Option<bool>,
    /// What was read.
    pub val: Option<u64>,
    /// When it was called, in nanoseconds of a [`Clock`].
    pub call: u64,
    /// When it returned; null: the outcome is unknown.
    pub ret: Option<u64>,
    /// The `ModifyIndex` that a read found (0: the register did not exist), or that a compare-and-set
    /// compared with; left out where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
}

impl Operation {
    /// An operation that is to be called; who calls it, and when, is filled in then.
    pub fn planned(key: u64, f: Function) -> Self {
        Self::called(0, key, f, 0)
    }

    /// An operation that was called and has not returned yet.
    pub fn called(client: u64, key: u64, f: Function, call: u64) -> Self {
        let (from, arg, ok, val, ret, index) = (None, None, None, None, None, None);
        Self { client, key, f, from, arg, ok, val, call, ret, index }
    }
}

/// A monotonic clock that never gives the same moment twice, so that a history has an order.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    last: AtomicU64,
}

impl Default for Clock {
    fn default() -> Self {
        Self { start: Instant::now(), last: AtomicU64::new(0) }
    }
}

impl Clock {
    /// A moment, on this clock.
    pub fn at(&self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.start);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// The moment as an instant.
    pub fn instant(&self, moment: u64) -> Instant {
        self.start + Duration::from_nanos(moment)
    }

    /// Nanoseconds since the clock was made; larger than any answer before.
    pub fn now(&self) -> u64 {
        // 584 years of nanoseconds fit.
        let elapsed = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let later = |last: u64| Some(elapsed.max(last + 1));
        let previous = self.last.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later);
        let last = previous.expect("the closure always gives a value");
        elapsed.max(last + 1)
    }
}

/// The operations of each key, in the order of their calls.
pub fn by_key(history: &[Operation]) -> BTreeMap<u64, Vec<&Operation>> {
    let mut keys: BTreeMap<u64, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        keys.entry(operation.key).or_default().push(operation);
    }
    for operations in keys.values_mut() {
        operations.sort_by_key(|operation| operation.call);
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"client":3,"key":7,"f":"cas","from":41,"arg":57,"ok":true,"val":null,"call":123,"ret":456}"#;

    #[test]
    fn an_operation_is_written_as_documented() {
        let operation: Operation = serde_json::from_str(LINE).unwrap();
        assert_eq!(operation.f, Function::Cas);
        assert_eq!(serde_json::to_string(&operation).unwrap(), LINE);
    }

    #[test]
    fn an_index_is_written_where_it_is_known() {
        let operation: Operation = serde_json::from_str(LINE).unwrap();
        let line = serde_json::to_string(&Operation { index: Some(9), ..operation }).unwrap();
        assert!(line.ends_with(r#""ret":456,"index":9}"#), "{line}");
        assert_eq!(serde_json::from_str::<Operation>(&line).unwrap().index, Some(9));
    }

    #[test]
    fn the_clock_never_gives_a_moment_twice() {
        let clock = Clock::default();
        let moments: Vec<u64> = (0..10_000).map(|_| clock.now()).collect();
        assert!(moments.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
