//! Sends operations, and compares every answer with the model's.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use jepsen_style_tests::http::Answer;
use jepsen_style_tests::raw::{Raw, Request};
use jepsen_style_tests::{Cluster, Failure, Result};
use serde_json::Value;

use super::answers::{Body, Expected, Index};
use super::generate::{AGENTS, Generator, topics};
use super::ledger::Ledger;
use super::operation::Operation;
use super::reads::Read;
use super::shapes;
use super::state::{
    At, Check, CheckFacts, Model, Node, NodeFacts, Service, ServiceFacts, Tables, Texts, Topic,
    fold,
};
use crate::dice::Dice;

/// How often all topics are looked at, in operations.
const TOPICS_EVERY: u64 = 20;
/// How often everything is compared on every node, in operations.
const DUMP_EVERY: u64 = 1000;
/// How many requests of the past a failure shows.
const HISTORY: usize = 12;
/// Younger than this, no tombstone is reaped: then the index of a prefix is known exactly.
const TOMBSTONES_KEPT: Duration = Duration::from_secs(14 * 60);

/// What was run of one kind.
#[derive(Debug, Default)]
struct Count {
    run: u64,
    /// Changed something, or found something.
    meaningful: u64,
    /// Refused: an error, or `false`.
    refused: u64,
}

/// A cluster and the model of it.
#[derive(Debug)]
pub(crate) struct Run {
    cluster: Cluster,
    nodes: Vec<Raw>,
    model: Model,
    ledger: Ledger,
    dice: Dice,
    counts: BTreeMap<&'static str, Count>,
    history: VecDeque<String>,
    /// The newest index of every read.
    seen: BTreeMap<String, u64>,
    topics_moved: u64,
    topics_still: u64,
    started: Instant,
}

