//! An asynchronous client of Quorate, and Consul's JSON types.
//!
//! # Five minutes
//!
//! ```no_run
//! # async fn example() -> Result<(), quorate_client::Error> {
//! use quorate_client::{Client, Query};
//!
//! // QUORATE_HTTP_ADDR=http://127.0.0.1:8500,http://127.0.0.1:8510,http://127.0.0.1:8520
//! let client = Client::from_env()?;
//!
//! client.kv().put("config/colour", "green").await?;
//! let passing = client.health().service("web", &Query::new().passing()).await?;
//! println!("{} instances of web, at index {:?}", passing.value.len(), passing.index);
//! # Ok(())
//! # }
//! ```
//!
//! A process that is found by others, finds others, and leaves properly:
//!
//! ```no_run
//! # async fn example() -> Result<(), quorate_client::Error> {
//! use quorate_client::Client;
//!
//! let client = Client::from_env()?;
//! let registration = client.register("gateway").port(8080).by_presence().await?;
//! let databases = client.balancer("db").start()?;
//!
//! let endpoint = databases.ready().await?;
//! println!("{} calls {endpoint}", registration.id());
//!
//! client.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! `client/examples` has whole programs.
//!
//! # What there is
//!
//! * [`Client`]: several servers as one, with failover and a circuit breaker for each. [`api`] has its calls, one area to a
//!   file: `client.kv()`, `client.catalog()`, `client.health()`, `client.agent()`, `client.sessions()` and so on.
//! * [`Registration`]: an instance that stays registered while its process lives, by heartbeats or by a connection.
//! * [`Watch`]: a value that stays current, by blocking queries. [`Follow`]: every change, exactly once and in order.
//! * [`Lock`], [`Semaphore`] and [`Election`]: something [`Held`], with a fencing token.
//! * [`Balancer`]: which instance to call next. [`Claim`]: one that nobody else has meanwhile.
//! * [`Error`]: of each failure it says whether the request may have taken effect.
//! * [`types`] has the shapes of the JSON, one module per area of the API. One service has three of them (agent, catalogue,
//!   health), which is why they are not the records of the replicated state. The server renders the same types.
//! * [`duration`] reads and writes Go's durations.
//! * [`http`] sends requests to one server and returns answers as they come, for those who judge servers.
//!
//! # How it is built
//!
//! `transport` decides which server gets a request, and whether one that failed may go to another. What runs by itself
//! (registrations, watches, streams, holders of locks) is a task of the client: each is built on calls, and looks at the
//! client's token, so that [`Client::shutdown`] ends all of them and waits for it. A task that waits at a server looks twice or
//! three times in its patience whether that server is still ready, because one that is stopped waits just as quietly.
//!
//! # What it does not know
//!
//! Anything of how a server works: it depends on no other crate of the workspace. How strictly requests are read is the
//! server's business; here unknown members are ignored.

#![forbid(unsafe_code)]

pub mod api;
mod balancer;
mod claim;
mod client;
pub mod duration;
mod election;
mod error;
mod follow;
mod holding;
pub mod http;
mod keeping;
mod lock;
mod query;
mod registration;
mod semaphore;
mod sse;
mod tls;
mod transport;
pub mod types;
mod watch;

pub use balancer::{Balancer, BalancerBuilder, Endpoint, Policy};
pub use claim::{Claim, ClaimBuilder};
pub use client::{Client, ClientBuilder};
pub use election::{Election, Leader};
pub use error::Error;
pub use follow::{Event, Follow, FollowBuilder};
pub use holding::Held;
pub use http::{Answer, Http, REASON_HEADER};
pub use lock::Lock;
pub use query::{Query, Response};
pub use registration::{Registration, RegistrationBuilder, RegistrationState, ServiceStatus};
pub use reqwest::Method;
pub use semaphore::Semaphore;
pub use tokio_util::sync::CancellationToken;
pub use watch::{Trouble, Watch, WatchBuilder};
