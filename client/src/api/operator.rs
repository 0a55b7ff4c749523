//! Operating the cluster.

use crate::client::Client;
use crate::error::Error;
use crate::query::Query;
use crate::transport::Call;
use crate::types::operator::{
    AutopilotConfiguration, AutopilotHealth, AutopilotState, LeaderTransferred, RaftConfiguration,
    Usage,
};

const AUTOPILOT: &str = "/v1/operator/autopilot/configuration";

impl Client {
    /// Operating the cluster.
    #[must_use]
    pub const fn operator(&self) -> Operator<'_> {
        Operator(self)
    }
}

/// Operating the cluster: `/v1/operator/`.
#[derive(Debug, Clone, Copy)]
pub struct Operator<'a>(&'a Client);

impl Operator<'_> {
    /// The Raft membership.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn raft_configuration(&self, query: &Query) -> Result<RaftConfiguration, Error> {
        Ok(self.0.get("/v1/operator/raft/configuration", query).await?.value)
    }

    /// Removes a server, by its Raft id, from the membership. Its process ends.
    ///
    /// # Errors
    /// Status 500: there is no such server, or the cluster would be without a majority.
    pub async fn remove_server(&self, id: u64) -> Result<(), Error> {
        let query = Query::new().with("id", id.to_string());
        let call = Call::delete("/v1/operator/raft/peer").query(&query);
        self.0.perform(&call).await.map(drop)
    }

    /// Hands leadership over, to a server by its Raft id, or to any; returns whether another one leads now.
    ///
    /// # Errors
    /// Status 500: there is no such server, or it is too far behind.
    pub async fn transfer_leader(&self, id: Option<u64>) -> Result<bool, Error> {
        let query = id.into_iter().fold(Query::new(), |query, id| query.with("id", id.to_string()));
        let call = Call::put("/v1/operator/raft/transfer-leader").query(&query);
        let LeaderTransferred { success } = self.0.perform(&call).await?.json()?;
        Ok(success)
    }

    /// Settings of autopilot.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn autopilot(&self, query: &Query) -> Result<AutopilotConfiguration, Error> {
        Ok(self.0.get(AUTOPILOT, query).await?.value)
    }

    /// Changes the settings of autopilot if they are still those of `modify_index`; returns whether they were.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn set_autopilot(&self, settings: &AutopilotConfiguration) -> Result<bool, Error> {
        let query = Query::new().with("cas", settings.modify_index.to_string());
        self.0.perform(&Call::put(AUTOPILOT).query(&query).json(settings)?).await?.json()
    }

    /// The servers' health, and how many may fail. A cluster that is not healthy is no error.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn autopilot_health(&self) -> Result<AutopilotHealth, Error> {
        let call = Call::get("/v1/operator/autopilot/health", &Query::new());
        match self.0.perform(&call).await {
            Ok(answer) => answer.json(),
            Err(Error::Status { request, status: 429, text }) => serde_json::from_str(&text)
                .map_err(|_| Error::Status { request, status: 429, text }),
            Err(error) => Err(error),
        }
    }

    /// The same in more words.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn autopilot_state(&self) -> Result<AutopilotState, Error> {
        Ok(self.0.get("/v1/operator/autopilot/state", &Query::new()).await?.value)
    }

    /// How much there is: nodes, services, instances.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn usage(&self, query: &Query) -> Result<Usage, Error> {
        Ok(self.0.get("/v1/operator/usage", query).await?.value)
    }
}
