//! DNS over UDP.

use std::sync::Arc;
use std::time::Duration;

use super::metrics::DnsMetrics;
use super::{Answerer, RECEIVED_BYTES_MAX, Transport};
use crate::host::clock::Clock;
use crate::host::datagrams::Datagrams;
use crate::host::log_rate::LogRate;

/// Messages to one socket that are in progress at a time, where the answers are in memory. More wait in the socket's
/// buffer, and what does not fit there is lost, as it may be anywhere on its way.
pub const TASKS: usize = 4;
/// The same where other servers are asked for the answers.
pub const FORWARDING_TASKS: usize = 64;
/// How long to wait when nothing can be received.
const PAUSE: Duration = Duration::from_millis(50);
/// Time between two lines that say so.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Answers one message after the other; never ends. Several tasks may do so with one socket.
pub async fn serve(socket: Arc<Datagrams>, answerer: impl Answerer, metrics: DnsMetrics) {
    let lines = LogRate::new(Clock::monotonic(), LINE_EVERY);
    let mut message = vec![0; RECEIVED_BYTES_MAX];
    loop {
        let (length, source) = match socket.receive(&mut message).await {
            Ok(received) => received,
            Err(error) => {
                if let Some(not_logged) = lines.pass() {
                    tracing::warn!(%error, not_logged, "cannot receive DNS messages");
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let caller = source.caller;
        // Nobody can have sent it from there.
        if caller.port() == 0 {
            metrics.dropped("port");
            continue;
        }
        let answer = answerer.answer(&message[..length], Transport::Udp, caller.ip()).await;
        if let Some(answer) = answer
            && let Err(error) = socket.answer(&answer, source).await
        {
            tracing::debug!(%caller, %error, "a DNS answer was not sent");
            metrics.dropped("unsent");
        }
    }
}
