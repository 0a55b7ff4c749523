//! Writers, and watchers at every server that wait for keys, a prefix and services by blocking queries.
//!
//! Each client writes one slot, ever larger values, so what a watcher sees can be put in order. An unknown
//! outcome must not spoil that: a key is written by compare-and-set, so that a late write cannot come
//! after the next; and an instance of a service is given up for a new one. Now and then a writer empties its slot
//! instead, which must wake its watchers just as well; after that it rests, so that its next write does not wake
//! those that slept through it. For the same reason some services have one writer only. Each watcher goes on after
//! the last write until a whole wait has brought nothing new: then it must hold what is there.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Judgement, Workload, join};
use crate::checker::restarts::Restarts;
use crate::checker::watch::{self, DOUBT, Event, Family, QUERY_WAIT, QUERY_WAIT_MAX, WAKE_MAX};
use crate::checker::weather::Weather;
use crate::client::{CLIENT_AT_THE_END, CLIENTS_MAX, Call, Client, Outcome, Reply, Site};
use crate::http::{Answer, AnswerExt as _, PATIENCE};
use crate::record::Record;
use crate::{Failure, Result};

const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// A default query may have to wait for a leader first, for an election.
const ELECTION: Duration = Duration::from_secs(2);
/// A watcher that did not come to rest this long after the end has missed something, or its server is not
/// back. Its last query may take as long as a client is patient, and the run waits no longer than 40 s.
const REST_LIMIT: Duration = Duration::from_secs(25);
/// How often a watcher that waits for an answer checks whether the run is over.
const NOTICE: Duration = Duration::from_millis(500);
/// So much of an answer that cannot be read is written down, in characters.
const EXCERPT: usize = 200;
/// Between two questions that a server does not answer.
const RETRY: Duration = Duration::from_millis(50);
/// Of so many clients, one writes a key below the watched prefix, one an instance of the watched service, and one
/// a service of its own; the others write keys that are watched one by one.
const KINDS: u64 = 5;
const FAMILIES: [Family; 4] = [Family::Key, Family::Prefix, Family::Service, Family::Own];
/// A slot is emptied instead, one of so many times.
const EMPTY_ONE_OF: u32 = 6;
/// After that nothing is written there for longer than a wake-up may take, on a machine that is busy.
const REST: Duration = Duration::from_millis(1_000);
const NAME: &str = "watch";

const _: () = {
    let longest = Duration::from_nanos(QUERY_WAIT_MAX).as_millis() + ELECTION.as_millis();
    assert!(longest < PATIENCE.as_millis(), "a client outwaits every query");
    assert!(REST.as_nanos() > 2 * WAKE_MAX as u128, "the next write hides no lost wake-up");
    assert!(QUERY_WAIT.is_multiple_of(NANOS_PER_SECOND), "servers are told whole seconds");
};

/// See the module.
#[derive(Debug)]
pub(super) struct Watch;

#[async_trait]
impl Workload for Watch {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "blocking queries wake at every server, lose no change and never go back"
    }

    async fn work(&self, client: Client) -> Result<()> {
        let mut parts = JoinSet::new();
        if client.number == 0 {
            for (number, view) in (0..).zip(views(&client.site)) {
                parts.spawn(observe(Client::new(0, Arc::clone(&client.site)), number, view));
            }
        }
        parts.spawn(async move {
            match family_of(client.number) {
                family @ (Family::Key | Family::Prefix) => write_keys(client, family).await,
                family @ (Family::Service | Family::Own) => {
                    register_instances(client, family).await;
                }
            }
            Ok(())
        });
        join(parts).await
    }

    async fn conclude(&self, site: &Site) -> Result<()> {
        for family in FAMILIES {
            let mut all = Vec::new();
            for path in paths_of_all(site, family) {
                let reply = site.send(CLIENT_AT_THE_END, 0, Call::read(&path)).await;
                let Some(answer) = reply.answer() else {
                    return Err(Failure::new(format!("no answer at the end: {:?}", reply.outcome)));
                };
                match readable(family, answer) {
                    Ok((_, seen)) => all.extend(seen),
                    Err(why) => site.journal.note(NAME, &unreadable(None, &reply, why)),
                }
            }
            site.journal.note(NAME, &Event::Final { family, seen: all });
        }
        Ok(())
    }

    fn judge(&self, record: &Record) -> Result<Vec<Judgement>> {
        let events: Vec<Event> = record.entries(NAME)?;
        let restarts = Restarts::of(&record.faults);
        let verdict = watch::check(&events, &Weather::of(record), &restarts);
        Ok(vec![Judgement::new("watch", verdict)])
    }

    fn counts(&self, record: &Record) -> Result<Vec<(&'static str, u64)>> {
        let events: Vec<Event> = record.entries(NAME)?;
        let counts = watch::count(&events, &Weather::of(record));
        Ok(vec![
            ("writes", counts.writes),
            ("wake-ups", counts.wakes),
            ("watched changes", counts.awaited),
            ("of them slots that were emptied", counts.awaited_ends),
            ("ms at most between acknowledgement and wake-up", counts.slowest_ms),
        ])
    }
}

