//! Each account's chain of versions, walked back from the last snapshot to the first state. What is on it took
//! effect; what was acknowledged and is not on it is lost; and each step must be what its transfer says.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::super::order::{Sight, regressions};
use super::{ACCOUNTS, Account, BALANCE_AT_FIRST, Total, Transfer};

pub(super) fn violations(transfers: &[&Transfer], totals: &[&Total]) -> Vec<String> {
    let by_id: HashMap<u64, &Transfer> =
        transfers.iter().map(|transfer| (transfer.id, *transfer)).collect();
    let mut violations = Vec::new();
    for account in 0..ACCOUNTS {
        let chain = Chain::new(account, &by_id, totals);
        violations.extend(chain.violations().map(|said| format!("account {account}: {said}")));
    }
    violations
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
        let (on_chain, mut found) = self.walk();
        found.extend(self.lost(&on_chain));
        found.extend(self.replaced_twice());
        found.extend(self.backwards());
        found.into_iter()
    }

    /// The transfers on the way back from the newest version to the first, and what is wrong with them.
    fn walk(&self) -> (BTreeSet<u64>, Vec<String>) {
        let (mut on_chain, mut violations) = (BTreeSet::new(), Vec::new());
        let mut newer = self.states.last_key_value().map(|(_, state)| *state);
        while let Some(state) = newer {
            match self.before(&state) {
                Ok(older) => newer = older,
                Err(why) => {
                    violations.push(why);
                    break;
                }
            }
            if state.transfer != 0 {
                on_chain.insert(state.transfer);
            }
        }
        (on_chain, violations)
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
        if older.balance + leg.change != state.balance {
            return Err(format!("a wrong sum: {older:?}, {transfer:?}, {state:?}"));
        }
        Ok(Some(*older))
    }

    /// Acknowledged before the last read of the account began, and not on the chain.
    fn lost(&self, on_chain: &BTreeSet<u64>) -> Vec<String> {
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

    fn replaced_twice(&self) -> Vec<String> {
        let mut successors: BTreeMap<u64, &Transfer> = BTreeMap::new();
        let mut violations = Vec::new();
        let done = self.transfers.values().filter(|transfer| transfer.ok == Some(true));
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
            let position = made.get(&transfer.id).copied().unwrap_or(leg.index + 1);
            sights.push(Sight { call: transfer.call, ret: transfer.ret, position, is_new: true });
            who.push(format!("{transfer:?}"));
        }
        let describe = |(earlier, later): (usize, usize)| {
            format!("older than what was there before: {}, then {}", who[earlier], who[later])
        };
        regressions(&sights).into_iter().map(describe).collect()
    }
}
