//! Everything that runs by itself, while servers are killed, stopped, cut off and restarted one after the other: 60 s, or
//! as long as `QUORATE_CLIENT_S` says.

mod holders;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use jepsen_style_tests::http::{Http, HttpExt as _};
use jepsen_style_tests::network::Way;
use jepsen_style_tests::{Cluster, Failure, Limit, Options, Result};
use quorate_client::types::agent::{CheckSpecification, ServiceRegistration};
use quorate_client::{CancellationToken, Client, Event, Query, Registration, RegistrationState};
use serde_json::Value;

use crate::areas::wait_for_level;
use holders::{Holder, Resource};

/// How long the faults go on unless the environment says otherwise.
const SECONDS: u64 = 60;
/// What happens by itself shows within this.
const LIMIT: Duration = Duration::from_secs(20);
/// A balancer never returns an instance that has been critical for longer.
const CRITICAL_MAX: Duration = Duration::from_secs(1);
/// How often the balancer is asked, and how late that may be before the machine is to blame.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// The key that the watch and the stream follow.
const KEY: &str = "faults/number";
/// The service whose instances keep themselves registered.
const SERVICE: &str = "kept";
/// The service that the balancer balances.
const FLAPPING: &str = "flapping";

/// What went wrong, and figures for people.
#[derive(Default)]
struct Findings {
    wrong: Mutex<Vec<String>>,
    figures: Mutex<BTreeMap<&'static str, u64>>,
}

impl Findings {
    fn wrong(&self, what: impl Into<String>) {
        self.wrong.lock().unwrap().push(what.into());
    }

    fn count(&self, what: &'static str, by: u64) {
        *self.figures.lock().unwrap().entry(what).or_default() += by;
    }

    fn raise(&self, what: &'static str, to: u64) {
        let mut figures = self.figures.lock().unwrap();
        let figure = figures.entry(what).or_default();
        *figure = to.max(*figure);
    }

