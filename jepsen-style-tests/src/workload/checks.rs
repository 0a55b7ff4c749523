//! Targets that come and go, with a check of each that the cluster's workers run.
//!
//! A target is a port at which somebody listens or nobody does, so that a run of its check ends at once whatever it
//! finds. The workers are the servers, which the run's faults strike, and worker processes that are killed or stopped
//! here. Meanwhile observers ask every server, by default and stale reads, for all that is critical.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::observe::{Look, Observation, OfNumbers};
use super::{Judgement, Workload, join};
use crate::checker::checks::{self, Event};
use crate::checker::weather::Weather;
use crate::client::{Call, Client, Site};
use crate::cluster::Options;
use crate::http::{Answer, AnswerExt as _, HttpExt as _};
use crate::record::Record;
use crate::worker::Worker;
use crate::{Failure, Result};

const NAME: &str = "checks";
/// The service of the targets; their ids have a number behind it.
const SERVICE: &str = "checked";
/// Targets of each client.
const TARGETS_EACH: u64 = 3;
/// How long somebody listens, or nobody does.
const SPAN_MS: std::ops::Range<u64> = 1_500..12_000;
/// Worker processes at a time.
const WORKERS: u64 = 2;
/// How long a worker process runs checks before it is struck.
const WORKER_LIFE_MS: std::ops::Range<u64> = 2_000..6_000;
/// Of so many that are struck one is stopped first, as if its host had gone; the others are killed.
const STOPPED_ONE_OF: u32 = 3;
/// Workers' names that a part of the workload uses before they meet another's.
const NAMES_MAX: u64 = 1_000;
/// How often an observer looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long servers are looked at after the run: what changed last has to show.
const STAY: Duration = Duration::from_secs(6);
/// Between two looks at whether the run is over, or who is a worker.
const NAP: Duration = Duration::from_millis(100);
/// Pause after a registration that failed.
const RETRY: Duration = Duration::from_millis(200);
/// From this level of the cluster's rules on workers run checks.
const WORKERS_LEVEL: u64 = 12;
/// The cluster has it within this.
const LEVEL_LIMIT: Duration = Duration::from_secs(25);
/// The workers' key, and the file that it is in.
const KEY: &str = "the key of the workers of a run";
const KEY_FILE: &str = "worker.key";

/// What is looked at.
const LOOKS: OfNumbers = Observation {
    path: "/v1/health/state/critical",
    every: LOOK_EVERY,
    listed_in: targets_in,
    note,
};

/// See the module.
#[derive(Debug)]
pub(super) struct Checks;

#[async_trait]
impl Workload for Checks {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "every change of a check's target shows in time whoever runs it, and nothing shows that did not happen"
    }

    fn prepare(&self, dir: &Path, options: &mut Options) -> Result<()> {
        let key = key_file(dir);
        std::fs::write(&key, KEY)?;
        options.flags.push(format!("--worker-key-file={}", key.display()));
        Ok(())
    }

    async fn set_up(&self, site: &Site) -> Result<()> {
        site.http(0).wait_level(WORKERS_LEVEL, LEVEL_LIMIT).await
    }

    async fn work(&self, client: Client) -> Result<()> {
        let mut parts = JoinSet::new();
        if client.number < WORKERS {
            let beside = Client::new(client.number, Arc::clone(&client.site));
            parts.spawn(one_worker_after_the_other(beside));
        }
        if client.number == WORKERS {
            parts.spawn(watch_hands(Client::new(client.number, Arc::clone(&client.site))));
        }
        parts.spawn(write(Client::new(client.number, Arc::clone(&client.site))));
        let targets = client.site.plan.clients * TARGETS_EACH;
        LOOKS.beside(&client, targets, come_and_go).await?;
        join(parts).await
    }

    async fn conclude(&self, site: &Site) -> Result<()> {
        LOOKS.stay(site, STAY).await?;
        let rows = site.http(0).must_get("/v1/quorate/workers").await?;
        let workers = workers_in(&rows);
        site.journal.note(NAME, &Event::Remaining { workers, at: site.now() });
        Ok(())
    }

    fn judge(&self, record: &Record) -> Result<Vec<Judgement>> {
        let events: Vec<Event> = record.entries(NAME)?;
        let weather = Weather::of(record);
        let shown = checks::check(&events, &weather, record.plan.nodes);
        Ok(vec![
            Judgement::new("checks", shown),
            Judgement::new("checks-handed-over", checks::check_handed_over(&events, &weather)),
        ])
    }

    fn counts(&self, record: &Record) -> Result<Vec<(&'static str, u64)>> {
        let counts = checks::count(&record.entries(NAME)?, &Weather::of(record), record.plan.nodes);
        Ok(vec![
            ("changes of targets", counts.changes),
            ("changes that had to show", counts.judged),
            ("workers killed or stopped", counts.lost),
        ])
    }
}

