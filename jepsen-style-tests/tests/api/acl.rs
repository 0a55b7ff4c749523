//! Access control on three servers: who may do what at every endpoint, that a token that is gone is answered nothing
//! more, and that secrets are nowhere to be found.
//!
//! `acl/matrix.txt` has a line for each endpoint and method, with the status that each kind of token gets. It is made
//! from the hostile test's routes, which have every path of the router, so that a new endpoint has to be thought of:
//! `UPDATE_MATRIX=1` writes it anew, and it is read in review.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use jepsen_style_tests::http::{Answer, Http, Method};
use jepsen_style_tests::{Cluster, Options};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::hostile::routes::{ROUTES, Route};

/// The servers may take so long to agree that all know tokens.
const LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// A cluster that denies what no rule allows, and its management token.
pub(crate) struct Guarded {
    cluster: Cluster,
    management: String,
}

impl Guarded {
    pub(crate) async fn start() -> Self {
        Self::start_new().await.bootstrapped().await
    }

    /// The same with its management token.
    async fn bootstrapped(self) -> Self {
        let answer = self.cluster.http(1).put("/v1/acl/bootstrap", "").await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        Self { management: secret_of(&answer), ..self }
    }

    /// One that has no token yet, in which all servers know tokens.
    pub(crate) async fn start_new() -> Self {
        Self::start_with(&["--acl=deny"]).await
    }

    async fn start_with(flags: &[&str]) -> Self {
        // Consul shows what the target of a check answers.
        let flags = flags.iter().chain(&["--check-output-body"]);
        let flags = flags.map(|flag| (*flag).to_owned()).collect();
        let cluster = Cluster::start_with(Options { flags, ..Options::default() }).await.unwrap();
        for id in cluster.ids() {
            let http = cluster.http(id);
            until(async || (http.get("/v1/kv/a").await.unwrap().status == 403).then_some(())).await;
        }
        Self { cluster, management: String::new() }
    }

    pub(crate) fn management(&self) -> &str {
        &self.management
    }

    /// HTTP and DNS of all servers, with commas between them.
    pub(crate) fn addresses(&self) -> (String, String) {
        let ids = self.cluster.ids();
        let http: Vec<_> = ids.iter().map(|id| self.cluster.http(*id).base().to_owned()).collect();
        let dns: Vec<_> = ids.iter().map(|id| self.cluster.dns(*id).to_string()).collect();
        (http.join(","), dns.join(","))
    }

    /// DNS has no tokens.
    pub(crate) async fn let_everybody_look_up_names(&self) {
        let rules = r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#;
        self.give_everybody("names", rules).await;
    }

    async fn give_everybody(&self, name: &str, rules: &str) {
        let policy = json!({ "Name": name, "Rules": rules }).to_string();
        self.ask(1, Method::PUT, "/v1/acl/policy", &policy).await;
        let anonymous = "/v1/acl/token/00000000-0000-0000-0000-000000000002";
        let links = json!({ "Policies": [{ "Name": name }] }).to_string();
        let changed = self.ask(1, Method::PUT, anonymous, &links).await;
        assert_eq!(changed.status, 200, "{}", changed.text());
    }

    async fn ask(&self, node: u64, method: Method, target: &str, body: &str) -> Answer {
        send(&self.cluster.http(node), method, target, &self.management, body).await
    }

    /// A token with these rules.
    async fn token(&self, name: &str, rules: &str) -> Token {
        let policy = json!({ "Name": name, "Rules": rules }).to_string();
        let made = self.ask(1, Method::PUT, "/v1/acl/policy", &policy).await;
        assert_eq!(made.status, 200, "{}", made.text());
        let token = json!({ "Description": name, "Policies": [{ "Name": name }] }).to_string();
        let made = self.ask(1, Method::PUT, "/v1/acl/token", &token).await;
        assert_eq!(made.status, 200, "{}", made.text());
        let shown: Value = made.json().unwrap();
        let accessor = shown["AccessorID"].as_str().unwrap().to_owned();
        Token { accessor, secret: secret_of(&made) }
    }

