//! The history of the cluster: every server reports and explains every change, also after a restart of all of them.
//!
//! Not tested here, because it takes a minute: `deregister_critical_service_after`. A script of the state machine
//! tests it.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jepsen_style_tests::http::{AnswerExt as _, Http, Method};
use jepsen_style_tests::presence::Client;
use jepsen_style_tests::process::free_ports;
use jepsen_style_tests::{Cluster, Failure, Limit, Options, Result};
use serde_json::{Value, json};

/// Changes that nobody requests (a TTL, a run of a check, a lost server) are in the history within this.
const TOLD_WITHIN: Duration = Duration::from_secs(20);
/// The shortest TTL of a session, and how long it lasts at most (twice its TTL, plus what is late).
const SESSION_TTL: &str = "10s";
const SESSION_ENDS_WITHIN: Duration = Duration::from_secs(25);
/// A reader that waits has its answer within this of the record.
const WOKEN_WITHIN: Duration = Duration::from_secs(2);
/// What no record and no explanation may have in it.
const SECRETS: [&str; 2] = ["SECRET-VALUE", "SECRET-TOKEN"];
/// The level of the cluster's rules from which on it keeps a history, heartbeats with facts and presences.
const HISTORY_LEVEL: u64 = 5;
/// How many records of keys there are at most.
const KEYS_MAX: u64 = 16_384;

/// Three servers, once the cluster keeps a history: it does when all of them have said that they know it.
async fn started() -> Result<Cluster> {
    Cluster::start_at_level(HISTORY_LEVEL, Options::shared()).await
}

/// Changes, each made through the next server and read through the one after that.
struct Story {
    nodes: Vec<Http>,
    names: Vec<String>,
    /// The server of the last request.
    at: usize,
    /// The last explanations, by their paths.
    told: BTreeMap<String, Told>,
}

/// An explanation that must stay as it is.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    why: String,
    timeline: Vec<String>,
}

impl Story {
    fn of(cluster: &Cluster) -> Self {
        let ids = cluster.ids();
        let names = ids.iter().map(|id| format!("n{id}")).collect();
        Self { nodes: cluster.https(&ids), names, at: 0, told: BTreeMap::new() }
    }

    fn name(&self) -> &str {
        &self.names[self.at]
    }

    async fn send(&mut self, method: Method, path: &str, body: impl ToString) -> Result<String> {
        self.at = (self.at + 1) % self.nodes.len();
        let body = Bytes::from(body.to_string());
        let answer = self.nodes[self.at].send(method, path, body).await?;
        match answer.is_success() {
            true => Ok(answer.text()),
            false => Err(Failure::new(format!("{path}: {} {}", answer.status, answer.text()))),
        }
    }

    /// A change; its path has to be taken.
    async fn put(&mut self, path: &str, body: impl ToString) -> String {
        self.send(Method::PUT, path, body).await.unwrap()
    }

    async fn put_nothing(&mut self, path: &str) {
        self.put(path, "").await;
    }

    async fn delete(&mut self, path: &str) {
        self.send(Method::DELETE, path, "").await.unwrap();
    }

    async fn session(&mut self, body: Value) -> String {
        let created: Value =
            serde_json::from_str(&self.put("/v1/session/create", body).await).unwrap();
        created["ID"].as_str().unwrap().to_owned()
    }

    /// What a server that did not take the last request says of something.
    async fn explained(&self, of: &str) -> Result<Value> {
        let other = &self.nodes[(self.at + 1) % self.nodes.len()];
        other.get(&format!("/v1/quorate/explain/{of}")).await?.value()
    }

    /// Reads an explanation elsewhere, and keeps it: the records must be these, oldest first, and the sentence must
    /// have these words. `{}` in a line is the server of the last request.
    async fn told(&mut self, of: &str, words: &[&str], timeline: &[&str]) {
        let told = Told::new(&self.explained(of).await.unwrap());
        let expected: Vec<_> =
            timeline.iter().map(|line| line.replace("{}", self.name())).collect();
        // Of what came before, the servers are other ones.
        assert_eq!(told.timeline.len(), expected.len(), "{of}: {told:#?}");
        for (line, expected) in told.timeline.iter().zip(&expected) {
            assert!(line.starts_with(expected.as_str()), "{of}: {line:?}, not {expected:?}");
        }
        for word in words {
            let word = word.replace("{}", self.name());
            assert!(told.why.contains(&word), "{of}: no {word:?} in {:?}", told.why);
        }
        self.told.insert(of.to_owned(), told);
    }

    /// Waits until the sentence has these words.
    async fn until(&self, of: &str, words: &str) {
        let limit = Limit::new(TOLD_WITHIN);
        loop {
            let seen = self.explained(of).await;
            if let Ok(seen) = &seen
                && seen["Why"].as_str().unwrap_or_default().contains(words)
            {
                return;
            }
            limit.pause(|| format!("{words:?} of {of}: {seen:?}")).await.unwrap();
        }
    }

    /// Every server still gives the same explanations.
    async fn tell_again(&self) {
        for (of, told) in &self.told {
            for node in &self.nodes {
                let again = node.must_get(&format!("/v1/quorate/explain/{of}")).await.unwrap();
                assert_eq!(Told::new(&again).timeline, told.timeline, "{of} at {}", node.base());
                // The time of the last heartbeat is derived, and may differ.
                let begin = |why: &str| why.split("; the last one").next().unwrap().to_owned();
                let again = again["Why"].as_str().unwrap();
                assert_eq!(begin(again), begin(&told.why), "{of} at {}", node.base());
            }
        }
    }
}

impl Told {
    fn new(explanation: &Value) -> Self {
        let timeline = explanation["Timeline"].as_array().unwrap();
        Self {
            why: explanation["Why"].as_str().unwrap().to_owned(),
            timeline: timeline.iter().map(line).collect(),
        }
    }
}

/// A record in one line: `check.changed c passing>critical because silence 2s`.
fn line(record: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let cause = &record["Cause"];
    let because = match text(&cause["Kind"]).as_str() {
        "request" => {
            let client: std::net::SocketAddr = text(&cause["Client"]).parse().unwrap();
            assert!(client.ip().is_loopback() && client.port() > 0, "{record}");
            let agent = match text(&cause["AgentClaimed"]) {
                agent if agent.is_empty() => agent,
                agent => format!(" for {agent}"),
            };
            format!("{}{agent} at {}", text(&cause["Action"]), text(&cause["Server"]))
        }
        kind @ ("silence" | "deregister-after") => format!("{kind} {}", text(&cause["After"])),
        kind => kind.to_owned(),
    };
    let mut line = text(&record["Kind"]);
    if !record["From"].is_null() || !record["To"].is_null() {
        line.push_str(&format!(" {}>{}", text(&record["From"]), text(&record["To"])));
    }
    format!("{line} because {because}")
}

