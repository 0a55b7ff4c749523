//! Every area's calls, each once, through a client that knows all servers.

use std::time::Duration;

use jepsen_style_tests::{Cluster, Failure, Limit, Result};
use quorate_client::api::{Frame, OnClose, PresenceFrame};
use quorate_client::types::agent::{
    CheckRegistration, CheckSpecification, CheckUpdate, ServiceRegistration,
};
use quorate_client::types::catalog::{self, Deregistration, ServiceDefinition};
use quorate_client::types::heartbeat::Heartbeat;
use quorate_client::types::live::PresenceRegistration;
use quorate_client::types::session::SessionCreate;
use quorate_client::types::txn::TxnResult;
use quorate_client::{Client, Query};

/// What happens by itself shows within this.
const LIMIT: Duration = Duration::from_secs(20);
const HOUR_NANOS: i64 = 3_600_000_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_of_every_area() {
    let cluster = Cluster::start_shared(3).await.unwrap();
    let addresses = cluster.ids().into_iter().map(|id| cluster.http(id).base().to_owned());
    let client = Client::builder(addresses).spread().build().unwrap();
    wait_for_level(&client).await.unwrap();
    status(&client).await.unwrap();
    keys(&client).await.unwrap();
    transactions(&client).await.unwrap();
    sessions(&client).await.unwrap();
    agent_and_health(&client).await.unwrap();
    catalogue(&client).await.unwrap();
    heartbeats(&client).await.unwrap();
    presence(&client).await.unwrap();
    history_and_streams(&client).await.unwrap();
    events(&client).await.unwrap();
    operator(&client).await.unwrap();
    snapshots(&client).await.unwrap();
    cluster.finish().await.unwrap();
}

/// A new cluster has all its rules a moment after it is founded.
pub(crate) async fn wait_for_level(client: &Client) -> Result<()> {
    const PRESENCE_LEVEL: u32 = 5;
    let limit = Limit::new(LIMIT);
    while client.status().state_hash().await?.level < PRESENCE_LEVEL {
        limit.pause(|| "the rules of presence".to_owned()).await?;
    }
    Ok(())
}

fn require(holds: bool, what: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(Failure::new(what)) }
}

async fn status(client: &Client) -> Result<()> {
    require(client.status().leader().await?.is_some(), "a leader")?;
    require(client.status().peers().await?.len() == 3, "three peers")?;
    client.status().ready().await?;
    client.status().live().await?;
    require(client.status().state_hash().await?.hash.len() >= 16, "a hash")?;
    require(client.addresses().len() == 3, "three addresses")
}

async fn keys(client: &Client) -> Result<()> {
    let (kv, now) = (client.kv(), Query::new());
    require(kv.get("k/none", &now).await?.value.is_none(), "no such key")?;
    require(kv.create("k/a b?", "1").await?, "the key is new")?;
    require(!kv.create("k/a b?", "2").await?, "the key is there")?;
    let pair = kv.get("k/a b?", &now).await?.value.ok_or_else(|| Failure::new("a pair"))?;
    require(pair.value == b"1" && pair.key == "k/a b?", "the pair as it was written")?;
    require(!kv.cas("k/a b?", "3", pair.modify_index + 1).await?, "another index")?;
    require(kv.cas("k/a b?", "3", pair.modify_index).await?, "the present index")?;
    kv.put("k/c", "4").await?;
    require(kv.put_with("k/c", "5", &Query::new().with("flags", "7")).await?, "flags")?;
    kv.put_json("k/json", &vec![1, 2, 3]).await?;
    let seen = kv.get_json::<Vec<u8>>("k/json").await?.ok_or_else(|| Failure::new("JSON"))?;
    require(seen.value == [1, 2, 3], "the JSON as it was written")?;
    require(kv.cas_json("k/json", &[4], seen.modify_index).await?, "JSON by its index")?;
    let sum = |old: Option<Vec<u8>>| [old.unwrap_or_default(), vec![5]].concat();
    require(kv.update("k/json", sum).await? == [4, 5], "a change by a function")?;
    require(kv.get_json::<String>("k/json").await.is_err(), "another type")?;
    // Its own writes, read from any server's own state.
    let stale = kv.list("k/", &Query::new().stale()).await?;
    require(stale.value.len() == 3 && stale.index.is_some(), "own writes in a stale read")?;
    let names = kv.keys("k/", &Query::new().with("separator", "/")).await?.value;
    require(names == ["k/a b?", "k/c", "k/json"], "names")?;
    let index = stale.index.unwrap_or_default();
    let (woken, written) =
        tokio::join!(async { kv.get("k/c", &Query::new().after(index, LIMIT)).await }, async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            kv.put("k/c", "6").await
        });
    written?;
    require(woken?.index > Some(index), "a blocking query wakes")?;
    let index = kv.get("k/c", &now).await?.value.map_or(0, |pair| pair.modify_index);
    require(!kv.delete_cas("k/c", index + 1).await?, "another index")?;
    require(kv.delete_cas("k/c", index).await?, "the present index")?;
    kv.delete("k/none").await?;
    kv.delete_tree("k/").await?;
    require(kv.list("k/", &now).await?.value.is_empty(), "nothing is left")
}

