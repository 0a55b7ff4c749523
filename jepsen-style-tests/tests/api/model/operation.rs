//! One request: how it is sent, and its effect on the model.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jepsen_style_tests::http::Answer;
use jepsen_style_tests::raw::Request;
use serde_json::{Value, json};

use super::answers::{Body, Expected, path_fate};
use super::catalog::Registration;
use super::kv::{DeleteMode, PutMode, SessionWish};
use super::ledger::Ledger;
use super::reads::{Read, encode};
use super::shapes;
use super::state::{At, CheckFacts, Model, NodeFacts, Outcome, Query, ServiceFacts, Texts};
use super::txn::TxnOp;

#[derive(Debug, Clone)]
pub(crate) enum Operation {
    /// Any bytes as a key.
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
        flags: Option<u64>,
        mode: PutMode,
    },
    Delete {
        key: Vec<u8>,
        mode: DeleteMode,
    },
    CreateSession {
        agent: String,
        wish: SessionWish,
    },
    DestroySession(String),
    RenewSession(String),
    Register(Box<Registration>),
    Deregister {
        node: String,
        service: String,
        check: String,
    },
    AgentService(Box<AgentService>),
    AgentDeregister {
        agent: String,
        id: String,
    },
    AgentCheck {
        agent: String,
        check: Box<CheckFacts>,
    },
    AgentDeregisterCheck {
        agent: String,
        id: String,
    },
    Beat {
        agent: String,
        id: String,
        status: &'static str,
        output: String,
        by_update: bool,
    },
    Maintain {
        agent: String,
        service: Option<String>,
        reason: Option<String>,
    },
    Transact(Vec<TxnOp>),
    CreateQuery(Query),
    UpdateQuery {
        id: String,
        query: Query,
    },
    DeleteQuery(String),
    Fire {
        name: String,
        payload: Vec<u8>,
    },
    Coordinate {
        node: String,
        vector: Vec<i64>,
    },
    Read(Read),
}

/// `PUT /v1/agent/service/register`.
#[derive(Debug, Clone)]
pub(crate) struct AgentService {
    pub(crate) agent: String,
    pub(crate) service: ServiceFacts,
    /// Their ids are empty where the agent is to give one.
    pub(crate) checks: Vec<CheckFacts>,
    pub(crate) replaces_checks: bool,
}

const NODE_REASON: &str = "node reason";
const TTL: &str = "2h";