fn family_of(client: u64) -> Family {
    match client % KINDS {
        0 => Family::Prefix,
        1 => Family::Service,
        2 => Family::Own,
        _ => Family::Key,
    }
}

/// What one watcher watches, and how.
#[derive(Debug, Clone)]
struct View {
    position: usize,
    family: Family,
    slot: Option<u64>,
    stale: bool,
}

/// The watchers of a run: the same at every server.
fn views(site: &Site) -> Vec<View> {
    let mut views = Vec::new();
    for position in 0..site.nodes.len() {
        for family in [Family::Prefix, Family::Service] {
            for stale in [false, true] {
                views.push(View { position, family, slot: None, stale });
            }
        }
        for family in [Family::Key, Family::Own] {
            for slot in slots_of(site, family) {
                views.push(View { position, family, slot: Some(slot), stale: false });
            }
        }
    }
    views
}

/// The slots in which the clients begin that write this family.
fn slots_of(site: &Site, family: Family) -> impl Iterator<Item = u64> + use<> {
    (0..site.plan.clients).filter(move |client| family_of(*client) == family)
}

/// What shows all slots of a family.
fn paths_of_all(site: &Site, family: Family) -> Vec<String> {
    match family {
        Family::Own => slots_of(site, family).map(|slot| path(family, Some(slot))).collect(),
        Family::Key | Family::Prefix | Family::Service => vec![path(family, None)],
    }
}

/// The service of an instance.
fn service(family: Family, slot: u64) -> String {
    match family {
        Family::Own => format!("watched-{}", slot % CLIENTS_MAX),
        Family::Key | Family::Prefix | Family::Service => "watched".to_owned(),
    }
}

/// What shows a slot, or all slots of a family.
fn path(family: Family, slot: Option<u64>) -> String {
    match (family, slot) {
        (Family::Own, slot) => {
            format!("/v1/health/service/{}?", service(family, slot.unwrap_or_default()))
        }
        (Family::Service, _) => "/v1/health/service/watched?".to_owned(),
        (Family::Key, Some(slot)) => format!("/v1/kv/watch/key/{slot}?"),
        (Family::Prefix, Some(slot)) => format!("/v1/kv/watch/prefix/{slot}?"),
        (Family::Key, None) => "/v1/kv/watch/key/?recurse&".to_owned(),
        (Family::Prefix, None) => "/v1/kv/watch/prefix/?recurse&".to_owned(),
    }
}

/// The index, slots and values of an answer, or what is wrong with it.
fn readable(family: Family, answer: &Answer) -> Result<(u64, Vec<(u64, u64)>), String> {
    let index = answer.index().filter(|index| *index > 0);
    let index = index.ok_or_else(|| format!("X-Consul-Index is {:?}", answer.index()))?;
    let seen = seen_in(family, answer).ok_or_else(|| {
        let excerpt: String = answer.text().chars().take(EXCERPT).collect();
        format!("status {} with {excerpt:?}", answer.status)
    })?;
    Ok((index, seen))
}

fn unreadable(watcher: Option<u64>, reply: &Reply, why: String) -> Event {
    Event::Unreadable { watcher, node: reply.node, call: reply.call, ret: reply.end, why }
}

