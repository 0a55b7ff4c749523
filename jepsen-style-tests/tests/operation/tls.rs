//! TLS at both ports of a cluster: who is served, who is refused and what the log says of it, and certificates that
//! are replaced while everything goes on.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use jepsen_style_tests::certificates::Certificates;
use jepsen_style_tests::cluster::Options;
use jepsen_style_tests::http::{Http, HttpExt as _};
use jepsen_style_tests::process::{Process, free_ports, run};
use jepsen_style_tests::{Cluster, Failure, Limit, Result};
use quorate_client::{Client, ClientBuilder};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, date_time_ymd};
use serde_json::json;

use super::shell::Shell;

/// How long anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
const RPC_PORT: u16 = 8300;
/// What a refused stranger's line begins with.
const REFUSED: &str = "refused a connection to the RPC port";
const REMEDY: [&str; 2] = ["make a new one with `quorate tls cert`", "SIGHUP"];

async fn start(certificates: &Certificates) -> Result<Cluster> {
    let environment = certificates.environment();
    Cluster::start_with(Options { environment, ..Options::shared() }).await
}

fn https(cluster: &Cluster, id: u64) -> String {
    format!("https://{}:8501", cluster.ip(id))
}

/// A client of the HTTPS port that trusts the CA, and asks once.
fn client_at(base: &str, certificates: &Certificates) -> ClientBuilder {
    let builder = Client::builder([base]).retry_for(Duration::ZERO).answer_timeout(PATIENCE);
    builder.ca_file(certificates.ca())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_and_clients_are_served_over_tls_and_strangers_are_refused() {
    let certificates = Certificates::make(3).unwrap();
    let cluster = start(&certificates).await.unwrap();
    served(&cluster, &certificates).await.unwrap();
    refused(&cluster, &certificates).await.unwrap();
    settings(&certificates).unwrap();
    agents(&cluster, &certificates).await.unwrap();
    cluster.finish().await.unwrap();
}

/// What one server takes, another has, at either port.
async fn served(cluster: &Cluster, certificates: &Certificates) -> Result<()> {
    // The certificates are for localhost and 127.0.0.1; a server at another address has it added with --host.
    let elsewhere = client_at(&https(cluster, 1), certificates).build()?;
    let refused = elsewhere.kv().put("a", "1").await;
    let why = refused.as_ref().map_err(|error| error.with_causes());
    assert!(why.as_ref().is_err_and(|why| why.contains("not valid for")), "{why:?}");
    let base = https(cluster, 1);
    let (_, said) = run(&[("QUORATE_HTTP_ADDR", base.as_str())], ["doctor"])?;
    assert!(said.contains("cannot be asked over TLS") && said.contains("--ca-file"), "{said}");
    let ca = text(&certificates.ca());
    let (_, said) = run(&[("QUORATE_HTTP_ADDR", base.as_str())], ["doctor", "--ca-file", &ca])?;
    assert!(said.contains("its certificate is not that of"), "{said}");
    assert!(said.contains("--host"), "{said}");
    let client = client_at(&https(cluster, 1), certificates).trust_anyone().build()?;
    client.kv().put("tls/a", "1").await?;
    let other = cluster.http(2);
    other.wait_for("/v1/kv/tls/a", PATIENCE, |row| row[0]["Value"] == "MQ==").await?;
    let about = other.must_get("/v1/agent/self").await?;
    assert_eq!(about["Meta"]["quorate-rpc"], "tls");
    let curl = std::process::Command::new("curl")
        .args(["-sk", "--http2", "-o", "/dev/null", "-w", "%{http_version}"])
        .arg(format!("{}/v1/status/leader", https(cluster, 3)))
        .output();
    if let Ok(said) = curl {
        assert_eq!(String::from_utf8_lossy(&said.stdout), "2", "ALPN chooses HTTP/2");
    }
    Ok(())
}

/// Nobody without a certificate for it is served at the RPC port; the log says why.
async fn refused(cluster: &Cluster, certificates: &Certificates) -> Result<()> {
    let rpc = format!("{}:{RPC_PORT}", cluster.ip(1));
    let stranger =
        || Client::builder([format!("https://{rpc}")]).retry_for(Duration::ZERO).trust_anyone();
    certificates.issue("client", "ci")?;
    let others = Certificates::make(1)?;
    let shows = |certificates: &Certificates, role: &str, name: &str| {
        stranger()
            .client_certificate(certificates.certificate(role, name), certificates.key(role, name))
    };
    for (builder, why) in [
        (stranger(), "it shows no certificate"),
        (shows(&others, "server", "n1"), "not issued by the CA"),
        (shows(certificates, "client", "ci"), "that of the client ci"),
    ] {
        refused_for(cluster, &builder.build()?, why).await?;
    }
    let plain = Client::builder([format!("http://{rpc}")]).retry_for(Duration::ZERO).build()?;
    refused_for(cluster, &plain, "does not speak TLS").await?;
    // A server may use the port for agents, but the protocol of servers is that of its own name.
    let member = shows(certificates, "server", "n2").build()?;
    let answered = member.kv().get("tls/a", &quorate_client::Query::new()).await;
    let why = answered.map_err(|error| error.to_string());
    assert!(why.as_ref().is_err_and(|why| why.contains("this port is for servers")), "{why:?}");
    Ok(())
}

/// Asks until the log says why it is refused: it has one such line in a second.
async fn refused_for(cluster: &Cluster, stranger: &Client, why: &str) -> Result<()> {
    let limit = Limit::new(PATIENCE);
    loop {
        let asked = stranger.kv().get("tls/a", &quorate_client::Query::new()).await;
        assert!(asked.is_err(), "{why}: {asked:?}");
        let log = cluster.log(1)?;
        if log.lines().any(|line| line.contains(REFUSED) && line.contains(why)) {
            return Ok(());
        }
        limit.pause(|| format!("{why:?} in the log")).await?;
    }
}

/// A server takes its own certificate only, and none only where strangers do not come.
fn settings(certificates: &Certificates) -> Result<()> {
    let ca = certificates.ca().display().to_string();
    let own = text(&certificates.certificate("server", "n2"));
    let key = text(&certificates.key("server", "n2"));
    let dir = certificates.dir().join("data");
    let data = text(&dir);
    let flags =
        ["--data-dir", &data, "--rpc-tls-ca", &ca, "--rpc-tls-cert", &own, "--rpc-tls-key", &key];
    let common = ["server", "--dns-addr", "off", "--http-addr", "127.0.0.1:0"];
    let port = free_ports(Ipv4Addr::LOCALHOST, 1)?[0];
    let rpc = format!("127.0.0.1:{port}");
    let (status, said) = run(&[], [&common[..], &["--rpc-addr", &rpc], &flags].concat())?;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("it is that of server n2, and this is server n1"), "{said}");
    assert!(!dir.exists(), "nothing was made");
    let (status, said) = run(&[], [&common[..], &["--rpc-addr", "0.0.0.0:8300"]].concat())?;
    assert_eq!(status.code(), Some(2), "{said}");
    let open = ["--rpc-addr", "10.0.0.1:8300", "--data-dir", &data];
    let (status, said) = run(&[], [&common[..], &open].concat())?;
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("--rpc-tls-ca") && said.contains("--insecure-rpc"), "{said}");
    Ok(())
}

