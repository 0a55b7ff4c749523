//! Agents of hosts: two hosts with the same ids never affect each other, whichever servers they use; and a server
//! that is configured with a Consul agent's file registers what the file defines.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jepsen_style_tests::http::{AnswerExt as _, Http, HttpExt as _};
use jepsen_style_tests::process::{Process, free_ports};
use jepsen_style_tests::turn::Turn;
use jepsen_style_tests::{Cluster, Failure, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// How long a server that was just started may take to answer: what Consul's own suite waits for it.
const START_MAX: Duration = Duration::from_secs(2);
/// The same on a machine that is busy with other things.
const BUSY_START_MAX: Duration = Duration::from_secs(10);
/// How long a change may take to show.
const SHOW_MAX: Duration = Duration::from_secs(10);
/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// A host and the servers that it happens to speak to.
struct Host {
    name: &'static str,
    servers: Vec<Http>,
}

impl Host {
    async fn put(&self, server: usize, path: &str, body: &Value) -> Result<u16> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}agent={}", self.name);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        Ok(self.servers[server].put(&path, body).await?.status)
    }

    async fn must_put(&self, server: usize, path: &str) -> Result<()> {
        match self.put(server, path, &Value::Null).await? {
            200 => Ok(()),
            status => Err(Failure::new(format!("{} {path}: {status}", self.name))),
        }
    }

    /// Status and text of the health of the host's service `web`, the same from every server.
    async fn health(&self) -> Result<(u16, String)> {
        let path = format!("/v1/agent/health/service/id/web?format=text&agent={}", self.name);
        let mut seen = Vec::new();
        for server in &self.servers {
            let answer = server.get(&path).await?;
            seen.push((answer.status, answer.text()));
        }
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "servers disagree: {seen:?}");
        Ok(seen.remove(0))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_with_the_same_ids_do_not_touch_each_other() {
    let cluster = Cluster::start_shared(3).await.unwrap();
    let servers = cluster.https(&cluster.ids());
    let left = Host { name: "left", servers: servers.clone() };
    let right = Host { name: "right", servers };
    play(&left, &right).await.unwrap();
    no_server_leaves(&left.servers).await.unwrap();
    cluster.finish().await.unwrap();
}

async fn play(left: &Host, right: &Host) -> Result<()> {
    let word = |status: u16, word: &str| (status, word.to_owned());
    let web = json!({"Name": "web", "Check": {"TTL": "10m"}});
    assert_eq!(left.put(0, "/v1/agent/service/register", &web).await?, 200);
    assert_eq!(right.put(1, "/v1/agent/service/register", &web).await?, 200);
    assert_eq!(left.health().await?, word(503, "critical"));

    // A heartbeat through another server than the registration, and through a third one.
    left.must_put(1, "/v1/agent/check/pass/service:web").await?;
    right.must_put(2, "/v1/agent/check/warn/service:web").await?;
    assert_eq!(left.health().await?, word(200, "passing"));
    assert_eq!(right.health().await?, word(429, "warning"));
    let stranger = Host { name: "stranger", servers: left.servers.clone() };
    let beat = "/v1/agent/check/pass/service:web";
    assert_eq!(stranger.put(0, beat, &Value::Null).await?, 409, "which of the two is meant?");

    left.must_put(2, "/v1/agent/service/maintenance/web?enable=true&reason=update").await?;
    assert_eq!(left.health().await?, word(503, "maintenance"));
    assert_eq!(right.health().await?, word(429, "warning"));
    // To end what one never began ends nobody else's.
    right.must_put(0, "/v1/agent/service/maintenance/web?enable=false").await?;
    assert_eq!(left.health().await?, word(503, "maintenance"));
    left.must_put(0, "/v1/agent/service/maintenance/web?enable=false").await?;
    right.must_put(1, "/v1/agent/maintenance?enable=true").await?;
    assert_eq!(left.health().await?, word(200, "passing"));
    assert_eq!(right.health().await?, word(503, "maintenance"));

    left.must_put(1, "/v1/agent/service/deregister/web").await?;
    let instances = left.servers[2].must_get("/v1/health/service/web").await?;
    assert_eq!(instances[0]["Node"]["Node"], "right");
    assert_eq!(instances.as_array().map(Vec::len), Some(1));

    // A host leaves with everything on it; no server does.
    right.must_put(2, "/v1/agent/leave").await?;
    let nodes = right.servers[0].must_get("/v1/catalog/nodes").await?;
    let names: Vec<&str> =
        nodes.as_array().into_iter().flatten().filter_map(|node| node["Node"].as_str()).collect();
    assert!(!names.contains(&"right") && names.contains(&"left"), "{names:?}");
    // A server that is busy for a moment counts as unhealthy until it answers again.
    let tolerant = |health: &Value| health["FailureTolerance"] == 1;
    let path = "/v1/operator/autopilot/health";
    right.servers[1].wait_for(path, SHOW_MAX, tolerant).await.map(drop)
}

/// A server's host stays as long as the server, whoever says goodbye in its name, and the answer says how a server
/// leaves.
async fn no_server_leaves(servers: &[Http]) -> Result<()> {
    for query in ["", "?agent=quorate", "?agent=n2"] {
        for server in servers {
            let answer = server.put(&format!("/v1/agent/leave{query}"), "").await?;
            assert_eq!(answer.status, 400, "{query}: {}", answer.text());
            assert!(answer.text().contains("is the host of server n"), "{}", answer.text());
            assert!(answer.text().contains("DELETE /v1/operator/raft/peer?id=ID"), "{query}");
        }
    }
    let members = servers[0].must_get("/v1/operator/raft/configuration").await?;
    assert_eq!(members["Servers"].as_array().map(Vec::len), Some(servers.len()));
    let healthy = |health: &Value| health["Healthy"] == true;
    servers[0].wait_for("/v1/operator/autopilot/health", SHOW_MAX, healthy).await.map(drop)
}

