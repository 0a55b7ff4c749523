//! Checks spread over workers: servers and worker processes share them, and go on with those of one that is gone.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jepsen_style_tests::http::{Http, HttpExt as _};
use jepsen_style_tests::rounds::setting;
use jepsen_style_tests::{Cluster, Limit, Options, Result, binary};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// From this level of the cluster's rules on workers run checks.
const WORKERS_LEVEL: u64 = 12;
/// What happens by itself shows within this.
const LIMIT: Duration = Duration::from_secs(40);
/// Checks, unless `QUORATE_CHECKS` says otherwise.
const CHECKS: u64 = 1_000;
/// Time between two runs of each.
const INTERVAL: Duration = Duration::from_secs(3);
/// How long a run may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Within this a lost server's checks are run elsewhere, beside their interval.
const REPLACED_WITHIN: Duration = Duration::from_secs(8);
/// How much later all of it may be on a machine that is busy with other things.
const LATE_MAX: Duration = Duration::from_secs(10);
/// Checks in one registration.
const CHECKS_AT_ONCE: u64 = 100;

/// An HTTP service that answers whom it wants to.
struct Target {
    address: SocketAddr,
    /// The workers that are refused.
    refused: Arc<Mutex<Vec<String>>>,
    /// How often each worker asked.
    asked: Arc<Mutex<BTreeMap<String, u64>>>,
    task: JoinHandle<()>,
}

impl Target {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (refused, asked) = (Arc::<Mutex<Vec<String>>>::default(), Arc::default());
        let (refuses, counts) = (Arc::clone(&refused), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 4_096];
                let read = stream.read(&mut request).await.unwrap_or(0);
                let text = String::from_utf8_lossy(&request[..read]).to_ascii_lowercase();
                let worker = text.lines().find_map(|line| line.strip_prefix("x-quorate-worker: "));
                let worker = worker.unwrap_or_default().to_owned();
                let counts: &Mutex<BTreeMap<String, u64>> = &counts;
                *counts.lock().unwrap().entry(worker.clone()).or_default() += 1;
                // To one that is refused it is as if a network in between lost everything.
                if !refuses.lock().unwrap().contains(&worker) {
                    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine";
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            }
        });
        Self { address, refused, asked, task }
    }

    fn refuse(&self, workers: &[&str]) {
        *self.refused.lock().unwrap() = workers.iter().map(|name| (*name).to_owned()).collect();
    }

    fn asked_by(&self, worker: &str) -> u64 {
        self.asked.lock().unwrap().get(worker).copied().unwrap_or(0)
    }

    /// Nobody listens any more.
    async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Registers instances with so many checks of a target.
async fn register_all(node: &Http, service: &str, target: SocketAddr, checks: u64) {
    let mut first = 0;
    while first < checks {
        let last = (first + CHECKS_AT_ONCE).min(checks);
        register(node, service, target, first..last).await;
        first = last;
    }
}

/// Registers an instance with checks of a target.
async fn register(node: &Http, service: &str, target: SocketAddr, checks: Range<u64>) {
    register_every(node, service, target, checks, INTERVAL.as_secs()).await;
}

/// The same with an interval in seconds.
async fn register_every(
    node: &Http,
    service: &str,
    target: SocketAddr,
    checks: Range<u64>,
    interval_s: u64,
) {
    let checks: Vec<Value> = checks
        .map(|number| {
            json!({"CheckID": format!("{service}-{number}"), "Name": "c", "Status": "passing",
                "HTTP": format!("http://{target}/"), "Timeout": format!("{}s", TIMEOUT.as_secs()),
                "Interval": format!("{interval_s}s")})
        })
        .collect();
    let id = checks[0]["CheckID"].clone();
    let body = json!({"Name": service, "ID": id, "Checks": checks});
    node.must_put("/v1/agent/service/register", body.to_string()).await.unwrap();
}

/// How many checks each worker has that is live.
async fn shares(node: &Http) -> BTreeMap<String, u64> {
    let rows = node.must_get("/v1/quorate/workers").await.unwrap();
    let live = rows.as_array().unwrap().iter().filter(|row| row["Status"] == "live");
    live.map(|row| (row["Name"].as_str().unwrap().to_owned(), row["Checks"].as_u64().unwrap()))
        .collect()
}

/// How many checks of a service have a status.
fn count(rows: &Value, status: &str) -> usize {
    rows.as_array().map_or(0, |rows| rows.iter().filter(|row| row["Status"] == status).count())
}

