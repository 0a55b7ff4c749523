//! The smallest part of a history that shows a person why no order explains it.
//!
//! A register that was not linearizable has hundreds of operations, most of which have nothing to do with the
//! failure. Three steps remove them:
//!
//! 1. *The shortest prefix.* If a whole history can be explained, so can each prefix of it, with the operations
//!    that have not returned by then as unknown. So there is a first return that no order explains.
//! 2. *The last certain point.* Going through the returns before that operation was called, we keep every possible
//!    state of the register: its value, and which of the open operations took effect. Where only one state is left,
//!    everything before is settled, and the search can begin there. (A point between its call and its return would
//!    also be a proof, but would hide what the operation contradicts.)
//! 3. *The core.* Each operation is relaxed: a write may take effect at any later time or never, a read may be
//!    ignored. If the rest still cannot be explained, the operation was not needed. The others contradict each
//!    other: they cannot be ordered.
//!
//! Every step keeps the failure, so what is shown is itself a proof. A reduction that would take too long is
//! skipped; then more is shown than is needed.

use std::collections::BTreeSet;

use super::{Search, matters, step};
use crate::history::{Function, Operation, by_key};

/// More keys than this are not compared for the smallest window.
const KEYS_MAX: usize = 20;
/// More possible states than this are not followed; the window then begins at the last certain point before.
const STATES_MAX: usize = 200;
/// Events that one search for the prefix or the core may visit.
const PATIENCE: usize = 300_000;
/// Larger windows are shown without looking for their core.
const CORE_OPERATIONS_MAX: usize = 300;
/// So many of the operations that ended before the window are kept with it.
const EARLIER_MAX: usize = 6;

/// One operation of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// What its client saw by the end of the window: without a return if it was still open then.
    pub operation: Operation,
    /// Whether it is one of those that contradict each other.
    pub is_core: bool,
}

/// A part of one key's history that no order explains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The key.
    pub key: u64,
    /// The value from which everything that is left would have to be explained.
    pub value: Option<u64>,
    /// The last moment, before the operation that fails was called, at which only one state was possible;
    /// 0 if that was before the first operation.
    pub began: u64,
    /// The first return that cannot be explained.
    pub ended: u64,
    /// What has to be explained, in the order of the calls. The last to return is always in the core.
    pub operations: Vec<Placed>,
    /// The operations that had taken effect last before the window, in the order of their calls. They
    /// prove nothing, but tell where its first value came from.
    pub earlier: Vec<Operation>,
    /// The operation that would have written what the failing one saw, if there was one by then.
    pub origin: Option<Operation>,
    /// Operations of unknown outcome from before the window that are left out, as they cannot help: nobody
    /// in it looked for what they would have written.
    pub unseen: usize,
}

/// The smallest window of the keys that are not linearizable; none if all are.
pub fn smallest_window(history: &[Operation]) -> Option<Window> {
    by_key(history)
        .into_iter()
        .filter_map(|(key, operations)| {
            let register: Vec<&Operation> = operations.into_iter().filter(|o| matters(o)).collect();
            Search::new(&register).run_from(None).is_err().then_some((key, register))
        })
        .take(KEYS_MAX)
        .map(|(key, register)| of_key(key, &register))
        .min_by_key(|window| (window.operations.len(), window.ended))
}

/// The window of one key, whose operations no order explains.
fn of_key(key: u64, register: &[&Operation]) -> Window {
    let ended = first_unexplained(register);
    let prefix = known_at(register, ended);
    let failed = prefix.iter().find(|operation| operation.ret == Some(ended));
    let settled = last_certain(&prefix, failed.map_or(ended, |operation| operation.call));
    let (left, gone): (Vec<usize>, Vec<usize>) = (0..prefix.len()).partition(|number| {
        let is_open = prefix[*number].ret.is_none_or(|ret| ret > settled.at);
        is_open && !settled.state.done.contains(number)
    });
    let left: Vec<Operation> = left.into_iter().map(|number| prefix[number]).collect();
    let all = left.len();
    let left = without_unseen(&left, settled.at);
    let unseen = all - left.len();
    let gone: Vec<Operation> = gone.into_iter().map(|number| prefix[number]).collect();
    let earlier = gone[gone.len().saturating_sub(EARLIER_MAX)..].to_vec();
    let origin = failed.and_then(|failed| origin(failed, &prefix));
    let operations = with_core(&left, settled.state.value, ended);
    Window {
        key,
        value: settled.state.value,
        began: settled.at,
        ended,
        operations,
        earlier,
        origin,
        unseen,
    }
}

