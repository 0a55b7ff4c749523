//! Holders that claim instances of a pool one after the other, wait in line, work and release; or leave, or fall
//! silent.
//!
//! A claim whose request has no answer is asked for again with the same id at another server, as the contract says,
//! or given up with its request: then nobody knows of it but its place in line. Meanwhile one instance is taken into
//! maintenance and back, and a backup is restored now and then, which ends all claims. After the run the history is
//! read: its order is that of the log.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::{Judgement, Workload, history, join};
use crate::checker::claims::{self, CLAIM_DELAY_MS, Entry, Event, POOL, Told};
use crate::checker::weather::Weather;
use crate::client::{Call, Client, Site};
use crate::http::{Answer, AnswerExt as _, Http, HttpExt as _};
use crate::record::Record;
use crate::{Failure, Result};

const NAME: &str = "claims";
const SERVICE: &str = "pooled";
/// A holder's name is made of this and its claim's number.
const HOLDER: &str = "claim-";
/// Claims that a client can make before they meet another's.
const CLAIMS_MAX: u64 = 100_000;
/// How long most requests wait: longer than an instance may idle.
const WAIT_MS: u64 = 20_000;
/// And how long an impatient one does.
const SHORT_WAIT_MS: std::ops::Range<u64> = 100..1_500;
/// How long a server may take to answer beyond that.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// A client that leaves does so after this long.
const LEAVE_MS: std::ops::Range<u64> = 50..1_000;
/// How long a holder works.
const WORK_MS: std::ops::Range<u64> = 5..60;
/// How long one may be silent.
const TTL_MS: u64 = 5_000;
/// And one that is going to be.
const SILENT_TTL_MS: u64 = 2_000;
/// How often a claim is asked for or released until there is an answer.
const TRIES_MAX: u64 = 12;
/// Pause after a request that was not answered.
const RETRY: Duration = Duration::from_millis(100);
/// Between two changes of the unsteady instance.
const MAINTENANCE_MS: std::ops::Range<u64> = 500..2_500;
/// Between two restores.
const RESTORE_MS: std::ops::Range<u64> = 3_000..6_000;
/// Between two looks at whether the run is over.
const NAP: Duration = Duration::from_millis(100);
/// From this level of the cluster's rules on there are claims.
const CLAIMS_LEVEL: u64 = 8;
/// The cluster has it within this.
const LEVEL_LIMIT: Duration = Duration::from_secs(25);

/// See the module.
#[derive(Debug)]
pub(super) struct Claims;

#[async_trait]
impl Workload for Claims {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "an instance is one holder's alone, first come first served, and none idles while somebody waits"
    }

    async fn set_up(&self, site: &Site) -> Result<()> {
        site.http(0).wait_level(CLAIMS_LEVEL, LEVEL_LIMIT).await?;
        for (port, pooled) in (5_010..).zip(&POOL) {
            let body = json!({
                "Name": SERVICE, "ID": pooled.id, "Port": port,
                "Meta": {
                    "slots": pooled.slots.to_string(),
                    "region": pooled.region,
                    "claim-delay": format!("{CLAIM_DELAY_MS}ms"),
                },
            });
            site.http(0).must_put("/v1/agent/service/register", body.to_string()).await?;
        }
        Ok(())
    }

    async fn work(&self, client: Client) -> Result<()> {
        let mut parts = JoinSet::new();
        let beside = |number| Client::new(number, Arc::clone(&client.site));
        parts.spawn(hold(beside(client.number))?);
        match client.number {
            0 => drop(parts.spawn(restore_now_and_then(beside(0)))),
            1 => drop(parts.spawn(maintain_now_and_then(beside(1)))),
            _ => {}
        }
        parts.spawn(write(client));
        join(parts).await
    }

    async fn conclude(&self, site: &Site) -> Result<()> {
        let (oldest, all) = history::read(site, &format!("kind=claim.&service={SERVICE}")).await?;
        let records: Option<Vec<_>> = all.iter().map(entry).collect();
        let records =
            records.ok_or_else(|| Failure::new("a record of a claim that cannot be read"))?;
        site.journal.note(NAME, &Event::History { oldest, records });
        Ok(())
    }

    fn judge(&self, record: &Record) -> Result<Vec<Judgement>> {
        let events: Vec<Event> = record.entries(NAME)?;
        let weather = Weather::of(record);
        let minority = (record.plan.nodes - 1) / 2;
        Ok(vec![
            Judgement::new("claims-exclusive", claims::check_exclusive(&events)),
            Judgement::new("claims-fifo", claims::check_fifo(&events, &weather)),
            Judgement::new("claims-idle", claims::check_idle(&events, &weather, minority)),
        ])
    }

    fn counts(&self, record: &Record) -> Result<Vec<(&'static str, u64)>> {
        let counts = claims::count(&record.entries(NAME)?, &Weather::of(record));
        Ok(vec![
            ("claims", counts.claims),
            ("grants", counts.grants),
            ("grants that nobody took", counts.taken_back),
            ("backups restored", counts.restores),
            ("grants beside which somebody waited", counts.compared),
            ("waits at servers that were well", counts.waits),
        ])
    }
}

