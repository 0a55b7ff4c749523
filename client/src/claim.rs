//! Exclusive use of an idle instance, first come first served.

use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::client::Client;
use crate::duration;
use crate::error::Error;
use crate::query::{Query, with_id};
use crate::transport::{Attempt, Backoff, Call, jittered, lost};
use crate::types::claim::{ClaimAsk, ClaimGrant};

/// How long a holder may be silent, unless the builder says otherwise.
const TTL: Duration = Duration::from_secs(30);
/// How long a claim waits in line, unless the builder says otherwise.
const WAIT: Duration = Duration::from_secs(30);
/// Renewals in a TTL.
const RENEWALS_IN_TTL: u32 = 3;
/// How long a server may take to answer a renewal or a release, before the next one is asked.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// A server that does not answer any more, while a claim waits in line there, is left within this. The place in line is
/// kept for 10 s.
const NOTICE_WITHIN: Duration = Duration::from_secs(2);
/// How long to go on asking when the wait is over and no server has said what has become of the claim.
const DOUBT_MAX: Duration = Duration::from_secs(15);
/// Pauses after failures.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// How long a release is tried. After that the TTL does it.
const RELEASE_WITHIN: Duration = Duration::from_secs(10);

impl Client {
    /// Describes a claim of an instance of a service, in the pool of those with `Meta["slots"]`.
    #[must_use]
    pub fn claim(&self, service: impl Into<String>) -> ClaimBuilder {
        ClaimBuilder {
            client: self.clone(),
            service: service.into(),
            ask: ClaimAsk { id: Uuid::new_v4().to_string(), ..ClaimAsk::default() },
            wait: WAIT,
            ttl: TTL,
        }
    }
}

/// Describes a [`Claim`].
#[derive(Debug, Clone)]
pub struct ClaimBuilder {
    client: Client,
    service: String,
    ask: ClaimAsk,
    wait: Duration,
    ttl: Duration,
}

impl ClaimBuilder {
    /// Who asks, for people who look.
    #[must_use]
    pub fn holder(mut self, name: impl Into<String>) -> Self {
        self.ask.holder = name.into();
        self
    }

