//! HAProxy finds servers by DNS alone (`server-template` with SRV records): it follows instances that join and leave,
//! and the cluster's leader may die meanwhile. No request fails. Skipped where there is no HAProxy.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jepsen_style_tests::http::Http;
use jepsen_style_tests::skip::skipped;
use jepsen_style_tests::{Cluster, Limit, Result};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// HAProxy has followed a change within this.
const LIMIT: Duration = Duration::from_secs(30);
/// Requests that show who is asked.
const LOOK: usize = 60;
/// A request takes no longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A process that ends with the test.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An HTTP server that says its number.
struct Instance {
    number: usize,
    address: SocketAddr,
}

impl Instance {
    async fn start(number: usize) -> Self {
        // HAProxy gives one address to one server only, unless told otherwise (`resolve-opts allow-dup-ip`).
        let listener = TcpListener::bind(format!("127.0.0.{}:0", 10 + number)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                tokio::spawn(answer(stream, number));
            }
        });
        Self { number, address }
    }

    fn id(&self) -> String {
        format!("web-{}", self.number)
    }

    async fn register(&self, node: &Http) -> Result<()> {
        let body = json!({"Name": "web", "ID": self.id(), "Address": self.address.ip(), "Port": self.address.port()});
        node.must_put("/v1/agent/service/register", body.to_string()).await?;
        Ok(())
    }

    async fn deregister(&self, node: &Http) -> Result<()> {
        node.must_put(&format!("/v1/agent/service/deregister/{}", self.id()), "").await?;
        Ok(())
    }
}

async fn answer(mut stream: TcpStream, number: usize) {
    let mut request = [0; 1_024];
    while let Ok(1..) = stream.read(&mut request).await {
        let body = number.to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        if stream.write_all((head + &body).as_bytes()).await.is_err() {
            break;
        }
    }
}

/// One request through the proxy: the number of the instance that answered.
async fn ask(proxy: SocketAddr) -> std::result::Result<usize, String> {
    let asking = async {
        let mut stream = TcpStream::connect(proxy).await.map_err(|error| error.to_string())?;
        let request = "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map_err(|error| error.to_string())?;
        let number = answer.rsplit("\r\n").next().and_then(|body| body.parse().ok());
        number.filter(|_| answer.starts_with("HTTP/1.1 200")).ok_or(answer)
    };
    tokio::time::timeout(PATIENCE, asking).await.map_err(|_| "timed out".to_owned())?
}

/// Who answers some requests, and how often each.
async fn look(proxy: SocketAddr) -> BTreeMap<usize, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..LOOK {
        if let Ok(number) = ask(proxy).await {
            *counts.entry(number).or_default() += 1;
        }
    }
    counts
}

async fn wait_for(proxy: SocketAddr, wanted: &[usize]) {
    let limit = Limit::new(LIMIT);
    loop {
        let counts = look(proxy).await;
        if counts.keys().copied().eq(wanted.iter().copied()) {
            return;
        }
        limit.pause(|| format!("requests at {wanted:?}: {counts:?}")).await.unwrap();
    }
}

/// Asks all the time, and keeps what failed.
struct Clients {
    asked: Arc<AtomicU64>,
    failed: Arc<Mutex<Vec<String>>>,
    is_over: Arc<AtomicBool>,
    running: JoinHandle<()>,
}

impl Clients {
    fn start(proxy: SocketAddr) -> Self {
        let (asked, failed, is_over) =
            <(Arc<AtomicU64>, Arc<Mutex<Vec<String>>>, Arc<AtomicBool>)>::default();
        let (count, failures, over) =
            (Arc::clone(&asked), Arc::clone(&failed), Arc::clone(&is_over));
        let running = tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                if let Err(why) = ask(proxy).await {
                    failures.lock().unwrap().push(why);
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { asked, failed, is_over, running }
    }

    async fn finish(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.running.await.unwrap();
        let failed = self.failed.lock().unwrap();
        println!("{} requests, {} failed", self.asked.load(Ordering::Relaxed), failed.len());
        assert!(failed.is_empty(), "{failed:?}");
    }
}

fn configuration(cluster: &Cluster, port: u16) -> String {
    let servers =
        cluster.ids().into_iter().map(|id| format!("  nameserver n{id} {}\n", cluster.dns(id)));
    format!(
        "defaults\n  mode http\n  timeout connect 2s\n  timeout client 10s\n  timeout server 10s\n  retries 3\n  \
         option redispatch\n\
         resolvers quorate\n{}  accepted_payload_size 4096\n  timeout resolve 200ms\n  timeout retry 200ms\n  \
         hold valid 200ms\n  hold obsolete 0s\n\
         listen web\n  bind 127.0.0.1:{port}\n  balance roundrobin\n  \
         server-template web 8 _web._tcp.service.consul resolvers quorate init-addr none\n",
        servers.collect::<String>()
    )
}

fn start(path: &Path) -> Proxy {
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(path).stdout(Stdio::null()).stderr(Stdio::null());
    Proxy(command.spawn().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_follows_what_joins_and_leaves_and_no_request_fails() {
    if !Command::new("haproxy").arg("-v").output().is_ok_and(|ran| ran.status.success()) {
        skipped(
            "haproxy_follows_what_joins_and_leaves_and_no_request_fails",
            "there is no haproxy here",
        );
        return;
    }
    let mut cluster = Cluster::start(3).await.unwrap();
    let (first, second, third) =
        (Instance::start(1).await, Instance::start(2).await, Instance::start(3).await);
    first.register(&cluster.http(1)).await.unwrap();
    second.register(&cluster.http(2)).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("haproxy.cfg");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    std::fs::write(&path, configuration(&cluster, free.port())).unwrap();
    let proxy = start(&path);
    wait_for(free, &[1, 2]).await;
    let clients = Clients::start(free);
    third.register(&cluster.http(3)).await.unwrap();
    wait_for(free, &[1, 2, 3]).await;
    first.deregister(&cluster.http(1)).await.unwrap();
    wait_for(free, &[2, 3]).await;
    let leader = cluster.leader().await.unwrap();
    cluster.kill(leader).unwrap();
    let survivor = cluster.others(leader)[0];
    second.deregister(&cluster.http(survivor)).await.unwrap();
    wait_for(free, &[3]).await;
    first.register(&cluster.http(survivor)).await.unwrap();
    wait_for(free, &[1, 3]).await;
    clients.finish().await;
    drop(proxy);
    cluster.start_all().unwrap();
    cluster.finish().await.unwrap();
}
