//! An instance that answers one query at a time, and is lent out by the cluster: `query_router` claims it.
//!
//!     QUORATE_HTTP_ADDR=http://127.0.0.1:8500,http://127.0.0.1:8510 cargo run --example query_service -- rdb 8081
//!
//! `GET /query/TEXT?ms=30` works for that long. A query with a smaller fence than the largest one that came is
//! refused: whoever sent it has lost its claim.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::routing::get;
use quorate_client::Client;
use tokio::net::TcpListener;

/// What the instance knows of its queries.
#[derive(Default)]
struct Work {
    id: String,
    running: AtomicUsize,
    highest_fence: AtomicU64,
}

/// A query that runs; it ends with its connection, too.
struct Running<'a>(&'a Work);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn query(
    State(work): State<Arc<Work>>,
    Path(text): Path<String>,
    RawQuery(parameters): RawQuery,
) -> (StatusCode, String) {
    let parameters = parameters.unwrap_or_default();
    let (ms, fence) = (number(&parameters, "ms"), number(&parameters, "fence"));
    if work.highest_fence.fetch_max(fence, Ordering::SeqCst) > fence {
        return (StatusCode::CONFLICT, "the claim is over\n".to_owned());
    }
    if work.running.fetch_add(1, Ordering::SeqCst) > 0 {
        println!("two at a time: {text}");
    }
    let running = Running(&work);
    tokio::time::sleep(Duration::from_millis(ms)).await;
    drop(running);
    (StatusCode::OK, format!("{text} answered by {}\n", work.id))
}

/// A parameter of a query; 0 if it is not there.
fn number(parameters: &str, name: &str) -> u64 {
    let mut pairs = parameters.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "rdb".to_owned());
    let port: u16 = arguments.next().unwrap_or_else(|| "0".to_owned()).parse()?;

    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let port = listener.local_addr()?.port();
    let client = Client::from_env()?;
    let registration = client
        .register(&name)
        .address("127.0.0.1")
        .port(port)
        .meta("slots", "1")
        .by_presence()
        .await?;
    let id = registration.id().to_owned();
    println!("registered {id} at 127.0.0.1:{port}");
    let work = Arc::new(Work { id, ..Work::default() });
    axum::serve(listener, Router::new().route("/query/{text}", get(query)).with_state(work))
        .await?;
    Ok(())
}