/// The whole history as a server has it.
async fn whole(node: &Http) -> Result<Vec<Value>> {
    let mut all: Vec<Value> = Vec::new();
    loop {
        let since = all.last().map_or(0, seq);
        let page = node.must_get(&format!("/v1/quorate/history?since={since}")).await?;
        match page.as_array() {
            Some(page) if !page.is_empty() => all.extend(page.iter().cloned()),
            _ => return Ok(all),
        }
    }
}

fn seq(record: &Value) -> u64 {
    record["Seq"].as_u64().unwrap()
}

fn kinds(records: &Value) -> Vec<&str> {
    records.as_array().unwrap().iter().map(|record| record["Kind"].as_str().unwrap()).collect()
}

/// The servers have the same history, without gaps and without secrets. Returns it.
async fn require_equal(cluster: &Cluster) -> Vec<Value> {
    cluster.converge().await.unwrap();
    let nodes = cluster.https(&cluster.running());
    let first = whole(&nodes[0]).await.unwrap();
    for node in &nodes[1..] {
        assert_eq!(whole(node).await.unwrap(), first, "at {}", node.base());
    }
    let numbers: Vec<_> = first.iter().map(seq).collect();
    assert!(numbers.iter().copied().eq(1..=first.len() as u64), "{numbers:?}");
    for pair in first.windows(2) {
        for member in ["Index", "Time"] {
            assert!(pair[0][member].as_u64() <= pair[1][member].as_u64(), "{pair:?}");
        }
    }
    let text = serde_json::to_string(&first).unwrap();
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} is told");
    }
    first
}

/// Without what is derived for people from the newest entry.
fn as_kept(mut history: Vec<Value>) -> Vec<Value> {
    for record in &mut history {
        let cause = record["Cause"].as_object_mut().unwrap();
        cause.remove("LastHeard");
        cause.remove("Since");
    }
    history
}

// ---- what can change ---------------------------------------------------------------------------

async fn services(story: &mut Story) {
    let register = "/v1/agent/service/register?agent=web9";
    let web = json!({"Name": "web", "ID": "web-1", "Port": 80, "Token": SECRETS[1]});
    story.put(register, &web).await;
    let registered = "service.registered because agent/service/register for web9 at n";
    story.told("service/web-1", &["web-1 is passing"], &[registered]).await;
    // The same again changes nothing and leaves no record.
    story.put(register, &web).await;
    story.told("service/web-1", &["web-1 is passing"], &[registered]).await;
    let web = json!({"Name": "web", "ID": "web-1", "Port": 81});
    story.put(register, &web).await;
    let changed = "service.changed because agent/service/register for web9 at n";
    story.told("service/web-1", &["web-1 is passing"], &[registered, changed]).await;
    story.put_nothing("/v1/agent/service/deregister/web-1?agent=web9").await;
    let gone = "service.deregistered because agent/service/deregister for web9 at {}";
    let words = ["Service web-1 is gone: it was deregistered at", "through {}"];
    story.told("service/web-1", &words, &[registered, changed, gone]).await;

    let db = |port: u16| json!({"Node": "ext", "Address": "10.1.1.1", "Service": {"ID": "db-1", "Service": "db", "Port": port}});
    story.put("/v1/catalog/register", db(1)).await;
    story.put("/v1/catalog/register", db(2)).await;
    story.put("/v1/catalog/deregister", json!({"Node": "ext", "ServiceID": "db-1"})).await;
    let lines = [
        "service.registered because catalog/register at n",
        "service.changed because catalog/register at n",
        "service.deregistered because catalog/deregister at {}",
    ];
    story.told("service/db-1", &["Service db-1 is gone", "(catalog/deregister)"], &lines).await;

    let verb = |verb: &str, port: u16| {
        let service = json!({"ID": "tx-1", "Service": "tx", "Port": port});
        json!([{"Service": {"Verb": verb, "Node": "ext", "Service": service}}])
    };
    for step in [verb("set", 1), verb("set", 2), verb("delete", 2)] {
        story.put("/v1/txn", step).await;
    }
    let lines = [
        "service.registered because txn at n",
        "service.changed because txn at n",
        "service.deregistered because txn at {}",
    ];
    story.told("service/tx-1", &["Service tx-1 is gone", "through {} (txn)"], &lines).await;
}

async fn checks(story: &mut Story) {
    let body = json!({"Name": "api", "ID": "api-1", "Check": {"CheckID": "api-ttl", "TTL": "1h", "Status": "passing"}});
    story.put("/v1/agent/service/register?agent=web9", body).await;
    let mut lines = vec!["check.registered >passing because agent/service/register for web9 at n"];
    for (verb, line, word) in [
        (
            "fail",
            "check.changed passing>critical because agent/check/fail for web9 at n",
            "critical",
        ),
        (
            "warn",
            "check.changed critical>warning because agent/check/warn for web9 at n",
            "warning",
        ),
        ("pass", "check.changed warning>passing because agent/check/pass for web9 at n", "passing"),
    ] {
        story.put_nothing(&format!("/v1/agent/check/{verb}/api-ttl?agent=web9&note=so")).await;
        lines.push(line);
        let why = format!("api-ttl on web9 is {word} since");
        story
            .told("check/api-ttl", &[&why, &format!("through {{}} (agent/check/{verb})")], &lines)
            .await;
    }
    // A heartbeat that says nothing new leaves no record, and neither does another output.
    story.put_nothing("/v1/agent/check/pass/api-ttl?agent=web9&note=other").await;
    story.told("check/api-ttl", &["is passing since"], &lines).await;
    let update = json!({"Status": "critical", "Output": "disk full"});
    story.put("/v1/agent/check/update/api-ttl?agent=web9", update).await;
    lines.push("check.changed passing>critical because agent/check/update for web9 at {}");
    let words = ["api-1 is critical: check api-ttl is critical since", "(agent/check/update)"];
    let mut of_service = lines.clone();
    of_service.insert(0, "service.registered because agent/service/register for web9 at n");
    story.told("service/api-1", &words, &of_service).await;
    story.put_nothing("/v1/agent/check/deregister/api-ttl?agent=web9").await;
    *lines.last_mut().unwrap() =
        "check.changed passing>critical because agent/check/update for web9 at n";
    lines.push("check.deregistered critical> because agent/check/deregister for web9 at {}");
    story.told("check/api-ttl", &["Check api-ttl is gone: it was deregistered"], &lines).await;
    of_service = lines;
    of_service.insert(0, "service.registered because agent/service/register for web9 at n");
    story.told("service/api-1", &["api-1 is passing"], &of_service).await;
}

