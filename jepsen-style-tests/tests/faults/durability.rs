//! Acknowledged writes survive: crashes of all nodes, a purged log, and a check of the system calls that make it
//! so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jepsen_style_tests::http::{Http, HttpExt as _};
use jepsen_style_tests::load::{CRASH, Load};
use jepsen_style_tests::process::send_signal;
use jepsen_style_tests::rounds::rounds;
use jepsen_style_tests::workload::set_and_counters;
use jepsen_style_tests::{Cluster, Failure, Limit, Result, skipped};
use nix::sys::signal::Signal;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_write_survives_the_crash_of_all_nodes() {
    const WRITES_PER_ROUND: usize = 150;
    let mut cluster = Cluster::start(3).await.unwrap();
    let hashes = cluster.watch_hashes(Duration::from_millis(50));
    let mut earlier = Vec::new();
    for round in 1..=rounds(5) {
        let (ids, workload) = (cluster.ids(), set_and_counters(&format!("round-{round}/")));
        let load = Load::start(&cluster, &ids, workload, CRASH).await.unwrap();
        load.wait_acknowledged(WRITES_PER_ROUND, Duration::from_secs(20)).await.unwrap();
        cluster.kill_all(&ids).unwrap();
        let traffic = load.stop().await.unwrap();
        let began = Instant::now();
        cluster.start_all().unwrap();
        cluster.wait_all_ready().await.unwrap();
        println!(
            "round {round}: {} writes acknowledged, {} requests open at the crash, ready after {} ms",
            traffic.acknowledged_writes(),
            traffic.failures().unwrap().len(),
            began.elapsed().as_millis(),
        );
        traffic.require_valid(&cluster).await.unwrap();
        earlier.push(traffic);
    }
    for traffic in earlier {
        traffic.require_valid(&cluster).await.unwrap();
    }
    drop(hashes);
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_missed_a_purge_is_given_a_snapshot() {
    // A snapshot is due every 64 MiB, and what is kept of the log behind it is bounded too: values
    // that replace each other are written until both others have purged what the absent node lacks.
    const VALUE_BYTES: usize = 400 * 1024;
    const WRITES_MAX: usize = 2_000;
    const AT_A_TIME: usize = 4;
    let mut cluster = Cluster::start(3).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let absent = cluster.others(leader)[0];
    cluster.http(absent).must_put("/v1/kv/seen-by-all", "1").await.unwrap();
    let (seen, _) = cluster.state_hash(absent).await.unwrap();
    cluster.kill(absent).unwrap();
    let nodes = cluster.https(&cluster.others(absent));
    let mut written = 0;
    while !have_purged(&nodes, seen).await.unwrap() {
        assert!(written < WRITES_MAX, "nothing was purged after {written} large writes");
        let puts: Vec<_> = (written..written + AT_A_TIME)
            .map(|number| {
                let node = nodes[number % nodes.len()].clone();
                let value = vec![b'a' + u8::try_from(number % 26).unwrap_or(0); VALUE_BYTES];
                let path = format!("/v1/kv/large/{}", number % 8);
                tokio::spawn(async move { node.must_put(&path, value).await })
            })
            .collect();
        for put in puts {
            put.await.unwrap().unwrap();
        }
        written += AT_A_TIME;
    }
    nodes[0].must_put("/v1/kv/written-meanwhile", "2").await.unwrap();
    cluster.start_node(absent).unwrap();
    cluster.wait_ready(absent).await.unwrap();
    let (applied, _) = cluster.converge().await.unwrap();
    let back = cluster.http(absent);
    assert_eq!(back.get("/v1/kv/written-meanwhile?raw&stale").await.unwrap().body, "2");
    assert_eq!(back.get("/v1/kv/seen-by-all?raw&stale").await.unwrap().body, "1");
    let log = cluster.log(absent).unwrap().to_lowercase();
    assert!(
        log.contains("snapshot"),
        "vacuous: the node that came back says nothing of a snapshot"
    );
    println!("converged at {applied} after missing {} MiB", (written * VALUE_BYTES) >> 20);
    cluster.finish().await.unwrap();
}

/// A disk that lost what it had synced is beyond what a log can promise. But only its own server is to
/// suffer: the leader must not, and it must say what has happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lost_what_it_had_acknowledged_does_not_end_the_leader() {
    const LOST_BYTES: u64 = 700;
    // The mark, which would show the loss, is written every so often: not every attempt gets past it.
    const ATTEMPTS: usize = 10;
    let mut cluster = Cluster::start(3).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let victim = cluster.others(leader)[0];
    let node = cluster.http(leader);
    for attempt in 1..=ATTEMPTS {
        for number in 0..40 {
            node.must_put(&format!("/v1/kv/tail/{attempt}/{number}"), "written").await.unwrap();
        }
        cluster.kill(victim).unwrap();
        let log = cluster.data_dir(victim).join("log/db");
        let whole = std::fs::read(&log).unwrap();
        cut_end(&log, &whole, LOST_BYTES);
        cluster.start_node(victim).unwrap();
        if is_told_of_a_loss(&mut cluster, leader).await {
            break;
        }
        assert!(attempt < ATTEMPTS, "vacuous: no attempt got past the mark");
        if cluster.pid(victim).is_some() {
            cluster.kill(victim).unwrap();
        }
        std::fs::write(&log, whole).unwrap();
        cluster.start_node(victim).unwrap();
        cluster.wait_ready(victim).await.unwrap();
    }
    assert_eq!(cluster.leader().await.unwrap(), leader, "the leader is the one that it was");
    node.must_put("/v1/kv/afterwards", "written").await.unwrap();
    assert!(cluster.panics().unwrap().is_empty(), "{:?}", cluster.panics());
    cluster.abandon();
}

