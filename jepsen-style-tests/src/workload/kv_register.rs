//! Registers in the key-value store: default reads, writes, and compare-and-sets by `ModifyIndex`.
//!
//! Every value is written once, so compare-and-set by `ModifyIndex` is compare-and-set by value. Keys rotate,
//! because the cost of the search grows with the operations on a key.
//!
//! Some of the keys are also deleted, one by one and by prefix: a deletion writes "absent". An absent key has no
//! version, so the indexes of those keys are not in the history.

use async_trait::async_trait;
use rand::Rng as _;

use super::steps::{self, KEYS_AT_ONCE, UNREADABLE, readable_key, register_in, rotating_key};
use super::{Judgement, Workload};
use crate::Result;
use crate::checker::{linear, versions};
use crate::client::{CLIENT_AT_THE_END, Call, Client, Reply, Site};
use crate::history::{Function, Operation};
use crate::record::Record;

const NAME: &str = "kv-register";
/// Of so many keys that are worked on at the same time, one is deleted now and then.
const DELETED_ONE_OF: u64 = KEYS_AT_ONCE;
/// And of so many writes of such a key, one is a deletion.
const DELETION_ONE_OF: u32 = 3;

/// See the module.
#[derive(Debug)]
pub struct KvRegister;

#[async_trait]
impl Workload for KvRegister {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "reads, writes, compare-and-sets and deletions of keys are linearizable"
    }

    async fn step(&self, client: &mut Client) {
        match client.rng.random_range(0..4) {
            0 | 1 => {
                let key = readable_key(client);
                read(client, key).await;
            }
            2 => {
                let key = rotating_key(client);
                if is_deleted(key) && client.rng.random_range(0..DELETION_ONE_OF) == 0 {
                    delete(client, key).await;
                } else {
                    write(client, key).await;
                }
            }
            _ => {
                let key = rotating_key(client);
                cas(client, key).await;
            }
        }
    }

    /// Reads every key everywhere: what was acknowledged is still there when everything is healed.
    async fn conclude(&self, site: &Site) -> Result<()> {
        for key in steps::keys_so_far(site) {
            for reply in site.read_everywhere(&path(key)).await {
                note_read(site, CLIENT_AT_THE_END, key, &reply);
            }
        }
        Ok(())
    }

    fn judge(&self, record: &Record) -> Result<Vec<Judgement>> {
        let history: Vec<Operation> = record.entries(NAME)?;
        Ok(vec![
            Judgement::new("linearizable", linear::check(&history)),
            Judgement::new("versions", versions::check(&history)),
        ])
    }

    fn failing_window(&self, record: &Record) -> Result<Option<linear::Window>> {
        Ok(linear::smallest_window(&record.entries::<Operation>(NAME)?))
    }
}

/// Whether clients delete this key.
fn is_deleted(key: u64) -> bool {
    key.is_multiple_of(DELETED_ONE_OF)
}

/// A key that is deleted lies alone in a folder of its own.
fn path(key: u64) -> String {
    if is_deleted(key) {
        format!("/v1/kv/deleted/{key}/value")
    } else {
        format!("/v1/kv/register/{key}")
    }
}

/// The index of a key for the history.
fn told(key: u64, index: u64) -> Option<u64> {
    (!is_deleted(key)).then_some(index)
}

/// Reads a key; returns its `ModifyIndex` and value.
async fn read(client: &mut Client, key: u64) -> Option<(u64, Option<u64>)> {
    let reply = client.send(Call::read(&path(key))).await;
    note_read(&client.site, client.process(), key, &reply)
}

/// Writes a read down, if it was answered, and returns the key's `ModifyIndex` and value.
fn note_read(site: &Site, process: u64, key: u64, reply: &Reply) -> Option<(u64, Option<u64>)> {
    let found = register_in(reply.answer()?);
    let index = found.and_then(|(index, _)| told(key, index));
    let val = found.map_or(Some(UNREADABLE), |(_, val)| val);
    steps::note_read(NAME, site, process, key, reply, (val, index));
    found
}

async fn write(client: &mut Client, key: u64) {
    let value = client.fresh_number();
    let path = path(key);
    let written = Operation { arg: Some(value), ..Operation::planned(key, Function::Write) };
    steps::write(NAME, client.home(), client, Call::write(&path, value.to_string()), written).await;
}

/// Deletes a key by its name, or with all that lies in its folder.
async fn delete(client: &mut Client, key: u64) {
    let path = if client.rng.random_bool(0.5) {
        path(key)
    } else {
        format!("/v1/kv/deleted/{key}/?recurse")
    };
    let deleted = Operation::planned(key, Function::Write);
    steps::write(NAME, client.home(), client, Call::delete(&path), deleted).await;
}

async fn cas(client: &mut Client, key: u64) {
    let Some((index, from)) = read(client, key).await else { return };
    let value = client.fresh_number();
    let path = format!("{}?cas={index}", path(key));
    // Often where the index was not read: a server that lags behind it must not refuse it for that.
    let position = client.home() + client.rng.random_range(0..2);
    let planned = Operation::planned(key, Function::Cas);
    let swapped = Operation { from, arg: Some(value), index: told(key, index), ..planned };
    steps::write(NAME, position, client, Call::write(&path, value.to_string()), swapped).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deleting_one_folder_deletes_one_key_and_its_indexes_are_not_told() {
        assert!(path(10).starts_with("/v1/kv/deleted/10/"));
        assert!(!path(100).starts_with("/v1/kv/deleted/10/"));
        assert_eq!((told(10, 7), told(11, 7)), (None, Some(7)));
    }
}
