//! The bodies that would grow most: a few bytes that become many in memory, in the log or in an answer.

use serde_json::{Value, json};

/// A request and how it must be answered.
pub(crate) struct Case {
    pub(crate) what: &'static str,
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
    pub(crate) status: u16,
    /// What a refusal says.
    pub(crate) words: &'static str,
}

/// Bytes that a JSON body may have.
const JSON_BYTES_MAX: usize = 1 << 20;
/// Tags of an instance together, and checks of a registration, as documented.
const TAGS_BYTES_MAX: usize = 64 << 10;
const CHECKS_MAX: usize = 256;

#[expect(clippy::needless_pass_by_value, reason = "a table reads better without references")]
fn case(
    what: &'static str,
    path: impl Into<String>,
    body: impl ToString,
    status: u16,
    words: &'static str,
) -> Case {
    let body = body.to_string().into_bytes();
    Case { what, method: "PUT", path: path.into(), body, status, words }
}

fn post(case: Case) -> Case {
    Case { method: "POST", ..case }
}

fn long(bytes: usize) -> String {
    "x".repeat(bytes)
}

/// Tags of 64 bytes, so many bytes of them.
fn tags(bytes: usize) -> Vec<String> {
    (0..bytes / 64).map(|n| format!("{n:064}")).collect()
}

fn checks(count: usize) -> Value {
    vec![json!({"TTL": "1h"}); count].into()
}

/// An object with the members of another.
fn merged(mut object: Value, more: Value) -> Value {
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
    object
}

/// As many of `element` as fit into a body, between `head` and `tail`.
fn packed(head: &str, element: &str, tail: &str) -> String {
    let count = (JSON_BYTES_MAX - head.len() - tail.len()) / (element.len() + 1);
    format!("{head}{}{tail}", vec![element; count].join(","))
}

