//! `/v1/kv/`: the key-value store.

use std::sync::Arc;

use quorate_storage::command::{Command, KvDeleteMode, KvPutMode, Outcome};
use quorate_storage::limits::VALUE_BYTES_MAX;
use quorate_storage::record::{Access, AclKind};
use quorate_storage::{State, Topic};

use super::session::session_id;
use crate::http::blocking;
use crate::http::call::Call;
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::incoming::BodyLimit;
use crate::http::params::Params;
use crate::http::reply::Reply;
use crate::http::rights::{Rule, Sight};
use crate::http::wire;

const MISSING_SESSION: &str = "missing session";

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/v1/kv/")
            .get(Rule::Rows, |call| Box::pin(read(call)))
            .put(Rule::Commands, |call| Box::pin(put(call)))
            .delete(Rule::Commands, |call| Box::pin(delete(call))),
    ]
}

async fn read(call: Call) -> Answer {
    let options = call.read_options()?;
    let key: Arc<str> = call.rest()?.into();
    if call.params.has("keys") || call.params.has("recurse") {
        // Who may not list them does not wait for them either.
        call.confirm(|sight, _| may_list(&call, sight, &key)).await?;
    }
    if call.params.has("keys") {
        let topic = |_: &State| Topic::Prefix(Arc::clone(&key));
        return blocking::read(&call, &options, topic, |state| names(&call, state, &key)).await;
    }
    if call.params.has("recurse") {
        let topic = |_: &State| Topic::Prefix(Arc::clone(&key));
        return blocking::read(&call, &options, topic, |state| below(&call, state, &key)).await;
    }
    require(&key)?;
    // Who may not read it does not wait for it either.
    call.require(AclKind::Key, &key, Access::Read).await?;
    let topic = |_: &State| Topic::Key(Arc::clone(&key));
    blocking::read(&call, &options, topic, |state| one(&call, state, &key)).await
}

fn one(call: &Call, state: &State, key: &str) -> Answer {
    call.rights(state)?.require(AclKind::Key, key, Access::Read)?;
    match state.key(key) {
        None => Ok(Reply::nothing()),
        Some(entry) if call.params.has("raw") => Ok(Reply::raw(entry.value.clone())),
        Some(entry) => call.json(&[wire::kv_pair(entry)]),
    }
}

/// Asks for the right to list a prefix, where the server's settings make that a right of its own.
fn may_list(call: &Call, sight: &Sight, prefix: &str) -> Result<(), ApiError> {
    match call.process.acl {
        Some(control) if control.lists_keys => sight.require(AclKind::Key, prefix, Access::List),
        Some(_) | None => Ok(()),
    }
}

fn below(call: &Call, state: &State, prefix: &str) -> Answer {
    let sight = call.rights(state)?;
    may_list(call, &sight, prefix)?;
    let pairs = state.keys_below(prefix).filter(|entry| sight.keeps_key(&entry.key));
    let pairs: Vec<_> = pairs.map(wire::kv_pair).collect();
    match pairs.is_empty() {
        true => Ok(Reply::nothing()),
        false => call.json(&pairs),
    }
}

fn names(call: &Call, state: &State, prefix: &str) -> Answer {
    // Consul misspelt it once and takes both.
    let separator = call.params.filled("separator").or_else(|| call.params.filled("seperator"));
    let sight = call.rights(state)?;
    may_list(call, &sight, prefix)?;
    let keys = state.keys_below(prefix).map(|entry| &*entry.key);
    let keys = keys.filter(|key| sight.keeps_key(key));
    let names = cut(keys, prefix, separator.unwrap_or(""));
    match names.is_empty() && !prefix.is_empty() {
        true => Ok(Reply::nothing()),
        false => call.json(&names),
    }
}

/// Cuts each key after the first separator behind the prefix; a cut name comes once.
fn cut<'a>(keys: impl Iterator<Item = &'a str>, prefix: &str, separator: &str) -> Vec<&'a str> {
    let mut names: Vec<&str> = keys
        .map(|key| {
            let behind = key.get(prefix.len()..).unwrap_or("");
            match behind.find(separator) {
                Some(at) if !separator.is_empty() => &key[..prefix.len() + at + separator.len()],
                _ => key,
            }
        })
        .collect();
    // Keys come in order, so equal names are neighbours.
    names.dedup();
    names
}

async fn put(mut call: Call) -> Answer {
    call.read_options()?;
    let key: Arc<str> = call.rest()?.into();
    require(&key)?;
    refuse_conflict(&call.params, &["cas", "acquire", "release"])?;
    let flags = call.params.unsigned("flags")?.unwrap_or(0);
    let mode = put_mode(&call.params)?;
    let bytes_max = call.process.limits.value_bytes.unwrap_or(VALUE_BYTES_MAX);
    let value = call.body(BodyLimit::of_setting(bytes_max, "kv_max_value_size")).await?;
    call.check_datacenter()?;
    written(&call, Command::KvPut { key, value, flags, mode }).await
}

