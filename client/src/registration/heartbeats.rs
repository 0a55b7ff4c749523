//! A registration that lives by heartbeats alone.

use super::{Pulse, RETRY_FIRST, RETRY_MAX};
use crate::transport::{Backoff, jittered};

/// Sends heartbeats until the registration ends.
pub(super) async fn run(mut pulse: Pulse) {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    let mut pause = jittered(pulse.interval);
    loop {
        tokio::select! {
            () = pulse.leave.cancelled() => return pulse.deregister(None).await,
            said = pulse.said.changed() => if said.is_err() && !pulse.leave.is_cancelled() {
                return pulse.end(Ok(()));
            },
            () = tokio::time::sleep(pause) => {}
        }
        if pulse.leave.is_cancelled() {
            continue;
        }
        // Not given up when the registration is to end: a heartbeat that came behind the deregistration would register the
        // instance anew.
        let outcome = pulse.beat().await;
        pause = match outcome {
            Ok(()) => {
                backoff.reset();
                jittered(pulse.interval)
            }
            Err(_) => backoff.pause().min(pulse.interval),
        };
        if !pulse.note(&outcome) {
            return pulse.end(Ok(()));
        }
    }
}
