//! Locks in the key-value store, which many clients contend for, each time with a new session.
//!
//! A client that is granted a lock reads its token, writes guarded data in transactions that check the session, and
//! then releases the lock, destroys the session, or sleeps until the session has expired and tries to write all the
//! same, like a client that was paused for too long.
//!
//! Some sessions delete their locks when they end. They have locks of their own, because a key that is created
//! again has a new token.
//!
//! A session lives at least 20 s, twice the shortest TTL that the API allows. Some clients let their first hold
//! expire, so a run of 30 s shows several expiries. A run that is hardly longer than one session, such as a cell of
//! the quick matrix, shows none, and these clients go on working instead.

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rand::Rng as _;
use serde_json::{Value, json};

use super::steps::UNREADABLE;
use super::{Judgement, Workload};
use crate::checker::lock::{self, Event};
use crate::client::{CLIENT_AT_THE_END, Call, Client, Outcome, Site};
use crate::http::{Answer, AnswerExt as _};
use crate::record::Record;
use crate::{Failure, Result};

/// Locks that are contended for.
const LOCKS: u64 = 12;
/// One of so many locks is deleted with its holder, and one of so many sessions is one that does.
const DELETED_ONE_OF: u64 = 4;
/// The shortest that the API allows.
const TTL: Duration = Duration::from_secs(10);
/// Documented: a session lives for twice its TTL.
const LIFE: Duration = Duration::from_secs(20);
/// How much longer a client sleeps that lets its session expire.
const OVERSLEPT: Duration = Duration::from_secs(1);
/// After this many refusals a client continues with a new session.
const TRIES: u32 = 20;
/// A refused client looks who holds the lock, one of so many times.
const LOOK_ONE_OF: u32 = 4;
/// Guarded writes in one hold.
const WRITES: std::ops::RangeInclusive<u32> = 1..=4;
/// The lock-delays, in ms. They run only while cluster time advances.
const DELAYS_MS: [u64; 4] = [0, 0, 500, 1_500];
/// Of a hundred holds, this many end with a destroyed session, and this many by expiry; the others are
/// released.
const DESTROYS_OF_100: u32 = 40;
const EXPIRIES_OF_100: u32 = 1;
/// One of so many clients lets its first hold expire, whatever the dice say; few enough that most locks stay
/// contended for.
const FIRST_EXPIRES_ONE_OF: u64 = 6;
/// After an expiry there must be this much left of the run, for others to take the lock.
const AFTER_AN_EXPIRY: Duration = Duration::from_secs(3);
/// Stands for a holder that cannot be read; no session has this id.
const UNREADABLE_HOLDER: &str = "unreadable";
const NAME: &str = "lock";

/// See the module.
#[derive(Debug)]
pub(super) struct Lock;

#[async_trait]
impl Workload for Lock {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "locks have one holder, fencing tokens never go back, lock-delays and behaviours hold"
    }

    async fn work(&self, mut client: Client) -> Result<()> {
        let mut habits = Habits::of(&client);
        while client.turn().await {
            if let Some(session) = create(&mut client).await {
                with_session(&mut client, &session, &mut habits).await;
            }
        }
        Ok(())
    }

    async fn conclude(&self, site: &Site) -> Result<()> {
        for lock in 0..LOCKS {
            let reply = site.send(CLIENT_AT_THE_END, 0, Call::read(&lock_path(lock))).await;
            let Some(answer) = reply.answer() else { continue };
            let (_, lock_index) = seen_in(lock, answer);
            let path = format!("/v1/kv/guarded/{lock}/log/?keys");
            let answer = site.http(1).get(&path).await?;
            let values = values_in(&answer)?;
            site.journal.note(NAME, &Event::End { lock, lock_index, values });
        }
        Ok(())
    }

    fn judge(&self, record: &Record) -> Result<Vec<Judgement>> {
        let events: Vec<Event> = record.entries(NAME)?;
        Ok(vec![Judgement::new("lock", lock::check(&events))])
    }

    fn counts(&self, record: &Record) -> Result<Vec<(&'static str, u64)>> {
        let events: Vec<Event> = record.entries(NAME)?;
        let counts = lock::count(&events);
        Ok(vec![
            ("acquired", counts.acquired),
            ("refused", counts.refused),
            ("handed over", counts.handed_over),
            ("guarded writes", counts.written),
            ("fenced off", counts.fenced),
            ("lock-delays that refused", counts.delayed),
            ("looks at locks that were deleted", counts.deleted),
        ])
    }
}

/// A session, and when it surely still lives.
struct Session {
    id: String,
    expires: u64,
    /// Whether its end deletes what it holds.
    deletes: bool,
}

/// What a client remembers from one session to the next.
struct Habits {
    /// Whether it will let the next hold it gets expire.
    lets_expire: bool,
}

