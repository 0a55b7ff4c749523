//! Fault injection against real Quorate processes, and the checkers that judge what clients saw.
//!
//! This crate is the judge: it knows the product only as its users do, by the binary, its flags and
//! its HTTP API. It links none of the server's code but the client library, which its users link too. So nothing it observes can be an artefact of
//! sharing memory with what it tests.
//!
//! A test goes through four stages, and each has its module:
//!
//! * [`cluster`] starts real `quorate server` processes (found or built by [`binary`]), each on its
//!   own loopback address, and does to them what the world does: kill, stop, pause, restart, wipe.
//! * [`load`] sends requests the way patient clients do and writes down every one of them. A request
//!   without an answer is *unknown*: it may have taken effect, or may yet.
//! * [`history`] is what was written down: operations with the moments of their call and return on
//!   one monotonic clock, as JSON lines that an outside checker can read as well.
//! * [`checker`] decides from a history alone, and answers [`checker::Verdict::Vacuous`] when the run
//!   did not exercise what it claims to: a run that proves nothing must not count as passed.
//!
//! Clusters of one machine take [`turn`]s, so that plain `cargo test` with its parallel threads does
//! not measure one test's failover under another's load. Whatever happens to a test, its processes
//! end: on drop, and by a [`guardian`] if the test process itself is killed.

pub mod binary;
pub mod checker;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod disk;
pub mod failure;
pub mod figures;
pub mod guardian;
pub mod health;
pub mod history;
pub mod http;
pub mod journal;
pub mod judge;
pub mod load;
pub mod matrix;
pub mod mutants;
pub mod nemesis;
pub mod network;
pub mod plan;
pub mod process;
pub mod raw;
pub mod record;
pub mod report;
pub mod rounds;
pub mod run;
pub mod script;
pub mod skip;
pub mod turn;
pub mod verbs;
pub mod wait;
pub mod workload;

pub use cluster::{Cluster, Options};
pub use failure::{Failure, Result};
pub use skip::skipped;
pub use wait::Limit;
