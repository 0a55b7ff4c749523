//! The operations in a bank's history.

use serde::{Deserialize, Serialize};

/// One line of the history; `"f"` says which kind it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "kebab-case")]
pub enum Entry {
    /// A transaction that moves money.
    Transfer(Transfer),
    /// A read-only transaction over all accounts.
    Total(Total),
}

/// A transaction that moves money from one account to another, if both are as they were read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// The client.
    pub client: u64,
    /// Its number; no other transfer has it, and none has 0.
    pub id: u64,
    /// The account that gives.
    pub from: Leg,
    /// The account that takes.
    pub to: Leg,
    /// Whether it was committed; null if unknown.
    pub ok: Option<bool>,
    /// When it was called.
    pub call: u64,
    /// When it returned; null: the outcome is unknown.
    pub ret: Option<u64>,
}

/// What a transfer does to one account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    /// Which account.
    pub account: u64,
    /// The version that it replaces.
    pub index: u64,
    /// By how much the balance grows; negative for the account that gives.
    pub change: i64,
}

impl Transfer {
    /// What it does to an account; none if nothing.
    pub(super) fn leg(&self, account: u64) -> Option<&Leg> {
        [&self.from, &self.to].into_iter().find(|leg| leg.account == account)
    }
}

/// All accounts at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// The client.
    pub client: u64,
    /// Each account, in order of their numbers from 0.
    pub accounts: Vec<Account>,
    /// When it was called.
    pub call: u64,
    /// When it returned.
    pub ret: u64,
}

/// One account at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its version: the `ModifyIndex` of its key.
    pub index: u64,
    /// What it holds.
    pub balance: i64,
    /// The transfer that made this version; 0: it is the first.
    pub transfer: u64,
}
