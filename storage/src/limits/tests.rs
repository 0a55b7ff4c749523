use bytes::Bytes;

use super::*;
use crate::record::{CheckStatus, ServiceAddress, SessionBehavior, with_locality};
use crate::txn::{KeyVerb, RowVerb};
use crate::{ClusterTime, Millis};

fn long(bytes: usize) -> String {
    "x".repeat(bytes)
}

fn small_agent() -> Agent {
    Agent { name: "h1".into(), id: "id".to_owned(), address: "10.0.0.1".to_owned() }
}

fn small_check() -> CheckRegistration {
    CheckRegistration {
        id: "c".into(),
        name: "c".to_owned(),
        status: CheckStatus::Passing,
        notes: String::new(),
        output: String::new(),
        service_id: "".into(),
        kind: String::new(),
        definition: CheckDefinition::default(),
    }
}

fn small_session() -> SessionRequest {
    SessionRequest {
        id: "s".into(),
        agent: small_agent(),
        node: "".into(),
        name: String::new(),
        lock_delay_nanos: 0,
        behavior: SessionBehavior::Release,
        ttl_text: String::new(),
        ttl: Millis::ZERO,
        node_checks: Vec::new(),
        service_checks: None,
        checks: None,
    }
}

fn with_service(change: impl FnOnce(&mut ServiceDefinition)) -> Command {
    let mut service = ServiceDefinition::default();
    change(&mut service);
    Command::AgentRegisterService {
        agent: small_agent(),
        service: Box::new(service),
        checks: Vec::new(),
        replace_existing_checks: false,
    }
}

fn with_check(change: impl FnOnce(&mut CheckRegistration)) -> Command {
    let mut check = small_check();
    change(&mut check);
    Command::AgentRegisterCheck { agent: small_agent(), check: Box::new(check) }
}

fn with_node(change: impl FnOnce(&mut CatalogRegistration)) -> Command {
    let mut node = CatalogRegistration::default();
    change(&mut node);
    Command::CatalogRegister(Box::new(node))
}

/// A node's addresses with a locality of this length.
fn place(bytes: usize) -> Option<TextMap> {
    with_locality(None, Some(long(bytes)))
}

fn with_session(change: impl FnOnce(&mut SessionRequest)) -> Command {
    let mut session = small_session();
    change(&mut session);
    Command::SessionCreate(Box::new(session))
}

fn with_query(change: impl FnOnce(&mut QueryDefinition)) -> Command {
    let mut query = QueryDefinition::default();
    change(&mut query);
    Command::PutQuery { query: Box::new(query), is_new: true }
}

fn set(key: &str, value: usize) -> TxnOperation {
    TxnOperation::Key {
        verb: KeyVerb::Set,
        key: key.into(),
        value: Bytes::from(vec![0; value]),
        flags: 0,
        index: 0,
        session: "".into(),
    }
}

