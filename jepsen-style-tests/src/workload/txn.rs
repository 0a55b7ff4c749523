//! A bank in the key-value store: accounts are keys, a transfer is one transaction that replaces two of them if
//! both are unchanged since they were read, and a total is one read-only transaction.
//!
//! An account's value is `{"balance":97,"transfer":5}`: its balance, and the number of the transfer that wrote this
//! version.

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::Rng as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Judgement, Workload};
use crate::checker::bank::{
    self, ACCOUNTS, Account, BALANCE_AT_FIRST, Entry, Leg, Total, Transfer,
};
use crate::client::{CLIENT_AT_THE_END, Call, Client, Reply, Site};
use crate::http::Answer;
use crate::record::Record;
use crate::{Failure, Result};

const NAME: &str = "txn";
const TXN: &str = "/v1/txn";
/// Committed, and rolled back.
const ANSWERS: &[u16] = &[200, 409];
/// The most that is moved at once: small enough that accounts are seldom empty.
const AMOUNT_MAX: i64 = 10;

/// See the module.
#[derive(Debug)]
pub struct Txn;

/// What a key holds.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    balance: i64,
    transfer: u64,
}

#[async_trait]
impl Workload for Txn {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "transfers between accounts by transactions: no money appears, vanishes or is seen half moved"
    }

    async fn set_up(&self, site: &Site) -> Result<()> {
        let first = Stored { balance: BALANCE_AT_FIRST, transfer: 0 };
        let operations: Vec<_> =
            (0..ACCOUNTS).map(|account| set(account, &first, Condition::Cas(0))).collect();
        site.http(0).must_put(TXN, Value::from(operations).to_string()).await?;
        Ok(())
    }

    async fn step(&self, client: &mut Client) {
        let reply = client.send(question(gets().to_string())).await;
        let Some(accounts) = note_total(&client.site, client.process(), &reply) else { return };
        if client.rng.random_bool(0.5) {
            let number = client.fresh_number();
            transfer(client, &accounts, number).await;
        }
    }

    async fn conclude(&self, site: &Site) -> Result<()> {
        for position in 0..site.nodes.len() {
            let body = gets().to_string();
            let reply = site.send(CLIENT_AT_THE_END, position, question(body)).await;
            note_total(site, CLIENT_AT_THE_END, &reply);
        }
        Ok(())
    }

    fn judge(&self, record: &Record) -> Result<Vec<Judgement>> {
        let history: Vec<Entry> = record.entries(NAME)?;
        Ok(vec![Judgement::new("bank", bank::check(&history))])
    }
}

fn path(account: u64) -> String {
    format!("bank/{account}")
}

fn gets() -> Value {
    (0..ACCOUNTS).map(|account| json!({"KV": {"Verb": "get", "Key": path(account)}})).collect()
}

fn question(body: String) -> Call<'static> {
    Call::question(TXN, body).accepting(ANSWERS)
}

/// How a transaction makes sure that an account is as it was read.
#[derive(Debug, Clone, Copy)]
enum Condition {
    /// The write itself compares the version.
    Cas(u64),
    /// An operation of its own does, before.
    Checked,
}

fn set(account: u64, stored: &Stored, condition: Condition) -> Value {
    let value = STANDARD.encode(json!(stored).to_string());
    match condition {
        Condition::Cas(index) => {
            json!({"KV": {"Verb": "cas", "Key": path(account), "Value": value, "Index": index}})
        }
        Condition::Checked => json!({"KV": {"Verb": "set", "Key": path(account), "Value": value}}),
    }
}

fn check_index(leg: &Leg) -> Value {
    json!({"KV": {"Verb": "check-index", "Key": path(leg.account), "Index": leg.index}})
}