async fn checks_that_nobody_writes(story: &mut Story) {
    // Silence.
    let body = json!({"Name": "beat", "ID": "beat-1", "Check": {"CheckID": "beat-ttl", "TTL": "1s", "Status": "passing"}});
    story.put("/v1/agent/service/register?agent=web9", body).await;
    story.until("service/beat-1", "no heartbeat came for 1s; the last one came at").await;
    let lines = [
        "service.registered because agent/service/register for web9 at {}",
        "check.registered >passing because agent/service/register for web9 at {}",
        "check.changed passing>critical because silence 1s",
    ];
    story.told("service/beat-1", &["check beat-ttl is critical since"], &lines).await;

    // A run: nobody listens there.
    let port = free_ports([127, 0, 0, 1], 1).unwrap()[0];
    let check = json!({"CheckID": "tcp", "TCP": format!("127.0.0.1:{port}"), "Interval": "1s", "Timeout": "1s", "Status": "passing"});
    let body = json!({"Name": "run", "ID": "run-1", "Check": check});
    story.put("/v1/agent/service/register?agent=web9", body).await;
    story.until("service/run-1", "check tcp is critical since").await;
    story.until("service/run-1", "ran its check, which found: ").await;
    let lines = [
        "service.registered because agent/service/register for web9 at {}",
        "check.registered >passing because agent/service/register for web9 at {}",
        "check.changed passing>critical because probe",
    ];
    story.told("service/run-1", &["ran its check"], &lines).await;
    // Its checks go with it, although they have no record of their own.
    story.put_nothing("/v1/agent/service/deregister/run-1?agent=web9").await;
    let lines = [
        "service.registered because agent/service/register for web9 at n",
        "check.registered >passing because agent/service/register for web9 at n",
        "check.changed passing>critical because probe",
        "service.deregistered because agent/service/deregister for web9 at {}",
    ];
    story.told("service/run-1", &["Service run-1 is gone: it was deregistered"], &lines).await;
    let lines = &lines[1..];
    story.told("check/tcp", &["Check tcp is gone", "(agent/service/deregister)"], lines).await;
}

async fn checks_of_the_catalogue(story: &mut Story) {
    let check =
        |status: &str| json!({"Node": "ext2", "CheckID": "disk", "Name": "disk", "Status": status});
    let body =
        |status: &str| json!({"Node": "ext2", "Address": "10.1.1.9", "Check": check(status)});
    let mut lines = vec![
        "check.registered >passing because catalog/register at n",
        "check.changed passing>critical because catalog/register at n",
        "check.changed critical>warning because txn at n",
    ];
    story.put("/v1/catalog/register", body("passing")).await;
    story.told("check/disk", &["disk on ext2 is passing since"], &lines[..1]).await;
    story.put("/v1/catalog/register", body("critical")).await;
    story.told("check/disk", &["disk on ext2 is critical since"], &lines[..2]).await;
    let set = |verb: &str| json!([{"Check": {"Verb": verb, "Check": check("warning")}}]);
    story.put("/v1/txn", set("set")).await;
    story.told("check/disk", &["is warning since", "through {} (txn)"], &lines).await;
    story.put("/v1/catalog/deregister", json!({"Node": "ext2", "CheckID": "disk"})).await;
    lines.push("check.deregistered warning> because catalog/deregister at {}");
    story.told("check/disk", &["Check disk is gone: it was deregistered"], &lines).await;

    let own = |ttl: &str| json!({"ID": "own", "Name": "own", "TTL": ttl, "Status": "passing"});
    story.put("/v1/agent/check/register?agent=own9", own("1h")).await;
    story.put("/v1/agent/check/register?agent=own9", own("2h")).await;
    let lines = [
        "check.registered >passing because agent/check/register for own9 at n",
        "check.changed passing>passing because agent/check/register for own9 at {}",
    ];
    story.told("check/own", &["own on own9 is passing since"], &lines).await;
}

/// Heartbeats with facts: registered, silent in two steps, another process, another port.
async fn heartbeats(story: &mut Story) {
    let path = "/v1/quorate/heartbeat?agent=kdb";
    let beat = |pid: u64, port: u16, warn_after: &str, critical_after: &str| {
        json!({"Service": "rdb", "ID": "rdb-1", "Port": port, "Pid": pid,
            "WarnAfter": warn_after, "CriticalAfter": critical_after})
    };
    story.put(path, beat(7, 1, "1s", "2s")).await;
    story.until("service/rdb-1", "is critical: check heartbeat:rdb-1 is critical since").await;
    let mut lines = vec![
        "service.registered because quorate/heartbeat for kdb at n",
        "check.registered >passing because quorate/heartbeat for kdb at n",
        "check.changed passing>warning because silence 1s",
        "check.changed warning>critical because silence 2s",
    ];
    story.told("service/rdb-1", &["no heartbeat came for 2s; the last one came at"], &lines).await;
    story.put(path, beat(8, 1, "0s", "1h")).await;
    lines.extend([
        "check.changed critical>passing because quorate/heartbeat for kdb at n",
        "service.restarted because quorate/heartbeat for kdb at n",
    ]);
    story.told("service/rdb-1", &["rdb-1 is passing"], &lines).await;
    story.put(path, beat(8, 2, "0s", "1h")).await;
    lines.push("service.changed because quorate/heartbeat for kdb at {}");
    story.told("service/rdb-1", &["rdb-1 is passing"], &lines).await;
}

/// Connections that hold an instance and end.
async fn presences(story: &mut Story) {
    let open = async |story: &mut Story, query: &str, id: &str| {
        story.at = (story.at + 1) % story.nodes.len();
        let base = story.nodes[story.at].base().to_owned();
        let query = format!("linger=0&agent=p&{query}");
        Client::open(&base, &query, &json!({"Name": "held", "ID": id})).await.unwrap()
    };
    let registered = [
        "service.registered because quorate/presence for p at {}",
        "check.registered >passing because quorate/presence for p at {}",
    ];
    let client = open(story, "", "held-1").await;
    story.told("service/held-1", &["its connection to {} is open"], &registered).await;
    drop(client);
    let ended = format!("its connection to {} ended at", story.name());
    story.until("service/held-1", &ended).await;
    let [service, check] = registered;
    let over = [service, check, "check.changed passing>critical because connection"];
    story.told("service/held-1", &["check presence:held-1 is critical since"], &over).await;

    drop(open(story, "on-close=deregister", "held-2").await);
    story.until("service/held-2", "Service held-2 is gone").await;
    let gone = [service, check, "service.deregistered because connection"];
    story.told("service/held-2", &["its connection to {} ended at"], &gone).await;
}