impl Run {
    pub(crate) async fn start(seed: u64) -> Result<Self> {
        let cluster = Cluster::start_shared(3).await?;
        let ids = cluster.ids();
        let nodes: Vec<Raw> = ids.iter().map(|id| Raw::new(cluster.http(*id).base())).collect();
        cluster.wait_all_listed().await?;
        for agent in AGENTS {
            for enable in ["true", "false"] {
                let target = format!("/v1/agent/maintenance?enable={enable}&agent={agent}");
                let answer = nodes[0].send(&Request::put(target, "")).await?;
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
        }
        let (model, ledger) = import(&nodes[0]).await?;
        Ok(Self {
            cluster,
            nodes,
            model,
            ledger,
            dice: Dice::new(seed),
            counts: BTreeMap::new(),
            history: VecDeque::new(),
            seen: BTreeMap::new(),
            topics_moved: 0,
            topics_still: 0,
            started: Instant::now(),
        })
    }

    pub(crate) async fn run(&mut self, operations: u64) -> Result<()> {
        for made in 1..=operations {
            self.step(made).await?;
            if made % TOPICS_EVERY == 0 {
                self.compare_topics(made).await?;
            }
            if made % DUMP_EVERY == 0 || made == operations {
                self.compare_all(made).await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn finish(self) -> Result<()> {
        println!("{:<28} {:>8} {:>11} {:>8}", "kind", "run", "meaningful", "refused");
        for (kind, Count { run, meaningful, refused }) in &self.counts {
            println!("{kind:<28} {run:>8} {meaningful:>11} {refused:>8}");
        }
        let seconds = self.started.elapsed().as_secs();
        let changes = self.model.stamp;
        println!(
            "{changes} visible changes in {seconds} s; indexes of topics: {} moved, {} stood still",
            self.topics_moved, self.topics_still
        );
        self.cluster.finish().await
    }

    async fn step(&mut self, made: u64) -> Result<()> {
        let (model, ledger) = (&self.model, &self.ledger);
        let operation = Generator { dice: &mut self.dice, model, ledger, made }.operation();
        let request = operation.request();
        let node = self.dice.below(self.nodes.len());
        self.remember(format!("{made} at n{}: {request}", node + 1));
        let answer = self.nodes[node].send(&request).await?;
        let before = self.model.stamp;
        let expected = operation.run(&mut self.model, &answer, &self.ledger);
        let is_changed = self.model.stamp > before;
        self.count(&operation, &answer, is_changed);
        self.judge(&request, &answer, &expected);
        Ok(())
    }

    fn count(&mut self, operation: &Operation, answer: &Answer, is_changed: bool) {
        let is_false = answer.body == "false";
        let count = self.counts.entry(operation.kind()).or_default();
        count.run += 1;
        let found = matches!(operation, Operation::Read(_)) && answer.body.len() > 2;
        count.meaningful += u64::from(is_changed || (found && answer.status == 200));
        count.refused += u64::from(answer.status >= 300 || is_false);
    }

    fn remember(&mut self, what: String) {
        self.history.push_back(what);
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
    }

    fn judge(&mut self, request: &Request, answer: &Answer, expected: &Expected) {
        let target = String::from_utf8_lossy(&request.target).into_owned();
        let judged = agrees(answer, expected, &mut self.ledger)
            .and_then(|()| self.agrees_on_index(&target, answer, expected));
        if let Err(why) = judged {
            let body = answer.text();
            let history: Vec<_> = self.history.iter().map(String::as_str).collect();
            panic!(
                "{request}\nwas answered {} {body:.2000}\nexpected {expected:?}\n{why}\n\
                 the last operations:\n{}",
                answer.status,
                history.join("\n")
            );
        }
    }

    fn agrees_on_index(
        &mut self,
        target: &str,
        answer: &Answer,
        expected: &Expected,
    ) -> Result<(), String> {
        let index = answer.index();
        let stamp = match expected.index {
            Index::None => return Ok(()),
            Index::Exactly(number) => {
                return match index == Some(number) {
                    true => Ok(()),
                    false => Err(format!("X-Consul-Index {index:?} instead of {number}")),
                };
            }
            Index::Of(stamp) => stamp,
        };
        let index = index.ok_or("no X-Consul-Index")?;
        if answer.header("x-consul-knownleader") != Some("true") {
            return Err("X-Consul-KnownLeader is not true".to_owned());
        }
        let contact = answer.header("x-consul-lastcontact").and_then(|text| text.parse().ok());
        let _: u64 = contact.ok_or("X-Consul-LastContact is no number")?;
        let seen = self.seen.entry(target.to_owned()).or_insert(0);
        if index < *seen {
            return Err(format!("X-Consul-Index fell from {seen} to {index}"));
        }
        *seen = index;
        let may_be_reaped = target.contains("?keys") || target.contains("?recurse");
        if may_be_reaped && self.started.elapsed() > TOMBSTONES_KEPT {
            return Ok(());
        }
        self.ledger.bind(stamp, index).map_err(|why| format!("X-Consul-Index: {why}"))
    }

    /// The index of each topic moved if, and only if, the topic was touched since the last look.
    async fn compare_topics(&mut self, made: u64) -> Result<()> {
        const CONNECTIONS: usize = 4;
        let node = self.dice.below(self.nodes.len());
        self.remember(format!("topics at n{} after {made}", node + 1));
        let watched = topics();
        let requests: Vec<Request> =
            watched.iter().map(|(_, read)| Request::get(read.target())).collect();
        let mut asked = Vec::new();
        for part in requests.chunks(requests.len().div_ceil(CONNECTIONS)) {
            let (raw, part) = (self.nodes[node].clone(), part.to_vec());
            asked.push(tokio::spawn(async move { raw.send_all(&part).await }));
        }
        let mut answers = Vec::new();
        for part in asked {
            answers.extend(part.await.expect("the task only sends and reads")?);
        }
        for (((topic, read), request), answer) in watched.iter().zip(&requests).zip(&answers) {
            let target = read.target();
            let seen = self.seen.get(&target).copied();
            let mut expected = self.model.read(read);
            // A second way to the same number: what is watched, not what is read.
            expected.index = Index::Of(self.model.index(topic));
            self.judge(request, answer, &expected);
            match seen == self.seen.get(&target).copied() {
                true => self.topics_still += 1,
                false => self.topics_moved += 1,
            }
        }
        Ok(())
    }

    /// Everything that a client can see, on every node; and the nodes' states among themselves.
    async fn compare_all(&mut self, made: u64) -> Result<()> {
        let mut reads = vec![
            Read::Recurse(String::new()),
            Read::Sessions,
            Read::Nodes { meta: None, filter: None },
            Read::Services,
            Read::ChecksIn { status: "any".to_owned(), filter: None },
            Read::Queries,
            Read::Events(String::new()),
            Read::Coordinates,
        ];
        reads.extend(self.model.nodes.values().map(|node| Read::Node(node.name.clone())));
        reads.extend(AGENTS.iter().map(|agent| Read::AgentChecks((*agent).to_owned())));
        for name in self.model.names.keys() {
            let (name, tags) = (name.clone(), Vec::new());
            reads.push(Read::Health { name, tags, passing: false, filter: None });
        }
        for node in 0..self.nodes.len() {
            self.remember(format!("everything at n{} after {made}", node + 1));
            for read in &reads {
                let request = Request::get(read.target());
                let answer = self.nodes[node].send(&request).await?;
                let expected = self.model.read(read);
                self.judge(&request, &answer, &expected);
            }
        }
        self.cluster.converge().await.map(drop)
    }
}

fn agrees(answer: &Answer, expected: &Expected, ledger: &mut Ledger) -> Result<(), String> {
    if answer.status != expected.status {
        return Err(format!("status {} instead of {}", answer.status, expected.status));
    }
    let json = || answer.json().map_err(|_| "the body is no JSON");
    match &expected.body {
        Body::Any => Ok(()),
        Body::Empty if answer.body.is_empty() => Ok(()),
        Body::Empty => Err("a body instead of none".to_owned()),
        Body::Bytes(bytes) if answer.body == *bytes => Ok(()),
        Body::Bytes(bytes) => Err(format!("other bytes than {}", bytes.escape_ascii())),
        Body::Text(text) if shapes::is_text(text, &answer.text()) => Ok(()),
        Body::Text(text) => Err(format!("another text than {text:?}")),
        Body::Json(expected) => shapes::compare(expected, &json()?, ledger),
        Body::Id => match json()?["ID"].as_str() {
            Some(id) if id.len() == 36 => Ok(()),
            _ => Err("no fresh id".to_owned()),
        },
    }
}

// ---- the beginning -----------------------------------------------------------------------------

/// A read before the run: its body and its index.
async fn look(node: &Raw, target: &str) -> Result<(Value, u64)> {
    let answer = node.send(&Request::get(target)).await?;
    let body: Value = answer.json().unwrap_or_default();
    let index = answer.index().ok_or_else(|| Failure::new(format!("{target}: no index")))?;
    Ok((body, index))
}

/// The catalogue as the servers have made it, from the cluster's own words.
async fn import(node: &Raw) -> Result<(Model, Ledger)> {
    let topics = topics();
    let mut numbers = Vec::new();
    let mut tables = BTreeMap::new();
    for (topic, read) in &topics {
        let (_, index) = look(node, &read.target()).await?;
        tables.insert(topic.clone(), index);
        numbers.push(index);
    }
    let (nodes, _) = look(node, "/v1/catalog/nodes").await?;
    let mut rows = Vec::new();
    for row in nodes.as_array().into_iter().flatten() {
        let name = row["Node"].as_str().unwrap_or_default();
        let (services, touched) = look(node, &format!("/v1/catalog/node/{name}")).await?;
        let (checks, _) = look(node, &format!("/v1/health/node/{name}")).await?;
        numbers.push(touched);
        let services: Vec<Value> = services["Services"]
            .as_object()
            .into_iter()
            .flat_map(|map| map.values().cloned())
            .collect();
        let checks = checks.as_array().cloned().unwrap_or_default();
        for shown in services.iter().chain(&checks).chain([row]) {
            for member in ["CreateIndex", "ModifyIndex"] {
                numbers.extend(shown[member].as_u64());
            }
        }
        rows.push((row.clone(), touched, services, checks));
    }
    let ledger = Ledger::seeded(numbers);
    let mut model = Model { stamp: ledger.newest(), ..Model::default() };
    let stamp = |topic: Topic| ledger.stamp_of(tables[&topic]);
    model.tables = Tables {
        kv: stamp(Topic::Prefix(String::new())),
        nodes: stamp(Topic::Nodes),
        services: stamp(Topic::Services),
        checks: stamp(Topic::Checks),
        sessions: stamp(Topic::Sessions),
        queries: stamp(Topic::Queries),
        coordinates: stamp(Topic::Coordinates),
        extinction: None,
    };
    model.names.insert("consul".to_owned(), stamp(Topic::Service("consul".to_owned())));
    for (row, touched, services, checks) in rows {
        let imported = imported_node(&row, touched, &services, &checks, &ledger);
        if imported.is_agent {
            model.agents.insert(imported.name.clone(), imported.facts.clone());
        }
        model.nodes.insert(fold(&imported.name), imported);
    }
    Ok((model, ledger))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn at(row: &Value, ledger: &Ledger) -> At {
    let stamp = |member: &str| ledger.stamp_of(row[member].as_u64().unwrap_or_default());
    At { create: stamp("CreateIndex"), modify: stamp("ModifyIndex") }
}

fn imported_node(
    row: &Value,
    touched: u64,
    services: &[Value],
    checks: &[Value],
    ledger: &Ledger,
) -> Node {
    let map = |value: &Value| -> Option<Texts> {
        serde_json::from_value(value.clone()).unwrap_or_default()
    };
    let name = text(&row["Node"]);
    let node = &name;
    let services = services.iter().map(|row| {
        let weights = |member: &str| row["Weights"][member].as_i64().unwrap_or_default();
        let facts = ServiceFacts {
            id: text(&row["ID"]),
            name: text(&row["Service"]),
            tags: map_list(&row["Tags"]),
            address: text(&row["Address"]),
            port: row["Port"].as_i64().unwrap_or_default(),
            meta: map(&row["Meta"]).unwrap_or_default(),
            weights: (weights("Passing"), weights("Warning")),
            ..ServiceFacts::default()
        };
        (facts.id.clone(), Service { node: node.clone(), facts, at: at(row, ledger) })
    });
    let checks = checks.iter().map(|row| {
        let facts = CheckFacts {
            id: text(&row["CheckID"]),
            name: text(&row["Name"]),
            status: text(&row["Status"]),
            output: text(&row["Output"]),
            definition: row["Definition"].clone(),
            ..CheckFacts::default()
        };
        let (service_name, service_tags) = (String::new(), Vec::new());
        (
            facts.id.clone(),
            Check { node: node.clone(), facts, service_name, service_tags, at: at(row, ledger) },
        )
    });
    Node {
        facts: NodeFacts {
            id: text(&row["ID"]),
            address: text(&row["Address"]),
            tagged_addresses: map(&row["TaggedAddresses"]),
            meta: map(&row["Meta"]),
        },
        is_agent: AGENTS.contains(&name.as_str()),
        name: name.clone(),
        at: at(row, ledger),
        touched: ledger.stamp_of(touched),
        services: services.collect(),
        checks: checks.collect(),
    }
}

fn map_list(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).unwrap_or_default()
}
