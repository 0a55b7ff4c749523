//! `PUT /v1/quorate/presence`: an instance that passes as long as the request is open.
//!
//! The answer is a stream of events. There are few: that the instance is registered, and why the stream ends
//! if its client did not end it. Between them comes a comment every [`COMMENT_EVERY`], by which a client knows
//! that its server lives.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use bytes::Bytes;
use futures_util::stream as streams;
use quorate_client::duration;
use quorate_client::types::agent::ServiceRegistration;
use quorate_client::types::live::{PresenceRegistered, PresenceRegistration};
use quorate_storage::command::{Beat, Command, PresenceOpen, PresenceReopen};
use quorate_storage::record::{
    CheckRegistration, OnClose, PRESENCE_CHECK, PresenceTerms, ServiceDefinition,
};
use quorate_storage::state::{PRESENCE_LEVEL, PROCESS_PRESENCE_LEVEL};
use quorate_storage::{Millis, State};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use uuid::Uuid;

use super::stream::{self, EVENT_STREAM, frame};
use crate::http::call::Call;
use crate::http::definition::service::registration;
use crate::http::definition::{beat, check};
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::hold::Hold;
use crate::http::reply::Reply;
use crate::http::rights::{RightsWatch, Rule};
use crate::http::wire::millis;
use crate::node::Node;
use crate::presences::{Held, NotOpened, Opening, Told};

/// How often a stream says that its server lives.
const COMMENT_EVERY: Duration = Duration::from_secs(2);
/// What it says.
const COMMENT: &[u8] = b":\n\n";
/// How long an instance goes on passing after its connection has ended, unless its client says otherwise.
const LINGER: Millis = Millis(500);
/// The longest linger.
const LINGER_MAX: Millis = Millis::from_secs(60);

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint::new("/v1/quorate/presence").put(Rule::Commands, |call| Box::pin(open(call)))]
}

async fn open(mut call: Call) -> Answer {
    call.check_datacenter()?;
    let (linger, on_close) = (linger(&call)?, on_close(&call)?);
    let place = stream::place()?;
    let body: PresenceRegistration = call.decode().await?;
    // From here on its client is to say nothing more.
    let hold = call.hold();
    if call.node.published().state.level() < PRESENCE_LEVEL {
        let text = "not all servers know the rules of presence yet, try again later";
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text));
    }
    let agent = call.agent()?;
    let terms = terms(&body, linger, on_close)?;
    let deregister_after = check::deregister_after(body.deregister_critical_service_after);
    let (service, checks) = registration(named(body.service, body.service_name)?)?;
    let process = beat::of_presence(body.process, &service, &checks);
    let process = process.map_err(ApiError::bad_request)?;
    if process.is_some() && call.node.published().state.level() < PROCESS_PRESENCE_LEVEL {
        let text =
            "not all servers know the facts of a presence yet, try again later or without them";
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text));
    }
    let id = service.id.to_string();
    let open = PresenceOpen { agent, service, checks, deregister_after, terms };
    let permitted = Command::PresenceOpen(Box::new(open.clone()));
    call.permit(&permitted).await?;
    let rights = call.watch_rights(&call.node.published())?;
    let reopen = reopening(&call.node.published().state, &open, process.as_ref());
    let request = Some(Arc::new(call.facts()));
    let opening = Opening { open, process, reopen, network: None, request };
    // While this server stood still, who asked may have gone: the connection is looked at before anything is done.
    tokio::select! {
        biased;
        () = hold.ended() => {
            return Err(ApiError::bad_request("the client has closed the connection"));
        }
        () = tokio::task::yield_now() => {}
    }
    let held = call.node.presences().open(opening).await.map_err(ApiError::from)?;
    let presence = Presence {
        greeting: Some(registered(&call.node, &held, id)),
        node: Arc::clone(&call.node),
        held,
        hold,
        next_comment: Instant::now() + COMMENT_EVERY,
        is_over: false,
        rights,
        permitted,
        _place: place,
    };
    let pieces = streams::unfold(presence, |mut presence| async move {
        let piece = presence.next().await?;
        Some((Ok::<Bytes, std::convert::Infallible>(piece), presence))
    });
    Ok(Reply::stream(Body::from_stream(pieces), EVENT_STREAM)
        .with(CACHE_CONTROL, HeaderValue::from_static("no-store")))
}

fn linger(call: &Call) -> Result<Millis, ApiError> {
    let Some(text) = call.params.filled("linger") else { return Ok(LINGER) };
    let refused = || ApiError::bad_request(format!("Invalid linger {text:?}: 0s to 60s"));
    let nanos = duration::parse(text).map_err(|_| refused())?;
    if nanos < 0 || millis(nanos) > LINGER_MAX {
        return Err(refused());
    }
    Ok(millis(nanos))
}

fn on_close(call: &Call) -> Result<OnClose, ApiError> {
    match call.params.filled("on-close") {
        None | Some("critical") => Ok(OnClose::Critical),
        Some("deregister") => Ok(OnClose::Deregister),
        Some(text) => {
            Err(ApiError::bad_request(format!("Invalid on-close {text:?}: critical or deregister")))
        }
    }
}