/// Instances with checks: each check repeats what its service has.
pub(crate) fn services() -> Vec<Case> {
    const REGISTER: &str = "/v1/agent/service/register";
    let many = "too many checks of a registration: 1500, at most 256 are allowed";
    let reported = json!({"Name": "reported", "Tags": tags(77 << 10), "Checks": checks(1_500)});
    let fat = json!({"Name": "fat", "Tags": tags(TAGS_BYTES_MAX), "Checks": checks(CHECKS_MAX)});
    let wide = json!({"Name": "tags", "Tags": [long(TAGS_BYTES_MAX + 1)]});
    let id = json!({"Name": "id", "ID": long(22_000), "Checks": checks(1_500)});
    let named = json!({"Name": long(1_000), "ID": long(1_000), "Checks": checks(CHECKS_MAX)});
    let meta = json!({"Name": "meta", "Meta": {"a": long(513)}});
    let empty = packed(r#"{"Name":"empty","Checks":["#, "{}", "]}");
    let places = (0..20_000).map(|n| (n.to_string(), json!({}))).collect::<serde_json::Map<_, _>>();
    vec![
        case("tags and checks as reported", REGISTER, reported, 400, "too"),
        case("many checks", REGISTER, json!({"Name": "m", "Checks": checks(1_500)}), 400, many),
        case("all that is allowed", REGISTER, fat, 200, ""),
        case("too many tags", REGISTER, wide, 400, "service tags too large: 65537 bytes"),
        case("a long id", REGISTER, id, 400, "service ID too large: 22000 bytes, at most 1024"),
        case("long names that are allowed", REGISTER, named, 200, ""),
        case("a long value", REGISTER, meta, 400, "Invalid Service Meta: "),
        case("empty checks", REGISTER, empty, 400, "Request decode failed: json: more than 8192"),
        case(
            "addresses",
            REGISTER,
            json!({"Name": "a", "TaggedAddresses": places}),
            400,
            "Request decode failed: json: more than 8192",
        ),
    ]
}

/// The catalogue and transactions take the same rows.
pub(crate) fn catalogue() -> Vec<Case> {
    const REGISTER: &str = "/v1/catalog/register";
    let row = |more| merged(json!({"Node": "far", "Address": "10.0.0.1"}), more);
    let of_far = |n: usize| json!({"CheckID": n.to_string(), "ServiceID": "fat"});
    let fat = row(json!({
        "Service": {"Service": "fat", "Tags": tags(TAGS_BYTES_MAX)},
        "Checks": (0..CHECKS_MAX).map(of_far).collect::<Vec<_>>(),
    }));
    let many: Vec<_> = (0..1_500).map(of_far).collect();
    let set = |n: usize| {
        let check = json!({"Node": "far", "CheckID": format!("t{n}"), "ServiceID": "fat",
                           "Notes": long(3_900)});
        json!({"Check": {"Verb": "set", "Check": check}})
    };
    let notes = json!({"Check": {"Verb": "set", "Check":
        {"Node": "far", "CheckID": "n", "Notes": long(100_000)}}});
    let trees = vec![json!({"KV": {"Verb": "get-tree", "Key": "large"}}); 128];
    let is_set = json!({"KV": {"Verb": "set", "Key": "a", "Value": ""}});
    let operations = vec![is_set; 129];
    vec![
        case("all that is allowed", REGISTER, fat, 200, ""),
        case("many checks", REGISTER, row(json!({"Checks": many})), 400, "too many checks"),
        case(
            "a node's metadata",
            REGISTER,
            row(json!({"NodeMeta": {"a": long(900_000)}})),
            400,
            "node metadata",
        ),
        case(
            "a node's name",
            REGISTER,
            json!({"Node": long(9_000), "Address": "a"}),
            400,
            "node name",
        ),
        case(
            "a node's address",
            REGISTER,
            json!({"Node": "a", "Address": long(9_000)}),
            400,
            "node address",
        ),
        case("128 checks", "/v1/txn", Value::from((0..128).map(set).collect::<Vec<_>>()), 200, ""),
        case("long notes", "/v1/txn", json!([notes]), 400, "check notes too large: 100000 bytes"),
        case(
            "too many operations",
            "/v1/txn",
            Value::from(operations),
            413,
            "Transaction contains too many operations (129 > 128)",
        ),
        case(
            "empty operations",
            "/v1/txn",
            format!("[{}]", vec!["{}"; 170_000].join(",")),
            400,
            "Failed to parse body: json: more than 8192",
        ),
        case("a key for all its answers", "/v1/kv/large", long(512 << 10), 200, ""),
        case("many trees", "/v1/txn", Value::from(trees), 409, "response too large"),
    ]
}

/// What becomes a decoded list of more than anybody needs.
const DECODED: &str = "Request decode failed: json: more than 8192";

/// As many empty texts as fit between `head` and `tail`.
fn texts(head: &str, tail: &str) -> String {
    packed(head, r#""""#, tail)
}

/// Checks of agents, their heartbeats, and texts of theirs that are kept.
#[rustfmt::skip]
pub(crate) fn agents() -> Vec<Case> {
    const CHECK: &str = "/v1/agent/check/register";
    let check =
        |more| merged(json!({"Name": "c", "HTTP": "http://127.0.0.1:1/", "Interval": "1h"}), more);
    let headers = json!({"Header": {"a": vec![long(900); 1_000]}});
    let output = json!({"Status": "passing", "Output": long(1_000_000)});
    let name = format!("/v1/agent/service/register?agent={}", long(30_000));
    let reason = format!("/v1/agent/maintenance?enable=true&reason={}", long(30_000));
    let lan = json!({"TaggedAddresses": {"lan": long(900_000)}});
    vec![
        case("headers", CHECK, check(headers), 400, "check headers"),
        case("a body", CHECK, check(json!({"Body": long(900_000)})), 400, "check body"),
        case("notes", CHECK, check(json!({"Notes": long(900_000)})), 400, "check notes"),
        case("a heartbeat check", CHECK, json!({"Name": "beat", "TTL": "1h"}), 200, ""),
        // As Consul, the rest is cut off.
        case("an output", "/v1/agent/check/update/beat", output, 200, ""),
        case("an agent's name", name, json!({"Name": "w"}), 400, "agent name"),
        case("a reason", reason, "", 400, "reason"),
        case("a node's description", "/v1/quorate/agent", lan, 400, "tagged address"),
    ]
}

/// Everything else that takes a body.
#[rustfmt::skip]
pub(crate) fn others() -> Vec<Case> {
    const SESSION: &str = "/v1/session/create";
    const QUERY: &str = "/v1/query";
    const AUTOPILOT: &str = "/v1/operator/autopilot/configuration";
    let placeholders = vec!["${name.full}"; 1_000];
    let template = json!({"Name": "t-", "Template": {"Type": "name_prefix_match"},
                          "Service": {"Service": "none", "Tags": placeholders}});
    let tags = texts(r#"{"Name":"q","Service":{"Service":"w","Tags":["#, "]}}");
    let large = json!({"Service": "w", "Tags": vec![long(900); 1_000]});
    let large = json!({"Name": "q", "Service": large});
    let zone = json!({"RedundancyZoneTag": long(900_000)});
    let coordinate = packed(r#"{"Node":"h","Coord":{"Vec":["#, "0", "]}}");
    let checks = texts(r#"{"NodeChecks":["#, "]}");
    vec![
        case("a session's checks", SESSION, checks, 400, DECODED),
        case("a session's name", SESSION, json!({"Name": long(900_000)}), 400, "session name"),
        post(case("a query's tags", QUERY, tags, 400, DECODED)),
        post(case("a query's texts", QUERY, large, 400, "query too large")),
        post(case("a template", QUERY, template, 200, "")),
        case("an event", "/v1/event/fire/e", long(513), 500, "user event exceeds"),
        case("a value", "/v1/kv/a", long((512 << 10) + 1), 413, "Request body("),
        case("a coordinate", "/v1/coordinate/update", coordinate, 400, DECODED),
        case("autopilot", AUTOPILOT, zone, 400, "redundancy zone tag"),
        case("no snapshot", "/v1/snapshot", long(1_000_000), 500, ""),
    ]
}
