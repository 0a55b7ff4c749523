//! The alert rules and the dashboard use metrics that servers have, with labels that these have.

use std::collections::{BTreeMap, BTreeSet};

use jepsen_style_tests::{Failure, Result};
use regex::Regex;
use serde_json::Value;

use super::documents::first_column;

const ALERTS: &str = include_str!("../../../cluster-scripts/monitoring/alerts.yml");
const DASHBOARD: &str = include_str!("../../../cluster-scripts/monitoring/dashboard.json");
/// Labels that Prometheus adds itself.
const ADDED: [&str; 2] = ["job", "instance"];

/// Names of samples, with the labels that they have.
type Samples = BTreeMap<String, BTreeSet<String>>;

fn rules() -> Vec<Value> {
    let file: Value = serde_norway::from_str(ALERTS).expect("the rules are YAML");
    let groups = file["groups"].as_array().expect("groups");
    groups.iter().filter_map(|group| group["rules"].as_array()).flatten().cloned().collect()
}

/// Every expression of the rules and the dashboard.
fn expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("the dashboard is JSON");
    let panels = dashboard["panels"].as_array().into_iter().flatten();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let drawn = targets.map(|target| target["expr"].clone());
    let variables = dashboard["templating"]["list"].as_array().into_iter().flatten();
    let asked = variables.map(|variable| variable["query"]["query"].clone());
    let alerts = rules().into_iter().map(|rule| rule["expr"].clone());
    let all = drawn.chain(asked).chain(alerts);
    all.filter_map(|expression| expression.as_str().map(str::to_owned)).collect()
}

/// Says what the expressions use that a server with this `/metrics` does not have.
pub(super) fn require_in(metrics: &str) -> Result<()> {
    let samples = samples(metrics);
    let all = expressions();
    assert!(all.len() > 40, "vacuous: {all:?}");
    let faults: Vec<_> = all.iter().filter_map(|one| fault(one, &samples)).collect();
    match faults.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(faults.join("\n"))),
    }
}

/// What an expression names that is not there.
fn fault(expression: &str, samples: &Samples) -> Option<String> {
    let wrong = |what: &str| Some(format!("{what} in {expression}"));
    let metric = Regex::new(r"\b(quorate_\w+)(?:\{([^}]*)\})?").expect("a pattern");
    let (label, grouped) = (
        Regex::new(r"(\w+)\s*(?:=~|!~|!=|=)").expect("a pattern"),
        Regex::new(r"\bby\s*\(([^)]*)\)").expect("a pattern"),
    );
    let mut known: BTreeSet<&str> = BTreeSet::from(ADDED);
    for used in metric.captures_iter(expression) {
        let Some(labels) = samples.get(&used[1]) else { return wrong(&used[1]) };
        known.extend(labels.iter().map(String::as_str));
        let matchers = used.get(2).map_or("", |matchers| matchers.as_str());
        for matcher in label.captures_iter(matchers) {
            let name = matcher.get(1).map_or("", |name| name.as_str());
            if !labels.contains(name) && !ADDED.contains(&name) {
                return wrong(name);
            }
        }
    }
    let groups = grouped.captures_iter(expression);
    let names: Vec<_> = groups
        .flat_map(|list| list[1].split(',').map(str::trim).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    if let Some(name) = names.iter().find(|name| !known.contains(name.as_str())) {
        return wrong(name);
    }
    let depth = |open, close| expression.matches(open).count() == expression.matches(close).count();
    let balanced = depth('(', ')') && depth('{', '}') && depth('[', ']');
    if balanced { None } else { wrong("brackets") }
}

/// The samples of a server, and those that it has as soon as something happened: a family without samples has a
/// `TYPE` only.
fn samples(metrics: &str) -> Samples {
    let label = Regex::new(r#"(\w+)=""#).expect("a pattern");
    let mut found = Samples::new();
    for line in metrics.lines() {
        if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let names = match kind {
                "counter" => vec![format!("{name}_total")],
                "histogram" => {
                    ["_bucket", "_count", "_sum"].map(|end| format!("{name}{end}")).to_vec()
                }
                _ => vec![name.to_owned()],
            };
            found.extend(names.into_iter().map(|name| (name, BTreeSet::new())));
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let labels = label.captures_iter(line).map(|captured| captured[1].to_owned());
            found.entry(name.to_owned()).or_default().extend(labels);
        }
    }
    found
}

#[test]
fn the_page_says_what_to_do_about_every_alert_and_no_other() {
    let names: BTreeSet<_> =
        rules().iter().filter_map(|rule| rule["alert"].as_str().map(str::to_owned)).collect();
    let told: BTreeSet<_> = first_column("Alerts").into_iter().map(str::to_owned).collect();
    assert_eq!(names, told);
    for rule in rules() {
        assert!(rule["annotations"]["summary"].is_string(), "{rule}");
        assert!(
            ["critical", "warning"].contains(&rule["labels"]["severity"].as_str().unwrap_or(""))
        );
    }
}

#[test]
fn an_expression_about_what_is_not_there_is_found() {
    let samples = samples(
        "# TYPE quorate_a gauge\nquorate_a{kind=\"x\"} 1\n# TYPE quorate_b histogram\n# TYPE quorate_c counter\n",
    );
    let found = |expression: &str| {
        fault(expression, &samples).map(|text| text.split(' ').next().map(str::to_owned))
    };
    assert_eq!(found("sum by (job, kind) (quorate_a{kind=~\"y\",job=\"j\"})"), None);
    assert_eq!(found("rate(quorate_b_bucket[5m]) + quorate_c_total"), None);
    for (expression, what) in [
        ("quorate_d > 0", "quorate_d"),
        ("quorate_c > 0", "quorate_c"),
        ("quorate_a{sort=\"x\"}", "sort"),
        ("sum by (sort) (quorate_a)", "sort"),
        ("sum(quorate_a", "brackets"),
    ] {
        assert_eq!(found(expression), Some(Some(what.to_owned())), "{expression}");
    }
}
