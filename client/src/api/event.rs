//! Users' events.

use bytes::Bytes;

use crate::client::Client;
use crate::error::Error;
use crate::query::{Query, Response, with_id};
use crate::transport::Call;
use crate::types::event::UserEvent;

impl Client {
    /// Users' events.
    #[must_use]
    pub const fn events(&self) -> Events<'_> {
        Events(self)
    }
}

/// Users' events: `/v1/event/`. (What happens in the cluster is in [`History`](crate::api::History).)
#[derive(Debug, Clone, Copy)]
pub struct Events<'a>(&'a Client);

impl Events<'_> {
    /// Fires an event. `node`, `service` and `tag` in the query are regular expressions that say whom it is for.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`]: it may have been fired.
    pub async fn fire(
        &self,
        name: &str,
        payload: impl Into<Bytes>,
        query: &Query,
    ) -> Result<UserEvent, Error> {
        let call = Call::put(with_id("/v1/event/fire/", name)).query(query).body(payload);
        self.0.perform(&call).await?.json()
    }

    /// The events that are kept, oldest first; `name` in the query narrows the list. Its index stands for the newest event
    /// and does not grow: any other one is news.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(&self, query: &Query) -> Result<Response<Vec<UserEvent>>, Error> {
        self.0.get("/v1/event/list", query).await
    }
}
