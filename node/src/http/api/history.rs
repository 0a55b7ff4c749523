//! `/v1/quorate/history` and `/v1/quorate/explain/`: what happened, and why something is as it is.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode};
use quorate_client::duration;
use quorate_client::types::history::HistoryEvent;
use quorate_storage::machine::Published;
use quorate_storage::record::{Access, AclKind, HistoryRecord, Ring};
use quorate_storage::state::Rights;

use super::session::session_id;
use crate::http::blocking;
use crate::http::call::{Asked, Call};
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::heavy;
use crate::http::reply::Reply;
use crate::http::rights::{Rule, Sight};
use crate::http::wire;
use crate::live::claims;
use crate::live::explain::{self, Explained, Now, Unexplained, Whose};
use crate::live::filter::{By, Filter};
use crate::live::show;
use crate::live::sight::sees;
use crate::node::Consistency;

/// Records in one answer, unless the client asks for fewer.
const RECORDS_MAX: usize = 1_000;
/// What a filter can name at most.
const FILTER_ENTRIES_MAX: usize = 100;
/// The longest that a request waits for a record.
const WAIT_MAX: Duration = Duration::from_secs(600);
/// About how many bytes a record has in an answer.
const RECORD_BYTES: usize = 400;

const OLDEST_SEQ: HeaderName = HeaderName::from_static("x-quorate-oldest-seq");
const LAST_SEQ: HeaderName = HeaderName::from_static("x-quorate-last-seq");

/// The parameters that narrow a list, and what each names.
const FILTERS: [(&str, By); 9] = [
    ("service", By::Service),
    ("node", By::Node),
    ("id", By::Id),
    ("check", By::Check),
    ("key", By::Key),
    ("prefix", By::Prefix),
    ("session", By::Session),
    ("claim", By::Claim),
    ("kind", By::Kind),
];

/// All that a list takes.
const PARAMETERS: [&str; FILTERS.len() + 2] = {
    let mut all = ["since"; FILTERS.len() + 2];
    all[1] = "limit";
    let mut at = 0;
    while at < FILTERS.len() {
        all[at + 2] = FILTERS[at].0;
        at += 1;
    }
    all
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/v1/quorate/history")
            .get(Rule::Rows, |call| Box::pin(history(call)))
            .only_with(&PARAMETERS),
        Endpoint::new("/v1/quorate/explain/service/")
            .get(Rule::Rows, |call| Box::pin(explain_service(call))),
        Endpoint::new("/v1/quorate/explain/check/")
            .get(Rule::Rows, |call| Box::pin(explain_check(call))),
        Endpoint::new("/v1/quorate/explain/node/")
            .get(Rule::Rows, |call| Box::pin(explain_node(call))),
        Endpoint::new("/v1/quorate/explain/key/")
            .get(Rule::Rows, |call| Box::pin(explain_key(call))),
        Endpoint::new("/v1/quorate/explain/session/")
            .get(Rule::Rows, |call| Box::pin(explain_session(call))),
        Endpoint::new("/v1/quorate/explain/claim/")
            .get(Rule::Rows, |call| Box::pin(explain_claim(call))),
    ]
}

// ---- the list --------------------------------------------------------------------------------

async fn history(call: Call) -> Answer {
    call.check_datacenter()?;
    let options = call.read_options()?;
    let filter = filter(&call)?;
    let since = number(&call, "since")?;
    let limit = match number(&call, "limit")? {
        None => RECORDS_MAX,
        Some(0) => return Err(ApiError::bad_request("Invalid limit: 0")),
        Some(limit) => usize::try_from(limit).unwrap_or(RECORDS_MAX).min(RECORDS_MAX),
    };
    let wait = wait(&call)?;
    let rings = filter.rings();
    let from = since.unwrap_or(0);
    // Before the first look, so that no record falls between the look and the wait.
    let reader = wait.map(|wait| (call.node.feed().subscribe(filter.clone()), wait));
    let mut published = blocking::at_barrier(&call.node, &options).await?;
    // A stale reader may only have come to a server that is behind.
    if options.consistency != Consistency::Stale {
        is_of_this_cluster(from, published.state.history().last_seq())?;
    }
    if let Some((reader, wait)) = reader {
        let _waiting = blocking::room()?;
        let deadline = tokio::time::sleep(wait);
        tokio::pin!(deadline);
        // A token that is gone is told so at once.
        while let Ok(sight) = call.rights(&published.state)
            && found(&published, from, &rings, &filter, &sight).next().is_none()
        {
            drop(published);
            tokio::select! {
                () = reader.woken() => published = call.node.published(),
                () = &mut deadline => {
                    published = call.node.published();
                    break;
                }
                () = call.node.stopping().begun() => {
                    published = call.node.published();
                    break;
                }
            }
        }
    }
    let history = published.state.history();
    let lost = rings.iter().map(|ring| history.lost_through(*ring)).max().unwrap_or(0);
    if since.is_some_and(|since| since < lost) {
        let text = format!(
            "the history after {from} is no longer kept: the oldest record that there is for this is {}",
            lost + 1
        );
        return Err(ApiError::new(StatusCode::GONE, text));
    }
    let index = published.state.index();
    let sight = call.rights(&published.state)?;
    let records = || {
        let records = found(&published, from, &rings, &filter, &sight).take(limit);
        let shown = records.map(|record| show::event(&published, record));
        call.json(&shown.collect::<Vec<HistoryEvent>>())
    };
    let reply = heavy::render(limit * RECORD_BYTES, records).await??;
    let reply = reply.filtered_if(call.was_filtered());
    Ok(reply
        .with_read_headers(index, call.node.contact(), options.effective)
        .with(OLDEST_SEQ, HeaderValue::from(lost + 1))
        .with(LAST_SEQ, HeaderValue::from(history.last_seq())))
}

