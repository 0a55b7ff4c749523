//! A request, as the endpoints' files describe it.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use serde::Serialize;

use super::Settings;
use crate::error::Error;
use crate::http::Http;
use crate::query::Query;

/// Whether a request can be sent again although it may have taken effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Safety {
    /// It changes nothing.
    Read,
    /// Carried out twice it comes to the same.
    Idempotent,
    /// It must not be carried out twice.
    Once,
}

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Query,
    pub(crate) body: Bytes,
    pub(crate) content_type: Option<&'static str>,
    pub(crate) safety: Safety,
    answers_within: Option<Duration>,
    is_of_agent: bool,
    min_index: u64,
}

impl Call {
    fn new(method: Method, path: impl Into<String>, safety: Safety) -> Self {
        Self {
            method,
            path: path.into(),
            query: Query::new(),
            body: Bytes::new(),
            content_type: None,
            safety,
            answers_within: None,
            is_of_agent: false,
            min_index: 0,
        }
    }

    pub(crate) fn get(path: impl Into<String>, query: &Query) -> Self {
        Self::new(Method::GET, path, Safety::Read).query(query)
    }

    /// A write that must not be carried out twice.
    pub(crate) fn put(path: impl Into<String>) -> Self {
        Self::new(Method::PUT, path, Safety::Once)
    }

    /// A question that has a body.
    pub(crate) fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path, Safety::Read)
    }

    /// A deletion that must not be carried out twice.
    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path, Safety::Once)
    }

    pub(crate) fn query(self, query: &Query) -> Self {
        Self { query: query.clone(), ..self }
    }

    pub(crate) fn body(self, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// # Errors
    /// [`Error::Decode`]: the value has no JSON form.
    pub(crate) fn json(self, value: &impl Serialize) -> Result<Self, Error> {
        let body = serde_json::to_vec(value).map_err(|error| Error::Decode(error.to_string()))?;
        Ok(self.body(body))
    }

    pub(crate) fn plain_text(self) -> Self {
        Self { content_type: Some("text/plain"), ..self }
    }

    /// Carried out twice it comes to the same.
    pub(crate) fn idempotent(self) -> Self {
        Self { safety: Safety::Idempotent, ..self }
    }

    pub(crate) fn safety(self, safety: Safety) -> Self {
        Self { safety, ..self }
    }

    /// An answer from one server must come within `span`.
    pub(crate) fn within(self, span: Duration) -> Self {
        Self { answers_within: Some(span), ..self }
    }

    /// A read of what an agent has: without a leader, a server answers from its own state.
    pub(crate) fn of_agent(self) -> Self {
        Self { is_of_agent: true, ..self }
    }

    /// A stale answer comes from a server that has applied the log at least up to here.
    pub(crate) fn at_least(self, index: u64) -> Self {
        Self { min_index: index, ..self }
    }

    /// Whether the server may answer from a state that lags behind this client's own writes.
    const fn reads_own_state(&self) -> bool {
        self.query.is_stale() || self.is_of_agent
    }

    /// How long one server may take.
    pub(super) fn patience(&self, settings: &Settings, has_others: bool) -> Duration {
        let can_move = has_others && !matches!(self.safety, Safety::Once);
        let usual = if can_move { settings.failover_after } else { settings.answer_timeout };
        self.answers_within.unwrap_or(usual) + self.query.longest_wait()
    }

    /// Path and query, for a client whose last write was answered at `written` (0: nothing is to be waited for).
    pub(crate) fn target(&self, written: u64) -> String {
        let min_index = if self.reads_own_state() { written.max(self.min_index) } else { 0 };
        format!("{}{}", self.path, self.query.render(Some(min_index).filter(|index| *index > 0)))
    }

    /// Method and address, for messages.
    pub(crate) fn named(&self, server: &Http) -> String {
        format!("{} {}{}", self.method, server.base(), self.path)
    }
}
