//! The instances that a prepared query leaves.

use std::sync::Arc;

use quorate_storage::State;
use quorate_storage::record::{CheckStatus, Node, QueryDefinition, SecretHash, Service, TextMap};

/// An instance with its node.
pub(crate) type Instance<'a> = (&'a Arc<Node>, &'a Arc<Service>);

/// The instances that a query leaves: none with a critical check, and what its filters ask for.
pub(crate) fn usable<'a>(state: &'a State, query: &QueryDefinition) -> Vec<Instance<'a>> {
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

/// The hash of the token in whose name a query runs, if it has one of its own.
pub(crate) fn token_of(query: &QueryDefinition) -> Option<SecretHash> {
    match query.token.as_str() {
        "" => None,
        // One that was kept before tokens counted is kept as it was given.
        kept => Some(SecretHash::from_text(kept).unwrap_or_else(|| SecretHash::of(kept))),
    }
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
