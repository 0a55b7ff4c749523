//! `/v1/quorate/claims/` and `/v1/quorate/claim/`: exclusive use of an idle instance, first come first served.
//!
//! A request that waits is known to the cluster ([`Request`]), and is answered from what this node applied. Its
//! client is never told "no" unless apply said so: when the wait is over, the request is withdrawn, and if its
//! claim was granted meanwhile, that is the answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use quorate_client::duration;
use quorate_client::types::claim::{ClaimAsk, ClaimPoolCounts};
use quorate_storage::command::{ClaimRequest, ClaimsCommand, Command, Outcome, Rejection};
use quorate_storage::machine::Published;
use quorate_storage::record::{
    Access, AclKind, Claim, ClaimEnd, ClaimPhase, RequestFacts, TextMap,
};
use quorate_storage::state::{CLAIMS_LEVEL, Pool, Prospects};
use quorate_storage::{Millis, State, Topic};
use rand::Rng as _;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::stream;
use crate::claims::Request;
use crate::http::blocking;
use crate::http::call::Call;
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::hold::Hold;
use crate::http::reply::Reply;
use crate::http::rights::{RightsWatch, Rule};
use crate::http::wire::millis;
use crate::live::claims as show;
use crate::node::Node;
use crate::raft::error::ProposeError;

/// The longest that a request waits.
const WAIT_MAX: Duration = Duration::from_secs(600);
/// How long a holder may be silent, unless it says otherwise.
const TTL: Millis = Millis::from_secs(30);
/// The shortest and the longest TTL.
const TTL_MIN: Millis = Millis::from_secs(1);
const TTL_MAX: Millis = Millis::from_secs(24 * 3_600);
/// Pairs that a claim may require.
const REQUIRE_MAX: usize = quorate_storage::limits::REQUIRE_PAIRS_MAX;
/// Pause before a request asks again whose server was taken for lost.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Without a leader for this long, clients are sent to other servers, which may have one.
const LEADERLESS_MAX: Duration = Duration::from_secs(3);
/// Clients that are sent away go within this time, not all at once.
const MOVE_WITHIN: Duration = Duration::from_secs(2);
/// What releases a claim by its fence, behind the name of its service.
const FORCE: &str = "/force";

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("/v1/quorate/claims").get(Rule::Rows, |call| Box::pin(pools(call))),
        Endpoint::new("/v1/quorate/claims/")
            .get(Rule::Rows, |call| Box::pin(pool(call)))
            .put(Rule::Commands, |call| Box::pin(ask_or_force(call))),
        Endpoint::new("/v1/quorate/claim/")
            .get(Rule::Rows, |call| Box::pin(status(call)))
            .put(Rule::Commands, |call| Box::pin(renew_or_release(call))),
    ]
}

// ---- asking ----------------------------------------------------------------------------------

async fn ask_or_force(call: Call) -> Answer {
    call.check_datacenter()?;
    let rest = call.required("Missing service name")?.to_owned();
    match rest.strip_suffix(FORCE) {
        Some(service) if !service.is_empty() => force(&call, service).await,
        Some(_) | None => ask(call, &rest).await,
    }
}

async fn ask(mut call: Call, service: &str) -> Answer {
    let wait = wait(&call)?;
    let agent = call.agent()?;
    let body: ClaimAsk = call.decode_if_any().await?.unwrap_or_default();
    let what = request(body, service, &agent.name, !wait.is_zero())?;
    refuse_below_level(&call.node)?;
    call.permit(&Command::Claims(ClaimsCommand::Claim(Box::new(what.clone())))).await?;
    let rights = call.watch_rights(&call.node.published())?;
    let _waiting = (!wait.is_zero()).then(blocking::room).transpose()?;
    // From here on its client is to say nothing more until it is answered.
    let hold = call.hold();
    let asking = Asking {
        request: call.node.claims().request(),
        node: Arc::clone(&call.node),
        facts: Arc::new(call.facts()),
        rights,
        what,
    };
    let Granted { published, claim, request } = asking.wait(wait, &hold).await?;
    drop(hold);
    let lost = || asked_again(&claim.id);
    let shown = show::grant(&published.state, &claim).ok_or_else(lost)?;
    let fence = shown.fence;
    let reply = call.json(&shown)?;
    Ok(reply.map_body(|inner| Body::new(HandedOver { inner, request: Some(request), fence })))
}

