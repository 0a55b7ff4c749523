//! Tokens.

use std::sync::Arc;

use quorate_client::duration;
use quorate_client::types::acl::AclToken;
use quorate_storage::command::{AclCommand, TokenRequest};
use quorate_storage::record::{
    self, ANONYMOUS_ACCESSOR, ANONYMOUS_SECRET, Access, AclKind, RESERVED_IDS, SecretHash, WallTime,
};
use quorate_storage::{Millis, State, Topic};
use uuid::Uuid;

use super::{
    body, change, hash_of, is_linked, links, node_identities, policies, refuse_off,
    refuse_other_id, require, roles, service_identities, uuid,
};
use crate::host::clock;
use crate::http::asker::HIDDEN;
use crate::http::blocking;
use crate::http::call::Call;
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::rights::{Rule, no_token};
use crate::live::show::date;

/// The shortest and the longest life of a token that expires (Consul's).
const LIFE_MIN: Millis = Millis::from_secs(60);
const LIFE_MAX: Millis = Millis::from_secs(24 * 3_600);
/// Go's zero time, which clients send for none.
const NEVER: &str = "0001-01-01T00:00:00Z";
/// Ends the path of a token that is to be cloned.
const CLONE: &str = "/clone";
/// Who reads the token that it sends.
const OWN: &str = "self";

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/v1/acl/token").put(Rule::Commands, |call| Box::pin(create(call))),
        Endpoint::new("/v1/acl/token/")
            .get(Rule::Rows, |call| Box::pin(read(call)))
            .put(Rule::Commands, |call| Box::pin(update(call)))
            .delete(Rule::Commands, |call| Box::pin(remove(call))),
        Endpoint::new("/v1/acl/tokens").get(Rule::Rows, |call| Box::pin(list(call))),
    ]
}

pub(super) fn gone() -> ApiError {
    no_token()
}

// ---- reads -----------------------------------------------------------------------------------

async fn read(call: Call) -> Answer {
    refuse_off(&call)?;
    let options = call.read_options()?;
    let asked = call.rest()?;
    if asked == OWN {
        return blocking::read(&call, &options, |_| Topic::AclTokens, |state| own(&call, state))
            .await;
    }
    if asked.is_empty() {
        return Err(ApiError::bad_request("Bad request: Missing token ID"));
    }
    require(&call, Access::Read).await?;
    let accessor = uuid(asked).ok_or_else(|| not_an_id("token"))?;
    let one = |state: &State| {
        let sight = call.rights(state)?;
        sight.require(AclKind::Acl, "", Access::Read)?;
        let row = state.acl_token(&accessor).ok_or_else(gone)?;
        let is_own = call.own_token(state).is_some_and(|own| own.accessor == row.accessor);
        let may_see = sight.allows(AclKind::Acl, "", Access::Write);
        let secret = call.secret().filter(|_| is_own && may_see);
        call.json(&shown(state, row, secret.unwrap_or(HIDDEN).to_owned()))
    };
    blocking::read(&call, &options, |_| Topic::AclTokens, one).await
}

fn not_an_id(what: &str) -> ApiError {
    let text = format!(
        "failed acl {what} lookup: index error: UUID must be 36 characters, with dashes in their places"
    );
    ApiError::internal(text)
}

/// The token that the request has.
fn own(call: &Call, state: &State) -> Answer {
    call.rights(state)?;
    let row = call.own_token(state).ok_or_else(gone)?;
    let secret = call.secret().unwrap_or(HIDDEN);
    call.json(&shown(state, row, secret.to_owned()))
}

async fn list(call: Call) -> Answer {
    refuse_off(&call)?;
    let options = call.read_options()?;
    let (policy, role) = (call.params.filled("policy"), call.params.filled("role"));
    if policy.is_some() && role.is_some() {
        let text = "can only filter by one of policy, role, or methodName at a time";
        return Err(ApiError::internal(text));
    }
    require(&call, Access::Read).await?;
    let all = |state: &State| {
        call.rights(state)?.require(AclKind::Acl, "", Access::Read)?;
        let rows = state.acl_tokens().filter(|row| {
            is_linked(&row.links.policies, policy) && is_linked(&row.links.roles, role)
        });
        call.json(&rows.map(|row| shown(state, row, String::new())).collect::<Vec<_>>())
    };
    blocking::read(&call, &options, |_| Topic::AclTokens, all).await
}

