//! The programs in `client/examples`, as processes, on a real cluster: those in Rust, and those for Node.js.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jepsen_style_tests::http::{Http, HttpExt as _};
use jepsen_style_tests::script::is_present;
use jepsen_style_tests::{Cluster, Failure, Limit, Result, binary, skipped};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// What a program does shows within this: a candidate's session may have to end first, after twice its TTL.
const LIMIT: Duration = Duration::from_secs(60);

/// A running example. It is killed when this is dropped.
pub(crate) struct Example {
    child: Child,
    said: Vec<String>,
    lines: UnboundedReceiver<String>,
}

impl Drop for Example {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Example {
    pub(crate) fn start(addresses: &str, name: &str, arguments: &[&str]) -> Result<Self> {
        Self::run(addresses, Command::new(program(name)?).args(arguments))
    }

    fn run(addresses: &str, command: &mut Command) -> Result<Self> {
        let mut child =
            command.env("QUORATE_HTTP_ADDR", addresses).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or_else(|| Failure::new("no output"))?;
        let (sender, lines) = unbounded_channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(std::io::Result::ok) {
                let _ = sender.send(line);
            }
        });
        Ok(Self { child, said: Vec::new(), lines })
    }

    /// Waits for a line that begins so, and returns it.
    pub(crate) async fn says(&mut self, beginning: &str) -> Result<String> {
        loop {
            let line = tokio::time::timeout(LIMIT, self.lines.recv()).await.ok().flatten();
            let Some(line) = line else {
                let said = self.said.join("\n");
                return Err(Failure::new(format!(
                    "nothing that begins with {beginning:?} in\n{said}"
                )));
            };
            self.said.push(line.clone());
            if line.starts_with(beginning) {
                return Ok(line);
            }
        }
    }

    /// What it has said by now.
    pub(crate) fn heard(&mut self) -> &[String] {
        while let Ok(line) = self.lines.try_recv() {
            self.said.push(line);
        }
        &self.said
    }

    /// Tells it to end (SIGTERM), and waits for it.
    async fn terminate(mut self) -> Result<Vec<String>> {
        self.signal(Signal::SIGTERM)?;
        self.ended().await
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id());
        let pid = pid.map_err(|error| Failure::new(error.to_string()))?;
        Ok(kill(Pid::from_raw(pid), signal)?)
    }

    /// Waits until it has ended well, and returns what it said.
    async fn ended(&mut self) -> Result<Vec<String>> {
        let limit = Limit::new(LIMIT);
        let status = loop {
            match self.child.try_wait()? {
                Some(status) => break status,
                None => limit.pause(|| "the end of an example".to_owned()).await?,
            }
        };
        while let Some(line) = self.lines.recv().await {
            self.said.push(line);
        }
        if status.success() {
            Ok(std::mem::take(&mut self.said))
        } else {
            Err(Failure::new(format!("{status}")))
        }
    }
}

