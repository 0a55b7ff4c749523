//! Comparisons that fit a type of rows, and what they answer.

use quorate_client::types::ServiceAddress;
use quorate_client::types::health::HealthCheck;
use regex::Regex;

use super::literal::{boolean, integer};
use super::parse::{Comparison, Operator};
use super::pattern;
use super::selectors::{Field, Record};
use crate::discovery::regexp::MAX_PATTERN_BYTES;

/// The most comparisons of an expression. Each is asked of each row.
const MAX_COMPARISONS: usize = 512;
/// The most regular expressions.
const MAX_REGEXES: usize = 16;

/// A comparison that can be asked of rows.
#[derive(Debug)]
pub(super) struct Test {
    selector: Vec<String>,
    question: Question,
    negated: bool,
}

#[derive(Debug)]
enum Question {
    IsText(String),
    IsInteger(i64),
    IsBoolean(bool),
    /// A part of a text, a member of a list or a key of a map.
    Has(String),
    IsEmpty,
    Matches(Regex),
}

/// What a selector leads to, by its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Integer,
    Boolean,
    /// A list of texts, or a map.
    Collection,
    /// A list of records, of which only emptiness can be asked.
    Records,
    Record,
}

/// Fits comparisons to a type of rows, and counts what they cost.
pub(super) struct Fitting<'a> {
    sample: &'a dyn Record,
    comparisons: usize,
    regexes: usize,
}

impl<'a> Fitting<'a> {
    /// Of rows like `sample`, of which only the type matters.
    pub(super) fn new(sample: &'a dyn Record) -> Self {
        Self { sample, comparisons: 0, regexes: 0 }
    }

    /// Fits one comparison, or says in Consul's words why it cannot be.
    pub(super) fn fit(&mut self, comparison: Comparison) -> Result<Test, String> {
        self.comparisons += 1;
        if self.comparisons > MAX_COMPARISONS {
            return Err(format!(
                "Number of match expressions exceeds the limit ({MAX_COMPARISONS})"
            ));
        }
        let kind = kind(self.sample, &comparison.selector, 0)?;
        let question = self.question(kind, &comparison)?;
        Ok(Test { selector: comparison.selector, question, negated: comparison.negated })
    }

    fn question(&mut self, kind: Kind, comparison: &Comparison) -> Result<Question, String> {
        let value = &comparison.value;
        let coerced = |fault: String| {
            let selector = comparison.selector.join(".");
            format!("Failed to coerce value {value:?} for selector {selector:?}: {fault}")
        };
        Ok(match (comparison.operator, kind) {
            (Operator::Equal, Kind::Text) => Question::IsText(value.clone()),
            (Operator::Equal, Kind::Integer) => {
                Question::IsInteger(integer(value).map_err(coerced)?)
            }
            (Operator::Equal, Kind::Boolean) => {
                Question::IsBoolean(boolean(value).map_err(coerced)?)
            }
            (Operator::In, Kind::Text | Kind::Collection) => Question::Has(value.clone()),
            (Operator::Empty, Kind::Collection | Kind::Records) => Question::IsEmpty,
            (Operator::Matches, Kind::Text) => Question::Matches(self.regex(value)?),
            _ => {
                return Err(format!(
                    "Invalid match operator {:?} for selector {:?}",
                    operator_name(comparison),
                    comparison.selector.join(".")
                ));
            }
        })
    }

    fn regex(&mut self, text: &str) -> Result<Regex, String> {
        self.regexes += 1;
        if self.regexes > MAX_REGEXES {
            return Err(format!("Number of regular expressions exceeds the limit ({MAX_REGEXES})"));
        }
        if text.len() > MAX_PATTERN_BYTES {
            return Err(format!(
                "Regular expression with length {} exceeds maximum length of {}",
                text.len(),
                MAX_PATTERN_BYTES
            ));
        }
        pattern::compile(text)
    }
}

const fn operator_name(comparison: &Comparison) -> &'static str {
    match (comparison.operator, comparison.negated) {
        (Operator::Equal, false) => "Equal",
        (Operator::Equal, true) => "Not Equal",
        (Operator::In, false) => "In",
        (Operator::In, true) => "Not In",
        (Operator::Empty, false) => "Is Empty",
        (Operator::Empty, true) => "Is Not Empty",
        (Operator::Matches, false) => "Matches",
        (Operator::Matches, true) => "Not Matches",
    }
}

