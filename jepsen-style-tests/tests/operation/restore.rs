//! A restored backup replaces everything on every node, in one step that all watchers see.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::io::Read as _;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use jepsen_style_tests::http::{Answer, AnswerExt as _, Http, Method};
use jepsen_style_tests::process::{resident_kib, resident_peak_kib};
use jepsen_style_tests::{Cluster, Result};
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// Large enough that the backup goes through the log in many pieces.
const KEYS: usize = 40;
const VALUE_BYTES: usize = 100 * 1024;

/// What an archive of zeros unpacks to.
const ZEROS: u64 = 1 << 30;
/// What refusing it may take of memory, with what else the server does meanwhile.
const REFUSAL_KIB_MAX: u64 = 64 * 1024;

/// What every server logs.
const RESTORED: &str = "a backup was restored";

/// Longer than any wait in here.
const PATIENCE: Duration = Duration::from_secs(60);

/// Values that a compressor cannot shorten, so that many blocks are really sent.
fn value(number: usize) -> Vec<u8> {
    let mut value = vec![0; VALUE_BYTES];
    ChaCha8Rng::seed_from_u64(number as u64).fill_bytes(&mut value);
    value
}

async fn save(node: &Http) -> Result<Bytes> {
    let answer = node.get("/v1/snapshot").await?;
    assert_eq!(answer.header("content-type"), Some("application/x-gzip"));
    Ok(answer.body)
}

