//! Every form of name, asked by a resolver as applications use one: over UDP, TCP and with small EDNS buffers, with and
//! without a leader.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::rr::{Name, RecordType};
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{Resolver, TokioResolver};
use jepsen_style_tests::http::{Http, Method};
use jepsen_style_tests::{Cluster, Limit, Result};
use serde_json::{Value, json};

/// A change shows in DNS of every node within this.
const LIMIT: Duration = Duration::from_secs(20);
/// An answer comes within this, also from a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);
/// Instances of a service whose answers are cut.
const MANY: usize = 60;

/// How a resolver asks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    /// Over UDP, with room for so many bytes; `None`: without EDNS. After a cut answer over TCP.
    Udp(Option<u16>),
    Tcp,
}

const WAYS: [Way; 5] =
    [Way::Udp(None), Way::Udp(Some(512)), Way::Udp(Some(1_232)), Way::Udp(Some(4_096)), Way::Tcp];

pub(crate) fn resolver(server: SocketAddr, way: Way) -> TokioResolver {
    let connection = |mut connection: ConnectionConfig| {
        connection.port = server.port();
        connection
    };
    let (udp, tcp) = (connection(ConnectionConfig::udp()), connection(ConnectionConfig::tcp()));
    let connections = match way {
        Way::Udp(_) => vec![udp, tcp],
        Way::Tcp => vec![tcp],
    };
    let server = NameServerConfig::new(server.ip(), true, connections);
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let mut options = ResolverOpts::default();
    options.timeout = PATIENCE;
    options.cache_size = 0;
    options.case_randomization = true;
    options.preserve_intermediates = true;
    options.edns0 = matches!(way, Way::Udp(Some(_)));
    if let Way::Udp(Some(bytes)) = way {
        options.edns_payload_len = bytes;
    }
    let builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.with_options(options).build().unwrap()
}

/// The data of the records of one type; none if the name does not exist or has none.
pub(crate) async fn look(
    resolver: &TokioResolver,
    name: &str,
    kind: RecordType,
) -> BTreeSet<String> {
    match resolver.lookup(Name::from_ascii(name).unwrap(), kind).await {
        Ok(found) => {
            let records = found.answers().iter().filter(|record| record.record_type() == kind);
            records.map(|record| record.data.to_string()).collect()
        }
        Err(error) => {
            assert!(error.is_no_records_found(), "{name} {kind}: {error}");
            BTreeSet::new()
        }
    }
}

async fn put(node: &Http, registration: Value) -> Result<()> {
    node.must_put("/v1/catalog/register", registration.to_string()).await?;
    Ok(())
}

pub(crate) async fn register(node: &Http) -> Result<()> {
    let instance = |number: usize, service: &str, address: String, tags: Value| {
        json!({"Node": format!("h{number}"), "Address": format!("10.9.0.{number}"), "NodeMeta": {"rack": "r7"},
            "Service": {"Service": service, "ID": format!("{service}{number}"), "Port": 8000 + number,
                "Address": address, "Tags": tags, "Weights": {"Passing": 5, "Warning": 1}}})
    };
    put(node, instance(1, "web", String::new(), json!(["v1.2"]))).await?;
    put(node, instance(2, "web", "10.9.1.2".to_owned(), json!(["blue"]))).await?;
    put(node, instance(3, "web", "2001:db8::3".to_owned(), json!([]))).await?;
    let mut sick = instance(4, "web", "10.9.1.4".to_owned(), json!([]));
    sick["Check"] = json!({"CheckID": "c", "Name": "c", "Status": "critical", "ServiceID": "web4"});
    put(node, sick).await?;
    put(node, instance(5, "outside", "www.example.com".to_owned(), json!([]))).await?;
    for number in 1..=MANY {
        put(node, instance(number, "many", format!("10.8.0.{number}"), json!([]))).await?;
    }
    let query = json!({"Name": "blue-web", "Service": {"Service": "web", "Tags": ["blue"]}});
    let made = node.send(Method::POST, "/v1/query", query.to_string().into()).await?;
    assert_eq!(made.status, 200, "{}", made.text());
    Ok(())
}

