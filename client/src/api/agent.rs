//! The agent of this host: its services, checks and maintenance.

use std::collections::BTreeMap;

use crate::client::Client;
use crate::error::Error;
use crate::query::{Query, with_id};
use crate::transport::Call;
use crate::types::agent::{
    AgentSelf, AgentService, AgentServiceHealth, CheckRegistration, CheckUpdate, HostInfo, Member,
    Metrics, ServiceRegistration, Version,
};
use crate::types::health::HealthCheck;

/// What is appended to a check's or a service's path.
const SERVICE: &str = "/v1/agent/service/";
const CHECK: &str = "/v1/agent/check/";

impl Client {
    /// The agent of this host, or the one that [`ClientBuilder::agent`](crate::ClientBuilder::agent) names.
    #[must_use]
    pub const fn agent(&self) -> Agent<'_> {
        Agent(self)
    }
}

/// The agent: `/v1/agent/`. Every server answers as the agent of the host that asks.
///
/// ```no_run
/// # async fn example(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
/// use quorate_client::types::agent::{CheckSpecification, ServiceRegistration};
///
/// let check = CheckSpecification { ttl: 15_000_000_000, ..CheckSpecification::default() };
/// let web = ServiceRegistration {
///     name: "web".to_owned(),
///     id: "web-1".to_owned(),
///     port: 8080,
///     check: Some(check),
///     ..ServiceRegistration::default()
/// };
/// client.agent().register(&web).await?;
/// client.agent().pass("service:web-1", "all is well").await?;
/// # Ok(())
/// # }
/// ```
///
/// [`Registration`](crate::Registration) registers and keeps alive by itself.
#[derive(Debug, Clone, Copy)]
pub struct Agent<'a>(&'a Client);

