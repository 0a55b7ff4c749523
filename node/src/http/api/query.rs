//! `/v1/query`: prepared queries, look-ups of a service that are stored under a name.

mod execute;

use axum::http::header::ALLOW;
use axum::http::{HeaderValue, Method, StatusCode};
use quorate_client::duration;
use quorate_client::types::query::{
    PreparedQuery, QueryDns, QueryExplanation, QueryFailover, QueryTemplate, ServiceQuery,
};
use quorate_client::types::session::Created;
use quorate_storage::command::Command;
use quorate_storage::record::{Access, AclKind, Query, QueryDefinition, SecretHash};
use quorate_storage::state::Rights;
use quorate_storage::{State, Topic};

use crate::discovery::template;
use crate::http::asker::HIDDEN;
use crate::http::blocking;
use crate::http::call::Call;
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::reply::Reply;
use crate::http::rights::{Rule, Sight};
use crate::http::wire;

/// The kind of a template: it answers for all names that begin with its own.
const NAME_PREFIX_MATCH: &str = "name_prefix_match";

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/v1/query")
            .get(Rule::Rows, |call| Box::pin(list(call)))
            .post(Rule::Commands, |call| Box::pin(create(call))),
        Endpoint::new("/v1/query/")
            .get(Rule::Rows, |call| Box::pin(look(call)))
            .put(Rule::Commands, |call| Box::pin(update(call)))
            .delete(Rule::Commands, |call| Box::pin(remove(call))),
    ]
}

/// Whether a query is among those that are listed for somebody. One without a name is known by its id alone.
fn lists(rights: &Rights, query: &Query) -> bool {
    let definition = &query.definition;
    match definition.is_named() {
        true => rights.allows(AclKind::Query, &definition.name, Access::Read),
        false => rights.allows(AclKind::Acl, "", Access::Write),
    }
}

/// Refuses to show a query that has a name.
fn may_read(sight: &Sight, definition: &QueryDefinition) -> Result<(), ApiError> {
    match definition.is_named() {
        true => sight.require(AclKind::Query, &definition.name, Access::Read),
        false => Ok(()),
    }
}

/// Its token as it is kept where tokens count: only its hash.
fn keep_token(call: &Call, query: &mut QueryDefinition) {
    if call.asker().is_none() || query.token.is_empty() {
        return;
    }
    query.token = match query.token.as_str() {
        // What was shown comes back: it stays as it was.
        HIDDEN => {
            let published = call.node.published();
            let old = published.state.query(&query.id);
            old.map_or_else(String::new, |old| old.definition.token.clone())
        }
        secret => SecretHash::of(secret).to_string(),
    };
}

/// Where tokens count, a query's own is not shown: there is only its hash.
fn shown_to(call: &Call, query: &Query) -> PreparedQuery {
    let mut shown = shown(query);
    if call.asker().is_some() && !shown.token.is_empty() {
        HIDDEN.clone_into(&mut shown.token);
    }
    shown
}

fn not_found() -> ApiError {
    ApiError::not_found("Query not found")
}

// ---- reads -----------------------------------------------------------------------------------

async fn list(call: Call) -> Answer {
    let options = call.read_options()?;
    let all = |state: &State| {
        let sight = call.rights(state)?;
        let seen = state.queries().filter(|row| sight.keeps_if(|rights| lists(rights, row)));
        call.json(&seen.map(|query| shown_to(&call, query)).collect::<Vec<_>>())
    };
    blocking::read(&call, &options, |_| Topic::Queries, all).await
}

/// `GET` on what lies below: a query, its execution, or its explanation.
async fn look(call: Call) -> Answer {
    let asked = call.rest()?.to_owned();
    if let Some(name) = asked.strip_suffix("/execute") {
        return execute::execute(&call, name).await;
    }
    if let Some(name) = asked.strip_suffix("/explain") {
        return explain(&call, name).await;
    }
    let options = call.read_options()?;
    let one = |state: &State| match state.query(&asked.to_lowercase()) {
        Some(query) => {
            may_read(&call.rights(state)?, &query.definition)?;
            call.json(&[shown_to(&call, query)])
        }
        None => {
            call.rights(state)?;
            Err(not_found())
        }
    };
    blocking::read(&call, &options, |_| Topic::Queries, one).await
}