async fn transactions(client: &Client) -> Result<()> {
    let done = client.txn().check_not_exists("t/a").set("t/a", "1").get("t/a").commit().await?;
    let results = done.map_err(|conflict| Failure::new(format!("{conflict:?}")))?;
    let read = results.last().and_then(|result| match result {
        TxnResult::Kv(pair) => Some(pair.clone()),
        TxnResult::Node(_) | TxnResult::Service(_) | TxnResult::Check(_) => None,
    });
    let pair = read.ok_or_else(|| Failure::new("a result"))?;
    require(pair.value == b"1", "the value that was written")?;
    let refused = client.txn().cas("t/a", "2", pair.modify_index + 1).set("t/b", "1");
    let conflict = refused.commit().await?.err().ok_or_else(|| Failure::new("a conflict"))?;
    require(conflict.errors[0].op_index == 0, "the first operation failed")?;
    let reads = client.txn().check_index("t/a", pair.modify_index).get_tree("t/");
    require(reads.commit().await?.is_ok_and(|results| results.len() == 2), "two reads")?;
    let gone = client.txn().delete_cas("t/a", pair.modify_index).delete_tree("t/").delete("t/x");
    require(gone.commit().await?.is_ok(), "deletions")
}

async fn sessions(client: &Client) -> Result<()> {
    let new = SessionCreate { ttl: "60s".to_owned(), ..SessionCreate::default() };
    let id = client.sessions().create(&new).await?;
    let found = client.sessions().info(&id, &Query::new()).await?.value;
    let node = found.ok_or_else(|| Failure::new("the session"))?.node;
    let of_node = client.sessions().of_node(&node, &Query::new()).await?.value;
    require(of_node.iter().any(|session| session.id == id), "it is one of its node")?;
    require(client.sessions().renew(&id).await?.is_some(), "it is renewed")?;
    require(client.kv().acquire("s/lock", "me", &id).await?, "the lock is free")?;
    require(client.kv().release("s/lock", "me", &id).await?, "the lock is held")?;
    let locked = client.txn().lock("s/lock", "me", &id).check_session("s/lock", &id);
    require(locked.unlock("s/lock", "", &id).commit().await?.is_ok(), "a lock in a transaction")?;
    client.sessions().destroy(&id).await?;
    client.sessions().destroy(&id).await?;
    let error = client.sessions().renew(&id).await.err();
    require(error.is_some_and(|error| error.is_not_found()), "it has ended")?;
    require(client.sessions().list(&Query::new()).await?.value.is_empty(), "no session is left")
}

