//! Who becomes a member, who is refused, and what both ends say of it; and servers that know each other by
//! names.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use jepsen_style_tests::guardian::Guardian;
use jepsen_style_tests::http::Http;
use jepsen_style_tests::turn::Turn;
use jepsen_style_tests::{Cluster, Failure, Options, Result, binary};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// A server with flags of its own; it ends with this.
struct Server {
    child: Child,
    log: PathBuf,
    _guardian: Guardian,
}

impl Server {
    fn start(directory: &Path, name: &str, flags: &[&str]) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let output = File::create(&log)?;
        let mut guardian = Guardian::start(directory)?;
        let mut command = Command::new(binary::quorate()?);
        command.args(["server", "--data-dir"]).arg(directory.join(name)).args(flags);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn()?;
        guardian.add(child.id())?;
        Ok(Self { child, log, _guardian: guardian })
    }

    fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    async fn says(&self, text: &str) -> Result<()> {
        wait_for(text, || async { Ok(self.log()?.contains(text)) }).await
    }

    async fn ends(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(Failure::new(format!("it did not end:\n{}", self.log()?)));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn wait_for<F: Future<Output = Result<bool>>>(
    what: &str,
    mut holds: impl FnMut() -> F,
) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !holds().await? {
        if Instant::now() > deadline {
            return Err(Failure::new(format!("not within {LIMIT:?}: {what}")));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Addresses in a cluster's own network.
struct Network {
    first: Ipv4Addr,
    join: String,
}

impl Network {
    fn of(cluster: &Cluster) -> Self {
        let first = cluster.ip(1);
        let others = cluster.ids().into_iter().map(|id| format!("{}:8300", cluster.ip(id)));
        // Blanks after commas do not count.
        Self { first, join: others.collect::<Vec<_>>().join(", ") }
    }

    fn rpc(&self, host: u8) -> String {
        let [a, b, c, _] = self.first.octets();
        format!("{}:8300", Ipv4Addr::new(a, b, c, host))
    }

    fn http(&self, host: u8) -> String {
        self.rpc(host).replace(":8300", ":8500")
    }
}

fn log_of_all(cluster: &Cluster) -> Result<String> {
    let logs = cluster.ids().into_iter().map(|id| cluster.log(id));
    Ok(logs.collect::<Result<Vec<_>>>()?.concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_a_member_is_refused_and_both_ends_say_why() {
    let options = Options { shares_turn: true, ..Options::default() };
    let mut cluster = Cluster::start_with(options).await.unwrap();
    let network = Network::of(&cluster);
    let dir = cluster.dir().to_owned();
    let (rpc, http) = (network.rpc(41), network.http(41));
    let common = ["--rpc-addr", &rpc, "--http-addr", &http, "--join", &network.join];

    // The name of another server, in other letters.
    let flags = [&common[..], &["--node-id", "41", "--name", "N2"]].concat();
    let mut twin = Server::start(&dir, "name", &flags).unwrap();
    assert!(!twin.ends().await.unwrap().success());
    assert!(twin.log().unwrap().contains("belongs to server 2 of this cluster"));
    assert!(log_of_all(&cluster).unwrap().contains("refused server 41"));

    // Another datacenter.
    let flags = [&common[..], &["--node-id", "42", "--datacenter", "dc2"]].concat();
    let mut elsewhere = Server::start(&dir, "datacenter", &flags).unwrap();
    assert!(!elsewhere.ends().await.unwrap().success());
    assert!(elsewhere.log().unwrap().contains("--datacenter \"dc2\""));
    assert!(log_of_all(&cluster).unwrap().contains("refused server 42"));

    // An address where nobody is.
    let (wrong, listens, http) = (network.rpc(99), network.rpc(43), network.http(43));
    let flags = ["--node-id", "43", "--rpc-addr", &wrong, "--rpc-listen-addr", &listens];
    let flags = [&flags[..], &["--http-addr", &http, "--join", &network.join]].concat();
    let lost = Server::start(&dir, "address", &flags).unwrap();
    lost.says(&format!("asked for server 43 at {wrong}")).await.unwrap();
    assert!(log_of_all(&cluster).unwrap().contains("a server cannot join: the leader asked for"));

    // It is nothing, and keeps nobody from anything.
    let guest = cluster.add_member().unwrap();
    cluster.wait_votes(guest).await.unwrap();
    let members = cluster.configuration().await.unwrap();
    assert_eq!(members.len(), 4, "{members:?}");
    cluster.remove_from_raft(guest, 1).await.unwrap();
    drop(lost);
    cluster.put_down(guest).unwrap();
    cluster.forget_member(guest).unwrap();
    cluster.http(2).must_put("/v1/kv/after", "1").await.unwrap();

    a_wiped_server_comes_back_under_a_new_id_only(&mut cluster).await.unwrap();
    cluster.finish().await.unwrap();
}

/// Wiped and removed, it is refused under its id, and a full member under a new one: it replicates, takes
/// requests, and counts.
async fn a_wiped_server_comes_back_under_a_new_id_only(cluster: &mut Cluster) -> Result<()> {
    let leader = cluster.leader().await?;
    let others = cluster.others(leader);
    let (wiped, other) = (others[0], others[1]);
    for number in 0..20 {
        cluster.http(wiped).must_put(&format!("/v1/kv/key/{number}"), "1").await?;
    }
    cluster.kill(wiped)?;
    cluster.wipe(wiped)?;
    cluster.remove_from_raft(wiped, leader).await?;
    cluster.start_node(wiped)?;
    assert!(!cluster.wait_ended(wiped, LIMIT).await?.success());
    assert!(cluster.log(wiped)?.contains("an id is never used again"));
    assert!(cluster.log(leader)?.contains(&format!("refused server {wiped} ")));

    cluster.wipe(wiped)?;
    cluster.renew_raft_id(wiped);
    cluster.start_node(wiped)?;
    cluster.wait_votes(wiped).await?;
    cluster.wait_all_caught_up().await?;
    cluster.http(wiped).must_put("/v1/kv/again", "1").await?;
    wait_for("autopilot calls all of them healthy", || async {
        let health = cluster.http(other).get("/v1/operator/autopilot/health").await?;
        let document: Value = serde_json::from_str(&health.body)?;
        Ok(document["Healthy"] == true && document["FailureTolerance"] == 1)
    })
    .await?;
    // It is half of a quorum.
    cluster.kill(other)?;
    cluster.http(wiped).must_put("/v1/kv/alone", "1").await?;
    cluster.start_node(other)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_know_each_other_by_names_are_a_cluster() {
    let _turn = Turn::share().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    let ports = free_ports(6).unwrap();
    let rpc: Vec<String> = ports[..3].iter().map(|port| format!("localhost:{port}")).collect();
    let http: Vec<String> = ports[3..].iter().map(|port| format!("localhost:{port}")).collect();
    let join = rpc.join(" , ");
    let start = |at: usize| {
        let id = (at + 1).to_string();
        let flags = ["--node-id", &id, "--rpc-addr", &rpc[at], "--http-addr", &http[at]];
        let flags = [&flags[..], &["--bootstrap-expect", "3", "--join", &join]].concat();
        Server::start(dir, &format!("n{id}"), &flags)
    };
    let mut servers: Vec<Server> = (0..3).map(|at| start(at).unwrap()).collect();
    let https: Vec<Http> =
        http.iter().map(|at| Http::new(&format!("http://{at}")).unwrap()).collect();
    for http in &https {
        ready(http).await.unwrap();
    }
    https[1].must_put("/v1/kv/key", "1").await.unwrap();
    let shown = https[2].must_get("/v1/operator/raft/configuration").await.unwrap();
    let addresses = |list: &Value, field: &str| -> Vec<String> {
        let rows = list.as_array().into_iter().flatten();
        let mut found: Vec<_> = rows.map(|row| row[field].as_str().unwrap().to_owned()).collect();
        found.sort();
        found
    };
    let mut sorted = rpc.clone();
    sorted.sort();
    assert_eq!(addresses(&shown["Servers"], "Address"), sorted);
    wait_for("the catalogue has them", || async {
        let listed = https[0].must_get("/v1/catalog/service/consul").await?;
        Ok(addresses(&listed, "Address") == ["localhost"; 3])
    })
    .await
    .unwrap();
    let web = r#"{"Name":"web","Port":80}"#;
    https[0].must_put("/v1/agent/service/register", web).await.unwrap();
    // Drop order matters: the old process is gone before the new one binds its ports.
    drop(servers.remove(0));
    servers.insert(0, start(0).unwrap());
    ready(&https[0]).await.unwrap();
    assert_eq!(https[0].get("/v1/kv/key?raw").await.unwrap().body, "1");
}

async fn ready(http: &Http) -> Result<()> {
    wait_for("it is ready", || async {
        Ok(http.get("/readyz").await.is_ok_and(|answer| answer.status == 200))
    })
    .await
}

/// Ports that nobody listens on now.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    // All are held until the last is found, so that none is found twice.
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let ports = held.iter().map(|listener| listener.local_addr().map(|address| address.port()));
    Ok(ports.collect::<Result<_, _>>()?)
}
