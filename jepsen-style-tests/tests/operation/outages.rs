//! What an operator reads in the servers' logs, and which files others can read.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use jepsen_style_tests::cluster::Options;
use jepsen_style_tests::disk;
use jepsen_style_tests::http::{Http, HttpExt as _, Method};
use jepsen_style_tests::load::{Load, Volume};
use jepsen_style_tests::turn::Turn;
use jepsen_style_tests::workload::set_and_counters;
use jepsen_style_tests::{Cluster, Failure, Limit, Result, process, skipped};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// Far longer than anything takes here that is waited for.
const LIMIT: Duration = Duration::from_secs(40);

/// Where servers listen for clients.
const HTTP_PORT: u16 = 8500;
/// Enough that entries are on their way at every moment.
const VOLUME: Volume = Volume { clients: 30, rate: 300 };
/// Writes before a server stops, and after it.
const WRITES: usize = 300;

async fn line(cluster: &Cluster, id: u64, words: &[&str]) -> Result<String> {
    cluster.wait_log(id, words, LIMIT).await
}

async fn figure(cluster: &Cluster, id: u64, name: &str) -> Result<u64> {
    cluster.http(id).figure(name).await
}

async fn wait_figure(cluster: &Cluster, id: u64, name: &str, value: u64) -> Result<()> {
    let limit = Limit::new(LIMIT);
    while figure(cluster, id, name).await? != value {
        limit.pause(|| format!("{name} of n{id} at {value}")).await?;
    }
    Ok(())
}

