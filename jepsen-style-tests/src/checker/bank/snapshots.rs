//! What the totals alone show: they are right, no account is overdrawn, a version has one state, and any two
//! snapshots are ordered by versions and in time.

use std::collections::BTreeMap;

use super::super::order::{Sight, regressions};
use super::{ACCOUNTS, Account, BALANCE_AT_FIRST, Total};

pub(super) fn violations(totals: &[&Total]) -> Vec<String> {
    let mut violations = amounts(totals);
    violations.extend(two_states(totals));
    violations.extend(torn(totals));
    violations
}

fn amounts(totals: &[&Total]) -> Vec<String> {
    let mut violations = Vec::new();
    for total in totals {
        let count = total.accounts.len() as u64;
        let sum: i128 = total.accounts.iter().map(|account| i128::from(account.balance)).sum();
        let expected = i128::from(ACCOUNTS) * i128::from(BALANCE_AT_FIRST);
        if count != ACCOUNTS || sum != expected {
            violations.push(format!("{count} accounts hold {sum}, not {expected}: {total:?}"));
        }
        if total.accounts.iter().any(|account| account.balance < 0) {
            violations.push(format!("an account is overdrawn: {total:?}"));
        }
    }
    violations
}

fn two_states(totals: &[&Total]) -> Vec<String> {
    let mut states: BTreeMap<(usize, u64), &Account> = BTreeMap::new();
    let mut violations = Vec::new();
    for total in totals {
        for (number, account) in total.accounts.iter().enumerate() {
            let first = states.entry((number, account.index)).or_insert(account);
            if *first != account {
                violations
                    .push(format!("two states of account {number}: {first:?} and {account:?}"));
            }
        }
    }
    violations
}

fn indexes(total: &Total) -> Vec<u64> {
    total.accounts.iter().map(|account| account.index).collect()
}

/// Of any two snapshots one is not newer in any account. If so, sorting by all versions puts them in that
/// order, and only neighbours need be compared. In that order they must follow each other in time, too.
fn torn(totals: &[&Total]) -> Vec<String> {
    let mut chain: Vec<&Total> = totals.to_vec();
    chain.sort_by_key(|total| indexes(total));
    let mut violations = Vec::new();
    let mut rank = 0;
    let mut sights = Vec::new();
    for (place, total) in chain.iter().enumerate() {
        if let Some(before) = place.checked_sub(1).map(|place| chain[place]) {
            let pairs = before.accounts.iter().zip(&total.accounts);
            if pairs.into_iter().any(|(older, newer)| older.index > newer.index) {
                violations.push(format!("each is newer in some account: {before:?} and {total:?}"));
            }
            rank += u64::from(indexes(before) != indexes(total));
        }
        let (call, ret) = (total.call, Some(total.ret));
        sights.push(Sight { call, ret, position: rank, is_new: false });
    }
    let describe = |(earlier, later): (usize, usize)| {
        format!("read after a newer one: {:?}, then {:?}", chain[earlier], chain[later])
    };
    violations.extend(regressions(&sights).into_iter().map(describe));
    violations
}
