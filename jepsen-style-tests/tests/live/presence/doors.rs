//! Presences that come by other ways than a connection of HTTP/1 to a server, and how many there may be.

use std::time::Duration;

use bytes::Bytes;
use jepsen_style_tests::cluster::Options;
use jepsen_style_tests::http::Http;
use jepsen_style_tests::presence::Client;
use jepsen_style_tests::process::{Process, free_ports};
use jepsen_style_tests::{Cluster, Limit};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{LIMIT, level_reached, started, wait_passing};

/// Descriptors of a server: five sixteenths of them are for HTTP clients, and of those 70 % for streams.
const DESCRIPTORS: usize = 512;
const STREAMS: usize = DESCRIPTORS * 5 / 16 * 70 / 100;
/// Where servers listen for client agents.
const RPC_PORT: u16 = 8300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_stream_of_a_shared_connection_ends_its_presence_and_no_other() {
    let cluster = started().await;
    let (one, two) = (cluster.http(1), cluster.http(2));
    let socket = TcpStream::connect(one.base().trim_start_matches("http://")).await.unwrap();
    let (client, connection) = h2::client::handshake(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let mut open = async |name: &str| {
        let uri = format!("{}/v1/quorate/presence?linger=0", one.base());
        let request = hyper::Request::builder().method("PUT").uri(uri).body(()).unwrap();
        let (response, mut sink) = client.send_request(request, false).unwrap();
        sink.send_data(Bytes::from(json!({"Name": name}).to_string()), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        let mut frames = response.into_body();
        let first = frames.data().await.unwrap().unwrap();
        assert!(first.starts_with(b"event: registered"), "{first:?}");
        wait_passing(&two, name, 1).await.unwrap();
        (sink, frames)
    };
    let (mut reset, _frames) = open("reset").await;
    let (_dropped, dropped) = open("dropped").await;
    let _kept = open("kept").await;
    reset.send_reset(h2::Reason::CANCEL);
    wait_passing(&two, "reset", 0).await.unwrap();
    drop((_dropped, dropped));
    wait_passing(&two, "dropped", 0).await.unwrap();
    wait_passing(&two, "kept", 1).await.unwrap();
    // All that is left ends with the connection.
    connection.abort();
    wait_passing(&two, "kept", 0).await.unwrap();
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_agent_passes_on_a_presence_and_its_end() {
    let cluster = started().await;
    let directory = tempfile::tempdir().unwrap();
    let ip = std::net::Ipv4Addr::LOCALHOST;
    let port = free_ports(ip, 1).unwrap()[0].to_string();
    let (data, server) = (directory.path().join("data"), cluster.ip(1));
    let (join, ip) = (format!("{server}:{RPC_PORT}"), ip.to_string());
    let arguments = ["agent", "-node", "c1", "-client", &ip, "-http-port", &port];
    let rest = ["-retry-join", &join, "-data-dir", data.to_str().unwrap()];
    let all = arguments.into_iter().chain(rest);
    let agent = Process::start(&directory.path().join("log"), all).unwrap();
    let base = format!("http://{ip}:{port}");
    let body = json!({"Name": "web", "ID": "web-1", "Pid": 7});
    let limit = Limit::new(LIMIT);
    let client = loop {
        match Client::open(&base, "linger=0", &body).await {
            Ok(client) => break client,
            Err(error) => limit.pause(|| format!("{error}\n{}", agent.log())).await.unwrap(),
        }
    };
    assert_eq!(client.registered["Node"], "c1", "it belongs to the agent's host");
    let two = cluster.http(2);
    wait_passing(&two, "web", 1).await.unwrap();
    // It is kept by comments beyond every limit on silence.
    tokio::time::sleep(Duration::from_secs(7)).await;
    wait_passing(&two, "web", 1).await.unwrap();
    drop(client);
    wait_passing(&two, "web", 0).await.unwrap();
    // The agent's own end is the end of all that it passes on.
    let client = Client::open(&base, "linger=0", &body).await.unwrap();
    wait_passing(&two, "web", 1).await.unwrap();
    drop(agent);
    wait_passing(&two, "web", 0).await.unwrap();
    drop(client);
    cluster.finish().await.unwrap();
}

/// How many of a service's instances are held.
async fn held(node: &Http, service: &str) -> usize {
    let rows = node.must_get(&format!("/v1/quorate/instances?service={service}")).await.unwrap();
    rows.as_array().unwrap().iter().filter(|row| row["Presence"] == "open").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presences_and_streams_take_seven_tenths_of_the_connections_and_others_the_rest() {
    let options =
        Options { before_start: vec![format!("ulimit -n {DESCRIPTORS}")], ..Options::default() };
    let cluster = Cluster::start_with(options).await.unwrap();
    level_reached(&cluster).await;
    let (one, two) = (cluster.http(1), cluster.http(2));
    let mut clients = Vec::new();
    let refused = loop {
        let body = json!({"Name": "many", "ID": format!("many-{}", clients.len())});
        match Client::open(one.base(), "linger=0", &body).await {
            Ok(client) => clients.push(client),
            Err(error) => break error.to_string(),
        }
        assert!(clients.len() <= STREAMS, "more than {STREAMS} are open");
    };
    assert!(refused.starts_with("503 "), "{refused}");
    assert_eq!(clients.len(), STREAMS);
    // Nothing of the refused one is there, plain requests go on, and a place that is given back is taken.
    assert_eq!(held(&two, "many").await, STREAMS);
    let stream = one.get("/v1/quorate/stream").await.unwrap();
    assert_eq!((stream.status, stream.header("retry-after").is_some()), (503, true));
    one.must_put("/v1/kv/served", "yes").await.unwrap();
    clients.pop();
    wait_passing(&two, "many", STREAMS - 1).await.unwrap();
    let body: Value = json!({"Name": "many", "ID": "late"});
    let limit = Limit::new(LIMIT);
    while let Err(error) = Client::open(one.base(), "linger=1m", &body).await {
        limit.pause(|| error.to_string()).await.unwrap();
    }
    cluster.finish().await.unwrap();
}