fn terms(
    body: &PresenceRegistration,
    linger: Millis,
    on_close: OnClose,
) -> Result<PresenceTerms, ApiError> {
    let owner = match &*body.owner {
        "" => Uuid::new_v4().to_string(),
        owner => Uuid::try_parse(owner)
            .map_err(|_| ApiError::bad_request(format!("Invalid Owner {owner:?}: a UUID")))?
            .to_string(),
    };
    Ok(PresenceTerms { owner: owner.into(), attempt: body.attempt.max(1), linger, on_close })
}

/// The registration with its name: heartbeats call that `Service`.
fn named(
    service: ServiceRegistration,
    as_in_heartbeats: String,
) -> Result<ServiceRegistration, ApiError> {
    match (service.name.as_str(), as_in_heartbeats.as_str()) {
        (_, "") => Ok(service),
        ("", _) => Ok(ServiceRegistration { name: as_in_heartbeats, ..service }),
        (name, other) if name == other => Ok(service),
        _ => Err(ApiError::bad_request("Name and Service are two names for the same: give one")),
    }
}

/// The short command for an instance that exists with this definition, where the state would put it, if its
/// client says nothing new of its process and sends no heartbeats beside.
fn reopening(state: &State, open: &PresenceOpen, process: Option<&Beat>) -> Option<PresenceReopen> {
    let PresenceOpen { agent, service, checks, deregister_after, terms } = open;
    let id = format!("{PRESENCE_CHECK}{}", service.id);
    let is_owners = |number: u64| {
        state.presence(number).is_some_and(|presence| presence.terms.owner == terms.owner)
    };
    let mut rows = state.checks_with_id(&id);
    let row = rows.find(|row| is_owners(row.number)).or_else(|| {
        state.check(&agent.name, &id).filter(|row| state.presence(row.number).is_some())
    })?;
    let present = state.service(&row.node, &service.id)?;
    let after = row.registration.definition.deregister_critical_service_after;
    let is_same = present.definition == *service
        && after == *deregister_after
        && process.is_none_or(|process| state.is_known_process(present, process))
        && checks.iter().all(|check| is_registered(state, &row.node, service, check));
    is_same.then(|| PresenceReopen {
        number: row.number,
        defined: present.indexes.modify,
        terms: terms.clone(),
    })
}

/// Whether a check exists as it is defined, whatever its status.
fn is_registered(
    state: &State,
    node: &str,
    service: &ServiceDefinition,
    check: &CheckRegistration,
) -> bool {
    state.check(node, &check.id).is_some_and(|row| {
        let present = &row.registration;
        let given = CheckRegistration {
            service_id: service.id.clone(),
            status: present.status.clone(),
            output: present.output.clone(),
            ..check.clone()
        };
        *present == given
    })
}

/// The first frame.
fn registered(node: &Node, held: &Held, id: String) -> Bytes {
    let lease = held.lease;
    let lease = format!("{}/{}/{}", lease.origin, lease.incarnation, lease.seq);
    let server = node.info().name;
    let data = PresenceRegistered { node: held.node.to_string(), id, lease, server };
    let mut out = String::new();
    frame(&mut out, "registered", None, &data);
    out.into()
}

impl From<NotOpened> for ApiError {
    fn from(why: NotOpened) -> Self {
        match why {
            NotOpened::Refused(rejection) => rejection.into(),
            NotOpened::Failed(error) => error.into(),
        }
    }
}

/// One client's stream. When it is dropped, the client holds nothing any more.
struct Presence {
    greeting: Option<Bytes>,
    node: Arc<Node>,
    held: Held,
    hold: Hold,
    next_comment: Instant,
    is_over: bool,
    /// With other rights it may be over.
    rights: RightsWatch,
    /// What its client must be allowed to do for as long as it holds the instance.
    permitted: Command,
    _place: OwnedSemaphorePermit,
}

impl Presence {
    /// What is to be sent next; `None`: it is over.
    async fn next(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        if let Some(greeting) = self.greeting.take() {
            return Some(greeting);
        }
        tokio::select! {
            () = self.hold.ended() => None,
            // Its client holds the instance no more, and is told why when it comes back.
            () = self.rights.forbids(&self.permitted) => None,
            told = self.held.told() => {
                self.is_over = true;
                Some(self.farewell(told))
            }
            () = tokio::time::sleep_until(self.next_comment) => {
                self.next_comment = Instant::now() + COMMENT_EVERY;
                Some(Bytes::from_static(COMMENT))
            }
        }
    }

    /// The last frame.
    fn farewell(&self, told: Told) -> Bytes {
        let mut out = String::new();
        let nothing = serde_json::json!({});
        match told {
            Told::Replaced => frame(&mut out, "replaced", None, &nothing),
            Told::Deregistered => frame(&mut out, "deregistered", None, &nothing),
            // They are sent away one after the other already.
            Told::Moved => frame(&mut out, "moved", None, &stream::moved(&self.node, 0)),
        }
        out.into()
    }
}