/// A record of the history; none: it lacks something.
fn entry(record: &Value) -> Option<Entry> {
    let text = |member: &str| record[member].as_str().unwrap_or_default().to_owned();
    let number = |member: &str| record[member].as_u64().unwrap_or_default();
    Some(Entry {
        seq: record["Seq"].as_u64()?,
        kind: record["Kind"].as_str()?.to_owned(),
        claim: record["Holder"].as_str()?.strip_prefix(HOLDER)?.parse().ok()?,
        position: record["Position"].as_u64()?,
        instance: text("ID"),
        fence: number("Fence"),
        grant: number("Grant"),
        reason: text("Reason"),
    })
}

/// Keeps the log going: the time goes on with what is written.
async fn write(mut client: Client) -> Result<()> {
    let path = format!("/v1/kv/claims/{}", client.number);
    while client.turn().await {
        client.send(Call::write(&path, "v")).await;
    }
    Ok(())
}

/// Sleeps, but not beyond the end of the run.
async fn rest(site: &Site, span: Duration) {
    let until = Instant::now() + span;
    while Instant::now() < until && !site.is_over() {
        tokio::time::sleep(NAP.min(span)).await;
    }
}

/// Restores the backup of the beginning. Its outcome may be unknown; every claim says itself what it came to.
async fn restore_now_and_then(mut client: Client) -> Result<()> {
    let mut backup = None;
    while !client.site.is_over() {
        if backup.is_none() {
            let reply = client.send_anywhere(Call::read("/v1/snapshot")).await;
            backup = reply
                .answer()
                .filter(|answer| answer.status == 200)
                .map(|answer| answer.body.clone());
        }
        let pause = Duration::from_millis(client.rng.random_range(RESTORE_MS));
        rest(&client.site, pause).await;
        if let Some(backup) = backup.as_ref().filter(|_| !client.site.is_over()) {
            let reply = client.send_anywhere(Call::write("/v1/snapshot", backup.to_vec())).await;
            let is_known = reply.answer().is_some();
            client.site.journal.note(NAME, &Event::Restored { is_known });
        }
    }
    Ok(())
}

/// Takes the unsteady instance out of service, and back.
async fn maintain_now_and_then(mut client: Client) -> Result<()> {
    let Some(unsteady) = POOL.iter().find(|pooled| !pooled.is_steady) else { return Ok(()) };
    let mut enable = true;
    while !client.site.is_over() {
        let pause = Duration::from_millis(client.rng.random_range(MAINTENANCE_MS));
        rest(&client.site, pause).await;
        let path = format!("/v1/agent/service/maintenance/{}?enable={enable}", unsteady.id);
        client.send_anywhere(Call::write(&path, "")).await;
        enable = !enable;
    }
    Ok(())
}

