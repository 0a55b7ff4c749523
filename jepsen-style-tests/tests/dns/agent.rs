//! DNS of a client agent: its questions are answered by the servers, whichever of them is there.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::rr::RecordType;
use jepsen_style_tests::Cluster;
use jepsen_style_tests::http::{Http, HttpExt as _};
use jepsen_style_tests::process::{Process, free_ports};

use crate::forms::{Way, ask_all, look, register, resolver};

/// The agent is up, and has found a server, within this.
const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_agent_has_its_questions_answered_by_the_servers() {
    let mut cluster = Cluster::start_shared(3).await.unwrap();
    register(&cluster.http(1)).await.unwrap();
    let ports = free_ports(Ipv4Addr::LOCALHOST, 2).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut arguments = vec!["agent".to_owned(), format!("-data-dir={}", data.display())];
    arguments.extend(["-node=here".to_owned(), "-bind=127.0.0.1".to_owned()]);
    arguments.extend([format!("-http-port={}", ports[0]), format!("-dns-port={}", ports[1])]);
    arguments
        .extend(cluster.ids().iter().map(|id| format!("-retry-join={}:8300", cluster.ip(*id))));
    let _agent = Process::start(&directory.path().join("log"), &arguments).unwrap();
    let agent = Http::new(&format!("http://127.0.0.1:{}", ports[0])).unwrap();
    let dns: SocketAddr = (Ipv4Addr::LOCALHOST, ports[1]).into();
    let serves = |about: &serde_json::Value| about["DebugConfig"]["DNSPort"] == ports[1];
    agent.wait_for("/v1/agent/self", LIMIT, serves).await.unwrap();
    agent.wait_for("/v1/catalog/node/here", LIMIT, |node| !node.is_null()).await.unwrap();
    ask_all(dns).await;
    // Two servers die, one of them perhaps the one that was asked: the third is left.
    cluster.kill(1).unwrap();
    cluster.kill(2).unwrap();
    let found = look(&resolver(dns, Way::Udp(None)), "h1.node.consul.", RecordType::A).await;
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["10.9.0.1"]);
    cluster.start_all().unwrap();
    cluster.finish().await.unwrap();
}
