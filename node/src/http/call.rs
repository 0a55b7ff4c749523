//! One request, as far as all endpoints read it alike.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use crate::http::decode;
use axum::body::Body;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, HeaderName, Version};
use bytes::{Bytes, BytesMut};
use quorate_storage::ClusterTime;
use quorate_storage::command::{Agent, Command, Outcome};
use quorate_storage::limits::NAME_BYTES_MAX;
use quorate_storage::record::RequestFacts;
use quorate_storage::state::FILE_MARK_LEVEL;
use serde::Serialize;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use super::asker::Asker;
use super::budget::{self, BodyShare};
use super::coalesce::{Coalescer, Question};
use super::error::ApiError;
use super::filter::{self, Filter};
use super::heavy;
use super::hold::{Connection, Hold};
use super::incoming::{BodyLimit, Incoming, Pace};
use super::metrics::Metrics;
use super::params::{Params, ReadOptions};
use super::path::check_addressable;
use super::patience::Patience;
use super::reply::{Layout, Reply};
use crate::http::process::Process;
use crate::node::Node;
use crate::raft::error::ProposeError;

/// The largest JSON body.
pub(super) const MAX_JSON_BYTES: usize = 1024 * 1024;

/// The header that names the asking agent, as `?agent=` does.
pub(crate) const AGENT_HEADER: &str = "x-quorate-agent";
/// In what a client agent forwards: the `IP:PORT` at which it serves its own clients (port 0: none).
pub(crate) const SERVED_AT_HEADER: &str = "x-quorate-served-at";
/// Where the client agent that forwards a request serves DNS, if it does.
pub(crate) const DNS_AT_HEADER: &str = "x-quorate-dns-at";

/// In what a client agent forwards in its own name: the address of its node, if it is configured.
pub(crate) const ADVERTISED_HEADER: &str = "x-quorate-advertised";

/// The name that stands for all agents, in lists.
const ALL_AGENTS: &str = "*";

/// What all calls to one API share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) node: Arc<Node>,
    pub(super) process: Arc<Process>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) coalescer: Coalescer,
}

impl Shared {
    pub(super) fn new(node: &Arc<Node>, process: &Arc<Process>) -> Self {
        let metrics = Arc::new(Metrics::new(node, process));
        let coalescer = Coalescer::default();
        Self { node: Arc::clone(node), process: Arc::clone(process), metrics, coalescer }
    }
}

/// A request to an endpoint.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) node: Arc<Node>,
    pub(super) process: Arc<Process>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) coalescer: Coalescer,
    pub(super) params: Params,
    request: Received,
    /// Who asks, where tokens count.
    asker: Option<Arc<Asker>>,
    /// How long its filter may look at rows.
    patience: Patience,
    /// Never locked: the mutex only makes a call shareable while it is waited for.
    body: Mutex<Body>,
}

/// What is known of a request beside its parameters and its body.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) headers: HeaderMap,
    pub(super) version: Version,
    /// Where it comes from; port 0: not from a network.
    pub(super) caller: SocketAddr,
    /// What it came on.
    pub(super) connection: Connection,
    /// The path of the endpoint.
    pub(super) path: &'static str,
    /// What follows the endpoint's path, decoded.
    pub(super) rest: Vec<u8>,
}

/// Whose rows a list shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// One agent's.
    One(Agent),
    /// `?agent=*`: every agent's.
    All,
}

impl Call {
    pub(super) fn new(
        shared: &Shared,
        params: Params,
        request: Received,
        asker: Option<Arc<Asker>>,
        body: Body,
    ) -> Self {
        Self {
            node: Arc::clone(&shared.node),
            process: Arc::clone(&shared.process),
            metrics: Arc::clone(&shared.metrics),
            coalescer: shared.coalescer.clone(),
            params,
            request,
            asker,
            patience: Patience::default(),
            body: Mutex::new(body),
        }
    }

    /// Who asks; `None`: tokens do not count.
    pub(super) const fn asker(&self) -> Option<&Arc<Asker>> {
        self.asker.as_ref()
    }

    /// Where the request comes from.
    pub(super) fn caller(&self) -> IpAddr {
        self.request.caller.ip().to_canonical()
    }

    /// What follows the endpoint's path: an id, a name or a key.
    pub(super) fn rest(&self) -> Result<&str, ApiError> {
        std::str::from_utf8(&self.request.rest)
            .map_err(|_| ApiError::bad_request("Keys, names and ids must be valid UTF-8"))
    }

