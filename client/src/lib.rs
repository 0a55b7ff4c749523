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
//! # What there is
//!
//! * [`Client`]: several servers as one, with failover and a circuit breaker for each. [`api`] has its calls, one area to a
//!   file: `client.kv()`, `client.catalog()`, `client.health()`, `client.agent()`, `client.sessions()` and so on.
//! * [`Error`]: of each failure it says whether the request may have taken effect.
//! * [`types`] has the shapes of the JSON, one module per area of the API. One service has three of them (agent, catalogue,
//!   health), which is why they are not the records of the replicated state. The server renders the same types.
//! * [`duration`] reads and writes Go's durations.
//! * [`http`] sends requests to one server and returns answers as they come, for those who judge servers.
//!
//! # What it does not know
//!
//! Anything of how a server works: it depends on no other crate of the workspace. How strictly requests are read is the
//! server's business; here unknown members are ignored.

#![forbid(unsafe_code)]

pub mod api;
mod balancer;
mod client;
pub mod duration;
mod election;
mod error;
mod follow;
mod holding;
pub mod http;
mod lock;
mod query;
mod registration;
mod semaphore;
mod sse;
mod transport;
pub mod types;
mod watch;

pub use balancer::{Balancer, BalancerBuilder, Endpoint, Policy};
pub use client::{Client, ClientBuilder};
pub use election::{Election, Leader};
pub use error::Error;
pub use follow::{Event, Follow, FollowBuilder};
pub use holding::Held;
pub use http::{Answer, Http};
pub use lock::Lock;
pub use query::{Query, Response};
pub use registration::{Registration, RegistrationBuilder, RegistrationState, ServiceStatus};
pub use reqwest::Method;
pub use semaphore::Semaphore;
pub use tokio_util::sync::CancellationToken;
pub use watch::{Trouble, Watch, WatchBuilder};
