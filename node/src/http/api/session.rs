//! `/v1/session/`: what locks are bound to.
//!
//! A session belongs to the agent of the host that makes it, so that it ends with that host's node.

use std::sync::Arc;

use quorate_client::duration;
use quorate_client::types::session::{Created, SessionCreate};
use quorate_storage::command::{Agent, Command, SessionRequest};
use quorate_storage::record::{AclKind, SERF_HEALTH, Session, SessionBehavior};
use quorate_storage::{Millis, State, Topic};
use serde_json::Value;

use super::catalog::uuid;
use crate::http::blocking;
use crate::http::call::Call;
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::rights::{Rule, Sight};
use crate::http::wire;

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// The lock delay of a session that does not say one.
const DEFAULT_LOCK_DELAY_NANOS: i64 = 15 * NANOS_PER_SECOND;

/// A lock delay given as a number below this means seconds, otherwise nanoseconds (Consul's rule).
const LOCK_DELAY_SECONDS_BELOW: i64 = 1_000;

/// The shortest TTL, unless the operator says otherwise.
pub(super) const TTL_MIN_NANOS: i64 = 10 * NANOS_PER_SECOND;

/// The longest TTL.
const TTL_MAX_NANOS: i64 = 24 * 3_600 * NANOS_PER_SECOND;

const MISSING_SESSION: &str = "Missing session";

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/v1/session/create").put(Rule::Commands, |call| Box::pin(create(call))),
        Endpoint::new("/v1/session/destroy/").put(Rule::Commands, |call| Box::pin(destroy(call))),
        Endpoint::new("/v1/session/renew/").put(Rule::Commands, |call| Box::pin(renew(call))),
        Endpoint::new("/v1/session/info/").get(Rule::Rows, |call| Box::pin(info(call))),
        Endpoint::new("/v1/session/node/").get(Rule::Rows, |call| Box::pin(of_node(call))),
        Endpoint::new("/v1/session/list").get(Rule::Rows, |call| Box::pin(list(call))),
    ]
}

/// A session's id in the letter case in which it was made. What does not look like one is an id that nobody
/// has, as in Consul since 1.11, and stays as it is, to be quoted so.
pub(super) fn session_id(text: &str) -> Arc<str> {
    uuid(text).unwrap_or_else(|| text.into())
}

// ---- writes ----------------------------------------------------------------------------------

async fn create(mut call: Call) -> Answer {
    call.check_datacenter()?;
    // Without a body, all defaults. Whether there is one is only known once it was read: a chunked one,
    // and one over HTTP/2, need not have a declared length. (Consul ignores those, so that a session
    // with a TTL becomes one without.)
    let body = call.decode_if_any().await?.unwrap_or_default();
    let agent = call.agent()?;
    let id = uuid::Uuid::new_v4().to_string();
    let ttl_min = call.process.limits.session_ttl_min_nanos.unwrap_or(TTL_MIN_NANOS);
    let request = request(body, id.as_str().into(), agent, ttl_min)?;
    call.propose(Command::SessionCreate(Box::new(request))).await?;
    call.json(&Created { id })
}

/// Judges a request by what it says alone, in the order in which Consul complains.
fn request(
    body: SessionCreate,
    id: Arc<str>,
    agent: Agent,
    ttl_min_nanos: i64,
) -> Result<SessionRequest, ApiError> {
    let lock_delay = lock_delay(&body.lock_delay)
        .map_err(|fault| ApiError::bad_request(format!("Request decode failed: {fault}")))?;
    let behavior = match body.behavior.as_str() {
        "" | "release" => SessionBehavior::Release,
        "delete" => SessionBehavior::Delete,
        other => return Err(ApiError::internal(format!("Invalid Behavior setting '{other}'"))),
    };
    let ttl = ttl(&body.ttl, ttl_min_nanos)?;
    let no_checks = body.checks.as_ref().is_some_and(Vec::is_empty);
    let node_checks = match body.node_checks {
        Some(given) => given,
        None if no_checks => Vec::new(),
        None => vec![SERF_HEALTH.to_owned()],
    };
    let service_checks = body
        .service_checks
        .map(|given| given.into_iter().map(|check| (check.id, check.namespace)).collect());
    Ok(SessionRequest {
        id,
        agent,
        node: body.node.into(),
        name: body.name,
        lock_delay_nanos: lock_delay.unsigned_abs(),
        behavior,
        ttl_text: body.ttl,
        ttl,
        node_checks,
        service_checks,
        checks: body.checks.filter(|given| !given.is_empty()),
    })
}

