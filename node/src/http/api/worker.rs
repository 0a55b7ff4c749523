//! `/v1/quorate/worker`: worker processes, which run checks. `/v1/quorate/workers` and `/v1/quorate/checks`: who runs
//! what, and what they see.
//!
//! A worker's stream is a presence ([`crate::presences`]): it lives as long as the stream is open. On the stream it
//! is told which checks are its own ([`remote`](crate::checks::remote)). Both the opening and each request with results prove that the
//! worker knows the key of the servers, which only operators give: tokens are not looked at.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use bytes::Bytes;
use futures_util::stream as streams;
use quorate_client::types::live::PresenceRegistered;
use quorate_client::types::worker::WorkerRow;
use quorate_storage::command::{Command, PresenceOpen, RunResult, WorkerResults, WorkersCommand};
use quorate_storage::limits::RESULTS_MAX;
use quorate_storage::record::{
    CheckStatus, OnClose, PresenceTerms, ServiceDefinition, Standing, TextMap, WORKER_NETWORK,
    WORKER_SERVICE, WorkerId,
};
use quorate_storage::state::{WORKERS_LEVEL, WorkerSet};
use quorate_storage::{Index, Millis, State, Topic};
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::stream::{self, EVENT_STREAM, frame};
use crate::checks;
use crate::checks::assigned::{Assigned, Assignments, Shown};
use crate::checks::key::{PROOF_HEADER, Purpose};
use crate::checks::remote::{
    Frame, PATH, PROTOCOL, RESULTS, Results, SetCheck, Terms, lease_text, parse_lease,
};
use crate::host::clock::Clock;
use crate::host::log_rate::LogRate;
use crate::http::blocking;
use crate::http::call::{Call, MAX_JSON_BYTES};
use crate::http::endpoint::{Answer, Endpoint};
use crate::http::error::ApiError;
use crate::http::hold::Hold;
use crate::http::incoming::BodyLimit;
use crate::http::reply::Reply;
use crate::http::rights::{Rule, Sight};
use crate::node::Node;
use crate::presences::{Held, Opening, Told};
use crate::watch::Subscription;

/// How long a worker goes on counting as alive after its connection has ended.
const LINGER: Millis = Millis(500);
/// The instance of a worker that is gone goes after so long.
const DEREGISTER_AFTER: Millis = Millis::from_secs(3_600);
/// Checks in one frame: a few hundred kilobytes.
const CHECKS_PER_FRAME: usize = 500;
/// How often a stream says that its server lives, and what time it is.
const FRAME_EVERY: Duration = Duration::from_secs(2);
/// How often it looks at the state although nothing seems to have changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Changes that come within this time of each other are one look.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Time between two lines that say that a worker was refused.
const REFUSAL_LINE_EVERY: Duration = Duration::from_secs(1);
/// See there.
static REFUSALS: LazyLock<LogRate> =
    LazyLock::new(|| LogRate::new(Clock::monotonic(), REFUSAL_LINE_EVERY));
/// A worker's name is the id of an instance and a label for people.
const NAME_BYTES_MAX: usize = 63;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new(PATH).put(Rule::Open, |call| Box::pin(open(call))),
        Endpoint::new("/v1/quorate/worker/").put(Rule::Open, |call| Box::pin(take_results(call))),
        Endpoint::new("/v1/quorate/workers").get(Rule::Rows, |call| Box::pin(workers(call))),
    ]
}

// ---- worker processes ------------------------------------------------------------------------

async fn open(mut call: Call) -> Answer {
    call.check_datacenter()?;
    let place = stream::place()?;
    let terms: Terms = proved(&mut call, Purpose::Open).await?;
    let hold = call.hold();
    refuse_below_level(&call.node)?;
    if terms.protocol != PROTOCOL {
        let text = format!(
            "this server speaks protocol {PROTOCOL} with workers: use a worker of its version"
        );
        return Err(ApiError::bad_request(text));
    }
    let name: Arc<str> = worker_name("Name", &terms.name)?.into();
    let network: Arc<str> = match &*terms.network {
        "" => Arc::default(),
        network => worker_name("Network", network)?.into(),
    };
    let opening = Opening {
        open: instance_of(&call, &terms, &name)?,
        process: None,
        reopen: None,
        network: Some(network),
        request: Some(Arc::new(call.facts())),
    };
    let held = call.node.presences().open(opening).await.map_err(ApiError::from)?;
    let worker = Worker::new(Arc::clone(&call.node), &name, held, hold, place);
    let pieces = streams::unfold(worker, |mut worker| async move {
        let piece = worker.next().await?;
        Some((Ok::<Bytes, std::convert::Infallible>(piece), worker))
    });
    Ok(Reply::stream(Body::from_stream(pieces), EVENT_STREAM)
        .with(CACHE_CONTROL, HeaderValue::from_static("no-store")))
}

