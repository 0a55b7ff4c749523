//! `/v1/txn`: several operations that take effect together or not at all.
//!
//! A list without a write is not replicated: it is a read of this node's state behind a barrier.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use quorate_client::types::catalog::{Node, NodeService};
use quorate_client::types::txn::{
    self, CheckOp, KvOp, NodeOp, ServiceOp, TxnAnswer, TxnOp, TxnReadMeta,
};
use quorate_storage::command::{CatalogRegistration, Command, Outcome, Rejection};
use quorate_storage::limits::{TXN_OPERATIONS_MAX, VALUE_BYTES_MAX};
use quorate_storage::record::{self, CheckStatus};
use quorate_storage::txn::{KeyVerb, RowVerb, TxnError, TxnOperation, TxnResult};
use quorate_storage::{State, Topic};

use super::catalog::{check_node_id, check_registration, service_definition};
use super::held::refuse_held;
use super::session::session_id;
use crate::http::blocking;
use crate::http::call::Call;
use crate::http::decode;
use crate::http::definition::settings;
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::heavy;
use crate::http::incoming::BodyLimit;
use crate::http::rights::{Rule, Sight};
use crate::http::wire;
use axum::http::StatusCode;

/// The largest body; Consul's limit is that of a value.
const MAX_BODY_BYTES: usize = VALUE_BYTES_MAX;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint::new("/v1/txn").put(Rule::Commands, |call| Box::pin(transact(call)))]
}

async fn transact(mut call: Call) -> Answer {
    let options = call.read_options()?;
    call.check_datacenter()?;
    let bytes_max = call.process.limits.txn_bytes.unwrap_or(MAX_BODY_BYTES);
    let body = call.body(BodyLimit::of_setting(bytes_max, "txn_max_req_len")).await?;
    let parsed = operations(&body)?;
    let operations = parsed.operations;
    if parsed.writes {
        for operation in &operations {
            if let TxnOperation::Check {
                verb: RowVerb::Delete | RowVerb::DeleteCas,
                node,
                check,
                ..
            } = operation
            {
                refuse_held(&call.node.published().state, node, &check.id)?;
            }
        }
        return written(&call, operations).await;
    }
    let published = blocking::at_barrier(&call.node, &options).await?;
    let contact = call.node.contact();
    let read = TxnReadMeta {
        last_contact: wire::nanos(contact.last_contact).unsigned_abs(),
        known_leader: contact.known_leader,
        ..TxnReadMeta::default()
    };
    let state = &published.state;
    let bytes = operations.iter().map(|operation| bytes_read(state, operation)).sum();
    let shown = || {
        let refused = refused(&call.rights(state)?, state, &operations);
        let done = if refused.is_empty() { state.evaluate(&operations) } else { Err(refused) };
        answer(&call, state, done, Some(read))
    };
    Ok(heavy::render(bytes, shown).await??.with_contact(contact))
}

/// The operations of a list without a write that the caller has no right to.
fn refused(sight: &Sight, state: &State, operations: &[TxnOperation]) -> Vec<TxnError> {
    let Some(rights) = sight.rights() else { return Vec::new() };
    state.refused_operations(rights, operations)
}

/// Whether a caller may see what an operation answers.
fn keeps(sight: &Sight, result: &TxnResult) -> bool {
    match result {
        TxnResult::Key(row) => sight.keeps_key(&row.key),
        TxnResult::Node(row) => sight.keeps_node(&row.name),
        TxnResult::Service(row) => sight.keeps_instance(&row.node, &row.definition.name),
        TxnResult::Check(row) => sight.keeps_check(&row.node, &row.service_name),
    }
}

async fn written(call: &Call, operations: Vec<TxnOperation>) -> Answer {
    let done = match call.outcome_of(Command::Txn(operations)).await? {
        Outcome::Txn(results) => Ok(results),
        Outcome::Rejected(Rejection::Txn(errors)) => Err(errors),
        Outcome::Rejected(rejection) => return Err(rejection.into()),
        // Only if this node took a snapshot over the entry, and the results were long.
        Outcome::AppliedAt(index) => {
            return Err(ApiError::internal(format!(
                "the transaction took effect at index {index}, but its results were not kept"
            )));
        }
        Outcome::Done | Outcome::Condition(_) | Outcome::Id(_) | Outcome::Beats(_) => {
            Ok(Vec::new())
        }
    };
    let bytes = done.as_ref().map_or(0, |results| results.iter().map(bytes_shown).sum());
    let published = call.node.published();
    heavy::render(bytes, || answer(call, &published.state, done, None)).await?
}

