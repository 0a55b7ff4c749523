//! Which endpoints the workloads use, and which none does: what the fault runs cannot find.
//!
//! The table is a file, `verbs.txt`, so that the node's own tests can compare it with the router. The tests here
//! compare it with the sources of the workloads.

use std::collections::BTreeMap;

const TABLE: &str = include_str!("verbs.txt");
/// All paths of Consul's API begin so.
const VERSION: &str = "/v1/";

/// A method and a path, or `TXN` and an operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verb {
    /// GET, PUT, POST, DELETE, HEAD or TXN.
    pub method: &'static str,
    /// The path, with a slash at its end if a name follows; or the operation.
    pub path: &'static str,
    /// The workloads that use it; `mixed` consists of others.
    pub workloads: Vec<&'static str>,
}

/// All verbs, in the order of the file.
pub fn all() -> Vec<Verb> {
    TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(verb).collect()
}

fn verb(line: &'static str) -> Option<Verb> {
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?, words.next()?);
    Some(Verb { method, path, workloads: words.collect() })
}

/// The verbs that no workload uses, by the part of the API to which they belong.
pub fn unused() -> BTreeMap<&'static str, Vec<String>> {
    let mut areas: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for Verb { method, path, workloads } in all() {
        if workloads.is_empty() {
            areas.entry(area(path)).or_default().push(format!("{method} {path}"));
        }
    }
    areas
}

/// `/v1/agent/check/pass/` belongs to `agent`, `Node/set` to `txn`, `/livez` to none.
fn area(path: &'static str) -> &'static str {
    match path.strip_prefix(VERSION) {
        Some(below) => below.split('/').next().unwrap_or_default(),
        None if path.starts_with('/') => "-",
        None => "txn",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::workload;

    /// The sources of all workloads that are not made of others. What stands behind a file's tests is not looked at, so
    /// a file with tests comes last.
    const SOURCES: &[(&str, &str)] = &[
        ("kv-register", include_str!("workload/kv_register.rs")),
        ("set", include_str!("workload/set.rs")),
        ("append", include_str!("workload/append.rs")),
        ("txn", include_str!("workload/txn.rs")),
        ("catalog", include_str!("workload/catalog.rs")),
        ("lock", include_str!("workload/lock.rs")),
        ("session", include_str!("workload/session.rs")),
        ("ttl", include_str!("workload/ttl.rs")),
        ("watch", include_str!("workload/watch.rs")),
        (
            "stream",
            concat!(
                include_str!("workload/stream.rs"),
                include_str!("stream.rs"),
                include_str!("workload/history.rs"),
                include_str!("http.rs")
            ),
        ),
        (
            "claims",
            concat!(
                include_str!("workload/history.rs"),
                include_str!("http.rs"),
                include_str!("workload/claims.rs")
            ),
        ),
        (
            "presence",
            concat!(
                include_str!("workload/presence.rs"),
                include_str!("presence.rs"),
                include_str!("http.rs")
            ),
        ),
        ("checks", concat!(include_str!("http.rs"), include_str!("workload/checks.rs"))),
    ];

    /// The paths of the table that a source names in its strings.
    fn paths_in(source: &str) -> BTreeSet<&'static str> {
        let code = source.split("#[cfg(test)]").next().unwrap();
        let code: Vec<_> =
            code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let code = code.join("\n");
        let paths: BTreeSet<_> = all().iter().map(|verb| verb.path).collect();
        let named = code.match_indices(VERSION).map(|(at, _)| {
            let fits = |path: &&&str| code[at..].starts_with(**path);
            let longest = paths.iter().filter(fits).max_by_key(|path| path.len());
            *longest.unwrap_or_else(|| panic!("no verb has {:?}", &code[at..at + 30]))
        });
        named.collect()
    }

    /// The operations of transactions that a source names.
    fn operations_in(source: &str) -> BTreeSet<&'static str> {
        let code = source.split("#[cfg(test)]").next().unwrap();
        let is_named = |path: &&str| {
            let Some((table, word)) = path.split_once('/').filter(|(table, _)| !table.is_empty())
            else {
                return false;
            };
            code.contains(&format!(r#"{{"{table}": {{"Verb": "{word}""#))
        };
        all().iter().map(|verb| verb.path).filter(is_named).collect()
    }

    #[test]
    fn the_table_says_what_the_workloads_use() {
        for (workload, source) in SOURCES {
            let uses = |verb: &Verb| verb.workloads.contains(workload);
            let listed: BTreeSet<_> =
                all().into_iter().filter(uses).map(|verb| verb.path).collect();
            let named: BTreeSet<_> =
                paths_in(source).union(&operations_in(source)).copied().collect();
            assert_eq!(listed, named, "{workload}");
        }
    }

    #[test]
    fn every_workload_is_looked_at() {
        let looked_at: BTreeSet<_> = SOURCES.iter().map(|(workload, _)| *workload).collect();
        let all_but_mixed: BTreeSet<_> = workload::all()
            .iter()
            .map(|workload| workload.name().to_owned())
            .filter(|name| name != "mixed")
            .collect();
        assert!(all_but_mixed.iter().map(String::as_str).eq(looked_at));
        for verb in all() {
            for workload in verb.workloads {
                workload::named(workload).unwrap();
            }
        }
    }

    #[test]
    fn what_no_workload_uses_is_told_by_area() {
        let unused = unused();
        assert!(unused["query"].contains(&"POST /v1/query".to_owned()));
        assert!(unused["txn"].contains(&"TXN Node/set".to_owned()));
        assert!(unused["-"].contains(&"GET /livez".to_owned()));
        assert!(!unused["agent"].contains(&"PUT /v1/agent/check/pass/".to_owned()));
    }
}
