//! The versions of each account, from the last snapshot back to the first state. What is on the chain took effect;
//! what was acknowledged or read and is not on it is lost; each step must be what its transfer says. A transfer
//! that was rolled back needs a reason: one of the versions that it expected was gone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::super::order::{Sight, regressions};
use super::{ACCOUNTS, Account, BALANCE_AT_FIRST, Leg, Total, Transfer};

pub(super) fn violations(transfers: &[&Transfer], totals: &[&Total]) -> Vec<String> {
    let by_id: HashMap<u64, &Transfer> =
        transfers.iter().map(|transfer| (transfer.id, *transfer)).collect();
    let mut violations = Vec::new();
    for account in 0..ACCOUNTS {
        let chain = Chain::new(account, &by_id, totals);
        violations.extend(chain.violations().map(|said| format!("account {account}: {said}")));
    }
    violations.extend(refused(transfers, totals));
    violations
}

/// A version that was replaced never comes back. So if both that a transfer asked for are there for totals
/// that were called after it returned, they were there all the time, and it was rolled back without a reason.
fn refused(transfers: &[&Transfer], totals: &[&Total]) -> Vec<String> {
    let mut last_seen: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for total in totals {
        for (account, state) in (0..).zip(&total.accounts) {
            let last = last_seen.entry((account, state.index)).or_default();
            *last = total.call.max(*last);
        }
    }
    let is_seen_after = |leg: &Leg, ret: u64| {
        last_seen.get(&(leg.account, leg.index)).is_some_and(|call| *call > ret)
    };
    let is_wrong = |transfer: &&&Transfer| {
        transfer.ok == Some(false)
            && transfer.ret.is_some_and(|ret| {
                is_seen_after(&transfer.from, ret) && is_seen_after(&transfer.to, ret)
            })
    };
    let describe = |transfer: &&Transfer| {
        format!("it was refused, and both versions it asked for were there: {transfer:?}")
    };
    transfers.iter().filter(is_wrong).map(describe).collect()
}

struct Chain<'a> {
    account: u64,
    transfers: &'a HashMap<u64, &'a Transfer>,
    /// Every snapshot of this account.
    reads: Vec<(Account, &'a Total)>,
    /// Every version that was read.
    states: BTreeMap<u64, Account>,
}