/// What a client is going to do with a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It waits, works and releases.
    Ordinary,
    /// It releases twice, at two servers.
    ReleasesTwice,
    /// It waits for a short time only.
    Impatient,
    /// It closes its connection while it waits.
    Leaves,
    /// It does not ask again if its request breaks.
    GivesUp,
    /// It neither renews nor releases.
    FallsSilent,
}

impl Fate {
    fn random(rng: &mut impl rand::Rng) -> Self {
        match rng.random_range(0..40) {
            0 => Self::FallsSilent,
            1..4 => Self::Leaves,
            4..8 => Self::Impatient,
            8..16 => Self::GivesUp,
            16..24 => Self::ReleasesTwice,
            _ => Self::Ordinary,
        }
    }
}

/// One claim.
struct Holder<'a> {
    client: &'a mut Client,
    /// Servers by position, with more patience than others have.
    servers: &'a [(u64, Http)],
    claim: u64,
    id: String,
    region: &'static str,
    fate: Fate,
}

/// One claim after the other.
fn hold(mut client: Client) -> Result<impl Future<Output = Result<()>> + Send> {
    let patience = Duration::from_millis(WAIT_MS) + ANSWER_MAX;
    let patient =
        |(node, http): &(u64, Http)| Ok((*node, Http::with_timeout(http.base(), patience)?));
    let servers = client.site.nodes.iter().map(patient).collect::<Result<Vec<_>>>()?;
    Ok(async move {
        let first = client.number * CLAIMS_MAX;
        for claim in first..first + CLAIMS_MAX {
            if client.site.is_over() {
                break;
            }
            let region = ["", "", "", "eu", "us"][client.rng.random_range(0..5)];
            let fate = Fate::random(&mut client.rng);
            let id = id_of(client.rng.random());
            let client = &mut client;
            Holder { client, servers: &servers, claim, id, region, fate }.live().await;
        }
        Ok(())
    })
}

