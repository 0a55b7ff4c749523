//! Presence: an instance passes as long as its connection is open. Every server sees at once when its client ends,
//! and none sees when its server ends.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod client;
mod doors;

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jepsen_style_tests::http::{AnswerExt as _, Http, HttpExt as _};
use jepsen_style_tests::presence::Client;
use jepsen_style_tests::rounds::setting;
use jepsen_style_tests::{Cluster, Limit, Options, Result};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use client::{Minder, Seen};

/// What happens by itself shows within this.
const LIMIT: Duration = Duration::from_secs(20);
/// How much later than its linger an end may show on a machine that is busy with other things.
const LATE_MAX: Duration = Duration::from_secs(2);
/// From this level of the cluster's rules on another owner of a presence is a restart.
const PRESENCE_LEVEL: u64 = 11;
/// Clients of one server, unless `QUORATE_PRESENCES` says otherwise.
const PRESENCES: u64 = 300;
/// Ends that are measured, unless `QUORATE_ROUNDS` says otherwise.
const ROUNDS: u64 = 6;
/// How long the clients of a server that is gone have.
const GRACE: Duration = Duration::from_secs(10);

async fn started() -> Cluster {
    Cluster::start_at_level(PRESENCE_LEVEL, Options::default()).await.unwrap()
}

/// Waits until every server has presences.
async fn level_reached(cluster: &Cluster) {
    for node in cluster.https(&cluster.ids()) {
        let knows = |hash: &Value| hash["Level"].as_u64() >= Some(PRESENCE_LEVEL);
        node.wait_for("/v1/quorate/state-hash", LIMIT, knows).await.unwrap();
    }
}

/// A `curl` that holds a presence, as the README shows it.
struct Curl(Child);