impl Operation {
    /// A word for the table of what was run.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Put { mode: PutMode::Set, .. } => "kv put",
            Self::Put { mode: PutMode::Cas(_), .. } => "kv cas",
            Self::Put { mode: PutMode::Acquire(_), .. } => "kv acquire",
            Self::Put { mode: PutMode::Release(_), .. } => "kv release",
            Self::Delete { mode: DeleteMode::One, .. } => "kv delete",
            Self::Delete { mode: DeleteMode::Recurse, .. } => "kv delete recurse",
            Self::Delete { mode: DeleteMode::Cas(_), .. } => "kv delete cas",
            Self::CreateSession { .. } => "session create",
            Self::DestroySession(_) => "session destroy",
            Self::RenewSession(_) => "session renew",
            Self::Register(_) => "catalog register",
            Self::Deregister { .. } => "catalog deregister",
            Self::AgentService(_) => "agent service register",
            Self::AgentDeregister { .. } => "agent service deregister",
            Self::AgentCheck { .. } => "agent check register",
            Self::AgentDeregisterCheck { .. } => "agent check deregister",
            Self::Beat { .. } => "agent heartbeat",
            Self::Maintain { .. } => "agent maintenance",
            Self::Transact(list) if list.iter().any(TxnOp::writes) => "txn",
            Self::Transact(_) => "txn read-only",
            Self::CreateQuery(_) | Self::UpdateQuery { .. } | Self::DeleteQuery(_) => "query write",
            Self::Fire { .. } => "event fire",
            Self::Coordinate { .. } => "coordinate update",
            Self::Read(read) => read.kind(),
        }
    }

    pub(crate) fn request(&self) -> Request {
        match self {
            Self::Put { key, value, flags, mode } => {
                let mut pairs: Vec<String> = Vec::new();
                pairs.extend(flags.map(|flags| format!("flags={flags}")));
                match mode {
                    PutMode::Set => {}
                    PutMode::Cas(index) => pairs.push(format!("cas={index}")),
                    PutMode::Acquire(id) => pairs.push(format!("acquire={id}")),
                    PutMode::Release(id) => pairs.push(format!("release={id}")),
                }
                let target = format!("/v1/kv/{}?{}", encode(key), pairs.join("&"));
                Request::put(target, value.clone())
            }
            Self::Delete { key, mode } => {
                let query = match mode {
                    DeleteMode::One => String::new(),
                    DeleteMode::Recurse => "?recurse".to_owned(),
                    DeleteMode::Cas(index) => format!("?cas={index}"),
                };
                Request::new("DELETE", format!("/v1/kv/{}{query}", encode(key)))
            }
            Self::CreateSession { agent, wish } => {
                let target = format!("/v1/session/create?agent={agent}");
                Request::put(target, session_body(wish).to_string())
            }
            Self::DestroySession(id) => Request::put(format!("/v1/session/destroy/{id}"), ""),
            Self::RenewSession(id) => Request::put(format!("/v1/session/renew/{id}"), ""),
            Self::Register(what) => {
                Request::put("/v1/catalog/register", registration_body(what).to_string())
            }
            Self::Deregister { node, service, check } => {
                let body = json!({ "Node": node, "ServiceID": service, "CheckID": check });
                Request::put("/v1/catalog/deregister", body.to_string())
            }
            Self::Transact(list) => {
                let body: Value = list.iter().map(txn_body).collect();
                Request::put("/v1/txn", body.to_string())
            }
            Self::CreateQuery(query) => Request {
                method: "POST".to_owned(),
                ..Request::put("/v1/query", query_body(query).to_string())
            },
            Self::UpdateQuery { id, query } => {
                Request::put(format!("/v1/query/{id}"), query_body(query).to_string())
            }
            Self::DeleteQuery(id) => Request::new("DELETE", format!("/v1/query/{id}")),
            Self::Fire { name, payload } => {
                Request::put(format!("/v1/event/fire/{}", encode(name)), payload.clone())
            }
            Self::Coordinate { node, vector } => {
                let coord = json!({ "Vec": vector, "Error": 1, "Adjustment": 0, "Height": 0.5 });
                let body = json!({ "Node": node, "Coord": coord });
                Request::put("/v1/coordinate/update", body.to_string())
            }
            Self::Read(read) => Request::get(read.target()),
            _ => self.agent_request(),
        }
    }

    fn agent_request(&self) -> Request {
        match self {
            Self::AgentService(what) => {
                let AgentService { agent, service, checks, replaces_checks } = &**what;
                let replace = if *replaces_checks { "&replace-existing-checks" } else { "" };
                let target = format!("/v1/agent/service/register?agent={agent}{replace}");
                let mut body = service_body(service);
                body["Name"] = body["Service"].take();
                let Value::Object(members) = &mut body else { unreachable!() };
                members.remove("Service");
                members.remove("TaggedAddresses");
                members.insert("Checks".to_owned(), checks.iter().map(agent_check_body).collect());
                Request::put(target, body.to_string())
            }
            Self::AgentDeregister { agent, id } => {
                let id = encode(id);
                Request::put(format!("/v1/agent/service/deregister/{id}?agent={agent}"), "")
            }
            Self::AgentCheck { agent, check } => {
                let mut body = agent_check_body(check);
                body["ID"] = json!(check.id);
                body["ServiceID"] = json!(check.service_id);
                let Value::Object(members) = &mut body else { unreachable!() };
                members.remove("CheckID");
                Request::put(format!("/v1/agent/check/register?agent={agent}"), body.to_string())
            }
            Self::AgentDeregisterCheck { agent, id } => {
                let id = encode(id);
                Request::put(format!("/v1/agent/check/deregister/{id}?agent={agent}"), "")
            }
            Self::Beat { agent, id, status, output, by_update: true } => {
                let body = json!({ "Status": status, "Output": output });
                let target = format!("/v1/agent/check/update/{}?agent={agent}", encode(id));
                Request::put(target, body.to_string())
            }
            Self::Beat { agent, id, status, output, .. } => {
                let word = match *status {
                    "passing" => "pass",
                    "warning" => "warn",
                    _ => "fail",
                };
                let (id, note) = (encode(id), encode(output));
                Request::put(format!("/v1/agent/check/{word}/{id}?note={note}&agent={agent}"), "")
            }
            Self::Maintain { agent, service, reason } => {
                let path = match service {
                    Some(id) => format!("service/maintenance/{}", encode(id)),
                    None => "maintenance".to_owned(),
                };
                let enable = reason.is_some();
                let reason = encode(reason.as_deref().unwrap_or(NODE_REASON));
                let query = format!("enable={enable}&reason={reason}&agent={agent}");
                Request::put(format!("/v1/agent/{path}?{query}"), "")
            }
            other => panic!("no request of an agent: {other:?}"),
        }
    }

    /// Runs it on the model: what should have been answered? Fresh ids are taken from the answer.
    pub(crate) fn run(&self, model: &mut Model, answer: &Answer, ledger: &Ledger) -> Expected {
        let is_index = |stamp, index| ledger.index_of(stamp) == Some(index);
        let fresh = || {
            let shown = answer.json::<Value>().unwrap_or_default();
            shown["ID"].as_str().unwrap_or("none").to_owned()
        };
        match self {
            Self::Put { key, value, flags, mode } => on_key(key, |key| {
                let flags = flags.unwrap_or(0);
                model.command(|model| model.put(key, value, flags, mode, is_index))
            }),
            Self::Delete { key, mode: DeleteMode::Recurse } if key.is_empty() => {
                let mode = &DeleteMode::Recurse;
                word(model.command(|model| Ok(model.delete("", mode, is_index))))
            }
            Self::Delete { key, mode } => {
                on_key(key, |key| model.command(|model| Ok(model.delete(key, mode, is_index))))
            }
            Self::CreateSession { agent, wish } => {
                let made = model.command(|model| model.create_session(agent, wish, &fresh()));
                made.map_or_else(refused, |()| Expected::new(200, Body::Id))
            }
            Self::DestroySession(id) => {
                let ended = model.command(|model| {
                    model.end_session(id);
                    Ok(true)
                });
                word(ended)
            }
            Self::RenewSession(id) => match model.sessions.get(id) {
                Some(row) => Expected::json(json!([shapes::session(id, row)])),
                None => Expected::text(404, &format!("Session id '{id}' not found")),
            },
            Self::Register(what) => {
                word(model.command(|model| model.register(what)).map(|()| true))
            }
            Self::Deregister { node, service, check } => word(model.command(|model| {
                model.deregister(node, service, check);
                Ok(true)
            })),
            Self::Transact(list) => run_txn(model, list, is_index),
            Self::CreateQuery(query) => {
                let id = fresh();
                let made = model.command(|model| model.put_query(&id, true, query.clone()));
                made.map_or_else(refused, |()| Expected::new(200, Body::Id))
            }
            Self::UpdateQuery { id, query } => {
                done(model.command(|model| model.put_query(id, false, query.clone())))
            }
            Self::DeleteQuery(id) => done(model.command(|model| model.delete_query(id))),
            Self::Fire { name, payload } => {
                let id = fresh();
                let fired = model.command(|model| {
                    model.fire(&id, name, payload);
                    Ok(())
                });
                let mut shown = shapes::event(model.events.back().expect("it was just fired"));
                shown["LTime"] = json!(0);
                fired.map_or_else(refused, |()| Expected::json(shown))
            }
            Self::Coordinate { node, vector } => done(model.command(|model| {
                model.put_coordinate(node, vector);
                Ok(())
            })),
            Self::Read(read) => model.read(read),
            _ => done(model.command(|model| self.run_agent(model))),
        }
    }

    fn run_agent(&self, model: &mut Model) -> Outcome<()> {
        match self {
            Self::AgentService(what) => {
                let checks = with_ids(&what.checks, &what.service);
                let (service, replaces) = (&what.service, what.replaces_checks);
                model.agent_service(&what.agent, service, &checks, replaces);
                Ok(())
            }
            Self::AgentDeregister { agent, id } => model.agent_deregister(agent, id),
            Self::AgentCheck { agent, check } => model.agent_check(agent, check),
            Self::AgentDeregisterCheck { agent, id } => model.agent_deregister_check(agent, id),
            Self::Beat { agent, id, status, output, .. } => model.beat(agent, id, status, output),
            Self::Maintain { agent, service, reason } => {
                model.maintain(agent, service.as_deref(), reason.as_deref())
            }
            other => panic!("no operation of an agent: {other:?}"),
        }
    }
}

