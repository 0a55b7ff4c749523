//! Requests to one node: the client library's own client, with the patience of a real client, and what tests need
//! on top.

use std::future::Future;
use std::time::Duration;

use serde_json::Value;

use crate::{Failure, Limit, Result};

pub use quorate_client::{Answer, Error, Http, Method};

/// How long a client waits: longer than a server holds a request without a leader (7 s), so that a
/// client never gives up on a request that the server still may complete.
pub const PATIENCE: Duration = Duration::from_secs(12);

/// What tests need of an answer.
pub trait AnswerExt {
    /// The body as JSON; fails with the status and body in the message unless the status is 200.
    fn value(&self) -> Result<Value>;

    /// The index for the next blocking query; fails if there is none.
    fn require_index(&self) -> Result<u64>;
}

impl AnswerExt for Answer {
    fn value(&self) -> Result<Value> {
        if self.status != 200 {
            return Err(Failure::new(format!("status {}: {}", self.status, self.text())));
        }
        Ok(self.json()?)
    }

    fn require_index(&self) -> Result<u64> {
        self.index().ok_or_else(|| Failure::new(format!("no X-Consul-Index: {self:?}")))
    }
}

/// What tests need of a node.
pub trait HttpExt {
    /// A figure of `/metrics`; fails if there is none of this name.
    fn figure(&self, name: &str) -> impl Future<Output = Result<u64>> + Send;

    /// Waits until the rules of this level are in force at the node: a new leader puts them into force once every
    /// server has said that it knows them.
    fn wait_level(&self, level: u64, limit: Duration) -> impl Future<Output = Result<()>> + Send;

    /// Polls until the answer is 200 with a JSON body as wanted, and returns that body.
    fn wait_for(
        &self,
        path: &str,
        limit: Duration,
        wanted: impl Fn(&Value) -> bool + Send + Sync,
    ) -> impl Future<Output = Result<Value>> + Send;
}

impl HttpExt for Http {
    async fn figure(&self, name: &str) -> Result<u64> {
        let figure = self.get("/metrics").await?.metric(name);
        figure.ok_or_else(|| Failure::new(format!("no figure {name}")))
    }

    async fn wait_level(&self, level: u64, limit: Duration) -> Result<()> {
        let is_in_force = |seen: &Value| seen["Level"].as_u64() >= Some(level);
        self.wait_for("/v1/quorate/state-hash", limit, is_in_force).await.map(drop)
    }

    async fn wait_for(
        &self,
        path: &str,
        limit: Duration,
        wanted: impl Fn(&Value) -> bool + Send + Sync,
    ) -> Result<Value> {
        let limit = Limit::new(limit);
        loop {
            match self.must_get(path).await {
                Ok(seen) if wanted(&seen) => return Ok(seen),
                seen => limit.pause(|| format!("the wanted answer to {path}: {seen:?}")).await?,
            }
        }
    }
}