fn put_mode(params: &Params) -> Result<KvPutMode, ApiError> {
    if let Some(index) = params.unsigned("cas")? {
        return Ok(KvPutMode::Cas(index));
    }
    if let Some(session) = params.get("acquire") {
        return match session {
            "" => Err(ApiError::internal(MISSING_SESSION)),
            session => Ok(KvPutMode::Acquire(session_id(session))),
        };
    }
    if let Some(session) = params.get("release") {
        return match session {
            "" => Err(ApiError::internal(MISSING_SESSION)),
            session => Ok(KvPutMode::Release(session_id(session))),
        };
    }
    Ok(KvPutMode::Set)
}

async fn delete(call: Call) -> Answer {
    call.read_options()?;
    let key: Arc<str> = call.rest()?.into();
    let recurse = call.params.has("recurse");
    if !recurse {
        require(&key)?;
    }
    refuse_conflict(&call.params, &["recurse", "cas"])?;
    let mode = match call.params.unsigned("cas")? {
        Some(index) => KvDeleteMode::Cas(index),
        None if recurse => KvDeleteMode::Recurse,
        None => KvDeleteMode::One,
    };
    call.check_datacenter()?;
    written(&call, Command::KvDelete { key, mode }).await
}

/// Replicates a write and answers whether its condition held.
async fn written(call: &Call, command: Command) -> Answer {
    match call.propose(command).await? {
        Outcome::Condition(held) => call.json(&held),
        Outcome::Done
        | Outcome::Id(_)
        | Outcome::AppliedAt(_)
        | Outcome::Txn(_)
        | Outcome::Beats(_) => call.json(&true),
        Outcome::Rejected(rejection) => Err(rejection.into()),
    }
}

fn require(key: &str) -> Result<(), ApiError> {
    match key {
        "" => Err(ApiError::bad_request("Missing key name")),
        _ => Ok(()),
    }
}

/// Refuses parameters of which at most one may be given.
fn refuse_conflict(params: &Params, exclusive: &[&str]) -> Result<(), ApiError> {
    if exclusive.iter().filter(|name| params.has(name)).count() < 2 {
        return Ok(());
    }
    Err(ApiError::bad_request(format!("Conflicting flags: {}", params.sorted())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn params(query: &str) -> Params {
        Params::parse(query).unwrap()
    }

    #[test]
    fn names_are_cut_behind_the_first_separator() {
        let keys = ["a/b", "a/b/c", "a/b/d", "a/e", "a/ef"];
        assert_eq!(cut(keys.into_iter(), "a/", "/"), ["a/b", "a/b/", "a/e", "a/ef"]);
        assert_eq!(cut(keys.into_iter(), "a", "/"), ["a/"]);
        assert_eq!(cut(keys.into_iter(), "a/", ""), keys);
        assert_eq!(cut(["x--y--z"].into_iter(), "", "--"), ["x--"]);
    }

    #[test]
    fn the_mode_of_a_write_follows_its_parameters() {
        let session = "8a4b3b0e-6d07-4f40-9d7a-0f6a7e0d1b11";
        assert_eq!(put_mode(&params("")).unwrap(), KvPutMode::Set);
        assert_eq!(put_mode(&params("cas=7")).unwrap(), KvPutMode::Cas(7));
        assert_eq!(
            put_mode(&params(&format!("acquire={session}"))).unwrap(),
            KvPutMode::Acquire(session.into())
        );
        assert_eq!(put_mode(&params("release=abc")).unwrap(), KvPutMode::Release("abc".into()));
        for query in ["acquire=", "release="] {
            assert_eq!(put_mode(&params(query)).unwrap_err().text, "missing session");
        }
        // One letter case for every way to name a session.
        assert_eq!(
            put_mode(&params(&format!("acquire={}", session.to_uppercase()))).unwrap(),
            KvPutMode::Acquire(session.into())
        );
        // Whether there is such a session is for the state to say.
        assert_eq!(put_mode(&params("acquire=Abc")).unwrap(), KvPutMode::Acquire("Abc".into()));
    }

    #[test]
    fn conflicting_parameters_are_quoted_in_order() {
        let exclusive = ["cas", "acquire", "release"];
        let error = refuse_conflict(&params("cas=0&acquire=abc"), &exclusive).unwrap_err();
        assert_eq!(error.text, "Conflicting flags: acquire=abc&cas=0");
        refuse_conflict(&params("cas=0&flags=2"), &exclusive).unwrap();
    }

    proptest! {
        #[test]
        fn cutting_keeps_the_prefix_and_the_order(
            mut keys in proptest::collection::btree_set("p[a-c/\u{e9}]{0,6}", 0..12),
            separator in "[/c\u{e9}]{0,2}",
        ) {
            keys.insert("p".to_owned());
            let names = cut(keys.iter().map(String::as_str), "p", &separator);
            prop_assert!(names.iter().all(|name| name.starts_with('p')));
            prop_assert!(names.is_sorted());
        }
    }
}
