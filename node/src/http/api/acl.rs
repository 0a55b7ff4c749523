//! `/v1/acl/`: tokens, policies and roles.
//!
//! Where access control is off, all of it is answered with 401 `ACL support disabled`, which clients know.
//!
//! A secret is shown once: to whoever makes the token, and to its bearer by `acl/token/self`. Only its hash is kept,
//! so that who reads a token later sees `<hidden>`, and may send that back.

mod policy;
mod role;
mod rules;
mod token;

use std::path::Path;
use std::sync::Arc;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quorate_client::types::acl::{AclLink, AclNodeIdentity, AclQuestion, AclServiceIdentity};
use quorate_storage::command::{AclCommand, Command, LinkRequest, LinkRequests};
use quorate_storage::record::{
    Access, AclKind, AclLinks, NodeIdentity, SecretHash, ServiceIdentity,
};
use quorate_storage::{State, Topic};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::catalog::uuid;
use crate::host::supervise;
use crate::http::blocking;
use crate::http::call::{Call, MAX_JSON_BYTES};
use crate::http::decode::{self, Body, DecodeError};
use crate::http::endpoint::{Answer, Endpoint, Handler};
use crate::http::error::ApiError;
use crate::http::incoming::BodyLimit;
use crate::http::reply::Reply;
use crate::http::rights::Rule;

/// With a number in it, this file in the data directory allows one more bootstrap (Consul's).
const RESET_FILE: &str = "acl-bootstrap-reset";
/// Bytes of that file that are looked at.
const RESET_BYTES_MAX: u64 = 64;

pub(super) fn endpoints() -> Vec<Endpoint> {
    let own = vec![
        Endpoint::new("/v1/acl/bootstrap").put(Rule::Open, |call| Box::pin(bootstrap(call))),
        Endpoint::new("/v1/acl/rules/translate")
            .post(Rule::Acl(Access::Read), |call| Box::pin(translate(call))),
        Endpoint::new("/v1/acl/replication")
            .get(Rule::Any, |call| Box::pin(std::future::ready(replication(&call)))),
        Endpoint::new("/v1/internal/acl/authorize")
            .post(Rule::Rows, |call| Box::pin(authorize(call))),
        Endpoint::new("/v1/acl/auth-methods")
            .get(Rule::Acl(Access::Read), |call| Box::pin(nothing(call))),
        Endpoint::new("/v1/acl/binding-rules")
            .get(Rule::Acl(Access::Read), |call| Box::pin(nothing(call))),
        Endpoint::new("/v1/acl/login").post(Rule::Open, |call| Box::pin(login(call))),
    ];
    let missing = [("/v1/acl/", Rule::Any), ("/v1/agent/token/", Rule::Server(Access::Write))];
    let missing = missing.map(|(path, rule)| {
        let handler: Handler = |call| Box::pin(std::future::ready(out_of_scope(&call)));
        let endpoint = Endpoint::new(path).get(rule, handler).put(rule, handler);
        endpoint.post(rule, handler).delete(rule, handler)
    });
    [own, token::endpoints(), policy::endpoints(), role::endpoints(), missing.into()]
        .into_iter()
        .flatten()
        .collect()
}

/// Refuses everything while there is no access control.
fn refuse_off(call: &Call) -> Result<(), ApiError> {
    match call.asker() {
        Some(_) => Ok(()),
        None => Err(ApiError::new(StatusCode::UNAUTHORIZED, "ACL support disabled")),
    }
}

fn out_of_scope(call: &Call) -> Answer {
    refuse_off(call)?;
    let text = "Quorate has no auth methods, no binding rules, no tokens of its agents and none of the kind before \
        policies";
    Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, text))
}

/// A list of what there is not.
async fn nothing(call: Call) -> Answer {
    refuse_off(&call)?;
    let options = call.read_options()?;
    let none = |_: &State| call.json::<[(); 0]>(&[]);
    blocking::read(&call, &options, |_| Topic::AclTokens, none).await
}

/// There are no auth methods, so nobody can log in with one.
async fn login(mut call: Call) -> Answer {
    refuse_off(&call)?;
    let body = call.body(BodyLimit::fixed(MAX_JSON_BYTES)).await?;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let method = body.get("AuthMethod").and_then(Value::as_str).unwrap_or_default();
    let text = format!("ACL not found: auth method {method:?} not found");
    Err(ApiError::new(StatusCode::FORBIDDEN, text))
}

fn replication(call: &Call) -> Answer {
    refuse_off(call)?;
    let never = "0001-01-01T00:00:00Z";
    call.json(&json!({
        "Enabled": false, "Running": false, "SourceDatacenter": "", "ReplicationType": "",
        "ReplicatedIndex": 0, "ReplicatedRoleIndex": 0, "ReplicatedTokenIndex": 0,
        "LastSuccess": never, "LastError": never,
    }))
}

