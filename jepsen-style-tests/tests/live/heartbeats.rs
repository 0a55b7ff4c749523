//! Heartbeats with facts on a real cluster: what a kdb+ discovery service knows of a thousand processes, which of
//! them are silent, which were restarted, and which ten of ten thousand heartbeats are rejected.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::time::{Duration, Instant};

use jepsen_style_tests::health::Observers;
use jepsen_style_tests::http::{AnswerExt as _, Http, HttpExt as _};
use jepsen_style_tests::raw::{Raw, Request};
use jepsen_style_tests::stream::{Frame, Reader};
use jepsen_style_tests::{Cluster, Limit, Options};
use serde_json::{Value, json};

const HEARTBEAT: &str = "/v1/quorate/heartbeat";
/// The level of the cluster's rules from which on it takes heartbeats with facts.
const HEARTBEAT_LEVEL: u64 = 4;
/// What one server has applied is to be seen at the others within this.
const SEEN_WITHIN: Duration = Duration::from_secs(20);
/// Lateness that is documented, and that of an observer on a busy machine.
const LATE_MAX: Duration = Duration::from_millis(500 + 150);
/// With a leader that is killed: its successor is elected, and nothing expires in the grace after that.
const ELECTION: Duration = Duration::from_secs(10);

/// Three servers that all take heartbeats with facts.
async fn started() -> (Cluster, Vec<Http>) {
    let cluster = Cluster::start_at_level(HEARTBEAT_LEVEL, Options::default()).await.unwrap();
    let nodes = cluster.https(&cluster.ids());
    (cluster, nodes)
}

async fn beat(node: &Http, body: &Value) -> Value {
    node.put(HEARTBEAT, body.to_string()).await.unwrap().value().unwrap()
}

/// Heartbeats by ids alone, of an agent's instances if there is a parameter that names it.
async fn beat_ids(node: &Http, agent: &str, ids: &[&str]) -> Value {
    let request = Request {
        content_type: Some("text/plain"),
        ..Request::put(format!("{HEARTBEAT}{agent}"), ids.join("\n"))
    };
    Raw::new(node.base()).send(&request).await.unwrap().value().unwrap()
}

/// What became of heartbeats: how many were accepted, and how many of them registered something.
fn counts(answer: &Value) -> (u64, u64) {
    (answer["Accepted"].as_u64().unwrap(), answer["Registered"].as_u64().unwrap())
}

fn rejected(answer: &Value) -> Vec<&str> {
    let all = answer["Rejected"].as_array().unwrap();
    all.iter().map(|one| one["ID"].as_str().unwrap()).collect()
}

async fn instances(node: &Http, service: &str) -> (Vec<Value>, u64) {
    let path = format!("/v1/quorate/instances?service={service}");
    let answer = node.get(&path).await.unwrap();
    let Value::Array(rows) = answer.value().unwrap() else { panic!("no list") };
    (rows, answer.require_index().unwrap())
}

async fn instance(node: &Http, service: &str, id: &str) -> Value {
    let (rows, _) = instances(node, service).await;
    rows.into_iter().find(|row| row["ID"] == id).unwrap_or_default()
}

