//! The grammar of filter expressions.
//!
//! ```text
//! or         = and { _ "or" _ and }
//! and        = not { _ "and" _ not }
//! not        = "not" _ not | "(" or ")" | comparison
//! comparison = selector ("==" | "!=") value
//!            | selector _ ["not" _] ("contains" | "matches") _ value
//!            | selector _ "is" _ ["not" _] "empty"
//!            | value _ ["not" _] "in" _ selector
//! selector   = word { "." word | "[" string "]" }
//! value      = selector | number | string
//! ```
//!
//! Where go-bexpr tries one alternative after the other, one look ahead is enough here: a value may
//! begin like a selector, so a term is read first and the operator says what it was. So parsing takes
//! linear time, and a fault is reported where it is.

use winnow::ascii::{digit0, digit1, multispace0, multispace1};
use winnow::combinator::{
    alt, cut_err, delimited, eof, fail, not, opt, peek, preceded, repeat, separated, terminated,
};
use winnow::error::{
    AddContext as _, ContextError, ErrMode, ParseError, ParserError as _, StrContext,
    StrContextValue,
};
use winnow::prelude::*;
use winnow::stream::Stateful;
use winnow::token::{any, none_of, one_of, take_till, take_while};

use super::Expression;
use super::literal::unquote;

/// How deep `not` and brackets may be nested. The stages of a filter recurse, so this bounds their
/// stack.
pub(super) const MAX_NESTING: usize = 64;

/// What a comparison asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    /// `==`, `!=`
    Equal,
    /// `in`, `not in`, and the other way round `contains`, `not contains`
    In,
    /// `is empty`, `is not empty`
    Empty,
    /// `matches`, `not matches`
    Matches,
}

/// A comparison as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Comparison {
    /// Names of members from the outside to the inside; never empty.
    pub(super) selector: Vec<String>,
    pub(super) operator: Operator,
    pub(super) negated: bool,
    /// Empty with [`Operator::Empty`].
    pub(super) value: String,
}

/// What may stand on either side of an operator.
#[derive(Debug)]
struct Term {
    /// The text of a value, without quotes.
    value: String,
    /// Set if it may also be a selector.
    selector: Option<Vec<String>>,
}

/// The text, with the number of brackets and `not`s around the place that is read.
type Input<'a> = Stateful<&'a str, usize>;

type Parsed<T> = ModalResult<T>;

/// Reads an expression. The error is a sentence with the place, as Consul's parser gives it.
pub(super) fn expression(text: &str) -> Result<Expression<Comparison>, String> {
    let input = Input { input: text, state: 0 };
    let end = expected(eof, "\"and\", \"or\" or the end");
    let mut whole = delimited(multispace0, alternatives, (multispace0, cut_err(end)));
    whole.parse(input).map_err(|error| complaint(text, &error))
}

fn complaint(text: &str, error: &ParseError<Input<'_>, ContextError>) -> String {
    let offset = error.offset();
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    // The first context is that of the innermost parser.
    let fault = match error.inner().context().next() {
        Some(StrContext::Label(fault)) => (*fault).to_owned(),
        Some(StrContext::Expected(what)) => format!("no match found, expected: {what}"),
        _ => "no match found".to_owned(),
    };
    format!("{line}:{column} ({offset}): {fault}")
}

/// The parser, with a description of what it looks for.
fn expected<'a, T>(
    parser: impl Parser<Input<'a>, T, ErrMode<ContextError>>,
    what: &'static str,
) -> impl Parser<Input<'a>, T, ErrMode<ContextError>> {
    parser.context(StrContext::Expected(StrContextValue::Description(what)))
}

/// Ends the parsing with a sentence about this place.
fn refuse<T>(input: &mut Input<'_>, sentence: &'static str) -> Parsed<T> {
    let start = input.checkpoint();
    let error = ContextError::from_input(input);
    Err(ErrMode::Cut(error.add_context(input, &start, StrContext::Label(sentence))))
}

fn alternatives(input: &mut Input<'_>) -> Parsed<Expression<Comparison>> {
    let or = (multispace1, "or", multispace1);
    let terms: Vec<_> = separated(1.., cut_err(conjunction), or).parse_next(input)?;
    Ok(single_or(terms, Expression::Or))
}

fn conjunction(input: &mut Input<'_>) -> Parsed<Expression<Comparison>> {
    let and = (multispace1, "and", multispace1);
    let terms: Vec<_> = separated(1.., cut_err(negation), and).parse_next(input)?;
    Ok(single_or(terms, Expression::And))
}

fn single_or<M>(
    mut terms: Vec<Expression<M>>,
    many: fn(Vec<Expression<M>>) -> Expression<M>,
) -> Expression<M> {
    match (terms.len(), terms.pop()) {
        (1, Some(single)) => single,
        (_, last) => {
            terms.extend(last);
            many(terms)
        }
    }
}

fn negation(input: &mut Input<'_>) -> Parsed<Expression<Comparison>> {
    // `not in Tags` asks for the value "not".
    let prefix = ("not", multispace1, not(("in", multispace1)));
    if opt(prefix).parse_next(input)?.is_some() {
        let negated = nested(input, negation)?;
        return Ok(Expression::Not(Box::new(negated)));
    }
    if opt(('(', multispace0)).parse_next(input)?.is_some() {
        let inside = nested(input, alternatives)?;
        cut_err(expected((multispace0, ')'), "\"and\", \"or\" or \")\"")).parse_next(input)?;
        return Ok(inside);
    }
    comparison.map(Expression::Match).parse_next(input)
}

