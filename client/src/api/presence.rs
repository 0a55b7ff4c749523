//! One connection of a presence.

use std::time::Duration;

use reqwest::Response;

use crate::client::Client;
use crate::error::Error;
use crate::query::Query;
use crate::sse::{self, Events};
use crate::transport::Call;
use crate::types::live::{PresenceRegistered, PresenceRegistration, StreamMoved};

/// A server that sends nothing for so long is dead: a comment comes every 2 s.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(6);
/// How long the first event may take.
const REGISTERED_WITHIN: Duration = Duration::from_secs(15);

/// What becomes of an instance whose connection has ended, when its linger is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnClose {
    /// Its check `presence:ID` turns critical.
    #[default]
    Critical,
    /// It is deregistered.
    Deregister,
}

impl Client {
    /// Registers an instance that passes as long as the connection is open: `/v1/quorate/presence`. `linger` (at most 60 s)
    /// is how long it goes on passing after the connection has ended.
    ///
    /// It ends with its server; [`Registration`](crate::Registration) opens it again at the next one.
    ///
    /// # Errors
    /// Status 409: another owner, or another attempt of this one, has it.
    pub async fn presence(
        &self,
        registration: &PresenceRegistration,
        linger: Duration,
        on_close: OnClose,
    ) -> Result<Presence, Error> {
        let call = presence_call(registration, linger, on_close)?;
        let (response, address) = self.transport().open(&call).await?;
        Presence::new(response, &address).await
    }
}

/// # Errors
/// [`Error::Decode`]: the registration has no JSON form.
pub(crate) fn presence_call(
    registration: &PresenceRegistration,
    linger: Duration,
    on_close: OnClose,
) -> Result<Call, Error> {
    let on_close = match on_close {
        OnClose::Critical => "critical",
        OnClose::Deregister => "deregister",
    };
    let query =
        Query::new().with("linger", format!("{}ms", linger.as_millis())).with("on-close", on_close);
    // Attempts are numbered, so one that comes twice is told from a second one.
    Ok(Call::put("/v1/quorate/presence").query(&query).json(registration)?.idempotent())
}

/// An open presence. It ends when it is dropped.
#[derive(Debug)]
pub struct Presence {
    events: Events,
    /// What the server has said first.
    registered: PresenceRegistered,
}

/// What a presence's server says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PresenceFrame {
    /// Another process holds the instance now: do not come back.
    Replaced,
    /// Somebody has deregistered it.
    Deregistered,
    /// The server stops, or has no leader: open it again elsewhere.
    Moved(StreamMoved),
    /// What this version does not know.
    Other(String),
}

impl Presence {
    pub(crate) async fn new(response: Response, address: &str) -> Result<Self, Error> {
        let mut events = Events::new(response, address, SILENCE_MAX);
        let first = tokio::time::timeout(REGISTERED_WITHIN, events.next()).await;
        let first = first.unwrap_or(Ok(None))?;
        let Some(event) = first.filter(|event| event.event == "registered") else {
            return Err(Error::Decode(format!("{address}: a presence without its first frame")));
        };
        let registered = sse::data(&event)?;
        Ok(Self { events, registered })
    }

    /// Where the instance is registered, and which server has the connection.
    #[must_use]
    pub const fn registered(&self) -> &PresenceRegistered {
        &self.registered
    }

    /// Waits until the server says something; `None`: it has ended the connection. All of it is the end.
    ///
    /// # Errors
    /// [`Error::Transport`]: the connection broke, or nothing came for 6 s.
    pub async fn next(&mut self) -> Result<Option<PresenceFrame>, Error> {
        let Some(event) = self.events.next().await? else { return Ok(None) };
        Ok(Some(match event.event.as_str() {
            "replaced" => PresenceFrame::Replaced,
            "deregistered" => PresenceFrame::Deregistered,
            "moved" => PresenceFrame::Moved(sse::data(&event)?),
            other => PresenceFrame::Other(other.to_owned()),
        }))
    }
}
