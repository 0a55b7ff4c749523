//! Checks that the cluster runs itself: every node shows the same, and so does the next leader.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jepsen_style_tests::http::{Http, HttpExt as _};
use jepsen_style_tests::{Cluster, Failure, Limit, Options, Result};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The shortest interval there is, a run, and a slow machine.
const SEEN_WITHIN: Duration = Duration::from_secs(5);
/// The same when a leader has to be elected first, and the checks of the last one taken over.
const SEEN_AFTER_ELECTION: Duration = Duration::from_secs(20);
/// An alias follows through a watch and one write, not at an interval.
const ALIAS_LATE_MAX: Duration = Duration::from_millis(500);

/// A service that answers every request with a settable status.
struct Target {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Target {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let status = Arc::new(AtomicU16::new(200));
        let asked = Arc::new(AtomicUsize::new(0));
        let (told, count) = (Arc::clone(&status), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let status = told.load(Ordering::Relaxed);
                // A request of a check fits into one packet.
                let _ = stream.read(&mut [0; 4_096]).await;
                let head = format!("HTTP/1.1 {status} Told\r\nContent-Length: 5\r\n\r\nhello");
                let _ = stream.write_all(head.as_bytes()).await;
            }
        });
        Ok(Self { address, status, asked, task })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Nobody listens any more.
    async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Waits until each of these nodes shows the instance's checks like this: `(id, status, output has)`.
async fn wait_all_show(
    cluster: &Cluster,
    nodes: &[u64],
    service: &str,
    expected: (&str, &str, &str),
    limit: Duration,
) -> Result<()> {
    let (path, began) = (format!("/v1/health/checks/{service}"), Instant::now());
    for node in nodes {
        let left = limit.saturating_sub(began.elapsed());
        let wanted = |checks: &Value| shows(checks, expected);
        let shown = cluster.http(*node).wait_for(&path, left, wanted).await;
        shown.map_err(|error| Failure::new(format!("{expected:?} at node {node}: {error}")))?;
    }
    Ok(())
}