impl<'a> Chain<'a> {
    fn new(account: u64, transfers: &'a HashMap<u64, &'a Transfer>, totals: &[&'a Total]) -> Self {
        let mut reads = Vec::new();
        for total in totals {
            let place = usize::try_from(account).unwrap_or(usize::MAX);
            reads.extend(total.accounts.get(place).map(|account| (*account, *total)));
        }
        let states = reads.iter().map(|(account, _)| (account.index, *account)).collect();
        Self { account, transfers, reads, states }
    }

    fn violations(&self) -> impl Iterator<Item = String> {
        let (way, broken) = self.walk();
        let mut found = match broken {
            Some(why) => vec![why],
            None => self.beside(&way),
        };
        found.extend(self.lost(&way));
        found.extend(self.replaced_twice());
        found.extend(self.backwards());
        found.into_iter()
    }

    /// The states on the way back from the newest version to the first; and if the way ends before that, why.
    fn walk(&self) -> (Vec<Account>, Option<String>) {
        let mut way = Vec::new();
        let mut newer = self.states.last_key_value().map(|(_, state)| *state);
        while let Some(state) = newer {
            way.push(state);
            match self.before(&state) {
                Ok(older) => newer = older,
                Err(why) => return (way, Some(why)),
            }
        }
        (way, None)
    }

    /// Whoever replaces a version has read it, so every version that was read lies on the way. One that does
    /// not was overwritten by a transfer that did not see it.
    fn beside(&self, way: &[Account]) -> Vec<String> {
        let on_way: BTreeSet<u64> = way.iter().map(|state| state.index).collect();
        let beside = self.states.values().filter(|state| !on_way.contains(&state.index));
        beside.map(|state| format!("read, and overwritten unseen: {state:?}")).collect()
    }

    /// The state that `state` replaced; none if it is the first.
    fn before(&self, state: &Account) -> Result<Option<Account>, String> {
        if state.transfer == 0 {
            let is_first = state.balance == BALANCE_AT_FIRST;
            return is_first.then_some(None).ok_or(format!("not how it began: {state:?}"));
        }
        let Some(transfer) = self.transfers.get(&state.transfer) else {
            return Err(format!("its transfer comes from nowhere: {state:?}"));
        };
        if transfer.ok == Some(false) {
            return Err(format!(
                "a transfer that was rolled back took effect: {transfer:?}, {state:?}"
            ));
        }
        let Some(leg) = transfer.leg(self.account) else {
            return Err(format!("a transfer between other accounts: {transfer:?}, {state:?}"));
        };
        let Some(older) = self.states.get(&leg.index).filter(|older| older.index < state.index)
        else {
            return Err(format!("it does not replace an older version: {transfer:?}, {state:?}"));
        };
        if older.balance.checked_add(leg.change) != Some(state.balance) {
            return Err(format!("a wrong sum: {older:?}, {transfer:?}, {state:?}"));
        }
        Ok(Some(*older))
    }

    /// Acknowledged before the last read of the account began, and not on the chain.
    fn lost(&self, way: &[Account]) -> Vec<String> {
        let on_chain: BTreeSet<u64> = way.iter().map(|state| state.transfer).collect();
        let newest = self.states.last_key_value().map(|(index, _)| *index);
        let at_newest = self.reads.iter().filter(|(account, _)| Some(account.index) == newest);
        let last_call = at_newest.map(|(_, total)| total.call).max();
        let is_lost = |transfer: &&&Transfer| {
            transfer.ok == Some(true)
                && transfer.ret < last_call
                && !on_chain.contains(&transfer.id)
        };
        let mine = self.transfers.values().filter(|transfer| transfer.leg(self.account).is_some());
        let mut lost: Vec<_> = mine.filter(is_lost).collect();
        lost.sort_unstable_by_key(|transfer| transfer.call);
        lost.into_iter().map(|transfer| format!("lost: {transfer:?}")).collect()
    }

    /// A version is replaced by one transfer at most. One that took effect says so, or some state names it.
    fn replaced_twice(&self) -> Vec<String> {
        let mut successors: BTreeMap<u64, &Transfer> = BTreeMap::new();
        let mut violations = Vec::new();
        let seen: BTreeSet<u64> = self.states.values().map(|state| state.transfer).collect();
        let is_done =
            |transfer: &&&Transfer| transfer.ok == Some(true) || seen.contains(&transfer.id);
        let mut done: Vec<_> = self.transfers.values().filter(is_done).collect();
        done.sort_unstable_by_key(|transfer| transfer.call);
        for transfer in done {
            let Some(leg) = transfer.leg(self.account) else { continue };
            if let Some(other) = successors.insert(leg.index, transfer) {
                violations
                    .push(format!("one version was replaced twice: {other:?} and {transfer:?}"));
            }
        }
        violations
    }

    /// A version is later than all that were seen before its transfer was called, and all who read after
    /// it was acknowledged see it or a later one.
    fn backwards(&self) -> Vec<String> {
        let mut sights = Vec::new();
        let mut who = Vec::new();
        for (account, total) in &self.reads {
            let (call, ret) = (total.call, Some(total.ret));
            sights.push(Sight { call, ret, position: account.index, is_new: false });
            who.push(format!("{total:?}"));
        }
        let made: HashMap<u64, u64> =
            self.states.values().map(|state| (state.transfer, state.index)).collect();
        for transfer in self.transfers.values().filter(|transfer| transfer.ok == Some(true)) {
            let Some(leg) = transfer.leg(self.account) else { continue };
            // Nobody read its version: it is at least later than the one that it replaced.
            let position = made.get(&transfer.id).copied().unwrap_or(leg.index.saturating_add(1));
            sights.push(Sight { call: transfer.call, ret: transfer.ret, position, is_new: true });
            who.push(format!("{transfer:?}"));
        }
        let describe = |(earlier, later): (usize, usize)| {
            format!("older than what was there before: {}, then {}", who[earlier], who[later])
        };
        regressions(&sights).into_iter().map(describe).collect()
    }
}
