//! Running a prepared query: the usable instances of its service.

use std::sync::Arc;

use quorate_client::types::query::{QueryDns, QueryExecution};
use quorate_storage::record::{CheckStatus, Node, QueryDefinition, Service, TextMap};
use quorate_storage::{State, Topic};
use rand::seq::SliceRandom as _;

use super::{not_found, template};
use crate::http::blocking::{self, Fetched};
use crate::http::call::Call;
use crate::http::endpoint::Answer;
use crate::http::error::ApiError;
use crate::http::near;
use crate::http::params::Params;
use crate::http::wire;

/// An instance with its node.
type Instance<'a> = (&'a Arc<Node>, &'a Arc<Service>);

/// `GET /v1/query/:id-or-name/execute[?limit&near]`.
pub(super) async fn execute(call: &Call, name: &str) -> Answer {
    let options = call.cached_read_options()?;
    let limit = limit(&call.params)?;
    // It does not block: an index is ignored, as by Consul.
    call.check_datacenter()?;
    let Fetched { published, cache } = blocking::fetch(&call.node, &options).await?;
    let state = &published.state;
    let query = template::resolve(state, name).ok_or_else(not_found)?;
    let query = query.map_err(ApiError::internal)?;
    let definition = &query.definition;
    let mut instances = usable(state, definition);
    // A random order, so that clients that take the first spread over all.
    instances.shuffle(&mut rand::rng());
    let near = call.params.get("near").or(Some(&definition.near));
    if let Some(from) = near::named_node(call, state, near) {
        near::sort(state, &from, &mut instances, |(node, _)| &node.name);
    }
    instances.truncate(limit);
    let contact = call.node.contact();
    let datacenter = &call.node.info().datacenter;
    let entry =
        |(node, service): Instance<'_>| wire::service_entry(state, node, service, datacenter);
    let answer = QueryExecution {
        service: definition.service.clone(),
        nodes: instances.into_iter().map(entry).collect(),
        dns: QueryDns { ttl: definition.dns_ttl.clone() },
        datacenter: datacenter.clone(),
        last_contact: wire::nanos(contact.last_contact).unsigned_abs(),
        known_leader: contact.known_leader,
        consistency_level: options.effective.to_owned(),
        ..QueryExecution::default()
    };
    let index = state.topic_index(&Topic::Queries);
    let reply = call.json(&answer)?.with_read_headers(index, contact, options.effective);
    Ok(reply.with_cache(cache, contact))
}

/// How many instances are wanted.
fn limit(params: &Params) -> Result<usize, ApiError> {
    match params.filled("limit") {
        None => Ok(usize::MAX),
        Some(text) => match text.parse::<i64>() {
            // None, zero and less are no limit.
            Ok(limit) => {
                Ok(usize::try_from(limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX))
            }
            Err(_) => Err(ApiError::internal(format!(
                "Bad limit: strconv.Atoi: parsing {text:?}: invalid syntax"
            ))),
        },
    }
}

/// The instances that a query leaves: none with a critical check, and what its filters ask for.
pub(super) fn usable<'a>(state: &'a State, query: &QueryDefinition) -> Vec<Instance<'a>> {
    // Collected, because the state's iterator borrows the name.
    let instances: Vec<_> = state.instances(&query.service).collect();
    instances
        .into_iter()
        .filter_map(|service| Some((state.node(&service.node)?, service)))
        .filter(|(node, service)| {
            is_healthy(state, service, query)
                && has_tags(&service.definition.tags, query.tags.as_deref().unwrap_or_default())
                && has_meta(node.meta.as_ref(), query.node_meta.as_ref())
                && has_meta(service.definition.meta.as_ref(), query.service_meta.as_ref())
        })
        .collect()
}

fn is_healthy(state: &State, service: &Service, query: &QueryDefinition) -> bool {
    let ignored = query.ignored_checks.as_deref().unwrap_or_default();
    state
        .checks_of(service)
        .filter(|check| !ignored.iter().any(|id| **id == *check.registration.id))
        .all(|check| match &check.registration.status {
            CheckStatus::Passing => true,
            CheckStatus::Critical => false,
            CheckStatus::Warning | CheckStatus::Other(_) => !query.only_passing,
        })
}

/// All tags without a `!` must be there, and none of those with one.
fn has_tags(own: &[String], wanted: &[String]) -> bool {
    let has = |tag: &str| own.iter().any(|own| own.eq_ignore_ascii_case(tag));
    wanted.iter().all(|tag| match tag.strip_prefix('!') {
        Some(unwanted) => !has(unwanted),
        None => has(tag),
    })
}

fn has_meta(own: Option<&TextMap>, wanted: Option<&TextMap>) -> bool {
    let has = |key: &String, value: &String| own.is_some_and(|own| own.get(key) == Some(value));
    wanted.is_none_or(|wanted| wanted.iter().all(|(key, value)| has(key, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(tags: &[&str]) -> Vec<String> {
        tags.iter().map(|tag| (*tag).to_owned()).collect()
    }

    #[test]
    fn a_limit_that_is_not_positive_is_none() {
        let read = |query: &str| limit(&Params::parse(query).unwrap()).map_err(|error| error.text);
        for query in ["", "limit", "limit=0", "limit=-1"] {
            assert_eq!(read(query), Ok(usize::MAX), "{query}");
        }
        assert_eq!(read("limit=2"), Ok(2));
        let refused = read("limit=x").unwrap_err();
        assert_eq!(refused, "Bad limit: strconv.Atoi: parsing \"x\": invalid syntax");
    }

    #[test]
    fn tags_are_wanted_or_unwanted_in_any_case() {
        let own = texts(&["Blue", "v1"]);
        for (wanted, has) in [
            (texts(&[]), true),
            (texts(&["blue"]), true),
            (texts(&["blue", "v2"]), false),
            (texts(&["!BLUE"]), false),
            (texts(&["!green", "v1"]), true),
        ] {
            assert_eq!(has_tags(&own, &wanted), has, "{wanted:?}");
        }
    }
}
