//! What locks, semaphores and elections have in common: a key that is held through a session.
//!
//! A holder makes a session with a TTL, takes a key for it, renews the session each third of the TTL and watches the key. It
//! knows that it has lost the key when the cluster says so, or when no renewal has succeeded for a TTL: the cluster may have
//! given the key to somebody else by then. Because a process can be stopped between looking and acting, that knowledge is
//! never certain. The **fencing token** is: the key's `ModifyIndex` when it was taken. It grows with each holder, so a
//! resource that remembers the highest one it has seen can refuse whoever comes late.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::Txn;
use crate::client::Client;
use crate::duration;
use crate::error::Error;
use crate::keeping::{self, ANSWER_MAX, Guard, RETRY_FIRST, RETRY_MAX, give_back};
use crate::query::{Query, with_id};
use crate::transport::{Backoff, Call, Safety, jittered};
use crate::types::kv::KvPair;
use crate::types::session::SessionCreate;
use crate::types::txn::{KvOp, TxnOp, TxnResult};
use crate::watch::Watch;

/// The TTL of a session, unless the builder says otherwise. The cluster allows 10 s to 24 h.
pub(crate) const TTL: Duration = Duration::from_secs(15);
/// For how long nobody gets a key whose holder's session has ended, unless the builder says otherwise.
pub(crate) const LOCK_DELAY: Duration = Duration::from_secs(1);
/// How long to wait before a key is tried again that nobody holds, and that could not be taken: a lock delay runs.
const FREE_PAUSE: Duration = Duration::from_millis(200);
/// A key is tried again after so long although nothing has changed.
const HELD_PAUSE: Duration = Duration::from_secs(5);
/// How often a key that keeps its value is read again because somebody has written it between the reading and the taking.
const WRITTEN_MAX: usize = 8;

/// How something is held.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// The keys, one of which is enough.
    pub(crate) keys: Vec<String>,
    /// Below this all of them are.
    pub(crate) prefix: String,
    /// What is written into the key that is taken; `None`: it keeps what it has.
    pub(crate) value: Option<Bytes>,
    /// A name for the session, for people.
    pub(crate) name: String,
    pub(crate) ttl: Duration,
    pub(crate) lock_delay: Duration,
}

/// A key that is held. It is released when this is dropped, or with its client.
///
/// ```no_run
/// # async fn example(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
/// let held = client.lock("locks/report").acquire().await?;
/// tokio::select! {
///     () = write_report(held.fence()) => held.release().await?,
///     () = held.lost() => println!("somebody else may have it now"),
/// }
/// # Ok(())
/// # }
/// # async fn write_report(_fence: u64) {}
/// ```
#[derive(Debug)]
#[must_use = "it is released when it is dropped"]
pub struct Held {
    key: String,
    session: String,
    fence: u64,
    guard: Guard,
}

