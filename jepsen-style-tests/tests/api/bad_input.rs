//! Malformed requests get the status and the text that Consul's clients know, and change nothing.

use std::time::Duration;

use jepsen_style_tests::http::{AnswerExt as _, Http, Method};
use jepsen_style_tests::{Cluster, Result};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Whether a command may reach the log before it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// The request is refused where it arrives: nothing is replicated, not even the refusal.
    AtTheEdge,
    /// It is refused when it is applied: the log grows, and nothing that can be seen changes.
    InTheLog,
}
use Refused::{AtTheEdge, InTheLog};

/// A request and what must come back: method, path, body, status, text.
#[derive(Clone, Copy)]
struct Case(&'static str, &'static str, Body, u16, Text, Refused);

#[derive(Clone, Copy)]
enum Body {
    None,
    Is(&'static str),
    /// So many bytes.
    Long(usize),
}
use Body::{Is, Long};

#[derive(Clone, Copy)]
enum Text {
    Equals(&'static str),
    Begins(&'static str),
    Any,
}
use Text::{Any, Begins, Equals};

const KV_BYTES_MAX: usize = 524_288;
const REGISTER: &str = "/v1/agent/service/register";
const CHECK_REGISTER: &str = "/v1/agent/check/register";
const CATALOG: &str = "/v1/catalog/register";
const NONE: Body = Body::None;

const DECODE: Text = Begins("Request decode failed: ");
const UNKNOWN_FIELD: Text = Equals("Request decode failed: json: unknown field \"Nope\"");
const NAMESPACE: Text = Equals(
    "Request decode failed: json: unknown field \"Namespace\" - Namespaces are a Consul Enterprise feature",
);
const EMPTY: Text = Equals("Request decode failed: EOF");
const CUT: Text = Equals("Request decode failed: unexpected EOF");

/// Bodies that are no JSON, or not an object, for every endpoint that takes one.
#[rustfmt::skip]
const BODIES: &[(Body, Text)] = &[
    (NONE, EMPTY),
    (Is("{"), CUT),
    (Is("[]"), DECODE),
    (Is("\"text\""), DECODE),
    (Is("{nope}"), DECODE),
    (Is("\u{0}\u{1}\u{2}"), DECODE),
    (Is(r#"{"Nope":1}"#), UNKNOWN_FIELD),
];

const fn register_case(body: &'static str, text: Text) -> Case {
    Case("PUT", REGISTER, Is(body), 400, text, AtTheEdge)
}
const fn check_case(body: &'static str, text: Text) -> Case {
    Case("PUT", CHECK_REGISTER, Is(body), 400, text, AtTheEdge)
}
const fn catalog_case(body: &'static str, text: &'static str) -> Case {
    Case("PUT", CATALOG, Is(body), 500, Equals(text), AtTheEdge)
}
const fn get(path: &'static str, status: u16, text: Text) -> Case {
    Case("GET", path, NONE, status, text, AtTheEdge)
}
const fn put(path: &'static str, status: u16, text: Text) -> Case {
    Case("PUT", path, Is("v"), status, text, AtTheEdge)
}
const fn in_the_log(path: &'static str, body: Body, status: u16, text: Text) -> Case {
    Case("PUT", path, body, status, text, InTheLog)
}
const fn not_allowed(method: &'static str, path: &'static str, text: &'static str) -> Case {
    Case(method, path, NONE, 405, Equals(text), AtTheEdge)
}

/// Well-formed bodies with wrong types, or that ask for what is not allowed.
#[rustfmt::skip]
const VALUES: &[Case] = &[
    register_case(r#"{"Name":5}"#, DECODE),
    register_case(r#"{"Name":"x","Port":"80"}"#, DECODE),
    register_case(r#"{"Name":"x","Meta":{"a":1}}"#, DECODE),
    register_case(r#"{"Name":"x","Tags":"a"}"#, DECODE),
    register_case(r#"{"Name":"x","Namespace":"n"}"#, NAMESPACE),
    check_case(r#"{"Name":"x","TTL":"9s","Namespace":"n"}"#, NAMESPACE),
    Case("PUT", "/v1/session/create", Is(r#"{"Namespace":"n"}"#), 400, NAMESPACE, AtTheEdge),
    Case("PUT", CATALOG, Is(r#"{"Node":"x","Address":"10.0.0.1","Service":{"Service":"x","Namespace":"n"}}"#), 400, NAMESPACE, AtTheEdge),
    Case("PUT", "/v1/txn", Is(r#"[{"KV":{"Verb":"set","Key":"x","Namespace":"n"}}]"#), 400, Equals("Failed to parse body: json: unknown field \"Namespace\" - Namespaces are a Consul Enterprise feature"), AtTheEdge),
    register_case(r#"{"Name":"x","Connect":{"Nope":1}}"#, UNKNOWN_FIELD),
    register_case(r#"{"Name":"x","Proxy":{"upstreams":[{"Nope":1}]}}"#, UNKNOWN_FIELD),
    Case("PUT", CATALOG, Is(r#"{"Node":"x","Address":"10.0.0.1","Service":{"Service":"x","Connect":{"Nope":1}}}"#), 400, UNKNOWN_FIELD, AtTheEdge),
    Case("PUT", "/v1/txn", Is(r#"[{"Service":{"Verb":"set","Node":"x","Service":{"Service":"x","Connect":{"Nope":1}}}}]"#), 400, Equals("Failed to parse body: json: unknown field \"Nope\""), AtTheEdge),
    register_case(r#"{"Name":"x","Partition":"default"}"#, Equals("Request decode failed: json: unknown field \"Partition\" - Partitions are a Consul Enterprise feature")),
    register_case(r#"{"Name":"x","Check":{"TTL":"soon"}}"#, DECODE),
    register_case("null", Equals("Missing service name")),
    register_case(r#"{"ID":"x"}"#, Equals("Missing service name")),
    register_case(r#"{"Name":"x","Address":"0.0.0.0"}"#, Equals("Invalid service address")),
    register_case(r#"{"Name":"x","Address":"::"}"#, Equals("Invalid service address")),
    register_case(r#"{"Name":"x","Address":"[::]"}"#, Equals("Invalid service address")),
    register_case(r#"{"Name":"x","Meta":{"consul-x":"y"}}"#, Equals("Invalid Service Meta: Couldn't load metadata pair ('consul-x', 'y'): Key prefix 'consul-' is reserved for internal use")),
    register_case(r#"{"Name":"x","Locality":{"Zone":"z"}}"#, Equals("zone cannot be set without region")),
    Case("PUT", CATALOG, Is(r#"{"Node":"x","Address":"10.0.0.1","Locality":{"Zone":"z"}}"#), 400, Equals("zone cannot be set without region"), AtTheEdge),
    Case("PUT", CATALOG, Is(r#"{"Node":"x","Address":"10.0.0.1","Locality":"eu"}"#), 400, DECODE, AtTheEdge),
    register_case(r#"{"Name":"x","Checks":[{}]}"#, Equals("Invalid check: TTL must be > 0 for TTL checks")),
    register_case(r#"{"Name":"x","Weights":{"Passing":0,"Warning":1}}"#, Equals("Invalid Weights: Passing must be greater than 0")),
    register_case(r#"{"Name":"x","Meta":{"a b":"c"}}"#, Begins("Invalid Service Meta: ")),
    register_case(r#"{"Name":"x","Check":{"Name":"c"}}"#, Equals("Invalid check: TTL must be > 0 for TTL checks")),
    register_case(r#"{"Name":"x","Check":{"HTTP":"http://127.0.0.1/"}}"#, Equals("Invalid check: Interval must be > 0 for Script, HTTP, or TCP checks")),
    register_case(r#"{"Name":"x","Check":{"TTL":"5s","Interval":"5s","TCP":"a:1"}}"#, Equals("Invalid check: Interval and TTL cannot both be specified")),
    register_case(r#"{"Name":"x","Check":{"TTL":"5s","Status":"odd"}}"#, Equals("Status for checks must 'passing', 'warning', 'critical'")),
    check_case(r#"{"Name":"c","CheckID":"c","TTL":"9s"}"#, DECODE),
    check_case(r#"{"TTL":"5s"}"#, Equals("Missing check name")),
    check_case(r#"{"Name":"c","TTL":"5s","Status":"odd"}"#, Equals("Bad check status")),
    catalog_case(r#"{"Address":"10.0.0.1"}"#, "Must provide node"),
    catalog_case(r#"{"Node":"x"}"#, "Must provide address if SkipNodeUpdate is not set"),
    catalog_case(r#"{"Node":"x","Address":"10.0.0.1","Service":{"ID":"s"}}"#, "Must provide service name with ID"),
    catalog_case(r#"{"Node":"x","Address":"10.0.0.1","Check":{"Node":"y","CheckID":"c"}}"#, "check node \"y\" does not match node \"x\""),
    catalog_case(r#"{"Node":"x","Address":"10.0.0.1","ID":"short"}"#, "Bad node ID: uuid string is wrong length"),
    Case("PUT", "/v1/catalog/deregister", Is("{}"), 500, Equals("Must provide node"), AtTheEdge),
    Case("PUT", "/v1/agent/check/update/service:web-1", Is(r#"{"Status":"weird"}"#), 400, Equals("Invalid check status: 'weird'"), AtTheEdge),
    in_the_log(CHECK_REGISTER, Is(r#"{"Name":"c","TTL":"5s","ServiceID":"nope"}"#), 404, Equals("ServiceID \"nope\" does not exist")),
    in_the_log("/v1/agent/check/pass/nope", NONE, 404, Begins("Unknown check ID \"nope\"")),
    in_the_log("/v1/agent/check/deregister/nope", NONE, 404, Begins("Unknown check ID \"nope\"")),
    in_the_log("/v1/agent/service/deregister/nope", NONE, 404, Begins("Unknown service ID \"nope\"")),
    in_the_log(CATALOG, Is(r#"{"Node":"x","Address":"10.0.0.1","Check":{"CheckID":"c","ServiceID":"nope"}}"#), 500, Begins("failed inserting check: Missing service registration")),
];

/// A filter that fits no list.
const NO_SELECTOR: &str =
    "Failed to create boolean expression evaluator: Selector \"Nope\" is not valid";

/// Query parameters.
#[rustfmt::skip]
const PARAMETERS: &[Case] = &[
    get("/v1/kv/key?index=abc", 400, Equals("Invalid index")),
    get("/v1/kv/key?index=-1", 400, Equals("Invalid index")),
    get("/v1/kv/key?index=18446744073709551616", 400, Equals("Invalid index")),
    get("/v1/kv/key?ns=default", 400, Equals("Invalid query parameter: \"ns\" - Namespaces are a Consul Enterprise feature")),
    put("/v1/kv/key?ns=a", 400, Equals("Invalid query parameter: \"ns\" - Namespaces are a Consul Enterprise feature")),
    Case("PUT", "/v1/agent/service/register?partition=a", Is(r#"{"Name":"x"}"#), 400, Equals("Invalid query parameter: \"partition\" - Partitions are a Consul Enterprise feature"), AtTheEdge),
    get("/v1/kv/key?wait=10", 400, Equals("Invalid wait time")),
    get("/v1/kv/key?wait=1sec", 400, Equals("Invalid wait time")),
    get("/v1/catalog/nodes?index=1&wait=x", 400, Equals("Invalid wait time")),
    get("/v1/health/service/web?stale&consistent", 400, Equals("Cannot specify ?stale with ?consistent, conflicting semantics.")),
    get("/v1/health/service/web?passing=maybe", 400, Equals("Invalid value for ?passing")),
    get("/v1/catalog/services?max_stale=abc", 400, Equals("Invalid max_stale value \"abc\"")),
    get("/v1/catalog/services?dc=elsewhere", 500, Equals("No path to datacenter")),
    get("/v1/agent/services?filter=Nope==1", 500, Equals(NO_SELECTOR)),
    get("/v1/agent/members?filter=Nope==1", 500, Equals(NO_SELECTOR)),
    get("/v1/catalog/nodes?filter=Nope==1", 500, Equals(NO_SELECTOR)),
    get("/v1/catalog/services?filter=Nope==1", 500, Equals(NO_SELECTOR)),
    get("/v1/catalog/service/x?filter=Nope==1", 500, Equals(NO_SELECTOR)),
    get("/v1/catalog/node/x?filter=Nope==1", 500, Equals(NO_SELECTOR)),
    get("/v1/catalog/node-services/x?filter=Nope==1", 500, Equals(NO_SELECTOR)),
    get("/v1/health/service/x?filter=Nope==1", 500, Equals(NO_SELECTOR)),
    get("/v1/health/checks/x?filter=Nope==1", 500, Equals(NO_SELECTOR)),
    get("/v1/health/node/x?filter=Nope==1", 500, Equals(NO_SELECTOR)),
    get("/v1/health/state/any?filter=Nope==1", 500, Equals(NO_SELECTOR)),
    get("/v1/agent/checks?filter=Nope==1", 500, Equals("Selector \"Nope\" is not valid")),
    get("/v1/catalog/nodes?filter=Node+matches+`[`", 500, Begins("Failed to create boolean expression evaluator: ")),
    get("/v1/catalog/nodes?filter=((((", 500, Begins("Failed to create boolean expression evaluator: ")),
    get("/v1/kv/key?a=%zz", 500, Any),
    get("/v1/catalog/service/", 400, Equals("Missing service name")),
    get("/v1/catalog/node/", 400, Equals("Missing node name")),
    get("/v1/health/state/", 400, Equals("Missing check state")),
    get("/v1/kv/", 400, Equals("Missing key name")),
    put("/v1/kv/", 400, Equals("Missing key name")),
    put("/v1/kv/key?index=abc", 400, Equals("Invalid index")),
    put("/v1/kv/key?cas=abc", 500, Begins("strconv.ParseUint: ")),
    put("/v1/kv/key?cas=-1", 500, Begins("strconv.ParseUint: ")),
    put("/v1/kv/key?flags=x", 500, Begins("strconv.ParseUint: ")),
    put("/v1/kv/key?flags=18446744073709551616", 500, Begins("strconv.ParseUint: ")),
    put("/v1/kv/key?acquire=abc&cas=0", 400, Begins("Conflicting flags: acquire=abc&cas=0")),
    Case("DELETE", "/v1/kv/key?recurse&cas=1", NONE, 400, Begins("Conflicting flags: "), AtTheEdge),
    Case("DELETE", "/v1/kv/key?cas=x", NONE, 500, Begins("strconv.ParseUint: "), AtTheEdge),
    in_the_log("/v1/agent/check/pass/serfHealth", NONE, 404, Begins("Unknown check ID \"serfHealth\".")),
    in_the_log("/v1/kv/key?acquire=abc", Is("v"), 500, Equals("invalid session \"abc\"")),
    in_the_log("/v1/kv/key?cas=99999", Is("v"), 200, Equals("false")),
    in_the_log("/v1/kv/key?cas=0", Is("v"), 200, Equals("false")),
];

/// Paths, methods and sizes.
#[rustfmt::skip]
const PATHS: &[Case] = &[
    get("/v1/nope", 404, Any),
    get("/v2/kv/key", 404, Any),
    get("/nope", 404, Any),
    get("/v1/KV/key", 404, Any),
    put("/v1/nope", 404, Any),
    not_allowed("POST", "/v1/kv/key", "method POST not allowed"),
    not_allowed("POST", REGISTER, "method POST not allowed"),
    not_allowed("GET", REGISTER, "method GET not allowed"),
    not_allowed("DELETE", "/v1/agent/service/deregister/web-1", "method DELETE not allowed"),
    not_allowed("PUT", "/v1/catalog/services", "method PUT not allowed"),
    not_allowed("PUT", "/v1/status/leader", "method PUT not allowed"),
    not_allowed("PATCH", "/v1/health/service/web", "method PATCH not allowed"),
    not_allowed("HEAD", "/v1/kv/key", ""),
    get("/v1//kv/key", 301, Any),
    put("/v1/kv//key", 301, Equals("")),
    get("/v1/kv/a%00b", 400, Equals("")),
    put("/v1/kv/a%07b", 400, Equals("")),
    put("/v1/kv/%ff%fe", 400, Any),
    put("/v1/kv/a%E2%80%8Bb", 400, Equals("")),
    put("/v1/kv/a%C2%ADb", 400, Equals("")),
    put("/v1/kv/a%EF%BB%BFb", 400, Equals("")),
    put("/v1/kv/a%EE%80%80b", 400, Equals("")),
    Case("PUT", "/v1/txn", Long(KV_BYTES_MAX + 1), 413, Equals("Request body(524289 bytes) too large, max size: 524288 bytes. See https://developer.hashicorp.com/docs/agent/config/config-files#txn_max_req_len."), AtTheEdge),
    Case("PUT", "/v1/kv/large", Long(KV_BYTES_MAX + 1), 413, Begins("Request body(524289 bytes) too large, max size: 524288 bytes."), AtTheEdge),
];

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for path in [REGISTER, CHECK_REGISTER, CATALOG, "/v1/catalog/deregister"] {
        for (body, text) in BODIES {
            cases.push(Case("PUT", path, *body, 400, *text, AtTheEdge));
        }
    }
    for table in [VALUES, PARAMETERS, PATHS] {
        cases.extend_from_slice(table);
    }
    cases
}

/// Everything that a client can see of the state, with the indexes that a watcher would see.
async fn visible(node: &Http) -> Result<Vec<(&'static str, Option<u64>, Value)>> {
    let mut seen = Vec::new();
    for path in [
        "/v1/kv/?recurse",
        "/v1/catalog/nodes",
        "/v1/catalog/services",
        "/v1/catalog/service/web",
        "/v1/health/state/any",
        "/v1/health/service/web",
    ] {
        let answer = node.get(path).await?;
        seen.push((path, answer.index(), answer.value()?));
    }
    Ok(seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_are_refused_in_known_words_and_change_nothing() {
    let cluster = Cluster::start_shared(3).await.unwrap();
    let nodes = cluster.https(&cluster.ids());
    nodes[0].must_put("/v1/kv/key", "value").await.unwrap();
    nodes[1].must_put(REGISTER, r#"{"ID":"web-1","Name":"web","Port":80}"#).await.unwrap();
    cluster.converge().await.unwrap();
    let before = visible(&nodes[0]).await.unwrap();
    let mut wrong = Vec::new();
    let cases = cases();
    for (number, case) in cases.iter().enumerate() {
        // Every node speaks the same words.
        let id = cluster.ids()[number % nodes.len()];
        let (applied, hash) = cluster.state_hash(id).await.unwrap();
        wrong.extend(ask(&cluster.http(id), case).await);
        let (applied_after, hash_after) = cluster.state_hash(id).await.unwrap();
        // Nothing here has a deadline, so the leader proposes nothing of its own accord.
        if case.5 == AtTheEdge && (applied, &hash) != (applied_after, &hash_after) {
            wrong.push(format!("{} {}: the state changed", case.0, case.1));
        }
        let after = visible(&cluster.http(id)).await.unwrap();
        if after != before {
            wrong.push(format!("{} {}: what is visible changed: {after:?}", case.0, case.1));
            break;
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    println!("{} bad requests refused", cases.len());
    cluster.finish().await.unwrap();
}

/// Returns what was wrong with the answer.
async fn ask(node: &Http, Case(method, path, body, status, text, _): &Case) -> Option<String> {
    let body = match body {
        Body::None => Vec::new(),
        Is(text) => text.as_bytes().to_vec(),
        Long(length) => vec![b'x'; *length],
    };
    let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
    let verb = Method::from_bytes(method.as_bytes()).expect("the table holds methods");
    let answer = match node.send(verb, path, body.into()).await {
        Ok(answer) => answer,
        Err(no_answer) => return Some(format!("{method} {path} {shown}: {no_answer:?}")),
    };
    let is_text_right = match text {
        Equals(text) => answer.body == *text,
        Begins(text) => answer.body.starts_with(text.as_bytes()),
        Any => true,
    };
    let is_allow_right = (answer.status == 405) == answer.header("allow").is_some();
    let is_right = answer.status == *status && is_text_right && is_allow_right;
    (!is_right).then(|| {
        let expected = match text {
            Equals(text) | Begins(text) => *text,
            Any => "",
        };
        let (got, body) = (answer.status, answer.text());
        format!("{method} {path} {shown}: expected {status} {expected:?}, got {got} {body:?}")
    })
}

/// A client that is still sending when it is refused must see why, not a broken connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_refused_while_it_sends_reads_the_answer_and_can_go_on() {
    const SENT_BYTES: usize = 4 * KV_BYTES_MAX;
    let cluster = Cluster::start_shared(1).await.unwrap();
    let base = cluster.http(1).base().to_owned();
    let address = base.strip_prefix("http://").unwrap();
    for head in [
        format!("PUT /v1/kv/large HTTP/1.1\r\nHost: x\r\nContent-Length: {SENT_BYTES}\r\n\r\n"),
        format!("POST /v1/kv/large HTTP/1.1\r\nHost: x\r\nContent-Length: {SENT_BYTES}\r\n\r\n"),
    ] {
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(head.as_bytes()).await.unwrap();
        let piece = vec![b'x'; SENT_BYTES / 16];
        for _ in 0..16 {
            connection.write_all(&piece).await.unwrap();
            // The server has its answer ready long before the body is sent.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        connection
            .write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answers = String::new();
        connection.read_to_string(&mut answers).await.unwrap();
        assert!(answers.starts_with("HTTP/1.1 4"), "{answers}");
        assert!(answers.contains("HTTP/1.1 200 OK"), "the second request: {answers}");
    }
    cluster.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_value_allowed_is_stored_and_read_at_every_node() {
    let cluster = Cluster::start_shared(3).await.unwrap();
    let nodes = cluster.https(&cluster.ids());
    nodes[0].must_put("/v1/kv/largest", vec![b'x'; KV_BYTES_MAX]).await.unwrap();
    for node in &nodes {
        let answer = node.get("/v1/kv/largest?raw").await.unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, KV_BYTES_MAX));
    }
    cluster.finish().await.unwrap();
}