/// A token as it is shown, with a secret or without.
pub(super) fn shown(state: &State, row: &record::AclToken, secret: String) -> AclToken {
    let links = &row.links;
    let mut shown = AclToken {
        accessor_id: row.accessor.to_string(),
        description: row.description.clone(),
        policies: policies(state, links),
        roles: roles(state, links),
        service_identities: service_identities(links),
        node_identities: node_identities(links),
        local: row.is_local,
        expiration_time: row.expires_at.map_or_else(String::new, date),
        create_time: date(row.created_at),
        ..AclToken::default()
    };
    shown.hash = hash_of(&shown);
    shown.secret_id = match &*row.accessor {
        // Everybody knows it.
        ANONYMOUS_ACCESSOR if !secret.is_empty() => ANONYMOUS_SECRET.to_owned(),
        _ => secret,
    };
    shown.create_index = row.indexes.create.0;
    shown.modify_index = row.indexes.modify.0;
    shown
}

// ---- writes ----------------------------------------------------------------------------------

async fn create(mut call: Call) -> Answer {
    refuse_off(&call)?;
    let given: AclToken = body(&mut call, "Token").await?;
    require(&call, Access::Write).await?;
    let accessor = new_id("AccessorID", &given.accessor_id)?;
    let secret = new_id("SecretID", &given.secret_id)?;
    put(&call, accessor, Some(secret.to_string()), given, true).await
}

/// An id that was given, or else a new one.
fn new_id(what: &str, given: &str) -> Result<Arc<str>, ApiError> {
    if given.is_empty() {
        return Ok(Uuid::new_v4().to_string().into());
    }
    let id = uuid(given)
        .ok_or_else(|| ApiError::internal(format!("Invalid Token: {what} is not a valid UUID")))?;
    match id.starts_with(RESERVED_IDS) {
        false => Ok(id),
        true => Err(ApiError::internal(format!(
            "Invalid Token: UUIDs with the prefix {RESERVED_IDS:?} are reserved"
        ))),
    }
}

async fn update(mut call: Call) -> Answer {
    refuse_off(&call)?;
    let asked = call.rest()?.to_owned();
    if let Some(accessor) = asked.strip_suffix(CLONE) {
        return clone(call, accessor).await;
    }
    if asked.is_empty() {
        return Err(ApiError::bad_request("Bad request: Missing token ID"));
    }
    let given: AclToken = body(&mut call, "Token").await?;
    refuse_other_id("Token Accessor", &given.accessor_id, &asked)?;
    require(&call, Access::Write).await?;
    let accessor = uuid(&asked)
        .ok_or_else(|| ApiError::internal("Accessor ID is missing or an invalid UUID"))?;
    let secret = Some(given.secret_id.clone()).filter(|text| !text.is_empty() && text != HIDDEN);
    put(&call, accessor, secret, given, false).await
}

async fn put(
    call: &Call,
    accessor: Arc<str>,
    secret: Option<String>,
    given: AclToken,
    is_new: bool,
) -> Answer {
    if !given.rules.is_empty() {
        return Err(ApiError::internal("Rules cannot be specified for this token"));
    }
    let life = life(&given, is_new)?;
    let AclToken { description, policies, roles, service_identities, node_identities, .. } = given;
    let links = links(call, "token", policies, roles, service_identities, node_identities)?;
    let request = TokenRequest {
        accessor: accessor.clone(),
        is_new,
        secret: secret.as_deref().map(SecretHash::of),
        description,
        links,
        is_local: given.local,
        ttl: life.ttl,
        expires_at: life.expires_at,
    };
    change(call, AclCommand::PutToken(Box::new(request))).await?;
    let published = call.node.published();
    let row = published.state.acl_token(&accessor).ok_or_else(gone)?;
    let own = || {
        let is_own = call.own_token(&published.state).is_some_and(|own| own.accessor == accessor);
        call.secret().filter(|_| is_own).map(str::to_owned)
    };
    let secret = secret.or_else(own).unwrap_or_else(|| HIDDEN.to_owned());
    call.json(&shown(&published.state, row, secret))
}

/// How long a token is to live.
#[derive(Debug, Default, PartialEq, Eq)]
struct Life {
    /// Of a new one; zero: it stays.
    ttl: Millis,
    /// Of one that exists, as its client read it.
    expires_at: Option<WallTime>,
}

