//! Exclusive use of an idle instance, first come first served.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::client::Client;
use crate::duration;
use crate::error::Error;
use crate::keeping::{self, ANSWER_MAX, Guard, RETRY_FIRST, RETRY_MAX, give_back};
use crate::query::{Query, with_id};
use crate::transport::{Attempt, Backoff, Call, lost};
use crate::types::claim::{ClaimAsk, ClaimGrant};

/// How long a holder may be silent, unless the builder says otherwise.
const TTL: Duration = Duration::from_secs(30);
/// How long a claim waits in line, unless the builder says otherwise.
const WAIT: Duration = Duration::from_secs(30);
/// A server that does not answer any more, while a claim waits in line there, is left within this. The place in line is
/// kept for 10 s.
const NOTICE_WITHIN: Duration = Duration::from_secs(2);
/// Why a server says that a wait was in vain: all are busy, or cannot be used, or are not what is required.
const NONE_FREE: [&str; 3] = ["pool-busy", "pool-down", "pool-unsuitable"];
/// How long to go on asking when the wait is over and no server has said what has become of the claim.
const DOUBT_MAX: Duration = Duration::from_secs(15);

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

    /// Waits in line for an instance; `None`: none that fits was free for the whole wait. A server that goes meanwhile costs nothing:
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
        if answer.reason().is_some_and(|reason| NONE_FREE.contains(&reason)) {
            return Err(Answered::Busy);
        }
        let text = answer.text();
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
        // What it says if nothing else has happened.
        let (losing, reason) = watch::channel("released".to_owned());
        let (client, id, ttl) = (self.client.clone(), grant.id.clone(), self.ttl);
        let renew = renewal_of(&id, grant.fence);
        let renewal = async move {
            let why = tokio::select! {
                why = ended(&client, &id) => why,
                why = keeping::renew(&client, renew, ttl, renewed, refusal) => why,
            };
            let _ = losing.send(why);
        };
        let path = with_id("/v1/quorate/claim/", &format!("{}/release", grant.id));
        let (client, call) = (self.client.clone(), Call::put(path).idempotent().within(ANSWER_MAX));
        let release = async move {
            let attempt = || async {
                match client.remove(&call).await {
                    // It has ended otherwise.
                    Err(error) if refusal(&error).is_some() => Ok(()),
                    outcome => outcome,
                }
            };
            give_back(attempt).await
        };
        Claim { guard: Guard::start(&self.client, renewal, release), grant, reason }
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
    reason: watch::Receiver<String>,
    guard: Guard,
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
        !self.guard.is_lost()
    }

    /// Waits until it is lost, and says why: `expired`, `instance lost`, `session ended`, `forced`, `restored`, or that it
    /// could not be renewed.
    pub async fn lost(&self) -> String {
        self.guard.lost().cancelled().await;
        self.reason.borrow().clone()
    }

    /// The same as a token, for work that is to stop then.
    #[must_use]
    pub const fn lost_token(&self) -> &CancellationToken {
        self.guard.lost()
    }

    /// Releases it, and returns when the next in line has it.
    ///
    /// # Errors
    /// It could not be released within 10 s; its TTL does it.
    pub async fn release(self) -> Result<(), Error> {
        self.guard.release().await
    }
}

/// A renewal of the grant with this fence, and of no other.
fn renewal_of(id: &str, fence: u64) -> Call {
    let path = with_id("/v1/quorate/claim/", &format!("{id}/renew"));
    Call::put(path).query(&Query::new().with("fence", fence.to_string())).idempotent()
}

/// Waits for the cluster to end the claim, and says why it did.
async fn ended(client: &Client, id: &str) -> String {
    if let Ok(mut status) = client.watch_claim(id).start() {
        while let Some(status) = status.changed().await {
            if status.state == "ended" {
                return status.reason.clone();
            }
        }
    }
    std::future::pending().await
}

/// The words in which the cluster says that the claim is none any more, if it does.
fn refusal(error: &Error) -> Option<String> {
    match error {
        Error::Status { status, text, .. } if *status < 500 && *status != 429 => Some(text.clone()),
        _ => None,
    }
}