/// The operation that wrote what another one read.
fn origin(failed: &Operation, prefix: &[Operation]) -> Option<Operation> {
    let seen = match failed.f {
        Function::Read => failed.val,
        Function::Cas => failed.from,
        Function::Write | Function::Add | Function::Contains => None,
    }?;
    prefix.iter().find(|operation| operation.arg == Some(seen)).copied()
}

fn is_explained(operations: &[Operation], value: Option<u64>) -> bool {
    let operations: Vec<&Operation> = operations.iter().collect();
    let mut search = Search::new(&operations);
    search.patience = PATIENCE;
    search.run_from(value).is_ok()
}

/// The first moment of a return up to which no order explains what was known.
fn first_unexplained(register: &[&Operation]) -> u64 {
    let mut returns: Vec<u64> = register.iter().filter_map(|operation| operation.ret).collect();
    returns.sort_unstable();
    let first = returns.partition_point(|at| is_explained(&known_at(register, *at), None));
    // Only a search that lost its patience finds none: then the whole history is the prefix.
    returns.get(first).or(returns.last()).copied().unwrap_or_default()
}

/// What was known at a moment: an operation that had not returned is one of unknown outcome.
fn known_at(register: &[&Operation], moment: u64) -> Vec<Operation> {
    let is_known = |operation: &Operation| operation.ret.is_some_and(|ret| ret <= moment);
    register
        .iter()
        .filter(|operation| operation.call <= moment)
        .filter_map(
            |operation| if is_known(operation) { Some(**operation) } else { relaxed(operation) },
        )
        .collect()
}

/// The same operation with nothing to say about it but that it was called; a read says nothing then.
fn relaxed(operation: &Operation) -> Option<Operation> {
    (operation.f != Function::Read).then_some(Operation { ok: None, ret: None, ..*operation })
}

/// A state in which the register can be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    value: Option<u64>,
    /// The open operations that took effect.
    done: BTreeSet<usize>,
}

/// Where only one state was possible.
#[derive(Debug, Clone)]
struct Certain {
    at: u64,
    state: State,
}

/// The last return before `limit` after which only one state is possible.
fn last_certain(prefix: &[Operation], limit: u64) -> Certain {
    let beginning = State { value: None, done: BTreeSet::new() };
    let mut certain = Certain { at: 0, state: beginning.clone() };
    let mut states = BTreeSet::from([beginning]);
    let mut returns: Vec<(u64, usize)> = (0..prefix.len())
        .filter_map(|number| Some((prefix[number].ret.filter(|ret| *ret < limit)?, number)))
        .collect();
    returns.sort_unstable();
    for (position, (at, returning)) in returns.iter().copied().enumerate() {
        let is_open = |number: &usize| {
            let operation = &prefix[*number];
            let has_returned = operation.ret.is_some_and(|ret| (ret, *number) < (at, returning));
            operation.call <= at && !has_returned
        };
        let open: Vec<usize> = (0..prefix.len()).filter(is_open).collect();
        let Some(next) = (Forward { prefix, open: &open, returning }).from(&states) else { break };
        states = next;
        let is_last_at = returns.get(position + 1).is_none_or(|(next, _)| *next > at);
        if let (true, 1, Some(state)) = (is_last_at, states.len(), states.first()) {
            certain = Certain { at, state: state.clone() };
        }
    }
    certain
}

/// One return, and the operations that are open at it: each may take effect just before it.
struct Forward<'a> {
    prefix: &'a [Operation],
    open: &'a [usize],
    returning: usize,
}