impl Held {
    /// The fencing token: larger than that of every earlier holder. Send it along with every write to what the lock
    /// protects.
    #[must_use]
    pub const fn fence(&self) -> u64 {
        self.fence
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The session that holds it, for [`Txn::check_session`](crate::api::Txn::check_session): a transaction with it takes
    /// effect only while this is held.
    #[must_use]
    pub fn session(&self) -> &str {
        &self.session
    }

    /// Whether it is still held, as far as this process can know.
    #[must_use]
    pub fn is_held(&self) -> bool {
        !self.guard.is_lost()
    }

    /// Waits until it is lost: the session has ended, or could not be renewed for its TTL, or somebody has taken the key, or
    /// the client was shut down.
    pub async fn lost(&self) {
        self.guard.lost().cancelled().await;
    }

    /// The same as a token, for work that is to stop then.
    #[must_use]
    pub const fn lost_token(&self) -> &CancellationToken {
        self.guard.lost()
    }

    /// Releases it, and returns when the next one can have it.
    ///
    /// # Errors
    /// It could not be released within 10 s; its TTL does it.
    pub async fn release(self) -> Result<(), Error> {
        self.guard.release().await
    }
}

/// Takes one of the keys as soon as one is free; `None`: none was, for `wait`.
pub(crate) async fn hold(
    client: &Client,
    terms: Terms,
    wait: Option<Duration>,
) -> Result<Option<Held>, Error> {
    client.require_running()?;
    let terms = Arc::new(terms);
    let mut session = Session::begin(client, &terms).await?;
    let deadline = wait.map(|wait| Instant::now() + wait);
    let occupants = client
        .watch_prefix(&terms.prefix)
        .map(|pairs| pairs.into_iter().map(occupant).collect::<Vec<_>>());
    let mut occupants = if wait == Some(Duration::ZERO) { None } else { Some(occupants.start()?) };
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    loop {
        let pause = match session.take(client, &terms).await {
            Ok(Taken::Key { key, fence }) => {
                return Ok(Some(session.keep(client, &terms, key, fence)?));
            }
            Ok(Taken::Nothing) => is_free(&terms, occupants.as_ref()).then_some(FREE_PAUSE),
            Ok(Taken::SessionEnded) => {
                session = Session::begin(client, &terms).await?;
                continue;
            }
            Err(error) if occupants.is_none() => return Err(error),
            Err(error) if error.status().is_some_and(|status| status < 500) => return Err(error),
            Err(_) => Some(backoff.pause()),
        };
        let Some(occupants) = occupants.as_mut() else { return Ok(None) };
        let pause = jittered(pause.unwrap_or(HELD_PAUSE));
        let until =
            deadline.map_or_else(|| Instant::now() + pause, |end| end.min(Instant::now() + pause));
        tokio::select! {
            // A value that has come just before the attempt makes for one more attempt.
            changed = occupants.changed() => if changed.is_none() {
                return Err(Error::ShutDown);
            },
            () = tokio::time::sleep_until(until) => {}
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(None);
        }
        if session.guard.is_lost() {
            session = Session::begin(client, &terms).await?;
        }
    }
}

/// A key and the session that holds it.
type Occupant = (String, Option<String>);

fn occupant(pair: KvPair) -> Occupant {
    (pair.key, pair.session)
}

/// Whether nobody holds one of the keys, as far as the last answer says.
fn is_free(terms: &Terms, occupants: Option<&Watch<Vec<Occupant>>>) -> bool {
    let Some(occupants) = occupants.and_then(Watch::latest) else { return true };
    let is_held =
        |key: &String| occupants.iter().any(|(held, session)| held == key && session.is_some());
    !terms.keys.iter().all(is_held)
}

/// What an attempt to take a key came to.
enum Taken {
    Key { key: String, fence: u64 },
    Nothing,
    SessionEnded,
}

/// A session of its own, renewed by a task until it is dropped.
struct Session {
    id: String,
    guard: Guard,
}

impl Session {
    async fn begin(client: &Client, terms: &Arc<Terms>) -> Result<Self, Error> {
        let text = |span: Duration| duration::format(nanos(span));
        let new = SessionCreate {
            name: terms.name.clone(),
            ttl: text(terms.ttl),
            lock_delay: text(terms.lock_delay).into(),
            // Only its TTL ends it: what becomes of the host's agent says little about this process.
            node_checks: Some(Vec::new()),
            ..SessionCreate::default()
        };
        let begun = Instant::now();
        let id = create(client, &new).await?;
        let (renewing, ttl) = (client.clone(), terms.ttl);
        let renew = Call::put(with_id("/v1/session/renew/", &id)).idempotent();
        let renewal = async move {
            let is_gone = |error: &Error| error.is_not_found().then(|| "it has ended".to_owned());
            let why = keeping::renew(&renewing, renew, ttl, begun, is_gone).await;
            tracing::debug!(why, "a session is lost");
        };
        let (releasing, own, terms) = (client.clone(), id.clone(), Arc::clone(terms));
        let release = async move { give_back(|| end(&releasing, &own, &terms)).await };
        Ok(Self { id, guard: Guard::start(client, renewal, release) })
    }

    /// Tries each key once, beginning with a random one.
    async fn take(&self, client: &Client, terms: &Terms) -> Result<Taken, Error> {
        let first = rand::random_range(0..terms.keys.len().max(1));
        let (behind, before) = terms.keys.split_at(first.min(terms.keys.len()));
        for key in before.iter().chain(behind) {
            let taken = match &terms.value {
                Some(value) => self.lock(client.txn().lock(key, value, &self.id), key).await?,
                None => self.take_as_it_is(client, key).await?,
            };
            match taken {
                Taken::Nothing => {}
                taken => return Ok(taken),
            }
        }
        Ok(Taken::Nothing)
    }

    /// Takes a key without a change of its value: what is written with the lock is what was read, or nothing is.
    async fn take_as_it_is(&self, client: &Client, key: &str) -> Result<Taken, Error> {
        for _ in 0..WRITTEN_MAX {
            let present = client.kv().get(key, &Query::new()).await?.value;
            let holder = present.as_ref().and_then(|pair| pair.session.as_ref());
            if holder.is_some_and(|holder| *holder != self.id) {
                break;
            }
            let txn = match &present {
                None => client.txn().check_not_exists(key).lock(key, "", &self.id),
                Some(pair) => {
                    let unchanged = client.txn().check_index(key, pair.modify_index);
                    unchanged.operation(same(pair, "lock", &self.id))
                }
            };
            match self.lock(txn, key).await? {
                Taken::Nothing => {}
                taken => return Ok(taken),
            }
        }
        Ok(Taken::Nothing)
    }