async fn translate(mut call: Call) -> Answer {
    refuse_off(&call)?;
    let body = call.body(BodyLimit::fixed(MAX_JSON_BYTES)).await?;
    let bad =
        |why: String| ApiError::bad_request(format!("Bad request: Failed to parse rules: {why}"));
    let text = std::str::from_utf8(&body).map_err(|error| bad(error.to_string()))?;
    Ok(Reply::text(rules::translate(text).map_err(|fault| bad(fault.to_string()))?))
}

/// Which of some things the caller may do.
async fn authorize(mut call: Call) -> Answer {
    refuse_off(&call)?;
    let body = call.body(BodyLimit::fixed(MAX_JSON_BYTES)).await?;
    let questions = decode::questions(&body).map_err(|error| {
        ApiError::bad_request(format!("Failed to decode request body: {error}"))
    })?;
    let answered = call.confirm(|sight, _| {
        let answers = questions.iter().map(|question| {
            let (kind, access) = (kind_of(&question.resource)?, access_of(&question.access)?);
            let allow = sight.allows(kind, &question.segment, access);
            Ok(AclQuestion { allow, ..question.clone() })
        });
        answers.collect::<Result<Vec<_>, ApiError>>()
    });
    call.json(&answered.await?)
}

fn kind_of(word: &str) -> Result<AclKind, ApiError> {
    let kind = AclKind::ALL.into_iter().find(|kind| kind.as_str() == word);
    kind.ok_or_else(|| ApiError::bad_request(format!("there is no kind of rules {word:?}")))
}

fn access_of(word: &str) -> Result<Access, ApiError> {
    let all = [Access::Read, Access::List, Access::Write];
    let access = all.into_iter().find(|access| access.as_str() == word);
    access.ok_or_else(|| ApiError::bad_request(format!("{word:?} is none of read, list, write")))
}

// ---- bootstrap -------------------------------------------------------------------------------

/// The first management token. Body and parameters are not read, as in Consul.
async fn bootstrap(call: Call) -> Answer {
    refuse_off(&call)?;
    let directory = call.process.data_dir.clone();
    let reset = match directory.clone() {
        Some(directory) => supervise::blocking("looking for a reset", move || {
            Ok(reset_number(&directory.join(RESET_FILE)))
        })
        .await
        .unwrap_or_default(),
        None => None,
    };
    let (accessor, secret) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
    let command = AclCommand::Bootstrap {
        accessor: accessor.as_str().into(),
        secret: SecretHash::of(&secret),
        reset,
    };
    call.propose(Command::Acl(command)).await?;
    if let (Some(directory), Some(_)) = (directory, reset) {
        let removed = supervise::blocking("removing a reset", move || {
            std::fs::remove_file(directory.join(RESET_FILE))
        });
        if let Err(error) = removed.await {
            tracing::warn!(%error, file = RESET_FILE, "remove this file: it has allowed a bootstrap");
        }
    }
    tracing::warn!(accessor, "access control was bootstrapped: there is a new management token");
    let published = call.node.published();
    let row = published.state.acl_token(&accessor).ok_or_else(token::gone)?;
    let mut shown = token::shown(&published.state, row, secret.clone());
    shown.id = secret;
    call.json(&shown)
}

