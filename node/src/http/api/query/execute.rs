//! Running a prepared query: the usable instances of its service.

use quorate_client::types::query::{QueryDns, QueryExecution};
use quorate_storage::Topic;
use rand::seq::SliceRandom as _;

use super::not_found;
use crate::discovery::near::sort_by_distance;
use crate::discovery::query::{Instance, token_of, usable};
use crate::discovery::template;
use crate::http::blocking::{self, Fetched};
use crate::http::call::Call;
use crate::http::endpoint::Answer;
use crate::http::error::ApiError;
use crate::http::near;
use crate::http::params::Params;
use crate::http::wire;

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
    // With its own token, else with that of who asks (Consul's rule).
    let sight = match token_of(definition) {
        Some(secret) => call.rights_of(state, &secret)?,
        None => call.rights(state)?,
    };
    let mut instances = usable(state, definition);
    instances.retain(|(node, row)| sight.keeps_instance(&node.name, &row.definition.name));
    // A random order, so that clients that take the first spread over all.
    instances.shuffle(&mut rand::rng());
    let near = call.params.get("near").or(Some(&definition.near));
    if let Some(from) = near::named_node(call, state, near) {
        sort_by_distance(state, &from, &mut instances, |(node, _)| &node.name);
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
    let reply = call.json(&answer)?.filtered_if(call.was_filtered());
    let reply = reply.with_read_headers(index, contact, options.effective);
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