async fn explain(call: &Call, name: &str) -> Answer {
    let options = call.read_options()?;
    // It does not block, as running it does not.
    call.check_datacenter()?;
    let published = blocking::at_barrier(&call.node, &options).await?;
    let query = template::resolve(&published.state, name).ok_or_else(not_found)?;
    let query = query.map_err(ApiError::internal)?;
    may_read(&call.rights(&published.state)?, &query.definition)?;
    let contact = call.node.contact();
    let answer = QueryExplanation {
        query: shown_to(call, &query),
        last_contact: wire::nanos(contact.last_contact).unsigned_abs(),
        known_leader: contact.known_leader,
        consistency_level: options.effective.to_owned(),
        ..QueryExplanation::default()
    };
    let index = published.state.topic_index(&Topic::Queries);
    Ok(call.json(&answer)?.with_read_headers(index, contact, options.effective))
}

// ---- writes ----------------------------------------------------------------------------------

async fn create(mut call: Call) -> Answer {
    call.check_datacenter()?;
    let mut body: PreparedQuery = call.decode().await?;
    if !body.id.is_empty() {
        return Err(ApiError::internal("ID must be empty when creating a new prepared query"));
    }
    body.id = uuid::Uuid::new_v4().to_string();
    let mut query = Box::new(definition(body)?);
    keep_token(&call, &mut query);
    let id = query.id.to_string();
    call.propose(Command::PutQuery { query, is_new: true }).await?;
    call.json(&Created { id })
}

/// What can only be looked at, refused as the endpoint refuses a method that it does not have.
fn read_only(call: &Call, method: &Method) -> Result<Option<Reply>, ApiError> {
    let asked = call.rest()?;
    let refuses = asked.ends_with("/execute") || asked.ends_with("/explain");
    Ok(refuses.then(|| {
        Reply::text(format!("method {method} not allowed"))
            .status(StatusCode::METHOD_NOT_ALLOWED)
            .with(ALLOW, HeaderValue::from_static("OPTIONS,GET"))
    }))
}

async fn update(mut call: Call) -> Answer {
    if let Some(refusal) = read_only(&call, &Method::PUT)? {
        return Ok(refusal);
    }
    call.check_datacenter()?;
    let id = call.rest()?.to_lowercase();
    let mut body: PreparedQuery = call.decode().await?;
    body.id = id;
    let mut query = Box::new(definition(body)?);
    keep_token(&call, &mut query);
    call.propose(Command::PutQuery { query, is_new: false }).await?;
    Ok(Reply::empty())
}

async fn remove(call: Call) -> Answer {
    if let Some(refusal) = read_only(&call, &Method::DELETE)? {
        return Ok(refusal);
    }
    call.check_datacenter()?;
    let id = call.rest()?.to_lowercase().into();
    call.propose(Command::DeleteQuery { id }).await?;
    Ok(Reply::empty())
}

/// Judges a query by what it says alone.
fn definition(body: PreparedQuery) -> Result<QueryDefinition, ApiError> {
    let invalid = |fault: String| ApiError::internal(format!("Invalid prepared query: {fault}"));
    let PreparedQuery { id, name, session, token, template, service, dns, .. } = body;
    if name.is_empty() && session.is_empty() && template.kind.is_empty() {
        return Err(invalid("Must be bound to a session".to_owned()));
    }
    if service.service.is_empty() {
        return Err(invalid("Must provide a Service name to query".to_owned()));
    }
    if service.failover.nearest_n < 0 {
        let nearest = service.failover.nearest_n;
        return Err(invalid(format!("Bad NearestN '{nearest}', must be >= 0")));
    }
    if !dns.ttl.is_empty() {
        let ttl = duration::parse(&dns.ttl)
            .map_err(|error| invalid(format!("Bad DNS TTL '{}': {error}", dns.ttl)))?;
        if ttl < 0 {
            return Err(invalid(format!("DNS TTL '{}', must be >=0", dns.ttl)));
        }
    }
    let query = QueryDefinition {
        id: id.into(),
        name,
        session: session.to_lowercase().into(),
        token,
        template_kind: template.kind,
        template_regexp: template.regexp,
        remove_empty_tags: template.remove_empty_tags,
        service: service.service,
        failover_nearest: service.failover.nearest_n,
        failover_datacenters: service.failover.datacenters,
        only_passing: service.only_passing,
        ignored_checks: service.ignore_check_ids,
        near: service.near,
        tags: service.tags,
        node_meta: service.node_meta,
        service_meta: service.service_meta,
        connect: service.connect,
        dns_ttl: dns.ttl,
    };
    let compiled = match query.template_kind.as_str() {
        "" => Ok(()),
        NAME_PREFIX_MATCH => template::validate(&query),
        other => Err(format!("Bad Template.Type '{other}'")),
    };
    compiled.map_err(|fault| ApiError::internal(format!("failed compiling template: {fault}")))?;
    Ok(query)
}

