//! Which query a name means, and templates that answer for many names.
//!
//! A name means the query with that id, else the one with that name, else the template with the
//! longest name that it begins with. In a template's texts `${name.full}`, `${name.prefix}`,
//! `${name.suffix}` and `${match(N)}` stand for the name that was asked for, its parts, and the groups
//! of the template's regular expression.

use std::sync::{Arc, LazyLock};

use quorate_storage::State;
use quorate_storage::record::{Query, QueryDefinition};
use regex::{Captures, Regex};

use super::super::regexp;

/// What stands for something else in a template's texts.
static PLACEHOLDER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\$\{([^}]*)\}").expect("the expression for placeholders is well-formed")
});

/// The query that an id or name means, with its template filled in; why it cannot be, if it cannot.
pub(super) fn resolve(state: &State, name: &str) -> Option<Result<Arc<Query>, String>> {
    if let Some(query) = state.query(&name.to_lowercase()) {
        return Some(Ok(Arc::clone(query)));
    }
    let named = |query: &&Arc<Query>| {
        query.definition.template_kind.is_empty() && query.definition.name == name
    };
    if let Some(query) = state.queries().filter(|_| !name.is_empty()).find(named) {
        return Some(Ok(Arc::clone(query)));
    }
    let fits = |query: &&Arc<Query>| {
        !query.definition.template_kind.is_empty() && name.starts_with(&query.definition.name)
    };
    let template = state.queries().filter(fits).max_by_key(|query| query.definition.name.len())?;
    let filled = fill(&template.definition, name);
    Some(filled.map(|definition| Arc::new(Query { definition, indexes: template.indexes })))
}

fn fill(template: &QueryDefinition, name: &str) -> Result<QueryDefinition, String> {
    let groups = regexp::compile(&template.template_regexp)?;
    let groups = groups.as_ref().and_then(|pattern| pattern.captures(name));
    let filled = |text: &str| -> String {
        let value = |found: &Captures<'_>| value(&found[1], name, &template.name, groups.as_ref());
        PLACEHOLDER.replace_all(text, value).into_owned()
    };
    let tags = template.tags.as_ref().map(|tags| {
        let tags = tags.iter().map(|tag| filled(tag));
        tags.filter(|tag| !(template.remove_empty_tags && tag.is_empty())).collect()
    });
    let datacenters = template.failover_datacenters.as_ref();
    Ok(QueryDefinition {
        service: filled(&template.service),
        near: filled(&template.near),
        tags,
        failover_datacenters: datacenters.map(|all| all.iter().map(|dc| filled(dc)).collect()),
        ..template.clone()
    })
}

/// What a placeholder stands for; an unknown one, for nothing.
fn value(placeholder: &str, name: &str, prefix: &str, groups: Option<&Captures<'_>>) -> String {
    let group = |number: &str| {
        let number: usize = number.trim().parse().ok()?;
        Some(groups?.get(number)?.as_str().to_owned())
    };
    match placeholder.trim() {
        "name.full" => name.to_owned(),
        "name.prefix" => prefix.to_owned(),
        "name.suffix" => name.strip_prefix(prefix).unwrap_or(name).to_owned(),
        other => other
            .strip_prefix("match(")
            .and_then(|rest| rest.strip_suffix(')'))
            .and_then(group)
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_inserts_the_name_and_its_groups() {
        let template = QueryDefinition {
            name: "geo-".to_owned(),
            template_kind: "name_prefix_match".to_owned(),
            template_regexp: "^geo-(.*?)-([^-]+)$".to_owned(),
            remove_empty_tags: true,
            service: "${match(1)}".to_owned(),
            tags: Some(vec!["${match(2)}".to_owned(), "${match(9)}".to_owned()]),
            near: "${name.suffix}|${name.prefix}|${name.full}|${nope}".to_owned(),
            ..QueryDefinition::default()
        };
        let filled = fill(&template, "geo-web-app-blue").unwrap();
        assert_eq!(filled.service, "web-app");
        assert_eq!(filled.tags, Some(vec!["blue".to_owned()]));
        assert_eq!(filled.near, "web-app-blue|geo-|geo-web-app-blue|");
    }
}
