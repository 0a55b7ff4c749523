//! What workloads share whose clients take one step a turn: rotating keys, and how operations are written down.

use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::Rng as _;
use serde_json::Value;

use crate::client::{Call, Client, Reply, Site};
use crate::history::{Function, Operation};
use crate::http::Answer;

/// Keys that are worked on at the same time.
pub(super) const KEYS_AT_ONCE: u64 = 5;
/// A key is worked on for about this many operations of all clients: checkers' costs grow with them.
const OPERATIONS_PER_KEY: u64 = 250;
/// One read of so many is of a key that is no longer worked on.
const READS_PER_READ_OF_BEFORE: u32 = 6;
const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// Stands for what was read and is not what clients write. Nobody writes it, so the checkers find that it
/// comes from nowhere: what a server made unreadable must not be passed over.
pub(super) const UNREADABLE: u64 = u64::MAX;

/// One of the keys of this moment. It follows from the time which they are, so all clients move on
/// together.
pub(super) fn rotating_key(client: &mut Client) -> u64 {
    generation(&client.site) * KEYS_AT_ONCE + client.rng.random_range(0..KEYS_AT_ONCE)
}

/// One of the keys that are read: mostly of this moment, else of the moment before, so that what was written
/// just before a fault is looked for after it.
pub(super) fn readable_key(client: &mut Client) -> u64 {
    let key = rotating_key(client);
    let of_before = client.rng.random_range(0..READS_PER_READ_OF_BEFORE) == 0;
    if of_before { key.checked_sub(KEYS_AT_ONCE).unwrap_or(key) } else { key }
}

/// Every key that [`rotating_key`] has given until now, and perhaps some that it has not.
pub(super) fn keys_so_far(site: &Site) -> std::ops::Range<u64> {
    0..(generation(site) + 1) * KEYS_AT_ONCE
}

fn generation(site: &Site) -> u64 {
    site.now() / (OPERATIONS_PER_KEY * KEYS_AT_ONCE * NANOS_PER_SECOND / site.plan.rate.max(1))
}

/// Writes a read of `workload` down that was answered: the value it found, and its index if that is known.
pub(super) fn note_read(
    workload: &str,
    site: &Site,
    process: u64,
    key: u64,
    reply: &Reply,
    (val, index): (Option<u64>, Option<u64>),
) {
    let called = Operation::called(process, key, Function::Read, reply.call);
    let ret = Some(reply.end);
    site.journal.note(workload, &Operation { ok: Some(true), val, index, ret, ..called });
}

/// Sends a write of `workload` to the server at a position, and writes it down unless it is known to have had no effect.
/// The answers "true" and "false" say whether its condition held.
pub(super) async fn write(
    workload: &str,
    position: usize,
    client: &mut Client,
    call: Call<'_>,
    operation: Operation,
) -> Option<bool> {
    let reply = client.send_to(position, call).await;
    let (ok, ret) = reply.settled(|answer| answer.body == "true")?;
    let operation = Operation { client: client.process(), call: reply.call, ok, ret, ..operation };
    client.site.journal.note(workload, &operation);
    if reply.is_unknown() {
        client.lose_sight();
    }
    operation.ok
}

/// The `ModifyIndex` and number of a key, (0, none) if it does not exist; none if it is no number.
pub(super) fn register_in(answer: &Answer) -> Option<(u64, Option<u64>)> {
    if answer.status == 404 {
        return Some((0, None));
    }
    let entries: Value = answer.json().ok()?;
    let index = entries[0]["ModifyIndex"].as_u64()?;
    Some((index, Some(decode_number(entries[0]["Value"].as_str()?)?)))
}

/// A decimal number in base64, as the key-value store shows it.
pub fn decode_number(base64: &str) -> Option<u64> {
    String::from_utf8(STANDARD.decode(base64).ok()?).ok()?.parse().ok()
}

/// What all clients know, by the answers that any of them got.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<Vec<u64>>);

/// Mostly the newest are looked for: a lagging server lacks those first.
const NEWEST: usize = 10;

impl Known {
    pub(super) fn add(&self, number: u64) {
        self.lock().push(number);
    }

    /// One of them, mostly of the newest; none if there are none.
    pub(super) fn pick(&self, client: &mut Client) -> Option<u64> {
        let newest_only = client.rng.random_range(0..4) > 0;
        let known = self.lock();
        let first = if newest_only { known.len().saturating_sub(NEWEST) } else { 0 };
        (first < known.len()).then(|| known[client.rng.random_range(first..known.len())])
    }

    /// A client that panicked while it wrote has failed the run already.
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u64>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_base64() {
        assert_eq!(decode_number("MQ=="), Some(1));
        assert_eq!(decode_number("MTIzNDU="), Some(12345));
        assert_eq!(decode_number("YQ=="), None);
        assert_eq!(decode_number("*"), None);
    }
}
