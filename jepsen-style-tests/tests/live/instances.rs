//! `GET /v1/quorate/instances`: a row for each instance, by whatever API it was registered, at every server.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::time::{Duration, Instant};

use jepsen_style_tests::health::register;
use jepsen_style_tests::http::{Answer, AnswerExt as _, Http};
use jepsen_style_tests::{Cluster, Limit, Options, Result};
use serde_json::{Value, json};

/// What happens by itself shows within this.
const LIMIT: Duration = Duration::from_secs(20);
/// How long a query waits that is not to be woken.
const QUIET: Duration = Duration::from_secs(2);
/// A query is awake within this of the change.
const WOKEN_WITHIN: Duration = Duration::from_secs(2);
/// From this level of the cluster's rules on there is a history, from which `Since` comes.
const HISTORY_LEVEL: u64 = 3;
/// A TTL that runs out in the test.
const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(3_600);

/// Servers that take turns.
struct Turns {
    nodes: Vec<Http>,
    next: std::cell::Cell<usize>,
}

impl Turns {
    fn next(&self) -> &Http {
        let next = self.next.get();
        self.next.set(next + 1);
        &self.nodes[next % self.nodes.len()]
    }

    async fn put(&self, path: &str, body: &Value) -> Result<()> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.next().must_put(path, body).await?;
        Ok(())
    }

    async fn ask(&self, query: &str) -> Result<Answer> {
        Ok(self.next().get(&format!("/v1/quorate/instances?{query}")).await?)
    }

    /// The rows, but for the servers' own.
    async fn rows(&self, query: &str) -> Result<Vec<Value>> {
        let rows = self.ask(query).await?.value()?;
        let rows = rows.as_array().cloned().unwrap_or_default();
        Ok(rows.into_iter().filter(|row| row["Service"] != "consul").collect())
    }

    async fn ids(&self, query: &str) -> Result<Vec<String>> {
        let rows = self.rows(query).await?;
        Ok(rows.iter().map(|row| row["ID"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// When the newest record of a kind was made.
    async fn at(&self, query: &str) -> Result<Value> {
        let records = self.next().must_get(&format!("/v1/quorate/history?{query}")).await?;
        Ok(records
            .as_array()
            .and_then(|all| all.last())
            .map_or(Value::Null, |one| one["At"].clone()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_instance_has_a_row_with_its_status_and_its_reason() {
    let cluster = Cluster::start_at_level(HISTORY_LEVEL, Options::shared()).await.unwrap();
    let nodes = cluster.https(&cluster.ids());
    let turns = Turns { nodes, next: Default::default() };
    columns(&turns).await.unwrap();
    choices(&turns).await.unwrap();
    refusals(&turns).await.unwrap();
    reasons(&turns).await.unwrap();
    waits(&turns).await.unwrap();
    ages(&turns).await.unwrap();
    cluster.finish().await.unwrap();
}

/// The age of what is silent goes on when nothing else happens any more.
async fn ages(turns: &Turns) -> Result<()> {
    register(turns.next(), "silent", "silent", SHORT, "").await?;
    turns.put("/v1/agent/check/pass/service:silent", &Value::Null).await?;
    let limit = Limit::new(LIMIT);
    let mut older_than = 0;
    for _ in 0..3 {
        loop {
            let rows = turns.rows("service=silent&filter=Status==critical").await?;
            let age = rows.first().and_then(|row| row["AgeMs"].as_u64());
            if let Some(age) = age.filter(|age| *age > older_than) {
                older_than = age + 1_000;
                break;
            }
            limit.check(|| format!("no older than {older_than} ms: {rows:?}"))?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

async fn columns(turns: &Turns) -> Result<()> {
    register(turns.next(), "web", "web-1", LONG, "").await?;
    let far = json!({"Node": "far", "Address": "10.0.0.9",
        "Service": {"Service": "db", "ID": "db-1", "Port": 5432, "Tags": ["main"], "Meta": {"v": "7"}},
        "Checks": [
            {"Node": "far", "CheckID": "a", "Name": "disk", "ServiceID": "db-1", "Status": "warning"},
            {"Node": "far", "CheckID": "b", "Name": "b", "ServiceID": "db-1", "Status": "passing"}]});
    turns.put("/v1/catalog/register", &far).await?;
    let bare = json!([{"Service": {"Verb": "set", "Node": "far",
        "Service": {"ID": "bare", "Service": "Bare"}}}]);
    turns.put("/v1/txn", &bare).await?;

    let rows = turns.rows("").await?;
    let ids: Vec<_> = rows.iter().map(|row| &row["ID"]).collect();
    assert_eq!(ids, ["bare", "db-1", "web-1"]);
    let since = turns.at("check=a").await?;
    assert_eq!(
        rows[1],
        json!({"Service": "db", "ID": "db-1", "Node": "far", "Address": "10.0.0.9", "Port": 5432,
            "Status": "warning", "Active": false, "Warning": "disk", "Error": "", "Since": since, "Restarts": 0,
            "Tags": ["main"], "Meta": {"v": "7"}})
    );
    let web = &rows[2];
    assert_eq!(
        (&web["Active"], &web["Warning"], &web["Error"]),
        (&json!(true), &json!(""), &json!(""))
    );
    assert_eq!(web["Since"], turns.at("id=web-1").await?);
    assert!(web["AgeMs"].as_u64() < Some(60_000) && web["LastHeard"].is_string(), "{web}");
    Ok(())
}

async fn choices(turns: &Turns) -> Result<()> {
    let chosen: [(&str, &[&str]); 10] = [
        ("service=WEB", &["web-1"]),
        ("service=none", &[]),
        ("status=warning", &["db-1"]),
        ("status=warning&status=passing", &["bare", "db-1", "web-1"]),
        ("status=critical", &[]),
        ("status=passing&service=db", &[]),
        ("stale&status=warning", &["db-1"]),
        ("filter=Port==5432", &["db-1"]),
        ("filter=Active!=true+and+%22main%22+in+Tags+and+Meta.v==7", &["db-1"]),
        ("filter=Warning+matches+%22^di%22+or+Node!=far", &["db-1", "web-1"]),
    ];
    for (query, ids) in chosen {
        // A server that asks nobody may be a moment behind.
        let limit = Limit::new(LIMIT);
        while turns.ids(query).await? != ids {
            assert!(query.contains("stale"), "{query}: {:?}", turns.ids(query).await?);
            limit.pause(|| query.to_owned()).await?;
        }
    }
    Ok(())
}

async fn refusals(turns: &Turns) -> Result<()> {
    for (query, words) in [
        ("status=fine", "\"fine\" is none of passing, warning, critical"),
        ("filter=Nothing==1", "Invalid filter: Selector \"Nothing\" is not valid"),
        ("filter=Port==x", "Invalid filter: "),
        ("filter=%28", "Invalid filter: "),
        ("index=x", "Invalid index"),
    ] {
        let refused = turns.ask(query).await?;
        assert_eq!(refused.status, 400, "{query}: {}", refused.text());
        assert!(refused.text().contains(words), "{query}: {}", refused.text());
    }
    Ok(())
}

/// The reason is the worst check's, and the time that of the first of those that are as bad.
async fn reasons(turns: &Turns) -> Result<()> {
    let row = async || -> Result<Value> { Ok(turns.rows("service=web").await?.remove(0)) };
    turns.put("/v1/agent/check/warn/service:web-1?note=slow", &Value::Null).await?;
    let warned = row().await?;
    assert_eq!((&warned["Status"], &warned["Warning"]), (&json!("warning"), &json!("slow")));
    assert_eq!(warned["Since"], turns.at("check=service:web-1").await?);
    turns.put("/v1/agent/check/fail/service:web-1?note=dead", &Value::Null).await?;
    let failed = row().await?;
    let since = turns.at("check=service:web-1").await?;
    assert_eq!((&failed["Warning"], &failed["Error"]), (&json!(""), &json!("dead")));
    assert_eq!(failed["Since"], since);
    // Something else that is as bad does not make it younger, and neither does another output.
    turns.put("/v1/agent/service/maintenance/web-1?enable=true&reason=disk", &Value::Null).await?;
    turns.put("/v1/agent/check/fail/service:web-1?note=still", &Value::Null).await?;
    assert_eq!(row().await?["Since"], since);
    turns.put("/v1/agent/check/pass/service:web-1", &Value::Null).await?;
    let kept = row().await?;
    assert_eq!((&kept["Status"], &kept["Error"]), (&json!("critical"), &json!("disk")));
    assert_eq!(kept["Since"], turns.at("id=web-1&kind=maintenance.on").await?);
    turns.put("/v1/agent/service/maintenance/web-1?enable=false", &Value::Null).await?;
    assert_eq!(row().await?["Active"], true);
    Ok(())
}

/// A change wakes, a heartbeat alone does not.
async fn waits(turns: &Turns) -> Result<()> {
    for query in ["", "service=web&"] {
        let index = turns.ask(query).await?.require_index()?;
        let node = turns.next().clone();
        let path = format!("/v1/quorate/instances?{query}index={index}&wait=60s");
        let waiting = tokio::spawn(async move { (node.get(&path).await, Instant::now()) });
        let heard = Instant::now();
        while heard.elapsed() < QUIET {
            turns.put("/v1/agent/check/pass/service:web-1", &Value::Null).await?;
            tokio::time::sleep(QUIET / 8).await;
        }
        assert!(!waiting.is_finished(), "{query}: a heartbeat woke it");
        let changed = Instant::now();
        turns.put("/v1/agent/check/warn/service:web-1", &Value::Null).await?;
        let (answer, woken) = waiting.await.unwrap();
        assert!(woken - changed < WOKEN_WITHIN);
        let answer = answer?;
        assert!(answer.require_index()? > index);
        assert!(answer.text().contains(r#""Status":"warning""#), "{}", answer.text());
        turns.put("/v1/agent/check/pass/service:web-1", &Value::Null).await?;
    }
    Ok(())
}
