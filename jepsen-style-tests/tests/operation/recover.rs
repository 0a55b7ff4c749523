//! A cluster that has lost its quorum for good: `quorate recover` makes a new one of a survivor, with everything in
//! the survivor's log.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use jepsen_style_tests::{Cluster, Failure, Limit, Options, Result, binary, process};

const KEYS: usize = 60;
/// How long a log line, or a request that hangs in a leader without followers, may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Runs the command; returns its exit status and what it said.
fn recover(dirs: &[&Path], flags: &[&str]) -> Result<(ExitStatus, String)> {
    let dirs = dirs.iter().map(|dir| dir.as_os_str());
    let command = ["recover", "--data-dir"].map(OsStr::new).into_iter().chain(dirs);
    process::run(&[], command.chain(flags.iter().map(OsStr::new)))
}

/// Writes through every node; then one write that only the leader has in its log. Ends with all servers
/// killed at once, and returns the leader and the key of that write.
async fn write_and_crash(cluster: &mut Cluster) -> Result<(u64, String)> {
    let nodes = cluster.https(&cluster.ids());
    for number in 0..KEYS {
        let node = &nodes[number % nodes.len()];
        node.must_put(&format!("/v1/kv/key/{number}"), number.to_string()).await?;
    }
    // Nothing that has a deadline: the log grows by what is written, and by nothing else.
    nodes[0].must_put("/v1/agent/service/register", r#"{"Name":"web","Port":80}"#).await?;
    for attempt in 0.. {
        assert!(attempt < 20, "no write reached the log of a leader whose followers were paused");
        let leader = cluster.leader().await?;
        let before = last_entry(cluster, leader).await?;
        for id in cluster.others(leader) {
            cluster.pause(id)?;
        }
        let (client, key) = (cluster.http(leader), format!("/v1/kv/alone/{attempt}"));
        let path = key.clone();
        let unanswered = tokio::spawn(async move { client.put(&path, "1").await });
        // A leader that has heard nobody for an election timeout takes nothing more into its log.
        tokio::time::sleep(Duration::from_millis(300)).await;
        if last_entry(cluster, leader).await? > before {
            assert!(!unanswered.is_finished(), "nobody else has it, so nobody may be told");
            let ids = cluster.ids();
            cluster.kill_all(&ids)?;
            return Ok((leader, key));
        }
        for id in cluster.others(leader) {
            cluster.resume(id)?;
        }
        cluster.wait_all_ready().await?;
    }
    unreachable!("the loop has no end of its own")
}

async fn last_entry(cluster: &Cluster, id: u64) -> Result<u64> {
    let metrics = cluster.probe(id).get("/metrics").await?;
    let last = metrics.metric("quorate_raft_last_log_index");
    last.ok_or_else(|| Failure::new("no last entry in /metrics"))
}

async fn everything_is_there(cluster: &Cluster, id: u64, alone: &str) -> Result<()> {
    let node = cluster.http(id);
    let keys = node.must_get("/v1/kv/key/?keys").await?;
    assert_eq!(keys.as_array().map(Vec::len), Some(KEYS));
    assert_eq!(node.get(&format!("{alone}?raw")).await?.body, "1");
    let web = node.must_get("/v1/health/service/web").await?;
    assert_eq!(web.as_array().map(Vec::len), Some(1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_becomes_a_new_cluster_and_the_others_are_refused() {
    let mut cluster = Cluster::start_shared(3).await.unwrap();
    let (survivor, alone) = write_and_crash(&mut cluster).await.unwrap();
    let dir = cluster.data_dir(survivor).to_owned();

    // To look changes nothing, and neither does an answer that nobody gave.
    let (status, said) = recover(&[&dir], &["--dry-run"]).unwrap();
    assert!(status.success() && said.contains("may be missing"), "{said}");
    let (status, said) = recover(&[&dir], &[]).unwrap();
    assert!(!status.success() && said.contains("--yes"), "{said}");
    cluster.start_node(survivor).unwrap();
    let limit = Limit::new(LIMIT);
    while !cluster.probe(survivor).get("/livez").await.is_ok_and(|answer| answer.status == 200) {
        limit.pause(|| "it runs".to_owned()).await.unwrap();
    }
    let (_, said) = recover(&[&dir], &["--yes"]).unwrap();
    assert!(said.contains("another process is using this data directory"), "{said}");
    cluster.kill(survivor).unwrap();

    let (status, said) = recover(&[&dir], &["--yes"]).unwrap();
    assert!(status.success(), "{said}");
    cluster.start_node(survivor).unwrap();
    cluster.wait_ready(survivor).await.unwrap();
    everything_is_there(&cluster, survivor, &alone).await.unwrap();
    let node = cluster.http(survivor);
    node.must_put("/v1/agent/service/register", r#"{"Name":"web","Port":81}"#).await.unwrap();

    // An old member comes back: it is refused, and says so.
    let old = cluster.others(survivor)[0];
    cluster.start_node(old).unwrap();
    cluster.wait_log(old, &["belongs to another cluster"], LIMIT).await.unwrap();
    assert_eq!(cluster.configuration().await.unwrap().len(), 1);
    cluster.kill(old).unwrap();

    // New servers join with new ids and empty directories.
    let others = [cluster.add_member().unwrap(), cluster.add_member().unwrap()];
    for id in others {
        cluster.wait_votes(id).await.unwrap();
        cluster.wait_ready(id).await.unwrap();
        everything_is_there(&cluster, id, &alone).await.unwrap();
        cluster.http(id).must_put(&format!("/v1/kv/new/{id}"), "1").await.unwrap();
    }
    assert_eq!(cluster.configuration().await.unwrap().len(), 3);
    // They are a quorum without it.
    cluster.kill(survivor).unwrap();
    everything_is_there(&cluster, others[0], &alone).await.unwrap();
    cluster.http(others[1]).must_put("/v1/kv/after", "1").await.unwrap();
    cluster.abandon();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_of_five_the_one_with_the_longer_log_is_taken() {
    let options = Options { nodes: 5, ..Options::shared() };
    let mut cluster = Cluster::start_with(options).await.unwrap();
    let (leader, alone) = write_and_crash(&mut cluster).await.unwrap();
    let other = cluster.others(leader)[0];
    let dirs = [cluster.data_dir(other).to_owned(), cluster.data_dir(leader).to_owned()];
    let (status, said) = recover(&[&dirs[0], &dirs[1]], &["--yes"]).unwrap();
    let taken = format!("Take {} (server {leader})", dirs[1].display());
    assert!(status.success() && said.contains(&taken), "{said}");
    cluster.start_node(leader).unwrap();
    cluster.wait_ready(leader).await.unwrap();
    everything_is_there(&cluster, leader, &alone).await.unwrap();
    assert_eq!(cluster.configuration().await.unwrap().len(), 1);
    cluster.abandon();
}

/// Killed at any moment, it leaves the old state or the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_that_is_killed_leaves_the_old_state_or_the_new_one() {
    let mut cluster = Cluster::start_shared(3).await.unwrap();
    let (survivor, alone) = write_and_crash(&mut cluster).await.unwrap();
    let dir = cluster.data_dir(survivor).to_owned();
    let cluster_now = || {
        let (_, said) = recover(&[&dir], &["--dry-run"]).unwrap();
        let line = said.lines().find(|line| line.contains("cluster ")).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{said}"))
    };
    let old = cluster_now();
    let mut killed = 0;
    for step in 0.. {
        let mut command = Command::new(binary::quorate().unwrap());
        command.args(["recover", "--yes", "--data-dir"]).arg(&dir);
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(step * 17)).await;
        child.kill().unwrap();
        let ended = child.wait().unwrap();
        if cluster_now() != old {
            break;
        }
        assert!(!ended.success(), "it said that it was done");
        killed += 1;
    }
    assert!(killed > 0, "none was killed in time");
    println!("{killed} recoveries were killed before one was done");
    cluster.start_node(survivor).unwrap();
    cluster.wait_ready(survivor).await.unwrap();
    everything_is_there(&cluster, survivor, &alone).await.unwrap();
    cluster.abandon();
}

fn copied(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("cp: {status}"))) }
}

async fn write(cluster: &Cluster, id: u64, prefix: &str) -> Result<()> {
    for number in 0..KEYS {
        let path = format!("/v1/kv/{prefix}/{number}");
        cluster.http(id).must_put(&path, number.to_string()).await?;
    }
    Ok(())
}

/// Two of three servers are set back and go on. The third alone has what was acknowledged in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_cluster_was_set_back_ends_and_no_directory_is_recommended() {
    let mut cluster = Cluster::start_shared(3).await.unwrap();
    let ids = cluster.ids();
    write(&cluster, 3, "early").await.unwrap();
    cluster.kill_all(&ids).unwrap();
    let aside = tempfile::tempdir().unwrap();
    let data = |cluster: &Cluster, id| cluster.data_dir(id).to_owned();
    let old = |id: u64| aside.path().join(id.to_string());
    for id in [1, 2] {
        copied(&data(&cluster, id), &old(id)).unwrap();
    }
    for id in &ids {
        cluster.start_node(*id).unwrap();
    }
    cluster.wait_all_ready().await.unwrap();
    // More than the others will write in one term: theirs begins with the same number, and an entry is known by
    // term and index.
    for part in ["lost", "lost/too", "lost/as/well"] {
        write(&cluster, 3, part).await.unwrap();
    }
    cluster.kill_all(&ids).unwrap();
    for id in [1, 2] {
        cluster.wipe(id).unwrap();
        copied(&old(id), &data(&cluster, id)).unwrap();
    }
    // So often that the log gives them later incarnations than the third server knows.
    for _ in 0..4 {
        for id in [1, 2] {
            cluster.start_node(id).unwrap();
        }
        cluster.wait_ready(1).await.unwrap();
        cluster.wait_ready(2).await.unwrap();
        write(&cluster, 1, "after").await.unwrap();
        cluster.kill_all(&[1, 2]).unwrap();
    }
    for id in &ids {
        cluster.start_node(*id).unwrap();
    }
    let limit = Limit::new(LIMIT);
    let mut ended = Vec::new();
    while ended.is_empty() {
        limit.pause(|| "the third server ends".to_owned()).await.unwrap();
        ended = cluster.reap_ended().unwrap();
    }
    for (id, status) in ended {
        let log = cluster.log(id).unwrap();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains("no longer has entries that this server knows"), "{log}");
        assert!(!log.contains("panicked"), "{log}");
    }
    cluster.kill_all(&cluster.running()).unwrap();
    let dirs = [1, 2, 3].map(|id| data(&cluster, id));
    let dirs = [&*dirs[0], &*dirs[1], &*dirs[2]];
    let (_, shown) = recover(&dirs, &["--dry-run"]).unwrap();
    assert!(shown.contains("CONFLICT, from index") && !shown.contains("Take "), "{shown}");
    let (status, said) = recover(&dirs, &["--yes", "--force"]).unwrap();
    assert!(!status.success(), "{said}");
    let (status, said) = recover(&dirs[2..], &["--yes"]).unwrap();
    assert!(status.success(), "{said}");
    cluster.start_node(3).unwrap();
    cluster.wait_ready(3).await.unwrap();
    let keys = cluster.http(3).must_get("/v1/kv/lost/?keys").await.unwrap();
    assert_eq!(keys.as_array().map(Vec::len), Some(3 * KEYS));
    cluster.abandon();
}