/// Reads what is below one more `not` or bracket.
fn nested<T>(input: &mut Input<'_>, inside: fn(&mut Input<'_>) -> Parsed<T>) -> Parsed<T> {
    if input.state >= MAX_NESTING {
        return refuse(input, "Expression is nested too deeply");
    }
    input.state += 1;
    let read = cut_err(inside).parse_next(input);
    input.state -= 1;
    read
}

fn comparison(input: &mut Input<'_>) -> Parsed<Comparison> {
    let first = expected(term, "\"(\", \"not\", a selector or a value").parse_next(input)?;
    let Some((operator, side, negated)) = opt(operator).parse_next(input)? else {
        let fitting = if first.selector.is_some() { OPERATORS } else { OPERATORS_OF_VALUES };
        return cut_err(expected(fail, fitting)).parse_next(input);
    };
    if side == Side::Right {
        let selector = cut_err(expected(selector, "a selector")).parse_next(input)?;
        return Ok(Comparison { selector, operator, negated, value: first.value });
    }
    let Some(selector) = first.selector else {
        return refuse(input, "Invalid selector before the operator");
    };
    let value = match operator {
        Operator::Empty => String::new(),
        Operator::Equal | Operator::In | Operator::Matches => {
            cut_err(expected(term, "a value")).parse_next(input)?.value
        }
    };
    Ok(Comparison { selector, operator, negated, value })
}

const OPERATORS: &str = "\"==\", \"!=\", \"in\", \"not in\", \"contains\", \"not contains\", \
                         \"matches\", \"not matches\", \"is empty\" or \"is not empty\"";
const OPERATORS_OF_VALUES: &str = "\"in\" or \"not in\"";

/// Where an operator has its selector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// An operator with the blanks around it, and whether it is negated.
fn operator(input: &mut Input<'_>) -> Parsed<(Operator, Side, bool)> {
    let symbol = alt(("==".value(false), "!=".value(true)));
    let symbol = delimited(multispace0, symbol, multispace0);
    let negated = || opt(("not", multispace1)).map(|not| not.is_some());
    let word = alt((
        "in".value((Operator::In, Side::Right)),
        "contains".value((Operator::In, Side::Left)),
        "matches".value((Operator::Matches, Side::Left)),
    ));
    let word = delimited(multispace1, (negated(), word), multispace1);
    let empty = delimited((multispace1, "is", multispace1), negated(), ("empty", end_of_word));
    alt((
        symbol.map(|negated| (Operator::Equal, Side::Left, negated)),
        word.map(|(negated, (operator, side))| (operator, side, negated)),
        empty.map(|negated| (Operator::Empty, Side::Left, negated)),
    ))
    .parse_next(input)
}

fn end_of_word(input: &mut Input<'_>) -> Parsed<()> {
    not(one_of(|letter: char| letter.is_ascii_alphanumeric() || letter == '_')).parse_next(input)
}

fn term(input: &mut Input<'_>) -> Parsed<Term> {
    alt((
        selector.map(|path| Term { value: path.join("."), selector: Some(path) }),
        number.map(|value| Term { value, selector: None }),
        string.map(|value| Term { value, selector: None }),
    ))
    .parse_next(input)
}

fn selector(input: &mut Input<'_>) -> Parsed<Vec<String>> {
    let first = word.parse_next(input)?;
    let below = alt((preceded('.', expected(cut_err(below_dot), "a name")), index));
    let rest = repeat(0.., below).fold(
        || vec![first.clone()],
        |mut path, name| {
            path.push(name);
            path
        },
    );
    { rest }.parse_next(input)
}

fn word(input: &mut Input<'_>) -> Parsed<String> {
    let later = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '/');
    let letters = (one_of(|letter: char| letter.is_ascii_alphabetic()), take_while(0.., later));
    letters.take().map(str::to_owned).parse_next(input)
}

/// Members have names, but keys of maps may be numbers.
fn below_dot(input: &mut Input<'_>) -> Parsed<String> {
    alt((word, digit1.map(str::to_owned))).parse_next(input)
}

fn index(input: &mut Input<'_>) -> Parsed<String> {
    let inside = delimited(multispace0, expected(string, "a string"), multispace0);
    let closed = terminated(inside, expected(']', "\"]\""));
    preceded('[', cut_err(closed)).parse_next(input)
}

fn number(input: &mut Input<'_>) -> Parsed<String> {
    let whole = alt(("0".void(), (one_of('1'..='9'), digit0).void()));
    let digits = (opt('-'), whole, opt(('.', digit1)));
    let text = digits.take().map(str::to_owned).parse_next(input)?;
    let after = alt((multispace1.void(), eof.void(), ')'.void()));
    match opt(peek(after)).parse_next(input)? {
        Some(()) => Ok(text),
        // An address without quotes, most often.
        None => refuse(input, "Invalid number literal"),
    }
}

fn string(input: &mut Input<'_>) -> Parsed<String> {
    if opt('`').parse_next(input)?.is_some() {
        let text = take_till(0.., '`').map(str::to_owned).parse_next(input)?;
        return closed(input, '`', text);
    }
    let letter = alt((none_of(['"', '\\']).void(), ('\\', any).void()));
    let letters = preceded('"', repeat(0.., letter).map(|()| ()).take());
    let text = { letters }.parse_next(input)?;
    match unquote(text) {
        Some(unquoted) => closed(input, '"', unquoted),
        None => refuse(input, "invalid syntax in a string literal"),
    }
}

fn closed(input: &mut Input<'_>, quote: char, text: String) -> Parsed<String> {
    match opt(quote).parse_next(input)? {
        Some(_) => Ok(text),
        None => refuse(input, "Unterminated string literal"),
    }
}
