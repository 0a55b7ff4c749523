//! `POST /v1/quorate/dns`: a DNS message over HTTP, as client agents hand theirs on. Body and answer are those of
//! DNS-over-HTTPS (RFC 8484).

use axum::http::{HeaderName, HeaderValue};

use crate::dns::{RECEIVED_BYTES_MAX, Transport};
use crate::http::AGENT_HEADER;
use crate::http::call::Call;
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::incoming::BodyLimit;
use crate::http::reply::Reply;
use crate::http::rights::Rule;

/// Where a message is answered.
pub(crate) const DNS_PATH: &str = "/v1/quorate/dns";
/// Where its answer is no longer than its client has room for over UDP.
pub(crate) const DNS_PATH_UDP: &str = "/v1/quorate/dns?udp";

const MESSAGE_TYPE: HeaderValue = HeaderValue::from_static("application/dns-message");

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint::new(DNS_PATH).post(Rule::Open, |call| Box::pin(answer(call)))]
}

/// The answer to the message in the body; an empty one if it is not to be answered.
async fn answer(mut call: Call) -> Answer {
    let transport = if call.params.switch("udp")? { Transport::Udp } else { Transport::Tcp };
    let message = call.body(BodyLimit::fixed(RECEIVED_BYTES_MAX)).await?;
    let Some(dns) = &call.process.dns else {
        return Err(ApiError::internal("this server has no DNS"));
    };
    let agent = call.header(&HeaderName::from_static(AGENT_HEADER));
    match dns.respond(&message, transport, call.caller(), agent) {
        Some(answer) => Ok(Reply::bytes(answer.into(), MESSAGE_TYPE)),
        None => Ok(Reply::empty()),
    }
}
