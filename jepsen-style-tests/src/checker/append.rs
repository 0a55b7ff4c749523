//! Lists that grow at their end, each number put in once. A read shows the order of all appends before
//! it, so no search is needed (the idea is Elle's): all lists that were read of a key are beginnings of the
//! longest one, which is the order in which its appends took effect.
//!
//! Per key: no list contradicts the longest, no number is there twice, comes from nowhere or was refused;
//! lists never get shorter, a number is in every list read after its append was acknowledged, and behind
//! everything that was seen before its append was called.

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
    /// Who did it.
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
mod tests {
    use super::super::linear;
    use super::*;

    fn read(list: &[u64], call: u64, ret: u64) -> ListOperation {
        ListOperation {
            client: 1,
            key: 1,
            f: ListFunction::Read,
            arg: None,
            ok: Some(true),
            list: list.to_vec(),
            index: list.len() as u64,
            call,
            ret: Some(ret),
        }
    }

    fn append(number: u64, ok: bool, call: u64, ret: impl Into<Option<u64>>) -> ListOperation {
        let ret = ret.into();
        let (f, arg, ok) = (ListFunction::Append, Some(number), ret.map(|_| ok));
        ListOperation { f, arg, ok, ret, ..read(&[], call, call) }
    }

    #[test]
    fn good_histories_are_accepted() {
        let one = append(1, true, 1, 2);
        let two = append(2, true, 3, 4);
        let good: Vec<(&str, Vec<ListOperation>)> = vec![
            ("one after the other", vec![one.clone(), two.clone(), read(&[1, 2], 5, 6)]),
            (
                "an overlapping read sees less",
                vec![one.clone(), append(2, true, 3, 9), read(&[1], 4, 5), read(&[1, 2], 10, 11)],
            ),
            (
                "overlapping appends in either order",
                vec![append(1, true, 1, 5), append(2, true, 2, 4), read(&[2, 1], 6, 7)],
            ),
            (
                "an unknown append takes effect late",
                vec![append(1, true, 1, None), two.clone(), read(&[2], 5, 6), read(&[2, 1], 7, 8)],
            ),
            ("an unknown append never does", vec![append(1, true, 1, None), two, read(&[2], 5, 6)]),
            (
                "a refused one is not there",
                vec![one.clone(), append(3, false, 3, 4), read(&[1], 5, 6)],
            ),
            ("nobody read since", vec![one.clone(), read(&[1], 3, 4), append(2, true, 5, 6)]),
            (
                "lists are judged alone",
                vec![one, read(&[1], 3, 4), ListOperation { key: 2, ..read(&[], 5, 6) }],
            ),
        ];
        for (name, history) in good {
            assert_eq!(check(&history), Verdict::Valid, "{name}");
        }
    }

    #[test]
    fn bad_histories_are_rejected() {
        let both = || vec![append(1, true, 1, 2), append(2, true, 3, 4)];
        let then = |more: &[ListOperation]| [both(), more.to_vec()].concat();
        let bad: Vec<(&str, &str, Vec<ListOperation>)> = vec![
            ("lost", "2 is lost", then(&[read(&[1], 5, 6)])),
            ("lost from the middle", "1 is lost", then(&[read(&[2], 5, 6)])),
            ("twice", "twice", then(&[read(&[1, 2, 1], 5, 6)])),
            ("from nowhere", "nowhere", then(&[read(&[1, 2, 9], 5, 6)])),
            ("two orders", "contradicts", then(&[read(&[1, 2], 5, 6), read(&[2, 1], 5, 6)])),
            ("a stale read", "before", then(&[read(&[1, 2], 5, 6), read(&[1], 7, 8)])),
            (
                "an acknowledged one is not seen",
                "before",
                then(&[read(&[1], 5, 9), read(&[1, 2], 6, 7)]),
            ),
            (
                "refused and there",
                "refused",
                then(&[append(3, false, 5, 6), read(&[1, 2, 3], 7, 8)]),
            ),
            (
                "seen before it was appended",
                "before",
                vec![append(1, true, 1, 2), read(&[1, 2], 3, 4), append(2, true, 5, 6)],
            ),
            ("the later one comes first", "before", then(&[read(&[2, 1], 5, 6)])),
            (
                "another list's number",
                "nowhere",
                vec![append(1, true, 1, 2), ListOperation { key: 2, ..read(&[1], 3, 4) }],
            ),
        ];
        for (name, word, history) in bad {
            let Verdict::Invalid(violations) = check(&history) else { panic!("{name}") };
            assert!(violations.iter().any(|said| said.contains(word)), "{name}: {violations:?}");
        }
    }

    #[test]
    fn a_run_without_an_acknowledged_append_proves_nothing() {
        assert!(matches!(check(&[]), Verdict::Vacuous(_)));
        assert!(matches!(check(&[append(1, true, 1, None), read(&[], 2, 3)]), Verdict::Vacuous(_)));
    }

    #[test]
    fn as_a_register_a_list_shows_who_was_refused_without_a_reason() {
        let to = |list: &[u64], append: ListOperation| ListOperation {
            list: list.to_vec(),
            index: list.len() as u64,
            ..append
        };
        let judge = |history: &[ListOperation]| {
            let registers: Vec<_> = history.iter().map(ListOperation::as_register).collect();
            linear::check(&registers)
        };
        let one = || vec![append(1, true, 1, 2), read(&[1], 3, 4)];
        let then = |more: &[ListOperation]| [one(), more.to_vec()].concat();
        let raced = then(&[
            to(&[1], append(2, true, 5, 9)),
            to(&[1], append(3, false, 6, 8)),
            read(&[1, 2], 10, 11),
        ]);
        assert_eq!(judge(&raced), Verdict::Valid);
        let beside_an_unknown_one =
            then(&[to(&[1], append(2, true, 5, None)), to(&[1], append(3, false, 6, 8))]);
        assert_eq!(judge(&beside_an_unknown_one), Verdict::Valid);
        let refused = then(&[to(&[1], append(3, false, 5, 6)), read(&[1], 7, 8)]);
        assert_eq!(check(&refused), Verdict::Valid, "the lists alone do not show it");
        let Verdict::Invalid(violations) = judge(&refused) else { panic!("accepted") };
        assert!(violations[0].contains("this does not fit"), "{violations:?}");
        assert!(violations[0].contains("arg: Some(3)"), "{violations:?}");
    }

    #[test]
    fn a_list_is_a_register_of_its_last_number() {
        let read = read(&[1, 2], 5, 6).as_register();
        assert_eq!((read.f, read.val, read.index), (Function::Read, Some(2), Some(2)));
        let swap =
            ListOperation { list: vec![1, 2], index: 2, ..append(3, true, 7, 8) }.as_register();
        assert_eq!((swap.f, swap.from, swap.arg), (Function::Cas, Some(2), Some(3)));
    }
}