/// A limited member of a command: its name, a command in which it has this size, and its limit.
type Member = (&'static str, fn(usize) -> Command, usize);

const NAMES: &[Member] = &[
    ("agent name", |n| named_agent(n), NAME_BYTES_MAX),
    ("service ID", |n| with_service(|s| s.id = long(n).into()), NAME_BYTES_MAX),
    ("service name", |n| with_service(|s| s.name = long(n).into()), NAME_BYTES_MAX),
    ("service address", |n| with_service(|s| s.address = long(n)), ADDRESS_BYTES_MAX),
    ("check ID", |n| with_check(|c| c.id = long(n).into()), NAME_BYTES_MAX),
    ("check name", |n| with_check(|c| c.name = long(n)), NAME_BYTES_MAX),
    ("check status", |n| with_check(|c| c.status = CheckStatus::Other(long(n))), NAME_BYTES_MAX),
    ("check notes", |n| with_check(|c| c.notes = long(n)), TEXT_BYTES_MAX),
    ("check output", |n| with_check(|c| c.output = long(n)), OUTPUT_BYTES_MAX),
    ("check target", |n| with_check(|c| c.definition.tcp = long(n)), ADDRESS_BYTES_MAX),
    ("check URL", |n| with_check(|c| c.definition.http = long(n)), TEXT_BYTES_MAX),
    ("check body", |n| with_check(|c| c.definition.body = long(n)), TEXT_BYTES_MAX),
    ("node name", |n| with_node(|w| w.node = long(n).into()), NAME_BYTES_MAX),
    ("node address", |n| with_node(|w| w.address = long(n)), ADDRESS_BYTES_MAX),
    ("node locality", |n| with_node(|w| w.tagged_addresses = place(n)), ADDRESS_BYTES_MAX),
    ("node name", |n| with_session(|s| s.node = long(n).into()), NAME_BYTES_MAX),
    ("session name", |n| with_session(|s| s.name = long(n)), NAME_BYTES_MAX),
    ("check ID", |n| with_session(|s| s.checks = Some(vec![long(n)])), NAME_BYTES_MAX),
    ("query name", |n| with_query(|q| q.name = long(n)), NAME_BYTES_MAX),
    ("query", |n| with_query(|q| q.template_regexp = long(n)), QUERY_BYTES_MAX),
    ("reason", |n| maintenance(n), TEXT_BYTES_MAX),
    ("key", |n| Command::Txn(vec![set(&long(n), 0)]), KEY_BYTES_MAX),
    ("value", |n| Command::Txn(vec![set("k", n)]), VALUE_BYTES_MAX),
    ("check output", |n| heartbeat(n), OUTPUT_BYTES_MAX),
];

const COUNTS: &[Member] = &[
    ("service tags", |n| with_service(|s| s.tags = vec![String::new(); n].into()), TAGS_MAX),
    ("service tags", |n| with_service(|s| s.tags = [long(n - 5), long(5)].into()), TAGS_BYTES_MAX),
    ("service metadata", |n| with_service(|s| s.meta = Some(map(n, 1))), META_PAIRS_MAX),
    ("service tagged addresses", |n| with_service(|s| s.tagged_addresses = places(n)), 64),
    ("node tagged addresses", |n| with_node(|w| w.tagged_addresses = Some(map(n, 1))), 64),
    ("node metadata", |n| with_node(|w| w.node_meta = Some(map(1, n - 4))), NODE_META_BYTES_MAX),
    ("checks of a registration", |n| with_node(|w| w.checks = vec![small_check(); n]), CHECKS_MAX),
    ("check headers", |n| with_check(|c| c.definition.header = headers(n)), HEADERS_BYTES_MAX),
    ("checks of a session", |n| with_session(|s| s.node_checks = vec![long(1); n]), 256),
    ("list of a query", |n| with_query(|q| q.tags = Some(vec![String::new(); n])), QUERY_LIST_MAX),
    ("operations of a transaction", |n| Command::Txn(vec![set("k", 0); n]), TXN_OPERATIONS_MAX),
];

fn named_agent(bytes: usize) -> Command {
    let agent = Agent { name: long(bytes).into(), ..small_agent() };
    Command::AgentRegisterCheck { agent, check: Box::new(small_check()) }
}

fn maintenance(bytes: usize) -> Command {
    let (agent, reason) = (small_agent(), Some(long(bytes)));
    Command::SetMaintenance { agent, service_id: "".into(), reason }
}

fn heartbeat(bytes: usize) -> Command {
    let (status, output, seen) = (CheckStatus::Passing, long(bytes), ClusterTime(0));
    Command::Heartbeat { number: 1, status, output, seen }
}

/// So many pairs, each with a key of four bytes and a value of so many.
fn map(pairs: usize, value: usize) -> TextMap {
    (0..pairs).map(|n| (format!("{n:04}"), long(value))).collect()
}

fn places(count: usize) -> BTreeMap<String, ServiceAddress> {
    let place = ServiceAddress { address: String::new(), port: 1 };
    (0..count).map(|n| (n.to_string(), place.clone())).collect()
}

/// A hundred values of no length, and one of as many bytes as are left with the names of all.
fn headers(bytes: usize) -> Option<BTreeMap<String, Vec<String>>> {
    let mut values = vec![String::new(); 100];
    values.push(long(bytes - 101 * 4));
    Some(BTreeMap::from([("name".to_owned(), values)]))
}

#[test]
fn what_is_at_its_limit_is_taken_and_what_is_above_is_refused_by_name() {
    for (what, command, limit) in NAMES.iter().chain(COUNTS) {
        assert_eq!(validate(&command(*limit)), Ok(()), "{what}");
        let excess = validate(&command(limit + 1)).unwrap_err();
        assert_eq!((excess.what, excess.given, excess.limit), (*what, limit + 1, *limit));
    }
}

#[test]
fn rows_in_a_transaction_and_in_the_catalogue_have_the_limits_of_agents_rows() {
    let service = ServiceDefinition { id: long(NAME_BYTES_MAX + 1).into(), ..Default::default() };
    let check = CheckRegistration { notes: long(TEXT_BYTES_MAX + 1), ..small_check() };
    let node: Arc<str> = "n".into();
    let (verb, index) = (RowVerb::Set, 0);
    let in_txn = |operation| validate(&Command::Txn(vec![operation])).unwrap_err().what;
    let (row, on) = (Box::new(service.clone()), node.clone());
    assert_eq!(in_txn(TxnOperation::Service { verb, node: on, service: row, index }), "service ID");
    let row = Box::new(check.clone());
    assert_eq!(in_txn(TxnOperation::Check { verb, node, check: row, index }), "check notes");
    let refused = |change: fn(&mut CatalogRegistration, ServiceDefinition, CheckRegistration)| {
        validate(&with_node(|what| change(what, service.clone(), check.clone()))).unwrap_err().what
    };
    assert_eq!(refused(|what, service, _| what.service = Some(service)), "service ID");
    assert_eq!(refused(|what, _, check| what.checks = vec![check]), "check notes");
}

#[test]
fn a_refusal_says_what_is_too_large_how_large_it_is_and_what_is_allowed() {
    let excess = validate(&with_service(|service| service.name = long(2_000).into())).unwrap_err();
    let text = "service name too large: 2000 bytes, at most 1024 are allowed";
    assert_eq!(excess.to_string(), text);
    assert!(!excess.is_of_whole_command());
    let excess = validate(&with_node(|what| what.checks = vec![small_check(); 300])).unwrap_err();
    let text = "too many checks of a registration: 300, at most 256 are allowed";
    assert_eq!(excess.to_string(), text);
    let excess = Excess::of_command(COMMAND_BYTES_MAX + 1).unwrap_err();
    let text = "command too large: 1048577 bytes, at most 1048576 are allowed";
    assert_eq!(excess.to_string(), text);
    assert!(excess.is_of_whole_command() && Excess::of_command(COMMAND_BYTES_MAX).is_ok());
}

#[test]
fn what_only_removes_is_not_looked_at() {
    let id: Arc<str> = long(NAME_BYTES_MAX + 1).into();
    for command in [
        Command::AgentDeregisterService { agent: small_agent(), service_id: id.clone() },
        Command::CatalogDeregister { node: id, service_id: "".into(), check_id: "".into() },
    ] {
        assert_eq!(validate(&command), Ok(()));
    }
}

#[test]
fn what_a_claim_says_is_bounded() {
    let claim = |change: &dyn Fn(&mut ClaimRequest)| {
        let mut what = ClaimRequest::default();
        change(&mut what);
        let command = Command::Claims(ClaimsCommand::Claim(Box::new(what)));
        validate(&command).map_err(|excess| excess.what)
    };
    let pairs = |count: usize| (0..count).map(|key| (key.to_string(), String::new())).collect();
    assert_eq!(claim(&|what| what.require = pairs(4)), Ok(()));
    assert_eq!(claim(&|what| what.require = pairs(5)), Err("requirements"));
    assert_eq!(claim(&|what| what.id = long(65).into()), Err("claim ID"));
    assert_eq!(claim(&|what| what.holder = long(2_000).into()), Err("holder"));
    let reported = |count| Command::Claims(ClaimsCommand::Collected { fences: vec![1; count] });
    assert_eq!(validate(&reported(CLAIMS_REPORTED_MAX)), Ok(()));
    assert_eq!(validate(&reported(CLAIMS_REPORTED_MAX + 1)).unwrap_err().what, "claims");
}
