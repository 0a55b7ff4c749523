//! DNS of a client agent: questions go to a server, as its HTTP requests do.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};

use super::servers::Servers;
use crate::dns::{Answerer, Transport, failure, refusal};
use crate::http::{DNS_PATH, DNS_PATH_UDP};

/// Time for an answer: clients of DNS ask again, or somebody else, after a few seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// A server that could not be reached may have been asked; the next one is asked the same.
const TRIES: usize = 2;
/// The longest answer.
const ANSWER_BYTES_MAX: usize = u16::MAX as usize;

/// Answers with what servers say; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct DnsFront(pub(super) Arc<Servers>);

impl Answerer for DnsFront {
    async fn answer(&self, message: &[u8], transport: Transport, _: IpAddr) -> Option<Vec<u8>> {
        // Nonsense bothers no server.
        if let Some(refused) = refusal(message) {
            return refused;
        }
        for _ in 0..TRIES {
            match tokio::time::timeout(ANSWER_TIMEOUT, self.ask(message, transport)).await {
                Ok(Some(answer)) => return Some(answer),
                Ok(None) | Err(_) => self.0.pass_over(),
            }
        }
        failure(message)
    }
}

impl DnsFront {
    async fn ask(&self, message: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let path = match transport {
            Transport::Udp => DNS_PATH_UDP,
            Transport::Tcp => DNS_PATH,
        };
        let request = Request::builder().method(Method::POST).uri(path);
        let request = request.body(Body::from(message.to_vec())).ok()?;
        let answer = self.0.forward(request).await;
        if answer.status() != StatusCode::OK {
            tracing::debug!(status = %answer.status(), "a server did not answer a DNS question");
            return None;
        }
        let bytes = axum::body::to_bytes(answer.into_body(), ANSWER_BYTES_MAX).await.ok()?;
        Some(bytes.to_vec()).filter(|bytes| !bytes.is_empty())
    }
}
