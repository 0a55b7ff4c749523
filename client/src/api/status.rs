//! Who leads, who is there, and how a server is.

use crate::client::Client;
use crate::error::Error;
use crate::query::Query;
use crate::transport::Call;
use crate::types::quorate::StateHash;

impl Client {
    /// Who leads, who is there, and how a server is.
    #[must_use]
    pub const fn status(&self) -> Status<'_> {
        Status(self)
    }
}

/// The state of the cluster as the asked server knows it: `/v1/status/`, `/readyz`, `/livez`, `/v1/quorate/state-hash`.
/// All of it is answered without a leader too.
#[derive(Debug, Clone, Copy)]
pub struct Status<'a>(&'a Client);

impl Status<'_> {
    /// `IP:PORT` of the leader's RPC listener; `None` without a leader.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn leader(&self) -> Result<Option<String>, Error> {
        let leader: String = self.0.get("/v1/status/leader", &Query::new()).await?.value;
        Ok(Some(leader).filter(|leader| !leader.is_empty()))
    }

    /// `IP:PORT` of all voters' RPC listeners.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn peers(&self) -> Result<Vec<String>, Error> {
        Ok(self.0.get("/v1/status/peers", &Query::new()).await?.value)
    }

    /// Whether any server is ready: has caught up, and knows a leader with a quorum.
    ///
    /// # Errors
    /// Status 503 with the reason: none is.
    pub async fn ready(&self) -> Result<(), Error> {
        self.0.perform(&Call::get("/readyz", &Query::new())).await.map(drop)
    }

    /// Whether any server's process lives.
    ///
    /// # Errors
    /// [`Error::Unreachable`]: none answers.
    pub async fn live(&self) -> Result<(), Error> {
        self.0.perform(&Call::get("/livez", &Query::new())).await.map(drop)
    }

    /// The hash of the asked server's own state: at the same applied index it is the same on every server.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn state_hash(&self) -> Result<StateHash, Error> {
        Ok(self.0.get("/v1/quorate/state-hash", &Query::new()).await?.value)
    }
}
