//! A gateway that hands each query to an idle instance, which has it alone; users wait in line, first come first served.
//!
//!     cargo run --example query_service -- rdb 8081 &
//!     cargo run --example query_service -- rdb 8082 &
//!     cargo run --example query_router -- rdb 8080 gateway-1 &
//!     curl 'localhost:8080/query/trades?ms=100'
//!
//! Any number of gateways share the instances: the line and the holders are the cluster's. An answer is tagged with the
//! number of its grant. `503 Service Unavailable`: nothing is registered, or all were busy for too long. `502 Service
//! Disconnect`: the instance died at work; only the user knows whether the query may be sent again. A user that leaves
//! while it waits frees its place, and a gateway that dies frees its instances after its claims' TTL.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::routing::get;
use quorate_client::{Claim, Client};
use tokio::net::TcpListener;
use tokio::time::timeout;

/// How long a user waits in line.
const WAIT: Duration = Duration::from_secs(60);
/// How long the instances of a gateway that has died stay claimed.
const TTL: Duration = Duration::from_secs(3);
/// The cluster knows within this that an instance has died.
const NOTICED_WITHIN: Duration = Duration::from_secs(5);
/// How many instances that cannot be reached a query is tried at.
const TRIES_MAX: usize = 5;

/// What a user gets.
type Answer = (StatusCode, String);

struct Gateway {
    client: Client,
    http: reqwest::Client,
    service: String,
    name: String,
}

/// What became of a query at an instance.
enum Outcome {
    Answered(Answer),
    /// It was never sent.
    NotReached,
}

impl Gateway {
    async fn answer(self: Arc<Self>, uri: Uri) -> Answer {
        let unavailable =
            |why: &str| (StatusCode::SERVICE_UNAVAILABLE, format!("Service Unavailable: {why}\n"));
        for _ in 0..TRIES_MAX {
            // If the user leaves meanwhile, this ends with its connection, and so does its place in line.
            let claim = self.client.claim(&self.service).holder(&self.name).wait(WAIT).ttl(TTL);
            let claim = match claim.acquire().await {
                Ok(Some(claim)) => claim,
                Ok(None) => return unavailable("all instances are busy"),
                Err(error) => return unavailable(&error.with_causes()),
            };
            // From here on the instance may be at work: what it does ends before its claim, even if the user leaves.
            let (gateway, uri) = (Arc::clone(&self), uri.clone());
            let work = tokio::spawn(async move { gateway.forward(claim, &uri).await });
            match work.await {
                Ok(Outcome::Answered(answer)) => return answer,
                Ok(Outcome::NotReached) => {}
                Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            }
        }
        unavailable("no instance can be reached")
    }

    async fn forward(&self, claim: Claim, uri: &Uri) -> Outcome {
        let grant = claim.grant();
        let (seq, place) = (grant.seq, (grant.instance.address.clone(), grant.instance.port));
        let query = uri.query().unwrap_or_default();
        let target =
            format!("http://{}:{}{}?{query}&fence={}", place.0, place.1, uri.path(), grant.fence);
        let sent = async { self.http.get(target).send().await?.error_for_status()?.text().await };
        let told = tokio::select! {
            told = sent => told.map_err(|error| (error.is_connect(), error.to_string())),
            reason = claim.lost() => Err((false, reason)),
        };
        match told {
            Ok(text) => {
                if let Err(error) = claim.release().await {
                    eprintln!("not released: {}", error.with_causes());
                }
                Outcome::Answered((StatusCode::OK, format!("{seq} {text}")))
            }
            Err((is_not_reached, why)) => {
                tokio::spawn(keep_off(claim));
                if is_not_reached {
                    return Outcome::NotReached;
                }
                let text = format!("Service Disconnect: {seq} {why}\n");
                Outcome::Answered((StatusCode::BAD_GATEWAY, text))
            }
        }
    }
}

/// Keeps the others off an instance that does not answer until the cluster knows as well.
async fn keep_off(claim: Claim) {
    if timeout(NOTICED_WITHIN, claim.lost()).await.is_err()
        && let Err(error) = claim.release().await
    {
        eprintln!("not released: {}", error.with_causes());
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let service = arguments.next().unwrap_or_else(|| "rdb".to_owned());
    let port: u16 = arguments.next().unwrap_or_else(|| "0".to_owned()).parse()?;
    let name = arguments.next().unwrap_or_else(|| "gateway".to_owned());

    let client = Client::from_env()?;
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build()?;
    let gateway = Arc::new(Gateway { client, http, service, name });
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening at {}", listener.local_addr()?);
    let query =
        |State(gateway): State<Arc<Gateway>>, uri: Uri| async move { gateway.answer(uri).await };
    axum::serve(listener, Router::new().route("/query/{text}", get(query)).with_state(gateway))
        .await?;
    Ok(())
}