async fn blocked(node: Http, path: &str, index: u64) -> Result<Answer> {
    let node = Http::with_timeout(node.base(), PATIENCE)?;
    let sign = if path.contains('?') { '&' } else { '?' };
    Ok(node.get(&format!("{path}{sign}index={index}&wait=50s")).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_backup_is_everywhere_and_wakes_everybody_and_no_index_falls() {
    let mut cluster = Cluster::start_shared(3).await.unwrap();
    let nodes = cluster.https(&cluster.ids());
    for number in 0..KEYS {
        nodes[number % 3].must_put(&format!("/v1/kv/key/{number}"), value(number)).await.unwrap();
    }
    nodes[0].must_put("/v1/agent/service/register", r#"{"Name":"kept","Port":80}"#).await.unwrap();
    let backup = save(&nodes[1]).await.unwrap();
    assert!(backup.len() > KEYS * VALUE_BYTES / 2, "{} bytes are few", backup.len());

    // Afterwards something is changed, deleted and added.
    nodes[1].must_put("/v1/kv/key/0", "changed").await.unwrap();
    nodes[2].send(Method::DELETE, "/v1/kv/key/1", Default::default()).await.unwrap();
    nodes[0].must_put("/v1/kv/new", "1").await.unwrap();
    nodes[2].must_put("/v1/agent/service/deregister/kept", "").await.unwrap();
    let paths = [
        "/v1/kv/key/0",
        "/v1/kv/key/5",
        "/v1/kv/new",
        "/v1/kv/key/?keys",
        "/v1/health/service/kept",
        "/v1/catalog/services",
        "/v1/session/list",
    ];
    let mut waiting = Vec::new();
    for (number, path) in paths.iter().enumerate() {
        let node = nodes[number % 3].clone();
        let index = node.get(path).await.unwrap().require_index().unwrap();
        waiting.push((*path, index, tokio::spawn(blocked(node, path, index))));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    for (path, _, query) in &waiting {
        assert!(!query.is_finished(), "{path} woke before the restore");
    }

    // What is no backup, or a damaged one, changes nothing.
    let (_, before) = cluster.converge().await.unwrap();
    for damaged in [Bytes::from_static(b"garbage"), backup.slice(..backup.len() / 2)] {
        let answer = nodes[2].put("/v1/snapshot", damaged).await.unwrap();
        assert_eq!(answer.status, 500, "{}", answer.text());
    }
    assert_eq!(cluster.converge().await.unwrap().1, before);

    let answer = nodes[2].put("/v1/snapshot", backup.clone()).await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, ""));
    for (path, index, query) in waiting {
        let answer = query.await.unwrap().unwrap();
        assert!(answer.require_index().unwrap() > index, "{path} fell from {index}");
    }
    all_is_back(&nodes).await;
    cluster.converge().await.unwrap();
    for id in cluster.ids() {
        cluster.wait_log(id, &["INFO", RESTORED, "index="], PATIENCE).await.unwrap();
    }

    // It is in the log like everything else.
    let ids = cluster.ids();
    cluster.kill_all(&ids).unwrap();
    cluster.start_all().unwrap();
    cluster.wait_all_ready().await.unwrap();
    all_is_back(&nodes).await;
    nodes[0].must_put("/v1/kv/after", "1").await.unwrap();
    // What a server applies again after a start is no news: it was said once, by each.
    changes_are_logged(&cluster, &nodes).await;
    for id in cluster.ids() {
        let log = cluster.log(id).unwrap();
        assert_eq!(log.matches(RESTORED).count(), 1, "n{id}:\n{log}");
    }
    cluster.finish().await.unwrap();
}

/// Returns when every server says what changes: it begins a moment after it has caught up.
async fn changes_are_logged(cluster: &Cluster, nodes: &[Http]) {
    for (id, node) in cluster.ids().into_iter().zip(nodes) {
        let mut services = 0;
        let logs = |services| {
            let log = cluster.log(id).unwrap();
            (0..services).any(|number| log.contains(&format!("service=n{id}-{number} ")))
        };
        while !logs(services) {
            assert!(services < 60, "n{id} logs no changes:\n{}", cluster.log(id).unwrap());
            let service = format!(r#"{{"Name":"n{id}-{services}"}}"#);
            node.must_put("/v1/agent/service/register", service).await.unwrap();
            services += 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

async fn all_is_back(nodes: &[Http]) {
    for (number, node) in nodes.iter().enumerate() {
        assert_eq!(node.get("/v1/kv/new").await.unwrap().status, 404, "at node {number}");
        let keys = node.must_get("/v1/kv/key/?keys").await.unwrap();
        assert_eq!(keys.as_array().unwrap().len(), KEYS, "at node {number}");
        let entry = node.must_get("/v1/kv/key/0").await.unwrap();
        assert_eq!(entry[0]["Value"].as_str().unwrap().len(), VALUE_BYTES.div_ceil(3) * 4);
        let services = node.must_get("/v1/health/service/kept").await.unwrap();
        assert_eq!(services.as_array().unwrap().len(), 1, "at node {number}");
        // The cluster's own servers are there all the time.
        let servers = node.must_get("/v1/health/service/consul?passing").await.unwrap();
        assert_eq!(servers.as_array().unwrap().len(), nodes.len(), "at node {number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_one_cluster_is_restored_in_another() {
    let old = Cluster::start_shared(3).await.unwrap();
    let nodes = old.https(&old.ids());
    nodes[0].must_put("/v1/kv/moved", "there").await.unwrap();
    nodes[0].must_put("/v1/kv/moved", "here").await.unwrap();
    let written = nodes[0].must_get("/v1/kv/moved").await.unwrap()[0]["ModifyIndex"].clone();
    let written = written.as_u64().unwrap();
    nodes[1].must_put("/v1/agent/service/register", r#"{"Name":"moved"}"#).await.unwrap();
    for number in 0..50 {
        nodes[2].must_put("/v1/kv/counter", number.to_string()).await.unwrap();
    }
    let newest = nodes[1].get("/v1/kv/?keys").await.unwrap().require_index().unwrap();
    assert!(newest > written + 50);
    let backup = save(&nodes[2]).await.unwrap();
    old.finish().await.unwrap();

    let new = Cluster::start_shared(3).await.unwrap();
    let nodes = new.https(&new.ids());
    nodes[0].must_put("/v1/kv/lost", "1").await.unwrap();
    // These watched the old cluster, and continue here with its indexes.
    let watched = ["/v1/kv/moved", "/v1/kv/?keys", "/v1/health/service/moved"];
    let waiting: Vec<_> = (watched.iter().zip(&nodes))
        .map(|(path, node)| (path, tokio::spawn(blocked(node.clone(), path, newest))))
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(waiting.iter().all(|(_, query)| !query.is_finished()), "woken by nothing");
    nodes[1].must_put("/v1/snapshot", backup).await.unwrap();
    for (path, query) in waiting {
        let index = query.await.unwrap().unwrap().require_index().unwrap();
        assert!(index > newest, "{path}: {index} is not beyond {newest}");
    }
    for old in written..=newest {
        let path = format!("/v1/kv/moved?cas={old}");
        assert_eq!(nodes[0].must_put(&path, "lost update").await.unwrap(), "false");
    }
    for node in &nodes {
        let modified = node.must_get("/v1/kv/moved").await.unwrap()[0]["ModifyIndex"].clone();
        assert!(modified.as_u64().unwrap() > newest, "{modified} is not beyond {newest}");
        assert_eq!(node.get("/v1/kv/moved?raw").await.unwrap().body, "here");
        assert_eq!(node.get("/v1/kv/lost").await.unwrap().status, 404);
        let services = node.must_get("/v1/health/service/moved?passing").await.unwrap();
        assert_eq!(services.as_array().unwrap().len(), 1);
    }
    // What it says of its own servers, who have the names of the old ones, is not the backup's.
    let peers = nodes[0].must_get("/v1/status/peers").await.unwrap().to_string();
    let servers = nodes[2].must_get("/v1/catalog/service/consul").await.unwrap();
    let servers = servers.as_array().unwrap();
    assert_eq!(servers.len(), nodes.len());
    for server in servers {
        let address = server["Address"].as_str().unwrap();
        assert!(peers.contains(address), "{server} is none of {peers}");
    }
    new.finish().await.unwrap();
}

/// An archive of one file of zeros.
fn of_zeros(kind: tar::EntryType, name: &str) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(ZEROS);
    header.set_entry_type(kind);
    archive.append_data(&mut header, name, std::io::repeat(0).take(ZEROS))?;
    Ok(archive.into_inner()?.finish()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_archive_that_unpacks_to_a_gigabyte_is_refused_and_takes_no_memory() {
    let cluster = Cluster::start_shared(1).await.unwrap();
    let (node, pid) = (cluster.http(1), cluster.pid(1).unwrap());
    node.must_put("/v1/kv/kept", "1").await.unwrap();
    for (kind, name, said) in [
        (tar::EntryType::Regular, "state.bin", "it is not a snapshot"),
        (tar::EntryType::GNULongName, "name", "unexpected file"),
        (tar::EntryType::XHeader, "about", "SHA256SUMS is missing"),
    ] {
        let archive = of_zeros(kind, name).unwrap();
        assert!(archive.len() < 8 << 20, "{} bytes are many", archive.len());
        let before = resident_kib(pid).unwrap();
        let answer = node.put("/v1/snapshot", archive).await.unwrap();
        assert_eq!(answer.status, 500);
        assert!(answer.text().contains(said), "{}", answer.text());
        let peak = resident_peak_kib(pid).unwrap();
        println!("{name}: {before} KiB resident before, at most {peak} since the start");
        assert!(peak < before + REFUSAL_KIB_MAX, "{name}: {before} KiB grew to {peak}");
    }
    assert_eq!(node.get("/v1/kv/kept?raw").await.unwrap().text(), "1");
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_that_do_not_end_hold_up_no_other_restore() {
    const SLOW: usize = 4;
    let cluster = Cluster::start_shared(1).await.unwrap();
    let node = cluster.http(1);
    node.must_put("/v1/kv/restored", "1").await.unwrap();
    let backup = save(&node).await.unwrap();
    let address = node.base().trim_start_matches("http://");
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "PUT /v1/snapshot HTTP/1.1\r\nHost: q\r\nContent-Length: {}\r\n\r\n",
            backup.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&backup[..backup.len() / 2]).await.unwrap();
        slow.push(stream);
    }
    // The server has read of each what there is.
    tokio::time::sleep(Duration::from_millis(500)).await;
    node.must_put("/v1/kv/new", "1").await.unwrap();
    node.must_put("/v1/snapshot", backup).await.unwrap();
    assert_eq!(node.get("/v1/kv/new").await.unwrap().status, 404);
    assert_eq!(node.get("/v1/kv/restored?raw").await.unwrap().text(), "1");
    let said = ["INFO", "restoring a backup that a client sent", "client=127.0.0.1:"];
    cluster.wait_log(1, &said, PATIENCE).await.unwrap();
    drop(slow);
    cluster.finish().await.unwrap();
}