/// How long the request waits; zero: not at all.
fn wait(call: &Call) -> Result<Duration, ApiError> {
    let Some(text) = call.params.filled("wait") else { return Ok(Duration::ZERO) };
    let refused = || ApiError::bad_request(format!("Invalid wait {text:?}: 0s to 10m"));
    let nanos = duration::parse(text).map_err(|_| refused())?;
    let wait = Duration::from_nanos(u64::try_from(nanos).map_err(|_| refused())?);
    if wait > WAIT_MAX { Err(refused()) } else { Ok(wait) }
}

/// Judges a request by what it says alone.
fn request(
    body: ClaimAsk,
    service: &str,
    agent: &Arc<str>,
    waits: bool,
) -> Result<ClaimRequest, ApiError> {
    let ClaimAsk { id, holder, ttl, session, require, prefer } = body;
    let id = match &*id {
        "" => Uuid::new_v4().to_string(),
        id => claim_id(id)?,
    };
    if require.len() > REQUIRE_MAX {
        let text = format!("Invalid Require: {} pairs, at most {REQUIRE_MAX}", require.len());
        return Err(ApiError::bad_request(text));
    }
    let ttl = parse_ttl(&ttl, !session.is_empty())?;
    let holder = if holder.is_empty() { agent.clone() } else { holder.into() };
    let (session, prefer) = (super::session::session_id(&session), prefer.into());
    let (id, service) = (id.into(), service.into());
    Ok(ClaimRequest { id, service, holder, ttl, session, require, prefer, waits })
}

fn claim_id(id: &str) -> Result<String, ApiError> {
    let parsed = Uuid::try_parse(id);
    Ok(parsed.map_err(|_| ApiError::bad_request(format!("Invalid ID {id:?}: a UUID")))?.to_string())
}

fn parse_ttl(text: &str, has_session: bool) -> Result<Millis, ApiError> {
    if text.is_empty() {
        return Ok(TTL);
    }
    let refused = |why: &str| ApiError::bad_request(format!("Invalid TTL {text:?}: {why}"));
    let range = "1s to 24h, or 0 with a Session";
    let nanos = duration::parse(text).map_err(|_| refused(range))?;
    let ttl = if nanos < 0 { Err(refused(range)) } else { Ok(millis(nanos)) }?;
    let is_endless = ttl.is_zero() && has_session;
    match is_endless || (TTL_MIN..=TTL_MAX).contains(&ttl) {
        true => Ok(ttl),
        false => Err(refused(range)),
    }
}

fn refuse_below_level(node: &Node) -> Result<(), ApiError> {
    if node.published().state.level() >= CLAIMS_LEVEL {
        return Ok(());
    }
    let text = "not all servers know the rules of claims yet, try again later";
    Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text))
}

/// A request that asks and waits.
struct Asking {
    node: Arc<Node>,
    facts: Arc<RequestFacts>,
    /// Who has other rights has to ask again.
    rights: RightsWatch,
    what: ClaimRequest,
    request: Request,
}

/// A grant that is to be handed over.
struct Granted {
    published: Arc<Published>,
    claim: Arc<Claim>,
    request: Request,
}

impl Asking {
    /// Asks, and waits until the claim is granted or over, the time is up, or the server has to send its
    /// clients away.
    async fn wait(mut self, wait: Duration, hold: &Hold) -> Result<Granted, ApiError> {
        let topic = Topic::Claim(self.what.id.clone());
        let mut changes = self.node.watches().subscribe(&topic);
        let deadline = Instant::now() + wait;
        let leaderless = leaderless(self.node.known_leader());
        tokio::pin!(leaderless);
        self.ask().await?;
        loop {
            let published = self.node.published();
            match self.look(&published.state)? {
                Look::Granted(claim) => {
                    self.request.granted();
                    return Ok(Granted { published, claim, request: self.request });
                }
                Look::Waits { is_attached: true } => {}
                Look::Waits { is_attached: false } => {
                    drop(published);
                    tokio::time::sleep(AGAIN_AFTER).await;
                    self.ask().await?;
                    continue;
                }
            }
            drop(published);
            tokio::select! {
                () = changes.changed() => {}
                () = hold.ended() => return Err(ApiError::bad_request("the client has gone")),
                () = self.rights.changed() => return Err(self.rights_changed()),
                () = self.node.stopping().begun() => return Err(self.moved("is stopping")),
                () = &mut leaderless => return Err(self.moved("has no leader")),
                () = tokio::time::sleep_until(deadline) => self.withdraw().await?,
            }
        }
    }

