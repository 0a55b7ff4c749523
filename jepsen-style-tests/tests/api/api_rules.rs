//! Rules of the API that recorded requests do not show, on a cluster: each request goes to the next node. The last
//! part is what remains of `?cached`, and of what Consul's agents answer themselves, when two of three nodes are
//! lost.

use std::time::{Duration, Instant};

use jepsen_style_tests::http::{Answer, Http, Method};
use jepsen_style_tests::raw::{Raw, Request};
use jepsen_style_tests::{Cluster, Failure, Result};
use serde_json::{Value, json};

/// "At once", on a busy machine: less than a server holds what needs a leader (7 s).
const AT_ONCE: Duration = Duration::from_secs(4);
/// How long a node may take to notice that it is alone.
const ALONE_MAX: Duration = Duration::from_secs(20);
/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// Some nodes that take turns.
struct Nodes {
    all: Vec<Http>,
    next: std::cell::Cell<usize>,
}

impl Nodes {
    fn next(&self) -> &Http {
        let next = self.next.get();
        self.next.set(next + 1);
        &self.all[next % self.all.len()]
    }

    /// Sends a request byte for byte.
    async fn raw(&self, request: Request) -> Result<Answer> {
        Raw::new(self.next().base()).send(&request).await
    }

    async fn get(&self, path: &str) -> Result<Value> {
        Ok(self.next().must_get(path).await?)
    }

