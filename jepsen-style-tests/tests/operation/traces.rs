//! The trace that a request names is in the log lines of that request, at the server and at an agent before it.

use std::net::Ipv4Addr;
use std::time::Duration;

use jepsen_style_tests::cluster::Options;
use jepsen_style_tests::process::{Process, free_ports};
use jepsen_style_tests::{Cluster, Failure, Limit, Result};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(30);
/// What logs a line for each request.
const LOG: (&str, &str) = ("QUORATE_LOG", "debug");
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_is_in_the_log_lines_of_its_requests_and_a_bad_one_is_ignored() {
    let options = Options {
        nodes: 1,
        environment: vec![(LOG.0.to_owned(), LOG.1.to_owned())],
        flags: ["--log-format", "json"].map(str::to_owned).to_vec(),
        ..Options::shared()
    };
    let cluster = Cluster::start_with(options).await.unwrap();
    traced(&cluster).await.unwrap();
    through_an_agent(&cluster).await.unwrap();
    cluster.finish().await.unwrap();
}

async fn traced(cluster: &Cluster) -> Result<()> {
    let server = format!("{}:8500", cluster.ip(1));
    let headers = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n");
    request(&server, "/v1/catalog/datacenters", &headers).await?;
    let line = answered(|| cluster.log(1), "/v1/catalog/datacenters").await?;
    assert_eq!(line["span"]["trace_id"], TRACE, "{line}");
    assert_eq!(line["span"]["parent_id"], PARENT, "{line}");
    // In a request of its own route, so that its line is found.
    let bad = format!("traceparent: 00-{TRACE}-{PARENT}-01-x\r\n");
    request(&server, "/v1/status/peers", &bad).await?;
    let line = answered(|| cluster.log(1), "/v1/status/peers").await?;
    assert_eq!(line.get("span"), None, "{line}");
    Ok(())
}

/// An agent hands the header on.
async fn through_an_agent(cluster: &Cluster) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ports = free_ports(Ipv4Addr::LOCALHOST, 1)?;
    let data = dir.path().join("data").display().to_string();
    let (join, port) = (format!("{}:8300", cluster.ip(1)), ports[0].to_string());
    let arguments = ["agent", "-node", "web-3", "-data-dir", &data, "-retry-join", &join];
    let arguments =
        [&arguments[..], &["-http-port", &port, "-dns-port", "-1", "-log-format", "json"]].concat();
    let agent = Process::start_in(&[LOG], &dir.path().join("log"), arguments)?;
    let address = format!("127.0.0.1:{port}");
    let headers = format!("traceparent: 01-{TRACE}-{PARENT}-00-later\r\n");
    let limit = Limit::new(PATIENCE);
    while request(&address, "/v1/catalog/nodes", &headers).await.is_err() {
        limit.pause(|| agent.log()).await?;
    }
    let line = answered(|| cluster.log(1), "/v1/catalog/nodes").await?;
    assert_eq!(line["span"]["trace_id"], TRACE, "{line}");
    let own = agent.log();
    let mut lines = own.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    assert!(lines.any(|line| line["level"] == "INFO"), "{own}");
    Ok(())
}

/// The line that tells of an answered request to a route.
async fn answered(log: impl Fn() -> Result<String>, route: &str) -> Result<Value> {
    let limit = Limit::new(PATIENCE);
    loop {
        let text = log()?;
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if let Some(line) =
            lines.find(|line| line["message"] == "answered" && line["route"] == route)
        {
            return Ok(line);
        }
        limit.pause(|| format!("a request to {route} in the log")).await?;
    }
}

/// Sends a request with more headers; fails unless it is answered with 200.
async fn request(address: &str, path: &str, headers: &str) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let text = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(text.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.starts_with("HTTP/1.1 200") {
        true => Ok(()),
        false => Err(Failure::new(answer)),
    }
}