async fn transfer(client: &mut Client, accounts: &[Account], id: u64) {
    let count = accounts.len();
    let from = client.rng.random_range(0..count);
    let to = (from + client.rng.random_range(1..count)) % count;
    let amount = client.rng.random_range(1..=AMOUNT_MAX);
    if accounts[from].balance < amount {
        return;
    }
    let leg =
        |place: usize, change| Leg { account: place as u64, index: accounts[place].index, change };
    let legs = [leg(from, -amount), leg(to, amount)];
    let is_checked = client.rng.random_bool(0.5);
    let body = operations(&legs, accounts, id, is_checked).to_string();
    let reply = client.send(Call::write(TXN, body).accepting(ANSWERS)).await;
    let Some((ok, ret)) = reply.settled(|answer| answer.status == 200) else { return };
    let [from, to] = legs;
    let made = Transfer { client: client.process(), id, from, to, ok, call: reply.call, ret };
    client.site.journal.note(NAME, &Entry::Transfer(made));
    if reply.is_unknown() {
        client.lose_sight();
    }
}

/// Both ways of making a transfer conditional; all checks come first.
fn operations(legs: &[Leg; 2], accounts: &[Account], id: u64, is_checked: bool) -> Value {
    let checks = legs.iter().filter(|_| is_checked).map(check_index);
    let sets = legs.iter().zip(accounts_of(legs, accounts)).map(|(leg, account)| {
        let stored = Stored { balance: account.balance + leg.change, transfer: id };
        let condition = if is_checked { Condition::Checked } else { Condition::Cas(leg.index) };
        set(leg.account, &stored, condition)
    });
    checks.chain(sets).collect()
}

fn accounts_of<'a>(
    legs: &'a [Leg; 2],
    accounts: &'a [Account],
) -> impl Iterator<Item = &'a Account> {
    legs.iter().filter_map(|leg| accounts.get(usize::try_from(leg.account).ok()?))
}

/// Writes a total down, unless there is no answer.
fn note_total(site: &Site, client: u64, reply: &Reply) -> Option<Vec<Account>> {
    let accounts = accounts_in(reply.answer()?);
    let total = Total { client, accounts: accounts.clone(), call: reply.call, ret: reply.end };
    site.journal.note(NAME, &Entry::Total(total));
    Some(accounts).filter(|accounts| accounts.len() as u64 == ACCOUNTS)
}

/// The accounts of a total; an answer that lacks some (409: one does not exist) has fewer.
fn accounts_in(answer: &Answer) -> Vec<Account> {
    let body: Value = answer.json().unwrap_or_default();
    let results = body["Results"].as_array().map_or(&[][..], Vec::as_slice);
    results.iter().filter_map(|result| account_in(&result["KV"]).ok()).collect()
}

fn account_in(entry: &Value) -> Result<Account> {
    let missing = || Failure::new(format!("no account: {entry}"));
    let value = entry["Value"].as_str().ok_or_else(missing)?;
    let stored = STANDARD.decode(value).map_err(|_| missing())?;
    let Stored { balance, transfer } = serde_json::from_slice(&stored)?;
    let index = entry["ModifyIndex"].as_u64().ok_or_else(missing)?;
    Ok(Account { index, balance, transfer })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_is_conditional_in_either_form() {
        let accounts = [Account { index: 7, balance: 100, transfer: 0 }; 5];
        let leg = |account, change| Leg { account, index: 7, change };
        let legs = [leg(0, -3), leg(4, 3)];
        let by_cas = operations(&legs, &accounts, 9, false);
        let verbs = |body: &Value| -> Vec<String> {
            body.as_array().unwrap().iter().map(|o| o["KV"]["Verb"].to_string()).collect()
        };
        assert_eq!(verbs(&by_cas), [r#""cas""#, r#""cas""#]);
        assert_eq!(by_cas[1]["KV"]["Index"], 7);
        let value = by_cas[1]["KV"]["Value"].as_str().unwrap();
        assert_eq!(STANDARD.decode(value).unwrap(), br#"{"balance":103,"transfer":9}"#);
        let by_check = operations(&legs, &accounts, 9, true);
        let expected = [r#""check-index""#, r#""check-index""#, r#""set""#, r#""set""#];
        assert_eq!(verbs(&by_check), expected);
    }
}
