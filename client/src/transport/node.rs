//! One server, as a client with several knows it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use tokio::time::Instant;

use super::breaker::{Breaker, Readiness};
use crate::http::Http;

/// A server.
#[derive(Debug)]
pub(crate) struct Node {
    http: Http,
    /// Held for a moment at a time, never while something is waited for.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    breaker: Breaker,
    /// When it last answered.
    heard: Option<Instant>,
}

impl Node {
    pub(super) fn new(http: Http) -> Self {
        Self { http, known: Mutex::default() }
    }

    pub(crate) const fn http(&self) -> &Http {
        &self.http
    }

    pub(super) fn readiness(&self, now: Instant) -> Readiness {
        self.known().breaker.readiness(now)
    }

    /// It is about to be asked.
    pub(crate) fn asked(&self) {
        self.known().breaker.asked(Instant::now());
    }

    /// It answered.
    pub(crate) fn succeeded(&self) {
        let mut known = self.known();
        known.breaker.succeeded();
        known.heard = Some(Instant::now());
    }

    /// It did not answer.
    pub(crate) fn failed(&self) {
        self.known().breaker.failed(Instant::now());
    }

    /// It answered that it cannot do anything at present.
    pub(crate) fn refused(&self, retry_after: Duration) {
        self.known().breaker.refused(Instant::now(), retry_after);
    }

    fn was_heard_within(&self, span: Duration) -> bool {
        self.known().heard.is_some_and(|heard| heard.elapsed() < span)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns when a server does not answer any more, or has been without the cluster, for about `within`.
///
/// A request that waits for a change tells nothing of its server: one that is stopped, or cut off from the others, waits
/// just as quietly. So it is asked for its readiness now and then, once for all who wait at it.
pub(crate) async fn lost(node: &Node, within: Duration) {
    // It may have been heard just before it fell silent, and the question takes its time too.
    let part = within / 3;
    let mut unready_since: Option<Instant> = None;
    loop {
        tokio::time::sleep(part).await;
        if unready_since.is_none() && node.was_heard_within(part) {
            continue;
        }
        let asked = node.http().send_within(part, Method::GET, "/readyz", Bytes::new(), None);
        match asked.await {
            Ok(answer) if answer.is_success() => {
                unready_since = None;
                node.succeeded();
            }
            Ok(_) => {
                let since = *unready_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= within {
                    node.refused(within);
                    return;
                }
            }
            Err(_) => {
                node.failed();
                return;
            }
        }
    }
}
