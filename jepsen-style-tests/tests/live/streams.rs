//! Streams: a reader that follows the history gets each record once, whatever happens to the servers; many readers
//! and slow ones cost little; and `min-index` never shows older data.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jepsen_style_tests::cluster::Options;
use jepsen_style_tests::health::register;
use jepsen_style_tests::http::{Answer, Http, Method};
use jepsen_style_tests::process::{raise_descriptor_limit, resident_kib};
use jepsen_style_tests::rounds::setting;
use jepsen_style_tests::stream::{Frame, Reader, Socket};
use jepsen_style_tests::{Cluster, Failure, Limit, Result};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// The writer puts one key in this time.
const PUT_EVERY: Duration = Duration::from_micros(3_300);
/// How long a stream is read before something happens to its server.
const READ_FOR: Duration = Duration::from_millis(800);
/// How long a server is paused, and at most how long what is on its way may take.
const PAUSE: Duration = Duration::from_millis(1_200);
const LIMIT: Duration = Duration::from_secs(30);
/// What a server may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(13);
/// Streams that come from one address.
const STREAMS_OF_ONE: usize = 200;
/// What a stream may cost its server, connection included.
const STREAM_KIB_MAX: u64 = 64;
/// From this level of the cluster's rules on there is a history.
const HISTORY_LEVEL: u64 = 2;
const TTL: Duration = Duration::from_secs(3_600);

async fn started(options: Options) -> Result<Cluster> {
    Cluster::start_at_level(HISTORY_LEVEL, options).await
}

fn key(frame: &Frame) -> String {
    frame.data["Key"].as_str().unwrap_or_default().to_owned()
}

/// Puts new keys below `s/`, through servers in turn.
struct Writer {
    /// Nobody writes through this server; 0: through all.
    avoided: Arc<AtomicU64>,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    task: JoinHandle<()>,
}

impl Writer {
    fn start(nodes: Vec<(u64, Http)>) -> Self {
        let avoided = Arc::<AtomicU64>::default();
        let acknowledged = Arc::<Mutex<BTreeSet<String>>>::default();
        let (shunned, noted) = (Arc::clone(&avoided), Arc::clone(&acknowledged));
        let task = tokio::spawn(async move {
            let mut turns = tokio::time::interval(PUT_EVERY);
            for number in 0_usize.. {
                turns.tick().await;
                let shunned = shunned.load(Ordering::Relaxed);
                let open: Vec<_> = nodes.iter().filter(|(id, _)| *id != shunned).collect();
                let (node, noted) = (open[number % open.len()].1.clone(), Arc::clone(&noted));
                tokio::spawn(async move {
                    // Without an answer the outcome is unknown, and the key is not put again.
                    let key = format!("s/{number}");
                    if node.must_put(&format!("/v1/kv/{key}"), "v").await.is_ok() {
                        noted.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
                    }
                });
            }
        });
        Self { avoided, acknowledged, task }
    }

    fn avoid(&self, id: u64) {
        self.avoided.store(id, Ordering::Relaxed);
    }

    fn acknowledged(&self) -> BTreeSet<String> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a reader that changes servers has seen.
#[derive(Default)]
struct Follower {
    last: Option<u64>,
    /// When each key came, as the id of its record.
    seen: BTreeMap<String, u64>,
    marks: usize,
    moved: Option<Value>,
}

impl Follower {
    async fn open(&self, node: &Http) -> Result<Reader> {
        let limit = Limit::new(LIMIT);
        loop {
            match Reader::open(node, "prefix=s/", self.last).await {
                Ok(reader) => return Ok(reader),
                // Its server may have no leader for a moment.
                Err(error) => limit.pause(|| format!("a stream: {error}")).await?,
            }
        }
    }

