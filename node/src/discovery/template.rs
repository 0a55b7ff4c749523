//! Which query a name means, and templates that answer for many names.
//!
//! A name means the query with that id, else the one with that name (in any letter case), else the
//! template with the longest name that it begins with. In the texts of a template's `Service`,
//! `${name.full}`, `${name.prefix}`, `${name.suffix}` and `${match(N)}` stand for the name that was asked
//! for, its parts, and the groups of the template's regular expression; `$${` is a plain `${`. A template
//! with anything else in braces is refused when it is registered, as by Consul: it would look up the
//! wrong service later.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_storage::State;
use quorate_storage::index::fold;
use quorate_storage::limits::NAME_BYTES_MAX;
use quorate_storage::record::{Query, QueryDefinition};
use regex::{Captures, Regex};

use super::regexp;

/// The query that an id or name means, with its template filled in; why it cannot be, if it cannot.
pub(crate) fn resolve(state: &State, name: &str) -> Option<Result<Arc<Query>, String>> {
    if let Some(query) = state.query(&name.to_lowercase()) {
        return Some(match query.definition.template_kind.is_empty() {
            true => Ok(Arc::clone(query)),
            false => {
                Err("prepared query templates can only be resolved up by name, not by ID".into())
            }
        });
    }
    if name.is_empty() {
        return None;
    }
    let asked = fold(name);
    let named = |query: &&Arc<Query>| {
        query.definition.template_kind.is_empty() && fold(&query.definition.name) == asked
    };
    if let Some(query) = state.queries().find(named) {
        return Some(Ok(Arc::clone(query)));
    }
    // A template repeats the name in each of its texts, so a long one would become much more.
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let fits = |query: &&Arc<Query>| {
        let definition = &query.definition;
        !definition.template_kind.is_empty() && asked.starts_with(&*fold(&definition.name))
    };
    let template = state.queries().filter(fits).max_by_key(|query| query.definition.name.len())?;
    let filled = fill(&template.definition, name);
    Some(filled.map(|definition| Arc::new(Query { definition, indexes: template.indexes })))
}

/// Refuses a template that could not be filled in.
///
/// # Errors
/// In Consul's words, as far as they are not those of its libraries.
pub(crate) fn validate(template: &QueryDefinition) -> Result<(), String> {
    // The shortest name that it answers for, as in Consul.
    fill(template, &template.name).map(drop)
}

fn fill(template: &QueryDefinition, name: &str) -> Result<QueryDefinition, String> {
    let pattern = regexp::compile(&template.template_regexp);
    let pattern: Option<Regex> = pattern.map_err(|fault| format!("Bad Regexp: {fault}"))?;
    let groups = pattern.as_ref().and_then(|pattern| pattern.captures(name));
    let filled = |path: &str, text: &str| -> Result<String, String> {
        let pieces = pieces(text)
            .map_err(|fault| format!("Bad format '{text}' in Service.{path}: {fault}"))?;
        let value = |piece| value(piece, name, &template.name, groups.as_ref());
        Ok(pieces.into_iter().map(value).collect())
    };
    let list = |path: &str, texts: &Option<Vec<String>>| -> Result<Option<Vec<String>>, String> {
        let Some(texts) = texts else { return Ok(None) };
        let texts = texts.iter().enumerate();
        texts
            .map(|(at, text)| filled(&format!("{path}[{at}]"), text))
            .collect::<Result<_, _>>()
            .map(Some)
    };
    let map = |path: &str, map: &Option<BTreeMap<String, String>>| {
        let Some(map) = map else { return Ok(None) };
        let pairs = map
            .iter()
            .map(|(key, text)| Ok((key.clone(), filled(&format!("{path}[{key}]"), text)?)));
        pairs.collect::<Result<_, String>>().map(Some)
    };
    let mut tags = list("Tags", &template.tags)?;
    if let Some(tags) = tags.as_mut().filter(|_| template.remove_empty_tags) {
        tags.retain(|tag| !tag.is_empty());
    }
    Ok(QueryDefinition {
        service: filled("Service", &template.service)?,
        failover_datacenters: list("Failover.Datacenters", &template.failover_datacenters)?,
        ignored_checks: list("IgnoreCheckIDs", &template.ignored_checks)?,
        near: filled("Near", &template.near)?,
        tags,
        node_meta: map("NodeMeta", &template.node_meta)?,
        service_meta: map("ServiceMeta", &template.service_meta)?,
        ..template.clone()
    })
}

