//! Why something is as it is.

use crate::client::Client;
use crate::error::Error;
use crate::query::{Query, with_id};
use crate::types::history::Explanation;

impl Client {
    /// Why something is as it is.
    #[must_use]
    pub const fn explain(&self) -> Explain<'_> {
        Explain(self)
    }
}

/// Explanations: `/v1/quorate/explain/`, of what is there and of what is gone.
///
/// Each call fails with status 404 for what never was, and with 409 if several nodes have the id;
/// [`Query::agent`] names the one that is meant.
///
/// ```no_run
/// # async fn example(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
/// # use quorate_client::Query;
/// println!("{}", client.explain().service("web-1", &Query::new()).await?.why);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Explain<'a>(&'a Client);

impl Explain<'_> {
    /// A service instance, by its id.
    ///
    /// # Errors
    /// See [`Explain`].
    pub async fn service(&self, id: &str, query: &Query) -> Result<Explanation, Error> {
        self.subject("service/", id, query).await
    }

    /// A check, by its id.
    ///
    /// # Errors
    /// See [`Explain`].
    pub async fn check(&self, id: &str, query: &Query) -> Result<Explanation, Error> {
        self.subject("check/", id, query).await
    }

    /// A node, by its name.
    ///
    /// # Errors
    /// See [`Explain`].
    pub async fn node(&self, name: &str, query: &Query) -> Result<Explanation, Error> {
        self.subject("node/", name, query).await
    }

    /// A key.
    ///
    /// # Errors
    /// See [`Explain`].
    pub async fn key(&self, key: &str, query: &Query) -> Result<Explanation, Error> {
        self.subject("key/", key, query).await
    }

    /// A session, by its id.
    ///
    /// # Errors
    /// See [`Explain`].
    pub async fn session(&self, id: &str, query: &Query) -> Result<Explanation, Error> {
        self.subject("session/", id, query).await
    }

    /// A claim, by its id.
    ///
    /// # Errors
    /// See [`Explain`].
    pub async fn claim(&self, id: &str, query: &Query) -> Result<Explanation, Error> {
        self.subject("claim/", id, query).await
    }

    async fn subject(&self, kind: &str, name: &str, query: &Query) -> Result<Explanation, Error> {
        let path = with_id(&format!("/v1/quorate/explain/{kind}"), name);
        Ok(self.0.get(path, query).await?.value)
    }
}