/// An example's binary. `cargo test --workspace` builds all of them; for a single test cargo is asked to.
fn program(name: &str) -> Result<PathBuf> {
    let path = binary::target_dir()?.join("debug/examples").join(name);
    if !path.is_file() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let build = Command::new(cargo)
            .args(["build", "--quiet", "--workspace", "--examples"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status();
        if !build?.success() {
            return Err(Failure::new("the examples cannot be built"));
        }
    }
    Ok(path)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_do_what_they_say() {
    let mut cluster = Cluster::start_shared(3).await.unwrap();
    let addresses: Vec<_> =
        cluster.ids().into_iter().map(|id| cluster.http(id).base().to_owned()).collect();
    let addresses = addresses.join(",");
    let node = cluster.http(1);
    let presence = |hash: &Value| hash["Level"].as_u64() >= Some(5);
    node.wait_for("/v1/quorate/state-hash", LIMIT, presence).await.unwrap();
    configuration(&addresses, &node).await.unwrap();
    feed_and_table(&addresses, &node).await.unwrap();
    service_and_caller(&addresses, &mut cluster).await.unwrap();
    cluster.wait_all_ready().await.unwrap();
    candidates(&addresses).await.unwrap();
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_for_node_js_do_what_they_say() {
    let packages = binary::target_dir().unwrap().join("clients/node-consul");
    if !packages.join("installed").is_file() || !is_present(Path::new("node")) {
        let install = "jepsen-style-tests/tests/clients/install";
        let reason = format!("node or the npm package consul is missing; {install} installs it");
        return skipped("the_examples_for_node_js_do_what_they_say", &reason);
    }
    let mut cluster = Cluster::start(3).await.unwrap();
    node_service_and_caller(&packages.join("node_modules"), &mut cluster).await.unwrap();
    cluster.start_all().unwrap();
    cluster.finish().await.unwrap();
}

/// Two services and a caller, while the server is killed that all of them use.
async fn node_service_and_caller(packages: &Path, cluster: &mut Cluster) -> Result<()> {
    let servers = cluster.https(&cluster.ids());
    let addresses: Vec<_> = servers.iter().map(|node| node.base().to_owned()).collect();
    let start = |script: &str, arguments: &[&str]| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/examples/node");
        let mut command = Command::new("node");
        command.arg(folder.join(script)).args(arguments).env("NODE_PATH", packages);
        Example::run(&addresses.join(","), &mut command)
    };
    let id = |line: String| line.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut first, mut second) =
        (start("service.cjs", &["hello"])?, start("service.cjs", &["hello"])?);
    let (one, two) = (id(first.says("registered").await?), id(second.says("registered").await?));
    let mut caller = start("caller.cjs", &["hello", "100"])?;
    caller.says(&format!("hello from {one}")).await?;
    caller.says(&format!("hello from {two}")).await?;
    cluster.kill(1)?;
    caller.says("hello from").await?;
    first.signal(Signal::SIGINT)?;
    let said = first.ended().await?;
    if said.last().map(String::as_str) != Some("deregistered") {
        return Err(Failure::new(format!("the last words of the first: {said:?}")));
    }
    let said = caller.ended().await?;
    let calls = said.iter().filter(|line| line.starts_with("hello from")).count();
    if calls != 100 {
        return Err(Failure::new(format!("{calls} of 100 calls were answered")));
    }
    // Its heartbeats go on at another server.
    let passing = |rows: &Value| rows.as_array().is_some_and(|rows| rows.len() == 1);
    let path = "/v1/health/service/hello?passing";
    cluster.http(2).wait_for(path, LIMIT, passing).await?;
    second.terminate().await?;
    is_gone(&cluster.http(2), "hello").await
}

async fn configuration(addresses: &str, node: &Http) -> Result<()> {
    let mut example = Example::start(addresses, "configuration", &["config/app"])?;
    example.says("no configuration: 1 worker").await?;
    node.must_put("/v1/kv/config/app", r#"{"workers": 3}"#).await?;
    example.says("3 workers").await?;
    node.must_put("/v1/kv/config/app", "nonsense").await?;
    node.must_put("/v1/kv/config/app", r#"{"workers": 4}"#).await?;
    example.says("4 workers").await?;
    let said = example.terminate().await?;
    match said.last().map(String::as_str) {
        Some("ended") => Ok(()),
        last => Err(Failure::new(format!("{last:?} is the last thing it said"))),
    }
}

async fn feed_and_table(addresses: &str, node: &Http) -> Result<()> {
    let mut feed = Example::start(addresses, "feed_handler", &["feed", "feed-1"])?;
    feed.says("registered feed-1").await?;
    let slow =
        |rows: &Value| rows[0]["Status"] == "warning" && rows[0]["Counter"].as_u64() >= Some(5_000);
    node.wait_for("/v1/quorate/instances?service=feed", LIMIT, slow).await?;
    let mut table = Example::start(addresses, "table", &["feed"])?;
    let row = table.says("feed-1").await?;
    table.ended().await?;
    if !row.contains("warning") || !row.contains("4.0") {
        return Err(Failure::new(format!("a row without its facts: {row}")));
    }
    feed.terminate().await?;
    is_gone(node, "feed").await
}

/// Two instances, of which one leaves, while the leader is killed; no call fails.
async fn service_and_caller(addresses: &str, cluster: &mut Cluster) -> Result<()> {
    let mut first = Example::start(addresses, "web_service", &["web", "0"])?;
    let mut second = Example::start(addresses, "web_service", &["web", "0"])?;
    let name = |line: String| line.split(' ').nth(1).unwrap_or_default().to_owned();
    let (one, two) =
        (name(first.says("registered").await?), name(second.says("registered").await?));
    let mut caller = Example::start(addresses, "web_caller", &["web", "100"])?;
    caller.says(&format!("hello from {one}")).await?;
    caller.says(&format!("hello from {two}")).await?;
    let leader = cluster.leader().await?;
    cluster.kill(leader)?;
    first.terminate().await?;
    let said = caller.ended().await?;
    let calls = said.iter().filter(|line| line.starts_with("hello from")).count();
    cluster.start_node(leader)?;
    if calls != 100 {
        return Err(Failure::new(format!("{calls} of 100 calls were answered")));
    }
    second.terminate().await?;
    is_gone(&cluster.http(cluster.others(leader)[0]), "web").await
}

async fn is_gone(node: &Http, service: &str) -> Result<()> {
    let gone = |rows: &Value| rows.as_array().is_some_and(Vec::is_empty);
    node.wait_for(&format!("/v1/catalog/service/{service}"), LIMIT, gone).await.map(drop)
}

/// Three candidates: one resigns, one is killed, and the fencing tokens grow.
async fn candidates(addresses: &str) -> Result<()> {
    let key = "elections/scheduler";
    let mut fences = Vec::new();
    let mut all = Vec::new();
    for name in ["alice", "bob", "carol"] {
        let mut candidate = Example::start(addresses, "candidate", &[key, name])?;
        candidate.says("alice leads").await?;
        all.push(candidate);
    }
    let limit = Limit::new(LIMIT * 3);
    for ending in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGTERM] {
        // Who leads is the one that says so.
        let mut leader = loop {
            limit.check(|| "a leader".to_owned())?;
            let mut elected = None;
            for (place, candidate) in all.iter_mut().enumerate() {
                let fence =
                    candidate.heard().iter().rev().find_map(|line| {
                        line.strip_prefix("elected with fence ")?.parse::<u64>().ok()
                    });
                if let Some(fence) = fence.filter(|fence| fences.last() < Some(fence)) {
                    fences.push(fence);
                    elected = Some(place);
                    break;
                }
            }
            match elected {
                Some(place) => break all.remove(place),
                None => limit.pause(|| "somebody who leads".to_owned()).await?,
            }
        };
        leader.signal(ending)?;
        // One that was killed ends badly.
        let _ = leader.ended().await;
    }
    if fences.len() == 3 && fences.is_sorted() {
        Ok(())
    } else {
        Err(Failure::new(format!("{fences:?}")))
    }
}