async fn maintenance(story: &mut Story) {
    story.put("/v1/agent/service/register?agent=m", json!({"Name": "m", "ID": "m-1"})).await;
    let path = "/v1/agent/service/maintenance/m-1?agent=m";
    story.put_nothing(&format!("{path}&enable=true&reason=upgrade")).await;
    let registered = "service.registered because agent/service/register for m at n";
    let on = "maintenance.on >critical because agent/service/maintenance for m at n";
    let off = "maintenance.off critical> because agent/service/maintenance for m at {}";
    let words = ["m-1 is critical: it is in maintenance since", "through {}"];
    story.told("service/m-1", &words, &[registered, on]).await;
    story.put_nothing(&format!("{path}&enable=false")).await;
    story.told("service/m-1", &["m-1 is passing"], &[registered, on, off]).await;

    let path = "/v1/agent/maintenance?agent=m";
    story.put_nothing(&format!("{path}&enable=true&reason=disk")).await;
    story.put_nothing(&format!("{path}&enable=false")).await;
    let lines = [
        "node.joined because agent/service/register for m at n",
        "maintenance.on >critical because agent/maintenance for m at n",
        "maintenance.off critical> because agent/maintenance for m at {}",
    ];
    story.told("node/m", &["Node m is passing since"], &lines).await;
    let reasons = story.nodes[0].must_get("/v1/quorate/history?kind=maintenance.on").await.unwrap();
    assert_eq!((&reasons[0]["Detail"], &reasons[1]["Detail"]), (&json!("upgrade"), &json!("disk")));
}

async fn nodes(story: &mut Story) {
    for address in ["10.1.1.2", "10.1.1.3"] {
        story.put("/v1/catalog/register", json!({"Node": "Bare", "Address": address})).await;
    }
    let joined = "node.joined because catalog/register at n";
    let changed = "node.changed because catalog/register at n";
    story.told("node/bare", &["Node Bare was changed at", "through {}"], &[joined, changed]).await;
    let service = json!({"Node": "Bare", "Address": "10.1.1.3", "Service": {"ID": "on-bare", "Service": "s"}});
    story.put("/v1/catalog/register", service).await;
    story.put("/v1/catalog/deregister", json!({"Node": "Bare"})).await;
    let left = "node.left because catalog/deregister at {}";
    let lines = [joined, changed, left];
    story
        .told("node/bare", &["Node bare is gone: it left at", "(catalog/deregister)"], &lines)
        .await;
    let lines = [
        "service.registered because catalog/register at n",
        "service.deregistered because catalog/deregister at {}",
    ];
    story.told("service/on-bare", &["Service on-bare is gone"], &lines).await;
    let node = |verb: &str| json!([{"Node": {"Verb": verb, "Node": {"Node": "txn-node", "Address": "10.1.1.4"}}}]);
    story.put("/v1/txn", node("set")).await;
    story.put("/v1/txn", node("delete")).await;
    let lines = ["node.joined because txn at n", "node.left because txn at {}"];
    story.told("node/txn-node", &["Node txn-node is gone"], &lines).await;
    let body = json!({"Name": "leaving", "ID": "leaving-1"});
    story.put("/v1/agent/service/register?agent=leaver", body).await;
    story.put_nothing("/v1/agent/leave?agent=leaver").await;
    let lines = [
        "node.joined because agent/service/register for leaver at n",
        "node.left because agent/leave for leaver at {}",
    ];
    story.told("node/leaver", &["Node leaver is gone: it left at"], &lines).await;
    // A session goes with its node.
    story.put("/v1/catalog/register", json!({"Node": "host", "Address": "10.1.1.5"})).await;
    let body = json!({"Node": "host", "NodeChecks": [], "LockDelay": "0s"});
    let of_session = format!("session/{}", story.session(body).await);
    story.put("/v1/catalog/deregister", json!({"Node": "host"})).await;
    let lines = [
        "session.created because session/create at n",
        "session.ended because catalog/deregister at {}",
    ];
    story.told(&of_session, &["is gone: it ended at"], &lines).await;
}

async fn keys(story: &mut Story) {
    story.put("/v1/kv/dir/a?flags=7", SECRETS[0]).await;
    story
        .told(
            "key/dir/a",
            &["Key dir/a was written at", "through {} (kv)"],
            &["key.set because kv at {}"],
        )
        .await;
    let shown = story.explained("key/dir/a").await.unwrap();
    assert_eq!(shown["Timeline"][0]["Detail"], "12 bytes, flags 7");
    assert_eq!((&shown["Now"]["Flags"], &shown["Now"]["Value"]), (&json!(7), &Value::Null));
    assert!(!shown.to_string().contains(SECRETS[0]), "{shown}");
    story.delete("/v1/kv/dir/a").await;
    let lines = ["key.set because kv at n", "key.deleted because kv at {}"];
    story.told("key/dir/a", &["Key dir/a is gone: it was deleted at"], &lines).await;
    story.put("/v1/kv/dir/b", SECRETS[0]).await;
    story.put("/v1/kv/dir/c", SECRETS[0]).await;
    story.delete("/v1/kv/dir/?recurse").await;
    story.told("key/dir/b", &["Key dir/b is gone: it was deleted at"], &lines).await;
    let below = "/v1/quorate/history?kind=key.deleted&key=dir/c";
    let below = story.nodes[0].must_get(below).await.unwrap();
    assert_eq!(
        (kinds(&below).len(), &below[0]["Detail"]),
        (1, &json!("all keys that begin with it (2)"))
    );
    // One that was there before and is not touched by that.
    assert_eq!(
        story.explained("key/dir/a").await.unwrap()["Timeline"].as_array().unwrap().len(),
        2
    );
    story
        .put("/v1/txn", json!([{"KV": {"Verb": "set", "Key": "in-txn", "Value": "U0VDUkVU"}}]))
        .await;
    story.told("key/in-txn", &["was written at"], &["key.set because txn at {}"]).await;
}

