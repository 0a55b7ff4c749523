//! Registers in the key-value store: default reads, writes, and compare-and-sets by `ModifyIndex`.
//!
//! Every value written is written once, so compare-and-set by `ModifyIndex` is compare-and-set by
//! value. Keys rotate, because the cost of the search grows with the operations on a key.

use async_trait::async_trait;
use rand::Rng as _;

use super::{Judgement, Workload};
use crate::Result;
use crate::checker::linear;
use crate::client::{Call, Client, Outcome, Reply};
use crate::history::{Function, Operation};
use crate::load::register_in;
use crate::record::Record;

/// Keys that are worked on at the same time.
const KEYS_AT_ONCE: u64 = 5;
/// Values that a client can write before its numbers meet another's.
const VALUES_PER_CLIENT: u64 = 1_000_000;
/// A key is worked on for about this many operations of all clients.
const OPERATIONS_PER_KEY: u64 = 250;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// See the module.
#[derive(Debug)]
pub struct KvRegister;

#[async_trait]
impl Workload for KvRegister {
    fn name(&self) -> &'static str {
        "kv-register"
    }

    fn summary(&self) -> &'static str {
        "reads, writes and compare-and-sets of keys are linearizable"
    }

    async fn work(&self, mut client: Client) -> Result<()> {
        // The generation of keys follows from the time alone, so all clients move on together.
        let plan = &client.site.plan;
        let generation_ns = OPERATIONS_PER_KEY * KEYS_AT_ONCE * NANOS_PER_SECOND / plan.rate.max(1);
        let mut next = client.number * VALUES_PER_CLIENT;
        while client.turn().await {
            let generation = client.site.now() / generation_ns;
            let key = generation * KEYS_AT_ONCE + client.rng.random_range(0..KEYS_AT_ONCE);
            next += 1;
            match client.rng.random_range(0..4) {
                0 | 1 => drop(read(&mut client, key).await),
                2 => write(&mut client, key, next).await,
                _ => cas(&mut client, key, next).await,
            }
        }
        Ok(())
    }

    fn judge(&self, record: &Record) -> Result<Vec<Judgement>> {
        let history: Vec<Operation> = record.entries(self.name())?;
        Ok(vec![Judgement::new("linearizable", linear::check(&history))])
    }

    fn failing_window(&self, record: &Record) -> Result<Option<linear::Window>> {
        Ok(linear::smallest_window(&record.entries::<Operation>(self.name())?))
    }
}

fn path(key: u64) -> String {
    format!("/v1/kv/register/{key}")
}

fn operation(client: &Client, key: u64, f: Function, reply: &Reply) -> Operation {
    Operation {
        client: client.process(),
        key,
        f,
        from: None,
        arg: None,
        ok: None,
        val: None,
        call: reply.call,
        ret: Some(reply.end),
    }
}

/// Reads a key; returns its `ModifyIndex` and value.
async fn read(client: &mut Client, key: u64) -> Option<(u64, Option<u64>)> {
    let reply = client.send(Call::read(&path(key))).await;
    let (index, val) = register_in(reply.answer()?)?;
    let seen = operation(client, key, Function::Read, &reply);
    client.site.journal.note("kv-register", &Operation { ok: Some(true), val, ..seen });
    Some((index, val))
}

async fn write(client: &mut Client, key: u64, value: u64) {
    let reply = client.send(Call::write(&path(key), value.to_string())).await;
    let written = operation(client, key, Function::Write, &reply);
    note_write(client, &reply, Operation { arg: Some(value), ..written });
}

async fn cas(client: &mut Client, key: u64, value: u64) {
    let Some((index, from)) = read(client, key).await else { return };
    let path = format!("{}?cas={index}", path(key));
    let reply = client.send(Call::write(&path, value.to_string())).await;
    let swapped = operation(client, key, Function::Cas, &reply);
    note_write(client, &reply, Operation { from, arg: Some(value), ..swapped });
}

/// Writes a write down, unless it is known to have had no effect.
fn note_write(client: &mut Client, reply: &Reply, operation: Operation) {
    let operation = match &reply.outcome {
        Outcome::Answered(answer) => Operation { ok: Some(answer.body == "true"), ..operation },
        Outcome::NoEffect(_) => return,
        Outcome::Unknown(_) => Operation { ret: None, ..operation },
    };
    client.site.journal.note("kv-register", &operation);
    if reply.is_unknown() {
        client.lose_sight();
    }
}