/// An agent that was started with a file.
struct Agent {
    process: Process,
    http: Http,
    file: PathBuf,
}

impl Agent {
    /// Starts `quorate agent` on free ports, with what a file says besides them.
    fn start(directory: &Path, mut file: Value) -> Result<Self> {
        let ports = free_ports(Ipv4Addr::LOCALHOST, 2)?;
        file["ports"] = json!({"http": ports[0], "server": ports[1], "dns": -1});
        let (path, data) = (directory.join("agent.json"), directory.join("data"));
        std::fs::write(&path, file.to_string())?;
        let arguments = ["agent".as_ref(), "-config-file".as_ref(), path.as_os_str()];
        let arguments = arguments.into_iter().chain(["--data-dir".as_ref(), data.as_os_str()]);
        let process = Process::start(&directory.join("log"), arguments)?;
        let http = Http::new(&format!("http://127.0.0.1:{}", ports[0]))?;
        Ok(Self { process, http, file: path })
    }

    /// Changes what the file says of `services`.
    fn define(&self, services: Value) -> Result<()> {
        let mut file: Value = serde_json::from_slice(&std::fs::read(&self.file)?)?;
        file["services"] = services;
        Ok(std::fs::write(&self.file, file.to_string())?)
    }

    /// Waits until this agent has exactly these services.
    async fn has(&self, expected: &[&str]) -> Result<()> {
        let is_it = |services: &Value| {
            services.as_object().into_iter().flat_map(|all| all.keys()).eq(expected)
        };
        let services = self.http.wait_for("/v1/agent/services", SHOW_MAX, is_it).await;
        services.map(drop).map_err(|error| Failure::new(format!("{error}\n{}", self.process.log())))
    }
}

/// Waits for a leader as Consul's own suite does.
async fn leader(http: &Http) -> Duration {
    let began = Instant::now();
    while began.elapsed() < BUSY_START_MAX {
        let answer = http.get("/v1/status/leader").await;
        if answer.is_ok_and(|answer| answer.status == 200 && answer.body.len() > 2) {
            break;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consul_agents_file_starts_a_server_and_defines_its_services() {
    let _turn = Turn::take().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = json!({
        "node_name": "node-a", "bootstrap": true, "server": true, "bind_addr": "127.0.0.1",
        "datacenter": "dc1", "performance": {"raft_multiplier": 1},
        "http_config": {"response_headers": {"X-Site": "here"}},
        "services": [{"name": "web", "port": 80, "check": {"ttl": "10m"}}, {"name": "db"}],
    });
    let agent = Agent::start(directory.path(), file).unwrap();
    let took = leader(&agent.http).await;
    // The suite's limit is for a machine that does nothing else.
    assert!(took < BUSY_START_MAX, "no leader after {took:?}");
    if took > START_MAX {
        eprintln!("a leader after {took:?}, which is more than {START_MAX:?}: a busy machine?");
    }
    reload(&agent).await.unwrap();
}

async fn reload(agent: &Agent) -> Result<()> {
    let http = &agent.http;
    agent.has(&["db", "web"]).await?;
    let about = http.must_get("/v1/agent/self").await?;
    assert_eq!(about["Config"]["NodeName"], "node-a");
    let nodes = http.get("/v1/catalog/nodes").await?;
    assert_eq!(nodes.known_leader(), Some(true));
    assert!(nodes.require_index()? >= 2);
    // The leader says that a server is alive when it has seen it, which may be after the files were read.
    let is_alive = |checks: &Value| checks.to_string().contains("serfHealth");
    http.wait_for("/v1/health/node/node-a", SHOW_MAX, is_alive).await?;

    // What a client registers and says outlives a reload, what vanished from the file does not.
    http.must_put("/v1/agent/service/register", r#"{"Name":"mine"}"#).await?;
    http.must_put("/v1/agent/check/pass/service:web", "").await?;
    http.must_put("/v1/agent/service/maintenance/web?enable=true", "").await?;
    agent.define(json!([{"name": "web", "port": 81, "check": {"ttl": "10m"}}]))?;
    http.must_put("/v1/agent/reload", "").await?;
    agent.has(&["mine", "web"]).await?;
    assert_eq!(http.must_get("/v1/agent/service/web").await?["Port"], 81);
    let checks = http.must_get("/v1/agent/checks").await?;
    assert_eq!(checks["service:web"]["Status"], "passing");
    assert_eq!(checks["_service_maintenance:web"]["Status"], "critical");

    // An invalid file changes nothing and is reported; a signal reloads as well.
    agent.define(json!([{"name": "api"}, {"nope": 1}]))?;
    let refused = http.put("/v1/agent/reload", "").await?;
    assert_eq!(refused.status, 500);
    assert!(refused.text().contains("unknown field"), "{}", refused.text());
    agent.has(&["mine", "web"]).await?;
    agent.define(json!([{"name": "api"}]))?;
    agent.process.signal(Signal::SIGHUP)?;
    agent.has(&["api", "mine"]).await
}
