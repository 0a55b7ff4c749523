//! Who may become a member, and what both sides log of a refusal; and servers that are known by host names.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use jepsen_style_tests::http::{Http, HttpExt as _};
use jepsen_style_tests::process::{Process, free_ports};
use jepsen_style_tests::turn::Turn;
use jepsen_style_tests::{Cluster, Limit, Options, Result};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

/// Starts a server with flags of its own.
fn start(directory: &Path, name: &str, flags: &[&str]) -> Result<Process> {
    start_on(directory, name, &directory.join(name), flags)
}

/// The same with a data directory that there is already.
fn start_on(directory: &Path, name: &str, data: &Path, flags: &[&str]) -> Result<Process> {
    let data = data.display().to_string();
    let flags = [&["server", "--data-dir", &data], flags].concat();
    Process::start(&directory.join(format!("{name}.log")), flags)
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

/// Waits until one of the servers has logged something.
async fn is_logged(cluster: &Cluster, text: &str) -> Result<()> {
    let limit = Limit::new(LIMIT);
    let log_of_all = || {
        let logs = cluster.ids().into_iter().map(|id| cluster.log(id));
        logs.collect::<Result<Vec<_>>>().map(|logs| logs.concat())
    };
    while !log_of_all()?.contains(text) {
        limit.pause(|| format!("{text:?} in a log")).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_a_member_is_refused_and_both_ends_say_why() {
    let options = Options::shared();
    let mut cluster = Cluster::start_with(options).await.unwrap();
    let network = Network::of(&cluster);
    let dir = cluster.dir().to_owned();
    let (rpc, http) = (network.rpc(41), network.http(41));
    let common = ["--rpc-addr", &rpc, "--http-addr", &http, "--join", &network.join];

    // The name of another server, in other letters.
    let flags = [&common[..], &["--node-id", "41", "--name", "N2"]].concat();
    let mut twin = start(&dir, "name", &flags).unwrap();
    assert_ne!(twin.wait_ended(LIMIT).await.unwrap(), Some(0));
    assert!(twin.log().contains("belongs to server 2 of this cluster"));
    is_logged(&cluster, "refused server 41").await.unwrap();

    // Another datacenter.
    let flags = [&common[..], &["--node-id", "42", "--datacenter", "dc2"]].concat();
    let mut elsewhere = start(&dir, "datacenter", &flags).unwrap();
    assert_ne!(elsewhere.wait_ended(LIMIT).await.unwrap(), Some(0));
    assert!(elsewhere.log().contains("--datacenter \"dc2\""));
    is_logged(&cluster, "refused server 42").await.unwrap();

    // The id of a server that runs: nothing is said of removing that.
    let flags = [&common[..], &["--node-id", "2"]].concat();
    let mut twin = start(&dir, "id", &flags).unwrap();
    assert_ne!(twin.wait_ended(LIMIT).await.unwrap(), Some(0));
    let (log, second) = (twin.log(), network.rpc(2));
    let advice =
        format!("server 2 is running at {second}: start this server with another --node-id");
    assert!(log.contains(&advice) && !log.contains("DELETE"), "{log}");
    let said =
        format!("a server at {rpc} was started with --node-id 2, which is that of the member at");
    is_logged(&cluster, &said).await.unwrap();

    // An address where nobody is.
    let (wrong, listens, http) = (network.rpc(99), network.rpc(43), network.http(43));
    let flags = ["--node-id", "43", "--rpc-addr", &wrong, "--rpc-listen-addr", &listens];
    let flags = [&flags[..], &["--http-addr", &http, "--join", &network.join]].concat();
    let lost = start(&dir, "address", &flags).unwrap();
    lost.wait_logged(&format!("checked for server 43 at {wrong}"), LIMIT).await.unwrap();
    is_logged(&cluster, "a server cannot join: the leader checked for").await.unwrap();

    the_address_of_a_dead_member_is_taken(&mut cluster, &network).await.unwrap();

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_end_soon_after_they_joined_never_vote() {
    let options = Options::shared();
    let cluster = Cluster::start_with(options).await.unwrap();
    let network = Network::of(&cluster);
    let start_at = |host: u8| {
        let (id, rpc, http) = (host.to_string(), network.rpc(host), network.http(host));
        let flags = ["--node-id", &id, "--rpc-addr", &rpc, "--http-addr", &http];
        let flags = [&flags[..], &["--join", &network.join]].concat();
        start(cluster.dir(), &format!("j{id}"), &flags).unwrap()
    };
    for host in [51, 52, 53] {
        let short_lived = start_at(host);
        is_listed(&cluster, host.into(), false).await.unwrap();
        drop(short_lived);
    }
    let stays = start_at(54);
    is_listed(&cluster, 54, true).await.unwrap();
    let members = cluster.configuration().await.unwrap();
    let mut voters: Vec<u64> =
        members.iter().filter(|member| member.votes).map(|member| member.raft_id).collect();
    voters.sort_unstable();
    assert_eq!(voters, [1, 2, 3, 54]);
    // One of four voters may be away.
    drop(stays);
    cluster.http(1).must_put("/v1/kv/after", "1").await.unwrap();
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_comes_back_with_settings_that_cannot_be_right_ends_and_says_why() {
    let options = Options::shared();
    let mut cluster = Cluster::start_with(options).await.unwrap();
    let network = Network::of(&cluster);
    let (dir, data) = (cluster.dir().to_owned(), cluster.data_dir(2).to_owned());
    let (own, third, http) = (network.rpc(2), network.rpc(3), network.http(2));
    let common = ["--node-id", "2", "--http-addr", &http, "--join", &network.join];
    cluster.kill(2).unwrap();

    // The address of another member.
    let flags = [&common[..], &["--rpc-addr", &third, "--rpc-listen-addr", &own]].concat();
    let mut misplaced = start_on(&dir, "misplaced", &data, &flags).unwrap();
    assert_ne!(misplaced.wait_ended(LIMIT).await.unwrap(), Some(0));
    let said = format!("server 2 was started with --rpc-addr {third}, where ");
    assert!(misplaced.log().contains(&said), "{}", misplaced.log());

    // The name of another datacenter.
    let flags = [&common[..], &["--rpc-addr", &own, "--datacenter", "dc2"]].concat();
    let mut renamed = start_on(&dir, "renamed", &data, &flags).unwrap();
    assert_ne!(renamed.wait_ended(LIMIT).await.unwrap(), Some(0));
    let said = "started with --datacenter dc2, and the cluster is that of datacenter dc1";
    assert!(renamed.log().contains(said), "{}", renamed.log());

    cluster.start_node(2).unwrap();
    cluster.wait_ready(2).await.unwrap();
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_join_says_why_and_floods_no_log() {
    let options = Options::shared();
    let mut cluster = Cluster::start_with(options).await.unwrap();
    let network = Network::of(&cluster);
    let dir = cluster.dir().to_owned();
    let leader = cluster.leader().await.unwrap();
    for other in cluster.others(leader) {
        cluster.kill(other).unwrap();
    }
    let (rpc, http) = (network.rpc(61), network.http(61));
    let flags = ["--node-id", "61", "--rpc-addr", &rpc, "--http-addr", &http];
    let flags = [&flags[..], &["--join", &network.join]].concat();
    let before = cluster.log(leader).unwrap().lines().count();
    let waiting = start(&dir, "waiting", &flags).unwrap();
    waiting.wait_logged("not a member yet: ", LIMIT).await.unwrap();
    // While nothing changes, a line is not said again for 10 s.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let log = waiting.log();
    assert!(log.matches("asking to join").count() <= 3, "{log}");
    assert!(log.matches("not a member yet").count() <= 6, "{log}");
    assert!(!log.contains("waiting for the servers that found"), "{log}");
    let survivor = cluster.log(leader).unwrap();
    let added: Vec<_> = survivor.lines().skip(before).collect();
    assert!(added.len() <= 30, "{added:#?}");
    cluster.abandon();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_says_what_is_wrong_with_each_address_of_join() {
    let _turn = Turn::share().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let ports = free_ports(Ipv4Addr::LOCALHOST, 3).unwrap();
    let at: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let (rpc, http, closed) = (&at[0], &at[1], &at[2]);
    let join = format!("{http},{closed}");
    let flags = ["--rpc-addr", rpc, "--http-addr", http, "--join", &join];
    let lost = start(directory.path(), "lost", &flags).unwrap();
    lost.wait_logged(
        &format!("{http} (something answers there, but it is not an RPC port of Quorate)"),
        LIMIT,
    )
    .await
    .unwrap();
    lost.wait_logged(&format!("{closed} (connection refused)"), LIMIT).await.unwrap();
    let log = lost.log();
    assert!(log.contains("looking for a cluster to join"), "{log}");
    assert!(!log.contains("waiting for the servers that found"), "{log}");
}

/// Waits until the membership lists a server as a voter, or as a learner.
async fn is_listed(cluster: &Cluster, id: u64, votes: bool) -> Result<()> {
    let limit = Limit::new(LIMIT);
    loop {
        let members = cluster.configuration().await?;
        if members.iter().any(|member| member.raft_id == id && member.votes == votes) {
            return Ok(());
        }
        limit.pause(|| format!("server {id} with votes={votes}: {members:?}")).await?;
    }
}

/// With a new server at it there would be two voters of which one never answers.
async fn the_address_of_a_dead_member_is_taken(
    cluster: &mut Cluster,
    network: &Network,
) -> Result<()> {
    cluster.kill(3)?;
    let (rpc, http) = (network.rpc(3), network.http(44));
    let flags = ["--node-id", "44", "--rpc-addr", &rpc, "--http-addr", &http];
    let flags = [&flags[..], &["--join", &network.join]].concat();
    let ghost = start(cluster.dir(), "ghost", &flags)?;
    let said = format!("server 3 of this cluster has this address ({rpc}): remove it first");
    ghost.wait_logged(&said, LIMIT).await?;
    assert!(ghost.log().contains("DELETE /v1/operator/raft/peer?id=3"), "{}", ghost.log());
    assert_eq!(cluster.configuration().await?.len(), 3);
    drop(ghost);
    cluster.start_node(3)?;
    cluster.wait_ready(3).await
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
    cluster.wait_log(leader, &[&format!("refused server {wiped} ")], LIMIT).await?;

    cluster.wipe(wiped)?;
    cluster.renew_raft_id(wiped);
    cluster.start_node(wiped)?;
    cluster.wait_votes(wiped).await?;
    cluster.wait_all_caught_up().await?;
    cluster.http(wiped).must_put("/v1/kv/again", "1").await?;
    let healthy = |health: &Value| health["Healthy"] == true && health["FailureTolerance"] == 1;
    cluster.http(other).wait_for("/v1/operator/autopilot/health", LIMIT, healthy).await?;
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
    let ports = free_ports(Ipv4Addr::LOCALHOST, 6).unwrap();
    let rpc: Vec<String> = ports[..3].iter().map(|port| format!("localhost:{port}")).collect();
    let http: Vec<String> = ports[3..].iter().map(|port| format!("localhost:{port}")).collect();
    let join = rpc.join(" , ");
    let start_at = |at: usize| {
        let id = (at + 1).to_string();
        let flags = ["--node-id", &id, "--rpc-addr", &rpc[at], "--http-addr", &http[at]];
        let flags = [&flags[..], &["--bootstrap-expect", "3", "--join", &join]].concat();
        start(dir, &format!("n{id}"), &flags)
    };
    let mut servers: Vec<Process> = (0..3).map(|at| start_at(at).unwrap()).collect();
    let https: Vec<Http> =
        http.iter().map(|at| Http::new(&format!("http://{at}")).unwrap()).collect();
    for http in &https {
        ready(http).await.unwrap();
    }
    https[1].must_put("/v1/kv/key", "1").await.unwrap();
    let addresses = |list: &Value, field: &str| -> Vec<String> {
        let rows = list.as_array().into_iter().flatten();
        let mut found: Vec<_> = rows.map(|row| row[field].as_str().unwrap().to_owned()).collect();
        found.sort();
        found
    };
    let mut sorted = rpc.clone();
    sorted.sort();
    // A server may serve before it has applied the membership.
    let is_whole = |shown: &Value| addresses(&shown["Servers"], "Address") == sorted;
    https[2].wait_for("/v1/operator/raft/configuration", LIMIT, is_whole).await.unwrap();
    let listed = |list: &Value| addresses(list, "Address") == ["localhost"; 3];
    https[0].wait_for("/v1/catalog/service/consul", LIMIT, listed).await.unwrap();
    let web = r#"{"Name":"web","Port":80}"#;
    https[0].must_put("/v1/agent/service/register", web).await.unwrap();
    // Drop order matters: the old process is gone before the new one binds its ports.
    drop(servers.remove(0));
    servers.insert(0, start_at(0).unwrap());
    ready(&https[0]).await.unwrap();
    assert_eq!(https[0].get("/v1/kv/key?raw").await.unwrap().body, "1");
}

async fn ready(http: &Http) -> Result<()> {
    let limit = Limit::new(LIMIT);
    while !http.get("/readyz").await.is_ok_and(|answer| answer.status == 200) {
        limit.pause(|| "it is ready".to_owned()).await?;
    }
    Ok(())
}