/// Takes the last used bytes from a file that is longer than what is used of it.
fn cut_end(path: &Path, whole: &[u8], bytes: u64) {
    let used = whole.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
    let file = std::fs::File::options().write(true).open(path).expect("the log is there");
    file.set_len(used - bytes).expect("it can be cut");
}

/// Whether the leader says, within a while, that somebody lost what it had acknowledged; or the damaged
/// server noticed it itself, and ended.
async fn is_told_of_a_loss(cluster: &mut Cluster, leader: u64) -> bool {
    let limit = Limit::new(Duration::from_secs(5));
    let sentence = "lost entries that it had acknowledged";
    while !limit.is_over() {
        if cluster.log(leader).is_ok_and(|log| log.contains(sentence)) {
            return true;
        }
        if cluster.reap_ended().is_ok_and(|ended| !ended.is_empty()) {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

/// Whether all `nodes` have removed entries behind `index` from their logs.
async fn have_purged(nodes: &[Http], index: u64) -> Result<bool> {
    for node in nodes {
        if node.figure("quorate_raft_purged_index").await? <= index {
            return Ok(false);
        }
    }
    Ok(true)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_synced_to_disk_before_it_is_acknowledged() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        skipped(SYNCED, "strace is not installed, so nobody looked at the system calls");
        return;
    }
    // Alone, the node's own disk must hold the write; among three, two others' could.
    let cluster = Cluster::start(1).await.unwrap();
    let trace = cluster.data_dir(1).with_file_name("strace");
    let traced = trace_puts(&cluster, &trace).await;
    if let Err(why) = traced {
        skipped(SYNCED, &format!("this machine does not let a process be traced: {why}"));
        cluster.abandon();
        return;
    }
    let text = std::fs::read_to_string(&trace).unwrap();
    let acknowledged = require_synced(&text).unwrap();
    println!("{acknowledged} acknowledgements, each behind an fdatasync of the log");
    assert!(acknowledged >= PUTS, "vacuous: {acknowledged} acknowledgements were seen");
    cluster.finish().await.unwrap();
}

const SYNCED: &str = "a_write_is_synced_to_disk_before_it_is_acknowledged";
const PUTS: usize = 20;
/// What every traced value holds.
const MARK: &str = "traced-value";

/// Traces the server while it takes some writes, one after the other.
async fn trace_puts(cluster: &Cluster, trace: &Path) -> Result<()> {
    let pid = cluster.pid(1).ok_or_else(|| Failure::new("no process"))?;
    let calls = "trace=pwrite64,fdatasync,write,writev,sendto,sendmsg";
    let mut strace = Command::new("strace")
        .args(["-f", "-y", "-s", "20000", "-e", calls, "-e", "signal=none"])
        .args(["-p", &pid.to_string(), "-o"])
        .arg(trace)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    // It has attached when the first calls of a waiting server appear; heartbeats of its own suffice, and
    // a read makes some for certain.
    let limit = Limit::new(Duration::from_secs(5));
    while std::fs::metadata(trace).map_or(0, |data| data.len()) == 0 {
        if let Some(status) = strace.try_wait()? {
            return Err(Failure::new(format!("strace ended with {status}")));
        }
        if limit.is_over() {
            strace.kill()?;
            strace.wait()?;
            return Err(Failure::new("strace shows nothing"));
        }
        cluster.http(1).get("/v1/status/leader").await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for number in 0..PUTS {
        cluster.http(1).must_put(&format!("/v1/kv/traced/{number}"), MARK).await?;
    }
    send_signal(&strace, Signal::SIGINT)?;
    strace.wait()?;
    Ok(())
}

/// After the write of an entry (which holds [`MARK`]) to the log's file, an fdatasync of that file begins
/// and ends before the next answer to a client. Returns the number of answers looked at.
///
/// Other writes to the file do not matter: how far the log is committed need not be durable.
fn require_synced(trace: &str) -> Result<usize> {
    let mut is_pending = false;
    let mut is_synced = true;
    // By thread: a write that has not ended, and a sync and whether it covers the last write.
    let mut writing: BTreeSet<&str> = BTreeSet::new();
    let mut syncing: BTreeMap<&str, bool> = BTreeMap::new();
    let mut answers = 0;
    for line in trace.lines() {
        let (thread, call) = line.split_once(' ').unwrap_or(("", line));
        let call = call.trim_start();
        let is_log = call.contains("/db>");
        if is_log && call.starts_with("pwrite") && call.contains(MARK) {
            (is_pending, is_synced) = (true, false);
            if call.contains("unfinished") {
                writing.insert(thread);
            }
            // A sync that is already running need not cover it.
            syncing.values_mut().for_each(|covers| *covers = false);
        } else if is_log && call.starts_with("fdatasync") {
            if call.contains("unfinished") {
                syncing.insert(thread, writing.is_empty());
            } else {
                is_synced |= writing.is_empty();
            }
        } else if call.contains("pwrite64 resumed") {
            writing.remove(thread);
        } else if call.contains("fdatasync resumed") {
            is_synced |= syncing.remove(thread).unwrap_or(false);
        } else if is_pending && call.contains("HTTP/1.1 200") {
            if !is_synced {
                return Err(Failure::new(format!("acknowledged before it was synced: {line}")));
            }
            answers += 1;
            is_pending = false;
        }
    }
    Ok(answers)
}

#[test]
fn an_acknowledgement_without_a_sync_is_found() {
    let write = "7 pwrite64(9</data/n1/log/db>, \"..traced-value..\", 512, 0) = 512\n";
    let committed = "7 pwrite64(9</data/n1/log/db>, \"..\", 32, 512) = 32\n";
    let sync = "7 fdatasync(11</data/n1/log/db>) = 0\n";
    let other = "7 fdatasync(12</data/n1/mark>) = 0\n";
    let answer = "8 writev(12<socket:[1]>, [{iov_base=\"HTTP/1.1 200 OK\\r\\n\"...}], 1) = 90\n";
    let begun = "7 fdatasync(11</data/n1/log/db> <unfinished ...>\n";
    let ended = "7 <... fdatasync resumed>) = 0\n";
    let judge = |lines: &[&str]| require_synced(&lines.concat());
    assert_eq!(judge(&[write, sync, answer]), Ok(1));
    assert_eq!(judge(&[write, begun, ended, answer]), Ok(1));
    assert_eq!(judge(&[answer, write, sync, answer]), Ok(1));
    assert_eq!(judge(&[write, sync, committed, answer]), Ok(1));
    assert_eq!(judge(&[write, sync, answer, write, sync, answer]), Ok(2));
    assert!(judge(&[write, answer, sync]).is_err());
    assert!(judge(&[sync, write, answer]).is_err());
    assert!(judge(&[write, other, answer]).is_err());
    assert!(judge(&[write, begun, answer, ended]).is_err());
    assert!(judge(&[begun, write, ended, answer]).is_err());
    assert!(judge(&[write, sync, answer, write, answer]).is_err());
    let writing = "6 pwrite64(9</data/n1/log/db>, \"..traced-value..\", 512, 0 <unfinished ...>\n";
    let written = "6 <... pwrite64 resumed>) = 512\n";
    assert_eq!(judge(&[writing, written, sync, answer]), Ok(1));
    assert!(judge(&[writing, sync, written, answer]).is_err());
}