    /// The same where it must not be empty; `missing` says what is.
    pub(super) fn required(&self, missing: &'static str) -> Result<&str, ApiError> {
        match self.rest()? {
            "" => Err(ApiError::bad_request(missing)),
            name => Ok(name),
        }
    }

    /// All headers.
    pub(super) const fn headers(&self) -> &HeaderMap {
        &self.request.headers
    }

    /// The first value of a header, if it is text.
    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.request.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// How to read, or what is wrong with the parameters that say so. `?cached` is ignored.
    pub(super) fn read_options(&self) -> Result<ReadOptions, ApiError> {
        Ok(ReadOptions { cached: None, ..self.cached_read_options()? })
    }

    /// The same where `?cached` counts.
    pub(super) fn cached_read_options(&self) -> Result<ReadOptions, ApiError> {
        ReadOptions::parse(&self.params, &self.request.headers)
    }

    /// What is asked, for whoever else asks the same; `None`: the answer depends on who asks.
    pub(super) fn question(&self) -> Option<Question> {
        (!self.params.has("near")).then(|| Question {
            path: self.request.path,
            rest: self.request.rest.clone(),
            params: self.params.question(),
            rights: self.rights_question(),
        })
    }

    /// Refuses another datacenter than this cluster's.
    pub(super) fn check_datacenter(&self) -> Result<(), ApiError> {
        let asked = self.params.filled("dc").or_else(|| self.params.filled("datacenter"));
        match asked {
            Some(asked) if asked != self.node.info().datacenter => {
                Err(ApiError::internal("No path to datacenter"))
            }
            _ => Ok(()),
        }
    }

    /// Which rows of type `T` to list: `?filter=`.
    pub(super) fn filter<T: filter::Record + Default>(&self) -> Result<Filter<T>, filter::Fault> {
        let filter = Filter::new(self.params.get("filter").unwrap_or(""))?;
        Ok(filter.within(&self.patience))
    }

    /// Whether its filter takes so long that it is asked of rows aside, however few there are.
    pub(super) fn is_costly(&self) -> bool {
        self.patience.is_costly()
    }

