//! A registration that lives by a connection, with heartbeats beside it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::{Pulse, RETRY_FIRST, RETRY_MAX, RegistrationState, described};
use crate::api::{OnClose, Presence, PresenceFrame, presence_call};
use crate::client::Client;
use crate::error::Error;
use crate::transport::{Backoff, Node, NotOpened, jittered, lost};
use crate::types::agent::ServiceRegistration;
use crate::types::live::PresenceRegistration;

/// A server that does not answer any more is left within this; silence on the connection alone would take 6 s.
const NOTICE_WITHIN: Duration = Duration::from_secs(2);
/// How long a server is left alone that has said it stops.
const STOPS_FOR: Duration = Duration::from_secs(2);
/// How long to wait before an instance that somebody has deregistered is registered again.
const DEREGISTERED_PAUSE: Duration = Duration::from_secs(1);

/// Who keeps the connection open.
#[derive(Debug)]
pub(super) struct Holder {
    pulse: Pulse,
    registration: PresenceRegistration,
    linger: Duration,
    open: Option<(Arc<Node>, Presence)>,
    /// The node of the catalogue that has the instance.
    agent: Option<String>,
    next_beat: Instant,
}

/// Why a connection has ended.
enum Ended {
    /// The registration is to end, and the instance is to go.
    Leaving,
    /// The handle was dropped.
    Abandoned,
    /// Another process has the instance.
    Replaced,
    /// It is to be opened again, after a pause.
    Again(Duration),
}

impl Holder {
    /// Opens the connection for the first time, at whatever server answers.
    pub(super) async fn open(pulse: Pulse, linger: Duration) -> Result<Self, Error> {
        let beat = &pulse.heartbeat;
        let (tags, meta) = described(beat);
        let service = ServiceRegistration {
            id: beat.id.clone(),
            name: beat.service.clone(),
            tags,
            meta,
            address: beat.address.clone().unwrap_or_default(),
            port: beat.port.unwrap_or_default(),
            ..ServiceRegistration::default()
        };
        let owner = Uuid::new_v4().to_string();
        let registration =
            PresenceRegistration { service, owner, ..PresenceRegistration::default() };
        let next_beat = Instant::now();
        let mut holder = Self { pulse, registration, linger, open: None, agent: None, next_beat };
        let servers = holder.client().addresses().len();
        let mut failure = Error::Configuration("no address given".to_owned());
        for _ in 0..servers {
            match holder.reopen().await {
                Ok(()) => return Ok(holder),
                Err(NotOpened::Refused(error)) => return Err(error),
                Err(NotOpened::Unavailable(error)) => failure = error,
            }
        }
        Err(failure)
    }

    pub(super) fn client(&self) -> Client {
        self.pulse.client.clone()
    }

    /// Opens the connection at the best server, as this owner's next attempt.
    async fn reopen(&mut self) -> Result<(), NotOpened> {
        self.registration.attempt += 1;
        let client = self.client();
        let Some(node) = client.transport().best() else {
            let nobody = Error::Configuration("no address given".to_owned());
            return Err(NotOpened::Unavailable(nobody));
        };
        let call = presence_call(&self.registration, self.linger, OnClose::Critical);
        let call = call.map_err(NotOpened::Refused)?;
        let response = client.transport().open_at(&node, &call).await?;
        let presence = Presence::new(response, node.http().base()).await;
        let presence = presence.map_err(|error| {
            node.failed();
            NotOpened::Unavailable(error)
        })?;
        self.agent = Some(presence.registered().node.clone());
        // The earlier connection, if there still is one, ends now: its server knows that it is not the newest attempt.
        self.open = Some((node, presence));
        let _ = self.pulse.state.send(RegistrationState::Registered);
        Ok(())
    }

    /// Keeps the connection open until the registration ends.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        loop {
            let pause = match self.hold().await {
                Ended::Leaving => {
                    let agent = self.agent.take();
                    return self.pulse.deregister(agent.as_deref()).await;
                }
                Ended::Abandoned => return self.pulse.end(Ok(())),
                Ended::Replaced => {
                    let _ = self.pulse.state.send(RegistrationState::Replaced);
                    return self.pulse.end(Ok(()));
                }
                Ended::Again(pause) => pause,
            };
            if let Some(ended) = self.rest(pause).await {
                self.open = None;
                if matches!(ended, Ended::Leaving) {
                    let agent = self.agent.take();
                    return self.pulse.deregister(agent.as_deref()).await;
                }
                return self.pulse.end(Ok(()));
            }
            match self.reopen().await {
                Ok(()) => backoff.reset(),
                Err(NotOpened::Refused(error) | NotOpened::Unavailable(error)) => {
                    self.open = None;
                    self.pulse.trouble(&error);
                    let _ = self.rest(backoff.pause()).await;
                }
            }
        }
    }

    /// Waits, unless the registration is to end.
    async fn rest(&mut self, pause: Duration) -> Option<Ended> {
        let Pulse { leave, said, .. } = &mut self.pulse;
        let over = tokio::time::sleep(pause);
        tokio::pin!(over);
        loop {
            tokio::select! {
                biased;
                () = leave.cancelled() => return Some(Ended::Leaving),
                changed = said.changed() => if changed.is_err() {
                    return Some(Ended::Abandoned);
                },
                () = &mut over => return None,
            }
        }
    }

    /// Waits for the end of the connection, and sends heartbeats meanwhile.
    async fn hold(&mut self) -> Ended {
        let Some((node, mut presence)) = self.open.take() else {
            return Ended::Again(Duration::ZERO);
        };
        let lost = lost(&node, NOTICE_WITHIN);
        tokio::pin!(lost);
        loop {
            let frame = tokio::select! {
                biased;
                () = self.pulse.leave.cancelled() => {
                    // It stays open until the instance is deregistered, so that it never shows as critical.
                    self.open = Some((Arc::clone(&node), presence));
                    return Ended::Leaving;
                }
                said = self.pulse.said.changed() => {
                    if said.is_err() {
                        return Ended::Abandoned;
                    }
                    self.next_beat = Instant::now();
                    continue;
                }
                frame = presence.next() => frame,
                () = &mut lost => {
                    self.open = Some((Arc::clone(&node), presence));
                    return Ended::Again(Duration::ZERO);
                }
                () = tokio::time::sleep_until(self.next_beat) => {
                    let outcome = self.pulse.beat().await;
                    self.next_beat = Instant::now() + jittered(self.pulse.interval);
                    if !self.pulse.note(&outcome) {
                        return Ended::Replaced;
                    }
                    continue;
                }
            };
            return match frame {
                Ok(Some(PresenceFrame::Replaced)) => Ended::Replaced,
                Ok(Some(PresenceFrame::Deregistered)) => Ended::Again(DEREGISTERED_PAUSE),
                Ok(Some(PresenceFrame::Moved(moved))) => {
                    self.pulse.client.transport().learn(&moved.servers);
                    node.refused(STOPS_FOR);
                    Ended::Again(Duration::from_millis(moved.retry_ms))
                }
                Ok(Some(PresenceFrame::Other(_)) | None) => Ended::Again(Duration::ZERO),
                Err(error) => {
                    tracing::debug!(error = error.with_causes(), "a presence broke");
                    node.failed();
                    Ended::Again(Duration::ZERO)
                }
            };
        }
    }
}
