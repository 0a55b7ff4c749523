//! What client agents ask at a server's RPC port, and how that ends: a server that stops still answers what is
//! in progress, as it does at its HTTP port. The RPC port itself stays open until consensus has ended.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{ConnectInfo, Request};
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, any};
use tokio_util::task::TaskTracker;

use crate::host::stopping::Stopping;
use crate::http::{AGENT_HEADER, Api, until_taken};
use crate::raft::rpc_connections::Caller;

/// Requests of client agents that are in progress; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct AgentRequests {
    open: TaskTracker,
    stopping: Stopping,
}

impl AgentRequests {
    /// None yet, at a server that stops then.
    pub(super) fn new(stopping: Stopping) -> Self {
        Self { open: TaskTracker::new(), stopping }
    }

    /// The API as client agents reach it, which know the servers' RPC addresses only. Other clients do not
    /// belong at this port.
    pub(super) fn routes(&self, api: Api) -> MethodRouter {
        let requests = self.clone();
        any(
            async move |peer: Extension<Arc<Caller>>,
                        from: ConnectInfo<SocketAddr>,
                        request: Request| {
                let (ConnectInfo(caller), mut request) = (from, request);
                if !request.headers().contains_key(AGENT_HEADER) {
                    let text =
                        "this port is for servers and client agents; the HTTP API has its own";
                    return (StatusCode::NOT_FOUND, text).into_response();
                }
                peer.introduce();
                request.extensions_mut().insert(caller);
                requests.counted(api.answer(request)).await
            },
        )
    }

    /// Counts a request until its answer has been sent. Once the server stops, its connection ends with it,
    /// so that the agent's next request can go to another server.
    async fn counted(&self, answering: impl Future<Output = Response>) -> Response {
        let token = self.open.token();
        let mut answer = answering.await;
        if self.stopping.has_begun() {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        until_taken(answer, token)
    }

    /// Resolves when the server stops and no request is in progress any more.
    pub(super) async fn drained(&self) {
        self.stopping.begun().await;
        self.open.close();
        self.open.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Body;
    use futures_util::FutureExt as _;
    use hyper::body::Body as _;

    use super::*;
    use crate::host::clock::Clock;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_stops_waits_for_the_end_of_answers_and_closes_their_connections() {
        let stopping = Stopping::new(Clock::monotonic());
        let requests = AgentRequests::new(stopping.clone());
        let answer = || std::future::ready(Response::new(Body::from("answer")));
        let before = requests.counted(answer()).await;
        assert!(!before.headers().contains_key(CONNECTION));
        assert_eq!(before.body().size_hint().exact(), Some(6));
        drop(before);
        let drained = requests.drained();
        tokio::pin!(drained);
        assert!(drained.as_mut().now_or_never().is_none(), "it does not stop yet");
        stopping.begin();
        let last = requests.counted(answer()).await;
        assert_eq!(last.headers()[CONNECTION], "close");
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut drained).await.is_err());
        drop(last);
        drained.await;
    }
}
