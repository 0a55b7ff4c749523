//! The identity of a server: copies of its directory, directories that were restored from a backup, servers that
//! were removed, and servers with a new address.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use jepsen_style_tests::cluster::Voter;
use jepsen_style_tests::http::{Http, HttpExt as _};
use jepsen_style_tests::process::Process;
use jepsen_style_tests::{Cluster, Failure, Limit, Result};
use serde_json::Value;

/// How long a server may take to find that it must not take part.
const END_LIMIT: Duration = Duration::from_secs(30);
/// How long the catalogue and the membership may take to follow a server.
const FOLLOW_LIMIT: Duration = Duration::from_secs(20);
/// Writes that go through one server at the same time.
const PARALLEL: usize = 20;

/// A server that is no node of the cluster: a copy of one, at another address.
struct Copy {
    process: Process,
    ip: Ipv4Addr,
}

impl Copy {
    /// Starts a copy of node `id` with its data in `data`.
    fn start(cluster: &Cluster, id: u64, data: &Path) -> Result<Self> {
        let [a, b, c, d] = cluster.ip(id).octets();
        let ip = Ipv4Addr::new(a, b, c, d + 200);
        let join: Vec<String> =
            cluster.ids().iter().map(|id| format!("{}:8300", cluster.ip(*id))).collect();
        let flags = format!(
            "server --node-id {id} --name n{id} --data-dir {} --http-addr {ip}:8500 --rpc-addr {ip}:8300 --dns-addr {ip}:8600 --bootstrap-expect 3 --join {}",
            data.display(),
            join.join(","),
        );
        let process = Process::start(&data.with_extension("log"), flags.split(' '))?;
        Ok(Self { process, ip })
    }
}

fn copy_of(data: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg(data).arg(to).status()?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("cp: {status}"))) }
}

/// Writes keys below a prefix at the same time, and returns those that were acknowledged.
async fn write(node: &Http, prefix: &str) -> Vec<String> {
    let puts = (0..PARALLEL).map(|number| {
        let (node, key) = (node.clone(), format!("{prefix}/{number}"));
        tokio::spawn(async move {
            let answer = node.put(&format!("/v1/kv/{key}"), "written").await;
            answer.is_ok_and(|answer| answer.status == 200 && answer.body == "true").then_some(key)
        })
    });
    let puts: Vec<_> = puts.collect();
    let mut acknowledged = Vec::new();
    for put in puts {
        acknowledged.extend(put.await.expect("a write does not panic"));
    }
    acknowledged
}

async fn require_keys(node: &Http, keys: &[String]) -> Result<()> {
    for key in keys {
        let answer = node.get(&format!("/v1/kv/{key}?raw")).await?;
        assert_eq!((answer.status, answer.text().as_str()), (200, "written"), "{key} is lost");
    }
    Ok(())
}