/// Agents with Consul's files: a client agent of the cluster, and a server of its own.
async fn agents(cluster: &Cluster, certificates: &Certificates) -> Result<()> {
    certificates.issue("agent", "web-3")?;
    let tls = |role: &str, name: &str| {
        json!({
            "ca_file": certificates.ca(), "cert_file": certificates.certificate(role, name),
            "key_file": certificates.key(role, name), "verify_outgoing": true,
        })
    };
    let ports = free_ports(Ipv4Addr::LOCALHOST, 4)?;
    let start = |name: &str, file: serde_json::Value| -> Result<Process> {
        let path = certificates.dir().join(format!("{name}.json"));
        std::fs::write(&path, file.to_string())?;
        let data = certificates.dir().join(name).display().to_string();
        let line = ["agent", "-config-file", &path.display().to_string(), "-data-dir", &data]
            .map(str::to_owned);
        Process::start(&certificates.dir().join(format!("{name}.log")), line)
    };
    let client = |name: &str, group: &serde_json::Value| {
        json!({
            "node_name": name, "retry_join": [format!("{}:{RPC_PORT}", cluster.ip(1))],
            "ports": {"http": ports[0], "dns": -1}, "tls": {"internal_rpc": group},
        })
    };
    let group = tls("agent", "web-3");
    let mut impostor = start("web-4", client("web-4", &group))?;
    assert_eq!(impostor.wait_ended(PATIENCE).await?, Some(1));
    assert!(impostor.log().contains("that of agent web-3, and this is agent web-4"));
    let agent = start("web-3", client("web-3", &group))?;
    let http = Http::new(&format!("http://127.0.0.1:{}", ports[0]))?;
    http.wait_for("/v1/kv/tls/a", PATIENCE, |row| row[0]["Value"] == "MQ==").await?;
    drop(agent);
    let file = json!({
        "server": true, "bootstrap": true, "node_name": "n1", "tls": {"defaults": tls("server", "n1")},
        "ports": {"http": ports[0], "https": ports[1], "server": ports[2], "dns": -1},
    });
    let server = start("n1", file)?;
    let base = format!("https://127.0.0.1:{}", ports[1]);
    let limit = Limit::new(PATIENCE);
    while client_at(&base, certificates).build()?.kv().put("own", "1").await.is_err() {
        limit.pause(|| server.log()).await?;
    }
    Ok(())
}

