//! Health: checks, and instances with their checks.

use crate::client::Client;
use crate::error::Error;
use crate::query::{Query, Response, with_id};
use crate::types::health::{HealthCheck, ServiceEntry};

impl Client {
    /// Checks, and instances with their checks.
    #[must_use]
    pub const fn health(&self) -> Health<'_> {
        Health(self)
    }
}

/// Health: `/v1/health/`.
///
/// ```no_run
/// # async fn example(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
/// use quorate_client::Query;
///
/// let found = client.health().service("web", &Query::new().passing()).await?;
/// for entry in &found.value {
///     println!("{}:{}", entry.address(), entry.service.port);
/// }
/// # Ok(())
/// # }
/// ```
///
/// To stay informed use a [`Watch`](crate::Watch); to call one of them, a [`Balancer`](crate::Balancer).
#[derive(Debug, Clone, Copy)]
pub struct Health<'a>(&'a Client);

impl Health<'_> {
    /// Instances of a service with their checks; [`Query::passing`] leaves only those whose every check passes.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn service(
        &self,
        name: &str,
        query: &Query,
    ) -> Result<Response<Vec<ServiceEntry>>, Error> {
        self.0.get(with_id("/v1/health/service/", name), query).await
    }

    /// The checks of a service's instances.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn checks(
        &self,
        service: &str,
        query: &Query,
    ) -> Result<Response<Vec<HealthCheck>>, Error> {
        self.0.get(with_id("/v1/health/checks/", service), query).await
    }

    /// All checks on a node.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn node(
        &self,
        name: &str,
        query: &Query,
    ) -> Result<Response<Vec<HealthCheck>>, Error> {
        self.0.get(with_id("/v1/health/node/", name), query).await
    }

    /// Checks in a state: `any`, `passing`, `warning`, `critical`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn state(
        &self,
        state: &str,
        query: &Query,
    ) -> Result<Response<Vec<HealthCheck>>, Error> {
        self.0.get(with_id("/v1/health/state/", state), query).await
    }
}