    async fn ask(&mut self) -> Result<(), ApiError> {
        let outcome = self.request.ask(self.what.clone(), Some(Arc::clone(&self.facts))).await;
        let outcome = outcome.map_err(|error| self.failed(error))?;
        let Outcome::Rejected(refused) = outcome else { return Ok(()) };
        Err(match refused {
            // Copies of it may still be on their way.
            Rejection::OutcomeUnknown => outcome_unknown(&self.what.id),
            refused => {
                self.request.end();
                match refused {
                    Rejection::PoolBusy { .. } => self.busy(),
                    Rejection::InvalidSession(_) => ApiError::bad_request(refused.to_string()),
                    refused => refused.into(),
                }
            }
        })
    }

    /// What has become of the claim here.
    fn look(&mut self, state: &State) -> Result<Look, ApiError> {
        let Some(claim) = state.claim(&self.what.id) else {
            return Err(outcome_unknown(&self.what.id));
        };
        match &claim.phase {
            ClaimPhase::Granted(_) => Ok(Look::Granted(Arc::clone(claim))),
            ClaimPhase::Queued { .. } => {
                let is_attached = claim.attachments.contains(&self.request.attachment());
                Ok(Look::Waits { is_attached })
            }
            ClaimPhase::Ended { why, .. } => {
                self.request.end();
                let (id, service) = (claim.id.to_string(), claim.service.to_string());
                Err(match why {
                    ClaimEnd::PoolGone => Rejection::NotInPool(service).into(),
                    why => Rejection::ClaimOver { id, why: *why }.into(),
                })
            }
        }
    }

    /// The time is up: gives up the place in line, unless the claim has come to something else meanwhile.
    async fn withdraw(&mut self) -> Result<(), ApiError> {
        let id = self.what.id.clone();
        let command = ClaimsCommand::Withdraw { id: id.clone(), seq: self.request.seq() };
        let outcome =
            self.node.propose(Command::Claims(command), Some(Arc::clone(&self.facts))).await;
        match outcome {
            Ok(Outcome::Condition(true)) => {
                self.request.end();
                Err(self.busy())
            }
            Ok(Outcome::Condition(false)) => Ok(()),
            Ok(_) | Err(_) => Err(outcome_unknown(&id)),
        }
    }

    /// None is free, as far as this node has applied.
    fn busy(&self) -> ApiError {
        let published = self.node.published();
        let pool = published.state.pool(&self.what.service).filter(|pool| pool.size() > 0);
        match pool {
            Some(pool) => none_free(pool, &self.what.require),
            None => Rejection::NotInPool(self.what.service.to_string()).into(),
        }
    }

    fn failed(&self, error: ProposeError) -> ApiError {
        match error {
            ProposeError::OutcomeUnknown => outcome_unknown(&self.what.id),
            error => error.into(),
        }
    }

    /// The client is to ask again, if it still may.
    fn rights_changed(&self) -> ApiError {
        let text = format!(
            "the rights of this token have changed: claim {} keeps its place for 10 s, ask again with this ID",
            self.what.id
        );
        ApiError::new(StatusCode::FORBIDDEN, text)
    }

    /// The client is to ask again at another server.
    fn moved(&self, why: &str) -> ApiError {
        let servers = stream::moved(&self.node, 0).servers.join(", ");
        let id = &self.what.id;
        let text = format!(
            "this server {why}: claim {id} keeps its place for 10 s, ask again with this ID at another server ({servers})"
        );
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text).because("moved")
    }
}