/// The instance by which a worker lives.
fn instance_of(call: &Call, terms: &Terms, name: &Arc<str>) -> Result<PresenceOpen, ApiError> {
    let meta = TextMap::from([(WORKER_NETWORK.to_owned(), terms.network.clone())]);
    Ok(PresenceOpen {
        agent: call.agent()?,
        service: ServiceDefinition {
            id: name.clone(),
            name: WORKER_SERVICE.into(),
            meta: Some(meta),
            ..ServiceDefinition::default()
        },
        checks: Vec::new(),
        deregister_after: DEREGISTER_AFTER,
        terms: PresenceTerms {
            owner: terms.owner.as_str().into(),
            attempt: terms.attempt,
            linger: LINGER,
            on_close: OnClose::Critical,
        },
    })
}

/// What a worker found; without results, that it lives.
async fn take_results(mut call: Call) -> Answer {
    let rest = call.required("Missing worker name")?.to_owned();
    let name = rest.strip_suffix(RESULTS).unwrap_or_default();
    let name: Arc<str> = worker_name("worker name", name)?.into();
    let body: Results = proved(&mut call, Purpose::Results).await?;
    refuse_below_level(&call.node)?;
    let lease = parse_lease(&body.lease);
    let lease = lease.ok_or_else(|| ApiError::bad_request("Invalid Lease"))?;
    if body.results.len() > RESULTS_MAX {
        let text = format!("{} results, at most {RESULTS_MAX}", body.results.len());
        return Err(ApiError::bad_request(text));
    }
    call.node.presences().hear(lease);
    if body.results.is_empty() {
        return Ok(Reply::empty());
    }
    let all = body.results.into_iter().map(|result| RunResult {
        number: result.check,
        probe: result.probe,
        status: CheckStatus::from_text(&result.status),
        output: result.output,
    });
    let results = WorkerResults { name, lease, seq: body.seq, all: all.collect() };
    call.propose(Command::Workers(WorkersCommand::Results(Box::new(results)))).await?;
    Ok(Reply::empty())
}

/// The body of a request whose client proves that it knows the key.
async fn proved<T: DeserializeOwned>(call: &mut Call, purpose: Purpose) -> Result<T, ApiError> {
    let body = call.body(BodyLimit::fixed(MAX_JSON_BYTES)).await?;
    let Some(key) = &call.process.worker_key else {
        let text =
            "this server has no worker key (--worker-key-file): worker processes are refused";
        return Err(ApiError::new(StatusCode::FORBIDDEN, text));
    };
    let proof = call.header(&HeaderName::from_static(PROOF_HEADER)).unwrap_or_default();
    if !key.is_proved(purpose, &body, proof) {
        if let Some(not_logged) = REFUSALS.pass() {
            tracing::warn!(from = %call.caller(), not_logged, "refused a worker that has another key");
        }
        let text = "the worker's key is not the one of this server";
        return Err(ApiError::new(StatusCode::FORBIDDEN, text));
    }
    serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad_request(format!("Request decode failed: {error}")))
}

fn refuse_below_level(node: &Node) -> Result<(), ApiError> {
    if node.published().state.level() < WORKERS_LEVEL {
        let text = "not all servers know the rules of workers yet, try again later";
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text));
    }
    Ok(())
}

/// Letters, digits, dots, hyphens and underscores.
fn worker_name<'a>(what: &str, name: &'a str) -> Result<&'a str, ApiError> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_plain) {
        let text = format!(
            "Invalid {what} {name:?}: 1 to {NAME_BYTES_MAX} letters, digits, dots, hyphens or underscores"
        );
        return Err(ApiError::bad_request(text));
    }
    Ok(name)
}

/// One worker's stream. When it is dropped, its checks go to others.
struct Worker {
    node: Arc<Node>,
    held: Held,
    hold: Hold,
    assignments: Assignments,
    id: WorkerId,
    /// What was sent of what the cluster shows, by the check's number.
    sent: BTreeMap<u64, Option<Shown>>,
    /// When checks changed last.
    checks: Index,
    changes: Subscription,
    next_frame: Instant,
    queue: VecDeque<Bytes>,
    is_over: bool,
    _place: OwnedSemaphorePermit,
}

impl Worker {
    fn new(
        node: Arc<Node>,
        name: &Arc<str>,
        held: Held,
        hold: Hold,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let id = WorkerId::Process(name.clone());
        let registered = PresenceRegistered {
            node: held.node.to_string(),
            id: name.to_string(),
            lease: lease_text(held.lease),
            server: node.info().name,
        };
        let mut greeting = String::new();
        frame(&mut greeting, "registered", None, &registered);
        let changes = node.watches().subscribe(&Topic::Checks);
        let mut worker = Self {
            node,
            held,
            hold,
            assignments: Assignments::new(id.clone()),
            id,
            sent: BTreeMap::new(),
            checks: Index::default(),
            changes,
            next_frame: Instant::now(),
            queue: VecDeque::from([greeting.into()]),
            is_over: false,
            _place: place,
        };
        worker.look();
        worker
    }