    async fn delete(&self, token: &Token) {
        let target = format!("/v1/acl/token/{}", token.accessor);
        let gone = self.ask(2, Method::DELETE, &target, "").await;
        assert_eq!(gone.status, 200, "{}", gone.text());
    }

    /// Lets everybody look at the servers, as those do who compare them at the end of a test.
    async fn finish(self) {
        self.give_everybody("all-see", "operator = \"read\"").await;
        self.cluster.finish().await.unwrap();
    }
}

struct Token {
    accessor: String,
    secret: String,
}

fn secret_of(answer: &Answer) -> String {
    let token: Value = answer.json().unwrap();
    token["SecretID"].as_str().unwrap().to_owned()
}

/// Sends a request with a token, or without if it is empty.
async fn send(http: &Http, method: Method, target: &str, secret: &str, body: &str) -> Answer {
    let separator = if target.contains('?') { '&' } else { '?' };
    let target = match secret {
        "" => target.to_owned(),
        secret => format!("{target}{separator}token={secret}"),
    };
    http.send(method, &target, Bytes::from(body.to_owned())).await.unwrap()
}

/// Opens an endless answer on a connection of its own, and reads that it was begun.
async fn open(http: &Http, line: &str, secret: &str, body: &str) -> TcpStream {
    let (socket, status) = begun(http, line, secret, body).await;
    assert_eq!(status, 200);
    socket
}

/// The same, and the status.
async fn begun(http: &Http, line: &str, secret: &str, body: &str) -> (TcpStream, u16) {
    let address = http.base().trim_start_matches("http://");
    let mut socket = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!(
        "{line}?token={secret} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut begin = [0; 12];
    tokio::time::timeout(LIMIT, socket.read_exact(&mut begin)).await.unwrap().unwrap();
    let status = std::str::from_utf8(&begin).unwrap().strip_prefix("HTTP/1.1 ").unwrap();
    (socket, status.parse().unwrap())
}

/// Reads an endless answer to its end.
async fn ended(mut socket: TcpStream) {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(LIMIT, socket.read_to_end(&mut rest)).await;
    // How it ends does not matter.
    drop(read.unwrap());
}

async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(LIMIT, found).await.unwrap()
}

const READER: &str = r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }
agent_prefix "" { policy = "read" } key_prefix "" { policy = "read" } session_prefix "" { policy = "read" }
event_prefix "" { policy = "read" } query_prefix "" { policy = "read" }"#;
const REGISTRAR: &str = r#"service_prefix "" { policy = "write" } node_prefix "" { policy = "write" }
session_prefix "" { policy = "write" }"#;
const OPERATOR: &str = r#"operator = "write" agent_prefix "" { policy = "write" }"#;