fn key_file(dir: &Path) -> PathBuf {
    dir.join(KEY_FILE)
}

/// The targets whose checks an answer lists; the service of worker processes has checks, too.
fn targets_in(answer: &Answer) -> Option<Vec<u64>> {
    let rows = answer.value().ok()?;
    let own = rows.as_array()?.iter().filter(|row| row["ServiceName"] == SERVICE);
    own.map(|row| target_of(row["ServiceID"].as_str()?)).collect()
}

fn target_of(id: &str) -> Option<u64> {
    id.strip_prefix(SERVICE)?.strip_prefix('-')?.parse().ok()
}

fn note(site: &Site, look: Look<Vec<u64>>) {
    site.journal.note(NAME, &Event::Look(look));
}

/// Keeps the log going: the time goes on with what is written.
async fn write(mut client: Client) -> Result<()> {
    let path = format!("/v1/kv/checks/{}", client.number);
    while client.turn().await {
        client.send(Call::write(&path, "v")).await;
    }
    Ok(())
}

// ---- targets ---------------------------------------------------------------------------------

/// One target: somebody listens, and then nobody, and so on.
async fn come_and_go(mut client: Client) -> Result<()> {
    let target = client.number;
    let mut listener = Some(TcpListener::bind("127.0.0.1:0").await?);
    let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
    let address = address.ok_or_else(|| Failure::new("a listener without an address"))?;
    if !register(&mut client, target, address).await {
        return Ok(());
    }
    change(&client.site, target, true, client.site.now());
    loop {
        let span = Duration::from_millis(client.rng.random_range(SPAN_MS));
        rest(&client.site, span).await;
        let before = client.site.now();
        if client.site.is_over() {
            // Everybody has gone at the last looks: what listens ends with this task.
            if listener.take().is_some() {
                change(&client.site, target, false, before);
            }
            return Ok(());
        }
        listener = match listener {
            Some(_) => None,
            None => Some(listen(address)?),
        };
        change(&client.site, target, listener.is_some(), before);
    }
}

/// `false`: the run was over before it was known to be registered.
async fn register(client: &mut Client, target: u64, address: SocketAddr) -> bool {
    let id = format!("{SERVICE}-{target}");
    let body = json!({"Name": SERVICE, "ID": id, "Check": {
        "CheckID": id, "TCP": address.to_string(), "Interval": "1s", "Timeout": "5s",
        "Status": "passing"}});
    while !client.site.is_over() {
        let call = Call::write("/v1/agent/service/register", body.to_string());
        if client.send_anywhere(call).await.answer().is_some() {
            return true;
        }
        tokio::time::sleep(RETRY).await;
    }
    false
}

/// Listens where somebody listened before.
fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket.listen(128)?)
}

fn change(site: &Site, target: u64, is_up: bool, before: u64) {
    let after = site.now();
    site.journal.note(NAME, &Event::Changed { target, is_up, before, after });
}

// ---- workers ---------------------------------------------------------------------------------

