//! From a message to its answer, with a state at hand.

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::Name;
use quorate_storage::State;

use super::message::{self, Received, Request, Transport};
use super::metrics::DnsMetrics;
use super::question;
use super::reverse::Reverse;
use super::settings::DnsSettings;
use super::zone::{Asker, Found, Zone};
use crate::host::clock::Clock;

/// In `/metrics`: messages that cannot be read.
const MALFORMED: &str = "malformed";
/// In `/metrics`: names outside the domain.
const OUTSIDE: &str = "outside";
/// In `/metrics`: reverse look-ups.
const REVERSE: &str = "reverse";
/// In `/metrics`: there was no state to answer from.
const UNREADY: &str = "unready";

/// Answers messages.
#[derive(Debug)]
pub(super) struct Responder {
    pub(super) settings: DnsSettings,
    pub(super) metrics: DnsMetrics,
    datacenter: String,
    reverse: Reverse,
}

impl Responder {
    pub(super) fn new(settings: DnsSettings, datacenter: String, clock: Clock) -> Self {
        let (metrics, reverse) = (DnsMetrics::default(), Reverse::new(clock));
        Self { settings, metrics, datacenter, reverse }
    }

    /// The answer to a message; `None` if it is not answered. Without a state it is a failure.
    pub(super) fn respond(
        &self,
        state: Option<&State>,
        message: &[u8],
        transport: Transport,
        asker: Asker<'_>,
    ) -> Option<Vec<u8>> {
        let (request, kind, found, is_authoritative) = match message::read(message) {
            Received::Ignored(reason) => {
                self.metrics.dropped(reason);
                return None;
            }
            Received::Faulty(request, code) => (request, MALFORMED, Found::error(code), false),
            Received::Asks(request, query) => {
                let (kind, found) = self.find(state, &request, &query, transport, asker);
                let is_ours = !matches!(found.code, ResponseCode::Refused | ResponseCode::ServFail);
                (request, kind, found, is_ours)
            }
        };
        let marks = self.settings.marks_truncation;
        match request.write(&found, is_authoritative, transport, marks) {
            Ok(answer) => {
                self.metrics.answered(kind, found.code);
                Some(answer)
            }
            Err(error) => {
                tracing::debug!(%error, "a DNS answer cannot be written");
                self.metrics.dropped("unwritable");
                None
            }
        }
    }

    /// What is found, and the kind of what was asked for.
    fn find(
        &self,
        state: Option<&State>,
        request: &Request,
        query: &Query,
        transport: Transport,
        asker: Asker<'_>,
    ) -> (&'static str, Found) {
        let name = query.name();
        let (domain, reversed) = (self.domain_of(name), question::reverse(name));
        if domain.is_none() && reversed.is_none() {
            return (OUTSIDE, Found::error(ResponseCode::Refused));
        }
        let Some(state) = state else { return (UNREADY, Found::error(ResponseCode::ServFail)) };
        let Some(domain) = domain.or(self.settings.domains.first()) else {
            return (OUTSIDE, Found::error(ResponseCode::Refused));
        };
        let fitting = request.answers_max(transport, query.query_type());
        let limit = self.settings.udp_answers_max.filter(|_| request.is_plain(transport));
        let zone = Zone {
            settings: &self.settings,
            state,
            datacenter: &self.datacenter,
            domain,
            asker,
            answers_max: limit.map_or(fitting, |limit| limit.min(fitting)),
        };
        match reversed {
            None => zone.answer(name, query.query_type()),
            Some(ip) => {
                let names = self.reverse.names(state, ip, &self.datacenter, domain, asker.rights);
                let found = names.map(|names| zone.reverse(name, query.query_type(), names));
                (REVERSE, found.unwrap_or_else(|| Found::error(ResponseCode::Refused)))
            }
        }
    }

    /// The longest of the domains that a name is in.
    fn domain_of(&self, name: &Name) -> Option<&Name> {
        let domains = self.settings.domains.iter().filter(|domain| domain.zone_of(name));
        domains.max_by_key(|domain| domain.iter().len())
    }
}
