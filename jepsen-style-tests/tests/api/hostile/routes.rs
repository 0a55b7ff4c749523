//! Every path that the server routes, and a body that each of its writes accepts.

/// A path; one that ends with a slash takes anything behind it.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) path: &'static str,
    /// The methods that it has.
    pub(crate) methods: &'static [&'static str],
    /// A body that would be accepted, or nothing.
    pub(crate) body: &'static str,
}

const fn route(path: &'static str, methods: &'static [&'static str], body: &'static str) -> Route {
    Route { path, methods, body }
}

const GET: &[&str] = &["GET"];
const PUT: &[&str] = &["PUT"];

const SERVICE: &str = r#"{"ID":"h","Name":"h","Tags":["a"],"Address":"10.0.0.1","Port":80,"Meta":{"a":"b"},"TaggedAddresses":{"lan":{"Address":"a","Port":1}},"EnableTagOverride":false,"Weights":{"Passing":1,"Warning":1},"Check":{"CheckID":"h","Name":"h","TTL":"2h","Status":"passing"},"Checks":[{"TTL":"2h"}],"Kind":"","Proxy":null,"Connect":null,"Token":""}"#;
const CHECK: &str =
    r#"{"ID":"h","Name":"h","ServiceID":"","Notes":"","Status":"passing","TTL":"2h"}"#;
const REGISTRATION: &str = r#"{"Node":"h","Address":"a","ID":"","Datacenter":"dc1","TaggedAddresses":{"lan":"a"},"NodeMeta":{"a":"b"},"SkipNodeUpdate":false,"Service":{"ID":"h","Service":"h","Tags":["a"],"Meta":{"a":"b"},"Port":1,"Weights":{"Passing":1,"Warning":1}},"Check":{"Node":"h","CheckID":"h","Name":"h","Status":"passing","ServiceID":"h","Definition":{}},"Checks":[]}"#;
const DEREGISTRATION: &str = r#"{"Node":"h","ServiceID":"h","CheckID":"","Datacenter":""}"#;
const SESSION: &str = r#"{"Name":"h","Node":"","LockDelay":"0s","Behavior":"release","TTL":"2h","NodeChecks":[],"Checks":[]}"#;
const TXN: &str = r#"[{"KV":{"Verb":"set","Key":"h","Value":"aA==","Flags":1,"Index":0,"Session":""}},{"Node":{"Verb":"set","Node":{"Node":"h","Address":"a"}}},{"Service":{"Verb":"get","Node":"h","Service":{"ID":"h","Service":"h"}}},{"Check":{"Verb":"set","Check":{"Node":"h","CheckID":"h","Name":"h","Status":"passing"}}}]"#;
const QUERY: &str = r#"{"Name":"h","Session":"","Template":{"Type":"","Regexp":"","RemoveEmptyTags":false},"Service":{"Service":"h","Failover":{"NearestN":0,"Datacenters":[]},"OnlyPassing":true,"Tags":["a"],"NodeMeta":{"a":"b"},"Near":""},"DNS":{"TTL":"7s"}}"#;
const COORDINATE: &str = r#"{"Node":"h","Segment":"","Coord":{"Vec":[0,0,0,0,0,0,0,0],"Error":1.5,"Adjustment":0,"Height":0.1}}"#;
const BEAT: &str = r#"[{"Service":"h","ID":"h","Node":"","Address":"10.0.0.5","Port":5010,"Process":"h","Pid":94267,"Started":1763900000000,"Version":"4.0","Counter":118,"Tags":["a"],"Meta":{"a":"b"},"WarnAfter":"30s","CriticalAfter":"90s","Status":"passing","Note":"n"},{"Service":"i"}]"#;
const UPDATE: &str = r#"{"Status":"passing","Output":"fine"}"#;

const CLAIM: &str =
    r#"{"ID":"","Holder":"h","TTL":"30s","Session":"","Require":{"a":"b"},"Prefer":"h"}"#;

const POLICY: &str = r#"{"Name":"h","Description":"","Rules":"key_prefix \"a\" { policy = \"read\" }","Datacenters":null}"#;
const ROLE: &str = r#"{"Name":"h","Description":"","Policies":[{"Name":"global-management"}],"ServiceIdentities":[{"ServiceName":"h"}],"NodeIdentities":[{"NodeName":"h","Datacenter":"dc1"}]}"#;
const TOKEN: &str = r#"{"Description":"h","Policies":[{"Name":"h"}],"Roles":[],"ServiceIdentities":[{"ServiceName":"h"}],"Local":false,"ExpirationTTL":"1h"}"#;

const AUTOPILOT: &str = r#"{"CleanupDeadServers":false,"LastContactThreshold":"200ms","MaxTrailingLogs":250,"MinQuorum":0,"ServerStabilizationTime":"10s"}"#;

/// All of them but four: `agent/monitor`, `quorate/stream` and `quorate/presence` never end their answers,
/// and `operator/raft/transfer-leader` does nothing but what it says.
pub(crate) const ROUTES: &[Route] = &[
    route("/", GET, ""),
    route("/livez", GET, ""),
    route("/readyz", GET, ""),
    route("/metrics", GET, ""),
    route("/ui/", GET, ""),
    route("/v1/acl/", GET, ""),
    route("/v1/acl/auth-methods", GET, ""),
    route("/v1/acl/binding-rules", GET, ""),
    route("/v1/acl/bootstrap", PUT, ""),
    route("/v1/acl/login", &["POST"], "{}"),
    route("/v1/acl/policies", GET, ""),
    route("/v1/acl/policy", PUT, POLICY),
    route("/v1/acl/policy/", &["GET", "PUT", "DELETE"], POLICY),
    route("/v1/acl/policy/name/", GET, ""),
    route("/v1/acl/replication", GET, ""),
    route("/v1/acl/role", PUT, ROLE),
    route("/v1/acl/role/", &["GET", "PUT", "DELETE"], ROLE),
    route("/v1/acl/role/name/", GET, ""),
    route("/v1/acl/roles", GET, ""),
    route("/v1/acl/rules/translate", &["POST"], "key \"a\" { policy = \"read\" }"),
    route("/v1/acl/token", PUT, TOKEN),
    route("/v1/acl/token/", &["GET", "PUT", "DELETE"], TOKEN),
    route("/v1/acl/tokens", GET, ""),
    route(
        "/v1/internal/acl/authorize",
        &["POST"],
        r#"[{"Resource":"key","Segment":"x","Access":"read"}]"#,
    ),
    route("/v1/agent/force-leave/", PUT, ""),
    route("/v1/agent/host", GET, ""),
    route("/v1/agent/join/", PUT, ""),
    route("/v1/agent/leave", PUT, ""),
    route("/v1/agent/metrics", GET, ""),
    route("/v1/agent/reload", PUT, ""),
    route("/v1/agent/token/", PUT, "{}"),
    route("/v1/agent/version", GET, ""),
    route("/v1/catalog/connect/", GET, ""),
    route("/v1/config", PUT, "{}"),
    route("/v1/connect/", &["GET", "PUT", "POST"], "{}"),
    route("/v1/health/connect/", GET, ""),
    route("/v1/operator/autopilot/configuration", &["GET", "PUT"], AUTOPILOT),
    route("/v1/operator/autopilot/health", GET, ""),
    route("/v1/operator/autopilot/state", GET, ""),
    route("/v1/operator/keyring", GET, ""),
    route("/v1/operator/usage", GET, ""),
    route("/v1/agent/check/deregister/", PUT, ""),
    route("/v1/agent/check/fail/", PUT, ""),
    route("/v1/agent/check/pass/", PUT, ""),
    route("/v1/agent/check/register", PUT, CHECK),
    route("/v1/agent/check/update/", PUT, UPDATE),
    route("/v1/agent/check/warn/", PUT, ""),
    route("/v1/agent/checks", GET, ""),
    route("/v1/agent/health/service/id/", GET, ""),
    route("/v1/agent/health/service/name/", GET, ""),
    route("/v1/agent/maintenance", PUT, ""),
    route("/v1/agent/members", GET, ""),
    route("/v1/agent/self", GET, ""),
    route("/v1/agent/service/", GET, ""),
    route("/v1/agent/service/deregister/", PUT, ""),
    route("/v1/agent/service/maintenance/", PUT, ""),
    route("/v1/agent/service/register", PUT, SERVICE),
    route("/v1/agent/services", GET, ""),
    route("/v1/catalog/datacenters", GET, ""),
    route("/v1/catalog/deregister", PUT, DEREGISTRATION),
    route("/v1/catalog/node-services/", GET, ""),
    route("/v1/catalog/node/", GET, ""),
    route("/v1/catalog/nodes", GET, ""),
    route("/v1/catalog/register", PUT, REGISTRATION),
    route("/v1/catalog/service/", GET, ""),
    route("/v1/catalog/services", GET, ""),
    route("/v1/coordinate/datacenters", GET, ""),
    route("/v1/coordinate/node/", GET, ""),
    route("/v1/coordinate/nodes", GET, ""),
    route("/v1/coordinate/update", PUT, COORDINATE),
    route("/v1/event/fire/", PUT, "payload"),
    route("/v1/event/list", GET, ""),
    route("/v1/health/checks/", GET, ""),
    route("/v1/health/node/", GET, ""),
    route("/v1/health/service/", GET, ""),
    route("/v1/health/state/", GET, ""),
    route("/v1/kv/", &["GET", "PUT", "DELETE"], "value"),
    route("/v1/operator/raft/configuration", GET, ""),
    route("/v1/operator/raft/peer", &["DELETE"], ""),
    route("/v1/query", &["GET", "POST"], QUERY),
    route("/v1/query/", &["GET", "PUT", "DELETE"], QUERY),
    route("/v1/quorate/agent/definitions", PUT, r#"{"Services":[{"Name":"web"}],"Checks":[]}"#),
    route("/v1/quorate/checks", GET, ""),
    route("/v1/quorate/claim/", &["GET", "PUT"], ""),
    route("/v1/quorate/claims", GET, ""),
    route("/v1/quorate/claims/", &["GET", "PUT"], CLAIM),
    route("/v1/quorate/dns", &["POST"], "no message"),
    route("/v1/quorate/explain/check/", GET, ""),
    route("/v1/quorate/explain/claim/", GET, ""),
    route("/v1/quorate/explain/key/", GET, ""),
    route("/v1/quorate/explain/node/", GET, ""),
    route("/v1/quorate/explain/service/", GET, ""),
    route("/v1/quorate/explain/session/", GET, ""),
    route("/v1/quorate/heartbeat", PUT, BEAT),
    route("/v1/quorate/history", GET, ""),
    route("/v1/quorate/instances", GET, ""),
    route("/v1/quorate/state-hash", GET, ""),
    route("/v1/quorate/worker", PUT, "{}"),
    route("/v1/quorate/worker/", PUT, "{}"),
    route("/v1/quorate/workers", GET, ""),
    route("/v1/session/create", PUT, SESSION),
    route("/v1/session/destroy/", PUT, ""),
    route("/v1/session/info/", GET, ""),
    route("/v1/session/list", GET, ""),
    route("/v1/session/node/", GET, ""),
    route("/v1/session/renew/", PUT, ""),
    route("/v1/snapshot", &["GET", "PUT"], "no snapshot"),
    route("/v1/status/leader", GET, ""),
    route("/v1/status/peers", GET, ""),
    route("/v1/txn", PUT, TXN),
];
