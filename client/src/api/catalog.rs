//! The catalogue: nodes and services, registered by whatever API.

use std::collections::BTreeMap;

use crate::client::Client;
use crate::error::Error;
use crate::query::{Query, Response, with_id};
use crate::transport::Call;
use crate::types::catalog::{
    CatalogService, Deregistration, Node, NodeServiceList, NodeServices, Registration,
};

impl Client {
    /// The catalogue.
    #[must_use]
    pub const fn catalog(&self) -> Catalog<'_> {
        Catalog(self)
    }
}

/// The catalogue: `/v1/catalog/`.
///
/// ```no_run
/// # async fn example(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
/// use quorate_client::Query;
///
/// for (name, tags) in client.catalog().services(&Query::new()).await?.value {
///     println!("{name}: {}", tags.join(", "));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Catalog<'a>(&'a Client);

impl Catalog<'_> {
    /// Registers a node, and a service and checks on it. What belongs to an agent is better registered by
    /// [`Agent::register`](crate::api::Agent::register).
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn register(&self, registration: &Registration) -> Result<(), Error> {
        let call = Call::put("/v1/catalog/register").json(registration)?.idempotent();
        self.0.perform(&call).await.map(drop)
    }

    /// Removes a check, a service, or a node with all below it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn deregister(&self, what: &Deregistration) -> Result<(), Error> {
        let call = Call::put("/v1/catalog/deregister").json(what)?.idempotent();
        self.0.perform(&call).await.map(drop)
    }

    /// All nodes, by name.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn nodes(&self, query: &Query) -> Result<Response<Vec<Node>>, Error> {
        self.0.get("/v1/catalog/nodes", query).await
    }

    /// A node with its instances by id; `None` if it does not exist.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn node(
        &self,
        name: &str,
        query: &Query,
    ) -> Result<Response<Option<NodeServices>>, Error> {
        self.0.get(with_id("/v1/catalog/node/", name), query).await
    }

    /// The same with a list of the instances; both members are `None` if the node does not exist.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn node_services(
        &self,
        name: &str,
        query: &Query,
    ) -> Result<Response<NodeServiceList>, Error> {
        self.0.get(with_id("/v1/catalog/node-services/", name), query).await
    }

    /// Service names with the union of their instances' tags.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn services(
        &self,
        query: &Query,
    ) -> Result<Response<BTreeMap<String, Vec<String>>>, Error> {
        self.0.get("/v1/catalog/services", query).await
    }

    /// Instances of a service, whatever their health.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn service(
        &self,
        name: &str,
        query: &Query,
    ) -> Result<Response<Vec<CatalogService>>, Error> {
        self.0.get(with_id("/v1/catalog/service/", name), query).await
    }

    /// The names of the datacenters: the one that this cluster is.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn datacenters(&self) -> Result<Vec<String>, Error> {
        Ok(self.0.get("/v1/catalog/datacenters", &Query::new()).await?.value)
    }
}