/// About how much an operation adds to an answer.
fn bytes_read(state: &State, operation: &TxnOperation) -> usize {
    match operation {
        TxnOperation::Key { verb: KeyVerb::GetTree, key, .. } => {
            state.answer_bytes(&Topic::Prefix(Arc::clone(key)))
        }
        TxnOperation::Key { verb: KeyVerb::Get | KeyVerb::GetOrEmpty, key, .. } => {
            state.answer_bytes(&Topic::Key(Arc::clone(key)))
        }
        _ => 0,
    }
}

/// The same for what it came to.
fn bytes_shown(result: &TxnResult) -> usize {
    const ROW_BYTES: usize = 256;
    match result {
        TxnResult::Key(row) => row.value.len() + ROW_BYTES,
        TxnResult::Node(_) | TxnResult::Service(_) | TxnResult::Check(_) => ROW_BYTES,
    }
}

fn answer(
    call: &Call,
    state: &State,
    done: Result<Vec<TxnResult>, Vec<TxnError>>,
    read: Option<TxnReadMeta>,
) -> Answer {
    let datacenter = &call.node.info().datacenter;
    match done {
        Ok(results) => {
            let sight = call.rights(state)?;
            let results = results.iter().filter(|result| keeps(&sight, result));
            let results = results.map(|result| shown(state, datacenter, result)).collect();
            call.json(&TxnAnswer { results: Some(results), errors: None, read })
        }
        Err(errors) => {
            let errors = errors
                .into_iter()
                .map(|error| txn::TxnError { op_index: error.operation, what: error.what });
            let answer = TxnAnswer { results: None, errors: Some(errors.collect()), read };
            Ok(call.json(&answer)?.status(StatusCode::CONFLICT))
        }
    }
}

fn shown(state: &State, datacenter: &str, result: &TxnResult) -> txn::TxnResult {
    match result {
        TxnResult::Key(row) => txn::TxnResult::Kv(wire::kv_pair(row)),
        TxnResult::Node(row) => txn::TxnResult::Node(wire::node(row, datacenter)),
        // Unlike elsewhere, metadata that was not given is null here.
        TxnResult::Service(row) => txn::TxnResult::Service(NodeService {
            meta: row.definition.meta.clone(),
            ..wire::node_service(row)
        }),
        TxnResult::Check(row) => txn::TxnResult::Check(wire::check(state, row)),
    }
}

// ---- parsing ---------------------------------------------------------------------------------

/// A list of operations.
#[derive(Debug, PartialEq, Eq)]
struct Parsed {
    operations: Vec<TxnOperation>,
    /// Whether any of them writes; a verb that does not exist writes unless it is one of a key.
    writes: bool,
}

fn operations(body: &[u8]) -> Result<Parsed, ApiError> {
    let unreadable =
        |fault: String| ApiError::bad_request(format!("Failed to parse body: {fault}"));
    let given = decode::operations(body).map_err(|error| unreadable(error.to_string()))?;
    if given.len() > TXN_OPERATIONS_MAX {
        return Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!(
                "Transaction contains too many operations ({} > {TXN_OPERATIONS_MAX})",
                given.len()
            ),
        ));
    }
    let mut parsed = Parsed { operations: Vec::new(), writes: false };
    for operation in given {
        let (operation, writes) = match operation {
            TxnOp { kv: Some(given), .. } => on_key(given).map_err(unreadable)?,
            TxnOp { node: Some(given), .. } => on_node(given),
            TxnOp { service: Some(given), .. } => on_service(given),
            TxnOp { check: Some(given), .. } => on_check(given),
            // Consul passes over an empty object too.
            TxnOp { kv: None, node: None, service: None, check: None } => continue,
        };
        parsed.writes |= writes;
        parsed.operations.push(operation);
    }
    Ok(parsed)
}

fn on_key(given: KvOp) -> Result<(TxnOperation, bool), String> {
    let value = STANDARD.decode(&given.value).map_err(|_| "illegal base64 data".to_owned())?;
    let verb = KeyVerb::from_word(&given.verb);
    let writes = match verb {
        Some(
            KeyVerb::Set
            | KeyVerb::Cas
            | KeyVerb::Lock
            | KeyVerb::Unlock
            | KeyVerb::Delete
            | KeyVerb::DeleteTree
            | KeyVerb::DeleteCas,
        ) => true,
        Some(
            KeyVerb::Get
            | KeyVerb::GetOrEmpty
            | KeyVerb::GetTree
            | KeyVerb::CheckIndex
            | KeyVerb::CheckSession
            | KeyVerb::CheckNotExists,
        )
        | None => false,
    };
    let operation = match verb {
        _ if given.key.is_empty() && verb != Some(KeyVerb::DeleteTree) => {
            TxnOperation::Faulty("Must provide key".to_owned())
        }
        None => TxnOperation::Unknown(format!("unknown KV verb {:?}", given.verb)),
        Some(verb) => TxnOperation::Key {
            verb,
            key: given.key.into(),
            value: Bytes::from(value),
            flags: given.flags,
            index: given.index,
            session: session_id(&given.session),
        },
    };
    Ok((operation, writes))
}

