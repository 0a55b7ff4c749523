//! Services with short TTL checks that send heartbeats through any server, and fall silent at random.
//!
//! Each life has an id of its own. Some are registered again when they have been silent for most of their TTL, with
//! a longer, shorter or equal one, and are then silent for most of that, so that nothing but the registration keeps
//! them alive. They end with the deregistration of their service, or of their check alone. A heartbeat is sent
//! every third of the TTL to a random server, whether the previous one was answered or not: one that hangs at a
//! dead server must not silence the service. Meanwhile observers ask every server, by default and stale reads, for
//! all that is critical.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tokio::task::JoinSet;

use super::observe::{Observation, OfNumbers, services_in};
use super::{Judgement, Workload, join};
use crate::Result;
use crate::checker::ttl::{self, Event};
use crate::checker::weather::Weather;
use crate::client::{Call, Client, Outcome, Site};
use crate::record::Record;

/// Of each ten operations per second, this many become services that live at the same time: each sends a
/// bit more than one request per second.
const LIVES_OF_TEN: u64 = 5;
/// Ids that a life's task can use before they meet another's.
const LIVES_MAX: u64 = 100_000;
/// The shortest and longest TTL.
const TTL_MS: std::ops::RangeInclusive<u64> = 1_000..=3_000;
/// Heartbeats in one TTL.
const BEATS_PER_TTL: u32 = 3;
/// A service falls silent after at most this many heartbeats.
const BEATS_MAX: u32 = 9;
/// One of so many lives is registered again.
const AGAIN_ONE_OF: u32 = 3;
/// Silence before and after that, in thirds of the TTL: enough that the old one would run out in the new one.
const SILENT_THIRDS: u32 = 2;
/// A silent service is left alone for its TTL, its bound and this long, so that observers see it critical.
const LINGER: Duration = Duration::from_millis(1_500);
/// And one of so many for this long: under faults the cluster's time goes on only now and then, so it takes
/// several of them until its lateness can be judged.
const LONG_LINGER: (u32, Duration) = (12, Duration::from_secs(25));
/// How often an observer looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long servers are looked at after the run: the longest TTL, its bound, and the grace of a new leader.
const STAY: Duration = Duration::from_secs(8);
/// Pause between two checks whether the run is over.
const NAP: Duration = Duration::from_millis(100);
const NAME: &str = "ttl";

/// What is looked at.
const LOOKS: OfNumbers = Observation {
    path: "/v1/health/state/critical",
    every: LOOK_EVERY,
    listed_in: |answer| services_in(answer, "ttl-"),
    note: |site, look| site.journal.note(NAME, &Event::Look(look)),
};

/// See the module.
#[derive(Debug)]
pub(super) struct Ttl;

#[async_trait]
impl Workload for Ttl {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "TTL checks are never critical early, nor late, in hundreds of short lives"
    }

    async fn work(&self, client: Client) -> Result<()> {
        LOOKS.beside(&client, client.site.plan.rate * LIVES_OF_TEN / 10, live).await
    }

    async fn conclude(&self, site: &Site) -> Result<()> {
        LOOKS.stay(site, STAY).await
    }

    fn judge(&self, record: &Record) -> Result<Vec<Judgement>> {
        let events: Vec<Event> = record.entries(NAME)?;
        let late = ttl::check_late(&events, &Weather::of(record));
        Ok(vec![
            Judgement::new("ttl-early", ttl::check_early(&events)),
            Judgement::new("ttl-late", late),
        ])
    }

    fn counts(&self, record: &Record) -> Result<Vec<(&'static str, u64)>> {
        let events: Vec<Event> = record.entries(NAME)?;
        let counts = ttl::count(&events, &Weather::of(record));
        Ok(vec![
            ("lifetimes", counts.lifetimes),
            ("seen critical", counts.expired),
            ("with a judged lateness", counts.judged_late),
            ("registrations of what was there", counts.again),
        ])
    }
}

/// One life after the other.
async fn live(client: Client) -> Result<()> {
    let mut rng = client.rng.clone();
    let first = client.number * LIVES_MAX;
    let client = Arc::new(client);
    // So that not all are registered in the same moment.
    let late = rng.random_range(0..*TTL_MS.end());
    rest(&client.site, Duration::from_millis(late)).await;
    let mut ends = JoinSet::new();
    for life in first..first + LIVES_MAX {
        if client.site.is_over() {
            break;
        }
        if let Some(ttl) = one_life(&client, &mut rng, life).await? {
            // The next life begins while observers look at the end of this one.
            let (one_of, long) = LONG_LINGER;
            let linger = if rng.random_range(0..one_of) == 0 { long } else { LINGER };
            let position = rng.random_range(0..client.site.nodes.len());
            ends.spawn(end(Arc::clone(&client), position, life, ttl + linger));
        }
    }
    join(ends).await
}

