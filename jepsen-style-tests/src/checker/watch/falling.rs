//! Neither the index of a watcher's answers nor the value of a slot decreases.

use std::collections::BTreeMap;

use super::{Answer, Watcher, Write};
use crate::checker::restarts::Restarts;

/// What a watcher was shown so far.
#[derive(Debug, Default)]
struct Shown {
    index: u64,
    slots: BTreeMap<u64, Sight>,
}

/// What was last seen in a slot. It is remembered when the slot is empty again, because what is written there
/// then is larger still.
#[derive(Debug)]
struct Sight {
    value: u64,
    gone: bool,
}

/// All that went back. Only a server that was restarted may forget, in stale reads, and only what was emptied
/// (by a write that was sent, whatever became of it) may vanish.
pub(super) fn falling(
    name: &str,
    watcher: &Watcher,
    writes: &[Write],
    restarts: &Restarts,
) -> Vec<String> {
    let emptied: Vec<_> = writes
        .iter()
        .filter(|write| write.gone && watcher.covers(write.family, write.slot))
        .collect();
    let (mut shown, mut asked) = (Shown::default(), 0);
    let mut violations = Vec::new();
    for answer in &watcher.answers {
        if watcher.stale && restarts.is_between(watcher.node, asked, answer.ret) {
            shown = Shown::default();
        }
        asked = answer.call;
        let falls = shown.go_on(&emptied, answer);
        violations.extend(
            falls.iter().map(|fall| format!("{name}: {fall} in an answer at {} ns", answer.ret)),
        );
    }
    violations
}

impl Shown {
    /// Goes on to an answer; returns what went back in it, each only once.
    fn go_on(&mut self, emptied: &[&Write], answer: &Answer) -> Vec<String> {
        let mut falls = Vec::new();
        if answer.index < self.index {
            falls.push(format!("the index fell from {} to {}", self.index, answer.index));
        }
        self.index = answer.index;
        for (slot, sight) in &mut self.slots {
            if sight.gone || answer.seen.contains_key(slot) {
                continue;
            }
            sight.gone = true;
            let explains = |write: &&&Write| {
                write.slot == *slot && write.value > sight.value && write.call < answer.ret
            };
            if emptied.iter().find(explains).is_none() {
                falls.push(format!("slot {slot} vanished after {}", sight.value));
            }
        }
        for (slot, value) in &answer.seen {
            let now = Sight { value: *value, gone: false };
            let Some(before) = self.slots.insert(*slot, now) else { continue };
            if *value < before.value {
                falls.push(format!("slot {slot} went back from {} to {value}", before.value));
            } else if *value == before.value && before.gone {
                falls.push(format!("slot {slot} came back with {value}, which was gone"));
            }
        }
        falls
    }
}
