//! Requests with bodies: read whatever their framing, and bounded in what they may grow to.

mod framing;
mod growth;

use std::path::Path;

use framing::{FRAMINGS, Framing};
use jepsen_style_tests::http::Http;
use jepsen_style_tests::raw::Raw;
use jepsen_style_tests::{Cluster, Failure, Result, process};
use serde_json::Value;

/// The largest value of a key.
const KV_BYTES_MAX: usize = 524_288;

/// A request with a body, and where its effect is seen: method, path, body, path to read, what the answer
/// then has in it. `{n}` is another digit for each framing, `{query}` the id of the query of that digit,
/// and `{x}` the end of that digit's payload in base64.
type Case = (&'static str, &'static str, &'static str, &'static str, &'static str);

/// Every endpoint that takes a body, and some that do not, with one that they ignore.
#[rustfmt::skip]
const CASES: &[Case] = &[
    ("PUT", "/v1/agent/service/register", r#"{"Name":"web-{n}","Port":8{n}}"#, "/v1/catalog/service/web-{n}", r#""ServicePort":8{n}"#),
    ("PUT", "/v1/agent/check/register", r#"{"Name":"check-{n}","TTL":"1h","Notes":"notes {n}"}"#, "/v1/agent/checks", "notes {n}"),
    ("PUT", "/v1/agent/check/update/check-{n}", r#"{"Status":"warning","Output":"output {n}"}"#, "/v1/agent/checks", "output {n}"),
    ("PUT", "/v1/catalog/register", r#"{"Node":"node-{n}","Address":"10.0.0.{n}"}"#, "/v1/catalog/node/node-{n}", "10.0.0.{n}"),
    ("PUT", "/v1/coordinate/update", r#"{"Node":"node-{n}","Coord":{"Vec":[0,0,0,0,0,0,0,0],"Error":1.5,"Adjustment":0,"Height":0.{n}}}"#, "/v1/coordinate/node/node-{n}", r#""Height":0.{n}"#),
    ("PUT", "/v1/session/create", r#"{"Name":"session-{n}","TTL":"3{n}s","Behavior":"delete"}"#, "/v1/session/list", r#""TTL":"3{n}s""#),
    ("PUT", "/v1/event/fire/event-{n}", "payload {n}", "/v1/event/list?name=event-{n}", "cGF5bG9hZCA{x}"),
    ("PUT", "/v1/kv/key-{n}", "value {n}", "/v1/kv/key-{n}?raw", "value {n}"),
    ("PUT", "/v1/txn", r#"[{"KV":{"Verb":"set","Key":"txn-{n}","Value":"dHhu"}}]"#, "/v1/kv/txn-{n}?raw", "txn"),
    ("POST", "/v1/query", r#"{"Name":"query-{n}","Service":{"Service":"first-{n}"}}"#, "/v1/query", "first-{n}"),
    ("PUT", "/v1/query/{query}", r#"{"Name":"query-{n}","Service":{"Service":"second-{n}"}}"#, "/v1/query/{query}", "second-{n}"),
    ("PUT", "/v1/operator/autopilot/configuration", r#"{"MinQuorum":{n}}"#, "/v1/operator/autopilot/configuration", r#""MinQuorum":{n}"#),
    ("PUT", "/v1/quorate/agent?agent=host-{n}", r#"{"Meta":{"rack":"rack-{n}"}}"#, "/v1/catalog/node/host-{n}", "rack-{n}"),
    ("PUT", "/v1/catalog/deregister", r#"{"Node":"node-{n}"}"#, "/v1/catalog/node/node-{n}", "null"),
    ("PUT", "/v1/agent/check/pass/check-{n}?note=note-{n}", "ignored", "/v1/agent/checks", "note-{n}"),
    ("PUT", "/v1/agent/service/maintenance/web-{n}?enable=true&reason=reason-{n}", "ignored", "/v1/agent/checks", "reason-{n}"),
    ("PUT", "/v1/agent/service/deregister/web-{n}", "ignored", "/v1/catalog/service/web-{n}", "[]"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_counts_whether_its_length_is_declared_or_not() {
    let cluster = Cluster::start(1).await.unwrap();
    let base = cluster.http(1).base().to_owned();
    let raw = Raw::new(&base);
    let mut wrong = Vec::new();
    for case in CASES {
        for (framing, digit) in FRAMINGS.into_iter().zip(1..) {
            let (method, path, body, look, shown) = *case;
            let query = query_id(&raw, digit).await.unwrap();
            let filled = |text: &str| {
                let end = ["x", "y", "z"][digit - 1];
                let text = text.replace("{n}", &digit.to_string()).replace("{x}", end);
                text.replace("{query}", &query)
            };
            let sent = filled(body).into_bytes();
            let answer = framing.send(&raw, &base, method, &filled(path), sent).await.unwrap();
            let look = filled(look);
            let looked = Framing::Length.send(&raw, &base, "GET", &look, Vec::new()).await;
            let seen = looked.unwrap().text();
            if answer.status != 200 || !seen.contains(&filled(shown)) {
                let (status, text) = (answer.status, answer.text());
                wrong.push(format!("{framing:?} {method} {path}: {status} {text}, then {seen}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    snapshots_are_restored(&raw, &base).await.unwrap();
    what_has_no_body_or_too_long_a_one_is_answered_alike(&raw, &base).await.unwrap();
    cluster.finish().await.unwrap();
}

/// The id of the query that a case has made, or nothing.
async fn query_id(raw: &Raw, digit: usize) -> Result<String> {
    let answer = raw.send(&jepsen_style_tests::raw::Request::get("/v1/query")).await?;
    let queries: Value = answer.json().unwrap_or_default();
    let name = format!("query-{digit}");
    let queries = queries.as_array().map(Vec::as_slice).unwrap_or_default();
    let found = queries.iter().find(|query| query["Name"] == name.as_str());
    Ok(found.and_then(|query| query["ID"].as_str()).unwrap_or_default().to_owned())
}

async fn snapshots_are_restored(raw: &Raw, base: &str) -> Result<()> {
    for framing in FRAMINGS {
        let saved = Framing::Length.send(raw, base, "GET", "/v1/snapshot", Vec::new()).await?;
        framing.send(raw, base, "PUT", "/v1/kv/later", b"later".to_vec()).await?;
        let restored = framing.send(raw, base, "PUT", "/v1/snapshot", saved.body.to_vec()).await?;
        let later = Framing::Length.send(raw, base, "GET", "/v1/kv/later", Vec::new()).await?;
        if (restored.status, later.status) != (200, 404) {
            return Err(Failure::new(format!("{framing:?}: {restored:?}, then {later:?}")));
        }
    }
    Ok(())
}

async fn what_has_no_body_or_too_long_a_one_is_answered_alike(raw: &Raw, base: &str) -> Result<()> {
    let long = || vec![b'x'; KV_BYTES_MAX + 1];
    for framing in FRAMINGS {
        for (path, body, status) in [
            ("/v1/session/create", Vec::new(), 200),
            ("/v1/session/create", b"{".to_vec(), 400),
            ("/v1/agent/service/register", Vec::new(), 400),
            ("/v1/kv/empty", Vec::new(), 200),
            ("/v1/kv/long", long(), 413),
            ("/v1/event/fire/long", long(), 500),
        ] {
            let answer = framing.send(raw, base, "PUT", path, body).await?;
            if answer.status != status {
                return Err(Failure::new(format!("{framing:?} {path}: {answer:?}")));
            }
        }
    }
    Ok(())
}

/// How much a server may grow by everything that the bodies below leave, and by answering it; a multiple
/// of all of them together. A single one made it grow by 690 MB before commands were bounded.
const GROWTH_KIB_MAX: u64 = 256 << 10;
/// How much the log and snapshots may grow. The files are preallocated in steps of some megabytes.
const DISK_BYTES_MAX: u64 = 96 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_body_grows_beyond_bounds_and_what_is_refused_says_which() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let ids = cluster.ids();
    let before: Vec<u64> = ids.iter().map(|id| resident_kib(&cluster, *id).unwrap()).collect();
    let disk: u64 = ids.iter().map(|id| bytes_below(cluster.data_dir(*id))).sum();
    let mut wrong = Vec::new();
    let cases = [growth::services(), growth::catalogue(), growth::agents(), growth::others()];
    for (case, id) in cases.into_iter().flatten().zip(ids.iter().cycle()) {
        let growth::Case { what, method, path, body, status, words } = case;
        let method = method.parse().unwrap();
        let sent = body.len();
        let answer = cluster.http(*id).send(method, &path, body.into()).await.unwrap();
        if answer.status != status || !answer.text().contains(words) {
            let shown: String = answer.text().chars().take(200).collect();
            wrong.push(format!("{what} ({sent} bytes): {} {shown}", answer.status));
        }
        // Every server still accepts writes.
        for id in &ids {
            cluster.http(*id).must_put("/v1/kv/goes-on", what).await.unwrap();
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for id in &ids {
        read_it_all(&cluster.http(*id)).await.unwrap();
    }
    for (id, before) in ids.iter().zip(&before) {
        let grown = resident_kib(&cluster, *id).unwrap().saturating_sub(*before);
        println!("n{id}: {before} KiB, grown by {grown} KiB");
        assert!(grown <= GROWTH_KIB_MAX, "n{id} grew from {before} KiB by {grown} KiB");
    }
    let grown: u64 = ids.iter().map(|id| bytes_below(cluster.data_dir(*id))).sum::<u64>() - disk;
    println!("on disk: {disk} bytes, grown by {grown}");
    assert!(grown <= 3 * DISK_BYTES_MAX, "{grown} bytes more on disk");

    // What was taken is in the log, and comes back from it.
    cluster.kill_all(&ids).unwrap();
    cluster.start_all().unwrap();
    cluster.wait_all_ready().await.unwrap();
    cluster.converge().await.unwrap();
    for (id, before) in ids.iter().zip(&before) {
        cluster.http(*id).must_put("/v1/kv/goes-on", "again").await.unwrap();
        let now = resident_kib(&cluster, *id).unwrap();
        println!("n{id} after a restart: {now} KiB");
        assert!(now <= before + GROWTH_KIB_MAX, "n{id} has {now} KiB after a restart");
    }
    cluster.finish().await.unwrap();
}

/// Asks for what is largest of what was taken.
async fn read_it_all(node: &Http) -> Result<()> {
    for path in ["/v1/health/service/fat", "/v1/health/state/any", "/v1/agent/checks"] {
        let answer = node.get(path).await?;
        if answer.status != 200 {
            return Err(Failure::new(format!("{path}: {}", answer.status)));
        }
    }
    let name = |bytes| format!("/v1/query/t-{}/execute", "x".repeat(bytes));
    let (short, long) = (node.get(&name(1_000)).await?, node.get(&name(30_000)).await?);
    if (short.status, long.status) != (200, 404) {
        return Err(Failure::new(format!("a template: {} {}", short.status, long.status)));
    }
    Ok(())
}

/// Resident memory of a server.
fn resident_kib(cluster: &Cluster, id: u64) -> Result<u64> {
    process::resident_kib(cluster.pid(id).unwrap_or_default())
}

/// Bytes that the files below a directory take on disk.
fn bytes_below(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
        Ok(meta) => 512 * meta.blocks(),
        // Removed meanwhile.
        Err(_) => 0,
    });
    sizes.sum()
}
