//! The query router of `client/examples`: two gateways, four instances, two hundred users, and deaths of all kinds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jepsen_style_tests::http::{Answer, Http, HttpExt as _};
use jepsen_style_tests::{Cluster, Failure, Limit, Result};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::examples::Example;

const USERS: usize = 200;
/// Queries of each user, one after the other.
const QUERIES: usize = 3;
/// How long an instance works for a query.
const WORK_MS: u64 = 15;
/// Every query has an answer within this.
const LIMIT: Duration = Duration::from_secs(90);
const SERVICE: &str = "rdb";
const POOL: &str = "/v1/quorate/claims/rdb";
/// From this level of the cluster's rules on there are claims.
const CLAIMS_LEVEL: u64 = 8;

/// Instances and gateways, as processes.
struct Stage {
    cluster: Cluster,
    instances: Vec<Example>,
    gateways: Vec<Example>,
    /// Where the gateways listen.
    addresses: Vec<String>,
}

impl Stage {
    async fn set() -> Result<Self> {
        let cluster = Cluster::start(3).await?;
        let servers = cluster.https(&cluster.ids());
        for server in &servers {
            server.wait_level(CLAIMS_LEVEL, LIMIT).await?;
        }
        let servers: Vec<_> = servers.iter().map(|server| server.base().to_owned()).collect();
        let servers = servers.join(",");
        let mut instances = Vec::new();
        for _ in 0..4 {
            let mut instance = Example::start(&servers, "query_service", &[SERVICE, "0"])?;
            instance.says("registered").await?;
            instances.push(instance);
        }
        let (mut gateways, mut addresses) = (Vec::new(), Vec::new());
        for name in ["gateway-1", "gateway-2"] {
            let mut gateway = Example::start(&servers, "query_router", &[SERVICE, "0", name])?;
            let line = gateway.says("listening at ").await?;
            addresses.push(line.replace("listening at ", "http://"));
            gateways.push(gateway);
        }
        Ok(Self { cluster, instances, gateways, addresses })
    }

    fn gateway(&self, number: usize) -> Result<Http> {
        Ok(Http::with_timeout(&self.addresses[number % self.addresses.len()], LIMIT)?)
    }

    /// A server that stays.
    fn server(&self) -> Result<Http> {
        let alive = self.cluster.running().first().copied();
        let alive = alive.ok_or_else(|| Failure::new("no server is alive"))?;
        Ok(self.cluster.http(alive))
    }

    async fn wait_for_pool(&self, wanted: impl Fn(&Value) -> bool + Send + Sync) -> Result<Value> {
        self.server()?.wait_for(POOL, LIMIT, wanted).await
    }
}

/// What users were told.
#[derive(Default)]
struct Told {
    answered: usize,
    unavailable: usize,
    disconnected: usize,
    seqs: BTreeSet<u64>,
}

impl Told {
    /// Notes an answer to a query with this text.
    fn note(&mut self, text: &str, answer: &Answer) -> Result<()> {
        let said = answer.text();
        match answer.status {
            200 => {
                let (seq, rest) = said.split_once(' ').unwrap_or_default();
                let seq: u64 = seq.parse().map_err(|_| Failure::new(said.clone()))?;
                if !rest.starts_with(&format!("{text} answered by ")) || !self.seqs.insert(seq) {
                    return Err(Failure::new(format!("{text} was answered: {said}")));
                }
                self.answered += 1;
            }
            503 if said.starts_with("Service Unavailable") => self.unavailable += 1,
            502 if said.starts_with("Service Disconnect") => self.disconnected += 1,
            status => return Err(Failure::new(format!("{text}: {status} {said}"))),
        }
        Ok(())
    }
}