impl Curl {
    fn start(base: &str, query: &str, body: &Value) -> Self {
        let url = format!("{base}/v1/quorate/presence?{query}");
        let mut curl = Command::new("curl");
        curl.args(["-sN", "-X", "PUT", "-d", &body.to_string(), &url]);
        Self(curl.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Kills it; returns when.
    fn kill(mut self) -> Instant {
        let killed = Instant::now();
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        killed
    }
}

impl Drop for Curl {
    fn drop(&mut self) {
        // It may have ended; ignore the error.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits by a blocking query until a service has so many passing instances.
async fn wait_passing(node: &Http, service: &str, count: usize) -> Result<Instant> {
    let limit = Limit::new(LIMIT);
    let mut index = 0;
    loop {
        let path = format!("/v1/health/service/{service}?passing&wait=10s&index={index}");
        let answer = node.get(&path).await?;
        if answer.value()?.as_array().is_some_and(|rows| rows.len() == count) {
            return Ok(Instant::now());
        }
        index = answer.require_index()?;
        limit.check(|| format!("{count} passing instances of {service}: {}", answer.text()))?;
    }
}

/// The row of an instance.
async fn row(node: &Http, service: &str) -> Value {
    let path = format!("/v1/quorate/instances?service={service}");
    node.must_get(&path).await.unwrap()[0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_killed_is_out_of_every_list_after_its_linger() {
    let cluster = started().await;
    let (here, there) = (cluster.http(1), cluster.http(2));
    let mut late = Vec::new();
    for round in 0..setting("QUORATE_ROUNDS", ROUNDS) {
        let linger = Duration::from_millis(if round % 2 == 0 { 500 } else { 0 });
        let query = format!("linger={}ms", linger.as_millis());
        let curl = Curl::start(here.base(), &query, &json!({"Name": "web", "Port": 80}));
        wait_passing(&there, "web", 1).await.unwrap();
        assert_eq!(row(&there, "web").await["Presence"], "open");
        let gone = tokio::spawn({
            let there = there.clone();
            async move { wait_passing(&there, "web", 0).await.unwrap() }
        });
        // The query is to wait already.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let killed = curl.kill();
        let took = gone.await.unwrap() - killed;
        assert!(took >= linger, "it was out after {took:?}, before its linger of {linger:?}");
        late.push(took - linger);
    }
    late.sort_unstable();
    println!("later than the linger: median {:?}, worst {:?}", late[late.len() / 2], late.last());
    assert!(late[late.len() / 2] < LATE_MAX, "{late:?}");

    let shown = row(&there, "web").await;
    assert_eq!((&shown["Presence"], &shown["Status"]), (&json!("over"), &json!("critical")));
    let explained = there.must_get("/v1/quorate/explain/check/presence:web").await.unwrap();
    let why = explained["Why"].as_str().unwrap();
    assert!(why.contains("its connection to n1 ended at"), "{why}");
    let last = explained["Timeline"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["Cause"]["Kind"], "connection");
    assert_eq!(last["Cause"]["Ended"], "connection");

    // Explained while it is open, and while its linger runs.
    let client = Client::open(here.base(), "linger=5s", &json!({"Name": "api"})).await.unwrap();
    let explained = there.must_get("/v1/quorate/explain/service/api").await.unwrap();
    let text = format!("{} {}", explained["Why"], explained["Next"]);
    assert!(text.contains("its connection to n1 is open"), "{text}");
    drop(client);
    let ended = |row: &Value| row[0]["Presence"] == "ended" && row[0]["Status"] == "passing";
    there.wait_for("/v1/quorate/instances?service=api", LIMIT, ended).await.unwrap();
    let explained = there.must_get("/v1/quorate/explain/service/api").await.unwrap();
    let text = format!("{} {}", explained["Why"], explained["Next"]);
    assert!(text.contains("its connection to n1 ended"), "{text}");
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_becomes_of_an_instance_is_up_to_its_owner() {
    let cluster = started().await;
    let (one, two) = (cluster.http(1), cluster.http(2));

    // Deregistered with its connection, with all its checks.
    let body = json!({"Name": "job", "Check": {"TTL": "1h", "Status": "passing"}});
    let client = Client::open(one.base(), "on-close=deregister&linger=0", &body).await.unwrap();
    wait_passing(&two, "job", 1).await.unwrap();
    drop(client);
    let none = |rows: &Value| rows.as_array().is_some_and(Vec::is_empty);
    two.wait_for("/v1/catalog/service/job", LIMIT, none).await.unwrap();

    // The same owner: a later attempt holds the same instance, through whatever server and agent; an earlier
    // one is refused.
    let owner = "0c8fdd3c-6b1c-4d7e-9d7c-3f3a1c9a1b01";
    let attempt = |attempt: u64, owner: &str| json!({"Name": "db", "ID": "db-1", "Owner": owner, "Attempt": attempt});
    let mut first = Client::open(one.base(), "", &attempt(2, owner)).await.unwrap();
    let other = "agent=elsewhere";
    let refused = Client::open(two.base(), other, &attempt(1, owner)).await.unwrap_err();
    assert!(refused.to_string().starts_with("409 "), "{refused}");
    let second = Client::open(two.base(), other, &attempt(3, owner)).await.unwrap();
    assert_eq!(second.registered["Node"], first.registered["Node"]);
    assert_ne!(second.registered["Lease"], first.registered["Lease"]);
    assert_eq!(first.frame().await.unwrap().0, "replaced");

    // Another owner takes over, but not again and again.
    let owners: Vec<String> =
        (0..6).map(|number| format!("0c8fdd3c-6b1c-4d7e-9d7c-3f3a1c9a1b1{number}")).collect();
    let mut holder = second;
    for owner in &owners[..5] {
        let next = Client::open(one.base(), "", &attempt(1, owner)).await.unwrap();
        assert_eq!(holder.frame().await.unwrap().0, "replaced");
        holder = next;
    }
    let refused = Client::open(one.base(), "", &attempt(1, &owners[5])).await.unwrap_err();
    assert!(refused.to_string().starts_with("409 "), "{refused}");
    let held = row(&two, "db").await;
    assert_eq!((&held["Presence"], &held["Restarts"]), (&json!("open"), &json!(5)));
    let told = "/v1/quorate/history?service=db&kind=service.restarted";
    assert_eq!(two.must_get(told).await.unwrap().as_array().map(Vec::len), Some(5));

    // Deregistered by somebody else.
    one.must_put("/v1/agent/service/deregister/db-1", "").await.unwrap();
    assert_eq!(holder.frame().await.unwrap().0, "deregistered");

    // What is wrong is refused, and nothing is registered.
    for (query, body) in [
        ("linger=61s", json!({"Name": "bad"})),
        ("linger=-1s", json!({"Name": "bad"})),
        ("linger=x", json!({"Name": "bad"})),
        ("on-close=never", json!({"Name": "bad"})),
        ("", json!({"Name": "bad", "Owner": "me"})),
        ("", json!({"Name": "bad", "Nope": 1})),
        ("", json!({})),
    ] {
        let refused = Client::open(one.base(), query, &body).await.unwrap_err();
        assert!(refused.to_string().starts_with("400 "), "{query} {body}: {refused}");
    }
    assert_eq!(two.must_get("/v1/catalog/service/bad").await.unwrap(), json!([]));
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_closes_half_or_says_more_has_ended() {
    let mut cluster = started().await;
    let (one, two) = (cluster.http(1), cluster.http(2));
    let open = async |name: &str| {
        let client = Client::open(one.base(), "linger=0", &json!({"Name": name})).await.unwrap();
        wait_passing(&two, name, 1).await.unwrap();
        client
    };
    let mut half = open("half").await;
    // The check by which it is held does not go without it.
    let path = "/v1/agent/check/deregister/presence:half";
    assert_eq!(two.put(path, "").await.unwrap().status, 400);
    half.socket.shutdown().await.unwrap();
    wait_passing(&two, "half", 0).await.unwrap();

    let mut more = open("more").await;
    more.socket.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
    wait_passing(&two, "more", 0).await.unwrap();

    // A reset.
    let reset = open("reset").await;
    reset.socket.set_zero_linger().unwrap();
    drop(reset);
    wait_passing(&two, "reset", 0).await.unwrap();

    // A client that has gone before it has its answer leaves nothing that passes.
    for _ in 0..20 {
        ask(&one, "gone").await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    wait_passing(&two, "gone", 0).await.unwrap();
    for round in 0..5 {
        ask_while_paused(&mut cluster, &format!("unheard-{round}")).await;
    }
    cluster.finish().await.unwrap();
}

/// Asks for a presence, and hangs up.
async fn ask(node: &Http, name: &str) {
    let body = json!({"Name": name}).to_string();
    let head = format!(
        "PUT /v1/quorate/presence?linger=0 HTTP/1.1\r\nHost: q\r\nContent-Length: {}",
        body.len()
    );
    let address = node.base().trim_start_matches("http://");
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
}

/// Who has hung up before a server reads its request registers nothing.
async fn ask_while_paused(cluster: &mut Cluster, name: &str) {
    let follower = cluster.others(cluster.leader().await.unwrap())[0];
    let node = cluster.http(follower);
    cluster.pause(follower).unwrap();
    ask(&node, name).await;
    cluster.resume(follower).unwrap();
    // This request came later, and writes come after those that were there.
    node.must_put("/v1/kv/after", name.to_owned()).await.unwrap();
    let told = node.must_get(&format!("/v1/quorate/history?service={name}")).await.unwrap();
    assert_eq!(told, json!([]), "{name}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_presence_says_what_process_it_is_and_its_silence_shows_only_if_it_names_times() {
    let cluster = started().await;
    let (one, two) = (cluster.http(1), cluster.http(2));
    let body = |pid: u64, more: Value| {
        let mut body = json!({"Service": "rdb", "ID": "rdb-1", "Pid": pid, "Version": "4.0",
            "Process": "rdb.eu", "Started": 1_000 + pid});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let first = Client::open(one.base(), "linger=1m", &body(7, json!({}))).await.unwrap();
    let shown = row(&two, "rdb").await;
    assert_eq!((&shown["Pid"], &shown["Version"]), (&json!(7), &json!("4.0")), "{shown}");
    assert_eq!((&shown["Process"], &shown["Restarts"]), (&json!("rdb.eu"), &json!(0)));
    assert_eq!((&shown["Presence"], &shown["AgeMs"]), (&json!("open"), &Value::Null), "{shown}");
    let checks = two.must_get("/v1/health/checks/rdb").await.unwrap();
    assert_eq!(checks.as_array().map(Vec::len), Some(1), "no heartbeats are expected: {checks}");

    // Another process, which sends heartbeats too, and then none.
    let times = json!({"WarnAfter": "1s", "CriticalAfter": "2s", "Counter": 5});
    let second = Client::open(two.base(), "", &body(8, times)).await.unwrap();
    drop(first);
    let shown = row(&one, "rdb").await;
    assert_eq!((&shown["Pid"], &shown["Restarts"]), (&json!(8), &json!(1)), "{shown}");
    assert_eq!((&shown["Counter"], &shown["CriticalAfter"]), (&json!(5), &json!("2s")));
    let silent = |rows: &Value| rows[0]["Status"] == "critical" && rows[0]["Presence"] == "open";
    one.wait_for("/v1/quorate/instances?service=rdb", LIMIT, silent).await.unwrap();
    let beat = json!({"Service": "rdb", "ID": "rdb-1", "CriticalAfter": "1h", "WarnAfter": "0s"});
    one.must_put("/v1/quorate/heartbeat", beat.to_string()).await.unwrap();
    assert_eq!(row(&two, "rdb").await["Status"], "passing");
    // The end of the connection turns it critical although it heartbeats.
    drop(second);
    wait_passing(&one, "rdb", 0).await.unwrap();

    let mut wrong = vec![
        json!({"Name": "other"}),
        json!({"CriticalAfter": "1ms"}),
        json!({"Note": "of no check"}),
        json!({"CriticalAfter": "5s", "Check": {"TTL": "5s"}}),
        json!({"Pid": -1}),
    ];
    for more in wrong.drain(..) {
        let refused = Client::open(one.base(), "", &body(9, more.clone())).await.unwrap_err();
        assert!(refused.to_string().starts_with("400 "), "{more}: {refused}");
    }
    let late = json!({"Started": 5});
    let refused = Client::open(one.base(), "", &body(9, late)).await.unwrap_err();
    assert!(refused.to_string().starts_with("409 "), "{refused}");
    cluster.finish().await.unwrap();
}

/// The records that say of an instance of a service that it turned critical or went.
async fn ends(node: &Http, service: &str) -> Vec<String> {
    let mut ends = Vec::new();
    for kind in ["check.changed", "service.deregistered", "check.deregistered"] {
        let path = format!("/v1/quorate/history?service={service}&kind={kind}&limit=1000");
        let records = node.must_get(&path).await.unwrap();
        let records = records.as_array().unwrap().iter();
        let ended = records.filter(|record| record["To"] != "passing");
        ends.extend(ended.map(|record| record["ID"].as_str().unwrap_or_default().to_owned()));
    }
    ends
}

async fn wait_open(seen: &Seen, count: u64) {
    let limit = Limit::new(Duration::from_secs(60));
    while seen.open.load(Ordering::SeqCst) < count {
        let open = seen.open.load(Ordering::SeqCst);
        limit.pause(|| format!("{count} presences, not {open}")).await.unwrap();
    }
}

/// What becomes of the server that the clients are connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Terminated,
    Killed,
    Paused,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_server_that_ends_go_elsewhere_and_nobody_sees_it() {
    let mut cluster = started().await;
    let presences = setting("QUORATE_PRESENCES", PRESENCES);
    let bases: Vec<String> =
        cluster.https(&cluster.ids()).iter().map(|node| node.base().to_owned()).collect();
    let seen = Arc::new(Seen::default());
    let minders: Vec<Minder> = (0..presences)
        .map(|number| Minder::start(bases.clone(), number, Arc::clone(&seen)))
        .collect();
    wait_open(&seen, presences).await;
    let mut dead = Vec::new();
    for (fault, id) in [(Fault::Terminated, 1), (Fault::Killed, 2), (Fault::Paused, 3)] {
        // All are connected to that server by now, because the others were not asked.
        let other = cluster.http(cluster.others(id)[0]);
        let name = format!("dying-{id}");
        let body = json!({"Name": name});
        let dying = Client::open(other.base(), "linger=1s", &body).await.unwrap();
        wait_passing(&other, &name, 1).await.unwrap();
        let opened = seen.opened.load(Ordering::SeqCst);
        match fault {
            Fault::Terminated => drop(cluster.terminate(id).unwrap()),
            Fault::Killed => drop(cluster.kill(id).unwrap()),
            Fault::Paused => cluster.pause(id).unwrap(),
        }
        let died = Instant::now();
        drop(dying);
        let shown = wait_passing(&other, &name, 0).await.unwrap() - died;
        dead.push(shown);
        if fault == Fault::Paused {
            // Its clients notice it when nothing comes for 6 s.
            tokio::time::sleep(Duration::from_secs(7)).await;
        }
        wait_open(&seen, presences).await;
        tokio::time::sleep(GRACE + Duration::from_secs(3)).await;
        match fault {
            Fault::Terminated => drop(cluster.wait_ended(id, LIMIT).await.unwrap()),
            Fault::Killed => {}
            Fault::Paused => cluster.resume(id).unwrap(),
        }
        if fault != Fault::Paused {
            cluster.start_node(id).unwrap();
        }
        cluster.wait_all_ready().await.unwrap();
        wait_open(&seen, presences).await;
        let reopened = seen.opened.load(Ordering::SeqCst) - opened;
        println!("{fault:?}: {reopened} reopened; a dead client shows after {shown:?}");
        assert_eq!(ends(&cluster.http(id), "minded").await, Vec::<String>::new(), "{fault:?}");
    }
    let moved = seen.moved.load(Ordering::SeqCst);
    assert!(moved >= presences / 2, "only {moved} of {presences} were sent away");
    wait_passing(&cluster.http(1), "minded", usize::try_from(presences).unwrap()).await.unwrap();
    // They all end at once.
    let ended = Instant::now();
    drop(minders);
    let took = wait_passing(&cluster.http(2), "minded", 0).await.unwrap() - ended;
    println!("{presences} that end at once are out after {took:?}");
    // A dead client waits for an election at most: time stands still for 2 s after one.
    assert!(dead.iter().all(|took| *took < Duration::from_secs(10)), "{dead:?}");
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_leader_sends_its_clients_away() {
    let mut cluster = started().await;
    let one = cluster.http(1);
    let body = json!({"Name": "web"});
    let mut client = Client::open(one.base(), "linger=0", &body).await.unwrap();
    for id in [2, 3] {
        cluster.pause(id).unwrap();
    }
    let paused = Instant::now();
    let (name, moved) = client.frame().await.unwrap();
    let took = paused.elapsed();
    println!("sent away after {took:?}");
    assert_eq!((name.as_str(), moved["Servers"].as_array().map(Vec::len)), ("moved", Some(2)));
    assert!(took > Duration::from_secs(3) && took < LIMIT, "{took:?}");
    for id in [2, 3] {
        cluster.resume(id).unwrap();
    }
    let limit = Limit::new(LIMIT);
    let _back = loop {
        match Client::open(one.base(), "linger=0", &body).await {
            Ok(client) => break client,
            Err(error) => limit.pause(|| error.to_string()).await.unwrap(),
        }
    };
    assert_eq!(row(&cluster.http(2), "web").await["Presence"], "open");
    assert_eq!(ends(&cluster.http(2), "web").await, Vec::<String>::new());
    cluster.finish().await.unwrap();
}
