//! Answers that are streams of events.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use eventsource_stream::{Event, EventStreamError, Eventsource as _};
use futures_util::{Stream, StreamExt as _, stream};
use reqwest::Response;
use serde::de::DeserializeOwned;

use crate::error::{Cause, Error};

type Parsed = dyn Stream<Item = Result<Event, EventStreamError<Cause>>> + Send;

/// The events of one answer.
pub(crate) struct Events {
    parsed: Pin<Box<Parsed>>,
    address: String,
}

impl Events {
    /// The events of an answer from `address`. It is taken for dead when not a byte, not even of a comment, has come for
    /// `silence_max`.
    pub(crate) fn new(response: Response, address: &str, silence_max: Duration) -> Self {
        let pieces = stream::unfold(Some(response), move |open| async move {
            let mut response = open?;
            match tokio::time::timeout(silence_max, response.chunk()).await {
                Ok(Ok(piece)) => piece.map(|piece| (Ok(piece), Some(response))),
                Ok(Err(error)) => Some((Err(Cause::from(error)), None)),
                Err(elapsed) => Some((Err(Cause::from(elapsed)), None)),
            }
        });
        Self { parsed: Box::pin(pieces.eventsource()), address: address.to_owned() }
    }

    /// The next event; `None`: the server has ended the stream. Can be given up and called again.
    ///
    /// # Errors
    /// [`Error::Transport`]: the connection broke, or the server is silent.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, Error> {
        match self.parsed.next().await {
            None => Ok(None),
            Some(Ok(event)) => Ok(Some(event)),
            Some(Err(error)) => {
                let source = match error {
                    EventStreamError::Transport(cause) => cause,
                    error => error.to_string().into(),
                };
                Err(Error::Transport { address: self.address.clone(), source })
            }
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("address", &self.address).finish_non_exhaustive()
    }
}

/// An event's data.
///
/// # Errors
/// [`Error::Decode`]: it is something else.
pub(crate) fn data<T: DeserializeOwned>(event: &Event) -> Result<T, Error> {
    serde_json::from_str(&event.data)
        .map_err(|error| Error::Decode(format!("event {:?}: {error}", event.event)))
}
