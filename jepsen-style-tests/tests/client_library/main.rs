//! The client library as its users use it, on real clusters: each area's calls once, then everything that runs by itself
//! while servers are killed, stopped and started again.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod areas;
mod claims;
mod examples;
mod faults;
mod router;
