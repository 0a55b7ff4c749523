//! Requests to one node, as a patient client sends them.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use crate::{Failure, Limit, Result};

/// How long a client waits: longer than a server holds a request without a leader (7 s), so that a
/// client never gives up on a request that the server still may complete.
pub const PATIENCE: Duration = Duration::from_secs(12);

/// What a node answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `X-Consul-Index`, if it was sent.
    pub index: Option<u64>,
    /// `X-Consul-KnownLeader`, if it was sent.
    pub known_leader: Option<bool>,
    /// `Allow`, if it was sent.
    pub allow: Option<String>,
    /// The body; bytes that are no UTF-8 are replaced.
    pub body: String,
}

impl Answer {
    /// An answer without headers.
    #[cfg(test)]
    pub(crate) fn plain(status: u16, body: &(impl ToString + ?Sized)) -> Self {
        let (index, known_leader, allow) = (None, None, None);
        Self { status, index, known_leader, allow, body: body.to_string() }
    }

    /// The body as JSON; fails with the status and body in the message.
    pub fn json(&self) -> Result<Value> {
        if self.status != 200 {
            return Err(Failure::new(format!("status {}: {}", self.status, self.body)));
        }
        Ok(serde_json::from_str(&self.body)?)
    }

    /// A figure of `/metrics`, by its whole name.
    pub fn figure(&self, name: &str) -> Option<u64> {
        let line = self.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.parse().ok()
    }

    /// The index that a blocking query hands back; fails if none was sent.
    pub fn require_index(&self) -> Result<u64> {
        self.index.ok_or_else(|| Failure::new(format!("no X-Consul-Index: {self:?}")))
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoAnswer {
    /// No connection: the request was never sent.
    NotSent(String),
    /// It was sent, and what became of it is not known.
    Unknown(String),
}

impl From<NoAnswer> for Failure {
    fn from(error: NoAnswer) -> Self {
        match error {
            NoAnswer::NotSent(why) => Self::new(format!("not sent: {why}")),
            NoAnswer::Unknown(why) => Self::new(format!("no answer: {why}")),
        }
    }
}

/// One node's HTTP API. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Http {
    client: reqwest::Client,
    base: String,
}

impl Http {
    /// The API at `base`, such as `http://127.1.2.3:8500`, with [`PATIENCE`].
    pub fn new(base: &str) -> Result<Self> {
        Self::with_patience(base, PATIENCE)
    }

    /// The same with another limit for each request.
    pub fn with_patience(base: &str, patience: Duration) -> Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(patience)
            .tcp_nodelay(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(usize::MAX)
            .build()
            .map_err(|error| Failure::new(describe(&error)))?;
        Ok(Self { client, base: base.to_owned() })
    }

    /// `http://IP:PORT`.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `GET path`; `path` begins with a slash and may have a query.
    pub async fn get(&self, path: &str) -> Result<Answer, NoAnswer> {
        self.send(Method::GET, path, Vec::new()).await
    }

    /// `PUT path`.
    pub async fn put(&self, path: &str, body: impl Into<Vec<u8>>) -> Result<Answer, NoAnswer> {
        self.send(Method::PUT, path, body.into()).await
    }

    /// `PUT path`, where anything but 200 is a failure. Returns the body.
    pub async fn must_put(&self, path: &str, body: impl Into<Vec<u8>>) -> Result<String> {
        let answer = self.put(path, body).await?;
        if answer.status == 200 {
            return Ok(answer.body);
        }
        Err(Failure::new(format!("PUT {path} at {}: {} {}", self.base, answer.status, answer.body)))
    }

    /// `GET path` as JSON, where anything but 200 is a failure.
    pub async fn must_get(&self, path: &str) -> Result<Value> {
        let answer = self.get(path).await?;
        answer.json().map_err(|error| Failure::new(format!("GET {path} at {}: {error}", self.base)))
    }

    /// Asks until the answer is 200 with a JSON body as wanted, and returns that body.
    pub async fn wait_for(
        &self,
        path: &str,
        limit: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let limit = Limit::new(limit);
        loop {
            let seen = self.must_get(path).await;
            match seen {
                Ok(seen) if wanted(&seen) => return Ok(seen),
                seen => limit.pause(|| format!("the wanted answer to {path}: {seen:?}")).await?,
            }
        }
    }

    /// Any request.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Answer, NoAnswer> {
        let request = self.client.request(method, format!("{}{path}", self.base)).body(body);
        let response = request.send().await.map_err(|error| classify(&error))?;
        let header = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let mut answer = Answer {
            status: response.status().as_u16(),
            index: header("x-consul-index").and_then(|text| text.parse().ok()),
            known_leader: header("x-consul-knownleader").and_then(|text| text.parse().ok()),
            allow: header("allow"),
            body: String::new(),
        };
        let bytes = response.bytes().await.map_err(|error| classify(&error))?;
        answer.body = String::from_utf8_lossy(&bytes).into_owned();
        Ok(answer)
    }
}

fn classify(error: &reqwest::Error) -> NoAnswer {
    if error.is_connect() || error.is_builder() {
        NoAnswer::NotSent(describe(error))
    } else {
        NoAnswer::Unknown(describe(error))
    }
}

/// reqwest names the cause only in the chain of sources.
fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