/// The port for clients asks them for certificates, and holds what they hold, as the other port does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_show_certificates_and_what_they_hold_ends_with_them() {
    let certificates = Certificates::make(1).unwrap();
    certificates.issue("client", "ci").unwrap();
    let ports = free_ports(Ipv4Addr::LOCALHOST, 3).unwrap();
    let [http, rpc, https] = [0, 1, 2].map(|port: usize| format!("127.0.0.1:{}", ports[port]));
    let (ca, data) = (text(&certificates.ca()), text(&certificates.dir().join("data")));
    let own = text(&certificates.certificate("server", "n1"));
    let key = text(&certificates.key("server", "n1"));
    let worker_key = certificates.dir().join("worker-key");
    std::fs::write(&worker_key, "a key that only the cluster knows").unwrap();
    let worker_key = text(&worker_key);
    let line = [
        ["server", "--data-dir", &data],
        ["--worker-key-file", &worker_key, "--bootstrap-expect"],
        ["1", "--dns-addr", "off"],
        ["--http-addr", &http, "--https-addr"],
        [&https, "--rpc-addr", &rpc],
        ["--https-cert", &own, "--https-key"],
        [&key, "--https-client-ca", &ca],
    ];
    let server = Process::start(&certificates.dir().join("log"), line.concat()).unwrap();
    let plain = Http::new(&format!("http://{http}")).unwrap();
    plain.wait_for("/v1/status/leader", PATIENCE, |leader| leader != "").await.unwrap();
    let base = format!("https://{https}");
    commands(&base, &certificates).unwrap();
    server.wait_logged("it shows no certificate", PATIENCE).await.unwrap();
    held(&plain, &base, &certificates).await.unwrap();
    works(&base, &certificates, &worker_key).await.unwrap();
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Commands find what they need in the environment, as Consul's clients do, or in flags.
fn commands(base: &str, certificates: &Certificates) -> Result<()> {
    let ca = text(&certificates.ca());
    let shown = text(&certificates.certificate("client", "ci"));
    let key = text(&certificates.key("client", "ci"));
    let address = ("CONSUL_HTTP_ADDR", base);
    let (trusted, anyone) = (("CONSUL_CACERT", ca.as_str()), ("CONSUL_HTTP_SSL_VERIFY", "false"));
    let own = [("CONSUL_CLIENT_CERT", shown.as_str()), ("CONSUL_CLIENT_KEY", key.as_str())];
    let ran = |environment: &[(&str, &str)], line: &[&str], code: i32| {
        let (status, said) = run(environment, line)?;
        assert_eq!(status.code(), Some(code), "{line:?}: {said}");
        Ok::<_, Failure>(said)
    };
    let consul = [&[address, trusted], &own[..]].concat();
    ran(&consul, &["kv", "put", "a", "1"], 0)?;
    let flags =
        ["--http-addr", base, "--ca-file", &ca, "--client-cert", &shown, "--client-key", &key];
    let said = ran(&[], &[&["kv", "get", "a"], &flags[..]].concat(), 0)?;
    assert_eq!(said.trim_end(), "1");
    let said = ran(&consul, &["doctor", "-o", "json"], 1)?;
    assert!(said.contains("one server"), "it asks over TLS too: {said}");
    // Without a certificate, and of a server whose CA is not trusted.
    ran(&[address, trusted], &["kv", "get", "a"], 3)?;
    ran(&[&[address], &own[..]].concat(), &["kv", "get", "a"], 3)?;
    ran(&[&[address, anyone], &own[..]].concat(), &["kv", "get", "a"], 0)?;
    Ok(())
}

