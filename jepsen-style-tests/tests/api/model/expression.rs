//! Filter expressions: made at random, rendered as text, and evaluated on what the model shows.

use std::fmt;

use serde_json::Value;

use crate::dice::Dice;

/// What a selector points at, and so which operators it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
    List,
    /// A member of a map.
    Member,
    /// A text below a list.
    Any,
}

pub(crate) type Selectors = &'static [(&'static str, Kind)];

pub(crate) const NODE: Selectors = &[
    ("Node", Kind::Text),
    ("Address", Kind::Text),
    ("ID", Kind::Text),
    ("Meta.env", Kind::Member),
];
pub(crate) const CATALOG_SERVICE: Selectors = &[
    ("Node", Kind::Text),
    ("ServiceID", Kind::Text),
    ("ServiceName", Kind::Text),
    ("ServiceAddress", Kind::Text),
    ("ServiceTags", Kind::List),
    ("ServicePort", Kind::Number),
    ("ServiceMeta.env", Kind::Member),
];
pub(crate) const HEALTH: Selectors = &[
    ("Node.Node", Kind::Text),
    ("Service.ID", Kind::Text),
    ("Service.Tags", Kind::List),
    ("Service.Meta.env", Kind::Member),
    ("Checks.Status", Kind::Any),
];
pub(crate) const CHECK: Selectors = &[
    ("Node", Kind::Text),
    ("CheckID", Kind::Text),
    ("Status", Kind::Text),
    ("ServiceName", Kind::Text),
    ("ServiceTags", Kind::List),
    ("Output", Kind::Text),
];

const WORDS: &[&str] =
    &["web", "db", "n-a", "passing", "critical", "a", "blue", "10.0.0.1", "prod", "quorate", ""];

#[derive(Debug, Clone)]
pub(crate) enum Expression {
    Not(Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Match { selector: &'static str, kind: Kind, operator: &'static str, value: String },
}

impl Expression {
    pub(crate) fn random(dice: &mut Dice, selectors: Selectors, depth: u32) -> Self {
        let deeper = |dice: &mut Dice| Box::new(Self::random(dice, selectors, depth - 1));
        match if depth == 0 { 9 } else { dice.below(10) } {
            0 => Self::Not(deeper(dice)),
            1 | 2 => Self::And(deeper(dice), deeper(dice)),
            3 | 4 => Self::Or(deeper(dice), deeper(dice)),
            _ => {
                let (selector, kind) = *dice.pick(selectors);
                let operators: &[&str] = match kind {
                    Kind::Text => &["==", "!=", "in", "not in", "contains", "matches"],
                    Kind::Number | Kind::Member | Kind::Any => &["==", "!="],
                    Kind::List => &["in", "not in", "contains", "is empty", "is not empty"],
                };
                let operator = dice.pick(operators);
                let value = match kind {
                    Kind::Number => dice.pick(&["80", "0", "8080"]).to_string(),
                    _ => dice.pick(WORDS).to_string(),
                };
                Self::Match { selector, kind, operator, value }
            }
        }
    }

    /// Whether a row is left.
    pub(crate) fn keeps(&self, row: &Value) -> bool {
        match self {
            Self::Not(inner) => !inner.keeps(row),
            Self::And(left, right) => left.keeps(row) && right.keeps(row),
            Self::Or(left, right) => left.keeps(row) || right.keeps(row),
            Self::Match { selector, kind, operator, value } => {
                let path: Vec<&str> = selector.split('.').collect();
                if *kind == Kind::Any {
                    let (list, member) = (&row[path[0]], path[1]);
                    let mut rows = list.as_array().into_iter().flatten();
                    return rows.any(|row| is_match(&row[member], operator, value));
                }
                let found = path.iter().fold(row, |row, name| &row[*name]);
                is_match(found, operator, value)
            }
        }
    }
}

fn is_match(found: &Value, operator: &str, value: &str) -> bool {
    let text = match found {
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    };
    let within = || match found {
        Value::Array(list) => list.iter().any(|element| element == value),
        _ => text.as_ref().is_some_and(|text| text.contains(value)),
    };
    let is_empty = || match found {
        Value::Array(list) => list.is_empty(),
        _ => text.as_ref().is_none_or(String::is_empty),
    };
    match operator {
        "==" => text.as_deref() == Some(value),
        "!=" => text.as_deref() != Some(value),
        "in" | "contains" | "matches" => within(),
        "not in" => !within(),
        "is empty" => is_empty(),
        "is not empty" => !is_empty(),
        other => panic!("no operator: {other}"),
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Not(inner) => write!(f, "not ({inner})"),
            Self::And(left, right) => write!(f, "({left}) and ({right})"),
            Self::Or(left, right) => write!(f, "({left}) or ({right})"),
            Self::Match { selector, operator, value, .. } => match *operator {
                "in" | "not in" => write!(f, "\"{value}\" {operator} {selector}"),
                "is empty" | "is not empty" => write!(f, "{selector} {operator}"),
                "matches" => write!(f, "{selector} matches `{}`", value.replace('.', "[.]")),
                "==" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphabetic()) => {
                    write!(f, "{selector}=={value}")
                }
                operator => write!(f, "{selector} {operator} \"{value}\""),
            },
        }
    }
}