    /// What is to be sent next; `None`: it is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.queue.pop_front() {
                return Some(piece);
            }
            if self.is_over {
                return None;
            }
            tokio::select! {
                () = self.hold.ended() => return None,
                told = self.held.told() => {
                    self.is_over = true;
                    return Some(self.farewell(told));
                }
                () = self.changes.changed() => tokio::time::sleep(LOOK_PAUSE).await,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            self.look();
        }
    }

    /// Looks at the state, and queues what is news.
    fn look(&mut self) {
        let published = self.node.published();
        let state = &published.state;
        let (mut set, mut gone) = (Vec::new(), Vec::new());
        for change in self.assignments.update(&published, false) {
            match change.now {
                Some(now) => {
                    let shown = Shown::of(state, &self.id, change.check);
                    set.push(SetCheck::new(&now, shown.as_ref()));
                    self.sent.insert(change.check, shown);
                }
                None => {
                    gone.push(change.check);
                    self.sent.remove(&change.check);
                }
            }
        }
        let checks = state.topic_index(&Topic::Checks);
        if checks != self.checks {
            self.checks = checks;
            for what in self.assignments.all() {
                set.extend(news_of(&mut self.sent, state, &self.id, what));
            }
        }
        let (time, servers) = (state.time().0, checks::servers(&published));
        let is_due = self.next_frame <= Instant::now();
        while is_due || !set.is_empty() || !gone.is_empty() {
            let rest = set.split_off(set.len().min(CHECKS_PER_FRAME));
            let gone = std::mem::take(&mut gone);
            let frame_of = Frame { time, set, gone, servers: servers.clone() };
            let mut out = String::new();
            frame(&mut out, "checks", None, &frame_of);
            self.queue.push_back(out.into());
            self.next_frame = Instant::now() + FRAME_EVERY;
            set = rest;
            if set.is_empty() {
                break;
            }
        }
    }

    /// The last frame.
    fn farewell(&self, told: Told) -> Bytes {
        let mut out = String::new();
        let nothing = serde_json::json!({});
        match told {
            Told::Replaced => frame(&mut out, "replaced", None, &nothing),
            Told::Deregistered => frame(&mut out, "deregistered", None, &nothing),
            Told::Moved => frame(&mut out, "moved", None, &stream::moved(&self.node, 0)),
        }
        out.into()
    }
}

/// A check whose view at the cluster is another than was sent.
fn news_of(
    sent: &mut BTreeMap<u64, Option<Shown>>,
    state: &State,
    worker: &WorkerId,
    what: &Assigned,
) -> Option<SetCheck> {
    let shown = Shown::of(state, worker, what.check);
    if sent.get(&what.check) == Some(&shown) {
        return None;
    }
    let check = SetCheck::new(what, shown.as_ref());
    sent.insert(what.check, shown);
    Some(check)
}

// ---- who runs what ---------------------------------------------------------------------------

/// All workers, with the number of checks that are theirs. A server is shown to whoever may see its node, a process
/// to whoever may see the service whose instances worker processes are.
async fn workers(call: Call) -> Answer {
    let options = call.read_options()?;
    let published = blocking::at_barrier(&call.node, &options).await?;
    let sight = call.rights(&published.state)?;
    Ok(call.json(&worker_rows(&published.state, &sight))?.filtered_if(call.was_filtered()))
}

/// See [`workers`].
fn worker_rows(state: &State, sight: &Sight) -> Vec<WorkerRow> {
    let set = state.worker_set();
    let shares = shares(state, &set);
    let shown = set.iter().filter(|one| match &one.id {
        WorkerId::Server(_) => sight.keeps_node(&one.name),
        WorkerId::Process(_) => sight.keeps_service(WORKER_SERVICE),
    });
    let rows = shown.map(|one| {
        let kept = state.workers().find(|(id, _)| **id == one.id).map(|(_, row)| row.standing);
        let (status, returns_in_ms) = match kept.unwrap_or(Standing::Live) {
            Standing::Live => ("live", None),
            Standing::Away { .. } => ("away", None),
            Standing::Returning { until } => ("returning", Some(until.since(state.time()).0)),
        };
        WorkerRow {
            name: one.name.to_string(),
            kind: kind_of(&one.id).to_owned(),
            network: one.network.to_string(),
            address: one.address.to_string(),
            status: status.to_owned(),
            returns_in_ms,
            checks: shares.get(&one.id).copied().unwrap_or(0),
        }
    });
    rows.collect()
}

/// How many checks each worker runs.
fn shares(state: &State, set: &WorkerSet) -> BTreeMap<WorkerId, u64> {
    let mut shares = BTreeMap::new();
    for (check, _) in state.probes().iter() {
        let Some(row) = state.check_numbered(check) else { continue };
        if row.registration.definition.has_target() {
            for one in set.responsible(row, state.host_of(row)) {
                *shares.entry(one.id.clone()).or_insert(0) += 1;
            }
        }
    }
    shares
}

pub(super) const fn kind_of(id: &WorkerId) -> &'static str {
    match id {
        WorkerId::Server(_) => "server",
        WorkerId::Process(_) => "process",
    }
}