/// What the names from `at` on lead to below `record`.
fn kind(record: &dyn Record, selector: &[String], at: usize) -> Result<Kind, String> {
    // As in Consul, the sentence ends with the first name that leads nowhere.
    let invalid = |names: usize| {
        let names = selector.get(..names).unwrap_or(selector);
        Err(format!("Selector {:?} is not valid", names.join(".")))
    };
    let name = selector.get(at).map_or("", String::as_str);
    let Some(field) = record.field(name) else { return invalid(at + 1) };
    match (field, selector.len() - at) {
        (Field::Text(_), 1) => Ok(Kind::Text),
        (Field::Integer(_), 1) => Ok(Kind::Integer),
        (Field::Boolean(_), 1) => Ok(Kind::Boolean),
        (Field::Texts(_) | Field::TextMap(_) | Field::Addresses(_), 1) => Ok(Kind::Collection),
        (Field::Checks(_), 1) => Ok(Kind::Records),
        (Field::Record(_), 1) | (Field::Addresses(_), 2) => Ok(Kind::Record),
        (Field::TextMap(_), 2) => Ok(Kind::Text),
        (Field::TextMap(_), _) => invalid(at + 3),
        (Field::Addresses(_), _) => kind(&ServiceAddress::default(), selector, at + 2),
        (Field::Checks(_), _) => kind(&HealthCheck::default(), selector, at + 1),
        (Field::Record(below), _) => kind(below, selector, at + 1),
        (Field::Text(_) | Field::Integer(_) | Field::Boolean(_) | Field::Texts(_), _) => {
            invalid(at + 2)
        }
    }
}

impl Test {
    /// Whether answering takes much longer than looking.
    pub(super) const fn is_costly(&self) -> bool {
        matches!(self.question, Question::Matches(_))
    }

    /// What a row answers. Rows must be of the type that the test was fitted to.
    pub(super) fn passes(&self, row: &dyn Record) -> bool {
        self.below(row, &self.selector)
    }

    fn below(&self, record: &dyn Record, names: &[String]) -> bool {
        let Some((name, rest)) = names.split_first() else { return false };
        record.field(name).is_some_and(|field| self.at(&field, rest))
    }

    fn at(&self, field: &Field<'_>, names: &[String]) -> bool {
        let Some((name, rest)) = names.split_first() else {
            return self.question.holds_for(field) != self.negated;
        };
        match field {
            Field::Record(record) => self.below(*record, names),
            // Any element will do, for a negated question too, and none does in an empty list.
            Field::Checks(checks) => checks.iter().any(|check| self.below(check, names)),
            Field::TextMap(map) => map
                .get(name)
                .map_or_else(|| self.missing(), |text| self.at(&Field::Text(text), rest)),
            Field::Addresses(map) => {
                map.get(name).map_or_else(|| self.missing(), |address| self.below(address, rest))
            }
            Field::Text(_) | Field::Integer(_) | Field::Boolean(_) | Field::Texts(_) => false,
        }
    }

    /// What a key that is not in its map answers: it equals, contains and matches nothing.
    const fn missing(&self) -> bool {
        self.negated
    }
}

impl Question {
    fn holds_for(&self, field: &Field<'_>) -> bool {
        match (self, field) {
            (Self::IsText(asked), Field::Text(text)) => asked == text,
            (Self::IsInteger(asked), Field::Integer(number)) => asked == number,
            (Self::IsBoolean(asked), Field::Boolean(value)) => asked == value,
            (Self::Has(part), Field::Text(text)) => text.contains(part.as_str()),
            (Self::Has(member), Field::Texts(texts)) => texts.contains(member),
            (Self::Has(key), Field::TextMap(map)) => map.contains_key(key),
            (Self::Has(key), Field::Addresses(map)) => map.contains_key(key),
            (Self::IsEmpty, Field::Texts(texts)) => texts.is_empty(),
            (Self::IsEmpty, Field::TextMap(map)) => map.is_empty(),
            (Self::IsEmpty, Field::Addresses(map)) => map.is_empty(),
            (Self::IsEmpty, Field::Checks(checks)) => checks.is_empty(),
            (Self::Matches(regex), Field::Text(text)) => regex.is_match(text),
            // Refused when it was fitted.
            _ => false,
        }
    }
}