async fn sessions(story: &mut Story) {
    let session = story.session(json!({"LockDelay": "0s"})).await;
    let of_session = format!("session/{session}");
    let created = "session.created because session/create at n";
    story.told(&of_session, &["was created at", "through {} (session/create)"], &[created]).await;
    let acquire = format!("/v1/kv/lock?acquire={session}");
    assert_eq!(story.put(&acquire, SECRETS[0]).await, "true");
    let mut lines = vec!["key.set because kv at n", "lock.acquired because kv at n"];
    story.told("key/lock", &[&format!("Session {session} holds it since")], &lines).await;
    story.put(&format!("/v1/kv/lock?release={session}"), SECRETS[0]).await;
    lines.push("lock.released because kv at n");
    story.told("key/lock", &["Key lock was written at"], &lines).await;
    assert_eq!(story.put(&acquire, SECRETS[0]).await, "true");
    story.put_nothing(&format!("/v1/session/destroy/{session}")).await;
    lines.extend(["lock.acquired because kv at n", "lock.released because session"]);
    story.told("key/lock", &["Key lock was written at"], &lines).await;
    let ended = "session.ended because session/destroy at {}";
    story
        .told(&of_session, &["is gone: it ended at", "(session/destroy)"], &[created, ended])
        .await;

    // A check ends it, and it takes its key along.
    let check = json!({"ID": "needed", "Name": "needed", "TTL": "1h", "Status": "passing"});
    story.put("/v1/agent/check/register?agent=needy", check).await;
    let body =
        json!({"Node": "needy", "NodeChecks": ["needed"], "Behavior": "delete", "LockDelay": "0s"});
    let session = story.session(body).await;
    let acquire = format!("/v1/kv/mortal?acquire={session}");
    assert_eq!(story.put(&acquire, SECRETS[0]).await, "true");
    story.put_nothing("/v1/agent/check/fail/needed?agent=needy").await;
    let lines = [created, "session.ended because agent/check/fail for needy at {}"];
    story.told(&format!("session/{session}"), &["is gone: it ended at"], &lines).await;
    let lines =
        ["key.set because kv at n", "lock.acquired because kv at n", "key.deleted because session"];
    let words = format!("because session {session} ended");
    story.told("key/mortal", &["Key mortal is gone", &words], &lines).await;
    let which = story.nodes[0]
        .must_get(&format!("/v1/quorate/history?session={session}&kind=session.ended"))
        .await
        .unwrap();
    assert!(which[0]["Detail"].as_str().unwrap().contains("\"needed\""), "{which}");
}

/// A session that nobody renews, and its lock.
async fn silent_session(story: &mut Story) -> (String, Instant) {
    let session = story.session(json!({"TTL": SESSION_TTL, "LockDelay": "0s"})).await;
    let began = Instant::now();
    let acquire = format!("/v1/kv/forgotten?acquire={session}");
    assert_eq!(story.put(&acquire, SECRETS[0]).await, "true");
    (session, began)
}

async fn silent_session_ends(story: &mut Story, session: &str, began: Instant) {
    let of_session = format!("session/{session}");
    let limit = Limit::new(SESSION_ENDS_WITHIN.saturating_sub(began.elapsed()));
    loop {
        let seen = story.explained(&of_session).await.unwrap();
        if seen["Now"].is_null() {
            break;
        }
        assert!(seen["Next"].as_str().unwrap().contains("unless it is renewed"), "{seen}");
        limit.pause(|| format!("the end of {seen}")).await.unwrap();
    }
    let lines =
        ["session.created because session/create at n", "session.ended because silence 20s"];
    story.told(&of_session, &["is gone: it ended at", "nobody renewed it for 20s"], &lines).await;
    let lines = [
        "key.set because kv at n",
        "lock.acquired because kv at n",
        "lock.released because session",
    ];
    story.told("key/forgotten", &["was written at"], &lines).await;
}

/// A server dies and comes back: what explains it, and its records.
async fn servers(cluster: &mut Cluster, story: &mut Story) -> (String, Vec<String>) {
    let leader = cluster.leader().await.unwrap();
    let killed = cluster.others(leader)[0];
    let of_killed = format!("node/n{killed}");
    let alive: Vec<_> = cluster.ids().into_iter().filter(|id| *id != killed).collect();
    let all = std::mem::replace(&mut story.nodes, cluster.https(&alive));
    let base = cluster.http(killed).base().to_owned();
    let body = json!({"Name": "held", "ID": "held-3"});
    let held = Client::open(&base, "linger=0&agent=p", &body).await.unwrap();
    cluster.kill(killed).unwrap();
    story.until(&of_killed, "is critical since").await;
    story.until(&of_killed, "does not answer the leader").await;
    cluster.start_node(killed).unwrap();
    story.until(&of_killed, "it answers the servers").await;
    story.nodes = all;
    let seen = story.explained(&of_killed).await.unwrap();
    let lines = Told::new(&seen).timeline;
    for line in ["server.lost because server", "server.back because server"] {
        assert!(lines.iter().any(|seen| seen == line), "{line}: {lines:?}");
    }
    cluster.wait_all_ready().await.unwrap();
    // Who was connected to it does not come back.
    drop(held);
    let lost = format!("n{killed}, to which it was connected, was lost at");
    story.until("service/held-3", &lost).await;
    let registered = format!("because quorate/presence for p at n{killed}");
    let lines = [
        &format!("service.registered {registered}"),
        &format!("check.registered >passing {registered}"),
        "check.changed passing>critical because connection",
    ];
    story.told("service/held-3", &["and it did not come back"], &lines).await;
    let seen = story.explained(&of_killed).await.unwrap();
    (of_killed, Told::new(&seen).timeline)
}