fn shows(checks: &Value, (id, status, output): (&str, &str, &str)) -> bool {
    let checks = checks.as_array().map(Vec::as_slice).unwrap_or_default();
    checks.iter().any(|check| {
        check["CheckID"] == id
            && check["Status"] == status
            && check["Output"].as_str().is_some_and(|shown| shown.contains(output))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_is_run_by_whoever_leads_and_shown_by_every_node() {
    let flags = vec!["--check-output-body".to_owned()];
    let options = Options { flags, ..Options::default() };
    let mut cluster = Cluster::start_with(options).await.unwrap();
    let ids = cluster.ids();
    let target = Target::start().await.unwrap();
    let web = json!({"Name": "web", "Check": {
        "CheckID": "alive", "HTTP": format!("http://{}/health", target.address), "Interval": "1s"}});
    let follower = json!({"Name": "shadow", "Check": {"CheckID": "alias", "AliasService": "web"}});
    let first = cluster.http(ids[0]);
    first.must_put("/v1/agent/service/register", web.to_string()).await.unwrap();
    cluster
        .http(ids[1])
        .must_put("/v1/agent/service/register", follower.to_string())
        .await
        .unwrap();

    let passing = ("alive", "passing", "200 Told Output: hello");
    wait_all_show(&cluster, &ids, "web", passing, SEEN_WITHIN).await.unwrap();
    let follows = ("alias", "passing", "All checks passing.");
    wait_all_show(&cluster, &ids, "shadow", follows, ALIAS_LATE_MAX).await.unwrap();

    // A registration that says the same disturbs nothing.
    first.must_put("/v1/agent/service/register", web.to_string()).await.unwrap();
    target.status.store(503, Ordering::Relaxed);
    let critical = ("alive", "critical", "503 Told");
    wait_all_show(&cluster, &ids, "web", critical, SEEN_WITHIN).await.unwrap();
    let follows = ("alias", "critical", "Aliased check");
    wait_all_show(&cluster, &ids, "shadow", follows, ALIAS_LATE_MAX).await.unwrap();

    // The next leader changes nothing by itself, and continues to run the check.
    let leader = cluster.leader().await.unwrap();
    let survivors = cluster.others(leader);
    cluster.kill(leader).unwrap();
    let asked = target.asked();
    wait_all_show(&cluster, &survivors, "web", critical, SEEN_AFTER_ELECTION).await.unwrap();
    target.status.store(200, Ordering::Relaxed);
    wait_all_show(&cluster, &survivors, "web", passing, SEEN_AFTER_ELECTION).await.unwrap();
    assert!(target.asked() > asked, "the new leader asked");
    let follows = ("alias", "passing", "All checks passing.");
    wait_all_show(&cluster, &survivors, "shadow", follows, ALIAS_LATE_MAX).await.unwrap();

    target.stop().await;
    let gone = ("alive", "critical", "connection refused");
    wait_all_show(&cluster, &survivors, "web", gone, SEEN_WITHIN).await.unwrap();

    // What is deregistered is not followed any more.
    let there = cluster.http(survivors[0]);
    there.must_put("/v1/agent/service/deregister/web", "").await.unwrap();
    let follows = ("alias", "critical", "could not be found");
    wait_all_show(&cluster, &survivors, "shadow", follows, ALIAS_LATE_MAX).await.unwrap();
    cluster.start_node(leader).unwrap();
    cluster.wait_ready(leader).await.unwrap();
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_is_defined_anew_shows_nothing_of_the_old_target() {
    let cluster = Cluster::start(3).await.unwrap();
    let ids = cluster.ids();
    let (old, new) = (Target::start().await.unwrap(), Target::start().await.unwrap());
    old.status.store(503, Ordering::Relaxed);
    let check = |target: &Target| {
        let url = format!("http://{}/", target.address);
        json!({"Name": "node", "ID": "alive", "HTTP": url, "Interval": "1s", "Timeout": "1s",
               "ServiceID": "web"})
    };
    let node = cluster.http(ids[0]);
    node.must_put("/v1/agent/service/register", json!({"Name": "web"}).to_string()).await.unwrap();
    node.must_put("/v1/agent/check/register", check(&old).to_string()).await.unwrap();
    let critical = ("alive", "critical", "503");
    wait_all_show(&cluster, &ids, "web", critical, SEEN_WITHIN).await.unwrap();
    node.must_put("/v1/agent/check/register", check(&new).to_string()).await.unwrap();
    let passing = ("alive", "passing", "200");
    wait_all_show(&cluster, &ids, "web", passing, SEEN_WITHIN).await.unwrap();
    // The old target is left alone; the new one is asked again and again.
    let (left, goes_on) = (old.asked(), new.asked());
    let limit = Limit::new(SEEN_WITHIN);
    while new.asked() < goes_on + 2 {
        limit.pause(|| "the new target is asked again".to_owned()).await.unwrap();
    }
    assert_eq!(old.asked(), left);
    wait_all_show(&cluster, &ids, "web", passing, SEEN_WITHIN).await.unwrap();
    cluster.finish().await.unwrap();
}

/// Where servers listen for each other.
const RPC_PORT: u16 = 8300;
/// A network that the servers' operator has closed to checks.
const DENIED: &str = "127.9.0.0/16";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_goes_only_where_it_may_and_tells_no_more_than_it_must() {
    let flags = vec![format!("--check-deny={DENIED}")];
    let cluster = Cluster::start_with(Options { flags, ..Options::shared() }).await.unwrap();
    let ids = cluster.ids();
    let target = Target::start().await.unwrap();
    let rpc = format!("{}:{RPC_PORT}", cluster.ip(ids[1]));
    let forged = json!({"X-Quorate-Worker": ["nobody"]});
    let checks = [
        (
            "forged",
            json!({"HTTP": format!("http://{rpc}/rpc/1/call"), "Method": "POST", "Header": forged}),
        ),
        ("peer", json!({"TCP": rpc})),
        ("denied", json!({"HTTP": "http://127.9.1.1:80/"})),
        ("cloud", json!({"TCP": "169.254.169.254:80"})),
        ("quiet", json!({"HTTP": format!("http://{}/", target.address)})),
    ];
    let checks = checks.map(|(id, mut check)| {
        check["CheckID"] = id.into();
        check["Interval"] = "1s".into();
        check
    });
    let web = json!({"Name": "web", "Checks": checks});
    cluster.http(ids[0]).must_put("/v1/agent/service/register", web.to_string()).await.unwrap();
    for (id, why) in [
        ("forged", "servers serve each other"),
        ("peer", "servers serve each other"),
        ("denied", "--check-deny"),
        ("cloud", "link-local"),
    ] {
        wait_all_show(&cluster, &ids, "web", (id, "critical", why), SEEN_WITHIN).await.unwrap();
    }
    wait_all_show(&cluster, &ids, "web", ("quiet", "passing", "200 Told"), SEEN_WITHIN)
        .await
        .unwrap();
    let shown = cluster.http(ids[0]).must_get("/v1/health/checks/web").await.unwrap();
    assert!(!shown.to_string().contains("hello"), "{shown}");
    cluster.finish().await.unwrap();
}

/// A TTL that a test can wait for; a leader that was just elected grants its grace on top.
const TTL: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_from_the_catalogue_or_a_transaction_switches_neither_ttl_nor_probe_off() {
    let cluster = Cluster::start(3).await.unwrap();
    let ids = cluster.ids();
    let [first, second, third] = [0, 1, 2].map(|at| cluster.http(ids[at]));
    let target = Target::start().await.unwrap();
    target.status.store(503, Ordering::Relaxed);
    let beats = json!({"Name": "beats", "Check": {"TTL": format!("{}s", TTL.as_secs())}});
    let web = json!({"Name": "web", "Check": {
        "HTTP": format!("http://{}/", target.address), "Interval": "1s"}});
    for service in [beats, web] {
        first.must_put("/v1/agent/service/register", service.to_string()).await.unwrap();
    }
    let down = ("service:web", "critical", "503");
    wait_all_show(&cluster, &ids, "web", down, SEEN_AFTER_ELECTION).await.unwrap();
    let node = node_of(&first, "web").await.unwrap();
    let expired = ("service:beats", "critical", "TTL expired");
    let passing = ("service:beats", "passing", "");
    for way in ["catalogue", "catalogue, and the node", "transaction"] {
        second.must_put("/v1/agent/check/pass/service:beats", "").await.unwrap();
        for check in ["service:beats", "service:web"] {
            write_passing(&third, way, &node, check).await.unwrap();
        }
        // The dead target is seen again, a heartbeat is taken, and silence is noticed.
        wait_all_show(&cluster, &ids, "web", down, SEEN_WITHIN).await.unwrap();
        second.must_put("/v1/agent/check/pass/service:beats", "").await.unwrap();
        wait_all_show(&cluster, &ids, "beats", passing, SEEN_WITHIN).await.unwrap();
        wait_all_show(&cluster, &ids, "beats", expired, TTL + SEEN_WITHIN).await.unwrap();
        // A status that revives a silent check lives no longer than a heartbeat.
        write_passing(&third, way, &node, "service:beats").await.unwrap();
        wait_all_show(&cluster, &ids, "beats", expired, TTL + SEEN_WITHIN).await.unwrap();
    }
    target.status.store(200, Ordering::Relaxed);
    let up = ("service:web", "passing", "200");
    wait_all_show(&cluster, &ids, "web", up, SEEN_WITHIN).await.unwrap();
    cluster.finish().await.unwrap();
}

/// Name of the node that has a service's only instance.
async fn node_of(http: &Http, service: &str) -> Result<String> {
    let instances = http.must_get(&format!("/v1/catalog/service/{service}")).await?;
    let node = instances[0]["Node"].as_str();
    node.map(str::to_owned).ok_or_else(|| Failure::new(format!("no {service}: {instances}")))
}

/// Writes that an agent's check passes, past its agent.
async fn write_passing(http: &Http, way: &str, node: &str, check: &str) -> Result<()> {
    let passing = json!({"Node": node, "CheckID": check, "Status": "passing"});
    let (path, body) = match way {
        "transaction" => ("/v1/txn", json!([{"Check": {"Verb": "set", "Check": passing}}])),
        way => {
            let skip = way == "catalogue";
            let body = json!({"Node": node, "Address": "127.0.0.1", "SkipNodeUpdate": skip,
                              "Check": passing});
            ("/v1/catalog/register", body)
        }
    };
    http.must_put(path, body.to_string()).await?;
    Ok(())
}