impl Forward<'_> {
    /// The states after the return; nothing if there are too many to follow.
    fn from(&self, states: &BTreeSet<State>) -> Option<BTreeSet<State>> {
        let mut seen = BTreeSet::new();
        let mut after = BTreeSet::new();
        let mut left: Vec<State> = states.iter().cloned().collect();
        while let Some(state) = left.pop() {
            let state = self.with_observers(state);
            if !seen.insert(state.clone()) {
                continue;
            }
            if seen.len() > STATES_MAX {
                return None;
            }
            if state.done.contains(&self.returning) {
                // Whatever else may take effect can do so before a later return as well.
                let mut state = state;
                state.done.remove(&self.returning);
                after.insert(state);
                continue;
            }
            left.extend(self.successors(&state));
        }
        Some(self.without_dominated(&after))
    }

    fn successors<'b>(&'b self, state: &'b State) -> impl Iterator<Item = State> + 'b {
        let candidates = self.open.iter().filter(|number| !state.done.contains(number));
        candidates.filter_map(|number| {
            let value = step(state.value, &self.prefix[*number])?;
            let mut done = state.done.clone();
            done.insert(*number);
            Some(State { value, done })
        })
    }

    /// An operation that changes nothing and whose result fits can only gain by taking effect now.
    fn with_observers(&self, mut state: State) -> State {
        for number in self.open {
            let operation = &self.prefix[*number];
            if is_observer(operation) && step(state.value, operation).is_some() {
                state.done.insert(*number);
            }
        }
        state
    }

    /// Of two states with the same value, one may allow all that the other does: if operations of unknown
    /// outcome took effect in that one only, or operations that change nothing in this one only.
    fn without_dominated(&self, states: &BTreeSet<State>) -> BTreeSet<State> {
        let dominates = |one: &State, other: &State| {
            one.value == other.value
                && other.done.difference(&one.done).all(|number| self.prefix[*number].ret.is_none())
                && one.done.difference(&other.done).all(|number| is_observer(&self.prefix[*number]))
        };
        let is_dominated =
            |state: &State| states.iter().any(|other| other != state && dominates(other, state));
        states.iter().filter(|state| !is_dominated(state)).cloned().collect()
    }
}

/// Whether it is known to have changed nothing.
fn is_observer(operation: &Operation) -> bool {
    let is_refused = operation.f == Function::Cas && operation.ok == Some(false);
    operation.f == Function::Read || is_refused
}

/// Drops the operations of unknown outcome from before the window that cannot help to explain it. A value
/// that nobody expects can still explain why a compare-and-set failed.
fn without_unseen(operations: &[Operation], began: u64) -> Vec<Operation> {
    let fails = |operation: &Operation| operation.ok == Some(false);
    if operations.iter().any(fails) {
        return operations.to_vec();
    }
    let is_seen = |value: Option<u64>| {
        operations.iter().any(|operation| match operation.f {
            Function::Read => operation.val == value,
            Function::Cas => operation.from == value,
            Function::Write | Function::Add | Function::Contains => false,
        })
    };
    let is_kept = |operation: &&Operation| {
        operation.ret.is_some() || operation.call > began || is_seen(operation.arg)
    };
    operations.iter().filter(is_kept).copied().collect()
}

/// Finds the operations that contradict each other.
fn with_core(operations: &[Operation], value: Option<u64>, ended: u64) -> Vec<Placed> {
    let is_last = |operation: &Operation| operation.ret == Some(ended);
    let mut kept: Vec<Option<Operation>> = operations.iter().copied().map(Some).collect();
    let is_small = operations.len() <= CORE_OPERATIONS_MAX;
    let mut placed = Vec::with_capacity(operations.len());
    for (number, operation) in operations.iter().enumerate() {
        let mut is_core = is_last(operation);
        if is_small && !is_core && operation.ret.is_some() {
            let tight = std::mem::replace(&mut kept[number], relaxed(operation));
            let looser: Vec<Operation> = kept.iter().flatten().copied().collect();
            is_core = is_explained(&looser, value);
            if is_core {
                kept[number] = tight;
            }
        }
        placed.push(Placed { operation: *operation, is_core });
    }
    placed
}

#[cfg(test)]
mod tests;