impl Agent<'_> {
    /// Registers a service instance, or changes it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn register(&self, service: &ServiceRegistration) -> Result<(), Error> {
        let call = Call::put("/v1/agent/service/register").json(service)?.idempotent();
        self.0.perform(&call).await.map(drop)
    }

    /// Removes a service instance by its id.
    ///
    /// # Errors
    /// Status 404 if no agent has it; 409 if several others have it.
    pub async fn deregister(&self, id: &str) -> Result<(), Error> {
        let path = with_id("/v1/agent/service/deregister/", id);
        self.0.remove(&Call::put(path).idempotent()).await
    }

    /// The agent's service instances by id; with [`Query::agent`]`("*")` all, by `NODE/ID`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn services(&self, query: &Query) -> Result<BTreeMap<String, AgentService>, Error> {
        let call = Call::get("/v1/agent/services", query).of_agent();
        Ok(self.0.read(&call).await?.value)
    }

    /// A service instance by its id.
    ///
    /// # Errors
    /// Status 404 if no agent has it.
    pub async fn service(&self, id: &str) -> Result<AgentService, Error> {
        let call = Call::get(with_id(SERVICE, id), &Query::new()).of_agent();
        Ok(self.0.read(&call).await?.value)
    }

    /// Registers a check, or changes it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn register_check(&self, check: &CheckRegistration) -> Result<(), Error> {
        let call = Call::put("/v1/agent/check/register").json(check)?.idempotent();
        self.0.perform(&call).await.map(drop)
    }

    /// Removes a check by its id.
    ///
    /// # Errors
    /// Status 404 if no agent has it.
    pub async fn deregister_check(&self, id: &str) -> Result<(), Error> {
        let path = with_id("/v1/agent/check/deregister/", id);
        self.0.remove(&Call::put(path).idempotent()).await
    }

    /// The agent's checks by id.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn checks(&self, query: &Query) -> Result<BTreeMap<String, HealthCheck>, Error> {
        let call = Call::get("/v1/agent/checks", query).of_agent();
        Ok(self.0.read(&call).await?.value)
    }

    /// Heartbeats a TTL check: passing.
    ///
    /// # Errors
    /// Status 404 if no agent has it.
    pub async fn pass(&self, check: &str, note: &str) -> Result<(), Error> {
        self.beat("pass/", check, note).await
    }

    /// Heartbeats a TTL check: warning.
    ///
    /// # Errors
    /// Status 404 if no agent has it.
    pub async fn warn(&self, check: &str, note: &str) -> Result<(), Error> {
        self.beat("warn/", check, note).await
    }

    /// Heartbeats a TTL check: critical.
    ///
    /// # Errors
    /// Status 404 if no agent has it.
    pub async fn fail(&self, check: &str, note: &str) -> Result<(), Error> {
        self.beat("fail/", check, note).await
    }

    /// Heartbeats a TTL check with a status and an output.
    ///
    /// # Errors
    /// Status 404 if no agent has it.
    pub async fn update_check(&self, check: &str, update: &CheckUpdate) -> Result<(), Error> {
        let path = with_id("/v1/agent/check/update/", check);
        self.0.perform(&Call::put(path).json(update)?.idempotent()).await.map(drop)
    }

    async fn beat(&self, verb: &str, check: &str, note: &str) -> Result<(), Error> {
        let call = Call::put(with_id(&format!("{CHECK}{verb}"), check)).idempotent();
        let noted = Query::new().with("note", note);
        self.0.perform(&call.query(&noted)).await.map(drop)
    }

    /// Takes a service instance out of use (with a reason for people), or back.
    ///
    /// # Errors
    /// Status 404 if no agent has it.
    pub async fn service_maintenance(&self, id: &str, reason: Option<&str>) -> Result<(), Error> {
        let path = with_id("/v1/agent/service/maintenance/", id);
        self.maintenance_of(path, reason).await
    }

    /// Takes everything on this host out of use (with a reason for people), or back.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn maintenance(&self, reason: Option<&str>) -> Result<(), Error> {
        self.maintenance_of("/v1/agent/maintenance".to_owned(), reason).await
    }

    async fn maintenance_of(&self, path: String, reason: Option<&str>) -> Result<(), Error> {
        let query = Query::new().with("enable", reason.is_some().to_string());
        let query = reason.into_iter().fold(query, |query, why| query.with("reason", why));
        self.0.perform(&Call::put(path).query(&query).idempotent()).await.map(drop)
    }

    /// The health of all instances of a service that this agent has. An answer of any health is none of an error.
    ///
    /// # Errors
    /// Status 404 if it has none.
    pub async fn health_by_name(&self, name: &str) -> Result<Vec<AgentServiceHealth>, Error> {
        self.health(with_id("/v1/agent/health/service/name/", name)).await
    }

    /// The health of an instance.
    ///
    /// # Errors
    /// Status 404 if no agent has it.
    pub async fn health_by_id(&self, id: &str) -> Result<AgentServiceHealth, Error> {
        self.health(with_id("/v1/agent/health/service/id/", id)).await
    }

    /// A warning instance is answered with 429, a critical one with 503.
    async fn health<T: serde::de::DeserializeOwned>(&self, path: String) -> Result<T, Error> {
        let call = Call::get(path, &Query::new()).of_agent();
        match self.0.perform(&call).await {
            Ok(answer) => answer.json(),
            Err(Error::Status { request, status: status @ (429 | 503), text }) => {
                serde_json::from_str(&text).map_err(|_| Error::Status { request, status, text })
            }
            Err(error) => Err(error),
        }
    }

    /// What the server says of itself and of this host's agent.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn about(&self) -> Result<AgentSelf, Error> {
        Ok(self.0.get("/v1/agent/self", &Query::new()).await?.value)
    }

    /// The servers, and the agents of all hosts.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn members(&self) -> Result<Vec<Member>, Error> {
        Ok(self.0.get("/v1/agent/members", &Query::new()).await?.value)
    }

    /// The machine of the server that is asked.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn host(&self) -> Result<HostInfo, Error> {
        Ok(self.0.get("/v1/agent/host", &Query::new()).await?.value)
    }

    /// The version of the server that is asked.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn version(&self) -> Result<Version, Error> {
        Ok(self.0.get("/v1/agent/version", &Query::new()).await?.value)
    }

    /// The figures of the server that is asked.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn metrics(&self) -> Result<Metrics, Error> {
        Ok(self.0.get("/v1/agent/metrics", &Query::new()).await?.value)
    }
}
