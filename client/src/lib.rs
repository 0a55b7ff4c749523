//! Consul's JSON types, and a small async client over several servers.
//!
//! # What this crate is for
//!
//! The server renders these types and reads request bodies into them; tests, the command line and
//! the fault-injection harness talk to servers with the [`Client`]. So there is one description of
//! what goes over the wire, used in both directions.
//!
//! * [`types`] has the shapes, one module per area of the API. One service has three of them there
//!   (agent, catalogue, health), which is why they are not the records of the replicated state.
//! * [`duration`] reads and writes Go's durations.
//! * [`http`] sends requests to one server and returns answers as they come; of each failure it says whether the
//!   request may have taken effect.
//! * [`client`] does the same with several servers and with types.
//!
//! # What it does not know
//!
//! Anything of how a server works: it depends on no other crate of the workspace.

#![forbid(unsafe_code)]

pub mod client;
pub mod duration;
mod error;
pub mod http;
pub mod types;

pub use client::{Client, ClientBuilder, Query, Response, Written};
pub use error::Error;
pub use http::{Answer, Http};
pub use reqwest::Method;