/// Endpoints whose answers do not end, which are not among the hostile test's routes.
const ENDLESS: [(&str, &str); 3] = [
    ("GET /v1/agent/monitor", ""),
    ("PUT /v1/quorate/presence", r#"{"Name":"h","ID":"held"}"#),
    ("GET /v1/quorate/stream", ""),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_endpoint_asks_for_the_rights_that_the_matrix_says() {
    let guarded = Guarded::start().await;
    let (reader, registrar, operator) = (
        guarded.token("matrix-reader", READER).await.secret,
        guarded.token("matrix-registrar", REGISTRAR).await.secret,
        guarded.token("matrix-operator", OPERATOR).await.secret,
    );
    let unknown = "8a4b3b0e-6d07-4f40-9d7a-0f6a7e0d1b11";
    // Whoever may do everything comes last: what it does would be found by the others.
    let kinds = [unknown, "", &*reader, &*registrar, &*operator, &*guarded.management];
    let mut matrix = String::from(
        "# The status of every endpoint for: an unknown token, none, a reader, a registrar, an operator, everything.\n",
    );
    for Route { path, methods, body } in ROUTES {
        for method in *methods {
            write!(matrix, "{method} {path}").unwrap();
            for secret in kinds {
                let http = guarded.cluster.http(1);
                let method: Method = method.parse().unwrap();
                let target = match path.ends_with('/') && path.len() > 1 && *path != "/ui/" {
                    true => format!("{path}h"),
                    false => (*path).to_owned(),
                };
                let answer = send(&http, method, &target, secret, body).await;
                // One server may have no answer of another one yet, which is no matter here.
                let status = if answer.status == 429 { 200 } else { answer.status };
                write!(matrix, " {status}").unwrap();
            }
            matrix.push('\n');
        }
    }
    for (line, body) in ENDLESS {
        matrix += line;
        for secret in kinds {
            let (_, status) = begun(&guarded.cluster.http(1), line, secret, body).await;
            write!(matrix, " {status}").unwrap();
        }
        matrix.push('\n');
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/acl/matrix.txt");
    if std::env::var_os("UPDATE_MATRIX").is_some() {
        std::fs::write(&file, &matrix).unwrap();
    }
    let known = std::fs::read_to_string(&file).unwrap();
    for (now, then) in matrix.lines().zip(known.lines()) {
        assert_eq!(now, then);
    }
    assert_eq!(matrix.lines().count(), known.lines().count());
    guarded.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_gone_is_answered_nothing_more() {
    let guarded = Guarded::start().await;
    let rules = r#"key_prefix "" { policy = "write" } service_prefix "" { policy = "write" }
node_prefix "" { policy = "read" } operator = "read""#;
    let token = guarded.token("leaver", rules).await;
    guarded.ask(1, Method::PUT, "/v1/kv/watched", "1").await;
    let of = |node: u64| guarded.cluster.http(node);
    // What waits: a key, a list of instances, a stream, and an instance that a connection holds.
    let key = send(&of(1), Method::GET, "/v1/kv/watched?index=1", &token.secret, "").await;
    let index = key.index().unwrap();
    let waits = format!("/v1/kv/watched?index={index}&wait=30s");
    let waiting = {
        let (http, secret) = (of(3), token.secret.clone());
        tokio::spawn(async move { send(&http, Method::GET, &waits, &secret, "").await })
    };
    let stream = open(&of(3), "GET /v1/quorate/stream", &token.secret, "").await;
    let held = r#"{"Name":"held","ID":"held"}"#;
    let held = open(&of(3), "PUT /v1/quorate/presence", &token.secret, held).await;
    guarded.delete(&token).await;
    guarded.ask(1, Method::PUT, "/v1/kv/watched", "2").await;
    let answer = tokio::time::timeout(LIMIT, waiting).await.unwrap().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (403, "ACL not found"));
    ended(stream).await;
    ended(held).await;
    until(async || {
        let shown = guarded.ask(2, Method::GET, "/v1/quorate/instances?service=held", "").await;
        let shown: Value = shown.json().unwrap();
        (shown[0]["Status"] == "critical").then_some(())
    })
    .await;
    for target in ["/v1/kv/watched", "/v1/catalog/services", "/v1/acl/token/self", "/v1/agent/self"]
    {
        let refused = send(&of(2), Method::GET, target, &token.secret, "").await;
        assert_eq!((refused.status, refused.text().as_str()), (403, "ACL not found"), "{target}");
    }
    guarded.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_rights_counts_for_the_next_request_at_any_server() {
    let guarded = Guarded::start().await;
    let token = guarded.token("changing", r#"key_prefix "a" { policy = "write" }"#).await;
    let policy = guarded.ask(3, Method::GET, "/v1/acl/policy/name/changing", "").await;
    let id = policy.json::<Value>().unwrap()["ID"].as_str().unwrap().to_owned();
    let put = async |node: u64, key: &str| {
        send(&guarded.cluster.http(node), Method::PUT, key, &token.secret, "v").await.status
    };
    for round in 0..10 {
        let (allowed, refused) = if round % 2 == 0 { ("a", "b") } else { ("b", "a") };
        let rules = format!("key_prefix \"{allowed}\" {{ policy = \"write\" }}");
        let body = json!({ "Name": "changing", "Rules": rules }).to_string();
        let target = format!("/v1/acl/policy/{id}");
        let node = round % 3 + 1;
        assert_eq!(guarded.ask(node, Method::PUT, &target, &body).await.status, 200);
        for node in 1..=3 {
            assert_eq!(put(node, &format!("/v1/kv/{allowed}/k")).await, 200, "round {round}");
            assert_eq!(put(node, &format!("/v1/kv/{refused}/k")).await, 403, "round {round}");
        }
    }
    guarded.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_shows_what_its_token_may_see_and_says_that_there_is_more() {
    let guarded = Guarded::start().await;
    for key in ["mine/a", "mine/b", "other/c"] {
        guarded.ask(1, Method::PUT, &format!("/v1/kv/{key}"), "v").await;
    }
    let register = r#"{"Name":"web","ID":"web"}"#;
    guarded.ask(1, Method::PUT, "/v1/agent/service/register", register).await;
    let token = guarded.token("narrow", r#"key_prefix "mine/" { policy = "read" }"#).await;
    let look = async |target: &str| {
        send(&guarded.cluster.http(2), Method::GET, target, &token.secret, "").await
    };
    let keys = look("/v1/kv/?keys").await;
    assert_eq!(keys.json::<Value>().unwrap(), json!(["mine/a", "mine/b"]));
    assert_eq!(keys.header("x-consul-results-filtered-by-acls"), Some("true"));
    let keys = look("/v1/kv/mine/?keys").await;
    assert_eq!(keys.header("x-consul-results-filtered-by-acls"), Some("false"));
    assert_eq!(look("/v1/kv/other/?recurse").await.status, 404);
    let refused = look("/v1/kv/other/c").await;
    let text = format!(
        "Permission denied: token with AccessorID '{}' lacks permission 'key:read' on \"other/c\"",
        token.accessor
    );
    assert_eq!((refused.status, refused.text()), (403, text));
    let empty = ["/v1/catalog/services", "/v1/health/service/web", "/v1/quorate/instances"];
    for target in empty.iter().chain(&["/v1/catalog/nodes", "/v1/agent/services"]) {
        let shown = look(target).await;
        let shown_text = shown.text();
        assert!(shown_text == "{}" || shown_text == "[]", "{target}: {shown_text}");
        assert_eq!(shown.header("x-consul-results-filtered-by-acls"), Some("true"), "{target}");
    }
    let history: Value = look("/v1/quorate/history").await.json().unwrap();
    let kinds: Vec<_> = history.as_array().unwrap().iter().map(|one| &one["Key"]).collect();
    assert_eq!(kinds, [&json!("mine/a"), &json!("mine/b")]);
    guarded.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_in_no_log_history_metric_or_file_and_its_accessor_is_in_the_history() {
    let guarded = Guarded::start().await;
    let rules = r#"key_prefix "" { policy = "write" } query_prefix "" { policy = "write" }"#;
    let token = guarded.token("quiet", rules).await;
    let http = guarded.cluster.http(1);
    send(&http, Method::PUT, "/v1/kv/quiet", &token.secret, "v").await;
    send(&http, Method::PUT, "/v1/kv/quiet?cas=x", &token.secret, "v").await;
    send(&http, Method::PUT, "/v1/session/create", &token.secret, "{}").await;
    let query = json!({ "Name": "quiet", "Token": token.secret, "Service": { "Service": "web" } });
    let made = send(&http, Method::POST, "/v1/query", &token.secret, &query.to_string()).await;
    assert_eq!(made.status, 200, "{}", made.text());
    let history = guarded.ask(1, Method::GET, "/v1/quorate/history?key=quiet", "").await;
    assert!(history.text().contains(&token.accessor), "{}", history.text());
    let shown = ["/v1/quorate/history", "/metrics", "/v1/query", "/v1/acl/tokens"];
    for target in shown {
        let answer = guarded.ask(1, Method::GET, target, "").await;
        assert_eq!(answer.status, 200, "{target}");
        assert!(!answer.text().contains(&token.secret), "{target}");
    }
    let read = format!("/v1/acl/token/{}", token.accessor);
    let read: Value = guarded.ask(1, Method::GET, &read, "").await.json().unwrap();
    assert_eq!(read["SecretID"], "<hidden>");
    let secrets = [token.secret.as_bytes(), guarded.management.as_bytes()];
    for file in files(guarded.cluster.dir()) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        for secret in secrets {
            let has_it = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!has_it, "{} has a secret", file.display());
        }
    }
    guarded.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_tokens_and_policies_are_in_the_history_for_those_who_may_see_them() {
    let guarded = Guarded::start().await;
    let token = guarded.token("audited", REGISTRAR).await;
    let auditor = guarded.token("auditor", "acl = \"read\"").await;
    guarded.delete(&token).await;
    let target = "/v1/quorate/history?kind=token.&kind=policy.";
    let all = send(&guarded.cluster.http(2), Method::GET, target, &auditor.secret, "").await;
    assert!(!all.text().contains(&token.secret) && !all.text().contains(&guarded.management));
    let all: Vec<Value> = all.json().unwrap();
    let of = |id: &str| -> Vec<&Value> { all.iter().filter(|one| one["ID"] == id).collect() };
    let told = of(&token.accessor);
    let kinds: Vec<_> = told.iter().map(|one| one["Kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["token.created", "token.deleted"]);
    assert_eq!(told[0]["Name"], "audited");
    // By whom: the token of the bootstrap, which is in the history too.
    let by = told[1]["Cause"]["Token"].as_str().unwrap();
    assert_eq!(of(by)[0]["Cause"]["Action"], "acl/bootstrap");
    assert!(all.iter().any(|one| one["Kind"] == "policy.created" && one["Name"] == "audited"));
    // Nobody else sees them.
    let reader = guarded.token("history-reader", READER).await;
    let none = send(&guarded.cluster.http(2), Method::GET, target, &reader.secret, "").await;
    assert_eq!(none.json::<Value>().unwrap(), json!([]));
    guarded.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_registers_under_the_name_of_a_host_that_it_may_not_write() {
    let guarded = Guarded::start().await;
    let web = guarded.token("web-only", r#"service "web" { policy = "write" }"#).await;
    let put = async |target: &str, body: &str| {
        send(&guarded.cluster.http(3), Method::PUT, target, &web.secret, body).await
    };
    let register = r#"{"Name":"web","ID":"web-1","Check":{"CheckID":"c","TTL":"1h"}}"#;
    assert_eq!(put("/v1/agent/service/register", register).await.status, 200);
    let refused = put("/v1/agent/service/register?agent=made-up", register).await;
    let text = "lacks permission 'node:write' on \"made-up\"";
    assert!(refused.status == 403 && refused.text().contains(text), "{}", refused.text());
    let beat = r#"[{"Service":"web","ID":"web-2","Node":"made-up"}]"#;
    let beaten = put("/v1/quorate/heartbeat", beat).await;
    assert!(beaten.text().contains("Permission denied"), "{}", beaten.text());
    // What is another's stays another's.
    guarded.ask(1, Method::PUT, "/v1/agent/service/register", r#"{"Name":"db","ID":"db-1"}"#).await;
    for (target, body) in [
        ("/v1/agent/service/deregister/db-1", ""),
        ("/v1/agent/service/maintenance/db-1?enable=true", ""),
        ("/v1/agent/maintenance?enable=true", ""),
        ("/v1/catalog/deregister", r#"{"Node":"n1"}"#),
        ("/v1/agent/service/register", r#"{"Name":"web","ID":"db-1"}"#),
        ("/v1/quorate/claims/db", r#"{"Holder":"h","TTL":"10s"}"#),
    ] {
        let refused = put(target, body).await;
        assert_eq!(refused.status, 403, "{target}: {}", refused.text());
    }
    guarded.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_listed_only_with_the_right_to_list_where_the_servers_say_so() {
    let guarded = Guarded::start_with(&["--acl=deny", "--acl-key-list"]).await;
    let guarded = guarded.bootstrapped().await;
    for key in ["mine/a", "mine/hidden/b", "yours/c"] {
        guarded.ask(1, Method::PUT, &format!("/v1/kv/{key}"), "v").await;
    }
    let rules = r#"key_prefix "mine/" { policy = "list" } key_prefix "mine/hidden/" { policy = "deny" }
key_prefix "yours/" { policy = "read" }"#;
    let token = guarded.token("lister", rules).await;
    let look = async |target: &str| {
        send(&guarded.cluster.http(2), Method::GET, target, &token.secret, "").await
    };
    let listed = look("/v1/kv/mine/?keys").await;
    assert_eq!(listed.json::<Value>().unwrap(), json!(["mine/a"]));
    assert_eq!(look("/v1/kv/mine/?recurse").await.status, 200);
    assert_eq!(look("/v1/kv/yours/c").await.status, 200);
    for target in ["/v1/kv/yours/?keys", "/v1/kv/yours/?recurse", "/v1/kv/?keys"] {
        let refused = look(target).await;
        assert!(refused.status == 403 && refused.text().contains("key:list"), "{target}");
    }
    guarded.finish().await;
}

/// All files below a directory.
fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_makes_tokens_and_says_what_they_may_do() {
    let guarded = Guarded::start().await;
    let address = guarded.cluster.http(2).base().to_owned();
    let run = async |secret: &str, line: &str| -> (i32, String) {
        let mut command =
            tokio::process::Command::new(jepsen_style_tests::binary::quorate().unwrap());
        command.args(line.split(' ')).env("QUORATE_HTTP_ADDR", &address);
        command.env("QUORATE_HTTP_TOKEN", secret).env_remove("CONSUL_HTTP_TOKEN");
        let ended = tokio::time::timeout(LIMIT, command.output()).await.unwrap().unwrap();
        let out = String::from_utf8_lossy(&ended.stdout).into_owned();
        (ended.status.code().unwrap(), out + &String::from_utf8_lossy(&ended.stderr))
    };
    let own = guarded.management.as_str();
    // The first one is made already.
    assert_eq!(run("", "acl bootstrap").await.0, 4);
    let (code, made) =
        run(own, "acl token create --preset reader --preset registrar -o json").await;
    assert_eq!(code, 0, "{made}");
    let made: Value = serde_json::from_str(&made).unwrap();
    let secret = made["SecretID"].as_str().unwrap();
    for (line, code) in [
        ("acl can-i read key a", 0),
        ("acl can-i write key a", 4),
        ("acl can-i write service web", 0),
        ("acl can-i read acl", 4),
        ("kv put a b", 4),
        ("register web --id web-1", 0),
        ("services", 0),
        ("acl token list", 4),
        ("acl token read", 0),
    ] {
        let (ended, text) = run(secret, line).await;
        assert_eq!(ended, code, "{line}: {text}");
    }
    assert_eq!(run(own, "acl policy set app --preset operator").await.0, 0);
    assert_eq!(run(own, "acl role set ops --policy app").await.0, 0);
    assert!(run(own, "acl role list").await.1.contains("ops"));
    assert!(run(own, "acl policy read app").await.1.contains("operator = \"write\""));
    let accessor = made["AccessorID"].as_str().unwrap();
    assert_eq!(run(own, &format!("acl token delete {accessor}")).await.0, 0);
    let (code, text) = run(secret, "services").await;
    assert!(code == 4 && text.contains("ACL not found") && !text.contains(secret), "{text}");
    // As a flag too.
    assert_eq!(run("", &format!("services --token {own}")).await.0, 0);
    guarded.finish().await;
}
