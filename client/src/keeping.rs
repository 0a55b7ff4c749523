//! What locks and claims have in common: something is ours for as long as a task renews it, and goes back when its guard
//! goes.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::client::Client;
use crate::error::Error;
use crate::transport::{Backoff, Call, jittered};

/// Renewals in a TTL.
const RENEWALS_IN_TTL: u32 = 3;
/// How long a server may take to answer a renewal or a release, before the next one is asked.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Pauses after failures.
pub(crate) const RETRY_FIRST: Duration = Duration::from_millis(50);
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(1);
/// How long a release is tried. After that the TTL does it.
const RELEASE_WITHIN: Duration = Duration::from_secs(10);

/// A handle to something that a task keeps. The task ends when this is dropped, or with its client.
#[derive(Debug)]
pub(crate) struct Guard {
    lost: CancellationToken,
    stop: CancellationToken,
    end: oneshot::Receiver<Result<(), Error>>,
    stops_on_drop: DropGuard,
}

impl Guard {
    /// Keeps something: `renewal` goes on until it is lost, and `release` gives it back if it was not.
    pub(crate) fn start(
        client: &Client,
        renewal: impl Future<Output = ()> + Send + 'static,
        release: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) -> Self {
        let stop = client.token().child_token();
        let lost = CancellationToken::new();
        let (ended, end) = oneshot::channel();
        let guard =
            Self { lost: lost.clone(), end, stops_on_drop: stop.clone().drop_guard(), stop };
        let stop = guard.stop.clone();
        client.spawn(async move {
            let is_lost = stop.run_until_cancelled(renewal).await.is_some();
            lost.cancel();
            let outcome = if is_lost { Ok(()) } else { release.await };
            // Nobody waits if the guard was dropped.
            let _ = ended.send(outcome);
        });
        guard
    }

    /// Cancelled when it is lost.
    pub(crate) const fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Gives it back, and waits for that.
    ///
    /// # Errors
    /// It could not be given back within 10 s.
    pub(crate) async fn release(self) -> Result<(), Error> {
        let Self { stop, end, stops_on_drop, .. } = self;
        stop.cancel();
        drop(stops_on_drop);
        end.await.unwrap_or(Ok(()))
    }
}

/// Sends `call` each third of `ttl` until that many have failed that it is over, or one was refused for good; returns
/// why. `renewed` is when it was sent that begins the first TTL.
pub(crate) async fn renew(
    client: &Client,
    call: Call,
    ttl: Duration,
    mut renewed: Instant,
    is_over: impl Fn(&Error) -> Option<String>,
) -> String {
    let interval = ttl / RENEWALS_IN_TTL;
    let call = call.within(ANSWER_MAX.min(interval));
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    let mut pause = jittered(interval);
    let late = || "not renewed in time".to_owned();
    loop {
        let end = renewed + ttl;
        tokio::time::sleep_until(end.min(Instant::now() + pause)).await;
        let sent = Instant::now();
        if sent >= end {
            return late();
        }
        pause = match tokio::time::timeout_at(end, client.perform(&call)).await {
            Ok(Ok(_)) => {
                renewed = sent;
                backoff.reset();
                jittered(interval)
            }
            Ok(Err(error)) => match is_over(&error) {
                Some(why) => return why,
                None => backoff.pause(),
            },
            Err(_) => return late(),
        };
    }
}

/// Repeats an attempt to give something back until it succeeds, for 10 s; then its TTL does it.
///
/// # Errors
/// That of the last attempt.
pub(crate) async fn give_back<F>(attempt: impl Fn() -> F) -> Result<(), Error>
where
    F: Future<Output = Result<(), Error>>,
{
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    let limit = Instant::now() + RELEASE_WITHIN;
    loop {
        let Err(error) = attempt().await else { return Ok(()) };
        let pause = backoff.pause();
        if Instant::now() + pause >= limit {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
    }
}
