//! The HTTP API of one server, with every answer as it came.
//!
//! [`Client`](crate::Client) sends its requests through this, and adds failover and types. Whoever needs statuses,
//! headers and bodies, or must know what became of each request, uses it directly. It repeats nothing and follows no
//! redirects. A request without an answer was either never sent ([`Error::Unreachable`]), or it may have been carried out
//! ([`Error::Transport`] for a read, [`Error::OutcomeUnknown`] for anything else).

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Cause, Error};
use crate::tls::Tls;

/// How long an answer may take unless the caller says otherwise: longer than a server holds a request while there is
/// no leader, so that nobody gives up on a request that the server may still complete.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Header of a refusal: why, in a word for programs, such as `pool-busy`.
pub const REASON_HEADER: &str = "x-quorate-reason";

/// One server. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Http {
    client: reqwest::Client,
    base: Arc<str>,
    timeout: Duration,
}

impl Http {
    /// The server at `base`, such as `http://127.0.0.1:8500`, with [`ANSWER_TIMEOUT`]. One at `https://` is checked
    /// as the environment says, see [`ClientBuilder::tls_from_env`](crate::ClientBuilder::tls_from_env).
    ///
    /// # Errors
    /// [`Error::Configuration`] if the HTTP client cannot be made.
    pub fn new(base: &str) -> Result<Self, Error> {
        Self::with_timeout(base, ANSWER_TIMEOUT)
    }

    /// The same with another limit for each request, the connection included.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_timeout(base: &str, timeout: Duration) -> Result<Self, Error> {
        let is_https = base.starts_with("https://");
        let tls = if is_https { Tls::default().or_environment()? } else { Tls::default() };
        let client = shared_client(timeout, HeaderMap::new(), tls.config(is_https)?)?;
        Ok(Self::shared(client, base, timeout))
    }

    /// A server that shares its connections' settings with others.
    pub(crate) fn shared(client: reqwest::Client, base: &str, timeout: Duration) -> Self {
        Self { client, base: base.trim_end_matches('/').into(), timeout }
    }

    /// `http://HOST:PORT` or `https://HOST:PORT`.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `GET target`; `target` is a path that begins with a slash, and may have a query.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Transport`] or [`Error::OutcomeUnknown`]; an answer of any status is none.
    pub async fn get(&self, target: &str) -> Result<Answer, Error> {
        self.send(Method::GET, target, Bytes::new()).await
    }

    /// `PUT target`.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn put(&self, target: &str, body: impl Into<Bytes>) -> Result<Answer, Error> {
        self.send(Method::PUT, target, body.into()).await
    }

    /// `GET target` as JSON.
    ///
    /// # Errors
    /// As [`Self::get`]; [`Error::Status`] if the answer is no success, [`Error::Decode`] if it is no JSON.
    pub async fn must_get(&self, target: &str) -> Result<Value, Error> {
        self.succeeded(&Method::GET, target, self.get(target).await?)?.json()
    }

    /// `PUT target`; returns the body of the answer.
    ///
    /// # Errors
    /// As [`Self::get`]; [`Error::Status`] if the answer is no success.
    pub async fn must_put(&self, target: &str, body: impl Into<Bytes>) -> Result<String, Error> {
        Ok(self.succeeded(&Method::PUT, target, self.put(target, body).await?)?.text())
    }

    /// Any request.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn send(&self, method: Method, target: &str, body: Bytes) -> Result<Answer, Error> {
        self.send_within(self.timeout, method, target, body, None).await
    }

    /// Any request, with its own limit for the answer and with the type of its body.
    pub(crate) async fn send_within(
        &self,
        timeout: Duration,
        method: Method,
        target: &str,
        body: Bytes,
        content_type: Option<&'static str>,
    ) -> Result<Answer, Error> {
        let request = self.request(&method, target, body, content_type).timeout(timeout);
        let no_answer = |source| self.no_answer(&method, target, source);
        let response = request.send().await.map_err(no_answer)?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.map_err(no_answer)?;
        Ok(Answer { status, headers, body })
    }

    /// Sends a request whose answer is read piece by piece. Only its head must come within `timeout`.
    pub(crate) async fn open(
        &self,
        timeout: Duration,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Result<Response, Error> {
        let sent = self.request(&method, target, body, None).send();
        match tokio::time::timeout(timeout, sent).await {
            Ok(answered) => answered.map_err(|source| self.no_answer(&method, target, source)),
            Err(elapsed) => Err(self.broken(&method, target, elapsed.into())),
        }
    }

    fn request(
        &self,
        method: &Method,
        target: &str,
        body: Bytes,
        content_type: Option<&'static str>,
    ) -> reqwest::RequestBuilder {
        let url = format!("{}{target}", self.base);
        let mut request = self.client.request(method.clone(), url);
        if let Some(kind) = content_type {
            request = request.header(CONTENT_TYPE, kind);
        }
        if *method != Method::GET || !body.is_empty() {
            request = request.body(body);
        }
        request
    }

    fn no_answer(&self, method: &Method, target: &str, source: reqwest::Error) -> Error {
        if source.is_connect() || source.is_builder() {
            return Error::Unreachable { addresses: self.base.to_string(), source };
        }
        self.broken(method, target, source.into())
    }

    /// It was sent, and there is no answer.
    pub(crate) fn broken(&self, method: &Method, target: &str, source: Cause) -> Error {
        if *method == Method::GET || *method == Method::HEAD {
            return Error::Transport { address: self.base.to_string(), source };
        }
        Error::OutcomeUnknown { request: format!("{method} {}{target}", self.base), source }
    }

    /// The answer, if it is a success.
    pub(crate) fn succeeded(
        &self,
        method: &Method,
        target: &str,
        answer: Answer,
    ) -> Result<Answer, Error> {
        if answer.is_success() {
            return Ok(answer);
        }
        let request = format!("{method} {}{target}", self.base);
        Err(Error::Status { request, status: answer.status, text: answer.text() })
    }
}