/// What a process of a kdb+ plant says of itself.
fn process(number: u64, counter: u64) -> Value {
    json!({
        "Service": "rdb", "ID": format!("rdb-{number:04}"), "Address": "10.0.0.5",
        "Port": 5_000 + number, "Process": format!("rdb.{number}"), "Pid": 90_000 + number,
        "Started": 1_763_900_000_000_u64 + number, "Version": "4.0", "Counter": counter,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_facts_of_a_thousand_processes_are_kept_everywhere() {
    const PROCESSES: u64 = 1_000;
    let (cluster, nodes) = started().await;
    let all: Value = (0..PROCESSES).map(|number| process(number, 118)).collect();
    let answer = beat(&nodes[0], &all).await;
    assert_eq!(counts(&answer), (PROCESSES, PROCESSES));
    assert_eq!(rejected(&answer), [""; 0]);
    for node in &nodes {
        let (rows, _) = instances(node, "rdb").await;
        assert_eq!(rows.len() as u64, PROCESSES);
        for (number, row) in rows.iter().enumerate() {
            let given = process(number as u64, 118);
            for member in
                ["Service", "ID", "Address", "Port", "Process", "Pid", "Version", "Counter"]
            {
                assert_eq!(row[member], given[member], "{row}");
            }
            let spans = (row["WarnAfter"].as_str(), row["CriticalAfter"].as_str());
            assert_eq!(spans, (Some("30s"), Some("1m30s")));
            assert_eq!((&row["Status"], &row["Restarts"]), (&json!("passing"), &json!(0)));
        }
    }

    // The next ones say nothing new: they count on and keep the age down, and nobody is woken.
    let (_, before) = instances(&nodes[1], "rdb").await;
    let all: Value = (0..PROCESSES).map(|number| process(number, 119)).collect();
    assert_eq!(counts(&beat(&nodes[1], &all).await), (PROCESSES, 0));
    let one = process(7, 0)["ID"].as_str().unwrap().to_owned();
    assert_eq!(counts(&beat_ids(&nodes[2], "", &[&one, "nobody"]).await), (1, 0));
    // Another agent has none of that id.
    assert_eq!(counts(&beat_ids(&nodes[2], "?agent=kdb", &[&one]).await), (0, 0));
    for node in &nodes {
        let (rows, index) = instances(node, "rdb").await;
        assert_eq!(index, before, "heartbeats that say nothing new move no index");
        assert!(rows.iter().all(|row| row["Counter"] == 119), "{rows:?}");
    }
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_warned_of_and_then_critical_at_every_server_and_never_early() {
    const WARN_AFTER: Duration = Duration::from_secs(2);
    const CRITICAL_AFTER: Duration = Duration::from_secs(4);
    let (mut cluster, nodes) = started().await;
    let body =
        |id: &str| json!({"Service": "plant", "ID": id, "WarnAfter": "2s", "CriticalAfter": "4s"});
    let observers = Observers::start(&cluster, "plant").unwrap();
    for round in 0..3 {
        let id = format!("silent-{round}");
        beat(&nodes[0], &body(&id)).await;
        observers.wait_all_saw(&id, "passing", SEEN_WITHIN).await.unwrap();
        let sent = Instant::now();
        beat(&nodes[1], &body(&id)).await;
        let acknowledged = Instant::now();
        // Of a leader that is killed the others say what is so.
        let killed = (round == 2).then_some(cluster.leader().await.unwrap());
        if let Some(leader) = killed {
            cluster.kill(leader).unwrap();
        }
        let (looking, late_max) = match killed {
            Some(_) => (4, ELECTION),
            None => (6, LATE_MAX),
        };
        for (status, after) in [("warning", WARN_AFTER), ("critical", CRITICAL_AFTER)] {
            let limit = Limit::new(after + ELECTION);
            while observers.first(&id, status).len() < looking {
                limit.pause(|| format!("{status}: {:?}", observers.sightings())).await.unwrap();
            }
            for sighting in observers.first(&id, status) {
                let early = (sent + after).saturating_duration_since(sighting.answered);
                assert!(early.is_zero(), "{early:?} early: {sighting:?}");
                // The first deadlines of a leader come after a grace.
                let late = sighting.answered.saturating_duration_since(acknowledged + after);
                assert!(round == 0 || late <= late_max, "{late:?} late: {sighting:?}");
            }
        }
        if let Some(killed) = killed {
            cluster.start_node(killed).unwrap();
            cluster.wait_ready(killed).await.unwrap();
        }
        let why = nodes[2].must_get(&format!("/v1/quorate/explain/service/{id}")).await.unwrap();
        let why = why["Why"].as_str().unwrap();
        assert!(why.contains("no heartbeat came for 4s"), "{why}");
        // A renewal restores what was said.
        assert_eq!(counts(&beat_ids(&nodes[2], "", &[&id]).await), (1, 0));
        let passes = |checks: &Value| {
            checks.as_array().unwrap().iter().any(|one| {
                one["ServiceID"] == id.as_str() && one["Status"] == "passing" && one["Output"] == ""
            })
        };
        nodes[0].wait_for("/v1/health/checks/plant", SEEN_WITHIN, passes).await.unwrap();
    }
    drop(observers);
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_heartbeats_passes_though_leaders_are_killed() {
    let (mut cluster, nodes) = started().await;
    let observers = Observers::start(&cluster, "steady").unwrap();
    let body = json!({"Service": "steady", "WarnAfter": "2500ms", "CriticalAfter": "4s"});
    beat(&nodes[0], &body).await;
    for _ in 0..2 {
        let leader = cluster.leader().await.unwrap();
        let survivors: Vec<Http> =
            cluster.others(leader).iter().map(|id| cluster.http(*id)).collect();
        beat(&survivors[0], &body).await;
        cluster.kill(leader).unwrap();
        // An answer may take as long as an election; cluster time stands still meanwhile.
        let until = Instant::now() + 2 * CRITICAL_LATEST;
        while Instant::now() < until {
            assert_eq!(counts(&beat(&survivors[1], &body).await).0, 1);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        cluster.start_node(leader).unwrap();
        cluster.wait_ready(leader).await.unwrap();
        beat(&survivors[1], &body).await;
    }
    let others: Vec<_> =
        observers.sightings().into_iter().filter(|one| one.status != "passing").collect();
    assert!(others.is_empty(), "{others:?}");
    drop(observers);
    cluster.finish().await.unwrap();
}

/// When an instance of the test above would be critical.
const CRITICAL_LATEST: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_are_counted_and_told() {
    let (cluster, nodes) = started().await;
    let body = |started: u64, pid: u64| json!({"Service": "hdb", "ID": "hdb-1", "Started": started, "Pid": pid, "Process": "hdb"});
    beat(&nodes[0], &body(1_000, 11)).await;
    beat(&nodes[1], &body(2_000, 12)).await;
    let late = beat(&nodes[2], &json!([body(1_000, 11)])).await;
    assert_eq!((counts(&late), rejected(&late)), ((0, 0), vec!["hdb-1"]));
    // One by itself has the status that scripts look at.
    let single = nodes[2].put(HEARTBEAT, body(1_000, 11).to_string()).await.unwrap();
    let why = late["Rejected"][0]["Error"].as_str().unwrap();
    assert_eq!((single.status, single.text().as_str()), (400, why));
    beat(&nodes[2], &body(3_000, 13)).await;
    // Without a start: by the process id.
    let plain = |pid: u64| json!({"Service": "gw", "ID": "gw-1", "Pid": pid});
    for (pid, node) in [21, 22, 21, 22, 23].into_iter().zip(nodes.iter().cycle()) {
        beat(node, &json!([plain(pid)])).await;
    }
    for node in &nodes {
        let row = instance(node, "hdb", "hdb-1").await;
        assert_eq!((&row["Restarts"], &row["Pid"]), (&json!(2), &json!(13)), "{row}");
        let row = instance(node, "gw", "gw-1").await;
        assert_eq!((&row["Restarts"], &row["Pid"]), (&json!(2), &json!(23)), "{row}");
        let told = node.must_get("/v1/quorate/history?kind=service.restarted").await.unwrap();
        let told: Vec<_> = told.as_array().unwrap().iter().map(|one| &one["ID"]).collect();
        assert_eq!(told, ["hdb-1", "hdb-1", "gw-1", "gw-1"]);
    }
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_a_heartbeat_is_and_what_it_leaves_out() {
    let (cluster, nodes) = started().await;
    // Who names an agent means no other one's instance, and neither does who says nothing but a service.
    for (agent, process) in [("a", "A"), ("b", "B")] {
        let body = json!({"Service": "gate", "ID": "g", "Port": 5010, "Process": process});
        let answer = nodes[0].put(&format!("{HEARTBEAT}?agent={agent}"), body.to_string()).await;
        assert_eq!(counts(&answer.unwrap().value().unwrap()), (1, 1), "{agent}");
    }
    let (rows, _) = instances(&nodes[1], "gate").await;
    let told: Vec<_> = rows.iter().map(|row| (&row["Node"], &row["Process"])).collect();
    assert_eq!(told, [(&json!("a"), &json!("A")), (&json!("b"), &json!("B"))]);

    // A check that was registered through Consul's API passes with the first heartbeat, by its id alone too.
    for id in ["m1", "m2"] {
        let body = json!({"Name": "mig", "ID": id, "Check": {"TTL": "60s"}}).to_string();
        nodes[0].must_put("/v1/agent/service/register", body).await.unwrap();
    }
    beat(&nodes[1], &json!({"Service": "mig", "ID": "m1"})).await;
    beat_ids(&nodes[2], "", &["m2"]).await;
    for id in ["m1", "m2"] {
        assert_eq!(instance(&nodes[0], "mig", id).await["Status"], "passing", "{id}");
    }

    // The default warning does not stand in the way of a shorter time.
    beat(&nodes[0], &json!({"Service": "short"})).await;
    let answer = beat(&nodes[1], &json!({"Service": "short", "CriticalAfter": "20s"})).await;
    assert_eq!(counts(&answer), (1, 0), "{answer}");

    // A start in nanoseconds is refused, and told by its place.
    let started = |started: u64| json!({"Service": "q", "ID": "q1", "Started": started});
    let body = json!([started(1_796_056_000_000_000_000), started(1_700_000_000_000)]);
    let answer = beat(&nodes[2], &body).await;
    assert_eq!((counts(&answer), &answer["Rejected"][0]["Index"]), ((1, 1), &json!(0)));
    assert_eq!(instance(&nodes[0], "q", "q1").await["Started"], 1_700_000_000_000_u64);
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_bad_ones_of_ten_thousand_are_told_and_a_renewal_revives_nothing() {
    const ALL: usize = 10_000;
    const BAD_EVERY: usize = 1_000;
    let (cluster, nodes) = started().await;
    let id = |number: usize| format!("p{number}");
    let all: Vec<Value> = (0..ALL)
        .map(|number| match number % BAD_EVERY {
            0 if (number / BAD_EVERY).is_multiple_of(2) => json!({"ID": id(number)}),
            0 => json!({"Service": "p", "ID": id(number), "CriticalAfter": "1ms"}),
            _ => json!({"Service": "p", "ID": id(number), "Counter": 1}),
        })
        .collect();
    let target = format!("{HEARTBEAT}?agent=kdb");
    // They are registered in parts, which a slow machine takes one after the other.
    for part in all.chunks(BAD_EVERY) {
        let answer = nodes[0].put(&target, json!(part).to_string()).await.unwrap();
        let answer = answer.value().unwrap();
        assert_eq!((counts(&answer), rejected(&answer).len()), ((999, 999), 1));
    }
    let answer = nodes[0].put(&target, json!(all).to_string()).await.unwrap();
    let answer = answer.value().unwrap();
    assert_eq!(counts(&answer), (9_990, 0));
    let bad: Vec<String> = (0..10).map(|number| id(number * BAD_EVERY)).collect();
    assert_eq!(rejected(&answer), bad);
    assert_eq!(instances(&nodes[1], "p").await.0.len(), 9_990);

    // All of them by their ids, after one was deregistered: it stays so.
    nodes[1].must_put("/v1/agent/service/deregister/p5?agent=kdb", "").await.unwrap();
    let ids: Vec<String> = (0..ALL).map(id).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    assert_eq!(instances(&nodes[2], "p").await.0.len(), 9_989);
    let answer = beat_ids(&nodes[2], "?agent=kdb", &ids).await;
    assert_eq!(counts(&answer), (9_989, 0));
    assert_eq!((rejected(&answer).len(), rejected(&answer)[1]), (11, "p5"));
    for node in &nodes {
        assert_eq!(instance(node, "p", "p5").await, Value::Null);
    }
    // What is malformed as a whole changes nothing.
    for body in ["[", "5", r#"[{"Service":"q"}"#] {
        assert_eq!(nodes[0].put(HEARTBEAT, body).await.unwrap().status, 400, "{body}");
    }
    let too_many: Value =
        (0..=ALL).map(|number| json!({"Service": "q", "ID": id(number)})).collect();
    let answer = nodes[0].put(HEARTBEAT, too_many.to_string()).await.unwrap();
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert_eq!(instances(&nodes[0], "q").await.0.len(), 0);

    // A stream sends the heartbeats of so many, ends when there are more, and is not opened again with them.
    let mut stream = Reader::open(&nodes[1], "beats=500ms", None).await.unwrap();
    let first = stream.next_named("beats", SEEN_WITHIN).await.unwrap();
    assert_eq!(first.data["Beats"].as_array().unwrap().len(), 9_989);
    let more: Value =
        (0..20).map(|number| json!({"Service": "r", "ID": format!("r{number}")})).collect();
    let answer = nodes[0].put(&target, more.to_string()).await.unwrap().value().unwrap();
    assert_eq!(counts(&answer), (20, 20));
    while stream.next().await.unwrap().is_some() {}
    let refused = nodes[1].get("/v1/quorate/stream?beats=500ms").await.unwrap();
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("at most 10000 instances"), "{}", refused.text());
    let mut few = Reader::open(&nodes[1], "service=r&beats=500ms", None).await.unwrap();
    let first = few.next_named("beats", SEEN_WITHIN).await.unwrap();
    assert_eq!(first.data["Beats"].as_array().unwrap().len(), 20);
    cluster.finish().await.unwrap();
}

/// What a frame says of instances: id, counter and process id.
fn beats(frame: &Frame) -> Vec<(String, u64, u64)> {
    let number = |beat: &Value, name: &str| beat[name].as_u64().unwrap();
    let beats = frame.data["Beats"].as_array().unwrap().iter();
    let shown = beats.map(|beat| {
        assert!(number(beat, "AgeMs") < 10_000, "{beat}");
        let id = beat["ID"].as_str().unwrap().to_owned();
        (id, number(beat, "Counter"), number(beat, "Pid"))
    });
    shown.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_send_the_heartbeats_of_those_that_were_heard_of() {
    let (cluster, nodes) = started().await;
    let process = |service: &str, number: u64, counter: u64| json!({"Service": service, "ID": format!("{service}-{number}"), "Pid": number, "Counter": counter});
    let both = json!([process("rdb", 1, 1), process("rdb", 2, 1), process("hdb", 1, 1)]);
    assert_eq!(counts(&beat(&nodes[0], &both).await), (3, 3));
    let shown = |all: &[(&str, u64, u64)]| -> Vec<_> {
        all.iter().map(|(id, counter, pid)| ((*id).to_owned(), *counter, *pid)).collect()
    };
    let mut stream = Reader::open(&nodes[1], "service=RDB&beats=500ms", None).await.unwrap();
    let first = stream.next_named("beats", SEEN_WITHIN).await.unwrap();
    assert_eq!(beats(&first), shown(&[("rdb-1", 1, 1), ("rdb-2", 1, 2)]));
    assert_eq!(first.id, None, "no place to go on from");
    // A heartbeat anywhere comes once, that of another service never.
    beat(&nodes[2], &process("rdb", 2, 2)).await;
    let second = stream.next_named("beats", SEEN_WITHIN).await.unwrap();
    assert_eq!(beats(&second), shown(&[("rdb-2", 2, 2)]));
    assert!(second.data["Time"].as_u64() >= first.data["Time"].as_u64());
    beat(&nodes[0], &process("hdb", 1, 2)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    beat(&nodes[0], &process("rdb", 1, 2)).await;
    let third = stream.next_named("beats", SEEN_WITHIN).await.unwrap();
    assert_eq!(beats(&third), shown(&[("rdb-1", 2, 1)]));
    for wrong in ["beats=100ms", "beats=61s", "beats=often", "beats=-1s"] {
        let refused = nodes[0].get(&format!("/v1/quorate/stream?{wrong}")).await.unwrap();
        assert_eq!(refused.status, 400, "{wrong}: {}", refused.text());
    }
    cluster.finish().await.unwrap();
}