/// Behind the barrier no reader is ahead of the history, unless its place is one in that of another cluster.
fn is_of_this_cluster(since: u64, last: u64) -> Result<(), ApiError> {
    if since <= last {
        return Ok(());
    }
    let text = format!(
        "there is no record {since} here: the newest is {last}, so that number is from another cluster; begin \
         again without since"
    );
    Err(ApiError::new(StatusCode::GONE, text))
}

/// The records after a number that a filter wants and the caller may see, oldest first.
fn found<'a>(
    published: &'a Arc<Published>,
    since: u64,
    rings: &'a [Ring],
    filter: &'a Filter,
    sight: &'a Sight,
) -> impl Iterator<Item = &'a Arc<HistoryRecord>> {
    let records = published.state.history().after(since, rings);
    let wanted = records.filter(|record| filter.matches(record));
    wanted.filter(|record| sight.keeps_if(|rights| sees(rights, record)))
}

fn filter(call: &Call) -> Result<Filter, ApiError> {
    narrowed(call, Filter::default(), &FILTERS, "services, kinds and the like in one request")
}

/// A filter with what the parameters name, at most [`FILTER_ENTRIES_MAX`] `entries`.
pub(super) fn narrowed(
    call: &Call,
    mut filter: Filter,
    parameters: &[(&str, By)],
    entries: &str,
) -> Result<Filter, ApiError> {
    for (name, by) in parameters {
        for text in call.params.all(name) {
            filter.add(*by, text).map_err(ApiError::bad_request)?;
        }
    }
    if filter.entries() > FILTER_ENTRIES_MAX {
        return Err(ApiError::bad_request(format!("at most {FILTER_ENTRIES_MAX} {entries}")));
    }
    Ok(filter)
}

fn number(call: &Call, name: &str) -> Result<Option<u64>, ApiError> {
    call.params
        .filled(name)
        .map(|text| {
            text.parse().map_err(|_| ApiError::bad_request(format!("Invalid {name}: {text:?}")))
        })
        .transpose()
}

/// How long to wait; `None`: not at all.
fn wait(call: &Call) -> Result<Option<Duration>, ApiError> {
    let Some(text) = call.params.filled("wait") else { return Ok(None) };
    let nanos = duration::parse(text)
        .map_err(|error| ApiError::bad_request(format!("Invalid wait time: {error}")))?;
    let wait = Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
    Ok(Some(wait.min(WAIT_MAX)))
}

// ---- explanations ----------------------------------------------------------------------------

async fn explain_service(call: Call) -> Answer {
    let id = call.required("Missing service ID")?.to_owned();
    let agent = agent(&call)?;
    explained(&call, |published| explain::service(published, whose(&call, &agent), &id)).await
}

async fn explain_check(call: Call) -> Answer {
    let id = call.required("Missing check ID")?.to_owned();
    let agent = agent(&call)?;
    explained(&call, |published| explain::check(published, whose(&call, &agent), &id)).await
}

async fn explain_node(call: Call) -> Answer {
    let name = call.required("Missing node name")?.to_owned();
    call.require(AclKind::Node, &name, Access::Read).await?;
    explained(&call, |published| explain::node(published, &name)).await
}