/// A lock delay in nanoseconds: a duration, or a number whose size tells its unit. A negative one is
/// none.
fn lock_delay(given: &Value) -> Result<i64, String> {
    let nanos = match given {
        Value::Null => DEFAULT_LOCK_DELAY_NANOS,
        Value::String(text) => duration::parse(text).map_err(|error| error.to_string())?,
        Value::Number(number) => {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the fraction is dropped, as by Go"
            )]
            let whole = |fraction: f64| fraction as i64;
            let number = number.as_i64().or_else(|| number.as_f64().map(whole)).unwrap_or(0);
            match number < LOCK_DELAY_SECONDS_BELOW {
                true => number.saturating_mul(NANOS_PER_SECOND),
                false => number,
            }
        }
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            return Err("LockDelay must be a duration".to_owned());
        }
    };
    Ok(nanos.max(0))
}

/// A TTL; zero is none. Clients look at how these texts begin.
fn ttl(text: &str, min_nanos: i64) -> Result<Millis, ApiError> {
    if text.is_empty() {
        return Ok(Millis(0));
    }
    let nanos = duration::parse(text)
        .map_err(|error| ApiError::internal(format!("Session TTL '{text}' invalid: {error}")))?;
    if nanos != 0 && !(min_nanos..=TTL_MAX_NANOS).contains(&nanos) {
        let min = duration::format(min_nanos);
        return Err(ApiError::internal(format!(
            "Invalid Session TTL '{nanos}', must be between [{min}=24h0m0s]"
        )));
    }
    Ok(wire::millis(nanos))
}

async fn destroy(call: Call) -> Answer {
    call.check_datacenter()?;
    let id = session_id(call.required(MISSING_SESSION)?);
    call.propose(Command::SessionDestroy { id }).await?;
    call.json(&true)
}

async fn renew(call: Call) -> Answer {
    call.check_datacenter()?;
    let asked = call.required(MISSING_SESSION)?;
    let id = session_id(asked);
    call.propose(Command::SessionRenew { id: Arc::clone(&id), seen: call.seen() }).await?;
    // This node has applied the renewal, so the session is in its state unless it ended since.
    let published = call.node.published();
    match published.state.session(&id) {
        Some(session) => call.json(&[wire::session(session)]),
        None => Err(ApiError::not_found(format!("Session id '{asked}' not found"))),
    }
}

// ---- reads -----------------------------------------------------------------------------------

async fn info(call: Call) -> Answer {
    let id = session_id(call.required(MISSING_SESSION)?);
    let options = call.read_options()?;
    let shown = |state: &State| {
        let sight = call.rights(state)?;
        let session = state.session(&id).filter(|row| keeps(&sight, row));
        let session = session.map(|session| wire::session(session));
        call.json(&session.into_iter().collect::<Vec<_>>())
    };
    blocking::read(&call, &options, |_| Topic::Sessions, shown).await
}

async fn of_node(call: Call) -> Answer {
    let node = call.required("Missing node name")?;
    sessions(&call, |session| session.node.eq_ignore_ascii_case(node)).await
}

async fn list(call: Call) -> Answer {
    sessions(&call, |_| true).await
}

fn keeps(sight: &Sight, session: &Session) -> bool {
    sight.keeps_named(AclKind::Session, &session.node)
}

