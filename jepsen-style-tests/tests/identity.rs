//! Who a server is: copies of its directory, directories that were set back, servers that were removed,
//! and servers that come from another address.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jepsen_style_tests::http::Http;
use jepsen_style_tests::{Cluster, Failure, Result};

/// How long a server may take to find that it must not take part.
const END_LIMIT: Duration = Duration::from_secs(30);
/// How long the catalogue and the membership may take to follow a server.
const FOLLOW_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
/// Writes that go through one server at the same time.
const PARALLEL: usize = 20;

/// A server that is no node of the cluster: a copy of one, at another address.
struct Copy {
    child: Child,
    ip: Ipv4Addr,
    log: PathBuf,
}

impl Drop for Copy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Copy {
    /// Starts a copy of node `id` with its data in `data`.
    fn start(cluster: &Cluster, id: u64, data: &Path) -> Result<Self> {
        let [a, b, c, d] = cluster.ip(id).octets();
        let ip = Ipv4Addr::new(a, b, c, d + 200);
        let log = data.with_extension("log");
        let file = std::fs::File::create(&log)?;
        let join: Vec<String> =
            cluster.ids().iter().map(|id| format!("{}:8300", cluster.ip(*id))).collect();
        let child = Command::new(cluster.program(id)?)
            .args(["server", "--node-id", &id.to_string(), "--name", &format!("n{id}")])
            .arg("--data-dir")
            .arg(data)
            .args(["--http-addr", &format!("{ip}:8500"), "--rpc-addr", &format!("{ip}:8300")])
            .args(["--dns-addr", &format!("{ip}:8600")])
            .args(["--bootstrap-expect", "3", "--join", &join.join(",")])
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        Ok(Self { child, ip, log })
    }

    /// Waits until it ends, and gives its exit code.
    async fn ended(&mut self) -> Result<Option<i32>> {
        let deadline = Instant::now() + END_LIMIT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code());
            }
            if Instant::now() > deadline {
                return Err(Failure::new(format!("the copy goes on: {}", self.said()?)));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn said(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
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
        assert_eq!((answer.status, answer.body.as_str()), (200, "written"), "{key} is lost");
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
    let mut cluster = Cluster::start(3).await.unwrap();
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
    let mut cluster = Cluster::start(3).await.unwrap();
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
    assert!(cluster.panics().unwrap().is_empty(), "{:?}", cluster.panics());
    cluster.abandon();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_beside_the_original_ends_and_the_original_goes_on() {
    let mut cluster = Cluster::start(3).await.unwrap();
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
    while copy.child.try_wait().unwrap().is_none() && began.elapsed() < END_LIMIT {
        for id in cluster.ids() {
            acknowledged.extend(write(&cluster.http(id), &format!("{round}/{id}")).await);
        }
        round += 1;
    }
    assert_eq!(copy.ended().await.unwrap(), Some(1));
    let sentence = format!("this server's identity is in use at {}:8300", cluster.ip(3));
    let said = copy.said().unwrap();
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
    let mut cluster = Cluster::start(3).await.unwrap();
    if cluster.leader().await.unwrap() == 3 {
        cluster.transfer_leader(1, 2).await.unwrap();
    }
    cluster.pause(3).unwrap();
    let copied = cluster.dir().join("copied");
    copy_of(cluster.data_dir(3), &copied).unwrap();
    let copy = Copy::start(&cluster, 3, &copied).unwrap();
    let there = Http::new(&format!("http://{}:8500", copy.ip)).unwrap();
    let acknowledged = until("a write through the copy", || async {
        let acknowledged = write(&there, "copy").await;
        (!acknowledged.is_empty()).then_some(acknowledged)
    })
    .await
    .unwrap();
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
    let mut cluster = Cluster::start(3).await.unwrap();
    // A member that is up, the leader at that; then started again.
    let removed = cluster.leader().await.unwrap();
    let others = cluster.others(removed);
    // A member whose boot never came into the log leaves no trace there, and may join again.
    until("boot in the log", || async {
        cluster.log(removed).ok()?.contains("the cluster knows this start").then_some(())
    })
    .await
    .unwrap();
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
    let mut cluster = Cluster::start(3).await.unwrap();
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

/// Asks again until there is an answer.
async fn until<T, F: Future<Output = Option<T>>>(what: &str, ask: impl Fn() -> F) -> Result<T> {
    let deadline = Instant::now() + FOLLOW_LIMIT;
    loop {
        if let Some(answer) = ask().await {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            return Err(Failure::new(format!("no {what} within {FOLLOW_LIMIT:?}")));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until the membership has a server at an address.
async fn wait_address(cluster: &Cluster, id: u64, address: &str) -> Result<()> {
    until("member at the new address", || async {
        let configuration = cluster.configuration().await.ok()?;
        let is_there = configuration
            .iter()
            .any(|voter| voter.raft_id == id && voter.votes && voter.address == address);
        is_there.then_some(())
    })
    .await
}

/// Waits until the catalogue and the list of members show a server at an address.
async fn wait_catalog(cluster: &Cluster, id: u64, ip: &str) -> Result<()> {
    let name = format!("n{id}");
    until("server at its new address in the catalogue", || async {
        let node = cluster.http(cluster.running()[0]);
        let rows = node.must_get("/v1/catalog/service/consul").await.ok()?;
        let members = node.must_get("/v1/agent/members").await.ok()?;
        let peers = node.must_get("/v1/status/peers").await.ok()?;
        let shows = |list: &serde_json::Value, of: &str, at: &str| {
            list.as_array().is_some_and(|rows| {
                rows.iter().any(|row| row[of] == name.as_str() && row[at] == ip)
            })
        };
        let is_peer = peers.as_array()?.iter().any(|peer| *peer == format!("{ip}:8300"));
        (shows(&rows, "Node", "Address") && shows(&members, "Name", "Addr") && is_peer)
            .then_some(())
    })
    .await
}
