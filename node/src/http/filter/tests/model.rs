//! Random expressions against a model that looks at the rows' JSON, and hostile ones.

use proptest::prelude::*;
use quorate_client::types::catalog::{Node, NodeService};
use quorate_client::types::health::{HealthCheck, ServiceEntry};
use quorate_client::types::{ServiceAddress, Weights};
use serde_json::Value;

use super::super::{Filter, MAX_EXPRESSION_BYTES};
use super::entry;

/// An expression before it is written down.
#[derive(Debug, Clone)]
enum Asked {
    Compare { selector: &'static str, operator: Operator, value: String, negated: bool },
    Not(Box<Self>),
    And(Vec<Self>),
    Or(Vec<Self>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    In,
    Contains,
    Matches,
    Empty,
}

const TEXTS: &[&str] = &[
    "Node.Node",
    "Node.Meta.a",
    "Service.ID",
    "Service.Meta.a",
    "Service.Meta[\"b\"]",
    "Service.TaggedAddresses.a.Address",
    "Checks.Status",
    "Checks.Output",
];
const INTEGERS: &[&str] =
    &["Service.Port", "Service.Weights.Passing", "Service.TaggedAddresses.a.Port"];
const COLLECTIONS: &[&str] = &[
    "Service.Tags",
    "Service.Meta",
    "Service.TaggedAddresses",
    "Node.Meta",
    "Node.TaggedAddresses",
    "Checks.ServiceTags",
];

/// Few and short, so that they often meet.
const SHORT: &str = "[ab]{0,2}";

fn comparisons() -> impl Strategy<Value = Asked> {
    use Operator::{Contains, Empty, Equal, In, Matches};
    let on_text = prop_oneof![Just(Equal), Just(In), Just(Contains), Just(Matches)];
    let on_list = prop_oneof![Just(In), Just(Contains), Just(Empty)];
    let pick = prop::sample::select::<&'static str>;
    prop_oneof![
        (pick(TEXTS), on_text, SHORT),
        (pick(INTEGERS), Just(Equal), "[0-2]"),
        (Just("Service.EnableTagOverride"), Just(Equal), "true|false"),
        (pick(COLLECTIONS), on_list, SHORT),
        (Just("Checks"), Just(Empty), ""),
    ]
    .prop_flat_map(|(selector, operator, value)| {
        any::<bool>().prop_map(move |negated| {
            let value = value.clone();
            Asked::Compare { selector, operator, value, negated }
        })
    })
}

fn expressions() -> impl Strategy<Value = Asked> {
    comparisons().prop_recursive(5, 24, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|term| Asked::Not(Box::new(term))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Asked::And),
            prop::collection::vec(inner, 2..4).prop_map(Asked::Or),
        ]
    })
}

/// Writes an expression with the brackets that it needs and, now and then, some that it does not.
fn write(asked: &Asked, styles: &mut impl Iterator<Item = u8>) -> String {
    let style = styles.next().unwrap_or(0);
    let mut join = |terms: &[Asked], word: &str| {
        let terms: Vec<_> = terms
            .iter()
            .map(|term| match (term, word) {
                (Asked::Or(_), " and ") => format!("({})", write(term, styles)),
                _ => write(term, styles),
            })
            .collect();
        terms.join(word)
    };
    let text = match asked {
        Asked::And(terms) => join(terms, " and "),
        Asked::Or(terms) => join(terms, " or\t"),
        Asked::Not(term) => match **term {
            Asked::And(_) | Asked::Or(_) => format!("not ({})", write(term, styles)),
            Asked::Not(_) | Asked::Compare { .. } => format!("not  {}", write(term, styles)),
        },
        Asked::Compare { selector, operator, value, negated } => {
            let not = if *negated { "not " } else { "" };
            let value = match style % 3 {
                0 if !value.is_empty() => value.clone(),
                1 => format!("`{value}`"),
                _ => format!("\"{value}\""),
            };
            match operator {
                Operator::Equal if *negated => format!("{selector}!={value}"),
                Operator::Equal => format!("{selector} == {value}"),
                Operator::In => format!("{value} {not}in {selector}"),
                Operator::Contains => format!("{selector} {not}contains {value}"),
                Operator::Matches => format!("{selector} {not}matches {value}"),
                Operator::Empty => format!("{selector} is {not}empty"),
            }
        }
    };
    if style > 200 { format!("( {text})") } else { text }
}

/// What an expression says of a row, seen as JSON.
fn model(asked: &Asked, row: &Value) -> bool {
    match asked {
        Asked::Not(term) => !model(term, row),
        Asked::And(terms) => terms.iter().all(|term| model(term, row)),
        Asked::Or(terms) => terms.iter().any(|term| model(term, row)),
        Asked::Compare { selector, operator, value, negated } => {
            let names = selector.replace("[\"", ".").replace("\"]", "");
            let names: Vec<_> = names.split('.').collect();
            compare(row, &names, &|found| found_holds(found, *operator, value) != *negated)
        }
    }
}

