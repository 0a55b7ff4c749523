//! What pages in browsers may request: a page of one of the cluster's servers may use the others, pages of other
//! origins are refused, and so is a page that binds its own name to a server's address (DNS rebinding).

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::SocketAddr;
use std::time::Duration;

use jepsen_style_tests::http::{Http, HttpExt as _};
use jepsen_style_tests::{Cluster, Options};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What a server takes for an answer, at most.
const LIMIT: Duration = Duration::from_secs(20);
const UI_HOST: &str = "discovery.example";

/// The answer to a request with these headers: status, head in lower case, and body.
async fn ask(node: &Http, line: &str, headers: &[&str]) -> (u16, String, String) {
    let address: SocketAddr = node.base().trim_start_matches("http://").parse().unwrap();
    let mut socket = TcpStream::connect(address).await.unwrap();
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let request =
        format!("{line} HTTP/1.1\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(LIMIT, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

async fn value(node: &Http, key: &str) -> Option<String> {
    let answer = node.get(&format!("/v1/kv/{key}?raw")).await.unwrap();
    (answer.status == 200).then(|| answer.text())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_reaches_the_cluster_only_if_it_is_one_of_its_servers() {
    let flags = vec![format!("--http-allow-host={UI_HOST}")];
    let cluster = Cluster::start_with(Options { flags, ..Options::shared() }).await.unwrap();
    let (here, there) = (cluster.http(1), cluster.http(2));
    let host = format!("Host: {}", here.base().trim_start_matches("http://"));
    let own = format!("Origin: {}", here.base());
    let page = format!("Origin: {}", there.base());

    // The page of this server, and one of another.
    let (status, head, _) = ask(&here, "PUT /v1/kv/own", &[&host, &own]).await;
    assert_eq!((status, head.contains("access-control")), (200, false), "{head}");
    let wants =
        ["Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: last-event-id"];
    let asked = [&host, &page, wants[0], wants[1]];
    let (status, head, _) = ask(&here, "OPTIONS /v1/kv/page", &asked).await;
    let allowed = format!("access-control-allow-origin: {}", there.base());
    assert_eq!(status, 200);
    for line in [
        &*allowed,
        "access-control-allow-methods: options,get,put,delete",
        "access-control-allow-headers: last-event-id",
        "access-control-max-age: 600",
    ] {
        assert!(head.contains(line), "{line}: {head}");
    }
    assert_eq!(ask(&here, "PUT /v1/kv/page", &[&host, &page]).await.0, 200);
    let (status, head, _) = ask(&here, "GET /v1/kv/page", &[&host, &page]).await;
    assert!(status == 200 && head.contains(&allowed), "{head}");
    let exposed = head.lines().find(|line| line.starts_with("access-control-expose-headers"));
    for name in ["x-consul-index", "x-quorate-index", "x-consul-knownleader"] {
        assert!(exposed.unwrap().contains(name), "{exposed:?}");
    }

    // Another page, with and without CORS' question, and one that is from nowhere.
    for origin in ["Origin: http://evil.example", "Origin: null", "Origin: http://127.0.0.1:1"] {
        for line in ["PUT /v1/kv/evil", "OPTIONS /v1/kv/evil", "GET /v1/kv/own"] {
            let (status, head, text) = ask(&here, line, &[&host, origin, wants[0]]).await;
            assert_eq!((status, head.contains("access-control")), (403, false), "{origin}: {head}");
            assert!(text.contains("only those of the cluster's members"), "{text}");
        }
    }
    // A page whose own name means this server now: for its browser that is the same origin.
    for name in ["evil.example:8500", "localhost.evil.example", "n1.evil.example:80"] {
        let rebound = format!("Host: {name}");
        let own = format!("Origin: http://{name}");
        for headers in
            [vec!["Sec-Fetch-Site: same-origin"], vec![&*own], vec!["Sec-Fetch-Site: none"]]
        {
            let headers = [vec![&*rebound], headers].concat();
            let (status, _, text) = ask(&here, "PUT /v1/kv/evil", &headers).await;
            assert_eq!(status, 403, "{headers:?}: {text}");
            assert!(text.contains("--http-allow-host"), "{text}");
        }
        // What such a page reads comes without any sign of a browser.
        for line in ["GET /v1/kv/own", "GET /v1/catalog/services", "PUT /v1/kv/evil"] {
            let (status, _, text) = ask(&here, line, &[&rebound]).await;
            assert_eq!(status, 403, "{line}: {text}");
            assert!(text.contains("--http-allow-host"), "{text}");
        }
    }
    // No page of the internet has such names.
    for name in ["quorate", "quorate:8500", "q.default.svc.cluster.local", "consul.service.consul"]
    {
        let asked = format!("Host: {name}");
        assert_eq!(ask(&here, "GET /v1/kv/own", &[&asked]).await.0, 200, "{name}");
    }
    assert_eq!(value(&there, "evil").await, None);
    for name in ["localhost:1", "n3", UI_HOST, "[::1]:8500", "10.1.2.3"] {
        let asked = format!("Host: {name}");
        let answer = ask(&here, "GET /v1/kv/own", &[&asked, "Sec-Fetch-Site: same-origin"]).await;
        assert_eq!(answer.0, 200, "{name}: {}", answer.2);
    }
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_know_the_address_that_a_server_advertises() {
    let flags = vec!["--http-advertise=n1.example:8501".to_owned()];
    let options = Options { nodes: 1, flags, ..Options::shared() };
    let cluster = Cluster::start_with(options).await.unwrap();
    let told = |seen: &Value| seen[0]["ServiceMeta"]["http_addr"] == "n1.example:8501";
    cluster.http(1).wait_for("/v1/catalog/service/consul", LIMIT, told).await.unwrap();
    // A page at that address is one of the cluster's.
    let headers = ["Host: 10.0.0.1", "Origin: http://n1.example:8501"];
    assert_eq!(ask(&cluster.http(1), "GET /v1/status/leader", &headers).await.0, 200);
    cluster.finish().await.unwrap();
}