fn shown(query: &Query) -> PreparedQuery {
    let Query { definition, indexes } = query;
    PreparedQuery {
        id: definition.id.to_string(),
        name: definition.name.clone(),
        session: definition.session.to_string(),
        token: definition.token.clone(),
        template: QueryTemplate {
            kind: definition.template_kind.clone(),
            regexp: definition.template_regexp.clone(),
            remove_empty_tags: definition.remove_empty_tags,
        },
        service: ServiceQuery {
            service: definition.service.clone(),
            failover: QueryFailover {
                nearest_n: definition.failover_nearest,
                datacenters: definition.failover_datacenters.clone(),
            },
            only_passing: definition.only_passing,
            ignore_check_ids: definition.ignored_checks.clone(),
            near: definition.near.clone(),
            tags: definition.tags.clone(),
            node_meta: definition.node_meta.clone(),
            service_meta: definition.service_meta.clone(),
            connect: definition.connect,
        },
        dns: QueryDns { ttl: definition.dns_ttl.clone() },
        create_index: indexes.create.0,
        modify_index: indexes.modify.0,
    }
}

#[cfg(test)]
mod tests {
    use crate::http::decode;

    use super::*;

    fn read(text: &str) -> Result<QueryDefinition, String> {
        let body = decode::body(text.as_bytes()).map_err(|error| error.to_string())?;
        definition(body).map_err(|error| error.text)
    }

    #[test]
    fn a_query_is_refused_in_the_words_of_consul() {
        for (text, words) in [
            (
                r#"{"Service":{"Service":"web"}}"#,
                "Invalid prepared query: Must be bound to a session",
            ),
            (r#"{"Name":"q"}"#, "Invalid prepared query: Must provide a Service name to query"),
            (
                r#"{"Name":"q","Template":{"Type":"x"},"Service":{"Service":"web"}}"#,
                "failed compiling template: Bad Template.Type 'x'",
            ),
            (
                r#"{"Template":{"Type":"name_prefix_match","Regexp":"^(a$"},"Service":{"Service":"${match(1)}"}}"#,
                "failed compiling template: Bad Regexp: ",
            ),
            (
                r#"{"Template":{"Type":"name_prefix_match"},"Service":{"Service":"${name.fu}"}}"#,
                "failed compiling template: Bad format '${name.fu}' in Service.Service: ",
            ),
            (
                r#"{"Name":"q","Service":{"Service":"web","Failover":{"NearestN":-1}}}"#,
                "Invalid prepared query: Bad NearestN '-1', must be >= 0",
            ),
            (
                r#"{"Name":"q","Service":{"Service":"web"},"DNS":{"TTL":"7"}}"#,
                "Invalid prepared query: Bad DNS TTL '7': time: missing unit in duration \"7\"",
            ),
            (r#"{"Nope":1}"#, "json: unknown field \"Nope\""),
        ] {
            let told = read(text).unwrap_err();
            // What follows are a library's words.
            let is_told =
                if words.ends_with(' ') { told.starts_with(words) } else { told == words };
            assert!(is_told, "{text}: {told}");
        }
    }

    #[test]
    fn a_query_is_shown_as_it_was_given() {
        let text = r#"{"Name":"q","Service":{"Service":"web","Tags":["!a"],"OnlyPassing":true,
            "Failover":{"NearestN":2,"Datacenters":["dc2"]}},"DNS":{"TTL":"7s"}}"#;
        let query = Query { definition: read(text).unwrap(), indexes: Default::default() };
        let shown = shown(&query);
        assert_eq!((shown.name.as_str(), shown.dns.ttl.as_str()), ("q", "7s"));
        assert_eq!(shown.service.tags, Some(vec!["!a".to_owned()]));
        assert_eq!(shown.service.failover.nearest_n, 2);
    }
}
