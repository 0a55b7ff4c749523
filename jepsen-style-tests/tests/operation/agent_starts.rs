//! What starts with Consul's flags and files starts here: each line of a table, as its own process. A configuration
//! that asks for protection that Quorate does not have is refused, with the reason.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use jepsen_style_tests::http::{AnswerExt as _, Http, HttpExt as _};
use jepsen_style_tests::process::{Process, free_ports};
use jepsen_style_tests::turn::Turn;
use jepsen_style_tests::{Failure, Limit, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long a process may take to start or to end on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many of the table's processes run at a time.
const AT_A_TIME: usize = 8;

/// An agent with a directory of its own, and the loopback address that stands for its machine.
struct Agent {
    process: Process,
    ip: Ipv4Addr,
}

/// A loopback address that no other process of this test has.
fn next_ip() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    // 127.1.y is left to people, and clusters take what is above.
    let pid = std::process::id().to_le_bytes();
    Ipv4Addr::new(127, 1, pid[0] ^ pid[1], NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Agent {
    /// Starts `quorate agent` with a command line: `%ip` in it stands for `ip`, `%dir` for the directory.
    fn start(directory: &Path, ip: Ipv4Addr, line: &str) -> Result<Self> {
        let dir = directory.display().to_string();
        let words = split(line).into_iter();
        let words = words.map(|word| word.replace("%ip", &ip.to_string()).replace("%dir", &dir));
        let arguments = ["agent".to_owned()].into_iter().chain(words);
        Ok(Self { process: Process::start(&directory.join("output"), arguments)?, ip })
    }

    fn http(&self, port: u16) -> Result<Http> {
        Ok(Http::new(&format!("http://{}:{port}", self.ip))?)
    }

    fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until it knows a leader; returns who that is.
    async fn leader(&mut self, port: u16) -> Result<String> {
        let (http, limit) = (self.http(port)?, Limit::new(PATIENCE));
        loop {
            if let Some(status) = self.process.ended()? {
                return Err(Failure::new(format!("ended with {status}\n{}", self.log())));
            }
            let answer = http.get("/v1/status/leader").await;
            if let Ok(answer) = answer
                && answer.status == 200
                && answer.body.len() > 2
            {
                return Ok(answer.text().trim_matches('"').to_owned());
            }
            limit.pause(|| format!("a leader\n{}", self.log())).await?;
        }
    }

    /// Waits until an answer of its is as wanted.
    async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool + Send + Sync) -> Value {
        let http = self.http(8500).expect("it has an address");
        let seen = http.wait_for(path, PATIENCE, wanted).await;
        seen.unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }
}

/// The agents of one test, each in a directory of its own. Their own directory goes before the turn does.
struct Agents {
    directory: TempDir,
    _turn: Turn,
}

impl Agents {
    async fn new() -> Self {
        let turn = Turn::share().await.unwrap();
        Self { directory: tempfile::tempdir().unwrap(), _turn: turn }
    }

    fn place(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts an agent in the directory of this name.
    fn start(&self, name: &str, ip: Ipv4Addr, line: &str) -> Agent {
        Agent::start(&self.place(name), ip, line).unwrap()
    }

    /// Starts an agent, and waits until it knows a leader.
    async fn started(&self, name: &str, ip: Ipv4Addr, line: &str) -> Agent {
        let mut agent = self.start(name, ip, line);
        agent.leader(8500).await.unwrap();
        agent
    }

    /// Starts a server that is a cluster of its own, and waits until it leads; `more` follows in its command line.
    async fn server(&self, ip: Ipv4Addr, more: &str) -> Agent {
        let line = "-server -bootstrap -node s1 -bind %ip -client %ip -data-dir %dir/data";
        self.started("s", ip, &format!("{line} {more}")).await
    }
}

/// The words of a line; single quotes hold one together.
fn split(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in line.trim().chars() {
        match character {
            '\'' => quoted = !quoted,
            blank if blank.is_whitespace() && !quoted => {
                if words.last().is_some_and(|word| !word.is_empty()) {
                    words.push(String::new());
                }
            }
            other => words.last_mut().expect("never empty").push(other),
        }
    }
    words
}

/// Where the table's processes serve, so that each can be asked.
const PORTS: &str = "-http-port 8500 -server-port 8300 -dns-port 8600";

/// Command lines with which an agent must start and know a leader.
const STARTS: &[&str] = &[
    "-dev -ui -client %ip -bind %ip",
    "-dev -bind %ip -client %ip -advertise 192.0.2.77 -node-id 6b1f3c1e-94a5-4ab1-a7f6-7c6dbb1f4c11",
    "-dev -bind %ip -client %ip -node-meta rack:7 -node-meta zone:a -log-json -log-file %dir/log -pid-file %dir/pid",
    "-dev -bind %ip -client %ip -rejoin -retry-interval 1s -retry-max 3 -serf-lan-port 8301 -serf-wan-port 8302 -grpc-port 8502 -https-port -1 -domain example.",
    "-server=true -bootstrap -bind %ip -client %ip -data-dir %dir/data -log-level debug -datacenter DC1",
    "-config-format=hcl -config-file %dir/../file.conf -bind %ip -client %ip -data-dir %dir/data",
    "-config-dir %dir/../mixed -config-file %dir/../last.json -bind %ip -client %ip -data-dir %dir/data",
    "-config-file %dir/../empty.json -dev -bind %ip -client %ip",
    "-dev -bind %ip -client '%ip unix://%dir/q.sock'",
    "-server -bootstrap -insecure-rpc -bind 0.0.0.0 -advertise %ip -server-port 7391 -serf-lan-port -1 -client %ip -data-dir %dir/data",
    "-dev -bind '{{ GetInterfaceIP \"lo\" }}' -server-port 7392 -client %ip",
    "-dev -client %ip -bind %ip -encrypt x -ignore-unsupported -hcl 'audit { enabled = true }'",
    "-server -bootstrap-expect=1 -retry-join nobody.invalid -bind %ip -client %ip -data-dir %dir/data",
];

/// Starts that must not, and what their last lines must name.
const REFUSED: &[(&str, &str)] = &[
    ("-dev -encrypt pUqJrVyVRj5jsiYEkM/tFQ==", "encrypt"),
    ("-dev -https-port 8501", "ports.https"),
    ("-dev -allow-write-http-from 127.0.0.0/8", "http_config.allow_write_http_from"),
    ("-dev -hcl 'acl { enabled = true default_policy = \"foo\" }'", "default ACL policy"),
    ("-dev -hcl 'acl { default_policy = \"deny\" }'", "acl.enabled"),
    ("-dev -hcl 'tls { defaults { verify_incoming = true } }'", "verify_incoming"),
    ("-dev -hcl 'ca_file = \"/no/such\"'", "ca_file"),
    ("-dev -hcl 'http_config { block_endpoints = [\"/v1/kv\"] }'", "http_config.block_endpoints"),
    ("-dev -hcl 'acl { enabld = true }'", "acl.enabld"),
    ("-dev -hcl 'server = '", "-hcl"),
    ("-data-dir %dir/data -client %ip", "\"server\": true"),
    ("-bootstrap -data-dir %dir/data", "need \"server\": true"),
    ("-dev -datacenter 'a b'", "datacenter"),
    ("-dev -node-id 7", "node_id"),
    ("-dev -nope", "--nope"),
    ("-dev -retry-join 'provider=aws tag_key=x'", "cloud providers"),
];

fn write_files(directory: &Path) -> Result<()> {
    let mixed = directory.join("mixed");
    std::fs::create_dir_all(&mixed)?;
    let write = |path: PathBuf, text: &str| std::fs::write(path, text);
    write(mixed.join("a.hcl"), "server = true\nnode_name = \"a\"\nports {\n  http = 1\n}\n")?;
    write(mixed.join("b.json"), r#"{"node_name": "b", "bootstrap": true}"#)?;
    write(
        mixed.join("c.hcl"),
        "service {\n  name = \"from-hcl\"\n}\nservices = [{ name = \"second\" }]\n",
    )?;
    write(
        directory.join("last.json"),
        r#"{"node_name": "last", "service": {"name": "from-json"}, "services": {"name": "third"}}"#,
    )?;
    write(directory.join("file.conf"), "server = true\nbootstrap_expect = 1\n")?;
    Ok(write(directory.join("empty.json"), "")?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_starts_with_consul_starts_here() {
    let agents = Agents::new().await;
    write_files(agents.directory.path()).unwrap();
    let numbered: Vec<_> = STARTS.iter().enumerate().collect();
    for some in numbered.chunks(AT_A_TIME) {
        let mut started = Vec::new();
        for (number, line) in some {
            let name = number.to_string();
            // Given first, so that a later one of the line wins.
            let line = format!("{PORTS} {line}");
            let agent = agents.start(&name, next_ip(), &line);
            started.push((line, agent, agents.place(&name)));
        }
        for (line, agent, place) in &mut started {
            let leader = agent.leader(8500).await;
            let leader = leader.unwrap_or_else(|error| panic!("{line}: {error}"));
            judge(line, &leader, agent, place).await.unwrap();
        }
    }
}

/// What some of the table's agents must show besides a leader.
async fn judge(line: &str, leader: &str, agent: &Agent, directory: &Path) -> Result<()> {
    let http = agent.http(8500)?;
    if line.contains("192.0.2.77") {
        assert_eq!(leader, "192.0.2.77:8300");
    }
    if line.contains("-pid-file") {
        let pid = std::fs::read_to_string(directory.join("pid"))?;
        assert_eq!(pid.trim(), agent.process.id().to_string());
        let lines = std::fs::read_to_string(directory.join("log"))?;
        let first: Value = serde_json::from_str(lines.lines().next().unwrap_or_default())
            .map_err(|error| Failure::new(format!("{error}: {lines}")))?;
        assert_eq!(first["level"], "INFO");
    }
    if line.contains("unix://") {
        use std::io::{Read, Write};
        let mut socket = std::os::unix::net::UnixStream::connect(directory.join("q.sock"))?;
        socket.write_all(b"GET /v1/status/leader HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        assert!(answer.contains("200 OK") && answer.contains(leader), "{answer}");
    }
    if line.contains("mixed") {
        let about = http.must_get("/v1/agent/self").await?;
        assert_eq!(about["Config"]["NodeName"], "last");
        let defined = ["from-hcl", "from-json", "second", "third"];
        let has_all = |services: &Value| {
            services.as_object().into_iter().flat_map(|all| all.keys()).eq(&defined)
        };
        agent.until("/v1/agent/services", has_all).await;
    }
    if line.contains("-ignore-unsupported") {
        let log = agent.log();
        let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
        let of = |key: &str| warnings.iter().filter(|line| line.contains(key)).count();
        assert_eq!((of(" encrypt: "), of(" audit.enabled: ")), (1, 1), "{log}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_asks_for_protection_that_there_is_not_does_not_start() {
    let agents = Agents::new().await;
    for (number, (line, named)) in REFUSED.iter().enumerate() {
        let Agent { mut process, .. } = agents.start(&number.to_string(), next_ip(), line);
        let code = process.wait_ended(PATIENCE).await;
        let (code, log) = (code.unwrap_or_else(|error| panic!("{line}: {error}")), process.log());
        assert_eq!(code, Some(2), "{line}: {log}");
        assert!(log.contains(named), "{line}: {log}");
    }
}

/// Files that cannot be written, the exit code, and what is said of each: setting, path, what to do.
const UNWRITABLE: &[(&str, i32, [&str; 3])] = &[
    ("-dev -log-file %dir/no/log", 2, ["-log-file (log_file) ", "/no/log: ", "mkdir -p"]),
    ("-dev -log-file %dir", 2, ["-log-file (log_file) ", ": Is a directory", "name a file"]),
    (
        "-dev -log-file %dir/output/log",
        2,
        ["-log-file (log_file) ", "/output/log: ", "directories"],
    ),
    ("-dev -pid-file %dir/no/pid", 1, ["-pid-file (pid_file) ", "/no/pid: ", "mkdir -p"]),
    ("-dev -pid-file %dir", 1, ["-pid-file (pid_file) ", ": Is a directory", "name a file"]),
    (
        "-data-dir %dir/output/data -retry-join %ip -client %ip",
        1,
        ["-data-dir (data_dir) ", "/output/data: ", "directories"],
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_written_is_named_with_what_to_do() {
    let agents = Agents::new().await;
    for (number, (line, code, words)) in UNWRITABLE.iter().enumerate() {
        let Agent { mut process, .. } = agents.start(&number.to_string(), next_ip(), line);
        let ended = process.wait_ended(PATIENCE).await;
        let (ended, log) = (ended.unwrap_or_else(|error| panic!("{line}: {error}")), process.log());
        assert_eq!(ended, Some(*code), "{line}: {log}");
        let last = log.lines().last().unwrap_or_default();
        assert!(words.iter().all(|word| last.contains(word)), "{line}: {log}");
    }
}

/// Three servers whose configurations name each other as Consul's do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_find_each_other_through_their_serf_ports() {
    let agents = Agents::new().await;
    // One machine each: serf's usual port, given and not, and a bare address with another RPC port.
    let machines = [next_ip(), next_ip(), next_ip()];
    let [one, two, _] = machines;
    let apart = format!(
        "-server -bootstrap-expect 3 -server-port 7300 -bind %ip -client %ip -data-dir %dir/data -retry-join {one}:8301 -retry-join {two}"
    );
    let lines = [apart.clone(), apart.clone(), apart];
    form(&agents.place("apart"), &machines, &lines, &[8500; 3]).await.unwrap();

    // One machine for all, with different ports; some are named by host name.
    let ip = Ipv4Addr::LOCALHOST;
    let ports = free_ports(ip, 9).unwrap();
    let line = |number: usize| {
        let (http, rpc, serf) = (ports[number], ports[number + 3], ports[number + 6]);
        format!(
            "-server -bootstrap-expect 3 -bind %ip -client %ip -data-dir %dir/data -dns-port -1 -http-port {http} -server-port {rpc} -serf-lan-port {serf} -retry-join %ip:{} -retry-join localhost:{} -retry-join %ip:{}",
            ports[6], ports[7], ports[8]
        )
    };
    let lines = [line(0), line(1), line(2)];
    let https = [ports[0], ports[1], ports[2]];
    form(&agents.place("together"), &[ip; 3], &lines, &https).await.unwrap();
}

/// Starts three servers and waits until each names three peers.
async fn form(
    directory: &Path,
    ips: &[Ipv4Addr; 3],
    lines: &[String; 3],
    ports: &[u16; 3],
) -> Result<()> {
    let mut servers = Vec::new();
    for (number, (line, ip)) in lines.iter().zip(ips).enumerate() {
        let place = directory.join(number.to_string());
        let line = format!("-node n{number} {line}");
        servers.push(Agent::start(&place, *ip, &line)?);
    }
    for (server, port) in servers.iter_mut().zip(ports) {
        server.leader(*port).await?;
        // A server may know the leader before it has applied the membership.
        let peers = |listed: &Value| count(listed) == 3;
        let seen = server.http(*port)?.wait_for("/v1/status/peers", PATIENCE, peers).await;
        seen.map_err(|error| Failure::new(format!("{error}\n{}", server.log())))?;
    }
    Ok(())
}

fn count(list: &Value) -> usize {
    list.as_array().map_or(0, Vec::len)
}

/// A configuration without `server`: what is asked of it is asked of the servers, in its host's name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_agent_speaks_for_its_host() {
    let agents = Agents::new().await;
    let [server_ip, client_ip] = [next_ip(), next_ip()];
    let line =
        "-server -bootstrap -node s1 -bind %ip -client %ip -data-dir %dir/data -serf-lan-port 8301";
    let mut server = agents.start("s", server_ip, line);
    let place = agents.place("c");
    std::fs::create_dir_all(&place).unwrap();
    let define = |services: &str| {
        std::fs::write(place.join("c.hcl"), format!("node_meta = {{ rack = \"7\" }}\n{services}"))
            .unwrap();
    };
    define(
        "service {\n  name = \"web\"\n  check = { ttl = \"10m\", id = \"alive\" }\n}\nservice {\n  name = \"db\"\n}",
    );
    // The first server does not exist: it is passed over.
    let line = format!(
        "-node c1 -advertise 192.0.2.7 -client %ip -data-dir %dir/data -config-file %dir/c.hcl -retry-join {client_ip}:1 -retry-join {server_ip}:8301"
    );
    let mut client = Agent::start(&place, client_ip, &line).unwrap();
    server.leader(8500).await.unwrap();
    client.leader(8500).await.unwrap();
    servers_of_another_datacenter_refuse_it(&agents, server_ip).await.unwrap();
    let (here, there) = (client.http(8500).unwrap(), server.http(8500).unwrap());

    let path = "/v1/catalog/service/web?node-meta=rack:7";
    let found = server.until(path, |list| count(list) == 1).await;
    assert_eq!((&found[0]["Node"], &found[0]["Address"]), (&json!("c1"), &json!("192.0.2.7")));
    let nodes = there.must_get("/v1/catalog/nodes").await.unwrap();
    assert!(!nodes.to_string().contains("\"c9\""), "{nodes}");
    assert_eq!(here.must_get("/v1/agent/self").await.unwrap()["Config"]["NodeName"], "c1");
    here.must_put("/v1/agent/check/pass/alive", "").await.unwrap();
    let passing = there.must_get("/v1/health/service/web?passing").await.unwrap();
    assert_eq!(count(&passing), 1);

    // Bodies and long polls pass.
    let value = "x".repeat(200_000);
    here.must_put("/v1/kv/large%20key", value.clone()).await.unwrap();
    let read = here.get("/v1/kv/large%20key?raw").await.unwrap();
    assert_eq!(read.body, value);
    let index = read.require_index().unwrap();
    let path = format!("/v1/kv/large%20key?raw&index={index}&wait=60s");
    let poll = tokio::spawn({
        let here = here.clone();
        async move { here.get(&path).await.map(|answer| answer.text()) }
    });
    there.must_put("/v1/kv/large%20key", "changed").await.unwrap();
    assert_eq!(poll.await.unwrap().unwrap(), "changed");

    // Its files are read again, and what vanished from them goes.
    define("service {\n  name = \"db\"\n}");
    here.must_put("/v1/agent/reload", "").await.unwrap();
    let services = here.must_get("/v1/agent/services").await.unwrap();
    let names: Vec<_> = services.as_object().into_iter().flat_map(|all| all.keys()).collect();
    assert_eq!(names, ["db"]);

    // Servers answer only agents at their RPC port. The agent leaves when asked to.
    let nobody = plain_get(server_ip, 8300).unwrap();
    assert!(nobody.starts_with("HTTP/1.1 404"), "{nobody}");
    here.must_put("/v1/agent/leave", "").await.unwrap();
    let code = client.process.wait_ended(PATIENCE).await.unwrap();
    assert_eq!(code, Some(0), "{}", client.log());
    server.until("/v1/catalog/nodes", |nodes| !nodes.to_string().contains("\"c1\"")).await;
}

/// It ends, and registers nothing.
async fn servers_of_another_datacenter_refuse_it(agents: &Agents, server: Ipv4Addr) -> Result<()> {
    let line = format!(
        "-node c9 -datacenter dc9 -client %ip -data-dir %dir/data -retry-join {server}:8301"
    );
    let mut lost = agents.start("c9", next_ip(), &line);
    let code = lost.process.wait_ended(PATIENCE).await?;
    let log = lost.log();
    assert_ne!(code, Some(0), "{log}");
    assert!(log.contains("\"dc9\"") && log.contains("datacenter \"dc1\""), "{log}");
    Ok(())
}

/// A client agent's node is alive as long as its process is, and is there as long as its process is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_agent_keeps_its_node_alive() {
    let agents = Agents::new().await;
    let [server_ip, client_ip] = [next_ip(), next_ip()];
    let server = agents.server(server_ip, "").await;
    let there = server.http(8500).unwrap();
    let start = |place: &str| {
        let line = format!(
            "-node c1 -client %ip -data-dir %dir/data -retry-join {server_ip} -hcl 'service {{ name = \"web\" port = 80 }} check {{ id = \"ping\" name = \"ping\" tcp = \"{server_ip}:8500\" interval = \"1s\" }}'"
        );
        agents.start(place, client_ip, &line)
    };
    let mut client = start("c");
    client.leader(8500).await.unwrap();
    let passing = "/v1/health/service/web?passing&filter=Node.Node==c1";
    server.until(passing, |list| count(list) == 1).await;
    let warning =
        |log: String| log.lines().any(|line| line.contains("WARN") && line.contains("ping"));
    assert!(warning(client.log()), "{}", client.log());

    // It says what it is.
    let here = client.http(8500).unwrap();
    let about = here.must_get("/v1/agent/self").await.unwrap();
    assert_eq!(
        (
            &about["Config"]["Server"],
            &about["Config"]["NodeName"],
            &about["Member"]["Tags"]["role"]
        ),
        (&json!(false), &json!("c1"), &json!("node"))
    );
    let config = &about["DebugConfig"];
    assert_eq!(
        (&config["ServerMode"], &config["HTTPPort"], &config["HTTPAddrs"], &config["ServerPort"]),
        (&json!(false), &json!(8500), &json!([format!("tcp://{client_ip}:8500")]), &json!(-1))
    );
    assert_eq!(about["Stats"]["consul"]["server"], "false");
    let about = there.must_get("/v1/agent/self").await.unwrap();
    assert_eq!(about["Config"]["Server"], true);

    // Somebody deregisters the node while its agent runs: all of it comes back. The check is critical until it
    // was run, which keeps the service from passing as the end of the node would.
    there.must_put("/v1/catalog/deregister", r#"{"Node": "c1"}"#).await.unwrap();
    let is_passing = |check: &Value| check["CheckID"] == "ping" && check["Status"] == "passing";
    let has_passed = |list: &Value| list.as_array().into_iter().flatten().any(is_passing);
    server.until("/v1/health/node/c1", has_passed).await;
    server.until(passing, |list| count(list) == 1).await;

    // It dies, with a lock. What requests register in its name does not revive it.
    let session = here.must_put("/v1/session/create", "").await.unwrap();
    let session: Value = serde_json::from_str(&session).unwrap();
    let session = session["ID"].as_str().unwrap().to_owned();
    let taken = here.must_put(&format!("/v1/kv/lock?acquire={session}"), "x").await.unwrap();
    assert_eq!(taken.trim(), "true");
    drop(client);
    let services = "/v1/agent/service/register?agent=c1";
    there.must_put(services, r#"{"Name": "db"}"#).await.unwrap();
    server.until(passing, |list| count(list) == 0).await;
    let info = format!("/v1/session/info/{session}");
    server.until(&info, |list| count(list) == 0).await;
    server.until("/v1/agent/members", |list| status_of_c1(list) == Some(4)).await;
    there.must_put(services, r#"{"Name": "db", "Port": 1}"#).await.unwrap();
    assert_eq!(count(&there.must_get(passing).await.unwrap()), 0);

    // It is started again, and leaves the cluster when it is stopped.
    let mut client = start("c-again");
    client.leader(8500).await.unwrap();
    server.until(passing, |list| count(list) == 1).await;
    server.until("/v1/agent/members", |list| status_of_c1(list) == Some(1)).await;
    client.process.signal(Signal::SIGTERM).unwrap();
    let code = client.process.wait_ended(PATIENCE).await.unwrap();
    let log = client.log();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("left the cluster"), "{log}");
    let nodes = there.must_get("/v1/catalog/nodes").await.unwrap();
    assert!(!nodes.to_string().contains("\"c1\""), "{nodes}\n{log}");
}

/// Long polls that wait when a process is stopped.
const POLLS: usize = 100;
/// A process that waited for the polls to end by themselves would take five seconds or more. (On an idle machine
/// it takes a quarter of a second.)
const STOP_MAX: Duration = Duration::from_secs(2);

/// Long polls through a client agent end when the agent stops, and when the server does, and all of their
/// clients are answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_polls_through_a_client_agent_are_answered_when_it_or_the_server_stops() {
    let agents = Agents::new().await;
    let [server_ip, first_ip, second_ip] = [next_ip(), next_ip(), next_ip()];
    let mut server = agents.server(server_ip, "").await;
    let start = |name: &str, ip: Ipv4Addr| {
        let line = format!("-node {name} -client %ip -data-dir %dir/data -retry-join {server_ip}");
        agents.start(name, ip, &line)
    };
    let (mut first, mut second) = (start("c1", first_ip), start("c2", second_ip));
    first.leader(8500).await.unwrap();
    second.leader(8500).await.unwrap();
    let there = server.http(8500).unwrap();
    there.must_put("/v1/kv/watched", "value").await.unwrap();

    let polls = polls_that_wait(&first, &there).await.unwrap();
    stop_with_polls(&mut first, polls).await.unwrap();
    let polls = polls_that_wait(&second, &there).await.unwrap();
    stop_with_polls(&mut server, polls).await.unwrap();
}

/// The status and body of each, when it has come.
type Polls = tokio::task::JoinSet<(u16, String)>;

/// Long polls through an agent, once the server knows them all.
async fn polls_that_wait(agent: &Agent, server: &Http) -> Result<Polls> {
    let here = agent.http(8500)?;
    let index = here.get("/v1/kv/watched").await?.require_index()?;
    let mut polls = Polls::new();
    for _ in 0..POLLS {
        let here = here.clone();
        polls.spawn(async move {
            let path = format!("/v1/kv/watched?raw&index={index}&wait=5m");
            match here.get(&path).await {
                Ok(answer) => (answer.status, answer.text()),
                Err(error) => (0, error.to_string()),
            }
        });
    }
    let limit = Limit::new(PATIENCE);
    let waiting = async || {
        let metrics = server.get("/metrics").await?;
        Ok::<_, Failure>(metrics.metric("quorate_blocking_queries").unwrap_or_default())
    };
    while waiting().await? < POLLS as u64 {
        limit.pause(|| "all polls wait at the server".to_owned()).await?;
    }
    Ok(polls)
}

/// Tells an agent to stop while polls wait for a change.
async fn stop_with_polls(agent: &mut Agent, polls: Polls) -> Result<()> {
    let told = Instant::now();
    agent.process.signal(Signal::SIGTERM)?;
    let code = agent.process.wait_ended(PATIENCE).await?;
    let took = told.elapsed();
    assert_eq!(code, Some(0), "{}", agent.log());
    println!("stopped after {} ms", took.as_millis());
    let answers = polls.join_all().await;
    assert!(answers.iter().all(|answer| *answer == (200, "value".to_owned())), "{answers:?}");
    assert!(took < STOP_MAX, "it took {took:?}: {}", agent.log());
    Ok(())
}

/// A secret of an operator's choice, as Consul's files may have.
const MANAGEMENT: &str = "c41f-management-of-this-test";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_acl_stanza_protects_a_server_and_a_client_agent_sends_the_tokens_of_its_own() {
    let agents = Agents::new().await;
    let [server_ip, client_ip] = [next_ip(), next_ip()];
    let acl = format!(
        "-hcl 'acl {{ enabled = true default_policy = \"deny\" tokens {{ initial_management = \"{MANAGEMENT}\" }} }}'"
    );
    let server = agents.server(server_ip, &acl).await;
    let there = server.http(8500).unwrap();
    let limit = Limit::new(PATIENCE);
    while there.get(&format!("/v1/acl/tokens?token={MANAGEMENT}")).await.unwrap().status != 200 {
        limit.pause(|| format!("the management token\n{}", server.log())).await.unwrap();
    }
    // With that there was a bootstrap.
    assert_eq!(there.put("/v1/acl/bootstrap", "").await.unwrap().status, 403);
    let line = format!(
        "-node c1 -client %ip -data-dir %dir/data -retry-join {server_ip} \
         -hcl 'service {{ name = \"web\" }} acl {{ tokens {{ agent = \"{MANAGEMENT}\" }} }}'"
    );
    let client = agents.started("c", client_ip, &line).await;
    let web = format!("/v1/catalog/service/web?token={MANAGEMENT}");
    server.until(&web, |list| count(list) == 1).await;
    // That token is the agent's own: its clients have none.
    let here = client.http(8500).unwrap();
    assert_eq!(here.get("/v1/catalog/services").await.unwrap().text().trim(), "{}");
    assert_eq!(here.get("/v1/kv/a").await.unwrap().status, 403);
    assert_eq!(here.get(&format!("/v1/kv/a?token={MANAGEMENT}")).await.unwrap().status, 404);
    for agent in [&server, &client] {
        assert!(!agent.log().contains(MANAGEMENT), "{}", agent.log());
    }
}

/// From this level of the rules on agents mark what they have from files.
const FILE_MARK_LEVEL: u64 = 6;

/// Waits until the leader of a new cluster has put the newest rules in force.
async fn marks_are_in_force(server: &Agent) {
    server.http(8500).unwrap().wait_level(FILE_MARK_LEVEL, PATIENCE).await.unwrap();
}

/// An agent looks every minute at what is registered.
const LOOKED_WITHIN: Duration = Duration::from_secs(150);

/// The files are the authority for what came from them, and clients for what they have registered. (The agent
/// looks every minute.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_register_again_what_the_catalogue_has_lost_of_their_files_or_somebody_has_changed()
{
    let agents = Agents::new().await;
    let [server_ip, client_ip] = [next_ip(), next_ip()];
    let defined = "-hcl 'service { name = \"of-server\" port = 80 }'";
    let server = agents.server(server_ip, defined).await;
    server.until("/v1/catalog/service/of-server", |list| count(list) == 1).await;
    let services =
        ["web", "ended", "kept", "last"].map(|name| format!("service {{ name = \"{name}\" }}"));
    let line = format!(
        "-node c1 -client %ip -data-dir %dir/data -retry-join {server_ip} -hcl '{} check {{ name = \"ping\" ttl = \"10m\" }}'",
        services.join(" ")
    );
    let client = agents.started("c", client_ip, &line).await;
    server.until("/v1/health/node/c1", |list| list.to_string().contains("\"ping\"")).await;
    let (here, there) = (client.http(8500).unwrap(), server.http(8500).unwrap());
    for name in ["of-a-client", "of-a-client-too"] {
        here.must_put("/v1/agent/service/register", format!(r#"{{"Name": "{name}"}}"#))
            .await
            .unwrap();
    }

    here.must_put("/v1/agent/service/deregister/ended", "").await.unwrap();
    for what in [
        "ServiceID\": \"web",
        "ServiceID\": \"of-a-client",
        "CheckID\": \"ping",
        "ServiceID\": \"last",
    ] {
        let body = format!("{{\"Node\": \"c1\", \"{what}\"}}");
        there.must_put("/v1/catalog/deregister", body).await.unwrap();
    }
    for (node, name, port) in
        [("c1", "kept", 7), ("c1", "of-a-client-too", 7), ("s1", "of-server", 7)]
    {
        let service = json!({"Service": name, "Port": port});
        let body = json!({"Node": node, "SkipNodeUpdate": true, "Service": service});
        there.must_put("/v1/catalog/register", body.to_string()).await.unwrap();
    }
    let limit = Limit::new(LOOKED_WITHIN);
    let ids = async || {
        let listed = here.must_get("/v1/agent/services").await.unwrap();
        listed.as_object().into_iter().flat_map(|all| all.keys().cloned()).collect::<Vec<_>>()
    };
    assert_eq!(ids().await, ["kept", "of-a-client-too"]);
    // "last" comes after the others of the same look.
    while !ids().await.contains(&"last".to_owned()) {
        limit.pause(|| format!("what the files define: {}", client.log())).await.unwrap();
    }
    assert_eq!(ids().await, ["kept", "last", "of-a-client-too", "web"]);
    server.until("/v1/health/node/c1", |list| list.to_string().contains("\"ping\"")).await;
    for (name, port) in [("kept", 0), ("of-server", 80), ("of-a-client-too", 7)] {
        let path = format!("/v1/catalog/service/{name}");
        let is_back = |list: &Value| list[0]["ServicePort"] == port;
        let seen = there.wait_for(&path, LOOKED_WITHIN, is_back).await;
        seen.unwrap_or_else(|error| panic!("{error}\n{}\n{}", client.log(), server.log()));
    }

    // When the files are read again, all of them counts.
    here.must_put("/v1/agent/reload", "").await.unwrap();
    assert_eq!(ids().await, ["ended", "kept", "last", "of-a-client-too", "web"]);
}

/// A node has one agent. One that comes back has its id in its data directory; one that has died leaves its name to
/// others in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_of_a_client_agent_that_lives_is_given_to_no_other() {
    let _turn = Turn::share().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let [server_ip, first_ip, second_ip] = [next_ip(), next_ip(), next_ip()];
    let line = "-server -bootstrap -node s1 -bind %ip -client %ip -data-dir %dir/data";
    let mut server = Agent::start(&directory.path().join("s"), server_ip, line).unwrap();
    server.leader(8500).await.unwrap();
    let start = |place: &str, ip: Ipv4Addr, service: &str| {
        let line = format!(
            "-node C1 -client %ip -advertise 192.0.2.7 -data-dir %dir/data -retry-join {server_ip} -hcl 'service {{ name = \"{service}\" }}'"
        );
        Agent::start(&directory.path().join(place), ip, &line).unwrap()
    };
    let first = start("first", first_ip, "web");
    server.until("/v1/catalog/service/web", |list| count(list) == 1).await;
    let mut second = start("second", second_ip, "db");
    let code = second.process.wait_ended(PATIENCE).await.unwrap();
    let log = second.log();
    assert_ne!(code, Some(0), "{log}");
    assert!(log.contains("another agent runs under the node name \"C1\" at 192.0.2.7"), "{log}");
    let services = server.http(8500).unwrap().must_get("/v1/catalog/services").await.unwrap();
    assert!(services["web"].is_array() && services["db"].is_null(), "{services}");
    // It is restarted at once.
    drop(first);
    let again = start("first", first_ip, "api");
    server.until("/v1/catalog/service/api", |list| count(list) == 1).await;
    assert!(!again.log().contains("is taken"), "{}", again.log());
    drop(again);
    let second = start("second", second_ip, "db");
    server.until("/v1/catalog/service/db", |list| count(list) == 1).await;
    assert!(second.log().contains("this node's name is taken"), "{}", second.log());
}

/// What came from files is marked in the cluster, so an agent that has lost its data directory knows what of it no
/// file defines any more. What clients have registered, or registered again, is theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_agent_without_its_data_takes_back_what_is_in_no_file_any_more() {
    let agents = Agents::new().await;
    let [server_ip, client_ip] = [next_ip(), next_ip()];
    let server = agents.server(server_ip, "").await;
    marks_are_in_force(&server).await;
    let start = |place: &str, hcl: &str| {
        let line = format!(
            "-node c1 -client %ip -data-dir %dir/data -retry-join {server_ip} -hcl '{hcl}'"
        );
        agents.start(place, client_ip, &line)
    };
    let service =
        |name: &str| format!("service {{ name = \"{name}\" check {{ ttl = \"10m\" }} }} ");
    let all = ["web", "gone", "taken"].map(service).concat()
        + "check { name = \"host\" ttl = \"10m\" } check { name = \"old\" ttl = \"10m\" }";
    let mut client = start("first", &all);
    client.leader(8500).await.unwrap();
    server.until("/v1/health/node/c1", |list| list.to_string().contains("\"old\"")).await;
    let here = client.http(8500).unwrap();
    for name in ["taken", "of-a-client"] {
        let body = json!({"Name": name, "Check": {"TTL": "10m"}}).to_string();
        here.must_put("/v1/agent/service/register", body).await.unwrap();
    }
    // It is killed, and starts elsewhere, with other files.
    drop(client);
    let fewer = service("web") + "check { name = \"host\" ttl = \"10m\" }";
    let mut client = start("second", &fewer);
    client.leader(8500).await.unwrap();
    let names = |list: &Value| {
        let all = list.as_object().into_iter().flat_map(|all| all.keys().cloned());
        all.collect::<Vec<_>>()
    };
    let services = |list: &Value| names(list) == ["of-a-client", "taken", "web"];
    client.until("/v1/agent/services", services).await;
    let left = ["host", "service:of-a-client", "service:taken", "service:web"];
    client.until("/v1/agent/checks", |list| names(list) == left).await;
    let shown = client.http(8500).unwrap().must_get("/v1/agent/checks").await.unwrap();
    assert_eq!(shown["service:web"]["Type"], "ttl");
    assert!(!shown.to_string().contains("\\u0000"), "the mark shows: {shown}");
}

/// What the list of members says of the client agent.
fn status_of_c1(members: &Value) -> Option<u64> {
    let member = members.as_array()?.iter().find(|member| member["Name"] == "c1")?;
    member["Status"].as_u64()
}

/// One address is enough to know all servers, also when that server is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_agent_learns_who_the_servers_are() {
    let agents = Agents::new().await;
    let machines = [next_ip(), next_ip(), next_ip()];
    let joins = machines.map(|ip| format!("-retry-join {ip}")).join(" ");
    let line =
        format!("-server -bootstrap-expect 3 -bind %ip -client %ip -data-dir %dir/data {joins}");
    let mut servers = Vec::new();
    for (number, ip) in machines.into_iter().enumerate() {
        let line = format!("-node n{number} {line}");
        servers.push(agents.start(&number.to_string(), ip, &line));
    }
    for server in &mut servers {
        server.leader(8500).await.unwrap();
    }
    let line = format!(
        "-node c1 -client %ip -data-dir %dir/data -retry-join {} -log-level debug",
        machines[0]
    );
    let client = agents.started("c", next_ip(), &line).await;
    client.process.wait_logged("learned the list of servers", PATIENCE).await.unwrap();
    drop(servers.remove(0));
    let here = client.http(8500).unwrap();
    client.until("/v1/catalog/services", Value::is_object).await;
    here.must_put("/v1/kv/a", "b").await.unwrap();

    // None can be reached, which is logged, but not each time; then one can.
    drop(servers);
    let limit = Limit::new(PATIENCE);
    while !client.log().contains("no server can be reached") {
        limit.pause(|| client.log()).await.unwrap();
        assert_eq!(here.get("/v1/kv/a").await.map_or(500, |answer| answer.status), 500);
    }
    let logged = client.log().matches("no server can be reached").count();
    assert!(logged <= 2, "{}", client.log());
}

/// What a client that says nothing of an agent gets, over a connection of its own.
fn plain_get(ip: Ipv4Addr, port: u16) -> Result<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect((ip, port))?;
    stream.write_all(b"GET /v1/kv/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_configuration_says_of_its_node_and_its_limits_holds() {
    let agents = Agents::new().await;
    let ip = next_ip();
    let place = agents.place("s");
    std::fs::create_dir_all(&place).unwrap();
    let id = "6b1f3c1e-94a5-4ab1-a7f6-7c6dbb1f4c11";
    let write = |meta: &str, level: &str| {
        let text = format!(
            r#"{{"server": true, "bootstrap": true, "node_name": "s1", "datacenter": "DC7", "node_id": "{id}",
                "node_meta": {meta}, "advertise_addr_wan": "198.51.100.7", "tagged_addresses": {{"vpn": "10.8.0.1"}},
                "session_ttl_min": "1s", "check_output_max_size": 10, "log_level": "{level}",
                "limits": {{"http_max_conns_per_client": 3, "kv_max_value_size": 100}}}}"#
        );
        std::fs::write(place.join("s.json"), text).unwrap();
    };
    write(r#"{"rack": "7", "zone": "a"}"#, "warn");
    let line = "-config-file %dir/s.json -bind %ip -client %ip -data-dir %dir/data";
    let server = agents.started("s", ip, line).await;
    let http = server.http(8500).unwrap();
    let nodes = "/v1/catalog/nodes?node-meta=rack:7&node-meta=zone:a";
    let own = server.until(nodes, |list| count(list) == 1).await;
    assert_eq!(
        (&own[0]["Node"], &own[0]["ID"], &own[0]["Datacenter"]),
        (&"s1".into(), &id.into(), &"dc7".into())
    );
    assert_eq!(own[0]["TaggedAddresses"]["wan"], "198.51.100.7");
    let about = http.must_get("/v1/agent/self").await.unwrap();
    assert_eq!(
        (&about["Config"]["NodeID"], &about["Config"]["SessionTTLMin"]),
        (&id.into(), &json!(1_000_000_000_i64))
    );
    assert_eq!(own[0]["TaggedAddresses"]["vpn"], "10.8.0.1");

    // What is registered later on the node leaves that alone, also where a client described the node.
    http.must_put(
        "/v1/agent/service/register",
        r#"{"Name": "web", "Check": {"CheckID": "c", "TTL": "10m"}}"#,
    )
    .await
    .unwrap();
    let by_meta = "/v1/health/service/web?node-meta=rack:7";
    assert_eq!(count(&http.must_get(by_meta).await.unwrap()), 1);
    let host = r#"{"Node": "host", "Address": "10.1.1.1", "NodeMeta": {"owner": "us"}}"#;
    http.must_put("/v1/agent/service/register?agent=host", r#"{"Name": "db"}"#).await.unwrap();
    http.must_put("/v1/catalog/register", host).await.unwrap();
    http.must_put("/v1/agent/service/register?agent=host", r#"{"Name": "db", "Port": 1}"#)
        .await
        .unwrap();
    assert_eq!(count(&http.must_get("/v1/health/service/db?node-meta=owner:us").await.unwrap()), 1);

    // Limits.
    http.must_put("/v1/session/create", r#"{"TTL": "2s"}"#).await.unwrap();
    assert_eq!(http.put("/v1/kv/a", "x".repeat(101)).await.unwrap().status, 413);
    http.must_put("/v1/agent/check/pass/c?note=0123456789abcdef", "").await.unwrap();
    let checks = http.must_get("/v1/agent/checks").await.unwrap();
    assert_eq!(checks["c"]["Output"], "0123456789 ... (captured 10 of 16 bytes)");
    let held: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect((ip, 8500)).unwrap()).collect();
    let limit = Limit::new(PATIENCE);
    while !plain_get(ip, 8500).unwrap_or_default().starts_with("HTTP/1.1 429") {
        limit.pause(|| "a fourth connection is refused".to_owned()).await.unwrap();
    }
    drop(held);

    // A reload changes what is said of the node, and the log's level.
    assert!(!server.log().contains(" INFO "), "{}", server.log());
    write(r#"{"rack": "8"}"#, "info");
    let limit = Limit::new(PATIENCE);
    while http.must_put("/v1/agent/reload", "").await.is_err() {
        limit.pause(|| format!("a reload\n{}", server.log())).await.unwrap();
    }
    server.until("/v1/catalog/nodes?node-meta=rack:8", |list| count(list) == 1).await;
    assert_eq!(count(&http.must_get("/v1/catalog/nodes?node-meta=zone:a").await.unwrap()), 0);
    assert!(server.log().contains(" INFO "), "{}", server.log());
}