    /// How long to wait in line, at most 10 min (default 30 s); zero: not at all.
    #[must_use]
    pub fn wait(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// How long this process may be silent before the instance goes to the next: 1 s to 24 h (default 30 s).
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl, ..self }
    }

    /// Only an instance with this metadata; at most 4 pairs.
    #[must_use]
    pub fn require(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.ask.require.insert(key.into(), value.into());
        self
    }

    /// This instance, if it has a free slot.
    #[must_use]
    pub fn prefer(mut self, id: impl Into<String>) -> Self {
        self.ask.prefer = id.into();
        self
    }

    /// Waits in line for an instance; `None`: all were busy for the whole wait. A server that goes meanwhile costs nothing:
    /// the claim keeps its place, and gets what was granted to it.
    ///
    /// # Errors
    /// Status 404: no instance is in the pool. [`Error::OutcomeUnknown`]: nobody could say what became of it; what was
    /// granted ends with its TTL.
    pub async fn acquire(mut self) -> Result<Option<Claim>, Error> {
        self.client.require_running()?;
        let nanos = i64::try_from(self.ttl.as_nanos()).unwrap_or(i64::MAX);
        self.ask.ttl = duration::format(nanos);
        let begun = Instant::now();
        let deadline = begun + self.wait;
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        loop {
            let asked = self.ask_once(deadline.saturating_duration_since(Instant::now())).await;
            // It may have waited for longer than its TTL, which begins here.
            let renewed = Instant::now();
            let asked = match asked {
                Ok(grant) => self.confirm(grant).await,
                failed => failed,
            };
            match asked {
                Ok(grant) => return Ok(Some(self.keep(grant, renewed))),
                // It was lost in the moment between.
                Err(Answered::Lost) => self.ask.id = Uuid::new_v4().to_string(),
                Err(Answered::Busy) => return Ok(None),
                Err(Answered::Refused(error)) => return Err(error),
                Err(Answered::Again(error)) => {
                    let pause = backoff.pause();
                    if Instant::now() + pause > deadline + DOUBT_MAX {
                        return Err(error);
                    }
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    async fn ask_once(&self, wait: Duration) -> Result<ClaimGrant, Answered> {
        let path = with_id("/v1/quorate/claims/", &self.service);
        let call = Call::put(path).query(&Query::new().waiting(wait)).json(&self.ask);
        let call = call.map_err(Answered::Refused)?.idempotent();
        let transport = self.client.transport();
        let Some(node) = transport.best() else {
            return Err(Answered::Refused(Error::Configuration("no address given".to_owned())));
        };
        let answer = tokio::select! {
            attempt = transport.attempt(&node, &call, true) => match attempt {
                Attempt::Answered(answer) => answer,
                Attempt::NotTaken(error) | Attempt::Unknown(error) => {
                    return Err(Answered::Again(error));
                }
            },
            () = lost(&node, NOTICE_WITHIN) => {
                let gone = node.http().broken(&call.method, &call.path, "the server is lost".into());
                return Err(Answered::Again(gone));
            }
        };
        if answer.is_success() {
            return answer.json().map_err(Answered::Refused);
        }
        let text = answer.text();
        // The words of the API for a wait that is over; another 409 is about the claim's id.
        if answer.status == 409 && text.contains("busy") {
            return Err(Answered::Busy);
        }
        let request = call.named(node.http());
        Err(Answered::Refused(Error::Status { request, status: answer.status, text }))
    }

    /// Renews the grant once before it is used. A server that dies just after it has answered has told nobody that it
    /// did: without this, the instance would be given to the next 5 s later.
    async fn confirm(&self, grant: ClaimGrant) -> Result<ClaimGrant, Answered> {
        match self.client.perform(&renewal_of(&grant.id, grant.fence).within(ANSWER_MAX)).await {
            Ok(_) => Ok(grant),
            Err(Error::Status { status: 404 | 409, .. }) => Err(Answered::Lost),
            Err(error) => Err(Answered::Again(error)),
        }
    }

    fn keep(&self, grant: ClaimGrant, renewed: Instant) -> Claim {
        let stop = self.client.token().child_token();
        let lost = CancellationToken::new();
        let (losing, reason) = watch::channel(String::new());
        let (ended, end) = oneshot::channel();
        let renewal = Renewal {
            client: self.client.clone(),
            id: grant.id.clone(),
            fence: grant.fence,
            ttl: self.ttl,
            renewed,
            lost: lost.clone(),
            losing,
            stop: stop.clone(),
        };
        self.client.spawn(async move {
            let outcome = renewal.run().await;
            // Nobody waits if the handle was dropped.
            let _ = ended.send(outcome);
        });
        Claim { grant, lost, reason, end, stops_on_drop: stop.clone().drop_guard(), stop }
    }
}

/// What an attempt came to, if not to a grant.
enum Answered {
    /// All instances are busy, and the wait is over.
    Busy,
    /// What was granted is lost already.
    Lost,
    /// It is refused.
    Refused(Error),
    /// Nobody knows; the same question gives the answer.
    Again(Error),
}

/// An instance that is claimed. It is released when this is dropped, or with its client.
///
/// ```no_run
/// # async fn example(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
/// let Some(claim) = client.claim("rdb").holder("gateway-1").acquire().await? else {
///     println!("all are busy");
///     return Ok(());
/// };
/// let instance = &claim.grant().instance;
/// tokio::select! {
///     () = query(&instance.address, instance.port, claim.fence()) => claim.release().await?,
///     reason = claim.lost() => println!("lost: {reason}"),
/// }
/// # Ok(())
/// # }
/// # async fn query(_address: &str, _port: i64, _fence: u64) {}
/// ```
#[derive(Debug)]
#[must_use = "it is released when it is dropped"]
pub struct Claim {
    grant: ClaimGrant,
    lost: CancellationToken,
    reason: watch::Receiver<String>,
    stop: CancellationToken,
    end: oneshot::Receiver<Result<(), Error>>,
    stops_on_drop: DropGuard,
}

impl Claim {
    /// What was granted: the instance, and numbers.
    #[must_use]
    pub const fn grant(&self) -> &ClaimGrant {
        &self.grant
    }

    /// The fencing token: it grows with every grant in the cluster.
    #[must_use]
    pub const fn fence(&self) -> u64 {
        self.grant.fence
    }

    /// Whether it is still ours, as far as this process can know.
    #[must_use]
    pub fn is_held(&self) -> bool {
        !self.lost.is_cancelled()
    }

    /// Waits until it is lost, and says why: `expired`, `instance lost`, `session ended`, `forced`, `restored`, or that it
    /// could not be renewed.
    pub async fn lost(&self) -> String {
        self.lost.cancelled().await;
        self.reason.borrow().clone()
    }

    /// The same as a token, for work that is to stop then.
    #[must_use]
    pub const fn lost_token(&self) -> &CancellationToken {
        &self.lost
    }

    /// Releases it, and returns when the next in line has it.
    ///
    /// # Errors
    /// It could not be released within 10 s; its TTL does it.
    pub async fn release(self) -> Result<(), Error> {
        let Self { stop, end, stops_on_drop, .. } = self;
        stop.cancel();
        drop(stops_on_drop);
        end.await.unwrap_or(Ok(()))
    }
}

/// A renewal of the grant with this fence, and of no other.
fn renewal_of(id: &str, fence: u64) -> Call {
    let path = with_id("/v1/quorate/claim/", &format!("{id}/renew"));
    Call::put(path).query(&Query::new().with("fence", fence.to_string())).idempotent()
}

/// What keeps a claim.
struct Renewal {
    client: Client,
    id: String,
    fence: u64,
    ttl: Duration,
    /// When the last renewal that succeeded was sent.
    renewed: Instant,
    lost: CancellationToken,
    losing: watch::Sender<String>,
    stop: CancellationToken,
}

impl Renewal {
    async fn run(mut self) -> Result<(), Error> {
        let stop = self.stop.clone();
        let ended = self.watch_end();
        let reason = tokio::select! {
            () = stop.cancelled() => None,
            reason = async {
                match ended {
                    Some(ended) => ended.await,
                    None => std::future::pending().await,
                }
            } => Some(reason),
            reason = self.renew() => Some(reason),
        };
        let is_over = reason.is_some();
        let _ = self.losing.send(reason.unwrap_or_else(|| "released".to_owned()));
        self.lost.cancel();
        if is_over { Ok(()) } else { self.release().await }
    }

    /// Waits for the cluster to end the claim.
    fn watch_end(&self) -> Option<impl Future<Output = String> + Send + use<>> {
        let mut status = self.client.watch_claim(&self.id).start().ok()?;
        Some(async move {
            while let Some(status) = status.changed().await {
                if status.state == "ended" {
                    return status.reason.clone();
                }
            }
            std::future::pending().await
        })
    }

    /// Renews the claim until it is lost; returns why.
    async fn renew(&mut self) -> String {
        let interval = self.ttl / RENEWALS_IN_TTL;
        let call = renewal_of(&self.id, self.fence).within(ANSWER_MAX.min(interval));
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        let mut pause = jittered(interval);
        loop {
            let end = self.renewed + self.ttl;
            tokio::time::sleep_until(end.min(Instant::now() + pause)).await;
            let sent = Instant::now();
            if sent >= end {
                return "not renewed in time".to_owned();
            }
            pause = match tokio::time::timeout_at(end, self.client.perform(&call)).await {
                Ok(Ok(_)) => {
                    self.renewed = sent;
                    backoff.reset();
                    jittered(interval)
                }
                Ok(Err(Error::Status { status, text, .. })) if status < 500 && status != 429 => {
                    return text;
                }
                Ok(Err(_)) => backoff.pause(),
                Err(_) => return "not renewed in time".to_owned(),
            };
        }
    }

    async fn release(&self) -> Result<(), Error> {
        let path = with_id("/v1/quorate/claim/", &format!("{}/release", self.id));
        let call = Call::put(path).idempotent().within(ANSWER_MAX);
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        let limit = Instant::now() + RELEASE_WITHIN;
        loop {
            match self.client.remove(&call).await {
                Ok(()) => return Ok(()),
                // It has ended otherwise.
                Err(Error::Status { status, .. }) if status < 500 && status != 429 => return Ok(()),
                Err(error) => {
                    let pause = backoff.pause();
                    if Instant::now() + pause >= limit {
                        return Err(error);
                    }
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}