/// Slots and values in an answer; none if it is not what was asked for.
fn seen_in(family: Family, answer: &Answer) -> Option<Vec<(u64, u64)>> {
    // A service without instances is an empty list.
    let is_service = matches!(family, Family::Service | Family::Own);
    if answer.status == 404 && !is_service {
        return Some(Vec::new());
    }
    let listed = answer.value().ok()?;
    let seen = if is_service { slot_of_instance } else { slot_of_key };
    listed.as_array()?.iter().map(seen).collect()
}

fn slot_of_key(entry: &Value) -> Option<(u64, u64)> {
    let slot = entry["Key"].as_str()?.rsplit('/').next()?.parse().ok()?;
    let value = BASE64_STANDARD.decode(entry["Value"].as_str()?).ok()?;
    Some((slot, String::from_utf8(value).ok()?.parse().ok()?))
}

fn slot_of_instance(entry: &Value) -> Option<(u64, u64)> {
    let service = &entry["Service"];
    let slot = service["ID"].as_str()?.strip_prefix("watched-")?.parse().ok()?;
    Some((slot, service["Meta"]["value"].as_str()?.parse().ok()?))
}

/// Watches until the run is over and a whole wait has brought nothing new.
async fn observe(client: Client, watcher: u64, view: View) -> Result<()> {
    let (mut index, mut ended) = (0, None);
    let (wait_s, consistency) =
        (QUERY_WAIT / NANOS_PER_SECOND, if view.stale { "&stale" } else { "" });
    loop {
        if client.site.is_over() && ended.is_none() {
            ended = Some(Instant::now());
        }
        let path = path(view.family, view.slot);
        let path = format!("{path}index={index}&wait={wait_s}s{consistency}");
        let call = if index > 0 { Call::blocking(&path) } else { Call::read(&path) };
        let (given, before) = (index, ended.is_some());
        let reply = client.send_to(view.position, call);
        let reply = noticing_the_end(&client.site, &mut ended, reply).await;
        let noted = note_answer(&client, watcher, &view, given, &reply);
        match noted {
            Some(now) => index = now,
            None => tokio::time::sleep(RETRY).await,
        }
        let at_rest = before && given > 0 && noted == Some(given);
        if at_rest || ended.is_some_and(|ended| ended.elapsed() > REST_LIMIT) {
            let event = Event::Ended { watcher, node: reply.node, at: reply.end, at_rest };
            client.site.journal.note(NAME, &event);
            return Ok(());
        }
    }
}

/// Waits for a reply, and notes when the run ends meanwhile: the time to come to rest counts from there.
async fn noticing_the_end(
    site: &Site,
    ended: &mut Option<Instant>,
    reply: impl Future<Output = Reply>,
) -> Reply {
    tokio::pin!(reply);
    loop {
        tokio::select! {
            reply = &mut reply => return reply,
            () = tokio::time::sleep(NOTICE), if ended.is_none() => {
                *ended = site.is_over().then(Instant::now);
            }
        }
    }
}

/// Writes down what was seen, or that it cannot be read; returns its index.
fn note_answer(
    client: &Client,
    watcher: u64,
    view: &View,
    given: u64,
    reply: &Reply,
) -> Option<u64> {
    let View { family, slot, stale, .. } = *view;
    let (node, call, ret) = (reply.node, reply.call, reply.end);
    let (index, seen) = match readable(family, reply.answer()?) {
        Ok(read) => read,
        Err(why) => {
            client.site.journal.note(NAME, &unreadable(Some(watcher), reply, why));
            return None;
        }
    };
    let event = Event::Answer { watcher, node, stale, family, slot, given, call, ret, index, seen };
    client.site.journal.note(NAME, &event);
    Some(index)
}

/// Writes a write down; true if it was answered.
fn note_write(client: &Client, reply: &Reply, write: (Family, u64, u64, bool)) -> bool {
    let (family, slot, value, gone) = write;
    let known = reply.answer().is_some();
    let (call, end) = (reply.call, reply.end);
    let event = Event::Write { family, slot, value, gone, call, end, known };
    client.site.journal.note(NAME, &event);
    known
}

