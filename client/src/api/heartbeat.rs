//! Heartbeats with facts.

use std::time::Duration;

use crate::client::Client;
use crate::error::Error;
use crate::transport::Call;
use crate::types::heartbeat::{Heartbeat, Heartbeats};

const HEARTBEAT: &str = "/v1/quorate/heartbeat";

impl Client {
    /// Sends heartbeats, at most 10,000 (4 MiB). Each stands for itself: those that are refused are listed in the answer,
    /// and the others take effect. A heartbeat is the registration: an unknown instance is registered.
    ///
    /// ```no_run
    /// # async fn example(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
    /// use quorate_client::types::heartbeat::Heartbeat;
    ///
    /// let rdb = Heartbeat {
    ///     service: "rdb".to_owned(),
    ///     id: "rdb-1".to_owned(),
    ///     pid: Some(94267),
    ///     counter: Some(118),
    ///     ..Heartbeat::default()
    /// };
    /// let answer = client.heartbeat(&[rdb]).await?;
    /// assert_eq!(answer.accepted, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// [`Registration`](crate::Registration) sends them by itself.
    ///
    /// # Errors
    /// Status 400: the request is malformed as a whole, and nothing was changed.
    pub async fn heartbeat(&self, heartbeats: &[Heartbeat]) -> Result<Heartbeats, Error> {
        self.perform(&Call::put(HEARTBEAT).json(&heartbeats)?.idempotent()).await?.json()
    }

    /// Renews instances that are registered, by their ids, at most 10,000.
    ///
    /// # Errors
    /// As [`Self::heartbeat`].
    pub async fn renew<T: AsRef<str>>(&self, ids: &[T]) -> Result<Heartbeats, Error> {
        let lines: String = ids.iter().flat_map(|id| [id.as_ref(), "\n"]).collect();
        let call = Call::put(HEARTBEAT).body(lines).plain_text().idempotent();
        self.perform(&call).await?.json()
    }

    /// One heartbeat, for which each server has so long.
    pub(crate) async fn heartbeat_within(
        &self,
        heartbeat: &Heartbeat,
        within: Duration,
    ) -> Result<Heartbeats, Error> {
        // In a list, so that a refusal is an answer and no error.
        let call = Call::put(HEARTBEAT).json(&[heartbeat])?.idempotent().within(within);
        self.perform(&call).await?.json()
    }
}