    fn note(&mut self, frame: &Frame) -> Result<()> {
        let wrong =
            |why: &str| Err(Failure::new(format!("{why} after {:?}: {frame:?}", self.last)));
        match frame.name.as_str() {
            "change" => {
                if frame.id <= self.last {
                    return wrong("an id that does not rise");
                }
                if self.seen.insert(key(frame), frame.id.unwrap_or_default()).is_some() {
                    return wrong("a key twice");
                }
            }
            "mark" => {
                self.marks += 1;
                if frame.id < self.last {
                    return wrong("a mark that falls");
                }
            }
            "snapshot" if self.last.is_none() => {}
            "moved" => self.moved = Some(frame.data.clone()),
            "leader" => {}
            _ => return wrong("not expected"),
        }
        self.last = frame.id.max(self.last);
        Ok(())
    }

    /// Reads for a while.
    async fn read(&mut self, reader: &mut Reader, span: Duration) -> Result<()> {
        let end = tokio::time::Instant::now() + span;
        while let Ok(frame) = tokio::time::timeout_at(end, reader.next()).await {
            match frame? {
                Some(frame) => self.note(&frame)?,
                None => return Err(Failure::new("the stream has ended")),
            }
        }
        Ok(())
    }

    /// Reads until the connection ends; whether it ended properly.
    async fn read_to_end(&mut self, mut reader: Reader) -> Result<bool> {
        loop {
            match reader.next().await {
                Ok(Some(frame)) => self.note(&frame)?,
                Ok(None) => return Ok(true),
                Err(_) => return Ok(false),
            }
        }
    }
}

/// What becomes of a stream.
#[derive(Debug, Clone, Copy)]
enum End {
    Closed,
    Killed,
    /// The reader reads elsewhere while its server is paused, and returns as soon as that is resumed.
    PausedAndLeft,
    /// The reader stays.
    PausedAndKept,
    Terminated,
}

const ENDS: [End; 5] =
    [End::Closed, End::Killed, End::PausedAndLeft, End::Terminated, End::PausedAndKept];

async fn end(
    how: End,
    id: u64,
    mut reader: Reader,
    cluster: &mut Cluster,
    follower: &mut Follower,
    writer: &Writer,
) -> Result<()> {
    match how {
        End::Closed => drop(reader),
        End::Killed => {
            writer.avoid(id);
            cluster.kill(id)?;
            follower.read_to_end(reader).await?;
            cluster.start_node(id)?;
        }
        End::PausedAndLeft => {
            writer.avoid(id);
            cluster.pause(id)?;
            drop(reader);
            let other = cluster.http(cluster.others(id)[0]);
            let mut elsewhere = follower.open(&other).await?;
            follower.read(&mut elsewhere, PAUSE).await?;
            cluster.resume(id)?;
            let mut again = follower.open(&cluster.http(id)).await?;
            follower.read(&mut again, PAUSE).await?;
        }
        End::PausedAndKept => {
            writer.avoid(id);
            cluster.pause(id)?;
            tokio::time::sleep(PAUSE).await;
            cluster.resume(id)?;
            follower.read(&mut reader, PAUSE).await?;
        }
        End::Terminated => {
            writer.avoid(id);
            follower.moved = None;
            cluster.terminate(id)?;
            let is_proper = follower.read_to_end(reader).await?;
            let moved = follower.moved.take();
            let moved = moved.ok_or_else(|| Failure::new("no frame `moved` at the end"))?;
            let bases: BTreeSet<_> = cluster
                .others(id)
                .into_iter()
                .map(|id| cluster.http(id).base().to_owned())
                .collect();
            let servers: BTreeSet<String> = serde_json::from_value(moved["Servers"].clone())
                .map_err(|error| Failure::new(error.to_string()))?;
            let retry = moved["RetryMs"].as_u64();
            if !is_proper || servers != bases || retry.is_none_or(|retry| retry > 2_000) {
                return Err(Failure::new(format!("ended properly: {is_proper}, with {moved}")));
            }
            cluster.wait_ended(id, STOP_LIMIT).await?;
            cluster.start_node(id)?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_changes_servers_gets_every_key_once() {
    let mut cluster = started(Options::default()).await.unwrap();
    let mut follower = Follower::default();
    let mut first = follower.open(&cluster.http(1)).await.unwrap();
    while follower.last.is_none() {
        follower.note(&first.next().await.unwrap().unwrap()).unwrap();
    }
    drop(first);
    let writer = Writer::start(cluster.ids().iter().map(|id| (*id, cluster.probe(*id))).collect());
    let until = Instant::now() + Duration::from_secs(setting("QUORATE_STREAM_S", 25));
    let mut rounds = 0;
    while Instant::now() < until || rounds < ENDS.len() {
        // Each end meets each server in turn.
        let id = u64::try_from(rounds % 3).unwrap() + 1;
        let mut reader = follower.open(&cluster.http(id)).await.unwrap();
        follower.read(&mut reader, READ_FOR).await.unwrap();
        // Never two at once.
        cluster.wait_all_ready().await.unwrap();
        writer.avoid(0);
        let how = ENDS[rounds % ENDS.len()];
        let ended = end(how, id, reader, &mut cluster, &mut follower, &writer).await;
        ended.unwrap_or_else(|error| panic!("{how:?} at n{id}: {error}"));
        rounds += 1;
    }
    cluster.wait_all_ready().await.unwrap();
    writer.task.abort();
    // Puts that are still on their way.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let acknowledged = writer.acknowledged();
    let limit = Limit::new(LIMIT);
    let mut reader = follower.open(&cluster.http(1)).await.unwrap();
    while let Some(key) = acknowledged.iter().find(|key| !follower.seen.contains_key(*key)) {
        if limit.is_over() {
            let missing = acknowledged.iter().filter(|key| !follower.seen.contains_key(*key));
            let record =
                cluster.http(1).must_get(&format!("/v1/quorate/history?key={key}")).await.unwrap();
            panic!("missing: {:?}; of the first: {record}", missing.collect::<Vec<_>>());
        }
        follower.read(&mut reader, Duration::from_millis(100)).await.unwrap();
    }
    println!(
        "{} keys acknowledged, {} seen once each, {rounds} ends, {} marks",
        acknowledged.len(),
        follower.seen.len(),
        follower.marks
    );
    assert!(acknowledged.len() > 1_000, "vacuous: {} keys", acknowledged.len());
    cluster.finish().await.unwrap();
}

/// The server is asked in the first moment after a pause, before it has heard what it missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_stream_waits_for_the_place_from_which_it_goes_on() {
    let mut cluster = started(Options::default()).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let behind = cluster.others(leader)[0];
    let (here, there) = (cluster.http(behind), cluster.http(leader));
    for round in 0..4 {
        let mut stream = Reader::open(&there, "prefix=p/", None).await.unwrap();
        stream.next_named("snapshot", LIMIT).await.unwrap();
        cluster.pause(behind).unwrap();
        let mut last = None;
        for number in 0..20 {
            there.must_put(&format!("/v1/kv/p/{round}/{number}"), "v").await.unwrap();
            last = stream.next_named("change", LIMIT).await.unwrap().id;
        }
        let opened = tokio::spawn({
            let here = here.clone();
            async move { Reader::open(&here, "stale&prefix=p/", last).await }
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        cluster.resume(behind).unwrap();
        let mut resumed = opened.await.unwrap().unwrap();
        there.must_put(&format!("/v1/kv/p/{round}/next"), "v").await.unwrap();
        let next = resumed.next_named("change", LIMIT).await.unwrap();
        assert_eq!(key(&next), format!("p/{round}/next"));
    }
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_one_of_many_streams_gets_every_change_once() {
    const CHANGES: usize = 6;
    raise_descriptor_limit().unwrap();
    let cluster = started(Options::default()).await.unwrap();
    let streams = setting("QUORATE_STREAMS", 500_usize);
    let leader = cluster.leader().await.unwrap();
    let follower = cluster.others(leader)[0];
    let (here, there) = (cluster.http(follower), cluster.http(leader));
    let pid = cluster.pid(follower).unwrap();
    register(&there, "many", "many-1", TTL, "").await.unwrap();
    let before = resident_kib(pid).unwrap();
    let mut readers = Vec::new();
    for number in 0..streams {
        let host = 2 + u8::try_from(number / STREAMS_OF_ONE).unwrap();
        let socket = Socket { from: Ipv4Addr::new(127, 0, 0, host), buffer: None };
        let mut reader = Reader::open_from(socket, &here, "service=many", None).await.unwrap();
        let listed = reader.next_named("snapshot", LIMIT).await.unwrap();
        assert_eq!(listed.data["Instances"][0]["ID"], "many-1");
        readers.push(reader);
    }
    let after = resident_kib(pid).unwrap();
    let each = after.saturating_sub(before) * 1024 / u64::try_from(streams).unwrap();
    println!("{streams} streams: {before} KiB resident before, {after} after, {each} bytes each");

    let mut slowest = Duration::ZERO;
    let mut ids = Vec::new();
    for change in 0..CHANGES {
        let verb = if change % 2 == 0 { "warn" } else { "pass" };
        let began = Instant::now();
        there.must_put(&format!("/v1/agent/check/{verb}/service:many-1"), "").await.unwrap();
        // One of another service is for none of them.
        register(&there, "other", &format!("other-{change}"), TTL, "").await.unwrap();
        let changed = readers.iter_mut().map(|reader| reader.next_named("change", LIMIT));
        let changed = futures_util::future::try_join_all(changed).await.unwrap();
        slowest = slowest.max(began.elapsed());
        let id = changed[0].id;
        ids.push(id);
        for frame in changed {
            assert_eq!((frame.id, &frame.data["Service"]), (id, &json!("many")), "{frame:?}");
            let wanted = if change % 2 == 0 { "warning" } else { "passing" };
            assert_eq!(frame.data["To"], wanted);
            // The row is that of the sending state.
            assert_eq!(frame.data["Row"]["ID"], "many-1");
        }
    }
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    println!("a change and one for nobody reached all of them within {slowest:?}");
    // Nothing comes twice: what comes next is a mark.
    for reader in readers.iter_mut().take(20) {
        let frame = reader.next().await.unwrap().unwrap();
        assert_eq!(frame.name, "mark");
        assert!(frame.id > *ids.last().unwrap());
    }
    assert!(each < STREAM_KIB_MAX * 1024, "{each} bytes for each stream");
    drop(readers);
    cluster.finish().await.unwrap();
}

/// Changes a thousand keys below `slow/` so many times, a hundred in a request. The values and flags are the numbers
/// from `first` on.
async fn change_many(node: &Http, first: usize, changes: usize) -> Result<()> {
    let numbers: Vec<_> = (first..first + changes).collect();
    for some in numbers.chunks(100) {
        let operations = some.iter().map(|number| {
            // The record contains the flags, which identify the change.
            let value = BASE64_STANDARD.encode(number.to_string());
            json!({"KV": {"Verb": "set", "Key": format!("slow/{}", number % 1_000),
                "Value": value, "Flags": number}})
        });
        let body = Value::Array(operations.collect()).to_string();
        let answer = node.put("/v1/txn", body).await?;
        if answer.status != 200 {
            return Err(Failure::new(format!("{}: {}", answer.status, answer.text())));
        }
    }
    Ok(())
}

/// The number of a change, from the flags in its record.
fn number(frame: &Frame) -> Option<usize> {
    frame.data["Detail"].as_str()?.rsplit(' ').next()?.parse().ok()
}

/// Reads until the change with this number. Returns how many came, and the gap, if there was one.
async fn read_numbers(
    reader: &mut Reader,
    mut next: usize,
    last: usize,
) -> Result<(usize, Option<Frame>)> {
    let (mut seen, mut gap) = (0, None);
    while next <= last {
        let Some(frame) = reader.next().await? else { return Err(Failure::new("the end")) };
        match frame.name.as_str() {
            "change" => {
                let number = number(&frame);
                // After a gap it resumes anywhere, and then without another one.
                let is_next = number == Some(next) || gap.is_some() && seen == 0;
                if !is_next {
                    return Err(Failure::new(format!("not {next}: {frame:?}")));
                }
                next = number.unwrap_or(next) + 1;
                seen += 1;
            }
            "gap" => {
                let listed = reader.next().await?;
                let is_listed = listed.as_ref().is_some_and(|frame| frame.name == "snapshot");
                if !is_listed || gap.is_some() {
                    return Err(Failure::new(format!("{listed:?} behind {frame:?}")));
                }
                seen = 0;
                gap = Some(frame);
                let seq = listed.and_then(|listed| listed.data["Seq"].as_u64());
                println!("a gap, and a snapshot at {seq:?}");
            }
            _ => {}
        }
    }
    Ok((seen, gap))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_read_costs_little_and_loses_nothing_unnoticed() {
    const FEW: usize = 5_000;
    const MANY: usize = 32_000;
    let cluster = started(Options::default()).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let follower = cluster.others(leader)[0];
    let (here, there) = (cluster.http(follower), cluster.http(leader));
    let pid = cluster.pid(follower).unwrap();
    // The rings and the state are full before anything is measured.
    change_many(&there, 0, MANY).await.unwrap();
    let mut other = Reader::open(&here, "prefix=other/", None).await.unwrap();
    other.next_named("snapshot", LIMIT).await.unwrap();

    // Within the ring: everything, once.
    let kind = Socket { buffer: Some(16 << 10), ..Socket::default() };
    let mut slow = Reader::open_from(kind, &here, "prefix=slow/", None).await.unwrap();
    slow.next_named("snapshot", LIMIT).await.unwrap();
    change_many(&there, MANY, FEW).await.unwrap();
    let read = read_numbers(&mut slow, MANY, MANY + FEW - 1).await.unwrap();
    assert_eq!(read.0, FEW);
    assert!(read.1.is_none(), "{read:?}");
    drop(slow);

    // Beyond it: a gap, and what is there.
    let mut slow = Reader::open_from(kind, &here, "prefix=slow/", None).await.unwrap();
    slow.next_named("snapshot", LIMIT).await.unwrap();
    let before = resident_kib(pid).unwrap();
    let mut slowest = Duration::ZERO;
    let first = MANY + FEW;
    for part in 0..10 {
        change_many(&there, first + part * MANY / 10, MANY / 10).await.unwrap();
        let began = Instant::now();
        there.must_put(&format!("/v1/kv/other/{part}"), "v").await.unwrap();
        other.next_named("change", LIMIT).await.unwrap();
        slowest = slowest.max(began.elapsed());
    }
    let after = resident_kib(pid).unwrap();
    println!("{before} KiB resident before, {after} after; others wait {slowest:?} at most");
    assert!(after.saturating_sub(before) < 20 << 10, "{before} KiB, then {after}");
    assert!(slowest < Duration::from_secs(1), "others wait {slowest:?}");
    let last = first + MANY;
    let read = tokio::spawn(async move { read_numbers(&mut slow, first, last).await });
    // What comes behind it all.
    tokio::time::sleep(Duration::from_secs(1)).await;
    change_many(&there, last, 1).await.unwrap();
    let (seen, gap) = read.await.unwrap().unwrap();
    println!("{seen} since the last gap: {gap:?}");
    assert!(gap.is_some() || seen == MANY + 1, "{seen} came");
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_with_min_index_is_never_older() {
    let hold = Duration::from_secs(2);
    let flags = ["--hold-timeout", "2s"].map(str::to_owned).into();
    let mut cluster = started(Options { flags, ..Options::default() }).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let slow = cluster.others(leader)[0];
    let (here, there) = (cluster.http(slow), cluster.http(leader));
    here.must_put("/v1/kv/own", "-").await.unwrap();
    let index_of = |answer: &Answer| -> u64 {
        let text = answer.header("x-quorate-index").unwrap_or_else(|| panic!("none: {answer:?}"));
        text.parse().unwrap()
    };
    let mut older = 0;
    let rounds = 8;
    for round in 0..rounds {
        cluster.pause(slow).unwrap();
        let written = there.put("/v1/kv/own", round.to_string()).await.unwrap();
        assert_eq!(written.status, 200);
        let index = index_of(&written);
        let read = |path: String| {
            let here = here.clone();
            tokio::spawn(async move { here.get(&path).await })
        };
        let plain = read("/v1/kv/own?raw&stale".to_owned());
        let own = read(format!("/v1/kv/own?raw&stale&min-index={index}"));
        tokio::time::sleep(Duration::from_millis(150)).await;
        cluster.resume(slow).unwrap();
        let own = own.await.unwrap().unwrap();
        assert_eq!((own.status, own.text()), (200, round.to_string()));
        assert!(index_of(&own) >= index);
        older += usize::from(plain.await.unwrap().unwrap().text() != round.to_string());
    }
    println!("{older} of {rounds} stale reads without min-index were older");

    // Refusals have the index too.
    let refused = [
        (Method::GET, "/v1/kv/none", 404),
        (Method::GET, "/v1/nothing", 404),
        (Method::POST, "/v1/status/leader", 405),
        (Method::GET, "/v1/kv/own?min-index=x", 400),
        (Method::PUT, "/v1/kv/own?min-index=-1", 400),
        (Method::GET, "/v1/quorate/stream?kind=nothing", 400),
        (Method::GET, "/v1/quorate/stream?since=x", 400),
    ];
    for (method, path, status) in refused {
        let answer = here.send(method, path, Default::default()).await.unwrap();
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(index_of(&answer) > 0, "{path}");
    }
    let began = Instant::now();
    let future = here.get("/v1/kv/own?stale&min-index=999999999").await.unwrap();
    let took = began.elapsed();
    assert_eq!((future.status, future.header("retry-after")), (503, Some("1")));
    assert!(index_of(&future) < 999_999_999);
    assert!((hold..hold * 2).contains(&took), "held for {took:?}");
    // A write is not made before its index, and not afterwards either.
    let write = here.put("/v1/kv/early?min-index=999999999", "v").await.unwrap();
    assert_eq!(write.status, 503);
    assert_eq!(here.get("/v1/kv/early").await.unwrap().status, 404);
    cluster.finish().await.unwrap();
}

async fn register_on(node: &Http, host: &str, service: &str, id: &str) -> Result<()> {
    let body = json!({"Node": host, "Address": "10.0.0.9",
        "Service": {"Service": service, "ID": id, "Port": 80},
        "Check": {"Node": host, "CheckID": "serfHealth", "Name": "alive", "Status": "passing"}});
    node.must_put("/v1/catalog/register", body.to_string()).await?;
    Ok(())
}

/// The statuses of the instances that a change shows, by their ids.
fn rows(frame: &Frame) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows = frame.data["Rows"].as_array().cloned().unwrap_or_default();
    rows.iter().map(|row| (text(&row["ID"]), text(&row["Status"]))).collect()
}

/// The next change of a status. (An agent's request makes its node's own check new, without another status.)
async fn change_of_status(stream: &mut Reader) -> Result<Frame> {
    loop {
        let change = stream.next_named("change", Duration::from_secs(8)).await?;
        if change.data["From"] != change.data["To"] || change.data["From"].is_null() {
            return Ok(change);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_decides_about_a_node_reaches_the_streams_of_its_services() {
    let cluster = started(Options::default()).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let (here, there) = (cluster.http(cluster.others(leader)[0]), cluster.http(leader));
    register_on(&there, "far", "web", "web-1").await.unwrap();
    register_on(&there, "far", "web", "web-2").await.unwrap();
    register_on(&there, "near", "db", "db-1").await.unwrap();
    let mut web = Reader::open(&here, "service=web", None).await.unwrap();
    let mut both = Reader::open(&here, "service=Web&prefix=app/", None).await.unwrap();
    let mut db = Reader::open(&here, "service=db", None).await.unwrap();
    for stream in [&mut web, &mut both, &mut db] {
        stream.next_named("snapshot", LIMIT).await.unwrap();
    }
    // Keys reach who wants services too.
    there.must_put("/v1/kv/app/port", "1").await.unwrap();
    let change = both.next_named("change", Duration::from_secs(8)).await.expect("the key");
    assert_eq!(key(&change), "app/port");
    let check = |check: &str, status: &str| {
        json!({"Node": "far", "SkipNodeUpdate": true,
            "Check": {"Node": "far", "CheckID": check, "Name": check, "Status": status}})
        .to_string()
    };
    let shown = |status: &str| {
        vec![("web-1".to_owned(), status.to_owned()), ("web-2".to_owned(), status.to_owned())]
    };
    let steps = [
        ("/v1/catalog/register", check("serfHealth", "critical"), "check.changed", "critical"),
        ("/v1/catalog/register", check("serfHealth", "passing"), "check.changed", "passing"),
        ("/v1/catalog/register", check("disk", "warning"), "check.registered", "warning"),
        (
            "/v1/catalog/deregister",
            json!({"Node": "far", "CheckID": "disk"}).to_string(),
            "check.deregistered",
            "passing",
        ),
        (
            "/v1/agent/maintenance?enable=true&reason=disk&agent=far",
            String::new(),
            "maintenance.on",
            "critical",
        ),
        (
            "/v1/agent/maintenance?enable=false&agent=far",
            String::new(),
            "maintenance.off",
            "passing",
        ),
    ];
    for (path, body, kind, status) in steps {
        there.must_put(path, body).await.unwrap();
        for stream in [&mut web, &mut both] {
            let change = change_of_status(stream).await.expect(kind);
            assert_eq!(change.data["Kind"], kind, "{change:?}");
            assert_eq!(rows(&change), shown(status), "{change:?}");
        }
    }
    // Nothing of it was for the others.
    there
        .must_put(
            "/v1/catalog/deregister",
            json!({"Node": "near", "ServiceID": "db-1"}).to_string(),
        )
        .await
        .unwrap();
    let change = db.next_named("change", LIMIT).await.unwrap();
    assert_eq!(change.data["Kind"], "service.deregistered", "{change:?}");
    assert!(change.data["Row"].is_null());
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_loses_its_connection_after_a_restore_still_gets_the_list() {
    let cluster = started(Options::default()).await.unwrap();
    let (here, there) = (cluster.http(1), cluster.http(2));
    register(&there, "web", "web-1", TTL, "").await.unwrap();
    let backup = there.get("/v1/snapshot").await.unwrap();
    assert_eq!(backup.status, 200);
    register(&there, "web", "web-2", TTL, "").await.unwrap();
    let mut stream = Reader::open(&here, "service=web", None).await.unwrap();
    let mut last = stream.next_named("snapshot", LIMIT).await.unwrap().id;
    there.must_put("/v1/snapshot", backup.body).await.unwrap();
    last = stream.next_named("restored", LIMIT).await.unwrap().id.max(last);
    drop(stream);
    let mut again = Reader::open(&cluster.http(3), "service=web", last).await.unwrap();
    let listed = again.next_named("snapshot", Duration::from_secs(8)).await.expect("the list");
    let ids = listed.data["Instances"].as_array().unwrap().iter().map(|row| &row["ID"]);
    assert_eq!(ids.collect::<Vec<_>>(), ["web-1"]);
    cluster.finish().await.unwrap();
}
