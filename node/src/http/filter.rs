//! Filter expressions, `?filter=`: `ServicePort == 80 and "v1" in ServiceTags`.
//!
//! The language is the one that Consul takes from HashiCorp's go-bexpr, so what people have in their
//! configurations works unchanged. An expression passes three stages, all of them before the read
//! waits for anything:
//!
//! 1. [`parse`] turns the text into a tree of comparisons, knowing nothing of what is listed.
//! 2. [`eval`] fits the tree to the type of the rows: it looks up every selector, refuses operators
//!    that a field does not have, and turns values into the field's type. This is judged by the type
//!    alone and never by the rows, so a wrong expression is refused over an empty list as well.
//! 3. The tree that is left is asked of each row, and cannot fail any more.
//!
//! [`selectors`] says which fields the types have; [`literal`] reads Go's quoted strings and numbers,
//! [`pattern`] its regular expressions.
//!
//! An expression is somebody else's program, so what it may cost is limited: its length, its nesting
//! (the stages recurse), the number of its comparisons, and the number and size of its regular
//! expressions, which are matched in time linear in the text. Consul itself knows no such limits;
//! ours are far above what clients send. How long they may be matched in all is for [`Patience`] to say.

mod eval;
mod literal;
mod parse;
mod pattern;
mod selectors;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;

use super::error::ApiError;
use super::patience::Patience;
use eval::{Fitting, Test};
pub(super) use selectors::Record;

/// The longest expression.
const MAX_EXPRESSION_BYTES: usize = 16 * 1024;

/// What Consul puts before its complaints about expressions.
const PREFIX: &str = "Failed to create boolean expression evaluator: ";

/// A tree of comparisons `M`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression<M> {
    Match(M),
    Not(Box<Self>),
    /// Two or more, all of which must hold.
    And(Vec<Self>),
    /// Two or more, one of which must hold.
    Or(Vec<Self>),
}

impl<M> Expression<M> {
    /// The same tree of other comparisons, or the first complaint from the left.
    fn try_map<N, E>(self, map: &mut impl FnMut(M) -> Result<N, E>) -> Result<Expression<N>, E> {
        let mut all = |terms: Vec<Self>| -> Result<Vec<_>, E> {
            terms.into_iter().map(|term| term.try_map(map)).collect()
        };
        Ok(match self {
            Self::And(terms) => Expression::And(all(terms)?),
            Self::Or(terms) => Expression::Or(all(terms)?),
            Self::Not(term) => Expression::Not(Box::new(term.try_map(map)?)),
            Self::Match(comparison) => Expression::Match(map(comparison)?),
        })
    }

    /// Whether any comparison is so.
    fn any(&self, is_so: &impl Fn(&M) -> bool) -> bool {
        match self {
            Self::Match(comparison) => is_so(comparison),
            Self::Not(term) => term.any(is_so),
            Self::And(terms) | Self::Or(terms) => terms.iter().any(|term| term.any(is_so)),
        }
    }

    /// Whether the tree holds when comparisons are answered so.
    fn holds(&self, answer: &impl Fn(&M) -> bool) -> bool {
        match self {
            Self::Match(comparison) => answer(comparison),
            Self::Not(term) => !term.holds(answer),
            Self::And(terms) => terms.iter().all(|term| term.holds(answer)),
            Self::Or(terms) => terms.iter().any(|term| term.holds(answer)),
        }
    }
}

/// What is wrong with an expression, in a sentence for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is none, or too large.
    Malformed(String),
    /// It does not fit what is listed.
    Unfitting(String),
}

impl Fault {
    /// The error as `agent/checks` sends it: Consul evaluates an expression there without having
    /// fitted it first, and its complaint lacks the prefix.
    pub(super) fn of_agent_checks(self) -> ApiError {
        match self {
            Self::Unfitting(text) => ApiError::internal(text),
            malformed @ Self::Malformed(_) => malformed.into(),
        }
    }
}

impl From<Fault> for ApiError {
    /// Status 500, as everywhere where Consul's servers (not its agents) judge the input.
    fn from(fault: Fault) -> Self {
        let (Fault::Malformed(text) | Fault::Unfitting(text)) = fault;
        Self::internal(format!("{PREFIX}{text}"))
    }
}

/// Which rows of type `T` a list shows.
#[derive(Debug)]
pub(super) struct Filter<T> {
    /// All, if there is none.
    expression: Option<Expression<Test>>,
    patience: Patience,
    rows: PhantomData<fn(&T)>,
}

impl<T: Record + Default> Filter<T> {
    /// Reads an expression; an empty one is none.
    pub(super) fn new(text: &str) -> Result<Self, Fault> {
        let expression = if text.is_empty() { None } else { Some(fitted(text, &T::default())?) };
        Ok(Self { expression, patience: Patience::default(), rows: PhantomData })
    }

    /// The same, within the time of a request.
    pub(super) fn within(mut self, patience: &Patience) -> Self {
        if self.expression.as_ref().is_some_and(|tree| tree.any(&Test::is_costly)) {
            patience.note_costly();
        }
        self.patience = patience.clone();
        self
    }

    /// Whether there is no expression.
    pub(super) const fn keeps_all(&self) -> bool {
        self.expression.is_none()
    }

    /// Whether a row is shown. Once the time is over, any answer is wrong.
    pub(super) fn keeps(&self, row: &T) -> bool {
        self.keeps_made(|| row)
    }

    /// The same for a row that is only made if there is an expression to ask of it.
    pub(super) fn keeps_made<R: std::borrow::Borrow<T>>(&self, make: impl FnOnce() -> R) -> bool {
        let Some(expression) = &self.expression else { return true };
        if self.patience.is_over() {
            return false;
        }
        let row = make();
        expression.holds(&|test| {
            (!test.is_costly() || self.patience.lasts()) && test.passes(row.borrow())
        })
    }
}

/// An expression that fits rows like `sample`, of which only the type matters.
fn fitted(text: &str, sample: &dyn Record) -> Result<Expression<Test>, Fault> {
    if text.len() > MAX_EXPRESSION_BYTES {
        return Err(Fault::Malformed(format!(
            "Expression with length {} exceeds maximum length of {MAX_EXPRESSION_BYTES}",
            text.len()
        )));
    }
    let parsed = parse::expression(text).map_err(Fault::Malformed)?;
    let mut fitting = Fitting::new(sample);
    parsed.try_map(&mut |comparison| fitting.fit(comparison)).map_err(Fault::Unfitting)
}