// Consul validates the rows of writes before it runs anything, and those of reads not at all: a `get`
// needs only what names its row, and fails in its turn if there is no such row.

fn on_node(given: NodeOp) -> (TxnOperation, bool) {
    let NodeOp { verb: word, node } = given;
    let verb = RowVerb::from_word(&word);
    let id_fault = check_node_id(&node.id).err().map(|fault| fault.text);
    let operation = match (verb, id_fault) {
        (Some(RowVerb::Get), Some(fault)) => {
            TxnOperation::Unknown(format!("node lookup by ID failed, wrong UUID: {fault}"))
        }
        (Some(RowVerb::Get), None) => node_operation(RowVerb::Get, node),
        _ if node.node.is_empty() => TxnOperation::Faulty("Must provide node".to_owned()),
        (_, Some(fault)) => TxnOperation::Faulty(fault),
        (Some(verb), None) => node_operation(verb, node),
        (None, None) => TxnOperation::Unknown(format!("unknown Node verb {word:?}")),
    };
    (operation, verb != Some(RowVerb::Get))
}

fn node_operation(verb: RowVerb, node: Node) -> TxnOperation {
    let locality = node.locality.filter(|_| verb != RowVerb::Get);
    let tagged_addresses = match settings::node_addresses(node.tagged_addresses, locality) {
        Ok(addresses) => addresses,
        Err(fault) => return TxnOperation::Faulty(fault.text),
    };
    let row = CatalogRegistration {
        node: node.node.into(),
        node_id: node.id.to_lowercase(),
        address: node.address,
        tagged_addresses,
        node_meta: node.meta,
        ..CatalogRegistration::default()
    };
    TxnOperation::Node { verb, node: Box::new(row), index: node.modify_index }
}

fn on_service(given: ServiceOp) -> (TxnOperation, bool) {
    let ServiceOp { verb: word, node, service } = given;
    let index = service.modify_index;
    let row = |verb, row| TxnOperation::Service {
        verb,
        node: node.as_str().into(),
        service: Box::new(row),
        index,
    };
    let verb = RowVerb::from_word(&word);
    if verb == Some(RowVerb::Get) {
        let id = service.definition.id.into();
        let named = record::ServiceDefinition { id, ..record::ServiceDefinition::default() };
        return (row(RowVerb::Get, named), false);
    }
    let operation = match (service_definition(service.definition, &node), verb) {
        (Err(fault), _) => TxnOperation::Faulty(fault.text),
        (Ok(_), None) => TxnOperation::Unknown(format!("unknown Service verb {word:?}")),
        (Ok(definition), Some(verb)) => row(verb, definition),
    };
    (operation, true)
}

fn on_check(given: CheckOp) -> (TxnOperation, bool) {
    let CheckOp { verb: word, check } = given;
    let verb = RowVerb::from_word(&word);
    let node: Arc<str> = check.registration.node.as_str().into();
    let index = check.modify_index;
    let reads = verb == Some(RowVerb::Get);
    let given = check.registration;
    let registration = match verb {
        Some(RowVerb::Get) => Ok(named_check(&given.check_id)),
        Some(RowVerb::Delete | RowVerb::DeleteCas) if given.check_id.is_empty() => {
            Ok(named_check(&given.name))
        }
        Some(RowVerb::Delete | RowVerb::DeleteCas) => Ok(named_check(&given.check_id)),
        Some(RowVerb::Set | RowVerb::Cas) | None => check_registration(given, &node),
    };
    let operation = match (registration, verb) {
        (Err(fault), _) => TxnOperation::Faulty(fault.text),
        (Ok(_), None) => TxnOperation::Unknown(format!("unknown Check verb {word:?}")),
        (Ok(registration), Some(verb)) => {
            TxnOperation::Check { verb, node, check: Box::new(registration), index }
        }
    };
    (operation, !reads)
}

