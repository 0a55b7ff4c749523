//! Lists to which each number is appended once. A list shows the order of all earlier appends, so no search is
//! needed (the idea is Elle's): all lists that were read of a key are prefixes of the longest one, which is the
//! order in which its appends took effect.
//!
//! For each key: no list contradicts the longest; no number occurs twice, was never written, or was refused; lists
//! never get shorter; a number is in every list that is read after its append was acknowledged, and behind
//! everything that was read before its append was sent.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Verdict;
use super::order::{Sight, regressions};
use crate::history::{Function, Operation};

/// What is done to a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ListFunction {
    /// Puts `arg` behind the list that was read at `index`; `ok` is false if that was not the list any more.
    Append,
    /// Reads the list.
    Read,
}

/// One operation on a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListOperation {
    /// The client.
    pub client: u64,
    /// Which list.
    pub key: u64,
    /// What it does.
    pub f: ListFunction,
    /// The number that is appended.
    pub arg: Option<u64>,
    /// Whether it was; null if unknown.
    pub ok: Option<bool>,
    /// The list that was read, or that was appended to.
    pub list: Vec<u64>,
    /// Its `ModifyIndex`; 0: there was none.
    pub index: u64,
    /// When it was called.
    pub call: u64,
    /// When it returned; null: the outcome is unknown.
    pub ret: Option<u64>,
}

impl ListOperation {
    /// The same as an operation on a register, whose value is the list's last number: each number is the
    /// last of one version only.
    pub fn as_register(&self) -> Operation {
        let (f, val) = match self.f {
            ListFunction::Append => (Function::Cas, None),
            ListFunction::Read => (Function::Read, self.list.last().copied()),
        };
        let from = (self.f == ListFunction::Append).then(|| self.list.last().copied()).flatten();
        let (arg, ok, ret, index) = (self.arg, self.ok, self.ret, Some(self.index));
        let called = Operation::called(self.client, self.key, f, self.call);
        Operation { from, arg, ok, val, ret, index, ..called }
    }
}

/// Numbers at the end of a list that a sentence shows.
const SHOWN: usize = 4;

impl fmt::Display for ListOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (length, index) = (self.list.len(), self.index);
        let end = &self.list[length.saturating_sub(SHOWN)..];
        let (client, call, ret) = (self.client, self.call, self.ret);
        match self.f {
            ListFunction::Append => {
                let (number, ok) = (self.arg.unwrap_or_default(), self.ok);
                write!(
                    f,
                    "client {client} appends {number} to {length} numbers at {index}, ok {ok:?}"
                )?;
            }
            ListFunction::Read => {
                write!(f, "client {client} reads {length} numbers ending in {end:?} at {index}")?;
            }
        }
        write!(f, " ({call} to {ret:?})")
    }
}

/// Judges the lists of a history, key by key.
pub fn check(history: &[ListOperation]) -> Verdict {
    let mut keys: BTreeMap<u64, Vec<&ListOperation>> = BTreeMap::new();
    for operation in history {
        keys.entry(operation.key).or_default().push(operation);
    }
    let mut violations = Vec::new();
    let mut acknowledged = 0;
    for (key, operations) in keys {
        let list = List::new(&operations);
        acknowledged += list.appends.values().filter(|append| append.ok == Some(true)).count();
        violations.extend(list.violations().map(|violation| format!("list {key}: {violation}")));
    }
    if acknowledged == 0 && violations.is_empty() {
        return Verdict::Vacuous("no append was acknowledged".to_owned());
    }
    Verdict::from_violations(violations)
}

struct List<'a> {
    reads: Vec<&'a ListOperation>,
    appends: BTreeMap<u64, &'a ListOperation>,
    /// The longest list that was read: the order of the appends.
    order: &'a [u64],
}

impl<'a> List<'a> {
    fn new(operations: &[&'a ListOperation]) -> Self {
        let is_read = |o: &&&ListOperation| o.f == ListFunction::Read && o.ret.is_some();
        let reads: Vec<_> = operations.iter().filter(is_read).copied().collect();
        let appends = operations.iter().filter(|o| o.f == ListFunction::Append);
        let appends = appends.filter_map(|o| Some((o.arg?, *o))).collect();
        let lists = reads.iter().map(|read| read.list.as_slice());
        let order = lists.max_by_key(|list| list.len()).unwrap_or_default();
        Self { reads, appends, order }
    }

    fn violations(&self) -> impl Iterator<Item = String> {
        let found = [self.contradictions(), self.members(), self.lost(), self.backwards()];
        found.into_iter().flatten()
    }

    fn contradictions(&self) -> Vec<String> {
        let contradicts = |read: &&&ListOperation| !self.order.starts_with(&read.list);
        let describe = |read: &&ListOperation| {
            let parts = read.list.iter().zip(self.order).take_while(|(a, b)| a == b).count();
            format!("{read} contradicts the longest list from place {parts} on")
        };
        self.reads.iter().filter(contradicts).map(describe).collect()
    }

    /// What is in the longest list: once, by an append of this key, that was not refused.
    fn members(&self) -> Vec<String> {
        let mut violations = Vec::new();
        let mut seen = HashSet::new();
        for number in self.order {
            if !seen.insert(number) {
                violations.push(format!("{number} is there twice"));
            }
            match self.appends.get(number) {
                None => violations.push(format!("{number} comes from nowhere")),
                Some(append) if append.ok == Some(false) => {
                    violations.push(format!("{number} was refused and is there: {append}"));
                }
                Some(_) => {}
            }
        }
        violations
    }

    /// An acknowledged append that no list shows, though one was read afterwards.
    fn lost(&self) -> Vec<String> {
        let order: HashSet<_> = self.order.iter().collect();
        let last_call = self.reads.iter().map(|read| read.call).max();
        let is_lost = |(number, append): &(&u64, &&ListOperation)| {
            append.ok == Some(true) && !order.contains(number) && append.ret < last_call
        };
        let lost = self.appends.iter().filter(is_lost);
        lost.map(|(number, append)| format!("{number} is lost: {append}")).collect()
    }

    fn backwards(&self) -> Vec<String> {
        let mut who: Vec<&ListOperation> = Vec::new();
        let mut sights = Vec::new();
        for read in &self.reads {
            let position = read.list.len() as u64;
            sights.push(Sight { call: read.call, ret: read.ret, position, is_new: false });
            who.push(read);
        }
        let mut made = HashMap::new();
        for (place, number) in self.order.iter().enumerate() {
            made.entry(number).or_insert(place as u64 + 1);
        }
        for (number, append) in &self.appends {
            let Some(position) = made.get(number).copied() else { continue };
            sights.push(Sight { call: append.call, ret: append.ret, position, is_new: true });
            who.push(append);
        }
        let describe = |(earlier, later): (usize, usize)| {
            format!(
                "{} numbers were there before {}: {}, then {}",
                sights[earlier].position, sights[later].position, who[earlier], who[later]
            )
        };
        regressions(&sights).into_iter().map(describe).collect()
    }
}

#[cfg(test)]
mod tests;