/// Why a pool has no instance for a claim: its instances are busy, or cannot be used, or lack what it requires.
fn none_free(pool: &Pool, require: &TextMap) -> ApiError {
    let Prospects { suitable, usable } = pool.prospects(require);
    let (size, service) = (pool.size(), pool.name());
    let (reason, text) = if suitable == 0 {
        (
            "pool-unsuitable",
            format!("none of the {size} instances of {service:?} has what is required"),
        )
    } else if usable == 0 {
        ("pool-down", format!("none of the {suitable} instances of {service:?} passes its checks"))
    } else if usable < suitable {
        let others = suitable - usable;
        let text = format!(
            "all {usable} usable instances of {service:?} are busy ({others} do not pass their checks)"
        );
        ("pool-busy", text)
    } else {
        ("pool-busy", format!("all {suitable} instances of {service:?} are busy"))
    };
    let text = format!("{text}, {} requests are waiting", pool.attached());
    ApiError::new(StatusCode::CONFLICT, text).because(reason)
}

/// What a waiting request finds.
enum Look {
    Granted(Arc<Claim>),
    /// `is_attached`: the cluster knows that this request waits.
    Waits {
        is_attached: bool,
    },
}

fn outcome_unknown(id: &str) -> ApiError {
    let text = format!(
        "outcome unknown: claim {id} may be granted or wait, ask again with this ID to learn what became of it"
    );
    ApiError::internal(text).because("outcome-unknown")
}

/// Its instance is gone in the same moment.
fn asked_again(id: &str) -> ApiError {
    let text =
        format!("the instance of claim {id} is gone already, ask again with this ID to learn more");
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text)
}

/// Resolves when there was no leader for so long that clients are sent away.
async fn leaderless(mut leader: watch::Receiver<Option<Arc<str>>>) {
    loop {
        if leader.wait_for(Option::is_none).await.is_err() {
            return;
        }
        let patience = LEADERLESS_MAX + MOVE_WITHIN.mul_f64(rand::rng().random_range(0.0..1.0));
        let found = async { leader.wait_for(Option::is_some).await.map(drop) };
        if tokio::time::timeout(patience, found).await.is_err() {
            return;
        }
    }
}

/// The answer with a grant. When its client was sent all of it, the offer is collected.
struct HandedOver {
    inner: Body,
    request: Option<Request>,
    fence: u64,
}