    /// Waits until its filter may be asked of rows, if that takes long.
    ///
    /// # Errors
    /// 503: other requests' filters took too long.
    pub(super) async fn turn_to_filter(
        &self,
        deadline: Instant,
    ) -> Result<Option<SemaphorePermit<'static>>, ApiError> {
        if self.is_costly() { heavy::turn_to_filter(deadline).await.map(Some) } else { Ok(None) }
    }

    /// The agent that asks: the one it names, else the one of its host.
    pub(super) fn agent(&self) -> Result<Agent, ApiError> {
        match self.asked()? {
            Asked::One(agent) => Ok(agent),
            Asked::All => Err(ApiError::bad_request("agent=* is for lists only, name one agent")),
        }
    }

    /// Whose rows a list shows.
    pub(super) fn asked(&self) -> Result<Asked, ApiError> {
        let named = self.named_agent();
        if named == Some(ALL_AGENTS) {
            return Ok(Asked::All);
        }
        self.agent_of(named).map(Asked::One)
    }

    /// The agent of this name, whoever asks.
    pub(super) fn agent_named(&self, name: &str) -> Result<Agent, ApiError> {
        self.agent_of(Some(name))
    }

    fn agent_of(&self, named: Option<&str>) -> Result<Agent, ApiError> {
        if let Some(name) = named {
            check_addressable("agent", name).map_err(ApiError::bad_request)?;
        }
        // Without the cluster's id no agent has one; the node has never heard of a leader then.
        let agent = self.node.agent_of(self.request.caller.ip(), named);
        let mut agent = agent.ok_or(ProposeError::NoLeader)?;
        if let Some(address) = self.advertised(named) {
            agent.address = address.to_string();
        }
        Ok(agent)
    }

    /// The address that a client agent says that its node has, if `named` is that agent.
    fn advertised(&self, named: Option<&str>) -> Option<IpAddr> {
        let header = |name| self.request.headers.get(name)?.to_str().ok();
        let address = header(ADVERTISED_HEADER)?.parse().ok()?;
        (named.is_some() && named == header(AGENT_HEADER)).then_some(address)
    }

    /// Whether the client names an agent.
    pub(super) fn names_agent(&self) -> bool {
        self.named_agent().is_some()
    }

    fn named_agent(&self) -> Option<&str> {
        let header = || self.request.headers.get(AGENT_HEADER)?.to_str().ok();
        self.params.filled("agent").or_else(|| header().filter(|name| !name.is_empty()))
    }

    /// Whether an agent registers this from a definition file (`?from-file`), and marks are in force.
    pub(super) fn is_from_file(&self) -> Result<bool, ApiError> {
        let in_force = || self.node.published().state.level() >= FILE_MARK_LEVEL;
        Ok(self.params.switch("from-file")? && in_force())
    }

    /// The cluster time that this node has applied now; called before a body is waited for.
    pub(super) fn seen(&self) -> ClusterTime {
        self.node.published().state.time()
    }

    /// How many bytes of body the client said it sends. Most that are chunked or come over HTTP/2 do not
    /// say, so nothing but an early refusal may depend on it.
    fn declared_length(&self) -> Option<u64> {
        self.request.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// The body, however it is framed, if it is within `limit` and arrives in time.
    pub(super) async fn body(&mut self, limit: BodyLimit) -> Result<Bytes, ApiError> {
        let mut share = BodyShare::new();
        let mut incoming = self.incoming(limit, budget::pace_of_bodies())?;
        let mut bytes = BytesMut::new();
        while let Some(piece) = incoming.next().await? {
            share.grow_to(incoming.received())?;
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    }

    /// The body as it arrives, for an endpoint that does not keep it in memory: it takes none of the memory
    /// that the others share.
    pub(super) fn incoming(&mut self, limit: BodyLimit, pace: Pace) -> Result<Incoming, ApiError> {
        let declared = self.declared_length();
        let body = self.body.get_mut().unwrap_or_else(PoisonError::into_inner);
        Incoming::new(std::mem::take(body), declared, limit, pace)
    }

    /// The body, read as strictly as Consul does.
    pub(super) async fn decode<T: decode::Body>(&mut self) -> Result<T, ApiError> {
        self.decode_up_to(MAX_JSON_BYTES).await
    }

    /// The same with a limit of its own.
    pub(super) async fn decode_up_to<T: decode::Body>(
        &mut self,
        bytes_max: usize,
    ) -> Result<T, ApiError> {
        let body = self.body(BodyLimit::fixed(bytes_max)).await?;
        Ok(decode::body(&body)?)
    }

    /// The same where the body may be absent: `None` if it has no bytes.
    pub(super) async fn decode_if_any<T: decode::Body>(&mut self) -> Result<Option<T>, ApiError> {
        let body = self.body(BodyLimit::fixed(MAX_JSON_BYTES)).await?;
        match body.is_empty() {
            true => Ok(None),
            false => Ok(Some(decode::body(&body)?)),
        }
    }

    /// Replicates a command; a refusal becomes an error.
    pub(super) async fn propose(&self, command: Command) -> Result<Outcome, ApiError> {
        Ok(self.outcome_of(command).await?.into_result()?)
    }

    /// The same for an endpoint that tells refusals apart.
    pub(super) async fn outcome_of(&self, command: Command) -> Result<Outcome, ProposeError> {
        if let Err(refusal) = self.permit(&command).await {
            return Ok(Outcome::Rejected(refusal));
        }
        self.node.propose(command, Some(Arc::new(self.facts()))).await
    }

    /// Holds something until the client ends this request; its body was read.
    pub(super) fn hold(&self) -> Hold {
        self.request.connection.hold(self.request.version)
    }

    /// What the history says of a request that changes something.
    pub(super) fn facts(&self) -> RequestFacts {
        let authority = self.authority();
        let action = self.request.path.strip_prefix("/v1/").unwrap_or(self.request.path);
        RequestFacts {
            // A longer one is no agent's name, and most endpoints do not look at it.
            agent_claimed: self
                .named_agent()
                .filter(|name| name.len() <= NAME_BYTES_MAX)
                .unwrap_or_default()
                .into(),
            client: (self.request.caller.port() > 0)
                .then(|| SocketAddr::new(self.caller(), self.request.caller.port())),
            action: action.trim_end_matches('/').into(),
            token: authority.as_ref().map_or_else(Arc::default, |by| Arc::clone(&by.token)),
            authority,
        }
    }

    /// A value as JSON, laid out as the request asks.
    ///
    /// # Errors
    /// 503: its filter has taken too long, so the value is not the answer.
    pub(super) fn json<T: Serialize + ?Sized>(&self, value: &T) -> Result<Reply, ApiError> {
        self.patience.check()?;
        let layout = if self.params.has("pretty") { Layout::Pretty } else { Layout::Compact };
        Reply::json(layout, value).map_err(|error| ApiError::internal(error.to_string()))
    }
}
