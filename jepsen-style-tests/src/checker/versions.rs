//! The `ModifyIndex` of a key is the order of its versions. Because the order is known, this check takes O(n log
//! n), where [`super::linear`] has to search for one: it scales to long histories, and it sees what values alone do
//! not show, such as one write that made two versions.
//!
//! For each key: an index belongs to one value and a value to one index; a read that begins after somebody has seen
//! an index sees that one or a later one; the index of a write is later than all that were seen before it was sent,
//! and is seen by all reads after it was acknowledged; at most one compare-and-set replaces an index, by a later
//! one; no value is read that nobody wrote, or whose write was refused.

use std::collections::{BTreeMap, HashMap};

use super::Verdict;
use super::order::{Sight, regressions};
use crate::history::{Function, Operation, by_key};

/// Judges the reads that have an index, and the writes and compare-and-sets of their keys. Written values
/// must differ within a key, and keys must not be deleted.
pub fn check(history: &[Operation]) -> Verdict {
    let mut violations = Vec::new();
    let mut reads = 0;
    for (key, operations) in by_key(history) {
        let register = Register::new(&operations);
        reads += register.reads.len();
        violations.extend(register.violations().map(|violation| format!("key {key}: {violation}")));
    }
    if reads == 0 {
        return Verdict::Vacuous("no read says which index it found".to_owned());
    }
    Verdict::from_violations(violations)
}

/// The operations of one key.
struct Register<'a> {
    /// Reads that returned, with the index that they found.
    reads: Vec<(u64, &'a Operation)>,
    /// The write of each value.
    writers: HashMap<u64, &'a Operation>,
    /// The index of each value that was read.
    index_of: HashMap<u64, u64>,
}

impl<'a> Register<'a> {
    fn new(operations: &[&'a Operation]) -> Self {
        let (mut reads, mut writers, mut index_of) = (Vec::new(), HashMap::new(), HashMap::new());
        for operation in operations {
            match (operation.f, operation.index, operation.arg) {
                (Function::Read, Some(index), _) if operation.ret.is_some() => {
                    reads.push((index, *operation));
                    index_of.extend(operation.val.map(|value| (value, index)));
                }
                (Function::Write | Function::Cas, _, Some(value)) => {
                    writers.insert(value, *operation);
                }
                _ => {}
            }
        }
        Self { reads, writers, index_of }
    }

    fn violations(&self) -> impl Iterator<Item = String> {
        let found = [self.two_faces(), self.unwritten(), self.replaced(), self.backwards()];
        found.into_iter().flatten()
    }

    /// One index, one value; one value, one index; and index 0 for what does not exist.
    fn two_faces(&self) -> Vec<String> {
        let mut violations = Vec::new();
        let (mut by_index, mut by_value) = (BTreeMap::new(), BTreeMap::new());
        for (index, read) in &self.reads {
            if (*index == 0) != read.val.is_none() {
                violations.push(format!("a value and no index, or the other way round: {read:?}"));
            }
            let first = by_index.entry(*index).or_insert(*read);
            if first.val != read.val {
                violations.push(format!("two values at index {index}: {first:?} and {read:?}"));
            }
            let Some(value) = read.val else { continue };
            let first = by_value.entry(value).or_insert(*read);
            if first.index != read.index {
                violations.push(format!(
                    "{value} is two versions, so it was written twice: {first:?} and {read:?}"
                ));
            }
        }
        violations
    }

    fn unwritten(&self) -> Vec<String> {
        let mut violations = Vec::new();
        for (_, read) in &self.reads {
            let Some(value) = read.val else { continue };
            match self.writers.get(&value) {
                None => violations.push(format!("{value} comes from nowhere: {read:?}")),
                Some(writer) if writer.ok == Some(false) => violations
                    .push(format!("{value} was refused by {writer:?} and found by {read:?}")),
                Some(_) => {}
            }
        }
        violations
    }

    /// A compare-and-set that took effect (it says so, or its value was found) replaces the index that it
    /// compared with, by a later one.
    fn replaced(&self) -> Vec<String> {
        let mut violations = Vec::new();
        let mut successors: BTreeMap<u64, &Operation> = BTreeMap::new();
        let mut swaps: Vec<_> = self.writers.iter().filter(|(_, o)| o.f == Function::Cas).collect();
        swaps.sort_unstable_by_key(|(_, swap)| swap.call);
        for (value, swap) in swaps {
            let (Some(compared), made) = (swap.index, self.index_of.get(value)) else { continue };
            if swap.ok != Some(true) && made.is_none() {
                continue;
            }
            if made.is_some_and(|made| *made <= compared) {
                violations.push(format!("index {made:?} replaces a later or equal one: {swap:?}"));
            }
            if let Some(other) = successors.insert(compared, swap) {
                violations
                    .push(format!("index {compared} was replaced twice: {other:?} and {swap:?}"));
            }
        }
        violations
    }

    fn backwards(&self) -> Vec<String> {
        let mut sights = Vec::new();
        let mut who = Vec::new();
        for (index, read) in &self.reads {
            sights.push(Sight { call: read.call, ret: read.ret, position: *index, is_new: false });
            who.push(*read);
        }
        for (value, writer) in &self.writers {
            let Some(index) = self.index_of.get(value) else { continue };
            let (call, ret) = (writer.call, writer.ret);
            sights.push(Sight { call, ret, position: *index, is_new: true });
            who.push(*writer);
        }
        let describe = |(earlier, later): (usize, usize)| {
            format!(
                "index {} was there before index {}: {:?}, then {:?}",
                sights[earlier].position, sights[later].position, who[earlier], who[later]
            )
        };
        regressions(&sights).into_iter().map(describe).collect()
    }
}

#[cfg(test)]
mod tests;