/// All servers die at once and come back.
async fn restart(cluster: &mut Cluster) {
    let ids = cluster.ids();
    cluster.kill_all(&ids).unwrap();
    cluster.start_all().unwrap();
    cluster.wait_all_ready().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_is_explained_by_every_server_and_after_a_restart() {
    let mut cluster = started().await.unwrap();
    let mut story = Story::of(&cluster);
    let (silent, began) = silent_session(&mut story).await;
    services(&mut story).await;
    checks(&mut story).await;
    checks_that_nobody_writes(&mut story).await;
    checks_of_the_catalogue(&mut story).await;
    heartbeats(&mut story).await;
    presences(&mut story).await;
    maintenance(&mut story).await;
    nodes(&mut story).await;
    keys(&mut story).await;
    sessions(&mut story).await;
    let (of_server, records) = servers(&mut cluster, &mut story).await;
    silent_session_ends(&mut story, &silent, began).await;
    story.tell_again().await;
    let before = as_kept(require_equal(&cluster).await);

    restart(&mut cluster).await;
    story.tell_again().await;
    // Of a server more may be told since.
    let again = Told::new(&story.explained(&of_server).await.unwrap()).timeline;
    assert!(again.starts_with(&records), "{again:?}, not {records:?}");
    // The first entry that is stamped in the new term says who leads, and there need not be one yet.
    let limit = Limit::new(TOLD_WITHIN);
    let (after, elected) = loop {
        let after = as_kept(require_equal(&cluster).await);
        let elected = after.iter().rfind(|record| record["Kind"] == "leader.elected").cloned();
        match elected.filter(|elected| seq(elected) > before.len() as u64) {
            Some(elected) => break (after, elected),
            None => limit.pause(|| "a record of the new leader".to_owned()).await.unwrap(),
        }
    };
    assert_eq!(after[..before.len()], before);
    let leader = format!("n{}", cluster.leader().await.unwrap());
    assert_eq!(elected["Cause"], json!({"Kind": "server", "Server": leader}));
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_joins_and_leaves_is_told() {
    let mut cluster = started().await.unwrap();
    let story = Story::of(&cluster);
    let (id, leader) = (cluster.add_member().unwrap(), cluster.leader().await.unwrap());
    cluster.wait_votes(id).await.unwrap();
    let of_new = format!("node/n{id}");
    story.until(&of_new, "it answers the servers").await;
    let lines = Told::new(&story.explained(&of_new).await.unwrap()).timeline;
    assert_eq!(lines, ["node.joined because server", "server.joined because server"]);
    cluster.remove_from_raft(cluster.raft_id(id), leader).await.unwrap();
    story.until(&of_new, &format!("Node n{id} is gone: it left the cluster at")).await;
    cluster.abandon();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_waits_for_what_it_asks_for_and_for_nothing_else() {
    let cluster = started().await.unwrap();
    let nodes = cluster.https(&cluster.ids());
    nodes[0].must_put("/v1/kv/before", "1").await.unwrap();
    let last = nodes[0].get("/v1/quorate/history").await.unwrap();
    let last: u64 = last.header("x-quorate-last-seq").unwrap().parse().unwrap();
    // A request for existing records does not wait.
    let asked = Instant::now();
    let there = nodes[2].must_get("/v1/quorate/history?kind=key.&wait=10s").await.unwrap();
    assert_eq!(kinds(&there), ["key.set"]);
    assert!(asked.elapsed() < WOKEN_WITHIN);

    let waits = [
        "key=wanted",
        "prefix=wan",
        "kind=key.set&prefix=w",
        "kind=key.&kind=lock.&key=wanted&key=never",
    ];
    let mut readers = Vec::new();
    for (number, filter) in waits.into_iter().enumerate() {
        let node = nodes[number % nodes.len()].clone();
        let path = format!("/v1/quorate/history?since={last}&wait=10s&{filter}");
        readers.push((path.clone(), tokio::spawn(async move { node.must_get(&path).await })));
    }
    let other = nodes[2].clone();
    let path = format!("/v1/quorate/history?since={last}&wait=2s&service=web&kind=service.");
    let nobody = tokio::spawn(async move { (other.must_get(&path).await, Instant::now()) });
    let began = Instant::now();
    tokio::time::sleep(Duration::from_millis(300)).await;
    nodes[1].must_put("/v1/kv/else", "1").await.unwrap();
    nodes[1]
        .must_put(
            "/v1/catalog/register",
            r#"{"Node":"web","Address":"a","Service":{"Service":"webx"}}"#,
        )
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    for (path, reader) in &readers {
        assert!(!reader.is_finished(), "{path} woke for something else");
    }
    nodes[1].must_put("/v1/kv/wanted", "1").await.unwrap();
    let written = Instant::now();
    for (path, reader) in readers {
        let seen = reader.await.unwrap().unwrap();
        assert_eq!((kinds(&seen), &seen[0]["Key"]), (vec!["key.set"], &json!("wanted")), "{path}");
    }
    assert!(written.elapsed() < WOKEN_WITHIN, "{:?}", written.elapsed());
    let (nothing, ended) = nobody.await.unwrap();
    assert_eq!(nothing.unwrap(), json!([]));
    let waited = ended - began;
    assert!(waited >= Duration::from_secs(2) - Duration::from_millis(100), "after {waited:?}");
    // A service is found in any letter case.
    let node = nodes[0].clone();
    let path = format!("/v1/quorate/history?since={last}&wait=10s&service=WEB");
    let reader = tokio::spawn(async move { node.must_get(&path).await });
    nodes[2].must_put("/v1/agent/service/register", r#"{"Name":"Web"}"#).await.unwrap();
    assert_eq!(kinds(&reader.await.unwrap().unwrap()), ["service.registered"]);
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_narrowed_and_nonsense_is_refused() {
    let cluster = started().await.unwrap();
    let nodes = cluster.https(&cluster.ids());
    for host in ["h1", "h2"] {
        let body = json!({"Node": host, "Address": "a", "Service": {"ID": "twin", "Service": "twin"}, "Check": {"CheckID": "twin-check", "Name": "c", "Status": "passing", "ServiceID": "twin"}});
        nodes[0].must_put("/v1/catalog/register", body.to_string()).await.unwrap();
    }
    for key in ["a/1", "a/2", "b/1"] {
        nodes[1].must_put(&format!("/v1/kv/{key}"), "v").await.unwrap();
    }
    let list = async |query: &str| {
        nodes[2].must_get(&format!("/v1/quorate/history?{query}")).await.unwrap()
    };
    assert_eq!(kinds(&list("prefix=a/").await), ["key.set"; 2]);
    assert_eq!(kinds(&list("key=b/1&key=a/1").await), ["key.set"; 2]);
    assert_eq!(
        kinds(&list("node=H1").await),
        ["node.joined", "service.registered", "check.registered"]
    );
    assert_eq!(kinds(&list("id=twin&kind=check.").await), ["check.registered"; 2]);
    assert_eq!(kinds(&list("check=twin-check&node=h2").await), ["check.registered"]);
    assert_eq!(kinds(&list("service=twin&kind=key.").await), [""; 0]);
    assert_eq!(kinds(&list("kind=key.&limit=2").await), ["key.set"; 2]);
    let all = list("since=0").await;
    let (first, second) = (seq(&all[0]), seq(&all[1]));
    assert_eq!(seq(&list(&format!("since={first}&limit=1")).await[0]), second);
    a_place_of_another_cluster_is_refused(&nodes[1]).await.unwrap();

    for query in
        ["since=x", "since=-1", "kind=nonsense", "wait=x", "limit=x", "kind=key.&kind=nonsense"]
    {
        let answer = nodes[0].get(&format!("/v1/quorate/history?{query}")).await.unwrap();
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
    }
    let many: Vec<_> = (0..101).map(|number| format!("key={number}")).collect();
    let answer = nodes[0].get(&format!("/v1/quorate/history?{}", many.join("&"))).await.unwrap();
    assert_eq!(answer.status, 400, "{}", answer.text());
    let unknown = "never-was";
    for what in ["service", "check", "node", "key", "session"] {
        for (name, status) in [(unknown, 404), ("", 400)] {
            let path = format!("/v1/quorate/explain/{what}/{name}");
            let answer = nodes[1].get(&path).await.unwrap();
            assert_eq!(answer.status, status, "{path}: {}", answer.text());
        }
    }
    for path in ["service/twin", "check/twin-check"] {
        let answer = nodes[1].get(&format!("/v1/quorate/explain/{path}")).await.unwrap();
        assert_eq!(answer.status, 409, "{}", answer.text());
        assert!(answer.text().contains("(h1, h2)"), "{}", answer.text());
        let one = nodes[1].must_get(&format!("/v1/quorate/explain/{path}?agent=H2")).await.unwrap();
        assert_eq!(one["Subject"]["Node"], "h2");
    }
    for path in ["service/twin", "check/twin-check", "check/serfHealth"] {
        let path = format!("/v1/quorate/explain/{path}?agent=nobody");
        let answer = nodes[1].get(&path).await.unwrap();
        assert_eq!(answer.status, 404, "{}", answer.text());
        assert!(answer.text().contains("on node nobody"), "{}", answer.text());
    }
    // And so it is when both are gone.
    for host in ["h1", "h2"] {
        let body = json!({"Node": host, "ServiceID": "twin"});
        nodes[0].must_put("/v1/catalog/deregister", body.to_string()).await.unwrap();
    }
    for path in ["service/twin", "check/twin-check"] {
        let answer = nodes[1].get(&format!("/v1/quorate/explain/{path}")).await.unwrap();
        assert_eq!(answer.status, 409, "{}", answer.text());
        let gone =
            nodes[1].must_get(&format!("/v1/quorate/explain/{path}?agent=h1")).await.unwrap();
        assert_eq!((&gone["Subject"]["Node"], &gone["Now"]), (&json!("h1"), &Value::Null));
    }
    cluster.finish().await.unwrap();
}

async fn a_place_of_another_cluster_is_refused(node: &Http) -> Result<()> {
    let ahead = "/v1/quorate/history?since=1000000";
    let refused = node.get(&format!("{ahead}&wait=60s")).await?;
    assert_eq!(refused.status, 410, "{}", refused.text());
    assert!(refused.text().contains("from another cluster"), "{}", refused.text());
    let stale = node.must_get(&format!("{ahead}&stale")).await?;
    assert_eq!(stale, json!([]), "it may be this server that is behind");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_keys_are_forgotten_first_and_a_reader_learns_that_it_missed_some() {
    const KEYS_PER_TXN: u64 = 64;
    let cluster = started().await.unwrap();
    let nodes = cluster.https(&cluster.ids());
    nodes[0].must_put("/v1/agent/service/register", r#"{"Name":"kept"}"#).await.unwrap();
    let mut written = 0;
    while written < KEYS_MAX + 500 {
        let operations: Vec<_> = (0..KEYS_PER_TXN)
            .map(|key| json!({"KV": {"Verb": "set", "Key": format!("k{key}"), "Value": "", "Flags": written}}))
            .collect();
        nodes[0].must_put("/v1/txn", json!(operations).to_string()).await.unwrap();
        written += KEYS_PER_TXN;
    }
    let lost = nodes[1].get("/v1/quorate/history?since=0").await.unwrap();
    assert_eq!(lost.status, 410, "{}", lost.text());
    let newest = nodes[1].get("/v1/quorate/history?kind=key.").await.unwrap();
    let header = |name| newest.header(name).unwrap().parse::<u64>().unwrap();
    let (oldest, last) = (header("x-quorate-oldest-seq"), header("x-quorate-last-seq"));
    assert!(lost.text().contains(&oldest.to_string()), "{}", lost.text());
    assert_eq!(last + 1 - oldest, KEYS_MAX);
    let page = newest.value().unwrap();
    assert_eq!((seq(&page[0]), kinds(&page).len()), (oldest, 1_000));
    // From there on there is everything; of the rest nothing was lost.
    let path = format!("/v1/quorate/history?since={}&limit=1", oldest - 1);
    assert_eq!(seq(&nodes[2].must_get(&path).await.unwrap()[0]), oldest);
    let kept = nodes[2].get("/v1/quorate/history?since=0&service=kept").await.unwrap();
    assert_eq!(kept.header("x-quorate-oldest-seq"), Some("1"));
    assert_eq!(kinds(&kept.value().unwrap()), ["service.registered"]);
    cluster.converge().await.unwrap();
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_is_one_record_of_the_running_clusters_history() {
    let mut cluster = started().await.unwrap();
    let nodes = cluster.https(&cluster.ids());
    nodes[0].must_put("/v1/kv/kept", SECRETS[0]).await.unwrap();
    let backup = nodes[1].get("/v1/snapshot").await.unwrap().body;
    nodes[0].must_put("/v1/kv/later", SECRETS[0]).await.unwrap();
    nodes[0].must_put("/v1/agent/service/register", r#"{"Name":"later"}"#).await.unwrap();
    let before = require_equal(&cluster).await;
    let last = before.len();
    let node = nodes[2].clone();
    let path = format!("/v1/quorate/history?since={last}&wait=10s&kind=restored");
    let reader = tokio::spawn(async move { node.must_get(&path).await });
    nodes[1].must_put("/v1/snapshot", backup).await.unwrap();
    let told = reader.await.unwrap().unwrap();
    assert_eq!(kinds(&told), ["restored"]);
    // Not always the next one: on a busy machine the leader may change meanwhile.
    assert!(seq(&told[0]) > last as u64, "{told}");
    let name = format!("n{}", cluster.ids()[1]);
    assert_eq!(
        (&told[0]["Cause"]["Action"], &told[0]["Cause"]["Server"]),
        (&json!("snapshot"), &json!(name))
    );
    let after = require_equal(&cluster).await;
    assert_eq!(after[..last], before);
    // Servers and agents that enter themselves again may follow.
    let kinds: Vec<_> =
        after[last..].iter().map(|record| record["Kind"].as_str().unwrap()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "restored").count(), 1, "{kinds:?}");
    let gone = async || {
        let gone = nodes[0].must_get("/v1/quorate/explain/key/later").await.unwrap();
        assert_eq!(gone["Now"], Value::Null);
        let service = nodes[0].must_get("/v1/quorate/explain/service/later").await.unwrap();
        [gone, service].map(|gone| {
            assert!(gone["Why"].as_str().unwrap().contains("restored"), "{gone}");
            Told::new(&gone)
        })
    };
    let told = gone().await;
    restart(&mut cluster).await;
    assert_eq!(gone().await, told);
    assert_eq!(require_equal(&cluster).await[..after.len()], after);
    cluster.finish().await.unwrap();
}

// ---- sentences ---------------------------------------------------------------------------------

/// The sentence of an explanation, and how its timeline ends.
async fn why(node: &Http, of: &str) -> (String, String) {
    let told = Told::new(&node.must_get(&format!("/v1/quorate/explain/{of}")).await.unwrap());
    (told.why, told.timeline.last().cloned().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_went_with_a_prefix_or_a_restore_says_so() {
    let cluster = started().await.unwrap();
    let mut story = Story::of(&cluster);
    let node = story.nodes[0].clone();
    // Deleted alone once, set again, and then deleted with all below a prefix.
    story.put("/v1/kv/ab", "1").await;
    story.delete("/v1/kv/ab").await;
    story.put("/v1/kv/ab", "2").await;
    story.delete("/v1/kv/a?recurse").await;
    let (sentence, last) = why(&node, "key/ab").await;
    assert!(sentence.contains("is gone: it was deleted at"), "{sentence}");
    assert_eq!(last, format!("key.deleted because kv at {}", story.name()));
    // Another key whose name is the beginning of this one's was deleted in between, alone.
    for key in ["xy", "x"] {
        story.put(&format!("/v1/kv/{key}"), "1").await;
    }
    story.delete("/v1/kv/x").await;
    story.delete("/v1/kv/?recurse").await;
    let gone = node.must_get("/v1/quorate/explain/key/xy").await.unwrap();
    let last = gone["Timeline"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["Kind"], &last["Key"]), (&json!("key.deleted"), &Value::Null), "{gone}");
    // What a restore removed.
    story.put("/v1/kv/early", "1").await;
    story.delete("/v1/kv/early").await;
    story.put("/v1/kv/old", "backed-up").await;
    let backup = node.get("/v1/snapshot").await.unwrap().body;
    story.put("/v1/kv/old", "undone").await;
    story.put("/v1/kv/later", "1").await;
    story.put("/v1/agent/service/register", r#"{"Name":"later"}"#).await;
    node.must_put("/v1/snapshot", backup).await.unwrap();
    for of in ["key/later", "service/later"] {
        let (sentence, _) = why(&node, of).await;
        assert!(sentence.contains("restore"), "{of}: {sentence}");
    }
    // And what was gone before.
    let (sentence, _) = why(&node, "key/early").await;
    assert!(sentence.starts_with("Key early is gone: it was deleted"), "{sentence}");
    // What it brought back is not put down to the write that it undid.
    let (sentence, last) = why(&node, "key/old").await;
    assert!(sentence.starts_with("Key old is as in the backup that was restored at"), "{sentence}");
    assert!(last.starts_with("restored"), "{last}");
    story.put("/v1/kv/old", "new").await;
    let (sentence, _) = why(&node, "key/old").await;
    assert!(sentence.starts_with("Key old was written at"), "{sentence}");
    // A server's own node was there before the first record.
    let (sentence, _) = why(&node, "node/quorate").await;
    assert!(!sentence.contains("history that is kept"), "{sentence}");
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maintenance_of_a_node_explains_itself_and_its_services() {
    let cluster = started().await.unwrap();
    let mut story = Story::of(&cluster);
    let node = story.nodes[0].clone();
    let body = json!({"Name": "web", "ID": "web-1", "Check": {"TTL": "1h", "Status": "passing"}});
    story.put("/v1/agent/service/register?agent=h", body).await;
    let of_service = "/v1/agent/service/maintenance/web-1?agent=h&enable";
    story.put_nothing(&format!("{of_service}=true")).await;
    let (sentence, _) = why(&node, "check/_service_maintenance:web-1").await;
    assert!(sentence.contains("(agent/service/maintenance)"), "{sentence}");
    // If a check also fails, the explanation names both.
    story.put_nothing("/v1/agent/check/fail/service:web-1?agent=h").await;
    let (sentence, _) = why(&node, "service/web-1").await;
    let told = node.must_get("/v1/quorate/explain/service/web-1").await.unwrap();
    let next = told["Next"].as_str().unwrap();
    assert!(sentence.contains("check service:web-1 is critical since"), "{sentence}");
    assert!(sentence.contains(" Besides, it is in maintenance since"), "{sentence}");
    assert!(next.ends_with("It stays critical until its maintenance ends."), "{next}");
    story.put_nothing("/v1/agent/check/pass/service:web-1?agent=h").await;
    story.put_nothing(&format!("{of_service}=false")).await;
    story.put_nothing("/v1/agent/maintenance?agent=h&enable=true").await;
    for of in ["node/h", "service/web-1"] {
        let (sentence, _) = why(&node, of).await;
        assert!(sentence.contains("in maintenance since"), "{of}: {sentence}");
        // Not the maintenance of the service, which is over.
        assert!(sentence.contains("(agent/maintenance)"), "{of}: {sentence}");
    }
    story.put_nothing("/v1/agent/maintenance?agent=h&enable=false").await;
    let (sentence, _) = why(&node, "node/h").await;
    assert!(sentence.contains("passing since"), "{sentence}");
    // The servers' own node is older than the history. What happens to it later did not make it pass.
    story.put_nothing("/v1/agent/maintenance?enable=true").await;
    story.put_nothing("/v1/agent/maintenance?enable=false").await;
    let (sentence, _) = why(&node, "node/quorate").await;
    assert!(!sentence.contains("(agent/maintenance)"), "{sentence}");
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_whose_node_joined_with_it_is_no_older_than_the_history() {
    let cluster = started().await.unwrap();
    let mut story = Story::of(&cluster);
    story.put("/v1/agent/service/register?agent=new", r#"{"Name":"web","ID":"web-1"}"#).await;
    let (sentence, _) = why(&story.nodes[0], "service/web-1").await;
    assert!(!sentence.contains("before the history"), "{sentence}");
    cluster.finish().await.unwrap();
}

/// The wall-clock time of a past heartbeat does not move when cluster time stands still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_of_the_last_heartbeat_stays_what_it_was() {
    let mut cluster = started().await.unwrap();
    let mut story = Story::of(&cluster);
    let body = json!({"Name": "beat", "ID": "beat-1", "Check": {"TTL": "1s", "Status": "passing"}});
    story.put("/v1/agent/service/register", body).await;
    story.until("service/beat-1", "no heartbeat came for 1s").await;
    let before = require_equal(&cluster).await;
    let ids = cluster.ids();
    cluster.kill_all(&ids).unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.start_all().unwrap();
    cluster.wait_all_ready().await.unwrap();
    // The first entry of the next life has brought cluster time and wall-clock time together anew.
    story.put("/v1/kv/next", "1").await;
    assert_eq!(require_equal(&cluster).await[..before.len()], before);
    cluster.finish().await.unwrap();
}
