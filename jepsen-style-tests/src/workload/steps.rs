//! Work that is done one step a turn, so that `mixed` can take its steps from several workloads.

use std::sync::Mutex;

use async_trait::async_trait;
use rand::Rng as _;

use super::Workload;
use crate::Result;
use crate::client::{Client, Outcome, Reply, Site};
use crate::history::{Function, Operation};

/// Numbers that a client can give out before they meet another's.
const NUMBERS_PER_CLIENT: u64 = 1_000_000;
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

/// A workload whose clients take one step a turn.
pub(super) trait Stepping: Workload {
    /// What `client` does, from its first turn on.
    fn steps(&self, client: &Client) -> Box<dyn Steps>;
}

/// What one client does in its turns, and what it remembers between them.
#[async_trait]
pub(super) trait Steps: Send {
    /// One turn: a request, or a read and the write that follows from it.
    async fn step(&mut self, client: &mut Client);
}

/// Takes a step in each of the client's turns until the run is over.
pub(super) async fn take(workload: &dyn Stepping, mut client: Client) -> Result<()> {
    let mut steps = workload.steps(&client);
    while client.turn().await {
        steps.step(&mut client).await;
    }
    Ok(())
}

/// Numbers that no other client gives out, and not 0.
#[derive(Debug)]
pub(super) struct Numbers {
    last: u64,
}

impl Numbers {
    pub(super) fn of(client: &Client) -> Self {
        Self { last: client.number * NUMBERS_PER_CLIENT }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

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

/// An operation that ended as `reply` did, without what it did.
pub(super) fn ended(client: &Client, key: u64, f: Function, reply: &Reply) -> Operation {
    ended_by(client.process(), key, f, reply)
}

/// The same, of whoever has this number.
pub(super) fn ended_by(process: u64, key: u64, f: Function, reply: &Reply) -> Operation {
    let called = Operation::called(process, key, f, reply.call);
    Operation { ret: Some(reply.end), ..called }
}

/// Writes a write of `workload` down, unless it is known to have had no effect. The answers "true" and
/// "false" say whether its condition held.
pub(super) fn note_write(
    workload: &str,
    client: &mut Client,
    reply: &Reply,
    operation: Operation,
) -> Option<bool> {
    let operation = match &reply.outcome {
        Outcome::Answered(answer) => Operation { ok: Some(answer.body == "true"), ..operation },
        Outcome::NoEffect(_) => return None,
        Outcome::Unknown(_) => Operation { ret: None, ..operation },
    };
    client.site.journal.note(workload, &operation);
    if reply.is_unknown() {
        client.lose_sight();
    }
    operation.ok
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