async fn agent_and_health(client: &Client) -> Result<()> {
    let (agent, now) = (client.agent(), Query::new());
    let check = CheckSpecification { ttl: HOUR_NANOS, ..CheckSpecification::default() };
    let service = ServiceRegistration {
        name: "web".to_owned(),
        id: "web-1".to_owned(),
        port: 8080,
        tags: vec!["blue".to_owned()],
        check: Some(check.clone()),
        ..ServiceRegistration::default()
    };
    agent.register(&service).await?;
    require(agent.service("web-1").await?.port == 8080, "the instance")?;
    require(agent.services(&now).await?.contains_key("web-1"), "it is listed")?;
    let entries = client.health().service("web", &now).await?.value;
    require(entries.len() == 1 && entries[0].status() == "critical", "critical at first")?;
    require(!entries[0].address().is_empty(), "an address")?;
    require(agent.health_by_id("web-1").await?.aggregated_status == "critical", "its health")?;
    agent.warn("service:web-1", "so so").await?;
    require(agent.health_by_name("web").await?[0].aggregated_status == "warning", "by name")?;
    agent.fail("service:web-1", "no").await?;
    let update = CheckUpdate { status: "passing".to_owned(), output: "well".to_owned() };
    agent.update_check("service:web-1", &update).await?;
    agent.pass("service:web-1", "well").await?;
    let passing = Query::new().passing().tag("blue").filter("Service.Port == 8080");
    require(client.health().service("web", &passing).await?.value.len() == 1, "it passes")?;
    let more = CheckRegistration {
        id: "more".to_owned(),
        service_id: "web-1".to_owned(),
        specification: CheckSpecification { name: "more".to_owned(), ..check },
    };
    agent.register_check(&more).await?;
    require(agent.checks(&now).await?.len() == 2, "two checks")?;
    require(client.health().checks("web", &now).await?.value.len() == 2, "two of the service")?;
    let critical = client.health().state("critical", &now).await?.value;
    require(critical.iter().any(|check| check.check_id == "more"), "one is critical")?;
    let node = entries[0].node.node.as_str();
    require(client.health().node(node, &now).await?.value.len() >= 3, "with the node's own")?;
    agent.deregister_check("more").await?;
    agent.service_maintenance("web-1", Some("paint")).await?;
    agent.service_maintenance("web-1", None).await?;
    agent.maintenance(Some("paint")).await?;
    require(client.health().service("web", &passing).await?.value.is_empty(), "maintenance")?;
    agent.maintenance(None).await?;
    agent.deregister("web-1").await?;
    require(agent.deregister("web-1").await.is_err_and(|error| error.is_not_found()), "gone")?;
    require(!agent.about().await?.config.version.is_empty(), "a version")?;
    require(agent.members().await?.len() >= 3, "members")?;
    require(agent.host().await?.memory.is_some(), "memory")?;
    require(!agent.version().await?.human_version.is_empty(), "a version")?;
    require(!agent.metrics().await?.gauges.is_empty(), "figures")
}

async fn catalogue(client: &Client) -> Result<()> {
    let (catalog, now) = (client.catalog(), Query::new());
    let db = ServiceDefinition {
        service: "db".to_owned(),
        id: "db-1".to_owned(),
        port: 5432,
        ..ServiceDefinition::default()
    };
    let registration = catalog::Registration {
        node: "far".to_owned(),
        address: "10.0.0.9".to_owned(),
        service: Some(db),
        ..catalog::Registration::default()
    };
    catalog.register(&registration).await?;
    require(catalog.services(&now).await?.value.contains_key("db"), "the service")?;
    require(catalog.service("db", &now).await?.value[0].service_port == 5432, "its instance")?;
    let nodes = catalog.nodes(&now).await?.value;
    require(nodes.iter().any(|node| node.node == "far"), "the node")?;
    let far = catalog.node("far", &now).await?.value.ok_or_else(|| Failure::new("a node"))?;
    require(far.services.contains_key("db-1"), "the node with its instance")?;
    require(catalog.node("none", &now).await?.value.is_none(), "no such node")?;
    let list = catalog.node_services("far", &now).await?.value.services;
    require(list.is_some_and(|list| list.len() == 1), "the same as a list")?;
    require(catalog.datacenters().await?.len() == 1, "one datacenter")?;
    let gone = Deregistration { node: "far".to_owned(), ..Deregistration::default() };
    catalog.deregister(&gone).await?;
    require(catalog.node("far", &now).await?.value.is_none(), "the node is gone")
}

async fn heartbeats(client: &Client) -> Result<()> {
    let beat = |id: &str| Heartbeat {
        service: "rdb".to_owned(),
        id: id.to_owned(),
        pid: Some(7),
        version: Some("4.0".to_owned()),
        ..Heartbeat::default()
    };
    let mut wrong = beat("rdb-3");
    wrong.status = Some("odd".to_owned());
    let answer = client.heartbeat(&[beat("rdb-1"), beat("rdb-2"), wrong]).await?;
    require((answer.accepted, answer.registered) == (2, 2), "two are registered")?;
    require(answer.rejected.len() == 1 && answer.rejected[0].id == "rdb-3", "one is refused")?;
    require(client.renew(&["rdb-1", "rdb-2", "none"]).await?.accepted == 2, "two are renewed")?;
    let query = Query::new().with("service", "rdb").with("status", "passing");
    let rows = client.instances(&query).await?.value;
    require(rows.len() == 2 && rows[0].pid == Some(7), "their rows")?;
    client.agent().deregister("rdb-1").await?;
    Ok(client.agent().deregister("rdb-2").await?)
}

