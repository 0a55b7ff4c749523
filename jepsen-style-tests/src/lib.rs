//! Fault injection against real Quorate processes, and the checkers that validate what clients saw.
//!
//! This crate is the judge: it knows the product only as its users do, by the binary, its flags and
//! its HTTP API. It links none of the server's code but the client library, which its users link too. So nothing it observes can be an artefact of
//! sharing memory with what it tests.
//!
//! A test goes through four stages, and each has its modules:
//!
//! * [`cluster`] starts real `quorate server` processes (found or built by [`binary`]), each on its own loopback
//!   address, and does to them what the world does: kill, stop, pause, restart, wipe. [`process`] starts single
//!   processes with any command line.
//! * A [`workload`] is what the [`client`]s do, request by request through the client library. A [`run`] puts them
//!   under [`nemesis`] after nemesis; [`load`] gives the same traffic to a test that strikes once, at a moment of its
//!   own. A request without an answer is *unknown*: it may have taken effect, or may yet.
//! * The [`journal`] is what they write down: [requests](journal::RequestLine) and the operations of a [`history`],
//!   with the moments of their call and return on one monotonic clock, as JSON lines that an outside checker can read
//!   as well.
//! * [`checker`] decides from what was written down alone, and answers [`checker::Verdict::Vacuous`] when the run
//!   did not exercise what it claims to: a run that proves nothing must not count as passed.
//!
//! Clusters of one machine take [`turn`]s, so that plain `cargo test` with its parallel threads does not measure one
//! test's failover under another's load. Whatever happens to a test, its processes end: on drop, and by a [`guardian`]
//! if the test process itself is killed. Every wait has a [`Limit`].
//!
//! # Where tests are
//!
//! Unit tests are at the end of the file that they test, in `mod tests`; from a hundred lines on, in `tests.rs` in the
//! directory that has the file's name (`checker/lock.rs`, `checker/lock/tests.rs`). Tests that need processes are in
//! the directory `tests`, one file for each subject. Linking a program costs more than compiling a file, so the files
//! are modules of few programs:
//!
//! | program | tests |
//! | --- | --- |
//! | `faults` | clusters under faults and overload |
//! | `operation` | starts, members, identity, upgrades, backups, recovery, agents, logs |
//! | `api` | Consul's API: rules, recorded answers, a model, hostile requests, clients that others wrote |
//! | `live` | heartbeats, presence, instances, history, streams |
//! | `dashboard`, `report` | pages, in a browser |
//! | `harness`, `readme` | the command lines of this crate, the commands of the README |
//! | `client_library` | the client library and its examples |
//!
//! Name the program and the file to run one of them: `cargo test --workspace --test faults storm::`. Cargo runs one
//! program after the other, but the tests of a program side by side: there every test that starts servers waits for its
//! [`turn`] first. A test that uses the machine without a turn needs a program of its own, as `report` does.

pub mod binary;
pub mod browser;
pub mod certificates;
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
pub mod presence;
pub mod process;
pub mod raw;
pub mod record;
pub mod report;
pub mod rounds;
pub mod run;
pub mod script;
pub mod skip;
pub mod stream;
pub mod turn;
pub mod verbs;
pub mod wait;
pub mod worker;
pub mod workload;

pub use cluster::{Cluster, Options};
pub use failure::{Failure, Result};
pub use skip::skipped;
pub use wait::Limit;