/// A user sends its queries through one gateway, and through the other if that is gone.
async fn user(
    number: usize,
    gateways: Vec<Http>,
    done: Arc<AtomicUsize>,
) -> Result<Vec<(String, Answer)>> {
    let mut told = Vec::new();
    for query in 0..QUERIES {
        let text = format!("{number}-{query}");
        let path = format!("/query/{text}?ms={WORK_MS}");
        let answer = match gateways[number % gateways.len()].get(&path).await {
            Ok(answer) => answer,
            Err(_) => gateways[(number + 1) % gateways.len()].get(&path).await?,
        };
        told.push((text, answer));
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(told)
}

async fn wait_until(done: &AtomicUsize, count: usize) -> Result<()> {
    let limit = Limit::new(LIMIT);
    while done.load(Ordering::Relaxed) < count {
        limit.pause(|| format!("{count} answers")).await?;
    }
    Ok(())
}

/// Two hundred users, while two instances, the leader and a gateway are killed.
async fn many_users(stage: &mut Stage) -> Result<Told> {
    let done = Arc::new(AtomicUsize::new(0));
    let gateways = vec![stage.gateway(0)?, stage.gateway(1)?];
    let mut users = JoinSet::new();
    for number in 0..USERS {
        users.spawn(user(number, gateways.clone(), Arc::clone(&done)));
    }
    wait_until(&done, 60).await?;
    stage.instances[0].signal(Signal::SIGKILL)?;
    wait_until(&done, 140).await?;
    let leader = stage.cluster.leader().await?;
    stage.cluster.kill(leader)?;
    wait_until(&done, 220).await?;
    stage.gateways[1].signal(Signal::SIGKILL)?;
    wait_until(&done, 300).await?;
    stage.instances[1].signal(Signal::SIGKILL)?;
    wait_until(&done, 380).await?;
    stage.cluster.start_node(leader)?;
    let mut told = Told::default();
    let limit = Limit::new(LIMIT);
    while let Some(ended) = users.join_next().await {
        limit.check(|| "the end of the users".to_owned())?;
        for (text, answer) in ended.map_err(|error| Failure::new(error.to_string()))?? {
            told.note(&text, &answer)?;
        }
    }
    Ok(told)
}

/// A query that works for so long that it is there when something happens.
fn begin_long(gateway: &Http, text: &str) -> tokio::task::JoinHandle<Result<Answer>> {
    let (gateway, path) = (gateway.clone(), format!("/query/{text}?ms=60000"));
    tokio::spawn(async move { Ok(gateway.get(&path).await?) })
}

/// Who leaves the line frees its place, and whose instance dies at work is told so.
async fn leaving_and_disconnected(stage: &mut Stage) -> Result<()> {
    let gateway = stage.gateway(0)?;
    let busy = |count: usize| {
        move |pool: &Value| {
            let instances = pool["Instances"].as_array();
            let held = |instance: &Value| instance["Busy"].as_array().map_or(0, Vec::len);
            instances.map_or(0, |all| all.iter().map(held).sum::<usize>()) == count
        }
    };
    stage.wait_for_pool(busy(0)).await?;
    let at_work = [begin_long(&gateway, "third"), begin_long(&gateway, "fourth")];
    stage.wait_for_pool(busy(2)).await?;
    let leaves = begin_long(&gateway, "leaves");
    stage.wait_for_pool(|pool| pool["Waiting"] == 1).await?;
    leaves.abort();
    stage.wait_for_pool(|pool| pool["Waiting"] == 0).await?;

    stage.instances[2].signal(Signal::SIGKILL)?;
    stage.instances[3].signal(Signal::SIGKILL)?;
    for query in at_work {
        let answer = query.await.map_err(|error| Failure::new(error.to_string()))??;
        let mut told = Told::default();
        told.note("a long query", &answer)?;
        if told.disconnected != 1 {
            return Err(Failure::new(format!("{} {}", answer.status, answer.text())));
        }
    }
    // They are critical and still registered: nobody can be served, until they are gone for good.
    let waits = begin_long(&gateway, "waits");
    stage.wait_for_pool(|pool| pool["Waiting"] == 1).await?;
    let server = stage.server()?;
    let rows = server.must_get("/v1/catalog/service/rdb").await?;
    for row in rows.as_array().into_iter().flatten() {
        let (node, id) = (row["Node"].as_str(), row["ServiceID"].as_str());
        let body = serde_json::json!({"Node": node, "ServiceID": id}).to_string();
        server.must_put("/v1/catalog/deregister", body).await?;
    }
    let answer = waits.await.map_err(|error| Failure::new(error.to_string()))??;
    if answer.status != 503 || !answer.text().starts_with("Service Unavailable") {
        return Err(Failure::new(format!("{} {}", answer.status, answer.text())));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_user_of_the_query_router_gets_one_answer_whoever_dies() {
    let mut stage = Stage::set().await.unwrap();
    let told = many_users(&mut stage).await.unwrap();
    let Told { answered, unavailable, disconnected, .. } = told;
    println!("{answered} answered, {unavailable} unavailable, {disconnected} disconnected");
    assert_eq!(answered + unavailable + disconnected, USERS * QUERIES);
    assert_eq!(unavailable, 0, "there always was an instance");
    // Each killed instance had one query, and its next ones were not sent.
    assert!(disconnected <= 4, "{disconnected} were disconnected");
    stage.cluster.wait_all_ready().await.unwrap();
    leaving_and_disconnected(&mut stage).await.unwrap();
    for instance in &mut stage.instances {
        let said = instance.heard();
        assert!(!said.iter().any(|line| line.starts_with("two at a time")), "{said:?}");
    }
    stage.cluster.finish().await.unwrap();
}
