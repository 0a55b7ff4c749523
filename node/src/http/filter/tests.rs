//! Expressions against rows, by table.

mod model;

use std::collections::BTreeMap;

use quorate_client::types::agent::{AgentService, Member};
use quorate_client::types::catalog::{CatalogService, Node, NodeService};
use quorate_client::types::health::{HealthCheck, ServiceEntry};
use quorate_client::types::{ServiceAddress, TextMap, Weights};

use super::*;

fn texts(pairs: &[(&str, &str)]) -> TextMap {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn check(status: &str, service_id: &str) -> HealthCheck {
    HealthCheck {
        status: status.to_owned(),
        service_id: service_id.to_owned(),
        ..HealthCheck::default()
    }
}

fn entry() -> ServiceEntry {
    let address = ServiceAddress { address: "10.0.0.9".to_owned(), port: 90 };
    ServiceEntry {
        node: Node {
            node: "n1".to_owned(),
            address: "10.1.1.2".to_owned(),
            meta: Some(texts(&[("rack", "r1")])),
            ..Node::default()
        },
        service: NodeService {
            id: "web-1".to_owned(),
            service: "web".to_owned(),
            tags: vec!["v1".to_owned(), "eu west".to_owned()],
            meta: Some(texts(&[("env", "prod"), ("my-key", "x"), ("7", "seven"), ("a/b", "c")])),
            port: 80,
            weights: Weights { passing: 5, warning: 1 },
            enable_tag_override: true,
            tagged_addresses: BTreeMap::from([("lan".to_owned(), address)]),
            ..NodeService::default()
        },
        checks: vec![check("passing", "web-1"), check("warning", "")],
    }
}

fn fault<T: Record + Default>(text: &str) -> String {
    match Filter::<T>::new(text) {
        Ok(_) => panic!("{text} is accepted"),
        Err(Fault::Malformed(text) | Fault::Unfitting(text)) => text,
    }
}

#[track_caller]
fn keeps(text: &str) -> bool {
    let filter = Filter::new(text).unwrap_or_else(|fault| panic!("{text}: {fault:?}"));
    filter.keeps(&entry())
}

#[test]
fn expressions_that_hold() {
    for text in [
        "",
        "Service.ID == `web-1`",
        "Service.ID==\"web-1\"",
        "  Service.ID\t!=\nweb  ",
        "Service.Port == 80 and Service.Weights.Passing == 5",
        "Service.Port == \"0x50\"",
        "Service.EnableTagOverride == true",
        "Service.EnableTagOverride == 1",
        "v1 in Service.Tags",
        "`eu west` in Service.Tags",
        "v2 not in Service.Tags",
        "Service.Tags contains v1",
        "Service.Tags not contains v2",
        "Service.Tags is not empty",
        "Service.Service contains eb",
        "eb in Service.Service",
        "Service.ID matches \"^web-[0-9]$\"",
        "Service.ID not matches `^db`",
        "Service.ID matches eb",
        "Node.Address == \"10.1.1.2\"",
        "Service.Meta.env == prod",
        "Service.Meta[\"my-key\"] == x",
        "Service.Meta[ `my-key` ]==x",
        "Service[\"Meta\"].env == prod",
        "Service.Meta.7 == seven",
        "Service.Meta.a/b == c",
        "env in Service.Meta",
        "Service.TaggedAddresses.lan.Port == 90",
        "Service.TaggedAddresses contains lan",
        "Node.Meta is not empty",
        "Node.TaggedAddresses is empty",
        "Checks is not empty",
        "Service.Connect.Native == false",
        "Service.Kind == \"\"",
        "Service.Proxy.MeshGateway.Mode != local",
        // A key that is not there equals, contains and matches nothing.
        "Service.Meta.nope != x",
        "x not in Service.Meta.nope",
        "Service.Meta.nope not matches x",
        "Service.TaggedAddresses.wan.Port != 1",
        // Any element of a list, for a negation too.
        "Checks.Status == passing",
        "Checks.Status != passing",
        "Checks.Status == warning and Checks.Status == passing",
        "Checks.ServiceTags is empty",
        // `and` binds tighter than `or`, `not` binds to the next term.
        "Service.Port == 80 or Service.Port == 1 and Service.Port == 2",
        "not Service.Port == 1 and Service.Port == 80",
        "not (Service.Port == 80 and Service.Port == 1)",
        "not not Service.Port == 80",
        "((Service.Port == 80))",
        "( Service.Port == 1 or ( Service.Port == 80 ) )",
        // Words of the grammar are values too.
        "Service.ID != not",
        "and not in Service.Tags",
        "not not in Service.Tags",
        "Service.Tags not contains in",
        "Service.ID != is",
    ] {
        assert!(keeps(text), "{text}");
    }
}

#[test]
fn expressions_that_do_not_hold() {
    for text in [
        "Service.ID == web",
        "Service.Meta.nope == x",
        "Service.Meta.nope matches `.*`",
        "x in Service.Meta.nope",
        "Service.TaggedAddresses.wan.Port == 90",
        "Checks.Status == critical",
        "not Checks.Status == passing",
        "(Service.Port == 80 or Service.Port == 1) and Service.Port == 2",
        "not in Service.Tags",
        "Service.Proxy.LocalServicePort == 1",
    ] {
        assert!(!keeps(text), "{text}");
    }
    let bare = ServiceEntry::default();
    for text in ["Checks.Status == x", "Checks.Status != x", "Checks.ServiceTags is empty"] {
        assert!(!Filter::new(text).unwrap().keeps(&bare), "{text} over an empty list");
    }
}

#[test]
fn what_does_not_fit_the_type_is_refused_in_the_words_of_consul() {
    for (text, words) in [
        ("Nope == 1", "Selector \"Nope\" is not valid"),
        ("serviceid == a", "Selector \"serviceid\" is not valid"),
        ("ServiceID.x == a", "Selector \"ServiceID.x\" is not valid"),
        ("ServiceMeta.a.b.c == a", "Selector \"ServiceMeta.a.b\" is not valid"),
        ("ServiceWeights.x.y == a", "Selector \"ServiceWeights.x\" is not valid"),
        (
            "ServiceTaggedAddresses.lan.x == a",
            "Selector \"ServiceTaggedAddresses.lan.x\" is not valid",
        ),
        ("ModifyIndex == 1", "Selector \"ModifyIndex\" is not valid"),
        (
            "ServicePort == abc",
            "Failed to coerce value \"abc\" for selector \"ServicePort\": \
             strconv.ParseInt: parsing \"abc\": invalid syntax",
        ),
        (
            "ServiceEnableTagOverride == maybe",
            "Failed to coerce value \"maybe\" for selector \"ServiceEnableTagOverride\": \
             strconv.ParseBool: parsing \"maybe\": invalid syntax",
        ),
        ("ServiceTags == a", "Invalid match operator \"Equal\" for selector \"ServiceTags\""),
        ("ServiceID is empty", "Invalid match operator \"Is Empty\" for selector \"ServiceID\""),
        ("1 not in ServicePort", "Invalid match operator \"Not In\" for selector \"ServicePort\""),
        (
            "ServiceWeights != a",
            "Invalid match operator \"Not Equal\" for selector \"ServiceWeights\"",
        ),
        (
            "ServiceTaggedAddresses.lan is not empty",
            "Invalid match operator \"Is Not Empty\" for selector \"ServiceTaggedAddresses.lan\"",
        ),
        (
            "ServiceTags not matches a",
            "Invalid match operator \"Not Matches\" for selector \"ServiceTags\"",
        ),
        // The first complaint from the left.
        ("A == 1 or B == 2", "Selector \"A\" is not valid"),
    ] {
        assert_eq!(fault::<CatalogService>(text), words, "{text}");
    }
    let words = fault::<Node>("Node matches \"[\"");
    assert!(words.starts_with("Failed to compile regular expression \"[\": "), "{words}");
    assert_eq!(fault::<ServiceEntry>("Checks.A == 1"), "Selector \"Checks.A\" is not valid");
    let words = "Invalid match operator \"Equal\" for selector \"Checks\"";
    assert_eq!(fault::<ServiceEntry>("Checks == 1"), words);
}

#[test]
fn what_is_no_expression_is_refused_where_it_goes_wrong() {
    let operators = "no match found, expected: \"==\", \"!=\", ";
    for (text, words) in [
        (" ", "1:2 (1): no match found, expected: \"(\", \"not\", a selector or a value"),
        ("(", "1:2 (1): no match found, expected: \"(\", \"not\", a selector or a value"),
        ("A ==", "1:5 (4): no match found, expected: a value"),
        ("A ==\n ", "2:2 (6): no match found, expected: a value"),
        ("A = 1", &format!("1:2 (1): {operators}")),
        ("A > 1", &format!("1:2 (1): {operators}")),
        ("A", &format!("1:2 (1): {operators}")),
        ("A is emptyish", &format!("1:2 (1): {operators}")),
        ("\u{e4} == 1", "1:1 (0): no match found, expected: \"(\", \"not\", a selector or a value"),
        ("A == \"\u{e4}\" nor", "1:10 (10): no match found, expected: \"and\", \"or\" or the end"),
        ("A == 10.1.1.2", "1:10 (9): Invalid number literal"),
        ("A == 080", "1:7 (6): Invalid number literal"),
        ("A == \"x", "1:8 (7): Unterminated string literal"),
        ("A == `x", "1:8 (7): Unterminated string literal"),
        ("A == \"\\q\"", "1:9 (8): invalid syntax in a string literal"),
        ("80 == A", "1:7 (6): Invalid selector before the operator"),
        ("80", "1:3 (2): no match found, expected: \"in\" or \"not in\""),
        ("x in 80", "1:6 (5): no match found, expected: a selector"),
        ("A. == 1", "1:3 (2): no match found, expected: a name"),
        ("A[1] == 1", "1:3 (2): no match found, expected: a string"),
        ("A[\"x\" == 1", "1:7 (6): no match found, expected: \"]\""),
        ("(A == 1", "1:8 (7): no match found, expected: \"and\", \"or\" or \")\""),
        ("A == 1)", "1:7 (6): no match found, expected: \"and\", \"or\" or the end"),
        ("A == 1 and", "1:8 (7): no match found, expected: \"and\", \"or\" or the end"),
        (
            "A == 1 and ",
            "1:12 (11): no match found, expected: \"(\", \"not\", a selector or a value",
        ),
        ("A == us-east", "1:8 (7): no match found, expected: \"and\", \"or\" or the end"),
    ] {
        let fault = fault::<Node>(text);
        assert!(fault.starts_with(words), "{text}: {fault} and not {words}");
    }
}

#[test]
fn consul_says_less_of_an_unfitting_expression_over_the_checks_of_an_agent() {
    let refused = |text: &str| Filter::<HealthCheck>::new(text).err().unwrap();
    let unfitting = refused("Foo == bar");
    assert_eq!(unfitting.clone().of_agent_checks().text, "Selector \"Foo\" is not valid");
    let words = "Failed to create boolean expression evaluator: Selector \"Foo\" is not valid";
    assert_eq!(ApiError::from(unfitting), ApiError::internal(words));
    assert!(refused("Foo").of_agent_checks().text.starts_with(PREFIX));
}

#[test]
fn every_listed_type_has_its_selectors() {
    assert!(Filter::<AgentService>::new("Service == web and Meta.a != b").is_ok());
    assert!(Filter::<HealthCheck>::new("CheckID == a and v1 in ServiceTags").is_ok());
    let member = Member { name: "n1".to_owned(), status: 4, ..Member::default() };
    assert!(Filter::new("Name == n1 and Status == 4 and Tags is empty").unwrap().keeps(&member));
}

#[test]
fn what_an_expression_may_cost_is_limited() {
    let brackets = |depth: usize| format!("{}ID == 1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Filter::<Node>::new(&brackets(parse::MAX_NESTING)).is_ok());
    let deep = fault::<Node>(&brackets(parse::MAX_NESTING + 1));
    assert!(deep.ends_with("Expression is nested too deeply"), "{deep}");
    let deep = fault::<Node>(&format!("{}ID == 1", "not ".repeat(4000)));
    assert!(deep.ends_with("Expression is nested too deeply"), "{deep}");

    let many = |comparison: &str, count: usize| vec![comparison; count].join(" or ");
    assert!(Filter::<Node>::new(&many("ID == 1", 512)).is_ok());
    let words = "Number of match expressions exceeds the limit (512)";
    assert_eq!(fault::<Node>(&many("ID == 1", 513)), words);
    assert!(Filter::<Node>::new(&many("ID matches x", 16)).is_ok());
    let words = "Number of regular expressions exceeds the limit (16)";
    assert_eq!(fault::<Node>(&many("ID matches x", 33)), words);
    let large = fault::<Node>(r"ID matches `(\pL{100}){100}`");
    assert!(large.starts_with("Failed to compile regular expression"), "{large}");

    let long = fault::<Node>(&"a".repeat(MAX_EXPRESSION_BYTES + 1));
    assert_eq!(long, "Expression with length 16385 exceeds maximum length of 16384");
}