/// A UUID.
fn id_of(number: u128) -> String {
    let hex = format!("{number:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

impl Holder<'_> {
    async fn live(mut self) {
        for attempt in 0..TRIES_MAX {
            match self.ask(attempt).await {
                Told::Granted { .. } => return self.work().await,
                Told::Busy | Told::Over(_) | Told::Left => return,
                Told::Unclear(_) if self.fate == Fate::GivesUp || self.client.site.is_over() => {
                    return;
                }
                Told::Unclear(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    fn ttl_ms(&self) -> u64 {
        if self.fate == Fate::FallsSilent { SILENT_TTL_MS } else { TTL_MS }
    }

    /// Asks any server, and writes down what it was told.
    async fn ask(&mut self, attempt: u64) -> Told {
        let (wait_ms, leave_ms) = match self.fate {
            Fate::Impatient => (self.client.rng.random_range(SHORT_WAIT_MS), u64::MAX),
            Fate::Leaves => (WAIT_MS, self.client.rng.random_range(LEAVE_MS)),
            _ => (WAIT_MS, u64::MAX),
        };
        let ttl_ms = self.ttl_ms();
        let mut body = json!({
            "ID": self.id, "Holder": format!("{HOLDER}{}", self.claim), "TTL": format!("{ttl_ms}ms"),
        });
        if !self.region.is_empty() {
            body["Require"] = json!({"region": self.region});
        }
        let (node, http) = &self.servers[self.client.any_position() % self.servers.len()];
        let path = format!("/v1/quorate/claims/{SERVICE}?wait={wait_ms}ms");
        let site = &self.client.site;
        let call = site.now();
        let asked =
            timeout(Duration::from_millis(leave_ms), http.put(&path, body.to_string())).await;
        let told = match asked {
            Err(_) => Told::Left,
            Ok(Err(error)) => Told::Unclear(error.to_string()),
            Ok(Ok(answer)) => told(&answer),
        };
        let (claim, region, ret) = (self.claim, self.region.to_owned(), site.now());
        let event = Event::Ask {
            claim,
            attempt,
            node: *node,
            region,
            ttl_ms,
            call,
            ret,
            told: told.clone(),
        };
        site.journal.note(NAME, &event);
        told
    }

    async fn work(&mut self) {
        let work = Duration::from_millis(self.client.rng.random_range(WORK_MS));
        tokio::time::sleep(work).await;
        if self.fate == Fate::FallsSilent {
            return;
        }
        if self.client.rng.random_range(0..4) == 0 {
            let path = format!("/v1/quorate/claim/{}/renew", self.id);
            self.client.send_anywhere(Call::write(&path, "").accepting(&[200, 409])).await;
        }
        for _ in 0..TRIES_MAX {
            if self.release().await {
                break;
            }
            tokio::time::sleep(RETRY).await;
        }
        if self.fate == Fate::ReleasesTwice {
            // Its instance is somebody else's by now.
            tokio::time::sleep(work).await;
            self.release().await;
        }
    }

    /// Releases through any server; true if it was told what became of it.
    async fn release(&mut self) -> bool {
        let path = format!("/v1/quorate/claim/{}/release", self.id);
        let call = Call::write(&path, "").accepting(&[200, 404, 409]);
        let reply = self.client.send_anywhere(call).await;
        let told = reply.answer().and_then(|answer| match answer.status {
            200 => Some(String::new()),
            409 => Some(reason(&answer.text())),
            // Forgotten.
            _ => None,
        });
        let (claim, is_known) = (self.claim, reply.answer().is_some());
        let event = Event::Release { claim, call: reply.call, ret: reply.end, told };
        self.client.site.journal.note(NAME, &event);
        is_known
    }
}

/// What an answer says of a claim.
fn told(answer: &Answer) -> Told {
    let text = answer.text();
    let granted = || {
        let grant = answer.value().ok()?;
        let instance = grant["Instance"]["ID"].as_str()?.to_owned();
        Some(Told::Granted {
            instance,
            fence: grant["Fence"].as_u64()?,
            seq: grant["Seq"].as_u64()?,
        })
    };
    match answer.status {
        200 => granted().unwrap_or_else(|| Told::Unclear(format!("200 {text}"))),
        409 if text.ends_with("requests are waiting") => Told::Busy,
        409 => Told::Over(reason(&text)),
        status => Told::Unclear(format!("{status} {text}")),
    }
}

/// Why a claim is over: `claim "ID" is over: REASON`.
fn reason(text: &str) -> String {
    text.rsplit(": ").next().unwrap_or(text).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_grant_an_end_or_nothing_that_is_known() {
        let told = |status, body: &str| told(&Answer::new(status, body.to_owned()));
        let grant = r#"{"Instance": {"ID": "pooled-1"}, "Fence": 7, "Seq": 3}"#;
        let granted = Told::Granted { instance: "pooled-1".to_owned(), fence: 7, seq: 3 };
        assert_eq!(told(200, grant), granted);
        let busy = "all 4 instances of \"pooled\" are busy, 7 requests are waiting";
        assert_eq!(told(409, busy), Told::Busy);
        let over = "claim \"a0ee\" is over: instance lost";
        assert_eq!(told(409, over), Told::Over("instance lost".to_owned()));
        assert!(matches!(told(200, "{}"), Told::Unclear(_)));
        assert!(matches!(told(503, "this server is stopping"), Told::Unclear(_)));
    }

    #[test]
    fn a_record_is_read_in_full_or_not_at_all() {
        let record = json!({
            "Seq": 9, "Kind": "claim.granted", "Holder": "claim-70001", "Position": 3, "ID": "pooled-1",
            "Fence": 7, "Grant": 2,
        });
        let read = entry(&record).unwrap();
        assert_eq!(
            (read.seq, read.claim, read.position, read.fence, read.grant),
            (9, 70_001, 3, 7, 2)
        );
        assert!(entry(&json!({"Seq": 9, "Kind": "claim.granted", "Holder": "gw"})).is_none());
    }

    #[test]
    fn an_id_is_a_uuid() {
        assert_eq!(id_of(0x0a), "00000000-0000-0000-0000-00000000000a");
    }
}