/// Node 3 writes, its directory is set back to before that, and it starts again. `others` are restarted
/// meanwhile, so that nobody remembers what it had acknowledged but the log.
async fn set_back(cluster: &mut Cluster, others: &[u64]) -> Result<Vec<String>> {
    cluster.terminate(3)?;
    cluster.wait_stopped(3)?;
    let (data, old) = (cluster.data_dir(3).to_owned(), cluster.dir().join("old"));
    copy_of(&data, &old)?;
    cluster.start_node(3)?;
    cluster.wait_ready(3).await?;
    let acknowledged = write(&cluster.http(3), "before").await;
    assert_eq!(acknowledged.len(), PARALLEL, "the cluster is healthy");
    cluster.kill(3)?;
    std::fs::remove_dir_all(&data)?;
    std::fs::rename(&old, &data)?;
    for id in others {
        cluster.restart(*id)?;
    }
    for id in [1, 2] {
        cluster.wait_ready(id).await?;
    }
    cluster.start_node(3)?;
    Ok(acknowledged)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_was_set_back_costs_no_acknowledged_write() {
    let mut cluster = Cluster::start_shared(3).await.unwrap();
    let mut acknowledged = set_back(&mut cluster, &[1, 2]).await.unwrap();
    let began = Instant::now();
    let mut rounds = 0;
    // It is refused if the log says what it held, which it says half a second later. Else it takes part,
    // and its numbers are new ones.
    while cluster.ended(3).unwrap().is_none() && began.elapsed() < Duration::from_secs(4) {
        acknowledged.extend(write(&cluster.http(3), &format!("after-{rounds}")).await);
        rounds += 1;
    }
    println!("{} acknowledged, ended: {:?}", acknowledged.len(), cluster.ended(3));
    if cluster.ended(3).unwrap().is_some() {
        assert!(cluster.log(3).unwrap().contains("data directory has lost data: it held entry"));
    } else {
        assert!(acknowledged.len() > PARALLEL, "vacuous: no write through the server set back");
    }
    for id in [1, 2] {
        require_keys(&cluster.http(id), &acknowledged).await.unwrap();
    }
    assert!(cluster.panics().unwrap().is_empty(), "{:?}", cluster.panics());
    cluster.abandon();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_was_set_back_is_refused_by_a_leader_that_knows_what_it_held() {
    let mut cluster = Cluster::start_shared(3).await.unwrap();
    if cluster.leader().await.unwrap() == 3 {
        cluster.transfer_leader(1, 2).await.unwrap();
    }
    let acknowledged = set_back(&mut cluster, &[]).await.unwrap();
    let status = cluster.wait_ended(3, END_LIMIT).await.unwrap();
    assert_eq!(status.code(), Some(1));
    let log = cluster.log(3).unwrap();
    let sentence = "data directory has lost data: it held entry";
    let at_error = |line: &&str| line.contains("ERROR") && line.contains(sentence);
    assert!(log.lines().any(|line| at_error(&line)), "{log}");
    for id in [1, 2] {
        require_keys(&cluster.http(id), &acknowledged).await.unwrap();
        assert!(!write(&cluster.http(id), "afterwards").await.is_empty());
    }
    // Nor does it start when no other server is there that knows it.
    for id in [1, 2] {
        cluster.terminate(id).unwrap();
        cluster.wait_stopped(id).unwrap();
    }
    cluster.start_node(3).unwrap();
    assert_eq!(cluster.wait_ended(3, END_LIMIT).await.unwrap().code(), Some(1));
    let log = cluster.log(3).unwrap();
    assert!(log.contains("/condemned: this data directory must not be used again"), "{log}");
    assert!(cluster.panics().unwrap().is_empty(), "{:?}", cluster.panics());
    cluster.abandon();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_beside_the_original_ends_and_the_original_goes_on() {
    let mut cluster = Cluster::start_shared(3).await.unwrap();
    cluster.terminate(3).unwrap();
    cluster.wait_stopped(3).unwrap();
    let copied = cluster.dir().join("copied");
    copy_of(cluster.data_dir(3), &copied).unwrap();
    cluster.start_node(3).unwrap();
    cluster.wait_all_ready().await.unwrap();

    let mut copy = Copy::start(&cluster, 3, &copied).unwrap();
    let mut acknowledged = Vec::new();
    let began = Instant::now();
    let mut round = 0;
    while copy.process.ended().unwrap().is_none() && began.elapsed() < END_LIMIT {
        for id in cluster.ids() {
            acknowledged.extend(write(&cluster.http(id), &format!("{round}/{id}")).await);
        }
        round += 1;
    }
    assert_eq!(copy.process.wait_ended(END_LIMIT).await.unwrap(), Some(1));
    let sentence = format!("this server's identity is in use at {}:8300", cluster.ip(3));
    let said = copy.process.log();
    assert!(said.lines().any(|line| line.contains("ERROR") && line.contains(&sentence)), "{said}");
    println!("ended after {:?}, {} writes acknowledged", began.elapsed(), acknowledged.len());
    assert_eq!(acknowledged.len(), round * 3 * PARALLEL, "no request failed meanwhile");
    for id in cluster.ids() {
        require_keys(&cluster.http(id), &acknowledged).await.unwrap();
    }
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_takes_over_from_an_original_that_does_not_answer_and_that_one_ends() {
    let mut cluster = Cluster::start_shared(3).await.unwrap();
    if cluster.leader().await.unwrap() == 3 {
        cluster.transfer_leader(1, 2).await.unwrap();
    }
    cluster.pause(3).unwrap();
    let copied = cluster.dir().join("copied");
    copy_of(cluster.data_dir(3), &copied).unwrap();
    let copy = Copy::start(&cluster, 3, &copied).unwrap();
    let there = Http::new(&format!("http://{}:8500", copy.ip)).unwrap();
    let limit = Limit::new(FOLLOW_LIMIT);
    let mut acknowledged = Vec::new();
    while acknowledged.is_empty() {
        limit.pause(|| "a write through the copy".to_owned()).await.unwrap();
        acknowledged = write(&there, "copy").await;
    }
    wait_address(&cluster, 3, &format!("{}:8300", copy.ip)).await.unwrap();

    cluster.resume(3).unwrap();
    let status = cluster.wait_ended(3, END_LIMIT).await.unwrap();
    assert_eq!(status.code(), Some(1));
    let log = cluster.log(3).unwrap();
    let sentence = format!("this server's identity is in use at {}:8300", copy.ip);
    assert!(log.lines().any(|line| line.contains("ERROR") && line.contains(&sentence)), "{log}");
    for node in [cluster.http(1), cluster.http(2), there] {
        require_keys(&node, &acknowledged).await.unwrap();
    }
    assert!(cluster.panics().unwrap().is_empty(), "{:?}", cluster.panics());
    cluster.abandon();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_server_says_so_and_ends() {
    const SENTENCE: &str = "this server was removed from the cluster";
    let mut cluster = Cluster::start_shared(3).await.unwrap();
    // A member that is up, the leader at that; then started again.
    let removed = cluster.leader().await.unwrap();
    let others = cluster.others(removed);
    // A member whose boot never came into the log leaves no trace there, and may join again.
    cluster.wait_log(removed, &["the cluster has recorded this boot"], FOLLOW_LIMIT).await.unwrap();
    cluster.remove_from_raft(removed, others[0]).await.unwrap();
    let status = cluster.wait_ended(removed, END_LIMIT).await.unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(cluster.log(removed).unwrap().contains(SENTENCE), "{:?}", cluster.log(removed));
    let said = cluster.log(removed).unwrap().len();
    cluster.start_node(removed).unwrap();
    let status = cluster.wait_ended(removed, END_LIMIT).await.unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(cluster.log(removed).unwrap()[said..].contains(SENTENCE));

    // A guest that was down when it was removed.
    let guest = cluster.add_member().unwrap();
    cluster.wait_votes(guest).await.unwrap();
    cluster.wait_ready(guest).await.unwrap();
    cluster.kill(guest).unwrap();
    cluster.remove_from_raft(guest, others[0]).await.unwrap();
    cluster.start_node(guest).unwrap();
    let status = cluster.wait_ended(guest, END_LIMIT).await.unwrap();
    assert_eq!(status.code(), Some(1));
    let log = cluster.log(guest).unwrap();
    let says_so = |line: &str| line.contains("ERROR") && line.contains(SENTENCE);
    assert!(log.lines().any(says_so), "{log}");
    for id in others {
        assert_eq!(write(&cluster.http(id), &format!("through-{id}")).await.len(), PARALLEL);
    }
    assert!(cluster.panics().unwrap().is_empty(), "{:?}", cluster.panics());
    cluster.abandon();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_move_are_members_at_their_new_addresses() {
    let mut cluster = Cluster::start_shared(3).await.unwrap();
    let mut acknowledged = write(&cluster.http(1), "at-first").await;
    let leader = cluster.leader().await.unwrap();
    let follower = cluster.others(leader)[0];
    for moved in [vec![follower], vec![leader], vec![1, 2, 3]] {
        for id in &moved {
            cluster.kill(*id).unwrap();
            cluster.move_node(*id).unwrap();
        }
        let began = Instant::now();
        cluster.start_all().unwrap();
        cluster.wait_all_ready().await.unwrap();
        println!("{moved:?} moved: ready after {:?}", began.elapsed());
        for id in &moved {
            let (ip, address) = (cluster.ip(*id), format!("{}:8300", cluster.ip(*id)));
            wait_address(&cluster, *id, &address).await.unwrap();
            wait_catalog(&cluster, *id, &ip.to_string()).await.unwrap();
            acknowledged.extend(write(&cluster.http(*id), &format!("{ip}")).await);
        }
        for id in cluster.ids() {
            require_keys(&cluster.http(id), &acknowledged).await.unwrap();
        }
    }
    assert_eq!(acknowledged.len(), 6 * PARALLEL);
    cluster.finish().await.unwrap();
}

/// Waits until the membership has a server at an address.
async fn wait_address(cluster: &Cluster, id: u64, address: &str) -> Result<()> {
    let limit = Limit::new(FOLLOW_LIMIT);
    let is_it = |voter: &Voter| voter.raft_id == id && voter.votes && voter.address == address;
    while !cluster.configuration().await.is_ok_and(|members| members.iter().any(is_it)) {
        limit.pause(|| format!("server {id} at {address} in the membership")).await?;
    }
    Ok(())
}

/// Waits until the catalogue and the list of members show a server at an address.
async fn wait_catalog(cluster: &Cluster, id: u64, ip: &str) -> Result<()> {
    let (name, node) = (format!("n{id}"), cluster.http(cluster.running()[0]));
    let shows = |list: &Value, of: &str, at: &str| {
        let mut rows = list.as_array().into_iter().flatten();
        rows.any(|row| row[of] == name.as_str() && row[at] == ip)
    };
    let is_peer = |peers: &Value| {
        peers.as_array().into_iter().flatten().any(|peer| *peer == format!("{ip}:8300"))
    };
    let listed = |list: &Value| shows(list, "Node", "Address");
    node.wait_for("/v1/catalog/service/consul", FOLLOW_LIMIT, listed).await?;
    let listed = |list: &Value| shows(list, "Name", "Addr");
    node.wait_for("/v1/agent/members", FOLLOW_LIMIT, listed).await?;
    node.wait_for("/v1/status/peers", FOLLOW_LIMIT, is_peer).await.map(drop)
}
