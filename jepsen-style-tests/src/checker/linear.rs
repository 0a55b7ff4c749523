//! Whether each register was linearizable: whether some order of the operations explains all answers, with each
//! operation taking effect at one moment between its call and its return.
//!
//! The search is Wing and Gong's with Lowe's memory: walk the events in time; at a call, try to let the operation
//! take effect now; at a return of an operation that has not taken effect yet, backtrack. A set of operations that
//! took effect, together with the resulting value, is tried only once. Registers are independent, so each key is
//! searched alone. Rotate keys in long runs, because the cost grows with the operations that overlap.
//!
//! Written values must differ within a key: then compare-and-set by `ModifyIndex` is compare-and-set by value. A
//! write without a value is a deletion; there may be many. An operation with an unknown outcome may take effect at
//! any time after its call, or never: it has no return event, and the search ends when every *returned* operation
//! is explained.

mod window;

use std::collections::HashSet;

use super::Verdict;
use crate::history::{Function, Operation, by_key};

pub use window::{Placed, Window, smallest_window};

/// Checks reads, writes and compare-and-sets, key by key; a key begins as absent. Operations on the
/// set are not looked at.
pub fn check(history: &[Operation]) -> Verdict {
    let mut violations = Vec::new();
    let mut checked = 0;
    for (key, operations) in by_key(history) {
        let register: Vec<&Operation> = operations.into_iter().filter(|o| matters(o)).collect();
        checked += register.iter().filter(|operation| looks(operation)).count();
        if let Err(why) = Search::new(&register).run_from(None) {
            violations.push(format!("key {key}: {why}"));
        }
    }
    if checked == 0 && violations.is_empty() {
        return Verdict::Vacuous("nobody looked at a register".to_owned());
    }
    Verdict::from_violations(violations)
}

/// A read without an answer says nothing.
fn matters(operation: &Operation) -> bool {
    match operation.f {
        Function::Read => operation.ret.is_some(),
        Function::Write | Function::Cas => true,
        Function::Add | Function::Contains => false,
    }
}

/// Whether its answer says what a register held.
fn looks(operation: &Operation) -> bool {
    operation.ret.is_some() && operation.f != Function::Write
}

/// The value after `operation` took effect on `value`, if it can have seen what it saw.
fn step(value: Option<u64>, operation: &Operation) -> Option<Option<u64>> {
    let is_known = operation.ret.is_some();
    let explained = match operation.f {
        Function::Read => operation.val == value,
        // A plain write has no condition that could refuse it.
        Function::Write => !is_known || operation.ok == Some(true),
        // An unknown one that fails its condition is one that never took effect.
        Function::Cas if is_known => operation.ok == Some(operation.from == value),
        Function::Cas => operation.from == value,
        Function::Add | Function::Contains => false,
    };
    let writes = match operation.f {
        Function::Write => true,
        Function::Cas => operation.from == value,
        Function::Read | Function::Add | Function::Contains => false,
    };
    explained.then_some(if writes { operation.arg } else { value })
}

/// Which operations took effect.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Done(Vec<u64>);

impl Done {
    fn flip(&mut self, operation: usize) {
        self.0[operation / 64] ^= 1 << (operation % 64);
    }
}

/// One event: the call or the return of an operation.
struct Event {
    operation: usize,
    is_call: bool,
}

/// The events as a doubly linked list (position 0 is its head), from which an operation is taken out
/// when it takes effect and put back, at its old place, when the search goes back.
struct Search<'a> {
    operations: &'a [&'a Operation],
    events: Vec<Event>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Position of each operation's return; 0 if it is unknown.
    return_of: Vec<usize>,
    unexplained: usize,
    /// How many more events it may visit before it gives up without a verdict.
    patience: usize,
}

const HEAD: usize = 0;

impl<'a> Search<'a> {
    fn new(operations: &'a [&'a Operation]) -> Self {
        // A return sorts behind a call of the same moment: they overlap, which only allows more.
        let mut moments: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * operations.len());
        for (number, operation) in operations.iter().enumerate() {
            moments.push((operation.call, false, number));
            moments.extend(operation.ret.map(|moment| (moment, true, number)));
        }
        moments.sort_unstable();
        let mut events = vec![Event { operation: usize::MAX, is_call: false }];
        let mut return_of = vec![HEAD; operations.len()];
        for (_, is_return, operation) in moments {
            if is_return {
                return_of[operation] = events.len();
            }
            events.push(Event { operation, is_call: !is_return });
        }
        let count = events.len();
        Self {
            operations,
            events,
            next: (1..=count).map(|position| position % count).collect(),
            previous: (0..count).map(|position| (position + count - 1) % count).collect(),
            return_of,
            unexplained: operations.iter().filter(|operation| operation.ret.is_some()).count(),
            patience: usize::MAX,
        }
    }

    /// Looks for an order that begins at `value`; an error says that there is none. Fewer than `usize::MAX`
    /// events of patience may end the search early, as if there were one.
    fn run_from(mut self, mut value: Option<u64>) -> Result<(), String> {
        let mut done = Done(vec![0; self.operations.len().div_ceil(64)]);
        let mut tried = HashSet::new();
        let mut taken: Vec<(usize, Option<u64>)> = Vec::new();
        let mut deepest = (0, None);
        let mut position = self.next[HEAD];
        while self.unexplained > 0 && self.patience > 0 {
            self.patience -= 1;
            let event = &self.events[position];
            let operation = event.operation;
            if position != HEAD && event.is_call {
                if let Some(after) = step(value, self.operations[operation]) {
                    done.flip(operation);
                    if tried.insert((done.clone(), after)) {
                        taken.push((position, value));
                        value = after;
                        self.take_out(position);
                        position = self.next[HEAD];
                        continue;
                    }
                    done.flip(operation);
                }
                position = self.next[position];
                continue;
            }
            if taken.len() >= deepest.0 {
                deepest = (taken.len(), Some((operation, value)));
            }
            let Some((last, before)) = taken.pop() else {
                return Err(self.describe(deepest));
            };
            value = before;
            done.flip(self.events[last].operation);
            self.put_back(last);
            position = self.next[last];
        }
        Ok(())
    }

    fn take_out(&mut self, call: usize) {
        let ret = self.return_of[self.events[call].operation];
        self.unlink(call);
        if ret != HEAD {
            self.unlink(ret);
            self.unexplained -= 1;
        }
    }

    fn put_back(&mut self, call: usize) {
        let ret = self.return_of[self.events[call].operation];
        if ret != HEAD {
            self.link(ret);
            self.unexplained += 1;
        }
        self.link(call);
    }

    fn unlink(&mut self, position: usize) {
        let (before, after) = (self.previous[position], self.next[position]);
        self.next[before] = after;
        self.previous[after] = before;
    }

    fn link(&mut self, position: usize) {
        let (before, after) = (self.previous[position], self.next[position]);
        self.next[before] = position;
        self.previous[after] = position;
    }

    fn describe(&self, (depth, stuck): (usize, Option<(usize, Option<u64>)>)) -> String {
        let total = self.operations.len();
        let Some((operation, value)) = stuck.filter(|(operation, _)| *operation < total) else {
            return format!("no order explains its {total} operations");
        };
        let operation = self.operations[operation];
        format!(
            "no order explains its {total} operations; after {depth}, at value {value:?}, this does not fit: {operation:?}"
        )
    }
}

#[cfg(test)]
mod tests;