/// The sessions that `is_shown` leaves and the caller may see, by id.
async fn sessions(call: &Call, is_shown: impl Fn(&Session) -> bool) -> Answer {
    let options = call.read_options()?;
    let shown = |state: &State| {
        let sight = call.rights(state)?;
        let sessions = state.sessions().filter(|row| is_shown(row) && keeps(&sight, row));
        call.json(&sessions.map(|session| wire::session(session)).collect::<Vec<_>>())
    };
    blocking::read(call, &options, |_| Topic::Sessions, shown).await
}

#[cfg(test)]
mod tests {
    use crate::http::decode;
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<SessionRequest, String> {
        let agent = Agent { name: "a".into(), id: String::new(), address: String::new() };
        let body = decode::body(text.as_bytes()).map_err(|error| error.to_string())?;
        request(body, "id".into(), agent, TTL_MIN_NANOS)
            .map_err(|error| format!("{}: {}", error.status.as_u16(), error.text))
    }

    #[test]
    fn a_session_without_settings_has_those_of_consul() {
        let read = read("{}").unwrap();
        assert_eq!(read.lock_delay_nanos, 15_000_000_000);
        assert_eq!((read.behavior, read.ttl), (SessionBehavior::Release, Millis(0)));
        assert_eq!((read.node_checks, read.checks), (vec!["serfHealth".to_owned()], None));
    }

    #[test]
    fn a_lock_delay_is_a_duration_or_a_number_whose_size_tells_its_unit() {
        for (given, nanos) in [
            (json!("1500ms"), 1_500_000_000),
            (json!("0.001s"), 1_000_000),
            (json!(20), 20_000_000_000),
            (json!(2_000_000_000_i64), 2_000_000_000),
            (json!(0.001), 0),
            (json!(-5), 0),
            (Value::Null, 15_000_000_000),
        ] {
            assert_eq!(lock_delay(&given), Ok(nanos), "{given}");
        }
        for given in [json!("20"), json!("abc"), json!(true), json!({})] {
            lock_delay(&given).unwrap_err();
        }
    }

    #[test]
    fn a_ttl_is_refused_in_the_words_that_clients_look_for() {
        for (text, words) in [
            (
                r#"{"TTL":"9s"}"#,
                "500: Invalid Session TTL '9000000000', must be between [10s=24h0m0s]",
            ),
            (
                r#"{"TTL":"25h"}"#,
                "500: Invalid Session TTL '90000000000000', must be between [10s=24h0m0s]",
            ),
            (r#"{"TTL":"abc"}"#, "500: Session TTL 'abc' invalid: time: invalid duration \"abc\""),
            (r#"{"Behavior":"keep"}"#, "500: Invalid Behavior setting 'keep'"),
            (r#"{"LockDelay":"x"}"#, "400: Request decode failed: time: invalid duration \"x\""),
        ] {
            assert_eq!(read(text).unwrap_err(), words, "{text}");
        }
        assert_eq!(read(r#"{"ttl":"15.0s","nope":1}"#).unwrap().ttl, Millis::from_secs(15));
        assert_eq!(read(r#"{"TTL":"0s"}"#).unwrap().ttl, Millis(0));
    }

    #[test]
    fn an_empty_list_means_no_checks_and_the_old_list_adds_to_the_default() {
        let none: Vec<String> = Vec::new();
        let checks = |text: &str| read(text).map(|read| (read.node_checks, read.checks)).unwrap();
        assert_eq!(checks(r#"{"Checks":[]}"#), (none.clone(), None));
        assert_eq!(checks(r#"{"NodeChecks":[]}"#), (none, None));
        assert_eq!(
            checks(r#"{"Checks":["service:x"]}"#),
            (vec!["serfHealth".to_owned()], Some(vec!["service:x".to_owned()]))
        );
    }

    #[test]
    fn the_letter_case_of_an_id_does_not_matter() {
        let id = "8a4b3b0e-6d07-4f40-9d7a-0f6a7e0d1b11";
        assert_eq!(&*session_id(&id.to_uppercase()), id);
        for id in ["Abc", "", "8A4b3b0e6d074f409d7a0f6a7e0d1b11abcd"] {
            assert_eq!(&*session_id(id), id);
        }
    }
}