/// As much of a check as reading or removing it needs.
fn named_check(id: &str) -> record::CheckRegistration {
    record::CheckRegistration {
        id: id.into(),
        name: String::new(),
        status: CheckStatus::Critical,
        notes: String::new(),
        output: String::new(),
        service_id: "".into(),
        kind: String::new(),
        definition: record::CheckDefinition::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Parsed, String> {
        operations(text.as_bytes()).map_err(|error| error.text)
    }

    fn faults(text: &str) -> Vec<String> {
        let operations = parse(text).unwrap().operations.into_iter();
        operations
            .map(|operation| match operation {
                TxnOperation::Faulty(what) | TxnOperation::Unknown(what) => what,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_list_without_a_write_only_reads() {
        for (text, writes) in [
            ("[]", false),
            ("[{}]", false),
            (r#"[{"KV":{"Verb":"get","Key":"a"}},{"KV":{"Verb":"frob","Key":"a"}}]"#, false),
            (r#"[{"Node":{"Verb":"get","Node":{"Node":"n"}}}]"#, false),
            (r#"[{"Node":{"Verb":"frob","Node":{"Node":"n"}}}]"#, true),
            (r#"[{"KV":{"Verb":"get","Key":"a"}},{"KV":{"Verb":"set","Key":"a"}}]"#, true),
        ] {
            assert_eq!(parse(text).unwrap().writes, writes, "{text}");
        }
    }

    #[test]
    fn faults_are_told_in_the_words_of_consul() {
        for (text, what) in [
            (r#"[{"KV":{"Verb":"set","Key":""}}]"#, "Must provide key"),
            (r#"[{"KV":{"Verb":"","Key":"a"}}]"#, "unknown KV verb \"\""),
            (r#"[{"Node":{"Verb":"set","Node":{}}}]"#, "Must provide node"),
            (
                r#"[{"Service":{"Verb":"delete","Node":"n","Service":{"ID":"w"}}}]"#,
                "Must provide service name with ID",
            ),
            (
                r#"[{"Check":{"Verb":"set","Check":{"Node":"n","Status":"passing"}}}]"#,
                "failed inserting check: Must provide CheckID or Name on node \"n\"",
            ),
            (
                r#"[{"Service":{"Verb":"set","Node":"n","Service":{"Service":"w","Kind":"mesh-gateway"}}}]"#,
                "Quorate has no service mesh: register the service without Kind and Connect",
            ),
            (
                r#"[{"Check":{"Verb":"x","Check":{"Node":"n","CheckID":"c"}}}]"#,
                "unknown Check verb \"x\"",
            ),
        ] {
            assert_eq!(faults(text), [what], "{text}");
        }
        assert_eq!(parse(r#"[{"KV":{"Verb":"delete-tree"}}]"#).unwrap().operations.len(), 1);
    }

    #[test]
    fn a_get_needs_no_more_than_what_names_its_row() {
        for text in [
            r#"[{"Node":{"Verb":"get","Node":{"ID":"8a4b3b0e-6d07-4f40-9d7a-0f6a7e0d1b11"}}}]"#,
            r#"[{"Node":{"Verb":"get","Node":{"Node":"n"}}}]"#,
            r#"[{"Node":{"Verb":"get","Node":{}}}]"#,
            r#"[{"Service":{"Verb":"get","Node":"n","Service":{"ID":"w"}}}]"#,
            r#"[{"Service":{"Verb":"get","Node":"n","Service":{"ID":"w","Meta":{"a b":"x"}}}}]"#,
            r#"[{"Check":{"Verb":"get","Check":{"Node":"n"}}}]"#,
        ] {
            let parsed = parse(text).unwrap();
            assert!(!parsed.writes, "{text}");
            let [operation] = &parsed.operations[..] else { panic!("one operation") };
            assert!(
                !matches!(operation, TxnOperation::Faulty(_) | TxnOperation::Unknown(_)),
                "{text}: {operation:?}"
            );
        }
        // It fails in its turn, so that the failures of the others are told as well.
        let parsed = parse(r#"[{"Node":{"Verb":"get","Node":{"ID":"abc"}}}]"#).unwrap();
        let [TxnOperation::Unknown(what)] = &parsed.operations[..] else { panic!("{parsed:?}") };
        assert!(what.starts_with("node lookup by ID failed, wrong UUID: "), "{what}");
    }

    #[test]
    fn what_cannot_be_read_or_is_too_long_is_refused() {
        for text in ["{bad", r#"{"KV":{}}"#, r#"[{"KV":{"Value":"!!"}}]"#, ""] {
            assert!(parse(text).unwrap_err().starts_with("Failed to parse body: "), "{text}");
        }
        let many = format!("[{}]", vec!["{}"; TXN_OPERATIONS_MAX + 1].join(","));
        assert_eq!(
            parse(&many).unwrap_err(),
            "Transaction contains too many operations (129 > 128)"
        );
    }
}