/// A part of a template's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece<'a> {
    /// It stands for itself.
    Plain(&'a str),
    /// The name that was asked for.
    Full,
    /// The template's own name.
    Prefix,
    /// What follows the template's name.
    Suffix,
    /// A group of the regular expression; `None` for one that no expression has.
    Group(Option<usize>),
}

/// Takes a text apart.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find("${") {
        let escaped = rest[..at].ends_with('$');
        pieces.push(Piece::Plain(&rest[..at - usize::from(escaped)]));
        rest = &rest[at..];
        if escaped {
            pieces.push(Piece::Plain(&rest[..2]));
            rest = &rest[2..];
            continue;
        }
        let end = rest.find('}').ok_or_else(|| "a brace is not closed".to_owned())?;
        pieces.push(placeholder(rest[2..end].trim())?);
        rest = &rest[end + 1..];
    }
    pieces.push(Piece::Plain(rest));
    Ok(pieces)
}

/// What is between braces.
fn placeholder(text: &str) -> Result<Piece<'_>, String> {
    let group = || -> Option<Piece<'_>> {
        let number = text.strip_prefix("match")?.trim_start().strip_prefix('(')?;
        let number: i64 = number.strip_suffix(')')?.trim().parse().ok()?;
        Some(Piece::Group(usize::try_from(number).ok()))
    };
    match text {
        "name.full" => Ok(Piece::Full),
        "name.prefix" => Ok(Piece::Prefix),
        "name.suffix" => Ok(Piece::Suffix),
        // The network segment of the asking agent: there are none.
        "agent.segment" => Ok(Piece::Plain("")),
        _ => group().ok_or_else(|| {
            format!(
                "{text:?} is unknown; there are name.full, name.prefix, name.suffix and match(number)"
            )
        }),
    }
}

fn value<'a>(
    piece: Piece<'a>,
    name: &'a str,
    prefix: &'a str,
    groups: Option<&'a Captures<'_>>,
) -> &'a str {
    match piece {
        Piece::Plain(text) => text,
        Piece::Full => name,
        Piece::Prefix => prefix,
        Piece::Suffix => name.strip_prefix(prefix).unwrap_or(name),
        Piece::Group(number) => {
            let group = number.zip(groups).and_then(|(number, groups)| groups.get(number));
            group.map_or("", |group| group.as_str())
        }
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
            near: "${name.suffix}|${ name.prefix }|${name.full}|$${match(1)}|${match(-1)}"
                .to_owned(),
            node_meta: Some([("zone".to_owned(), "${match(2)}".to_owned())].into()),
            ..QueryDefinition::default()
        };
        let filled = fill(&template, "geo-web-app-blue").unwrap();
        assert_eq!(filled.service, "web-app");
        assert_eq!(filled.tags, Some(vec!["blue".to_owned()]));
        assert_eq!(filled.near, "web-app-blue|geo-|geo-web-app-blue|${match(1)}|");
        assert_eq!(filled.node_meta.unwrap()["zone"], "blue");
    }

    #[test]
    fn a_template_that_could_not_be_filled_in_is_refused() {
        let template = |service: &str, regexp: &str| {
            let (service, template_regexp) = (service.to_owned(), regexp.to_owned());
            validate(&QueryDefinition { service, template_regexp, ..QueryDefinition::default() })
        };
        for service in ["${name.full}", "web", "$${x", "$", "${match( 1 )}", "${agent.segment}a"] {
            template(service, "").unwrap();
        }
        for service in ["${nope}", "${", "a${name.full", "${match(x)}", "${}", "${match(1) + 1}"] {
            let fault = template(service, "").unwrap_err();
            assert!(
                fault.starts_with(&format!("Bad format '{service}' in Service.Service: ")),
                "{fault}"
            );
        }
        assert!(template("web", "(").unwrap_err().starts_with("Bad Regexp: "));
        let tags = Some(vec!["a".to_owned(), "${b}".to_owned()]);
        let fault = validate(&QueryDefinition { tags, ..QueryDefinition::default() }).unwrap_err();
        assert!(fault.starts_with("Bad format '${b}' in Service.Tags[1]: "), "{fault}");
    }
}
