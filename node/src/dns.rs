//! DNS: the catalogue as a domain, over UDP and TCP.
//!
//! # How a question passes
//!
//! 1. [`udp`] or [`tcp`] receives a message. Both run on the threads of clients ([`crate::host::threads`]). How many
//!    messages and connections are in progress is bounded; what is more waits in the socket's buffer, or is closed.
//! 2. `message` reads it with hickory's codec. Responses and scraps are dropped, nonsense is answered with an error
//!    that is no longer than the question was.
//! 3. `question` finds out what the name means: a service, a node, a prepared query, an address, the domain itself.
//! 4. `zone` looks in one version of this node's own state, as a `?stale` read does: no question waits for another
//!    server, and all are answered while there is no leader. `reverse` finds names for addresses.
//! 5. `message` writes as much of the answer as the client has room for. Over UDP, where something was left out, the
//!    answer says so (TC), and the client asks again over TCP.
//!
//! # Where it differs from Consul
//!
//! * An answer that was cut says so, and holds as many records as fit: in Consul both must be asked for
//!   (`enable_truncate`), and it gives at most three records to clients without EDNS (`udp_answer_limit`).
//! * Names that only have others below them (`service.consul`, `consul`) exist and have no records. Consul says that
//!   they do not exist, and a resolver may conclude that nothing below them does (RFC 8020).
//! * Other domains are refused, also those of reverse look-ups for addresses that the catalogue does not know: nothing
//!   is asked of other name servers.
//!
//! A server that has never heard of its cluster answers SERVFAIL, so that the client asks another one.

mod message;
pub mod metrics;
mod question;
mod responder;
mod reverse;
pub mod settings;
pub mod tcp;
pub mod udp;
mod zone;

use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::op::ResponseCode;
use quorate_storage::machine::Published;

use self::message::{Received, Request};
use self::metrics::DnsMetrics;
use self::responder::Responder;
use self::settings::DnsSettings;
use self::zone::{Asker, Found};
use crate::discovery::access::AccessControl;
use crate::host::supervise;
use crate::node::Node;

pub use self::message::Transport;

/// The longest message that is received. Questions have fewer than 512 bytes.
pub const RECEIVED_BYTES_MAX: usize = 4_096;

/// Answers messages of DNS clients.
pub trait Answerer: Clone + Send + Sync + 'static {
    /// The answer to a message; `None` if it is not to be answered.
    fn answer(
        &self,
        message: &[u8],
        transport: Transport,
        caller: IpAddr,
    ) -> impl Future<Output = Option<Vec<u8>>> + Send;
}

/// Answers from the state of a node.
#[derive(Debug)]
pub struct Dns {
    node: Arc<Node>,
    responder: Responder,
    /// What is shown to whoever has no token; `None`: everything.
    acl: Option<AccessControl>,
}

impl Dns {
    /// DNS of a node's state.
    #[must_use]
    pub fn new(node: &Arc<Node>, settings: DnsSettings, acl: Option<AccessControl>) -> Self {
        let responder = Responder::new(settings, node.info().datacenter, node.clock().clone());
        Self { node: Arc::clone(node), responder, acl }
    }

    /// How it is served.
    #[must_use]
    pub fn settings(&self) -> &DnsSettings {
        &self.responder.settings
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &DnsMetrics {
        &self.responder.metrics
    }

    /// The answer to a message; `None` if it is not answered. `agent` is the name of the asking agent, if it names
    /// itself.
    pub fn respond(
        &self,
        message: &[u8],
        transport: Transport,
        caller: IpAddr,
        agent: Option<&str>,
    ) -> Option<Vec<u8>> {
        let respond = || {
            let published = self.state();
            let state = published.as_ref().map(|published| &published.state);
            let agent = || self.node.agent_of(caller, agent).map(|agent| agent.name.to_string());
            // Questions have no token.
            let rights =
                |control: AccessControl| state?.rights_of(&control.without_token, control.default);
            let rights = self.acl.map(rights);
            let is_unknown = matches!(rights, Some(None));
            let rights = rights.flatten();
            let asker = Asker { ip: caller.to_canonical(), agent: &agent, rights: rights.as_ref() };
            let state = state.filter(|_| !is_unknown);
            self.responder.respond(state, message, transport, asker)
        };
        supervise::catch_now("answering a DNS message", respond).unwrap_or_else(|_| {
            self.metrics().dropped("panic");
            None
        })
    }

    /// The state, unless this server has just started and may know less than it did, has never been a member of a
    /// cluster, or has been without a leader for longer than allowed.
    fn state(&self) -> Option<Arc<Published>> {
        let published = self.node.stale().filter(|published| published.last_applied.is_some())?;
        let is_too_old = self
            .settings()
            .stale_max
            .is_some_and(|max| u128::from(self.node.contact().last_contact.0) > max.as_millis());
        (!is_too_old).then_some(published)
    }
}

impl Answerer for Arc<Dns> {
    fn answer(
        &self,
        message: &[u8],
        transport: Transport,
        caller: IpAddr,
    ) -> impl Future<Output = Option<Vec<u8>>> + Send {
        std::future::ready(self.respond(message, transport, caller, None))
    }
}

/// What is answered to a message without asking anybody, because it asks nothing: nothing (`Some(None)`), or an error.
/// `None` if it does ask something.
#[must_use]
pub fn refusal(message: &[u8]) -> Option<Option<Vec<u8>>> {
    match message::read(message) {
        Received::Ignored(_) => Some(None),
        Received::Faulty(request, code) => Some(written_error(&request, code)),
        Received::Asks(..) => None,
    }
}

/// The answer to a question that cannot be answered at present; `None` for what is no question.
#[must_use]
pub fn failure(message: &[u8]) -> Option<Vec<u8>> {
    match message::read(message) {
        Received::Asks(request, _) => written_error(&request, ResponseCode::ServFail),
        Received::Ignored(_) | Received::Faulty(..) => None,
    }
}

fn written_error(request: &Request, code: ResponseCode) -> Option<Vec<u8>> {
    request.write(&Found::error(code), false, Transport::Udp, false).ok()
}

#[cfg(test)]
mod tests;