fn compare(value: &Value, names: &[&str], holds: &dyn Fn(&Value) -> bool) -> bool {
    match (names.split_first(), value) {
        (None, value) => holds(value),
        (_, Value::Array(rows)) => rows.iter().any(|row| compare(row, names, holds)),
        (Some((name, rest)), value) => match value.get(name) {
            Some(below) => compare(below, rest, holds),
            None => holds(&Value::Null),
        },
    }
}

fn found_holds(found: &Value, operator: Operator, value: &str) -> bool {
    match (operator, found) {
        (Operator::Empty, Value::Array(list)) => list.is_empty(),
        (Operator::Empty, Value::Object(map)) => map.is_empty(),
        (Operator::Empty, _) => true,
        (_, Value::Null) => false,
        (Operator::Equal, Value::String(text)) => text == value,
        (Operator::Equal, other) => value.parse::<Value>().is_ok_and(|value| value == *other),
        (_, Value::String(text)) => text.contains(value),
        (_, Value::Array(list)) => list.iter().any(|member| member == value),
        (_, other) => other.get(value).is_some(),
    }
}

fn rows() -> impl Strategy<Value = ServiceEntry> {
    let map = || prop::option::of(prop::collection::btree_map("[abc]", SHORT, 0..3));
    let tags = || prop::collection::vec(SHORT, 0..3);
    let node = (SHORT, map(), map()).prop_map(|(node, meta, tagged_addresses)| Node {
        node,
        meta,
        tagged_addresses,
        ..Node::default()
    });
    let address = (SHORT, 0..3_i64).prop_map(|(address, port)| ServiceAddress { address, port });
    let addresses = prop::collection::btree_map("[ab]", address, 0..2);
    let numbers = (0..3_i64, 0..3_i64, any::<bool>());
    let service = (SHORT, tags(), map(), addresses, numbers).prop_map(
        |(id, tags, meta, tagged_addresses, (port, passing, enable_tag_override))| NodeService {
            id,
            tags,
            meta,
            tagged_addresses,
            port,
            weights: Weights { passing, warning: 1 },
            enable_tag_override,
            ..NodeService::default()
        },
    );
    let check = (SHORT, SHORT, tags()).prop_map(|(status, output, service_tags)| HealthCheck {
        status,
        output,
        service_tags,
        ..HealthCheck::default()
    });
    (node, service, prop::collection::vec(check, 0..3))
        .prop_map(|(node, service, checks)| ServiceEntry { node, service, checks })
}

/// Pieces of expressions, right and wrong, in any order.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "(",
            ")",
            "not",
            "and",
            "or",
            "in",
            "is",
            "empty",
            "contains",
            "matches",
            "==",
            "!=",
            "=",
            "\"",
            "`",
            "\\",
            "[",
            "]",
            "[\"",
            "\"]",
            ".",
            "/",
            "-",
            "0",
            "80",
            "1.5",
            "\n",
            "Service",
            "Service.Tags",
            "Checks.Status",
            "Meta",
            "a",
            "\"a\"",
            "`(a*)*`",
            "\u{1f600}",
            "\\u12",
            "\"\\xff\"",
            "`[`",
            "\0",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,3}",
    ];
    (prop::collection::vec(piece, 0..40), prop_oneof![Just(" "), Just("")])
        .prop_map(|(pieces, blank)| pieces.join(blank))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn an_expression_says_of_a_row_what_the_model_says(
        asked in expressions(),
        row in rows(),
        styles in prop::collection::vec(any::<u8>(), 64),
    ) {
        let text = write(&asked, &mut styles.into_iter());
        let filter = Filter::new(&text)
            .map_err(|fault| TestCaseError::fail(format!("{text}: {fault:?}")))?;
        let json = serde_json::to_value(&row).unwrap();
        prop_assert_eq!(filter.keeps(&row), model(&asked, &json), "{} of {}", text, json);
    }

    #[test]
    fn a_hostile_expression_is_refused_or_evaluated(text in hostile()) {
        if let Ok(filter) = Filter::<ServiceEntry>::new(&text) {
            filter.keeps(&entry());
        }
    }

    #[test]
    fn a_repeated_piece_neither_overflows_the_stack_nor_takes_long(
        piece in prop::sample::select(vec![
            "(", "not ", "not not in ", "((a == b) or ", "(not ", "a == b and ", "a[\"", "a.", "\"\\",
            "`", "\\", "a ", "- ", "0", "\n", "ID matches `(.*)*` or ",
        ]),
        end in prop::sample::select(vec!["", "ID == 1", "not in ID", ")"]),
        bytes in 0..MAX_EXPRESSION_BYTES,
    ) {
        let text = format!("{}{end}", piece.repeat(bytes / piece.len()));
        if let Ok(filter) = Filter::<Node>::new(&text) {
            filter.keeps(&entry().node);
        }
    }
}