    fn figure(&self, what: &str) -> u64 {
        self.figures.lock().unwrap().get(what).copied().unwrap_or(0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_come_and_go_and_nobody_notices() {
    let seconds = std::env::var("QUORATE_CLIENT_S").map_or(SECONDS, |text| text.parse().unwrap());
    let options = Options { proxied: true, ..Options::default() };
    let mut cluster = Cluster::start_with(options).await.unwrap();
    let addresses: Vec<_> =
        cluster.ids().into_iter().map(|id| cluster.http(id).base().to_owned()).collect();
    let new_client = || Client::builder(addresses.clone()).spread().build().unwrap();
    let client = new_client();
    wait_for_level(&client).await.unwrap();
    let begin = last_seq(&cluster.http(1)).await.unwrap();
    let findings = Arc::new(Findings::default());
    let kept = register_all(&client).await.unwrap();

    let over = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(write_and_watch(new_client(), over.clone(), Arc::clone(&findings)));
    holders::offer(&client).await.unwrap();
    let (locked, claimed) = <(Arc<Resource>, Arc<Resource>)>::default();
    for name in ["a", "b"] {
        let (over, findings) = (over.clone(), Arc::clone(&findings));
        let holder = Holder { client: new_client(), name, over, findings };
        tasks.spawn(holder.clone().lock(Arc::clone(&locked)));
        tasks.spawn(holder.claim(Arc::clone(&claimed)));
    }
    let critical = CriticalSince::default();
    tasks.spawn(flap(new_client(), over.clone(), Arc::clone(&critical), Arc::clone(&findings)));
    for begins_at in 0..addresses.len() {
        let mut addresses = addresses.clone();
        addresses.rotate_left(begins_at);
        let client = Client::new(addresses).unwrap();
        tasks.spawn(ask(client, over.clone(), Arc::clone(&critical), Arc::clone(&findings)));
    }
    let followed = tokio::spawn(follow(new_client(), begin, over.clone()));

    strike(&mut cluster, Duration::from_secs(seconds), &findings).await.unwrap();
    over.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap().unwrap();
    }
    let followed = followed.await.unwrap().unwrap();
    let node = cluster.http(1);
    compare(&node, begin, &followed, &findings).await.unwrap();
    look_at_health(&node, begin, &kept, &findings).await.unwrap();
    client.shutdown().await;
    let gone = |rows: &Value| rows.as_array().is_some_and(Vec::is_empty);
    node.wait_for(&format!("/v1/catalog/service/{SERVICE}"), LIMIT, gone).await.unwrap();
    println!("{:#?}", findings.figures.lock().unwrap());
    let wrong = findings.wrong.lock().unwrap().clone();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (what, at_least) in
        [("numbers watched", 20), ("locks held", 10), ("claims held", 10), ("times critical", 5)]
    {
        let seen = findings.figure(what);
        assert!(seen >= at_least, "only {seen} {what}: this proves nothing");
    }
    cluster.finish().await.unwrap();
}

// ---- faults ------------------------------------------------------------------------------------

/// Does something to one server after the other, each time until all are ready again.
async fn strike(cluster: &mut Cluster, span: Duration, findings: &Findings) -> Result<()> {
    /// How long a server is away, in seconds.
    const AWAY_S: [u64; 4] = [2, 7, 3, 7];
    let away = AWAY_S.map(Duration::from_secs);
    let end = Instant::now() + span;
    let ids = cluster.ids();
    for turn in 0.. {
        if Instant::now() >= end {
            break;
        }
        let id = ids[turn % ids.len()];
        // Three servers and four faults: each server meets each of them.
        match turn % away.len() {
            0 => {
                cluster.kill(id)?;
                tokio::time::sleep(away[0]).await;
                cluster.start_node(id)?;
                findings.count("kills", 1);
            }
            1 => {
                cluster.pause(id)?;
                tokio::time::sleep(away[1]).await;
                cluster.resume(id)?;
                findings.count("pauses", 1);
            }
            2 => {
                let network = cluster.network()?;
                let links =
                    network.links().into_iter().filter(|link| [link.from, link.to].contains(&id));
                let links: Vec<_> = links.collect();
                network.cut(Way::Proxy, &links).await?;
                tokio::time::sleep(away[3]).await;
                cluster.network()?.heal().await?;
                findings.count("cuts", 1);
            }
            _ => {
                cluster.terminate(id)?;
                cluster.wait_ended(id, LIMIT).await?;
                tokio::time::sleep(away[2]).await;
                cluster.start_node(id)?;
                findings.count("restarts", 1);
            }
        }
        cluster.wait_all_ready().await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

// ---- registrations -----------------------------------------------------------------------------

async fn register_all(client: &Client) -> Result<Vec<Registration>> {
    let mut kept = Vec::new();
    for number in 0..2 {
        let by_heartbeats = client.register(SERVICE).id(format!("beats-{number}")).port(80);
        kept.push(by_heartbeats.ttl(Duration::from_secs(6)).by_heartbeats().await?);
        let by_presence = client.register(SERVICE).id(format!("present-{number}")).port(81);
        kept.push(by_presence.by_presence().await?);
    }
    Ok(kept)
}

/// The history knows each moment in which an instance was not passing, or not there.
async fn look_at_health(
    node: &Http,
    begin: u64,
    kept: &[Registration],
    findings: &Findings,
) -> Result<()> {
    let path = format!("/v1/quorate/history?service={SERVICE}&since={begin}");
    for record in node.must_get(&path).await?.as_array().into_iter().flatten() {
        let is_bad = record["Kind"] == "service.deregistered"
            || (record["Kind"] == "check.changed" && record["To"] != "passing");
        if is_bad {
            findings.wrong(format!("a registration was seen to fail: {record}"));
        }
    }
    let passing = node.must_get(&format!("/v1/health/service/{SERVICE}?passing")).await?;
    let count = passing.as_array().map_or(0, Vec::len);
    if count != kept.len() {
        findings.wrong(format!("{count} of {} instances pass at the end", kept.len()));
    }
    for registration in kept {
        if registration.state() != RegistrationState::Registered {
            findings.wrong(format!("{} is {:?}", registration.id(), registration.state()));
        }
    }
    let rows = node.must_get(&format!("/v1/quorate/instances?service={SERVICE}")).await?;
    for row in rows.as_array().into_iter().flatten() {
        let has_facts = row["Pid"] == std::process::id() && row["Restarts"] == 0;
        if !has_facts || row["Counter"].as_u64() < Some(2) {
            findings.wrong(format!("an instance without its facts: {row}"));
        }
    }
    Ok(())
}

// ---- a key, a watch and a stream ---------------------------------------------------------------

/// Counts in a key, one by one; each number must come out of a watch before the next is written.
async fn write_and_watch(
    client: Client,
    over: CancellationToken,
    findings: Arc<Findings>,
) -> Result<()> {
    // The first server may be killed at once. Nobody else writes yet, so it can be written twice.
    let limit = Limit::new(LIMIT);
    while let Err(error) = client.kv().put(KEY, "0").await {
        limit.pause(|| error.to_string()).await?;
    }
    let mut watch = client.watch_json::<u64>(KEY).start()?;
    let mut last = watch.first().await?.unwrap_or_default();
    watch.changed().await;
    while !over.is_cancelled() {
        let Ok(pair) = client.kv().get(KEY, &Query::new()).await else { continue };
        let Some(pair) = pair.value else { return Err(Failure::new("the key is gone")) };
        let present: u64 = serde_json::from_slice(&pair.value)?;
        if present == last {
            // Whatever comes of it: the next look tells.
            let _ = client.kv().cas(KEY, (present + 1).to_string(), pair.modify_index).await;
            continue;
        }
        let written = Instant::now();
        let seen = tokio::time::timeout(LIMIT, watch.changed()).await;
        let seen =
            seen.map_err(|_| Failure::new(format!("{present} was not seen in {LIMIT:?}")))?;
        let seen = seen.as_deref().copied().flatten().unwrap_or_default();
        if seen != last + 1 {
            findings.wrong(format!("the watch went from {last} to {seen}"));
        }
        findings.count("numbers watched", 1);
        let late = u64::try_from(written.elapsed().as_millis()).unwrap_or(u64::MAX);
        findings.raise("latest sight of a number, ms", late);
        last = seen;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// The numbers of all records of the key that a stream has shown.
async fn follow(client: Client, begin: u64, over: CancellationToken) -> Result<Vec<u64>> {
    let mut changes = client.follow().prefix(KEY).since(begin).start()?;
    let mut seen = Vec::new();
    // What was written before the end comes within a moment, or with the next mark.
    let mut end: Option<Instant> = None;
    while end.is_none_or(|end| Instant::now() < end) {
        tokio::select! {
            event = changes.next() => match event {
                Some(Ok(Event::Change(change))) => seen.push(change.event.seq),
                Some(Ok(Event::Gap(gap))) => return Err(Failure::new(format!("a gap: {gap:?}"))),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err(Failure::new("the stream has ended")),
            },
            () = over.cancelled(), if end.is_none() => end = Some(Instant::now() + LIMIT / 2),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
    Ok(seen)
}

async fn last_seq(node: &Http) -> Result<u64> {
    let answer = node.get("/v1/quorate/history?limit=1").await?;
    let seq = answer.header("x-quorate-last-seq").and_then(|text| text.parse().ok());
    seq.ok_or_else(|| Failure::new(format!("no history: {}", answer.text())))
}

/// Compares what a stream has shown with the history.
async fn compare(node: &Http, begin: u64, shown: &[u64], findings: &Findings) -> Result<()> {
    let (mut recorded, mut since) = (Vec::new(), begin);
    loop {
        let page = node.must_get(&format!("/v1/quorate/history?key={KEY}&since={since}")).await?;
        let page = page.as_array().cloned().unwrap_or_default();
        let seqs: Vec<u64> = page.iter().filter_map(|record| record["Seq"].as_u64()).collect();
        let Some(last) = seqs.last() else { break };
        since = *last;
        recorded.extend(seqs);
    }
    findings.count("records followed", recorded.len() as u64);
    if shown != recorded {
        let missing = recorded.iter().filter(|seq| !shown.contains(seq)).count();
        let (shown, recorded) = (shown.len(), recorded.len());
        findings
            .wrong(format!("{shown} of {recorded} records were followed, {missing} not at all"));
    }
    Ok(())
}

// ---- the balancer ------------------------------------------------------------------------------

/// Since when an instance is critical; `None`: it passes, or is about to.
type CriticalSince = Arc<Mutex<BTreeMap<String, Option<Instant>>>>;

/// Makes one instance critical after the other. Balancers are asked all the time, one at each server, through clients of
/// their own.
async fn flap(
    client: Client,
    over: CancellationToken,
    critical: CriticalSince,
    findings: Arc<Findings>,
) -> Result<()> {
    let ids: Vec<_> = (0..3).map(|number| format!("flapping-{number}")).collect();
    for id in &ids {
        let check = CheckSpecification {
            ttl: 3_600_000_000_000,
            status: "passing".to_owned(),
            ..CheckSpecification::default()
        };
        let service = ServiceRegistration {
            name: FLAPPING.to_owned(),
            id: id.clone(),
            port: 80,
            check: Some(check),
            ..ServiceRegistration::default()
        };
        client.agent().register(&service).await?;
    }
    let (agent, mut turn) = (client.agent(), 0);
    while !over.is_cancelled() {
        let id = &ids[turn % ids.len()];
        turn += 1;
        let check = format!("service:{id}");
        until_done(|| agent.fail(&check, "out of order")).await?;
        critical.lock().unwrap().insert(id.clone(), Some(Instant::now()));
        findings.count("times critical", 1);
        tokio::time::sleep(Duration::from_millis(1_700)).await;
        critical.lock().unwrap().insert(id.clone(), None);
        until_done(|| agent.pass(&check, "well again")).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    Ok(())
}

/// Repeats a call that comes to the same when it is carried out twice.
async fn until_done<F: Future<Output = Result<(), quorate_client::Error>>>(
    call: impl Fn() -> F,
) -> Result<()> {
    let limit = Limit::new(LIMIT);
    while let Err(error) = call().await {
        limit.pause(|| error.with_causes()).await?;
    }
    Ok(())
}

async fn ask(
    client: Client,
    over: CancellationToken,
    critical: CriticalSince,
    findings: Arc<Findings>,
) -> Result<()> {
    let balancer = client.balancer(FLAPPING).start()?;
    balancer.ready().await?;
    let mut stalls = Stalls::default();
    while !over.is_cancelled() {
        tokio::time::sleep(ASK_EVERY).await;
        let stalled = stalls.note(Instant::now());
        let Some(endpoint) = balancer.next() else {
            findings.wrong("the balancer has nobody, although two instances pass");
            continue;
        };
        findings.count("times balanced", 1);
        findings.count("times balanced while nobody answered", balancer.trouble().is_some().into());
        let since = critical.lock().unwrap().get(&endpoint.id).copied().flatten();
        let Some(since) = since else { continue };
        let late = since.elapsed();
        findings.raise(
            "latest choice of a critical instance, ms",
            u64::try_from(late.as_millis()).unwrap_or(u64::MAX),
        );
        if late > CRITICAL_MAX + stalled {
            let trouble = balancer.trouble();
            findings.wrong(format!(
                "{} was chosen {late:?} after it was critical, stalled {stalled:?}, {trouble:?}",
                endpoint.id
            ));
        }
    }
    Ok(())
}

/// By how much this process itself was late in the last two seconds: the machine's fault.
#[derive(Default)]
struct Stalls {
    last: Option<Instant>,
    recent: Vec<(Instant, Duration)>,
}

impl Stalls {
    fn note(&mut self, now: Instant) -> Duration {
        let gap = self.last.map_or(Duration::ZERO, |last| now - last);
        self.last = Some(now);
        let late = gap.saturating_sub(ASK_EVERY * 3);
        if !late.is_zero() {
            self.recent.push((now, late));
        }
        self.recent.retain(|(at, _)| now - *at < CRITICAL_MAX * 2);
        self.recent.iter().map(|(_, late)| *late).sum()
    }
}