/// A worker is served as other clients are, and says what is wrong if it is not.
async fn works(base: &str, certificates: &Certificates, worker_key: &str) -> Result<()> {
    let ca = text(&certificates.ca());
    let shown = text(&certificates.certificate("client", "ci"));
    let key = text(&certificates.key("client", "ci"));
    let start = |name: &str, flags: &[&str]| {
        let line = ["worker", "--name", name, "--cluster", base, "--worker-key-file", worker_key];
        let log = certificates.dir().join(format!("{name}.log"));
        Process::start(&log, [&line[..], flags].concat())
    };
    let own = ["--client-cert", &shown, "--client-key", &key];
    let stranger = start("w1", &own)?;
    stranger.wait_logged("invalid peer certificate", PATIENCE).await?;
    let worker = start("w2", &[&own[..], &["--ca-file", &ca]].concat())?;
    worker.wait_logged("running checks", PATIENCE).await
}

/// A presence over TLS ends with its connection.
async fn held(plain: &Http, base: &str, certificates: &Certificates) -> Result<()> {
    let (abandon, abandoned) = tokio::sync::oneshot::channel::<()>();
    let (certificate, key) =
        (certificates.certificate("client", "ci"), certificates.key("client", "ci"));
    let builder = client_at(base, certificates).client_certificate(certificate, key);
    // A runtime that ends ends its connections without a word, as the death of a process does.
    let holding = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let client = builder.build()?;
            let _held = client.register("web").port(8080).by_presence().await?;
            // Whoever abandons it may be gone as well.
            let _ = abandoned.await;
            Ok::<_, Failure>(())
        })
    });
    let passing = |count: usize| {
        move |rows: &serde_json::Value| rows.as_array().is_some_and(|rows| rows.len() == count)
    };
    plain.wait_for("/v1/health/service/web?passing", PATIENCE, passing(1)).await?;
    drop(abandon);
    holding.await.map_err(|error| Failure::new(error.to_string()))??;
    plain.wait_for("/v1/health/service/web?passing", PATIENCE, passing(0)).await.map(drop)
}