// ---- answers -----------------------------------------------------------------------------------

fn refused((status, text): (u16, String)) -> Expected {
    Expected::text(status, &text)
}

fn word(outcome: Outcome<bool>) -> Expected {
    outcome.map_or_else(refused, |held| Expected::json(json!(held)))
}

fn done(outcome: Outcome<()>) -> Expected {
    outcome.map_or_else(refused, |()| Expected::new(200, Body::Empty))
}

/// A write to a key, if the path lets it be one.
fn on_key(key: &[u8], run: impl FnOnce(&str) -> Outcome<bool>) -> Expected {
    if let Some(fate) = path_fate(key) {
        return fate;
    }
    match std::str::from_utf8(key).unwrap_or_default() {
        "" => Expected::text(400, "Missing key name"),
        key => word(run(key)),
    }
}

fn run_txn(model: &mut Model, list: &[TxnOp], is_index: impl Fn(u64, u64) -> bool) -> Expected {
    let writes = list.iter().any(TxnOp::writes);
    let (status, mut shown) = match model.transact(list, is_index) {
        Ok(results) => (200, json!({ "Results": results, "Errors": null })),
        Err(errors) => (409, json!({ "Results": null, "Errors": errors })),
    };
    let index = if writes { json!(shapes::ABSENT) } else { json!(0) };
    shown["Index"] = index;
    Expected::new(status, Body::Json(shown))
}

