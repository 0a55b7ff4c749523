//! Sessions with a TTL: renewed through any server for a while, then left to expire, or destroyed.
//!
//! Meanwhile observers list the sessions at every server. The shortest TTL that the API allows is 10 s and a
//! session ends at twice that, counted only while cluster time advances; so the observers continue after the run,
//! until every session that was left to expire must be gone.

use std::time::Duration;

use async_trait::async_trait;
use rand::Rng as _;
use serde_json::json;

use super::observe::{Observation, OfNumbers};
use super::{Judgement, Workload};
use crate::Result;
use crate::checker::restarts::Restarts;
use crate::checker::session::{self, Event};
use crate::checker::weather::Weather;
use crate::client::{Call, Client, Site};
use crate::http::{Answer, AnswerExt as _};
use crate::record::Record;

/// The shortest that the API allows.
const TTL_MS: u64 = 10_000;
/// One session of a client's is renewed, or about to be, for each of so many operations per second.
const RATE_PER_SESSION: u64 = 8;
/// Between two renewals: many per TTL, so that many meet a fault.
const RENEW_EVERY: Duration = Duration::from_millis(300);
/// Most are renewed at most this often.
const RENEWALS_MAX: u32 = 20;
/// One of so many is renewed for long.
const LONG_ONE_OF: u32 = 10;
const LONG_RENEWALS: u32 = 80;
/// One of so many is destroyed instead of left alone.
const DESTROY_ONE_OF: u32 = 4;
/// After a session was left alone, the next one begins after up to this long, in ms.
const REST_MS: std::ops::Range<u64> = 1_000..4_000;
/// Between two renewals that nobody took.
const RETRY: Duration = Duration::from_millis(100);
/// How often an observer looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long observers stay behind: twice the TTL, what is documented on top, and the grace of a leader that
/// was elected at the very end.
const STAY: Duration = Duration::from_millis(2 * TTL_MS + 3_500);
/// Numbers that a task can use before they meet another's.
const SESSIONS_MAX: u64 = 100_000;
const NAME: &str = "session";

/// What is looked at.
const LOOKS: OfNumbers = Observation {
    path: "/v1/session/list",
    every: LOOK_EVERY,
    listed_in,
    note: |site, look| site.journal.note(NAME, &Event::Look(look)),
};

/// See the module.
#[derive(Debug)]
pub(super) struct Session;

#[async_trait]
impl Workload for Session {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "sessions live while they are renewed, and end in time"
    }

    async fn work(&self, client: Client) -> Result<()> {
        LOOKS.beside(&client, client.site.plan.rate / RATE_PER_SESSION, keep).await
    }

    async fn conclude(&self, site: &Site) -> Result<()> {
        LOOKS.stay(site, STAY).await
    }

    fn judge(&self, record: &Record) -> Result<Vec<Judgement>> {
        let events: Vec<Event> = record.entries(NAME)?;
        Ok(vec![Judgement::new(
            "session",
            session::check(&events, &Weather::of(record), &Restarts::of(&record.faults)),
        )])
    }

    fn counts(&self, record: &Record) -> Result<Vec<(&'static str, u64)>> {
        let events: Vec<Event> = record.entries(NAME)?;
        let counts = session::count(&events, &Weather::of(record));
        Ok(vec![
            ("sessions", counts.sessions),
            ("renewals", counts.renewals),
            ("judged destructions", counts.destroyed),
            ("judged expiries", counts.expired),
        ])
    }
}

/// The numbers of the sessions in a list, in ascending order; nobody else creates any.
fn listed_in(answer: &Answer) -> Option<Vec<u64>> {
    let listed = answer.value().ok()?;
    let number = |session: &serde_json::Value| {
        session["Name"].as_str()?.strip_prefix("session-")?.parse().ok()
    };
    let mut numbers = listed.as_array()?.iter().map(number).collect::<Option<Vec<_>>>()?;
    numbers.sort_unstable();
    Some(numbers)
}

/// One session after the other.
async fn keep(mut client: Client) -> Result<()> {
    let first = client.number * SESSIONS_MAX;
    for number in first..first + SESSIONS_MAX {
        if client.site.is_over() {
            break;
        }
        match create(&mut client, number).await {
            Some(id) => one_session(&mut client, number, &id).await,
            None => tokio::time::sleep(RETRY).await,
        }
    }
    Ok(())
}

/// Its id, if it is known to be there.
async fn create(client: &mut Client, session: u64) -> Option<String> {
    let body = json!({
        "Name": format!("session-{session}"), "TTL": format!("{TTL_MS}ms"), "LockDelay": "0s",
    });
    let call = Call::write("/v1/session/create", body.to_string());
    let reply = client.send_anywhere(call).await;
    let id = reply.answer()?.value().ok()?["ID"].as_str()?.to_owned();
    let created = Event::Create { session, ttl_ms: TTL_MS, call: reply.call, ret: reply.end };
    client.site.journal.note(NAME, &created);
    Some(id)
}

async fn one_session(client: &mut Client, number: u64, id: &str) {
    let renewals = match client.rng.random_range(0..LONG_ONE_OF) {
        0 => LONG_RENEWALS,
        _ => client.rng.random_range(0..=RENEWALS_MAX),
    };
    for _ in 0..renewals {
        tokio::time::sleep(RENEW_EVERY).await;
        if client.site.is_over() || !renew(client, number, id).await {
            return;
        }
    }
    if client.rng.random_range(0..DESTROY_ONE_OF) == 0 {
        destroy(client, number, id).await;
        return;
    }
    let rest = Duration::from_millis(client.rng.random_range(REST_MS));
    tokio::time::sleep(rest).await;
}

/// Renews it at a random server; false if it is not there any more.
async fn renew(client: &mut Client, session: u64, id: &str) -> bool {
    let path = format!("/v1/session/renew/{id}");
    let reply = client.send_anywhere(Call::write(&path, "").accepting(&[200, 404])).await;
    let Some((found, ret)) = reply.settled(|answer| answer.status == 200) else { return true };
    let found = found.unwrap_or(true);
    client.site.journal.note(NAME, &Event::Renew { session, call: reply.call, ret, found });
    found
}

async fn destroy(client: &mut Client, session: u64, id: &str) {
    let path = format!("/v1/session/destroy/{id}");
    let reply = client.send_anywhere(Call::write(&path, "")).await;
    let Some((_, ret)) = reply.settled(|_| ()) else { return };
    client.site.journal.note(NAME, &Event::Destroy { session, call: reply.call, ret });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(body: &str) -> Option<Vec<u64>> {
        listed_in(&Answer::new(200, body.to_owned()))
    }

    #[test]
    fn a_list_is_read_in_full_or_not_at_all() {
        assert_eq!(listed("[]"), Some(Vec::new()));
        let two = r#"[{"Name": "session-8"}, {"Name": "session-7"}]"#;
        assert_eq!(listed(two), Some(vec![7, 8]));
        for body in ["", "null", "{}", r#"[{"Name": "session-8"}, {"Name": ""}]"#, "[7]"] {
            assert_eq!(listed(body), None, "{body}");
        }
    }
}