    async fn put(&self, path: &str, body: &Value) -> Result<(u16, String)> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.next().put(path, body).await?;
        Ok((answer.status, answer.text()))
    }

    async fn must_put(&self, path: &str, body: &Value) -> Result<String> {
        let (status, text) = self.put(path, body).await?;
        match status {
            200 => Ok(text),
            _ => Err(Failure::new(format!("PUT {path} {body}: {status} {text}"))),
        }
    }

    /// A transaction's status and answer.
    async fn txn(&self, operations: &Value) -> Result<(u16, Value)> {
        let (status, body) = self.put("/v1/txn", operations).await?;
        Ok((status, serde_json::from_str(&body)?))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_of_the_api_hold_on_any_node_and_without_a_leader() {
    let mut cluster = Cluster::start_shared(3).await.unwrap();
    let nodes = Nodes { all: cluster.https(&cluster.ids()), next: Default::default() };
    transactions(&nodes).await.unwrap();
    definitions(&nodes).await.unwrap();
    ids(&nodes).await.unwrap();
    queries(&nodes).await.unwrap();
    members(&nodes).await.unwrap();
    shapes(&nodes).await.unwrap();
    sessions(&nodes).await.unwrap();
    registrations(&nodes).await.unwrap();
    localities(&nodes).await.unwrap();
    usage(&nodes).await.unwrap();
    alone(&mut cluster).await.unwrap();
    cluster.finish().await.unwrap();
}

async fn transactions(nodes: &Nodes) -> Result<()> {
    let id = "5f1c3a52-0d0b-4f5e-9d3a-0a6a7e0d1b11";
    let node = json!({"Node": "t1", "ID": id, "Address": "10.1.1.1",
        "Service": {"Service": "bare"}, "Check": {"Name": "c", "ServiceID": "bare"}});
    nodes.must_put("/v1/catalog/register", &node).await?;
    let by_id = json!([
        {"Node": {"Verb": "get", "Node": {"ID": id}}},
        {"Service": {"Verb": "get", "Node": "t1", "Service": {"ID": "bare"}}},
        {"Check": {"Verb": "get", "Check": {"Node": "t1", "CheckID": "c"}}},
    ]);
    let (status, answer) = nodes.txn(&by_id).await?;
    assert_eq!(status, 200, "{answer}");
    let results = &answer["Results"];
    assert_eq!(results[0]["Node"]["Node"], "t1");
    let service = &results[1]["Service"];
    assert!(service["Tags"].is_null() && service["Meta"].is_null(), "{service}");
    assert!(results[2]["Check"]["ServiceTags"].is_null(), "{results}");
    let shown = nodes.get("/v1/catalog/node/t1").await?;
    assert_eq!(shown["Services"]["bare"]["Tags"], json!([]));

    // None hides the failures of the others.
    let missing = json!([
        {"Service": {"Verb": "get", "Node": "t1", "Service": {"ID": "nope"}}},
        {"Node": {"Verb": "get", "Node": {"ID": "5f1c3a52-0d0b-4f5e-9d3a-0a6a7e0d1b12"}}},
        {"KV": {"Verb": "get", "Key": "nope"}},
    ]);
    let (status, answer) = nodes.txn(&missing).await?;
    let told: Vec<&str> = answer["Errors"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|e| e["What"].as_str())
        .collect();
    let expected = [
        "service \"nope\" on node \"t1\" doesn't exist",
        "node \"\" doesn't exist",
        "key \"nope\" doesn't exist",
    ];
    assert_eq!((status, told.as_slice()), (409, expected.as_slice()));

    // The latest registration says how a node's name is written.
    nodes
        .must_put("/v1/catalog/register", &json!({"Node": "T1", "ID": id, "Address": "10.1.1.1"}))
        .await?;
    let listed = nodes
        .get("/v1/catalog/nodes?filter=ID==%225f1c3a52-0d0b-4f5e-9d3a-0a6a7e0d1b11%22")
        .await?;
    assert_eq!(listed[0]["Node"], "T1", "{listed}");
    assert_eq!(nodes.get("/v1/catalog/service/bare").await?[0]["Node"], "t1");
    Ok(())
}

async fn definitions(nodes: &Nodes) -> Result<()> {
    let no_name = json!({"Node": "t1", "Address": "10.1.1.1", "Check": {"Status": "passing"}});
    let (status, text) = nodes.put("/v1/catalog/register", &no_name).await?;
    assert!(status == 500 && text.starts_with("failed inserting check: "), "{status} {text}");
    let (status, _) =
        nodes.txn(&json!([{"Check": {"Verb": "set", "Check": {"Node": "t1"}}}])).await?;
    assert_eq!(status, 409);

    let no_mesh = "Quorate has no service mesh: register the service without Kind and Connect";
    for (name, value) in [
        ("Kind", json!("connect-proxy")),
        ("Connect", json!({"SidecarService": {}})),
        ("connect", json!({"sidecar_service": {"port": 1}})),
        ("CONNECT", json!({"native": true})),
    ] {
        let agents = json!({"Name": "m", name: value});
        let catalogues =
            json!({"Node": "t1", "Address": "a", "Service": {"Service": "m", name: value}});
        let txns = json!([{"Service": {"Verb": "set", "Node": "t1", "Service": {"Service": "m", name: value}}}]);
        for (path, body, status) in [
            ("/v1/agent/service/register", agents, 501),
            ("/v1/catalog/register", catalogues, 501),
            ("/v1/txn", txns, 409),
        ] {
            let (answered, text) = nodes.put(path, &body).await?;
            assert!(
                answered == status && text.contains(no_mesh),
                "{path} {body}: {answered} {text}"
            );
        }
    }
    assert_eq!(nodes.get("/v1/catalog/service/m").await?, json!([]));

    let harmless = json!({"Kind": "", "Connect": {}, "Proxy": {"mesh_gateway": {"mode": "local"}, "Expose": {}}});
    let mut plain = harmless.clone();
    plain["Service"] = json!("plain");
    let body = json!({"Node": "T1", "ID": "5f1c3a52-0d0b-4f5e-9d3a-0a6a7e0d1b11", "Address": "10.1.1.1", "Service": plain});
    nodes.must_put("/v1/catalog/register", &body).await?;
    let shown = nodes.get("/v1/catalog/service/plain").await?;
    let proxy = json!({"MeshGateway": {"Mode": "local"}, "Expose": {}});
    assert_eq!((&shown[0]["ServiceProxy"], &shown[0]["ServiceKind"]), (&proxy, &json!("")));
    assert_eq!(nodes.get("/v1/health/service/plain").await?[0]["Service"]["Proxy"], proxy);

    // Of several kinds Consul's first counts, and none without an interval.
    let several = json!({"HTTP": "http://x/", "TCP": "x:1", "Interval": "10s"});
    let unrun = json!({"HTTP": "http://x/", "TTL": "10s"});
    let body = json!({"Node": "T1", "ID": "5f1c3a52-0d0b-4f5e-9d3a-0a6a7e0d1b11", "Address": "10.1.1.1", "Checks": [
        {"CheckID": "a", "Definition": several}, {"CheckID": "b", "Definition": unrun}]});
    nodes.must_put("/v1/catalog/register", &body).await?;
    let checks = nodes.get("/v1/health/node/t1").await?;
    let types: Vec<&Value> =
        checks.as_array().into_iter().flatten().map(|check| &check["Type"]).collect();
    assert_eq!(types, ["http", "ttl", ""]);
    Ok(())
}

async fn ids(nodes: &Nodes) -> Result<()> {
    for (id, path) in [
        ("http://x", "http://x"),
        ("a//b", "a%2F%2Fb"),
        ("..", ".."),
        ("../x/.", "%2E%2E%2Fx%2F."),
        ("/lead", "%2Flead"),
        ("a\u{a0}b", "a%C2%A0b"),
        ("a b/c+d%", "a%20b/c+d%25"),
    ] {
        let body = json!({"Name": "odd", "ID": id, "Check": {"TTL": "10m", "CheckID": id}});
        nodes.must_put("/v1/agent/service/register", &body).await?;
        let beat = nodes.raw(Request::put(format!("/v1/agent/check/pass/{path}"), "")).await?;
        assert_eq!(beat.status, 200, "{id:?}: {}", beat.text());
        let shown = nodes.raw(Request::get(format!("/v1/agent/service/{path}"))).await?;
        assert_eq!(
            shown.json::<Value>().map(|shown| shown["ID"].clone())?,
            json!(id),
            "{}",
            shown.text()
        );
        let health = nodes.raw(Request::get(format!("/v1/agent/health/service/id/{path}"))).await?;
        assert_eq!(health.status, 200, "{id:?}: {}", health.text());
        let gone =
            nodes.raw(Request::put(format!("/v1/agent/service/deregister/{path}"), "")).await?;
        assert_eq!(gone.status, 200, "{id:?}: {}", gone.text());
    }
    let (status, text) = nodes.put("/v1/agent/service/register", &json!({"Name": "a\nb"})).await?;
    assert_eq!(
        (status, text.as_str()),
        (400, "Service name \"a\\nb\" must not have control characters")
    );
    // Keys are where Consul's clients know its redirects from.
    let key = nodes.raw(Request::get("/v1/kv/a//b")).await?;
    assert_eq!((key.status, key.header("location")), (301, Some("/v1/kv/a/b")));
    Ok(())
}

async fn queries(nodes: &Nodes) -> Result<()> {
    let create = async |body: Value| -> Result<(u16, String)> {
        let answer = nodes.next().send(Method::POST, "/v1/query", body.to_string().into()).await?;
        Ok((answer.status, answer.text()))
    };
    let template = |service: &str| json!({"Template": {"Type": "name_prefix_match"}, "Service": {"Service": service}});
    let (status, body) = create(json!({"Name": "static", "Service": {"Service": "web"}})).await?;
    assert_eq!(status, 200, "{body}");
    let created: Value = serde_json::from_str(&body)?;
    let id = created["ID"].as_str().unwrap_or_default().to_owned();
    let (status, body) = create(template("${name.full}")).await?;
    assert_eq!(status, 200, "{body}");
    let mut named = template("web");
    named["Name"] = json!("STATIC");
    for (body, told) in [
        (template("web"), "a query template with an empty name already exists".to_owned()),
        (named, "name 'STATIC' aliases an existing query name".to_owned()),
        (
            json!({"Name": id, "Service": {"Service": "web"}}),
            format!("name '{id}' aliases an existing query ID"),
        ),
        (template("${name.none}"), "failed compiling template: Bad format".to_owned()),
    ] {
        let (status, text) = create(body.clone()).await?;
        assert!(status == 500 && text.starts_with(&told), "{body}: {status} {text}");
    }
    let explained = nodes.get("/v1/query/static/explain").await?;
    assert_eq!(explained["Query"]["ID"], id.as_str());
    assert_eq!((&explained["KnownLeader"], &explained["Index"]), (&json!(true), &json!(0)));
    assert_eq!(
        nodes.get("/v1/query/anything/explain").await?["Query"]["Service"]["Service"],
        "anything"
    );
    Ok(())
}

async fn members(nodes: &Nodes) -> Result<()> {
    nodes.must_put("/v1/agent/service/register?agent=client-1", &json!({"Name": "web"})).await?;
    nodes
        .must_put("/v1/catalog/register", &json!({"Node": "external", "Address": "10.9.9.9"}))
        .await?;
    let role = async |path: &str, name: &str| -> Result<Value> {
        let members = nodes.get(path).await?;
        let members = members.as_array().cloned().unwrap_or_default();
        let found = members.into_iter().find(|member| member["Name"] == name);
        Ok(found.map_or(Value::Null, |member| member["Tags"]["role"].clone()))
    };
    let own = nodes.get("/v1/agent/self").await?["Config"]["NodeName"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    for (path, name, expected) in [
        ("/v1/agent/members", "n1", json!("consul")),
        ("/v1/agent/members", "client-1", json!("node")),
        ("/v1/agent/members", own.as_str(), json!("node")),
        // It has no node yet.
        ("/v1/agent/members?agent=client-2", "client-2", json!("node")),
        ("/v1/agent/members", "client-2", Value::Null),
        ("/v1/agent/members", "external", Value::Null),
        ("/v1/agent/members?wan=1", "client-1", Value::Null),
        ("/v1/agent/members?wan=1", "n1.dc1", json!("consul")),
    ] {
        assert_eq!(role(path, name).await?, expected, "{name} in {path}");
    }
    let about = nodes.get("/v1/agent/self?agent=client-1").await?;
    assert_eq!(about["Stats"]["agent"]["services"], "1");
    assert_eq!(about["DebugConfig"]["HTTPPort"], 8500);
    Ok(())
}

async fn shapes(nodes: &Nodes) -> Result<()> {
    // Only `name` chooses events.
    nodes.must_put("/v1/event/fire/deploy", &Value::Null).await?;
    let listed = nodes.get("/v1/event/list?node=x&service=y&tag=z").await?;
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(nodes.get("/v1/event/list?name=other").await?, json!([]));

    // An id that is no UUID is one that no session has.
    assert_eq!(nodes.get("/v1/session/info/abc").await?, json!([]));
    assert_eq!(nodes.put("/v1/session/destroy/abc", &Value::Null).await?, (200, "true".to_owned()));
    let renewed = nodes.put("/v1/session/renew/abc", &Value::Null).await?;
    assert_eq!(renewed, (404, "Session id 'abc' not found".to_owned()));

    let usage = nodes.get("/v1/operator/usage").await?;
    assert!(usage["Usage"]["dc1"]["Nodes"].is_u64() && usage["KnownLeader"] == true, "{usage}");
    let state = nodes.get("/v1/operator/autopilot/state").await?;
    assert_eq!(state["Servers"]["1"]["ReadReplica"], false, "{state}");

    let datacenters = nodes.get("/v1/coordinate/datacenters").await?;
    let name = datacenters[0]["Coordinates"][0]["Node"].as_str().unwrap_or_default().to_owned();
    assert_eq!(nodes.get(&format!("/v1/coordinate/node/{name}")).await?[0]["Node"], name.as_str());
    Ok(())
}

async fn sessions(nodes: &Nodes) -> Result<()> {
    let created = nodes.must_put("/v1/session/create", &json!({"LockDelay": "0s"})).await?;
    let created: Value = serde_json::from_str(&created)?;
    let id = created["ID"].as_str().unwrap_or_default();
    let upper = id.to_uppercase();
    let acquired = nodes.must_put(&format!("/v1/kv/s/lock?acquire={upper}"), &json!(1)).await?;
    assert_eq!(acquired, "true");
    assert_eq!(nodes.get("/v1/kv/s/lock").await?[0]["Session"], id);
    let (status, answer) = nodes
        .txn(&json!([{"KV": {"Verb": "check-session", "Key": "s/lock", "Session": upper}}]))
        .await?;
    assert_eq!(status, 200, "{answer}");
    let released = nodes.must_put(&format!("/v1/kv/s/lock?release={upper}"), &json!(1)).await?;
    assert_eq!(released, "true");
    nodes.must_put(&format!("/v1/session/destroy/{upper}"), &Value::Null).await?;
    assert_eq!(nodes.get(&format!("/v1/session/info/{id}")).await?, json!([]));

    let (status, answer) = nodes
        .txn(&json!([{"KV": {"Verb": "get-or-empty", "Key": "s/none"}},
            {"KV": {"Verb": "set", "Key": "s/some", "Value": "MQ=="}},
            {"KV": {"Verb": "get-or-empty", "Key": "s/some"}}]))
        .await?;
    assert_eq!(status, 200, "{answer}");
    let results = &answer["Results"];
    let none = json!({"LockIndex": 0, "Key": "s/none", "Flags": 0, "Value": null,
        "CreateIndex": 0, "ModifyIndex": 0});
    assert_eq!((&results[0]["KV"], &results[2]["KV"]["Value"]), (&none, &json!("MQ==")));
    Ok(())
}

/// A node's locality is kept and shown, and a registration without one takes it away.
async fn localities(nodes: &Nodes) -> Result<()> {
    let place = json!({"Region": "eu", "Zone": "eu-1"});
    let placed = json!({"Node": "p2", "Address": "10.1.1.3", "locality": {"region": "eu"},
        "TaggedAddresses": {"wan": "1.2.3.4"}, "Service": {"Service": "on-p2"}});
    nodes.must_put("/v1/catalog/register", &placed).await?;
    let moved = json!({"Node": "p3", "Address": "10.1.1.4", "Locality": place});
    let (status, answer) = nodes.txn(&json!([{"Node": {"Verb": "set", "Node": moved}}])).await?;
    assert_eq!((status, &answer["Results"][0]["Node"]["Locality"]), (200, &place), "{answer}");
    let (status, answer) = nodes
        .txn(&json!([{"Node": {"Verb": "set", "Node": {"Node": "p3", "Locality": {"Zone": "z"}}}}]))
        .await?;
    assert_eq!((status, &answer["Results"]), (409, &Value::Null), "{answer}");
    let shown = &nodes.get("/v1/catalog/node/p3").await?["Node"];
    assert_eq!((&shown["Locality"], &shown["TaggedAddresses"]), (&place, &Value::Null));
    let wan = json!({"wan": "1.2.3.4"});
    let shown = &nodes.get("/v1/health/service/on-p2").await?[0]["Node"];
    assert_eq!((&shown["Locality"], &shown["TaggedAddresses"]), (&json!({"Region": "eu"}), &wan));
    let shown = &nodes.get("/v1/catalog/service/on-p2").await?[0];
    assert_eq!((&shown["TaggedAddresses"], &shown["ServiceLocality"]), (&wan, &Value::Null));
    let bare = json!({"Node": "p2", "Address": "10.1.1.3", "TaggedAddresses": wan});
    nodes.must_put("/v1/catalog/register", &bare).await?;
    let listed = nodes.get("/v1/catalog/nodes").await?;
    let listed = listed.as_array().into_iter().flatten();
    let localities: Vec<_> = listed
        .filter(|node| ["p2", "p3"].iter().any(|name| node["Node"] == *name))
        .map(|node| node.get("Locality"))
        .collect();
    assert_eq!(localities, [None, Some(&place)]);
    Ok(())
}

async fn registrations(nodes: &Nodes) -> Result<()> {
    // A socket and a locality come back wherever the instance is shown, and a registration without them
    // takes them away.
    let place = json!({"Region": "eu", "Zone": "eu-1"});
    let (socket, agent) = ("/run/web.sock", "?agent=client-3");
    let by_agent = json!({"Name": "local", "SocketPath": socket, "Locality": place});
    nodes.must_put(&format!("/v1/agent/service/register{agent}"), &by_agent).await?;
    let row = json!({"Service": "placed", "SocketPath": socket, "Locality": place});
    let by_catalogue = json!({"Node": "p1", "Address": "10.1.1.2", "Service": row});
    nodes.must_put("/v1/catalog/register", &by_catalogue).await?;
    let mut renamed = row.clone();
    renamed["Service"] = json!("moved");
    let (status, answer) =
        nodes.txn(&json!([{"Service": {"Verb": "set", "Node": "p1", "Service": renamed}}])).await?;
    assert_eq!(status, 200, "{answer}");
    let shown = nodes.get(&format!("/v1/agent/service/local{agent}")).await?;
    assert_eq!((&shown["SocketPath"], &shown["Locality"]), (&json!(socket), &place));
    for name in ["local", "placed", "moved"] {
        let shown = &nodes.get(&format!("/v1/catalog/service/{name}")).await?[0];
        let kept = (&shown["ServiceSocketPath"], &shown["ServiceLocality"]);
        assert_eq!(kept, (&json!(socket), &place), "{shown}");
        let shown = &nodes.get(&format!("/v1/health/service/{name}")).await?[0]["Service"];
        assert_eq!((&shown["SocketPath"], &shown["Locality"]), (&json!(socket), &place));
    }
    let chosen = nodes.get("/v1/catalog/services?filter=ServiceSocketPath==%22/run/web.sock%22");
    assert_eq!(chosen.await?, json!({"local": [], "moved": [], "placed": []}));
    let bare = json!({"Node": "p1", "Address": "10.1.1.2", "Service": {"Service": "placed"}});
    nodes.must_put("/v1/catalog/register", &bare).await?;
    let shown = &nodes.get("/v1/health/service/placed").await?[0]["Service"];
    assert!(shown.get("SocketPath").is_none() && shown.get("Locality").is_none(), "{shown}");

    // Names in other letter cases are one service, listed apart.
    for (id, name, tag) in [("c1", "Cased", "upper"), ("c2", "cased", "lower")] {
        let row = json!({"ID": id, "Service": name, "Tags": [tag]});
        let body = json!({"Node": "p1", "Address": "10.1.1.2", "Service": row});
        nodes.must_put("/v1/catalog/register", &body).await?;
    }
    let listed = nodes.get("/v1/catalog/services").await?;
    assert_eq!((&listed["Cased"], &listed["cased"]), (&json!(["upper"]), &json!(["lower"])));
    assert_eq!(nodes.get("/v1/catalog/service/CASED").await?.as_array().map(Vec::len), Some(2));

    // An empty check is none.
    let bare = json!({"Name": "bare-check", "Check": {}});
    nodes.must_put("/v1/agent/service/register", &bare).await?;
    assert_eq!(nodes.get("/v1/health/checks/bare-check").await?, json!([]));

    // A heartbeat counts, however much its check had to say.
    let check = json!({"Name": "long", "TTL": "10m"});
    nodes.must_put("/v1/agent/check/register", &check).await?;
    let beat = json!({"Status": "passing", "Output": "x".repeat(2 << 20)});
    nodes.must_put("/v1/agent/check/update/long", &beat).await?;
    let shown = &nodes.get("/v1/agent/checks").await?["long"];
    let output = shown["Output"].as_str().unwrap_or_default();
    assert_eq!(shown["Status"], "passing", "{shown}");
    assert!(output.ends_with(" ... (captured 4096 of 2097152 bytes)"), "{output}");
    nodes.must_put("/v1/agent/check/deregister/long", &Value::Null).await?;

    let unhosted = nodes.raw(Request::get("/v1/status/leader").without_host()).await?;
    let told = "400 Bad Request: missing required Host header";
    assert_eq!((unhosted.status, unhosted.text().as_str()), (400, told));
    Ok(())
}

/// A watcher of the usage rests until what it counts changes, a node without services included.
async fn usage(nodes: &Nodes) -> Result<()> {
    let raw = Raw::new(nodes.next().base());
    let path = "/v1/operator/usage";
    let seen = raw.send(&Request::get(path)).await?.index().unwrap_or_default();
    let began = Instant::now();
    let rested = raw.send(&Request::get(format!("{path}?index={seen}&wait=1s"))).await?;
    assert!(began.elapsed() >= Duration::from_secs(1), "answered after {:?}", began.elapsed());
    assert_eq!(rested.index(), Some(seen));
    let watch = Request::get(format!("{path}?index={seen}&wait=15s"));
    let watching = tokio::spawn(async move { raw.send(&watch).await });
    let body = json!({"Node": "counted", "Address": "10.1.1.3"});
    nodes.must_put("/v1/catalog/register", &body).await?;
    let woken = watching.await.map_err(|error| Failure::new(error.to_string()))??;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(woken.index() > Some(seen), "{:?} after {seen}", woken.index());
    Ok(())
}

/// What Consul answers from the caches of its agents.
const CACHED: [&str; 6] = [
    "/v1/catalog/services?cached",
    "/v1/catalog/service/web?cached",
    "/v1/catalog/datacenters?cached",
    "/v1/health/service/web?cached",
    "/v1/health/connect/web?cached",
    "/v1/query/static/execute?cached",
];
/// What they know by themselves.
const LOCAL: [&str; 4] = [
    "/v1/agent/services?agent=client-1",
    "/v1/agent/checks",
    "/v1/agent/service/web?agent=client-1",
    "/v1/agent/health/service/name/web?agent=client-1",
];

async fn alone(cluster: &mut Cluster) -> Result<()> {
    let leader = cluster.leader().await?;
    let last = cluster.others(leader)[0];
    let raw = Raw::new(cluster.http(last).base());
    for path in CACHED {
        let answer = raw.send(&Request::get(path)).await?;
        let headers = (answer.header("x-cache"), answer.header("age"));
        assert_eq!((answer.status, headers), (200, (Some("MISS"), Some("0"))), "{path}");
        let answer = raw.send(&Request::get(path.replace("?cached", ""))).await?;
        assert_eq!((answer.header("x-cache"), answer.header("age")), (None, None), "{path}");
    }
    let other = raw.send(&Request::get("/v1/catalog/nodes?cached")).await?;
    assert_eq!((other.status, other.header("x-cache")), (200, None));

    cluster.kill_all(&cluster.others(last))?;
    let killed = Instant::now();
    wait_until_alone(&raw).await?;
    for path in CACHED {
        let (sent, before) = (Instant::now(), killed.elapsed().as_secs());
        let answer = raw.send(&Request::get(path)).await?;
        assert_eq!((answer.status, answer.header("x-cache")), (200, Some("HIT")), "{path}");
        let age: u64 = answer.header("age").and_then(|age| age.parse().ok()).unwrap_or(u64::MAX);
        // A leader may have been heard for the last time a little before it was killed.
        let ages = before..=killed.elapsed().as_secs() + 1;
        assert!(ages.contains(&age), "{path}: age {age}, not in {ages:?}");
        assert!(sent.elapsed() < AT_ONCE, "{path}: {:?}", sent.elapsed());
    }
    for path in LOCAL {
        let sent = Instant::now();
        let answer = raw.send(&Request::get(path)).await?;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert!(sent.elapsed() < AT_ONCE, "{path}: {:?}", sent.elapsed());
    }
    cluster.start_all()?;
    cluster.wait_all_ready().await
}

/// Waits until the node has had no leader for longer than an election takes.
async fn wait_until_alone(raw: &Raw) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < ALONE_MAX {
        let answer = raw.send(&Request::get("/v1/catalog/nodes?stale")).await?;
        let silence: u64 =
            answer.header("x-consul-lastcontact").and_then(|ms| ms.parse().ok()).unwrap_or(0);
        if answer.header("x-consul-knownleader") == Some("false") && silence > 3_000 {
            return Ok(());
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    Err(Failure::new("the node does not notice that it is alone"))
}