fn life(given: &AclToken, is_new: bool) -> Result<Life, ApiError> {
    let refused = |text: String| Err(ApiError::internal(text));
    let time =
        Some(given.expiration_time.as_str()).filter(|text| !text.is_empty() && *text != NEVER);
    let at = time.map(parse_time).transpose()?;
    if given.expiration_ttl < 0 {
        let ttl = duration::format(given.expiration_ttl);
        return refused(format!("Token Expiration TTL '{ttl}' should be > 0"));
    }
    if given.expiration_ttl != 0 && at.is_some() {
        return refused("Token Expiration TTL and Expiration Time cannot both be set".to_owned());
    }
    let given_ttl = crate::http::wire::millis(given.expiration_ttl);
    if !is_new {
        return Ok(Life { ttl: given_ttl, expires_at: at });
    }
    let now = clock::wall_time().unix_millis();
    let ttl = match at {
        None => given_ttl,
        Some(at) if at.0 <= now => {
            return refused("ExpirationTime cannot be before CreateTime".to_owned());
        }
        Some(at) => Millis(at.0 - now),
    };
    let shown = || duration::format(i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX));
    let is_given = at.is_some() || given.expiration_ttl != 0;
    if is_given && ttl < LIFE_MIN {
        let was = shown();
        return refused(format!(
            "ExpirationTime cannot be less than 1m0s in the future (was {was})"
        ));
    }
    if ttl > LIFE_MAX {
        let was = shown();
        return refused(format!(
            "ExpirationTime cannot be more than 24h0m0s in the future (was {was})"
        ));
    }
    Ok(Life { ttl, expires_at: None })
}

fn parse_time(text: &str) -> Result<WallTime, ApiError> {
    let bad = |why: String| {
        ApiError::bad_request(format!("Bad request: Token decoding failed: ExpirationTime: {why}"))
    };
    let time: jiff::Timestamp =
        text.parse().map_err(|error: jiff::Error| bad(error.to_string()))?;
    Ok(WallTime(u64::try_from(time.as_millisecond()).unwrap_or(0)))
}

async fn clone(mut call: Call, of: &str) -> Answer {
    let given: AclToken = body(&mut call, "Token").await?;
    require(&call, Access::Write).await?;
    let of = uuid(of).ok_or_else(gone)?;
    let accessor: Arc<str> = Uuid::new_v4().to_string().into();
    let secret = Uuid::new_v4().to_string();
    call.confirm(|_, state| state.acl_token(&of).map(drop).ok_or_else(gone)).await?;
    let description = Some(given.description).filter(|text| !text.is_empty());
    let command = AclCommand::CloneToken {
        of,
        accessor: accessor.clone(),
        secret: SecretHash::of(&secret),
        description,
    };
    change(&call, command).await?;
    let published = call.node.published();
    let row = published.state.acl_token(&accessor).ok_or_else(gone)?;
    call.json(&shown(&published.state, row, secret))
}

async fn remove(call: Call) -> Answer {
    refuse_off(&call)?;
    let asked = call.rest()?;
    if asked.is_empty() {
        return Err(ApiError::bad_request("Bad request: Missing token ID"));
    }
    require(&call, Access::Write).await?;
    let accessor = uuid(asked)
        .ok_or_else(|| ApiError::internal("Accessor ID is missing or an invalid UUID"))?;
    let is_own = |state: &State| call.own_token(state).is_some_and(|own| own.accessor == accessor);
    if is_own(&call.node.published().state) && &*accessor != ANONYMOUS_ACCESSOR {
        let text = "Deletion of the request's authorization token is not permitted";
        return Err(ApiError::internal(text));
    }
    change(&call, AclCommand::DeleteToken { accessor }).await?;
    call.json(&true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(given: &AclToken, is_new: bool) -> Result<Life, String> {
        life(given, is_new).map_err(|error| error.text)
    }

    #[test]
    fn a_token_lives_a_minute_to_a_day_or_stays() {
        const MINUTE: i64 = 60_000_000_000;
        let of = |nanos: i64| told(&AclToken { expiration_ttl: nanos, ..<_>::default() }, true);
        assert_eq!(of(0), Ok(Life::default()));
        assert_eq!(of(MINUTE), Ok(Life { ttl: LIFE_MIN, expires_at: None }));
        assert_eq!(
            of(MINUTE / 6).unwrap_err(),
            "ExpirationTime cannot be less than 1m0s in the future (was 10s)"
        );
        assert!(
            of(25 * 60 * MINUTE).unwrap_err().starts_with("ExpirationTime cannot be more than ")
        );
        assert_eq!(of(-60 * MINUTE).unwrap_err(), "Token Expiration TTL '-1h0m0s' should be > 0");
        let at = |time: &str| {
            told(&AclToken { expiration_time: time.to_owned(), ..<_>::default() }, true)
        };
        assert_eq!(
            at("2001-01-01T00:00:00Z").unwrap_err(),
            "ExpirationTime cannot be before CreateTime"
        );
        assert_eq!(at(NEVER), Ok(Life::default()));
    }

    #[test]
    fn an_id_is_a_uuid_that_is_not_the_clusters_own() {
        assert!(new_id("SecretID", "").is_ok());
        let refused = |given: &str| new_id("SecretID", given).unwrap_err().text;
        assert_eq!(refused("abc"), "Invalid Token: SecretID is not a valid UUID");
        assert!(refused("00000000-0000-0000-0000-0000000000aa").ends_with(" are reserved"));
    }
}
