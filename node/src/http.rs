//! The HTTP API: Consul's, as far as Quorate has it, and a few endpoints of its own.
//!
//! # How a request passes
//!
//! 1. [`server`] accepts connections (HTTP/1.1 and h2c on one port) and notes the caller's address.
//! 2. [`path`] judges and normalises the path as Go's multiplexer does, because clients notice it:
//!    routing happens on the *decoded* path, unclean paths are redirected, unprintable ones refused.
//!    What a browser sends is served only to pages of the cluster ([`browser`]).
//! 3. axum's router finds the [`endpoint::Endpoint`]; it answers `OPTIONS`, methods that it
//!    does not have (`HEAD` among them) and undecodable query strings, and makes a
//!    [`call::Call`] of the rest.
//! 4. A handler of one of the areas below parses the call into a [`Command`] or into a look at the
//!    state, and renders what comes back. It contains no logic of the state: whether something
//!    exists or conflicts is said by `apply`, never guessed from a state that may lag.
//! 5. [`reply`] and [`error`] turn the result into a response; [`compress`] compresses it.
//!
//! # The map
//!
//! | | |
//! | --- | --- |
//! | [`api`] | the endpoints, one file for each area |
//! | [`definition`] | the rules for services and checks that all ways to register share |
//! | [`server`], [`connections`], [`closing`], [`drain`] | sockets: how many, whose, and how they end |
//! | [`path`], [`endpoint`], [`call`], [`incoming`], [`decode`], [`params`], [`cached`] | a request: path, method, caller, body (bounded in size and time, read as strictly as Consul does), query string, `?cached` |
//! | [`browser`] | what pages in browsers may ask, and under which names |
//! | [`asker`], [`rights`] | who asks, and what they may do and see |
//! | [`limits`], [`budget`], [`places`], [`requests`], [`patience`], [`sending`] | what clients may take: connections, memory, time; how much of it one address gets ([`client`]) |
//! | [`hold`], [`held`] | what becomes of a connection while it is answered; what is kept until an answer was taken |
//! | [`filter`], [`near`] | `?filter=` and `?near=` |
//! | [`blocking`], [`heavy`], [`coalesce`] | reads: the one loop of all blocking queries, where long answers are rendered, and how one is rendered for many |
//! | [`wire`], [`reply`], [`error`], [`compress`] | an answer: rows in the shapes of the client crate, headers, statuses |
//! | [`ui`] | the dashboard's files |
//! | [`process`] | what the API may ask of the process around the node |
//! | [`metrics`], [`trace`] | what `/metrics` shows; durations of requests; the traces that clients name |
//!
//! # What it does not know
//!
//! How commands are replicated and how reads become linearizable: that is behind
//! [`Node`].
//!
//! [`Command`]: quorate_storage::command::Command

mod api;
mod asker;
mod blocking;
mod browser;
mod budget;
mod cached;
mod call;
mod client;
pub mod closing;
mod coalesce;
mod compress;
pub mod connections;
mod decode;
pub mod definition;
mod drain;
mod endpoint;
mod error;
mod filter;
mod heavy;
mod held;
mod hold;
mod incoming;
pub mod limits;
mod metrics;
mod near;
mod params;
mod path;
mod patience;
mod places;
pub mod process;
mod reply;
mod requests;
mod rights;
mod sending;
pub mod server;
mod trace;
mod ui;
mod wire;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::any;
use tower::ServiceExt as _;
use tracing::Instrument as _;

pub(crate) use api::{DNS_PATH, DNS_PATH_UDP};
pub(crate) use held::until_taken;
pub(crate) use trace::span as span_of_trace;

pub(crate) use call::{ADVERTISED_HEADER, AGENT_HEADER, DNS_AT_HEADER, SERVED_AT_HEADER};

use crate::host::supervise;
use crate::node::Node;
use call::Shared;
use endpoint::Endpoint;
use process::Process;