/// Gives ids to the checks of a registration: the service's own, numbered when there are several.
fn with_ids(checks: &[CheckFacts], service: &ServiceFacts) -> Vec<CheckFacts> {
    let several = checks.len() > 1;
    let named = checks.iter().enumerate().map(|(place, check)| {
        let mut check = check.clone();
        if check.id.is_empty() {
            check.id = match several {
                true => format!("service:{}:{}", service.id, place + 1),
                false => format!("service:{}", service.id),
            };
        }
        if check.name.is_empty() {
            check.name = format!("Service '{}' check", service.name);
        }
        check.service_id.clone_from(&service.id);
        check
    });
    named.collect()
}

// ---- bodies ------------------------------------------------------------------------------------

fn session_body(wish: &SessionWish) -> Value {
    let mut body = json!({ "Name": wish.name, "Behavior": wish.behavior, "TTL": wish.ttl });
    if !wish.node.is_empty() {
        body["Node"] = json!(wish.node);
    }
    if let Some(seconds) = wish.lock_delay {
        body["LockDelay"] = json!(format!("{seconds}s"));
    }
    if let Some(checks) = &wish.node_checks {
        body["NodeChecks"] = json!(checks);
    }
    if let Some(checks) = &wish.checks {
        body["Checks"] = json!(checks);
    }
    body
}