async fn wait_count(node: &Http, service: &str, status: &str, wanted: usize, limit: Duration) {
    let path = format!("/v1/health/checks/{service}");
    let all = |rows: &Value| count(rows, status) == wanted;
    node.wait_for(&path, limit, all).await.unwrap();
}

/// The records of checks of these services that changed their status after a record.
async fn flips(node: &Http, services: &str, since: u64) -> Vec<Value> {
    let path =
        format!("/v1/quorate/history?kind=check.changed&{services}&since={since}&limit=1000");
    let records = node.must_get(&path).await.unwrap();
    let records = records.as_array().unwrap().iter();
    records.filter(|record| record["From"] != record["To"]).cloned().collect()
}

async fn last_seq(node: &Http) -> u64 {
    let answer = node.get("/v1/quorate/history?limit=1").await.unwrap();
    answer.header("x-quorate-last-seq").unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_share_the_checks_and_take_over_those_of_one_that_is_killed() {
    let mut cluster = Cluster::start_at_level(WORKERS_LEVEL, Options::default()).await.unwrap();
    let (stays, goes) = (Target::start().await, Target::start().await);
    let node = cluster.http(1);
    let checks = setting("QUORATE_CHECKS", CHECKS);
    let gone = checks / 5;
    register_all(&node, "stays", stays.address, checks - gone).await;
    register_all(&node, "goes", goes.address, gone).await;
    for (worker, share) in shares(&node).await {
        println!("{worker} has {share} of {checks} checks");
        // Each within 15 % of a third.
        let even = checks * 85 / 300..=checks * 115 / 300;
        assert!(even.contains(&share), "{worker} has {share} of {checks} checks");
    }
    // Every server runs its own.
    let limit = Limit::new(LIMIT);
    while !["n1", "n2", "n3"].iter().all(|name| stays.asked_by(name) > 0) {
        limit.pause(|| format!("all servers ask: {:?}", stays.asked.lock())).await.unwrap();
    }

    // A server dies that does not lead. Nobody sees a status change, and its checks go on.
    let since = last_seq(&node).await;
    let leader = cluster.leader().await.unwrap();
    let victim = cluster.others(leader)[0];
    let there = cluster.http(leader);
    cluster.kill(victim).unwrap();
    let killed = Instant::now();
    let name = format!("n{victim}");
    let limit = Limit::new(REPLACED_WITHIN + LATE_MAX);
    while shares(&there).await.contains_key(&name) {
        limit.pause(|| format!("{name} is no worker any more")).await.unwrap();
    }
    println!("{name} is no worker any more {:?} after it was killed", killed.elapsed());
    let moved = shares(&there).await;
    assert_eq!(moved.values().sum::<u64>(), checks, "{moved:?}");
    tokio::time::sleep(INTERVAL + TIMEOUT).await;
    let flipped = flips(&there, "service=stays&service=goes", since).await;
    assert!(flipped.is_empty(), "{flipped:?}");

    // A fifth of the targets goes, those of the dead server's checks among them.
    goes.stop().await;
    let stopped = Instant::now();
    let within = INTERVAL + TIMEOUT + LATE_MAX;
    wait_count(&there, "goes", "critical", usize::try_from(gone).unwrap(), within).await;
    println!("all {gone} are critical {:?} after their target has gone", stopped.elapsed());
    let flipped = flips(&there, "service=stays", since).await;
    assert!(flipped.is_empty(), "{flipped:?}");
    cluster.start_node(victim).unwrap();
    cluster.wait_ready(victim).await.unwrap();
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_that_is_cut_off_from_a_target_is_outvoted() {
    let cluster = Cluster::start_at_level(WORKERS_LEVEL, Options::default()).await.unwrap();
    let target = Target::start().await;
    target.refuse(&["n2"]);
    let node = cluster.http(1);
    let body = json!({"Name": "web", "Check": {"CheckID": "watched", "Observers": 3, "Interval": "1s",
        "HTTP": format!("http://{}/", target.address), "Status": "passing"}});
    let since = last_seq(&node).await;
    node.must_put("/v1/agent/service/register", body.to_string()).await.unwrap();
    let path = "/v1/quorate/checks?service=web";
    let view = |rows: &Value, name: &str| {
        let workers = rows[0]["Workers"].as_array().cloned().unwrap_or_default();
        let row = workers.into_iter().find(|row| row["Worker"] == name);
        row.map_or(Value::Null, |row| row["Status"].clone())
    };
    let seen = |rows: &Value| {
        view(rows, "n1") == "passing"
            && view(rows, "n2") == "critical"
            && view(rows, "n3") == "passing"
    };
    node.wait_for(path, LIMIT, seen).await.unwrap();
    let rows = node.must_get("/v1/health/checks/web").await.unwrap();
    assert_eq!(rows[0]["Status"], "passing");
    let output = rows[0]["Output"].as_str().unwrap();
    assert!(output.starts_with("n1 passing, n2 critical, n3 passing\n"), "{output}");
    assert!(flips(&node, "service=web", since).await.is_empty());

    // Two of three are enough.
    target.refuse(&["n2", "n3"]);
    wait_count(&cluster.http(2), "web", "critical", 1, LIMIT).await;
    let own = node.must_get(path).await.unwrap();
    let own = own[0]["Workers"].as_array().unwrap().clone();
    let of =
        |name: &str| own.iter().find(|row| row["Worker"] == name).unwrap()["DurationMs"].clone();
    assert!(of("n1").is_number() && of("n2").is_null(), "only its own runs: {own:?}");
    target.refuse(&[]);
    wait_count(&cluster.http(3), "web", "passing", 1, LIMIT).await;
    cluster.finish().await.unwrap();
}

/// A worker process.
struct Worker(Child);

impl Worker {
    fn start(cluster: &Cluster, key: &Path, name: &str, more: &[&str]) -> Result<Self> {
        let ids = cluster.ids();
        let bases: Vec<_> = ids.iter().map(|id| cluster.http(*id).base().to_owned()).collect();
        let mut command = Command::new(binary::quorate()?);
        command
            .args(["worker", "--name", name, "--cluster", &bases.join(",")])
            .arg("--worker-key-file")
            .arg(key)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Ok(Self(command.spawn()?))
    }

    /// Waits for its end: its code, and what it said.
    async fn ended(self) -> (i32, String) {
        let ended = tokio::time::timeout(LIMIT, self.0.wait_with_output()).await.unwrap().unwrap();
        (ended.status.code().unwrap_or(-1), String::from_utf8_lossy(&ended.stderr).into_owned())
    }
}

fn key_file(dir: &Path, name: &str, key: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, key).unwrap();
    path
}

async fn wait_live(node: &Http, name: &str, live: bool) {
    let is_live = |rows: &Value| {
        let mut rows = rows.as_array().into_iter().flatten();
        rows.any(|row| row["Name"] == name && row["Status"] == "live")
    };
    node.wait_for("/v1/quorate/workers", LIMIT, |rows| is_live(rows) == live).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_processes_take_their_share_and_a_network_of_its_own() {
    let keys = tempfile::tempdir().unwrap();
    let key = key_file(keys.path(), "key", "a key that only the cluster knows\n");
    let flags = vec!["--worker-key-file".to_owned(), key.to_string_lossy().into_owned()];
    let options = Options { flags, ..Options::default() };
    let cluster = Cluster::start_at_level(WORKERS_LEVEL, options).await.unwrap();
    let node = cluster.http(1);
    let target = Target::start().await;
    register_all(&node, "web", target.address, 100).await;

    // One without the key is refused, and so are one without a name of its own and a file without a key.
    let other = key_file(keys.path(), "other", "a key that nobody knows");
    let (code, said) = Worker::start(&cluster, &other, "w0", &[]).unwrap().ended().await;
    assert_eq!(code, 4, "{said}");
    let refused = format!("{}: the worker's key is not the one of this server", node.base());
    assert!(said.contains(&refused), "{said}");
    for id in cluster.ids() {
        let log = ["WARN", "refused a worker that has another key"];
        cluster.wait_log(id, &log, LIMIT).await.unwrap();
    }
    let short = key_file(keys.path(), "short", "short");
    let (code, said) = Worker::start(&cluster, &short, "w0", &[]).unwrap().ended().await;
    assert_eq!(code, 2, "{said}");
    let (code, said) = Worker::start(&cluster, &key, "w 0", &[]).unwrap().ended().await;
    assert_eq!(code, 1, "{said}");
    assert_eq!(node.put("/v1/quorate/worker", "{}").await.unwrap().status, 403);

    let w1 = Worker::start(&cluster, &key, "w1", &[]).unwrap();
    let w2 = Worker::start(&cluster, &key, "w2", &[]).unwrap();
    wait_live(&node, "w1", true).await;
    wait_live(&node, "w2", true).await;
    let all = shares(&node).await;
    println!("100 checks: {all:?}");
    assert!(all.len() == 5 && all.values().all(|share| (8..=34).contains(share)), "{all:?}");
    let limit = Limit::new(LIMIT);
    while target.asked_by("w1") == 0 || target.asked_by("w2") == 0 {
        limit.pause(|| "both processes run checks".to_owned()).await.unwrap();
    }

    // One is killed: its checks go on elsewhere, and what changes shows.
    let since = last_seq(&node).await;
    drop(w1);
    let killed = Instant::now();
    wait_live(&node, "w1", false).await;
    println!("w1 is no worker any more {:?} after it was killed", killed.elapsed());
    assert_eq!(shares(&node).await.values().sum::<u64>(), 100);
    assert!(flips(&node, "service=web", since).await.is_empty());

    // A network of its own.
    let inner = json!({"Name": "inner", "Check": {"CheckID": "inner", "Network": "dmz", "Interval": "1s",
        "HTTP": format!("http://{}/", target.address)}});
    node.must_put("/v1/agent/service/register", inner.to_string()).await.unwrap();
    let deserted = |rows: &Value| {
        rows[0]["Status"] == "warning" && rows[0]["Output"] == "no worker of network dmz is alive"
    };
    node.wait_for("/v1/health/checks/inner", LIMIT, deserted).await.unwrap();
    let w3 = Worker::start(&cluster, &key, "w3", &["--network", "dmz"]).unwrap();
    wait_count(&cluster.http(2), "inner", "passing", 1, LIMIT).await;
    assert!(target.asked_by("w3") > 0);
    let explained = node.must_get("/v1/quorate/explain/check/inner").await.unwrap();
    let why = explained["Why"].as_str().unwrap();
    assert!(why.contains("worker w3 ran its check"), "{why}");
    drop(w3);
    node.wait_for("/v1/health/checks/inner", LIMIT, deserted).await.unwrap();

    // Told to stop, a worker leaves at once and in order.
    let pid = i32::try_from(w2.0.id().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM)
        .unwrap();
    let (code, said) = w2.ended().await;
    assert_eq!(code, 0, "{said}");
    wait_live(&node, "w2", false).await;
    let rows = node.must_get("/v1/catalog/service/quorate-worker").await.unwrap();
    assert!(rows.as_array().unwrap().iter().all(|row| row["ServiceID"] != "w2"), "{rows}");
    cluster.finish().await.unwrap();
}

/// Processor time that a process has used, in hundredths of a second, as Linux counts it.
fn processor_time(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum()
}

/// What 10,000 checks cost while nothing changes, on three servers and two worker processes. Run by hand:
/// `QUORATE_CHECKS_STEADY_S=60 cargo test --release --test live -- ten_thousand --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_checks_cost_little_while_nothing_changes() {
    let span = setting("QUORATE_CHECKS_STEADY_S", 0_u64);
    if span == 0 {
        return;
    }
    let keys = tempfile::tempdir().unwrap();
    let key = key_file(keys.path(), "key", "a key that only the cluster knows");
    let flags = vec!["--worker-key-file".to_owned(), key.to_string_lossy().into_owned()];
    let options = Options { flags, ..Options::default() };
    let cluster = Cluster::start_at_level(WORKERS_LEVEL, options).await.unwrap();
    let (node, target) = (cluster.http(1), Target::start().await);
    let workers = ["w1", "w2"].map(|name| Worker::start(&cluster, &key, name, &[]).unwrap());
    wait_live(&node, "w1", true).await;
    wait_live(&node, "w2", true).await;
    let checks = setting("QUORATE_CHECKS", 10_000_u64);
    let mut first = 0;
    while first < checks {
        let last = (first + CHECKS_AT_ONCE).min(checks);
        register_every(&node, "web", target.address, first..last, 10).await;
        first = last;
    }
    println!("shares: {:?}", shares(&node).await);
    // Their first outputs are written.
    tokio::time::sleep(Duration::from_secs(40)).await;
    let ids = cluster.ids();
    let mut pids: Vec<(String, u32)> =
        ids.iter().map(|id| (format!("n{id}"), cluster.pid(*id).unwrap())).collect();
    pids.extend(
        workers
            .iter()
            .zip(["w1", "w2"])
            .map(|(worker, name)| (name.to_owned(), worker.0.id().unwrap())),
    );
    let times = || pids.iter().map(|(_, pid)| processor_time(*pid)).collect::<Vec<_>>();
    let (before, log) = (times(), node.figure("quorate_raft_last_log_index").await.unwrap());
    tokio::time::sleep(Duration::from_secs(span)).await;
    let (after, now) = (times(), node.figure("quorate_raft_last_log_index").await.unwrap());
    for ((name, _), (before, after)) in pids.iter().zip(before.iter().zip(&after)) {
        println!("{name}: {} % of a core", (after - before) / span);
    }
    println!("{} entries of the log in {span} s", now - log);
    cluster.finish().await.unwrap();
}