/// An HTTP client that keeps its connections.
pub(crate) fn shared_client(
    connect_timeout: Duration,
    headers: HeaderMap,
    tls: rustls::ClientConfig,
) -> Result<reqwest::Client, Error> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(connect_timeout)
        .default_headers(headers)
        .tcp_nodelay(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| Error::Configuration(error.to_string()))
}

/// An answer as it came, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Answer {
    /// An answer without headers.
    pub fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, headers: HeaderMap::new(), body: body.into() }
    }

    /// Whether the status is 2xx.
    #[must_use]
    pub fn is_success(&self) -> bool {
        StatusCode::from_u16(self.status).is_ok_and(|status| status.is_success())
    }

    /// A header that is text, by its name in any letter case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether the body is JSON, as the server says.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.header("content-type").is_some_and(|kind| kind.starts_with("application/json"))
    }

    /// `X-Consul-Index`, if it was sent and is a number.
    #[must_use]
    pub fn index(&self) -> Option<u64> {
        self.parsed("x-consul-index")
    }

    /// [`REASON_HEADER`]: why it was refused, in a word for programs, where one status stands for several things.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.header(REASON_HEADER)
    }

    /// `X-Quorate-Index`: how far the server had applied the log, if it was sent.
    #[must_use]
    pub fn applied_index(&self) -> Option<u64> {
        self.parsed("x-quorate-index")
    }

    /// `Retry-After` in seconds, if it was sent.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.parsed("retry-after").map(Duration::from_secs)
    }

    /// `X-Consul-KnownLeader`, if it was sent.
    #[must_use]
    pub fn known_leader(&self) -> Option<bool> {
        self.parsed("x-consul-knownleader")
    }

    /// `X-Consul-LastContact` in milliseconds, if it was sent.
    #[must_use]
    pub fn last_contact_ms(&self) -> Option<u64> {
        self.parsed("x-consul-lastcontact")
    }

    fn parsed<T: FromStr>(&self, name: &str) -> Option<T> {
        self.header(name)?.parse().ok()
    }

    /// The body as text; bytes that are no UTF-8 are replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, whatever the status.
    ///
    /// # Errors
    /// [`Error::Decode`] if it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error::Decode(error.to_string()))
    }

    /// A sample of `/metrics`, by its whole name.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<u64> {
        let text = str::from_utf8(&self.body).ok()?;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_tells_its_metrics_by_their_whole_names() {
        let answer = Answer::new(200, "a_total 7\na 9\nb{x=\"1\"} 3\n");
        assert_eq!((answer.metric("a"), answer.metric("b{x=\"1\"}")), (Some(9), Some(3)));
        assert_eq!((answer.metric("a_"), answer.metric("b")), (None, None));
    }

    #[test]
    fn a_body_is_json_or_says_why_not() {
        assert_eq!(Answer::new(404, "[1]").json::<Vec<u8>>().unwrap(), [1]);
        assert!(matches!(Answer::new(200, "[").json::<Value>(), Err(Error::Decode(_))));
    }
}
