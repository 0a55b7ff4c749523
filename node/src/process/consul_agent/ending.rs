//! How requests that a client agent has handed on end when it stops: its clients are answered, and soon.
//!
//! A server that stops answers the queries that wait for a change with what there is. An agent has nothing
//! to answer with, so it asks once more, without a wait. Streams end. What else is in progress, a write that
//! waits for a leader for example, gets a moment.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode, Uri};
use futures_util::StreamExt as _;

use super::servers::Servers;
use crate::host::stopping::Stopping;

/// How long a request in progress may go on once the agent stops. Less than listeners wait for their
/// connections, so that its client hears that the outcome is unknown.
const HELD_WHILE_STOPPING_MAX: Duration = Duration::from_secs(2);
/// What its client hears.
const UNKNOWN: &str = "this agent is stopping, and no server has responded yet; \
                       the request may or may not have taken effect";
/// Answers that go on until somebody ends them.
const STREAMS: [&str; 4] =
    ["/v1/agent/monitor", "/v1/quorate/presence", "/v1/quorate/stream", "/v1/quorate/worker"];
/// What makes a query wait: for a newer index, for another hash, for this long.
const WAITS: [&str; 3] = ["index", "hash", "wait"];

/// Answers a client's request with a server's answer, as long as the agent does not stop.
pub(super) async fn forward(
    servers: &Servers,
    request: Request<Body>,
    stopping: &Stopping,
) -> Response<Body> {
    if STREAMS.contains(&request.uri().path()) {
        return end_with_agent(servers.forward(request).await, stopping);
    }
    let at_once = without_wait(&request);
    let given_up = stopping.lasted(match at_once {
        Some(_) => Duration::ZERO,
        None => HELD_WHILE_STOPPING_MAX,
    });
    tokio::select! {
        biased;
        answer = servers.forward(request) => return answer,
        () = given_up => {}
    }
    let given_up = stopping.lasted(HELD_WHILE_STOPPING_MAX);
    match at_once {
        Some(at_once) => tokio::select! {
            answer = servers.forward(at_once) => answer,
            () = given_up => unknown(),
        },
        None => unknown(),
    }
}

/// A request that asks the same as one that may wait for a change, and does not wait; `None` for others.
fn without_wait(request: &Request<Body>) -> Option<Request<Body>> {
    let uri = request.uri();
    let query = uri.query().filter(|_| request.method() == Method::GET)?;
    let waits = |part: &&str| part.split('=').next().is_some_and(|name| WAITS.contains(&name));
    query.split('&').find(waits)?;
    let kept: Vec<_> = query.split('&').filter(|part| !waits(part)).collect();
    let mut at_once = Request::new(Body::empty());
    *at_once.headers_mut() = request.headers().clone();
    *at_once.uri_mut() = format!("{}?{}", uri.path(), kept.join("&")).parse::<Uri>().ok()?;
    Some(at_once)
}

fn end_with_agent(answer: Response<Body>, stopping: &Stopping) -> Response<Body> {
    let stopping = stopping.clone();
    let begun = Box::pin(async move { stopping.begun().await });
    answer.map(|body| Body::from_stream(body.into_data_stream().take_until(begun)))
}

fn unknown() -> Response<Body> {
    let mut answer = Response::new(Body::from(UNKNOWN));
    *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_once(method: Method, uri: &str) -> Option<String> {
        let request = Request::builder().method(method).uri(uri).header("x-a", "b");
        let again = without_wait(&request.body(Body::empty()).unwrap())?;
        assert_eq!(again.headers()["x-a"], "b");
        assert_eq!(again.method(), Method::GET);
        Some(again.uri().to_string())
    }

    #[test]
    fn a_query_that_waits_for_a_change_can_be_asked_without_the_wait() {
        for (uri, again) in [
            ("/v1/kv/a?raw&index=7&wait=60s", "/v1/kv/a?raw"),
            ("/v1/kv/a%20b?index=7", "/v1/kv/a%20b?"),
            ("/v1/agent/service/web?hash=0f&dc=a", "/v1/agent/service/web?dc=a"),
            ("/v1/quorate/history?since=4&wait=1m", "/v1/quorate/history?since=4"),
        ] {
            assert_eq!(at_once(Method::GET, uri).as_deref(), Some(again));
        }
        assert_eq!(at_once(Method::GET, "/v1/kv/a?indexes&keys"), None);
        assert_eq!(at_once(Method::GET, "/v1/kv/index"), None);
        assert_eq!(at_once(Method::PUT, "/v1/kv/a?index=7"), None);
    }
}