async fn write_keys(mut client: Client, family: Family) {
    let slot = client.number;
    let (mut value, mut index) = (0, None);
    // No earlier write without an answer can come any more from then on. Before that, the key must not be
    // deleted: an attempt to create it could take effect once more.
    let mut settled = 0;
    while client.turn().await {
        let position = client.any_position();
        let Some(expected) = index else {
            let reply = client.send_to(position, Call::read(&path(family, Some(slot)))).await;
            index = reply.answer().and_then(modify_index);
            continue;
        };
        value += 1;
        let may_delete = expected > 0 && client.site.now() > settled;
        let gone = may_delete && client.rng.random_range(0..EMPTY_ONE_OF) == 0;
        let body = swap(family, slot, expected, (!gone).then_some(value));
        let call = Call::write("/v1/txn", body.to_string()).accepting(&[200, 409]);
        let reply = client.send_to(position, call).await;
        index = match &reply.outcome {
            Outcome::NoEffect(_) => Some(expected),
            // An earlier write without an answer has come after all.
            Outcome::Answered(answer) if answer.status == 409 => None,
            Outcome::Answered(answer) => {
                note_write(&client, &reply, (family, slot, value, gone));
                if gone { Some(0) } else { swapped_index(answer) }
            }
            Outcome::Unknown(_) => {
                note_write(&client, &reply, (family, slot, value, gone));
                settled = reply.end + DOUBT;
                None
            }
        };
        if gone {
            tokio::time::sleep(REST).await;
        }
    }
}

/// The index of a key for a compare-and-set; 0 if it does not exist.
fn modify_index(answer: &Answer) -> Option<u64> {
    if answer.status == 404 {
        return Some(0);
    }
    answer.value().ok()?[0]["ModifyIndex"].as_u64()
}

/// A transaction, because its answer contains the new index. Without a value the key is deleted.
fn swap(family: Family, slot: u64, index: u64, value: Option<u64>) -> Value {
    let path = path(family, Some(slot));
    let key = path.trim_start_matches("/v1/kv/").trim_end_matches('?');
    let Some(value) = value else {
        return json!([{"KV": {"Verb": "delete-cas", "Key": key, "Index": index}}]);
    };
    let value = BASE64_STANDARD.encode(value.to_string());
    json!([{"KV": {"Verb": "cas", "Key": key, "Value": value, "Index": index}}])
}

fn swapped_index(answer: &Answer) -> Option<u64> {
    answer.value().ok()?["Results"][0]["KV"]["ModifyIndex"].as_u64()
}

async fn register_instances(mut client: Client, family: Family) {
    let (mut slot, mut value) = (client.number, 0);
    // The value of the instance that is there for sure.
    let mut registered = None;
    while client.turn().await {
        value += 1;
        let position = client.any_position();
        let gone = value > 1 && client.rng.random_range(0..EMPTY_ONE_OF) == 0;
        let id = format!("watched-{slot}");
        let reply = if gone {
            let path = format!("/v1/agent/service/deregister/{id}");
            client.send_to(position, Call::write(&path, "").accepting(&[200, 404])).await
        } else {
            let meta = json!({"value": value.to_string()});
            let name = service(family, slot);
            let body = json!({"ID": id, "Name": name, "Port": 80, "Meta": meta});
            let call = Call::write("/v1/agent/service/register", body.to_string());
            client.send_to(position, call).await
        };
        let was_absent = reply.answer().is_some_and(|answer| answer.status == 404);
        if let Some(value) = registered.take_if(|_| was_absent) {
            let (node, call, end) = (reply.node, reply.call, reply.end);
            client.site.journal.note(NAME, &Event::Missing { slot, value, node, call, end });
        }
        if was_absent || matches!(reply.outcome, Outcome::NoEffect(_)) {
            continue;
        }
        let known = note_write(&client, &reply, (family, slot, value, gone));
        registered = (known && !gone).then_some(value);
        if !known {
            // It may come later: nothing more is written there.
            slot += CLIENTS_MAX;
        }
        if gone && family == Family::Own {
            tokio::time::sleep(REST).await;
        }
    }
}