/// The number in the file of a reset. Pipes and the like are not read.
fn reset_number(file: &Path) -> Option<u64> {
    use std::io::Read as _;
    if !std::fs::symlink_metadata(file).ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    std::fs::File::open(file).ok()?.take(RESET_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

// ---- what tokens, policies and roles have in common --------------------------------------------

/// The body of a request about one of them.
async fn body<T: Body>(call: &mut Call, what: &str) -> Result<T, ApiError> {
    let bytes = call.body(BodyLimit::fixed(MAX_JSON_BYTES)).await?;
    decode::body(&bytes).map_err(|error: DecodeError| {
        ApiError::bad_request(format!("Bad request: {what} decoding failed: {error}"))
    })
}

/// Asks for the right to change or to read any of them.
async fn require(call: &Call, access: Access) -> Result<(), ApiError> {
    call.require(AclKind::Acl, "", access).await
}

/// Proposes a change.
async fn change(call: &Call, command: AclCommand) -> Result<(), ApiError> {
    call.propose(Command::Acl(command)).await.map(drop)
}

/// Refuses an id in the body of what is to be made.
fn refuse_id(what: &str, given: &str) -> Result<(), ApiError> {
    if given.is_empty() {
        return Ok(());
    }
    let text = format!("Bad request: Cannot specify the ID when creating a new {what}");
    Err(ApiError::bad_request(text))
}

/// Refuses the id of another one in the body of what is to be changed. `what` begins the text.
fn refuse_other_id(what: &str, given: &str, asked: &str) -> Result<(), ApiError> {
    if given.is_empty() || given.eq_ignore_ascii_case(asked) {
        return Ok(());
    }
    let text = format!("Bad request: {what} ID in URL and payload do not match");
    Err(ApiError::bad_request(text))
}

/// Whether something is linked to a policy or a role with this id, in any letter case; without one, it does not matter.
fn is_linked(links: &[Arc<str>], id: Option<&str>) -> bool {
    id.is_none_or(|id| links.iter().any(|of| of.eq_ignore_ascii_case(id)))
}

/// Differs when what is shown does.
fn hash_of(value: &impl Serialize) -> Value {
    let text = serde_json::to_vec(value).unwrap_or_default();
    Value::String(STANDARD.encode(Sha256::digest(text)))
}

/// Whether a name has only letters, digits, `-` and `_`.
fn is_plain(name: &str, bytes_max: usize) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !name.is_empty() && name.len() <= bytes_max && name.bytes().all(plain)
}

/// Refuses a name of a policy or a role in Consul's words.
fn check_name(what: &str, name: &str, bytes_max: usize) -> Result<(), ApiError> {
    let fault = match name {
        "" => "no Name is set",
        name if !is_plain(name, bytes_max) => {
            "invalid Name. Only alphanumeric characters, '-' and '_' are allowed"
        }
        _ => return Ok(()),
    };
    Err(ApiError::internal(format!("Invalid {what}: {fault}")))
}

/// What a token or a role is to be linked to.
fn links(
    call: &Call,
    what: &str,
    policies: Vec<AclLink>,
    roles: Vec<AclLink>,
    services: Vec<AclServiceIdentity>,
    nodes: Vec<AclNodeIdentity>,
) -> Result<LinkRequests, ApiError> {
    let own = call.node.info().datacenter;
    let link = |link: AclLink| LinkRequest { id: link.id.to_lowercase().into(), name: link.name };
    let services = services.into_iter().map(|given| {
        let AclServiceIdentity { service_name: service, datacenters } = given;
        if service.is_empty() {
            let text = format!("Service identity is missing the service name field on this {what}");
            return Err(ApiError::internal(text));
        }
        check_identity("Service", &service)?;
        let counts = datacenters.is_empty() || datacenters.contains(&own);
        Ok(ServiceIdentity { service, datacenters, counts })
    });
    let nodes = nodes.into_iter().map(|given| {
        let AclNodeIdentity { node_name: node, datacenter } = given;
        if node.is_empty() {
            let text = format!("Node identity is missing the node name field on this {what}");
            return Err(ApiError::internal(text));
        }
        check_identity("Node", &node)?;
        if datacenter.is_empty() {
            let text = format!("Node identity is missing the datacenter field on this {what}");
            return Err(ApiError::internal(text));
        }
        let counts = datacenter == own;
        Ok(NodeIdentity { node, datacenter, counts })
    });
    Ok(LinkRequests {
        policies: policies.into_iter().map(link).collect(),
        roles: roles.into_iter().map(link).collect(),
        services: services.collect::<Result<_, _>>()?,
        nodes: nodes.collect::<Result<_, _>>()?,
    })
}

/// Names in identities become parts of rules.
fn check_identity(what: &str, name: &str) -> Result<(), ApiError> {
    match is_plain(name, 256) {
        true => Ok(()),
        false => Err(ApiError::internal(format!(
            "{what} identity {name:?} has an invalid name. Only alphanumeric characters, '-' and '_' are allowed"
        ))),
    }
}

/// Policies as they are shown, with their names of now.
fn policies(state: &State, links: &AclLinks) -> Vec<AclLink> {
    let name = |id: &Arc<str>| state.acl_policy(id).map(|row| row.name.clone());
    let shown = |id: &Arc<str>| AclLink { id: id.to_string(), name: name(id).unwrap_or_default() };
    links.policies.iter().map(shown).collect()
}

fn roles(state: &State, links: &AclLinks) -> Vec<AclLink> {
    let name = |id: &Arc<str>| state.acl_role(id).map(|row| row.name.clone());
    let shown = |id: &Arc<str>| AclLink { id: id.to_string(), name: name(id).unwrap_or_default() };
    links.roles.iter().map(shown).collect()
}

fn service_identities(links: &AclLinks) -> Vec<AclServiceIdentity> {
    let shown = |identity: &ServiceIdentity| AclServiceIdentity {
        service_name: identity.service.clone(),
        datacenters: identity.datacenters.clone(),
    };
    links.services.iter().map(shown).collect()
}

fn node_identities(links: &AclLinks) -> Vec<AclNodeIdentity> {
    let shown = |identity: &NodeIdentity| AclNodeIdentity {
        node_name: identity.node.clone(),
        datacenter: identity.datacenter.clone(),
    };
    links.nodes.iter().map(shown).collect()
}