/// A server that says `--insecure-rpc` runs, and says what that means wherever somebody looks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_open_to_strangers_says_so() {
    let dir = tempfile::tempdir().unwrap();
    // It listens on every address, where a port is taken by whoever uses it on any of them.
    let ports = free_ports(Ipv4Addr::UNSPECIFIED, 2).unwrap();
    let (http, rpc) = (format!("127.0.0.1:{}", ports[0]), format!("127.0.0.1:{}", ports[1]));
    let data = dir.path().join("data").display().to_string();
    let listen = format!("0.0.0.0:{}", ports[1]);
    let server = Process::start(
        &dir.path().join("log"),
        [
            "server",
            "--data-dir",
            &data,
            "--http-addr",
            &http,
            "--rpc-addr",
            &rpc,
            "--rpc-listen-addr",
            &listen,
            "--dns-addr",
            "off",
            "--bootstrap-expect",
            "1",
            "--insecure-rpc",
        ],
    )
    .unwrap();
    server.wait_logged("the RPC port has no TLS (--insecure-rpc)", PATIENCE).await.unwrap();
    let node = Http::new(&format!("http://{http}")).unwrap();
    node.wait_for("/v1/agent/self", PATIENCE, |about| about["Meta"]["quorate-rpc"] == "insecure")
        .await
        .unwrap();
    let (_, said) = run(&[("QUORATE_HTTP_ADDR", http.as_str())], ["doctor"]).unwrap();
    assert!(said.contains("it runs with --insecure-rpc"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_the_ca_are_replaced_without_a_failed_request() {
    let certificates = Certificates::make(3).unwrap();
    let mut cluster = start(&certificates).await.unwrap();
    replaced_under_load(&mut cluster, &certificates).await.unwrap();
    cluster.finish().await.unwrap();
}

async fn replaced_under_load(cluster: &mut Cluster, certificates: &Certificates) -> Result<()> {
    let ended = Arc::new(AtomicBool::new(false));
    let load: Vec<_> =
        (1..=3).map(|id| tokio::spawn(load(https(cluster, id), Arc::clone(&ended)))).collect();
    all_or_none(cluster, certificates).await?;
    reload(cluster, certificates, 1).await?;
    // Another CA: first both are trusted, then it issues, then it alone is trusted.
    let next = Certificates::make(3)?;
    let read = |path: &Path| std::fs::read_to_string(path);
    let both = read(&certificates.ca())? + &read(&next.ca())?;
    std::fs::write(certificates.ca(), both)?;
    hang_up(cluster, 2).await?;
    for id in 1..=3 {
        let name = format!("n{id}");
        std::fs::copy(
            next.certificate("server", &name),
            certificates.certificate("server", &name),
        )?;
        std::fs::copy(next.key("server", &name), certificates.key("server", &name))?;
    }
    hang_up(cluster, 3).await?;
    std::fs::copy(next.ca(), certificates.ca())?;
    hang_up(cluster, 4).await?;
    ended.store(true, Ordering::Relaxed);
    for task in load {
        let requests = task.await.map_err(|error| Failure::new(error.to_string()))??;
        assert!(requests > 0, "nothing was asked");
    }
    // All connections begin anew, with the new CA alone.
    cluster.restart(cluster.leader().await?)?;
    cluster.wait_all_ready().await?;
    cluster.http(1).must_put("/v1/kv/after", "1").await?;
    Ok(())
}

/// A certificate of another CA is refused for the port of servers, and is then used at no port.
async fn all_or_none(cluster: &Cluster, certificates: &Certificates) -> Result<()> {
    let others = Certificates::make(1)?;
    let files = |of: &Certificates| [of.certificate("server", "n1"), of.key("server", "n1")];
    let mut own = Vec::new();
    for (here, foreign) in files(certificates).into_iter().zip(files(&others)) {
        own.push((std::fs::read(&here)?, here.clone()));
        std::fs::copy(foreign, here)?;
    }
    cluster.hang_up(1)?;
    let said = ["ERROR", "the old ones stay in use at every port", "not issued by the CA"];
    cluster.wait_log(1, &said, PATIENCE).await?;
    let refused = client_at(&https(cluster, 1), certificates).build()?.kv().put("a", "1").await;
    let why = refused.map_err(|error| error.with_causes());
    // Of the CA that it trusts, and of another host: the one that it had.
    assert!(why.as_ref().is_err_and(|why| why.contains("not valid for")), "{why:?}");
    own.into_iter().try_for_each(|(bytes, path)| std::fs::write(path, bytes))?;
    Ok(())
}

/// Writes and reads, each time on a connection of its own and on one that stays; returns how often.
async fn load(base: String, ended: Arc<AtomicBool>) -> Result<u64> {
    let client = || {
        let builder = Client::builder([base.as_str()]).retry_for(Duration::ZERO).trust_anyone();
        builder.answer_timeout(PATIENCE).connect_timeout(PATIENCE).build()
    };
    let (kept, mut requests) = (client()?, 0);
    while !ended.load(Ordering::Relaxed) {
        kept.kv().put("load", requests.to_string()).await?;
        client()?.kv().put("load", requests.to_string()).await?;
        requests += 1;
    }
    Ok(requests)
}

/// Gives every server a new certificate, and has it read.
async fn reload(cluster: &Cluster, certificates: &Certificates, times: usize) -> Result<()> {
    for id in 1..=3 {
        certificates.issue("server", &format!("n{id}"))?;
    }
    hang_up(cluster, times).await
}

/// Sends SIGHUP to all servers, and waits until each has read its certificates so often.
async fn hang_up(cluster: &Cluster, times: usize) -> Result<()> {
    for id in 1..=3 {
        cluster.hang_up(id)?;
    }
    let limit = Limit::new(PATIENCE);
    for id in 1..=3 {
        while cluster.log(id)?.matches("read the certificates again").count() < times {
            limit.pause(|| format!("n{id} has not read its certificates")).await?;
        }
    }
    Ok(())
}

/// The worst day: a certificate has run out. The log says what to do, and that is enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_is_refused_and_a_new_one_ends_it() {
    // Its CA does not last long either.
    let certificates = Certificates::make_for_days(3, 10).unwrap();
    let mut cluster = start(&certificates).await.unwrap();
    expired(&mut cluster, &certificates).await.unwrap();
    renewed_ca(&cluster, &certificates).await.unwrap();
    cluster.finish().await.unwrap();
}

async fn expired(cluster: &mut Cluster, certificates: &Certificates) -> Result<()> {
    let leader = cluster.leader().await?;
    let victim = cluster.others(leader)[0];
    let lasts = Duration::from_secs(8);
    let end = since_epoch()? + lasts;
    short_lived(certificates, &format!("n{victim}"), end)?;
    cluster.hang_up(victim)?;
    cluster
        .wait_log(victim, &["WARN", "the certificate", "expires on", REMEDY[0]], PATIENCE)
        .await?;
    let days = "quorate_certificate_days_left{certificate=\"rpc\"}";
    assert_eq!(cluster.http(victim).figure(days).await?, 0);
    assert_eq!(cluster.http(leader).figure(days).await?, 364);
    let told = doctor(cluster).await?;
    for what in [
        format!("the certificate for the RPC port of n{victim} expires within a day"),
        format!("the CA's certificate of n{leader} expires in less than 10 days"),
    ] {
        assert!(told.contains(&what), "{told}");
    }
    let limit = Limit::new(PATIENCE);
    while since_epoch()? <= end + Duration::from_secs(1) {
        limit.pause(|| "the end of the certificate".to_owned()).await?;
    }
    // It has connections, which stay; those that the restarted leader makes and takes are new ones.
    cluster.restart(leader)?;
    let refused = [REFUSED, "its certificate expired on", REMEDY[0], REMEDY[1]];
    cluster.wait_log(leader, &refused, PATIENCE).await?;
    // Nor does it start again with it.
    cluster.kill(victim)?;
    cluster.start_node(victim)?;
    let status = cluster.wait_ended(victim, PATIENCE).await?;
    assert_eq!(status.code(), Some(1));
    cluster
        .wait_log(victim, &["--rpc-tls-cert", "expired on", "and start it again"], PATIENCE)
        .await?;
    certificates.issue("server", &format!("n{victim}"))?;
    cluster.start_node(victim)?;
    cluster.wait_all_ready().await
}

/// What is wrong, and what mends it.
async fn doctor(cluster: &Cluster) -> Result<String> {
    Ok(Shell::new(cluster).run(&["doctor"]).await?.out)
}

/// The first step of replacing a CA, as it is told: after it, the old one's end does no harm.
async fn renewed_ca(cluster: &Cluster, certificates: &Certificates) -> Result<()> {
    let next = tempfile::tempdir()?;
    let (status, said) = run(&[], ["tls", "ca", "--dir", &next.path().display().to_string()])?;
    assert!(status.success(), "{said}");
    let both = [
        std::fs::read_to_string(certificates.ca())?,
        std::fs::read_to_string(next.path().join("quorate-ca.pem"))?,
    ];
    std::fs::write(certificates.ca(), both.concat())?;
    for id in cluster.ids() {
        cluster.hang_up(id)?;
    }
    let days = "quorate_certificate_days_left{certificate=\"rpc-ca\"}";
    let limit = Limit::new(PATIENCE);
    for id in cluster.ids() {
        while cluster.http(id).figure(days).await? < 3_000 {
            limit.pause(|| format!("both CAs at n{id}")).await?;
        }
    }
    let told = doctor(cluster).await?;
    assert!(!told.contains("CA's certificate"), "{told}");
    Ok(())
}

/// Certificates have dates of clocks.
fn since_epoch() -> Result<Duration> {
    SystemTime::UNIX_EPOCH.elapsed().map_err(|error| Failure::new(error.to_string()))
}

/// Replaces a server's certificate by one that ends soon.
fn short_lived(certificates: &Certificates, name: &str, end: Duration) -> Result<()> {
    let failed = |error: rcgen::Error| Failure::new(error.to_string());
    let read = |name: &str| std::fs::read_to_string(certificates.dir().join(name));
    let key = KeyPair::from_pem(&read("quorate-ca-key.pem")?).map_err(failed)?;
    let issuer = Issuer::from_ca_cert_pem(&read("quorate-ca.pem")?, key).map_err(failed)?;
    let names = [format!("{name}.server.dc1.quorate"), "server.dc1.quorate".to_owned()];
    let mut params = CertificateParams::new(names).map_err(failed)?;
    params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(end.as_secs());
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().map_err(failed)?;
    let made = params.signed_by(&key, &issuer).map_err(failed)?;
    std::fs::write(certificates.certificate("server", name), made.pem())?;
    std::fs::write(certificates.key("server", name), key.serialize_pem())?;
    Ok(())
}