/// Registers a service and lets it heartbeat until it falls silent; returns its TTL at the end.
async fn one_life(
    client: &Arc<Client>,
    rng: &mut ChaCha8Rng,
    life: u64,
) -> Result<Option<Duration>> {
    let ttl_ms = rng.random_range(TTL_MS);
    let ttl = Duration::from_millis(ttl_ms);
    let position = rng.random_range(0..client.site.nodes.len());
    if !register(client, position, life, ttl_ms, false).await {
        // Whether it is there or not, it is of no use; do not flood a server that refuses.
        tokio::time::sleep(NAP).await;
        deregister(client, position + 1, life).await;
        return Ok(None);
    }
    beat_for_a_while(client, rng, life, ttl_ms).await?;
    if rng.random_range(0..AGAIN_ONE_OF) > 0 {
        return Ok(Some(ttl));
    }
    tokio::time::sleep(ttl * SILENT_THIRDS / BEATS_PER_TTL).await;
    let again_ms = if rng.random_bool(0.3) { ttl_ms } else { rng.random_range(TTL_MS) };
    let again = Duration::from_millis(again_ms);
    let position = rng.random_range(0..client.site.nodes.len());
    if !client.site.is_over() && register(client, position, life, again_ms, true).await {
        tokio::time::sleep(again * SILENT_THIRDS / BEATS_PER_TTL).await;
        beat_for_a_while(client, rng, life, again_ms).await?;
    }
    Ok(Some(ttl.max(again)))
}

/// Heartbeats, until all are answered.
async fn beat_for_a_while(
    client: &Arc<Client>,
    rng: &mut ChaCha8Rng,
    life: u64,
    ttl_ms: u64,
) -> Result<()> {
    let mut beats = JoinSet::new();
    for _ in 0..rng.random_range(0..=BEATS_MAX) {
        tokio::time::sleep(Duration::from_millis(ttl_ms) / BEATS_PER_TTL).await;
        if client.site.is_over() {
            break;
        }
        let position = rng.random_range(0..client.site.nodes.len());
        beats.spawn(beat(Arc::clone(client), position, life, ttl_ms));
    }
    join(beats).await
}

/// Leaves a silent service alone for a while, and deregisters it.
async fn end(client: Arc<Client>, position: usize, life: u64, after: Duration) -> Result<()> {
    rest(&client.site, after).await;
    if client.site.is_over() {
        // Whoever is silent at the end of the run is looked at until its time is over.
        return Ok(());
    }
    client.site.journal.note(NAME, &Event::End { life, call: client.site.now() });
    if life.is_multiple_of(2) {
        let path = format!("/v1/agent/check/deregister/service:ttl-{life}");
        if let Some(ret) = remove(&client, position, &path).await {
            client.site.journal.note(NAME, &Event::Gone { life, ret });
        }
    }
    deregister(&client, position, life).await;
    Ok(())
}

/// Sleeps, but not beyond the end of the run.
async fn rest(site: &Site, span: Duration) {
    let until = tokio::time::Instant::now() + span;
    while tokio::time::Instant::now() < until && !site.is_over() {
        tokio::time::sleep(NAP).await;
    }
}

/// Registers a service as passing, for the first time or again (then its check keeps its status); true if that
/// is known.
async fn register(client: &Client, position: usize, life: u64, ttl_ms: u64, again: bool) -> bool {
    let body = json!({
        "ID": format!("ttl-{life}"), "Name": "ttl", "Address": "10.0.0.1", "Port": 80,
        "Check": {
            "TTL": format!("{ttl_ms}ms"), "Status": "passing",
            // Whatever goes wrong with a deregistration, nothing piles up.
            "DeregisterCriticalServiceAfter": "1m",
        },
    });
    let call = Call::write("/v1/agent/service/register", body.to_string());
    let reply = client.send_to(position, call).await;
    let is_known = reply.answer().is_some();
    let may_have_come = again && !matches!(reply.outcome, Outcome::NoEffect(_));
    if is_known || may_have_come {
        let ret = is_known.then_some(reply.end);
        let beat = Event::Beat { life, ttl_ms, again, call: reply.call, ret };
        client.site.journal.note(NAME, &beat);
    }
    is_known
}

/// One heartbeat, tried at one server after the other until one acknowledges it.
async fn beat(client: Arc<Client>, position: usize, life: u64, ttl_ms: u64) -> Result<()> {
    let path = format!("/v1/agent/check/pass/service:ttl-{life}");
    for position in position..position + client.site.nodes.len() {
        let reply = client.send_to(position, Call::write(&path, "")).await;
        let Some((_, ret)) = reply.settled(|_| ()) else { continue };
        let beat = Event::Beat { life, ttl_ms, again: false, call: reply.call, ret };
        client.site.journal.note(NAME, &beat);
        if ret.is_some() {
            break;
        }
    }
    Ok(())
}

/// It may be unknown: an attempt without an answer took effect, or its registration did not.
async fn deregister(client: &Client, position: usize, life: u64) {
    let path = format!("/v1/agent/service/deregister/ttl-{life}");
    if let Some(ret) = remove(client, position, &path).await {
        client.site.journal.note(NAME, &Event::Gone { life, ret });
    }
}

/// Sends a deregistration to one server after the other until one acknowledges it; when that was.
async fn remove(client: &Client, position: usize, path: &str) -> Option<u64> {
    for position in position..position + client.site.nodes.len() {
        let call = Call::write(path, "").accepting(&[200, 404]);
        let reply = client.send_to(position, call).await;
        if reply.answer().is_some() {
            return Some(reply.end);
        }
    }
    None
}