/// Registers so many instances whose heartbeats nobody sends, in few requests.
async fn register_silent(node: &Http, count: usize) -> Result<()> {
    for number in 0..count {
        let service = json!({"ID": format!("silent-{number}"), "Name": "silent", "Check": {"TTL": "1s", "Status": "passing"}});
        let answer =
            node.put("/v1/agent/service/register", service.to_string().into_bytes()).await?;
        if answer.status != 200 {
            return Err(Failure::new(format!("not registered: {answer:?}")));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_log_tells_of_an_outage() {
    const SILENT: usize = 60;
    let mut cluster = Cluster::start(3).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let others = cluster.others(leader);
    let (lost, follower) = (others[0], others[1]);
    let started = line(&cluster, leader, &["started"]).await.unwrap();
    for word in ["version=", "id=", "name=", "directory=", "cluster=", "http=", "rpc="] {
        assert!(started.contains(word), "{started}");
    }
    register_silent(&cluster.http(leader), SILENT).await.unwrap();
    let cause = ["a check changed", "to=\"critical\"", "no heartbeat came within its TTL"];
    for id in cluster.ids() {
        line(&cluster, id, &cause).await.unwrap();
        line(&cluster, id, &["more checks and services changed", "critical"]).await.unwrap();
        let log = cluster.log(id).unwrap();
        let lines = log.lines().filter(|line| line.contains("a check changed")).count();
        assert!(lines <= SILENT / 2, "{lines} lines for {SILENT} checks");
    }

    cluster.kill(lost).unwrap();
    let name = format!("n{lost}");
    for id in [leader, follower] {
        let said = line(&cluster, id, &["WARN", "a server is lost", &name]).await.unwrap();
        assert!(said.contains(&format!("{}:8300", cluster.ip(lost))), "{said}");
        line(&cluster, id, &["WARN", "no failure is left to spare", &name]).await.unwrap();
    }
    assert_eq!(figure(&cluster, leader, "quorate_raft_is_leader").await.unwrap(), 1);
    for id in [leader, follower] {
        wait_figure(&cluster, id, "quorate_servers_lost", 1).await.unwrap();
        wait_figure(&cluster, id, "quorate_failures_to_spare", 0).await.unwrap();
    }
    cluster.terminate(follower).unwrap();
    cluster.wait_stopped(follower).unwrap();
    line(&cluster, follower, &["asked to stop", "SIGTERM"]).await.unwrap();
    let said = line(&cluster, leader, &["WARN", "the quorum is lost"]).await.unwrap();
    for id in [lost, follower] {
        assert!(said.contains(&format!("n{id} ({}:8300)", cluster.ip(id))), "{said}");
    }
    wait_figure(&cluster, leader, "quorate_raft_is_leader", 0).await.unwrap();
    cluster.start_all().unwrap();
    cluster.wait_all_ready().await.unwrap();
    line(&cluster, leader, &["WARN", "the quorum is there again"]).await.unwrap();
    line(&cluster, leader, &["WARN", "a server is back", &name]).await.unwrap();
    line(&cluster, leader, &["failures can be spared again"]).await.unwrap();
    for id in cluster.ids() {
        wait_figure(&cluster, id, "quorate_servers_lost", 0).await.unwrap();
        wait_figure(&cluster, id, "quorate_failures_to_spare", 1).await.unwrap();
    }

    for id in cluster.ids() {
        require_private(cluster.data_dir(id)).unwrap();
    }
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histograms_count_requests_commands_syncs_and_applied_batches() {
    const COUNTS: [&str; 5] = [
        "quorate_http_request_duration_seconds_count{route=\"/v1/kv/\",method=\"PUT\",status=\"2xx\"}",
        "quorate_commit_duration_seconds_count",
        "quorate_command_duration_seconds_count",
        "quorate_log_sync_duration_seconds_count",
        "quorate_apply_duration_seconds_count",
    ];
    let cluster = Cluster::start(1).await.unwrap();
    let node = cluster.http(1);
    let counts = async || {
        let metrics = node.get("/metrics").await.unwrap();
        COUNTS.map(|name| metrics.metric(name).unwrap_or_default())
    };
    let before = counts().await;
    for value in ["one", "two", "three"] {
        node.must_put("/v1/kv/counted", value).await.unwrap();
    }
    let after = counts().await;
    for ((name, before), after) in COUNTS.into_iter().zip(before).zip(after) {
        assert!(after >= before + 3, "{name}: {before}, then {after}");
    }
    // Waking goes on behind the answers, and does several changes at once where it can.
    let limit = Limit::new(LIMIT);
    while figure(&cluster, 1, "quorate_wake_up_duration_seconds_count").await.unwrap() == 0 {
        limit.pause(|| "a round of the waking task".to_owned()).await.unwrap();
    }
    node.get("/v1/kv/counted?index=1").await.unwrap();
    node.get("/v1/kv/absent").await.unwrap();
    let brew = Method::from_bytes(b"BREW").unwrap();
    node.send(brew, "/v1/kv/counted", Default::default()).await.unwrap();
    for (what, method, status) in
        [("blocking_query", "GET", "2xx"), ("request", "GET", "4xx"), ("request", "other", "4xx")]
    {
        let name = format!(
            "quorate_http_{what}_duration_seconds_count{{route=\"/v1/kv/\",method=\"{method}\",status=\"{status}\"}}"
        );
        assert_eq!(figure(&cluster, 1, &name).await.unwrap(), 1, "{name}");
    }
    let shown = node.get("/metrics").await.unwrap().text();
    assert!(!shown.contains("counted"), "what clients ask for is no label");
    cluster.finish().await.unwrap();
}

/// An operator who reads ERROR looks for a fault, and here is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordered_stop_of_any_server_logs_no_error() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let mut order = cluster.others(leader);
    order.insert(1, leader);
    for id in order {
        let workload = set_and_counters(&format!("stop-{id}/"));
        let load = Load::start(&cluster, &cluster.others(id), workload, VOLUME).await.unwrap();
        load.wait_acknowledged(WRITES, LIMIT).await.unwrap();
        cluster.terminate(id).unwrap();
        assert!(cluster.wait_stopped(id).unwrap().success());
        let written = load.acknowledged() + WRITES;
        load.wait_acknowledged(written, LIMIT).await.unwrap();
        cluster.start_node(id).unwrap();
        cluster.wait_ready(id).await.unwrap();
        load.stop().await.unwrap();
    }
    // The leader stops once more, so that leaders and followers have stopped.
    let leader = cluster.leader().await.unwrap();
    cluster.terminate(leader).unwrap();
    assert!(cluster.wait_stopped(leader).unwrap().success());
    for id in cluster.ids() {
        let log = cluster.log(id).unwrap();
        let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
        assert!(errors.is_empty(), "n{id}: {}", errors.join("\n"));
        assert!(log.contains("asked to stop") && log.contains("stopped"), "vacuous: n{id}");
    }
    cluster.start_node(leader).unwrap();
    cluster.finish().await.unwrap();
}

/// The lines that a server logs from now on, as it sends them to a client that asks for JSON.
async fn monitor(cluster: &Cluster, id: u64) -> Result<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect((cluster.ip(id), HTTP_PORT)).await?;
    // Of HTTP/1.0: the body comes as it is, without the lengths of chunks in between.
    let request = "GET /v1/agent/monitor?logjson&loglevel=info HTTP/1.0\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    lines.read_line(&mut line).await?;
    assert!(line.contains("200 OK"), "{line}");
    while line.trim() != "" {
        line.clear();
        lines.read_line(&mut line).await?;
    }
    Ok(lines)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_monitor_that_asks_for_json_gets_an_object_on_each_line_until_the_server_stops() {
    let mut cluster = Cluster::start(1).await.unwrap();
    let mut monitored = monitor(&cluster, 1).await.unwrap();
    let name = "a \"quoted\" name";
    let mut objects: Vec<Value> = Vec::new();
    let is_found = |object: &Value| object["service"] == name;
    let node = cluster.http(1);
    // Again and again: what is registered before the server has begun to look is no news.
    let registering = async {
        for number in 0.. {
            let service = json!({"ID": format!("id-{number}"), "Name": name}).to_string();
            node.must_put("/v1/agent/service/register", service).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let reading = async {
        while !objects.iter().any(is_found) {
            let mut line = String::new();
            assert!(monitored.read_line(&mut line).await.unwrap() > 0, "it ended");
            objects.push(serde_json::from_str(&line).unwrap());
        }
    };
    tokio::time::timeout(LIMIT, async {
        tokio::select! {
            () = registering => {}
            () = reading => {}
        }
    })
    .await
    .unwrap();
    for object in &objects {
        for member in ["@level", "@message", "@module", "@timestamp"] {
            assert!(object[member].is_string(), "{object}");
        }
    }
    let found = objects.iter().find(|object| is_found(object)).unwrap();
    assert_eq!(
        (&found["@level"], &found["@message"]),
        (&json!("info"), &json!("a service was registered"))
    );
    cluster.terminate(1).unwrap();
    let mut rest = String::new();
    let read = tokio::time::timeout(LIMIT, monitored.read_to_string(&mut rest)).await;
    read.expect("a server that stops ends it").unwrap();
    for line in rest.lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    assert!(cluster.wait_stopped(1).unwrap().success());
    cluster.start_node(1).unwrap();
    cluster.finish().await.unwrap();
}

/// It hears its leader, which cannot write anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_of_a_leader_without_a_quorum_says_who_does_not_answer() {
    let mut cluster = Cluster::start(5).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let others = cluster.others(leader);
    let (follower, lost) = others.split_first().expect("there are five");
    for id in lost {
        cluster.kill(*id).unwrap();
    }
    let said = line(&cluster, *follower, &["WARN", "the quorum is lost"]).await.unwrap();
    for id in cluster.ids() {
        let named = said.contains(&format!("n{id} ({}:8300)", cluster.ip(id)));
        assert_eq!(named, lost.contains(&id), "n{id}: {said}");
    }
    cluster.start_all().unwrap();
    cluster.wait_all_ready().await.unwrap();
    line(&cluster, *follower, &["WARN", "the quorum is there again"]).await.unwrap();
    cluster.finish().await.unwrap();
}

/// Neither group nor others may do anything with what is in here.
fn require_private(path: &Path) -> Result<()> {
    let mode = std::fs::metadata(path)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Failure::new(format!("{} has mode {mode:o}", path.display())));
    }
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            require_private(&entry?.path())?;
        }
    }
    Ok(())
}