    /// Carries out a transaction whose last operation takes a key.
    async fn lock(&self, txn: Txn<'_>, key: &str) -> Result<Taken, Error> {
        match txn.commit_as(Safety::Idempotent).await? {
            Ok(results) => match results.into_iter().last() {
                Some(TxnResult::Kv(pair)) => {
                    Ok(Taken::Key { key: key.to_owned(), fence: pair.modify_index })
                }
                _ => Err(Error::Decode(format!("no key in the answer for {key:?}"))),
            },
            Err(conflict) if conflict.errors.iter().any(|error| is_invalid(&error.what)) => {
                Ok(Taken::SessionEnded)
            }
            Err(_) => Ok(Taken::Nothing),
        }
    }

    /// Makes a guard of it, which also watches the key.
    fn keep(self, client: &Client, terms: &Terms, key: String, fence: u64) -> Result<Held, Error> {
        let Self { id, guard } = self;
        let mut pair = client.watch_key(&key).start()?;
        let (own, gone) = (id.clone(), guard.lost().clone());
        let name = terms.name.clone();
        client.spawn(async move {
            let is_ours = |pair: &Option<KvPair>| {
                pair.as_ref().is_some_and(|pair| pair.session.as_deref() == Some(&own))
            };
            let watching = async {
                while let Some(pair) = pair.changed().await {
                    if !is_ours(&pair) {
                        tracing::debug!(name, "the key was taken away");
                        return;
                    }
                }
            };
            if gone.run_until_cancelled(watching).await.is_some() {
                gone.cancel();
            }
        });
        Ok(Held { key, session: id, fence, guard })
    }
}

/// Makes a session. One that nobody knows because its answer was lost ends with its TTL and holds nothing.
async fn create(client: &Client, new: &SessionCreate) -> Result<String, Error> {
    match client.sessions().create(new).await {
        Err(Error::OutcomeUnknown { .. }) => client.sessions().create(new).await,
        outcome => outcome,
    }
}

/// The words of the API for a session that does not exist.
fn is_invalid(what: &str) -> bool {
    what.contains("invalid session")
}

fn nanos(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

/// Gives the keys back, which a lock delay would follow if the session just ended, and ends the session.
async fn end(client: &Client, session: &str, terms: &Terms) -> Result<(), Error> {
    for key in &terms.keys {
        let released = match &terms.value {
            Some(value) => release(client, session, key, value.clone()).await,
            None => release_as_it_is(client, session, key).await,
        };
        match released {
            Ok(()) => {}
            Err(Error::Status { status: 500, text, .. }) if is_invalid(&text) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    let call = Call::put(with_id("/v1/session/destroy/", session));
    client.perform(&call.idempotent().within(ANSWER_MAX)).await.map(drop)
}

async fn release(client: &Client, session: &str, key: &str, value: Bytes) -> Result<(), Error> {
    let query = Query::new().with("release", session);
    let call = Call::put(with_id("/v1/kv/", key)).query(&query);
    client.perform(&call.body(value).idempotent().within(ANSWER_MAX)).await.map(drop)
}

/// Gives a key back without a change of its value, whoever has written it meanwhile. If somebody does so again and
/// again, the end of the session gives it back, and a lock delay follows.
async fn release_as_it_is(client: &Client, session: &str, key: &str) -> Result<(), Error> {
    let read = Call::get(with_id("/v1/kv/", key), &Query::new()).within(ANSWER_MAX);
    for _ in 0..WRITTEN_MAX {
        let present: Vec<KvPair> = match client.perform(&read).await {
            Ok(answer) => answer.json()?,
            Err(error) if error.is_not_found() => break,
            Err(error) => return Err(error),
        };
        let is_ours = |pair: &KvPair| pair.session.as_deref() == Some(session);
        let Some(pair) = present.into_iter().next().filter(is_ours) else { break };
        let unchanged = client.txn().check_index(key, pair.modify_index);
        let txn = unchanged.operation(same(&pair, "unlock", session));
        if txn.commit_within(ANSWER_MAX).await?.is_ok() {
            break;
        }
    }
    Ok(())
}

/// Locks or unlocks a key with the value and the flags that it has.
fn same(pair: &KvPair, verb: &str, session: &str) -> TxnOp {
    let kv = KvOp {
        verb: verb.to_owned(),
        key: pair.key.clone(),
        value: STANDARD.encode(&pair.value),
        flags: pair.flags,
        session: session.to_owned(),
        ..KvOp::default()
    };
    TxnOp { kv: Some(kv), ..TxnOp::default() }
}
