//! Sessions: what locks are bound to.

use crate::client::Client;
use crate::error::Error;
use crate::query::{Query, Response, with_id};
use crate::transport::Call;
use crate::types::session::{Created, Session, SessionCreate};

impl Client {
    /// Sessions.
    #[must_use]
    pub const fn sessions(&self) -> Sessions<'_> {
        Sessions(self)
    }
}

/// Sessions: `/v1/session/`. [`Lock`](crate::Lock) makes and renews its own.
#[derive(Debug, Clone, Copy)]
pub struct Sessions<'a>(&'a Client);

impl Sessions<'_> {
    /// Makes a session and returns its id.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`]: there may be one that nobody knows; with a TTL it ends by itself.
    pub async fn create(&self, session: &SessionCreate) -> Result<String, Error> {
        let answer = self.0.perform(&Call::put("/v1/session/create").json(session)?).await?;
        let Created { id } = answer.json()?;
        Ok(id)
    }

    /// Ends a session, and with it what it holds. One that does not exist is ended already.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn destroy(&self, id: &str) -> Result<(), Error> {
        let call = Call::put(with_id("/v1/session/destroy/", id)).idempotent();
        self.0.perform(&call).await.map(drop)
    }

    /// Begins a session's TTL anew.
    ///
    /// # Errors
    /// Status 404: it has ended.
    pub async fn renew(&self, id: &str) -> Result<Option<Session>, Error> {
        let call = Call::put(with_id("/v1/session/renew/", id)).idempotent();
        let sessions: Vec<Session> = self.0.perform(&call).await?.json()?;
        Ok(sessions.into_iter().next())
    }

    /// A session; `None` if it does not exist.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn info(&self, id: &str, query: &Query) -> Result<Response<Option<Session>>, Error> {
        let found: Response<Vec<Session>> =
            self.0.get(with_id("/v1/session/info/", id), query).await?;
        Ok(found.map(|sessions| sessions.into_iter().next()))
    }

    /// The sessions of a node.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn of_node(
        &self,
        node: &str,
        query: &Query,
    ) -> Result<Response<Vec<Session>>, Error> {
        self.0.get(with_id("/v1/session/node/", node), query).await
    }

    /// All sessions.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(&self, query: &Query) -> Result<Response<Vec<Session>>, Error> {
        self.0.get("/v1/session/list", query).await
    }
}
