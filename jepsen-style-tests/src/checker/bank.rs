//! Money that transactions move between accounts, and read-only transactions that read all accounts.
//!
//! The state of an account names the transfer that wrote it, and each transfer names the two versions
//! (`ModifyIndex`) that it replaces. So the history of an account is a chain from the last read back to the first
//! state, without a search, and every acknowledged transfer must be on it.

mod chain;
mod entry;
mod snapshots;

pub use entry::{Account, Entry, Leg, Total, Transfer};

use super::Verdict;

/// How many accounts there are.
pub const ACCOUNTS: u64 = 5;
/// What each holds at first.
pub const BALANCE_AT_FIRST: i64 = 100;

/// Judges a bank of [`ACCOUNTS`] accounts that began with [`BALANCE_AT_FIRST`] each.
pub fn check(history: &[Entry]) -> Verdict {
    let (mut transfers, mut totals) = (Vec::new(), Vec::new());
    for entry in history {
        match entry {
            Entry::Transfer(transfer) => transfers.push(transfer),
            Entry::Total(total) => totals.push(total),
        }
    }
    let mut violations = snapshots::violations(&totals);
    violations.extend(chain::violations(&transfers, &totals));
    let is_idle = !transfers.iter().any(|transfer| transfer.ok == Some(true));
    if violations.is_empty() && (is_idle || totals.is_empty()) {
        return Verdict::Vacuous("no transfer was acknowledged, or no total was read".to_owned());
    }
    Verdict::from_violations(violations)
}

#[cfg(test)]
mod tests;