impl Habits {
    fn of(client: &Client) -> Self {
        let run = Duration::from_secs(client.site.plan.time_s);
        let has_time = run >= LIFE + OVERSLEPT + AFTER_AN_EXPIRY;
        let lets_expire = has_time && client.number.is_multiple_of(FIRST_EXPIRES_ONE_OF);
        Self { lets_expire }
    }
}

/// Whether sessions that delete contend for this lock.
fn is_deleted(lock: u64) -> bool {
    lock.is_multiple_of(DELETED_ONE_OF)
}

/// One of the locks for sessions of a kind.
fn any_lock(client: &mut Client, deletes: bool) -> u64 {
    loop {
        let lock = client.rng.random_range(0..LOCKS);
        if is_deleted(lock) == deletes {
            return lock;
        }
    }
}

fn lock_path(lock: u64) -> String {
    format!("/v1/kv/locks/{lock}")
}

async fn create(client: &mut Client) -> Option<Session> {
    let delay_ms = DELAYS_MS[client.rng.random_range(0..DELAYS_MS.len())];
    let ttl = format!("{}s", TTL.as_secs());
    let delay = format!("{delay_ms}ms");
    let deletes = client.rng.random_range(0..DELETED_ONE_OF) == 0;
    let behavior = if deletes { "delete" } else { "release" };
    let body = json!({"TTL": ttl, "LockDelay": delay, "Behavior": behavior});
    let reply = client.send_anywhere(Call::write("/v1/session/create", body.to_string())).await;
    let id = reply.answer()?.value().ok()?["ID"].as_str()?.to_owned();
    let life_ms = LIFE.as_secs() * 1_000;
    let session = id.clone();
    let created = Event::Session { session, life_ms, delay_ms, deletes, call: reply.call };
    client.site.journal.note(NAME, &created);
    let expires = reply.end + u64::try_from((LIFE + OVERSLEPT).as_nanos()).unwrap_or(u64::MAX);
    Some(Session { id, expires, deletes })
}

/// Contends for locks until one is granted or nothing can be won any more.
async fn with_session(client: &mut Client, session: &Session, habits: &mut Habits) {
    for _ in 0..TRIES {
        if !client.turn().await {
            return;
        }
        let lock = any_lock(client, session.deletes);
        match acquire(client, lock, &session.id).await {
            Some(true) => {
                hold(client, lock, session, habits).await;
                return;
            }
            Some(false) if client.rng.random_range(0..LOOK_ONE_OF) == 0 => {
                read(client, lock).await;
            }
            Some(false) => {}
            None => break,
        }
    }
    destroy(client, &session.id).await;
}

/// Whether the lock was granted; none if that is unknown.
async fn acquire(client: &mut Client, lock: u64, session: &str) -> Option<bool> {
    let path = format!("{}?acquire={session}", lock_path(lock));
    let reply = client.send_anywhere(Call::write(&path, session)).await;
    let Some((granted, ret)) = reply.settled(|answer| answer.body == "true") else {
        return Some(false);
    };
    let (session, ok) = (session.to_owned(), granted == Some(true));
    client.site.journal.note(NAME, &Event::Acquire { lock, session, call: reply.call, ret, ok });
    granted
}

/// The holder and the token that a read shows; none if there is no answer.
async fn read(client: &mut Client, lock: u64) -> Option<(Option<String>, u64)> {
    let reply = client.send_anywhere(Call::read(&lock_path(lock))).await;
    let (holder, lock_index) = seen_in(lock, reply.answer()?);
    let (call, ret) = (reply.call, reply.end);
    let seen = Event::Read { lock, call, ret, holder: holder.clone(), lock_index };
    client.site.journal.note(NAME, &seen);
    Some((holder, lock_index))
}

/// The holder and the token in an answer. A lock that is not there was never acquired, or was deleted with its
/// holder, or is lost. What cannot be read is not passed over: it is a holder from nowhere.
fn seen_in(lock: u64, answer: &Answer) -> (Option<String>, u64) {
    if answer.status == 404 {
        return (None, 0);
    }
    let listed = answer.value().unwrap_or_default();
    entry_of(lock, &listed[0]).unwrap_or_else(|| (Some(UNREADABLE_HOLDER.to_owned()), UNREADABLE))
}

fn entry_of(lock: u64, entry: &Value) -> Option<(Option<String>, u64)> {
    let holder = match &entry["Session"] {
        Value::Null => None,
        session => Some(session.as_str()?.to_owned()),
    };
    let token = if is_deleted(lock) { "CreateIndex" } else { "LockIndex" };
    Some((holder, entry[token].as_u64()?))
}

/// The guarded values that were ever written: the ends of the keys in their log.
fn values_in(answer: &Answer) -> Result<Vec<u64>> {
    if answer.status == 404 {
        return Ok(Vec::new());
    }
    let keys: Vec<String> = serde_json::from_value(answer.value()?)?;
    let value = |key: &String| key.rsplit('/').next().and_then(|end| end.parse().ok());
    keys.iter()
        .map(|key| value(key).ok_or_else(|| Failure::new(format!("a strange key: {key}"))))
        .collect()
}

