//! Lists in the key-value store: a key holds numbers separated by commas, and an append is a default read and a
//! compare-and-set of the list with one more number.

use std::collections::BTreeMap;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::Rng as _;
use serde_json::Value;

use super::steps::{self, UNREADABLE, rotating_key};
use super::{Judgement, Workload};
use crate::Result;
use crate::checker::append::{self, ListFunction, ListOperation};
use crate::checker::{linear, versions};
use crate::client::{CLIENT_AT_THE_END, Call, Client, Reply, Site};
use crate::history::Operation;
use crate::http::Answer;
use crate::record::Record;

const NAME: &str = "append";
const PREFIX: &str = "list/";

/// See the module.
#[derive(Debug)]
pub struct Append;

#[async_trait]
impl Workload for Append {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "lists grow by compare-and-set: every list read is a beginning of one order of the appends"
    }

    async fn step(&self, client: &mut Client) {
        let key = rotating_key(client);
        let Some(seen) = read(client, key).await else { return };
        if client.rng.random_bool(0.5) {
            let number = client.fresh_number();
            append(client, key, seen, number).await;
        }
    }

    async fn conclude(&self, site: &Site) -> Result<()> {
        for reply in site.read_everywhere(&format!("/v1/kv/{PREFIX}?recurse")).await {
            let Some(answer) = reply.answer() else { continue };
            let mut lists: BTreeMap<u64, Seen> =
                lists_in(answer).unwrap_or_default().into_iter().collect();
            // A list that is not there is a list without numbers, or one that is lost.
            for key in steps::keys_so_far(site) {
                let seen = lists.remove(&key).unwrap_or_default();
                site.journal.note(NAME, &read_operation(CLIENT_AT_THE_END, key, seen, &reply));
            }
        }
        Ok(())
    }

    fn judge(&self, record: &Record) -> Result<Vec<Judgement>> {
        let history: Vec<ListOperation> = record.entries(NAME)?;
        let registers: Vec<Operation> = history.iter().map(ListOperation::as_register).collect();
        Ok(vec![
            Judgement::new("append", append::check(&history)),
            Judgement::new("append-versions", versions::check(&registers)),
            // What neither of them sees: an append that was refused though its version was current.
            Judgement::new("append-linear", linear::check(&registers)),
        ])
    }
}

/// A list, as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    index: u64,
    list: Vec<u64>,
}

fn path(key: u64) -> String {
    format!("/v1/kv/{PREFIX}{key}")
}

async fn read(client: &mut Client, key: u64) -> Option<Seen> {
    let reply = client.send(Call::read(&path(key))).await;
    let seen = match reply.answer()? {
        answer if answer.status == 404 => Seen::default(),
        answer => lists_in(answer)
            .and_then(|mut lists| Some(lists.pop()?.1))
            .unwrap_or(Seen { index: 0, list: vec![UNREADABLE] }),
    };
    let read = read_operation(client.process(), key, seen.clone(), &reply);
    client.site.journal.note(NAME, &read);
    Some(seen)
}

fn read_operation(
    client: u64,
    key: u64,
    Seen { index, list }: Seen,
    reply: &Reply,
) -> ListOperation {
    let (f, ok, ret) = (ListFunction::Read, Some(true), Some(reply.end));
    ListOperation { client, key, f, arg: None, ok, list, index, call: reply.call, ret }
}

async fn append(client: &mut Client, key: u64, seen: Seen, number: u64) {
    let numbers = seen.list.iter().chain([&number]).map(u64::to_string).collect::<Vec<_>>();
    let path = format!("{}?cas={}", path(key), seen.index);
    let reply = client.send(Call::write(&path, numbers.join(","))).await;
    let Some((ok, ret)) = reply.settled(|answer| answer.body == "true") else { return };
    let read = read_operation(client.process(), key, seen, &reply);
    let (f, arg) = (ListFunction::Append, Some(number));
    client.site.journal.note(NAME, &ListOperation { f, arg, ok, ret, ..read });
    if reply.is_unknown() {
        client.lose_sight();
    }
}

/// The lists of an answer by their keys; none if it has another shape.
fn lists_in(answer: &Answer) -> Option<Vec<(u64, Seen)>> {
    let entries: Vec<Value> = answer.json().ok()?;
    entries.iter().map(list_in).collect()
}

fn list_in(entry: &Value) -> Option<(u64, Seen)> {
    let key = entry["Key"].as_str()?.strip_prefix(PREFIX)?.parse().ok()?;
    let text = String::from_utf8(STANDARD.decode(entry["Value"].as_str()?).ok()?).ok()?;
    let list = text.split(',').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    Some((key, Seen { index: entry["ModifyIndex"].as_u64()?, list }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_list_is_read_from_its_entry() {
        let entry = |value: &str| json!({"Key": "list/7", "Value": value, "ModifyIndex": 9});
        let seen = Seen { index: 9, list: vec![1, 22] };
        assert_eq!(list_in(&entry(&STANDARD.encode("1,22"))), Some((7, seen)));
        assert_eq!(list_in(&entry(&STANDARD.encode("1,,2"))), None);
        assert_eq!(list_in(&json!({})), None);
    }
}