/// The version of Consul whose API this is, which clients compare with the least they need.
pub const CONSUL_VERSION: &str = "1.21.4";

/// Below this path is what Consul does not have.
const OWN: &str = "/v1/quorate/";

/// The API of one node; cheap to clone.
#[derive(Debug, Clone)]
pub struct Api {
    router: Router,
    paths: Arc<path::Paths>,
    node: Arc<Node>,
    process: Arc<Process>,
}

impl Api {
    /// The API of `node`, in this process.
    #[must_use]
    pub fn new(node: &Arc<Node>, process: Arc<Process>) -> Self {
        let endpoints = api::endpoints();
        let shared = Arc::new(Shared::new(node, &process));
        let paths = path::Paths::new(endpoints.iter().map(Endpoint::path));
        let own = endpoints.iter().map(Endpoint::path).filter(|path| path.starts_with(OWN));
        let own = own.collect::<Vec<_>>().join(", ");
        let mut router = Router::new();
        for endpoint in endpoints {
            router = mount(router, &shared, endpoint);
        }
        let unknown = move |request: Request| std::future::ready(unknown_path(&request, &own));
        let (router, node) = (router.fallback(unknown), Arc::clone(node));
        Self { router, paths: Arc::new(paths), node, process }
    }

    /// Answers one request. The caller's address is expected among its extensions, as a
    /// [`SocketAddr`].
    pub async fn answer(&self, request: Request) -> Response {
        let span = trace::span(request.headers());
        self.answer_within_trace(request).instrument(span).await
    }

    async fn answer_within_trace(&self, request: Request) -> Response {
        let asker = browser::asker(&request, &self.node, &self.process);
        let mut response = match &asker {
            Ok(_) => match self.paths.normalise(request) {
                Ok(request) => self.route(request).await,
                Err(response) => *response,
            },
            Err(refusal) => refusal.clone().into_response(),
        };
        let applied = HeaderValue::from(self.node.applied_index());
        response.headers_mut().insert(reply::APPLIED_INDEX, applied);
        if let Ok(asker) = asker {
            asker.admit(&mut response);
        }
        for (name, value) in &self.process.response_headers {
            response.headers_mut().insert(name, value.clone());
        }
        response
    }
}

impl Api {
    /// Has a request answered; a handler's panic is a 500.
    async fn route(&self, request: Request) -> Response {
        let what = format!("{} {}", request.method(), request.uri().path());
        let client = request.extensions().get::<SocketAddr>().map(SocketAddr::ip);
        let routed = client::on_behalf_of(client, self.router.clone().oneshot(request));
        match supervise::catch("the handler of a request", routed).await {
            Ok(answered) => {
                let answered: Result<Response, Infallible> = answered;
                answered.unwrap_or_else(|never| match never {})
            }
            Err(panicked) => {
                tracing::error!(request = what, %panicked, "answered with status 500");
                let text = "this server failed to answer: its log says why";
                error::ApiError::internal(text).into_response()
            }
        }
    }
}

/// Routes an endpoint's path to it; a path that ends with a slash also routes all that begins with
/// it.
fn mount(router: Router, shared: &Arc<Shared>, endpoint: Endpoint) -> Router {
    let path = endpoint.path();
    let (shared, endpoint) = (Arc::clone(shared), Arc::new(endpoint));
    let handler = any(move |request: Request| {
        let (shared, endpoint) = (Arc::clone(&shared), Arc::clone(&endpoint));
        async move { endpoint.answer(&shared, request).await }
    });
    let router = router.route(path, handler.clone());
    match path {
        "/" => router,
        path if path.ends_with('/') => router.route(&format!("{path}{{*rest}}"), handler),
        _ => router,
    }
}

/// As Consul, with no word about it, except where only people look.
fn unknown_path(request: &Request, own_paths: &str) -> Response {
    if request.uri().path().starts_with(OWN) {
        let text = format!("there is no such path; there are {own_paths}");
        return error::ApiError::not_found(text).into_response();
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}