async fn presence(client: &Client) -> Result<()> {
    let service = ServiceRegistration {
        name: "worker".to_owned(),
        id: "worker-1".to_owned(),
        ..ServiceRegistration::default()
    };
    let registration = PresenceRegistration { service, ..PresenceRegistration::default() };
    let linger = Duration::from_millis(100);
    let mut open = client.presence(&registration, linger, OnClose::Critical).await?;
    require(open.registered().id == "worker-1", "it is registered")?;
    let passing = Query::new().with("service", "worker").with("status", "passing");
    require(client.instances(&passing).await?.value.len() == 1, "it passes")?;
    client.agent().deregister("worker-1").await?;
    require(open.next().await? == Some(PresenceFrame::Deregistered), "it is told")?;
    let open = client.presence(&registration, linger, OnClose::Deregister).await?;
    drop(open);
    let limit = Limit::new(LIMIT);
    let all = Query::new().with("service", "worker");
    while !client.instances(&all).await?.value.is_empty() {
        limit.pause(|| "the end of a presence".to_owned()).await?;
    }
    Ok(())
}

async fn history_and_streams(client: &Client) -> Result<()> {
    let page = client.history().list(&Query::new().with("service", "worker")).await?;
    let kinds: Vec<_> = page.records.iter().map(|record| record.kind.as_str()).collect();
    require(kinds.contains(&"service.registered"), "it was registered")?;
    let last = page.last_seq.ok_or_else(|| Failure::new("a last record"))?;
    require(page.oldest_seq.is_some_and(|oldest| oldest <= last), "the oldest record")?;
    let mut stream =
        client.stream(&Query::new().with("prefix", "h/").with("since", last.to_string())).await?;
    client.kv().put("h/a", "1").await?;
    let limit = Limit::new(LIMIT);
    let seq = loop {
        limit.check(|| "a change".to_owned())?;
        match stream.next().await? {
            Some(Frame::Change(change)) if change.event.key == "h/a" => break change.event.seq,
            Some(_) => {}
            None => return Err(Failure::new("the stream has ended")),
        }
    };
    require(seq > last, "a later record")?;
    let wait = Query::new().with("key", "h/a").with("since", "0").waiting(LIMIT);
    require(!client.history().list(&wait).await?.records.is_empty(), "the same in the list")?;
    let now = Query::new();
    require(client.explain().key("h/a", &now).await?.why.contains("h/a"), "why it is there")?;
    require(!client.explain().service("worker-1", &now).await?.timeline.is_empty(), "a timeline")?;
    let node = client.agent().about().await?.config.node_name;
    require(!client.explain().node(&node, &now).await?.why.is_empty(), "a node")?;
    let check = client.explain().check("presence:worker-1", &now).await?;
    require(check.subject.kind == "check", "a check that is gone")?;
    let unknown = client.explain().session("8a4b3b0e-6d07-4f40-9d7a-0f6a7e0d1b11", &now).await;
    require(unknown.is_err_and(|error| error.is_not_found()), "what never was")
}

async fn events(client: &Client) -> Result<()> {
    let event = client.events().fire("deploy", "v2", &Query::new()).await?;
    let list = client.events().list(&Query::new().with("name", "deploy")).await?.value;
    require(list.iter().any(|one| one.id == event.id && one.payload == b"v2"), "the event")
}

async fn operator(client: &Client) -> Result<()> {
    let operator = client.operator();
    let servers = operator.raft_configuration(&Query::new()).await?.servers;
    require(servers.len() == 3 && servers.iter().any(|server| server.leader), "three servers")?;
    require(operator.transfer_leader(None).await?, "another leader")?;
    let settings = operator.autopilot(&Query::new()).await?;
    require(operator.set_autopilot(&settings).await?, "the settings as they are")?;
    require(operator.autopilot_health().await?.servers.len() == 3, "the servers' health")?;
    require(operator.autopilot_state().await?.voters.len() == 3, "the voters")?;
    require(!operator.usage(&Query::new()).await?.usage.is_empty(), "how much there is")?;
    require(operator.remove_server(99).await.is_err(), "no such server")
}

async fn snapshots(client: &Client) -> Result<()> {
    client.kv().put("backup", "before").await?;
    let mut archive = Vec::new();
    let bytes = client.snapshots().save(&Query::new(), &mut archive).await?;
    require(bytes == archive.len() as u64 && bytes > 100, "an archive")?;
    client.kv().put("backup", "after").await?;
    client.snapshots().restore(archive).await?;
    let pair = client.kv().get("backup", &Query::new()).await?.value;
    require(pair.is_some_and(|pair| pair.value == b"before"), "the value of the backup")?;
    require(client.snapshots().restore("no archive").await.is_err(), "no archive")
}