async fn hold(client: &mut Client, lock: u64, session: &Session, habits: &mut Habits) {
    let seen = read(client, lock).await;
    let Some((Some(holder), token)) = seen else { return destroy(client, &session.id).await };
    if holder != session.id {
        return;
    }
    if !write_some(client, lock, &session.id, token).await {
        return;
    }
    let end = client.rng.random_range(0..100);
    if std::mem::take(&mut habits.lets_expire) || end < EXPIRIES_OF_100 {
        while client.site.now() < session.expires {
            if !client.turn().await {
                return;
            }
        }
        write_some(client, lock, &session.id, token).await;
        read(client, lock).await;
    } else if session.deletes || end < EXPIRIES_OF_100 + DESTROYS_OF_100 {
        destroy(client, &session.id).await;
        read(client, lock).await;
        // It does not know yet that it has lost the lock.
        write(client, lock, &session.id, token).await;
    } else {
        release(client, lock, &session.id).await;
    }
}

/// Guarded writes, one a turn; false when the run is over.
async fn write_some(client: &mut Client, lock: u64, session: &str, token: u64) -> bool {
    for _ in 0..client.rng.random_range(WRITES) {
        write(client, lock, session, token).await;
        if !client.turn().await {
            return false;
        }
    }
    true
}

/// Writes guarded data and logs it, unless the session does not hold the lock any more.
async fn write(client: &mut Client, lock: u64, session: &str, token: u64) {
    let value = client.fresh_number();
    let text = BASE64_STANDARD.encode(value.to_string());
    let body = json!([
        {"KV": {"Verb": "check-session", "Key": format!("locks/{lock}"), "Session": session}},
        {"KV": {"Verb": "set", "Key": format!("guarded/{lock}/data"), "Value": text}},
        {"KV": {"Verb": "set", "Key": format!("guarded/{lock}/log/{value}"), "Value": text}},
    ]);
    let call = Call::write("/v1/txn", body.to_string()).accepting(&[200, 409]);
    let reply = client.send_anywhere(call).await;
    let Some((index, ret)) = reply.settled(data_index) else { return };
    let (ok, index) = (index.flatten().is_some(), index.flatten().unwrap_or_default());
    let session = session.to_owned();
    let written = Event::Write { lock, session, token, value, call: reply.call, ret, ok, index };
    client.site.journal.note(NAME, &written);
}

/// The `ModifyIndex` of the guarded data after a transaction that was carried out.
fn data_index(answer: &Answer) -> Option<u64> {
    let results: Value = answer.value().ok()?;
    results["Results"].as_array()?.iter().find_map(|result| {
        let entry = &result["KV"];
        entry["Key"].as_str()?.ends_with("/data").then(|| entry["ModifyIndex"].as_u64())?
    })
}

/// Gives a lock back; if that cannot be known to have happened, its session must not live on either.
async fn release(client: &mut Client, lock: u64, session: &str) {
    let path = format!("{}?release={session}", lock_path(lock));
    let reply = client.send_anywhere(Call::write(&path, "")).await;
    if !matches!(reply.outcome, Outcome::NoEffect(_)) {
        let session = session.to_owned();
        client.site.journal.note(NAME, &Event::Release { lock, session, call: reply.call });
    }
    if reply.answer().is_none() {
        destroy(client, session).await;
    }
}

/// Tries one server after the other until one has done it: a lock that is left to expire is of no use to
/// anybody while faults keep the cluster's time from going on.
async fn destroy(client: &mut Client, session: &str) {
    let path = format!("/v1/session/destroy/{session}");
    let first = client.any_position();
    for position in first.. {
        let reply = client.send_to(position, Call::write(&path, "")).await;
        if !matches!(reply.outcome, Outcome::NoEffect(_)) {
            let (session, call) = (session.to_owned(), reply.call);
            let ret = reply.answer().map(|_| reply.end);
            client.site.journal.note(NAME, &Event::Destroy { session, call, ret });
        }
        if reply.answer().is_some() || !client.turn().await {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer::new(status, body.to_owned())
    }

    #[test]
    fn a_lock_is_read_or_said_to_be_unreadable() {
        let held = answer(200, r#"[{"Session": "a", "LockIndex": 3, "CreateIndex": 7}]"#);
        assert_eq!(seen_in(1, &held), (Some("a".to_owned()), 3));
        assert_eq!(seen_in(0, &held), (Some("a".to_owned()), 7), "it is deleted with its holder");
        assert_eq!(seen_in(1, &answer(200, r#"[{"LockIndex": 3}]"#)), (None, 3));
        assert_eq!(seen_in(1, &answer(404, "")), (None, 0));
        let unreadable = (Some(UNREADABLE_HOLDER.to_owned()), UNREADABLE);
        for body in ["", "[]", "{}", r#"[{"Session": 7, "LockIndex": 3}]"#, r#"[{"Session": "a"}]"#]
        {
            assert_eq!(seen_in(1, &answer(200, body)), unreadable, "{body}");
        }
    }
}
