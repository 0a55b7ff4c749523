//! Is there an order of the operations that explains what every client saw, in which each takes
//! effect at one moment between its call and its return? Then each register was linearizable.
//!
//! The search is Wing and Gong's with Lowe's memory: walk the events in time; at a call, try to let the
//! operation take effect now; at a return of an operation that has not taken effect yet, go back and
//! try another. A set of operations that took effect, together with the value they led to, need be tried
//! only once. Registers are independent, so each key is searched alone: rotate keys in long runs,
//! because the cost grows with the operations that overlap.
//!
//! Written values must differ within a key: then compare-and-set by `ModifyIndex` is compare-and-set
//! by value. A write of no value is a deletion; there may be many of them. An unknown operation may take
//! effect at any time after its call or never: it has no return event, and the search ends when every
//! *returned* operation is explained.

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
    /// How many events it may still look at before it gives up and claims nothing.
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
mod tests {
    use super::*;

    pub(super) fn operation(f: Function, call: u64, ret: impl Into<Option<u64>>) -> Operation {
        Operation { ret: ret.into(), ..Operation::called(call, 1, f, call) }
    }
    pub(super) fn write(arg: u64, call: u64, ret: impl Into<Option<u64>>) -> Operation {
        Operation { arg: Some(arg), ok: Some(true), ..operation(Function::Write, call, ret) }
    }
    pub(super) fn read(val: impl Into<Option<u64>>, call: u64, ret: u64) -> Operation {
        Operation { val: val.into(), ok: Some(true), ..operation(Function::Read, call, ret) }
    }
    pub(super) fn cas(
        from: impl Into<Option<u64>>,
        arg: u64,
        ok: bool,
        call: u64,
        ret: impl Into<Option<u64>>,
    ) -> Operation {
        let ret = ret.into();
        let ok = ret.map(|_| ok);
        Operation { from: from.into(), arg: Some(arg), ok, ..operation(Function::Cas, call, ret) }
    }

    fn delete(call: u64, ret: impl Into<Option<u64>>) -> Operation {
        Operation { arg: None, ..write(0, call, ret) }
    }

    #[test]
    fn good_histories_are_accepted() {
        let good: Vec<(&str, Vec<Operation>)> = vec![
            (
                "one after the other",
                vec![write(1, 1, 2), read(1, 3, 4), cas(1, 2, true, 5, 6), read(2, 7, 8)],
            ),
            ("absent at first", vec![read(None, 1, 2), cas(None, 5, true, 3, 4), read(5, 5, 6)]),
            (
                "a read beside a write sees either value",
                vec![write(1, 1, 2), write(2, 3, 9), read(2, 4, 5), read(2, 6, 7)],
            ),
            (
                "a read beside a write sees the old one first",
                vec![write(1, 1, 2), write(2, 3, 9), read(1, 4, 5), read(2, 6, 7)],
            ),
            (
                "an unknown write took effect late",
                vec![write(1, 1, 2), write(2, 3, None), read(1, 4, 5), read(2, 6, 7)],
            ),
            (
                "an unknown write never took effect",
                vec![write(1, 1, 2), write(2, 3, None), read(1, 4, 5), read(1, 6, 7)],
            ),
            (
                "an unknown cas took effect",
                vec![cas(None, 1, true, 1, 2), cas(1, 2, true, 3, None), read(2, 5, 6)],
            ),
            (
                "a cas fails because another won",
                vec![
                    write(1, 1, 2),
                    cas(1, 2, true, 3, 8),
                    cas(1, 3, false, 4, 9),
                    read(2, 10, 11),
                ],
            ),
            (
                "concurrent writes in the order that reads demand",
                vec![write(1, 1, 10), write(2, 2, 11), write(3, 3, 12), read(2, 13, 14)],
            ),
            (
                "the search must go back",
                vec![
                    write(1, 1, 20),
                    write(2, 2, 21),
                    read(2, 3, 4),
                    read(1, 5, 6),
                    cas(1, 7, true, 22, 23),
                ],
            ),
        ];
        for (name, history) in good {
            assert_eq!(check(&history), Verdict::Valid, "{name}");
        }
    }