/// The exit code and all output of a server that ends by itself.
fn started_with(environment: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String) {
    let (status, said) = process::run(environment, arguments).expect("it starts");
    (status.code(), said)
}

#[tokio::test]
async fn an_unknown_filter_is_refused_and_json_is_one_object_on_each_line() {
    let _turn = Turn::share().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let arguments = ["server", "--data-dir", data.to_str().unwrap(), "--http-addr", &taken];
    let (code, said) = started_with(&[("QUORATE_LOG", "verbose")], &arguments);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("QUORATE_LOG: \"verbose\" is neither a level"), "{said}");
    assert!(!data.exists(), "nothing was begun");

    // It ends at once: its address is taken.
    let arguments = [&arguments[..], &["--log-format", "json"]].concat();
    let (code, said) = started_with(&[("QUORATE_LOG", "debug")], &arguments);
    assert_eq!(code, Some(1), "{said}");
    let objects: Vec<Value> = said
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let ended = objects.iter().find(|object| object["message"] == "ended").expect("it says why");
    assert_eq!(ended["level"], "ERROR");
    assert!(ended["error"].as_str().unwrap().contains("--http-addr"), "{ended}");
}

/// The remedy for a full disk is to remove the ballast: it must not come back before there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nearly_full_disk_is_announced_and_the_ballast_waits_for_room() {
    const TEST: &str = "a_nearly_full_disk_is_announced_and_the_ballast_waits_for_room";
    if let Err(why) = disk::require() {
        skipped(TEST, &why.to_string());
        return;
    }
    let options = Options { nodes: 1, disk_mib: Some(96), ..Options::default() };
    let mut cluster = Cluster::start_with(options).await.unwrap();
    let ballast = cluster.data_dir(1).join("ballast");
    wait_exists(&ballast).await.unwrap();
    let total = figure(&cluster, 1, "quorate_disk_total_bytes").await.unwrap();
    assert!((64 << 20..=96 << 20).contains(&total), "{total}");

    // All but 6 MiB, which is less than a tenth.
    let root = cluster.disk(1).unwrap().root();
    let filler = root.join("others");
    let room = nix::sys::statvfs::statvfs(root).unwrap();
    let free = room.blocks_available() * room.fragment_size();
    let bytes = usize::try_from(free - (6 << 20)).unwrap();
    std::fs::write(&filler, vec![7; bytes]).unwrap();
    let said = line(&cluster, 1, &["WARN", "nearly full"]).await.unwrap();
    assert!(said.contains("free_bytes="), "{said}");

    // As an operator does on a full disk.
    cluster.terminate(1).unwrap();
    cluster.wait_stopped(1).unwrap();
    std::fs::remove_file(&ballast).unwrap();
    let before = cluster.log(1).unwrap().len();
    cluster.start_node(1).unwrap();
    cluster.wait_ready(1).await.unwrap();
    line(&cluster, 1, &["WARN", "no ballast file"]).await.unwrap();
    assert!(cluster.log(1).unwrap()[before..].contains("no ballast file"));
    assert!(!ballast.exists(), "it took the room that was made");
    cluster.http(1).must_put("/v1/kv/written", "with little room").await.unwrap();
    std::fs::remove_file(&filler).unwrap();
    wait_exists(&ballast).await.unwrap();
    cluster.finish().await.unwrap();
}

async fn wait_exists(path: &Path) -> Result<()> {
    let limit = Limit::new(LIMIT);
    while !path.exists() {
        limit.pause(|| path.display().to_string()).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_that_ask_for_nothing_end_nothing() {
    let cluster = Cluster::start(1).await.unwrap();
    let pid = Pid::from_raw(cluster.pid(1).unwrap().try_into().unwrap());
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGXFSZ] {
        kill(pid, signal).unwrap();
    }
    line(&cluster, 1, &["this signal does nothing here", "SIGUSR1"]).await.unwrap();
    line(&cluster, 1, &["this signal does nothing here", "SIGUSR2"]).await.unwrap();
    cluster.http(1).must_put("/v1/kv/still", "here").await.unwrap();
    cluster.finish().await.unwrap();
}