/// Every form, and what it gives.
fn forms() -> Vec<(&'static str, RecordType, Vec<&'static str>)> {
    use RecordType::{A, AAAA, CNAME, PTR, SRV, TXT};
    let both = vec!["10.9.0.1", "10.9.1.2"];
    let locations = vec![
        "1 5 8001 h1.node.dc1.consul.",
        "1 5 8002 0a090102.addr.dc1.consul.",
        "1 5 8003 20010db8000000000000000000000003.addr.dc1.consul.",
    ];
    vec![
        ("web.service.consul.", A, both.clone()),
        ("WEB.Service.dc1.consul.", A, both),
        ("web.service.consul.", AAAA, vec!["2001:db8::3"]),
        ("v1.2.web.service.consul.", A, vec!["10.9.0.1"]),
        ("blue.web.service.dc1.consul.", A, vec!["10.9.1.2"]),
        ("_web._tcp.service.consul.", SRV, locations.clone()),
        ("_web._tcp.consul.", SRV, locations),
        ("_web._blue.service.consul.", SRV, vec!["1 5 8002 0a090102.addr.dc1.consul."]),
        ("0a090102.addr.dc1.consul.", A, vec!["10.9.1.2"]),
        ("h1.node.consul.", A, vec!["10.9.0.1"]),
        ("h1.node.dc1.consul.", TXT, vec!["rack=r7"]),
        ("outside.service.consul.", CNAME, vec!["www.example.com."]),
        ("blue-web.query.consul.", A, vec!["10.9.1.2"]),
        ("3.0.9.10.in-addr.arpa.", PTR, vec!["h3.node.dc1.consul."]),
        ("2.1.9.10.in-addr.arpa.", PTR, vec!["web.service.consul."]),
        ("none.service.consul.", A, vec![]),
        ("web.service.dc2.consul.", A, vec![]),
        ("h1.node.consul.", AAAA, vec![]),
    ]
}

/// Asks for every form in every way.
pub(crate) async fn ask_all(server: SocketAddr) {
    for way in WAYS {
        let resolver = resolver(server, way);
        for (name, kind, expected) in forms() {
            let found = look(&resolver, name, kind).await;
            let expected: BTreeSet<_> = expected.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(found, expected, "{name} {kind} at {server}, {way:?}");
        }
        // Cut over UDP, whole after that.
        for kind in [RecordType::A, RecordType::SRV] {
            let found = look(&resolver, "many.service.consul.", kind).await;
            assert_eq!(found.len(), MANY, "{kind} at {server}, {way:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_form_is_answered_by_every_node_in_every_way_and_without_a_leader() {
    let mut cluster = Cluster::start_shared(3).await.unwrap();
    register(&cluster.http(1)).await.unwrap();
    for id in cluster.ids() {
        let resolver = resolver(cluster.dns(id), Way::Tcp);
        let limit = Limit::new(LIMIT);
        while look(&resolver, "blue-web.query.consul.", RecordType::A).await.is_empty() {
            limit.pause(|| format!("the query at node {id}")).await.unwrap();
        }
        ask_all(cluster.dns(id)).await;
        let servers = look(&resolver, "consul.service.consul.", RecordType::A).await;
        assert_eq!(servers.len(), 3, "{servers:?}");
        let names = look(&resolver, "consul.", RecordType::NS).await;
        assert_eq!(names.len(), 3, "{names:?}");
    }
    // The API tells where DNS is, and counts what it answered.
    let about = cluster.http(1).must_get("/v1/agent/self").await.unwrap();
    assert_eq!(about["DebugConfig"]["DNSPort"], cluster.dns(1).port());
    assert_eq!(about["DebugConfig"]["DNSAddrs"][1], format!("udp://{}", cluster.dns(1)));
    let metrics = cluster.http(1).get("/metrics").await.unwrap().text();
    for line in [
        "quorate_dns_answers_total{kind=\"service\",rcode=\"NOERROR\"}",
        "quorate_dns_answers_total{kind=\"service\",rcode=\"NXDOMAIN\"}",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    // The leader is killed, and one more: the last one leads nobody.
    let leader = cluster.leader().await.unwrap();
    cluster.kill(leader).unwrap();
    let survivors = cluster.others(leader);
    ask_all(cluster.dns(survivors[0])).await;
    cluster.kill(survivors[0]).unwrap();
    ask_all(cluster.dns(survivors[1])).await;
    cluster.start_all().unwrap();
    cluster.finish().await.unwrap();
}
