//! The HTTP API: Consul's, as far as Quorate has it, and a few endpoints of its own.
//!
//! # How a request passes
//!
//! 1. [`server`] accepts connections (HTTP/1.1 and h2c on one port) and notes the caller's address.
//! 2. [`path`] judges and normalises the path as Go's multiplexer does, because clients notice it:
//!    routing happens on the *decoded* path, unclean paths are redirected, unprintable ones refused.
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
//! One file per area: [`agent`], [`agent_service`], [`agent_check`], [`agent_health`],
//! [`agent_host`], [`agent_maintenance`], [`agent_member`], [`agent_monitor`], [`agent_stats`],
//! [`catalog`], [`health`], [`kv`], [`session`], [`txn`], [`event`], [`coordinate`], [`query`],
//! [`snapshot`], [`status`], [`operator`], [`operator_autopilot`], [`out_of_scope`], [`quorate`]; a new
//! area is a file and a line in [`endpoints`]. [`mesh`] and [`check_type`] are rules that all ways to
//! register share. [`params`] reads query strings, [`cached`] what goes with `?cached`, and [`filter`]
//! the expressions in them, [`near`] sorts by distance, [`blocking`] has the one loop of all blocking
//! queries, [`heavy`] says where long answers are rendered, [`wire`] turns records of the state into the shapes of the client crate.
//!
//! # What it does not know
//!
//! How commands are replicated and how reads become linearizable: that is behind
//! [`Node`].
//!
//! [`Command`]: quorate_storage::command::Command

mod agent;
mod agent_check;
mod agent_health;
mod agent_host;
mod agent_maintenance;
mod agent_member;
mod agent_monitor;
mod agent_service;
mod agent_stats;
mod blocking;
mod cached;
mod call;
mod catalog;
mod check_type;
mod compress;
pub mod connections;
mod coordinate;
mod drain;
mod endpoint;
mod error;
mod event;
mod filter;
mod health;
mod heavy;
mod kv;
mod mesh;
mod near;
mod operator;
mod operator_autopilot;
mod out_of_scope;
mod params;
pub(crate) mod parse_definition;
mod path;
pub mod per_client;
mod query;
mod quorate;
mod regexp;
mod reply;
pub mod server;
mod session;
mod snapshot;
mod status;
mod txn;
mod wire;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::any;
use tower::ServiceExt as _;

pub(crate) use agent_service::check_meta;
pub(crate) use call::AGENT_HEADER;

use crate::node::Node;
use crate::process::Process;
use crate::supervise;
use endpoint::Endpoint;

/// The version of Consul whose API this is, which clients compare with the least they need.
pub const CONSUL_VERSION: &str = "1.21.4";

/// The API of one node; cheap to clone.
#[derive(Debug, Clone)]
pub struct Api {
    router: Router,
    paths: Arc<path::Paths>,
    process: Arc<Process>,
}

impl Api {
    /// The API of `node`, in this process.
    #[must_use]
    pub fn new(node: &Arc<Node>, process: Arc<Process>) -> Self {
        let endpoints = endpoints();
        let paths = path::Paths::new(endpoints.iter().map(Endpoint::path));
        let mut router = Router::new();
        for endpoint in endpoints {
            router = mount(router, node, &process, endpoint);
        }
        Self { router: router.fallback(unknown_path), paths: Arc::new(paths), process }
    }

    /// Answers one request. The caller's address is expected among its extensions, as a
    /// [`SocketAddr`](std::net::SocketAddr).
    pub async fn answer(&self, request: Request) -> Response {
        let mut response = match self.paths.normalise(request) {
            Ok(request) => self.route(request).await,
            Err(response) => *response,
        };
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
        let routed = self.router.clone().oneshot(request);
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

/// Every endpoint there is.
fn endpoints() -> Vec<Endpoint> {
    [
        agent::endpoints(),
        agent_service::endpoints(),
        agent_check::endpoints(),
        agent_health::endpoints(),
        agent_host::endpoints(),
        agent_maintenance::endpoints(),
        agent_member::endpoints(),
        agent_monitor::endpoints(),
        catalog::endpoints(),
        health::endpoints(),
        kv::endpoints(),
        session::endpoints(),
        txn::endpoints(),
        event::endpoints(),
        coordinate::endpoints(),
        query::endpoints(),
        snapshot::endpoints(),
        status::endpoints(),
        operator::endpoints(),
        operator_autopilot::endpoints(),
        out_of_scope::endpoints(),
        quorate::endpoints(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Routes an endpoint's path to it; a path that ends with a slash also routes all that begins with
/// it.
fn mount(router: Router, node: &Arc<Node>, process: &Arc<Process>, endpoint: Endpoint) -> Router {
    let path = endpoint.path();
    let (node, process, endpoint) = (Arc::clone(node), Arc::clone(process), Arc::new(endpoint));
    let handler = any(move |request: Request| {
        let (node, process) = (Arc::clone(&node), Arc::clone(&process));
        let endpoint = Arc::clone(&endpoint);
        async move { endpoint.answer(node, process, request).await }
    });
    let router = router.route(path, handler.clone());
    match path {
        "/" => router,
        path if path.ends_with('/') => router.route(&format!("{path}{{*rest}}"), handler),
        _ => router,
    }
}

async fn unknown_path() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use quorate_storage::txn::{KeyVerb, RowVerb};

    use super::*;

    /// The harness knows which verbs its workloads use, so it has to know all there are. New ones go into
    /// its file, with the workloads that use them, if any do.
    #[test]
    fn the_harness_lists_every_verb() {
        let listed = include_str!("../../jepsen-style-tests/src/verbs.txt");
        let listed = listed.lines().filter(|line| !line.starts_with('#'));
        let listed = listed.map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "));
        let (operations, listed): (BTreeSet<_>, BTreeSet<_>) =
            listed.partition(|verb| verb.starts_with("TXN "));
        let refused: BTreeSet<_> = out_of_scope::endpoints().iter().map(Endpoint::path).collect();
        let served = endpoints();
        let served = served.iter().filter(|endpoint| !refused.contains(endpoint.path()));
        let served: BTreeSet<_> = served
            .flat_map(|endpoint| {
                endpoint.methods().map(move |method| format!("{method} {}", endpoint.path()))
            })
            .collect();
        assert_eq!(listed, served);
        for operation in operations {
            let (table, word) = operation["TXN ".len()..].split_once('/').unwrap();
            let is_known = match table {
                "KV" => KeyVerb::from_word(word).is_some(),
                _ => RowVerb::from_word(word).is_some(),
            };
            assert!(is_known, "{operation}");
        }
    }

    #[test]
    fn every_path_is_routed_once() {
        let mut paths: Vec<_> = endpoints().iter().map(Endpoint::path).collect();
        paths.sort_unstable();
        let count = paths.len();
        paths.dedup();
        assert_eq!(paths.len(), count);
    }
}