/// A worker process, until it is struck; when its checks are others', the next one, under a name of its own.
async fn one_worker_after_the_other(mut client: Client) -> Result<()> {
    let site = Arc::clone(&client.site);
    let Some(place) = &site.processes else {
        return Err(Failure::new("a run without processes of its own"));
    };
    let servers: Vec<&str> = site.nodes.iter().map(|(_, http)| http.base()).collect();
    let first = client.number * NAMES_MAX;
    for worker in first..first + NAMES_MAX {
        let name = format!("w{worker}");
        let mut process = Worker::start(&place.binary, &name, &servers, &key_file(&place.dir))?;
        wait_standing(&mut client, &name, true).await;
        let life = Duration::from_millis(client.rng.random_range(WORKER_LIFE_MS));
        rest(&site, life).await;
        if site.is_over() {
            // It ends with this task, before the last looks.
            site.journal.note(NAME, &Event::Left { worker, at: site.now() });
            return Ok(());
        }
        let stopped = client.rng.random_range(0..STOPPED_ONE_OF) == 0;
        site.journal.note(NAME, &Event::Lost { worker, stopped, at: site.now() });
        if stopped {
            process.signal("STOP")?;
        } else {
            drop(process);
        }
        if !wait_standing(&mut client, &name, false).await {
            return Ok(());
        }
        site.journal.note(NAME, &Event::Replaced { worker, at: site.now() });
    }
    Ok(())
}

/// Waits until a default read shows the worker as live, or not; `false`: the run was over before.
async fn wait_standing(client: &mut Client, name: &str, live: bool) -> bool {
    while !client.site.is_over() {
        let reply = client.send_anywhere(Call::read("/v1/quorate/workers")).await;
        let rows = reply.answer().and_then(|answer| answer.value().ok());
        if let Some(rows) = rows.as_ref().and_then(|rows| rows.as_array()) {
            let is_live = rows.iter().any(|row| row["Name"] == name && row["Status"] == "live");
            if is_live == live {
                return true;
            }
        }
        tokio::time::sleep(NAP).await;
    }
    false
}

/// Writes down who runs the checks, whenever that has changed.
async fn watch_hands(mut client: Client) -> Result<()> {
    let mut last = Vec::new();
    while !client.site.is_over() {
        let path = format!("/v1/quorate/checks?service={SERVICE}");
        let reply = client.send_anywhere(Call::read(&path)).await;
        let (call, ret) = (reply.call, reply.end);
        let workers = reply.answer().and_then(hands_in);
        if let Some(workers) = workers.filter(|workers| *workers != last) {
            last.clone_from(&workers);
            client.site.journal.note(NAME, &Event::Assigned { call, ret, workers });
        }
        tokio::time::sleep(NAP).await;
    }
    Ok(())
}

/// The worker of each target's check.
fn hands_in(answer: &Answer) -> Option<Vec<(u64, String)>> {
    let rows = answer.value().ok()?;
    let hand = |row: &Value| {
        let worker = row["Workers"][0]["Worker"].as_str()?;
        Some((target_of(row["ServiceID"].as_str()?)?, worker.to_owned()))
    };
    rows.as_array()?.iter().map(hand).collect()
}

/// The numbers of the worker processes that a list shows as live.
fn workers_in(rows: &Value) -> Vec<u64> {
    let rows = rows.as_array().into_iter().flatten().filter(|row| row["Status"] == "live");
    rows.filter_map(|row| row["Name"].as_str()?.strip_prefix('w')?.parse().ok()).collect()
}

/// Sleeps, but not beyond the end of the run.
async fn rest(site: &Site, span: Duration) {
    let until = Instant::now() + span;
    while Instant::now() < until && !site.is_over() {
        tokio::time::sleep(NAP).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_targets_are_read_and_all_of_them() {
        let critical = |body: &str| targets_in(&Answer::new(200, body.to_owned()));
        let all = r#"[{"ServiceName": "checked", "ServiceID": "checked-8"},
            {"ServiceName": "quorate-worker", "ServiceID": "w1"}, {"ServiceName": "", "ServiceID": ""}]"#;
        assert_eq!(critical(all), Some(vec![8]));
        assert_eq!(critical(r#"[{"ServiceName": "checked", "ServiceID": "x"}]"#), None);
        assert_eq!(critical("{}"), None);
        let hands = r#"[{"ServiceID": "checked-8", "Workers": [{"Worker": "n2"}]}]"#;
        let hands = hands_in(&Answer::new(200, hands.to_owned()));
        assert_eq!(hands, Some(vec![(8, "n2".to_owned())]));
    }
}
