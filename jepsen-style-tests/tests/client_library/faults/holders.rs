//! Those who hold something, of which there is one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jepsen_style_tests::{Failure, Result};
use quorate_client::types::heartbeat::Heartbeat;
use quorate_client::{CancellationToken, Client, Error};

use super::Findings;

/// The service whose instance is claimed.
const SERVICE: &str = "claimed";
/// After so long a silence what somebody holds goes to the next: sessions allow no less.
const TTL: Duration = Duration::from_secs(10);
/// How long to wait for it.
const WAIT: Duration = Duration::from_secs(5);

/// What is held: it takes nothing from whom it knows to be late.
#[derive(Default)]
pub(super) struct Resource {
    /// The highest fencing token so far.
    highest: AtomicU64,
    holders: Mutex<BTreeMap<u64, &'static str>>,
}

/// Somebody who wants it again and again.
#[derive(Clone)]
pub(super) struct Holder {
    pub(super) client: Client,
    pub(super) name: &'static str,
    pub(super) over: CancellationToken,
    pub(super) findings: Arc<Findings>,
}

/// Registers the instance that is claimed.
pub(super) async fn offer(client: &Client) -> Result<()> {
    let instance = Heartbeat {
        service: SERVICE.to_owned(),
        meta: Some([("slots".to_owned(), "1".to_owned())].into()),
        critical_after: Some("24h".to_owned()),
        warn_after: Some("0s".to_owned()),
        ..Heartbeat::default()
    };
    match client.heartbeat(&[instance]).await?.accepted {
        1 => Ok(()),
        _ => Err(Failure::new("the instance to be claimed was refused")),
    }
}

/// What was asked for. What nobody could tell of, while a server was away, ends with its TTL.
fn had<T>(outcome: std::result::Result<Option<T>, Error>) -> Result<Option<T>> {
    match outcome {
        Err(error) if error.status().is_none_or(|status| status >= 500) => Ok(None),
        outcome => Ok(outcome?),
    }
}

impl Holder {
    /// Takes a lock, works, and releases it.
    pub(super) async fn lock(self, resource: Arc<Resource>) -> Result<()> {
        let lock = self.client.lock("faults/lock").value(self.name).ttl(TTL);
        while !self.over.is_cancelled() {
            let before = resource.highest.load(Ordering::SeqCst);
            let Some(held) = had(lock.acquire_within(WAIT).await)? else { continue };
            self.work(&resource, before, held.fence(), || held.is_held()).await;
            self.findings.count("locks held", 1);
            // One that cannot be released now ends with its TTL.
            let _ = held.release().await;
        }
        self.client.shutdown().await;
        Ok(())
    }

    /// The same with a claim.
    pub(super) async fn claim(self, resource: Arc<Resource>) -> Result<()> {
        while !self.over.is_cancelled() {
            let before = resource.highest.load(Ordering::SeqCst);
            let claim = self.client.claim(SERVICE).holder(self.name).ttl(TTL).wait(WAIT);
            let Some(claim) = had(claim.acquire().await)? else { continue };
            self.work(&resource, before, claim.fence(), || claim.is_held()).await;
            self.findings.count("claims held", 1);
            let _ = claim.release().await;
        }
        Ok(())
    }

    /// Works with the resource under this fence; `before` is the highest that it had seen before it was asked for.
    async fn work(&self, resource: &Resource, before: u64, fence: u64, is_held: impl Fn() -> bool) {
        let name = self.name;
        if fence <= before {
            let text = format!("{name} got the fence {fence}, and {before} was used before");
            self.findings.wrong(text);
        }
        if let Some(other) = resource.holders.lock().unwrap().insert(fence, name) {
            self.findings.wrong(format!("{name} and {other} have the same fence {fence}"));
        }
        for _ in 0..5 {
            if resource.highest.fetch_max(fence, Ordering::SeqCst) > fence && is_held() {
                self.findings.count("late holders refused", 1);
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    }
}