async fn explain_key(call: Call) -> Answer {
    let key = call.required("Missing key name")?.to_owned();
    call.require(AclKind::Key, &key, Access::Read).await?;
    explained(&call, |published| explain::key(published, &key)).await
}

async fn explain_session(call: Call) -> Answer {
    let id = session_id(call.required("Missing session")?);
    explained(&call, |published| explain::session(published, &id)).await
}

async fn explain_claim(call: Call) -> Answer {
    let id = session_id(call.required("Missing claim ID")?);
    explained(&call, |published| explain::claim(published, &id)).await
}

/// The name of the agent whose ids come first; none with `?agent=*`.
fn agent(call: &Call) -> Result<String, ApiError> {
    Ok(match call.asked()? {
        Asked::One(agent) => agent.name.to_string(),
        Asked::All => String::new(),
    })
}

fn whose<'a>(call: &Call, agent: &'a str) -> Whose<'a> {
    match agent {
        "" => Whose::Host(agent),
        // The header would be that of a client agent, for whatever its client asks.
        _ if call.params.filled("agent").is_some() => Whose::Only(agent),
        _ if call.names_agent() => Whose::Named(agent),
        _ => Whose::Host(agent),
    }
}

async fn explained(
    call: &Call,
    explain: impl Fn(&Published) -> Result<Explained, Unexplained>,
) -> Answer {
    call.check_datacenter()?;
    let options = call.read_options()?;
    let published = blocking::at_barrier(&call.node, &options).await?;
    let sight = call.rights(&published.state)?;
    let explained = explain(&published);
    if let Some(rights) = sight.rights() {
        may_explain(rights, &published, explained.as_ref())?;
    }
    let Explained { mut explanation, now } = explained.map_err(|fault| match fault {
        Unexplained::Unknown(text) => ApiError::not_found(text),
        Unexplained::Ambiguous(text) => ApiError::new(StatusCode::CONFLICT, text),
    })?;
    if let Some(now) = now {
        explanation.now = shown(call, &published, &now)?;
    }
    let reply: Reply = call.json(&explanation)?;
    Ok(reply.with_read_headers(published.state.index(), call.node.contact(), options.effective))
}

/// Refuses to explain what a caller may not see.
fn may_explain(
    rights: &Rights,
    published: &Published,
    explained: Result<&Explained, &Unexplained>,
) -> Result<(), ApiError> {
    // An id that several hosts have: that names hosts.
    let Ok(Explained { explanation, .. }) = explained else {
        return match explained {
            Err(Unexplained::Ambiguous(_)) => {
                Ok(rights.require(AclKind::Operator, "", Access::Read)?)
            }
            Err(Unexplained::Unknown(_)) | Ok(_) => Ok(()),
        };
    };
    let subject = &explanation.subject;
    let read = |kind, name: &str| rights.require(kind, name, Access::Read);
    match subject.kind.as_str() {
        "key" => read(AclKind::Key, &subject.key)?,
        "session" => {
            let node = published.state.session(&subject.session).map(|row| &*row.node);
            read(AclKind::Session, node.unwrap_or(&subject.node))?;
        }
        "claim" => {
            let service = published.state.claim(&subject.claim).map(|row| &*row.service);
            read(AclKind::Service, service.unwrap_or(&subject.service))?;
        }
        _ => {
            read(AclKind::Node, &subject.node)?;
            if !subject.service.is_empty() {
                read(AclKind::Service, &subject.service)?;
            }
        }
    }
    Ok(())
}

/// A row as other endpoints show it.
fn shown(call: &Call, published: &Published, now: &Now) -> Result<serde_json::Value, ApiError> {
    let (state, datacenter) = (&published.state, call.node.info().datacenter);
    let value = match now {
        Now::Service(row) => match state.node(&row.node) {
            Some(node) => serde_json::to_value(wire::service_entry(state, node, row, &datacenter)),
            None => Ok(serde_json::Value::Null),
        },
        Now::Check(row) => serde_json::to_value(wire::check(state, row)),
        Now::Node(row) => serde_json::to_value(wire::node(row, &datacenter)),
        Now::Key(row) => {
            // Who may see that it is there may not see what it says.
            let mut shown = serde_json::to_value(wire::kv_pair(row));
            if let Ok(serde_json::Value::Object(members)) = &mut shown {
                members.remove("Value");
            }
            shown
        }
        Now::Session(row) => serde_json::to_value(wire::session(row)),
        Now::Claim(row) => serde_json::to_value(claims::status(state, row)),
    };
    value.map_err(|error| ApiError::internal(error.to_string()))
}