fn node_members(body: &mut Value, facts: &NodeFacts, meta: &str) {
    let maps: [(&str, &Option<Texts>); 2] =
        [("TaggedAddresses", &facts.tagged_addresses), (meta, &facts.meta)];
    for (name, map) in maps {
        if let Some(map) = map {
            body[name] = json!(map);
        }
    }
    for (name, text) in [("ID", &facts.id), ("Address", &facts.address)] {
        if !text.is_empty() {
            body[name] = json!(text);
        }
    }
}

fn service_body(facts: &ServiceFacts) -> Value {
    let addresses = facts.tagged_addresses.iter();
    let addresses: BTreeMap<_, _> = addresses
        .map(|(name, (address, port))| (name, json!({ "Address": address, "Port": port })))
        .collect();
    json!({
        "ID": facts.id,
        "Service": facts.name,
        "Tags": facts.tags,
        "Address": facts.address,
        "Port": facts.port,
        "Meta": facts.meta,
        "Weights": { "Passing": facts.weights.0, "Warning": facts.weights.1 },
        "EnableTagOverride": facts.enable_tag_override,
        "TaggedAddresses": addresses,
    })
}

fn check_body(facts: &CheckFacts) -> Value {
    json!({
        "CheckID": facts.id,
        "Name": facts.name,
        "Status": facts.status,
        "Notes": facts.notes,
        "Output": facts.output,
        "ServiceID": facts.service_id,
        "Definition": facts.definition,
    })
}

fn agent_check_body(facts: &CheckFacts) -> Value {
    json!({
        "CheckID": facts.id,
        "Name": facts.name,
        "Status": facts.status,
        "Notes": facts.notes,
        "TTL": TTL,
    })
}

fn registration_body(what: &Registration) -> Value {
    let mut body = json!({ "Node": what.node, "SkipNodeUpdate": what.skip_node_update });
    node_members(&mut body, &what.facts, "NodeMeta");
    if let Some(service) = &what.service {
        body["Service"] = service_body(service);
    }
    match &what.checks[..] {
        [] => {}
        [one] => body["Check"] = check_body(one),
        several => body["Checks"] = several.iter().map(check_body).collect(),
    }
    body
}

fn query_body(query: &Query) -> Value {
    let service = json!({
        "Service": query.service,
        "OnlyPassing": query.only_passing,
        "Tags": query.tags,
    });
    json!({ "Name": query.name, "Session": query.session, "Service": service })
}

fn txn_body(operation: &TxnOp) -> Value {
    match operation {
        TxnOp::Key { verb, key, value, flags, index, session } => {
            let value = STANDARD.encode(value);
            json!({ "KV": {
                "Verb": verb, "Key": key, "Value": value,
                "Flags": flags, "Index": index, "Session": session,
            } })
        }
        TxnOp::Node { verb, node, index } => {
            let mut body = json!({ "Node": node.node, "ModifyIndex": index });
            node_members(&mut body, &node.facts, "Meta");
            json!({ "Node": { "Verb": verb, "Node": body } })
        }
        TxnOp::Service { verb, node, service, index } => {
            let mut body = service_body(service);
            body["ModifyIndex"] = json!(index);
            json!({ "Service": { "Verb": verb, "Node": node, "Service": body } })
        }
        TxnOp::Check { verb, node, check, index } => {
            let mut body = check_body(check);
            // The catalogue derives a type, a transaction takes what is given.
            body["Type"] = json!(check.kind);
            body["Node"] = json!(node);
            body["ModifyIndex"] = json!(index);
            json!({ "Check": { "Verb": verb, "Check": body } })
        }
    }
}

/// When a row of the model was made: not yet.
pub(crate) const NEVER: At = At { create: 0, modify: 0 };