    #[test]
    fn bad_histories_are_rejected() {
        let bad: Vec<(&str, Vec<Operation>)> = vec![
            ("a stale read", vec![write(1, 1, 2), write(2, 3, 4), read(1, 5, 6)]),
            ("a lost write", vec![write(1, 1, 2), read(None, 3, 4)]),
            (
                "a lost write that is looked for much later",
                vec![write(1, 1, 2), write(2, 1_000, 1_001), read(1, 5_000, 5_001)],
            ),
            (
                "a plain write that was refused",
                vec![Operation { ok: Some(false), ..write(1, 1, 2) }, read(None, 3, 4)],
            ),
            ("a value from nowhere", vec![write(1, 1, 2), read(9, 3, 4)]),
            (
                "two winners of one cas",
                vec![write(1, 1, 2), cas(1, 2, true, 3, 6), cas(1, 3, true, 4, 7)],
            ),
            (
                "time runs backwards between two reads",
                vec![write(1, 1, 2), write(2, 3, 20), read(2, 4, 5), read(1, 6, 7)],
            ),
            (
                "a cas took effect and said it did not",
                vec![write(1, 1, 2), cas(1, 2, false, 3, 4), read(2, 5, 6)],
            ),
            (
                "a cas said it did and did not",
                vec![write(1, 1, 2), cas(1, 2, true, 3, 4), read(1, 5, 6)],
            ),
            ("a read before the write was called", vec![read(1, 1, 2), write(1, 3, 4)]),
            (
                "an unknown write took effect twice",
                vec![write(1, 1, None), read(1, 2, 3), write(2, 4, 5), read(1, 6, 7)],
            ),
            (
                "an unknown cas took effect without its condition",
                vec![write(1, 1, 2), cas(9, 2, true, 3, None), read(2, 5, 6)],
            ),
        ];
        for (name, history) in bad {
            assert!(check(&history).is_invalid(), "{name}");
        }
    }

    #[test]
    fn good_histories_with_deletions_are_accepted() {
        let good: Vec<(&str, Vec<Operation>)> = vec![
            (
                "gone and back",
                vec![
                    write(1, 1, 2),
                    delete(3, 4),
                    read(None, 5, 6),
                    write(2, 7, 8),
                    read(2, 9, 10),
                ],
            ),
            ("nothing is deleted", vec![delete(1, 2), delete(3, 4), read(None, 5, 6)]),
            (
                "a read beside a deletion sees either",
                vec![write(1, 1, 2), delete(3, 9), read(1, 4, 5), read(None, 6, 7)],
            ),
            (
                "an unknown deletion takes effect late",
                vec![write(1, 1, 2), delete(3, None), read(1, 4, 5), read(None, 6, 7)],
            ),
            (
                "an unknown deletion never does",
                vec![write(1, 1, 2), delete(3, None), read(1, 4, 5)],
            ),
        ];
        for (name, history) in good {
            assert_eq!(check(&history), Verdict::Valid, "{name}");
        }
    }

    #[test]
    fn bad_histories_with_deletions_are_rejected() {
        let bad: Vec<(&str, Vec<Operation>)> = vec![
            ("a deletion is lost", vec![write(1, 1, 2), delete(3, 4), read(1, 5, 6)]),
            ("deleted by nobody", vec![write(1, 1, 2), read(None, 3, 4)]),
            (
                "what was deleted comes back",
                vec![write(1, 1, 2), delete(3, 20), read(None, 4, 5), read(1, 6, 7)],
            ),
            (
                "a deletion takes effect twice",
                vec![write(1, 1, 2), delete(3, 4), write(2, 5, 6), read(None, 7, 8)],
            ),
            (
                "an unknown deletion takes effect twice",
                vec![
                    delete(1, None),
                    write(1, 2, 3),
                    read(None, 4, 5),
                    write(2, 6, 7),
                    read(None, 8, 9),
                ],
            ),
        ];
        for (name, history) in bad {
            assert!(check(&history).is_invalid(), "{name}");
        }
    }

    #[test]
    fn keys_are_judged_alone() {
        let mut history = vec![write(1, 1, 2), read(1, 3, 4)];
        history.push(Operation { key: 2, ..read(None, 5, 6) });
        assert_eq!(check(&history), Verdict::Valid);
        history.push(Operation { key: 2, ..read(1, 7, 8) });
        assert!(check(&history).is_invalid());
    }

    #[test]
    fn a_history_without_an_answer_proves_nothing() {
        assert!(matches!(check(&[]), Verdict::Vacuous(_)));
        assert!(matches!(check(&[write(1, 1, None)]), Verdict::Vacuous(_)));
        assert!(matches!(check(&[write(1, 1, 2), write(2, 3, 4)]), Verdict::Vacuous(_)));
    }

    #[test]
    fn ten_thousand_operations_take_no_time() {
        // Five clients whose operations always overlap, ten keys.
        let mut history = Vec::new();
        for number in 0..10_000_u64 {
            let (key, call) = (number % 10, 10 * number);
            let last = (number >= 10).then(|| number - 10);
            history.push(Operation { key, ..cas(last, number, true, call, call + 45) });
        }
        assert_eq!(check(&history), Verdict::Valid);
    }
}