impl hyper::body::Body for HandedOver {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        let fence = self.fence;
        if frame.is_ready()
            && self.inner.is_end_stream()
            && let Some(mut request) = self.request.take()
        {
            request.collect(fence);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

// ---- holding ---------------------------------------------------------------------------------

async fn renew_or_release(call: Call) -> Answer {
    call.check_datacenter()?;
    let seen = call.seen();
    let rest = call.required("Missing claim ID")?;
    let unknown = || ApiError::not_found("Invalid URL path: .../claim/ID/renew or .../release");
    let (id, verb) = rest.rsplit_once('/').ok_or_else(unknown)?;
    let id: Arc<str> = known_id(id).into();
    let command = match verb {
        "renew" => ClaimsCommand::Renew { id: id.clone(), seen, fence: known_fence(&call)? },
        "release" => ClaimsCommand::Release { id: id.clone() },
        _ => return Err(unknown()),
    };
    refuse_below_level(&call.node)?;
    call.propose(Command::Claims(command)).await?;
    let published = call.node.published();
    match published.state.claim(&id) {
        Some(claim) => call.json(&show::status(&published.state, claim)),
        // Forgotten since.
        None => call.json(&true),
    }
}

/// The fence of the grant that the holder knows of; 0: it does not say.
fn known_fence(call: &Call) -> Result<u64, ApiError> {
    let Some(text) = call.params.filled("fence") else { return Ok(0) };
    text.parse().map_err(|_| {
        ApiError::bad_request(format!("Invalid fence {text:?}: the number of the grant"))
    })
}

/// An id in the form in which claims have it. One that is no UUID is nobody's.
fn known_id(id: &str) -> String {
    claim_id(id).unwrap_or_else(|_| id.to_owned())
}

async fn force(call: &Call, service: &str) -> Answer {
    let refused = || ApiError::bad_request("Invalid fence: the number of the grant, ?fence=1234");
    let fence = call.params.filled("fence").and_then(|text| text.parse().ok());
    let fence = fence.ok_or_else(refused)?;
    refuse_below_level(&call.node)?;
    let command = ClaimsCommand::Force { service: service.into(), fence };
    call.propose(Command::Claims(command)).await?;
    call.json(&true)
}

// ---- looking ---------------------------------------------------------------------------------

async fn status(call: Call) -> Answer {
    let options = call.read_options()?;
    let id = known_id(call.required("Missing claim ID")?);
    let topic = Topic::Claim((&*id).into());
    blocking::read(
        &call,
        &options,
        |_| topic,
        |state| {
            let sight = call.rights(state)?;
            match state.claim(&id) {
                Some(claim) => {
                    sight.require(AclKind::Service, &claim.service, Access::Read)?;
                    call.json(&show::status(state, claim))
                }
                None => Ok(nothing(&Rejection::UnknownClaim(id.clone()))),
            }
        },
    )
    .await
}

async fn pool(call: Call) -> Answer {
    let options = call.read_options()?;
    let service = call.required("Missing service name")?;
    blocking::read(
        &call,
        &options,
        |_| Topic::pool(service),
        |state| {
            call.rights(state)?.require(AclKind::Service, service, Access::Read)?;
            match state.pool(service) {
                Some(pool) => call.json(&show::pool(state, pool)),
                None => Ok(nothing(&Rejection::NotInPool(service.to_owned()))),
            }
        },
    )
    .await
}

/// 404 with a sentence, for a reader that may wait for there to be something.
fn nothing(why: &Rejection) -> Reply {
    Reply::text(why.to_string()).status(StatusCode::NOT_FOUND)
}

async fn pools(call: Call) -> Answer {
    call.check_datacenter()?;
    let options = call.read_options()?;
    let published = blocking::at_barrier(&call.node, &options).await?;
    let state = &published.state;
    let sight = call.rights(state)?;
    let seen = state.pools().filter(|pool| sight.keeps_service(pool.name()));
    let pools: Vec<ClaimPoolCounts> = seen.map(show::counts).collect();
    let reply = call.json(&pools)?.filtered_if(call.was_filtered());
    Ok(reply.with_read_headers(state.claims_index(), call.node.contact(), options.effective))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(body: ClaimAsk) -> Result<ClaimRequest, String> {
        request(body, "rdb", &"agent".into(), true).map_err(|error| error.text)
    }

    #[test]
    fn a_request_is_judged_by_what_it_says() {
        let plain = ask(ClaimAsk::default()).unwrap();
        assert_eq!((&*plain.holder, plain.ttl), ("agent", Millis::from_secs(30)));
        assert!(Uuid::try_parse(&plain.id).is_ok(), "{}", plain.id);
        let id = "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11".to_owned();
        let named = ask(ClaimAsk { id, ..ClaimAsk::default() }).unwrap();
        assert_eq!(&*named.id, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11");
        assert!(ask(ClaimAsk { id: "x".to_owned(), ..ClaimAsk::default() }).is_err());
        let require = (0..5).map(|key| (key.to_string(), String::new())).collect();
        let refused = ask(ClaimAsk { require, ..ClaimAsk::default() });
        assert_eq!(refused.unwrap_err(), "Invalid Require: 5 pairs, at most 4");
    }

    #[test]
    fn a_ttl_is_a_second_to_a_day_or_none_with_a_session() {
        let parsed = |text, has_session| parse_ttl(text, has_session).map_err(|error| error.text);
        assert_eq!(parsed("", false), Ok(Millis(30_000)));
        assert_eq!(parsed("1s", false), Ok(Millis(1_000)));
        assert_eq!(parsed("24h", true), Ok(TTL_MAX));
        assert_eq!(parsed("0", true), Ok(Millis::ZERO));
        for (text, has_session) in [("0", false), ("999ms", true), ("24h1ms", true), ("-1s", true)]
        {
            let refused = parsed(text, has_session).unwrap_err();
            assert!(refused.contains("1s to 24h, or 0 with a Session"), "{refused}");
        }
    }
}
